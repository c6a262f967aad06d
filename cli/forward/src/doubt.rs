//! When a way to the peer is doubted: something was sent that asks for an answer, and nothing came back for too long.
//!
//! Pure: the time comes in, on any clock that counts milliseconds. Keepalives ask for no answer; data does (the other
//! end acknowledges it within 10 s), and so does the beginning of a handshake.

use thinlane_model::{Boot, Span};

/// Silence of this length makes the way there doubtful: two handshakes were not answered ...
const DOUBT: Span = Span::from_secs(11);
/// ... and of this length one that has never led there, where there is another.
const FIRST_DOUBT: Span = Span::from_secs(3);
/// The time of a few attempts, for one on which the peer is heard again and may hear again, too.
const RECOVERY: Span = Span::from_secs(3);

/// What is known of one way to the peer.
#[derive(Debug, Default)]
pub struct Doubt {
    /// The first thing that asked for an answer since the peer was heard.
    unanswered: Option<Boot>,
    /// There is more than one way, and the peer has not answered on any.
    choice: bool,
    /// When the way there was last doubted.
    doubted: Option<Boot>,
    /// When the peer was heard again here, though not that it hears; since the way was last doubted.
    stirred: Option<Boot>,
}

impl Doubt {
    /// There is more than one way to the peer: the first is doubted sooner.
    pub fn has_choice(&mut self) {
        self.choice = true;
    }

    /// Something was sent that asks for an answer.
    pub fn asked(&mut self, now: Boot) {
        self.unanswered.get_or_insert(now);
    }

    /// An authentic message came in.
    pub fn heard(&mut self) {
        *self = Self::default();
    }

    /// The peer is heard after a silence, and nothing shows yet that it hears. That is to be asked at once, and for so long
    /// the way is not left; but only once before it is, for a way may lead in one direction alone. `true`: this was the
    /// first time.
    pub fn stirs(&mut self, now: Boot) -> bool {
        let first = self.unanswered.is_some() && self.stirred.is_none();
        if first {
            self.stirred = Some(now);
        }
        first
    }

    /// Since when an answer is missing.
    pub fn unanswered(&self) -> Option<Boot> {
        self.unanswered
    }

    /// Whether another way should be tried; true once in a while, until the peer is heard.
    pub fn is_due(&mut self, now: Boot) -> bool {
        let due = self.due().is_some_and(|at| at <= now);
        if due {
            self.doubted = Some(now);
            self.stirred = None;
        }
        due
    }

    /// When the way is doubted next if nothing is heard until then.
    pub fn due(&self) -> Option<Boot> {
        let since = self.unanswered?;
        let patience = if self.choice { FIRST_DOUBT } else { DOUBT };
        let due = self.doubted.map_or(since, |doubted| doubted.max(since)) + patience;
        Some(self.stirred.map_or(due, |stirred| due.max(stirred + RECOVERY)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Boot {
        Boot(1_000_000 + secs * 1000)
    }

    #[test]
    fn a_peer_that_stirs_has_the_time_of_a_few_attempts_once_for_each_time_that_the_way_is_doubted() {
        let mut doubt = Doubt::default();
        assert!(!doubt.stirs(at(0)), "nothing is missing");
        doubt.asked(at(0));
        assert!(doubt.stirs(at(4)));
        assert_eq!(doubt.due(), Some(at(11)), "there was time enough");
        assert!(!doubt.stirs(at(10)) && doubt.is_due(at(11)));
        assert!(doubt.stirs(at(21)));
        assert!(!doubt.is_due(at(22)) && !doubt.stirs(at(23)) && doubt.is_due(at(24)));
        assert!(!doubt.is_due(at(34)) && doubt.is_due(at(35)), "the next way has its own time");
        assert!(doubt.stirs(at(36)));
        doubt.heard();
        assert_eq!(doubt.due(), None);
    }
}
