//! The ways to a gateway, when a lane that has an interface changes from one to the other, and what is said of it.
//!
//! Pure: what crossed and the time come in. When a way is doubted, and when that is worth saying, is decided where lanes
//! without an interface have it decided ([`Doubt`], [`Told`]).

use std::net::SocketAddr;

use thinlane_forward::{Doubt, News, Told};
use thinlane_model::{Boot, Endpoint, Path, Span};

/// An empty WireGuard message, in bytes: it keeps the path open and asks for no answer. What is sent between two looks
/// is more if it holds data or the beginning of a handshake.
const KEEPALIVE: u64 = 32;
/// After a longer pause between two looks (this machine slept) nothing is missing yet: there was no time to answer.
const SLEPT: Span = Span::from_secs(5);
/// A gateway that says something after not having been heard for so long may have come back.
const SILENCE: Span = Span::from_secs(2);

/// One way to a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    pub path: Path,
    /// As the controller gave it.
    pub endpoint: Endpoint,
}

/// A way, and the address that it leads to from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub way: Way,
    pub address: SocketAddr,
}

/// What is said of a lane's way: where it leads now, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    pub to: Way,
    pub why: Why,
}

/// Why a lane goes another way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The gateway stopped answering at this one; it is looked for at the other.
    Left(Way),
    /// The gateway answers where it was said to be looked for.
    Reached,
    /// The gateway, of which it was said that it stopped answering there, answers again.
    Again,
    /// The gateway was not missed: it came to the other way by itself, from this one.
    Found(Way),
}

impl Moved {
    /// Whether the gateway was heard there; otherwise it is only looked for.
    pub fn answers(&self) -> bool {
        !matches!(self.why, Why::Left(_))
    }

    /// What news means, where these are the ways.
    pub fn of(news: News, ways: &[Way]) -> Option<Moved> {
        let way = |at: usize| ways.get(at).cloned();
        Some(match news {
            News::Left { from, to } => Moved { to: way(to)?, why: Why::Left(way(from)?) },
            News::Reached(at) => Moved { to: way(at)?, why: Why::Reached },
            News::Again(at) => Moved { to: way(at)?, why: Why::Again },
            News::Found { from, at } => Moved { to: way(at)?, why: Why::Found(way(from)?) },
        })
    }
}

/// What is seen of a lane's outside.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outside {
    /// Bytes of WireGuard messages since the lane began.
    pub received: u64,
    pub sent: u64,
    /// Where the gateway is heard.
    pub from: Option<SocketAddr>,
    /// For how long handshake messages have come to nothing.
    pub in_vain: Span,
}

/// What is to be done, and said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turn {
    /// Send there from now on.
    pub go: Option<SocketAddr>,
    pub said: Option<Moved>,
}

/// The ways there are, one or two, and the one in use.
#[derive(Debug)]
pub struct Ways {
    all: Vec<Way>,
    addresses: Vec<SocketAddr>,
    /// There is another, of which no address is known here.
    alone: bool,
    at: usize,
    told: Told,
    doubt: Doubt,
    looked: Option<Boot>,
    /// When more had been received than at the look before.
    heard: Option<Boot>,
    received: u64,
    sent: u64,
}

impl Ways {
    /// With the first in use; there is at least one.
    pub fn new(first: Place, second: Option<Place>) -> Self {
        let (all, addresses) = std::iter::once(first).chain(second).map(|place| (place.way, place.address)).unzip();
        let (told, doubt) = (Told::new(0), Doubt::default());
        Self { all, addresses, alone: false, at: 0, told, doubt, looked: None, heard: None, received: 0, sent: 0 }
    }

    /// The one of two of which an address is known here.
    pub fn one_of_two(place: Place) -> Self {
        Self { alone: true, ..Self::new(place, None) }
    }

    /// The way in use; `None`: there is no other that it would have to be told from.
    pub fn chosen(&self) -> Option<&Way> {
        self.all.get(self.at).filter(|_| self.alone || self.all.len() > 1)
    }

    /// Gives the first way up before it ever led anywhere; `None`: there is no other.
    pub fn give_up(&mut self) -> Option<SocketAddr> {
        let other = self.addresses.get(self.at + 1)?;
        self.at += 1;
        self.told = Told::new(self.at);
        Some(*other)
    }

    /// Looks at what has crossed; about once a second.
    pub fn look(&mut self, now: Boot, seen: Outside) -> Turn {
        let slept = self.looked.replace(now).is_some_and(|looked| looked.until(now) > SLEPT);
        let heard = seen.received > self.received;
        let asked = seen.sent.saturating_sub(self.sent) > KEEPALIVE;
        (self.received, self.sent) = (seen.received, seen.sent);
        let before = if heard { self.heard.replace(now) } else { self.heard };
        // A gateway that is heard while no handshake succeeds does not hear us: the way leads in one direction only.
        if heard && seen.in_vain == Span::ZERO {
            self.doubt.heard();
            if let Some(at) = self.addresses.iter().position(|address| Some(*address) == seen.from) {
                self.at = at;
            }
            let said = self.told.heard(self.at).and_then(|news| Moved::of(news, &self.all));
            return Turn { go: None, said };
        }
        if slept {
            self.doubt.heard();
        }
        if asked {
            self.doubt.asked(now);
        }
        if heard && before.is_none_or(|before| before.until(now) >= SILENCE) {
            // Or has it just come back? The device asks; until it can know, the way is kept.
            let _ = self.doubt.stirs(now);
        }
        if self.all.len() < 2 || !self.doubt.is_due(now) {
            return Turn::default();
        }
        let from = self.at;
        self.at = (self.at + 1) % self.all.len();
        let said = self.told.tries(from, self.at).and_then(|news| Moved::of(news, &self.all));
        Turn { go: self.addresses.get(self.at).copied(), said }
    }
}

#[cfg(test)]
mod tests;
