//! The operations: install the base, open, extend and close lanes, read their state.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use thinlane_model::{SessionId, Span};

use crate::attr::{AttrBuf, AttrError, Attrs};
use crate::decode::{self, Canon, FoundElement};
use crate::error::{Difference, NftError};
use crate::link::{Link, Question};
use crate::message::{Command, tables};
use crate::object::{self, Counter, Element, FAMILY, Key, TABLE, kind};
use crate::ruleset::{self, Names, Ruleset};
use crate::{BaseConfig, BaseState, LONGEST, Lane, LaneState, MOST_LANES, SHORTEST};

const DUMP: u16 = libc::NLM_F_DUMP as u16;

/// Beyond the time that the read-back itself took: the kernel counts in ticks of up to 10 ms.
const TICKS: Span = Span::from_millis(30);
/// How often a batch is built anew because an element expired between reading and deleting it.
const TRIES: usize = 5;

/// Our table, by one netlink socket. One process has one of these: a single writer.
#[derive(Debug)]
pub struct Nft {
    pub(crate) link: Link,
    base: Option<BaseConfig>,
    /// Closed sessions whose chains an expired element still pins.
    pending: BTreeSet<SessionId>,
    swept: Option<Instant>,
}

impl Nft {
    /// Opens the socket in the calling thread's network namespace; needs CAP_NET_ADMIN there.
    pub fn open() -> Result<Self, NftError> {
        Ok(Self { link: Link::open(0)?, base: None, pending: BTreeSet::new(), swept: None })
    }

    /// The netlink port of this socket, by which a [`Watch`](crate::Watch) tells our changes from others'.
    pub fn port(&self) -> u32 {
        self.link.port()
    }

    /// Replaces the whole table in one transaction: the base and `lanes`, which go on counting where they were.
    ///
    /// Packets see the old table or the new one, never neither; other tables are not touched.
    pub fn install_base(&mut self, config: &BaseConfig, lanes: &[Lane]) -> Result<(), NftError> {
        check_config(config)?;
        if lanes.len() > MOST_LANES {
            return Err(NftError::TooManyLanes(MOST_LANES));
        }
        let mut rules = ruleset::base(config);
        for lane in lanes {
            check_lane(lane)?;
            let more = ruleset::lane(config, lane);
            rules.counters.extend(more.counters);
            rules.chains.extend(more.chains);
            rules.elements.extend(more.elements);
        }
        let before = self.counters()?;
        for counter in &mut rules.counters {
            if let Some(held) = before.get(&counter.name).filter(|_| Names::read(&counter.name).is_some()) {
                *counter = held.clone();
            }
        }
        let mut commands = vec![object::create_table(), object::delete_table(), object::create_table()];
        commands.extend(creation(&rules));
        let began = Instant::now();
        self.commit(&commands)?;
        self.base = Some(config.clone());
        self.pending.clear();
        lanes.iter().try_for_each(|lane| self.read_back(lane, began))
    }

    /// Opens a lane in one transaction and reads it back from the kernel.
    ///
    /// Refused with EEXIST by the kernel if the session, or the engineer's address, has one. After
    /// [`NftError::ReadBack`] the lane stands: close it.
    pub fn open_lane(&mut self, lane: &Lane) -> Result<(), NftError> {
        check_lane(lane)?;
        let config = self.base.as_ref().ok_or(NftError::NoBase)?;
        let commands: Vec<_> = creation(&ruleset::lane(config, lane)).collect();
        let began = Instant::now();
        self.commit(&commands)?;
        self.read_back(lane, began)
    }

