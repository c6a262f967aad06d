//! The main job, as a person does it: ask, approve, connect, work, let go; and what goes wrong on the way.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use thinlane_lab::{Background, Case, Lab, main as run, wait_until};

const CASES: &[Case] = &[
    ("a_lane_carries_a_real_modbus_client", a_lane_carries_a_real_modbus_client),
    ("a_lane_carries_echo_over_tcp_and_udp", a_lane_carries_echo_over_tcp_and_udp),
    ("identical_addresses_at_two_sites_work_at_once", identical_addresses_at_two_sites_work_at_once),
    ("connect_runs_a_command_and_passes_its_exit_code", connect_runs_a_command_and_passes_its_exit_code),
    ("ctrl_c_takes_the_lane_down", ctrl_c_takes_the_lane_down),
    ("what_a_killed_connect_leaves_is_removed_by_the_next_call", what_a_killed_connect_leaves_is_removed),
    ("a_stock_client_works_through_the_relay", a_stock_client_works_through_the_relay),
    ("native_uses_the_devices_own_address", native_uses_the_devices_own_address),
    ("an_extension_moves_the_end", an_extension_moves_the_end),
    ("a_locked_persons_lane_ends_at_both_ends", a_locked_persons_lane_ends_at_both_ends),
    ("a_second_lane_to_one_asset_is_refused_by_name", a_second_lane_to_one_asset_is_refused_by_name),
    ("the_closing_record_counts_exactly", the_closing_record_counts_exactly),
    ("what_may_not_be_is_refused_with_the_right_exit_code", what_may_not_be_is_refused),
    ("an_away_gateway_is_said_within_thirty_seconds", an_away_gateway_is_said),
    ("a_restarted_agent_resumes_its_lanes", a_restarted_agent_resumes_its_lanes),
    ("a_restarted_controller_keeps_lanes_open", a_restarted_controller_keeps_lanes_open),
    ("backup_and_restore_while_running", backup_and_restore_while_running),
    ("cleanup_leaves_no_trace", cleanup_leaves_no_trace),
];

fn main() -> ExitCode {
    run("tlane", CASES)
}

fn a_lane_carries_a_real_modbus_client(lab: &Lab) -> Result<()> {
    let lane = lab.lane("north-plc1", "modbus", "2m")?;
    let script = "import sys\nfrom pymodbus.client import ModbusTcpClient\nc=ModbusTcpClient(sys.argv[1],timeout=5)\nassert c.connect()\nr=c.read_holding_registers(0,4,slave=1)\nprint(r.registers)";
    lab.on("erik", &["/usr/bin/python3", "-c", script, &lane.address]).run()?.good()?.says("[100, 101, 102, 103]")?;
    let shown = lane.show()?;
    ensure!(shown["counters"]["up_packets"].as_u64() > Some(0) || shown["state"] == "active", "{shown}");
    Ok(())
}

fn a_lane_carries_echo_over_tcp_and_udp(lab: &Lab) -> Result<()> {
    for (task, protocol) in [("echo-tcp", "tcp"), ("echo-udp", "udp")] {
        let lane = lab.lane("north-plc1", task, "1m")?;
        lane.exchange(protocol)?.good()?;
    }
    Ok(())
}

fn identical_addresses_at_two_sites_work_at_once(lab: &Lab) -> Result<()> {
    let north = lab.lane("north-plc1", "echo-tcp", "1m")?;
    let south = lab.lane("south-plc1", "echo-tcp", "1m")?;
    ensure!(north.address != south.address);
    let before = thinlane_lab::now_ms();
    north.exchange("tcp")?.good()?;
    lab.device("south-1").quiet_after(before)?;
    south.exchange("tcp")?.good()?;
    lab.device("south-1").wait_for(1, before)
}

