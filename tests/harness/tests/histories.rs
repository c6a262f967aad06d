//! Random histories of controller and gateway: whatever happens, no lane is open that must be closed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use thinlane_harness::{Failure, Sabotage, Summary, run, run_broken};

/// After so many failures no more histories are played.
const MOST_FAILURES: usize = 12;

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// Says which history it was when a machine panics in it.
struct Naming(u64);

impl Drop for Naming {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it was seed {0}: replay it with THINLANE_SIM_SEED={0}", self.0);
        }
    }
}

#[test]
fn a_thousand_histories_never_leave_a_lane_open_that_must_be_closed_and_end_in_agreement() {
    let one = from_environment("THINLANE_SIM_SEED");
    let count = one.map_or_else(|| from_environment("THINLANE_SIM_HISTORIES").unwrap_or(1_000), |_| 1);
    let first = one.unwrap_or(1);
    let next = AtomicU64::new(first);
    let failures: Mutex<Vec<Failure>> = Mutex::new(Vec::new());
    let total: Mutex<Summary> = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let enough = failures.lock().expect("no panic holds it").len() >= MOST_FAILURES;
                    if seed >= first + count || enough {
                        return;
                    }
                    let naming = Naming(seed);
                    match run(seed) {
                        Ok(summary) => {
                            let mut total = total.lock().expect("no panic holds it");
                            total.sessions += summary.sessions;
                            total.active += summary.active;
                            total.extended += summary.extended;
                            total.at_once = total.at_once.max(summary.at_once);
                        }
                        Err(failure) => failures.lock().expect("no panic holds it").push(failure),
                    }
                    drop(naming);
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic holds it");
    if let Some(first) = failures.iter().min_by_key(|failure| failure.trace.len()) {
        let all: Vec<String> = failures.iter().map(|one| format!("seed {}: {}", one.seed, one.what)).collect();
        panic!("{first}\nall of them:\n{}", all.join("\n"));
    }
    let total = total.into_inner().expect("no panic holds it");
    println!("{count} histories: {total:?}");
    if one.is_none() {
        // Histories in which nothing opens prove nothing.
        assert!(total.sessions as u64 > 3 * count, "{total:?}");
        assert!(total.active * 2 > total.sessions && total.extended as u64 * 10 > count, "{total:?}");
    }
}

#[test]
fn each_way_of_breaking_a_promise_is_found_in_some_history() {
    for sabotage in Sabotage::ALL {
        let found = (1..=400).find_map(|seed| run_broken(seed, sabotage).err());
        let found = found.unwrap_or_else(|| panic!("{sabotage:?} was not found"));
        println!("{sabotage:?}: seed {}: {}", found.seed, found.what);
    }
}
