//! What live views ask for besides the state: traffic over a session's life, and the newest denials. Bounded, and
//! kept over a restart in a file of its own (`kept.rs`), which may be lost: the closing record has the exact sums.

mod kept;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use thinlane_model::{Counters, SessionId, Wall};
use thinlane_wire::api::{DeniedView, Sample};

/// Samples of one session; beyond it every second one goes, so that they lie twice as far apart.
const MOST_SAMPLES: usize = 120;
/// Sessions with samples; beyond it the one that was silent longest goes.
const MOST_HISTORIES: usize = 10_000;
const MOST_DENIED: usize = 1_000;
/// Milliseconds between two samples at the beginning.
const FIRST_STEP: i64 = 1_000;

pub use kept::{keep, load};

/// What was seen lately.
#[derive(Default)]
pub struct Lately(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    histories: BTreeMap<SessionId, History>,
    denied: VecDeque<DeniedView>,
    /// Rises with everything that is taken.
    changes: u64,
}

#[derive(Clone, Serialize, Deserialize)]
struct History {
    step: i64,
    samples: Vec<Sample>,
    /// On which connection the last sample came; none of this process knows those before a restart.
    #[serde(skip)]
    connection: Option<u64>,
}

/// One connection of a gateway, on which each report continues the one before.
#[derive(Debug, Clone, Copy)]
pub struct Hearing {
    connection: u64,
    began: Wall,
}

/// How a report continues what is known of its session.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    connection: u64,
    /// The session was opened on this connection: nothing of it was missed.
    whole: bool,
}

impl Hearing {
    /// A new connection.
    pub fn begin(now: Wall) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        Self { connection: NUMBERS.fetch_add(1, Ordering::Relaxed), began: now }
    }

    /// A report on it, of a session that was opened then.
    pub fn of(&self, opened: Option<Wall>) -> Heard {
        Heard { connection: self.connection, whole: opened.is_some_and(|opened| opened >= self.began) }
    }
}

impl Lately {
    /// A session's counters were these at this moment.
    pub fn count(&self, session: SessionId, counters: &Counters, at: Wall, heard: Heard) {
        let mut inner = self.lock();
        inner.changes += 1;
        if inner.histories.len() >= MOST_HISTORIES && !inner.histories.contains_key(&session) {
            let newest = |history: &History| history.samples.last().map(|sample| sample.at);
            let oldest = inner.histories.iter().min_by_key(|(_, history)| newest(history)).map(|(id, _)| *id);
            oldest.and_then(|id| inner.histories.remove(&id));
        }
        let sample = Sample { at, up_bytes: counters.up_bytes, down_bytes: counters.down_bytes, gap: false };
        inner.histories.entry(session).or_insert_with(History::new).take(sample, heard);
    }

    /// A session's samples, oldest first.
    pub fn history(&self, session: &SessionId) -> Vec<Sample> {
        self.lock().histories.get(session).map(|history| history.samples.clone()).unwrap_or_default()
    }

    /// Packets were denied.
    pub fn deny(&self, denied: DeniedView) {
        let mut inner = self.lock();
        inner.changes += 1;
        inner.denied.push_back(denied);
        if inner.denied.len() > MOST_DENIED {
            inner.denied.pop_front();
        }
    }

    /// The newest denials, oldest first.
    pub fn denied(&self) -> Vec<DeniedView> {
        self.lock().denied.iter().cloned().collect()
    }