fn connect_runs_a_command_and_passes_its_exit_code(lab: &Lab) -> Result<()> {
    let request = lab.approved("north-plc2", "echo-tcp", "1m")?;
    let script = "thinlane-sim echo tcp $THINLANE_ASSET_ADDRESS:$THINLANE_ASSET_PORT --for 200ms >/dev/null && ip -br link show $THINLANE_IFACE && exit 42";
    let out = lab.thinlane("erik", &["connect", &request, "--", "sh", "-c", script]).run()?.exits(42)?;
    ensure!(out.stdout.contains("tl-"), "{}", out.stdout);
    no_interface(lab)?;
    let shown = lab.json("erik", &["request", "show", &request])?;
    let session = lab.session(shown["session"].as_str().context("a session")?)?;
    ensure!(session["state"] == "ended" && session["end_reason"] == "released", "{session}");
    Ok(())
}

fn no_interface(lab: &Lab) -> Result<()> {
    let links = lab.on("erik", &["ip", "-br", "link"]).run()?.good()?.stdout;
    ensure!(!links.contains("tl-"), "left behind: {links}");
    Ok(())
}

fn ctrl_c_takes_the_lane_down(lab: &Lab) -> Result<()> {
    let request = lab.approved("north-plc2", "echo-tcp", "1m")?;
    let held = Background::start(lab.thinlane("erik", &["connect", &request, "--json"]))?;
    wait_until(10_000, "the interface is up", || {
        Ok(lab.on("erik", &["ip", "-br", "link"]).run()?.stdout.contains("tl-"))
    })?;
    held.signal("INT")?;
    held.finish(10_000)?.exits(130)?;
    no_interface(lab)
}

fn what_a_killed_connect_leaves_is_removed(lab: &Lab) -> Result<()> {
    let request = lab.approved("north-plc2", "echo-tcp", "1m")?;
    let held = Background::start(lab.thinlane("erik", &["connect", &request, "--json"]))?;
    wait_until(10_000, "the interface is up", || {
        Ok(lab.on("erik", &["ip", "-br", "link"]).run()?.stdout.contains("tl-"))
    })?;
    held.signal("KILL")?;
    drop(held);
    lab.thinlane("erik", &["down"]).run()?.good()?;
    no_interface(lab)
}

fn a_stock_client_works_through_the_relay(lab: &Lab) -> Result<()> {
    let request = lab.approved("north-plc1", "echo-tcp", "1m")?;
    let file = lab.root().join("stock.conf");
    let path = file.to_string_lossy().into_owned();
    let _ = std::fs::remove_file(&file);
    lab.thinlane("erik", &["up", &request, "--config-out", &path, "--json"]).run()?.good()?;
    use std::os::unix::fs::PermissionsExt;
    ensure!(std::fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600);
    let conf = std::fs::read_to_string(&file)?;
    let value = |key: &str| -> Result<String> {
        let line = conf.lines().find(|line| line.starts_with(key)).with_context(|| format!("no {key} in the .conf"))?;
        Ok(line.split_once('=').context("key = value")?.1.trim().to_owned())
    };
    let stripped: String =
        conf.lines().filter(|l| !l.starts_with("Address") && !l.starts_with("MTU")).map(|l| format!("{l}\n")).collect();
    let stripped_path = lab.root().join("stock.wg");
    std::fs::write(&stripped_path, stripped)?;
    let asset = value("AllowedIPs")?;
    let script = format!(
        "set -e; trap 'ip link del wgstock$$ 2>/dev/null' EXIT; wireguard-go wgstock$$ >/dev/null 2>&1; \
         for i in 1 2 3 4 5; do wg setconf wgstock$$ {} && break; sleep 0.3; done; \
         ip addr add {} dev wgstock$$; ip link set wgstock$$ mtu {} up; ip route add {asset} dev wgstock$$; \
         thinlane-sim echo tcp {}:7 --for 500ms --patience 8s; wg show wgstock$$ latest-handshakes",
        stripped_path.display(),
        value("Address")?,
        value("MTU")?,
        asset.trim_end_matches("/32"),
    );
    lab.on("erik", &["sh", "-c", &script]).run()?.good()?.says("\"end\":\"done\"")?;
    lab.thinlane("erik", &["down"]).run()?;
    std::fs::remove_file(&file)
        .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    Ok(())
}

