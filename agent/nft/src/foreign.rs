//! What other tables would do to a lane's packet that is forwarded to the LAN.
//!
//! A drop of any table is final, whatever ours says (OpenWrt's fw4 drops what it has no zone for). The rules of
//! others are followed as far as they speak of interfaces; where they speak of more, nothing is claimed.

use std::collections::BTreeMap;

use crate::attr::{AttrBuf, AttrError, Attrs};
use crate::decode::{self, Canon};
use crate::error::NftError;
use crate::link::Question;
use crate::message::tables;
use crate::nft::{Nft, creation};
use crate::object::{self, kind};
use crate::ruleset::{self, MARK, SHARED_INTERFACE};
use crate::{About, BaseConfig};

mod fuzz;

pub use fuzz::fuzz_foreign;

const DUMP: u16 = libc::NLM_F_DUMP as u16;
const FORWARD: u32 = 2;
/// `NFPROTO_INET` and `NFPROTO_IPV4`: the families that see a lane's packet here.
const FAMILIES: [u8; 2] = [libc::NFPROTO_INET as u8, libc::NFPROTO_IPV4 as u8];
/// How deep jumps are followed.
const DEPTH: usize = 8;
/// How many rules are looked at for one chain: jumps to chains that jump on multiply.
const STEPS: usize = 20_000;
/// A chain that nobody has: what a trial batch ends with.
const NOWHERE: &str = "thinlane-trial-ends-here";

/// A base chain of another table on the forward hook, and what it does to a lane's first packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignForward {
    pub table: String,
    /// The table's NFPROTO number.
    pub family: u8,
    pub chain: String,
    pub passes: Passes,
}

/// Whether a packet gets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Passes {
    Yes,
    /// It depends on more than interfaces, or the table names ours.
    Unclear,
    No,
}

impl Nft {
    /// What every other table's forward chains do to a packet from a lane to `lan` (`None`: some interface).
    pub fn foreign_forward(&mut self, lan: Option<&str>) -> Result<Vec<ForeignForward>, NftError> {
        let chains = self.foreign_dump(kind::GET_CHAIN, &AttrBuf::new(), foreign_chain)?;
        let mut found = Vec::new();
        let mut rules: Option<Rules> = None;
        for (family, chain) in chains.iter().filter(|(_, chain)| chain.hook == Some(FORWARD)) {
            if rules.is_none() {
                rules = Some(Rules(self.foreign_rules()?));
            }
            let all = rules.as_ref().expect("just read");
            let table = (*family, chain.table.clone());
            let passes = match all.follow(&table, &chain.name, lan) {
                Follow::Accepted => Passes::Yes,
                Follow::Dropped => Passes::No,
                Follow::Unclear => Passes::Unclear,
                Follow::Back if chain.accepts => Passes::Yes,
                Follow::Back => Passes::No,
            };
            // A table that names our interfaces was written by somebody who knew of them.
            let known = passes == Passes::No && (all.names_ours(&table) || self.sets_name_ours(&table)?);
            let passes = if known { Passes::Unclear } else { passes };
            found.push(ForeignForward { table: table.1, family: *family, chain: chain.name.clone(), passes });
        }
        found.sort();
        Ok(found)
    }

    /// Has the kernel take the whole base in a transaction that is meant to fail at its last command, so that nothing
    /// changes: finds out whether it knows everything that the table needs. The error names what it does not.
    pub fn try_base(&mut self, config: &BaseConfig) -> Result<(), NftError> {
        let rules = ruleset::base(config);
        let mut commands = vec![object::create_table(), object::delete_table(), object::create_table()];
        commands.extend(creation(&rules));
        commands.push(object::delete_chain(NOWHERE));
        match self.link.commit(&commands, object::FAMILY) {
            Err(NftError::Refused { about: Some(About::Chain(name)), .. }) if name == NOWHERE => Ok(()),
            other => other,
        }
    }

    fn foreign_rules(&mut self) -> Result<RulesOf, NftError> {
        let mut rules: BTreeMap<_, Vec<Canon>> = BTreeMap::new();
        for (family, (table, chain, rule)) in self.foreign_dump(kind::GET_RULE, &AttrBuf::new(), foreign_rule)? {
            rules.entry((family, table, chain)).or_default().push(rule);
        }
        Ok(rules)
    }

