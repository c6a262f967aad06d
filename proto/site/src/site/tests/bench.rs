//! A gateway for tests: a kernel of three maps that can be told to fail, and a controller that signs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ed25519_dalek::{Signer, SigningKey};
use thinlane_model::{
    Boot, BootId, Counters, EndReason, Grant, Limits, Now, PolicyRef, Protocol, PublicKey, RefuseReason, Secret,
    SessionId, Span, Tuple, Wall,
};
use thinlane_wire::*;

use crate::*;

pub(super) const MINUTE: u64 = 60_000;

pub(super) struct Bench {
    pub(super) now: Now,
    pub(super) site: Site,
    pub(super) config: SiteConfig,
    /// Deadlines by session, as the kernel and the device hold them.
    pub(super) lanes: BTreeMap<SessionId, Boot>,
    pub(super) devices: BTreeMap<SessionId, Boot>,
    pub(super) routes: BTreeSet<SessionId>,
    pub(super) keys: BTreeSet<SessionId>,
    pub(super) counters: BTreeMap<SessionId, Counters>,
    pub(super) saved: Option<SavedState>,
    /// Names of steps that fail.
    pub(super) failing: BTreeSet<&'static str>,
    pub(super) steps: Vec<&'static str>,
    pub(super) sent: Vec<FromAgent>,
    pub(super) events: Vec<SiteEvent>,
    generation: u64,
}

pub(super) fn signer() -> GrantSigner {
    GrantSigner::new(SigningKey::from_bytes(&[1; 32]))
}

pub(super) fn identity() -> SigningKey {
    SigningKey::from_bytes(&[2; 32])
}

pub(super) fn session(byte: u8) -> SessionId {
    SessionId::from_random([byte; 5])
}

pub(super) fn site_config() -> SiteConfig {
    SiteConfig {
        site: "site_00000001".parse().expect("an id"),
        boot: BootId([1; 16]),
        verifier: GrantVerifier::new([signer().verifying_key()]),
        ceilings: Ceilings::default(),
        most_lanes: 64,
        backend: "userspace".into(),
        isolated: false,
    }
}

/// A grant for ten minutes from the bench's beginning.
pub(super) fn grant(byte: u8, serial: u64) -> Grant {
    Grant {
        serial,
        site: site_config().site,
        boot: site_config().boot,
        session: session(byte),
        asset: "rtu-7".parse().expect("a name"),
        task: "iec104".parse().expect("a name"),
        engineer_key: PublicKey::new([byte.max(1); 32]).expect("not zero"),
        tuple: Tuple {
            engineer: Ipv4Addr::new(198, 19, 0, byte),
            destination: Ipv4Addr::new(198, 18, 0, 7),
            address: Ipv4Addr::new(192, 168, 1, 10),
            protocol: Protocol::Tcp,
            port: 2404,
        },
        keep_source: false,
        limits: Limits::NONE,
        deadline: Boot(100 * MINUTE + 10 * MINUTE),
        offline: Span::from_secs(900),
        idle: None,
        policy: PolicyRef { id: "all".into(), hash: "ab".into() },
        relay: Some("relay:7443".parse().expect("an endpoint")),
    }
}

