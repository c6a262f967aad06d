//! One end of a session: where it is, which indices it answers to, which handshakes it began.

use std::collections::VecDeque;
use std::net::SocketAddr;

use thinlane_model::{Boot, PublicKey, Span};

use crate::bucket::{Bucket, Rate};
use crate::mac::Mac1Key;
use crate::verdict::{MOST_TARGETS, Targets};

/// How long an end is served at two addresses, and its former one is still listened to.
pub(crate) const TWO_ADDRESSES: Span = Span::from_secs(20);
/// How long an address that never made a handshake is not served again.
const REFUSED: Span = Span::from_secs(60);
/// Silence after which a newer unconfirmed address takes the place of an older one.
const SILENT: Span = Span::from_secs(1);
/// Unconfirmed addresses served at once: a carrier that gives an end a new one every few seconds does not stall it.
const MOST_BESIDE: usize = MOST_TARGETS - 1;
/// How often an end may begin to be served at another address.
const MOVES: Rate = Rate { per_second: 1, burst: 6 };
/// An index dies a little after its key, which WireGuard uses for 180 s.
const INDEX_LIFE: Span = Span::from_secs(240);
/// How long an initiation may wait for its response and first data.
const ATTEMPT_LIFE: Span = Span::from_secs(30);
/// Current, previous and next, and a few whose handshake was not completed.
const MOST_INDICES: usize = 6;
const MOST_ATTEMPTS: usize = 4;
/// Initiations remembered, to drop duplicates: more than two hours' worth.
const MOST_SEEN: usize = 64;
const MOST_REFUSED: usize = 8;

#[derive(Clone)]
pub(crate) struct End {
    pub key: Option<(PublicKey, Mac1Key)>,
    address: Option<Address>,
    /// Where it was before its last move: listened to until then, not served.
    former: Option<(SocketAddr, Boot)>,
    /// The oldest first.
    beside: Vec<Beside>,
    refused: VecDeque<(SocketAddr, Boot)>,
    moves: Bucket,
    indices: Vec<Index>,
    seen: VecDeque<[u8; 16]>,
    attempts: VecDeque<Attempt>,
    /// What the relay's tables hold of this end.
    pub links: Links,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Links {
    pub indices: Vec<u32>,
    pub addresses: Vec<SocketAddr>,
}

#[derive(Debug, Clone, Copy)]
struct Address {
    at: SocketAddr,
    /// By a completed handshake.
    confirmed: bool,
}

/// An address from which data came that only the end can have made, or one who forges counters.
#[derive(Debug, Clone, Copy)]
struct Beside {
    at: SocketAddr,
    until: Boot,
    heard: Boot,
}

#[derive(Debug, Clone, Copy)]
struct Index {
    value: u32,
    born: Boot,
    /// Its handshake was completed.
    proven: bool,
    /// One more than the highest counter that the other end's own address has sent to this index.
    ahead: u64,
}

/// An initiation that this end made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    pub index: u32,
    pub mac1: [u8; 16],
    pub from: SocketAddr,
    pub born: Boot,
    pub answer: Option<Answer>,
}

/// The other end's response to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub index: u32,
    pub from: SocketAddr,
}

impl End {
    pub(crate) fn new(key: Option<PublicKey>) -> Self {
        Self {
            key: key.map(|key| (key, Mac1Key::of(&key))),
            address: None,
            former: None,
            beside: Vec::new(),
            refused: VecDeque::new(),
            moves: Bucket::new(MOVES),
            indices: Vec::new(),
            seen: VecDeque::new(),
            attempts: VecDeque::new(),
            links: Links::default(),
        }
    }

