//! Which of a gateway's connections counts, and whether its key was copied.

use std::collections::VecDeque;

use thinlane_model::{Boot, BootId, Now, Span};
use thinlane_wire::{GoodbyeReason, Hello};

use crate::desired::Known;

/// How long an older connection has to answer, before it counts as dead.
const ANSWER_WAIT: Span = Span::from_secs(5);

/// Names one connection; whoever accepts connections gives each another number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// What is to be done with connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelEffect {
    /// `ControllerLink::handle_accept` on it, with this knowledge.
    Accept { conn: ConnId, known: Option<Known> },
    /// `ControllerLink::handle_probe` on it, and the nonce to [`SiteChannels::handle_probing`].
    Probe { conn: ConnId },
    /// `ControllerLink::handle_goodbye` on it.
    Close { conn: ConnId, reason: GoodbyeReason, detail: &'static str },
    /// Two machines use one key: raise the alarm and freeze the site until ops thaw it.
    Clone,
}

/// The connections of one gateway's identity: one counts.
///
/// ```text
///              hello                      hello of the same boot, higher number: replaces it
///   Nobody ───────────> One ────────────────────────────────────────────────────────────> One
///     ^ closed           │ any other hello             the first closed or silent for 5 s: the second ^
///     └──────────────────┤                             only the first answers: the first            │
///                        └──> Two: both are asked ───────────────────────────────────────────────────┘
///                                   │ both answer
///                                   v
///                                Frozen: both are closed, alarm; until thawed by ops
/// ```
///
/// Both must answer, because a hello can be late: one that was held up on its way comes after the connection that
/// its own gateway made next, and nobody is behind it any more.
#[derive(Debug, Default)]
pub struct SiteChannels {
    current: Option<Member>,
    candidate: Option<Candidate>,
    known: Option<Known>,
    frozen: bool,
    effects: VecDeque<ChannelEffect>,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    conn: ConnId,
    boot: BootId,
    number: u64,
}

#[derive(Debug)]
struct Candidate {
    member: Member,
    until: Boot,
    /// The pings that are to tell whether this one, and the one that counts, live.
    asked: Asked,
    current_asked: Asked,
}

#[derive(Debug, Default, Clone, Copy)]
struct Asked {
    nonce: Option<u64>,
    answered: bool,
}

impl SiteChannels {
    /// A gateway without a connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// A gateway that was frozen when the controller stopped.
    pub fn frozen() -> Self {
        Self { frozen: true, ..Self::default() }
    }

    /// The connection that counts.
    pub fn current(&self) -> Option<ConnId> {
        self.current.map(|member| member.conn)
    }

    /// Whether a copied key was found and nobody has thawed the site since.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// A connection with this gateway's certificate has said hello.
    pub fn handle_hello(&mut self, conn: ConnId, hello: &Hello, now: Now) {
        let member = Member { conn, boot: hello.boot, number: hello.connection };
        if self.frozen {
            return self.close(conn, GoodbyeReason::Frozen, "this gateway's key was used by two machines");
        }
        let Some(current) = self.current else { return self.accept(member) };
        if member.replaces(&current) {
            self.close(current.conn, GoodbyeReason::Replaced, "a newer connection of this gateway");
            if let Some(candidate) = self.candidate.take() {
                self.close(candidate.member.conn, GoodbyeReason::Replaced, "another connection took over");
            }
            return self.accept(member);
        }
        match &mut self.candidate {
            None => {
                let (asked, current_asked) = (Asked::default(), Asked::default());
                let until = now.mono + ANSWER_WAIT;
                self.candidate = Some(Candidate { member, until, asked, current_asked });
                self.effects.push_back(ChannelEffect::Probe { conn: current.conn });
                self.effects.push_back(ChannelEffect::Probe { conn });
            }
            // The one that waits was cut off and dialled again; the question stays the same.
            Some(candidate) if member.replaces(&candidate.member) => {
                let before = std::mem::replace(&mut candidate.member, member);
                candidate.asked = Asked::default();
                self.effects.push_back(ChannelEffect::Probe { conn });
                self.close(before.conn, GoodbyeReason::Replaced, "a newer connection of this gateway");
            }
            Some(_) => self.close(conn, GoodbyeReason::Replaced, "another connection is being looked at"),
        }
    }