    /// Gives a lane `remaining` from now, in one transaction, and reads the new end back from the kernel.
    ///
    /// The elements are added, deleted and added again: kernels up to 6.11 silently ignore the new timeout of an
    /// element that is there, and one that has just expired cannot be deleted.
    pub fn extend_lane(&mut self, session: SessionId, remaining: Span) -> Result<(), NftError> {
        check_remaining(remaining)?;
        let lane = self.trace(session)?;
        let (Some(engineer), Some(iface)) = (lane.engineer, lane.interface) else {
            return Err(NftError::NoLane(session));
        };
        let elements = verdicts(session, &iface, engineer, remaining);
        let commands: Vec<_> =
            elements.iter().flat_map(|element| [element.add(), element.delete(), element.add_new()]).collect();
        let began = Instant::now();
        self.commit(&commands).map_err(|error| match error.errno() {
            Some(libc::ENOENT) => NftError::NoLane(session),
            _ => error,
        })?;
        elements.iter().try_for_each(|element| self.read_back_element(session, element, remaining, began))
    }

    /// Closes a lane: from the return of the first transaction on no packet passes; then the final counters are read and
    /// the rest is removed.
    ///
    /// If the lane had expired, its chains may stay until [`sweep`](Self::sweep) finds them unpinned; they lead nowhere
    /// and `chain_present` says so.
    pub fn close_lane(&mut self, session: SessionId) -> Result<LaneState, NftError> {
        self.shut(session)?;
        let mut state = self.lane_states()?.remove(&session).ok_or(NftError::NoLane(session))?;
        let lane = self.trace(session)?;
        let leftovers: Vec<_> = lane.elements.iter().map(Element::delete).collect();
        self.commit(&leftovers)?;
        state.chain_present = !self.remove_chains(session)?;
        if state.chain_present {
            self.pending.insert(session);
            self.swept = Some(Instant::now());
        }
        Ok(state)
    }

    /// Tries again to remove the chains of closed lanes, and returns the sessions whose chains still stand.
    ///
    /// Tries at most every [`SWEEP_INTERVAL`](crate::SWEEP_INTERVAL): a transaction, even one that fails, makes the kernel
    /// put off the very collection that is waited for.
    pub fn sweep(&mut self) -> Result<Vec<SessionId>, NftError> {
        let due = self.swept.is_none_or(|swept| swept.elapsed() >= crate::SWEEP_INTERVAL.to_std());
        if due {
            for session in self.pending.clone() {
                if self.remove_chains(session)? {
                    self.pending.remove(&session);
                }
            }
            self.swept = Some(Instant::now());
        }
        Ok(self.pending.iter().copied().collect())
    }

    /// All lanes in the kernel, by session.
    pub fn lanes(&mut self) -> Result<Vec<LaneState>, NftError> {
        Ok(self.lane_states()?.into_values().collect())
    }

    /// What no lane was charged with; zeros if the table is missing.
    pub fn base_state(&mut self) -> Result<BaseState, NftError> {
        let counters = self.counters()?;
        let packets = |name: &str| counters.get(name).map_or(0, |counter| counter.packets);
        Ok(BaseState {
            refused_packets: packets(ruleset::REFUSED),
            gateway_packets: packets(ruleset::GATEWAY),
            guarded_packets: packets(ruleset::GUARDED),
        })
    }

    /// Removes the table with everything in it; fine if there is none.
    pub fn remove(&mut self) -> Result<(), NftError> {
        self.commit(&[object::create_table(), object::delete_table()])?;
        self.base = None;
        self.pending.clear();
        Ok(())
    }

    /// The configuration of the last [`install_base`](Self::install_base) by this process.
    pub fn base(&self) -> Option<&BaseConfig> {
        self.base.as_ref()
    }

    fn commit(&mut self, commands: &[Command]) -> Result<(), NftError> {
        self.link.commit(commands, FAMILY)
    }

    /// Deletes the map elements that lead to a session's chains.
    fn shut(&mut self, session: SessionId) -> Result<(), NftError> {
        let names = Names(session);
        for attempt in 1..=TRIES {
            let mut commands = Vec::new();
            for (map, chain) in [(ruleset::UP, names.up()), (ruleset::DOWN, names.down())] {
                let found = self.elements(map)?;
                let ours = found.into_iter().filter(|element| element.chain.as_ref() == Some(&chain));
                commands.extend(ours.map(|element| bare(map, element.key).delete()));
            }
            match self.commit(&commands) {
                // One expired meanwhile: read anew.
                Err(error) if error.errno() == Some(libc::ENOENT) && attempt < TRIES => {}
                done => return done,
            }
        }
        Ok(())
    }

