//! Where the processor time of one TCP flow goes: our own arithmetic, the cipher, system calls, and which of the kernel's
//! functions.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cost::{self, Cost, PAYLOAD};
use crate::ground::{Folder, Ground};
use crate::peer::{Keys, Kind, Peer, Tunnel};
use crate::tcp;

/// Functions that are listed.
const LISTED: usize = 14;

/// What was seen.
pub struct Profile {
    cost: Cost,
    /// Nanoseconds of processor time for each segment, both ends, and the kernel's share of the clock ticks.
    spent: f64,
    kernel: f64,
    rate: f64,
    /// Share of the samples by program or library, and by function; or why nothing could sample.
    samples: Result<(Shares, Shares)>,
    /// System calls of the near and the far end for a thousand segments, while they were watched.
    calls: [Vec<(String, f64)>; 2],
}

pub fn measure(ground: &Ground, keys: &Keys, seconds: u64) -> Result<Profile> {
    let cost = cost::measure()?;
    let peer = Peer::new("ours", "thinlane", Kind::Ours { offload: "all", lanes: 1 });
    let tunnel = Tunnel::start(&peer, ground, 0, keys)?;
    let to = tunnel.to.to_string();
    let before = tunnel.cpu();
    let seen = tcp::flows(ground, &to, 1, seconds, None)?;
    let after = tunnel.cpu();
    let (user, system) = ((after.user - before.user) as f64, (after.system - before.system) as f64);
    let ids: Vec<u32> = tunnel.ends.iter().map(crate::process::Process::id).collect();
    let folder = Folder::new("profile")?;
    let samples = watched(ground, &to, || sample(&ids, folder.path()))?;
    let near = watched(ground, &to, || calls(&ids[..1], folder.path()))??;
    let far = watched(ground, &to, || calls(&ids[1..], folder.path()))??;
    Ok(Profile {
        cost,
        spent: (after.seconds - before.seconds) * 1e9 / (seen.bytes / PAYLOAD as f64),
        kernel: if user + system > 0.0 { system / (user + system) } else { 0.0 },
        rate: seen.rate,
        samples,
        calls: [near, far],
    })
}

/// Does something while one flow runs.
fn watched<R: Send>(ground: &Ground, to: &str, act: impl FnOnce() -> R + Send) -> Result<R> {
    thread::scope(|scope| {
        let flow = scope.spawn(|| tcp::flows(ground, to, 1, 3, None));
        thread::sleep(Duration::from_millis(700));
        let result = act();
        flow.join().map_err(|_| anyhow::anyhow!("the flow's thread panicked"))??;
        Ok(result)
    })
}

type Shares = Vec<(f64, String)>;

/// Where both ends were when the clock ticked, with `perf`.
fn sample(ids: &[u32], folder: &Path) -> Result<(Shares, Shares)> {
    let file = folder.join("samples").display().to_string();
    let ids = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let taken = Command::new("perf")
        .args(["record", "-q", "-e", "cpu-clock", "-F", "499", "-p", &ids, "-o", &file, "--", "sleep", "1.5"])
        .stdin(Stdio::null())
        .output()
        .context("perf")?;
    if !taken.status.success() {
        bail!("perf: {}", String::from_utf8_lossy(&taken.stderr).trim());
    }
    let report = |by: &str| -> Result<Shares> {
        let told = Command::new("perf")
            .args(["report", "-i", &file, "--stdio", "-q", "--no-children", "--sort", by])
            .output()
            .context("perf report")?;
        let line = |line: &str| {
            let (share, rest) = line.trim().split_once('%')?;
            let name: Vec<&str> =
                rest.split_whitespace().filter(|word| !matches!(*word, "-" | "[.]" | "[k]")).collect();
            Some((share.parse().ok()?, name.join(" ")))
        };
        Ok(String::from_utf8_lossy(&told.stdout).lines().filter_map(line).collect())
    };
    let mut functions = report("symbol")?;
    // Of what has no name here, the place alone is known.
    functions.retain(|(_, name)| !name.starts_with("0x"));
    functions.truncate(LISTED);
    Ok((report("dso")?, functions))
}

