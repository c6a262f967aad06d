//! What a gateway says, as commands to the world; what must not get lost is acknowledged once it is in the log.

use data_encoding::HEXLOWER;
use ed25519_dalek::VerifyingKey;
use thinlane_model::Path;
use thinlane_session::{Actor, Certificate, Closing, Command, Observation};
use thinlane_wire::api::{DeniedView, ErrorBody, ErrorCode, LiveEvent, Schema};
use thinlane_wire::{
    AgentFrame, Alarm, Checkpoint, DeniedReport, Direction, FromAgent, FromController, RenewAnswer, SessionCounters,
    SignedClosing, WitnessReport,
};

use super::connection::Connection;
use crate::core::Live;
use crate::views;

impl Connection {
    pub(super) async fn message(&mut self, frame: AgentFrame) {
        match frame.message {
            FromAgent::Armed(armed) => {
                let command = Command::Armed {
                    session: armed.session,
                    serial: armed.serial,
                    gateway_key: armed.gateway_key,
                    deadline: armed.deadline,
                    backend: armed.backend,
                };
                self.command("armed", command).await;
            }
            FromAgent::Refused(refused) => match refused.session {
                Some(session) => {
                    let (serial, reason, detail) = (refused.serial, refused.reason, refused.detail);
                    self.command("refused", Command::Refuse { session, serial, reason, detail }).await;
                }
                None => self.alarm("grant-refused", format!("{}: {}", refused.reason, refused.detail)).await,
            },
            FromAgent::Counters(sessions) => self.counters(sessions).await,
            FromAgent::Closing(closing) => self.closing(&closing).await,
            FromAgent::Alarm(alarm) => self.agent_alarm(alarm).await,
            FromAgent::Status(status) => {
                let command = Command::Status {
                    isolated: status.isolated,
                    why_not_ready: status.why_not,
                    backend: Some(status.backend).filter(|backend| !backend.is_empty()),
                    lan: status.lan,
                };
                self.command("status", command).await;
            }
            FromAgent::Denied(report) => self.denied(report).await,
            FromAgent::Renew(csr) => self.renew(&csr).await,
            FromAgent::Witness(report) => self.witness(report).await,
            FromAgent::Probe => self.probe_ticket().await,
            // The link deals with these.
            FromAgent::Hello(_) | FromAgent::Applied(_) | FromAgent::Ping(_) | FromAgent::Pong(_) => {}
        }
    }

    /// A ticket to try the way to the relay with; a gateway that is not let in yet gets none.
    async fn probe_ticket(&mut self) {
        match crate::api::probe::issue(&self.app).await {
            Ok(ticket) => self.send(&FromController::Ticket(ticket)),
            Err(error) => tracing::warn!(site = %self.site, error = %error.error.message, "no ticket"),
        }
    }

