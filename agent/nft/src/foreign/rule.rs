//! Rules of others as conditions and a verdict (`include/uapi/linux/netfilter/nf_tables.h`).

use super::packet::{Field, Part, Range, number, ones};
use crate::attr::{AttrError, Attrs};

/// The most conditions that are kept of a rule; more make it one that cannot be judged.
const MOST_CONDITIONS: usize = 32;
/// Registers are numbered in words of four bytes.
const WORD: usize = 4;
/// Bytes of all registers.
const BYTES: usize = 80;

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its number in its chain, as `nft -a` shows it.
    pub handle: u64,
    pub comment: Option<String>,
    pub conditions: Vec<Condition>,
    pub act: Act,
}

/// What must hold before a rule acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The part is in one of the ranges, or not.
    Within { part: Part, ranges: Vec<Range>, not: bool },
    /// What these registers hold is in a set, or not.
    InSet { key: Vec<Part>, set: String, not: bool },
    /// Something that is not followed: a limit, a mark, a time. The kernel's word for it.
    Unknown(&'static str),
}

/// What a rule does once its conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    Nothing,
    Accept,
    Drop,
    Reject,
    Return,
    Jump(String),
    Goto(String),
    /// The verdict that a map holds for these registers.
    Map {
        key: Vec<Part>,
        set: String,
    },
    /// Something else decides: a queue, a target of xtables.
    Other,
}

impl Rule {
    /// `NFT_MSG_NEWRULE`: table, chain and rule.
    pub fn read(attrs: &Attrs<'_>) -> Result<(String, String, Self), AttrError> {
        let (table, chain) = (attrs.need(1)?.text()?.to_owned(), attrs.need(2)?.text()?.to_owned());
        let handle = attrs.u64(3)?.unwrap_or(0);
        let mut reading = Reading { conditions: Vec::new(), act: None, held: [None; BYTES], word: "more" };
        if let Some(list) = attrs.find(4) {
            for item in list.nested() {
                let item = item?.nested();
                reading
                    .expression(item.need(1)?.text()?, &item.find(2).map_or(Attrs::new(&[]), |data| data.nested()))?;
            }
        }
        let comment = attrs.find(7).and_then(|data| comment(data.value));
        let Reading { conditions, act, .. } = reading;
        Ok((table, chain, Self { handle, comment, conditions, act: act.unwrap_or(Act::Nothing) }))
    }
}

