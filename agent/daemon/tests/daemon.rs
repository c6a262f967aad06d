//! The agent's binary on a gateway of its own, with a controller that the test plays. `tests/vm` runs these with the
//! kernel's WireGuard as well.

mod lab;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use lab::{Daemon, Echo, Lab, Session, Tool, Wire, sh};
use nix::sys::signal::Signal;
use thinlane_model::{EndReason, Protocol, RefuseReason, Span};
use thinlane_wire::{Checkpoint, FromAgent, FromController};

const SOON: Duration = Duration::from_secs(5);

/// A lane that carries the engineer's echo.
fn opened(lab: &Lab, number: u8, life: Span) -> (Session, Tool) {
    let mut session = Session::new(number, life);
    lab.controller.grant(&session);
    let armed = lab.controller.armed(session.id);
    assert_eq!((armed.serial, armed.deadline), (session.serial, session.deadline));
    assert_eq!(armed.backend, lab::backend());
    session.up(lab, armed.gateway_key);
    let tool = Tool::start(lab);
    tool.asks_until_answered(SOON);
    (session, tool)
}

fn started(lab: &Lab) -> Daemon {
    let daemon = lab.daemon(&[]);
    lab.controller.wait("status", SOON, |message| match message {
        FromAgent::Status(status) if status.why_not.is_none() => Some(()),
        _ => None,
    });
    daemon
}

fn checks_out(lab: &Lab) {
    let report = lab.agent(&["check", "--offline", "--json"]);
    assert!(
        report.status.success(),
        "{report:?}\n{}",
        sh(&format!("ip netns exec {} nft list table inet thinlane", lab.gateway))
    );
}

#[test]
fn a_lane_opens_carries_and_closes_with_a_signed_record_and_leaves_nothing() {
    let lab = Lab::new();
    let _echo = Echo::start(&lab);
    let before = lab.kernel_state();
    let mut daemon = started(&lab);
    lab.settled();
    let idle = lab.kernel_state();
    let (session, tool) = opened(&lab, 1, Span::from_secs(60));
    checks_out(&lab);
    let status = lab.ok(&["status", "--json"]);
    assert!(status.contains(&session.id.to_string()) && status.contains("\"state\":\"open\""), "{status}");
    lab.ok(&["status", "--check", "ready"]);

    lab.controller.withdraw(session.id, EndReason::Killed);
    let record = lab.controller.closing(session.id);
    assert_eq!((record.reason, record.verified), (EndReason::Killed, true));
    assert!(!lab.log().contains("a step failed"));
    assert!(record.counters.counters.up_packets >= 1 && record.counters.counters.down_packets >= 1, "{record:?}");
    assert_eq!(record.counters.merged, lab::by_kernel());
    assert!(!tool.ask(), "after the record nothing passes");
    assert_eq!(lab.kernel_state(), idle, "nothing of the session is left");
    checks_out(&lab);

    lab.ok(&["cleanup"]);
    assert!(daemon.ended(SOON).success());
    assert_eq!(lab.kernel_state(), before, "the gateway is as it was");
    assert_eq!(std::fs::read_dir(lab.run_dir()).expect("it stays").count(), 0, "the run directory is empty");
    lab.ok(&["cleanup"]);
    assert!(lab.dir().join("identity.json").exists());
    lab.ok(&["cleanup", "--forget"]);
    assert!(!lab.dir().join("identity.json").exists());
}