    /// `false`: an expired element still pins them.
    fn remove_chains(&mut self, session: SessionId) -> Result<bool, NftError> {
        let names = Names(session);
        let chains = names.chains().into_iter().map(|name| object::delete_chain(&name));
        let counters = names.counters().into_iter().map(|name| object::delete_counter(&name));
        match self.commit(&chains.chain(counters).collect::<Vec<_>>()) {
            Ok(()) => Ok(true),
            Err(error) => match error.errno() {
                Some(libc::EBUSY) => Ok(false),
                // The table was replaced or removed by somebody: nothing is left to remove.
                Some(libc::ENOENT) => Ok(true),
                _ => Err(error),
            },
        }
    }

    fn read_back(&mut self, lane: &Lane, began: Instant) -> Result<(), NftError> {
        let session = lane.session;
        for element in verdicts(session, &lane.iface, lane.tuple.engineer, lane.remaining) {
            self.read_back_element(session, &element, lane.remaining, began)?;
        }
        let config = self.base.as_ref().ok_or(NftError::NoBase)?;
        for (chain, way) in ruleset::lane(config, lane).chains.into_iter().zip(["up", "down"]) {
            let sent = canonical(&chain.rules)?;
            if self.rules(Some(&chain.name))?.remove(&chain.name) != Some(sent) {
                return Err(NftError::ReadBack { session, difference: Difference::Rules(way) });
            }
        }
        Ok(())
    }

    fn read_back_element(
        &mut self,
        session: SessionId,
        element: &Element,
        asked: Span,
        began: Instant,
    ) -> Result<(), NftError> {
        let map = element.set;
        let fails = |difference| Err(NftError::ReadBack { session, difference });
        let query = element.query();
        let question =
            Question { kind: tables(kind::GET_ELEMENT), flags: 0, family: FAMILY, resource: 0, attrs: &query };
        let found = match self.link.ask(&question, |_, attrs| decode::elements(&attrs).map(Some)) {
            Ok(found) => found.into_iter().flatten().find(|found| found.key == element.key.0),
            Err(error) if error.errno() == Some(libc::ENOENT) => None,
            Err(error) => return Err(error),
        };
        let least = asked.saturating_sub(Span::from(began.elapsed()) + TICKS);
        match found {
            Some(found) if !matches!(&element.data, object::Data::Goto(chain) if found.chain.as_ref() == Some(chain)) => {
                fails(Difference::NotLedTo(map))
            }
            Some(FoundElement { expires: None, .. }) => fails(Difference::NoTimeout(map)),
            Some(FoundElement { expires: Some(found), .. }) if found < least || found > asked + TICKS => {
                fails(Difference::Expires { map, asked, found })
            }
            Some(_) => Ok(()),
            // So short a lane may have ended by now.
            None if least == Span::ZERO => Ok(()),
            None => fails(Difference::NotLedTo(map)),
        }
    }

    fn lane_states(&mut self) -> Result<BTreeMap<SessionId, LaneState>, NftError> {
        let mut lanes = BTreeMap::new();
        for name in self.chains()?.into_keys() {
            if let Some((names, "up" | "down")) = Names::read(&name) {
                lanes.entry(names.0).or_insert_with(|| LaneState::new(names.0)).chain_present = true;
            }
        }
        for map in [ruleset::UP, ruleset::DOWN] {
            for element in self.elements(map)? {
                let Some((names, role)) = element.chain.as_deref().and_then(Names::read) else { continue };
                let lane = lanes.entry(names.0).or_insert_with(|| LaneState::new(names.0));
                // One without an end is worse than any with one, and must not look closed.
                let left = Some(element.expires.unwrap_or(Span::from_millis(u64::MAX)));
                if role == "up" { lane.up = left } else { lane.down = left }
            }
        }
        for counter in self.counters()?.into_values() {
            let Some((names, role)) = Names::read(&counter.name) else { continue };
            let lane = lanes.entry(names.0).or_insert_with(|| LaneState::new(names.0));
            match role {
                "up" => (lane.up_packets, lane.up_bytes) = (counter.packets, counter.bytes),
                "down" => (lane.down_packets, lane.down_bytes) = (counter.packets, counter.bytes),
                "denied" => lane.denied_packets = counter.packets,
                "late" => lane.late_packets = counter.packets,
                "dropped" => lane.dropped_packets = counter.packets,
                _ => {}
            }
        }
        Ok(lanes)
    }

