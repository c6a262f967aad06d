//! A router with a kernel of its own, in an emulated machine: nothing of this machine's kernel helps it, WireGuard is a
//! module that its kernel loads when the agent wants it, and power that is cut takes with it what was not yet on the disk.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use thinlane_lab::{Lab, now_ms, wait_until};
use thinlane_vm::Kernel;

use super::Place;

/// How long a case's lane may last: an emulated machine takes its time.
const LONG: &str = "10m";
/// For what is done there to be noticed, in milliseconds.
const PATIENCE: u64 = 60_000;
const OFFLOAD: &str = "table inet fast { flowtable ft { hook ingress priority 0; devices = { port1, wwan0 }; }; }";

pub fn an_emulated_router_is_flashed_and_its_own_kernel_carries_a_lane(lab: &Lab) -> Result<()> {
    let router = lab.root().join("router");
    thinlane_vm::router::lay_out(&Kernel::fetch(&thinlane_vm::cache())?, &router)?;
    let place = Place::up(lab, "machine", "emu", 18)?;
    let mut enrolment = place.enrolment()?;
    enrolment.extend(["--lan".to_owned(), "lan".to_owned()]);
    place.flash(&enrolment)?.good()?.says("GREEN")?.says("WireGuard yes")?.says("ready as site emu")?;
    // The plug, at once: what was promised in green is on the disk, and it comes back by itself as who it was.
    place.script(&["power", "emu"]).run()?.good()?;
    ready(&place)?;
    let report = check(&place)?;
    ensure!(codes(&report).is_empty(), "a gateway that was just flashed: {report}");
    ensure!(report["facts"]["backend"] == "kernel", "who encrypts: {report}");
    a_lane_of_its_kernel(lab, &place)?;
    what_its_kernel_lacks_or_does_is_named(lab, &place)?;
    place.flash(&["--uninstall"])?.good()?.says("GREEN")?;
    place.is_as_before()
}

/// The lane is an interface of its kernel's, carries, and nothing of it is left when it was killed.
fn a_lane_of_its_kernel(lab: &Lab, place: &Place<'_>) -> Result<()> {
    let lane = lab.lane("emu-plc1", "echo-tcp", LONG)?;
    lane.exchange("tcp")?.good()?;
    let shown = lane.show()?;
    ensure!(shown["backend"] == "kernel", "who encrypts: {shown}");
    let peers = place.on("wg show all latest-handshakes")?.good()?.stdout;
    let (name, at) = (peers.split_whitespace().next(), peers.split_whitespace().last());
    ensure!(name.is_some_and(|name| name.starts_with("tl-")) && at.is_some_and(|at| at != "0"), "{peers:?}");

    let device = lab.device("emu-1");
    let before = now_ms();
    let _talk = lane.patient_echo("tcp", "50ms", "2m")?;
    device.wait_for(5, before)?;
    lab.thinlane("olga", &["session", "kill", &lane.session, "--reason", "the test is over"]).run()?.good()?;
    // The answer comes with the gateway's closing record.
    let killed = now_ms();
    std::thread::sleep(std::time::Duration::from_millis(700));
    device.quiet_after(killed)?;
    let left = place.on("wg show interfaces; nft list map inet thinlane up")?.good()?.stdout;
    ensure!(!left.contains("tl-") && !left.contains("198.19."), "left of the lane: {left}");
    Ok(())
}

/// Findings that only a kernel with these features can have.
fn what_its_kernel_lacks_or_does_is_named(lab: &Lab, place: &Place<'_>) -> Result<()> {
    // Through a port of the LAN's bridge, as vendors do.
    place.on(&format!("nft '{OFFLOAD}'"))?.good()?;
    wait_until(PATIENCE, "flow offload is named", || Ok(codes(&check(place)?) == ["problem flow-offload"]))?;
    ensure!(lab.lane("emu-plc1", "echo-udp", LONG).is_err(), "a lane was opened beside flow offload");
    place.on("nft delete table inet fast")?.good()?;
    ready(place)?;

    // Without the module the agent brings its own WireGuard, and says what that costs.
    let module = "/lib/modules/$(uname -r)/kernel/drivers/net/wireguard/wireguard.ko";
    let anew = "depmod && /etc/init.d/thinlane restart";
    place.on(&format!("rmmod wireguard && mv {module} /tmp && {anew}"))?.good()?;
    ready(place)?;
    let report = check(place)?;
    ensure!(codes(&report) == ["note no-wireguard-module"], "{report}");
    ensure!(report["facts"]["backend"] == "userspace", "{report}");
    ensure!(report["findings"][0]["why"].as_str().is_some_and(|why| why.contains("GB")), "what it costs: {report}");
    let lane = lab.lane("emu-plc1", "echo-udp", LONG)?;
    lane.exchange("udp")?.good()?;
    drop(lane);
    place.on(&format!("mv /tmp/wireguard.ko {module} && {anew}"))?.good()?;
    ready(place)?;
    ensure!(codes(&check(place)?).is_empty(), "with the module again");
    Ok(())
}

/// Waits there, in one log-in: each costs an emulated processor a second.
fn ready(place: &Place<'_>) -> Result<()> {
    let wait =
        "n=60; until thinlane-agent status --check ready; do n=$((n - 1)); [ $n -gt 0 ] || exit 1; sleep 1; done";
    place.on(wait)?.good().context("the emulated router is not ready")?;
    Ok(())
}

/// What `check` says there.
fn check(place: &Place<'_>) -> Result<Value> {
    let said = place.on("thinlane-agent check --json")?;
    said.lines_json().into_iter().next().with_context(|| format!("no JSON: {said:?}"))
}

/// `severity code` of each finding.
fn codes(report: &Value) -> Vec<String> {
    let word = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let all = report["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().map(|finding| format!("{} {}", word(finding, "severity"), word(finding, "code"))).collect()
}
