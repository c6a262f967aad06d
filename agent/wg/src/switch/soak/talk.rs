//! Two programs that talk through a lane: numbered chunks, sent again until they are acknowledged, hashed in their order.

use std::collections::BTreeMap;

use blake2::{Blake2s256, Digest};
use thinlane_model::{Boot, Span};

/// Chunks under way at once.
const WINDOW: u32 = 16;
/// How long an acknowledgement may take.
const PATIENCE: Span = Span::from_millis(1500);
/// Stands where a message carries no chunk.
const NONE: u32 = u32::MAX;

/// One end: what it sends, and what it has got.
pub struct Talk {
    seed: u64,
    /// Chunks that the program has written.
    written: u32,
    /// The first that was not acknowledged, and the first that was never sent.
    acknowledged: u32,
    next: u32,
    /// When each chunk under way was sent last.
    sent: BTreeMap<u32, Boot>,
    /// The first that has not come, and later ones that have.
    expected: u32,
    early: BTreeMap<u32, Vec<u8>>,
    owes_answer: bool,
    hash: Blake2s256,
    pub bytes: u64,
    /// When something new was last acknowledged or arrived.
    pub progress: Boot,
}

impl Talk {
    /// `seed` makes what it says its own.
    pub fn new(seed: u64, now: Boot) -> Self {
        Self {
            seed,
            written: 0,
            acknowledged: 0,
            next: 0,
            sent: BTreeMap::new(),
            expected: 0,
            early: BTreeMap::new(),
            owes_answer: false,
            hash: Blake2s256::new(),
            bytes: 0,
            progress: now,
        }
    }

    /// The program writes so many chunks more.
    pub fn write(&mut self, chunks: u32, now: Boot) {
        if !self.waits() {
            self.progress = now;
        }
        self.written += chunks;
    }

    /// Whether something was written that the other end has not.
    pub fn waits(&self) -> bool {
        self.acknowledged < self.written
    }

    /// When `speak` has something to say.
    pub fn due(&self, now: Boot) -> Option<Boot> {
        let fresh = self.next < self.written && self.next < self.acknowledged + WINDOW;
        if fresh || self.owes_answer {
            return Some(now);
        }
        self.sent.values().min().map(|at| *at + PATIENCE)
    }

    /// The messages that are to be sent now.
    pub fn speak(&mut self, now: Boot) -> Vec<Vec<u8>> {
        let mut chunks: Vec<u32> =
            self.sent.iter().filter(|(_, at)| **at + PATIENCE <= now).map(|(number, _)| *number).collect();
        while self.next < self.written && self.next < self.acknowledged + WINDOW {
            chunks.push(self.next);
            self.next += 1;
        }
        self.sent.extend(chunks.iter().map(|number| (*number, now)));
        if chunks.is_empty() && self.owes_answer {
            chunks.push(NONE);
        }
        self.owes_answer = false;
        let expected = self.expected.to_be_bytes();
        chunks
            .iter()
            .map(|number| [&number.to_be_bytes()[..], &expected, &chunk(self.seed, *number)].concat())
            .collect()
    }

    /// Takes a message of the other end's.
    pub fn hear(&mut self, message: &[u8], now: Boot) {
        let word = |at: usize| u32::from_be_bytes(message[at..at + 4].try_into().expect("a message has two words"));
        let (number, acknowledged) = (word(0), word(4));
        assert!(acknowledged <= self.next, "an answer to what was never sent");
        if acknowledged > self.acknowledged {
            self.acknowledged = acknowledged;
            self.sent = self.sent.split_off(&acknowledged);
            self.progress = now;
        }
        if number == NONE {
            return;
        }
        self.owes_answer = true;
        if (self.expected..self.expected + WINDOW).contains(&number) {
            self.early.insert(number, message[8..].to_vec());
        }
        while let Some(content) = self.early.remove(&self.expected) {
            self.hash.update(&content);
            self.bytes += content.len() as u64;
            self.expected += 1;
            self.progress = now;
        }
    }

    /// The hash of all that arrived here, and of all that the other end, of seed `seed`, was to say in `chunks`.
    pub fn compare(&self, seed: u64, chunks: u32) -> [Vec<u8>; 2] {
        let mut said = Blake2s256::new();
        (0..chunks).for_each(|number| said.update(chunk(seed, number)));
        [self.hash.clone().finalize().to_vec(), said.finalize().to_vec()]
    }

    /// Whether the other end has said anything yet.
    pub fn has_heard(&self) -> bool {
        self.expected > 0 || self.owes_answer
    }

    /// Chunks written until now.
    pub fn written(&self) -> u32 {
        self.written
    }
}

/// What stands in a chunk: the same whenever it is asked for.
fn chunk(seed: u64, number: u32) -> Vec<u8> {
    if number == NONE {
        return Vec::new();
    }
    let mut state = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(u64::from(number) + 1) | 1;
    let mut content = Vec::with_capacity(1200);
    for _ in 0..25 + number % 125 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend(state.to_le_bytes());
    }
    content
}
