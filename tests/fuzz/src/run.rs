//! One target's run: inputs for some time, and what they got to.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::{Mutator, Target, corpus, seeds};

/// Inputs between two looks at the clock.
const BATCH: usize = 64;

/// A target with its seeds, and how far it has come.
pub struct Run {
    target: &'static Target,
    seeds: Vec<Vec<u8>>,
    mutator: Mutator,
    seed: u64,
    /// Inputs so far.
    pub tried: u64,
    /// Processor time that they took.
    pub spent: Duration,
    /// How many times each place was got to.
    pub places: BTreeMap<&'static str, u64>,
}

/// An input made its target panic, or could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{target} panicked; the input is kept in {}", kept.display())]
    Found { target: &'static str, kept: PathBuf },
    #[error("{target} panicked, and the input could not be kept: {source}")]
    Lost { target: &'static str, source: io::Error },
}

impl Run {
    /// Reads the target's seeds; the same `seed` makes the same inputs.
    pub fn new(target: &'static Target, seed: u64) -> io::Result<Self> {
        let (seeds, mutator) = (seeds(target)?, Mutator::new(seed));
        let (spent, places) = (Duration::ZERO, BTreeMap::new());
        Ok(Self { target, seeds, mutator, seed, tried: 0, spent, places })
    }

    pub fn name(&self) -> &'static str {
        self.target.name
    }

    /// Goes on for so much of this thread's processor time. What makes the target panic is written to its corpus.
    pub fn go_on(&mut self, length: Duration) -> Result<(), Failure> {
        let began = clock();
        loop {
            for _ in 0..BATCH {
                self.one()?;
            }
            let took = clock().saturating_sub(began);
            if took >= length {
                self.spent += took;
                return Ok(());
            }
        }
    }

    /// Tries one input.
    pub fn one(&mut self) -> Result<(), Failure> {
        let input = self.mutator.make(&self.seeds);
        self.tried += 1;
        let places = &mut self.places;
        let tried = catch_unwind(AssertUnwindSafe(|| {
            (self.target.run)(&input, &mut |place| *places.entry(place).or_default() += 1);
        }));
        tried.map_err(|_| self.keep(&input))
    }

    /// Of the places that it should get to, those that it has not.
    pub fn missing(&self) -> Vec<&'static str> {
        self.target.deepest.iter().copied().filter(|place| !self.places.contains_key(place)).collect()
    }

    fn keep(&self, input: &[u8]) -> Failure {
        let (target, dir) = (self.target.name, corpus(self.target.name));
        let kept = dir.join(format!("found-{:x}-{}", self.seed, self.tried));
        match std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&kept, input)) {
            Ok(()) => Failure::Found { target, kept },
            Err(source) => Failure::Lost { target, source },
        }
    }
}

/// Processor time of this thread: a busy machine makes a run longer, and not shorter.
fn clock() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
