//! The relay's sessions and the tables by which datagrams find them.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;

use thinlane_model::{Boot, PublicKey, SessionId, Span};
use thinlane_wire::{ProbeKey, ProbeQuestion};

use crate::bucket::{Bucket, Rate};
use crate::end::End;
use crate::packet::Packet;
use crate::probe::Probes;
use crate::verdict::{DropReason, RelayStats, RelayTotals, Side, Targets, Verdict};

/// Sessions at most.
const MOST_SESSIONS: usize = 20_000;
/// How long an expired session's counters can still be asked for.
const LINGER: Span = Span::from_secs(600);
/// How often each session is swept, and how many in one go: the lock is held meanwhile.
const SWEEP: Span = Span::from_secs(10);
const SWEPT_AT_ONCE: usize = 256;
/// Together at most two initiations a second for one session: one from where its ends are known to be, one from
/// elsewhere, so that neither can use up the other's.
const INITIATIONS: Rate = Rate { per_second: 1, burst: 2 };
/// Datagrams of one session from a source that is not served.
const STRANGE_DATA: Rate = Rate { per_second: 50, burst: 100 };
/// Initiations looked up for one known address, which may be a gateway with many lanes.
const KNOWN_ADDRESS: Rate = Rate { per_second: 50, burst: 200 };
/// Keys tried in searches for one known address: room for a gateway that opens all its lanes at once after the
/// relay began anew.
const KNOWN_SEARCHES: Rate = Rate { per_second: 20_000, burst: 80_000 };
/// Keys tried in searches for one source that no session knows.
const SOURCE: Rate = Rate { per_second: 10_000, burst: 40_000 };
pub(crate) const SOURCES: usize = 1024;
/// Keys tried in searches of each kind; one try takes less than half a microsecond.
const KEYS: Rate = Rate { per_second: 200_000, burst: 200_000 };

/// Why a session was not opened or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    #[error("this key is in use by another end: keys must be fresh for each session")]
    KeyInUse,
    #[error("the session is open with another key")]
    Exists,
    #[error("{MOST_SESSIONS} sessions are open, which is as many as the relay takes")]
    Full,
    #[error("no such session is open")]
    Unknown,
}

/// The relay's decisions. See the crate's documentation for its rules.
pub struct Relay {
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) indices: HashMap<u32, Vec<Owner>>,
    pub(crate) addresses: HashMap<SocketAddr, Known>,
    /// Sessions with an end that no handshake has shown yet.
    pub(crate) waiting: BTreeSet<SessionId>,
    keys: BTreeMap<PublicKey, SessionId>,
    sources: Vec<Bucket>,
    pub(crate) budgets: Budgets,
    seed: u64,
    sweep: Option<Boot>,
    /// The session after which the next sweep goes on.
    swept: Option<SessionId>,
    totals: RelayTotals,
    /// `None`: no probe is answered.
    probes: Option<Probes>,
}

pub(crate) type Owner = (SessionId, Side);

pub(crate) struct Known {
    pub owners: Vec<Owner>,
    /// Initiations held against the owners' keys.
    pub budget: Bucket,
    /// Keys of others held against its initiations.
    pub searches: Bucket,
}

/// Keys that may be tried per second, for each kind of search.
pub(crate) struct Budgets {
    /// Keys of sessions that wait for an end, wherever it comes from.
    pub waiting: Bucket,
    /// All others, from an address of some open session.
    pub known: Bucket,
    /// All others, from elsewhere.
    pub strange: Bucket,
}

pub(crate) struct Session {
    until: Boot,
    engineer: End,
    gateway: End,
    stats: RelayStats,
    pub known: Bucket,
    pub elsewhere: Bucket,
    pub strange: Bucket,
}

impl Relay {
    /// A relay without sessions; `seed` is random, so that nobody can choose addresses that share a budget.
    pub fn new(seed: u64) -> Self {
        Self {
            sessions: BTreeMap::new(),
            indices: HashMap::new(),
            addresses: HashMap::new(),
            waiting: BTreeSet::new(),
            keys: BTreeMap::new(),
            sources: vec![Bucket::new(SOURCE); SOURCES],
            budgets: Budgets { known: Bucket::new(KEYS), waiting: Bucket::new(KEYS), strange: Bucket::new(KEYS) },
            seed,
            sweep: None,
            swept: None,
            totals: RelayTotals::default(),
            probes: None,
        }
    }

    /// Answers probes with tickets of this key; a key is fresh for each start.
    pub fn answer_probes(&mut self, key: ProbeKey) {
        self.probes = Some(Probes::new(key, self.seed));
    }

