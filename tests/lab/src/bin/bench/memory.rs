//! What the agent weighs: on disk, in memory, on the air.

use std::path::Path;

use anyhow::{Context, Result};
use thinlane_lab::{Lab, now_ms};

use crate::api::Api;
use crate::table::Table;

/// The statically linked agent as it is shipped: `scripts/bench` builds this machine's, says where it is, and names those for
/// other processors that `scripts/package` built before (`THINLANE_DIST_OTHERS`: `TARGET/dist/thinlane-agent`, parted by colons).
pub fn binary_size(table: &mut Table) -> Result<()> {
    let weigh = |path: &Path| -> Result<f64> {
        Ok(std::fs::metadata(path).with_context(|| path.display().to_string())?.len() as f64 / 1e6)
    };
    if let Some(path) = std::env::var_os("THINLANE_DIST_AGENT") {
        table.row("agent binary, static, stripped", "MB", &[weigh(Path::new(&path))?], Some(5.0));
    }
    for path in std::env::split_paths(&std::env::var_os("THINLANE_DIST_OTHERS").unwrap_or_default()) {
        if path.as_os_str().is_empty() {
            continue;
        }
        let target = path.ancestors().nth(2).and_then(Path::file_name).context("a target's directory")?;
        let processor = target.to_string_lossy().split('-').next().unwrap_or_default().to_owned();
        table.row(&format!("  the same for {processor}"), "MB", &[weigh(&path)?], Some(5.0));
    }
    Ok(())
}

fn agent_kib(lab: &Lab, site: &str) -> Result<f64> {
    let pid = std::fs::read_to_string(lab.root().join(format!("agent-{site}.pid")))?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim()))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("a number")?.parse()?)
}

pub fn resident(lab: &Lab, table: &mut Table) -> Result<()> {
    table.row("agent resident memory, idle", "MB", &[agent_kib(lab, "north")? / 1024.0], Some(10.0));
    Ok(())
}

pub fn fifty_lanes(lab: &Lab, api: &Api, table: &mut Table) -> Result<()> {
    let mut sessions = Vec::new();
    for number in 0..50 {
        let asset = if number % 2 == 0 { "north-plc1" } else { "north-plc2" };
        let request = lab.approved(asset, "echo-udp", "10m")?;
        let answer = api.activate(lab, &request)?;
        sessions.push(answer.body["session"]["id"].as_str().context("an id")?.to_owned());
    }
    table.row("agent resident memory, 50 lanes", "MB", &[agent_kib(lab, "north")? / 1024.0], Some(16.0));
    for session in sessions {
        api.kill(lab, &session)?;
    }
    Ok(())
}

/// The channel's keepalive grows with each answer from 60 to 240 s, which takes this long in all.
const WARM_UP: f64 = 600.0;
/// Two keepalives, as they are from then on.
const COUNTED: f64 = 485.0;

/// Since when nothing but the channel itself has been sent.
pub struct IdleCount {
    since_ms: f64,
}

fn counted(lab: &Lab, site: &str) -> Result<f64> {
    let out = lab.on(site, &["nft", "-j", "list", "counters", "table", "inet", "bench"]).run()?.good()?.stdout;
    let json: serde_json::Value = serde_json::from_str(&out)?;
    let sum = json["nftables"]
        .as_array()
        .context("nft's answer")?
        .iter()
        .filter_map(|item| item["counter"]["bytes"].as_f64())
        .sum();
    Ok(sum)
}

/// Counts the bytes of the agent's channel, IP and TCP headers included, while the rest is measured.
pub fn start_idle_count(lab: &Lab, site: &str) -> Result<IdleCount> {
    let rules = "nft add table inet bench; nft add counter inet bench channel; \
                 nft add chain inet bench in '{ type filter hook input priority 300; }'; nft add chain inet bench out '{ type filter hook output priority 300; }'; \
                 nft add rule inet bench in tcp sport 7443 counter name channel; nft add rule inet bench out tcp dport 7443 counter name channel";
    lab.on(site, &["sh", "-c", rules]).run()?.good()?;
    Ok(IdleCount { since_ms: now_ms() })
}

pub fn finish_idle_count(lab: &Lab, site: &str, from: &IdleCount, table: &mut Table) -> Result<()> {
    // THINLANE_IDLE_SECONDS: a quick look, which counts the denser keepalives of the first minutes and shows too much.
    let quick: Option<f64> = std::env::var("THINLANE_IDLE_SECONDS").ok().and_then(|text| text.parse().ok());
    let warm_up = if quick.is_some() { 0.0 } else { WARM_UP };
    let left = (warm_up - (now_ms() - from.since_ms) / 1000.0).max(0.0);
    let long = quick.unwrap_or(COUNTED);
    eprintln!("counting the bytes of an idle channel: {:.0} s to go ...", left + long);
    std::thread::sleep(std::time::Duration::from_secs_f64(left));
    let (before, began) = (counted(lab, site)?, now_ms());
    std::thread::sleep(std::time::Duration::from_secs_f64(long));
    let bytes = counted(lab, site)? - before;
    let seconds = (now_ms() - began) / 1000.0;
    lab.on(site, &["nft", "delete", "table", "inet", "bench"]).run()?.good()?;
    eprintln!("the idle channel carried {bytes} bytes in {seconds:.0} s");
    table.row(
        "control traffic of an idle agent, for 30 days",
        "MB",
        &[bytes / seconds * 86_400.0 * 30.0 / 1e6],
        Some(3.0),
    );
    table.row("  the same for one day", "bytes", &[bytes / seconds * 86_400.0], None);
    Ok(())
}
