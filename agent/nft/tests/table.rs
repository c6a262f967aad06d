//! The table as other programs see it, what they do to it, and what we see of that.

mod common;

use std::time::Duration;

use common::*;
use serde_json::Value;
use thinlane_model::{Limits, Protocol};
use thinlane_nft::{BaseConfig, DeniedLog, Direction, Event, Finding, Lane, Nft, Watch};

/// The table as the nft program writes it, without what changes from run to run.
fn listing(namespace: &Namespace) -> String {
    let text = namespace.exec("nft -s list table inet thinlane");
    let cut = |line: &str| match line.find(" expires ") {
        Some(at) => format!("{} {}", &line[..at], line[at..].split_once(':').map_or("", |(_, rest)| rest.trim_start())),
        None => line.to_owned(),
    };
    text.lines().map(|line| cut(line) + "\n").collect()
}

fn limited(protocol: Protocol) -> Lane {
    Lane { limits: Limits { packets_per_second: Some(100), connections: Some(2) }, ..lane(protocol) }
}

#[test]
fn the_nft_program_reads_what_is_meant() {
    let lab = Namespace::new("golden");
    let mut nft = lab.open();
    let config = BaseConfig { guard_lan_forwarding: true, ..config() };
    let mut plain = lane(Protocol::Udp);
    plain.session = session(2);
    plain.tuple.engineer = OTHER_ENGINEER;
    plain.tuple.destination = plain.tuple.address;
    plain.keep_source = true;
    plain.iface = "tl-ses00000".to_owned();
    nft.install_base(&config, &[limited(Protocol::Tcp), plain]).expect("the base");
    let found = listing(&lab);
    let golden = include_str!("golden/table.nft");
    assert!(found == golden, "the listing is now:\n{found}");
}

#[test]
fn the_listing_loads_as_it_stands() {
    let lab = Namespace::new("load");
    let mut nft = lab.open();
    nft.install_base(&config(), &[limited(Protocol::Tcp)]).expect("the base");
    let text = lab.exec("nft list table inet thinlane");
    nft.remove().expect("remove");
    // This version of nft does not read the interval that it prints for maps.
    let text: String =
        text.lines().filter(|line| !line.contains("gc-interval")).map(|line| format!("{line}\n")).collect();
    lab.nft(&text);
}

fn tables(namespace: &Namespace) -> Vec<String> {
    let text = namespace.exec("nft -j list tables");
    let value: Value = serde_json::from_str(&text).expect("JSON");
    let names = value["nftables"].as_array().expect("a list").iter().filter_map(|it| it["table"]["name"].as_str());
    names.map(str::to_owned).collect()
}

#[test]
fn other_tables_stay_whatever_happens_to_ours() {
    let lab = Namespace::new("foreign");
    lab.nft(
        "table inet fw4 {\n chain forward {\n type filter hook forward priority 0; policy accept; counter\n }\n }\n
             table ip thinlane {\n chain mine {\n counter\n }\n }\n",
    );
    let before = (lab.exec("nft list table inet fw4"), lab.exec("nft list table ip thinlane"));
    let mut nft = lab.open();
    nft.remove().expect("there is nothing to remove");
    nft.install_base(&config(), &[]).expect("the base");
    nft.install_base(&config(), &[lane(Protocol::Tcp)]).expect("the base again");
    nft.close_lane(session(1)).expect("close");
    assert_eq!(tables(&lab).len(), 3);
    nft.remove().expect("remove");
    nft.remove().expect("remove again");
    assert_eq!(tables(&lab), ["fw4", "thinlane"]);
    assert_eq!(before, (lab.exec("nft list table inet fw4"), lab.exec("nft list table ip thinlane")));
}

#[test]
fn a_batch_whose_last_command_fails_changes_nothing() {
    let lab = Namespace::new("atomic");
    let mut nft = lab.open();
    nft.install_base(&config(), &[]).expect("the base");
    // The element of `up` comes last in a lane's batch: let it be there already.
    lab.nft(&format!("add element inet thinlane up {{ \"tl0\" . {ENGINEER} timeout 1m : drop }}"));
    let before = listing(&lab);
    let error = nft.open_lane(&limited(Protocol::Tcp)).expect_err("the key is taken");
    assert_eq!(error.errno(), Some(libc::EEXIST), "{error}");
    assert!(error.to_string().contains("element of up"), "{error}");
    assert_eq!(listing(&lab), before);
    let both = [lane(Protocol::Tcp), Lane { session: session(2), ..lane(Protocol::Tcp) }];
    nft.install_base(&config(), &both).expect_err("two lanes of one engineer");
    assert_eq!(listing(&lab), before, "the old table stands");
}

