//! A packet on its way through the chains of one table.

use std::collections::{BTreeMap, BTreeSet};

use super::packet::Packet;
use super::rule::{Act, Condition, Rule};
use super::set::Set;

/// How deep jumps are followed; the kernel takes sixteen.
const DEPTH: usize = 16;
/// How many rules are looked at for one packet: jumps to chains that jump on multiply.
const STEPS: usize = 20_000;

/// One table: its chains, and the sets that were looked into.
#[derive(Debug)]
pub struct Table {
    pub chains: BTreeMap<String, Vec<Rule>>,
    pub sets: BTreeMap<String, Set>,
    /// It has more rules than were kept.
    pub partly: bool,
    /// How many rules are looked at for one packet.
    pub steps: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { chains: BTreeMap::new(), sets: BTreeMap::new(), partly: false, steps: STEPS }
    }
}

/// A rule's place: its chain, and which of its rules.
pub type Place = (String, usize);

/// What becomes of packets in a base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    pub end: End,
    /// The first rule that drops some of them.
    pub doubt: Option<Place>,
    /// Some may have been let through, or given to another program.
    pub passed: bool,
    /// It was too long to be followed to its end, or is not known whole.
    pub lost: bool,
}

/// What becomes of those that were not let through, nor perhaps dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// There are none.
    Gone,
    /// This rule drops them all.
    Dropped(Place),
    /// Nothing was decided: on with the rule behind the jump, or the policy.
    Back,
}

impl Table {
    /// Follows a packet from a base chain; names the sets that it would take to know more.
    pub fn follow(&self, chain: &str, packet: &Packet, wanted: &mut BTreeSet<String>) -> Fate {
        let mut walk =
            Walk { table: self, packet, wanted, doubt: None, passed: false, lost: self.partly, left: self.steps };
        let end = walk.chain(chain, true, DEPTH);
        Fate { end, doubt: walk.doubt, passed: walk.passed, lost: walk.lost }
    }
}

struct Walk<'t, 'a> {
    table: &'t Table,
    packet: &'a Packet,
    wanted: &'a mut BTreeSet<String>,
    doubt: Option<Place>,
    passed: bool,
    lost: bool,
    left: usize,
}

impl<'t> Walk<'t, '_> {
    /// `all`: every packet that is still on its way is here, not only some.
    fn chain(&mut self, name: &str, mut all: bool, depth: usize) -> End {
        let rules = self.table.chains.get(name).map_or(&[][..], Vec::as_slice);
        // Whether some have gone back to where they came from.
        let mut left = false;
        for (index, rule) in rules.iter().enumerate() {
            if !self.pay(1) {
                return End::Back;
            }
            if rule.act == Act::Nothing {
                continue;
            }
            let holds = self.holds(rule);
            if holds == Some(false) {
                continue;
            }
            for (sure, act) in self.acts(rule) {
                let sure = holds.and(sure);
                match self.act(&act, (name, index), sure == Some(true) && all, depth) {
                    _ if sure.is_none() => {
                        // A return, or a goto that came back, took some out of this chain.
                        let leaves = matches!(act, Act::Return | Act::Goto(_));
                        (left, all) = (left || leaves, all && !leaves);
                    }
                    Next::On => {}
                    Next::End(End::Gone) if left => return End::Back,
                    Next::End(end) => return end,
                }
            }
        }
        End::Back
    }

    /// What a rule does whose conditions hold; a map may do one of several things.
    fn acts(&mut self, rule: &Rule) -> Vec<(Option<bool>, Act)> {
        let Act::Map { key, set } = &rule.act else { return vec![(Some(true), rule.act.clone())] };
        match self.set(set) {
            Some(found) => found.acts(self.packet, key),
            None => vec![(None, Act::Other)],
        }
    }

    fn act(&mut self, act: &Act, place: (&str, usize), all: bool, depth: usize) -> Next {
        match act {
            Act::Nothing => Next::On,
            Act::Accept | Act::Other | Act::Map { .. } => {
                self.passed = true;
                Next::End(End::Gone)
            }
            Act::Drop | Act::Reject => {
                let place = (place.0.to_owned(), place.1);
                if all {
                    return Next::End(End::Dropped(place));
                }
                self.doubt.get_or_insert(place);
                Next::End(End::Gone)
            }
            Act::Return => Next::End(End::Back),
            Act::Jump(to) | Act::Goto(to) => {
                let end = match depth.checked_sub(1) {
                    Some(depth) => self.chain(to, all, depth),
                    None => {
                        self.lost = true;
                        End::Back
                    }
                };
                match (end, act) {
                    (End::Back, Act::Jump(_)) => Next::On,
                    (end, _) => Next::End(end),
                }
            }
        }
    }

    /// Whether all conditions of a rule hold; `None`: for some packets.
    fn holds(&mut self, rule: &Rule) -> Option<bool> {
        let mut holds = Some(true);
        // What is known without a set comes first: many a set need not be read then.
        let (sets, rest): (Vec<_>, Vec<_>) =
            rule.conditions.iter().partition(|condition| matches!(condition, Condition::InSet { .. }));
        for condition in rest.into_iter().chain(sets) {
            let (one, not) = match condition {
                Condition::Within { part, .. } if self.packet.lacks(part.field) => return Some(false),
                Condition::Within { part, ranges, not } => (self.packet.within(*part, ranges), *not),
                Condition::InSet { key, .. } if key.iter().any(|part| self.packet.lacks(part.field)) => {
                    return Some(false);
                }
                Condition::InSet { key, set, not } => {
                    (self.set(set).and_then(|found| found.holds(self.packet, key)), *not)
                }
                Condition::Unknown(_) => (None, false),
            };
            match one.map(|one| one != not) {
                Some(false) => return Some(false),
                Some(true) => {}
                None => holds = None,
            }
        }
        holds
    }

    fn set(&mut self, name: &str) -> Option<&'t Set> {
        let found = self.table.sets.get(name);
        match found {
            Some(found) => self.pay(found.cost()),
            None => self.wanted.insert(name.to_owned()),
        };
        found
    }

    /// Whether there are so many steps left.
    fn pay(&mut self, steps: usize) -> bool {
        let left = self.left.checked_sub(steps);
        self.left = left.unwrap_or(0);
        self.lost |= left.is_none();
        left.is_some()
    }
}

/// How it goes on behind a rule.
enum Next {
    /// With the next rule.
    On,
    End(End),
}
