//! The gateway's end: dial, log in, stay in touch, come back.

use std::collections::VecDeque;

use bytes::Bytes;
use thinlane_model::{Boot, BootId, Now, Span};
use thinlane_wire::{
    AgentFrame, Applied, FrameDecoder, FromAgent, FromController, Goodbye, GoodbyeReason, Hello, PROTOCOL, Welcome,
};

use crate::jitter::Jitter;
use crate::keepalive::{Check, Keepalive};

/// For TCP and TLS together.
const CONNECT_WAIT: Span = Span::from_secs(20);
/// From Hello to Welcome: the controller may first look for five seconds whether an older connection still lives.
const WELCOME_WAIT: Span = Span::from_secs(15);
/// The back-off begins here, doubles, and ends at the longest.
const BACKOFF_FIRST: Span = Span::from_secs(1);
const BACKOFF_LONGEST: Span = Span::from_secs(120);
/// A connection that was up for less than this counts as short, and after so many short ones in a row the back-off
/// grows although each had logged in: a loop of them would eat a metered link.
const SHORT: Span = Span::from_secs(10);
const MOST_SHORT: u32 = 30;
/// More frames than this unsent: the connection takes nothing any more.
const MOST_UNSENT: usize = 2048;

/// Who this gateway is, for its Hello.
#[derive(Debug, Clone)]
pub struct AgentLinkConfig {
    pub boot: BootId,
    pub agent_version: String,
    pub capabilities: Vec<String>,
    /// `userspace` or `kernel`.
    pub backend: String,
}

/// What the shell has to do. `Connect`: one TLS connection, then `handle_connected` or `handle_disconnected`.
/// `Disconnect`: drop it, and with it whatever it still delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentEffect {
    Connect,
    Send(Bytes),
    Disconnect,
}

/// What the rest of the gateway has to know.
#[derive(Debug, Clone, PartialEq)]
pub enum AgentEvent {
    /// Logged in. The controller's clock in it may move the certificate floor.
    Up(Welcome),
    /// No longer logged in, or not even this time; `retry_at` on the boot clock.
    Down { why: String, retry_at: Option<Boot> },
    /// The controller said why it hangs up; `Down` follows.
    Goodbye(Goodbye),
    /// Something to be said was too long for a frame and is lost.
    Unsent { why: String },
    /// A snapshot, a delta that follows on what we have, an acknowledgement, a certificate or a checkpoint.
    Message(FromController),
}

/// Where the link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentState {
    Idle,
    Connecting,
    Greeting,
    Up,
    Backoff,
}

/// The gateway's end of the channel.
///
/// ```text
///            start             connected            Welcome
///   Idle ───────────> Connecting ─────────> Greeting ─────────> Up
///    ^ stop (anywhere)    │ ^                   │                │ no answer, Goodbye,
///    └──────              │ │ time, network     │                │ broken frame, closed
///                         v │                   v                v
///                        Backoff <──────────────┴────────────────┘
/// ```
///
/// The back-off doubles from 1 s to 120 s with jitter and begins anew only after a log-in. The connection number
/// in Hello is the boot clock at the dial, so it rises across restarts of the agent as well.
#[derive(Debug)]
pub struct AgentLink {
    config: AgentLinkConfig,
    state: State,
    jitter: Jitter,
    keepalive: Keepalive,
    connection: u64,
    failures: u32,
    short_ones: u32,
    applied: Applied,
    /// Generation up to which this connection has delivered.
    delivered: u64,
    snapshot_asked: bool,
    decoder: FrameDecoder,
    effects: VecDeque<AgentEffect>,
    events: VecDeque<AgentEvent>,
}

#[derive(Debug)]
enum State {
    Idle,
    Connecting { until: Boot },
    Greeting { until: Boot },
    Up { since: Boot },
    Backoff { until: Boot },
}

