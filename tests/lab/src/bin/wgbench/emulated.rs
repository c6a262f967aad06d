//! The kernel's WireGuard beside ours, where the kernel has it: this program runs itself in an emulated machine. Emulated
//! processors are slow, and slow in their own way; only the ratio of the two means anything.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use thinlane_vm::{Kernel, Machine, Program, cache};

use crate::figures::spread;
use crate::ground::Ground;
use crate::peer::{Keys, Kind, Peer, Tunnel};
use crate::tcp;

/// Rounds, and seconds of each measurement.
const ROUNDS: usize = 3;
const SECONDS: u64 = 3;
/// A busy machine takes its time to emulate another.
const PATIENCE: Duration = Duration::from_secs(420);
/// Begins the line that says a round's rates.
const ROUND: &str = "round:";
/// What is called there, besides what every emulated machine has.
const TOOLS: [&str; 3] = ["/usr/bin/iperf3", "/usr/bin/timeout", "/usr/bin/wg"];

/// Inside: one flow through each in turn.
pub fn inside() -> Result<()> {
    let (ground, keys) = (Ground::new(0)?, Keys::new(false)?);
    for _ in 0..ROUNDS {
        let mut rates = Vec::new();
        for kind in [Kind::Ours { offload: "all", lanes: 1 }, Kind::Kernel] {
            let peer = Peer::new("inside", "inside", kind);
            let tunnel = Tunnel::start(&peer, &ground, 0, &keys)?;
            rates.push(tcp::flows(&ground, &tunnel.to.to_string(), 1, SECONDS, None)?.rate);
        }
        println!("{ROUND} {:.1} {:.1}", rates[0], rates[1]);
    }
    Ok(())
}

/// Rates of each round, ours and the kernel's, in Mbit/s of the emulated machine.
pub fn measure() -> Result<Vec<[f64; 2]>> {
    let own = std::env::current_exe()?;
    let program = Program {
        label: "wgbench".to_owned(),
        path: own.clone(),
        args: vec!["--peers".into(), "/nowhere".into(), "--inside".into()],
        env: vec![("THINLANE_BENCH_TAG".into(), "wv".into())],
    };
    let files: Vec<PathBuf> = TOOLS.iter().map(PathBuf::from).chain([own.with_file_name("wgend")]).collect();
    for file in &files {
        ensure!(Path::new(file).is_file(), "{} is not here", file.display());
    }
    std::fs::create_dir_all(cache())?;
    let kernel = Kernel::fetch(&cache())?;
    let outcomes = Machine::build(&cache(), &kernel, &[program], &files)?.run(PATIENCE)?;
    let output = &outcomes.first().context("the machine ran nothing")?.output;
    let round = |line: &str| {
        let mut rates = line.strip_prefix(ROUND)?.split_whitespace().filter_map(|word| word.parse().ok());
        Some([rates.next()?, rates.next()?])
    };
    let rounds: Vec<[f64; 2]> = output.lines().filter_map(round).collect();
    ensure!(!rounds.is_empty(), "{output}");
    Ok(rounds)
}

pub fn print(seen: &Result<Vec<[f64; 2]>>) {
    println!("\nthe kernel's WireGuard beside ours, one TCP flow in an emulated machine");
    let rounds = match seen {
        Ok(rounds) => rounds,
        Err(error) => return println!("  not measured: {error:#}"),
    };
    let of = |figure: fn(&[f64; 2]) -> f64| spread(&rounds.iter().map(figure).collect::<Vec<_>>());
    if let (Some(ours), Some(kernel), Some(ratio)) = (of(|it| it[0]), of(|it| it[1]), of(|it| it[0] / it[1].max(0.1))) {
        println!(
            "  ours {:.0} Mbit/s, the kernel's {:.0} (that machine's, {} rounds); thinlane / kernel {:.2} ({:.2} - {:.2})",
            ours.median,
            kernel.median,
            rounds.len(),
            ratio.median,
            ratio.least,
            ratio.most
        );
    }
}
