//! What lies between two ends of ours: IPv6, a narrow link, and a path that loses, doubles, reorders, forgets and falls silent.

mod lab;

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
    lane_of(lab, 1420, endpoint)
}

/// One whose engineer's interface has this MTU.
fn lane_of(lab: &Lab, mtu: u16, endpoint: impl FnOnce(u16) -> SocketAddr) -> (End, End) {
    let keys = Keys::new();
    let mut gateway = End::start(&lab.gateway, "tl0", 0);
    gateway.device.open(gateway_spec(&keys, 1, tuple(Protocol::Tcp), boot_in(LONG))).expect("a lane opens");
    lead(&lab.gateway, "tl0", None, ENGINEER);
    let mut engineer = End::narrowed(&lab.engineer, "tl-one", 0, mtu);
    let endpoint = endpoint(gateway.port());
    engineer.device.open(engineer_spec(&keys, 1, endpoint, ENGINEER)).expect("a lane opens");
    lead(&lab.engineer, "tl-one", Some(ENGINEER), DEVICE);
    engineer.wait_for(Event::Handshake(session(1)), Duration::from_secs(12));
    (gateway, engineer)
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

/// Two routers between the ends, and a link of 1 280 bytes between the routers. With `quiet` none of them says so.
struct Narrow([String; 2]);

impl Narrow {
    fn between(lab: &Lab, quiet: bool) -> Self {
        let (e, g) = (&lab.engineer, &lab.gateway);
        let routers = ["r", "s"].map(|end| format!("tlt-{}-{end}", lab.tag));
        let [r, s] = &routers;
        let narrow = Self(routers.clone());
        run(&format!(
            "ip netns add {r}; ip netns add {s}
             ip link add far netns {e} type veth peer name a netns {r}
             ip link add mid netns {r} type veth peer name mid netns {s}
             ip link add far netns {g} type veth peer name b netns {s}
             ip -n {r} link set dev mid mtu 1280; ip -n {s} link set dev mid mtu 1280
             for one in '{e} far 2.2' '{r} a 2.1' '{r} mid 3.1' '{s} mid 3.2' '{s} b 4.1' '{g} far 4.2'; do
                 set -- $one
                 ip -n $1 addr add 10.78.$3/24 dev $2; ip -n $1 addr add fd78:${{3%.*}}::${{3#*.}}/64 dev $2 nodad
                 ip -n $1 link set dev $2 up
             done
             for router in {r} {s}; do
                 ip netns exec $router sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
             done
             for six in '' 6; do
                 [ -z $six ] && net=10.78. && dot=. && tail=.0/24 || {{ net=fd78: dot=::; tail=::/64; }}
                 ip -n {e} route add ${{net}}4$tail via ${{net}}2${{dot}}1; ip -n {r} route add ${{net}}4$tail via ${{net}}3${{dot}}2
                 ip -n {g} route add ${{net}}2$tail via ${{net}}4${{dot}}1; ip -n {s} route add ${{net}}2$tail via ${{net}}3${{dot}}1
             done"
        ));
        if quiet {
            let rule = "type filter hook output priority 0; icmp type destination-unreachable drop; icmpv6 type packet-too-big drop;";
            run(&format!(
                "for router in {r} {s}; do
                     ip netns exec $router nft 'table inet quiet {{ chain out {{ {rule} }}; }}'
                 done"
            ));
        }
        narrow
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        for router in &self.0 {
            let _ = std::process::Command::new("ip").args(["netns", "del", router]).status();
        }
    }
}

#[test]
fn a_lane_crosses_a_narrow_link_of_which_nobody_tells() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    let _narrow = Narrow::between(&lab, true);
    let (gateway, engineer) = lane(&lab, |port| SocketAddr::from(([10, 78, 4, 2], port)));
    transfer(&lab, 3, 1_000_000, |_| {});
    // Nothing was learnt, and so several still leave as one.
    assert!(gateway.device.offload().udp_send && engineer.device.offload().udp_send);
}

#[test]
fn a_lane_over_ipv6_finds_out_that_a_link_on_the_way_is_narrow() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    let _narrow = Narrow::between(&lab, false);
    let _ends = lane(&lab, |port| SocketAddr::new("fd78:4::2".parse().expect("an address"), port));
    transfer(&lab, 3, 1_000_000, |_| {});
}

#[test]
fn one_narrow_end_keeps_tcp_of_both_within_what_every_ipv6_path_carries() {
    let lab = Lab::new();
    let _echo = echo(&lab.device, PORT);
    let _narrow = Narrow::between(&lab, true);
    // What fits 1 280 with IPv6, UDP and WireGuard around it.
    let _ends = lane_of(&lab, 1200, |port| SocketAddr::new("fd78:4::2".parse().expect("an address"), port));
    transfer(&lab, 3, 1_000_000, |_| {});
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
