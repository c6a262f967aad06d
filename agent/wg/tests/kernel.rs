//! Lanes that the kernel encrypts. They need a kernel with WireGuard: `tests/vm` runs them in an emulated machine.

mod lab;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use lab::capture::Capture;
use lab::hop::Hop;
use lab::*;
use thinlane_model::{Protocol, SessionId, Span};
use thinlane_wg::kernel::Marks;
use thinlane_wg::link::Link;
use thinlane_wg::{Device, DeviceError, Event, Kernel, KernelConfig};

const LONG: Span = Span::from_secs(600);
const MARKS: Marks = Marks { mask: 0xff00_0000, passed: 0x5400_0000, refused: 0x5500_0000 };
const ALIAS: &str = "thinlane gateway";
const SOON: Duration = Duration::from_secs(8);

/// A kernel device and what it said.
struct Node {
    device: Kernel,
    events: Receiver<Event>,
}

impl Node {
    fn start(ns: &str, prefix: &str, marks: Option<Marks>) -> Self {
        let mut config = KernelConfig::new(prefix, ALIAS);
        config.marks = marks;
        Self::of(ns, config)
    }

    fn of(ns: &str, mut config: KernelConfig) -> Self {
        let (sender, events) = channel();
        config.events = Some(Box::new(move |event| {
            let _ = sender.send(event);
        }));
        Self { device: within(ns, move || Kernel::start(config)).expect("the kernel has WireGuard"), events }
    }

    fn wait_for(&self, wanted: Event) {
        let end = Instant::now() + SOON;
        while self.events.recv_timeout(end.saturating_duration_since(Instant::now())).expect("an event") != wanted {}
    }

    fn name(&self) -> String {
        self.device.interface(session(1)).expect("a lane")
    }
}

/// What the table would mark as passed.
fn mark(ns: &str, protocol: Protocol) {
    run(&format!(
        "ip netns exec {ns} nft 'table inet marks {{
            chain pre {{ type filter hook prerouting priority -150;
                iifname \"tl-*\" ip saddr {ENGINEER} ip daddr {DEVICE} {protocol} dport {PORT} meta mark set {passed:#x}
                ip daddr {ENGINEER} meta mark set {passed:#x}
            }}
        }}'",
        passed = MARKS.passed
    ));
}

fn gateway(lab: &Lab, keys: &Keys, protocol: Protocol, life: Span) -> Node {
    let mut node = Node::start(&lab.gateway, "tl-", Some(MARKS));
    node.device.open(gateway_spec(keys, 1, tuple(protocol), boot_in(life))).expect("a lane opens");
    node
}

fn endpoint(node: &Node) -> SocketAddr {
    SocketAddr::from((GATEWAY_WAN, node.device.port(session(1)).expect("a port")))
}

/// Our userspace device at the engineer's end.
fn engineer(lab: &Lab, keys: &Keys, to: SocketAddr) -> End {
    let mut end = End::start(&lab.engineer, "tl-one", 0);
    end.device.open(engineer_spec(keys, 1, to, ENGINEER)).expect("a lane opens");
    lead(&lab.engineer, "tl-one", Some(ENGINEER), DEVICE);
    end.wait_for(Event::Handshake(session(1)), SOON);
    end
}

fn udp_answers(lab: &Lab) -> bool {
    let socket = udp_to(&lab.engineer, SocketAddr::from((DEVICE, PORT)));
    // A route that is unreachable says so at once, and an echo that is under way may be lost.
    (0..3).any(|_| socket.send(b"question").is_ok() && socket.recv(&mut [0; 64]).is_ok())
}

/// Rules, interfaces and routes of a namespace.
fn traces(ns: &str) -> String {
    run(&format!("ip -n {ns} rule; ip -n {ns} -o link | cut -d: -f2; ip -n {ns} -4 route show table all"))
}

