//! The table of budgets: each figure with the number of runs, median and p99, beside its budget.
//!
//! Run by `scripts/bench`, which builds the programs. These are figures of this machine at this hour; a budget
//! that is missed makes the exit code 1, so that nobody overlooks it.
#![forbid(unsafe_code)]

mod api;
mod ends;
mod memory;
mod table;

use std::process::ExitCode;

use anyhow::Result;
use thinlane_lab::Lab;

use table::Table;

/// What can be measured, in this order; `scripts/bench` itself times the demo, and the idle channel is counted while
/// the rest is measured.
const PARTS: [&str; 9] = ["size", "demo", "memory", "activation", "kill", "expiry", "flood", "lanes", "idle"];

fn measure(lab: &Lab, table: &mut Table, runs: usize, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    let idle = wanted("idle").then(|| memory::start_idle_count(lab, "south")).transpose()?;
    if wanted("size") {
        memory::binary_size(table)?;
    }
    if wanted("memory") {
        memory::resident(lab, table)?;
    }
    let api = api::Api::new(lab)?;
    if wanted("activation") {
        ends::activation(lab, &api, table, runs)?;
    }
    if wanted("kill") {
        ends::kill(lab, &api, table, runs)?;
    }
    if wanted("expiry") {
        ends::expiry_alive(lab, table, runs.min(20))?;
        ends::expiry_killed(lab, table, runs.min(10))?;
    }
    if wanted("flood") {
        ends::flooded(lab, table)?;
    }
    if wanted("lanes") {
        memory::fifty_lanes(lab, &api, table)?;
    }
    idle.map_or(Ok(()), |idle| memory::finish_idle_count(lab, "south", &idle, table))
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (numbers, parts): (Vec<&String>, Vec<&String>) = words.iter().partition(|word| word.parse::<usize>().is_ok());
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        eprintln!("error: {unknown} cannot be measured\nnext:  scripts/bench [RUNS] [{}]", PARTS.join("|"));
        return ExitCode::from(2);
    }
    let runs = numbers.last().and_then(|word| word.parse().ok()).unwrap_or(30).max(1);
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| *wanted == part);
    let mut table = Table::default();
    let outcome = Lab::up("tlben").and_then(|lab| measure(&lab, &mut table, runs, &wanted));
    if let Some(seconds) = std::env::var("THINLANE_DEMO_SECONDS").ok().and_then(|text| text.parse().ok()) {
        table.row("demo, from a built tree", "s", &[seconds], Some(60.0));
    }
    table.print();
    if let Err(error) = outcome {
        eprintln!("error: the bench could not go on: {error:#}");
        return ExitCode::FAILURE;
    }
    if table.all_within() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
