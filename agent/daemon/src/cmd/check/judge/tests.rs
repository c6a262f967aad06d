//! What is expected of `judge`, as tests: a gateway on which all is well, changed in one thing at a time.

use std::net::Ipv4Addr;

use thinlane_doctor::{Name, NetworkFacts, RelayFact, Severity, Validity, Way};
use thinlane_nft::{Flowtable, ForeignChain, Hook, Passes, Ruling};
use thinlane_wire::api::Schema;

use super::super::facts::Missing;
use super::*;

fn interface(name: &str, address: [u8; 4]) -> Interface {
    Interface {
        name: name.into(),
        up: true,
        running: true,
        addresses: vec![(Ipv4Addr::from(address), 24)],
        addresses_v6: Vec::new(),
        mtu: Some(1500),
    }
}

fn status() -> Status {
    Status {
        schema: Schema,
        version: "0.1.0".into(),
        site: "north".parse().expect("a name"),
        controller: "192.0.2.1:7443".parse().expect("an endpoint"),
        channel: "up".into(),
        channel_problem: None,
        backend: "userspace".into(),
        backend_reason: None,
        offload: None,
        ready: true,
        why_not_ready: None,
        ruleset: true,
        isolated: false,
        lanes: Vec::new(),
        spooled: 0,
        generation: 1,
        started_at: Wall::from_millis(0),
        certificate_expires_at: Wall::from_millis(0),
        clock_offset_ms: Some(10),
        goodbye: None,
        lan: Vec::new(),
        log_size: None,
        log_problem: None,
    }
}

const DAY: u64 = 86_400_000;

fn certificate(left: u64) -> Certificate {
    let now = Wall::from_millis(1_800_000_000_000);
    let not_after = now + Span::from_millis(left);
    Certificate { not_before: not_after - Span::from_millis(90 * DAY), not_after, now }
}

fn well() -> Facts {
    let controller = status().controller;
    Facts {
        enrolment: Enrolment::Yes { site: status().site, controller: controller.clone() },
        config_problem: None,
        privilege: None,
        daemon: Daemon::Runs(Box::new(status())),
        isolated: false,
        lan: vec![Lan {
            name: "lan".into(),
            interface: Some(interface("lan", [192, 168, 1, 1])),
            forwards: Some(true),
        }],
        lan_named: true,
        kernel: Kernel { conntrack: true, tun: true, wireguard: true, ..Kernel::default() },
        disks: vec![Disk {
            path: "/var/lib/thinlane".into(),
            unwritable: None,
            free: Some(50_000_000),
            in_memory: false,
            run: false,
        }],
        certificate: Some(certificate(60 * DAY)),
        network: Some(NetworkFacts {
            controller,
            default_route: true,
            interfaces: vec![interface("wwan0", [100, 64, 1, 2]), interface("lan", [192, 168, 1, 1])],
            name: Name::Address,
            way: Some(Way { interface: Some("wwan0".into()), source: [100, 64, 1, 2].into(), mtu: Some(1500) }),
            contact: Contact::Answers {
                version: "0.1.0".into(),
                offset_ms: 10,
                round_trip_ms: 30,
                validity: Validity::Good,
            },
            relay: RelayFact::Answers {
                relay: "192.0.2.1:7443".parse().expect("an address"),
                round_trip_ms: 30,
                seen_from: "203.0.113.20:4711".parse().expect("an address"),
                largest: 1500,
                tried: 1500,
                fragments: None,
            },
            pools: vec!["198.18.0.0/16".parse().expect("a pool")],
        }),
        admission: None,
    }
}

fn codes(facts: &Facts) -> Vec<(Severity, &'static str)> {
    findings(facts).into_iter().map(|finding| (finding.severity, finding.code)).collect()
}

/// What one change brings up.
fn with(change: impl FnOnce(&mut Facts)) -> Vec<(Severity, &'static str)> {
    let mut facts = well();
    change(&mut facts);
    codes(&facts)
}

fn with_status(change: impl FnOnce(&mut Status)) -> Vec<(Severity, &'static str)> {
    with(|facts| {
        let mut status = status();
        change(&mut status);
        facts.daemon = Daemon::Runs(Box::new(status));
    })
}

use Severity::{Note, Problem, Warning};

#[test]
fn a_gateway_on_which_all_is_well_is_told_nothing() {
    assert_eq!(codes(&well()), []);
}

#[test]
fn who_the_gateway_is_comes_first() {
    assert_eq!(with(|facts| facts.enrolment = Enrolment::Damaged("no key".into())), [(Problem, "identity-damaged")]);
    let bare = with(|facts| {
        facts.enrolment = Enrolment::No;
        facts.daemon = Daemon::Stopped;
        facts.network = None;
        facts.certificate = None;
    });
    assert_eq!(bare, [(Problem, "not-enrolled")], "and not that nothing runs");
    assert_eq!(with(|facts| facts.daemon = Daemon::Stopped), [(Warning, "agent-not-running")]);
    assert_eq!(with(|facts| facts.daemon = Daemon::Mute("x".into())), [(Problem, "agent-mute")]);
    assert_eq!(with(|facts| facts.config_problem = Some("line 2: x".into())), [(Problem, "configuration-wrong")]);
    assert_eq!(with(|facts| facts.isolated = true), [(Warning, "isolated")]);
}

