//! What the relay says of a datagram, and what it counts.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use thinlane_model::{Boot, SessionId};

/// One of the two ends of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    Engineer,
    Gateway,
}

/// What to do with one datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// A probe with a good ticket: send this, as long as the probe was, to where that came from.
    Answer(Vec<u8>),
    /// Send it, unchanged, to these.
    Forward { session: SessionId, to: Targets },
    /// Forget it; nobody is ever told.
    Drop(DropReason),
}

/// Addresses that one datagram is sent to, at most.
pub(crate) const MOST_TARGETS: usize = 4;

/// One address, or a few while it is not sure at which of them an end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Targets {
    first: SocketAddr,
    /// Without gaps.
    others: [Option<SocketAddr>; MOST_TARGETS - 1],
}

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// No WireGuard message.
    Malformed,
    /// An initiation for no key of an open session.
    UnknownKey,
    /// An index that no open session uses.
    UnknownIndex,
    /// Its index, from this source, could mean more than one session.
    Ambiguous,
    /// An initiation beyond the work that sources like this one may cause.
    Overload,
    /// More initiations, or more data from elsewhere, than one session may have.
    Limited,
    /// An initiation seen before, or a second answer to one.
    Duplicate,
    /// A response to no initiation that waits for one.
    NoHandshake,
    /// A response that was not made for the end that it claims to answer.
    BadMac,
    /// From an unknown source, and not ahead of what the end itself has sent.
    Stale,
    /// From a source that may not send it: a cookie from elsewhere, an end's own index from itself.
    Foreign,
    /// An index that could not be told from another session's; the end tries again with another.
    Collision,
    /// For an end that has not been heard of yet.
    NoAddress,
    /// For a session whose time is over.
    Expired,
    /// A probe without a good ticket, or beyond what one source may ask.
    Probe,
}

/// What one session moved. Bytes are UDP payload, handshakes included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RelayStats {
    /// Where the engineer is; unconfirmed until its first handshake.
    pub engineer: Option<SocketAddr>,
    /// Where the gateway is; unconfirmed until its first handshake.
    pub gateway: Option<SocketAddr>,
    /// Engineer to gateway.
    pub up_packets: u64,
    pub up_bytes: u64,
    /// Gateway to engineer.
    pub down_packets: u64,
    pub down_bytes: u64,
    /// When a handshake was last completed.
    pub last_handshake: Option<Boot>,
}

/// What the relay did since it began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RelayTotals {
    /// Datagrams taken in and forwarded (once, even if to two addresses).
    pub forwarded: u64,
    /// Probes answered.
    pub answered: u64,
    /// Datagrams dropped, by reason.
    pub dropped: BTreeMap<DropReason, u64>,
}

impl Side {
    /// The end that talks to this one.
    pub fn other(self) -> Side {
        match self {
            Side::Engineer => Side::Gateway,
            Side::Gateway => Side::Engineer,
        }
    }
}

impl Targets {
    pub(crate) fn one(first: SocketAddr) -> Self {
        Self { first, others: [None; MOST_TARGETS - 1] }
    }

    /// One address more, if it is new and there is room.
    pub(crate) fn and(mut self, address: SocketAddr) -> Self {
        let new = self.iter().all(|other| other != address);
        if let Some(free) = self.others.iter_mut().find(|other| other.is_none()).filter(|_| new) {
            *free = Some(address);
        }
        self
    }

    /// The addresses, at least one.
    pub fn iter(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        std::iter::once(self.first).chain(self.others.into_iter().flatten())
    }
}

impl DropReason {
    /// A stable name for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            DropReason::Malformed => "malformed",
            DropReason::UnknownKey => "unknown-key",
            DropReason::UnknownIndex => "unknown-index",
            DropReason::Ambiguous => "ambiguous",
            DropReason::Overload => "overload",
            DropReason::Limited => "limited",
            DropReason::Duplicate => "duplicate",
            DropReason::NoHandshake => "no-handshake",
            DropReason::BadMac => "bad-mac",
            DropReason::Stale => "stale",
            DropReason::Foreign => "foreign",
            DropReason::Collision => "collision",
            DropReason::NoAddress => "no-address",
            DropReason::Expired => "expired",
            DropReason::Probe => "probe",
        }
    }
}
