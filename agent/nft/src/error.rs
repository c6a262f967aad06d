//! What can go wrong.

use std::io;

use thinlane_model::{SessionId, Span};

use crate::attr::AttrError;
use crate::message::About;

/// Why an operation on the kernel's tables failed; nothing of it is in force unless the variant says so.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error("netlink socket")]
    Socket(#[source] io::Error),
    #[error("the kernel did not answer within {0}")]
    Silent(Span),
    #[error("the kernel refused {}{}: {source}", About::list(.about.as_ref()), Words(.words.as_deref()))]
    Refused { about: Option<About>, words: Option<String>, source: io::Error },
    #[error("an answer of the kernel cannot be read")]
    Answer(#[from] AttrError),
    #[error("the tables kept changing while they were read")]
    Unsteady,
    #[error("the kernel's answer is longer than is taken ({0} items)")]
    Long(usize),
    #[error("{0:?} is not the name of an interface: 1 to 15 bytes, no space, no slash, no quote, no asterisk")]
    Interface(String),
    #[error("{0} is not on a lane interface: tl0 or tl-...")]
    NotALaneInterface(String),
    #[error("at most {0} lanes are taken")]
    TooManyLanes(usize),
    #[error("a lane of {0} is not taken: from {least} to {most}", least = crate::SHORTEST, most = crate::LONGEST)]
    Remaining(Span),
    #[error("the base is not installed by this process")]
    NoBase,
    #[error("session {0} has no lane")]
    NoLane(SessionId),
    /// The lane stands in the kernel, but not as asked: close it.
    #[error("lane of session {session} is not as asked: {difference}")]
    ReadBack { session: SessionId, difference: Difference },
    /// The number of entries left.
    #[error("{0} connections are left")]
    FlowsLeft(u32),
}

/// How a lane in the kernel differs from what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    #[error("map {0} does not lead to it")]
    NotLedTo(&'static str),
    #[error("its element of map {0} never expires")]
    NoTimeout(&'static str),
    #[error("its element of map {map} expires in {found} where {asked} was asked")]
    Expires { map: &'static str, asked: Span, found: Span },
    #[error("its rules {0}wards are not those that were sent")]
    Rules(&'static str),
}

impl NftError {
    /// The kernel's error number, if it answered with one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NftError::Refused { source, .. } | NftError::Socket(source) => source.raw_os_error(),
            _ => None,
        }
    }
}

impl About {
    fn list(about: Option<&About>) -> String {
        about.map_or_else(|| "the request".to_owned(), About::to_string)
    }
}

struct Words<'a>(Option<&'a str>);

impl std::fmt::Display for Words<'_> {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(words) => write!(to, " ({words})"),
            None => Ok(()),
        }
    }
}
