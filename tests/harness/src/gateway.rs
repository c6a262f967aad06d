//! The gateway: its two machines, wired as the agent wires them.

use std::net::Ipv4Addr;

use ed25519_dalek::SigningKey;
use thinlane_link::{AgentEffect, AgentEvent, AgentLink, AgentLinkConfig, AgentState, ConnId};
use thinlane_model::{Boot, BootId, Now, SiteId, Span, Wall};
use thinlane_site::{Ceilings, Effect, LaneCount, Site, SiteConfig, SiteEvent};
use thinlane_wire::{FromController, GrantVerifier};

use crate::kernel::Kernel;
use crate::network::{Item, Network, To};
use crate::random::Random;
use crate::sabotage::Sabotage;

pub(crate) struct Gateway {
    config: SiteConfig,
    pub(crate) link: AgentLink,
    pub(crate) site: Site,
    pub(crate) kernel: Kernel,
    pub(crate) conn: Option<ConnId>,
    /// `Some`: the process is dead until then.
    pub(crate) dead_until: Option<u64>,
    booted_at: u64,
    wall_jump: i64,
    boots: u8,
    pub(crate) isolated: bool,
    executing: Option<(u64, Effect)>,
    /// Since when everything asked of the kernel is done, as long as nothing new is.
    pub(crate) at_rest_since: Option<u64>,
    /// When the controller was heard last.
    pub(crate) heard_at: u64,
    pub(crate) errors: Vec<String>,
    sabotage: Option<Sabotage>,
}

impl Gateway {
    pub(crate) fn new(
        site: SiteId,
        verifier: GrantVerifier,
        identity: SigningKey,
        sabotage: Option<Sabotage>,
        now: u64,
    ) -> Self {
        let config = SiteConfig {
            site,
            boot: BootId([1; 16]),
            verifier,
            ceilings: Ceilings { assets: Some(vec![(Ipv4Addr::new(192, 168, 1, 0), 24)]), ..Ceilings::default() },
            most_lanes: 64,
            backend: "userspace".into(),
            isolated: false,
        };
        let booted_at = now.saturating_sub(5_000);
        let clock = clock(booted_at, 0, now);
        let mut gateway = Self {
            link: AgentLink::new(link_config(config.boot), 1, clock),
            site: Site::new(config.clone(), None, clock),
            config,
            kernel: Kernel::new(identity, sabotage),
            conn: None,
            dead_until: None,
            booted_at,
            wall_jump: 0,
            boots: 1,
            isolated: false,
            executing: None,
            at_rest_since: None,
            heard_at: now,
            errors: Vec::new(),
            sabotage,
        };
        gateway.link.handle_start(clock);
        gateway
    }

    pub(crate) fn clock(&self, now: u64) -> Now {
        clock(self.booted_at, self.wall_jump, now)
    }

    pub(crate) fn boot_time(&self, now: u64) -> Boot {
        self.clock(now).mono
    }

    pub(crate) fn boot(&self) -> BootId {
        self.config.boot
    }

    pub(crate) fn is_up(&self) -> bool {
        self.dead_until.is_none() && self.link.state() == AgentState::Up
    }

    pub(crate) fn jump_wall(&mut self, by: i64) {
        self.wall_jump += by;
    }

    /// `kill -9`: what was being done may have been done or not.
    pub(crate) fn die(&mut self, until: u64, now: u64, random: &mut Random) {
        if let Some((_, effect)) = self.executing.take()
            && random.once_in(2)
        {
            let _ = self.kernel.perform(effect.step, self.boot_time(now));
        }
        self.kernel.agent_died();
        self.conn = None;
        self.at_rest_since = None;
        self.dead_until = Some(until.max(now + 1));
    }

    pub(crate) fn reboot(&mut self, until: u64, now: u64, random: &mut Random) {
        self.die(until, now, random);
        self.kernel.reboot();
        self.boots = self.boots.wrapping_add(1);
        self.config.boot = BootId([self.boots; 16]);
        self.booted_at = now;
    }

    /// The process starts again, with what it finds in `/run`.
    pub(crate) fn start(&mut self, now: u64, random: &mut Random) {
        self.dead_until = None;
        self.config.isolated = self.isolated && self.sabotage != Some(Sabotage::SwitchUntold);
        let clock = self.clock(now);
        self.site = Site::new(self.config.clone(), self.kernel.saved.clone(), clock);
        self.link = AgentLink::new(link_config(self.config.boot), random.number(), clock);
        self.link.handle_start(clock);
        self.executing = None;
    }

    pub(crate) fn isolate(&mut self, isolated: bool, now: u64) {
        self.isolated = isolated;
        if self.dead_until.is_none() && self.sabotage != Some(Sabotage::SwitchUntold) {
            self.site.handle_isolate(isolated, self.clock(now));
        }
    }

    pub(crate) fn flush(&mut self, now: u64) {
        self.kernel.flush();
        if self.dead_until.is_none() {
            self.site.handle_ruleset_flushed(self.clock(now));
        }
    }

