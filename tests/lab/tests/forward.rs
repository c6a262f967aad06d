//! Lanes without an interface, as somebody without any right, through the whole product.

#[path = "forward/nobody.rs"]
mod nobody;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use nobody::{Nobody, Server};
use thinlane_lab::{Background, Case, Lab, main as run, wait_until};

const CASES: &[Case] = &[
    ("a_real_modbus_client_works_without_any_right", a_real_modbus_client_works_without_any_right),
    ("a_real_iec_104_client_works_without_any_right", a_real_iec_104_client_works_without_any_right),
    ("a_bulk_transfer_hashes_equal_both_ways", a_bulk_transfer_hashes_equal_both_ways),
    ("two_hundred_connections_and_not_one_more", two_hundred_connections_and_not_one_more),
    ("the_ends_of_connections_are_told_as_they_are", the_ends_of_connections_are_told_as_they_are),
    ("datagrams_find_their_way_back", datagrams_find_their_way_back),
    ("a_killed_lane_resets_local_connections_at_once", a_killed_lane_resets_local_connections_at_once),
    ("a_changed_address_needs_no_new_approval", a_changed_address_needs_no_new_approval),
    ("a_taken_port_is_said_before_the_request_is_used", a_taken_port_is_said_before_the_request_is_used),
    ("a_second_lane_is_refused_and_a_killed_one_is_tidied_up", a_second_lane_is_refused_and_a_killed_one_tidied),
];

fn main() -> ExitCode {
    run("tfwd", CASES)
}

fn a_real_modbus_client_works_without_any_right(lab: &Lab) -> Result<()> {
    let nobody = Nobody::new(lab)?;
    // What cannot work without a right says what can.
    let request = lab.approved("north-plc1", "modbus", "2m")?;
    nobody.thinlane(&["connect", &request]).run()?.exits(1)?.says("--forward")?;
    nobody.client(&request, "modbus", "0")?.says("modbus")?;
    let shown = lab.json("erik", &["request", "show", &request])?;
    let session = lab.session(shown["session"].as_str().context("a session")?)?;
    ensure!(session["end_reason"] == "released", "{session}");
    ensure!(session["counters"]["denied_packets"] == 0 && session["counters"]["spoofed_packets"] == 0, "{session}");
    let links = lab.on("erik", &["ip", "-br", "link"]).run()?.good()?.stdout;
    ensure!(!links.contains("tl-"), "an interface was made: {links}");
    Ok(())
}

/// A control centre and a substation of PyPI's `c104`, which Debian does not carry: `pip install --target DIR c104` puts it
/// where everybody may read it, and `THINLANE_C104=DIR` says where.
fn a_real_iec_104_client_works_without_any_right(lab: &Lab) -> Result<()> {
    let Ok(modules) = std::env::var("THINLANE_C104") else {
        println!("    not run: it needs PyPI's c104, and THINLANE_C104 does not say where that is");
        return Ok(());
    };
    let nobody = Nobody::new(lab)?;
    let _server = Server::substation(lab, &modules)?;
    let request = lab.approved("north-plc1", "iec104", "2m")?;
    nobody.control_centre(&request, &modules)?.says("iec104")?;
    let shown = lab.json("erik", &["request", "show", &request])?;
    let session = lab.session(shown["session"].as_str().context("a session")?)?;
    ensure!(session["counters"]["up_packets"].as_u64() > Some(10), "{session}");
    Ok(())
}

/// 20 MB each way, or `THINLANE_FORWARD_MB`.
fn a_bulk_transfer_hashes_equal_both_ways(lab: &Lab) -> Result<()> {
    let nobody = Nobody::new(lab)?;
    let _server = Server::start(lab)?;
    let megabytes = std::env::var("THINLANE_FORWARD_MB").unwrap_or_else(|_| "20".to_owned());
    let request = lab.approved("north-plc1", "iec104", "5m")?;
    let out = nobody.client(&request, "transfer", &megabytes)?.says("MB/s")?;
    println!("    {}", out.stdout.trim());
    Ok(())
}

fn two_hundred_connections_and_not_one_more(lab: &Lab) -> Result<()> {
    let nobody = Nobody::new(lab)?;
    let _server = Server::start(lab)?;
    let request = lab.approved("north-plc1", "iec104", "2m")?;
    nobody.client(&request, "many", "200")?.says("all 200")?.says("200 are open")?;
    Ok(())
}

fn the_ends_of_connections_are_told_as_they_are(lab: &Lab) -> Result<()> {
    let nobody = Nobody::new(lab)?;
    let request = lab.approved("north-plc2", "iec104", "2m")?;
    nobody.client(&request, "refused", "0")?.says("refused")?.says("nothing listens")?;
    let _server = Server::start(lab)?;
    let request = lab.approved("north-plc1", "iec104", "2m")?;
    nobody.client_script(&request, &["half", "reset", "deaf"])?.says("half")?.says("reset")?.says("deaf")?;
    Ok(())
}