/// System calls by name for a thousand segments, with `strace`, which slows down what it watches.
fn calls(ids: &[u32], folder: &Path) -> Result<Vec<(String, f64)>> {
    let file = folder.join("calls");
    let _ = std::fs::remove_file(&file);
    let before = segments(ids)?;
    let mut command = Command::new("timeout");
    command.args(["-s", "INT", "1", "strace", "-f", "-c", "-o"]).arg(&file);
    for id in ids {
        command.args(["-p", &id.to_string()]);
    }
    if command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return Ok(Vec::new());
    }
    let crossed = segments(ids)? - before;
    let told = std::fs::read_to_string(&file).unwrap_or_default();
    let mut all = BTreeMap::new();
    // % time, seconds, usecs/call, calls, errors (perhaps), name
    for line in told.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let (Some(calls), Some(name)) = (words.get(3).and_then(|word| word.parse::<f64>().ok()), words.last())
            && *name != "total"
            && crossed > 0.0
        {
            all.insert((*name).to_owned(), calls * 1000.0 / crossed);
        }
    }
    let mut all: Vec<(String, f64)> = all.into_iter().filter(|(_, count)| *count >= 0.1).collect();
    all.sort_by(|one, other| other.1.total_cmp(&one.1));
    Ok(all)
}

/// Segments that the first of these processes' namespaces has sent or received on its cable: datagrams are as long.
fn segments(ids: &[u32]) -> Result<f64> {
    let id = ids.first().context("a process")?;
    let text = std::fs::read_to_string(format!("/proc/{id}/net/dev"))?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("wan:")).context("the cable")?;
    let numbers: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    // Bytes received stand first, bytes sent ninth; the larger of the two is the data's way.
    let bytes = numbers.first().copied().unwrap_or(0.0).max(numbers.get(8).copied().unwrap_or(0.0));
    Ok(bytes / (PAYLOAD + 52 + 32 + 28 + 14) as f64)
}

/// The profile as people read it.
pub fn print(seen: &Result<Profile>) {
    println!("\nwhat the time of one TCP flow is spent on (nanoseconds of processor for a segment of 1 420 bytes)");
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => return println!("  not measured: {error:#}"),
    };
    let Cost { cut, encrypt, decrypt, join, sum } = seen.cost;
    println!("  both ends together, at {:.0} Mbit/s: {:.0}", seen.rate, seen.spent);
    println!(
        "  of them, measured by themselves: cutting {cut:.0} and joining {join:.0} (each with {sum:.0} of checksum),"
    );
    println!("    encrypting {encrypt:.0}, decrypting {decrypt:.0}: {:.0} together", seen.cost.total());
    println!(
        "  {:.0} % of the clock ticks were the kernel's: system calls, its network stack, copies",
        seen.kernel * 100.0
    );
    match &seen.samples {
        Err(error) => println!("  samples: none: {error:#}"),
        Ok((places, functions)) => {
            let places: Vec<String> =
                places.iter().take(4).map(|(share, name)| format!("{share:.1} % {name}")).collect();
            println!("  samples by place: {}", places.join(", "));
            println!("  samples by function:");
            functions.iter().for_each(|(share, name)| println!("    {share:>5.1} %  {name}"));
        }
    }
    for (end, calls) in ["near", "far"].into_iter().zip(&seen.calls) {
        let calls: Vec<String> = calls.iter().map(|(name, count)| format!("{name} {count:.1}")).collect();
        let told = if calls.is_empty() { "not seen (strace is not here)".to_owned() } else { calls.join(", ") };
        println!("  system calls of the {end} end for a thousand segments, while watched: {told}");
    }
}
