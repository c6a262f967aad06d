//! How fast a lane opens, and how fast it ends.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use thinlane_lab::{Background, Lab, now_ms, wait_until};

use crate::api::Api;
use crate::table::Table;

/// Where the lab's relay listens.
const RELAY: &str = "198.51.100.2";

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

/// How much slower a lane answers while somebody floods the relay with initiations that are none, at a steady pace and
/// as fast as one sender can.
pub fn flooded(lab: &Lab, table: &mut Table) -> Result<()> {
    let lane = lab.lane("north-plc1", "echo-udp", "5m")?;
    let answers = |length: &str| -> Result<Vec<f64>> {
        let out = lane.echo("udp", "10ms", length)?.finish(30_000)?;
        Ok(out.lines_json().iter().filter_map(|line| line["rtt_ms"].as_f64()).collect())
    };
    let calm = answers("5s")?;
    table.row("answer through a lane, relay calm", "ms", &calm, None);
    for rate in ["-i u500", "--flood"] {
        let flood = format!(
            "printf '\\001\\000\\000\\000' >bogus; head -c 144 /dev/urandom >>bogus; \
             exec timeout 12 hping3 -q -2 -p 7443 {rate} -d 148 -E bogus {RELAY} >/dev/null 2>&1"
        );
        let flood = Background::start(lab.on("south", &["sh", "-c", &format!("cd \"$(mktemp -d)\"; {flood}")]))?;
        sleep(Duration::from_secs(1));
        let (before, began) = (datagrams(lab)?, now_ms());
        let busy = answers("5s")?;
        let arrived = (datagrams(lab)? - before) / (now_ms() - began) * 1000.0;
        drop(flood);
        table.row(&format!("the same, {arrived:.0} bogus initiations a second"), "ms", &busy, None);
        let ratio = median(&busy) / median(&calm);
        table.row("  slower by (medians)", "x", &[ratio], Some(2.0));
    }
    Ok(())
}

/// UDP datagrams that arrived where the relay is.
fn datagrams(lab: &Lab) -> Result<f64> {
    let text = lab.on("hq", &["cat", "/proc/net/snmp"]).run()?.good()?.stdout;
    let line = text.lines().filter(|line| line.starts_with("Udp:")).nth(1).context("UDP counters")?;
    Ok(line.split_whitespace().nth(1).context("InDatagrams")?.parse()?)
}

fn median(seen: &[f64]) -> f64 {
    let mut sorted = seen.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
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
