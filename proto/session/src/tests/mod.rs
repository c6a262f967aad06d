//! A small controller around a world: a clock, a policy, a log and rows, checked after every step.

mod inventory;
mod lifecycle;
mod people;
mod random;
mod time;
mod ways;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use thinlane_model::{
    Boot, BootId, Counters, EndReason, Endpoint, Login, Now, PublicKey, RequestId, Role, Roles, SessionId, SiteId,
    SiteName, Span, Wall,
};
use thinlane_policy::PolicyState;
use thinlane_wire::api::{ErrorCode, RequestState, SessionState};

use super::*;

pub(super) const TASKS: &str = r#"
[task.modbus]
title = "Modbus"
protocol = "tcp"
port = 502
default = "30m"
max = "60m"

[task.ssh]
title = "SSH"
protocol = "tcp"
port = 22
"#;

pub(super) const RULES: &str = r#"
[[permit]]
id = "requesters"
role = ["requester"]
approvals = 1

[[permit]]
id = "free-meters"
role = ["requester"]
asset = { type = ["meter"] }
max = "10m"
approvals = 0

[[require]]
id = "externals"
external = true
approvals = 1
approver_role = ["ops"]
"#;

pub(super) const BOOT: BootId = BootId([7; 16]);

pub(super) struct Lab {
    pub world: World,
    pub log: Vec<Entry>,
    pub stored: BTreeMap<RowKey, Value>,
    pub effects: Vec<Effect>,
    pub policy: PolicyState,
    pub now: Now,
    pub relay: Option<Endpoint>,
    pub pools: Pools,
    counter: u64,
}

pub(super) fn name<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().expect("a well-formed name")
}

pub(super) fn person(login: &str) -> Actor {
    Actor::Person(name(login))
}

pub(super) fn key(number: u8) -> PublicKey {
    PublicKey::new([number; 32]).expect("not zero")
}

impl Lab {
    /// An empty controller with its policy loaded.
    pub fn empty() -> Self {
        let mut lab = Self {
            world: World::new(),
            log: Vec::new(),
            stored: BTreeMap::new(),
            effects: Vec::new(),
            policy: PolicyState::load(&[("tasks.toml", TASKS), ("rules.toml", RULES)]),
            now: Now { mono: Boot(5_000_000), wall: Wall::from_millis(1_800_000_000_000) },
            relay: Some(name("relay.example:7443")),
            pools: Pools::default(),
            counter: 0,
        };
        lab.take(Actor::System, Command::PolicyChanged);
        lab
    }

    /// People of each role, the site `north` with its gateway, a PLC and a meter.
    pub fn new() -> Self {
        let mut lab = Self::empty();
        for (login, role) in [
            ("root", Role::Admin),
            ("alice", Role::Requester),
            ("adam", Role::Requester),
            ("bob", Role::Approver),
            ("carol", Role::Approver),
            ("otto", Role::Ops),
            ("tina", Role::SiteTech),
            ("rita", Role::Auditor),
        ] {
            lab.add_person(login, &[role], None);
        }
        lab.add_person("vera", &[Role::Requester], Some("acme"));
        lab.add_site("north");
        lab.add_asset("plc-1", "north", "192.168.1.10", "plc");
        lab.add_asset("meter-1", "north", "192.168.1.11", "meter");
        lab
    }

    pub fn add_person(&mut self, login: &str, roles: &[Role], org: Option<&str>) {
        let new = NewPerson {
            login: name(login),
            name: format!("{login} of the lab"),
            org: org.map(name),
            sponsor: org.map(|_| name("root")),
            roles: Roles::from_iter(roles.iter().copied()),
            until: None,
        };
        self.take(Actor::System, Command::AddPerson(new));
    }

    /// A site whose gateway is enrolled and ready.
    pub fn add_site(&mut self, site: &str) -> SiteId {
        let answer = self.take(person("tina"), Command::AddSite { name: name(site), endpoint: None });
        let Answer::Site(id) = answer else { panic!("{answer:?}") };
        self.counter += 1;
        let code_hash = format!("{:064x}", self.counter);
        self.take(person("tina"), Command::IssueCode { site: name(site), code_hash: code_hash.clone() });
        let certificate = Certificate { serial: format!("{:x}", self.counter), not_after: self.now.wall + days(90) };
        self.take(Actor::System, Command::Enrol { code_hash, certificate, version: "0.1.0".to_owned() });
        self.hello(&id, BOOT);
        id
    }

    pub fn hello(&mut self, site: &SiteId, boot: BootId) {
        let backend = Some("userspace".to_owned());
        self.take(Actor::Agent(*site), Command::Hello { boot, version: "0.1.0".to_owned(), backend });
    }