    /// What the kernel has of a session besides its verdicts, and its engineer's address.
    fn trace(&mut self, session: SessionId) -> Result<Trace, NftError> {
        let names = Names(session);
        let mut trace = Trace::default();
        for (map, counter) in [(ruleset::DENIED, names.denied()), (ruleset::LATE, names.late())] {
            let found = self.elements(map)?;
            for element in found.into_iter().filter(|element| element.counter.as_ref() == Some(&counter)) {
                trace.engineer = element.key.as_slice().try_into().ok();
                trace.elements.push(bare(map, element.key));
            }
        }
        if let Some(engineer) = trace.engineer {
            for set in [ruleset::TO_ASSET, ruleset::ALLOWED, ruleset::AS_GATEWAY, ruleset::ENGINEERS] {
                let found = self.elements(set)?;
                let ours = found.into_iter().filter(|element| element.key.starts_with(&engineer));
                trace.elements.extend(ours.map(|element| bare(set, element.key)));
            }
        }
        for (map, chain) in [(ruleset::UP, names.up()), (ruleset::DOWN, names.down())] {
            let found = self.elements(map)?.into_iter().find(|element| element.chain.as_ref() == Some(&chain));
            let name = found.and_then(|element| interface(&element.key));
            trace.interface = name.or(trace.interface);
        }
        Ok(trace)
    }

    pub(crate) fn elements(&mut self, set: &'static str) -> Result<Vec<FoundElement>, NftError> {
        let attrs = AttrBuf::new().text(1, TABLE).text(2, set);
        let found = self.dump(kind::GET_ELEMENT, &attrs, |attrs| decode::elements(attrs).map(Some))?;
        Ok(found.into_iter().flatten().collect())
    }

    pub(crate) fn counters(&mut self) -> Result<BTreeMap<String, Counter>, NftError> {
        let attrs = AttrBuf::new().text(1, TABLE).u32(3, crate::expr::OBJECT_COUNTER);
        let found = self.dump(kind::GET_OBJECT, &attrs, decode::counter)?;
        Ok(found.into_iter().map(|counter| (counter.name.clone(), counter)).collect())
    }

    pub(crate) fn chains(&mut self) -> Result<BTreeMap<String, decode::FoundChain>, NftError> {
        let found = self.dump(kind::GET_CHAIN, &AttrBuf::new(), decode::chain)?;
        Ok(found.into_iter().map(|chain| (chain.name.clone(), chain)).collect())
    }

    pub(crate) fn sets(&mut self) -> Result<BTreeMap<String, decode::FoundSet>, NftError> {
        let found = self.dump(kind::GET_SET, &AttrBuf::new().text(1, TABLE), decode::set)?;
        Ok(found.into_iter().map(|set| (set.name.clone(), set)).collect())
    }

    pub(crate) fn table(&mut self) -> Result<Option<decode::FoundTable>, NftError> {
        Ok(self.dump(kind::GET_TABLE, &AttrBuf::new(), decode::table)?.pop())
    }

    /// The rules of one chain of our table, or of all.
    pub(crate) fn rules(&mut self, chain: Option<&str>) -> Result<BTreeMap<String, Vec<Canon>>, NftError> {
        let mut attrs = AttrBuf::new().text(1, TABLE);
        if let Some(chain) = chain {
            attrs = attrs.text(2, chain);
        }
        let mut rules: BTreeMap<String, Vec<Canon>> = BTreeMap::new();
        for (chain, rule) in self.dump(kind::GET_RULE, &attrs, decode::rule)? {
            rules.entry(chain).or_default().push(rule);
        }
        Ok(rules)
    }