pub(super) fn sign(grant: &Grant) -> SignedGrant {
    signer().sign(grant, Some(&Secret::new([9; 32])))
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(site_config())
    }

    /// A gateway whose base stands and whose channel is up.
    pub(super) fn with(config: SiteConfig) -> Self {
        let now = Now { mono: Boot(100 * MINUTE), wall: Wall::from_millis(1_795_000_000_000) };
        let site = Site::new(config.clone(), None, now);
        let mut bench = Self {
            now,
            site,
            config,
            lanes: BTreeMap::new(),
            devices: BTreeMap::new(),
            routes: BTreeSet::new(),
            keys: BTreeSet::new(),
            counters: BTreeMap::new(),
            saved: None,
            failing: BTreeSet::new(),
            steps: vec![],
            sent: vec![],
            events: vec![],
            generation: 0,
        };
        bench.site.handle_channel(true, bench.now);
        bench.run();
        bench.clear();
        bench
    }

    pub(super) fn clear(&mut self) {
        self.steps.clear();
        self.sent.clear();
        self.events.clear();
    }

    /// The agent dies and starts again, in the same boot or another; the kernel keeps what it had.
    pub(super) fn restart(&mut self, boot: BootId) {
        self.devices.clear();
        self.config.boot = boot;
        self.clear();
        self.site = Site::new(self.config.clone(), self.saved.clone(), self.now);
        self.run();
    }

    pub(super) fn run(&mut self) {
        self.collect();
        while self.step() {}
    }

    /// Performs one step; `false`: there was none.
    pub(super) fn step(&mut self) -> bool {
        let Some(effect) = self.site.poll_effect() else { return false };
        assert!(self.site.poll_effect().is_none(), "one at a time");
        self.steps.push(effect.step.name());
        let outcome = if self.failing.contains(effect.step.name()) {
            Err(StepError(format!("{} fails", effect.step.name())))
        } else {
            self.perform(effect.step)
        };
        self.site.handle_done(effect.id, outcome, self.now);
        self.collect();
        assert!(self.steps.len() < 100_000, "it never comes to rest");
        true
    }

    fn perform(&mut self, step: Step) -> Outcome {
        match step {
            Step::RebuildBase => {
                self.lanes.clear();
                self.routes.clear();
            }
            Step::RemoveAllPeers => {
                let finals = self.devices.keys().map(|one| (*one, self.counters.remove(one).unwrap_or_default()));
                let finals = finals.collect();
                self.devices.clear();
                return Ok(Done::Finals(finals));
            }
            Step::Keys { session, preshared } => {
                if preshared.is_none() && !self.keys.contains(&session) {
                    return Err(StepError("no preshared key".into()));
                }
                self.keys.insert(session);
                return Ok(Done::Public(PublicKey::new([7; 32]).expect("not zero")));
            }
            Step::OpenDevice { grant, .. } => {
                assert!(self.saved.as_ref().is_some_and(|saved| {
                    saved.lanes.iter().any(|lane| lane.grant.peek() == Some((grant.session, grant.serial)))
                }));
                self.devices.insert(grant.session, grant.deadline);
            }
            Step::AddRoute { grant } => {
                self.routes.insert(grant.session);
            }
            Step::OpenLane { grant } => {
                self.lanes.insert(grant.session, grant.deadline);
            }
            Step::ReadBack { grant } => {
                assert_eq!(self.lanes.get(&grant.session), Some(&grant.deadline));
                assert_eq!(self.devices.get(&grant.session), Some(&grant.deadline));
            }
            Step::ExtendLane { session, deadline } => {
                let before = self.lanes.insert(session, deadline).expect("it stands");
                assert!(deadline > before);
            }
            Step::ExtendDevice { session, deadline } => {
                self.devices.insert(session, deadline).expect("it stands");
            }
            Step::ShutDevice { session } => {
                let counters = self.counters.remove(&session).unwrap_or_default();
                let there = self.devices.remove(&session).is_some();
                return Ok(Done::Final(there.then_some((counters, 2))));
            }
            Step::CloseLane { session } => {
                self.lanes.remove(&session);
            }
            Step::RemovePeer { session } => {
                self.devices.remove(&session);
                self.keys.remove(&session);
            }
            Step::DropFlows { .. } => {}
            Step::RemoveRoute { session, .. } => {
                self.routes.remove(&session);
            }
            Step::ReadBackClosed { session, .. } => {
                let left = self.lanes.contains_key(&session) || self.routes.contains(&session);
                if left {
                    return Err(StepError("something is left".into()));
                }
            }
            Step::SignClosing { message, .. } => {
                return Ok(Done::Signature(identity().sign(&message).to_bytes()));
            }
            Step::Persist(state) => {
                let text = serde_json::to_string(&state).expect("plain data");
                self.saved = Some(serde_json::from_str(&text).expect("its own output"));
            }
        }
        Ok(Done::Plain)
    }

    pub(super) fn collect(&mut self) {
        while let Some(event) = self.site.poll_event() {
            match event {
                SiteEvent::Send(message) => self.sent.push(message),
                other => self.events.push(other),
            }
        }
    }

    pub(super) fn message(&mut self, message: FromController) {
        assert_eq!(self.site.handle_message(message, self.now), None);
        self.run();
    }

    /// A snapshot of exactly these grants.
    pub(super) fn want(&mut self, grants: &[Grant]) {
        self.want_signed(grants.iter().map(sign).collect());
    }

    pub(super) fn want_signed(&mut self, grants: Vec<SignedGrant>) {
        self.generation += 1;
        let generation = self.generation;
        self.message(FromController::Snapshot(Snapshot { generation, grants, withdrawn: vec![] }));
    }

    pub(super) fn delta(&mut self, grants: &[Grant], withdrawn: &[(u8, EndReason)]) {
        let from_generation = self.generation;
        self.generation += 1;
        let withdrawn = withdrawn.iter().map(|(byte, reason)| Withdrawn { session: session(*byte), reason: *reason });
        self.message(FromController::Delta(Delta {
            from_generation,
            generation: self.generation,
            grants: grants.iter().map(sign).collect(),
            withdrawn: withdrawn.collect(),
        }));
    }

    pub(super) fn pass(&mut self, span: Span) {
        let until = self.now.mono + span;
        self.run();
        while let Some(next) = self.site.poll_timeout().filter(|next| *next <= until) {
            assert!(next > self.now.mono || self.site.poll_timeout() != Some(next) || next == self.now.mono);
            self.now.mono = next.max(self.now.mono);
            self.site.handle_timeout(self.now);
            self.run();
            assert!(
                self.site.poll_timeout() > Some(self.now.mono) || self.site.poll_timeout().is_none(),
                "a busy loop"
            );
        }
        self.now.mono = until;
    }

    pub(super) fn count(&mut self, byte: u8, up_packets: u64) {
        self.count_by(byte, up_packets, false);
    }

    /// `merged`: the kernel counts.
    pub(super) fn count_by(&mut self, byte: u8, up_packets: u64, merged: bool) {
        let counters = Counters { up_packets, up_bytes: up_packets * 100, ..Counters::default() };
        self.counters.insert(session(byte), counters);
        let count = LaneCount {
            session: session(byte),
            counters,
            handshake_age: Some(Span::from_secs(1)),
            endpoint: None,
            merged,
        };
        self.site.handle_counters(&[count], self.now);
        self.run();
    }

    /// The engineer is heard from there.
    pub(super) fn see(&mut self, byte: u8, endpoint: &str) {
        let count = LaneCount {
            session: session(byte),
            counters: Counters::default(),
            handshake_age: Some(Span::from_secs(1)),
            endpoint: Some(endpoint.to_owned()),
            merged: false,
        };
        self.site.handle_counters(&[count], self.now);
        self.run();
    }

    pub(super) fn is_open(&self, byte: u8) -> bool {
        let session = session(byte);
        self.lanes.contains_key(&session) && self.devices.contains_key(&session) && self.routes.contains(&session)
    }

    /// Nothing of any lane is left anywhere.
    pub(super) fn is_clean(&self) -> bool {
        self.lanes.is_empty() && self.devices.is_empty() && self.routes.is_empty() && self.keys.is_empty()
    }

    pub(super) fn armed(&self) -> Vec<(SessionId, u64, Boot)> {
        let armed = |message: &FromAgent| match message {
            FromAgent::Armed(armed) => Some((armed.session, armed.serial, armed.deadline)),
            _ => None,
        };
        self.sent.iter().filter_map(armed).collect()
    }

    pub(super) fn refused(&self) -> Vec<(Option<SessionId>, u64, RefuseReason)> {
        let refused = |message: &FromAgent| match message {
            FromAgent::Refused(refused) => Some((refused.session, refused.serial, refused.reason)),
            _ => None,
        };
        self.sent.iter().filter_map(refused).collect()
    }

    /// Closing records that were sent, with a good signature.
    pub(super) fn records(&self) -> Vec<ClosingRecord> {
        let record = |message: &FromAgent| match message {
            FromAgent::Closing(closing) => Some(closing.verify(&identity().verifying_key()).expect("signed")),
            _ => None,
        };
        self.sent.iter().filter_map(record).collect()
    }

    pub(super) fn alarms(&self) -> Vec<String> {
        let kind = |message: &FromAgent| match message {
            FromAgent::Alarm(alarm) => Some(alarm.kind.clone()),
            _ => None,
        };
        self.sent.iter().filter_map(kind).collect()
    }
}
