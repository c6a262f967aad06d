//! How fast something grows, from totals that come now and then.

use thinlane_model::Boot;

/// Seconds that are remembered.
const SECONDS: usize = 96;
/// Seconds of one column of a sparkline.
pub const COLUMN: u64 = 3;

/// Bytes by second, for the last minute and a half.
#[derive(Debug, Clone)]
pub struct Meter {
    total: Option<u64>,
    /// The second that was written last.
    newest: u64,
    ring: Box<[u64; SECONDS]>,
    /// The last time in which nothing was heard, in seconds: its first, and the first after it.
    untold: Option<(u64, u64)>,
}

impl Default for Meter {
    fn default() -> Self {
        Self { total: None, newest: 0, ring: Box::new([0; SECONDS]), untold: None }
    }
}

impl Meter {
    /// Takes a total. The first one, and one that is smaller than the last, only set where counting begins.
    pub fn count(&mut self, total: u64, now: Boot) {
        let second = now.0 / 1000;
        self.roll(second);
        if let Some(grown) = self.total.and_then(|before| total.checked_sub(before)) {
            let slot = &mut self.ring[(second % SECONDS as u64) as usize];
            *slot = slot.saturating_add(grown);
        }
        self.total = Some(total);
    }

    /// Takes a total after a time in which nothing was heard, which began at `since`: what grew meanwhile belongs to no
    /// second.
    pub fn resume(&mut self, total: u64, since: Boot, now: Boot) {
        self.roll(now.0 / 1000);
        self.total = Some(total);
        // A moment is no gap: a picture is also fetched anew where nothing was missed.
        if since.until(now).as_millis() >= 1_000 * COLUMN {
            self.untold = Some((since.0 / 1000, now.0 / 1000 + 1));
        }
    }

    /// Which of the columns that [`Meter::columns`] gives hold a second of which nobody was told.
    pub fn untold(&self, now: Boot, count: usize) -> Vec<bool> {
        let column = now.0 / 1000 / COLUMN;
        let holds =
            |at: u64| self.untold.is_some_and(|(first, after)| at * COLUMN < after && first < (at + 1) * COLUMN);
        (1..=count as u64).rev().map(|back| column.checked_sub(back).is_some_and(holds)).collect()
    }

    fn roll(&mut self, second: u64) {
        let passed = second.saturating_sub(self.newest).min(SECONDS as u64);
        for back in 0..passed {
            self.ring[((second - back) % SECONDS as u64) as usize] = 0;
        }
        self.newest = self.newest.max(second);
    }

    fn at(&self, second: u64) -> u64 {
        let known = second <= self.newest && self.newest - second < SECONDS as u64;
        if known { self.ring[(second % SECONDS as u64) as usize] } else { 0 }
    }

    /// Bytes a second, over the last three whole seconds.
    pub fn rate(&self, now: Boot) -> u64 {
        let second = now.0 / 1000;
        // Gateways report once a second: the running one may still be empty.
        let sum =
            (1..=3).filter_map(|back| second.checked_sub(back)).fold(0u64, |sum, at| sum.saturating_add(self.at(at)));
        sum / 3
    }

    /// Bytes in whole columns of three seconds, oldest first; the running column is not shown, so that a screen
    /// changes once in three seconds.
    pub fn columns(&self, now: Boot, count: usize) -> Vec<u64> {
        let column = now.0 / 1000 / COLUMN;
        (1..=count as u64)
            .rev()
            .map(|back| match column.checked_sub(back) {
                Some(at) => {
                    (at * COLUMN..(at + 1) * COLUMN).fold(0, |sum: u64, second| sum.saturating_add(self.at(second)))
                }
                None => 0,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Boot {
        Boot(second * 1000)
    }

    #[test]
    fn the_first_total_is_no_traffic() {
        let mut meter = Meter::default();
        meter.count(5_000_000, at(10));
        assert_eq!(meter.rate(at(12)), 0);
        meter.count(5_000_300, at(11));
        assert_eq!(meter.rate(at(12)), 100);
    }

    #[test]
    fn a_rate_ends_when_nothing_comes_any_more() {
        let mut meter = Meter::default();
        for second in 0..10 {
            meter.count(second * 900, at(second));
        }
        assert_eq!(meter.rate(at(10)), 900);
        assert_eq!(meter.rate(at(14)), 0);
        assert_eq!(meter.rate(at(100_000)), 0);
    }

    #[test]
    fn what_grew_while_nothing_was_heard_is_no_burst() {
        let mut meter = Meter::default();
        meter.count(0, at(1));
        meter.resume(9_000_000, at(1), at(60));
        meter.count(9_000_300, at(61));
        assert_eq!(meter.rate(at(62)), 100);
        assert_eq!(meter.columns(at(66), 20).iter().sum::<u64>(), 300);
        let untold = meter.untold(at(66), 20);
        assert_eq!(untold.iter().filter(|untold| **untold).count(), 19, "all but the last column: {untold:?}");
        assert!(!untold[19] && !meter.untold(at(200), 20).contains(&true));
        // Fetched anew without having missed anything.
        meter.resume(9_000_900, at(200), at(201));
        assert!(!meter.untold(at(206), 20).contains(&true));
    }

    #[test]
    fn columns_hold_what_the_seconds_held_and_forget() {
        let mut meter = Meter::default();
        meter.count(0, at(0));
        meter.count(30, at(3));
        meter.count(50, at(5));
        assert_eq!(meter.columns(at(6), 2), [0, 50]);
        assert_eq!(meter.columns(at(9), 2), [50, 0]);
        assert_eq!(meter.columns(at(500), 20).iter().sum::<u64>(), 0);
        meter.count(51, at(500));
        assert_eq!(meter.columns(at(504), 3).iter().sum::<u64>(), 1);
    }

    #[test]
    fn a_total_that_shrinks_starts_again() {
        let mut meter = Meter::default();
        meter.count(100, at(1));
        meter.count(10, at(2));
        meter.count(40, at(3));
        assert_eq!(meter.rate(at(4)), 10);
    }
}
