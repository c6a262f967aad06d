//! The controller: world, channels and links, wired as the server wires them.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use ed25519_dalek::{SigningKey, VerifyingKey};
use serde_json::Value;
use thinlane_link::{
    Access, ChannelEffect, ConnId, ControllerLink, Desired, DesiredGrant, LinkConfig, LinkEffect, LinkEvent,
    SiteChannels,
};
use thinlane_model::{Boot, EndReason, Endpoint, Now, Role, Roles, Secret, SessionId, SiteId, Span, Wall};
use thinlane_policy::PolicyState;
use thinlane_session::{
    Actor, AgentClock, Answer, AssetSpec, Certificate, Closing, Command, Context, Effect, Entry, Event, NewPerson,
    Observation, Pools, RowKey, World,
};
use thinlane_wire::{AgentFrame, FromAgent, FromController, GrantSigner, SignedClosing, SignedGrant, Withdrawn};

use crate::network::{Item, Network, To};
use crate::random::Random;
use crate::sabotage::Sabotage;

const POLICY: &str = r#"
[task.modbus]
title = "Modbus"
protocol = "tcp"
port = 502
default = "10m"
max = "30m"
offline = "90s"
idle = "5m"

[[permit]]
id = "all"
role = ["requester"]
approvals = 0

[[require]]
id = "vera-is-approved"
user = ["vera"]
approvals = 1
"#;

pub(crate) struct Head {
    pub(crate) world: World,
    rows: BTreeMap<RowKey, Value>,
    policy: PolicyState,
    relay: Endpoint,
    signer: GrantSigner,
    preshared: BTreeMap<SessionId, Secret>,
    pub(crate) site: SiteId,
    identity: VerifyingKey,
    channels: SiteChannels,
    links: BTreeMap<ConnId, ControllerLink>,
    /// `Some`: the process is dead until then.
    pub(crate) dead_until: Option<u64>,
    wall_jump: i64,
    random: Random,
    pub(crate) errors: Vec<String>,
    /// Every deadline that was ever signed, for the model.
    pub(crate) signed: Vec<(SessionId, thinlane_model::Grant)>,
    cache: BTreeMap<(SessionId, u64, bool), SignedGrant>,
    sabotage: Option<Sabotage>,
}

pub(crate) const PEOPLE: [&str; 3] = ["alice", "adam", "vera"];
pub(crate) const ASSETS: [&str; 3] = ["plc-1", "plc-2", "plc-3"];

pub(crate) fn name<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().expect("a well-formed name")
}

impl Head {
    /// A controller with a few people and one site, whose gateway has this identity.
    pub(crate) fn new(seed: u64, identity: &SigningKey, sabotage: Option<Sabotage>, now: u64) -> Self {
        let mut head = Self {
            world: World::new(),
            rows: BTreeMap::new(),
            policy: PolicyState::load(&[("policy.toml", POLICY)]),
            relay: name("relay.example:7443"),
            signer: GrantSigner::new(SigningKey::from_bytes(&[3; 32])),
            preshared: BTreeMap::new(),
            site: SiteId::from_random([0; 5]),
            identity: identity.verifying_key(),
            channels: SiteChannels::new(),
            links: BTreeMap::new(),
            dead_until: None,
            wall_jump: 0,
            random: Random::new(seed ^ 0x5eed),
            errors: Vec::new(),
            signed: Vec::new(),
            cache: BTreeMap::new(),
            sabotage,
        };
        head.populate(now);
        head
    }

    fn populate(&mut self, now: u64) {
        self.must(Actor::System, Command::PolicyChanged, now);
        for (login, role) in [
            ("root", Role::Admin),
            ("alice", Role::Requester),
            ("adam", Role::Requester),
            ("vera", Role::Requester),
            ("bob", Role::Approver),
            ("otto", Role::Ops),
            ("tina", Role::SiteTech),
        ] {
            let new = NewPerson {
                login: name(login),
                name: login.to_owned(),
                org: None,
                sponsor: None,
                roles: Roles::from([role]),
                until: None,
            };
            self.must(Actor::System, Command::AddPerson(new), now);
        }
        let tina = || Actor::Person(name("tina"));
        let Some(Answer::Site(site)) = self.must(tina(), Command::AddSite { name: name("north"), endpoint: None }, now)
        else {
            return;
        };
        self.site = site;
        let code_hash = "ab".repeat(32);
        self.must(tina(), Command::IssueCode { site: name("north"), code_hash: code_hash.clone() }, now);
        let not_after = self.clock(now).wall + Span::from_secs(90 * 86_400);
        let certificate = Certificate { serial: "1".into(), not_after };
        self.must(Actor::System, Command::Enrol { code_hash, certificate, version: "0.1.0".into() }, now);
        for (at, asset) in ASSETS.iter().enumerate() {
            let spec = AssetSpec {
                asset: name(asset),
                site: name("north"),
                address: format!("192.168.1.{}", at + 10).parse().expect("an address"),
                kind: name("plc"),
                criticality: Default::default(),
                labels: BTreeMap::new(),
                keep_source: false,
            };
            self.must(tina(), Command::AddAsset(spec), now);
        }
        // Enrolling drops the connections of the gateway before; there was none.
        while self.world.poll_effect().is_some() {}
    }

