//! A token bucket on the boot clock.

use thinlane_model::Boot;

/// Lets `rate` things a second pass, and up to `burst` at once.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    rate: u64,
    burst: u64,
    /// In thousandths of a token.
    tokens: u64,
    filled: Boot,
}

impl Bucket {
    pub(crate) fn new(rate: u32, burst: u32) -> Self {
        let burst = u64::from(burst) * 1000;
        Self { rate: u64::from(rate), burst, tokens: burst, filled: Boot(0) }
    }

    /// Takes one token, if there is one.
    #[must_use]
    pub(crate) fn take(&mut self, now: Boot) -> bool {
        let elapsed = self.filled.until(now).as_millis();
        self.filled = self.filled.max(now);
        self.tokens = self.tokens.saturating_add(elapsed.saturating_mul(self.rate)).min(self.burst);
        let enough = self.tokens >= 1000;
        if enough {
            self.tokens -= 1000;
        }
        enough
    }
}

/// What a peer may cause, from where it was heard last, and apart from it what comes from anywhere else: a flood of the
/// second kind takes nothing from the first.
#[derive(Debug, Clone)]
pub(crate) struct ByOrigin {
    peer: Bucket,
    elsewhere: Bucket,
}

impl ByOrigin {
    pub(crate) fn new(rate: u32, burst: u32) -> Self {
        let bucket = Bucket::new(rate, burst);
        Self { peer: bucket.clone(), elsewhere: bucket }
    }

    pub(crate) fn of(&mut self, from_peer: bool) -> &mut Bucket {
        if from_peer { &mut self.peer } else { &mut self.elsewhere }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut bucket = Bucket::new(10, 3);
        let now = Boot(5_000);
        assert_eq!((0..10).filter(|_| bucket.take(now)).count(), 3);
        assert!(!bucket.take(Boot(5_099)));
        assert!(bucket.take(Boot(5_199)));
        let passed = (0..1000u64).filter(|at| bucket.take(Boot(6_000 + at * 10))).count();
        assert!((100..=104).contains(&passed), "{passed}");
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let mut bucket = Bucket::new(1, 1);
        assert!(bucket.take(Boot(10_000)));
        assert!(!bucket.take(Boot(0)));
        assert!(!bucket.take(Boot(10_500)));
    }
}
