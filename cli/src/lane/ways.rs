//! The ways to a gateway, and when a lane that has an interface changes from one to the other.
//!
//! Pure: what crossed and the time come in. When a way is doubted is decided where lanes without an interface have it
//! decided ([`Doubt`]).

use std::net::SocketAddr;

use thinlane_forward::Doubt;
use thinlane_model::{Boot, Endpoint, Path, Span};

/// An empty WireGuard message, in bytes: it keeps the path open and asks for no answer. What is sent between two looks
/// is more if it holds data or the beginning of a handshake.
const KEEPALIVE: u64 = 32;
/// After a longer pause between two looks (this machine slept) nothing is missing yet: there was no time to answer.
const SLEPT: Span = Span::from_secs(5);

/// One way to a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    pub path: Path,
    /// As the controller gave it.
    pub endpoint: Endpoint,
    pub address: SocketAddr,
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

/// What is to be done, or said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Send there from now on; `left`: the way that stopped answering, if that has not been said of this silence yet.
    Try { way: Way, left: Option<Way> },
    /// The gateway answers again, another way than was said last.
    Back(Way),
}

/// The ways there are, one or two, and the one in use.
#[derive(Debug)]
pub struct Ways {
    all: Vec<Way>,
    at: usize,
    /// The one that people were told of.
    told: usize,
    /// It was said of this silence.
    said: bool,
    doubt: Doubt,
    looked: Option<Boot>,
    received: u64,
    sent: u64,
}

impl Ways {
    /// With the first in use; there is at least one.
    pub fn new(first: Way, second: Option<Way>) -> Self {
        let all = std::iter::once(first).chain(second).collect();
        let doubt = Doubt::default();
        Self { all, at: 0, told: 0, said: false, doubt, looked: None, received: 0, sent: 0 }
    }

    /// Gives the first way up before it ever led anywhere; `None`: there is no other.
    pub fn give_up(&mut self) -> Option<SocketAddr> {
        let other = self.all.get(self.at + 1)?;
        self.at += 1;
        self.told = self.at;
        Some(other.address)
    }

