//! Desired states: what is accepted, refused or withdrawn.

use std::collections::BTreeMap;

use thinlane_model::{Boot, EndReason, Grant, RefuseReason, Secret, SessionId};
use thinlane_wire::{ClosingRecord, Delta, FromAgent, Refused, SessionCounters, SignedGrant, Snapshot, Withdrawn};

use super::{Base, MOST_CLOSINGS, MOST_ENDED, Site};
use crate::check::{Refusal, check};
use crate::event::SiteEvent;
use crate::lane::{ExtendStage, Lane, Later, Phase};

/// Refused grants without a session of their own that are remembered, so that each is told once.
const MOST_ODD: usize = 256;
/// Sessions of a desired state: many times more than a gateway opens.
const MOST_DESIRED: usize = 2048;

impl Site {
    /// A snapshot is the truth whatever generation it has: within one connection states come in order, and a
    /// controller restored from a backup counts from an earlier one.
    pub(super) fn take_snapshot(&mut self, snapshot: Snapshot, now: Boot) {
        let named: BTreeMap<SessionId, u64> = snapshot.grants.iter().filter_map(SignedGrant::peek).collect();
        let reasons: BTreeMap<_, _> = snapshot.withdrawn.iter().map(|one| (one.session, one.reason)).collect();
        let gone = self.lanes.keys().filter(|session| !named.contains_key(session)).copied();
        for session in gone.collect::<Vec<_>>() {
            self.close(session, reasons.get(&session).copied().unwrap_or(EndReason::Failed), now);
        }
        self.desired = named;
        self.take(snapshot.generation, snapshot.grants, &snapshot.withdrawn, now);
    }

    pub(super) fn take_delta(&mut self, delta: Delta, now: Boot) {
        if delta.from_generation != self.generation {
            // Saying what we have once more asks for the whole.
            self.say(FromAgent::Applied(self.applied()));
            return;
        }
        for Withdrawn { session, reason } in &delta.withdrawn {
            self.desired.remove(session);
            self.close(*session, *reason, now);
        }
        // Beyond the bound the digests differ, and the controller sends the whole.
        let room = MOST_DESIRED.saturating_sub(self.desired.len());
        self.desired.extend(delta.grants.iter().filter_map(SignedGrant::peek).take(room));
        self.take(delta.generation, delta.grants, &delta.withdrawn, now);
    }

    fn take(&mut self, generation: u64, grants: Vec<SignedGrant>, withdrawn: &[Withdrawn], now: Boot) {
        self.generation = generation;
        self.refused.retain(|session, _| self.desired.contains_key(session));
        for withdrawn in withdrawn {
            self.answer_for_unknown(withdrawn, now);
        }
        for signed in grants {
            self.consider(&signed, now);
        }
        self.say(FromAgent::Applied(self.applied()));
    }

    /// The controller waits for the closing record of a session that it withdrew; one that never reached us gets a
    /// record that says so.
    fn answer_for_unknown(&mut self, withdrawn: &Withdrawn, now: Boot) {
        let Withdrawn { session, reason } = *withdrawn;
        // A session that ended here is over for the controller too once it has the record: it would not ask.
        let known = self.lanes.get(&session).is_some_and(|lane| !lane.has_no_record())
            || self.desired.contains_key(&session)
            || self.ended.contains_key(&session)
            || self.unsigned.contains_key(&session);
        if known || self.closings.len() + self.unsigned.len() >= MOST_CLOSINGS {
            return;
        }
        let record = ClosingRecord {
            site: self.config.site,
            boot: self.config.boot,
            session,
            serial: 0,
            reason,
            opened: None,
            closed: now,
            counters: SessionCounters::none(session),
            verified: true,
            late_packets: 0,
        };
        self.unsigned.insert(session, record);
    }

    fn consider(&mut self, signed: &SignedGrant, now: Boot) {
        let verdict = match self.config.verifier.open(signed) {
            Ok((grant, preshared)) => self.judge(grant, preshared, signed, now),
            Err(error) => Err(error.into()),
        };
        if let Err(refusal) = verdict {
            self.refuse(signed, refusal);
        }
    }