    /// The ping that a [`ChannelEffect::Probe`] asked for carries this nonce.
    pub fn handle_probing(&mut self, conn: ConnId, nonce: u64) {
        if let Some(asked) = self.asked(conn) {
            *asked = Asked { nonce: Some(nonce), answered: false };
        }
    }

    /// A connection answered a ping (`LinkEvent::Probed`).
    pub fn handle_answered(&mut self, conn: ConnId, nonce: u64, _now: Now) {
        let Some(asked) = self.asked(conn).filter(|asked| asked.nonce == Some(nonce)) else { return };
        asked.answered = true;
        let both = |candidate: &Candidate| candidate.asked.answered && candidate.current_asked.answered;
        let (Some(candidate), Some(current)) = (self.candidate.take_if(|candidate| both(candidate)), self.current)
        else {
            return;
        };
        self.current = None;
        self.frozen = true;
        for member in [current, candidate.member] {
            self.close(member.conn, GoodbyeReason::Frozen, "this gateway's key is used by two machines");
        }
        self.effects.push_back(ChannelEffect::Clone);
    }

    /// The gateway has taken a state over (`LinkEvent::Applied`): remembered for its next connection.
    pub fn handle_applied(&mut self, conn: ConnId, known: Known) {
        if self.current() == Some(conn) {
            self.known = Some(known);
        }
    }

    /// A connection is gone, for whatever reason.
    pub fn handle_closed(&mut self, conn: ConnId, _now: Now) {
        if self.candidate.as_ref().is_some_and(|candidate| candidate.member.conn == conn) {
            self.candidate = None;
        }
        if self.current() == Some(conn) {
            self.current = None;
            if let Some(candidate) = self.candidate.take() {
                self.accept(candidate.member);
            }
        }
    }

    /// Ops have looked into it: the next connection counts again.
    pub fn handle_thaw(&mut self, _now: Now) {
        self.frozen = false;
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Boot> {
        self.candidate.as_ref().map(|candidate| candidate.until)
    }

    /// The time has come, or may have.
    pub fn handle_timeout(&mut self, now: Now) {
        let due = |candidate: &mut Candidate| now.mono >= candidate.until;
        let (Some(candidate), Some(current)) = (self.candidate.take_if(due), self.current) else { return };
        if candidate.current_asked.answered {
            self.close(candidate.member.conn, GoodbyeReason::Replaced, "nobody is behind it any more");
        } else {
            self.close(current.conn, GoodbyeReason::Replaced, "it did not answer when another connection came");
            self.accept(candidate.member);
        }
    }

    /// The next thing to do, in order.
    pub fn poll_effect(&mut self) -> Option<ChannelEffect> {
        self.effects.pop_front()
    }

    /// The question that this connection has to answer, if there is one.
    fn asked(&mut self, conn: ConnId) -> Option<&mut Asked> {
        let current = self.current();
        let candidate = self.candidate.as_mut()?;
        if candidate.member.conn == conn {
            Some(&mut candidate.asked)
        } else {
            (current == Some(conn)).then_some(&mut candidate.current_asked)
        }
    }

    fn accept(&mut self, member: Member) {
        self.current = Some(member);
        self.effects.push_back(ChannelEffect::Accept { conn: member.conn, known: self.known.clone() });
    }

    fn close(&mut self, conn: ConnId, reason: GoodbyeReason, detail: &'static str) {
        self.effects.push_back(ChannelEffect::Close { conn, reason, detail });
    }
}

impl Member {
    fn replaces(&self, other: &Member) -> bool {
        self.boot == other.boot && self.number > other.number
    }
}

#[cfg(test)]
mod tests;