    /// `true`: it is in the log, or the world has refused it for good.
    async fn command(&mut self, what: &'static str, command: Command) -> bool {
        let actor = Actor::Agent(self.site);
        match self.app.core.write_surely(move |step| step.command(&actor, command)).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(site = %self.site, what, error = %error.error.message, "a gateway's report was not taken");
                !matches!(error.error.code, ErrorCode::LogUnavailable | ErrorCode::Internal | ErrorCode::Limit)
            }
        }
    }

    async fn counters(&mut self, sessions: Vec<SessionCounters>) {
        let (site, relay) = (self.site, self.app.relay.clone());
        let watched = self.app.core.is_watched();
        let seen = self.app.core.write_surely(move |step| {
            let now = step.now().wall;
            let (mut views, mut counted) = (Vec::new(), Vec::new());
            for one in sessions {
                let last_handshake_at = one.handshake_age.map(|age| now - age);
                let path = step.world().session(&one.session).filter(|it| it.direct.is_some()).and_then(|_| {
                    // What the relay never carried came directly; which of two ways is in use now, the gateway sees.
                    let relayed = relay.stats(one.session).is_some_and(|stats| stats.last_handshake.is_some());
                    let carried = if relayed { Path::Relay } else { Path::Direct };
                    last_handshake_at.map(|_| one.path.unwrap_or(carried))
                });
                // A gateway behind the relay sees the relay.
                let endpoint =
                    if path == Some(Path::Direct) { one.endpoint } else { views::engineer(&relay, one.session) };
                let merged = one.merged;
                let seen = Observation { counters: one.counters, last_handshake_at, endpoint, merged, path };
                if step.observe(&site, one.session, seen) {
                    let news = |path| step.world().session(&one.session).is_some_and(|it| it.would_note(path));
                    if let Some(path) = path.filter(|path| news(*path)) {
                        step.command(&Actor::Agent(site), Command::Way { session: one.session, path })?;
                    }
                    let opened = step.world().session(&one.session).and_then(|it| it.opened_at);
                    counted.push((one.session, one.counters, now, opened));
                    if watched {
                        views.extend(views::session(step.world(), &relay, &one.session));
                    }
                }
            }
            Ok((views, counted))
        });
        let (views, counted) = seen.await.unwrap_or_default();
        for (session, counters, at, opened) in counted {
            self.app.lately.count(session, &counters, at, self.hearing.of(opened));
        }
        for view in views {
            let (owner, session, request) = (Some(view.user.clone()), Some(view.id), Some(view.request));
            self.app.core.tell(Live { event: LiveEvent::Session { session: Box::new(view) }, owner, session, request });
        }
    }

    async fn closing(&mut self, signed: &SignedClosing) {
        let Ok(claimed) = signed.peek() else { return };
        let key = VerifyingKey::from_bytes(&self.identity.key).ok();
        let record = key.and_then(|key| signed.verify(&key).ok()).filter(|record| record.site == self.site);
        let Some(record) = record else {
            self.alarm(
                "closing-not-believed",
                format!("the closing record of {} is not signed by this gateway", claimed.session),
            )
            .await;
            return self.send(&FromController::ClosingAck(claimed.session));
        };
        let stored = serde_json::to_value(signed).unwrap_or_default();
        let text = |name: &str| stored.get(name).and_then(|text| text.as_str()).unwrap_or_default().to_owned();
        let last_handshake_at = record.counters.handshake_age.map(|age| crate::clock::wall() - age);
        let command = Command::Close(Closing {
            session: record.session,
            reason: record.reason,
            counters: record.counters.counters,
            last_handshake_at,
            endpoint: views::engineer(&self.app.relay, record.session),
            late_packets: record.late_packets,
            verified: record.verified,
            record: text("record"),
            signature: text("signature"),
        });
        let id = record.session;
        let opened = self.app.core.read(move |state| state.world().session(&id).and_then(|it| it.opened_at)).await;
        let heard = self.hearing.of(opened.ok().flatten());
        self.app.lately.count(id, &record.counters.counters, crate::clock::wall(), heard);
        if self.command("closing", command).await {
            self.send(&FromController::ClosingAck(record.session));
            self.send_checkpoint().await;
        }
    }

    async fn agent_alarm(&mut self, alarm: Alarm) {
        let number = alarm.number;
        let command = Command::AgentAlarm { number, boot: alarm.boot, kind: alarm.kind, detail: alarm.detail };
        if self.command("alarm", command).await {
            self.send(&FromController::AlarmAck(number));
        }
    }

    /// For live views only, kept for a while: what matters later stands in the counters of the closing record.
    async fn denied(&mut self, report: DeniedReport) {
        let site = self.site;
        let name = self.app.core.read(move |state| state.world().site(&site).map(|site| site.name.to_string())).await;
        let Ok(Some(name)) = name else { return };
        for flow in report.flows {
            let denied = DeniedView {
                schema: Schema,
                at: crate::clock::wall(),
                site: name.clone(),
                session: flow.session.map(|session| session.to_string()),
                direction: match flow.direction {
                    Direction::Up => "up".to_owned(),
                    Direction::Down => "down".to_owned(),
                },
                source: flow.source.to_string(),
                destination: flow.destination.to_string(),
                protocol: protocol(flow.protocol),
                port: flow.port.unwrap_or(0),
                packets: flow.packets,
            };
            self.app.lately.deny(denied.clone());
            let event = LiveEvent::Denied { denied };
            self.app.core.tell(Live { event, owner: None, session: flow.session, request: None });
        }
    }

    async fn renew(&mut self, csr: &[u8]) {
        let now = crate::clock::now();
        let expired = self.identity.not_after <= now.wall;
        if expired && !self.app.channels.take_renewal(&self.site, now.mono) {
            let detail = "the gateway's certificate has expired and it asks for a new one".to_owned();
            self.alarm("renewal-waits", detail).await;
            let refusal = "the certificate has expired: ops must approve a new one, then ask again".to_owned();
            return self.send(&FromController::Renewed(RenewAnswer::Refused(refusal)));
        }
        let answer = match self.app.ca.agent(csr, self.site, now.wall) {
            Err(error) => RenewAnswer::Refused(error.to_string()),
            Ok(issued) => {
                let certificate = Certificate { serial: issued.serial, not_after: issued.not_after };
                let actor = Actor::Agent(self.site);
                let renew = Command::Renew { certificate };
                match self.app.core.write_surely(move |step| step.command(&actor, renew)).await {
                    Ok(_) => RenewAnswer::Chain(issued.chain.iter().map(|der| der.to_vec()).collect()),
                    Err(ErrorBody { error, .. }) => RenewAnswer::Refused(error.message),
                }
            }
        };
        self.send(&FromController::Renewed(answer));
    }

    /// A gateway says what it remembers of the log: held against the log, and answered with the newest.
    async fn witness(&mut self, report: WitnessReport) {
        if let Some(problem) = report.problem {
            return self.alarm("log-doubted", format!("the gateway remembers another log: {problem}")).await;
        }
        if let Some(root) = report.root {
            let size = report.size;
            let Ok(ours) = self.app.core.read(move |state| state.store().proofs().root_at(size)).await else { return };
            match ours {
                Some(ours) if ours.0 == root => self.app.channels.put_witnessed(self.site, (size, root)),
                Some(_) => {
                    self.app.channels.put_witnessed(self.site, (size, root));
                    let root = HEXLOWER.encode(&root);
                    return self
                        .alarm(
                            "log-forked",
                            format!("the gateway remembers root {root} over {size} entries, the log has another"),
                        )
                        .await;
                }
                None => {
                    self.app.channels.put_witnessed(self.site, (size, root));
                    return self
                        .alarm(
                            "log-rolled-back",
                            format!("the gateway remembers a log of {size} entries, this one is shorter"),
                        )
                        .await;
                }
            }
        }
        // It could not follow what it was told last, because that began elsewhere.
        if report.size != self.told_size {
            self.told_size = report.size;
            self.send_checkpoint().await;
        }
    }

    /// Sends the newest checkpoint with the proof that it continues what the gateway was told before.
    pub(super) async fn send_checkpoint(&mut self) {
        let Some((size, note)) = self.app.channels.newest_checkpoint() else { return };
        let from_size = self.told_size;
        if size == from_size {
            return;
        }
        let proof = self.app.core.read(move |state| state.store().proofs().consistency(from_size, size)).await;
        let Ok(Some(proof)) = proof else { return };
        let consistency = proof.iter().map(|hash| hash.0).collect();
        self.send(&FromController::Checkpoint(Checkpoint { note, consistency, from_size }));
        self.told_size = size;
    }
}

fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => other.to_string(),
    }
}
