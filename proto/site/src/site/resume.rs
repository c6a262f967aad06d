//! What is saved, and what a restart makes of it.

use thinlane_model::{Boot, EndReason};
use thinlane_wire::{ClosingRecord, SessionCounters};

use super::{ENDED_MARGIN, Site};
use crate::check::check;
use crate::lane::{Lane, Phase};
use crate::saved::{SavedEnded, SavedLane, SavedState};

/// What [`SavedState::schema`] says.
const SCHEMA: u32 = 1;

impl Site {
    pub(super) fn saved(&self) -> SavedState {
        SavedState {
            schema: SCHEMA,
            boot: self.config.boot,
            lanes: self.lanes.values().map(saved_lane).collect(),
            ended: self.ended.iter().map(|(session, until)| SavedEnded { session: *session, until: *until }).collect(),
            closings: self.closings.values().cloned().collect(),
            alarms: self.alarms.iter().cloned().collect(),
            down_since: Some(self.down_since),
        }
    }

    pub(super) fn resume(&mut self, saved: SavedState, now: Boot) {
        if saved.schema != SCHEMA {
            self.alarm("state", "the saved state is of another version and was not used", now);
            return;
        }
        self.alarms.extend(saved.alarms);
        self.last_alarm = self.alarms.iter().map(|alarm| alarm.number).max().unwrap_or(0);
        for closing in saved.closings {
            if let Ok(record) = closing.peek() {
                self.closings.insert(record.session, closing);
            }
        }
        let same_boot = saved.boot == self.config.boot;
        if same_boot {
            self.down_since = saved.down_since.unwrap_or(now).min(now);
        }
        for SavedEnded { session, until } in saved.ended {
            // Another boot's clock says nothing here, and the boot id alone keeps such a grant out.
            let until = if same_boot { until } else { now + ENDED_MARGIN };
            if until > now {
                self.ended.insert(session, until);
            }
        }
        for lane in saved.lanes {
            if same_boot {
                self.resume_lane(lane, now);
            } else {
                self.close_lane_of_another_boot(&lane, &saved.boot, now);
            }
        }
    }

    /// The lane goes on where the agent before left it, if it still may.
    fn resume_lane(&mut self, saved: SavedLane, now: Boot) {
        let grant = match self.config.verifier.open(&saved.grant) {
            Ok((grant, _)) => grant,
            Err(error) => return self.alarm("state", &format!("a saved lane was not used: {error}"), now),
        };
        let session = grant.session;
        let may = check(&grant, &self.config, saved.opened, now);
        let expired = grant.deadline <= now;
        let until = grant.deadline + ENDED_MARGIN;
        let mut lane = Lane::new(grant, saved.grant, None, now);
        lane.opened = saved.opened;
        lane.endpoint = saved.endpoint;
        lane.resume_counters(saved.counters, saved.merged);
        let reason = match (saved.closing, may) {
            (Some(reason), _) => Some(reason),
            (None, _) if self.isolated => Some(EndReason::Isolated),
            (None, _) if expired => Some(EndReason::Expired),
            (None, Err(_)) => Some(EndReason::Failed),
            (None, Ok(())) => None,
        };
        if let Some(reason) = reason {
            lane.begin_close(reason, saved.recorded);
            self.remember_ended(session, until, now);
        }
        self.lanes.insert(session, lane);
    }

    /// A reboot has ended it; what was counted until the last save is said.
    fn close_lane_of_another_boot(&mut self, saved: &SavedLane, boot: &thinlane_model::BootId, now: Boot) {
        let Ok((grant, _)) = self.config.verifier.open(&saved.grant) else { return };
        self.ended.insert(grant.session, now + ENDED_MARGIN);
        if saved.recorded {
            return;
        }
        let (counters, merged) = (saved.counters, saved.merged);
        let counters = SessionCounters { counters, merged, ..SessionCounters::none(grant.session) };
        let record = ClosingRecord {
            site: self.config.site,
            boot: *boot,
            session: grant.session,
            serial: grant.serial,
            reason: saved.closing.unwrap_or(EndReason::Failed),
            opened: saved.opened,
            closed: saved.opened.unwrap_or_default(),
            counters,
            verified: true,
            late_packets: 0,
        };
        self.unsigned.insert(grant.session, record);
    }
}

fn saved_lane(lane: &Lane) -> SavedLane {
    let (closing, recorded) = match &lane.phase {
        Phase::Closing(closing) => (Some(closing.reason), closing.recorded),
        Phase::Opening(_) | Phase::Open | Phase::Extending(..) => (None, false),
    };
    SavedLane {
        grant: lane.signed.clone(),
        opened: lane.opened,
        counters: lane.counters(),
        merged: lane.merged,
        endpoint: lane.endpoint.clone(),
        closing,
        recorded,
    }
}