    /// Forwards for a session until `until` on this machine's boot clock; the gateway's key may follow later.
    ///
    /// Opening it again with the same engineer's key changes `until` and adds the gateway's key.
    pub fn open(
        &mut self,
        session: SessionId,
        engineer: PublicKey,
        gateway: Option<PublicKey>,
        until: Boot,
    ) -> Result<(), RelayError> {
        match self.sessions.get(&session) {
            Some(open) if open.engineer.key.as_ref().is_none_or(|(key, _)| *key != engineer) => {
                return Err(RelayError::Exists);
            }
            Some(_) => self.extend(session, until)?,
            None => {
                if self.sessions.len() >= MOST_SESSIONS {
                    return Err(RelayError::Full);
                }
                if self.keys.contains_key(&engineer)
                    || gateway.is_some_and(|key| key == engineer || self.keys.contains_key(&key))
                {
                    return Err(RelayError::KeyInUse);
                }
                self.keys.insert(engineer, session);
                self.sessions.insert(session, Session::new(engineer, until));
                self.link(session);
            }
        }
        gateway.map_or(Ok(()), |key| self.set_gateway(session, key))
    }

    /// Tells the gateway's key, after which the engineer can reach it.
    pub fn set_gateway(&mut self, session: SessionId, key: PublicKey) -> Result<(), RelayError> {
        let open = self.sessions.get_mut(&session).ok_or(RelayError::Unknown)?;
        match &open.gateway.key {
            Some((same, _)) if *same == key => return Ok(()),
            Some(_) => return Err(RelayError::Exists),
            None if self.keys.contains_key(&key) => return Err(RelayError::KeyInUse),
            None => {}
        }
        self.keys.insert(key, session);
        open.gateway.key = End::new(Some(key)).key;
        Ok(())
    }

    /// Moves a session's end, to later or to earlier.
    pub fn extend(&mut self, session: SessionId, until: Boot) -> Result<(), RelayError> {
        let open = self.sessions.get_mut(&session).ok_or(RelayError::Unknown)?;
        open.until = until;
        Ok(())
    }

    /// Forgets a session: from now on nothing of it is forwarded. `None`: it was not open.
    pub fn close(&mut self, session: SessionId) -> Option<RelayStats> {
        let mut closed = self.sessions.remove(&session)?;
        for side in [Side::Engineer, Side::Gateway] {
            let end = closed.end_mut(side);
            let links = std::mem::take(&mut end.links);
            let key = end.key.take();
            self.unlink((session, side), &links.indices, &links.addresses);
            if let Some((key, _)) = key {
                self.keys.remove(&key);
            }
        }
        self.waiting.remove(&session);
        Some(closed.stats)
    }

    /// Decides about one datagram that arrived from `from`.
    pub fn handle_datagram(&mut self, from: SocketAddr, datagram: &[u8], now: Boot) -> Verdict {
        if let Some(question) = ProbeQuestion::read(datagram) {
            return self.probe(from, &question, now);
        }
        let bytes = datagram.len() as u64;
        let decided = match Packet::parse(datagram) {
            None => Err(DropReason::Malformed),
            Some(Packet::Data { receiver, counter }) => self.data(from, receiver, counter, now),
            Some(Packet::Initiation { sender, stamp }) => self.initiation(from, sender, stamp, now),
            Some(Packet::Response { sender, receiver, stamp }) => self.response(from, sender, receiver, stamp, now),
            Some(Packet::Cookie { receiver }) => self.cookie(from, receiver, now),
        };
        match decided {
            Ok(Passed { owner: (session, to_side), to }) => {
                if let Some(open) = self.sessions.get_mut(&session) {
                    open.count(to_side, bytes);
                }
                self.totals.forwarded += 1;
                Verdict::Forward { session, to }
            }
            Err(reason) => {
                *self.totals.dropped.entry(reason).or_default() += 1;
                Verdict::Drop(reason)
            }
        }
    }

    fn probe(&mut self, from: SocketAddr, question: &ProbeQuestion<'_>, now: Boot) -> Verdict {
        match self.probes.as_mut().and_then(|probes| probes.answer(from, question, now)) {
            Some(answer) => {
                self.totals.answered += 1;
                Verdict::Answer(answer)
            }
            None => {
                *self.totals.dropped.entry(DropReason::Probe).or_default() += 1;
                Verdict::Drop(DropReason::Probe)
            }
        }
    }

    /// Forgets what has become too old, for some sessions at a time. Nothing that a datagram may do depends on
    /// it: every life is checked again when it is used.
    pub fn handle_timeout(&mut self, now: Boot) {
        if self.poll_timeout().is_none_or(|sweep| now < sweep) {
            return;
        }
        let rounds = self.sessions.len().div_ceil(SWEPT_AT_ONCE) as u64;
        self.sweep = Some(now + Span::from_millis(SWEEP.as_millis() / rounds));
        let after = self.swept.map_or(Bound::Unbounded, Bound::Excluded);
        let ids: Vec<SessionId> =
            self.sessions.range((after, Bound::Unbounded)).map(|(id, _)| *id).take(SWEPT_AT_ONCE).collect();
        self.swept = if ids.len() < SWEPT_AT_ONCE { None } else { ids.last().copied() };
        for id in ids {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            if session.until + LINGER <= now {
                self.close(id);
                continue;
            }
            session.engineer.sweep(now);
            session.gateway.sweep(now);
            self.link(id);
        }
    }

    /// When [`Relay::handle_timeout`] has something to do; `None`: no session is open.
    pub fn poll_timeout(&self) -> Option<Boot> {
        if self.sessions.is_empty() { None } else { self.sweep.or(Some(Boot(0))) }
    }

