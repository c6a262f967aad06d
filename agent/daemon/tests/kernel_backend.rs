//! The agent's binary with lanes that the kernel encrypts. It needs a kernel with WireGuard and flow offload: `tests/vm`
//! runs it in an emulated machine.

mod lab;

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use lab::{DEVICE, Daemon, Echo, Lab, OVERLAY, PORT, Session, Tool, Wire, sh, within};
use nix::sys::signal::Signal;
use thinlane_model::{EndReason, Protocol, Span};
use thinlane_wire::FromAgent;

const TUN: &str = "/dev/net/tun";
const ASIDE: &str = "/dev/net/tun-aside";
/// An emulated machine is slow.
const SOON: Duration = Duration::from_secs(60);

fn started(lab: &Lab) -> Daemon {
    let daemon = lab.daemon(&[("THINLANE_BACKEND", "kernel")]);
    ready(lab);
    daemon
}

fn ready(lab: &Lab) {
    lab.controller.wait("status", SOON, |message| match message {
        FromAgent::Status(status) if status.why_not.is_none() => Some(()),
        _ => None,
    });
}

fn granted(lab: &Lab, number: u8, life: Span, protocol: Protocol) -> Session {
    let mut session = Session::new(number, life);
    session.protocol = protocol;
    lab.controller.grant(&session);
    let armed = lab.controller.armed(session.id);
    assert_eq!(armed.backend, "kernel");
    session.up(lab, armed.gateway_key);
    session
}

fn checks_out(lab: &Lab) {
    let report = lab.agent(&["check", "--offline", "--json"]);
    let table = sh(&format!("ip netns exec {} nft list table inet thinlane", lab.gateway));
    assert!(report.status.success(), "{report:?}\n{table}");
}

fn interface(session: &Session) -> String {
    format!("tl-{}", session.id.short())
}

/// Interfaces and routing rules of the gateway.
fn network(lab: &Lab) -> String {
    sh(&format!("ip -n {0} -o link | cut -d: -f2; ip -n {0} rule", lab.gateway))
}

#[test]
#[ignore = "needs a kernel with WireGuard: tests/vm runs it"]
fn a_lane_of_the_kernel_opens_carries_and_closes_and_a_flush_leaves_nothing_open() {
    let lab = Lab::new();
    let _echo = Echo::start(&lab);
    let before = lab.kernel_state();
    let mut daemon = started(&lab);
    let idle = network(&lab);
    let session = granted(&lab, 1, Span::from_secs(600), Protocol::Udp);
    let tool = Tool::start(&lab);
    tool.asks_until_answered(SOON);
    checks_out(&lab);
    assert!(network(&lab).contains(&interface(&session)));
    assert!(lab.ok(&["status", "--json"]).contains("\"backend\":\"kernel\""));
    let other = Tool::to_port(&lab, 502);
    for _ in 0..3 {
        assert!(!other.ask());
    }

    // Nobody is there to notice, and the connection is known to the kernel.
    daemon.signal(Signal::SIGSTOP);
    sh(&format!("ip netns exec {} nft flush ruleset", lab.gateway));
    assert!(!tool.ask() && !tool.ask(), "after a flush nothing passes");
    daemon.signal(Signal::SIGCONT);
    lab.controller.alarm("ruleset-flushed");
    tool.asks_until_answered(SOON);
    checks_out(&lab);

    lab.controller.withdraw(session.id, EndReason::Killed);
    let record = lab.controller.closing(session.id);
    assert!(record.verified && record.counters.merged, "{record:?}");
    let counters = record.counters.counters;
    assert!(counters.up_packets >= 2 && counters.down_packets >= 2, "{record:?}");
    assert!(!tool.ask(), "after the record nothing passes");
    assert_eq!(network(&lab), idle, "nothing of the session is left");
    checks_out(&lab);
    lab.ok(&["cleanup"]);
    assert!(daemon.ended(SOON).success());
    assert_eq!(lab.kernel_state(), before, "the gateway is as it was");
}

