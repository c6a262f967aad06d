//! Fragments: later ones pass only after a first one that did.

use std::collections::{BTreeMap, VecDeque};

use thinlane_model::{Boot, Span};

use crate::packet::Ipv4;

/// Packets that may be under way in pieces at once.
const MOST: usize = 64;
/// How long the pieces of one packet may take; Linux gives up after as long (`ipfrag_time`).
const AGE: Span = Span::from_secs(30);

#[derive(Debug, Clone, Copy)]
struct Begun {
    /// Bytes that the first fragment holds: no later one may write over them (RFC 1858).
    first: usize,
    at: Boot,
}

/// The first fragments that passed one way; both addresses and the protocol are the lane's, so the id names them.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    begun: BTreeMap<u16, Begun>,
    /// The ids in the order in which they came, the oldest first.
    order: VecDeque<u16>,
}

impl Fragments {
    /// Whether a first fragment may pass. A second one under one id may not be of another length: it would uncover
    /// bytes that were already judged.
    pub(super) fn may_begin(&self, ip: &Ipv4<'_>, now: Boot) -> bool {
        self.begun.get(&ip.id).is_none_or(|begun| begun.at.until(now) >= AGE || begun.first == ip.payload.len())
    }

    /// Takes note of a first fragment that passes.
    pub(super) fn begin(&mut self, ip: &Ipv4<'_>, now: Boot) {
        if self.begun.insert(ip.id, Begun { first: ip.payload.len(), at: now }).is_some() {
            return;
        }
        self.order.push_back(ip.id);
        if self.order.len() > MOST {
            self.order.pop_front().map(|oldest| self.begun.remove(&oldest));
        }
    }

    /// Whether a later fragment continues a packet whose first fragment passed, behind that fragment's bytes.
    pub(super) fn passes_later(&self, ip: &Ipv4<'_>, now: Boot) -> bool {
        self.begun.get(&ip.id).is_some_and(|begun| begun.at.until(now) < AGE && ip.offset >= begun.first)
    }
}
