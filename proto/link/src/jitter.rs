//! Spreads the reconnects of many gateways.

use thinlane_model::Span;

/// A small generator (SplitMix64, Steele et al. 2014) for spreading retries; nothing secret comes from it.
#[derive(Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Somewhere between half of `span` and all of it.
    pub(crate) fn half_to_all(&mut self, span: Span) -> Span {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let half = span.as_millis() / 2;
        Span::from_millis(half + mixed % (half + 1))
    }
}