fn left_by(session: SessionId, traces: &str) -> bool {
    traces.contains(session.short()) || traces.contains(&ENGINEER.to_string())
}

#[test]
#[ignore = "needs a kernel with WireGuard: tests/vm runs it"]
fn a_lane_between_two_kernel_ends_carries_and_leaves_no_trace() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    mark(&lab.gateway, Protocol::Tcp);
    let before = traces(&lab.gateway);
    let keys = Keys::new();
    let mut far = gateway(&lab, &keys, Protocol::Tcp, LONG);
    let mut near = Node::start(&lab.engineer, "te-", None);
    near.device.open(engineer_spec(&keys, 1, endpoint(&far), ENGINEER)).expect("a lane opens");
    lead(&lab.engineer, &near.name(), Some(ENGINEER), DEVICE);
    near.wait_for(Event::Handshake(session(1)));
    far.wait_for(Event::Handshake(session(1)));
    let mut stream = tcp_to(&lab.engineer, SocketAddr::from((DEVICE, PORT)), SOON).expect("a connection");
    let mut buffer = vec![0; 50_000];
    stream.write_all(&vec![3; 50_000]).expect("sent");
    stream.read_exact(&mut buffer).expect("an answer");
    assert_eq!(far.device.missing(session(1)).expect("an answer"), None);
    let report = far.device.report(session(1)).expect("it is open");
    assert!(report.last_handshake.is_some() && report.rx_bytes > 50_000 && report.tx_bytes > 50_000, "{report:?}");
    assert_eq!(report.endpoint.expect("it was heard").ip(), Ipv4Addr::new(10, 77, 0, 1));
    assert_eq!(report.counters.spoofed_packets, 0);
    assert!(left_by(session(1), &traces(&lab.gateway)), "the look itself sees something");

    let shown = run(&format!("ip netns exec {} wg show {} dump", lab.gateway, far.name()));
    assert!(shown.contains(&keys.preshared.to_base64().to_string()), "the preshared key is in force");
    far.device.close(session(1)).expect("it is open");
    assert_eq!(traces(&lab.gateway), before);
    near.device.close(session(1)).expect("it is open");
    assert!(matches!(far.device.close(session(1)), Err(DeviceError::Unknown(_))));
}

#[test]
#[ignore = "needs a kernel with WireGuard: tests/vm runs it"]
fn a_userspace_engineer_uses_a_kernel_gateway_and_roams() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    mark(&lab.gateway, Protocol::Udp);
    let keys = Keys::new();
    let mut far = gateway(&lab, &keys, Protocol::Udp, LONG);
    let near = engineer(&lab, &keys, endpoint(&far));
    assert!(udp_answers(&lab));
    let seen = far.device.report(session(1)).and_then(|report| report.endpoint).expect("it was heard");
    assert_eq!(seen, SocketAddr::from(([10, 77, 0, 1], near.port())));
    drop(near);
    let near = engineer(&lab, &keys, endpoint(&far));
    assert!(udp_answers(&lab));
    let report = far.device.report(session(1)).expect("it is open");
    assert_eq!(report.endpoint, Some(SocketAddr::from(([10, 77, 0, 1], near.port()))), "it came from elsewhere");
    assert_eq!(report.rekeys, 1);

    // Whoever forgot where the ends are learns it again.
    far.device.handshake();
    far.wait_for(Event::Handshake(session(1)));
    far.wait_for(Event::Handshake(session(1)));
    assert!(udp_answers(&lab));
    let after = far.device.report(session(1)).expect("it is open");
    assert!(after.rx_bytes > report.rx_bytes, "counted on: {after:?} after {report:?}");
}

