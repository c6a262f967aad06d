//! The loop's dealings with the site machine, the kernel thread and what the kernel tells unasked.

use thinlane_model::{Now, SessionId, Span};
use thinlane_nft::{Drift, Event as TableEvent, Finding};
use thinlane_site::{Ceilings, LaneCount, SiteEvent, Step};
use thinlane_wg::{Event as DeviceEvent, LaneReport};
use thinlane_wire::FromAgent;
use thinlane_wire::api::Schema;

use super::names::Found;
use super::{DEVICE_RETRY, Daemon, End};
use crate::config::Config;
use crate::control::Reply;
use crate::executor::{Answer, Job};
use crate::watch::Kind;

/// How long the acknowledgement of closing records is waited for when everything ends.
pub(super) const FAREWELL: Span = Span::from_secs(3);

/// The ceilings as the machine takes them.
pub(super) fn ceilings(config: &Config) -> Ceilings {
    let ceiling = &config.ceiling;
    Ceilings {
        assets: ceiling.assets.as_ref().map(|nets| nets.iter().map(|net| (net.address, net.length)).collect()),
        ports: ceiling.ports.as_ref().map(|ports| ports.iter().copied().collect()),
        tasks: ceiling.tasks.as_ref().map(|tasks| tasks.iter().cloned().collect()),
        longest: ceiling.longest,
    }
}

impl Daemon {
    /// Does what the site machine says; whether there was anything.
    pub(super) fn settle_site(&mut self, now: Now) -> bool {
        let mut busy = false;
        while let Some(effect) = self.site.poll_effect() {
            busy = true;
            if let Step::OpenDevice { grant, .. } = &effect.step
                && let Some(relay) = &grant.relay
            {
                self.names.resolve(grant.session, relay);
            }
            if effect.step == Step::RebuildBase {
                self.rebuilding = Some(effect.id);
            }
            if let Step::Persist(state) = &effect.step {
                self.spooled = state.closings.len() + state.alarms.len();
            }
            tracing::debug!(step = effect.step.name(), "next step");
            self.submit(Job::Step(effect));
        }
        while let Some(event) = self.site.poll_event() {
            busy = true;
            self.handle_site_event(event, now);
        }
        busy
    }

    fn handle_site_event(&mut self, event: SiteEvent, now: Now) {
        match event {
            SiteEvent::Send(message) => {
                if let FromAgent::Closing(closing) = &message
                    && let Ok(record) = closing.peek()
                {
                    self.unacknowledged.insert(record.session);
                }
                self.link.handle_send(message, now);
            }
            SiteEvent::Armed { session, deadline } => {
                tracing::info!(%session, left = %now.mono.until(deadline), "a lane is open");
            }
            SiteEvent::Refused { session, serial, reason, detail } => {
                let session = session.map_or_else(|| "unknown".into(), |session| session.to_string());
                tracing::warn!(session, serial, %reason, "a grant was refused");
                tracing::debug!(session, detail, "why a grant was refused");
            }
            SiteEvent::Closed { session, reason, verified } => {
                self.sweep_due = Some(now.mono + thinlane_nft::SWEEP_INTERVAL);
                tracing::info!(%session, %reason, verified, "a lane is closed");
            }
            SiteEvent::Trouble { what } => tracing::warn!(what, "a step failed"),
            SiteEvent::Finished => {
                if let Some(ending) = &mut self.ending {
                    ending.finished = true;
                }
            }
        }
    }

    pub(super) fn handle_answer(&mut self, answer: Answer, now: Now) {
        match answer {
            Answer::Step(id, outcome) => {
                if let Err(error) = &outcome {
                    tracing::debug!(%error, "a step failed");
                }
                self.begun = true;
                if self.rebuilding.take_if(|rebuilding| *rebuilding == id).is_some() {
                    self.ruleset = outcome.is_ok();
                }
                self.site.handle_done(id, outcome, now);
            }
            Answer::Reports { reports, merged } => {
                self.counting = false;
                self.take_reports(reports, merged, now);
            }
            Answer::Swept(0) => {}
            Answer::Swept(_) => self.sweep_due = Some(now.mono + thinlane_nft::SWEEP_INTERVAL),
            Answer::Verified(drift) => {
                self.verifying = false;
                self.take_drift(drift, now);
            }
            Answer::Offload(found) => {
                self.offload =
                    found.unwrap_or_else(|error| Some(format!("flow offload cannot be ruled out: {error:#}")));
                self.tell_readiness(now);
            }
            Answer::Device(Ok(backend)) => {
                self.site.set_backend(backend.as_str());
                self.device_problem = None;
                self.tell_readiness(now);
                // The new device has no peers: they are let in again behind a base that is known to stand.
                if self.site.lanes().next().is_some() {
                    self.site.handle_ruleset_flushed(now);
                }
            }
            Answer::Device(Err(error)) => {
                tracing::warn!(error = format!("{error:#}"), "the device does not run");
                self.device_problem = Some(format!("{error:#}"));
                self.device_retry = Some(now.mono + DEVICE_RETRY);
                self.tell_readiness(now);
            }
            // Taken by the loop itself.
            Answer::Ended(_) => {}
        }
    }