#[test]
fn a_killed_agent_resumes_its_lane_within_two_seconds_and_replays_nothing() {
    let lab = Lab::new();
    let _echo = Echo::start(&lab);
    let mut daemon = started(&lab);
    let (session, tool) = opened(&lab, 1, Span::from_secs(60));
    std::thread::sleep(Duration::from_millis(100));
    daemon.kill();
    assert_eq!(tool.ask(), lab::by_kernel(), "without the agent nothing crosses but what the kernel carries");
    let again = Instant::now();
    let mut daemon = lab.daemon(&[]);
    let armed = lab.controller.armed(session.id);
    assert_eq!(armed.deadline, session.deadline, "the old end stands");
    tool.asks_until_answered(Duration::from_secs(2));
    assert!(again.elapsed() < Duration::from_secs(2), "{:?}", again.elapsed());
    checks_out(&lab);

    lab.controller.withdraw(session.id, EndReason::Released);
    lab.controller.closing(session.id);
    std::thread::sleep(Duration::from_millis(200));
    daemon.kill();
    let _daemon = lab.daemon(&[]);
    lab.controller.grant(&session);
    let refused = lab.controller.wait("refusal", SOON, |message| match message {
        FromAgent::Refused(refused) => Some(refused.reason),
        _ => None,
    });
    assert_eq!(refused, RefuseReason::Replayed);
}

#[test]
fn a_tcp_connection_survives_a_killed_agent_and_a_flush_and_is_reset_at_the_end() {
    tcp_survives(false);
}

#[test]
fn a_tcp_connection_survives_an_upgrade_of_the_agent() {
    tcp_survives(true);
}

fn tcp_survives(upgrade: bool) {
    let lab = Lab::new();
    let mut daemon = started(&lab);
    lab.settled();
    let mut session = Session::new(1, Span::from_secs(60));
    session.protocol = Protocol::Tcp;
    lab.controller.grant(&session);
    let armed = lab.controller.armed(session.id);
    session.up(&lab, armed.gateway_key);
    let mut wire = Wire::open(&lab);
    wire.carries();
    std::thread::sleep(Duration::from_millis(100));
    if upgrade {
        daemon.signal(Signal::SIGTERM);
        assert!(daemon.ended(SOON).success());
    } else {
        daemon.kill();
    }
    wire.far.write_all(b"while nobody forwards").expect("the device's end stands");
    let _daemon = lab.daemon(&[]);
    lab.controller.armed(session.id);
    let mut heard = [0; 21];
    wire.near.read_exact(&mut heard).expect("it is sent again");
    wire.carries();
    for _ in 0..5 {
        sh(&format!("ip netns exec {} nft flush ruleset", lab.gateway));
        // While no table stands the kernel maps nothing, and the gateway itself would answer the device.
        lab.controller.alarm("ruleset-flushed");
        std::thread::sleep(Duration::from_millis(200));
        wire.carries();
    }
    lab.controller.withdraw(session.id, EndReason::Killed);
    lab.controller.closing(session.id);
    let ended = |stream: &mut std::net::TcpStream| stream.read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(ended(&mut wire.far), Err(ErrorKind::ConnectionReset), "the device's slot is free");
    if !lab::by_kernel() {
        assert_eq!(ended(&mut wire.near), Err(ErrorKind::ConnectionReset));
    }
}

#[test]
fn an_update_keeps_lanes_and_a_lane_without_an_agent_ends_on_time() {
    let lab = Lab::new();
    let _echo = Echo::start(&lab);
    let mut daemon = started(&lab);
    let (session, tool) = opened(&lab, 1, Span::from_secs(6));
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended(SOON).success());
    let table = sh(&format!("ip netns exec {} nft list map inet thinlane up", lab.gateway));
    assert!(table.contains(session.id.short()), "the lane's element stays: {table}");
    let left = thinlane_wg::boot().expect("a clock").until(session.deadline + Span::from_millis(50));
    std::thread::sleep(left.to_std());
    let table = sh(&format!("ip netns exec {} nft list map inet thinlane up", lab.gateway));
    assert!(!table.contains(session.id.short()), "the kernel ended it: {table}");
    assert!(!tool.ask());
    let _daemon = lab.daemon(&[]);
    let record = lab.controller.closing(session.id);
    assert_eq!(record.reason, EndReason::Expired);
    checks_out(&lab);
}