    /// Looks at what has crossed; about once a second.
    pub fn look(&mut self, now: Boot, seen: Outside) -> Option<Turn> {
        let slept = self.looked.replace(now).is_some_and(|looked| looked.until(now) > SLEPT);
        // A gateway that is heard while no handshake succeeds does not hear us: the way leads in one direction only.
        let heard = seen.received > self.received && seen.in_vain == Span::ZERO;
        let asked = seen.sent.saturating_sub(self.sent) > KEEPALIVE;
        (self.received, self.sent) = (seen.received, seen.sent);
        if heard {
            self.doubt.heard();
            self.said = false;
            if let Some(at) = self.all.iter().position(|way| Some(way.address) == seen.from) {
                self.at = at;
            }
            let news = self.at != self.told;
            self.told = self.at;
            return self.all.get(self.at).filter(|_| news).cloned().map(Turn::Back);
        }
        if slept {
            self.doubt.heard();
        }
        if asked {
            self.doubt.asked(now);
        }
        if self.all.len() < 2 || !self.doubt.is_due(now) {
            return None;
        }
        let left = self.all.get(self.at).cloned();
        self.at = (self.at + 1) % self.all.len();
        let left = left.filter(|_| !std::mem::replace(&mut self.said, true));
        if left.is_some() {
            self.told = self.at;
        }
        self.all.get(self.at).cloned().map(|way| Turn::Try { way, left })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(path: Path, port: u16) -> Way {
        let address = SocketAddr::from(([192, 0, 2, 1], port));
        Way { path, endpoint: address.to_string().parse().expect("an endpoint"), address }
    }

    fn both() -> (Ways, Way, Way) {
        let (direct, relay) = (way(Path::Direct, 1), way(Path::Relay, 2));
        (Ways::new(direct.clone(), Some(relay.clone())), direct, relay)
    }

    fn at(secs: u64) -> Boot {
        Boot(1_000_000 + secs * 1000)
    }

    fn crossed(received: u64, sent: u64) -> Outside {
        Outside { received, sent, ..Outside::default() }
    }

    #[test]
    fn a_way_that_stops_answering_is_left_after_eleven_seconds_and_that_is_said_once() {
        let (mut ways, direct, relay) = both();
        assert_eq!(ways.look(at(0), crossed(500, 500)), None);
        let mut turns = Vec::new();
        for sec in 1..40 {
            turns.extend(ways.look(at(sec), crossed(500, 500 + sec * 100)).map(|turn| (sec, turn)));
        }
        let again = |way: &Way| Turn::Try { way: way.clone(), left: None };
        let first = Turn::Try { way: relay.clone(), left: Some(direct.clone()) };
        assert_eq!(turns, [(12, first), (23, again(&direct)), (34, again(&relay))]);
        // It answers where it was said that it would be looked for.
        assert_eq!(ways.look(at(40), crossed(600, 9000)), None);
    }

    #[test]
    fn whoever_answers_at_the_old_way_after_all_is_told_of() {
        let (mut ways, direct, _) = both();
        assert_eq!(ways.look(at(0), crossed(500, 500)), None);
        let turns = (1..30).filter_map(|sec| ways.look(at(sec), crossed(500, 500 + sec * 100))).count();
        assert_eq!(turns, 2, "to the relay and back");
        assert_eq!(ways.look(at(30), crossed(600, 9000)), Some(Turn::Back(direct)));
        assert_eq!(ways.look(at(31), crossed(700, 9100)), None);
    }

    #[test]
    fn a_gateway_that_is_heard_and_does_not_hear_is_looked_for_elsewhere() {
        let (mut ways, direct, relay) = both();
        assert_eq!(ways.look(at(0), crossed(500, 500)), None);
        let in_vain = |sec: u64| Span::from_secs(sec.saturating_sub(5));
        let turns = (1..20).filter_map(|sec| {
            let (received, sent) = (500 + sec * 100, 500 + sec * 100);
            let seen = Outside { in_vain: in_vain(sec), ..crossed(received, sent) };
            ways.look(at(sec), seen).map(|turn| (sec, turn))
        });
        let turns: Vec<_> = turns.collect();
        assert_eq!(turns, [(17, Turn::Try { way: relay, left: Some(direct) })]);
    }

    #[test]
    fn a_gateway_that_comes_by_another_way_is_said_to_be_there() {
        let (mut ways, direct, relay) = both();
        let heard = |received, way: &Way| Outside { from: Some(way.address), ..crossed(received, 500) };
        assert_eq!(ways.look(at(0), heard(500, &direct)), None);
        assert_eq!(ways.look(at(1), heard(600, &relay)), Some(Turn::Back(relay.clone())));
        assert_eq!(ways.look(at(2), heard(700, &relay)), None);
        let turns: Vec<Turn> = (3..20).filter_map(|sec| ways.look(at(sec), crossed(700, 500 + sec * 100))).collect();
        assert_eq!(turns, [Turn::Try { way: direct, left: Some(relay) }]);
    }

    #[test]
    fn an_idle_lane_and_one_that_is_answered_stay_where_they_are() {
        let (mut ways, ..) = both();
        assert_eq!(ways.look(at(0), crossed(500, 500)), None);
        // Keepalives that cross each other's silence.
        for sec in 1..600 {
            assert_eq!(ways.look(at(sec), crossed(500, 500 + sec / 25 * KEEPALIVE)), None, "{sec}");
        }
        for sec in 600..700 {
            assert_eq!(ways.look(at(sec), crossed(500 + sec / 10, 9000 + sec * 100)), None, "{sec}");
        }
    }

    #[test]
    fn a_machine_that_slept_gives_the_gateway_time_to_answer() {
        let (mut ways, ..) = both();
        assert_eq!(ways.look(at(0), crossed(500, 500)), None);
        assert_eq!(ways.look(at(1), crossed(500, 700)), None);
        assert_eq!(ways.look(at(3600), crossed(500, 900)), None);
        assert_eq!(ways.look(at(3601), crossed(500, 1100)), None);
    }

    #[test]
    fn where_there_is_one_way_only_it_is_kept() {
        let mut ways = Ways::new(way(Path::Relay, 2), None);
        assert!((0..100).all(|sec| ways.look(at(sec), crossed(500, 500 + sec * 100)).is_none()));
        assert_eq!(ways.give_up(), None);
    }
}