    pub(crate) fn verifier(&self) -> thinlane_wire::GrantVerifier {
        thinlane_wire::GrantVerifier::new([self.signer.verifying_key()])
    }

    pub(crate) fn clock(&self, now: u64) -> Now {
        let wall = 1_800_000_000_000_i64.saturating_add_unsigned(now).saturating_add(self.wall_jump);
        Now { mono: Boot(now + 7_000_000), wall: Wall::from_millis(wall) }
    }

    pub(crate) fn jump_wall(&mut self, by: i64) {
        self.wall_jump += by;
    }

    fn must(&mut self, actor: Actor, command: Command, now: u64) -> Option<Answer> {
        let what = format!("{actor}: {}", command.name());
        let answer = self.run(actor, command, now);
        if answer.is_none() {
            self.errors.push(format!("{what} was refused"));
        }
        answer
    }

    /// Decides, stores, applies; `None`: refused, which is an answer like any other.
    pub(crate) fn run(&mut self, actor: Actor, command: Command, now: u64) -> Option<Answer> {
        if self.dead_until.is_some() {
            return None;
        }
        let now = self.clock(now);
        let Self { world, policy, relay, random, .. } = self;
        let mut fill = |bytes: &mut [u8]| random.fill(bytes);
        let pools = Pools::default();
        let mut context = Context { now, policy, relay: Some(&*relay), pools, random: &mut fill };
        let (events, answer) = match world.decide(&actor, command, &mut context) {
            Ok(decided) => (decided.events, Some(decided.answer)),
            Err(refused) => (refused.events, None),
        };
        self.commit(&actor, events, now);
        answer
    }

    fn commit(&mut self, actor: &Actor, events: Vec<Event>, now: Now) {
        for event in events {
            self.world.apply(&Entry::new(now.wall, actor.clone(), event), now.mono);
        }
        for (key, row) in self.world.take_changed_rows() {
            match row {
                Some(row) => drop(self.rows.insert(key, row)),
                None => drop(self.rows.remove(&key)),
            }
        }
    }

    /// Opens a session of an approved request, if the gateway is there to be asked for its clock.
    pub(crate) fn activate(&mut self, who: &str, request: thinlane_model::RequestId, now: u64) -> Option<SessionId> {
        let link = self.channels.current().and_then(|conn| self.links.get(&conn)).filter(|link| link.is_up())?;
        let clock = link.clock()?;
        let mut key = [0; 32];
        self.random.fill(&mut key);
        let command = Command::Activate {
            request,
            engineer_key: thinlane_model::PublicKey::new(key).ok()?,
            native: false,
            clock: AgentClock { boot: clock.boot, time: clock.at },
        };
        let Answer::Session(session) = self.run(Actor::Person(name(who)), command, now)? else { return None };
        let mut preshared = [0; 32];
        self.random.fill(&mut preshared);
        self.preshared.insert(session, Secret::new(preshared));
        self.note_signed();
        Some(session)
    }

    /// Tells the model of every grant that may be signed from now on.
    pub(crate) fn note_signed(&mut self) {
        for grant in self.world.desired(&self.site).grants {
            if !self.signed.iter().any(|(session, old)| *session == grant.session && old.serial == grant.serial) {
                self.signed.push((grant.session, grant));
            }
        }
    }

    pub(crate) fn die(&mut self, until: u64) {
        self.links.clear();
        self.channels = SiteChannels::new();
        self.preshared.clear();
        self.dead_until = Some(until);
    }

    fn start(&mut self, now: u64) {
        self.dead_until = None;
        let rows = self.rows.iter().map(|(key, value)| (key.kind, key.id.clone(), value.clone()));
        match World::from_rows(rows) {
            Ok(mut world) => {
                world.effects_after_restart(self.clock(now));
                self.world = world;
            }
            Err(error) => self.errors.push(error.to_string()),
        }
    }

    /// The connection that counts, if the gateway is logged in on it.
    pub(crate) fn current(&self) -> Option<ConnId> {
        let conn = self.channels.current()?;
        self.links.get(&conn).filter(|link| link.is_up()).map(|_| conn)
    }

    pub(crate) fn accept(&mut self, conn: ConnId, now: u64) {
        let config = LinkConfig {
            keepalive_idle: Span::from_secs(240),
            keepalive_armed: Span::from_secs(5),
            direct_port: None,
            access: Access::Full,
        };
        self.links.insert(conn, ControllerLink::new(config, self.clock(now)));
    }

