//! The loop's dealings with the controller.

use rustls_pki_types::CertificateDer;
use thinlane_link::{AgentEffect, AgentEvent, AgentState};
use thinlane_model::{Now, Span};
use thinlane_wire::{Checkpoint, FromAgent, FromController, RenewAnswer, Welcome, WitnessReport};

use super::{Daemon, control};
use crate::channel::News;
use crate::clock::ControllerClock;
use crate::executor::Job;
use crate::identity::Validity;
use crate::tls;
use crate::witness::Judgement;
use thinlane_tlog::Hash;

/// A renewal that was refused or not answered is asked for again after this.
const RENEW_AGAIN: Span = Span::from_secs(3600);
/// The certificate's age is looked at at least this often.
const RENEW_LOOK: Span = Span::from_secs(86_400);

impl Daemon {
    /// Does what the channel machine says; whether there was anything.
    pub(super) fn settle_link(&mut self, now: Now) -> bool {
        let mut busy = false;
        while let Some(effect) = self.link.poll_effect() {
            busy = true;
            match effect {
                AgentEffect::Connect => self.dialer.connect(),
                AgentEffect::Send(frame) => self.dialer.send(frame),
                AgentEffect::Disconnect => self.dialer.disconnect(),
            }
        }
        while let Some(event) = self.link.poll_event() {
            busy = true;
            match event {
                AgentEvent::Up(welcome) => self.logged_in(&welcome, now),
                AgentEvent::Down { why, retry_at } => {
                    let retry_in_ms = retry_at.map(|at| now.mono.until(at).as_millis());
                    tracing::info!(why, retry_in_ms, "the channel is down");
                    self.channel_problem = Some(why);
                    self.renew_due = None;
                    self.site.handle_channel(false, now);
                }
                AgentEvent::Goodbye(goodbye) => {
                    tracing::warn!(reason = goodbye.reason.as_str(), detail = goodbye.detail, "the controller hung up");
                    self.goodbye = Some(goodbye.reason);
                }
                AgentEvent::Unsent { why } => tracing::error!(why, "a message could not be sent"),
                AgentEvent::Message(message) => self.heard(message, now),
            }
        }
        busy
    }

    pub(super) fn handle_news(&mut self, news: News, now: Now) {
        match news {
            News::Connected(peer) => {
                self.names.connected(self.identity.controller.host(), peer);
                self.link.handle_connected(now);
            }
            News::Bytes(bytes) => self.link.handle_bytes(&bytes, now),
            News::Closed(why) => self.link.handle_disconnected(&why, now),
        }
    }

