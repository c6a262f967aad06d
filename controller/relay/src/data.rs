//! Transport data: by source address and receiver index.

use std::net::SocketAddr;

use thinlane_model::Boot;

use crate::core::{Owner, Passed, Relay, Session};
use crate::verdict::DropReason;

impl Relay {
    pub(crate) fn data(&mut self, from: SocketAddr, index: u32, counter: u64, now: Boot) -> Result<Passed, DropReason> {
        let (owner @ (id, to), known) = self.owner_of_index(from, index, now)?;
        let session = self.sessions.get_mut(&id).ok_or(DropReason::UnknownIndex)?;
        let changed = if known {
            let changed = session.complete(owner, from, index, now);
            session.end_mut(to.other()).hear(from, now);
            if session.end(to.other()).address() == Some(from) {
                session.end_mut(to).count_up(index, counter);
            }
            changed
        } else {
            session.hear_from_elsewhere(owner, from, index, counter, now)?
        };
        let targets = session.end(to).targets(now);
        if changed {
            self.link(id);
        }
        targets.map(|to| Passed { owner, to }).ok_or(DropReason::NoAddress)
    }

    /// The end that answers to `index`, and whether the other end of its session is at `from`.
    fn owner_of_index(&self, from: SocketAddr, index: u32, now: Boot) -> Result<(Owner, bool), DropReason> {
        let owners = self.indices.get(&index).ok_or(DropReason::UnknownIndex)?;
        let (mut known, mut any) = (None, None);
        let (mut known_count, mut count) = (0, 0);
        let mut why = DropReason::UnknownIndex;
        for owner @ (id, to) in owners.iter().copied() {
            let Some(session) = self.sessions.get(&id) else { continue };
            if !session.is_live(now) {
                why = DropReason::Expired;
            } else if session.end(to).holds(index, now) {
                (any, count) = (Some(owner), count + 1);
                if session.end(to.other()).speaks_from(from, index, now) {
                    (known, known_count) = (Some(owner), known_count + 1);
                }
            }
        }
        match (known, any) {
            (Some(owner), _) if known_count == 1 => Ok((owner, true)),
            (None, Some(owner)) if count == 1 => Ok((owner, false)),
            (None, None) => Err(why),
            _ => Err(DropReason::Ambiguous),
        }
    }
}

impl Session {
    /// Takes the first data after a handshake as the proof that it is (see the crate's documentation): what
    /// was answered from `answer.from` was accepted by the end that the attempt was made by.
    fn complete(&mut self, (_, to): Owner, from: SocketAddr, index: u32, now: Boot) -> bool {
        let maker = self.end_mut(to.other());
        let Some(attempt) = maker.answered_by(index, now) else { return false };
        let Some(answer) = attempt.answer else { return false };
        maker.prove(attempt.index);
        if attempt.from == from {
            maker.confirm(from, now);
            maker.finish(attempt.index);
        }
        let responder = self.end_mut(to);
        responder.confirm(answer.from, now);
        responder.prove(index);
        self.shook_hands(now);
        true
    }

    /// Data from where the end was not known to be.
    fn hear_from_elsewhere(
        &mut self,
        (_, to): Owner,
        from: SocketAddr,
        index: u32,
        counter: u64,
        now: Boot,
    ) -> Result<bool, DropReason> {
        if self.end(to).is_at(from, now) {
            // An end that sends to its own index would have its own data sent back.
            return Err(DropReason::Foreign);
        }
        if !self.end(to).is_ahead(index, counter) {
            return Err(DropReason::Stale);
        }
        if !self.strange.take(1, now) {
            return Err(DropReason::Limited);
        }
        Ok(self.end_mut(to.other()).serve_beside(from, now))
    }
}