#[test]
fn expiry_ends_the_lane_on_time_and_an_extension_moves_it() {
    let lab = Lab::new();
    let _echo = Echo::start(&lab);
    let _daemon = started(&lab);
    let (mut session, tool) = opened(&lab, 1, Span::from_secs(3));
    session.serial += 1;
    session.deadline = session.deadline + Span::from_secs(3);
    lab.controller.grant(&session);
    assert_eq!(lab.controller.armed(session.id).deadline, session.deadline);
    let mut last = thinlane_wg::boot().expect("a clock");
    while thinlane_wg::boot().expect("a clock") < session.deadline + Span::from_millis(500) {
        if tool.ask() {
            last = thinlane_wg::boot().expect("a clock");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let early = last.until(session.deadline);
    assert!(
        last <= session.deadline + Span::from_millis(20),
        "the last answer came at {last:?}, the end was {:?}",
        session.deadline
    );
    assert!(early < Span::from_millis(500), "it ended {early} early");
    let record = lab.controller.closing(session.id);
    assert_eq!((record.reason, record.verified), (EndReason::Expired, true));
}

#[test]
fn a_flushed_ruleset_closes_first_and_then_the_lane_goes_on() {
    let lab = Lab::new();
    let _echo = Echo::start(&lab);
    let _daemon = started(&lab);
    let (session, tool) = opened(&lab, 1, Span::from_secs(60));
    sh(&format!("ip netns exec {} nft flush ruleset", lab.gateway));
    lab.controller.alarm("ruleset-flushed");
    tool.asks_until_answered(Duration::from_secs(8));
    checks_out(&lab);
    // A rule that somebody adds to our table is found and thrown out.
    sh(&format!("ip netns exec {} nft insert rule inet thinlane forward accept", lab.gateway));
    lab.controller.alarm("foreign-change");
    std::thread::sleep(Duration::from_millis(300));
    checks_out(&lab);
    tool.asks_until_answered(Duration::from_secs(8));
    lab.controller.withdraw(session.id, EndReason::Released);
    assert!(lab.controller.closing(session.id).verified);
}

#[test]
fn the_sites_own_switch_closes_everything_and_nothing_remote_opens_it() {
    let lab = Lab::new();
    let _echo = Echo::start(&lab);
    let mut daemon = started(&lab);
    let (session, tool) = opened(&lab, 1, Span::from_secs(60));
    let said = lab.ok(&["isolate", "on"]);
    assert!(!tool.ask(), "it returned after the close");
    assert!(said.contains("1 lane was closed"), "{said}");
    assert_eq!(lab.controller.closing(session.id).reason, EndReason::Isolated);
    assert!(!lab.agent(&["status", "--check", "ready"]).status.success());
    checks_out(&lab);
    daemon.kill();
    let _daemon = lab.daemon(&[]);
    let other = Session::new(2, Span::from_secs(60));
    lab.controller.grant(&other);
    let refused = lab.controller.wait("refusal", SOON, |message| match message {
        FromAgent::Refused(refused) if refused.session == Some(other.id) => Some(refused.reason),
        _ => None,
    });
    assert_eq!(refused, RefuseReason::Isolated);
    lab.ok(&["isolate", "off"]);
    lab.ok(&["status", "--check", "ready"]);
}

#[test]
fn a_lane_closes_after_a_crash_between_any_two_steps_and_the_record_arrives() {
    let lab = Lab::new();
    let steps = [
        "rebuild-base",
        "keys",
        "open-device",
        "add-route",
        "open-lane",
        "read-back",
        "shut-device",
        "close-lane",
        "remove-peer",
        "drop-flows",
        "remove-route",
        "read-back-closed",
        "sign-closing",
        "persist",
    ];
    started(&lab).kill();
    for (step, number) in steps.iter().zip(1..) {
        for after in ["", "+"] {
            let point = format!("{step}{after}{}", if *step == "persist" { ":2" } else { "" });
            let mut daemon = lab.daemon(&[("THINLANE_CRASH_AT", &point)]);
            let session = Session::new(if after.is_empty() { number } else { number + 50 }, Span::from_secs(60));
            lab.controller.grant(&session);
            let open = format!("a lane is open session={}", session.id);
            let end = Instant::now() + SOON;
            while daemon.0.try_wait().expect("a child").is_none() && !lab.log().contains(&open) {
                assert!(Instant::now() < end, "neither open nor crashed at {point}");
                std::thread::sleep(Duration::from_millis(5));
            }
            lab.controller.withdraw(session.id, EndReason::Killed);
            assert!(!daemon.ended(SOON).success(), "it crashes at {point}");
            let daemon = lab.daemon(&[]);
            let record = lab.controller.closing(session.id);
            assert!(record.verified, "{point}: {record:?}");
            checks_out(&lab);
            drop(daemon);
        }
    }
}

#[test]
fn a_second_agent_and_a_refused_enrolment_say_so_and_change_nothing() {
    let lab = Lab::new();
    // Where the kernel has WireGuard there is nothing to refuse.
    if thinlane_wg::Kernel::available().is_err() {
        let refused = lab.agent(&["run", "--backend", "kernel"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1));
        assert!(said.contains("no WireGuard") && said.contains("next:"), "{said}");
    }
    let _daemon = started(&lab);
    let second = lab.agent(&["run"]);
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    assert!(String::from_utf8_lossy(&second.stderr).contains("running"), "{second:?}");
    lab.ok(&["status", "--check", "live"]);
    let again = lab.enroll("right", None);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--force"), "{again:?}");
}

#[test]
fn packets_that_a_lane_does_not_pass_are_counted_and_named() {
    let lab = Lab::new();
    let _echo = Echo::start(&lab);
    let _daemon = started(&lab);
    let (session, _tool) = opened(&lab, 1, Span::from_secs(60));
    let other = Tool::to_port(&lab, 502);
    for _ in 0..5 {
        assert!(!other.ask());
    }
    let flow = lab.controller.wait("denied packets", SOON, |message| match message {
        FromAgent::Denied(report) => report.flows.into_iter().find(|flow| flow.port == Some(502)),
        _ => None,
    });
    assert_eq!((flow.session, flow.protocol), (Some(session.id), 17));
    lab.controller.withdraw(session.id, EndReason::Released);
    assert_eq!(lab.controller.closing(session.id).counters.counters.denied_packets, 5);
}

#[test]
fn a_certificate_renews_itself_and_the_next_connection_uses_it() {
    let lab = Lab::new();
    let identity = lab.dir().join("identity.json");
    let before = std::fs::read_to_string(&identity).expect("an identity");
    let mut daemon = started(&lab);
    let end = Instant::now() + SOON;
    while std::fs::read_to_string(&identity).expect("an identity") == before {
        assert!(Instant::now() < end, "the certificate was not renewed");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(100));
    daemon.kill();
    let _daemon = started(&lab);
    assert_eq!(lab.log().matches("the certificate was renewed").count(), 1);
}

#[test]
fn a_log_that_is_rolled_back_is_reported_also_after_a_restart() {
    let lab = Lab::new();
    let mut daemon = started(&lab);
    let leaves: Vec<_> = (0..5u8).map(|entry| thinlane_tlog::leaf_hash(&[entry])).collect();
    let checkpoint = |size: usize| {
        let root = thinlane_tlog::root_of(&leaves[..size]);
        let signer = thinlane_tlog::Signer::new("log.example", lab::controller::log_key()).expect("a name");
        let signed =
            thinlane_tlog::Checkpoint::new("log.example", size as u64, root).expect("well formed").sign(&signer);
        let note = signed.expect("signed").note().to_string();
        FromController::Checkpoint(Checkpoint { note, consistency: Vec::new(), from_size: 0 })
    };
    let remembered = |size: u64| {
        lab.controller.wait("witness", SOON, |message| match message {
            FromAgent::Witness(report) if report.size == size => Some(report.problem),
            _ => None,
        })
    };
    lab.controller.say(checkpoint(5));
    assert_eq!(remembered(5), None);
    daemon.kill();
    let _daemon = started(&lab);
    lab.controller.say(checkpoint(3));
    let alarm = lab.controller.alarm("log");
    assert!(alarm.contains("rolled back"), "{alarm}");
}

#[test]
fn check_finds_what_somebody_else_opened_and_names_it() {
    let lab = Lab::new();
    let mut daemon = started(&lab);
    lab.settled();
    checks_out(&lab);
    daemon.kill();
    let ns = &lab.gateway;
    sh(&format!("ip netns exec {ns} nft insert rule inet thinlane forward accept"));
    let found = lab.agent(&["check", "--offline"]);
    assert_eq!(found.status.code(), Some(7), "{found:?}");
    assert!(String::from_utf8_lossy(&found.stdout).contains("forward"), "{found:?}");
    lab.ok(&["cleanup"]);
    lab.ok(&["check", "--offline"]);
}

#[test]
fn a_stopped_agent_keeps_nothing_open_and_isolates_all_the_same() {
    let lab = Lab::new();
    let _echo = Echo::start(&lab);
    let daemon = started(&lab);
    let (session, tool) = opened(&lab, 1, Span::from_secs(60));
    daemon.signal(Signal::SIGSTOP);
    let failed = lab.agent(&["isolate", "on"]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let table = sh(&format!("ip netns exec {} nft list map inet thinlane up", lab.gateway));
    assert!(!table.contains(session.id.short()), "{table}");
    daemon.signal(Signal::SIGCONT);
    assert!(lab.controller.closing(session.id).verified);
    assert!(!tool.ask());
    assert!(lab.ok(&["isolate", "status"]).contains("isolated"));
    checks_out(&lab);
}

#[test]
fn cleanup_ends_an_agent_that_hangs_and_leaves_nothing_of_it() {
    let lab = Lab::new();
    let _echo = Echo::start(&lab);
    let before = lab.kernel_state();
    let mut daemon = started(&lab);
    let (session, tool) = opened(&lab, 1, Span::from_secs(60));
    assert_ne!(lab.kernel_state(), before);
    daemon.signal(Signal::SIGSTOP);
    lab.ok(&["cleanup"]);
    assert_eq!(daemon.ended(SOON).signal(), Some(9), "it could not end by itself");
    assert!(!tool.ask());
    drop(session);
    assert_eq!(lab.kernel_state(), before, "the gateway is as it was");
}

#[test]
fn a_key_switch_at_the_site_isolates_it_while_it_is_turned() {
    let lab = Lab::new();
    let switch = lab.files.path().join("switch");
    std::fs::write(lab.dir().join("agent.toml"), format!("isolate_input = {switch:?}\n")).expect("written");
    let _daemon = started(&lab);
    lab.ok(&["status", "--check", "ready"]);
    std::fs::write(&switch, "1\n").expect("written");
    lab.controller.alarm("isolated");
    assert!(!lab.agent(&["status", "--check", "ready"]).status.success());
    std::fs::write(&switch, "0\n").expect("written");
    lab.controller.alarm("isolated-off");
    lab.ok(&["status", "--check", "ready"]);
}

#[test]
fn a_wrong_configuration_is_refused_with_its_line_and_nothing_is_opened() {
    let lab = Lab::new();
    let before = lab.kernel_state();
    std::fs::write(lab.dir().join("agent.toml"), "[ceiling]\nport = [502]\n").expect("written");
    let refused = lab.agent(&["run"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("line 2") && said.contains("port") && said.contains("next:"), "{said}");
    std::fs::write(lab.dir().join("agent.toml"), "lan = [\"nowhere0\"]\n").expect("written");
    let refused = lab.agent(&["run"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("nowhere0"), "{refused:?}");
    assert_eq!(lab.kernel_state(), before);
}
