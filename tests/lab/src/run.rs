//! Runs cases against one lab, one after the other or side by side, and prints what cargo's own test programs print.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;

use crate::Lab;

/// One behaviour: its name as a sentence, and what shows it.
pub type Case = (&'static str, fn(&Lab) -> Result<()>);

/// The main function of a test program: sets up the lab, runs what the arguments select, tears down.
///
/// A word of the arguments selects the cases whose names contain it; `--skip WORD` leaves such cases out,
/// `--skip LAB` all of them.
pub fn main(lab_name: &str, cases: &[Case]) -> ExitCode {
    run(lab_name, cases, 1)
}

/// The same for cases that touch nothing but places of their own: as many as `abreast` run at a time, begun in their
/// order, and the lab is settled after the last.
pub fn main_abreast(lab_name: &str, cases: &[Case], abreast: usize) -> ExitCode {
    run(lab_name, cases, abreast)
}

fn run(lab_name: &str, cases: &[Case], abreast: usize) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (mut filters, mut skipped) = (Vec::new(), Vec::new());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--skip" => skipped.extend(words.next()),
            flag if flag.starts_with('-') => {}
            _ => filters.push(word),
        }
    }
    let any = |words: &[&String], (name, _): &Case| words.iter().any(|word| name.contains(word.as_str()));
    let chosen: Vec<&Case> =
        cases.iter().filter(|case| (filters.is_empty() || any(&filters, case)) && !any(&skipped, case)).collect();
    let chosen = if skipped.iter().any(|word| *word == lab_name) { Vec::new() } else { chosen };
    if arguments.iter().any(|word| word == "--list") {
        cases.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    if chosen.is_empty() {
        println!("\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; {} filtered out", cases.len());
        return ExitCode::SUCCESS;
    }
    let lab = match Lab::up(lab_name) {
        Ok(lab) => lab,
        Err(error) => {
            println!("the lab could not be set up: {error:#}");
            println!("\ntest result: FAILED. 0 passed; {} failed; 0 ignored; 0 measured; 0 filtered out", chosen.len());
            return ExitCode::FAILURE;
        }
    };
    let failed = all(&lab, &chosen, abreast);
    drop(lab);
    let (word, count) = if failed.is_empty() { ("ok", 0) } else { ("FAILED", failed.len()) };
    if !failed.is_empty() {
        println!("\nfailures:");
        failed.iter().for_each(|name| println!("    {name}"));
    }
    println!(
        "\ntest result: {word}. {} passed; {count} failed; {} ignored; 0 measured; 0 filtered out",
        chosen.len() - count.min(chosen.len()),
        cases.len() - chosen.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the chosen cases; the names of those that failed.
fn all(lab: &Lab, chosen: &[&Case], abreast: usize) -> Vec<&'static str> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let fails = |name| failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(name);
    let settled = || lab.settle().map_err(|error| error.context("the lab did not settle"));
    std::thread::scope(|scope| {
        for _ in 0..abreast {
            scope.spawn(|| {
                while let Some(&&(name, case)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let started = Instant::now();
                    let outcome = match catch_unwind(AssertUnwindSafe(|| case(lab))) {
                        Ok(outcome) => outcome,
                        Err(_) => Err(anyhow::anyhow!("panicked")),
                    };
                    let outcome = if abreast == 1 { settled().and(outcome) } else { outcome };
                    match outcome {
                        Ok(()) => println!("test {name} ... ok ({:.1} s)", started.elapsed().as_secs_f64()),
                        Err(error) => {
                            println!("test {name} ... FAILED\n{error:#}\n");
                            fails(name);
                        }
                    }
                }
            });
        }
    });
    if abreast > 1
        && let Err(error) = settled()
    {
        println!("{error:#}\n");
        fails("the_lab_settles_after_all_cases");
    }
    failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}