    /// Whether a set of a table holds one of our interfaces, as a firewall's zones do.
    fn sets_name_ours(&mut self, (family, table): &(u8, String)) -> Result<bool, NftError> {
        let named = |attrs: &Attrs<'_>| Ok(attrs.text(2)?.map(str::to_owned));
        let of = AttrBuf::new().text(1, table);
        for name in self.dump_of(*family, kind::GET_SET, &of, named)? {
            let attrs = AttrBuf::new().text(1, table).text(2, &name);
            let ours = |attrs: &Attrs<'_>| Ok(attrs.find(3).map(|list| contains_ours(list.value)));
            if self.dump_of(*family, kind::GET_ELEMENT, &attrs, ours)?.contains(&true) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Dumps one kind of object of all tables that see our packets, but our own.
    fn foreign_dump<T>(
        &mut self,
        kind: u8,
        attrs: &AttrBuf,
        read: impl Fn(&Attrs<'_>) -> Result<Option<T>, AttrError>,
    ) -> Result<Vec<(u8, T)>, NftError> {
        let question = Question { kind: tables(kind), flags: DUMP, family: 0, resource: 0, attrs };
        let foreign = |family: u8, attrs: Attrs<'_>| {
            let ours = family == object::FAMILY && attrs.text(1)? == Some(object::TABLE);
            if ours || !FAMILIES.contains(&family) {
                return Ok(None);
            }
            Ok(read(&attrs)?.map(|found| (family, found)))
        };
        self.link.ask(&question, foreign)
    }

    fn dump_of<T>(
        &mut self,
        family: u8,
        kind: u8,
        attrs: &AttrBuf,
        read: impl Fn(&Attrs<'_>) -> Result<Option<T>, AttrError>,
    ) -> Result<Vec<T>, NftError> {
        let question = Question { kind: tables(kind), flags: DUMP, family, resource: 0, attrs };
        match self.link.ask(&question, |_, attrs| read(&attrs)) {
            // Its owner replaced it meanwhile.
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
            answer => answer,
        }
    }
}

#[derive(Debug)]
struct ForeignChain {
    table: String,
    name: String,
    hook: Option<u32>,
    accepts: bool,
}

fn foreign_chain(attrs: &Attrs<'_>) -> Result<Option<ForeignChain>, AttrError> {
    let filters = attrs.text(7)?.is_none_or(|kind| kind == "filter");
    let hook = attrs.find(4).filter(|_| filters).map(|hook| hook.nested().need(1)?.u32()).transpose()?;
    Ok(Some(ForeignChain {
        table: attrs.need(1)?.text()?.to_owned(),
        name: attrs.need(3)?.text()?.to_owned(),
        hook,
        accepts: attrs.u32(5)? != Some(libc::NF_DROP as u32),
    }))
}

fn foreign_rule(attrs: &Attrs<'_>) -> Result<Option<(String, String, Canon)>, AttrError> {
    let (table, chain) = (attrs.need(1)?.text()?.to_owned(), attrs.need(2)?.text()?.to_owned());
    let canon = match attrs.find(4) {
        Some(list) => decode::expressions(&list.nested())?,
        None => Vec::new(),
    };
    Ok(Some((table, chain, canon)))
}

/// `tl0` as a whole name, or anything that begins `tl-`.
fn contains_ours(bytes: &[u8]) -> bool {
    let whole = [SHARED_INTERFACE.as_bytes(), &[0]].concat();
    bytes.windows(4).any(|four| four == whole) || bytes.windows(3).any(|three| three == b"tl-")
}

/// What other tables' chains do.
struct Rules(RulesOf);

/// Rules by family, table and chain.
type RulesOf = BTreeMap<(u8, String, String), Vec<Canon>>;

/// What became of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follow {
    Accepted,
    Dropped,
    /// Nothing was decided: on with the rule behind the jump, or the policy.
    Back,
    Unclear,
}

/// What a rule does once its conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Act {
    Nothing,
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
    Other,
}

impl Rules {
    fn follow(&self, table: &(u8, String), chain: &str, lan: Option<&str>) -> Follow {
        self.walk(table, chain, lan, DEPTH, &mut STEPS.clone())
    }

    /// With so many jumps and rules left.
    fn walk(&self, table: &(u8, String), chain: &str, lan: Option<&str>, depth: usize, left: &mut usize) -> Follow {
        if depth == 0 {
            return Follow::Unclear;
        }
        let key = (table.0, table.1.clone(), chain.to_owned());
        for rule in self.0.get(&key).map_or(&[][..], Vec::as_slice) {
            let Some(fewer) = left.checked_sub(1) else { return Follow::Unclear };
            *left = fewer;
            let holds = holds(rule, lan);
            if holds == Some(false) {
                continue;
            }
            let below = match act(rule) {
                Act::Nothing => continue,
                Act::Accept => Follow::Accepted,
                Act::Drop => Follow::Dropped,
                Act::Return => Follow::Back,
                Act::Other => Follow::Unclear,
                Act::Jump(to) | Act::Goto(to) if holds.is_some() => {
                    let below = self.walk(table, &to, lan, depth - 1, left);
                    if below == Follow::Back && matches!(act(rule), Act::Jump(_)) {
                        continue;
                    }
                    below
                }
                Act::Jump(_) | Act::Goto(_) => Follow::Unclear,
            };
            match (holds, below) {
                // A first packet is in no connection yet, and a drop that may not hold is no drop.
                (None, Follow::Accepted | Follow::Unclear) if is_for_connections(rule) => continue,
                (None, Follow::Dropped) => continue,
                (None, _) => return Follow::Unclear,
                (Some(_), below) => return below,
            }
        }
        Follow::Back
    }

