//! How fast a lane opens, and how fast it ends.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use thinlane_lab::{Lab, now_ms, wait_until};

use crate::api::Api;
use crate::table::Table;

pub fn activation(lab: &Lab, api: &Api, table: &mut Table, runs: usize) -> Result<()> {
    let mut seen = Vec::new();
    for _ in 0..runs {
        let request = lab.approved("north-plc1", "echo-udp", "1m")?;
        let answer = api.activate(lab, &request)?;
        seen.push(answer.took_ms);
        api.kill(lab, answer.body["session"]["id"].as_str().context("an id")?)?;
    }
    table.row("activation call received -> armed answer", "ms", &seen, Some(60.0));
    seen.sort_by(f64::total_cmp);
    table.row("  of these the median", "ms", &[seen[seen.len() / 2]], Some(20.0));
    Ok(())
}

pub fn kill(lab: &Lab, api: &Api, table: &mut Table, runs: usize) -> Result<()> {
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let lane = lab.lane("north-plc1", "echo-udp", "1m")?;
        let start = now_ms();
        let echo = lane.echo("udp", "2ms", "20s")?;
        lab.device("north-1").wait_for(50, start)?;
        let sent = api.kill(lab, &lane.session)?.sent_ms;
        let out = echo.finish(10_000)?;
        up.push(lab.device("north-1").last_since(start)? - sent);
        down.push(out.lines_json().last().and_then(|end| end["last_ms"].as_f64()).context("an end")? - sent);
    }
    table.row("kill -> last packet at the device", "ms", &up, Some(50.0));
    table.row("kill -> last answer at the engineer", "ms", &down, Some(50.0));
    Ok(())
}

pub fn expiry_alive(lab: &Lab, table: &mut Table, runs: usize) -> Result<()> {
    let mut seen = Vec::new();
    for _ in 0..runs {
        let lane = lab.lane("north-plc1", "echo-udp", "3s")?;
        let start = now_ms();
        let echo = lane.echo("udp", "2ms", "10s")?;
        let end = lane.end_ms()?;
        wait_until(6_000, "the lane has expired", || Ok(now_ms() > end + 300.0))?;
        seen.push(lab.device("north-1").last_since(start)? - end);
        drop(echo);
    }
    table.row("expiry: last packet after the deadline, agent alive", "ms", &seen, Some(20.0));
    Ok(())
}

/// Only the nftables lane is left to hold.
pub fn expiry_killed(lab: &Lab, table: &mut Table, runs: usize) -> Result<()> {
    let mut seen = Vec::new();
    for _ in 0..runs {
        let lane = lab.lane("north-plc1", "echo-udp", "5s")?;
        let arrived = lane.echo_past_a_dead_agent("2ms", "6s")?;
        seen.push(arrived.last().context("nothing crossed the stand-in")?.at_ms - lane.end_ms()?);
        lab.agent_process("north", "start")?;
        lab.wait_ready("north")?;
        sleep(Duration::from_millis(200));
    }
    table.row("expiry: last packet after the deadline, agent killed", "ms", &seen, Some(20.0));
    Ok(())
}
