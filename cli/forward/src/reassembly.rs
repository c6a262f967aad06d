//! Puts fragments together again, within bounds that no sender can move.
//!
//! Pure. A datagram whose fragments overlap or contradict one another is forgotten as a whole (as RFC 5722 asks of
//! IPv6): nothing honest sends such.

use smoltcp::time::{Duration, Instant};

use crate::packet::{IPV4_HEADER, Ipv4, LONGEST};

/// Datagrams that are put together at once; the oldest gives way.
const MOST: usize = 8;
/// Fragments of one datagram: enough for the longest one in pieces of 576-byte packets.
const PIECES: usize = 128;
/// How long the rest of a datagram is awaited.
const PATIENCE: Duration = Duration::from_secs(15);

/// Datagrams of which a part is missing.
#[derive(Debug, Default)]
pub struct Reassembly {
    partial: Vec<Partial>,
}

#[derive(Debug)]
struct Partial {
    id: u16,
    protocol: u8,
    begun: Instant,
    data: Vec<u8>,
    /// What has arrived, as begin and end.
    pieces: Vec<(usize, usize)>,
    /// Known once the last fragment is here.
    total: Option<usize>,
}

impl Reassembly {
    /// Takes one fragment; its addresses have been checked. `Some`: it completed this payload.
    pub fn take(&mut self, fragment: &Ipv4<'_>, now: Instant) -> Option<Vec<u8>> {
        self.partial.retain(|partial| now < partial.begun + PATIENCE);
        let same = |partial: &Partial| partial.id == fragment.id && partial.protocol == fragment.protocol;
        let at = match self.partial.iter().position(same) {
            Some(at) => at,
            None => {
                if self.partial.len() == MOST {
                    // In the order of their begin.
                    self.partial.remove(0);
                }
                self.partial.push(Partial {
                    id: fragment.id,
                    protocol: fragment.protocol,
                    begun: now,
                    data: Vec::new(),
                    pieces: Vec::new(),
                    total: None,
                });
                self.partial.len() - 1
            }
        };
        match self.partial[at].add(fragment) {
            Added::Waits => None,
            Added::Whole => Some(self.partial.remove(at).data),
            Added::Contradicts => {
                self.partial.remove(at);
                None
            }
        }
    }
}

enum Added {
    Waits,
    Whole,
    Contradicts,
}

impl Partial {
    fn add(&mut self, fragment: &Ipv4<'_>) -> Added {
        let (begin, end) = (fragment.offset, fragment.offset + fragment.payload.len());
        if self.pieces.contains(&(begin, end)) && self.data.get(begin..end) == Some(fragment.payload) {
            // A copy made on the way.
            return Added::Waits;
        }
        let overlaps = self.pieces.iter().any(|(from, to)| begin < *to && *from < end);
        let past_end = self.total.is_some_and(|total| end > total);
        let two_ends = !fragment.more_fragments
            && (self.total.is_some_and(|total| total != end) || self.pieces.iter().any(|(_, to)| *to > end));
        if overlaps || past_end || two_ends || self.pieces.len() == PIECES || IPV4_HEADER + end > LONGEST {
            return Added::Contradicts;
        }
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data[begin..end].copy_from_slice(fragment.payload);
        self.pieces.push((begin, end));
        if !fragment.more_fragments {
            self.total = Some(end);
        }
        let have: usize = self.pieces.iter().map(|(from, to)| to - from).sum();
        if self.total == Some(have) { Added::Whole } else { Added::Waits }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::packet::{UDP, fragments, parse};

    const NOW: Instant = Instant::ZERO;

    fn whole(id: u16, payload: &[u8]) -> Ipv4<'_> {
        Ipv4 {
            source: Ipv4Addr::new(198, 18, 0, 1),
            destination: Ipv4Addr::new(198, 19, 0, 1),
            protocol: UDP,
            id,
            more_fragments: false,
            offset: 0,
            payload,
        }
    }

    proptest! {
        #[test]
        fn fragments_in_any_order_and_twice_make_the_payload_once(
            payload in prop::collection::vec(any::<u8>(), 1300..9000),
            mtu in 576usize..1300,
            seed in any::<u64>(),
        ) {
            let mut parts: Vec<Vec<u8>> = fragments(whole(9, &payload), mtu).collect();
            parts.extend(parts.clone());
            let mut state = seed;
            for at in (1..parts.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                parts.swap(at, (state >> 33) as usize % (at + 1));
            }
            let mut reassembly = Reassembly::default();
            let made: Vec<Vec<u8>> =
                parts.iter().filter_map(|part| reassembly.take(&parse(part).expect("a packet"), NOW)).collect();
            prop_assert!(!made.is_empty() && made.iter().all(|one| *one == payload));
        }
    }

    #[test]
    fn overlapping_fragments_make_nothing() {
        let mut reassembly = Reassembly::default();
        let first = Ipv4 { more_fragments: true, ..whole(1, &[1; 16]) };
        assert_eq!(reassembly.take(&first, NOW), None);
        assert_eq!(reassembly.take(&Ipv4 { offset: 8, ..whole(1, &[2; 16]) }, NOW), None);
        assert!(reassembly.partial.is_empty());
    }

    #[test]
    fn the_rest_is_not_awaited_for_ever_and_never_for_more_than_eight() {
        let mut reassembly = Reassembly::default();
        for id in 0..100 {
            reassembly.take(&Ipv4 { more_fragments: true, ..whole(id, &[1; 16]) }, NOW);
            assert!(reassembly.partial.len() <= MOST);
        }
        let late = NOW + PATIENCE;
        assert_eq!(reassembly.take(&Ipv4 { offset: 16, ..whole(99, &[2; 8]) }, late), None);
        assert_eq!(reassembly.partial.len(), 1, "what waited is forgotten");
    }
}
