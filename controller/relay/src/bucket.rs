//! A token bucket on millisecond time.

use thinlane_model::Boot;

/// How much is refilled and how much fits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub per_second: u64,
    pub burst: u64,
}

/// Begins full.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    rate: Rate,
    /// Thousandths of a token, so that a millisecond refills a whole number.
    level: u64,
    filled: Boot,
}

impl Bucket {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, level: rate.burst * 1000, filled: Boot(0) }
    }

    /// Takes `tokens`, all or none; says whether they were there.
    #[must_use]
    pub(crate) fn take(&mut self, tokens: u64, now: Boot) -> bool {
        let elapsed = self.filled.until(now).as_millis();
        self.filled = self.filled.max(now);
        let refill = elapsed.saturating_mul(self.rate.per_second);
        self.level = self.level.saturating_add(refill).min(self.rate.burst * 1000);
        let price = tokens.saturating_mul(1000);
        let enough = self.level >= price;
        if enough {
            self.level -= price;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::new(Rate { per_second: 2, burst: 3 });
        let taken = |bucket: &mut Bucket, at| (0..10).filter(|_| bucket.take(1, Boot(at))).count();
        assert_eq!(taken(&mut bucket, 5000), 3);
        assert_eq!(taken(&mut bucket, 5499), 0);
        assert_eq!(taken(&mut bucket, 5500), 1);
        assert_eq!(taken(&mut bucket, 4000), 0, "time that goes back refills nothing");
        assert_eq!(taken(&mut bucket, u64::MAX), 3);
    }
}