fn native_uses_the_devices_own_address(lab: &Lab) -> Result<()> {
    let request = lab.approved("north-plc1", "echo-tcp", "1m")?;
    let script = "echo $THINLANE_ASSET_ADDRESS; thinlane-sim echo tcp $THINLANE_ASSET_ADDRESS:7 --for 200ms";
    lab.thinlane("erik", &["connect", &request, "--native", "--", "sh", "-c", script])
        .run()?
        .good()?
        .says("192.168.1.10")?;
    Ok(())
}

fn an_extension_moves_the_end(lab: &Lab) -> Result<()> {
    let lane = lab.lane("north-plc1", "echo-tcp", "4s")?;
    let before = thinlane_lab::now_ms();
    let echo = lane.echo("tcp", "20ms", "7s")?;
    lab.thinlane("erik", &["extend", &lane.session, "--for", "6s", "--reason", "more"]).run()?.good()?;
    echo.finish(12_000)?.good()?;
    ensure!(lab.device("north-1").last_since(before)? > before + 6_000.0);
    ensure!(lane.show()?["ends_at"].as_str() > Some(lane.ends_at.as_str()));
    Ok(())
}

fn a_second_lane_to_one_asset_is_refused_by_name(lab: &Lab) -> Result<()> {
    let _first = lab.lane("north-plc1", "echo-tcp", "1m")?;
    let second = lab.approved("north-plc1", "echo-udp", "1m")?;
    lab.thinlane("erik", &["up", &second]).run()?.exits(1)?.says("north-plc1")?;
    let shown = lab.json("erik", &["request", "show", &second])?;
    ensure!(shown["state"] == "approved", "the refused request was used up: {shown}");
    Ok(())
}

fn a_restarted_agent_resumes_its_lanes(lab: &Lab) -> Result<()> {
    let lane = lab.lane("north-plc1", "echo-udp", "1m")?;
    let before = thinlane_lab::now_ms();
    let echo = lane.patient_echo("udp", "20ms", "10s")?;
    lab.device("north-1").wait_for(10, before)?;
    lab.agent_process("north", "kill")?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    lab.agent_process("north", "start")?;
    let restarted = thinlane_lab::now_ms();
    lab.device("north-1").wait_for(1, restarted)?;
    let resumed = lab.device("north-1").payloads_since(restarted)?[0].at_ms;
    ensure!(resumed - restarted < 2_000.0, "resumed after {:.0} ms", resumed - restarted);
    drop(echo);
    Ok(())
}

fn a_restarted_controller_keeps_lanes_open(lab: &Lab) -> Result<()> {
    let lane = lab.lane("north-plc1", "echo-udp", "1m")?;
    lab.script(&["controller", "kill"]).run()?.good()?;
    lab.script(&["controller", "start"]).run()?.good()?;
    wait_until(20_000, "the controller answers", || Ok(lab.thinlane("erik", &["whoami"]).run()?.code == 0))?;
    lab.wait_ready("north")?;
    // The new relay knows no addresses: both ends shake hands again.
    let before = thinlane_lab::now_ms();
    let echo = lane.patient_echo("udp", "20ms", "12s")?;
    lab.device("north-1").wait_for(1, before)?;
    drop(echo);
    lab.thinlane("olga", &["session", "kill", &lane.session, "--reason", "done"]).run()?.good()?;
    Ok(())
}