    pub fn add_asset(&mut self, asset: &str, site: &str, address: &str, kind: &str) {
        self.take(person("tina"), Command::AddAsset(spec(asset, site, address, kind)));
    }

    pub fn site(&self, site: &str) -> SiteId {
        self.world.site_named(&name::<SiteName>(site)).expect("a known site").id
    }

    /// Decides, logs, applies, stores; refused attempts leave their entry too.
    pub fn run(&mut self, actor: Actor, command: Command) -> Result<Answer, Refusal> {
        let mut seed = self.counter;
        let mut random = |bytes: &mut [u8]| {
            for byte in bytes {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = (seed >> 56) as u8;
            }
        };
        let mut ctx = Context {
            now: self.now,
            policy: &self.policy,
            relay: self.relay.as_ref(),
            pools: self.pools,
            random: &mut random,
        };
        let decided = self.world.decide(&actor, command, &mut ctx);
        self.counter = seed;
        match decided {
            Ok(decided) => {
                self.commit(&actor, decided.events);
                Ok(decided.answer)
            }
            Err(refused) => {
                self.commit(&actor, refused.events);
                Err(refused.refusal)
            }
        }
    }

    pub fn commit(&mut self, actor: &Actor, events: Vec<Event>) {
        for event in events {
            let entry = Entry::new(self.now.wall, actor.clone(), event);
            self.world.apply(&entry, self.now.mono);
            self.log.push(entry);
        }
        for (key, row) in self.world.take_changed_rows() {
            match row {
                Some(row) => drop(self.stored.insert(key, row)),
                None => drop(self.stored.remove(&key)),
            }
        }
        self.effects.extend(std::iter::from_fn(|| self.world.poll_effect()));
        self.check();
    }

    /// A command that must be taken.
    pub fn take(&mut self, actor: Actor, command: Command) -> Answer {
        let what = format!("{actor}: {command:?}");
        self.run(actor, command).unwrap_or_else(|refusal| panic!("{what}\nrefused: {refusal}"))
    }

    /// A command that must be refused, with this code.
    pub fn refuse(&mut self, actor: Actor, command: Command, code: ErrorCode) -> Refusal {
        let what = format!("{actor}: {command:?}");
        match self.run(actor, command) {
            Ok(answer) => panic!("{what}\nwas taken: {answer:?}"),
            Err(refusal) => {
                assert_eq!(refusal.code(), code, "{what}\n{refusal}");
                refusal
            }
        }
    }

    /// Both clocks go on, and what is due happens.
    pub fn wait(&mut self, span: Span) {
        self.now.mono = self.now.mono + span;
        self.now.wall = self.now.wall + span;
        let due = self.world.handle_timeout(self.now);
        self.commit(&Actor::System, due);
        assert!(self.world.handle_timeout(self.now).is_empty(), "what was due has happened");
    }

    pub fn request(&mut self, who: &str, asset: &str, seconds: Option<u64>) -> RequestId {
        let new = wish(asset, seconds);
        match self.take(person(who), Command::CreateRequest(new)) {
            Answer::Request(id) => id,
            other => panic!("{other:?}"),
        }
    }

    pub fn approved(&mut self, who: &str, asset: &str, seconds: u64) -> RequestId {
        let request = self.request(who, asset, Some(seconds));
        if self.request_state(request) == RequestState::Pending {
            self.take(person("bob"), Command::ApproveRequest { request, note: None });
        }
        assert_eq!(self.request_state(request), RequestState::Approved);
        request
    }

    pub fn clock(&self) -> AgentClock {
        AgentClock { boot: BOOT, time: Boot(self.now.mono.0 - 4_000_000) }
    }

    pub fn activate(&mut self, who: &str, request: RequestId, engineer: u8) -> SessionId {
        let clock = self.clock();
        let command = Command::Activate { request, engineer_key: key(engineer), native: false, clock };
        match self.take(person(who), command) {
            Answer::Session(id) => id,
            other => panic!("{other:?}"),
        }
    }

    pub fn arm(&mut self, id: SessionId, gateway: u8) {
        let session = self.session(id);
        let (site, serial, deadline) = (session.site, session.serial, session.deadline);
        let backend = "userspace".to_owned();
        let command = Command::Armed { session: id, serial, gateway_key: key(gateway), deadline, backend };
        self.take(Actor::Agent(site), command);
    }

    /// A lane of alice to `plc-1`, open for so many seconds.
    pub fn open(&mut self, seconds: u64) -> SessionId {
        let request = self.approved("alice", "plc-1", seconds);
        let session = self.activate("alice", request, 1);
        self.arm(session, 101);
        assert_eq!(self.session(session).state, SessionState::Active);
        session
    }