#[test]
#[ignore = "needs a kernel with WireGuard: tests/vm runs it"]
fn two_lanes_of_one_gateway_are_apart_and_a_wrong_preshared_key_opens_none() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    mark(&lab.gateway, Protocol::Udp);
    let keys = Keys::new();
    let mut far = gateway(&lab, &keys, Protocol::Udp, LONG);
    let _near = engineer(&lab, &keys, endpoint(&far));
    let (other, mut second) = (Keys::new(), tuple(Protocol::Udp));
    second.engineer = Ipv4Addr::new(198, 19, 0, 9);
    // What one session holds another does not get.
    assert!(matches!(
        far.device.open(gateway_spec(&other, 2, tuple(Protocol::Udp), boot_in(LONG))),
        Err(DeviceError::AddressTaken { .. })
    ));
    assert!(matches!(far.device.open(gateway_spec(&keys, 2, second, boot_in(LONG))), Err(DeviceError::KeyTaken(_))));
    let over = gateway_spec(&other, 2, second, thinlane_wg::boot().expect("a clock"));
    assert!(matches!(far.device.open(over), Err(DeviceError::Ended(_))));
    far.device.open(gateway_spec(&other, 2, second, boot_in(LONG))).expect("another lane");
    let port = far.device.port(session(2)).expect("a port of its own");
    assert_ne!(port, endpoint(&far).port());

    let at = SocketAddr::from((GATEWAY_WAN, port));
    let mut wrong = engineer_spec(&other, 2, at, second.engineer);
    wrong.preshared = Some(Keys::new().preshared);
    let mut end = End::start(&lab.engineer, "tl-two", 0);
    end.device.open(wrong).expect("a lane opens here");
    // Its first try and the two repetitions.
    std::thread::sleep(Duration::from_secs(3));
    let report = far.device.report(session(2)).expect("it is open");
    assert!(report.rx_bytes >= 148 && report.last_handshake.is_none(), "it was heard, and not believed: {report:?}");
    end.device.close(session(2)).expect("it is open");
    end.device.open(engineer_spec(&other, 2, at, second.engineer)).expect("a lane opens here");
    far.wait_for(Event::Handshake(session(2)));
    assert!(udp_answers(&lab), "the first lane knows nothing of it");
    far.device.close(session(2)).expect("it is open");
    assert!(udp_answers(&lab), "the first lane goes on");
    assert!(!traces(&lab.gateway).contains(&second.engineer.to_string()));
}

#[test]
#[ignore = "needs a kernel with WireGuard: tests/vm runs it"]
fn a_silent_engineer_is_looked_for_at_the_lanes_other_place() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    mark(&lab.gateway, Protocol::Udp);
    let keys = Keys::new();
    let place = SocketAddr::from(([10, 77, 0, 3], 7443));
    let relay = within(&lab.engineer, move || UdpSocket::bind(place).expect("a free port"));
    relay.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let initiation = |why: &str| {
        let mut buffer = [0; 200];
        let (length, _) = relay.recv_from(&mut buffer).expect(why);
        assert_eq!((length, &buffer[..4]), (148, &[1, 0, 0, 0][..]), "the beginning of a handshake");
    };
    let mut config = KernelConfig::new("tl-", ALIAS);
    (config.marks, config.silence) = (Some(MARKS), Span::from_secs(5));
    let mut far = Node::of(&lab.gateway, config);
    let mut spec = gateway_spec(&keys, 1, tuple(Protocol::Udp), boot_in(LONG));
    (spec.fallback, spec.keepalive) = (Some(place), Some(25));
    far.device.open(spec.clone()).expect("a lane opens");
    let near = engineer(&lab, &keys, endpoint(&far));
    let at = |end: &End| Some(SocketAddr::from(([10, 77, 0, 1], end.port())));
    // One who is heard is left where he is, for much longer.
    for _ in 0..8 {
        assert!(udp_answers(&lab));
        std::thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(far.device.report(session(1)).expect("it is open").endpoint, at(&near));
    // A name that was resolved late: nobody is called away for it.
    far.device.set_endpoint(session(1), place).expect("it is open");
    assert_eq!(far.device.report(session(1)).expect("it is open").endpoint, at(&near));
    let silent = Instant::now();
    drop(near);
    initiation("one who is silent is looked for there");
    assert!(silent.elapsed() >= Duration::from_secs(3), "{:?}", silent.elapsed());
    // Who comes back to the old place is heard there all the same.
    let near = engineer(&lab, &keys, endpoint(&far));
    assert!(udp_answers(&lab));
    assert_eq!(far.device.report(session(1)).expect("it is open").endpoint, at(&near));
    drop(near);

    // An agent that starts again looks where the engineer was heard last, who may be gone meanwhile.
    far.device.close(session(1)).expect("it is open");
    (spec.endpoint, spec.initiate) = (Some(SocketAddr::from(([10, 77, 0, 1], 9))), true);
    while relay.set_nonblocking(true).is_ok() && relay.recv(&mut [0; 200]).is_ok() {}
    relay.set_nonblocking(false).expect("a flag");
    far.device.open(spec).expect("a lane opens");
    initiation("one who was never heard is looked for there, too");
}

