//! What both directions use.

use thinlane_model::{Counters, Path, SessionId, Span};

use super::MessageError;
use crate::pb;

/// Longest free text in letters; what is longer is cut.
const LONGEST_TEXT: usize = 512;

/// The counters of one session, absolute since it opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionCounters {
    pub session: SessionId,
    pub counters: Counters,
    /// Since the last WireGuard handshake; `None`: there was none yet.
    pub handshake_age: Option<Span>,
    /// Where the engineer's datagrams come from, as the gateway sees it.
    pub endpoint: Option<String>,
    /// Which way they come; `None`: not known, or the gateway is of a version that does not say.
    pub path: Option<Path>,
    /// Counted by a kernel that merges segments.
    pub merged: bool,
}

impl SessionCounters {
    /// A session that carried nothing.
    pub fn none(session: SessionId) -> Self {
        let counters = Counters::default();
        Self { session, counters, handshake_age: None, endpoint: None, path: None, merged: false }
    }

    pub(crate) fn to_pb(&self) -> pb::SessionCounters {
        pb::SessionCounters {
            session: self.session.to_string(),
            up_packets: self.counters.up_packets,
            up_bytes: self.counters.up_bytes,
            down_packets: self.counters.down_packets,
            down_bytes: self.counters.down_bytes,
            denied_packets: self.counters.denied_packets,
            spoofed_packets: self.counters.spoofed_packets,
            handshake_age_ms: self.handshake_age.map_or(0, |age| age.as_millis().saturating_add(1)),
            endpoint: self.endpoint.clone().unwrap_or_default(),
            merged: self.merged,
            path: self.path.map(|path| path.as_str().to_owned()).unwrap_or_default(),
        }
    }

    pub(crate) fn from_pb(from: pb::SessionCounters) -> Result<Self, MessageError> {
        Ok(Self {
            session: session(&from.session)?,
            counters: Counters {
                up_packets: from.up_packets,
                up_bytes: from.up_bytes,
                down_packets: from.down_packets,
                down_bytes: from.down_bytes,
                denied_packets: from.denied_packets,
                spoofed_packets: from.spoofed_packets,
            },
            handshake_age: from.handshake_age_ms.checked_sub(1).map(Span::from_millis),
            endpoint: Some(text(&from.endpoint)).filter(|at| !at.is_empty()),
            // What a newer gateway may say besides is as good as nothing.
            path: [Path::Relay, Path::Direct].into_iter().find(|path| path.as_str() == from.path),
            merged: from.merged,
        })
    }
}

pub(super) fn session(text: &str) -> Result<SessionId, MessageError> {
    text.parse().map_err(|_| MessageError::Field("session"))
}

pub(super) fn bytes<const N: usize>(from: &[u8], name: &'static str) -> Result<[u8; N], MessageError> {
    from.try_into().map_err(|_| MessageError::Field(name))
}

pub(super) fn at_most<T>(most: usize, items: Vec<T>, name: &'static str) -> Result<Vec<T>, MessageError> {
    if items.len() > most { Err(MessageError::Field(name)) } else { Ok(items) }
}

/// Free text from the other side, fit for a log line and a terminal: bounded, no control characters.
pub(super) fn text(from: &str) -> String {
    from.chars().take(LONGEST_TEXT).map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}