    /// A word for `status`.
    pub(super) fn channel_word(&self) -> &'static str {
        match self.link.state() {
            AgentState::Up => "up",
            AgentState::Connecting | AgentState::Greeting => "connecting",
            AgentState::Idle | AgentState::Backoff => "waiting",
        }
    }

    /// Which addresses no device has, for they are the gateway's.
    pub(super) fn tell_lan(&mut self) {
        let found = control::lan_addresses(&self.dirs).into_iter().flat_map(|(_, found)| found);
        self.site.handle_lan(found.map(|(address, _)| address).collect());
    }

    fn logged_in(&mut self, welcome: &Welcome, now: Now) {
        tracing::info!("the channel is up");
        self.channel_problem = None;
        self.goodbye = None;
        self.tell_lan();
        self.controller_clock = Some(ControllerClock { wall: welcome.wall, heard: now.mono });
        if let Err(error) = self.floor.vouch(welcome.wall, now.mono) {
            tracing::warn!(error = format!("{error:#}"), "the controller's time was not kept");
        }
        self.take_direct_port(welcome.direct_port);
        self.site.handle_channel(true, now);
        if self.site.armed() > 0 {
            // A controller that began anew has a relay that does not know yet where this gateway is.
            self.submit(Job::Handshake);
        }
        self.tell_remembered(None, now);
        self.plan_renewal(now);
    }

    /// A direct endpoint needs its port; changing it takes the device down, so it waits until no lane is open.
    fn take_direct_port(&mut self, port: Option<u16>) {
        let Some(port) = port.filter(|_| self.config.wireguard.port == 0) else { return };
        if port != self.listen && self.site.armed() == 0 {
            self.listen = port;
            self.submit(Job::Device(port));
        }
    }

    fn heard(&mut self, message: FromController, now: Now) {
        if let FromController::ClosingAck(session) = &message {
            self.unacknowledged.remove(session);
        }
        match self.site.handle_message(message, now) {
            Some(FromController::Checkpoint(checkpoint)) => self.judge(&checkpoint, now),
            Some(FromController::Renewed(answer)) => self.renewed(answer, now),
            Some(FromController::Ticket(ticket)) => self.waiting.ticket(&ticket),
            // Everything else is the channel machine's own.
            Some(_) | None => {}
        }
    }

    fn judge(&mut self, checkpoint: &Checkpoint, now: Now) {
        let proof: Vec<Hash> = checkpoint.consistency.iter().map(|hash| Hash(*hash)).collect();
        match self.witness.judge(&checkpoint.note, checkpoint.from_size, &proof) {
            Judgement::Consistent => {
                self.log_problem = None;
                if let Err(error) = self.witness.store(Some(now.mono)) {
                    tracing::warn!(error = format!("{error:#}"), "the checkpoint was not written");
                }
                self.tell_remembered(None, now);
            }
            Judgement::Elsewhere => self.tell_remembered(None, now),
            Judgement::Problem(problem) => {
                let problem = problem.to_string();
                self.tell_remembered(Some(problem.clone()), now);
                if self.log_problem.as_ref() != Some(&problem) {
                    tracing::warn!(problem, "the controller's log contradicts what this gateway remembers");
                    self.site.handle_alarm("log", &problem, now);
                    self.log_problem = Some(problem);
                }
            }
        }
    }

    /// Names the remembered checkpoint, from which the controller proves the next one.
    fn tell_remembered(&mut self, problem: Option<String>, now: Now) {
        let (size, root) = self.witness.remembered().unzip();
        let report = WitnessReport { size: size.unwrap_or(0), root: root.map(|root| root.0), problem };
        self.link.handle_send(FromAgent::Witness(report), now);
    }

    fn plan_renewal(&mut self, now: Now) {
        let Ok(validity) = Validity::of(&self.identity.certificate) else { return };
        let left = self.floor.time(now.mono).until(validity.renew_at());
        self.renew_due = Some(now.mono + left.min(RENEW_LOOK));
    }

    /// Asks for a new certificate if it is time to.
    pub(super) fn renew(&mut self, now: Now) {
        let due = Validity::of(&self.identity.certificate)
            .is_ok_and(|validity| validity.renew_at() <= self.floor.time(now.mono));
        if !due || self.link.state() != AgentState::Up {
            return self.plan_renewal(now);
        }
        self.renew_due = Some(now.mono + RENEW_AGAIN);
        match self.identity.key.request() {
            Ok(request) => self.link.handle_send(FromAgent::Renew(request), now),
            Err(error) => tracing::error!(error = format!("{error:#}"), "no certificate request could be made"),
        }
    }

    fn renewed(&mut self, answer: RenewAnswer, now: Now) {
        let chain = match answer {
            RenewAnswer::Chain(chain) => chain,
            RenewAnswer::Refused(why) => {
                tracing::warn!(why, "the certificate was not renewed yet");
                return;
            }
        };
        let Some(certificate) = chain.into_iter().next() else { return };
        let taken = self.identity.renew(CertificateDer::from(certificate)).and_then(|()| {
            self.identity.store(&self.dirs.identity())?;
            tls::channel_config(&self.identity, self.floor.clone())
        });
        match taken {
            Ok(config) => {
                tracing::info!("the certificate was renewed");
                self.dialer.set_config(config);
                self.plan_renewal(now);
            }
            Err(error) => tracing::warn!(error = format!("{error:#}"), "the renewed certificate was not taken"),
        }
    }
}
