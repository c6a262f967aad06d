//! Both ends on one virtual clock, with a network between them that tests can cut, for the tests of this crate.

use thinlane_model::{Boot, BootId, EndReason, Now, SessionId, Span, Wall};
use thinlane_wire::{Applied, FromAgent, FromController, SignedGrant, Withdrawn, pb, state_digest};

use crate::*;

pub(crate) struct Pair {
    pub(crate) now: Now,
    pub(crate) agent: AgentLink,
    pub(crate) controller: Option<ControllerLink>,
    pub(crate) desired: Desired,
    pub(crate) known: Option<Known>,
    pub(crate) access: Access,
    /// Nothing arrives, in either direction, and nobody is told.
    pub(crate) black_hole: bool,
    /// The agent applies what it is sent, as a gateway does.
    pub(crate) applies: bool,
    state: std::collections::BTreeMap<SessionId, u64>,
    pub(crate) agent_events: Vec<AgentEvent>,
    pub(crate) link_events: Vec<LinkEvent>,
    /// Frames that crossed, for counting bytes: the length of each as written.
    pub(crate) frames: Vec<usize>,
}

pub(crate) fn session(byte: u8) -> SessionId {
    SessionId::from_random([byte; 5])
}

pub(crate) fn config() -> AgentLinkConfig {
    AgentLinkConfig {
        boot: BootId([1; 16]),
        agent_version: "0.1.0".into(),
        capabilities: vec![],
        backend: "userspace".into(),
    }
}

pub(crate) fn link_config(access: Access) -> LinkConfig {
    LinkConfig { keepalive_idle: Span::from_secs(240), keepalive_armed: Span::from_secs(5), direct_port: None, access }
}

pub(crate) fn desired(generation: u64, grants: &[(u8, u64)], ending: &[u8]) -> Desired {
    let grant = |(byte, serial): &(u8, u64)| {
        use prost::Message;
        let body = pb::GrantBody { session: session(*byte).to_string(), serial: *serial, ..Default::default() };
        let signed = pb::SignedGrant { body: body.encode_to_vec(), ..Default::default() };
        DesiredGrant { session: session(*byte), serial: *serial, signed: SignedGrant::from(signed) }
    };
    let withdrawn = ending.iter().map(|byte| Withdrawn { session: session(*byte), reason: EndReason::Killed });
    Desired { generation, grants: grants.iter().map(grant).collect(), withdrawn: withdrawn.collect() }
}

impl Pair {
    pub(crate) fn new() -> Self {
        let now = Now { mono: Boot(1_000_000), wall: Wall::from_millis(1_795_000_000_000) };
        Self {
            now,
            agent: AgentLink::new(config(), 7, now),
            controller: None,
            desired: desired(1, &[], &[]),
            known: None,
            access: Access::Full,
            black_hole: false,
            applies: true,
            state: Default::default(),
            agent_events: vec![],
            link_events: vec![],
            frames: vec![],
        }
    }

    pub(crate) fn up() -> Self {
        let mut pair = Self::new();
        pair.agent.handle_start(pair.now);
        pair.run();
        assert_eq!(pair.agent.state(), AgentState::Up);
        pair
    }

    /// Moves everything until nothing moves; a dial succeeds unless the network is a black hole.
    pub(crate) fn run(&mut self) {
        for _ in 0..10_000 {
            if !self.step() {
                return;
            }
        }
        panic!("the two ends never come to rest");
    }

    fn step(&mut self) -> bool {
        if let Some(effect) = self.agent.poll_effect() {
            match effect {
                AgentEffect::Connect if self.black_hole => {}
                AgentEffect::Connect => {
                    self.controller = Some(ControllerLink::new(link_config(self.access), self.now));
                    self.agent.handle_connected(self.now);
                }
                AgentEffect::Send(bytes) if !self.black_hole => {
                    self.frames.push(bytes.len());
                    if let Some(controller) = &mut self.controller {
                        controller.handle_bytes(&bytes, self.now);
                    }
                }
                AgentEffect::Disconnect if !self.black_hole => {
                    if let Some(mut controller) = self.controller.take() {
                        controller.handle_closed("reset", self.now);
                    }
                }
                AgentEffect::Send(_) | AgentEffect::Disconnect => {}
            }
            return true;
        }
        if let Some(event) = self.agent.poll_event() {
            match &event {
                AgentEvent::Message(FromController::Snapshot(snapshot)) => {
                    self.state.clear();
                    self.state.extend(snapshot.grants.iter().filter_map(SignedGrant::peek));
                    self.say_applied(snapshot.generation);
                }
                AgentEvent::Message(FromController::Delta(delta)) => {
                    for withdrawn in &delta.withdrawn {
                        self.state.remove(&withdrawn.session);
                    }
                    self.state.extend(delta.grants.iter().filter_map(SignedGrant::peek));
                    self.say_applied(delta.generation);
                }
                _ => {}
            }
            self.agent_events.push(event);
            return true;
        }
        let Some(controller) = &mut self.controller else { return false };
        if let Some(event) = controller.poll_event() {
            if matches!(event, LinkEvent::Hello(_)) {
                controller.handle_accept(self.desired.clone(), self.known.clone(), self.now);
            }
            if matches!(event, LinkEvent::Applied { .. }) {
                self.known = controller.known().cloned();
            }
            self.link_events.push(event);
            return true;
        }
        match controller.poll_effect() {
            Some(LinkEffect::Send(bytes)) if !self.black_hole => {
                self.frames.push(bytes.len());
                self.agent.handle_bytes(&bytes, self.now);
                true
            }
            Some(LinkEffect::Disconnect) => {
                self.controller = None;
                if !self.black_hole {
                    self.agent.handle_disconnected("closed by the controller", self.now);
                }
                true
            }
            Some(LinkEffect::Send(_)) => true,
            None => false,
        }
    }

    fn say_applied(&mut self, generation: u64) {
        if self.applies {
            let digest = state_digest(&self.state);
            self.agent.handle_send(FromAgent::Applied(Applied { generation, digest }), self.now);
        }
    }

    pub(crate) fn want(&mut self, desired: Desired) {
        self.desired = desired;
        let controller = self.controller.as_mut().expect("connected");
        controller.handle_desired(self.desired.clone(), self.now);
        self.run();
    }

    /// Lets time pass, from timer to timer.
    pub(crate) fn pass(&mut self, span: Span) {
        let until = self.now.mono + span;
        self.run();
        loop {
            let timers = [self.agent.poll_timeout(), self.controller.as_ref().and_then(ControllerLink::poll_timeout)];
            let Some(next) = timers.into_iter().flatten().min().filter(|next| *next <= until) else { break };
            self.advance_to(next.max(self.now.mono));
            self.agent.handle_timeout(self.now);
            if let Some(controller) = &mut self.controller {
                controller.handle_timeout(self.now);
            }
            self.run();
        }
        self.advance_to(until);
    }

    fn advance_to(&mut self, at: Boot) {
        let span = self.now.mono.until(at);
        self.now = Now { mono: at, wall: self.now.wall + span };
    }

    pub(crate) fn messages(&mut self) -> Vec<FromController> {
        let events = std::mem::take(&mut self.agent_events);
        let message = |event| match event {
            AgentEvent::Message(message) => Some(message),
            _ => None,
        };
        events.into_iter().filter_map(message).collect()
    }
}