    fn judge(
        &mut self,
        grant: Grant,
        preshared: Option<Secret>,
        signed: &SignedGrant,
        now: Boot,
    ) -> Result<(), Refusal> {
        let refuse = |reason, detail: &str| Err(Refusal::new(reason, detail));
        if let Some(lane) = self.lanes.get_mut(&grant.session) {
            let newest = lane.newest();
            if lane.is_closing() {
                return Ok(());
            }
            if *newest == grant || lane.grant == grant {
                if std::mem::take(&mut lane.waits_for_key) {
                    lane.preshared = preshared;
                }
                return Ok(());
            }
            if grant.serial <= newest.serial {
                return refuse(RefuseReason::Replayed, "a newer grant of this session stands");
            }
            if !newest.extends_to(&grant) {
                return refuse(RefuseReason::Replayed, "differs from the session's grant in more than its deadline");
            }
            check(&grant, &self.config, lane.opened, now)?;
            if grant.deadline < newest.deadline {
                return refuse(RefuseReason::Deadline, "earlier than the one that stands");
            }
            let later = Later { grant, signed: signed.without_preshared() };
            if matches!(lane.phase, Phase::Open) {
                lane.phase = Phase::Extending(ExtendStage::Lane, Box::new(later));
            } else {
                lane.later = Some(later);
            }
            return Ok(());
        }
        // Once refused it stays refused: the controller has given that session up, or will.
        let given_up = |told: &Refused| {
            told.serial == grant.serial && !matches!(told.reason, RefuseReason::Signature | RefuseReason::Undecodable)
        };
        if self.refused.get(&grant.session).is_some_and(given_up) {
            return Ok(());
        }
        check(&grant, &self.config, None, now)?;
        if self.ended.contains_key(&grant.session) {
            return refuse(RefuseReason::Replayed, "this session has ended here");
        }
        let tuple = grant.tuple;
        if self.lanes.values().any(|lane| lane.grant.tuple.engineer == tuple.engineer) {
            return refuse(RefuseReason::Address, "the engineer's address is in use by another session");
        }
        let crossed = |lane: &Lane| {
            let other = lane.grant.tuple;
            [tuple.destination, tuple.address].contains(&other.engineer)
                || [other.destination, other.address].contains(&tuple.engineer)
        };
        if self.lanes.values().any(crossed) {
            return refuse(RefuseReason::Address, "one session's engineer is another's asset");
        }
        if self.lan.contains(&tuple.address) {
            let own = format!("{} is this gateway's own address, and no device's", tuple.address);
            return refuse(RefuseReason::Address, &own);
        }
        if self.isolated {
            return refuse(RefuseReason::Isolated, "the site's own switch is on");
        }
        if let Some(why) = self.why_not_ready() {
            return refuse(RefuseReason::NotReady, &why);
        }
        let unacknowledged = self.closings.len() + self.unsigned.len();
        if self.lanes.len() >= self.config.most_lanes
            || self.ended.len() >= MOST_ENDED
            || unacknowledged + self.lanes.len() >= MOST_CLOSINGS
        {
            return refuse(RefuseReason::Full, "as many lanes as this gateway takes");
        }
        if preshared.is_none() {
            return refuse(RefuseReason::Preshared, "no preshared key came with it");
        }
        self.refused.remove(&grant.session);
        self.version += 1;
        let session = grant.session;
        self.lanes.insert(session, Lane::new(grant, signed.without_preshared(), preshared, now));
        Ok(())
    }

    /// Reports a refused grant: once for each (session, serial) while it is desired, or, where the bytes prove nothing
    /// about either, once for each such bytes.
    ///
    /// What names a session that is live here is reported without that name: a forged or old copy must not make the
    /// controller believe that the session itself was refused.
    fn refuse(&mut self, signed: &SignedGrant, refusal: Refusal) {
        let Refusal { reason, detail } = refusal;
        let proven = !matches!(reason, RefuseReason::Signature | RefuseReason::Undecodable);
        let named = signed.peek();
        let goes_on = named.is_some_and(|(session, serial)| {
            let lane = self.lanes.get(&session).filter(|lane| !lane.is_closing());
            lane.is_some_and(|lane| serial <= lane.newest().serial)
        });
        if (!proven || goes_on || named.is_none()) && self.was_told(signed, reason) {
            return;
        }
        match named {
            Some((session, serial)) if !goes_on => {
                if !proven {
                    self.refused.remove(&session);
                }
                self.report_refused(Refused { session: Some(session), serial, reason, detail });
            }
            named => {
                let detail = match named {
                    Some((session, serial)) => format!("{detail} (it names {session}, serial {serial}, which goes on)"),
                    None => detail,
                };
                self.say(FromAgent::Refused(Refused { session: None, serial: 0, reason, detail: detail.clone() }));
                self.push(SiteEvent::Refused { session: None, serial: 0, reason, detail });
            }
        }
    }

    /// Whether a refusal of exactly these bytes was reported; from now on it was.
    fn was_told(&mut self, signed: &SignedGrant, reason: RefuseReason) -> bool {
        let mark = (signed.fingerprint(), reason);
        if self.odd.contains(&mark) {
            return true;
        }
        if self.odd.len() >= MOST_ODD {
            self.odd.pop_front();
        }
        self.odd.push_back(mark);
        false
    }

    pub(super) fn report_refused(&mut self, refused: Refused) {
        let Some(session) = refused.session else { return };
        if self.refused.get(&session).is_some_and(|told| told.serial == refused.serial) {
            return;
        }
        let Refused { serial, reason, ref detail, .. } = refused;
        let event = SiteEvent::Refused { session: Some(session), serial, reason, detail: detail.clone() };
        self.say(FromAgent::Refused(refused.clone()));
        self.push(event);
        self.refused.insert(session, refused);
    }

    pub(super) fn base_stands(&self) -> bool {
        self.base == Base::Standing
    }
}
