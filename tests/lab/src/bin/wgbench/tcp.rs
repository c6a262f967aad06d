//! TCP flows with iperf3, and pings beside them.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::ground::{Ground, until};
use crate::process::Process;

const PORT: u16 = 5201;

/// What some flows carried.
#[derive(Debug, Clone, Copy)]
pub struct Flows {
    /// Mbit/s that arrived.
    pub rate: f64,
    /// Bytes that arrived.
    pub bytes: f64,
    /// Segments that TCP sent again.
    pub retransmits: f64,
}

/// `flows` TCP connections for some seconds from the initiating end to the other, at `to`.
pub fn flows(ground: &Ground, to: &str, flows: usize, seconds: u64, cores: Option<[usize; 2]>) -> Result<Flows> {
    let port = PORT.to_string();
    let mut server =
        Process::start(ground.command(1, cores.map(|cores| cores[1]), &["iperf3", "-s", "-1", "-p", &port]))?;
    if !until(Duration::from_secs(3), || server.listens(PORT)) {
        bail!("iperf3 does not listen");
    }
    let (seconds_text, flows_text) = (seconds.to_string(), flows.to_string());
    let words = ["iperf3", "-c", to, "-p", &port, "-t", &seconds_text, "-P", &flows_text, "-J"];
    let mut command = ground.command(0, cores.map(|cores| cores[0]), &words);
    let limited = {
        // A tunnel that lost its way must not hold up the whole bench.
        let mut limited = std::process::Command::new("timeout");
        limited.arg((seconds + 8).to_string()).arg(command.get_program()).args(command.get_args());
        std::mem::swap(&mut command, &mut limited);
        command.stdin(Stdio::null()).output()
    };
    let output = limited.context("iperf3")?;
    server.finish(Duration::from_millis(500));
    let text = String::from_utf8_lossy(&output.stdout);
    let told: Value = serde_json::from_str(&text).context("iperf3 printed no JSON")?;
    let end = &told["end"];
    let number = |value: &Value| value.as_f64();
    let (Some(rate), Some(bytes)) =
        (number(&end["sum_received"]["bits_per_second"]), number(&end["sum_received"]["bytes"]))
    else {
        bail!("iperf3: {}", told["error"].as_str().unwrap_or("no result"));
    };
    Ok(Flows { rate: rate / 1e6, bytes, retransmits: number(&end["sum_sent"]["retransmits"]).unwrap_or(0.0) })
}

/// Round-trip times.
#[derive(Debug, Clone, Copy)]
pub struct Pings {
    /// Milliseconds.
    pub median: f64,
    pub p99: f64,
    pub lost: usize,
}

/// Pings every 10 ms for some seconds; run it on a thread beside the flows.
pub fn ping(ground: &Ground, to: &str, seconds: u64) -> Result<Pings> {
    let count = seconds * 100;
    let (count_text, limit) = (count.to_string(), (seconds + 2).to_string());
    let mut command = ground.command(0, None, &["ping", "-n", "-i", "0.01", "-c", &count_text, "-w", &limit, to]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().context("ping")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let time = |line: &str| line.split("time=").nth(1)?.split(' ').next()?.parse::<f64>().ok();
    let mut times: Vec<f64> = text.lines().filter_map(time).collect();
    if times.is_empty() {
        bail!("no ping was answered");
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    Ok(Pings { median: at(0.5), p99: at(0.99), lost: (count as usize).saturating_sub(times.len()) })
}