    fn tell_readiness(&mut self, now: Now) {
        let why_not = self.offload.clone().or_else(|| self.device_problem.clone());
        self.site.handle_not_ready(why_not, now);
    }

    /// Asks for counters, unless they are on their way.
    pub(super) fn count(&mut self) {
        if !std::mem::replace(&mut self.counting, true) {
            self.submit(Job::Reports);
        }
    }

    fn take_reports(&mut self, reports: Vec<LaneReport>, merged: bool, now: Now) {
        let mut counts = Vec::new();
        for report in reports {
            for flow in &report.denied {
                let kind = Kind {
                    session: Some(report.session),
                    up: flow.direction == thinlane_wg::Direction::Up,
                    source: flow.source,
                    destination: flow.destination,
                    protocol: flow.protocol,
                    port: flow.port,
                };
                self.book.add(kind, flow.packets);
            }
            self.book.add_unlisted(report.denied_unlisted);
            counts.push(LaneCount {
                session: report.session,
                counters: report.counters,
                handshake_age: report.last_handshake.map(|at| at.until(now.wall)),
                endpoint: report.endpoint.map(|endpoint| endpoint.to_string()),
                merged,
            });
        }
        self.site.handle_counters(&counts, now);
    }

    pub(super) fn handle_device(&mut self, event: DeviceEvent, now: Now) {
        match event {
            // The controller and the engineer wait for this one.
            DeviceEvent::Handshake(_) => self.count(),
            // The machine's own clock says so as well.
            DeviceEvent::Expired(_) => {}
            DeviceEvent::InterfaceGone => {
                tracing::warn!("somebody removed the lanes' interface");
                self.site.handle_alarm("foreign-change", "the lanes' interface was removed", now);
                self.submit(Job::Device(self.listen));
            }
        }
    }

    pub(super) fn handle_tables(&mut self, event: TableEvent, now: Now) {
        match event {
            TableEvent::ThinlaneTableGone => {
                tracing::warn!("somebody removed the agent's table");
                self.ruleset = false;
                self.site.handle_ruleset_flushed(now);
            }
            TableEvent::ThinlaneChanged => {
                // It may have been `isolate on`, which closes lanes by itself where the loop did not answer.
                self.apply_switch(now);
                self.verify();
            }
            TableEvent::FlowtablesChanged => self.submit(Job::Offload),
            TableEvent::Overrun => {
                self.verify();
                self.submit(Job::Offload);
            }
            TableEvent::OtherRulesetChange => {}
        }
    }

    fn verify(&mut self) {
        if !std::mem::replace(&mut self.verifying, true) {
            self.submit(Job::Verify);
        }
    }

    /// What the table was found to be, compared with what it is meant to be at this moment of the kernel thread.
    fn take_drift(&mut self, drift: anyhow::Result<Drift>, now: Now) {
        let drift = match drift {
            Ok(drift) => drift,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the table cannot be read");
                self.ruleset = false;
                return self.site.handle_ruleset_flushed(now);
            }
        };
        let missing: Vec<SessionId> = drift
            .findings
            .iter()
            .filter_map(|finding| match finding {
                Finding::LaneMissing(session) => Some(*session),
                _ => None,
            })
            .collect();
        self.ruleset = drift.is_none();
        if drift.opens_more() {
            let what: Vec<String> = drift.findings.iter().map(Finding::to_string).collect();
            let what = what.join("; ");
            tracing::warn!(what, "somebody changed the agent's table");
            if !drift.findings.contains(&Finding::TableMissing) {
                self.site.handle_alarm("foreign-change", &what, now);
            }
            return self.site.handle_ruleset_flushed(now);
        }
        for session in missing {
            self.site.handle_lane_lost(session, now);
        }
    }

    pub(super) fn handle_name(&mut self, found: Found) {
        self.names.remember(&found.relay, found.address);
        self.submit(Job::Endpoint(found.session, found.address));
    }

    /// The executor has ended: tells who waits for it.
    pub(super) fn ended(&mut self, ended: anyhow::Result<()>) -> End {
        let stopped = !self.waiting.end.is_empty();
        for (closed, reply) in self.waiting.end.drain(..) {
            let _ = reply.send(match &ended {
                Ok(()) => Reply::Done { schema: Schema, closed },
                Err(error) => Reply::Failed { schema: Schema, message: format!("{error:#}") },
            });
        }
        if stopped { End::Removed(ended) } else { End::Left }
    }
}
