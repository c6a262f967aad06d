//! Which tests of which test programs run in the machine.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{Kernel, Machine, Outcome, Program, cache, programs};

/// A crate's folder, one of its test programs, the tests of it that run (none: all), and their environment.
pub type Part = (&'static str, &'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

/// Builds the programs, boots a machine with them and runs one after the other, ignored tests too; gives up after `most`.
pub fn run(plan: &[Part], most: Duration) -> Result<Vec<Outcome>> {
    machine(plan)?.run(most)
}

/// The same in a machine with a [steady](Machine::steady) time: waiting is free there, and computing costs twice as much.
pub fn run_steadily(plan: &[Part], most: Duration) -> Result<Vec<Outcome>> {
    machine(plan)?.steady().run(most)
}

fn machine(plan: &[Part]) -> Result<Machine> {
    let names: BTreeSet<&str> = plan.iter().map(|(_, name, ..)| *name).collect();
    let built = programs::build(&names.into_iter().collect::<Vec<_>>()).context("the test programs are not built")?;
    let program = |(folder, name, tests, env): &Part| -> Result<Program> {
        let found = built.iter().find(|built| built.folder == *folder && built.name == *name);
        let exact = if tests.is_empty() { None } else { Some("--exact") };
        let args = ["--test-threads=1", "--include-ignored", "--show-output"].into_iter().chain(exact);
        Ok(Program {
            label: format!("{folder}/tests/{name}.rs"),
            path: found.with_context(|| format!("{folder} has no {name}"))?.path.clone(),
            args: args.chain(tests.iter().copied()).map(str::to_owned).collect(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        })
    };
    let programs = plan.iter().map(program).collect::<Result<Vec<Program>>>()?;
    let kernel = Kernel::fetch(&cache())?;
    // The daemon's tests call its own program, which cargo puts two directories above them.
    let agent =
        built.iter().find(|built| built.folder == "agent/daemon").and_then(|built| built.path.ancestors().nth(2));
    let files: Vec<PathBuf> = agent.into_iter().map(|dir| dir.join("thinlane-agent")).collect();
    Machine::build(&cache(), &kernel, &programs, &files)
}