    /// Dumps objects of family inet; none if the table or set is missing.
    fn dump<T>(
        &mut self,
        kind: u8,
        attrs: &AttrBuf,
        read: impl Fn(&Attrs<'_>) -> Result<Option<T>, AttrError>,
    ) -> Result<Vec<T>, NftError> {
        let question = Question { kind: tables(kind), flags: DUMP, family: FAMILY, resource: 0, attrs };
        match self.link.ask(&question, |_, attrs| read(&attrs)) {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
            answer => answer,
        }
    }
}

impl AsFd for Nft {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.fd()
    }
}

impl LaneState {
    fn new(session: SessionId) -> Self {
        Self {
            session,
            up: None,
            down: None,
            up_packets: 0,
            up_bytes: 0,
            down_packets: 0,
            down_bytes: 0,
            denied_packets: 0,
            late_packets: 0,
            dropped_packets: 0,
            chain_present: false,
        }
    }
}

/// What the kernel tells of one session.
#[derive(Debug, Default)]
struct Trace {
    engineer: Option<[u8; 4]>,
    interface: Option<String>,
    elements: Vec<Element>,
}

fn interface(key: &[u8]) -> Option<String> {
    let name = key.get(..16)?;
    let end = name.iter().position(|byte| *byte == 0)?;
    String::from_utf8(name[..end].to_vec()).ok()
}

/// An element by its key alone, to delete it.
fn bare(set: &'static str, key: Vec<u8>) -> Element {
    Element { set, key: Key(key), data: object::Data::Nothing, timeout: None }
}

fn verdicts(session: SessionId, iface: &str, engineer: impl Into<std::net::Ipv4Addr>, remaining: Span) -> [Element; 2] {
    let names = Names(session);
    let key = Key::interface_address(iface, engineer.into());
    [(ruleset::DOWN, names.down()), (ruleset::UP, names.up())].map(|(set, chain)| Element {
        set,
        key: key.clone(),
        data: object::Data::Goto(chain),
        timeout: Some(remaining),
    })
}

pub(crate) fn canonical(rules: &[crate::expr::Rule]) -> Result<Vec<Canon>, AttrError> {
    rules.iter().map(|rule| decode::expressions(&Attrs::new(object::expressions(rule).as_slice()))).collect()
}

/// Everything of `rules` in an order that the kernel can follow.
pub(crate) fn creation(rules: &Ruleset) -> impl Iterator<Item = Command> + '_ {
    let sets = rules.sets.iter().zip(1..).map(|(set, id)| set.create(id));
    sets.chain(rules.counters.iter().map(Counter::create))
        .chain(rules.chains.iter().map(object::Chain::create))
        .chain(rules.chains.iter().flat_map(object::Chain::append_rules))
        .chain(rules.elements.iter().map(Element::add_new))
}

fn check_config(config: &BaseConfig) -> Result<(), NftError> {
    config.lan.iter().try_for_each(|name| check_interface(name))
}

/// The kernel's rule (`dev_valid_name`), and nothing that a listing could not quote.
fn check_interface(name: &str) -> Result<(), NftError> {
    let valid = (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:\"*\\".contains(&byte));
    valid.then_some(()).ok_or_else(|| NftError::Interface(name.chars().take(40).collect()))
}

fn check_lane(lane: &Lane) -> Result<(), NftError> {
    check_interface(&lane.iface)?;
    if lane.iface != ruleset::SHARED_INTERFACE && !lane.iface.starts_with(ruleset::LANE_INTERFACES) {
        return Err(NftError::NotALaneInterface(lane.iface.clone()));
    }
    check_remaining(lane.remaining)
}

fn check_remaining(remaining: Span) -> Result<(), NftError> {
    let fits = (SHORTEST..=LONGEST).contains(&remaining);
    fits.then_some(()).ok_or(NftError::Remaining(remaining))
}
