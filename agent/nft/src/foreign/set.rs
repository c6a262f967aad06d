//! Sets and maps of others: what is in them, and whether a packet is.

use super::packet::{Packet, Part, Range, number, ones};
use super::rule::{Act, verdict};
use crate::attr::{AttrError, Attrs};

/// The most elements that are kept of one set; a larger one is judged as if nothing were known of it.
pub const MOST_ELEMENTS: usize = 65_536;
/// The most different verdicts of one map that are followed.
const MOST_ACTS: usize = 64;
const INTERVAL: u32 = 4;
const INTERVAL_END: u32 = 1;
const CATCH_ALL: u32 = 2;

/// A set or map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    elements: Vec<Element>,
    /// What the map says of all else.
    rest: Option<Act>,
    /// Whether it holds all else.
    holds_rest: bool,
    /// Some of it was not kept or not understood.
    partly: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Element {
    low: Box<[u8]>,
    /// Empty: the same.
    high: Box<[u8]>,
    act: Option<Box<Act>>,
    /// It counts only sometimes: a limit belongs to it.
    sometimes: bool,
}

/// One element as dumped.
#[derive(Debug)]
pub struct Dumped {
    element: Element,
    flags: u32,
}

impl Dumped {
    /// `NFT_MSG_NEWSETELEM`: the elements of one message.
    pub fn read(attrs: &Attrs<'_>) -> Result<Vec<Self>, AttrError> {
        let Some(list) = attrs.find(3) else { return Ok(Vec::new()) };
        list.nested().map(|element| Self::one(&element?.nested())).collect()
    }

    fn one(attrs: &Attrs<'_>) -> Result<Self, AttrError> {
        let key = |kind: u16| -> Result<Box<[u8]>, AttrError> {
            let Some(key) = attrs.find(kind) else { return Ok(Box::default()) };
            Ok(key.nested().need(1)?.value.into())
        };
        let data = attrs.find(2).and_then(|data| data.nested().find(2));
        let act = data.map(|found| verdict(&found.nested())).transpose()?.map(Box::new);
        // NFTA_SET_ELEM_EXPR and _EXPRESSIONS: counters count, all else asks for something.
        let counts =
            |list: &Attrs<'_>| list.text(1).ok().flatten().is_some_and(|name| name == "counter" || name == "last");
        let one = attrs.find(7).is_some_and(|one| !counts(&one.nested()));
        let more = attrs
            .find(11)
            .is_some_and(|all| all.nested().any(|each| each.map_or(true, |each| !counts(&each.nested()))));
        let element = Element { low: key(1)?, high: key(10)?, act, sometimes: one || more };
        Ok(Self { element, flags: attrs.u32(3)?.unwrap_or(0) })
    }
}

impl Set {
    /// `flags` as the set was declared.
    pub fn of(flags: u32, mut dumped: Vec<Dumped>) -> Self {
        let mut set = Self::default();
        dumped.retain_mut(|one| {
            if one.flags & CATCH_ALL != 0 {
                set.holds_rest = !one.element.sometimes;
                set.partly |= one.element.sometimes;
                set.rest = one.element.act.take().map(|act| *act);
            }
            one.flags & CATCH_ALL == 0 && !one.element.low.is_empty()
        });
        let ends = flags & INTERVAL != 0 && dumped.iter().all(|one| one.element.high.is_empty());
        if !ends {
            set.elements = dumped.into_iter().map(|one| one.element).collect();
            return set;
        }
        // One begins where another ends.
        dumped.sort_by(|one, other| one.element.low.cmp(&other.element.low).then(other.flags.cmp(&one.flags)));
        let mut open = false;
        for one in dumped {
            let begins = one.flags & INTERVAL_END == 0;
            if begins {
                let last = vec![0xff; one.element.low.len()].into();
                set.elements.push(Element { high: last, ..one.element });
            } else if let Some(last) = set.elements.last_mut().filter(|_| open) {
                last.high = before(&one.element.low);
            }
            open = begins;
        }
        set
    }

    /// Nothing is known of it.
    pub fn unknown() -> Self {
        Self { partly: true, ..Self::default() }
    }

    /// What looking something up costs, in steps of a walk.
    pub fn cost(&self) -> usize {
        1 + self.elements.len() / 64
    }