    /// Whoever panicked while it held the lock has left whole values behind.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    fn new() -> Self {
        Self { step: FIRST_STEP, samples: Vec::new(), connection: None }
    }

    /// What was counted while nobody listened has passed at some time, nobody knows when.
    fn take(&mut self, mut sample: Sample, heard: Heard) {
        let before = self.samples.last().map_or((0, 0), |last| (last.up_bytes, last.down_bytes));
        let another = self.connection.replace(heard.connection) != Some(heard.connection);
        sample.gap = another && !heard.whole && before != (sample.up_bytes, sample.down_bytes);
        self.push(sample);
    }

    /// The newest sample is always kept; those before it are at least a step apart.
    fn push(&mut self, mut sample: Sample) {
        if let [.., before, last] = self.samples.as_mut_slice()
            && last.at.as_millis() - before.at.as_millis() < self.step
        {
            sample.gap |= last.gap;
            *last = sample;
            return;
        }
        self.samples.push(sample);
        if self.samples.len() > MOST_SAMPLES {
            let last = self.samples.len() - 1;
            // The one after a sample that goes now spans both.
            for odd in (1..last).step_by(2) {
                self.samples[odd + 1].gap |= self.samples[odd].gap;
            }
            let mut at = 0;
            self.samples.retain(|_| {
                at += 1;
                (at - 1) % 2 == 0 || at - 1 == last
            });
            self.step *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: u8) -> SessionId {
        SessionId::from_random([0, 0, 0, 0, number])
    }

    fn heard() -> Heard {
        Hearing::begin(Wall::from_millis(0)).of(Some(Wall::from_millis(0)))
    }

    fn counters(bytes: u64) -> Counters {
        Counters { up_bytes: bytes, ..Counters::default() }
    }

    #[test]
    fn a_long_session_keeps_its_beginning_and_its_end_in_bounded_room() {
        let lately = Lately::default();
        for second in 0..8 * 3600u64 {
            lately.count(session(1), &counters(second * 10), Wall::from_millis(second as i64 * 1000), heard());
        }
        let samples = lately.history(&session(1));
        assert!((MOST_SAMPLES / 2 - 1..=MOST_SAMPLES).contains(&samples.len()), "{}", samples.len());
        assert_eq!(samples[0].at, Wall::from_millis(0));
        assert_eq!(samples.last().map(|sample| sample.up_bytes), Some((8 * 3600 - 1) * 10));
        let gaps = samples.windows(2).map(|two| two[1].at.as_millis() - two[0].at.as_millis());
        assert!(gaps.max() < Some(600_000), "a hole in the middle");
        assert!(samples.is_sorted_by_key(|sample| sample.at));
    }

    #[test]
    fn more_sessions_than_there_is_room_for_drop_the_one_that_is_silent_longest() {
        let lately = Lately::default();
        for number in 0..MOST_HISTORIES as u64 + 1 {
            let bytes = number.to_be_bytes();
            let id = SessionId::from_random([bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]);
            lately.count(id, &counters(1), Wall::from_millis(number as i64), heard());
        }
        assert!(lately.history(&session(0)).is_empty());
        assert_eq!(lately.history(&session(1)).len(), 1);
        assert_eq!(lately.lock().histories.len(), MOST_HISTORIES);
    }

    #[test]
    fn what_passed_while_nobody_listened_is_marked_and_stays_marked() {
        let lately = Lately::default();
        let at = |second: u64| Wall::from_millis(second as i64 * 1000);
        let (first, second) = (Hearing::begin(at(0)), Hearing::begin(at(60)));
        for tick in 1..10 {
            lately.count(session(1), &counters(tick * 10), at(tick), first.of(Some(at(0))));
        }
        // A session that began before the connection, and one that was silent all the while.
        lately.count(session(1), &counters(9_000), at(61), second.of(Some(at(0))));
        lately.count(session(1), &counters(9_010), at(62), second.of(Some(at(0))));
        lately.count(session(2), &counters(500), at(62), second.of(Some(at(5))));
        lately.count(session(3), &counters(500), at(63), second.of(Some(at(61))));
        let gaps =
            |number: u8| -> Vec<bool> { lately.history(&session(number)).iter().map(|sample| sample.gap).collect() };
        assert_eq!(gaps(1).iter().position(|gap| *gap), Some(9));
        assert_eq!(gaps(1).iter().filter(|gap| **gap).count(), 1);
        assert_eq!(gaps(2), [true]);
        assert_eq!(gaps(3), [false], "it was opened on this connection: all of it was heard");
        for tick in 63..2_000 {
            lately.count(session(1), &counters(9_000 + tick), at(tick), second.of(Some(at(0))));
        }
        assert!(gaps(1).contains(&true), "thinning has forgotten it");
    }
}
