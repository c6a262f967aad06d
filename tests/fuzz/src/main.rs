//! Runs one target, or all in turn, for some seconds of processor time: `fuzz [TARGET] [SECONDS] [SEED]`.
//!
//! An input that makes a target panic is written to the target's corpus before the process ends, so that it is
//! replayed from then on.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use thinlane_fuzz::{Mutator, TARGETS, Target, corpus, seeds};

fn run(target: &Target, length: Duration, seed: u64) -> Result<u64, String> {
    let seeds = seeds(target).map_err(|error| error.to_string())?;
    let mut mutator = Mutator::new(seed);
    let started = spent();
    let mut tried = 0;
    while spent() - started < length {
        for _ in 0..256 {
            let input = mutator.make(&seeds);
            tried += 1;
            if catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_err() {
                let path = corpus(target.name).join(format!("found-{seed:x}-{tried}"));
                std::fs::create_dir_all(corpus(target.name))
                    .and_then(|()| std::fs::write(&path, &input))
                    .map_err(|e| e.to_string())?;
                return Err(format!("{} panicked; the input is kept in {}", target.name, path.display()));
            }
        }
    }
    Ok(tried)
}

/// Processor time of this process: a busy machine makes a run longer, and not shorter.
fn spent() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let name = words.first().map_or("all", String::as_str);
    let seconds = words.get(1).and_then(|word| word.parse().ok()).unwrap_or(60);
    let seed = words.get(2).and_then(|word| word.parse().ok()).unwrap_or(1);
    let chosen: Vec<&Target> = TARGETS.iter().filter(|target| name == "all" || target.name == name).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("error: no target {name:?}; there are {}", names.join(", "));
        return ExitCode::from(2);
    }
    for target in chosen {
        match run(target, Duration::from_secs(seconds), seed) {
            Ok(tried) => println!("{}: {tried} inputs, nothing found", target.name),
            Err(found) => {
                eprintln!("error: {found}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
