//! Which step is next, and what its answer means.

use thinlane_model::{Boot, EndReason, Now, RefuseReason, SessionId};
use thinlane_wire::{FromAgent, Refused, SignedClosing, closing_message};

use super::{Base, RETRY_AFTER, Save, Shutdown, Site};
use crate::effect::{Done, EffectId, Outcome, Step, StepError};
use crate::event::SiteEvent;
use crate::lane::{CloseStage, ExtendStage, Lane, OpenStage, PASSES_BEFORE_RECORD, Phase};

/// What the outstanding effect is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Doing {
    RemovePeers,
    Rebuild,
    Close(SessionId, CloseStage),
    Save(u64),
    SignLane(SessionId, Vec<u8>),
    SignOther(SessionId, Vec<u8>),
    Extend(SessionId, ExtendStage),
    Open(SessionId, OpenStage),
}

impl Site {
    /// How the step that was handed out went; answers to anything else are left alone.
    pub fn handle_done(&mut self, id: EffectId, outcome: Outcome, now: Now) {
        let Some((_, doing)) = self.doing.take_if(|(doing, _)| *doing == id) else { return };
        let now = now.mono;
        match doing {
            Doing::RemovePeers => self.peers_removed(outcome, now),
            Doing::Rebuild => self.rebuilt(outcome, now),
            Doing::Close(session, stage) => self.close_stage_done(session, stage, outcome, now),
            Doing::Save(version) => self.save_done(version, outcome, now),
            Doing::SignLane(session, record) => self.lane_signed(session, record, outcome, now),
            Doing::SignOther(session, record) => {
                if self.keep_signed(session, record, outcome, now) {
                    self.unsigned.remove(&session);
                }
            }
            Doing::Extend(session, stage) => self.extend_stage_done(session, stage, outcome),
            Doing::Open(session, stage) => self.open_stage_done(session, stage, outcome, now),
        }
        self.tell_status();
        self.finish();
    }

    pub(super) fn next_step(&self) -> Option<(Doing, Step)> {
        let leaving = self.shutdown.is_some_and(|shutdown| shutdown.how == Shutdown::Leave);
        if leaving {
            return self.next_save();
        }
        // Saving goes before closing: an end that was decided must stand after a crash in the middle of it, and one
        // file in memory costs less than a millisecond. While saving fails, closing does not wait for it.
        self.next_base()
            .or_else(|| self.next_save())
            .or_else(|| self.next_close())
            .or_else(|| self.next_signature())
            .or_else(|| self.next_extension())
            .or_else(|| self.next_opening())
    }

    fn next_base(&self) -> Option<(Doing, Step)> {
        match self.base {
            Base::Flushed => Some((Doing::RemovePeers, Step::RemoveAllPeers)),
            Base::Missing => Some((Doing::Rebuild, Step::RebuildBase)),
            Base::Standing | Base::Retry(_) => None,
        }
    }

    /// The earliest stage of any lane goes first: all devices are shut before the first chain is touched.
    fn next_close(&self) -> Option<(Doing, Step)> {
        let closings = self.lanes.iter().filter_map(|(session, lane)| match &lane.phase {
            Phase::Closing(closing) if closing.retry_at.is_none() => Some((closing.stage, *session, lane)),
            _ => None,
        });
        let (stage, session, lane) = closings.min_by_key(|(stage, session, _)| (*stage, *session))?;
        Some((Doing::Close(session, stage), lane.close_step(stage)?))
    }

    fn next_save(&self) -> Option<(Doing, Step)> {
        let due = self.version != self.saved_version && !matches!(self.save, Save::Retry(_));
        due.then(|| (Doing::Save(self.version), Step::Persist(Box::new(self.saved()))))
    }

    fn next_signature(&self) -> Option<(Doing, Step)> {
        if self.sign_retry.is_some() {
            return None;
        }
        if let Some((session, record)) = self.unsigned.first_key_value() {
            let bytes = record.encode();
            let step = Step::SignClosing { session: *session, message: closing_message(&bytes) };
            return Some((Doing::SignOther(*session, bytes), step));
        }
        let waits = |lane: &&Lane| matches!(&lane.phase, Phase::Closing(closing) if closing.stage == CloseStage::Sign);
        let session = self.lanes.values().find(waits)?.grant.session;
        let bytes = self.closing_record(session, Boot::default())?.encode();
        let step = Step::SignClosing { session, message: closing_message(&bytes) };
        Some((Doing::SignLane(session, bytes), step))
    }

    fn next_extension(&self) -> Option<(Doing, Step)> {
        if !self.base_stands() {
            return None;
        }
        self.lanes.iter().find_map(|(session, lane)| {
            let Phase::Extending(stage, later) = &lane.phase else { return None };
            let (session, deadline) = (*session, later.grant.deadline);
            let step = match stage {
                ExtendStage::Lane => Step::ExtendLane { session, deadline },
                ExtendStage::Device => Step::ExtendDevice { session, deadline },
            };
            Some((Doing::Extend(session, *stage), step))
        })
    }

