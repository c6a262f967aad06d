//! T1 and T2: a lane ends on time, however it ends and whoever is dead.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use thinlane_lab::{Lab, Lane, now_ms, wait_until};

/// How far after an end a payload may still arrive at the device, in milliseconds (DESIGN 9: 50 for a kill; the
/// rest is this machine's scheduling).
const SLACK_MS: f64 = 80.0;

/// Ends a session in one way and says until when, at the latest, a payload may still have arrived.
type Ending = fn(&Lab, &Lane) -> Result<f64>;

fn by_kill(lab: &Lab, lane: &Lane) -> Result<f64> {
    lab.thinlane("olga", &["session", "kill", &lane.session, "--reason", "test"]).run()?.good()?;
    Ok(now_ms())
}

fn by_release(lab: &Lab, lane: &Lane) -> Result<f64> {
    lab.thinlane("erik", &["release", &lane.session]).run()?.good()?;
    Ok(now_ms())
}

fn by_lock(lab: &Lab, _: &Lane) -> Result<f64> {
    lab.thinlane("olga", &["lock", "asset", "north-plc1", "--reason", "test"]).run()?.good()?;
    Ok(now_ms())
}

fn by_isolation(lab: &Lab, _: &Lane) -> Result<f64> {
    lab.agent("north", &["isolate", "on"]).run()?.good()?;
    Ok(now_ms())
}

fn by_expiry(_: &Lab, lane: &Lane) -> Result<f64> {
    let end = lane.end_ms()?;
    while now_ms() < end + 200.0 {
        sleep(Duration::from_millis(50));
    }
    Ok(end)
}

pub fn t01_a_running_flow_stops_however_the_grant_ends(lab: &Lab) -> Result<()> {
    let ways: [(&str, &str, Ending); 5] = [
        ("released", "1m", by_release),
        ("killed", "1m", by_kill),
        ("locked", "1m", by_lock),
        ("isolated", "1m", by_isolation),
        ("expired", "4s", by_expiry),
    ];
    for (task, protocol) in [("echo-tcp", "tcp"), ("echo-udp", "udp")] {
        for (reason, length, end) in ways {
            let what = || format!("{protocol}, {reason}");
            let lane = lab.lane("north-plc1", task, length).with_context(what)?;
            let start = now_ms();
            let echo = lane.echo(protocol, "20ms", "30s")?;
            lab.device("north-1").wait_for(10, start).with_context(what)?;
            let bound = end(lab, &lane).with_context(what)?;
            sleep(Duration::from_millis(700));
            lab.device("north-1").quiet_after(bound + SLACK_MS).with_context(what)?;
            let answers = echo.finish(10_000).with_context(what)?;
            let last = answers.lines_json().last().and_then(|line| line["last_ms"].as_f64()).context("an end")?;
            ensure!(last <= bound + SLACK_MS, "{}: the engineer had an answer {:.0} ms later", what(), last - bound);
            wait_until(5_000, "the session has ended", || Ok(lane.show()?["state"] == "ended")).with_context(what)?;
            let shown = lane.show()?;
            ensure!(shown["end_reason"] == reason, "{}: {}", what(), shown["end_reason"]);
            ensure!(shown["counters"]["up_packets"].as_u64() >= Some(10), "{}: {}", what(), shown["counters"]);
            drop(lane);
            lab.settle()?;
        }
    }
    Ok(())
}

pub fn t01_both_tcp_ends_are_reset(lab: &Lab) -> Result<()> {
    let lane = lab.lane("north-plc1", "echo-tcp", "1m")?;
    let start = now_ms();
    let echo = lane.echo("tcp", "20ms", "30s")?;
    lab.device("north-1").wait_for(5, start)?;
    by_kill(lab, &lane)?;
    wait_until(2_000, "the device's TCP slot is free", || {
        Ok(lab.device("north-1").count_since("reset", start)? + lab.device("north-1").count_since("closed", start)? > 0)
    })?;
    let out = echo.finish(3_000)?;
    ensure!(
        out.lines_json().last().is_some_and(|end| end["end"] == "reset"),
        "{}",
        out.stdout.lines().last().unwrap_or("")
    );
    Ok(())
}

pub fn t02_a_killed_agents_lane_ends_on_time_in_the_kernel(lab: &Lab) -> Result<()> {
    let lane = lab.lane("north-plc1", "echo-udp", "6s")?;
    let arrived = lane.echo_past_a_dead_agent("5ms", "8s")?;
    ensure!(arrived.len() > 50, "only {} payloads crossed the stand-in", arrived.len());
    let late = arrived.last().map_or(0.0, |last| last.at_ms) - lane.end_ms()?;
    ensure!(late < SLACK_MS, "the last payload came {late:.0} ms after the deadline");
    ensure!(late > -1_000.0, "the lane closed {late:.0} ms before its deadline");
    lab.agent_process("north", "start")?;
    lab.wait_ready("north")?;
    wait_until(8_000, "the session has ended", || Ok(lane.show()?["state"] == "ended"))?;
    let table = lab.nft("north", &["list", "table", "inet", "thinlane"])?;
    ensure!(!table.contains("chain lane-"), "start-up left a lane: {table}");
    lab.agent("north", &["check"]).run()?.good()?;
    Ok(())
}

pub fn t02_a_stopped_agents_lane_ends_on_time(lab: &Lab) -> Result<()> {
    let lane = lab.lane("north-plc1", "echo-udp", "3s")?;
    let start = now_ms();
    let echo = lane.echo("udp", "20ms", "6s")?;
    lab.device("north-1").wait_for(10, start)?;
    lab.agent_process("north", "pause")?;
    sleep(Duration::from_millis(3_500));
    let map = lab.nft("north", &["list", "map", "inet", "thinlane", "up"])?;
    ensure!(!map.contains("expires"), "an element outlived its lane: {map}");
    lab.agent_process("north", "resume")?;
    lab.device("north-1").quiet_after(lane.end_ms()? + SLACK_MS)?;
    wait_until(8_000, "the session has ended", || Ok(lane.show()?["state"] == "ended"))?;
    ensure!(lane.show()?["end_reason"] == "expired");
    drop(echo);
    lab.agent("north", &["check"]).run()?.good()?;
    Ok(())
}