/// The lock takes the log-in away together with the lane, and whoever holds the lane must still be told.
fn a_locked_persons_lane_ends_at_both_ends(lab: &Lab) -> Result<()> {
    let request = lab.approved("north-plc1", "echo-tcp", "2m")?;
    let connect = Background::start(lab.thinlane("erik", &["connect", &request, "--json", "--", "sleep", "60"]))?;
    wait_until(15_000, "the lane is up", || {
        Ok(lab.thinlane("olga", &["session", "ls", "--active"]).run()?.stdout.contains("north-plc1"))
    })?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    lab.thinlane("olga", &["lock", "user", "erik", "--reason", "test"]).run()?.good()?;
    let ended = connect.finish(10_000);
    lab.thinlane("olga", &["unlock", "user", "erik"]).run()?.good()?;
    let root = lab.root();
    let (secret, password) = (root.join("erik.totp"), std::fs::read_to_string(root.join("erik.password"))?);
    let words = ["login", "https://198.51.100.2:7443", "--user", "erik", "--password-stdin", "--totp-secret-file"];
    lab.thinlane("erik", &[&words[..], &[&secret.to_string_lossy()]].concat()).input(&password).run()?.good()?;
    let ended = ended?.exits(5)?;
    let down = ended.lines_json().into_iter().find(|line| line["event"] == "down").context("no `down`")?;
    ensure!(down["reason"] == "locked", "{down}");
    no_interface(lab)
}

fn the_closing_record_counts_exactly(lab: &Lab) -> Result<()> {
    let lane = lab.lane("north-plc1", "echo-udp", "1m")?;
    let to = format!("{}:{}", lane.address, lane.port);
    let out = lab
        .on("erik", &["thinlane-sim", "echo", "udp", &to, "--every", "10ms", "--for", "1s", "--size", "100"])
        .run()?
        .good()?;
    let sent = out.lines_json().last().and_then(|end| end["sent"].as_u64()).context("an end")?;
    lab.thinlane("erik", &["release", &lane.session]).run()?.good()?;
    let shown = lane.show()?;
    ensure!(shown["endpoint"].is_string(), "where the engineer came from is known afterwards too: {shown}");
    let counters = shown["counters"].clone();
    ensure!(
        counters["up_packets"] == sent && counters["up_bytes"] == sent * 128,
        "{sent} sent of 128 bytes: {counters}"
    );
    ensure!(counters["denied_packets"] == 0 && counters["spoofed_packets"] == 0, "{counters}");
    Ok(())
}

fn what_may_not_be_is_refused(lab: &Lab) -> Result<()> {
    let asked =
        lab.json("erik", &["request", "create", "north-plc1", "--task", "modbus", "--reason", "test", "--nowait"])?;
    let id = asked["id"].as_str().context("an id")?.to_owned();
    lab.thinlane("erik", &["request", "approve", &id]).run()?.exits(3)?;
    lab.thinlane("erik", &["user", "add", "eve", "--name", "Eve", "--role", "admin"]).run()?.exits(3)?;
    lab.thinlane("erik", &["connect", "no-such-plc", "--task", "modbus", "--reason", "x"])
        .run()?
        .exits(1)?
        .says("no-such-plc")?;
    lab.thinlane("erik", &["request", "create", "north-plc1", "--task", "no-such-task", "--reason", "x", "--nowait"])
        .run()?
        .exits(1)?;
    lab.thinlane("erik", &["request", "show", "req_00000000"]).run()?.exits(1)?;
    lab.thinlane("erik", &["frobnicate"]).run()?.exits(2)?;
    lab.thinlane("erik", &["connect", &id, "--wait", "1s"]).run()?.exits(4)?;
    lab.thinlane("olga", &["request", "deny", &id, "--reason", "not today"]).run()?.good()?;
    lab.thinlane("erik", &["connect", &id]).run()?.exits(3)?.says("not today")?;
    let public = "https://198.51.100.2:7443";
    let wrong = format!("sha256:{}", "ab".repeat(32));
    let fresh = lab.root().join("home-fresh").to_string_lossy().into_owned();
    lab.on(
        "erik",
        &[
            "env",
            &format!("THINLANE_HOME={fresh}"),
            "thinlane",
            "login",
            public,
            "--ca-fingerprint",
            &wrong,
            "--user",
            "erik",
            "--password-stdin",
            "--totp",
            "000000",
        ],
    )
    .input("x\n")
    .run()?
    .exits(7)?;
    let code = lab.root().join("north.code").to_string_lossy().into_owned();
    let print = std::fs::read_to_string(lab.root().join("fingerprint"))?;
    let dir = lab.root().join("agent-again").to_string_lossy().into_owned();
    lab.on(
        "south",
        &[
            "thinlane-agent",
            "enroll",
            "--dir",
            &dir,
            "--controller",
            "198.51.100.2:7443",
            "--ca-fingerprint",
            print.trim(),
            "--token-file",
            &code,
        ],
    )
    .run()?
    .exits(3)?;
    lab.on(
        "south",
        &[
            "thinlane-agent",
            "enroll",
            "--dir",
            &dir,
            "--controller",
            "198.51.100.2:7443",
            "--ca-fingerprint",
            &wrong,
            "--token-file",
            &code,
        ],
    )
    .run()?
    .exits(7)?;
    lab.on(
        "south",
        &[
            "thinlane-agent",
            "enroll",
            "--dir",
            &dir,
            "--controller",
            "198.51.100.2:1",
            "--ca-fingerprint",
            print.trim(),
            "--token-file",
            &code,
        ],
    )
    .run()?
    .exits(6)?;
    Ok(())
}