    /// Nothing opens for the first time that was not saved before.
    fn next_opening(&self) -> Option<(Doing, Step)> {
        if !self.base_stands() {
            return None;
        }
        let saved = self.version == self.saved_version;
        self.lanes.iter().find_map(|(session, lane)| {
            let Phase::Opening(stage) = lane.phase else { return None };
            let may = (saved || lane.opened.is_some()) && !lane.waits_for_key;
            may.then(|| (Doing::Open(*session, stage), lane.open_step(stage)))
        })
    }

    fn peers_removed(&mut self, outcome: Outcome, now: Boot) {
        let finals = match outcome {
            Ok(Done::Finals(finals)) => finals,
            Ok(_) => Vec::new(),
            Err(error) => {
                // The lanes' own locks still hold, and the base is what closes them: it must not wait for this.
                self.alarm("peers", &format!("peers could not be removed after a flush: {error}"), now);
                Vec::new()
            }
        };
        for lane in self.lanes.values_mut() {
            let last = finals.iter().find(|(session, _)| *session == lane.grant.session).map(|(_, last)| *last);
            lane.settle(last);
            if lane.is_closing() || matches!(lane.phase, Phase::Opening(OpenStage::Keys)) {
                continue;
            }
            if let Phase::Extending(_, later) = std::mem::replace(&mut lane.phase, Phase::Opening(OpenStage::Device)) {
                lane.later.get_or_insert(*later);
            }
        }
        // A flush in the meantime is covered by the rebuild that comes now.
        self.base = Base::Missing;
    }

    fn rebuilt(&mut self, outcome: Outcome, now: Boot) {
        match outcome {
            Ok(_) if self.base == Base::Missing => self.base = Base::Standing,
            // Flushed again while it was being built.
            Ok(_) => {}
            Err(error) => {
                self.trouble(format!("the base table cannot be built: {error}"));
                if self.base == Base::Missing {
                    self.base = Base::Retry(now + RETRY_AFTER);
                }
                self.refuse_unopened(RefuseReason::NotReady, &format!("the base table cannot be built: {error}"));
            }
        }
    }

    fn save_done(&mut self, version: u64, outcome: Outcome, now: Boot) {
        match outcome {
            Ok(_) => {
                self.saved_version = version;
                self.save = Save::Works;
            }
            Err(error) => {
                self.save = match self.save {
                    Save::Works => {
                        self.alarm("state", &format!("the agent's state cannot be saved: {error}"), now);
                        Save::Retry(now + RETRY_AFTER)
                    }
                    Save::Retry(_) | Save::Failed => Save::Retry(now + RETRY_AFTER),
                };
                self.refuse_unopened(RefuseReason::Kernel, &format!("the agent's state cannot be saved: {error}"));
            }
        }
    }

    /// Lanes that never stood go, with a refusal.
    fn refuse_unopened(&mut self, reason: RefuseReason, detail: &str) {
        let unopened = self.lanes.values().filter(|lane| lane.opened.is_none() && !lane.is_closing());
        for session in unopened.map(|lane| lane.grant.session).collect::<Vec<_>>() {
            self.fail_unopened(session, reason, detail);
        }
    }

    fn fail_unopened(&mut self, session: SessionId, reason: RefuseReason, detail: &str) {
        let Some(lane) = self.lanes.get_mut(&session) else { return };
        let serial = lane.newest().serial;
        lane.begin_close(EndReason::Failed, true);
        self.version += 1;
        self.report_refused(Refused { session: Some(session), serial, reason, detail: detail.to_owned() });
    }

    fn open_stage_done(&mut self, session: SessionId, stage: OpenStage, outcome: Outcome, now: Boot) {
        let Some(lane) = self.lanes.get_mut(&session) else { return };
        if !matches!(lane.phase, Phase::Opening(at) if at == stage) {
            return;
        }
        let outcome = match (stage, outcome) {
            (OpenStage::Keys, Ok(Done::Public(public))) => {
                lane.public = Some(public);
                lane.preshared = None;
                Ok(())
            }
            (OpenStage::Keys, Ok(other)) => Err(StepError(format!("no public key but {other:?}"))),
            (_, Ok(_)) => Ok(()),
            (_, Err(error)) => Err(error),
        };
        if let Err(error) = outcome {
            if stage == OpenStage::Keys && lane.opened.is_none() && lane.preshared.is_none() {
                lane.waits_for_key = true;
                return;
            }
            if lane.opened.is_none() {
                return self.fail_unopened(session, RefuseReason::Kernel, &error.0);
            }
            self.alarm("lane-lost", &format!("{session} could not be opened again: {error}"), now);
            return self.close(session, EndReason::Failed, now);
        }
        if let Some(next) = stage.next() {
            lane.phase = Phase::Opening(next);
            return;
        }
        lane.phase = match lane.later.take() {
            Some(later) => Phase::Extending(ExtendStage::Lane, Box::new(later)),
            None => Phase::Open,
        };
        if lane.opened.is_none() {
            lane.opened = Some(now);
            lane.last_packet = now;
        }
        self.version += 1;
        self.say_armed(session);
    }