#[test]
#[ignore = "needs a kernel with WireGuard: tests/vm runs it"]
fn a_lane_of_a_killed_agent_goes_on_ends_on_time_and_is_taken_over() {
    let lab = Lab::new();
    let _echo = Echo::start(&lab);
    let mut daemon = started(&lab);
    let session = granted(&lab, 1, Span::from_secs(600), Protocol::Udp);
    let tool = Tool::start(&lab);
    tool.asks_until_answered(SOON);
    daemon.kill();
    assert!(tool.ask() || tool.ask(), "the kernel goes on without the agent");
    let mut daemon = started(&lab);
    tool.asks_until_answered(SOON);
    checks_out(&lab);
    lab.controller.withdraw(session.id, EndReason::Released);
    assert!(lab.controller.closing(session.id).verified);
    drop(session);

    let short = granted(&lab, 2, Span::from_secs(14), Protocol::Udp);
    let tool = Tool::start(&lab);
    tool.asks_until_answered(Duration::from_secs(12));
    daemon.kill();
    let mut last = thinlane_wg::boot().expect("a clock");
    let end = Instant::now() + Duration::from_secs(60);
    while last <= short.deadline && Instant::now() < end {
        let asked = thinlane_wg::boot().expect("a clock");
        if tool.ask() {
            last = asked;
        } else if asked > short.deadline + Span::from_millis(500) {
            break;
        }
    }
    assert!(last <= short.deadline + Span::from_millis(200), "asked at {last:?}, the end was {:?}", short.deadline);
    assert!(network(&lab).contains(&interface(&short)), "its interface is still there");
    let _daemon = lab.daemon(&[("THINLANE_BACKEND", "kernel")]);
    assert_eq!(lab.controller.closing(short.id).reason, EndReason::Expired);
    assert!(!network(&lab).contains(&interface(&short)), "the next agent clears it away");
    checks_out(&lab);
}

#[test]
#[ignore = "needs a kernel with WireGuard: tests/vm runs it"]
fn a_device_of_a_kernel_lane_is_let_go_and_flow_offload_keeps_the_gateway_closed() {
    let lab = Lab::new();
    // A gateway without TUN interfaces: the agent's own WireGuard says what it lacks, the kernel's needs none.
    std::fs::rename(TUN, ASIDE).expect("it is there");
    let refused = lab.agent(&["run", "--backend", "userspace"]);
    let _daemon = started(&lab);
    std::fs::rename(ASIDE, TUN).expect("it was put there");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains(TUN) && said.contains("--backend kernel"), "{said}");
    let session = granted(&lab, 1, Span::from_secs(600), Protocol::Tcp);
    let mut wire = Wire::open(&lab);
    wire.carries();
    lab.controller.withdraw(session.id, EndReason::Killed);
    assert!(lab.controller.closing(session.id).verified);
    let ended = wire.far.read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(ended, Err(ErrorKind::ConnectionReset), "the device's slot is free");

    let table = "table inet fast {\n flowtable ft {\n hook ingress priority 0; devices = { lan, wan };\n }\n }\n";
    sh(&format!("ip netns exec {} nft '{table}'", lab.gateway));
    let why = lab.controller.wait("status", SOON, |message| match message {
        FromAgent::Status(status) => status.why_not,
        _ => None,
    });
    assert!(why.contains("flow offload") && why.contains("ft"), "{why}");
    let other = Session::new(2, Span::from_secs(600));
    lab.controller.grant(&other);
    lab.controller.wait("refusal", SOON, |message| match message {
        FromAgent::Refused(refused) if refused.session == Some(other.id) => Some(()),
        _ => None,
    });
    assert!(!network(&lab).contains(&interface(&other)));
    sh(&format!("ip netns exec {} nft delete table inet fast", lab.gateway));
    ready(&lab);
}