fn an_away_gateway_is_said(lab: &Lab) -> Result<()> {
    let request = lab.approved("south-plc1", "echo-tcp", "1m")?;
    lab.agent_process("south", "stop")?;
    let before = thinlane_lab::now_ms();
    lab.thinlane("erik", &["connect", &request, "--", "true"]).run()?.exits(6)?;
    ensure!(thinlane_lab::now_ms() - before < 32_000.0);
    lab.agent_process("south", "start")
}

fn backup_and_restore_while_running(lab: &Lab) -> Result<()> {
    let dir = lab.root().join("controller").to_string_lossy().into_owned();
    let file = lab.root().join("backup").to_string_lossy().into_owned();
    let copy = lab.root().join("restored").to_string_lossy().into_owned();
    lab.on("hq", &["thinlane-controller", "backup", "--dir", &dir, "--to", &file]).run()?.good()?;
    lab.on("hq", &["thinlane-controller", "restore", "--from", &file, "--dir", &copy]).run()?.good()?;
    lab.thinlane("ada", &["audit", "verify", "--dir", &copy]).run()?.good()?;
    lab.on("hq", &["thinlane-controller", "restore", "--from", &file, "--dir", &copy]).run()?.exits(1)?;
    std::fs::remove_dir_all(copy)?;
    std::fs::remove_file(file)?;
    Ok(())
}

fn cleanup_leaves_no_trace(lab: &Lab) -> Result<()> {
    let lane = lab.lane("south-plc1", "echo-tcp", "1m")?;
    lane.exchange("tcp")?.good()?;
    lab.agent_process("south", "kill")?;
    lab.agent("south", &["cleanup"]).run()?.good()?;
    ensure!(!lab.nft("south", &["list", "ruleset"])?.contains("thinlane"));
    let links = lab.on("south", &["ip", "-br", "link"]).run()?.stdout;
    ensure!(!links.contains("tl0") && !links.contains("tl-"), "{links}");
    ensure!(!lab.on("south", &["ip", "route"]).run()?.stdout.contains("198.19."));
    let forwarding = lab.on("south", &["cat", "/proc/sys/net/ipv4/conf/lan/forwarding"]).run()?.stdout;
    ensure!(forwarding.trim() == "0", "forwarding of lan was left at {forwarding}");
    ensure!(!lab.on("south", &["conntrack", "-L"]).run()?.stdout.contains("198.19."));
    lab.agent_process("south", "start")
}
