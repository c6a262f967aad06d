//! Real lanes between two network namespaces: real interface, real handshake, real packets. They need root.

mod support;

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::lab::{Manner, Site, inside};
use support::views::{REQUEST, SESSION};
use support::{Person, eventually, objects, text};
use thinlane_model::Span;

const MINUTE: Span = Span::from_secs(60);

/// Sends a line through the lane and prints what comes back.
const ECHO: &str =
    "exec 3<>/dev/tcp/$THINLANE_ASSET_ADDRESS/$THINLANE_ASSET_PORT; echo hello >&3; head -n 1 <&3; exit 42";

fn begin(person: &Person, arguments: &[&str]) -> Child {
    let mut command = person.command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program")
}

/// Waits for the end of a program; its exit code and JSON events.
fn end(child: Child) -> (i32, Vec<Value>, String) {
    let output = child.wait_with_output().expect("the program");
    (support::code(&output), objects(&text(&output.stdout)), text(&output.stderr))
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["event"].as_str()).collect()
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).expect("an id")), signal).expect("a process");
}

#[test]
fn a_command_inside_the_lane_reaches_the_device_and_the_lane_goes_with_it() {
    let site = Site::start(MINUTE, Manner::Answers);
    let person = site.engineer();
    let (code, events, stderr) = end(begin(&person, &["connect", "rtu-7", "--json", "--", "bash", "-c", ECHO]));
    assert_eq!(code, 42, "{stderr}");
    assert_eq!(kinds(&events), ["up", "down"], "{stderr}");
    let up = &events[0];
    assert_eq!((up["session"].as_str(), up["asset_address"].as_str()), (Some(SESSION), Some("198.18.0.9")));
    assert_eq!((up["asset_port"].as_u64(), up["schema"].as_u64()), (Some(7), Some(1)));
    assert_eq!(events[1]["reason"], "released");
    assert!(site.counters().down_packets > 2, "{:?}", site.counters());
    assert!(site.was_released() && site.wire.lanes().is_empty() && person.lane_files().is_empty());
}

#[test]
fn the_echo_comes_back_through_the_lane() {
    let site = Site::start(MINUTE, Manner::Answers);
    let person = site.engineer();
    let (code, stdout, stderr) = person.says(&["connect", REQUEST, "--iface", "tl-test", "--", "bash", "-c", ECHO]);
    assert_eq!((code, stdout.as_str()), (42, "hello\n"), "{stderr}");
}

#[test]
fn a_killed_session_ends_the_lane_and_its_command_at_once_with_exit_5() {
    let site = Site::start(MINUTE, Manner::Answers);
    let person = site.engineer();
    let child = begin(&person, &["connect", "rtu-7", "--json", "--", "sleep", "60"]);
    eventually("the lane is up", || !site.wire.lanes().is_empty());
    std::thread::sleep(Duration::from_millis(500));
    let killed = Instant::now();
    site.end("killed");
    eventually("the interface is gone", || site.wire.lanes().is_empty());
    assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
    let (code, events, stderr) = end(child);
    assert!(killed.elapsed() < Duration::from_secs(4), "{:?}", killed.elapsed());
    assert_eq!(code, 5, "{stderr}");
    assert_eq!(events.last().map(|event| event["reason"].clone()), Some("killed".into()), "{events:?}");
    assert!(stderr.contains("killed") && !site.was_released(), "{stderr}");
    assert!(person.lane_files().is_empty());
}

#[test]
fn the_deadline_holds_when_the_controller_is_gone() {
    let site = Site::start(Span::from_secs(4), Manner::Answers);
    let person = site.engineer();
    let started = Instant::now();
    let child = begin(&person, &["connect", "rtu-7", "--json"]);
    eventually("the lane is up", || !site.wire.lanes().is_empty());
    site.controller.vanish();
    let (code, events, stderr) = end(child);
    let took = started.elapsed();
    assert_eq!(code, 5, "{stderr}");
    assert!(took > Duration::from_secs(3) && took < Duration::from_secs(6), "{took:?}");
    assert_eq!(kinds(&events), ["up", "warning", "down"], "{stderr}");
    assert_eq!(events[2]["reason"], "expired");
    assert!(site.wire.lanes().is_empty() && person.lane_files().is_empty());
}

#[test]
fn ctrl_c_releases_the_session_and_is_exit_130() {
    for (by, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
        let site = Site::start(MINUTE, Manner::Answers);
        let person = site.engineer();
        let child = begin(&person, &["connect", "rtu-7", "--json"]);
        eventually("the lane is up", || !site.wire.lanes().is_empty());
        std::thread::sleep(Duration::from_millis(300));
        // `ip netns exec` has become the program itself.
        signal(&child, by);
        let (exit, events, stderr) = end(child);
        assert_eq!(exit, code, "{by}: {stderr}");
        assert_eq!(events.last().map(|event| event["reason"].clone()), Some("released".into()), "{events:?}");
        assert!(site.was_released() && site.wire.lanes().is_empty() && person.lane_files().is_empty(), "{by}");
    }
}

