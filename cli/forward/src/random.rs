//! Ports and sequence numbers that differ from one lane to the next; the seed comes from the operating system.

/// A small generator (SplitMix64). What it makes is seen only inside the tunnel and protects nothing.
#[derive(Debug, Clone)]
pub struct Random(u64);

/// The first port that nobody registers (RFC 6335).
const FIRST: u16 = 49_152;

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// An ephemeral port that is not taken; far fewer than all of them may be.
    pub fn port(&mut self, taken: impl Fn(u16) -> bool) -> u16 {
        let count = u16::MAX - FIRST + 1;
        let mut port = FIRST + (self.draw() % u64::from(count)) as u16;
        for _ in 0..count {
            if !taken(port) {
                break;
            }
            port = if port == u16::MAX { FIRST } else { port + 1 };
        }
        port
    }
}
