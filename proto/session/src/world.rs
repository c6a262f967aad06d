//! The controller's whole state, and what it answers without changing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use thinlane_model::{
    AssetName, Boot, Counters, Endpoint, EnrolmentId, LockId, Login, Now, PublicKey, RequestId, SessionId, SiteId,
    SiteName, Span, Wall,
};
use thinlane_policy::PolicyState;
use thinlane_wire::api::{RequestState, SessionState};

use crate::timer::{APPROVED_LIFE, GRACE, Timer, Timers};
use crate::{
    Actor, Agent, Answer, Asset, Command, Desired, Effect, Enrolment, Entry, Event, Lock, LockTarget, Observation,
    Person, Pools, Refused, Request, RowKey, RowKind, Session, Site,
};

/// An engineer's address rests this long after its session.
pub(crate) const REST: Span = Span::from_secs(600);

/// People, sites, assets, requests, sessions, locks, codes and gateways, and what follows from them.
#[derive(Debug, Clone, Default)]
pub struct World {
    pub(crate) people: BTreeMap<Login, Person>,
    pub(crate) sites: BTreeMap<SiteId, Site>,
    pub(crate) agents: BTreeMap<SiteId, Agent>,
    pub(crate) assets: BTreeMap<AssetName, Asset>,
    pub(crate) requests: BTreeMap<RequestId, Request>,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) locks: BTreeMap<LockId, Lock>,
    pub(crate) enrolments: BTreeMap<EnrolmentId, Enrolment>,
    pub(crate) meta: Meta,
    /// Derived from the rows above, kept by the `put_` functions alone.
    pub(crate) index: Index,

    // What a restart forgets or recomputes.
    pub(crate) timers: Timers,
    pub(crate) effects: VecDeque<Effect>,
    pub(crate) observed: BTreeMap<SessionId, Observation>,
    pub(crate) dirty: BTreeSet<RowKey>,
}

/// What belongs to no single thing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Meta {
    /// Of the last grant.
    pub serial: u64,
    /// The engineer's address handed out last.
    pub engineer_cursor: Option<Ipv4Addr>,
    /// The hash of the policy in force; `None`: invalid, or none yet.
    pub policy: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    pub site_names: BTreeMap<SiteName, SiteId>,
    pub overlay: BTreeMap<Ipv4Addr, AssetName>,
    pub site_assets: BTreeMap<(SiteId, Ipv4Addr), AssetName>,
    pub live: BTreeMap<SiteId, BTreeSet<SessionId>>,
    pub engineers: BTreeMap<Ipv4Addr, SessionId>,
    /// Addresses that were used lately, and until when they rest.
    pub resting: BTreeMap<Ipv4Addr, Wall>,
    /// Both ends' keys of live sessions.
    pub keys: BTreeMap<PublicKey, SessionId>,
    pub lock_of: BTreeMap<LockTarget, LockId>,
    /// Pending and approved requests of each person.
    pub open_requests: BTreeMap<Login, BTreeSet<RequestId>>,
    pub certificates: BTreeMap<String, SiteId>,
    pub codes: BTreeMap<String, EnrolmentId>,
}

/// What a decision depends on besides the world.
pub struct Context<'a> {
    pub now: Now,
    pub policy: &'a PolicyState,
    /// Where both ends of a relayed lane send; `None`: there is no relay.
    pub relay: Option<&'a Endpoint>,
    pub pools: Pools,
    /// Fills a buffer with fresh random bytes.
    pub random: &'a mut dyn FnMut(&mut [u8]),
}

/// A command that was taken: log and apply the events, then give the answer.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Decided {
    /// May be empty: nothing changed.
    pub events: Vec<Event>,
    pub answer: Answer,
}

impl World {
    pub fn new() -> Self {
        Self::default()
    }

    /// Decides one command and changes nothing.
    pub fn decide(&self, actor: &Actor, command: Command, ctx: &mut Context<'_>) -> Result<Decided, Refused> {
        crate::decide::decide(self, actor, command, ctx)
    }

    /// Applies one entry; total. `mono` is this machine's boot clock, from which timers run.
    pub fn apply(&mut self, entry: &Entry, mono: Boot) {
        crate::apply::apply(self, entry, Some(Now { mono, wall: entry.time }));
    }

    /// Applies one entry of the past: no effects, no timers.
    pub fn replay(&mut self, entry: &Entry) {
        crate::apply::apply(self, entry, None);
        self.effects.clear();
    }