#[test]
fn an_extension_is_shown_and_moves_the_end() {
    let site = Site::start(Span::from_secs(5), Manner::Answers);
    let person = site.engineer();
    let started = Instant::now();
    let child = begin(&person, &["connect", "rtu-7", "--json"]);
    eventually("the lane is up", || !site.wire.lanes().is_empty());
    std::thread::sleep(Duration::from_millis(500));
    site.extend(Span::from_secs(4));
    let (code, events, stderr) = end(child);
    assert_eq!(code, 5, "{stderr}");
    assert!(kinds(&events).contains(&"extended"), "{events:?}");
    assert!(started.elapsed() > Duration::from_secs(8), "{:?}", started.elapsed());
}

#[test]
fn up_returns_with_a_working_lane_a_second_one_is_refused_by_name_and_down_ends_it() {
    let site = Site::start(MINUTE, Manner::Answers);
    let person = site.engineer();
    let (code, stdout, stderr) = person.says(&["up", REQUEST, "--json"]);
    assert_eq!(code, 0, "{stderr}");
    let up = &objects(&stdout)[0];
    assert_eq!((up["event"].as_str(), up["iface"].as_str()), (Some("up"), Some("tl-abcdefgh")));

    // The first packet passes, with nothing of ours in the foreground.
    let echoed = inside(&site.wire.engineer, || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect_timeout(&([198, 18, 0, 9], 7).into(), Duration::from_secs(2))?;
        stream.write_all(b"hello")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        std::io::Result::Ok(answer)
    });
    assert_eq!(&echoed.expect("an echo"), b"hello");

    let asked = site.controller.asked().len();
    for again in [&["connect", "rtu-7"][..], &["connect", "rtu-7", "--task", "echo-tcp", "--reason", "again"]] {
        let (code, _, stderr) = person.says(again);
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("rtu-7") && stderr.contains(SESSION), "{stderr}");
    }
    assert!(!site.controller.asked()[asked..].iter().any(|asked| asked.starts_with("POST")), "a request was used");

    let (code, stdout, stderr) = person.says(&["down", "--json"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(
        (objects(&stdout)[0]["event"].as_str(), objects(&stdout)[0]["reason"].as_str()),
        (Some("down"), Some("released"))
    );
    assert!(site.was_released() && site.wire.lanes().is_empty() && person.lane_files().is_empty());
}

#[test]
fn another_persons_lane_to_the_same_asset_is_seen_by_its_interface() {
    let site = Site::start(MINUTE, Manner::Answers);
    let (one, other) = (site.engineer(), site.engineer());
    assert_eq!(one.says(&["up", REQUEST]).0, 0);
    let (code, _, stderr) = other.says(&["connect", "rtu-7", "--task", "echo-tcp", "--reason", "too"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("a lane to rtu-7 already"), "{stderr}");
    assert_eq!(one.says(&["down", "abcd"]).0, 0);
}

#[test]
fn what_a_kill_9_leaves_is_found_removed_and_released_by_the_next_call() {
    let site = Site::start(MINUTE, Manner::Answers);
    let person = site.engineer();
    let mut child = begin(&person, &["connect", "rtu-7", "--json"]);
    eventually("the lane is up", || !site.wire.lanes().is_empty() && person.lane_files().len() == 1);
    signal(&child, Signal::SIGKILL);
    child.wait().expect("the program");
    assert_eq!(person.lane_files().len(), 1);
    let (code, _, stderr) = person.says(&["down"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("removed what was left of the lane ses_abcdefgh"), "{stderr}");
    assert!(site.was_released() && site.wire.lanes().is_empty() && person.lane_files().is_empty());
    assert!(!person.says(&["down"]).2.contains("removed"));
}

#[test]
fn a_lane_that_was_closed_without_its_controller_is_released_by_the_next_call() {
    let site = Site::start(MINUTE, Manner::Answers);
    let person = site.engineer();
    let child = begin(&person, &["connect", "rtu-7", "--json"]);
    eventually("the lane is up", || !site.wire.lanes().is_empty() && person.lane_files().len() == 1);
    site.controller.vanish();
    signal(&child, Signal::SIGINT);
    let (code, events, stderr) = end(child);
    assert_eq!(code, 130, "{stderr}");
    let down = events.iter().find(|event| event["event"] == "down").expect("an end");
    assert_eq!(down["detail"], "the controller was not told", "{down}");
    assert!(stderr.contains("thinlane down ses_abcdefgh"), "{stderr}");
    // Nothing is carried any more; that the session is still open is not forgotten, however often it is tried.
    let (_, _, stderr) = person.says(&["down"]);
    assert_eq!(stderr.matches("could not be told").count(), 1, "{stderr}");
    assert!(site.wire.lanes().is_empty() && person.lane_files().len() == 1 && !site.was_released());
    site.controller.come_back();
    let (code, _, stderr) = person.says(&["down"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("its session is closed"), "{stderr}");
    assert!(site.was_released() && person.lane_files().is_empty());
}

#[test]
fn a_command_dies_with_whoever_holds_its_lane_also_after_kill_9() {
    let site = Site::start(MINUTE, Manner::Answers);
    let person = site.engineer();
    let script = "echo $$ > $0; trap '' TERM HUP INT; while :; do sleep 0.1; done";
    let file = person.home().join("pid");
    let mut child =
        begin(&person, &["connect", "rtu-7", "--json", "--", "bash", "-c", script, &file.to_string_lossy()]);
    let pid = || std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<i32>().ok());
    eventually("the command runs", || pid().is_some());
    let pid = pid().expect("an id");
    let runs = || kill(Pid::from_raw(pid), None).is_ok();
    assert!(runs());
    signal(&child, Signal::SIGKILL);
    child.wait().expect("the program");
    eventually("the command is gone", || !runs());
}

#[test]
fn a_new_connect_also_tidies_up_after_a_kill_9() {
    let site = Site::start(MINUTE, Manner::Answers);
    let person = site.engineer();
    let mut child = begin(&person, &["connect", "rtu-7", "--json"]);
    eventually("the lane is up", || !site.wire.lanes().is_empty() && person.lane_files().len() == 1);
    signal(&child, Signal::SIGKILL);
    child.wait().expect("the program");
    let (_, findings, _) = person.says(&["doctor"]);
    assert!(findings.contains("left over from killed processes: ses_abcdefgh"), "{findings}");
    // The used request is used; what counts is that the leftovers are no second lane.
    let (code, _, stderr) = person.says(&["connect", "rtu-7"]);
    assert!(stderr.contains("removed what was left of the lane ses_abcdefgh"), "{stderr}");
    assert_eq!(code, 2, "{stderr}");
    assert!(site.was_released() && person.lane_files().is_empty());
}

#[test]
fn an_interface_that_outlived_its_process_is_removed_and_a_gateways_own_is_not() {
    let site = Site::start(MINUTE, Manner::Answers);
    let person = site.engineer();
    let ip = |line: &str| {
        let done = std::process::Command::new("ip").arg("-n").arg(&site.wire.engineer).args(line.split(' ')).status();
        assert!(done.expect("ip").success(), "{line}");
    };
    ip("link add tl-left type veth peer name x0");
    ip("link add tl0 type veth peer name x1");
    let alias = |name: &str, alias: &str| {
        let done = std::process::Command::new("ip")
            .args(["-n", &site.wire.engineer, "link", "set", name, "alias", alias])
            .status();
        assert!(done.expect("ip").success());
    };
    // No process has the highest id that the kernel gives out.
    alias("tl-left", "thinlane ses_zzzzzzzz pid 4194304 asset rtu-9");
    alias("tl0", "thinlane gateway north");
    let (code, _, stderr) = person.says(&["down"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("tl-left"), "{stderr}");
    assert_eq!(site.wire.lanes(), ["tl0"]);
}

#[test]
fn a_configuration_for_a_stock_client_is_written_0600_and_makes_no_interface() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::start(MINUTE, Manner::Silent);
    let person = site.engineer();
    let file = person.home().join("lane.conf");
    let (code, stdout, stderr) = person.says(&["up", REQUEST, "--json", "--config-out", file.to_str().expect("text")]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(objects(&stdout)[0]["config"].as_str(), file.to_str());
    assert_eq!(file.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
    let conf = std::fs::read_to_string(&file).expect("text");
    assert!(conf.contains("Endpoint = 10.77.0.2:51820") && conf.contains("AllowedIPs = 198.18.0.9/32"), "{conf}");
    let private = conf.lines().find_map(|line| line.strip_prefix("PrivateKey = ")).expect("a key");
    assert!(!stdout.contains(private) && !stderr.contains(private));
    let sent = site.controller.bodies("POST", &format!("/requests/{REQUEST}/activate"));
    assert!(!sent[0].to_string().contains(private), "the private key was sent");
    assert!(site.wire.lanes().is_empty());
    let (code, _, stderr) = person.says(&["down", SESSION]);
    assert_eq!(code, 0, "{stderr}");
    assert!(site.was_released() && person.lane_files().is_empty());
    assert!(!file.exists() && stderr.contains("removed"), "its key opens nothing any more: {stderr}");
}

#[test]
fn a_gateway_that_is_away_or_silent_is_exit_6_within_30_s_and_nothing_stays() {
    for manner in [Manner::Away, Manner::Silent] {
        let site = Site::start(MINUTE, manner);
        let person = site.engineer();
        let started = Instant::now();
        let (code, _, stderr) = person.says(&["connect", "rtu-7", "--", "true"]);
        assert_eq!(code, 6, "{stderr}");
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
        assert!(stderr.contains("next: "), "{stderr}");
        assert_eq!(site.was_released(), manner == Manner::Silent);
        assert!(site.wire.lanes().is_empty() && person.lane_files().is_empty());
        // In the background it is the same.
        if manner == Manner::Away {
            assert_eq!(person.says(&["up", REQUEST]).0, 6);
            assert!(person.lane_files().is_empty());
        }
    }
}

/// Both kinds of lane, and what each needs in front of its command.
const KINDS: [&[&str]; 2] = [&[], &["--forward"]];

fn through(person: &Person, flags: &[&str], kind: &[&str]) -> (i32, Vec<Value>, String) {
    end(begin(person, &[&["connect", "rtu-7"], flags, kind, &["--", "bash", "-c", ECHO]].concat()))
}

#[test]
fn where_the_gateways_own_name_is_not_known_the_lane_begins_at_the_relay_and_says_so_once() {
    for kind in KINDS {
        let site = Site::start(MINUTE, Manner::Nameless);
        let (code, events, stderr) = through(&site.engineer(), &["--json"], kind);
        assert_eq!(code, 42, "{kind:?}: {stderr}");
        let said = "the name gw.invalid is not known here; going through the relay";
        assert_eq!(stderr.matches("gw.invalid").count(), 1, "{kind:?}: {stderr}");
        assert!(stderr.contains(said) && !stderr.contains("does not answer"), "{kind:?}: {stderr}");
        assert_eq!((kinds(&events), &events[0]["path"]), (vec!["up", "down"], &"relay".into()), "{kind:?}: {events:?}");
    }
}

#[test]
fn where_no_name_is_known_the_next_step_names_both_settings() {
    for kind in KINDS {
        let site = Site::start(MINUTE, Manner::Nowhere);
        let (code, _, stderr) = through(&site.engineer(), &[], kind);
        assert_eq!(code, 6, "{kind:?}: {stderr}");
        for word in ["gw.invalid", "hq.invalid", "--endpoint", "--relay-public"] {
            assert!(stderr.contains(word), "{kind:?}: {word}: {stderr}");
        }
        assert!(site.was_released(), "{kind:?}");
    }
}

#[test]
fn a_way_that_is_given_up_is_told_beside_the_result_and_not_to_whoever_wants_quiet() {
    for kind in KINDS {
        for flags in [&["--json"][..], &["--json", "--quiet"]] {
            let site = Site::start(MINUTE, Manner::Elsewhere);
            let words = [&["connect", "rtu-7"], flags, kind, &["--", "bash", "-c", "exit 42"]].concat();
            let output = site.engineer().run(&words);
            let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
            assert_eq!(support::code(&output), 42, "{kind:?}: {stderr}");
            let said = "10.77.0.2:51821 does not answer; going through the relay";
            assert_eq!(stderr.matches(said).count(), usize::from(flags.len() == 1), "{kind:?} {flags:?}: {stderr}");
            assert_eq!(stderr.is_empty(), flags.len() == 2, "{kind:?} {flags:?}: {stderr}");
            let pure = stdout.lines().all(|line| serde_json::from_str::<Value>(line).is_ok_and(|it| it.is_object()));
            assert!(pure && stdout.lines().count() == 2, "{kind:?} {flags:?}: {stdout}");
        }
    }
}

#[test]
fn without_the_right_to_make_an_interface_nothing_is_asked_for() {
    let site = Site::start(MINUTE, Manner::Answers);
    let person = site.engineer();
    let asked = site.controller.asked().len();
    let mut powerless = std::process::Command::new("setpriv");
    powerless.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"]).arg(env!("CARGO_BIN_EXE_thinlane"));
    powerless.arg("--home").arg(person.home()).args(["connect", "rtu-7"]);
    let output = powerless.output().expect("setpriv");
    assert_eq!(support::code(&output), 1, "{}", support::said(&output));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("CAP_NET_ADMIN") && stderr.contains("--config-out"), "{stderr}");
    assert_eq!(site.controller.asked().len(), asked);
}

#[test]
fn a_command_that_is_not_there_uses_no_request() {
    let site = Site::start(MINUTE, Manner::Answers);
    let person = site.engineer();
    let (code, _, stderr) = person.says(&["connect", "rtu-7", "--", "surely-no-such-command"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(!site.controller.asked().iter().any(|asked| asked.ends_with("/activate")));
}