    pub fn closing(&self, id: SessionId, reason: EndReason) -> Closing {
        Closing {
            session: id,
            reason,
            counters: Counters { up_packets: 9, up_bytes: 900, ..Counters::default() },
            last_handshake_at: None,
            endpoint: None,
            late_packets: 1,
            verified: true,
            record: "cmVjb3Jk".to_owned(),
            signature: "c2lnbmF0dXJl".to_owned(),
        }
    }

    pub fn close(&mut self, id: SessionId, reason: EndReason) {
        let (site, closing) = (self.session(id).site, self.closing(id, reason));
        self.take(Actor::Agent(site), Command::Close(closing));
    }

    pub fn session(&self, id: SessionId) -> &Session {
        self.world.session(&id).expect("a known session")
    }

    pub fn request_state(&self, id: RequestId) -> RequestState {
        self.world.request(&id).expect("a known request").state
    }

    /// State and reason of a session that ends or has ended.
    pub fn end(&self, id: SessionId) -> (SessionState, Option<EndReason>) {
        let session = self.session(id);
        (session.state, session.end_reason.or(session.ending.as_ref().map(|ending| ending.reason)))
    }

    pub fn kinds(&self) -> Vec<String> {
        self.log.iter().map(kind).collect()
    }

    /// What holds after every step.
    fn check(&self) {
        let live: Vec<&Session> = self.world.sessions().filter(|session| session.is_live()).collect();
        let engineers: BTreeSet<_> = live.iter().map(|session| session.engineer).collect();
        assert_eq!(engineers.len(), live.len(), "two live sessions share a /32");
        let mut keys = BTreeSet::new();
        for key in live.iter().flat_map(|session| [Some(session.engineer_key), session.gateway_key]).flatten() {
            assert!(keys.insert(key), "two live ends share a key");
        }
        for session in self.world.sessions() {
            let request = self.world.request(&session.request).expect("its request");
            assert_eq!((request.state, request.session), (RequestState::Used, Some(session.id)));
            assert!(session.ends_at <= session.created_at + Span::from_secs(session.seconds));
            assert!(request.decision.is_permit() && request.approvals.iter().all(|it| it.by != request.user));
        }
        for request in self.world.requests() {
            assert!(request.state != RequestState::Used || request.session.is_some());
        }
        let rows: BTreeMap<RowKey, Value> = self.world.rows().collect();
        assert_eq!(self.stored, rows, "rows that were written are the rows there are");
    }

    /// The log alone, and the rows alone, give the same world again.
    pub fn check_replay(&self) {
        let mut replayed = World::new();
        for entry in &self.log {
            let text = serde_json::to_string(entry).expect("an entry is JSON");
            let value: Value = serde_json::from_str(&text).expect("JSON");
            assert!(exact(&value), "an integer beyond 2^53, or a float: {text}");
            let back: Entry = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert_eq!(&back, entry, "an entry reads back as itself");
            replayed.replay(&back);
        }
        assert_eq!(replayed.poll_effect(), None, "the past has no effects");
        let rows = |world: &World| world.rows().collect::<Vec<_>>();
        assert_eq!(rows(&replayed), rows(&self.world));
        let read = World::from_rows(self.world.rows().map(|(key, value)| (key.kind, key.id, value)));
        assert_eq!(rows(&read.expect("its own rows")), rows(&self.world));
    }
}

fn exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            let bound = 1u64 << 53;
            number.as_u64().is_some_and(|number| number < bound)
                || number.as_i64().is_some_and(|number| number.unsigned_abs() < bound)
        }
        Value::Array(items) => items.iter().all(exact),
        Value::Object(map) => map.values().all(exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

pub(super) fn kind(entry: &Entry) -> String {
    let value = serde_json::to_value(entry).expect("an entry is JSON");
    value["kind"].as_str().expect("every entry has a kind").to_owned()
}

pub(super) fn wish(asset: &str, seconds: Option<u64>) -> NewRequest {
    NewRequest {
        asset: name(asset),
        task: name("modbus"),
        seconds,
        reason: "pump stopped".to_owned(),
        ticket: Some("CHG-12".to_owned()),
        not_before: None,
    }
}

pub(super) fn spec(asset: &str, site: &str, address: &str, kind: &str) -> AssetSpec {
    AssetSpec {
        asset: name(asset),
        site: name(site),
        address: name(address),
        kind: name(kind),
        criticality: Default::default(),
        labels: BTreeMap::new(),
        keep_source: false,
    }
}

pub(super) fn secs(secs: u64) -> Span {
    Span::from_secs(secs)
}

pub(super) fn days(days: u64) -> Span {
    Span::from_secs(days * 86_400)
}

pub(super) fn login(text: &str) -> Login {
    name(text)
}
