//! Runs one target, or some beside each other, for some seconds of processor time each (a sixth of them for what no
//! stranger writes):
//! `fuzz [TARGET | packets | all] [SECONDS] [SEED]`.
//!
//! `packets` are those that read packets, datagrams and what the kernel says. They take turns of a second, so that a run
//! which is broken off has tried them all. An input that makes a target panic is written to the target's corpus before the
//! process ends, so that it is replayed from then on. Fails, too, if a target's inputs did not get as deep as they should.
#![forbid(unsafe_code)]

use std::io::{IsTerminal as _, Write as _, stderr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use thinlane_fuzz::{OF_PACKETS, OF_STRANGERS, Run, TARGETS};

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

/// How long a target runs: what only the kernel writes, or is a few fields long, a sixth of the others.
fn length_of(name: &str, length: Duration) -> Duration {
    if OF_STRANGERS.contains(&name) { length } else { length / 6 }
}

/// Lets some take turns until each has had its time.
fn take_turns(mut runs: Vec<&mut Run>, length: Duration, told: bool) -> Result<(), String> {
    let left = |run: &Run| length_of(run.name(), length).saturating_sub(run.spent);
    while runs.iter().any(|run| !left(run).is_zero()) {
        for run in runs.iter_mut().filter(|run| !left(run).is_zero()) {
            run.go_on(TURN.min(left(run))).map_err(|failure| failure.to_string())?;
            if told {
                let (name, tried, spent) = (run.name(), run.tried, run.spent.as_secs());
                let _ = write!(stderr(), "\r\x1b[K{name}: {tried} inputs in {spent} s");
            }
        }
    }
    Ok(())
}

/// Lets all of them take turns, on two processors where there are two.
fn run_all(runs: &mut [Run], length: Duration) -> Result<(), String> {
    let (begun, told) = (Instant::now(), stderr().is_terminal());
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(2);
    let count = runs.len();
    let ends = std::thread::scope(|scope| {
        let mut parts: Vec<Vec<&mut Run>> = (0..threads).map(|_| Vec::new()).collect();
        runs.iter_mut().enumerate().for_each(|(at, run)| parts[at % threads].push(run));
        let started: Vec<_> =
            parts.into_iter().map(|part| scope.spawn(move || take_turns(part, length, told))).collect();
        let ends = started.into_iter().map(|it| it.join().unwrap_or_else(|_| Err("a thread panicked".to_owned())));
        ends.collect::<Result<Vec<()>, String>>()
    });
    if told {
        let _ = write!(stderr(), "\r\x1b[K");
    }
    println!("fuzz: {count} targets, {} s by the clock", begun.elapsed().as_secs());
    ends.map(|_| ())
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
    let end = run_all(&mut runs, Duration::from_secs(seconds));
    let mut failed = end.is_err();
    for run in &runs {
        let places: Vec<String> = run.places.iter().map(|(place, times)| format!("{place} {times}")).collect();
        let places = if places.is_empty() { String::new() } else { format!(" ({})", places.join(", ")) };
        println!("{}: {} inputs in {} s{places}", run.name(), run.tried, run.spent.as_secs());
        for place in run.missing() {
            eprintln!("error: no input of {} got to: {place}", run.name());
            failed = true;
        }
    }
    match end {
        Err(error) => eprintln!("error: {error}"),
        Ok(()) => println!("nothing found"),
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