/// `NFTNL_UDATA_RULE_COMMENT`: pairs of type and length, one byte each, in a form of the library's own.
fn comment(data: &[u8]) -> Option<String> {
    let mut rest = data;
    while let Some(([kind, length], behind)) = rest.split_first_chunk::<2>() {
        let value = behind.get(..usize::from(*length))?;
        if *kind == 0 {
            let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        rest = &behind[value.len()..];
    }
    None
}

/// A verdict of an immediate or an element: `NFTA_VERDICT_CODE`, `NFTA_VERDICT_CHAIN`.
pub fn verdict(attrs: &Attrs<'_>) -> Result<Act, AttrError> {
    let code = attrs.need(1)?.u32()?.cast_signed();
    let chain = attrs.text(2)?.map(str::to_owned);
    Ok(match (code, chain) {
        (0, _) => Act::Drop,
        (1, _) => Act::Accept,
        (libc::NFT_RETURN, _) => Act::Return,
        (libc::NFT_JUMP, Some(chain)) => Act::Jump(chain),
        (libc::NFT_GOTO, Some(chain)) => Act::Goto(chain),
        (libc::NFT_CONTINUE, _) => Act::Nothing,
        _ => Act::Other,
    })
}

/// A rule so far.
struct Reading {
    conditions: Vec<Condition>,
    act: Option<Act>,
    /// The fields that registers hold, each where it begins.
    held: [Option<Part>; BYTES],
    /// What to call what was loaded last and is not followed.
    word: &'static str,
}

impl Reading {
    fn expression(&mut self, name: &str, data: &Attrs<'_>) -> Result<(), AttrError> {
        // Nothing behind a verdict is reached.
        if self.act.is_some() {
            return Ok(());
        }
        match name {
            // With a source register they set something.
            "meta" | "ct" if data.find(if name == "meta" { 3 } else { 4 }).is_some() => {}
            "meta" => self.load(register(data, 1)?, &[Part::whole(meta(data.u32(2)?))], "meta"),
            "ct" => self.load(register(data, 1)?, &[Part::whole(conntrack(data.u32(2)?))], "ct"),
            "payload" if data.find(5).is_some() => {}
            "payload" => self.load(register(data, 1)?, &header(data)?, "header"),
            "bitwise" => self.mask(data)?,
            "cmp" => self.compare(data)?,
            "range" => self.range(data)?,
            "lookup" => self.lookup(data)?,
            "immediate" => match data.need(2)?.nested().find(2) {
                Some(found) => self.act = Some(verdict(&found.nested())?),
                None => self.load(register(data, 1)?, &[Part::whole(Field::Other)], "value"),
            },
            "reject" => self.act = Some(Act::Reject),
            "objref" => match data.u32(1)? {
                // NFT_OBJECT_QUOTA, _LIMIT, _CONNLIMIT.
                Some(2) => return self.unknown("quota"),
                Some(4 | 5) => return self.unknown("limit"),
                _ => {}
            },
            "counter" | "last" | "log" | "notrack" | "flow_offload" | "dup" => {}
            "match" => self.extension(data)?,
            "target" => match data.text(1)?.unwrap_or_default() {
                "REJECT" => self.act = Some(Act::Reject),
                "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TCPMSS" | "CT" | "SET" | "TRACE" | "AUDIT" | "CHECKSUM"
                | "CLASSIFY" | "DSCP" | "TOS" | "TTL" | "HL" | "SECMARK" | "CONNSECMARK" | "RATEEST" | "LED" => {}
                _ => self.act = Some(Act::Other),
            },
            "queue" | "synproxy" | "tproxy" | "nat" | "masq" | "redir" | "fwd" => self.act = Some(Act::Other),
            // Setting an option of TCP needs a packet that has it, and decides nothing.
            "exthdr" if data.find(7).is_some() => {}
            other => {
                self.unknown(known_word(other))?;
                // It may have loaded something into any register.
                self.held = [None; BYTES];
                self.word = known_word(other);
            }
        }
        Ok(())
    }

    fn unknown(&mut self, word: &'static str) -> Result<(), AttrError> {
        self.condition(Condition::Unknown(word));
        Ok(())
    }

    fn condition(&mut self, condition: Condition) {
        match self.conditions.len() {
            MOST_CONDITIONS => {}
            length if length + 1 == MOST_CONDITIONS => self.conditions.push(Condition::Unknown("more")),
            _ => self.conditions.push(condition),
        }
    }

    /// Puts fields into registers, one behind the other.
    fn load(&mut self, at: Option<usize>, parts: &[Part], word: &'static str) {
        let Some(at) = at else { return };
        let length = parts.iter().map(|part| part.length).sum::<usize>().next_multiple_of(WORD);
        self.held.iter_mut().skip(at).take(length).for_each(|held| *held = None);
        let mut byte = at;
        for part in parts {
            if let Some(held) = self.held.get_mut(byte) {
                *held = Some(*part);
            }
            byte += part.length;
        }
        self.word = word;
    }

    /// The field that begins at this byte.
    fn held(&self, at: Option<usize>) -> Part {
        at.and_then(|at| self.held.get(at)).copied().flatten().unwrap_or(Part::whole(Field::Other))
    }

    /// What a register and those behind it hold; a set takes as much of it as its keys are long.
    fn key(&self, at: Option<usize>) -> Vec<Part> {
        let mut at = at.unwrap_or(BYTES);
        let mut key = Vec::new();
        while let Some(Some(part)) = self.held.get(at) {
            key.push(*part);
            // How long that is, and what lies behind it, is not known.
            if part.field == Field::Other {
                break;
            }
            at = (at + part.length).next_multiple_of(WORD);
        }
        key
    }

    fn mask(&mut self, data: &Attrs<'_>) -> Result<(), AttrError> {
        let (from, to) = (register(data, 1)?, register(data, 2)?);
        let part = self.held(from);
        let bytes = |kind: u16| data.find(kind).and_then(|data| data.nested().find(1)).map(|value| value.value);
        let flips = bytes(5).is_some_and(|xor| xor.iter().any(|byte| *byte != 0));
        let masked = match bytes(4).filter(|_| !flips && data.u32(6).ok().flatten().unwrap_or(0) == 0) {
            Some(mask) if mask.len() == part.length && part.mask.is_none() => Part { mask: number(mask), ..part },
            _ => Part::whole(Field::Other),
        };
        self.load(to, &[masked], self.word);
        Ok(())
    }

    fn compare(&mut self, data: &Attrs<'_>) -> Result<(), AttrError> {
        let at = register(data, 1)?;
        let operator = data.u32(2)?.unwrap_or(0);
        let bytes = data.need(3)?.nested().need(1)?.value;
        let mut pieces = Vec::new();
        let mut done = 0;
        // Two fields that lie side by side in a header are compared as one.
        while done < bytes.len() {
            let mut part = self.held(at.map(|at| at + done));
            // A mask is for the whole of it.
            let cut = part.length > bytes.len() - done && part.mask.is_some();
            part.length = part.length.min(bytes.len() - done);
            if part.field == Field::Other || part.length == 0 || cut {
                pieces.clear();
                break;
            }
            pieces.push((part, number(&bytes[done..done + part.length]).unwrap_or(0)));
            done += part.length;
        }
        let (part, value) = match pieces[..] {
            [] => return self.unknown(self.word),
            [one] => one,
            _ if operator == 0 => {
                for (part, value) in pieces {
                    self.condition(Condition::Within { part, ranges: vec![(value, value)], not: false });
                }
                return Ok(());
            }
            _ => return self.unknown(self.word),
        };
        let most = ones(part.length);
        let (ranges, not) = match operator {
            0 => (vec![(value, value)], false),
            1 => (vec![(value, value)], true),
            2 => (value.checked_sub(1).map(|below| (0, below)).into_iter().collect(), false),
            3 => (vec![(0, value)], false),
            4 => (
                value.checked_add(1).filter(|above| *above <= most).map(|above| (above, most)).into_iter().collect(),
                false,
            ),
            5 => (vec![(value, most)], false),
            _ => return self.unknown(self.word),
        };
        self.condition(Condition::Within { part, ranges, not });
        Ok(())
    }

    fn range(&mut self, data: &Attrs<'_>) -> Result<(), AttrError> {
        let part = self.held(register(data, 1)?);
        let bound = |kind: u16| -> Result<&[u8], AttrError> { Ok(data.need(kind)?.nested().need(1)?.value) };
        let (low, high) = (bound(3)?, bound(4)?);
        match (number(low), number(high)) {
            (Some(from), Some(to))
                if part.field != Field::Other && low.len() == part.length && high.len() == part.length =>
            {
                let not = data.u32(2)? == Some(1);
                self.condition(Condition::Within { part, ranges: vec![(from, to)], not });
            }
            _ => return self.unknown(self.word),
        }
        Ok(())
    }

    fn lookup(&mut self, data: &Attrs<'_>) -> Result<(), AttrError> {
        let set = data.need(1)?.text()?.to_owned();
        let key = self.key(register(data, 2)?);
        match data.u32(3)? {
            // NFT_REG_VERDICT.
            Some(0) => self.act = Some(Act::Map { key, set }),
            to => {
                let not = data.u32(5)?.unwrap_or(0) & 1 != 0;
                self.condition(Condition::InSet { key, set, not });
                if to.is_some() {
                    self.load(register(data, 3)?, &[Part::whole(Field::Other)], "map");
                }
            }
        }
        Ok(())
    }

    /// A match of xtables, as iptables-nft writes it.
    fn extension(&mut self, data: &Attrs<'_>) -> Result<(), AttrError> {
        match data.text(1)?.unwrap_or_default() {
            "comment" => {}
            "conntrack" => {
                let found = data.find(3).and_then(|info| conntrack_states(info.value, data.u32(2).ok().flatten()));
                match found {
                    Some((states, not)) => {
                        let part = Part { mask: Some(super::packet::native(states)), ..Part::whole(Field::State) };
                        self.condition(Condition::Within { part, ranges: vec![(0, 0)], not: !not });
                    }
                    None => return self.unknown("ct"),
                }
            }
            other => return self.unknown(known_word(other)),
        }
        Ok(())
    }
}

/// `struct xt_conntrack_mtinfo2` and `3` where it asks for nothing but states: which, and whether they are excluded.
fn conntrack_states(info: &[u8], revision: Option<u32>) -> Option<(u32, bool)> {
    /// Eight addresses, two times, a protocol and four ports lie before the flags.
    const FLAGS: usize = 8 * 16 + 2 * 4 + 5 * 2;
    const STATE: u16 = 1;
    /// It was written as the older match `state`.
    const ALIAS: u16 = 1 << 13;
    let half = |at: usize| Some(u16::from_ne_bytes(*info.get(at..)?.first_chunk::<2>()?));
    let (flags, inverted, states) = (half(FLAGS)?, half(FLAGS + 2)?, half(FLAGS + 4)?);
    (matches!(revision, Some(2 | 3)) && flags & !ALIAS == STATE).then(|| (u32::from(states), inverted & STATE != 0))
}

/// A register's first byte; `None`: no register that holds data.
fn register(data: &Attrs<'_>, kind: u16) -> Result<Option<usize>, AttrError> {
    Ok(match data.u32(kind)? {
        Some(number @ 1..=4) => Some((number as usize - 1) * 4 * WORD),
        // NFT_REG32_00 lies where NFT_REG_1 does.
        Some(number @ 8..=23) => Some((number as usize - 8) * WORD),
        _ => None,
    })
}

/// What `meta` loads; numbers as in `nft_meta_keys`.
fn meta(key: Option<u32>) -> Field {
    match key {
        Some(4) => Field::InIndex,
        Some(5) => Field::OutIndex,
        Some(6) => Field::InName,
        Some(7) => Field::OutName,
        Some(15) => Field::Family,
        Some(16) => Field::Protocol,
        _ => Field::Other,
    }
}

/// What `ct` loads; numbers as in `nft_ct_keys`.
fn conntrack(key: Option<u32>) -> Field {
    match key {
        Some(0) => Field::State,
        Some(1) => Field::Direction,
        _ => Field::Other,
    }
}

/// What `payload` loads: fields of the IPv4 and the transport header, also side by side.
fn header(data: &Attrs<'_>) -> Result<Vec<Part>, AttrError> {
    const FIELDS: [(u32, u32, Field); 5] = [
        (1, 9, Field::Protocol),
        (1, 12, Field::Source),
        (1, 16, Field::Destination),
        (2, 0, Field::SourcePort),
        (2, 2, Field::DestinationPort),
    ];
    let (base, mut at) = (data.u32(2)?.unwrap_or(0), data.u32(3)?.unwrap_or(0));
    let mut left = data.u32(4)?.unwrap_or(0).min(64) as usize;
    let all = left;
    let mut parts = Vec::new();
    while left > 0 {
        let Some((_, _, field)) = FIELDS.iter().find(|known| (known.0, known.1) == (base, at)) else {
            return Ok(vec![Part { field: Field::Other, length: all.max(1), mask: None }]);
        };
        let length = field.length().min(left);
        parts.push(Part { field: *field, length, mask: None });
        left -= length;
        at += u32::try_from(length).unwrap_or(u32::MAX);
    }
    Ok(parts)
}

/// Words that may stand in a message.
fn known_word(word: &str) -> &'static str {
    const WORDS: [&str; 20] = [
        "limit",
        "quota",
        "connlimit",
        "fib",
        "rt",
        "socket",
        "numgen",
        "hash",
        "exthdr",
        "dynset",
        "byteorder",
        "osf",
        "addrtype",
        "multiport",
        "mark",
        "mac",
        "time",
        "recent",
        "set",
        "physdev",
    ];
    WORDS.into_iter().find(|known| *known == word).unwrap_or("more")
}
