//! Rules as `nft` writes them, as far as they are followed; what is not stands as its kind and two dots.

use std::net::Ipv4Addr;

use super::packet::{Field, Part, Range, TCP, UDP, native, ones};
use super::rule::{Act, Condition, Rule};
use super::walk::Table;

/// The most letters of a rule, and the most elements of a set.
const MOST: usize = 200;
const MOST_SHOWN: usize = 4;

/// A rule on one line, its comment with it.
pub fn text(rule: &Rule, table: &Table) -> String {
    let mut words = Vec::new();
    let mut protocol = "th";
    let about = |field: &[Field]| {
        rule.conditions.iter().any(|condition| match condition {
            Condition::Within { part, .. } => field.contains(&part.field),
            Condition::InSet { key, .. } => key.iter().any(|part| field.contains(&part.field)),
            Condition::Unknown(_) => false,
        })
    };
    for condition in &rule.conditions {
        match condition {
            // What nft adds by itself before an address or a port.
            Condition::Within { part: Part { field: Field::Family, .. }, .. }
                if about(&[Field::Source, Field::Destination]) => {}
            Condition::Within { part: Part { field: Field::Protocol, .. }, ranges, not: false }
                if about(&[Field::SourcePort, Field::DestinationPort])
                    && [TCP, UDP].map(|one| vec![(one, one)]).contains(ranges) =>
            {
                protocol = if ranges[0].0 == TCP { "tcp" } else { "udp" };
            }
            // The upper end of a range that has none.
            Condition::Within { part, ranges, not: false } if ranges[..] == [(0, ones(part.length))] => {}
            Condition::Within { part, ranges, not } => words.push(within(*part, ranges, *not, protocol)),
            Condition::InSet { key, set, not } => {
                let not = if *not { "!= " } else { "" };
                words.push(format!("{} {not}{}", keys(key, protocol), elements(table, set, key)));
            }
            Condition::Unknown(word) => words.push(format!("{word} ..")),
        }
    }
    words.push(match &rule.act {
        Act::Map { key, set } => format!("{} vmap {}", keys(key, protocol), elements(table, set, key)),
        act => verdict(act),
    });
    words.extend(rule.comment.as_ref().map(|comment| format!("comment \"{comment}\"")));
    let line: String = words.join(" ").chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect();
    if line.chars().count() > MOST { line.chars().take(MOST).chain("..".chars()).collect() } else { line }
}

fn verdict(act: &Act) -> String {
    match act {
        Act::Nothing => "continue".into(),
        Act::Accept => "accept".into(),
        Act::Drop => "drop".into(),
        Act::Reject => "reject".into(),
        Act::Return => "return".into(),
        Act::Jump(to) => format!("jump {to}"),
        Act::Goto(to) => format!("goto {to}"),
        Act::Map { .. } | Act::Other => "..".into(),
    }
}

/// What nft calls a field.
fn word(field: Field, protocol: &str) -> String {
    match field {
        Field::InName => "iifname",
        Field::OutName => "oifname",
        Field::InIndex => "iif",
        Field::OutIndex => "oif",
        Field::Family => "meta nfproto",
        Field::Protocol => "meta l4proto",
        Field::State => "ct state",
        Field::Direction => "ct direction",
        Field::Source => "ip saddr",
        Field::Destination => "ip daddr",
        Field::SourcePort => return format!("{protocol} sport"),
        Field::DestinationPort => return format!("{protocol} dport"),
        Field::Other => "..",
    }
    .into()
}

fn keys(key: &[Part], protocol: &str) -> String {
    key.iter().map(|part| word(part.field, protocol)).collect::<Vec<_>>().join(" . ")
}

