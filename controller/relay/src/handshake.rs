//! Initiations, responses and cookies: what names a session, and what an end has to show to be believed.

use std::net::SocketAddr;

use thinlane_model::{Boot, SessionId};

use crate::bucket::Bucket;
use crate::core::{Owner, Passed, Relay};
use crate::end::{Answer, Attempt};
use crate::packet::Stamp;
use crate::verdict::{DropReason, Side, Targets};

impl Relay {
    /// A message that names the key of the end that it is for.
    pub(crate) fn initiation(
        &mut self,
        from: SocketAddr,
        index: u32,
        stamp: Stamp<'_>,
        now: Boot,
    ) -> Result<Passed, DropReason> {
        let (id, to) = self.owner_of_key(from, stamp, now)?;
        let session = self.sessions.get_mut(&id).ok_or(DropReason::UnknownKey)?;
        let maker = session.end_mut(to.other());
        if maker.saw(stamp.mac1, from, now) {
            return Err(DropReason::Duplicate);
        }
        // Also when it goes no further: a copy sent later from elsewhere would otherwise count as the first.
        maker.remember(*stamp.mac1);
        let known = maker.is_at(from, now);
        let budget = if known { &mut session.known } else { &mut session.elsewhere };
        if !budget.take(1, now) {
            return Err(DropReason::Limited);
        }
        let maker = session.end_mut(to.other());
        maker.look_at(from);
        let targets = session.end(to).initiation_targets(now);
        if targets.is_some() {
            let peer = session.end(to).address();
            if self.collides(id, index, &[peer], now) {
                return Err(DropReason::Collision);
            }
            if let Some(session) = self.sessions.get_mut(&id) {
                let attempt = Attempt { index, mac1: *stamp.mac1, from, born: now, answer: None };
                session.end_mut(to.other()).begin(attempt);
            }
        }
        self.link(id);
        targets.map(|targets| Passed { owner: (id, to), to: targets }).ok_or(DropReason::NoAddress)
    }

    /// A message that names the attempt that it answers and the key of the end that made it.
    pub(crate) fn response(
        &mut self,
        from: SocketAddr,
        sender: u32,
        receiver: u32,
        stamp: Stamp<'_>,
        now: Boot,
    ) -> Result<Passed, DropReason> {
        let (id, to) = self.answered(receiver, stamp, now)?;
        let session = self.sessions.get(&id).ok_or(DropReason::NoHandshake)?;
        let end = session.end(to);
        let attempt = end.attempt(receiver, now).ok_or(DropReason::NoHandshake)?;
        let confirmed = end.confirmed();
        if self.collides(id, sender, &[Some(attempt.from), end.address()], now) {
            return Err(DropReason::Collision);
        }
        let session = self.sessions.get_mut(&id).ok_or(DropReason::NoHandshake)?;
        let end = session.end_mut(to);
        if let Some(attempt) = end.attempt_mut(receiver, now) {
            attempt.answer = Some(Answer { index: sender, from });
        }
        end.take_index(receiver, now);
        session.end_mut(to.other()).take_index(sender, now);
        self.link(id);
        // To where the attempt came from; and to where the end is known to be, should a copy have been quicker.
        let first = Targets::one(attempt.from);
        Ok(Passed { owner: (id, to), to: confirmed.map_or(first, |confirmed| first.and(confirmed)) })
    }

    /// What an end under load sends instead of an answer: it changes nothing, and is taken from a known end only.
    pub(crate) fn cookie(&mut self, from: SocketAddr, receiver: u32, now: Boot) -> Result<Passed, DropReason> {
        let owners = self.indices.get(&receiver).ok_or(DropReason::UnknownIndex)?;
        let mut found: Option<Passed> = None;
        for owner @ (id, to) in owners.iter().copied() {
            let Some(session) = self.sessions.get(&id).filter(|session| session.is_live(now)) else { continue };
            let end = session.end(to);
            let at_attempt = end.attempt(receiver, now).map(|attempt| Targets::one(attempt.from));
            let at_end = end.holds(receiver, now).then(|| end.targets(now)).flatten();
            let (Some(to), true) = (at_attempt.or(at_end), session.end(to.other()).is_at(from, now)) else { continue };
            if found.replace(Passed { owner, to }).is_some() {
                return Err(DropReason::Ambiguous);
            }
        }
        found.ok_or(DropReason::Foreign)
    }