/// What the agent says that a lane carried upwards, once it is `least`; it never says less than it said `before`.
fn counted(lab: &Lab, session: &Session, before: u64, least: u64) -> u64 {
    lab.controller.wait("counters", SOON, |message| {
        let FromAgent::Counters(all) = message else { return None };
        let one = all.into_iter().find(|one| one.session == session.id)?;
        let up = one.counters.up_packets;
        assert!(one.merged && up >= before, "{one:?} after {before}");
        Some(up).filter(|up| *up >= least)
    })
}

#[test]
#[ignore = "needs a kernel with WireGuard: tests/vm runs it"]
fn a_kernel_lane_counts_on_over_an_update_and_ends_on_time_without_its_controller() {
    let lab = Lab::new();
    let _echo = Echo::start(&lab);
    let mut daemon = started(&lab);
    let mut session = granted(&lab, 1, Span::from_secs(40), Protocol::Udp);
    let tool = Tool::start(&lab);
    tool.asks_until_answered(SOON);
    let told = counted(&lab, &session, 0, 1);
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended(SOON).success());
    let _daemon = started(&lab);
    tool.asks_until_answered(SOON);
    let told = counted(&lab, &session, told, told + 1);
    session.serial += 1;
    session.deadline = session.deadline + Span::from_secs(10);
    lab.controller.grant(&session);
    assert_eq!(lab.controller.armed(session.id).deadline, session.deadline);

    let (ns, port) = (&lab.gateway, lab.controller.port);
    sh(&format!(
        "ip netns exec {ns} nft 'table inet cut {{ chain out {{ type filter hook output priority 0; tcp dport {port} drop; }}; }}'"
    ));
    let now = || thinlane_wg::boot().expect("a clock");
    let (mut last, mut answered) = (now(), 0);
    while now() < session.deadline + Span::from_secs(1) {
        let asked = now();
        if tool.ask() {
            (last, answered) = (asked, answered + 1);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(last <= session.deadline, "asked at {last:?}, the end was {:?}", session.deadline);
    assert!(last.until(session.deadline) < Span::from_secs(1), "it ended early: {last:?}, {:?}", session.deadline);
    sh(&format!("ip netns exec {ns} nft delete table inet cut"));
    let record = lab.controller.wait("closing record", 2 * SOON, |message| match message {
        FromAgent::Closing(closing) => closing.peek().ok().filter(|record| record.session == session.id),
        _ => None,
    });
    assert_eq!((record.reason, record.verified, record.counters.merged), (EndReason::Expired, true, true));
    let counters = record.counters.counters;
    assert!(answered > 0 && counters.up_packets >= told + answered, "{answered} after {told}: {record:?}");
    assert!(counters.down_packets >= told + answered, "{record:?}");
    assert!(!network(&lab).contains(&interface(&session)));
    checks_out(&lab);
}

/// Counts what is not foreseen: at the device, whatever comes that is not the lane's; at the gateway, whatever comes out of a
/// lane and gets as far as its own sockets.
fn watch(lab: &Lab) {
    let lane = format!("ip saddr 192.168.1.1 ip daddr {DEVICE}");
    sh(&format!(
        "ip netns exec {} nft 'table inet seen {{ counter odd {{ }}; chain seen {{ type filter hook prerouting priority -300;
             iifname != lan accept; ip6 saddr {{ fe80::/10, :: }} accept
             {lane} udp dport {PORT} accept; {lane} ip frag-off & 0x1fff != 0 accept
             counter name odd; }}; }}'
         ip netns exec {} nft 'table inet seen {{ counter odd {{ }}; chain seen {{ type filter hook input priority 300;
             iifname \"tl-*\" counter name odd; }}; }}'",
        lab.device, lab.gateway
    ));
}

fn seen(lab: &Lab) -> [u64; 2] {
    std::thread::sleep(Duration::from_millis(200));
    [&lab.device, &lab.gateway].map(|ns| {
        let said = sh(&format!("ip netns exec {ns} nft list counter inet seen odd"));
        let count = said.split_whitespace().skip_while(|word| *word != "packets").nth(1);
        count.and_then(|word| word.parse().ok()).expect("a counter")
    })
}

