//! What must hold of the kernel, judged without any of the machines.
//!
//! The model sees three things: which grants the controller ever signed, when and why the controller wanted a
//! session no longer, and what crossed the network. From these it says which lanes may be open at most.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use thinlane_model::{BootId, Grant, SessionId};

use crate::gateway::Gateway;
use crate::head::Head;

/// How long an unfaulted channel, an answering kernel and both processes may take to make an end true.
const CONVERGES: u64 = 4_000;
/// How long a gateway may take to notice that its channel is dead, the last dial's answer included.
const NOTICES: u64 = 40_000;

/// A teardown that failed is tried again after this long at the latest.
const RETRIES: u64 = 31_000;

/// What is known of one session.
#[derive(Debug)]
struct Known {
    boot: BootId,
    engineer: Ipv4Addr,
    /// The latest deadline that was ever signed.
    deadline: u64,
    offline: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    sessions: BTreeMap<SessionId, Known>,
    seen: usize,
    /// Since when the controller wants a session no longer and nothing is in the way of the gateway's knowing it.
    unwanted: BTreeMap<SessionId, u64>,
    undisturbed_since: u64,
    kernel_failed_at: u64,
    isolated_since: Option<u64>,
}

impl Model {
    /// Something happened that may delay whatever is under way.
    pub(crate) fn disturbed(&mut self, now: u64) {
        self.undisturbed_since = now;
    }

    fn learn(&mut self, head: &Head, now: u64) {
        for (session, grant) in &head.signed[self.seen..] {
            let Grant { boot, tuple, deadline, offline, .. } = grant;
            let known = self.sessions.entry(*session).or_insert(Known {
                boot: *boot,
                engineer: tuple.engineer,
                deadline: 0,
                offline: offline.as_millis(),
            });
            known.deadline = known.deadline.max(deadline.0);
        }
        self.seen = head.signed.len();
        let wanted = |session: &SessionId| head.world.session(session).is_some_and(|one| one.is_desired());
        for session in self.sessions.keys() {
            if wanted(session) {
                self.unwanted.remove(session);
            } else {
                self.unwanted.entry(*session).or_insert(now);
            }
        }
    }

    /// Looks at the kernel; an error is a broken promise.
    pub(crate) fn check(&mut self, head: &Head, gateway: &Gateway, up: bool, now: u64) -> Result<(), String> {
        self.learn(head, now);
        if !up {
            self.disturbed(now);
        }
        if !gateway.kernel.failing.is_empty() {
            self.kernel_failed_at = now;
        }
        let kernel_works_since = if self.kernel_failed_at == 0 { 0 } else { self.kernel_failed_at + RETRIES };
        self.isolated_since = if gateway.isolated { self.isolated_since.or(Some(now)) } else { None };
        let clock = gateway.boot_time(now);
        let mut engineers = BTreeMap::new();
        let alive = gateway.dead_until.is_none();
        for (session, element) in gateway.kernel.open(clock) {
            let Some(known) = self.sessions.get(&session) else {
                return Err(format!("{session} is open and was never granted"));
            };
            if known.boot != gateway.boot() {
                return Err(format!("{session} is open in another boot"));
            }
            if element.deadline.0 > known.deadline {
                return Err(format!("{session} is open beyond every deadline that was signed"));
            }
            if element.engineer != known.engineer {
                return Err(format!("{session} is open for another address"));
            }
            if let Some(other) = engineers.insert(element.engineer, session) {
                return Err(format!("{session} and {other} share an address"));
            }
            let silence = now.saturating_sub(gateway.heard_at);
            if alive && silence > known.offline + NOTICES && now > kernel_works_since {
                return Err(format!("{session} outlived its channel: {silence} ms without a word"));
            }
            let isolated = self.isolated_since.is_some_and(|since| now > since.max(kernel_works_since) + CONVERGES);
            if alive && isolated && gateway.at_rest_since.is_some_and(|since| now > since) {
                return Err(format!("{session} is open at an isolated site"));
            }
            let unwanted = self.unwanted.get(&session).map(|since| {
                let disturbed = self.undisturbed_since.max(kernel_works_since);
                (*since).max(disturbed)
            });
            if let Some(since) = unwanted
                && alive
                && up
                && now.saturating_sub(since) > CONVERGES
            {
                let reason = head.ended(session);
                return Err(format!("{session} is open {} ms after its end ({reason:?})", now - since));
            }
        }
        Ok(())
    }

    /// After everything was healed: both sides say the same, and nothing is left of what ended.
    pub(crate) fn agree(&self, head: &Head, gateway: &Gateway, now: u64) -> Result<(), String> {
        let clock = gateway.boot_time(now);
        let open: BTreeMap<SessionId, u64> =
            gateway.kernel.open(clock).map(|(session, element)| (session, element.deadline.0)).collect();
        let live: BTreeMap<SessionId, u64> =
            head.world.live_sessions(&head.site).map(|session| (session.id, session.deadline.0)).collect();
        if open != live {
            return Err(format!("the kernel has {open:?}, the controller {:?}", head.describe()));
        }
        for session in head.world.live_sessions(&head.site) {
            let state = session.state;
            if state != thinlane_wire::api::SessionState::Active {
                return Err(format!("{} is {state:?} although everything works", session.id));
            }
            if !gateway.kernel.has_device(session.id, clock) {
                return Err(format!("{} has no device", session.id));
            }
        }
        if let Some(left) = gateway.kernel.leftovers().into_iter().find(|session| !open.contains_key(session)) {
            return Err(format!("something is left of {left}"));
        }
        let unsaid = gateway.kernel.saved.as_ref().map_or(0, |saved| saved.closings.len() + saved.alarms.len());
        if unsaid > 0 {
            return Err(format!("{unsaid} closing records and alarms were never acknowledged"));
        }
        Ok(())
    }
}