    /// Whether the packet is in it; `None`: some packets are.
    pub fn holds(&self, packet: &Packet, key: &[Part]) -> Option<bool> {
        if key.iter().any(|part| packet.lacks(part.field)) {
            return Some(false);
        }
        if self.holds_rest {
            return Some(true);
        }
        let sure = self.elements.iter().filter(|element| !element.sometimes);
        let found = match self.single(key) {
            // Several elements may hold together what none holds alone.
            Some(part) => packet.within(part, &sure.filter_map(|one| one.range(part)).collect::<Vec<_>>()),
            None => any(sure.map(|one| one.meets(packet, key))),
        };
        let perhaps = || any(self.elements.iter().filter(|one| one.sometimes).map(|one| one.meets(packet, key)));
        match found {
            Some(false) if self.partly || perhaps() != Some(false) => None,
            found => found,
        }
    }

    /// What the map may say of the packet, and whether it surely says that.
    pub fn acts(&self, packet: &Packet, key: &[Part]) -> Vec<(Option<bool>, Act)> {
        let mut acts: Vec<(Option<bool>, Act)> = Vec::new();
        let mut rest = Some(true);
        for element in &self.elements {
            let meets = element.meets(packet, key).filter(|_| !element.sometimes);
            if meets == Some(false) {
                continue;
            }
            let act = element.act.as_deref().unwrap_or(&Act::Other);
            match acts.len() {
                MOST_ACTS => return vec![(None, Act::Other)],
                // Said already, of others that may be meant.
                _ if meets.is_none() && acts.iter().any(|(_, said)| said == act) => {}
                _ => acts.push((meets, act.clone())),
            }
            rest = match meets {
                Some(true) => Some(false),
                _ => rest.filter(|rest| !rest),
            };
            if meets == Some(true) {
                break;
            }
        }
        if self.partly {
            acts.push((None, Act::Other));
        }
        if let Some(act) = self.rest.as_ref().filter(|_| rest != Some(false)) {
            acts.push((rest.filter(|_| !self.partly), act.clone()));
        }
        acts
    }

    /// The only part of a key, where an element has no more.
    fn single(&self, key: &[Part]) -> Option<Part> {
        let length = self.elements.first()?.low.len();
        key.first()
            .copied()
            .filter(|part| (part.length..=part.length.next_multiple_of(4)).contains(&length) && length <= 16)
    }

    /// Elements as pairs of bytes, for a person.
    pub fn shown(&self) -> impl Iterator<Item = (&[u8], &[u8], Option<&Act>)> {
        self.elements.iter().map(|one| (&*one.low, one.high(), one.act.as_deref()))
    }
}

impl Element {
    /// The last key that it stands for.
    fn high(&self) -> &[u8] {
        if self.high.is_empty() { &self.low } else { &self.high }
    }

    /// The values of a part that it stands for.
    fn range(&self, part: Part) -> Option<Range> {
        let of = |bytes: &[u8]| number(bytes.get(..part.length)?);
        Some((of(&self.low)?, of(self.high())?))
    }

    fn meets(&self, packet: &Packet, key: &[Part]) -> Option<bool> {
        let mut at = 0;
        let mut all = Some(true);
        for part in key {
            if at >= self.low.len() {
                break;
            }
            let end = at + part.length;
            let piece = |bytes: &[u8]| bytes.get(at..end).and_then(number);
            let (Some(low), Some(from), false) = (piece(&self.low), piece(self.high()), part.length > 16) else {
                return None;
            };
            match packet.within(*part, &[(low, from.min(ones(part.length)))]) {
                Some(false) => return Some(false),
                Some(true) => {}
                None => all = None,
            }
            at = end.next_multiple_of(4);
        }
        // A key that goes on behind what is known of the registers.
        all.filter(|_| at >= self.low.len())
    }
}

/// Whether one is true; `None`: one may be.
fn any(all: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut found = Some(false);
    for one in all {
        match one {
            Some(true) => return Some(true),
            Some(false) => {}
            None => found = None,
        }
    }
    found
}

/// The number before, in as many bytes.
fn before(bytes: &[u8]) -> Box<[u8]> {
    let mut bytes: Box<[u8]> = bytes.into();
    for byte in bytes.iter_mut().rev() {
        let (less, borrowed) = byte.overflowing_sub(1);
        *byte = less;
        if !borrowed {
            break;
        }
    }
    bytes
}
