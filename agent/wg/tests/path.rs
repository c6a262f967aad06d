//! What lies between two ends of ours: IPv6, a narrow link, and a path that loses, doubles, reorders, forgets and falls silent.

mod lab;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use lab::hop::Hop;
use lab::*;
use thinlane_model::{Protocol, Span};
use thinlane_wg::{Device, Event};

const LONG: Span = Span::from_secs(600);

/// A TCP lane whose engineer dials `endpoint`, given the gateway's port.
fn lane(lab: &Lab, endpoint: impl FnOnce(u16) -> SocketAddr) -> (End, End) {
    let keys = Keys::new();
    let mut gateway = End::start(&lab.gateway, "tl0", 0);
    gateway.device.open(gateway_spec(&keys, 1, tuple(Protocol::Tcp), boot_in(LONG))).expect("a lane opens");
    lead(&lab.gateway, "tl0", None, ENGINEER);
    let mut engineer = End::start(&lab.engineer, "tl-one", 0);
    let endpoint = endpoint(gateway.port());
    engineer.device.open(engineer_spec(&keys, 1, endpoint, ENGINEER)).expect("a lane opens");
    lead(&lab.engineer, "tl-one", Some(ENGINEER), DEVICE);
    engineer.wait_for(Event::Handshake(session(1)), Duration::from_secs(12));
    (gateway, engineer)
}

/// Sends bytes in `portions` through the echo, doing `between` after each; what comes back must be what was sent.
fn transfer(lab: &Lab, portions: usize, length: usize, mut between: impl FnMut(usize)) {
    let mut stream = tcp_to(&lab.engineer, (DEVICE, PORT).into(), Duration::from_secs(20)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    for portion in 0..portions {
        let sent: Vec<u8> = (0..length).map(|at| (at * 31 + portion) as u8).collect();
        let mut writer = stream.try_clone().expect("a clone");
        let text = sent.clone();
        let writing = std::thread::spawn(move || writer.write_all(&text));
        let mut got = vec![0; length];
        stream.read_exact(&mut got).expect("everything comes back");
        writing.join().expect("no panic").expect("written");
        assert!(got == sent, "portion {portion} came back changed");
        between(portion);
    }
}

#[test]
fn a_lane_crosses_ipv6() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    for (ns, address) in [(&lab.engineer, "fd77::1/64"), (&lab.gateway, "fd77::2/64")] {
        run(&format!("ip -n {ns} addr add {address} dev wan nodad"));
    }
    let (mut gateway, _engineer) = lane(&lab, |port| SocketAddr::new("fd77::2".parse().expect("an address"), port));
    transfer(&lab, 1, 500_000, |_| {});
    let report = gateway.device.report(session(1)).expect("it is open");
    assert_eq!(report.endpoint.map(|from| from.ip()), Some("fd77::1".parse().expect("an address")));
}

#[test]
fn a_lane_crosses_a_link_of_1280_bytes() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    for ns in [&lab.engineer, &lab.gateway] {
        run(&format!("ip -n {ns} link set wan mtu 1280"));
    }
    let (mut gateway, _engineer) = lane(&lab, |port| SocketAddr::from((GATEWAY_WAN, port)));
    transfer(&lab, 5, 1_000_000, |_| {});
    let report = gateway.device.report(session(1)).expect("it is open");
    assert!(report.counters.up_bytes > 5_000_000 && report.counters.down_bytes > 5_000_000);
}

#[test]
fn a_lane_finds_out_that_a_link_on_the_way_is_narrow() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    // A router between the two, whose second link takes 1 280 bytes; the engineer is told so only by its ICMP.
    let router = format!("tlt-{}-r", lab.tag);
    let (e, g) = (&lab.engineer, &lab.gateway);
    run(&format!(
        "ip netns add {router}
         ip link add far netns {e} type veth peer name a netns {router}
         ip link add far netns {g} type veth peer name b netns {router}
         ip -n {router} addr add 10.78.0.1/24 dev a; ip -n {router} addr add 10.79.0.1/24 dev b
         ip -n {router} link set dev a up; ip -n {router} link set dev b up mtu 1280
         ip netns exec {router} sysctl -qw net.ipv4.ip_forward=1
         ip -n {e} addr add 10.78.0.2/24 dev far; ip -n {e} link set dev far up; ip -n {e} route add 10.79.0.0/24 via 10.78.0.1
         ip -n {g} addr add 10.79.0.2/24 dev far; ip -n {g} link set dev far up mtu 1280; ip -n {g} route add 10.78.0.0/24 via 10.79.0.1"
    ));
    let outcome = std::panic::catch_unwind(|| {
        let _ends = lane(&lab, |port| SocketAddr::from(([10, 79, 0, 2], port)));
        transfer(&lab, 3, 1_000_000, |_| {});
    });
    run(&format!("ip netns del {router}"));
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn no_byte_is_lost_in_foul_weather() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    let mut hop = None;
    let (mut gateway, _engineer) = lane(&lab, |port| {
        let there = Hop::start(&lab.gateway, (GATEWAY_WAN, 40_000).into(), ([127, 0, 0, 1], port).into());
        // Loss, repetition and disorder from the first handshake on.
        there.weather.lost.store(20, Relaxed);
        there.weather.twice.store(20, Relaxed);
        there.weather.swapped.store(20, Relaxed);
        hop.insert(there).address
    });
    let hop = hop.expect("it was started");
    let mut places = std::collections::BTreeSet::new();
    transfer(&lab, 8, 60_000, |portion| {
        places.extend(gateway.device.report(session(1)).expect("it is open").endpoint);
        match portion {
            3 => hop.black_out(Duration::from_secs(5)),
            _ => hop.rebind(),
        }
    });
    assert!(places.len() >= 5, "the engineer was seen at {places:?} alone");
    let report = gateway.device.close(session(1)).expect("it is open");
    assert_eq!((report.counters.denied_packets, report.counters.spoofed_packets), (0, 0));
}
