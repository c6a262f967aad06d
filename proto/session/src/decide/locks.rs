//! Locks: set, clear; a locked thing's sessions end.

use thinlane_model::{EndReason, LockId, Span};

use super::{Deciding, OPS, Outcome, done, text, unknown};
use crate::{Actor, Answer, Decided, Event, Lock, LockTarget, Refusal, Session};

/// Of a lock that lifts itself.
const LONGEST: Span = Span::from_secs(3660 * 86_400);

impl Deciding<'_, '_> {
    /// A second lock on the same thing lets the later end stand; a lock never shortens another.
    pub(super) fn lock(&mut self, target: LockTarget, time: Option<Span>, reason: String) -> Outcome {
        let person = self.person_or_system("locking", OPS)?;
        self.target_exists(&target)?;
        if let (LockTarget::User(login), Some(person)) = (&target, person)
            && *login == person.login
        {
            return Err(Refusal::OwnAccount { login: login.clone() });
        }
        let reason = text("reason", &reason, true)?;
        if time.is_some_and(|time| time > LONGEST) {
            let problem = format!("at most {LONGEST}; without it the lock has no end");
            return Err(Refusal::Invalid { field: "for", problem });
        }
        let until = time.map(|time| self.now() + time);
        let by = person.map(|person| person.login.clone());
        let world = self.world;
        let lock = match world.lock_of(&target) {
            Some(old) if old.until.is_none() => None,
            Some(old) if until.is_some() && old.until >= until => None,
            Some(old) => Some(Lock { until, reason: reason.clone(), by, at: self.now(), ..old.clone() }),
            None => {
                let id = self.fresh(LockId::from_random, |id| world.locks.contains_key(id))?;
                Some(Lock { id, target: target.clone(), reason: reason.clone(), by, at: self.now(), until })
            }
        };
        let standing = || world.lock_of(&target).map(|lock| lock.id);
        let id = lock.as_ref().map(|lock| lock.id).or_else(standing).ok_or_else(|| unknown("lock", &target))?;
        let hit: Vec<&Session> = world.all_live_sessions().filter(|session| touches(&target, session)).collect();
        let detail = format!("{target} locked: {reason}");
        let mut events: Vec<Event> = lock.map(|lock| Event::LockSet { lock }).into_iter().collect();
        events.extend(hit.iter().filter_map(|session| self.end(session, EndReason::Locked, Some(detail.clone()))));
        Ok(Decided { events, answer: Answer::Lock { id, sessions: hit.iter().map(|session| session.id).collect() } })
    }

    pub(super) fn unlock(&mut self, target: LockTarget) -> Outcome {
        self.person_or_system("unlocking", OPS)?;
        if let (LockTarget::User(login), Actor::Person(actor)) = (&target, self.actor)
            && login == actor
        {
            return Err(Refusal::OwnAccount { login: login.clone() });
        }
        let frozen = match &target {
            LockTarget::Site(name) => self.world.site_named(name).filter(|site| site.frozen.is_some()),
            LockTarget::User(_) | LockTarget::Org(_) | LockTarget::Asset(_) => None,
        };
        let lock = self.world.lock_of(&target);
        if lock.is_none() && frozen.is_none() {
            return Err(unknown("lock on", &target));
        }
        let mut events = Vec::new();
        events.extend(lock.map(|lock| Event::LockCleared { lock: lock.id, target: target.clone(), lapsed: false }));
        events.extend(frozen.map(|site| Event::SiteUnfrozen { site: site.id }));
        done(events)
    }

    fn target_exists(&self, target: &LockTarget) -> Result<(), Refusal> {
        match target {
            LockTarget::User(login) => self.known_person(login).map(drop),
            // An organisation is known by its people; one may be locked before the first of them comes.
            LockTarget::Org(_) => Ok(()),
            LockTarget::Site(name) => self.named_site(name).map(drop),
            LockTarget::Asset(name) => self.world.asset(name).map(drop).ok_or_else(|| unknown("asset", name)),
        }
    }
}

fn touches(target: &LockTarget, session: &Session) -> bool {
    match target {
        LockTarget::User(login) => session.user == *login,
        LockTarget::Org(org) => session.org.as_ref() == Some(org),
        LockTarget::Site(site) => session.site_name == *site,
        LockTarget::Asset(asset) => session.asset == *asset,
    }
}
