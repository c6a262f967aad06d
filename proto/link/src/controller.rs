//! The controller's end of one connection.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use thinlane_model::{Boot, BootId, Now, SessionId, Span};
use thinlane_wire::{
    AgentFrame, Applied, FrameDecoder, FromAgent, FromController, Goodbye, GoodbyeReason, Hello, PROTOCOL, Welcome,
};

use crate::desired::{Desired, Known};

/// From the TLS handshake to Hello.
const HELLO_WAIT: Span = Span::from_secs(10);
/// From Hello to the verdict on it; a look at an older connection takes five of these.
const VERDICT_WAIT: Span = Span::from_secs(15);
/// While a lane is armed, the gateway speaks at least every four seconds: after this much silence we ask, and
/// after the second span we know.
const ARMED_SILENCE: Span = Span::from_secs(6);
const ARMED_ANSWER: Span = Span::from_secs(4);
/// Idle, the gateway's own pings are enough (each byte is paid for): we ask only when one is overdue.
const IDLE_GRACE: Span = Span::from_secs(30);
const IDLE_ANSWER: Span = Span::from_secs(30);
/// States sent and not yet taken over.
const MOST_UNTAKEN: usize = 256;
/// Pings whose answer somebody waits for.
const MOST_PROBES: usize = 64;
/// More frames than this unsent: the gateway takes nothing any more.
const MOST_UNSENT: usize = 2048;

/// What this connection may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Full,
    /// The gateway's certificate has expired: it may ask for a new one and nothing else.
    RenewOnly,
}

/// The terms of a connection, told in Welcome.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Longest silence of an idle gateway, 240 s at most.
    pub keepalive_idle: Span,
    /// Longest silence while a lane is armed, 5 s at most.
    pub keepalive_armed: Span,
    /// Of the site's direct endpoint.
    pub direct_port: Option<u16>,
    pub access: Access,
}

/// What the shell has to do. After `Disconnect`: send what is queued, a little while at most, and close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEffect {
    Send(Bytes),
    Disconnect,
}

/// What the controller has to know.
#[derive(Debug, Clone, PartialEq)]
pub enum LinkEvent {
    /// Ask [`SiteChannels`](crate::SiteChannels), then `handle_accept` or `handle_goodbye`.
    Hello(Hello),
    /// Anything but Hello, Applied, Ping and Pong, which are dealt with here.
    Message(AgentFrame),
    /// The ping of [`ControllerLink::handle_probe`] was answered, and [`ControllerLink::clock`] is fresh.
    Probed { nonce: u64 },
    /// The gateway has taken this generation over.
    Applied { generation: u64 },
    /// The gateway has taken a whole snapshot over and still names another digest.
    Diverged { generation: u64 },
    /// The connection is over.
    Down { why: String },
}

/// A gateway's boot clock as of its last frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentClock {
    pub boot: BootId,
    /// The gateway's CLOCK_BOOTTIME when it made the frame.
    pub at: Boot,
    /// This machine's own boot clock when the frame came in.
    pub heard: Boot,
}

/// The controller's end of one connection.
///
/// ```text
///            Hello            accept
///  Greeting ───────> Judging ────────> Up ──┐ delta or snapshot whenever the desired state moves on
///     │                 │               │<──┘
///     └── time, bytes that are no frame, goodbye, closed ──> Closed
/// ```
///
/// The gateway takes states over in the order in which they were sent and says so (`Applied`); an `Applied` that
/// names what it had already is the request for a snapshot.
#[derive(Debug)]
pub struct ControllerLink {
    config: LinkConfig,
    state: State,
    decoder: FrameDecoder,
    hello: Option<(BootId, Applied)>,
    clock: Option<AgentClock>,
    heard: Boot,
    asked: Option<Boot>,
    armed: bool,
    nonce: u64,
    probes: BTreeSet<u64>,
    /// What the gateway holds for certain.
    taken: Option<Known>,
    /// Sent, in order, and not yet taken over.
    sent: VecDeque<Known>,
    desired: Option<Desired>,
    /// Withdrawals told on this connection.
    told: BTreeSet<SessionId>,
    /// Generation for which a snapshot was sent because of its digest.
    repaired: u64,
    effects: VecDeque<LinkEffect>,
    events: VecDeque<LinkEvent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting { until: Boot },
    Judging { until: Boot },
    Up,
    Closed,
}

