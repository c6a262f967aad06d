//! What happens by itself: requests that lapse, arming that takes too long, ends, locks that run out.

use std::collections::{BTreeMap, BTreeSet};

use thinlane_model::{Boot, EndReason, LockId, Now, RequestId, SessionId, Span, Wall};
use thinlane_wire::api::{RequestState, SessionState};

use crate::event::Ended;
use crate::{Event, LapseReason, World};

/// How long a closing record may take after the deadline before the session is written off.
pub(crate) const GRACE: Span = Span::from_secs(2);
/// How long an approved request can be used.
pub(crate) const APPROVED_LIFE: Span = Span::from_secs(8 * 3600);
/// How long a request waits for its approvers.
pub(crate) const PENDING_LIFE: Span = Span::from_secs(30 * 86_400);
/// How long a gateway has to arm.
pub(crate) const ARMING: Span = Span::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Request(RequestId),
    Session(SessionId),
    Lock(LockId),
}

/// Wall times turned once into this machine's boot clock, which nobody sets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timers {
    set: BTreeMap<Timer, (Wall, Boot)>,
    due: BTreeSet<(Boot, Timer)>,
}

impl Timers {
    /// Sets, moves or clears one. A timer that is set already is moved by the difference of its wall times,
    /// so that a clock that was set in between does not count.
    pub(crate) fn put(&mut self, timer: Timer, due: Option<Wall>, now: Now) {
        let before = self.set.remove(&timer);
        if let Some((_, at)) = before {
            self.due.remove(&(at, timer));
        }
        let Some(due) = due else { return };
        let at = match before {
            Some((old, at)) if due >= old => at + old.until(due),
            Some((old, at)) => at - due.until(old),
            None => now.mono + now.wall.until(due),
        };
        self.set.insert(timer, (due, at));
        self.due.insert((at, timer));
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// A wall time near a timer, on the boot clock.
    pub(crate) fn on_boot_clock(&self, timer: Timer, wall: Wall, now: Now) -> Boot {
        match self.set.get(&timer) {
            Some((due, at)) if wall >= *due => *at + due.until(wall),
            Some((due, at)) => *at - wall.until(*due),
            None => now.mono + now.wall.until(wall),
        }
    }
}

impl World {
    /// When [`World::handle_timeout`] has something to do, on this machine's boot clock; `None`: nothing is due ever.
    pub fn poll_timeout(&self) -> Option<Boot> {
        self.timers.due.first().map(|(at, _)| *at)
    }

    /// Everything that is due by now, as events of [`crate::Actor::System`]; applying them clears it.
    pub fn handle_timeout(&self, now: Now) -> Vec<Event> {
        self.timers
            .due
            .iter()
            .take_while(|(at, _)| *at <= now.mono)
            .filter_map(|(_, timer)| self.expire(*timer))
            .collect()
    }

    fn expire(&self, timer: Timer) -> Option<Event> {
        match timer {
            Timer::Request(id) => {
                let request = self.requests.get(&id)?;
                let why =
                    if request.state == RequestState::Approved { LapseReason::Unused } else { LapseReason::Undecided };
                Some(Event::RequestLapsed { request: id, user: request.user.clone(), why })
            }
            Timer::Lock(id) => {
                let lock = self.locks.get(&id)?;
                Some(Event::LockCleared { lock: id, target: lock.target.clone(), lapsed: true })
            }
            Timer::Session(id) => {
                let session = self.sessions.get(&id)?;
                let (reason, detail) = match (session.state, &session.ending) {
                    (SessionState::Arming, _) => (EndReason::Failed, "the gateway did not answer in time"),
                    (_, Some(ending)) => (ending.reason, "its deadline passed without a closing record"),
                    (_, None) => (EndReason::Expired, "its deadline passed without a closing record"),
                };
                Some(self.ended_without_record(session, reason, Some(detail.to_owned())))
            }
        }
    }

    /// The end of a session whose gateway said nothing; the counters are the last that were seen.
    pub(crate) fn ended_without_record(
        &self,
        session: &crate::Session,
        reason: EndReason,
        detail: Option<String>,
    ) -> Event {
        let seen = self.observed.get(&session.id);
        Event::SessionEnded {
            ended: Box::new(Ended {
                counters: seen.map_or(session.counters, |seen| seen.counters),
                last_handshake_at: seen.and_then(|seen| seen.last_handshake_at),
                path: seen.and_then(|seen| seen.path),
                endpoint: seen.and_then(|seen| seen.endpoint.clone()),
                detail,
                ..Ended::of(session, reason)
            }),
        }
    }
}

impl Ended {
    /// The end of a session without a word from its gateway.
    pub(crate) fn of(session: &crate::Session, reason: EndReason) -> Self {
        Self {
            session: session.id,
            request: session.request,
            user: session.user.clone(),
            org: session.org.clone(),
            site: session.site,
            asset: session.asset.clone(),
            task: session.task.clone(),
            policy_hash: session.policy.hash.clone(),
            reason,
            detail: None,
            counters: session.counters,
            counters_final: false,
            last_handshake_at: None,
            path: None,
            left_direct: session.left_direct,
            endpoint: None,
            late_packets: 0,
            record: None,
            signature: None,
        }
    }
}
