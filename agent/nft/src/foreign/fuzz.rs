//! What a kernel could say of the tables of others: for fuzzing, and for tests that have it recorded.

use std::collections::{BTreeMap, BTreeSet};

use super::packet::Packet;
use super::rule::Act;
use super::set::{Dumped, Set};
use super::walk::{End, Table};
use super::{Base, ForeignChain, Lanes, Passes, Side};
use crate::message::{Content, Messages, SUBSYS_TABLES};
use crate::object::kind;

/// A walk that goes round in circles ends sooner, so that more is tried.
const STEPS: usize = 300;

/// What a kernel said of all tables, by family and name.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub bases: Vec<Base>,
    pub tables: BTreeMap<(u8, String), Table>,
}

impl Said {
    /// Reads chains, rules, sets and their elements.
    pub fn read(bytes: &[u8], most: usize) -> Self {
        let (mut said, mut kept) = (Self::default(), 0);
        let mut elements: BTreeMap<(u8, String, String), (u32, Vec<Dumped>)> = BTreeMap::new();
        for message in Messages::new(bytes).take(most) {
            let Ok(Content::Netfilter { subsys: SUBSYS_TABLES, family, attrs, kind, .. }) =
                message.and_then(|message| message.content())
            else {
                continue;
            };
            let text = |kind| attrs.text(kind).ok().flatten().unwrap_or_default().to_owned();
            let table = said.tables.entry((family, text(1))).or_default();
            match kind {
                kind::NEW_CHAIN => said.bases.extend(Base::read(family, &attrs).ok().flatten()),
                kind::NEW_RULE => table.take(&attrs, &mut kept),
                kind::NEW_SET => {
                    let flags = attrs.u32(3).ok().flatten().unwrap_or(0);
                    elements.entry((family, text(1), text(2))).or_default().0 = flags;
                }
                kind::NEW_ELEMENT => {
                    let found = Dumped::read(&attrs).unwrap_or_default();
                    elements.entry((family, text(1), text(2))).or_default().1.extend(found);
                }
                _ => {}
            }
        }
        for ((family, table, name), (flags, dumped)) in elements {
            said.tables.entry((family, table)).or_default().sets.insert(name, Set::of(flags, dumped));
        }
        said
    }

    pub fn judge(&self, lanes: &Lanes) -> Vec<ForeignChain> {
        let table = |base: &Base| self.tables.get(&(base.family, base.table.clone()));
        let judged = |base: &Base| Some(base.judge(table(base)?, lanes, &mut BTreeSet::new()));
        self.bases.iter().filter_map(judged).collect()
    }
}

/// Reads chains, rules and elements, and follows lanes through them from every base chain: it ends, says the same
/// however often it is asked, and knowing less of the packets never makes a drop certain that was none. Tells `reach`
/// what it got to.
pub fn fuzz_foreign(bytes: &[u8], reach: &mut dyn FnMut(&'static str)) {
    let mut said = Said::read(bytes, 64);
    said.tables.values_mut().for_each(|table| table.steps = STEPS);
    let sides = |names: &[&str]| -> Vec<Side> {
        let networks = vec![([192, 168, 1, 0].into(), 24)];
        names.iter().map(|name| Side { name: (*name).to_owned(), networks: networks.clone() }).collect()
    };
    let one = Lanes {
        device: "tl0".into(),
        lan: sides(&["lan"]),
        lan_is_certain: true,
        engineers: vec![([198, 19, 0, 0].into(), 16)],
        uplink: Some("an interface with a name that is too long".into()),
        indices: vec![("lan".into(), 3)],
    };
    let all = Lanes { device: "tl-".into(), lan_is_certain: false, lan: sides(&["lan", "eth0"]), ..one.clone() };
    for lanes in [&one, &all, &Lanes::default()] {
        let judged = said.judge(lanes);
        assert_eq!(judged, said.judge(lanes));
        for chain in judged {
            reach(match chain.hook {
                super::Hook::Input => "a chain on the input hook",
                super::Hook::Forward => "a chain on the forward hook",
            });
            reach(match chain.passes {
                Passes::Yes => "accepted",
                Passes::Unclear => "unclear",
                Passes::MayDrop => "perhaps dropped",
                Passes::No => "dropped",
            });
            if let Some(rule) = chain.rule {
                assert!(chain.passes >= Passes::MayDrop && rule.text.chars().count() <= 202, "{rule:?}");
                assert!(!rule.text.contains(char::is_control), "{rule:?}");
                reach("a rule that is quoted");
            }
        }
    }
    for base in &said.bases {
        let Some(table) = said.tables.get(&(base.family, base.table.clone())) else { continue };
        let mut wanted = BTreeSet::new();
        let fate = table.follow(&base.name, &Packet::default(), &mut wanted);
        if !wanted.is_empty() {
            reach("a set that is not known");
        }
        // A rule without conditions at the very beginning is what becomes of every packet.
        let first = table.chains.get(&base.name).and_then(|rules| rules.first());
        if let Some(first) = first.filter(|first| first.conditions.is_empty() && !table.partly) {
            match first.act {
                Act::Accept => assert!(fate.passed && fate.end == End::Gone && fate.doubt.is_none()),
                Act::Drop | Act::Reject => assert_eq!(fate.end, End::Dropped((base.name.clone(), 0))),
                _ => {}
            }
        }
        // What is dropped though nothing is known of it is dropped whatever is known.
        if matches!(fate.end, End::Dropped(_)) && !fate.passed && !fate.lost && base.hook == super::Hook::Forward {
            let sure = base.judge(table, &one, &mut BTreeSet::new());
            assert!(sure.passes >= Passes::MayDrop, "{sure:?}");
        }
    }
}