#[test]
fn what_others_change_is_found() {
    let lab = Namespace::new("drift");
    let mut nft = lab.open();
    let lanes = [limited(Protocol::Tcp)];
    let install = |nft: &mut Nft| {
        nft.install_base(&config(), &lanes).expect("the base");
        assert_eq!(nft.verify(&config(), &lanes).expect("verify").findings, []);
    };
    let name = |role: &str| format!("lane-{}-{role}", session(1).short());
    let up = name("up");
    let text = |text: &str| text.to_owned();
    let cases: Vec<(String, Finding)> = vec![
        (text("insert rule inet thinlane from-lane accept"), Finding::RulesChanged(text("from-lane"))),
        (format!("insert rule inet thinlane {up} tcp dport 22 accept"), Finding::RulesChanged(up.clone())),
        (text("flush chain inet thinlane forward-up"), Finding::RulesChanged(text("forward-up"))),
        (text("add chain inet thinlane mine"), Finding::ChainUnknown(text("mine"))),
        (text("add set inet thinlane mine { type ipv4_addr; }"), Finding::SetUnknown(text("mine"))),
        (text("add table inet thinlane { flags dormant; }"), Finding::TableFlags(1)),
        (text("add element inet thinlane lan { \"wan0\" }"), Finding::ElementsChanged(text("lan"))),
        (text("flush set inet thinlane allowed"), Finding::ElementsChanged(text("allowed"))),
        (text("flush map inet thinlane up"), Finding::LaneExpired(session(1))),
        (
            format!("add element inet thinlane down {{ \"tl0\" . 198.19.0.9 timeout 0s : goto {up} }}"),
            Finding::LaneEndless(session(1)),
        ),
        (
            text("add element inet thinlane up { \"tl0\" . 198.19.0.9 timeout 9s : accept }"),
            Finding::ElementsChanged(text("up")),
        ),
        (text("delete table inet thinlane"), Finding::TableMissing),
    ];
    for (change, finding) in cases {
        install(&mut nft);
        lab.nft(&change);
        let drift = nft.verify(&config(), &lanes).expect("verify");
        assert!(drift.findings.contains(&finding), "{change}: {:?}", drift.findings);
    }
    install(&mut nft);
    let drift = nft.verify(&config(), &[]).expect("verify");
    assert!(drift.findings.contains(&Finding::LaneUnknown(session(1))), "{:?}", drift.findings);
}

#[test]
fn a_flush_is_seen_and_our_own_changes_are_not() {
    let lab = Namespace::new("watch");
    let mut nft = lab.open();
    let port = nft.port();
    let mut watch = lab.within(move || Watch::open([port]).expect("watch"));
    nft.install_base(&config(), &[lane(Protocol::Tcp)]).expect("the base");
    nft.close_lane(session(1)).expect("close");
    assert_eq!(watch.next(Duration::from_millis(200)).expect("watch"), None);
    let mut next = || watch.next(Duration::from_secs(2)).expect("watch");
    lab.nft("add table inet other");
    assert_eq!(next(), Some(Event::OtherRulesetChange));
    lab.nft("add element inet thinlane lan { \"wan0\" }");
    assert_eq!(next(), Some(Event::ThinlaneChanged));
    lab.nft("flush ruleset");
    let mut seen = Vec::new();
    while let Some(event) = watch.next(Duration::from_millis(300)).expect("watch") {
        seen.push(event);
    }
    assert!(seen.contains(&Event::ThinlaneTableGone), "{seen:?}");
    nft.install_base(&config(), &[]).expect("the base");
    assert_eq!(watch.next(Duration::from_millis(200)).expect("watch"), None);
}

#[test]
fn refused_packets_are_logged_with_their_session() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    let mut log = lab.router.within(|| DeniedLog::open(GROUP).expect("log"));
    nft.open_lane(&Lane { keep_source: true, ..lane(Protocol::Tcp) }).expect("the lane");
    let mut next = || log.next(Duration::from_secs(2)).expect("log").expect("a packet");
    assert_eq!(tcp(&lab.engineer, ENGINEER, OVERLAY, 80), Outcome::Reset);
    let packet = next();
    assert_eq!((packet.session, packet.direction), (Some(session(1)), Direction::Up));
    assert_eq!((packet.source, packet.destination), (ENGINEER.into(), OVERLAY.into()));
    assert_eq!((packet.protocol, packet.destination_port, packet.length), (6, Some(80), 60));
    assert_eq!(udp(&lab.device, DEVICE, ENGINEER, 53), Outcome::Silence);
    let packet = next();
    assert_eq!(
        (packet.session, packet.direction, packet.destination_port),
        (Some(session(1)), Direction::Down, Some(53))
    );
    assert_eq!(udp(&lab.engineer, OTHER_ENGINEER, OVERLAY, PORT), Outcome::Silence);
    let packet = next();
    assert_eq!((packet.session, packet.source), (None, OTHER_ENGINEER.into()));
    assert!(!ping(&lab.engineer, "fd00::1", "fd01::10"));
    let packet = next();
    assert_eq!((packet.session, packet.protocol, packet.destination_port), (None, 58, None));
    assert_eq!(log.lost(), 0);
}

