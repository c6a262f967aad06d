//! What other tables do to the packets of lanes that are forwarded to the LAN, and to the answers.
//!
//! A drop of any table is final, whatever ours says: OpenWrt's fw4 drops what it has no zone for. The rules of others
//! are read with the sets they look into, and packets of which is known what is known of a lane's (interfaces, pools,
//! protocols, the state of their connection) are followed through them. A drop that is certain to meet them is told
//! from one that may, because it asks for something that nobody can foresee: a port, a limit, a mark, a time.
//!
//! [`packet`] says what is known of packets, [`rule`] and [`set`] read, [`walk`] follows, [`judge`] sums up.

use std::collections::{BTreeMap, BTreeSet};

use crate::attr::{AttrBuf, AttrError, Attrs};
use crate::error::NftError;
use crate::link::Question;
use crate::message::tables;
use crate::nft::{Nft, creation};
use crate::object::{self, kind};
use crate::ruleset;
use crate::{About, BaseConfig};

mod fuzz;
mod judge;
mod packet;
mod rule;
mod set;
#[cfg(test)]
mod tests;
mod text;
mod walk;

use rule::Rule;
use set::{Dumped, MOST_ELEMENTS, Set};
use walk::Table;

pub use fuzz::fuzz_foreign;
pub use judge::{Lanes, Side};

const DUMP: u16 = libc::NLM_F_DUMP as u16;
/// `NFPROTO_INET` and `NFPROTO_IPV4`: the families that see a lane's packet here.
const FAMILIES: [u8; 2] = [libc::NFPROTO_INET as u8, libc::NFPROTO_IPV4 as u8];
/// The most rules that are kept of one table, and the most tables and chains that are judged.
const MOST_RULES: usize = 20_000;
const MOST_CHAINS: usize = 64;
/// How often chains are followed again with the sets that were wanted, and the most sets that are read for one table.
const ROUNDS: usize = 8;
const MOST_SETS: usize = 256;
/// A chain that nobody has: what a trial batch ends with.
const NOWHERE: &str = "thinlane-trial-ends-here";

/// A base chain of another table, and what it does to the packets of lanes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignChain {
    pub table: String,
    /// The table's NFPROTO number.
    pub family: u8,
    pub chain: String,
    pub hook: Hook,
    pub passes: Passes,
    /// Which rule drops, or may. `None`: no rule does; the policy drops, or may.
    pub rule: Option<Ruling>,
    /// It was too long to be followed to its end.
    pub lost: bool,
}

/// A rule that drops.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ruling {
    pub chain: String,
    /// Its number in the chain, as `nft -a` shows it.
    pub handle: u64,
    /// As `nft` writes it, or nearly so.
    pub text: String,
}

/// Where the kernel asks a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Packets to this machine: those of the relay, which carry lanes.
    Input,
    /// Packets through this machine: those that lanes carry.
    Forward,
}

/// Whether packets of lanes get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Passes {
    Yes,
    /// The chain was too long to be followed, and nothing was found as far as it was.
    Unclear,
    /// Some packets are dropped, and those of a lane can be among them.
    MayDrop,
    No,
}

impl ForeignChain {
    /// The table's family as `nft` writes it.
    pub fn family_word(&self) -> &'static str {
        if self.family == FAMILIES[0] { "inet" } else { "ip" }
    }
}