fn datagrams_find_their_way_back(lab: &Lab) -> Result<()> {
    let nobody = Nobody::new(lab)?;
    let request = lab.approved("north-plc1", "echo-udp", "2m")?;
    nobody.client(&request, "udp", "0")?.says("udp")?;
    Ok(())
}

fn a_killed_lane_resets_local_connections_at_once(lab: &Lab) -> Result<()> {
    let nobody = Nobody::new(lab)?;
    let _server = Server::start(lab)?;
    let request = lab.approved("north-plc1", "iec104", "2m")?;
    let held = nobody.hold(&request, &["--forward"])?;
    let tool = Background::start(nobody.tool(&held, "hold"))?;
    wait_until(10_000, "the tool is connected", || Ok(nobody.said("hold").contains("held")))?;
    lab.thinlane("olga", &["session", "kill", &held.session, "--reason", "test"]).run()?.good()?;
    tool.finish(5_000)?.good()?;
    held.running.finish(5_000)?.exits(5)?.says("killed")?;
    nobody.is_clean()
}

fn a_changed_address_needs_no_new_approval(lab: &Lab) -> Result<()> {
    let nobody = Nobody::new(lab)?;
    let request = lab.approved("north-plc1", "echo-tcp", "2m")?;
    let held = nobody.hold(&request, &["--forward"])?;
    let to = format!("127.0.0.1:{}", held.port);
    let words = ["thinlane-sim", "echo", "tcp", &to, "--every", "50ms", "--for", "12s", "--patience", "11s"];
    let echo = Background::start(lab.on("erik", &words))?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    let moves = |from: &str, to: &str| {
        let script = format!(
            "ip addr del 192.168.178.{from}/24 dev eth0; ip addr add 192.168.178.{to}/24 dev eth0; \
             ip route replace default via 192.168.178.1"
        );
        lab.on("erik", &["sh", "-c", &script]).run()?.good().map(|_| ())
    };
    moves("2", "3")?;
    let outcome = echo.finish(20_000);
    moves("3", "2")?;
    outcome?.good()?;
    held.running.signal("TERM")?;
    held.running.finish(10_000)?.exits(143)?.says("network has changed")?;
    nobody.is_clean()
}

fn a_taken_port_is_said_before_the_request_is_used(lab: &Lab) -> Result<()> {
    let nobody = Nobody::new(lab)?;
    let request = lab.approved("north-plc1", "echo-tcp", "2m")?;
    let _other = Background::start(lab.on("erik", &["nc", "-lk", "127.0.0.1", "15020"]))?;
    wait_until(5_000, "the port is taken", || {
        Ok(lab.on("erik", &["ss", "-Htln", "sport", "=", "15020"]).run()?.stdout.contains("15020"))
    })?;
    let taken = nobody.thinlane(&["connect", &request, "--forward", "15020"]).run()?.exits(1)?;
    taken.says("port 15020 of 127.0.0.1 is in use")?.says("next")?;
    nobody.thinlane(&["connect", &request, "--forward", "80"]).run()?.exits(1)?.says("below 1024")?;
    let shown = lab.json("erik", &["request", "show", &request])?;
    ensure!(shown["state"] == "approved", "{shown}");
    let held = nobody.hold(&request, &["--forward", "15021"])?;
    ensure!(held.port == 15021);
    held.running.signal("INT")?;
    held.running.finish(10_000)?.exits(130)?;
    nobody.is_clean()
}

fn a_second_lane_is_refused_and_a_killed_one_tidied(lab: &Lab) -> Result<()> {
    let nobody = Nobody::new(lab)?;
    let request = lab.approved("north-plc2", "echo-tcp", "2m")?;
    let held = nobody.hold(&request, &["--forward"])?;
    let other = lab.approved("north-plc2", "modbus", "2m")?;
    for forward in [&["--forward"][..], &[]] {
        let words = [&["connect", &other][..], forward].concat();
        let person = if forward.is_empty() { nobody.as_root(&words) } else { nobody.thinlane(&words) };
        person.run()?.exits(1)?.says("a lane to north-plc2 already")?.says(&format!("127.0.0.1:{}", held.port))?;
    }
    held.running.signal("KILL")?;
    drop(held.running);
    nobody.thinlane(&["down"]).run()?.good()?.says("removed what was left of the lane")?;
    let session = lab.session(&held.session)?;
    ensure!(session["end_reason"] == "released", "{session}");
    nobody.is_clean()
}