    pub(crate) fn receive(&mut self, conn: ConnId, item: Item, now: u64) {
        let clock = self.clock(now);
        let Some(link) = self.links.get_mut(&conn) else { return };
        match item {
            Item::Frame(bytes) => link.handle_bytes(&bytes, clock),
            Item::End => link.handle_closed("reset", clock),
        }
    }

    pub(crate) fn next(&self, now: u64) -> Option<u64> {
        if self.dead_until.is_some() {
            return self.dead_until;
        }
        let links = self.links.values().filter_map(ControllerLink::poll_timeout);
        let others = [self.world.poll_timeout(), self.channels.poll_timeout()].into_iter().flatten();
        links.chain(others).min().map(|at| at.0.saturating_sub(7_000_000).max(now))
    }

    pub(crate) fn handle_time(&mut self, now: u64) {
        if self.dead_until.is_some_and(|until| until <= now) {
            self.start(now);
        }
        if self.dead_until.is_some() {
            return;
        }
        let clock = self.clock(now);
        for link in self.links.values_mut() {
            link.handle_timeout(clock);
        }
        self.channels.handle_timeout(clock);
        let due = self.world.handle_timeout(clock);
        self.commit(&Actor::System, due, clock);
    }

    /// Moves everything that can move now.
    pub(crate) fn pump(&mut self, network: &mut Network, now: u64) {
        if self.dead_until.is_some() {
            return;
        }
        for round in 0.. {
            if round > 100_000 {
                self.errors.push("the controller never comes to rest".into());
                return;
            }
            let moved = self.pump_world(now) || self.pump_channels(now) || self.pump_links(network, now);
            if !moved {
                return;
            }
        }
    }

    fn pump_world(&mut self, now: u64) -> bool {
        let Some(effect) = self.world.poll_effect() else { return false };
        match effect {
            Effect::Push { .. } => {
                self.note_signed();
                self.push(now);
            }
            Effect::DropAgent { .. } => {
                for link in self.links.values_mut() {
                    link.handle_goodbye(thinlane_wire::GoodbyeReason::Frozen, "", Now::default());
                }
            }
            _ => {}
        }
        true
    }

    fn push(&mut self, now: u64) {
        let desired = self.desired();
        let clock = self.clock(now);
        let live = self.world.live_sessions(&self.site).any(|session| session.is_desired());
        if let Some(link) = self.channels.current().and_then(|conn| self.links.get_mut(&conn)) {
            link.handle_armed(live, clock);
            link.handle_desired(desired, clock);
        }
    }

    fn desired(&mut self) -> Desired {
        let desired = self.world.desired(&self.site);
        let mut grants = Vec::new();
        for grant in desired.grants {
            let preshared = self.preshared.get(&grant.session);
            let key = (grant.session, grant.serial, preshared.is_some());
            let signed = self.cache.entry(key).or_insert_with(|| self.signer.sign(&grant, preshared)).clone();
            grants.push(DesiredGrant { session: grant.session, serial: grant.serial, signed });
        }
        let withdrawn = desired.ending.into_iter().map(|(session, reason)| Withdrawn { session, reason }).collect();
        Desired { generation: desired.generation.max(1), grants, withdrawn }
    }

    fn pump_channels(&mut self, now: u64) -> bool {
        let Some(effect) = self.channels.poll_effect() else { return false };
        let clock = self.clock(now);
        match effect {
            ChannelEffect::Accept { conn, known } => {
                if let Some(boot) = self.links.get(&conn).and_then(|link| link.clock()).map(|clock| clock.boot) {
                    let hello = Command::Hello { boot, version: "0.1.0".into(), backend: None };
                    self.must(Actor::Agent(self.site), hello, now);
                }
                let desired = self.desired();
                if let Some(link) = self.links.get_mut(&conn) {
                    link.handle_accept(desired, known, clock);
                }
                self.push(now);
            }
            ChannelEffect::Probe { conn } => {
                if let Some(link) = self.links.get_mut(&conn) {
                    let nonce = link.handle_probe(clock);
                    self.channels.handle_probing(conn, nonce);
                }
            }
            ChannelEffect::Close { conn, reason, detail } => {
                if let Some(link) = self.links.get_mut(&conn) {
                    link.handle_goodbye(reason, detail, clock);
                }
            }
            ChannelEffect::Clone => self.errors.push("a gateway was taken for its own clone".into()),
        }
        true
    }