/// Sends a few datagrams, or whatever the machine lets out of them.
fn sends(ns: &str, from: &str, to: &[&str], length: usize) {
    let from: SocketAddr = from.parse().expect("an address");
    let to: Vec<SocketAddr> = to.iter().map(|to| to.parse().expect("an address")).collect();
    within(ns, move || {
        let socket = UdpSocket::bind(from).expect("its own address");
        socket.set_broadcast(true).expect("a flag");
        for to in to.iter().cycle().take(3 * to.len()) {
            // An ICMP error about an earlier one is told here.
            let _ = socket.send_to(&vec![7; length], to);
        }
    });
}

fn connects(ns: &str, to: &str) -> bool {
    let to: SocketAddr = to.parse().expect("an address");
    within(ns, move || TcpStream::connect_timeout(&to, Duration::from_millis(500)).is_ok())
}

#[test]
#[ignore = "needs a kernel with WireGuard: tests/vm runs it"]
fn whatever_else_is_sent_into_a_kernel_lane_reaches_neither_site_nor_gateway() {
    let lab = Lab::new();
    let echo = Echo::start(&lab);
    let _daemon = started(&lab);
    let session = Session::new(1, Span::from_secs(600));
    lab.controller.grant(&session);
    let armed = lab.controller.armed(session.id);
    assert_eq!(armed.backend, "kernel");
    let own = ["198.19.0.1/32", "198.19.250.250/32", "fd19::1/128"];
    session.let_loose(&lab, armed.gateway_key, &own, &["198.18.0.0/16", "192.168.1.0/24", "fd18::/64"]);
    sh(&format!(
        "ip -n {0} addr add 192.168.1.11/24 dev lan; ip -n {0} route add 198.19.0.0/16 via 192.168.1.1",
        lab.device
    ));
    watch(&lab);
    let tool = Tool::start(&lab);
    tool.asks_until_answered(SOON);
    let engineer = lab.engineer.as_str();
    let any = "0.0.0.0:0";

    sends(engineer, any, &["198.18.0.1:9", "198.18.0.1:502", "198.18.0.2:7"], 64);
    assert!(!connects(engineer, "198.18.0.1:7") && !connects(engineer, "198.18.0.1:22"));
    assert_eq!(seen(&lab), [0, 0], "another port, asset or protocol");
    sends(
        engineer,
        any,
        &["192.168.1.10:7", "192.168.1.11:7", "192.168.1.255:7", "192.168.1.1:7", "192.168.1.1:53"],
        64,
    );
    assert!(!connects(engineer, "192.168.1.10:7") && !connects(engineer, "192.168.1.1:22"));
    assert_eq!(seen(&lab), [0, 0], "the site's own addresses");
    sends(engineer, "198.19.250.250:0", &["198.18.0.1:7"], 64);
    sends(engineer, "[fd19::1]:0", &["[fd18::1]:7"], 64);
    assert_eq!(seen(&lab), [0, 0], "another source, and IPv6");
    sh(&format!(
        "for to in {OVERLAY} {DEVICE} 192.168.1.1; do ip netns exec {engineer} ping -c 1 -W 1 $to || true; done"
    ));
    assert_eq!(seen(&lab), [0, 0], "ICMP");
    sends(engineer, any, &["198.18.0.1:9"], 4000);
    assert_eq!(seen(&lab), [0, 0], "fragments of another port");

    // The other way round, from the lane's own port as well.
    drop(echo);
    let near = within(engineer, || UdpSocket::bind((Ipv4Addr::new(198, 19, 0, 1), 4000)).expect("a free port"));
    near.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    let listens = within(engineer, || TcpListener::bind((Ipv4Addr::new(198, 19, 0, 1), 4001)).expect("a free port"));
    listens.set_nonblocking(true).expect("a flag");
    for from in ["192.168.1.10:7", "192.168.1.10:0", "192.168.1.11:7"] {
        sends(&lab.device, from, &["198.19.0.1:4000"], 64);
    }
    assert!(!connects(&lab.device, "198.19.0.1:4001"));
    assert!(near.recv_from(&mut [0; 64]).is_err() && listens.accept().is_err(), "the device reached the engineer");

    let _echo = Echo::start(&lab);
    // The gateway has told the device that there is no way.
    let before = seen(&lab);
    tool.asks_until_answered(SOON);
    let whole = (0..100).find_map(|_| tool.exchange(1900));
    assert_eq!(whole, Some(1900), "in fragments, both ways");
    assert_eq!((seen(&lab), before[1]), (before, 0));
    lab.controller.withdraw(session.id, EndReason::Killed);
    let counters = lab.controller.closing(session.id).counters.counters;
    assert!(counters.spoofed_packets >= 6, "{counters:?}");
    assert!(counters.denied_packets >= 30, "{counters:?}");
}