    /// The next thing to do; poll after the commit until there is none.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// After a start: sets all timers from the wall clock, and gives the effects that put relay and gateways
    /// where the rows say they are.
    pub fn effects_after_restart(&mut self, now: Now) {
        self.timers.clear();
        self.effects.clear();
        let requests: Vec<_> = self.requests.values().map(|it| (Timer::Request(it.id), request_due(it))).collect();
        let sessions: Vec<_> = self.sessions.values().map(|it| (Timer::Session(it.id), session_due(it))).collect();
        let locks: Vec<_> = self.locks.values().map(|it| (Timer::Lock(it.id), it.until)).collect();
        for (timer, due) in requests.into_iter().chain(sessions).chain(locks) {
            self.timers.put(timer, due, now);
        }
        let live: Vec<(SiteId, SessionId)> =
            self.index.live.iter().flat_map(|(site, ids)| ids.iter().map(|id| (*site, *id))).collect();
        let mut sites = BTreeSet::new();
        for (site, id) in live {
            sites.insert(site);
            let open = self.sessions.get(&id).filter(|session| session.is_desired() && session.relay.is_some());
            if let Some((engineer, gateway)) = open.map(|session| (session.engineer_key, session.gateway_key)) {
                let until = self.relay_until(id, now);
                self.effects.push_back(Effect::RelayOpen { session: id, engineer, gateway, until });
            }
        }
        self.effects.extend(sites.into_iter().map(|site| Effect::Push { site }));
    }

    /// What should be open at a site now.
    pub fn desired(&self, site: &SiteId) -> Desired {
        let generation = self.sites.get(site).map_or(0, |site| site.generation);
        let sessions = || self.live_sessions(site);
        Desired {
            grants: sessions().filter(|session| session.is_desired()).map(Session::grant).collect(),
            generation,
            ending: sessions().filter_map(|session| Some((session.id, session.ending.as_ref()?.reason))).collect(),
        }
    }

    /// Takes what a gateway reports of a running session: counters only ever rise. `false`: not a live session there.
    pub fn observe(&mut self, site: &SiteId, id: SessionId, seen: Observation) -> bool {
        if !self.sessions.get(&id).is_some_and(|session| session.is_live() && session.site == *site) {
            return false;
        }
        let old = self.observed.entry(id).or_default();
        old.counters = larger(old.counters, crate::decide::bounded(seen.counters));
        old.last_handshake_at = old.last_handshake_at.max(crate::decide::plausible(seen.last_handshake_at));
        old.endpoint = seen.endpoint.or(old.endpoint.take());
        old.merged = seen.merged;
        old.path = seen.path.or(old.path);
        true
    }
    /// Takes where the relay saw a running session's engineer last, before it forgets.
    pub fn saw(&mut self, id: SessionId, endpoint: String) {
        if self.sessions.get(&id).is_some_and(Session::is_live) {
            self.observed.entry(id).or_default().endpoint = Some(endpoint);
        }
    }
}

fn larger(one: Counters, other: Counters) -> Counters {
    Counters {
        up_packets: one.up_packets.max(other.up_packets),
        up_bytes: one.up_bytes.max(other.up_bytes),
        down_packets: one.down_packets.max(other.down_packets),
        down_bytes: one.down_bytes.max(other.down_bytes),
        denied_packets: one.denied_packets.max(other.denied_packets),
        spoofed_packets: one.spoofed_packets.max(other.spoofed_packets),
    }
}

/// Look-ups.
impl World {
    pub fn person(&self, login: &Login) -> Option<&Person> {
        self.people.get(login)
    }

    pub fn people(&self) -> impl Iterator<Item = &Person> {
        self.people.values()
    }

    pub fn site(&self, id: &SiteId) -> Option<&Site> {
        self.sites.get(id)
    }

    pub fn site_named(&self, name: &SiteName) -> Option<&Site> {
        self.sites.get(self.index.site_names.get(name)?)
    }

    pub fn sites(&self) -> impl Iterator<Item = &Site> {
        self.sites.values()
    }

    pub fn agent(&self, site: &SiteId) -> Option<&Agent> {
        self.agents.get(site)
    }

    /// The site whose gateway may log in with this certificate serial (lower-case hexadecimal).
    pub fn site_of_certificate(&self, serial: &str) -> Option<SiteId> {
        self.index.certificates.get(serial).copied()
    }

