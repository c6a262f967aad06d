//! What is known of a packet before it comes: of each field the values that it may have.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Values between two, both included. Bytes count as one big-endian number, whatever they are.
pub type Range = (u128, u128);

/// `IPPROTO_TCP` and `IPPROTO_UDP`, as values of [`Field::Protocol`].
pub const TCP: u128 = 6;
pub const UDP: u128 = 17;

/// What rules look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    InName,
    OutName,
    /// Interface numbers in the machine's byte order.
    InIndex,
    OutIndex,
    /// `NFPROTO_*`.
    Family,
    /// `IPPROTO_*`.
    Protocol,
    /// `NF_CT_STATE_BIT`, in the machine's byte order.
    State,
    /// 0: as the connection began; 1: its answers.
    Direction,
    Source,
    Destination,
    SourcePort,
    DestinationPort,
    /// Anything else; nothing is known of it.
    Other,
}

impl Field {
    /// How many bytes it has in a register.
    pub fn length(self) -> usize {
        match self {
            Self::InName | Self::OutName | Self::Other => 16,
            Self::InIndex | Self::OutIndex | Self::State | Self::Source | Self::Destination => 4,
            Self::SourcePort | Self::DestinationPort => 2,
            Self::Family | Self::Protocol | Self::Direction => 1,
        }
    }
}

/// The first bytes of a field, as a register holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub field: Field,
    pub length: usize,
    /// Bits that are kept.
    pub mask: Option<u128>,
}

impl Part {
    pub fn whole(field: Field) -> Self {
        Self { field, length: field.length(), mask: None }
    }
}

/// How the connection stands of which a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its first, to the device.
    First,
    /// A later one, to the device.
    There,
    /// An answer.
    Back,
}

/// A packet of which something is known: fields that are missing may have any value.
#[derive(Debug, Clone, Default)]
pub struct Packet(BTreeMap<Field, Vec<Range>>);

impl Packet {
    /// Says that the field has a value in one of the ranges; none at all: the packet has no such field.
    pub fn with(mut self, field: Field, ranges: Vec<Range>) -> Self {
        self.0.insert(field, ranges);
        self
    }

    pub fn at(self, stage: Stage) -> Self {
        let (state, direction) = match stage {
            Stage::First => (8, 0),
            Stage::There => (2, 0),
            Stage::Back => (2, 1),
        };
        self.with(Field::State, exactly(native(state))).with(Field::Direction, exactly(direction))
    }

    /// Whether a part of the packet is in one of the ranges; `None`: for some packets it is.
    pub fn within(&self, part: Part, ranges: &[Range]) -> Option<bool> {
        let known = self.0.get(&part.field)?;
        // A missing field ends the rule.
        if known.is_empty() {
            return Some(false);
        }
        let cut = 8 * u32::try_from(part.field.length().saturating_sub(part.length)).unwrap_or(16);
        let (mut all, mut none) = (true, true);
        for (low, high) in known {
            let (mut low, mut high) = (low.checked_shr(cut)?, high.checked_shr(cut)?);
            if let Some(mask) = part.mask {
                // Only the first bits of a range form one again.
                let first_bits = (!mask & ones(part.length)).checked_add(1).is_none_or(u128::is_power_of_two);
                if low != high && !first_bits {
                    return None;
                }
                (low, high) = (low & mask, high & mask);
            }
            let mut inside: Vec<Range> = ranges
                .iter()
                .map(|(from, to)| ((*from).max(low), (*to).min(high)))
                .filter(|(from, to)| from <= to)
                .collect();
            none &= inside.is_empty();
            all &= covers(&mut inside, low, high);
        }
        match (all, none) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }

    /// Whether it has no such field at all, so that no rule that looks at it holds.
    pub fn lacks(&self, field: Field) -> bool {
        self.0.get(&field).is_some_and(Vec::is_empty)
    }
}

/// Whether ranges within `low..=high` leave no gap in it.
fn covers(ranges: &mut [Range], low: u128, high: u128) -> bool {
    ranges.sort_unstable();
    let mut next = low;
    for (from, to) in ranges {
        if *from > next {
            return false;
        }
        match to.checked_add(1) {
            Some(behind) => next = next.max(behind),
            None => return true,
        }
    }
    next > high
}

/// The largest number of so many bytes.
pub fn ones(bytes: usize) -> u128 {
    u128::MAX.checked_shr(128 - 8 * u32::try_from(bytes.min(16)).unwrap_or(16)).unwrap_or(0)
}

/// Bytes as one number; more than sixteen have none.
pub fn number(bytes: &[u8]) -> Option<u128> {
    (bytes.len() <= 16).then(|| bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte)))
}

/// A number that the kernel keeps in the machine's byte order.
pub fn native(value: u32) -> u128 {
    u128::from(u32::from_be_bytes(value.to_ne_bytes()))
}

pub fn exactly(value: u128) -> Vec<Range> {
    vec![(value, value)]
}

/// Everything of so many bytes but one value.
pub fn all_but(value: u128, bytes: usize) -> Vec<Range> {
    let below = value.checked_sub(1).map(|below| (0, below));
    let above = value.checked_add(1).filter(|above| *above <= ones(bytes)).map(|above| (above, ones(bytes)));
    below.into_iter().chain(above).collect()
}

/// An interface's name as the kernel compares it.
pub fn name(text: &str) -> u128 {
    let mut bytes = [0; 16];
    for (byte, letter) in bytes.iter_mut().take(15).zip(text.bytes()) {
        *byte = letter;
    }
    u128::from_be_bytes(bytes)
}

/// All names that begin so.
pub fn names(prefix: &str) -> Vec<Range> {
    let low = name(prefix);
    vec![(low, low | u128::MAX.checked_shr(8 * u32::try_from(prefix.len()).unwrap_or(16)).unwrap_or(0))]
}

/// The addresses of an IPv4 network.
pub fn network((address, length): (Ipv4Addr, u8)) -> Range {
    let rest = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
    (u128::from(u32::from(address) & !rest), u128::from(u32::from(address) | rest))
}