impl AgentLink {
    /// A link at rest. `jitter_seed` is random, and only spreads retries.
    pub fn new(config: AgentLinkConfig, jitter_seed: u64, now: Now) -> Self {
        Self {
            config,
            state: State::Idle,
            jitter: Jitter::new(jitter_seed),
            keepalive: Keepalive::new(now.mono),
            connection: 0,
            failures: 0,
            short_ones: 0,
            applied: Applied::default(),
            delivered: 0,
            snapshot_asked: false,
            decoder: FrameDecoder::new(),
            effects: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Where the link stands.
    pub fn state(&self) -> AgentState {
        match self.state {
            State::Idle => AgentState::Idle,
            State::Connecting { .. } => AgentState::Connecting,
            State::Greeting { .. } => AgentState::Greeting,
            State::Up { .. } => AgentState::Up,
            State::Backoff { .. } => AgentState::Backoff,
        }
    }

    /// Dials, and from now on keeps the channel up.
    pub fn handle_start(&mut self, now: Now) {
        if matches!(self.state, State::Idle) {
            self.dial(now);
        }
    }

    /// Hangs up and stays at rest.
    pub fn handle_stop(&mut self, _now: Now) {
        let busy = matches!(self.state, State::Connecting { .. } | State::Greeting { .. } | State::Up { .. });
        if busy {
            self.effects.push_back(AgentEffect::Disconnect);
            self.events.push_back(AgentEvent::Down { why: "stopped".into(), retry_at: None });
        }
        self.state = State::Idle;
    }

    /// The way to the controller may have changed (a modem came back, an address moved): dials at once instead of
    /// waiting, or asks at once whether the controller still hears us.
    pub fn handle_network_changed(&mut self, now: Now) {
        match self.state {
            State::Backoff { .. } => self.dial(now),
            State::Up { .. } => {
                if let Some(nonce) = self.keepalive.ask_now(now.mono) {
                    self.send(&FromAgent::Ping(nonce), now);
                }
            }
            State::Idle | State::Connecting { .. } | State::Greeting { .. } => {}
        }
    }

    /// The TLS connection stands and the controller's certificate was found good.
    pub fn handle_connected(&mut self, now: Now) {
        if !matches!(self.state, State::Connecting { .. }) {
            return;
        }
        self.state = State::Greeting { until: now.mono + WELCOME_WAIT };
        self.decoder = FrameDecoder::new();
        self.delivered = self.applied.generation;
        self.snapshot_asked = false;
        let hello = Hello {
            protocol: PROTOCOL,
            capabilities: self.config.capabilities.clone(),
            agent_version: self.config.agent_version.clone(),
            boot: self.config.boot,
            connection: self.connection,
            applied: self.applied,
            backend: self.config.backend.clone(),
            wall: now.wall,
        };
        self.send(&FromAgent::Hello(hello), now);
    }

    /// The dial failed, or the connection ended.
    pub fn handle_disconnected(&mut self, why: &str, now: Now) {
        if !matches!(self.state, State::Idle | State::Backoff { .. }) {
            self.back_off(why.to_owned(), BACKOFF_FIRST, now);
        }
    }

    /// Bytes of the current connection, in any chunks.
    pub fn handle_bytes(&mut self, mut chunk: &[u8], now: Now) {
        while matches!(self.state, State::Greeting { .. } | State::Up { .. }) {
            let read = self.decoder.read(&mut chunk).map_err(|error| error.to_string());
            let message = match read {
                Ok(None) => return,
                Ok(Some(frame)) => FromController::decode(&frame).map_err(|error| error.to_string()),
                Err(error) => Err(error),
            };
            match message {
                Ok(Some(message)) => self.receive(message, now),
                Ok(None) => self.keepalive.heard(now.mono),
                Err(error) => self.hang_up(error, BACKOFF_LONGEST, now),
            }
        }
    }

    /// Says something to the controller, if we are logged in; what must arrive is said again by its owner at the next
    /// [`AgentEvent::Up`]. An `Applied` is remembered for the next Hello in any case.
    pub fn handle_send(&mut self, message: FromAgent, now: Now) {
        if let FromAgent::Applied(applied) = message {
            self.applied = applied;
        }
        if matches!(self.state, State::Up { .. }) {
            self.send(&message, now);
        }
    }

    /// How many lanes are armed: as long as there is one, a dead channel is noticed within ten seconds.
    pub fn handle_lanes(&mut self, armed: usize, _now: Now) {
        self.keepalive.set_armed(armed > 0);
    }

    /// When to call [`Self::handle_timeout`], on the boot clock; ask again after every input.
    pub fn poll_timeout(&self) -> Option<Boot> {
        match &self.state {
            State::Idle => None,
            State::Connecting { until } | State::Greeting { until } | State::Backoff { until } => Some(*until),
            State::Up { .. } => Some(self.keepalive.due()),
        }
    }

    /// The time has come, or may have.
    pub fn handle_timeout(&mut self, now: Now) {
        match &self.state {
            State::Connecting { until } if now.mono >= *until => {
                self.hang_up("no connection in time".into(), BACKOFF_FIRST, now);
            }
            State::Greeting { until } if now.mono >= *until => {
                self.hang_up("no welcome in time".into(), BACKOFF_FIRST, now);
            }
            State::Backoff { until } if now.mono >= *until => self.dial(now),
            State::Up { .. } => match self.keepalive.check(now.mono) {
                Check::Quiet => {}
                Check::Ping(nonce) => self.send(&FromAgent::Ping(nonce), now),
                Check::Dead => self.hang_up("the controller does not answer".into(), BACKOFF_FIRST, now),
            },
            State::Idle | State::Connecting { .. } | State::Greeting { .. } | State::Backoff { .. } => {}
        }
    }

    /// The next thing to do, in order.
    pub fn poll_effect(&mut self) -> Option<AgentEffect> {
        self.effects.pop_front()
    }

    /// The next thing to know, in order.
    pub fn poll_event(&mut self) -> Option<AgentEvent> {
        self.events.pop_front()
    }

    fn receive(&mut self, message: FromController, now: Now) {
        if let FromController::Pong(nonce) = message {
            self.keepalive.answered(nonce);
        }
        self.keepalive.heard(now.mono);
        match (&self.state, message) {
            (_, FromController::Goodbye(goodbye)) => {
                let least = wait_after(goodbye.reason);
                let why = format!("the controller hung up: {}", goodbye.reason.as_str());
                self.events.push_back(AgentEvent::Goodbye(goodbye));
                self.hang_up(why, least, now);
            }
            (State::Greeting { .. }, FromController::Welcome(welcome)) => self.log_in(welcome, now),
            // The controller looks whether this connection lives before it lets it in.
            (State::Greeting { .. }, FromController::Ping(nonce)) => self.send(&FromAgent::Pong(nonce), now),
            (State::Greeting { .. }, _) => {
                self.hang_up("the controller spoke before its welcome".into(), BACKOFF_LONGEST, now);
            }
            (_, FromController::Welcome(_)) => {
                self.hang_up("a second welcome".into(), BACKOFF_LONGEST, now);
            }
            (_, FromController::Ping(nonce)) => self.send(&FromAgent::Pong(nonce), now),
            (_, FromController::Pong(_)) => {}
            (_, FromController::Delta(delta)) if delta.from_generation != self.delivered => {
                // Saying what we have once more asks for the whole.
                if !self.snapshot_asked {
                    self.snapshot_asked = true;
                    self.send(&FromAgent::Applied(self.applied), now);
                }
            }
            (_, message) => {
                match &message {
                    FromController::Delta(delta) => self.delivered = delta.generation,
                    FromController::Snapshot(snapshot) => {
                        self.delivered = snapshot.generation;
                        self.snapshot_asked = false;
                    }
                    _ => {}
                }
                self.events.push_back(AgentEvent::Message(message));
            }
        }
    }

    fn log_in(&mut self, welcome: Welcome, now: Now) {
        if welcome.protocol > PROTOCOL {
            let why = format!("the controller chose protocol {}, this agent speaks {PROTOCOL}", welcome.protocol);
            return self.hang_up(why, BACKOFF_LONGEST, now);
        }
        self.failures = 0;
        self.keepalive.begin(welcome.keepalive_idle, welcome.keepalive_armed, now.mono);
        self.state = State::Up { since: now.mono };
        self.events.push_back(AgentEvent::Up(welcome));
    }

    fn dial(&mut self, now: Now) {
        self.connection = now.mono.0.max(self.connection + 1);
        self.state = State::Connecting { until: now.mono + CONNECT_WAIT };
        self.effects.push_back(AgentEffect::Connect);
    }

    fn hang_up(&mut self, why: String, least: Span, now: Now) {
        self.effects.retain(|effect| !matches!(effect, AgentEffect::Send(_)));
        self.effects.push_back(AgentEffect::Disconnect);
        self.back_off(why, least, now);
    }

    fn back_off(&mut self, why: String, least: Span, now: Now) {
        if let State::Up { since } = self.state {
            let short = since.until(now.mono) < SHORT;
            self.short_ones = if short { self.short_ones.saturating_add(1) } else { 0 };
        }
        let doublings = self.failures.max(self.short_ones.saturating_sub(MOST_SHORT)).min(7);
        let span = Span::from_millis(BACKOFF_FIRST.as_millis() << doublings).min(BACKOFF_LONGEST).max(least);
        let until = now.mono + self.jitter.half_to_all(span);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Backoff { until };
        self.events.push_back(AgentEvent::Down { why, retry_at: Some(until) });
    }

    fn send(&mut self, message: &FromAgent, now: Now) {
        if self.effects.len() >= MOST_UNSENT {
            return self.hang_up("the connection takes nothing any more".into(), BACKOFF_FIRST, now);
        }
        match (AgentFrame { boot: now.mono, message: message.clone() }).encode() {
            Ok(bytes) => self.effects.push_back(AgentEffect::Send(bytes)),
            // Everything that the agent says is bounded where it is made; if something is not, losing the one
            // message beats losing the channel.
            Err(error) => self.events.push_back(AgentEvent::Unsent { why: error.to_string() }),
        }
    }
}

/// How long to stay away at least after being sent away.
fn wait_after(reason: GoodbyeReason) -> Span {
    match reason {
        GoodbyeReason::ShuttingDown => Span::from_secs(2),
        GoodbyeReason::Replaced => Span::from_secs(30),
        GoodbyeReason::Frozen => Span::from_secs(60),
        GoodbyeReason::Protocol => BACKOFF_LONGEST,
        GoodbyeReason::Revoked => Span::from_secs(300),
    }
}

#[cfg(test)]
mod tests;