fn within(part: Part, ranges: &[Range], not: bool, protocol: &str) -> String {
    let word = word(part.field, protocol);
    if let (Field::State, Some(mask)) = (part.field, part.mask) {
        // No bit of these is set, or one is.
        let not = if not { "" } else { "! " };
        return format!("{word} {not}{}", states(mask));
    }
    let operator = if not { "!= " } else { "" };
    let most = ones(part.length);
    match ranges {
        [(0, high)] if *high < most && *high > 0 => format!("{word} <= {}", value(part, *high)),
        [(low, high)] if *high == most && low < high && *low > 0 => format!("{word} >= {}", value(part, *low)),
        [(low, high)] if low == high => format!("{word} {operator}{}", value(part, *low)),
        [(low, high)] => format!("{word} {operator}{}-{}", value(part, *low), value(part, *high)),
        _ => format!("{word} .."),
    }
}

/// One value of a part.
fn value(part: Part, value: u128) -> String {
    match part.field {
        Field::InName | Field::OutName => {
            let bytes = value.to_be_bytes();
            let name = &bytes[16 - part.length.min(16)..];
            let end = name.iter().position(|byte| *byte == 0);
            let star = if end.is_none() && part.length < 16 { "*" } else { "" };
            format!("\"{}{star}\"", String::from_utf8_lossy(&name[..end.unwrap_or(name.len())]))
        }
        Field::InIndex | Field::OutIndex => u32::from_ne_bytes(low_bytes(value)).to_string(),
        Field::Family => match value {
            2 => "ipv4".into(),
            10 => "ipv6".into(),
            other => other.to_string(),
        },
        Field::Protocol => match value {
            TCP => "tcp".into(),
            UDP => "udp".into(),
            1 => "icmp".into(),
            58 => "ipv6-icmp".into(),
            other => other.to_string(),
        },
        Field::State => states(value),
        Field::Direction => if value == 0 { "original" } else { "reply" }.into(),
        Field::Source | Field::Destination => {
            let missing = 32 - 8 * u32::try_from(part.length.min(4)).unwrap_or(4);
            let address = Ipv4Addr::from(u32::from_be_bytes(low_bytes(value)).checked_shl(missing).unwrap_or(0));
            match part.mask.map(u128::count_ones).or((missing > 0).then_some(32 - missing)) {
                Some(length) => format!("{address}/{length}"),
                None => address.to_string(),
            }
        }
        Field::SourcePort | Field::DestinationPort | Field::Other => value.to_string(),
    }
}

fn low_bytes(value: u128) -> [u8; 4] {
    let [.., a, b, c, d] = value.to_be_bytes();
    [a, b, c, d]
}

/// `NF_CT_STATE_BIT` by name.
fn states(bits: u128) -> String {
    const NAMES: [(u32, &str); 5] = [(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (64, "untracked")];
    let names = NAMES.iter().filter(|(bit, _)| bits & native(*bit) != 0).map(|(_, name)| *name);
    names.collect::<Vec<_>>().join(",")
}

/// A set by its name, or by what is in it where it has none of its own.
fn elements(table: &Table, set: &str, key: &[Part]) -> String {
    let Some(found) = table.sets.get(set).filter(|_| set.starts_with("__")) else { return format!("@{set}") };
    let one = |bytes: &[u8]| {
        let mut at = 0;
        let mut words = Vec::new();
        for part in key {
            let Some(piece) = bytes.get(at..at + part.length) else { break };
            words.push(value(*part, super::packet::number(piece).unwrap_or(0)));
            at = (at + part.length).next_multiple_of(4);
        }
        words.join(" . ")
    };
    let mut words: Vec<String> = found
        .shown()
        .take(MOST_SHOWN)
        .map(|(low, high, act)| {
            let range = if low == high { one(low) } else { format!("{}-{}", one(low), one(high)) };
            act.map_or(range.clone(), |act| format!("{range} : {}", verdict(act)))
        })
        .collect();
    if found.shown().nth(MOST_SHOWN).is_some() {
        words.push("..".into());
    }
    format!("{{ {} }}", words.join(", "))
}