#[test]
fn why_the_controller_hung_up_is_told_by_its_word() {
    for (word, expected) in [
        ("frozen", (Problem, "clone-alarm")),
        ("revoked", (Problem, "certificate-revoked")),
        ("replaced", (Warning, "channel-replaced")),
        ("protocol", (Problem, "protocol-refused")),
        ("shutting-down", (Warning, "channel-down")),
    ] {
        let found = with_status(|status| {
            status.channel = "waiting".into();
            status.goodbye = Some(word.into());
        });
        assert_eq!(found, [expected], "{word}");
    }
    let stale = with_status(|status| status.goodbye = Some("frozen".into()));
    assert_eq!(stale, [], "the channel is up again");
}

#[test]
fn a_certificate_that_the_controller_does_not_take_is_told_from_a_revoked_one_and_each_is_told_once() {
    let away = |reason| Some(Admission::TurnedAway { reason, detail: "unknown ca".into() });
    let down = |reason: Option<GoodbyeReason>, goodbye: Option<&str>| {
        with(|facts| {
            let mut status = status();
            status.channel = "waiting".into();
            status.goodbye = goodbye.map(str::to_owned);
            facts.daemon = Daemon::Runs(Box::new(status));
            facts.admission = away(reason);
        })
    };
    assert_eq!(down(None, None), [(Problem, "certificate-refused")]);
    assert_eq!(down(Some(GoodbyeReason::Revoked), None), [(Problem, "certificate-revoked")]);
    assert_eq!(down(Some(GoodbyeReason::Revoked), Some("revoked")), [(Problem, "certificate-revoked")]);
}

#[test]
fn a_certificate_is_judged_by_how_much_of_its_life_is_left() {
    for (left, expected) in [
        (31 * DAY, vec![]),
        (14 * DAY, vec![(Warning, "certificate-near-end")]),
        (0, vec![(Problem, "certificate-expired")]),
    ] {
        assert_eq!(with(|facts| facts.certificate = Some(certificate(left))), expected, "{left} ms left");
    }
}

#[test]
fn each_fault_of_a_lan_interface_has_its_own_name() {
    let lan = |change: fn(&mut Lan)| with(|facts| change(&mut facts.lan[0]));
    assert_eq!(lan(|lan| lan.interface = None), [(Problem, "lan-missing")]);
    let of = |lan: &mut Lan, act: fn(&mut Interface)| lan.interface.iter_mut().for_each(act);
    assert_eq!(with(|facts| of(&mut facts.lan[0], |it| it.up = false)), [(Problem, "lan-down")]);
    assert_eq!(with(|facts| of(&mut facts.lan[0], |it| it.running = false)), [(Problem, "lan-down")]);
    assert_eq!(with(|facts| of(&mut facts.lan[0], |it| it.addresses.clear())), [(Problem, "lan-no-address")]);
    assert_eq!(lan(|lan| lan.forwards = Some(false)), [(Problem, "forwarding-off")]);
    assert_eq!(with(|facts| facts.kernel.lanes_do_not_forward = true), [(Problem, "forwarding-off")]);
    let unnamed = with(|facts| (facts.lan, facts.lan_named) = (Vec::new(), false));
    assert_eq!(unnamed, [(Note, "lan-not-named")]);
}

#[test]
fn what_the_kernel_lacks_is_named_and_a_missing_module_costs_only_time() {
    assert_eq!(with(|facts| facts.kernel.lacks = Some("x".into())), [(Problem, "kernel-feature-missing")]);
    assert_eq!(with(|facts| facts.kernel.tun = false), [(Problem, "kernel-feature-missing")]);
    assert_eq!(with(|facts| facts.kernel.conntrack = false), [(Problem, "kernel-feature-missing")]);
    assert_eq!(with(|facts| facts.kernel.wireguard = false), [(Note, "no-wireguard-module")]);
    let kernel = with(|facts| {
        let mut status = status();
        status.backend = "kernel".into();
        facts.daemon = Daemon::Runs(Box::new(status));
        facts.kernel.wireguard = false;
    });
    assert_eq!(kernel, [], "it is there after all");
    let nobody = with(|facts| {
        let missing =
            Missing { what: "no right to change the network here (CAP_NET_ADMIN)".into(), next: "root".into() };
        facts.privilege = Some(missing);
        (facts.kernel.conntrack, facts.kernel.tun) = (false, false);
        facts.kernel.lacks = Some("operation not permitted".into());
    });
    assert_eq!(nobody, [(Problem, "no-privilege")], "what follows from it is not told");
}

