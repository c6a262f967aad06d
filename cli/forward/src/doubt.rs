//! When a way to the peer is doubted: something was sent that asks for an answer, and nothing came back for too long.
//!
//! Pure: the time comes in, on any clock that counts milliseconds. Keepalives ask for no answer; data does (the other
//! end acknowledges it within 10 s), and so does the beginning of a handshake.

use thinlane_model::{Boot, Span};

/// Silence of this length makes the way there doubtful: two handshakes were not answered ...
const DOUBT: Span = Span::from_secs(11);
/// ... and of this length one that has never led there, where there is another.
const FIRST_DOUBT: Span = Span::from_secs(3);

/// What is known of one way to the peer.
#[derive(Debug, Default)]
pub struct Doubt {
    /// The first thing that asked for an answer since the peer was heard.
    unanswered: Option<Boot>,
    /// There is more than one way, and the peer has not answered on any.
    choice: bool,
    /// When the way there was last doubted.
    doubted: Option<Boot>,
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

    /// Since when an answer is missing.
    pub fn unanswered(&self) -> Option<Boot> {
        self.unanswered
    }

    /// Whether another way should be tried; true once in a while, until the peer is heard.
    pub fn is_due(&mut self, now: Boot) -> bool {
        let due = self.due().is_some_and(|at| at <= now);
        if due {
            self.doubted = Some(now);
        }
        due
    }

    /// When the way is doubted next if nothing is heard until then.
    pub fn due(&self) -> Option<Boot> {
        let since = self.unanswered?;
        let patience = if self.choice { FIRST_DOUBT } else { DOUBT };
        Some(self.doubted.map_or(since, |doubted| doubted.max(since)) + patience)
    }
}