    /// The site for which a code is good now, to issue its certificate before [`Command::Enrol`].
    pub fn site_of_code(&self, code_hash: &str, now: Wall) -> Option<SiteId> {
        self.usable_code(code_hash, now).map(|code| code.site)
    }

    pub(crate) fn usable_code(&self, code_hash: &str, now: Wall) -> Option<&Enrolment> {
        let code = self.enrolments.get(self.index.codes.get(code_hash)?)?;
        (code.used_at.is_none() && now < code.expires_at).then_some(code)
    }

    pub fn asset(&self, name: &AssetName) -> Option<&Asset> {
        self.assets.get(name)
    }

    pub fn assets(&self) -> impl Iterator<Item = &Asset> {
        self.assets.values()
    }

    pub fn request(&self, id: &RequestId) -> Option<&Request> {
        self.requests.get(id)
    }

    pub fn requests(&self) -> impl Iterator<Item = &Request> {
        self.requests.values()
    }

    pub fn session(&self, id: &SessionId) -> Option<&Session> {
        self.sessions.get(id)
    }

    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values()
    }

    /// Live sessions of one site, `ending` ones included.
    pub fn live_sessions(&self, site: &SiteId) -> impl Iterator<Item = &Session> {
        self.index.live.get(site).into_iter().flatten().filter_map(|id| self.sessions.get(id))
    }

    /// All live sessions.
    pub fn all_live_sessions(&self) -> impl Iterator<Item = &Session> {
        self.index.live.values().flatten().filter_map(|id| self.sessions.get(id))
    }

    pub fn locks(&self) -> impl Iterator<Item = &Lock> {
        self.locks.values()
    }

    pub fn lock_of(&self, target: &LockTarget) -> Option<&Lock> {
        self.locks.get(self.index.lock_of.get(target)?)
    }

    /// The hash of the policy in force.
    pub fn policy_hash(&self) -> Option<&str> {
        self.meta.policy.as_deref()
    }

    pub fn observation(&self, id: &SessionId) -> Option<&Observation> {
        self.observed.get(id)
    }

    pub(crate) fn relay_until(&self, id: SessionId, now: Now) -> Boot {
        let ends_at = self.sessions.get(&id).map_or(now.wall, |session| session.ends_at);
        self.timers.on_boot_clock(Timer::Session(id), ends_at, now)
    }
}

pub(crate) fn request_due(request: &Request) -> Option<Wall> {
    match request.state {
        RequestState::Pending | RequestState::Approved => request.lapses_at,
        RequestState::Denied | RequestState::Withdrawn | RequestState::Lapsed | RequestState::Used => None,
    }
}

pub(crate) fn session_due(session: &Session) -> Option<Wall> {
    match session.state {
        SessionState::Arming => Some(session.arm_by.min(session.ends_at + GRACE)),
        SessionState::Active | SessionState::Ending => Some(session.ends_at + GRACE),
        SessionState::Ended => None,
    }
}

/// When an approval given now lapses.
pub(crate) fn lapse_of_approval(request: &Request, now: Wall) -> Wall {
    request.not_before.map_or(now, |from| from.max(now)) + APPROVED_LIFE
}

/// The only functions that change a row: each keeps the index in step and marks the row as changed.
impl World {
    fn touch(&mut self, kind: RowKind, id: impl ToString) {
        self.dirty.insert(RowKey { kind, id: id.to_string() });
    }

    pub(crate) fn put_meta(&mut self, change: impl FnOnce(&mut Meta)) {
        change(&mut self.meta);
        self.touch(RowKind::Meta, "controller");
    }

    pub(crate) fn put_person(&mut self, person: Person) {
        self.touch(RowKind::User, &person.login);
        self.people.insert(person.login.clone(), person);
    }

    pub(crate) fn put_site(&mut self, site: Site) {
        self.touch(RowKind::Site, site.id);
        self.index.site_names.insert(site.name.clone(), site.id);
        self.sites.insert(site.id, site);
    }

    pub(crate) fn put_agent(&mut self, agent: Agent) {
        self.touch(RowKind::Agent, agent.site);
        for old in self.agents.get(&agent.site).into_iter().flat_map(|old| &old.certificates) {
            self.index.certificates.remove(&old.serial);
        }
        for new in &agent.certificates {
            self.index.certificates.insert(new.serial.clone(), agent.site);
        }
        self.agents.insert(agent.site, agent);
    }