    /// Whether a rule of the table speaks of our interfaces or of our mark.
    fn names_ours(&self, table: &(u8, String)) -> bool {
        let of = |key: &&(u8, String, String)| (key.0, &key.1) == (table.0, &table.1);
        let ours = |value: &Vec<u8>| {
            value.starts_with(SHARED_INTERFACE.as_bytes())
                || value.starts_with(b"tl-")
                || value == b"tl"
                || *value == MARK.to_ne_bytes()
        };
        self.0
            .keys()
            .filter(of)
            .any(|key| self.0[key].iter().flatten().any(|(name, attrs)| name == "cmp" && attrs.values().any(ours)))
    }
}

/// Whether a rule's conditions hold for the packet; `None`: that takes more than its interfaces.
fn holds(rule: &Canon, lan: Option<&str>) -> Option<bool> {
    const IIFNAME: u32 = 6;
    const OIFNAME: u32 = 7;
    let number = |attrs: &BTreeMap<Vec<u16>, Vec<u8>>, kind: u16| {
        attrs.get(&[kind][..]).and_then(|value| value.as_slice().try_into().ok()).map_or(0, u32::from_be_bytes)
    };
    let mut known = true;
    // What the last load put into each register: an interface's name, if one was known.
    let mut loaded: BTreeMap<u32, Option<&str>> = BTreeMap::new();
    for (name, attrs) in rule {
        match name.as_str() {
            "meta" => {
                let interface = match number(attrs, 2) {
                    IIFNAME => Some(SHARED_INTERFACE),
                    OIFNAME => lan,
                    _ => None,
                };
                loaded.insert(number(attrs, 1), interface);
            }
            "cmp" => match (loaded.get(&number(attrs, 1)).copied().flatten(), attrs.get(&[3, 1][..])) {
                (Some(interface), Some(value)) => {
                    let mut padded = [0; 16];
                    padded[..interface.len().min(15)].copy_from_slice(&interface.as_bytes()[..interface.len().min(15)]);
                    let equal = padded.get(..value.len()) == Some(value);
                    let wanted = number(attrs, 2) == 0;
                    if number(attrs, 2) > 1 {
                        known = false;
                    } else if equal != wanted {
                        return Some(false);
                    }
                }
                _ => known = false,
            },
            "counter" | "log" | "immediate" | "reject" | "objref" => {}
            _ => known = false,
        }
    }
    known.then_some(true)
}

/// Whether a rule looks at what conntrack knows.
fn is_for_connections(rule: &Canon) -> bool {
    rule.iter().any(|(name, _)| name == "ct")
}

fn act(rule: &Canon) -> Act {
    const VERDICT_CODE: [u16; 3] = [2, 2, 1];
    const VERDICT_CHAIN: [u16; 3] = [2, 2, 2];
    for (name, attrs) in rule {
        if name == "reject" {
            return Act::Drop;
        }
        let Some(code) = attrs.get(&VERDICT_CODE[..]).filter(|_| name == "immediate") else { continue };
        let code = code.as_slice().try_into().map(i32::from_be_bytes).unwrap_or(i32::MAX);
        let chain = attrs
            .get(&VERDICT_CHAIN[..])
            .map(|name| String::from_utf8_lossy(name.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned());
        return match (code, chain) {
            (0, _) => Act::Drop,
            (1, _) => Act::Accept,
            (libc::NFT_RETURN, _) => Act::Return,
            (libc::NFT_JUMP, Some(chain)) => Act::Jump(chain),
            (libc::NFT_GOTO, Some(chain)) => Act::Goto(chain),
            _ => Act::Other,
        };
    }
    // A rule that ends with a lookup is a verdict map's; queues and targets of xtables decide by themselves.
    let decides = |(name, _): &(String, _)| matches!(name.as_str(), "lookup" | "queue" | "target");
    if rule.last().is_some_and(decides) { Act::Other } else { Act::Nothing }
}
