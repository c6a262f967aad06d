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

fn measure(lab: &Lab, table: &mut Table, runs: usize) -> Result<()> {
    let idle = memory::start_idle_count(lab, "south")?;
    memory::binary_size(table)?;
    memory::resident(lab, table)?;
    let api = api::Api::new(lab)?;
    ends::activation(lab, &api, table, runs)?;
    ends::kill(lab, &api, table, runs)?;
    ends::expiry_alive(lab, table, runs.min(20))?;
    ends::expiry_killed(lab, table, runs.min(10))?;
    ends::flooded(lab, table)?;
    memory::fifty_lanes(lab, &api, table)?;
    memory::finish_idle_count(lab, "south", &idle, table)
}

fn main() -> ExitCode {
    let runs = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(30);
    let mut table = Table::default();
    let outcome = Lab::up("tlben").and_then(|lab| measure(&lab, &mut table, runs));
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