    /// Which end of which session the owner of the key behind MAC1 is.
    fn owner_of_key(&mut self, from: SocketAddr, stamp: Stamp<'_>, now: Boot) -> Result<Owner, DropReason> {
        let is_known = self.addresses.contains_key(&from);
        if self.addresses.get_mut(&from).is_some_and(|known| !known.budget.take(1, now)) {
            return Err(DropReason::Overload);
        }
        let owners = self.addresses.get(&from).map(|known| known.owners.as_slice()).unwrap_or_default();
        if let Some(owner) = owners.iter().find_map(|(id, side)| self.fits((*id, side.other()), stamp)) {
            return self.live(owner, now);
        }
        let waiting = 2 * self.waiting.len() as u64;
        let others = 2 * self.sessions.len() as u64 - waiting;
        let waiting_searched = self.searches(from).take(waiting, now) && self.budgets.waiting.take(waiting, now);
        if waiting_searched && let Some(owner) = self.search(self.waiting.iter(), stamp) {
            return self.live(owner, now);
        }
        let fair = self.searches(from).take(others, now);
        let budget = if is_known { &mut self.budgets.known } else { &mut self.budgets.strange };
        if !fair || !budget.take(others, now) {
            return Err(DropReason::Overload);
        }
        match self.search(self.sessions.keys().filter(|id| !self.waiting.contains(id)), stamp) {
            Some(owner) => self.live(owner, now),
            None if waiting_searched => Err(DropReason::UnknownKey),
            None => Err(DropReason::Overload),
        }
    }

    /// The share of searches that `from` has.
    fn searches(&mut self, from: SocketAddr) -> &mut Bucket {
        if self.addresses.contains_key(&from) {
            &mut self.addresses.get_mut(&from).expect("it is there").searches
        } else {
            self.source(from)
        }
    }

    fn search<'a>(&self, ids: impl Iterator<Item = &'a SessionId>, stamp: Stamp<'_>) -> Option<Owner> {
        let mut owners = ids.flat_map(|id| [(*id, Side::Engineer), (*id, Side::Gateway)]);
        owners.find_map(|owner| self.fits(owner, stamp))
    }

    fn fits(&self, (id, side): Owner, stamp: Stamp<'_>) -> Option<Owner> {
        let (_, mac1_key) = self.sessions.get(&id)?.end(side).key.as_ref()?;
        mac1_key.fits(stamp.covered, stamp.mac1).then_some((id, side))
    }

    fn live(&self, owner: Owner, now: Boot) -> Result<Owner, DropReason> {
        let live = self.sessions.get(&owner.0).is_some_and(|session| session.is_live(now));
        if live { Ok(owner) } else { Err(DropReason::Expired) }
    }

    /// The end whose attempt a response answers.
    fn answered(&self, receiver: u32, stamp: Stamp<'_>, now: Boot) -> Result<Owner, DropReason> {
        let owners = self.indices.get(&receiver).ok_or(DropReason::NoHandshake)?;
        let mut why = DropReason::NoHandshake;
        for owner @ (id, to) in owners.iter().copied() {
            let Some(session) = self.sessions.get(&id).filter(|session| session.is_live(now)) else { continue };
            match session.end(to).attempt(receiver, now) {
                None => {}
                Some(Attempt { answer: Some(_), .. }) => why = DropReason::Duplicate,
                Some(_) if self.fits(owner, stamp).is_some() => return Ok(owner),
                Some(_) => why = DropReason::BadMac,
            }
        }
        Err(why)
    }

    /// Whether data to `index` from one of `peers` could also mean another session: many lanes of one gateway
    /// come from one address, and then only the index tells them apart.
    fn collides(&self, id: SessionId, index: u32, peers: &[Option<SocketAddr>], now: Boot) -> bool {
        let Some(owners) = self.indices.get(&index) else { return false };
        owners.iter().filter(|(other, _)| *other != id).any(|(other, side)| {
            self.sessions.get(other).filter(|session| session.is_live(now)).is_some_and(|session| {
                let peer = session.end(side.other());
                peers.iter().flatten().any(|at| peer.is_at(*at, now))
            })
        })
    }
}