    /// Where it is, as far as is known.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address.map(|address| address.at)
    }

    /// Where it is, if a handshake has shown it.
    pub(crate) fn confirmed(&self) -> Option<SocketAddr> {
        self.address.filter(|address| address.confirmed).map(|address| address.at)
    }

    /// Where data for it goes.
    pub(crate) fn targets(&self, now: Boot) -> Option<Targets> {
        let beside = self.beside.iter().filter(|beside| now < beside.until).map(|beside| beside.at);
        self.address().map(|first| beside.fold(Targets::one(first), Targets::and))
    }

    /// Where an initiation for it goes: also to where its own last one came from, or two ends that both moved
    /// while their keys died could never meet again.
    pub(crate) fn initiation_targets(&self, now: Boot) -> Option<Targets> {
        let targets = self.targets(now)?;
        let attempt = self.attempts.iter().rev().find(|attempt| attempt.is_young(now)).map(|attempt| attempt.from);
        Some(attempt.map_or(targets, |attempt| targets.and(attempt)))
    }

    /// Whether `from` is where this end is, was a moment ago, or is served for now.
    pub(crate) fn is_at(&self, from: SocketAddr, now: Boot) -> bool {
        self.address() == Some(from)
            || self.former.is_some_and(|(at, until)| at == from && now < until)
            || self.beside.iter().any(|beside| beside.at == from && now < beside.until)
    }

    /// Whether this end may have sent data to the other's `index` from `from`.
    pub(crate) fn speaks_from(&self, from: SocketAddr, index: u32, now: Boot) -> bool {
        self.is_at(from, now) || self.answered_by(index, now).is_some_and(|attempt| attempt.from == from)
    }

    /// The attempt of this end that the other answered with `index`.
    pub(crate) fn answered_by(&self, index: u32, now: Boot) -> Option<Attempt> {
        self.attempts
            .iter()
            .rev()
            .find(|attempt| attempt.is_young(now) && attempt.answer.is_some_and(|answer| answer.index == index))
            .copied()
    }

    /// The attempt that this end made under its own `index`.
    pub(crate) fn attempt_mut(&mut self, index: u32, now: Boot) -> Option<&mut Attempt> {
        self.attempts.iter_mut().rev().find(|attempt| attempt.is_young(now) && attempt.index == index)
    }

    pub(crate) fn attempt(&self, index: u32, now: Boot) -> Option<Attempt> {
        self.attempts.iter().rev().find(|attempt| attempt.is_young(now) && attempt.index == index).copied()
    }

    /// Whether data may come for this end under `index`.
    pub(crate) fn holds(&self, index: u32, now: Boot) -> bool {
        self.indices.iter().any(|own| own.value == index && own.is_young(now))
    }

    /// Whether an initiation with this MAC1 was seen from this end; a duplicate from the confirmed address
    /// takes an unanswered attempt back from whoever was quicker with a copy of it.
    pub(crate) fn saw(&mut self, mac1: &[u8; 16], from: SocketAddr, now: Boot) -> bool {
        if self.confirmed() == Some(from) {
            let taken =
                self.attempts.iter_mut().find(|one| one.mac1 == *mac1 && one.answer.is_none() && one.is_young(now));
            if let Some(attempt) = taken {
                attempt.from = from;
            }
        }
        self.seen.contains(mac1)
    }

    pub(crate) fn remember(&mut self, mac1: [u8; 16]) {
        if self.seen.len() >= MOST_SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(mac1);
    }

    /// Looks for an end never confirmed where its latest initiation came from.
    pub(crate) fn look_at(&mut self, from: SocketAddr) {
        if self.confirmed().is_none() {
            self.address = Some(Address { at: from, confirmed: false });
        }
    }

    pub(crate) fn begin(&mut self, attempt: Attempt) {
        if self.attempts.len() >= MOST_ATTEMPTS {
            // An answered one is nearer to its end than one that nobody may ever answer.
            let oldest = self.attempts.iter().position(|attempt| attempt.answer.is_none()).unwrap_or(0);
            self.attempts.remove(oldest);
        }
        self.attempts.push_back(attempt);
    }

    pub(crate) fn finish(&mut self, index: u32) {
        self.attempts.retain(|attempt| attempt.index != index);
    }

    /// Answers to `value` from now on.
    pub(crate) fn take_index(&mut self, value: u32, now: Boot) {
        self.indices.retain(|index| index.value != value && index.is_young(now));
        if self.indices.len() >= MOST_INDICES {
            // In the order of their birth; one in use must not fall to handshakes that came to nothing.
            let oldest = self.indices.iter().position(|index| !index.proven).unwrap_or(0);
            self.indices.remove(oldest);
        }
        self.indices.push(Index { value, born: now, proven: false, ahead: 0 });
    }

    pub(crate) fn prove(&mut self, value: u32) {
        if let Some(index) = self.indices.iter_mut().find(|index| index.value == value) {
            index.proven = true;
        }
    }

    /// A handshake has shown that the end is at `at`.
    pub(crate) fn confirm(&mut self, at: SocketAddr, now: Boot) {
        match self.address {
            Some(Address { at: before, .. }) if before != at => {
                self.former = Some((before, now + TWO_ADDRESSES));
                self.beside.clear();
                self.refused.clear();
            }
            _ => self.beside.retain(|beside| beside.at != at),
        }
        self.address = Some(Address { at, confirmed: true });
    }

    /// Notes a packet for this end's `index` that came from the other end's own address.
    pub(crate) fn count_up(&mut self, index: u32, counter: u64) {
        if let Some(index) = self.indices.iter_mut().find(|own| own.value == index) {
            index.ahead = index.ahead.max(counter.saturating_add(1));
        }
    }

    /// Whether `counter` is ahead of all that the other end's own address has sent to `index`.
    pub(crate) fn is_ahead(&self, index: u32, counter: u64) -> bool {
        self.indices.iter().any(|own| own.value == index && counter >= own.ahead)
    }

    /// Hears data from where the end is served beside its own address.
    pub(crate) fn hear(&mut self, from: SocketAddr, now: Boot) {
        if let Some(beside) = self.beside.iter_mut().find(|beside| beside.at == from) {
            beside.heard = now;
        }
    }

    /// Serves `from` beside the end's own address for a while, unless that was tried in vain, is tried too
    /// often, or as many such addresses as may be are in use. Says whether anything changed.
    #[must_use]
    pub(crate) fn serve_beside(&mut self, from: SocketAddr, now: Boot) -> bool {
        self.expire_beside(now);
        self.refused.retain(|(_, until)| now < *until);
        let full = self.beside.len() >= MOST_BESIDE;
        let silent = self.beside.iter().position(|beside| beside.heard + SILENT <= now);
        let refused = self.refused.iter().any(|(at, _)| *at == from);
        if refused || (full && silent.is_none()) || !self.moves.take(1, now) {
            return false;
        }
        if let Some(silent) = silent.filter(|_| full) {
            let before = self.beside.remove(silent);
            self.refuse(before.at, now);
        }
        self.beside.push(Beside { at: from, until: now + TWO_ADDRESSES, heard: now });
        true
    }

    /// Forgets what is too old; the relay links anew afterwards.
    pub(crate) fn sweep(&mut self, now: Boot) {
        self.expire_beside(now);
        self.former = self.former.filter(|(_, until)| now < *until);
        self.indices.retain(|index| index.is_young(now));
        self.attempts.retain(|attempt| attempt.is_young(now));
    }

    /// What the relay's tables should hold of this end.
    pub(crate) fn wanted_links(&self) -> Links {
        let mut indices: Vec<u32> = self.indices.iter().map(|index| index.value).collect();
        indices.extend(self.attempts.iter().map(|attempt| attempt.index));
        indices.sort_unstable();
        indices.dedup();
        let mut addresses: Vec<SocketAddr> = self.address().into_iter().collect();
        addresses.extend(self.beside.iter().map(|beside| beside.at));
        addresses.extend(self.former.map(|(at, _)| at));
        addresses.sort_unstable();
        addresses.dedup();
        Links { indices, addresses }
    }

    fn expire_beside(&mut self, now: Boot) {
        while let Some(old) = self.beside.iter().position(|beside| beside.until <= now) {
            let beside = self.beside.remove(old);
            self.refuse(beside.at, now);
        }
    }

    fn refuse(&mut self, at: SocketAddr, now: Boot) {
        if self.refused.len() >= MOST_REFUSED {
            self.refused.pop_front();
        }
        self.refused.push_back((at, now + REFUSED));
    }
}

impl Index {
    fn is_young(&self, now: Boot) -> bool {
        now < self.born + INDEX_LIFE
    }
}

impl Attempt {
    fn is_young(&self, now: Boot) -> bool {
        now < self.born + ATTEMPT_LIFE
    }
}
