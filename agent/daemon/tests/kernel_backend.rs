//! The agent's binary with lanes that the kernel encrypts. It needs a kernel with WireGuard and flow offload: `tests/vm`
//! runs it in an emulated machine.

mod lab;

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use lab::{Daemon, Echo, Lab, Session, Tool, Wire, sh};
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