impl Nft {
    /// What every other table's chains do to the packets of lanes, and to those that carry them.
    pub fn foreign(&mut self, lanes: &Lanes) -> Result<Vec<ForeignChain>, NftError> {
        let mut bases = self.foreign_bases()?;
        bases.sort_by(|one, other| (&one.table, one.family, &one.name).cmp(&(&other.table, other.family, &other.name)));
        bases.truncate(MOST_CHAINS);
        let mut known: BTreeMap<(u8, String), Table> = BTreeMap::new();
        let mut found = Vec::new();
        for base in bases {
            let key = (base.family, base.table.clone());
            if !known.contains_key(&key) {
                known.insert(key.clone(), self.foreign_table(base.family, &base.table)?);
            }
            let table = known.get_mut(&key).expect("just read");
            let mut round = 0;
            let judged = loop {
                let mut wanted = BTreeSet::new();
                let judged = base.judge(table, lanes, &mut wanted);
                round += 1;
                if wanted.is_empty() || round > ROUNDS || table.sets.len() >= MOST_SETS {
                    break judged;
                }
                for name in wanted.into_iter().take(MOST_SETS) {
                    let set = self.foreign_set(base.family, &base.table, &name)?;
                    table.sets.insert(name, set);
                }
            };
            found.push(judged);
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

    /// The base chains of others that see lanes.
    fn foreign_bases(&mut self) -> Result<Vec<Base>, NftError> {
        let nothing = AttrBuf::new();
        let question = Question { kind: tables(kind::GET_CHAIN), flags: DUMP, family: 0, resource: 0, attrs: &nothing };
        self.link.ask(&question, |family, attrs| Base::read(family, &attrs))
    }

    fn foreign_table(&mut self, family: u8, name: &str) -> Result<Table, NftError> {
        let mut table = Table::default();
        let mut kept = 0;
        self.dump_of(family, kind::GET_RULE, &AttrBuf::new().text(1, name), |attrs| {
            // Old kernels dump those of all tables.
            if attrs.text(1).ok().flatten() == Some(name) {
                table.take(attrs, &mut kept);
            }
            Ok(None::<()>)
        })?;
        Ok(table)
    }

    fn foreign_set(&mut self, family: u8, table: &str, name: &str) -> Result<Set, NftError> {
        let of = AttrBuf::new().text(1, table).text(2, name);
        let question = Question { kind: tables(kind::GET_SET), flags: 0, family, resource: 0, attrs: &of };
        let flags = match self.link.ask(&question, |_, attrs| Ok(Some(attrs.u32(3)?.unwrap_or(0)))) {
            // Its owner replaced it meanwhile.
            Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(Set::unknown()),
            answer => answer?.first().copied().unwrap_or(0),
        };
        let mut elements = Vec::new();
        let mut known = true;
        self.dump_of(family, kind::GET_ELEMENT, &of, |attrs| {
            match Dumped::read(attrs) {
                Ok(read) if known && elements.len() + read.len() <= MOST_ELEMENTS => elements.extend(read),
                _ => known = false,
            }
            Ok(None::<()>)
        })?;
        Ok(if known { Set::of(flags, elements) } else { Set::unknown() })
    }

    /// What `read` takes of a dump; nothing where what it is about is gone.
    fn dump_of<T>(
        &mut self,
        family: u8,
        kind: u8,
        attrs: &AttrBuf,
        mut read: impl FnMut(&Attrs<'_>) -> Result<Option<T>, AttrError>,
    ) -> Result<Vec<T>, NftError> {
        let question = Question { kind: tables(kind), flags: DUMP, family, resource: 0, attrs };
        match self.link.ask(&question, |_, attrs| read(&attrs)) {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
            answer => answer,
        }
    }
}

/// A base chain as dumped.
#[derive(Debug, Clone)]
struct Base {
    family: u8,
    table: String,
    name: String,
    hook: Hook,
    accepts: bool,
}

impl Base {
    /// `NFT_MSG_NEWCHAIN`: `None` for one that sees no packet of a lane, and for ours.
    fn read(family: u8, attrs: &Attrs<'_>) -> Result<Option<Self>, AttrError> {
        let table = attrs.need(1)?.text()?.to_owned();
        let filters = attrs.text(7)?.is_none_or(|kind| kind == "filter");
        let ours = family == object::FAMILY && table == object::TABLE;
        let Some(hook) = attrs.find(4).filter(|_| filters && !ours && FAMILIES.contains(&family)) else {
            return Ok(None);
        };
        let hook = match hook.nested().need(1)?.u32()? {
            1 => Hook::Input,
            2 => Hook::Forward,
            _ => return Ok(None),
        };
        let accepts = attrs.u32(5)? != Some(libc::NF_DROP as u32);
        Ok(Some(Self { family, table, name: attrs.need(3)?.text()?.to_owned(), hook, accepts }))
    }

    fn judge(&self, table: &Table, lanes: &Lanes, wanted: &mut BTreeSet<String>) -> ForeignChain {
        let (passes, rule, lost) = judge::judge(table, (self.hook, &self.name, self.accepts), lanes, wanted);
        let Self { family, table, name, hook, .. } = self.clone();
        ForeignChain { table, family, chain: name, hook, passes, rule, lost }
    }
}

impl Table {
    /// Keeps one rule as dumped, if there is room for it and it can be read.
    fn take(&mut self, attrs: &Attrs<'_>, kept: &mut usize) {
        match Rule::read(attrs) {
            Ok((_, chain, rule)) if *kept < MOST_RULES => {
                *kept += 1;
                self.chains.entry(chain).or_default().push(rule);
            }
            _ => self.partly = true,
        }
    }
}
