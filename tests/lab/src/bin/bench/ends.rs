//! How fast a lane opens, and how fast it ends.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use thinlane_lab::{Lab, now_ms, wait_until};

use crate::api::Api;
use crate::table::Table;

/// Milliseconds since 1970 of an RFC 3339 time.
fn moment(text: &str) -> Result<f64> {
    Ok(thinlane_lab::Shell::new("date").args(&["-d", text, "+%s%3N"]).run()?.good()?.stdout.trim().parse()?)
}

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
        let end = moment(&lane.ends_at)?;
        wait_until(6_000, "the lane has expired", || Ok(now_ms() > end + 300.0))?;
        seen.push(lab.device("north-1").last_since(start)? - end);
        drop(echo);
    }
    table.row("expiry: last packet after the deadline, agent alive", "ms", &seen, Some(20.0));
    Ok(())
}

/// A kernel device takes the place of the dead agent's, so that only the nftables lane is left to hold.
pub fn expiry_killed(lab: &Lab, table: &mut Table, runs: usize) -> Result<()> {
    let mut seen = Vec::new();
    for _ in 0..runs {
        let lane = lab.lane("north-plc1", "echo-udp", "5s")?;
        let engineer = lane.show()?["address"].as_str().context("an address")?.to_owned();
        lab.agent_process("north", "kill")?;
        let script = format!(
            "set -e; ip link add tl0 type veth peer name eng0; ip link set tl0 up; sysctl -qw net.ipv4.conf.tl0.forwarding=1 net.ipv4.conf.tl0.rp_filter=0; \
             ip netns add tlben-eng; ip link set eng0 netns tlben-eng; ip addr add 169.254.7.1/32 dev tl0; ip route add {engineer}/32 dev tl0; \
             ip netns exec tlben-eng ip addr add {engineer}/32 dev eng0; ip netns exec tlben-eng ip link set eng0 up; \
             ip netns exec tlben-eng ip route add 169.254.7.1 dev eng0; ip netns exec tlben-eng ip route add default via 169.254.7.1 src {engineer}"
        );
        lab.on("north", &["sh", "-c", &script]).run()?.good()?;
        let start = now_ms();
        let sim = lab.bin().join("thinlane-sim").to_string_lossy().into_owned();
        let to = format!("{}:7", lane.address);
        lab.on(
            "north",
            &[
                "ip",
                "netns",
                "exec",
                "tlben-eng",
                &sim,
                "echo",
                "udp",
                &to,
                "--every",
                "2ms",
                "--for",
                "6s",
                "--patience",
                "500ms",
            ],
        )
        .run()?;
        let last = lab.device("north-1").last_since(start);
        lab.on("north", &["sh", "-c", "ip link del tl0; ip netns del tlben-eng"]).run()?;
        seen.push(last? - moment(&lane.ends_at)?);
        lab.agent_process("north", "start")?;
        lab.wait_ready("north")?;
        sleep(Duration::from_millis(200));
    }
    table.row("expiry: last packet after the deadline, agent killed", "ms", &seen, Some(20.0));
    Ok(())
}
