//! What is said to the controller, and said again until it is heard.

use thinlane_model::{Boot, SessionId};
use thinlane_wire::{Alarm, Armed, ClosingRecord, FromAgent, SiteStatus};

use super::{MOST_ALARMS, MOST_EVENTS, REPORT_EVERY, SAY_AGAIN_EVERY, ShuttingDown, Site};
use crate::event::SiteEvent;
use crate::lane::{Lane, Phase};
use crate::saved::SavedAlarm;

impl Site {
    pub(super) fn push(&mut self, event: SiteEvent) {
        if self.events.len() >= MOST_EVENTS {
            self.overflowed = true;
        } else {
            self.events.push_back(event);
        }
    }

    /// While the channel is down only what the next Hello needs is said.
    pub(super) fn say(&mut self, message: FromAgent) {
        if self.up || matches!(message, FromAgent::Applied(_)) {
            self.push(SiteEvent::Send(message));
        }
    }

    /// Everything that the controller may have missed while the channel was down. Closing records go first, so
    /// that what is said afterwards of the same sessions finds them ended.
    pub(super) fn say_everything(&mut self, now: Boot) {
        self.say_unacknowledged(now);
        let armed: Vec<_> = self.lanes.values().filter_map(|lane| self.armed_message(lane)).collect();
        for message in armed {
            self.say(message);
        }
        for refused in self.refused.values().cloned().collect::<Vec<_>>() {
            self.say(FromAgent::Refused(refused));
        }
        self.status_told = None;
        self.tell_status();
        for lane in self.lanes.values_mut().filter(|lane| lane.is_armed()) {
            lane.unreported = true;
        }
        self.reported_at = None;
        self.report_counters(now);
    }

    pub(super) fn say_unacknowledged(&mut self, now: Boot) {
        self.say_again_at = now + SAY_AGAIN_EVERY;
        for closing in self.closings.values().cloned().collect::<Vec<_>>() {
            self.say(FromAgent::Closing(closing));
        }
        for alarm in self.alarms.iter().cloned().collect::<Vec<_>>() {
            self.say(FromAgent::Alarm(alarm.into()));
        }
    }

    pub(super) fn say_armed(&mut self, session: SessionId) {
        let Some(lane) = self.lanes.get(&session) else { return };
        let deadline = lane.grant.deadline;
        if let Some(message) = self.armed_message(lane) {
            self.say(message);
        }
        self.push(SiteEvent::Armed { session, deadline });
    }

    fn armed_message(&self, lane: &Lane) -> Option<FromAgent> {
        let gateway_key = lane.public.filter(|_| lane.is_armed())?;
        Some(FromAgent::Armed(Armed {
            session: lane.grant.session,
            serial: lane.grant.serial,
            gateway_key,
            deadline: lane.grant.deadline,
            backend: self.config.backend.clone(),
        }))
    }

    pub(super) fn alarm(&mut self, kind: &str, detail: &str, now: Boot) {
        // The boot clock as number: it rises across restarts of the agent without being kept.
        self.last_alarm = now.0.max(self.last_alarm + 1);
        if self.alarms.len() >= MOST_ALARMS {
            self.alarms.pop_front();
            self.alarms_lost += 1;
        }
        let detail = match std::mem::take(&mut self.alarms_lost) {
            0 => detail.to_owned(),
            lost => format!("{detail} ({lost} earlier alarms were dropped)"),
        };
        let alarm = SavedAlarm { number: self.last_alarm, boot: self.config.boot, kind: kind.to_owned(), detail };
        self.say(FromAgent::Alarm(alarm.clone().into()));
        self.alarms.push_back(alarm);
        self.version += 1;
    }

    pub(super) fn trouble(&mut self, what: String) {
        self.push(SiteEvent::Trouble { what });
    }

    /// Tells the controller whether a lane would open, if that is news.
    pub(super) fn tell_status(&mut self) {
        let status = SiteStatus {
            why_not: self.why_not_ready(),
            isolated: self.isolated,
            lanes: u32::try_from(self.armed()).unwrap_or(u32::MAX),
            backend: self.config.backend.clone(),
            lan: self.lan.clone(),
        };
        if self.up && self.status_told.as_ref() != Some(&status) {
            self.say(FromAgent::Status(status.clone()));
            self.status_told = Some(status);
        }
    }

    /// Sends the counters that changed, not more often than once a second.
    pub(super) fn report_counters(&mut self, now: Boot) {
        if !self.up || self.reported_at.is_some_and(|at| at.until(now) < REPORT_EVERY) {
            return;
        }
        let changed = self.lanes.values_mut().filter(|lane| lane.unreported);
        let sessions: Vec<_> = changed
            .map(|lane| {
                lane.unreported = false;
                lane.report()
            })
            .collect();
        if !sessions.is_empty() {
            self.reported_at = Some(now);
            self.say(FromAgent::Counters(sessions));
        }
    }

    pub(super) fn closing_record(&self, session: SessionId, now: Boot) -> Option<ClosingRecord> {
        let lane = self.lanes.get(&session)?;
        let Phase::Closing(closing) = &lane.phase else { return None };
        Some(ClosingRecord {
            site: self.config.site,
            boot: self.config.boot,
            session,
            serial: lane.grant.serial,
            reason: closing.reason,
            opened: lane.opened,
            closed: closing.closed.unwrap_or(now),
            counters: lane.report(),
            verified: closing.verified,
            late_packets: closing.late_packets,
        })
    }

    /// Says that a shutdown is complete, if it is.
    pub(super) fn finish(&mut self) {
        let idle = self.doing.is_none() && self.next_step().is_none();
        let waits = self.lanes.values().any(Lane::is_closing);
        if let Some(ShuttingDown { how, finished, .. }) = &mut self.shutdown
            && !*finished
            && idle
            && (*how == super::Shutdown::Leave || !waits)
        {
            *finished = true;
            self.push(SiteEvent::Finished);
        }
    }
}

impl From<SavedAlarm> for Alarm {
    fn from(saved: SavedAlarm) -> Self {
        Alarm { number: saved.number, boot: saved.boot, kind: saved.kind, detail: saved.detail }
    }
}
