//! Who changed the tables: nf_tables notifications (multicast group `NFNLGRP_NFTABLES`).

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use crate::error::NftError;
use crate::link::{Datagram, Link};
use crate::message::{Content, Messages, SUBSYS_TABLES};
use crate::object::{FAMILY, TABLE, kind};

/// `NFNLGRP_NFTABLES` is group 7.
const GROUP: u32 = 1 << 6;

/// What changed, by somebody whose socket is not among the ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// Our table was deleted: nothing of ours is in force.
    ThinlaneTableGone,
    /// Something in our table was added, changed or deleted.
    ThinlaneChanged,
    /// A flowtable of some table was added, changed or deleted.
    FlowtablesChanged,
    /// Something in another table.
    OtherRulesetChange,
    /// Notifications were lost: anything may have changed.
    Overrun,
}

/// A socket that hears of every change to any table of its network namespace.
#[derive(Debug)]
pub struct Watch {
    link: Link,
    ignored: BTreeSet<u32>,
    events: VecDeque<Event>,
}

impl Watch {
    /// Begins to listen; changes made by the sockets with these netlink ports (see [`Nft::port`](crate::Nft::port)) are ours
    /// and not reported.
    pub fn open(ignored: impl IntoIterator<Item = u32>) -> Result<Self, NftError> {
        Ok(Self { link: Link::open(GROUP)?, ignored: ignored.into_iter().collect(), events: VecDeque::new() })
    }

    /// The next event, or `None` when `timeout` has passed without one. Zero only looks.
    ///
    /// One change gives each kind of event at most once, the gravest first.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Event>, NftError> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.link.receive(left)? {
                Datagram::Nothing => return Ok(None),
                Datagram::Overrun => return Ok(Some(Event::Overrun)),
                Datagram::Bytes(len) => {
                    let found = events(self.link.datagram(len), &self.ignored);
                    self.events.extend(found);
                }
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.fd()
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.link.fd().as_raw_fd()
    }
}

/// The events of one datagram; what cannot be read counts as lost.
pub fn events(datagram: &[u8], ignored: &BTreeSet<u32>) -> BTreeSet<Event> {
    let mut events = BTreeSet::new();
    for received in Messages::new(datagram) {
        let Ok(received) = received else {
            events.insert(Event::Overrun);
            break;
        };
        if ignored.contains(&received.port) {
            continue;
        }
        match received.content() {
            Ok(Content::Netfilter { subsys: SUBSYS_TABLES, kind, family, attrs }) => {
                // The name of the table comes first in every message but that of the generation.
                let ours = family == FAMILY && attrs.text(1).ok().flatten() == Some(TABLE);
                match kind {
                    kind::NEW_GENERATION => {}
                    kind::DELETE_TABLE if ours => _ = events.insert(Event::ThinlaneTableGone),
                    kind::NEW_FLOWTABLE | kind::DELETE_FLOWTABLE => _ = events.insert(Event::FlowtablesChanged),
                    _ if ours => _ = events.insert(Event::ThinlaneChanged),
                    _ => _ = events.insert(Event::OtherRulesetChange),
                }
            }
            Ok(_) => {}
            Err(_) => _ = events.insert(Event::Overrun),
        }
    }
    events
}