    fn extend_stage_done(&mut self, session: SessionId, stage: ExtendStage, outcome: Outcome) {
        let Some(lane) = self.lanes.get_mut(&session) else { return };
        let Phase::Extending(at, later) = &mut lane.phase else { return };
        if *at != stage {
            return;
        }
        let failed = match (outcome, stage) {
            (Ok(_), ExtendStage::Lane) => {
                *at = ExtendStage::Device;
                return;
            }
            (Ok(_), ExtendStage::Device) => None,
            (Err(error), _) => Some((later.grant.serial, error.0)),
        };
        let next = match lane.later.take() {
            Some(later) => Phase::Extending(ExtendStage::Lane, Box::new(later)),
            None => Phase::Open,
        };
        let Phase::Extending(_, later) = std::mem::replace(&mut lane.phase, next) else { return };
        match failed {
            None => {
                lane.grant = later.grant;
                lane.signed = later.signed;
                self.version += 1;
                self.say_armed(session);
            }
            // The lane goes on until the deadline it had.
            Some((serial, detail)) => {
                let reason = RefuseReason::Kernel;
                self.report_refused(Refused { session: Some(session), serial, reason, detail });
            }
        }
    }

    fn close_stage_done(&mut self, session: SessionId, stage: CloseStage, outcome: Outcome, now: Boot) {
        let Some(lane) = self.lanes.get_mut(&session) else { return };
        let Phase::Closing(closing) = &mut lane.phase else { return };
        closing.stage = stage.next();
        if stage == CloseStage::Device {
            closing.closed.get_or_insert(now);
        }
        let pass_over = closing.stage == CloseStage::Sign;
        match outcome {
            Ok(Done::Final(counted)) => {
                closing.late_packets += counted.map_or(0, |(_, late)| late);
                lane.settle(counted.map(|(counters, _)| counters));
            }
            Ok(_) => {}
            Err(StepError(fault)) => closing.faults.push(fault),
        }
        if pass_over {
            self.pass_done(session, now);
        }
    }

    /// A whole pass of the teardown is over: clean, or with everything that could be done done.
    fn pass_done(&mut self, session: SessionId, now: Boot) {
        let Some(lane) = self.lanes.get_mut(&session) else { return };
        let Phase::Closing(closing) = &mut lane.phase else { return };
        closing.passes = closing.passes.saturating_add(1);
        let faults = std::mem::take(&mut closing.faults);
        closing.verified = faults.is_empty();
        if faults.is_empty() {
            if closing.recorded {
                self.forget_lane(session);
            }
            return;
        }
        let first = closing.passes == 1;
        if closing.recorded || closing.passes < PASSES_BEFORE_RECORD {
            closing.retry_at = Some(now + closing.pause());
            closing.stage = CloseStage::Linger;
        }
        let what = format!("{session} is not cleanly closed yet: {}", faults.join("; "));
        if first {
            self.alarm("teardown", &what, now);
        }
        self.trouble(what);
    }

    fn lane_signed(&mut self, session: SessionId, record: Vec<u8>, outcome: Outcome, now: Boot) {
        if !self.keep_signed(session, record, outcome, now) {
            return;
        }
        let Some(lane) = self.lanes.get_mut(&session) else { return };
        let Phase::Closing(closing) = &mut lane.phase else { return };
        closing.recorded = true;
        let (reason, verified) = (closing.reason, closing.verified);
        if verified {
            self.forget_lane(session);
        } else {
            closing.stage = CloseStage::Linger;
            closing.retry_at = Some(now + closing.pause());
        }
        self.push(SiteEvent::Closed { session, reason, verified });
    }

    fn keep_signed(&mut self, session: SessionId, record: Vec<u8>, outcome: Outcome, now: Boot) -> bool {
        let signature = match outcome {
            Ok(Done::Signature(signature)) => signature,
            Ok(other) => return self.sign_failed(session, &format!("no signature but {other:?}"), now),
            Err(error) => return self.sign_failed(session, &error.0, now),
        };
        let closing = SignedClosing::new(record, signature);
        self.say(FromAgent::Closing(closing.clone()));
        self.say_again_at = now + super::SAY_AGAIN_EVERY;
        self.closings.insert(session, closing);
        self.version += 1;
        true
    }

    fn sign_failed(&mut self, session: SessionId, why: &str, now: Boot) -> bool {
        self.trouble(format!("{session}: its closing record cannot be signed: {why}"));
        self.sign_retry = Some(now + RETRY_AFTER);
        false
    }

    fn forget_lane(&mut self, session: SessionId) {
        self.lanes.remove(&session);
        self.version += 1;
    }
}
