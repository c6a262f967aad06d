//! A fuzz target for every parser of outside bytes.
//!
//! A target is a function of bytes that must return: no panic, no unbounded memory, no endless loop, and where it
//! reads something, writing it again must say the same. `cargo test -p thinlane-fuzz` replays each corpus with a
//! fixed number of mutations, and asks whether they got as deep as they should; `cargo run -p thinlane-fuzz -- TARGET SECONDS`
//! goes on for as long as you like.
//! The same functions serve a coverage-guided fuzzer.
#![forbid(unsafe_code)]

mod mutate;
mod run;
mod targets;

pub use mutate::Mutator;
pub use run::Run;
pub use targets::{OF_PACKETS, OF_STRANGERS, TARGETS, Target};

use std::path::{Path, PathBuf};

/// The longest input that is made.
pub const LONGEST: usize = 8 * 1024;

/// Where a target's corpus lies.
pub fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// A target's corpus, in a fixed order, and the seeds that it brings along.
pub fn seeds(target: &Target) -> std::io::Result<Vec<Vec<u8>>> {
    let mut seeds = (target.seeds)();
    let dir = corpus(target.name);
    if dir.exists() {
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(dir)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
        paths.sort();
        for path in paths {
            seeds.push(std::fs::read(path)?);
        }
    }
    Ok(seeds)
}