/// Asks once a second for longer than a key is used (120 s, REKEY_AFTER_TIME); nothing may be lost over the next one.
fn outlives_its_key(lab: &Lab, ends: [&mut dyn Device; 2]) {
    let rekeys = |device: &mut dyn Device| device.report(session(1)).expect("it is open").rekeys;
    let [near, far] = ends;
    let before = [rekeys(near), rekeys(far)];
    let socket = udp_to(&lab.engineer, SocketAddr::from((DEVICE, PORT)));
    socket.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
    for question in 0..130u32 {
        let (asked, mut answer) = (question.to_be_bytes(), [0; 4]);
        socket.send(&asked).expect("sent");
        socket.recv(&mut answer).unwrap_or_else(|error| panic!("question {question}: {error}"));
        assert_eq!(answer, asked);
        std::thread::sleep(Duration::from_secs(1));
    }
    assert_eq!([rekeys(near), rekeys(far)], before.map(|rekeys| rekeys + 1), "both know of one new key");
}

#[test]
#[ignore = "needs a kernel with WireGuard: tests/vm runs it"]
fn a_key_is_renewed_between_a_kernel_end_and_ours_whichever_is_the_gateway() {
    let (lab, keys) = (Lab::new(), Keys::new());
    let _echo = echo(&lab.device, PORT);
    mark(&lab.gateway, Protocol::Udp);
    let mut far = gateway(&lab, &keys, Protocol::Udp, LONG);
    let mut near = engineer(&lab, &keys, endpoint(&far));
    outlives_its_key(&lab, [&mut near.device, &mut far.device]);

    let (lab, keys) = (Lab::new(), Keys::new());
    let _echo = echo(&lab.device, PORT);
    let mut far = End::start(&lab.gateway, "tl0", 0);
    far.device.open(gateway_spec(&keys, 1, tuple(Protocol::Udp), boot_in(LONG))).expect("a lane opens");
    lead(&lab.gateway, "tl0", None, ENGINEER);
    let mut near = Node::start(&lab.engineer, "te-", None);
    let at = SocketAddr::from((GATEWAY_WAN, far.port()));
    near.device.open(engineer_spec(&keys, 1, at, ENGINEER)).expect("a lane opens");
    lead(&lab.engineer, &near.name(), Some(ENGINEER), DEVICE);
    near.wait_for(Event::Handshake(session(1)));
    far.wait_for(Event::Handshake(session(1)), SOON);
    outlives_its_key(&lab, [&mut near.device, &mut far.device]);
}