#[test]
fn a_flowtable_counts_where_it_touches_the_lan_or_a_lane() {
    let table =
        |device: &str| Flowtable { table: "fw4".into(), family: 1, name: "ft".into(), devices: vec![device.into()] };
    assert_eq!(with(|facts| facts.kernel.flowtables = vec![table("lan")]), [(Problem, "flow-offload")]);
    assert_eq!(with(|facts| facts.kernel.flowtables = vec![table("tl0")]), [(Problem, "flow-offload")]);
    assert_eq!(with(|facts| facts.kernel.flowtables = vec![table("guest")]), []);
    let through_a_port = with(|facts| {
        facts.kernel.flowtables = vec![table("port1")];
        facts.kernel.lan_parts = ["lan", "port1"].map(str::to_owned).into();
    });
    assert_eq!(through_a_port, [(Problem, "flow-offload")], "a bridge's port is the LAN too");
    assert_eq!(with(|facts| facts.kernel.fast_paths = vec!["mtkhnat"]), [(Warning, "vendor-offload")]);
    let both = with(|facts| {
        let mut status = status();
        status.why_not_ready =
            Some("flow offload (flowtable ft of table fw4) would carry lanes past their rules".into());
        facts.daemon = Daemon::Runs(Box::new(status));
        facts.kernel.flowtables = vec![table("lan")];
    });
    assert_eq!(both, [(Problem, "flow-offload")], "once");
    assert_eq!(with_status(|status| status.why_not_ready = Some("no device".into())), [(Problem, "not-ready")]);
}

#[test]
fn another_table_is_blamed_only_where_it_surely_drops() {
    let chain = |passes, hook| ForeignChain {
        table: "fw4".into(),
        family: 1,
        chain: "forward".into(),
        hook,
        passes,
        rule: None,
        lost: false,
    };
    let forward = |passes| chain(passes, Hook::Forward);
    assert_eq!(with(|facts| facts.kernel.foreign = vec![forward(Passes::No)]), [(Problem, "firewall-drops")]);
    assert_eq!(
        with(|facts| facts.kernel.foreign = vec![chain(Passes::No, Hook::Input)]),
        [(Problem, "firewall-drops")]
    );
    assert_eq!(with(|facts| facts.kernel.foreign = vec![forward(Passes::Yes)]), []);
    assert_eq!(with(|facts| facts.kernel.foreign = vec![forward(Passes::Unclear)]), [(Note, "firewall-unread")]);
    assert_eq!(with(|facts| facts.kernel.foreign_unread = Some("no answer".into())), [(Note, "firewall-unread")]);
    let rule = Ruling { chain: "zone".into(), handle: 7, text: "tcp dport 7 drop".into() };
    let mut facts = well();
    facts.kernel.foreign = vec![ForeignChain { rule: Some(rule), ..forward(Passes::MayDrop) }];
    let found = findings(&facts);
    assert_eq!((found.len(), found[0].severity, found[0].code), (1, Warning, "firewall-may-drop"));
    assert!(
        found[0].message.ends_with("by rule 7 of chain zone (reached from chain forward): tcp dport 7 drop."),
        "{found:?}"
    );
    assert!(found[0].next.contains("nft -a list chain inet fw4 zone."), "{found:?}");
    assert_eq!(with(|facts| facts.kernel.legacy_rules = true), [(Note, "legacy-firewall")]);
}

#[test]
fn a_full_a_small_and_a_read_only_disk_are_told_apart() {
    let disk = |change: fn(&mut Disk)| with(|facts| change(&mut facts.disks[0]));
    assert_eq!(disk(|disk| disk.free = Some(1000)), [(Problem, "disk-full")]);
    assert_eq!(disk(|disk| disk.unwritable = Some("No space left on device".into())), [(Problem, "disk-full")]);
    assert_eq!(disk(|disk| disk.free = Some(500_000)), [(Warning, "disk-nearly-full")]);
    assert_eq!(disk(|disk| disk.unwritable = Some("Read-only file system".into())), [(Problem, "disk-read-only")]);
    assert_eq!(disk(|disk| disk.unwritable = Some("Permission denied".into())), [(Problem, "disk-not-writable")]);
    assert_eq!(disk(|disk| disk.run = true), [(Note, "run-dir-on-disk")]);
}

#[test]
fn every_finding_is_a_sentence_with_a_reason_and_a_next_step() {
    let mut facts = well();
    let mut down = status();
    (down.channel, down.goodbye) = ("waiting".into(), Some("frozen".into()));
    (down.why_not_ready, down.log_problem) = (Some("no device".into()), Some("it is shorter".into()));
    facts.daemon = Daemon::Runs(Box::new(down));
    facts.config_problem = Some("agent.toml: TOML parse error at line 1".into());
    facts.isolated = true;
    facts.certificate = Some(certificate(DAY));
    facts.lan[0].interface = None;
    facts.kernel =
        Kernel { fast_paths: vec!["mtkhnat"], legacy_rules: true, lanes_do_not_forward: true, ..Kernel::default() };
    facts.disks[0].free = Some(0);
    let all = findings(&facts);
    assert!(all.len() >= 12, "{all:#?}");
    for finding in all {
        assert!(
            finding.message.ends_with('.') && finding.why.ends_with('.') && !finding.next.is_empty(),
            "{finding:?}"
        );
    }
}