    /// What a session moved so far. `None`: it is not open.
    pub fn stats(&self, session: SessionId) -> Option<RelayStats> {
        self.sessions.get(&session).map(|open| RelayStats {
            engineer: open.engineer.address().map(canonical),
            gateway: open.gateway.address().map(canonical),
            ..open.stats
        })
    }

    /// What was forwarded and dropped since the relay began.
    pub fn totals(&self) -> &RelayTotals {
        &self.totals
    }

    /// Sessions that are open, the recently expired among them.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.sessions.keys().copied()
    }

    /// Brings the tables in line with what a session's ends answer to.
    pub(crate) fn link(&mut self, id: SessionId) {
        for side in [Side::Engineer, Side::Gateway] {
            let Some(session) = self.sessions.get_mut(&id) else { return };
            let end = session.end_mut(side);
            let wanted = end.wanted_links();
            if wanted == end.links {
                continue;
            }
            let had = std::mem::replace(&mut end.links, wanted.clone());
            let gone =
                |had: &[u32], now: &[u32]| had.iter().filter(|one| !now.contains(one)).copied().collect::<Vec<_>>();
            let (lost, new) = (gone(&had.indices, &wanted.indices), gone(&wanted.indices, &had.indices));
            let lost_addresses: Vec<_> =
                had.addresses.iter().filter(|one| !wanted.addresses.contains(one)).copied().collect();
            self.unlink((id, side), &lost, &lost_addresses);
            for index in new {
                self.indices.entry(index).or_default().push((id, side));
            }
            for address in wanted.addresses.into_iter().filter(|one| !had.addresses.contains(one)) {
                let fresh = || Known {
                    owners: Vec::new(),
                    budget: Bucket::new(KNOWN_ADDRESS),
                    searches: Bucket::new(KNOWN_SEARCHES),
                };
                self.addresses.entry(address).or_insert_with(fresh).owners.push((id, side));
            }
        }
        let waits = self.sessions.get(&id).is_some_and(Session::waits);
        if waits {
            self.waiting.insert(id)
        } else {
            self.waiting.remove(&id)
        };
    }

    fn unlink(&mut self, owner: Owner, indices: &[u32], addresses: &[SocketAddr]) {
        for index in indices {
            if let Some(owners) = self.indices.get_mut(index) {
                owners.retain(|other| *other != owner);
                if owners.is_empty() {
                    self.indices.remove(index);
                }
            }
        }
        for address in addresses {
            if let Some(known) = self.addresses.get_mut(address) {
                known.owners.retain(|other| *other != owner);
                if known.owners.is_empty() {
                    self.addresses.remove(address);
                }
            }
        }
    }

    /// The budget that an unknown source shares with few others.
    pub(crate) fn source(&mut self, from: SocketAddr) -> &mut Bucket {
        let place = place(self.seed, from);
        &mut self.sources[place]
    }
}

/// Which of the shared budgets is a source's.
pub(crate) fn place(seed: u64, from: SocketAddr) -> usize {
    let mut hash = DefaultHasher::new();
    seed.hash(&mut hash);
    match from.ip().to_canonical() {
        IpAddr::V4(ip) => ip.octets().hash(&mut hash),
        // One customer has a whole /64.
        IpAddr::V6(ip) => ip.octets()[..8].hash(&mut hash),
    }
    hash.finish() as usize % SOURCES
}

/// An IPv4 address as such, also where the socket is an IPv6 one.
fn canonical(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}

/// A datagram that goes on: for whom, and where that end is.
pub(crate) struct Passed {
    pub owner: Owner,
    pub to: Targets,
}

impl Session {
    fn new(engineer: PublicKey, until: Boot) -> Self {
        Self {
            until,
            engineer: End::new(Some(engineer)),
            gateway: End::new(None),
            stats: RelayStats::default(),
            known: Bucket::new(INITIATIONS),
            elsewhere: Bucket::new(INITIATIONS),
            strange: Bucket::new(STRANGE_DATA),
        }
    }

    pub(crate) fn is_live(&self, now: Boot) -> bool {
        now < self.until
    }

    pub(crate) fn end(&self, side: Side) -> &End {
        match side {
            Side::Engineer => &self.engineer,
            Side::Gateway => &self.gateway,
        }
    }

    pub(crate) fn end_mut(&mut self, side: Side) -> &mut End {
        match side {
            Side::Engineer => &mut self.engineer,
            Side::Gateway => &mut self.gateway,
        }
    }

    pub(crate) fn shook_hands(&mut self, now: Boot) {
        self.stats.last_handshake = Some(now);
    }

    fn waits(&self) -> bool {
        self.engineer.confirmed().is_none() || self.gateway.confirmed().is_none()
    }

    fn count(&mut self, to: Side, bytes: u64) {
        let stats = &mut self.stats;
        let (packets, sum) = match to {
            Side::Gateway => (&mut stats.up_packets, &mut stats.up_bytes),
            Side::Engineer => (&mut stats.down_packets, &mut stats.down_bytes),
        };
        *packets += 1;
        *sum += bytes;
    }
}