    /// What the agent does once a second.
    pub(crate) fn count(&mut self, now: u64) {
        let count = |(session, counters)| LaneCount {
            session,
            counters,
            handshake_age: Some(Span::from_secs(1)),
            endpoint: None,
            merged: false,
        };
        let counts: Vec<LaneCount> = self.kernel.counters().map(count).collect();
        self.site.handle_counters(&counts, self.clock(now));
    }

    pub(crate) fn receive(&mut self, conn: ConnId, item: Item, now: u64) {
        if self.dead_until.is_some() || self.conn != Some(conn) {
            return;
        }
        self.heard_at = now;
        match item {
            Item::Frame(bytes) => self.link.handle_bytes(&bytes, self.clock(now)),
            Item::End => {
                self.conn = None;
                self.link.handle_disconnected("reset", self.clock(now));
            }
        }
    }

    pub(crate) fn next(&self, now: u64) -> Option<u64> {
        if self.dead_until.is_some() {
            return self.dead_until;
        }
        let at = |boot: Boot| (self.booted_at + boot.0).max(now);
        let timers = [self.link.poll_timeout(), self.site.poll_timeout()].into_iter().flatten().map(at).min();
        let step = self.executing.as_ref().map(|(due, _)| *due);
        [timers, step].into_iter().flatten().min()
    }

    pub(crate) fn handle_time(&mut self, now: u64, random: &mut Random) {
        if self.dead_until.is_some_and(|until| until <= now) {
            self.start(now, random);
        }
        if self.dead_until.is_none() {
            self.link.handle_timeout(self.clock(now));
            self.site.handle_timeout(self.clock(now));
        }
    }

    /// Moves everything that can move now. Returns the connection that it dialled.
    pub(crate) fn pump(&mut self, network: &mut Network, now: u64, random: &mut Random) -> Option<ConnId> {
        let mut dialled = None;
        if self.dead_until.is_some() {
            return None;
        }
        for round in 0.. {
            if round > 100_000 {
                self.errors.push("the gateway never comes to rest".into());
                return dialled;
            }
            let clock = self.clock(now);
            if let Some(effect) = self.link.poll_effect() {
                match effect {
                    AgentEffect::Connect => {
                        self.conn = network.connect();
                        dialled = self.conn.or(dialled);
                        match self.conn {
                            Some(_) => self.link.handle_connected(clock),
                            // A silent network says nothing, an unreachable one does.
                            None if network.silent => {}
                            None => self.link.handle_disconnected("refused", clock),
                        }
                    }
                    AgentEffect::Send(bytes) => {
                        if let Some(conn) = self.conn {
                            network.send(conn, To::Controller, Item::Frame(bytes), now, random);
                        }
                    }
                    AgentEffect::Disconnect => {
                        if let Some(conn) = self.conn.take() {
                            network.send(conn, To::Controller, Item::End, now, random);
                        }
                    }
                }
            } else if let Some(event) = self.link.poll_event() {
                self.take_link_event(event, clock);
            } else if let Some(event) = self.site.poll_event() {
                if let SiteEvent::Send(message) = event {
                    self.link.handle_send(message, clock);
                }
            } else if self.executing.as_ref().is_some_and(|(due, _)| *due <= now) {
                let (_, effect) = self.executing.take().expect("it was just looked at");
                let outcome = self.kernel.perform(effect.step, clock.mono);
                self.site.handle_done(effect.id, outcome, clock);
            } else if let Some(effect) = self.site.poll_effect() {
                let slow = random.once_in(40);
                let takes = if slow { random.between(1, 400) } else { random.between(0, 1) };
                self.executing = Some((now + takes, effect));
            } else {
                break;
            }
            self.link.handle_lanes(self.site.armed(), clock);
        }
        self.at_rest_since = match (&self.executing, self.at_rest_since) {
            (Some(_), _) => None,
            (None, since) => since.or(Some(now)),
        };
        dialled
    }

    fn take_link_event(&mut self, event: AgentEvent, clock: Now) {
        match event {
            AgentEvent::Up(_) => self.site.handle_channel(true, clock),
            AgentEvent::Down { .. } if self.sabotage == Some(Sabotage::LossUntold) => {}
            AgentEvent::Down { .. } => self.site.handle_channel(false, clock),
            AgentEvent::Message(mut message) => {
                if let (Some(Sabotage::DeafToWithdrawals), FromController::Delta(delta)) = (self.sabotage, &mut message)
                {
                    delta.withdrawn.clear();
                }
                if let Some(other) = self.site.handle_message(message, clock) {
                    self.errors.push(format!("nobody takes {other:?}"));
                }
            }
            AgentEvent::Goodbye(_) => {}
            AgentEvent::Unsent { why } => self.errors.push(why),
        }
    }
}

fn clock(booted_at: u64, wall_jump: i64, now: u64) -> Now {
    let wall = 1_800_000_000_000_i64.saturating_add_unsigned(now).saturating_add(wall_jump);
    Now { mono: Boot(now - booted_at), wall: Wall::from_millis(wall) }
}

fn link_config(boot: BootId) -> AgentLinkConfig {
    AgentLinkConfig { boot, agent_version: "0.1.0".into(), capabilities: vec![], backend: "userspace".into() }
}
