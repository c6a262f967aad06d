//! Runs one target, or some beside each other, for some seconds of processor time each:
//! `fuzz [TARGET | packets | all] [SECONDS] [SEED]`.
//!
//! `packets` are those that read packets, datagrams and what the kernel says. They take turns of a second, so that a run
//! which is broken off has tried them all. An input that makes a target panic is written to the target's corpus before the
//! process ends, so that it is replayed from then on. Fails, too, if a target's inputs did not get as deep as they should.
#![forbid(unsafe_code)]

use std::io::{IsTerminal as _, Write as _, stderr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use thinlane_fuzz::{OF_PACKETS, Run, TARGETS};

/// How long each has its turn.
const TURN: Duration = Duration::from_secs(1);

fn chosen(name: &str, seed: u64) -> Result<Vec<Run>, String> {
    let wanted = |target: &str| match name {
        "all" => true,
        "packets" => OF_PACKETS.contains(&target),
        _ => target == name,
    };
    let targets: Vec<_> = TARGETS.iter().filter(|target| wanted(target.name)).collect();
    if targets.is_empty() {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        return Err(format!("no target {name:?}; there are packets (some), all, {}", names.join(", ")));
    }
    targets
        .into_iter()
        .map(|target| Run::new(target, seed).map_err(|error| format!("the corpus of {}: {error}", target.name)))
        .collect()
}

/// Lets all of them take turns until each has had `length`.
fn take_turns(runs: &mut [Run], length: Duration) -> Result<(), String> {
    let (begun, told) = (Instant::now(), stderr().is_terminal());
    while runs.iter().any(|run| run.spent < length) {
        for run in runs.iter_mut().filter(|run| run.spent < length) {
            run.go_on(TURN.min(length - run.spent)).map_err(|failure| failure.to_string())?;
            if told {
                let (name, tried, spent) = (run.name(), run.tried, run.spent.as_secs());
                let _ = write!(stderr(), "\r\x1b[K{name}: {tried} inputs in {spent} of {} s", length.as_secs());
            }
        }
    }
    if told {
        let _ = write!(stderr(), "\r\x1b[K");
    }
    println!("fuzz: {} targets, {} s by the clock", runs.len(), begun.elapsed().as_secs());
    Ok(())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let name = words.first().map_or("all", String::as_str);
    let number = |at: usize, usual: u64| words.get(at).map_or(Ok(usual), |word| word.parse::<u64>());
    let (Ok(seconds), Ok(seed)) = (number(1, 60), number(2, 1)) else {
        eprintln!("error: seconds and seed are whole numbers\nnext:  fuzz [TARGET | packets | all] [SECONDS] [SEED]");
        return ExitCode::from(2);
    };
    let mut runs = match chosen(name, seed) {
        Ok(runs) => runs,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = take_turns(&mut runs, Duration::from_secs(seconds)) {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let mut shallow = false;
    for run in &runs {
        let places: Vec<String> = run.places.iter().map(|(place, times)| format!("{place} {times}")).collect();
        let places = if places.is_empty() { String::new() } else { format!(" ({})", places.join(", ")) };
        println!("{}: {} inputs in {} s, nothing found{places}", run.name(), run.tried, run.spent.as_secs());
        for place in run.missing() {
            eprintln!("error: no input of {} got to: {place}", run.name());
            shallow = true;
        }
    }
    if shallow { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
