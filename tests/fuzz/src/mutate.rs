//! Mutations of an input, repeatable from a seed.

use crate::LONGEST;

/// A small generator (SplitMix64): the same seed makes the same inputs everywhere.
pub struct Mutator(u64);

/// Values that parsers stumble over.
const ODD: [u64; 10] = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

impl Mutator {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % (limit.max(1) as u64)) as usize
    }

    /// One input, made of the seeds by a few mutations.
    pub fn make(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let pick = self.below(seeds.len());
        let mut input = seeds.get(pick).cloned().unwrap_or_default();
        for _ in 0..=self.below(6) {
            self.change(&mut input, seeds);
        }
        input.truncate(LONGEST);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(input.len());
        match self.below(9) {
            0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            1 if !input.is_empty() => input[at] = self.next() as u8,
            2 => input.insert(at.min(input.len()), self.next() as u8),
            3 if !input.is_empty() => drop(input.remove(at)),
            4 => input.truncate(at),
            5 => {
                let odd = ODD[self.below(ODD.len())].to_be_bytes();
                let width = 1 << self.below(4);
                for (place, byte) in input.iter_mut().skip(at).zip(&odd[8 - width..]) {
                    *place = *byte;
                }
            }
            6 => {
                let end = (at + self.below(64)).min(input.len());
                let part = input[at.min(end)..end].to_vec();
                let to = self.below(input.len() + 1);
                input.splice(to..to, part);
            }
            7 => {
                let other = self.below(seeds.len());
                if let Some(other) = seeds.get(other) {
                    let from = self.below(other.len());
                    input.truncate(at);
                    input.extend_from_slice(other.get(from..).unwrap_or_default());
                }
            }
            _ => input.extend((0..self.below(32)).map(|_| self.0 as u8)),
        }
    }
}