#[test]
fn a_flood_of_refused_packets_is_counted_whole_and_logged_in_part() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    let mut log = lab.router.within(|| DeniedLog::open(GROUP).expect("log"));
    nft.open_lane(&lane(Protocol::Tcp)).expect("the lane");
    lab.engineer.within(|| {
        let socket = std::net::UdpSocket::bind((ENGINEER, 0)).expect("bind");
        (0..2000).for_each(|_| _ = socket.send_to(b"x", (OVERLAY, 9)).expect("send"));
    });
    assert_eq!(nft.lanes().expect("state")[0].denied_packets, 2000);
    let mut logged = 0;
    while log.next(Duration::from_millis(300)).expect("log").is_some() {
        logged += 1;
    }
    assert!((10..60).contains(&logged), "{logged}");
}

#[test]
fn the_lan_stays_as_closed_as_it_was_when_the_agent_switched_forwarding_on() {
    let lab = Lab::new();
    lab.router.ip("link add wan0 type veth peer name wan1");
    lab.router.ip("addr add 203.0.113.1/24 dev wan0");
    lab.router.ip("link set wan0 up");
    lab.router.ip("link set wan1 up");
    serve(&lab.device, PORT);
    let mut nft = lab.router.open();
    let guarded = BaseConfig { guard_lan_forwarding: true, ..config() };
    nft.install_base(&guarded, &[lane(Protocol::Udp)]).expect("the base");
    lab.router.nft(
        "table inet sent {\n counter to-wan { }\n chain out {\n type filter hook postrouting priority 0; policy accept;
        oifname \"wan0\" udp dport 9 counter name \"to-wan\"\n }\n }\n",
    );
    let sent = || lab.router.exec("nft list counter inet sent to-wan").contains("packets 5");
    let send = || {
        lab.device.within(|| {
            let socket = std::net::UdpSocket::bind((DEVICE, 0)).expect("bind");
            (0..5).for_each(|_| _ = socket.send_to(b"x", ("203.0.113.9", 9)).expect("send"));
        })
    };
    lab.router.ip("neigh add 203.0.113.9 lladdr 02:00:00:00:00:09 dev wan0");
    send();
    assert!(!sent());
    assert_eq!(nft.base_state().expect("counters").guarded_packets, 5);
    assert_eq!(udp(&lab.engineer, ENGINEER, OVERLAY, PORT), Outcome::Answered);
    nft.install_base(&config(), &[]).expect("the base without guard");
    send();
    assert!(sent(), "without the guard it is forwarded");
}

#[test]
fn large_tcp_segments_are_clamped_in_both_directions() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    serve(&lab.device, PORT);
    nft.open_lane(&lane(Protocol::Tcp)).expect("the lane");
    let stream = lab.engineer.within(|| {
        let mut stream = connect(ENGINEER, 0, OVERLAY, PORT).expect("connect");
        exchange(&mut stream).expect("an answer");
        stream
    });
    let size = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::TcpMaxSeg).expect("TCP_MAXSEG");
    assert!(size <= 1240, "{size}");
    let device = lab.device.exec(&format!("ss -tniH sport = :{PORT}"));
    let mss = device.split("mss:").nth(1).and_then(|rest| rest.split_ascii_whitespace().next());
    let mss: u32 = mss.and_then(|mss| mss.parse().ok()).expect("a connection with a size");
    assert!(mss <= 1240, "{mss}");
}

#[test]
fn no_flowtable_is_reported_where_there_is_none() {
    let lab = Namespace::new("flowtables");
    assert_eq!(lab.open().flowtables().expect("an answer"), []);
}

#[test]
#[ignore = "needs a kernel with nf_flow_table: run it in the emulated machine"]
fn a_flowtable_of_any_table_is_found_with_its_devices() {
    let lab = Lab::new();
    let mut nft = lab.nft();
    lab.router.nft("table ip fast {\n flowtable ft {\n hook ingress priority 0; devices = { lan0, tl0 };\n }\n }\n");
    let found = nft.flowtables().expect("an answer");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].table.as_str(), found[0].name.as_str(), found[0].family), ("fast", "ft", 2));
    let mut devices = found[0].devices.clone();
    devices.sort();
    assert_eq!(devices, ["lan0", "tl0"]);
}
