//! Which probes are answered: those with a good ticket, and no more than the bounds allow.

use std::net::SocketAddr;

use thinlane_model::Boot;
use thinlane_wire::{ProbeKey, ProbeQuestion};

use crate::bucket::{Bucket, Rate};
use crate::core::{SOURCES, place};

/// Probes looked at for one source; an examination sends about thirty.
const SOURCE: Rate = Rate { per_second: 20, burst: 120 };
/// Probes looked at in all: each costs two hashes, over at most 1 500 bytes.
const ALL: Rate = Rate { per_second: 20_000, burst: 20_000 };

/// The key of the tickets, and the budgets.
pub(crate) struct Probes {
    key: ProbeKey,
    seed: u64,
    sources: Vec<Bucket>,
    all: Bucket,
}

impl Probes {
    pub(crate) fn new(key: ProbeKey, seed: u64) -> Self {
        Self { key, seed, sources: vec![Bucket::new(SOURCE); SOURCES], all: Bucket::new(ALL) }
    }

    /// The answer; `None`: the relay stays silent.
    ///
    /// What a ticket says of its own end costs nothing to check; the hashes come behind the budgets.
    pub(crate) fn answer(&mut self, from: SocketAddr, question: &ProbeQuestion<'_>, now: Boot) -> Option<Vec<u8>> {
        let source = &mut self.sources[place(self.seed, from)];
        let may = question.is_current(now) && source.take(1, now) && self.all.take(1, now);
        may.then(|| self.key.answer(question, from, now).ok())?
    }
}
