//! WireGuard implementations side by side on one machine: speed, delay, processor time, memory, wake-ups.
//!
//! Run by `scripts/bench wg`, which installs what is compared. Two network namespaces with a 1 500-byte veth link for each
//! implementation; rounds in which each has its turn; medians and ratios within a round. The figures are of this machine at
//! this hour: the ratios say more than the rates.
#![forbid(unsafe_code)]

mod cost;
mod crowd;
mod emulated;
mod figures;
mod ground;
mod peer;
mod process;
mod profile;
mod rounds;
mod tcp;
mod udp;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;

use figures::Figures;
use ground::Ground;
use peer::{Keys, Kind, Peer};
use rounds::Plan;

/// Compare our userspace WireGuard with others.
#[derive(Debug, Parser)]
#[command(name = "bench wg")]
struct Options {
    /// How many rounds.
    #[arg(long)]
    runs: Option<usize>,
    /// Seconds of each TCP measurement.
    #[arg(long)]
    seconds: Option<u64>,
    /// Only these rows (cable, ours, ours-plain, boringtun, boringtun-1, gotatun, wireguard-go, newest, openvpn, ..).
    #[arg(long, num_args = 1..)]
    only: Vec<String>,
    /// Nothing but what the time of one flow is spent on, and memory with fifty lanes at work: half a minute.
    #[arg(long)]
    profile: bool,
    /// Nothing but the kernel's WireGuard beside ours in an emulated machine: a minute or two.
    #[arg(long)]
    emulated: bool,
    #[arg(long, hide = true)]
    inside: bool,
    /// Two short rounds: about three minutes.
    #[arg(long)]
    quick: bool,
    /// Begin no further round after this many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// Print every figure of every round as JSON, and nothing else.
    #[arg(long)]
    json: bool,
    /// Where `cargo install --root` put the others.
    #[arg(long, env = "THINLANE_BENCH_PEERS", hide = true)]
    peers: PathBuf,
}

/// Stands in the report: what is not measured here, and why.
const ELSEWHERE: &[&str] = &["a recorded or filtered lane: `scripts/bench` measures whole lanes"];

fn measure(options: &Options) -> Result<bool> {
    let begun = Instant::now();
    if options.inside {
        return emulated::inside().map(|()| true);
    }
    if options.emulated {
        emulated::print(&emulated::measure());
        return Ok(true);
    }
    let (mut peers, missing) = peer::all(&options.peers);
    let pinned: Vec<Peer> = peers
        .iter()
        .filter(|peer| ["ours", "newest", "wireguard-go"].contains(&peer.id.as_str()))
        .map(Peer::pinned)
        .collect();
    peers.extend(pinned);
    if !options.only.is_empty() {
        for id in &options.only {
            ensure!(peers.iter().any(|peer| peer.id == *id), "there is no row {id:?} here");
        }
        peers.retain(|peer| options.only.contains(&peer.id));
    }
    let quick = options.quick;
    let minutes = options.minutes.unwrap_or(if quick { 3 } else { 12 });
    let plan = Plan {
        runs: options.runs.unwrap_or(if quick { 2 } else { 5 }),
        seconds: options.seconds.unwrap_or(if quick { 1 } else { 2 }),
        probe: Duration::from_millis(if quick { 200 } else { 350 }),
        idle: if quick { 15 } else { 30 },
        until: begun + Duration::from_secs(minutes * 60),
    };
    if options.profile {
        let (ground, keys) = (Ground::new(0)?, Keys::new(false)?);
        return Ok(inside(&ground, &keys, &plan));
    }
    let keys = Keys::new(peers.iter().any(|peer| matches!(peer.kind, Kind::OpenVpn)))?;
    let grounds = (0..peers.len()).map(Ground::new).collect::<Result<Vec<_>>>()?;
    let mut figures = Figures::default();
    eprint!("\r\x1b[Kidle for {} s", plan.idle);
    let mut failures = rounds::idle(&peers, &grounds, &keys, &plan, &mut figures);
    let notes = rounds::run(&peers, &grounds, &keys, &plan, &mut figures);
    failures.extend(notes.failures);
    if options.json {
        println!("{}", figures.json());
        return Ok(true);
    }
    println!(
        "{} rounds, {} s per TCP measurement, tries of {} ms for UDP",
        notes.rounds,
        plan.seconds,
        plan.probe.as_millis()
    );
    verdict::print_figures(&figures);
    let mut all = true;
    let ours = peers.iter().position(|peer| peer.id == "ours");
    if let Some(ground) = ours.and_then(|at| grounds.get(at)) {
        verdict::print_lanes(&rounds::lanes(ground, &keys, &plan));
        all &= inside(ground, &keys, &plan);
    }
    let foreign: Vec<String> =
        peers.iter().filter(|peer| peer.foreign() && !peer.pinned).map(|peer| peer.id.clone()).collect();
    all &= verdict::print_gates(&figures, &foreign);
    if let Some(share) = figures::spread(&notes.kernel_share) {
        println!(
            "\nof our ends' processor time under TCP, {:.0} % is the kernel's (system calls and its network stack)",
            share.median * 100.0
        );
    }
    if options.only.is_empty() && !quick {
        emulated::print(&emulated::measure());
    }
    for text in missing.iter().map(String::as_str).chain(ELSEWHERE.iter().copied()) {
        println!("not measured: {text}");
    }
    for text in &failures {
        println!("note: {text}");
    }
    println!("took {} s", begun.elapsed().as_secs());
    Ok(all)
}

/// A look inside our own ends, which no comparison needs; says whether the budget of memory was kept.
fn inside(ground: &Ground, keys: &Keys, plan: &Plan) -> bool {
    let kept = verdict::print_crowd(&crowd::measure(ground, keys, plan));
    profile::print(&profile::measure(ground, keys, plan.seconds));
    kept
}

fn main() -> ExitCode {
    match measure(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        // A missed gate is a figure, not a failure of the bench; scripts can still tell.
        Ok(false) => ExitCode::from(3),
        Err(error) => {
            eprintln!("error: the bench could not go on: {error:#}");
            ExitCode::FAILURE
        }
    }
}