#[test]
#[ignore = "needs a kernel with WireGuard: tests/vm runs it"]
fn a_kernel_gateway_is_reached_over_ipv6_and_in_foul_weather_and_no_byte_is_lost() {
    let (lab, keys) = (Lab::new(), Keys::new());
    let _echo = echo(&lab.device, PORT);
    mark(&lab.gateway, Protocol::Tcp);
    for (ns, address) in [(&lab.engineer, "fd77::1/64"), (&lab.gateway, "fd77::2/64")] {
        run(&format!("ip -n {ns} addr add {address} dev wan nodad"));
    }
    let mut far = gateway(&lab, &keys, Protocol::Tcp, LONG);
    let port = endpoint(&far).port();
    let near = engineer(&lab, &keys, SocketAddr::new("fd77::2".parse().expect("an address"), port));
    transfer(&lab, 1, 100_000, |_| {});
    let report = far.device.report(session(1)).expect("it is open");
    assert_eq!(report.endpoint.map(|from| from.ip()), Some("fd77::1".parse().expect("an address")));
    drop(near);

    let hop = Hop::start(&lab.gateway, (GATEWAY_WAN, 40_000).into(), ([127, 0, 0, 1], port).into());
    hop.weather.lost.store(20, Relaxed);
    hop.weather.twice.store(20, Relaxed);
    hop.weather.swapped.store(20, Relaxed);
    let _near = engineer(&lab, &keys, hop.address);
    let mut places = BTreeSet::new();
    transfer(&lab, 6, 30_000, |portion| {
        places.extend(far.device.report(session(1)).expect("it is open").endpoint);
        match portion {
            2 => hop.black_out(Duration::from_secs(5)),
            _ => hop.rebind(),
        }
    });
    assert!(places.len() >= 4, "the engineer was seen at {places:?} alone");
    assert_eq!(far.device.report(session(1)).expect("it is open").counters.spoofed_packets, 0);
}

#[test]
#[ignore = "needs a kernel with WireGuard: tests/vm runs it"]
fn without_the_tables_mark_nothing_is_routed_either_way() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    let keys = Keys::new();
    let far = gateway(&lab, &keys, Protocol::Udp, LONG);
    let _near = engineer(&lab, &keys, endpoint(&far));
    let lan: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
    run(&format!(
        "for to in {lan} 224.0.0.0/4 255.255.255.255; do ip -n {ns} route add $to dev tl-one; done",
        ns = lab.engineer
    ));
    let own = within(&lab.gateway, || UdpSocket::bind(("0.0.0.0", PORT)).expect("a free port"));
    own.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    // The machine's own check of reverse paths: none, loose, strict.
    for check in [0, 2, 1] {
        run(&format!("ip netns exec {} sysctl -qw net.ipv4.conf.all.rp_filter={check}", lab.gateway));
        let capture = Capture::start(&lab.device);
        assert!(!udp_answers(&lab));
        assert!(tcp_to(&lab.engineer, SocketAddr::from((DEVICE, 22)), Duration::from_millis(300)).is_err());
        within(&lab.engineer, move || {
            let socket = UdpSocket::bind((ENGINEER, 0)).expect("bind");
            socket.set_broadcast(true).expect("a flag");
            for to in [lan, Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 1)] {
                // Where there is no way, nothing arrives either.
                let _ = socket.send_to(b"x", (to, PORT));
            }
        });
        let heard = own.recv_from(&mut [0; 64]);
        assert!(heard.is_err(), "the gateway itself heard {heard:?} (rp_filter {check})");
        // The other way round, to a port that listens.
        let waiting = within(&lab.engineer, || UdpSocket::bind((ENGINEER, 4000)).expect("bind"));
        waiting.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        within(&lab.device, || {
            let socket = UdpSocket::bind((DEVICE, 0)).expect("bind");
            socket.send_to(b"x", (ENGINEER, 4000)).expect("sent");
        });
        assert!(waiting.recv(&mut [0; 64]).is_err(), "the device reached the engineer");
        // The gateway itself tells the device by ICMP that there is no way to the engineer.
        let ours: Vec<_> = capture.packets().into_iter().filter(|(protocol, ..)| *protocol != 1).collect();
        assert_eq!(ours, [], "something reached the site");
    }
    // The control: what is marked passes.
    mark(&lab.gateway, Protocol::Udp);
    for check in [1, 2, 0] {
        run(&format!("ip netns exec {} sysctl -qw net.ipv4.conf.all.rp_filter={check}", lab.gateway));
        assert!(udp_answers(&lab), "rp_filter {check}");
    }
    run(&format!("ip netns exec {} nft flush ruleset", lab.gateway));
    assert!(!udp_answers(&lab), "after a flush nothing passes");
}