/// A kernel without its WireGuard module, until dropped.
struct NoModule;

impl NoModule {
    fn new() -> Self {
        // Namespaces of the test before may still be on their way out.
        sh("mv /sbin/modprobe /sbin/aside; n=50
            while grep -q '^wireguard ' /proc/modules && ! rmmod wireguard; do n=$((n - 1)); [ $n != 0 ]; sleep 0.2; done");
        Self
    }
}

impl Drop for NoModule {
    fn drop(&mut self) {
        let _ = std::fs::rename("/sbin/aside", "/sbin/modprobe");
    }
}

#[test]
#[ignore = "needs a kernel with WireGuard: tests/vm runs it"]
fn without_the_kernels_module_the_kernel_is_refused_and_auto_is_the_agents_own() {
    let lab = Lab::new();
    let _echo = Echo::start(&lab);
    let no_module = NoModule::new();
    let refused = lab.agent(&["run", "--backend", "kernel"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("no WireGuard") && said.contains("next:") && said.contains("--backend userspace"), "{said}");
    let mut daemon = lab.daemon(&[("THINLANE_BACKEND", "auto")]);
    ready(&lab);
    let mut session = Session::new(1, Span::from_secs(600));
    lab.controller.grant(&session);
    let armed = lab.controller.armed(session.id);
    assert_eq!(armed.backend, "userspace");
    assert!(!lab.log().contains("backend=kernel"), "it was not tried");
    session.up(&lab, armed.gateway_key);
    let tool = Tool::start(&lab);
    tool.asks_until_answered(SOON);

    // With the module back the next agent takes the same lane over into the kernel.
    drop(no_module);
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended(SOON).success());
    let _daemon = lab.daemon(&[("THINLANE_BACKEND", "kernel")]);
    assert_eq!(lab.controller.armed(session.id).backend, "kernel");
    tool.asks_until_answered(SOON);
    checks_out(&lab);
    lab.controller.withdraw(session.id, EndReason::Released);
    assert!(lab.controller.closing(session.id).verified);

    // And `auto` begins with it, until it knows that all lanes shall share one port.
    let lab = Lab::new();
    let _daemon = lab.daemon(&[("THINLANE_BACKEND", "auto")]);
    ready(&lab);
    assert!(lab.log().contains("backend=kernel"), "{}", lab.log());
}

#[test]
#[ignore = "needs a kernel with WireGuard: tests/vm runs it"]
fn an_interface_that_somebody_removes_is_told_and_its_lane_stands_again() {
    let lab = Lab::new();
    let _echo = Echo::start(&lab);
    let _daemon = started(&lab);
    let session = granted(&lab, 1, Span::from_secs(600), Protocol::Udp);
    let tool = Tool::start(&lab);
    tool.asks_until_answered(SOON);
    sh(&format!("ip -n {} link del {}", lab.gateway, interface(&session)));
    assert!(lab.controller.alarm("foreign-change").contains("interface"));
    tool.asks_until_answered(SOON);
    checks_out(&lab);
    lab.controller.withdraw(session.id, EndReason::Killed);
    let record = lab.controller.closing(session.id);
    assert!(record.verified && record.counters.counters.up_packets >= 2, "{record:?}");
    assert!(!network(&lab).contains(&interface(&session)));
}