    fn pump_links(&mut self, network: &mut Network, now: u64) -> bool {
        let conns: Vec<ConnId> = self.links.keys().copied().collect();
        for conn in conns {
            let Some(link) = self.links.get_mut(&conn) else { continue };
            if let Some(event) = link.poll_event() {
                self.take_link_event(conn, event, now);
                return true;
            }
            if let Some(effect) = link.poll_effect() {
                match effect {
                    LinkEffect::Send(bytes) => {
                        network.send(conn, To::Gateway, Item::Frame(bytes), now, &mut self.random);
                    }
                    LinkEffect::Disconnect => {
                        network.send(conn, To::Gateway, Item::End, now, &mut self.random);
                        self.links.remove(&conn);
                        self.channels.handle_closed(conn, self.clock(now));
                    }
                }
                return true;
            }
        }
        false
    }

    fn take_link_event(&mut self, conn: ConnId, event: LinkEvent, now: u64) {
        let clock = self.clock(now);
        match event {
            LinkEvent::Hello(hello) => self.channels.handle_hello(conn, &hello, clock),
            LinkEvent::Message(frame) => {
                if self.channels.current() == Some(conn) {
                    self.take_message(conn, frame, now);
                }
            }
            LinkEvent::Probed { nonce } => self.channels.handle_answered(conn, nonce, clock),
            LinkEvent::Applied { .. } => {
                if let Some(known) = self.links.get(&conn).and_then(ControllerLink::known).cloned() {
                    self.channels.handle_applied(conn, known);
                }
            }
            LinkEvent::Diverged { generation } => {
                if !self.links.is_empty() {
                    self.errors.push(format!("the gateway's state at {generation} is another one"));
                }
            }
            LinkEvent::Down { .. } => {}
        }
    }

    fn take_message(&mut self, conn: ConnId, frame: AgentFrame, now: u64) {
        let agent = Actor::Agent(self.site);
        match frame.message {
            FromAgent::Armed(armed) => {
                let (session, serial, gateway_key) = (armed.session, armed.serial, armed.gateway_key);
                self.preshared.remove(&session);
                let (deadline, backend) = (armed.deadline, armed.backend);
                self.run(agent, Command::Armed { session, serial, gateway_key, deadline, backend }, now);
            }
            FromAgent::Refused(refused) => {
                if let Some(session) = refused.session {
                    let (serial, reason, detail) = (refused.serial, refused.reason, refused.detail);
                    self.run(agent, Command::Refuse { session, serial, reason, detail }, now);
                }
            }
            FromAgent::Closing(closing) => {
                let session = self.close(&closing, now);
                if let Some(session) = session.filter(|_| self.sabotage != Some(Sabotage::NeverAcknowledged)) {
                    self.answer(conn, &FromController::ClosingAck(session), now);
                }
            }
            FromAgent::Alarm(alarm) => {
                let number = alarm.number;
                let (boot, kind, detail) = (alarm.boot, alarm.kind, alarm.detail);
                self.run(agent, Command::AgentAlarm { number, boot, kind, detail }, now);
                self.answer(conn, &FromController::AlarmAck(number), now);
            }
            FromAgent::Status(status) => {
                let (isolated, why_not_ready, backend) = (status.isolated, status.why_not, Some(status.backend));
                self.run(agent, Command::Status { isolated, why_not_ready, backend, lan: status.lan }, now);
            }
            FromAgent::Counters(counts) => {
                for count in counts {
                    let seen = Observation { counters: count.counters, ..Observation::default() };
                    self.world.observe(&self.site, count.session, seen);
                }
            }
            other => self.errors.push(format!("not expected: {other:?}")),
        }
    }

    fn close(&mut self, closing: &SignedClosing, now: u64) -> Option<SessionId> {
        let record = match closing.verify(&self.identity) {
            Ok(record) => record,
            Err(error) => {
                self.errors.push(error.to_string());
                return None;
            }
        };
        let closing = Closing {
            session: record.session,
            reason: record.reason,
            counters: record.counters.counters,
            last_handshake_at: None,
            endpoint: None,
            late_packets: record.late_packets,
            verified: record.verified,
            record: BASE64.encode(&record.encode()),
            signature: BASE64.encode(&[0; 64]),
        };
        self.run(Actor::Agent(self.site), Command::Close(closing), now);
        Some(record.session)
    }

    fn answer(&mut self, conn: ConnId, message: &FromController, now: u64) {
        let clock = self.clock(now);
        if let Some(link) = self.links.get_mut(&conn) {
            link.handle_send(message, clock);
        }
    }

    /// Sessions of ours in this state's words, for messages of a failure.
    pub(crate) fn describe(&self) -> Vec<String> {
        let live = self.world.live_sessions(&self.site);
        live.map(|one| format!("{} {:?} serial {} until {:?}", one.id, one.state, one.serial, one.deadline)).collect()
    }

    /// The reason that a session ended with, once it has.
    pub(crate) fn ended(&self, session: SessionId) -> Option<EndReason> {
        self.world.session(&session).and_then(|session| session.end_reason)
    }
}