#[test]
#[ignore = "needs a kernel with WireGuard: tests/vm runs it"]
fn a_kernel_lane_ends_at_its_deadline_and_a_dead_process_leaves_nothing_for_long() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    mark(&lab.gateway, Protocol::Udp);
    let before = traces(&lab.gateway);
    let keys = Keys::new();
    let mut far = gateway(&lab, &keys, Protocol::Udp, Span::from_secs(4));
    let _near = engineer(&lab, &keys, endpoint(&far));
    assert!(udp_answers(&lab));
    far.device.extend(session(1), boot_in(Span::from_millis(1500))).expect("it runs");
    far.wait_for(Event::Expired(session(1)));
    assert!(!udp_answers(&lab), "after its deadline nothing passes");
    assert!(matches!(far.device.extend(session(1), boot_in(LONG)), Err(DeviceError::Ended(_))));
    assert!(matches!(
        far.device.open(gateway_spec(&keys, 1, tuple(Protocol::Udp), boot_in(LONG))),
        Err(DeviceError::Open(_))
    ));
    // As if the process had been killed: its thread does nothing any more.
    std::mem::forget(far);
    assert!(left_by(session(1), &traces(&lab.gateway)));
    let next = Node::start(&lab.gateway, "tl-", Some(MARKS));
    assert_eq!(traces(&lab.gateway), before);
    drop(next);
}

#[test]
#[ignore = "needs a kernel with WireGuard: tests/vm runs it"]
fn an_interface_that_somebody_removes_is_told_and_a_port_is_not_shared() {
    let lab = Lab::new();
    let keys = Keys::new();
    let mut far = gateway(&lab, &keys, Protocol::Udp, LONG);
    run(&format!("ip -n {} link del {}", lab.gateway, far.name()));
    assert!(far.device.missing(session(1)).expect("an answer").is_some());
    far.device.reports();
    far.wait_for(Event::InterfaceGone);
    far.device.close(session(1)).expect("nothing is left to close");
    drop(far);

    let mut config = KernelConfig::new("tl-", ALIAS);
    config.port = 51820;
    let mut device = within(&lab.gateway, move || Kernel::start(config)).expect("starts");
    device.open(gateway_spec(&keys, 1, tuple(Protocol::Udp), boot_in(LONG))).expect("the first takes the port");
    let (other, mut second) = (Keys::new(), tuple(Protocol::Udp));
    second.engineer = Ipv4Addr::new(198, 19, 0, 9);
    let error = device.open(gateway_spec(&other, 2, second, boot_in(LONG))).expect_err("the port is taken");
    assert!(error.to_string().contains("port"), "{error}");
    assert_eq!(device.interface(session(2)), None);
    let names = within(&lab.gateway, || Link::open().and_then(|mut link| link.ours())).expect("a list");
    assert_eq!(names.len(), 1, "the second left nothing: {names:?}");
}

#[test]
fn a_kernel_without_wireguard_says_so_and_one_with_it_can() {
    let link = std::process::Command::new("ip").args(["link", "add", "tl-maybe", "type", "wireguard"]).output();
    let can = link.expect("iproute2 is installed").status.success();
    if can {
        run("ip link del tl-maybe");
    }
    let said = Kernel::available();
    assert_eq!(said.is_ok(), can, "{said:?}");
    assert!(can || said.expect_err("it cannot").to_string().contains("no WireGuard"));
}