    pub(crate) fn put_asset(&mut self, asset: Asset) {
        self.touch(RowKind::Asset, &asset.asset);
        self.index.overlay.insert(asset.overlay_address, asset.asset.clone());
        self.index.site_assets.insert((asset.site, asset.address), asset.asset.clone());
        self.assets.insert(asset.asset.clone(), asset);
    }

    pub(crate) fn remove_asset(&mut self, name: &AssetName) {
        if let Some(asset) = self.assets.remove(name) {
            self.index.overlay.remove(&asset.overlay_address);
            self.index.site_assets.remove(&(asset.site, asset.address));
            self.touch(RowKind::Asset, name);
        }
    }

    pub(crate) fn put_enrolment(&mut self, code: Enrolment) {
        self.touch(RowKind::Enrolment, code.id);
        self.index.codes.insert(code.code_hash.clone(), code.id);
        self.enrolments.insert(code.id, code);
    }

    pub(crate) fn remove_enrolment(&mut self, id: &EnrolmentId) {
        if let Some(code) = self.enrolments.remove(id) {
            self.index.codes.remove(&code.code_hash);
            self.touch(RowKind::Enrolment, id);
        }
    }

    pub(crate) fn put_lock(&mut self, lock: Lock, now: Option<Now>) {
        self.touch(RowKind::Lock, lock.id);
        if let Some(now) = now {
            self.timers.put(Timer::Lock(lock.id), lock.until, now);
        }
        self.index.lock_of.insert(lock.target.clone(), lock.id);
        self.locks.insert(lock.id, lock);
    }

    pub(crate) fn remove_lock(&mut self, id: &LockId, now: Option<Now>) {
        if let Some(lock) = self.locks.remove(id) {
            self.index.lock_of.remove(&lock.target);
            self.touch(RowKind::Lock, id);
        }
        self.timers.put(Timer::Lock(*id), None, now.unwrap_or_default());
    }

    pub(crate) fn put_request(&mut self, request: Request, now: Option<Now>) {
        self.touch(RowKind::Request, request.id);
        let due = request_due(&request);
        let open = self.index.open_requests.entry(request.user.clone()).or_default();
        if due.is_some() {
            open.insert(request.id);
        } else {
            open.remove(&request.id);
        }
        if open.is_empty() {
            self.index.open_requests.remove(&request.user);
        }
        if let Some(now) = now {
            // A decision starts a new count; nothing of the old one is kept.
            self.timers.put(Timer::Request(request.id), None, now);
            self.timers.put(Timer::Request(request.id), due, now);
        }
        self.requests.insert(request.id, request);
    }

    pub(crate) fn put_session(&mut self, session: Session, now: Option<Now>) {
        self.touch(RowKind::Session, session.id);
        let (id, site) = (session.id, session.site);
        if session.is_live() {
            self.index.live.entry(site).or_default().insert(id);
            self.index.engineers.insert(session.engineer, id);
            self.index.keys.insert(session.engineer_key, id);
            if let Some(key) = session.gateway_key {
                self.index.keys.insert(key, id);
            }
        } else {
            if let Some(live) = self.index.live.get_mut(&site) {
                live.remove(&id);
                if live.is_empty() {
                    self.index.live.remove(&site);
                }
            }
            self.retire_address(&session);
            self.index.keys.retain_not(&session.engineer_key, id);
            if let Some(key) = session.gateway_key {
                self.index.keys.retain_not(&key, id);
            }
            self.observed.remove(&id);
        }
        if let Some(now) = now {
            self.timers.put(Timer::Session(id), session_due(&session), now);
        }
        self.sessions.insert(id, session);
    }

    /// An address rests after its session; where no closing record said that the lane is gone, from the deadline on.
    fn retire_address(&mut self, session: &Session) {
        if self.index.engineers.get(&session.engineer) == Some(&session.id) {
            self.index.engineers.remove(&session.engineer);
        }
        let Some(ended_at) = session.ended_at else { return };
        let from = if session.counters_final { ended_at } else { ended_at.max(session.ends_at) };
        let rest = self.index.resting.entry(session.engineer).or_default();
        *rest = (*rest).max(from + REST);
    }
}

/// Removing an entry only if it is still the one that was meant.
trait RetainNot<K, V> {
    fn retain_not(&mut self, key: &K, value: V);
}

impl<K: Ord, V: PartialEq> RetainNot<K, V> for BTreeMap<K, V> {
    fn retain_not(&mut self, key: &K, value: V) {
        if self.get(key) == Some(&value) {
            self.remove(key);
        }
    }
}