impl ControllerLink {
    /// A connection whose TLS handshake, with a certificate of one gateway, is done.
    pub fn new(config: LinkConfig, now: Now) -> Self {
        Self {
            config,
            state: State::Greeting { until: now.mono + HELLO_WAIT },
            decoder: FrameDecoder::new(),
            hello: None,
            clock: None,
            heard: now.mono,
            asked: None,
            armed: false,
            nonce: 0,
            probes: BTreeSet::new(),
            taken: None,
            sent: VecDeque::new(),
            desired: None,
            told: BTreeSet::new(),
            repaired: 0,
            effects: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The gateway's boot clock; `None` before Hello.
    pub fn clock(&self) -> Option<AgentClock> {
        self.clock
    }

    /// The state that the gateway holds for certain.
    pub fn known(&self) -> Option<&Known> {
        self.taken.as_ref()
    }

    /// Whether the gateway is logged in, with all rights.
    pub fn is_up(&self) -> bool {
        self.state == State::Up && self.config.access == Access::Full
    }

    /// Bytes of the connection, in any chunks.
    pub fn handle_bytes(&mut self, mut chunk: &[u8], now: Now) {
        while self.state != State::Closed {
            let read = self.decoder.read(&mut chunk).map_err(|error| error.to_string());
            let frame = match read {
                Ok(None) => return,
                Ok(Some(frame)) => AgentFrame::decode(&frame).map_err(|error| error.to_string()),
                Err(error) => Err(error),
            };
            match frame {
                Ok(Some(frame)) => self.receive(frame, now),
                Ok(None) => self.hear(now),
                Err(error) => self.handle_goodbye(GoodbyeReason::Protocol, &error, now),
            }
        }
    }

    /// The verdict on Hello: this is the gateway's connection now. `known` is what [`SiteChannels`] remembers of
    /// an earlier one, and saves a snapshot when it fits.
    ///
    /// [`SiteChannels`]: crate::SiteChannels
    pub fn handle_accept(&mut self, desired: Desired, known: Option<Known>, now: Now) {
        let (State::Judging { .. }, Some((_, applied))) = (self.state, self.hello) else { return };
        self.state = State::Up;
        self.hear(now);
        self.send(&FromController::Welcome(Welcome {
            protocol: PROTOCOL,
            wall: now.wall,
            keepalive_idle: self.config.keepalive_idle,
            keepalive_armed: self.config.keepalive_armed,
            direct_port: self.config.direct_port,
        }));
        if self.config.access == Access::RenewOnly {
            return;
        }
        let target = desired.known();
        if applied.generation != 0 {
            self.taken = [Some(target), known].into_iter().flatten().find(|state| state.is(&applied));
        }
        self.handle_desired(desired, now);
    }

    /// The desired state, whenever it may have changed: what differs from what was sent last is sent.
    pub fn handle_desired(&mut self, desired: Desired, _now: Now) {
        if !self.is_up() {
            return;
        }
        let target = desired.known();
        match self.sent.back().or(self.taken.as_ref()) {
            Some(before) if *before == target => {}
            Some(before) if before.generation < target.generation => {
                let delta = desired.delta(before, &self.told);
                self.advance(&delta, &desired);
            }
            _ => self.advance(&desired.snapshot(), &desired),
        }
        self.desired = Some(desired);
    }

    /// Says something else: an acknowledgement, a checkpoint, a certificate.
    pub fn handle_send(&mut self, message: &FromController, _now: Now) {
        if self.state == State::Up {
            self.send(message);
        }
    }

    /// Says why, and ends the connection.
    pub fn handle_goodbye(&mut self, reason: GoodbyeReason, detail: &str, _now: Now) {
        if self.state == State::Closed {
            return;
        }
        self.send(&FromController::Goodbye(Goodbye { reason, detail: detail.to_owned() }));
        self.close(format!("{}: {detail}", reason.as_str()));
    }

    /// The socket is at its end or broken.
    pub fn handle_closed(&mut self, why: &str, _now: Now) {
        if self.state != State::Closed {
            self.close(why.to_owned());
        }
    }

    /// Whether the site has a lane armed: then a dead channel is known after ten seconds.
    pub fn handle_armed(&mut self, armed: bool, _now: Now) {
        self.armed = armed;
    }

    /// Pings the gateway for somebody who waits for the answer, and returns the nonce that
    /// [`LinkEvent::Probed`] will name; also before the verdict on its hello.
    pub fn handle_probe(&mut self, now: Now) -> u64 {
        self.nonce += 1;
        if matches!(self.state, State::Up | State::Judging { .. }) {
            if self.probes.len() >= MOST_PROBES {
                self.probes.pop_first();
            }
            self.probes.insert(self.nonce);
            if self.state == State::Up {
                self.asked.get_or_insert(now.mono);
            }
            self.send(&FromController::Ping(self.nonce));
        }
        self.nonce
    }

    /// When to call [`Self::handle_timeout`], on this machine's boot clock; ask again after every input.
    pub fn poll_timeout(&self) -> Option<Boot> {
        match self.state {
            State::Greeting { until } | State::Judging { until } => Some(until),
            State::Up => Some(self.due()),
            State::Closed => None,
        }
    }

    /// The time has come, or may have.
    pub fn handle_timeout(&mut self, now: Now) {
        match self.state {
            State::Greeting { until } if now.mono >= until => self.close("no hello in time".into()),
            State::Judging { until } if now.mono >= until => self.close("no verdict in time".into()),
            State::Up if now.mono >= self.due() => {
                if self.asked.is_some() {
                    self.close("the gateway does not answer".into());
                } else {
                    self.asked = Some(now.mono);
                    self.nonce += 1;
                    self.send(&FromController::Ping(self.nonce));
                }
            }
            State::Greeting { .. } | State::Judging { .. } | State::Up | State::Closed => {}
        }
    }

    /// The next thing to do, in order.
    pub fn poll_effect(&mut self) -> Option<LinkEffect> {
        self.effects.pop_front()
    }

    /// The next thing to know, in order.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    fn receive(&mut self, frame: AgentFrame, now: Now) {
        self.hear(now);
        if let Some(clock) = &mut self.clock {
            *clock = AgentClock { at: frame.boot, heard: now.mono, ..*clock };
        }
        match (self.state, frame.message) {
            (State::Greeting { .. }, FromAgent::Hello(hello)) => self.greet(hello, frame.boot, now),
            (State::Up | State::Judging { .. }, FromAgent::Pong(nonce)) => {
                if self.probes.remove(&nonce) {
                    self.events.push_back(LinkEvent::Probed { nonce });
                }
            }
            (State::Greeting { .. } | State::Judging { .. }, _) => {
                self.handle_goodbye(GoodbyeReason::Protocol, "a gateway says hello, then waits", now);
            }
            (State::Up, FromAgent::Hello(_)) => {
                self.handle_goodbye(GoodbyeReason::Protocol, "a second hello", now);
            }
            (State::Up, FromAgent::Ping(nonce)) => self.send(&FromController::Pong(nonce)),
            (State::Up, FromAgent::Renew(csr)) => {
                self.events
                    .push_back(LinkEvent::Message(AgentFrame { boot: frame.boot, message: FromAgent::Renew(csr) }));
            }
            (State::Up, _) if self.config.access == Access::RenewOnly => {}
            (State::Up, FromAgent::Applied(applied)) => self.take(&applied),
            (State::Up, message) => {
                self.events.push_back(LinkEvent::Message(AgentFrame { boot: frame.boot, message }));
            }
            (State::Closed, _) => {}
        }
    }

    fn greet(&mut self, hello: Hello, at: Boot, now: Now) {
        let oldest = PROTOCOL.saturating_sub(1).max(1);
        if !(oldest..=PROTOCOL + 1).contains(&hello.protocol) {
            let detail = format!("protocol {} is not served; this controller speaks {PROTOCOL}", hello.protocol);
            return self.handle_goodbye(GoodbyeReason::Protocol, &detail, now);
        }
        self.clock = Some(AgentClock { boot: hello.boot, at, heard: now.mono });
        self.hello = Some((hello.boot, hello.applied));
        self.state = State::Judging { until: now.mono + VERDICT_WAIT };
        self.events.push_back(LinkEvent::Hello(hello));
    }

    fn take(&mut self, applied: &Applied) {
        let generation = applied.generation;
        match self.sent.iter().position(|sent| sent.generation == generation) {
            Some(at) => {
                let state = self.sent.drain(..=at).next_back().expect("the range ends at an entry");
                if state.is(applied) {
                    self.taken = Some(state);
                    self.events.push_back(LinkEvent::Applied { generation });
                } else if self.repaired == generation {
                    self.taken = Some(state);
                    self.events.push_back(LinkEvent::Diverged { generation });
                } else {
                    self.repaired = generation;
                    self.send_snapshot();
                }
            }
            // Nothing is on its way and the gateway says again what it has.
            None if self.sent.is_empty() && self.taken.as_ref().is_some_and(|taken| taken.is(applied)) => {}
            None if self.repaired == generation && generation != 0 => {}
            None => {
                self.repaired = generation;
                self.send_snapshot();
            }
        }
    }

    fn send_snapshot(&mut self) {
        self.sent.clear();
        if let Some(desired) = self.desired.take() {
            self.advance(&desired.snapshot(), &desired);
            self.desired = Some(desired);
        }
    }

    fn advance(&mut self, message: &FromController, desired: &Desired) {
        if self.sent.len() >= MOST_UNTAKEN {
            return self.close("the gateway takes no state over".into());
        }
        self.told = desired.withdrawn.iter().map(|withdrawn| withdrawn.session).collect();
        self.sent.push_back(desired.known());
        self.send(message);
    }

    fn hear(&mut self, now: Now) {
        self.heard = now.mono;
        self.asked = None;
    }

    fn due(&self) -> Boot {
        match (self.asked, self.armed) {
            (Some(asked), true) => asked + ARMED_ANSWER,
            (Some(asked), false) => asked + IDLE_ANSWER,
            (None, true) => self.heard + ARMED_SILENCE,
            (None, false) => self.heard + self.config.keepalive_idle + IDLE_GRACE,
        }
    }

    fn close(&mut self, why: String) {
        self.state = State::Closed;
        self.effects.push_back(LinkEffect::Disconnect);
        self.events.push_back(LinkEvent::Down { why });
    }

    fn send(&mut self, message: &FromController) {
        if self.effects.len() >= MOST_UNSENT {
            if self.state != State::Closed {
                self.effects.clear();
                self.close("the gateway takes nothing any more".into());
            }
            return;
        }
        match message.encode() {
            Ok(bytes) => self.effects.push_back(LinkEffect::Send(bytes)),
            Err(error) => self.close(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
