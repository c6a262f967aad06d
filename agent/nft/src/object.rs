//! Sets, maps, elements, counters and chains of our table as values, and the commands that make them.

use std::net::Ipv4Addr;

use thinlane_model::Span;

use crate::attr::AttrBuf;
use crate::expr::{OBJECT_COUNTER, Rule, Verdict};
use crate::message::{About, Command};

/// The one table that is ours, in family `inet`.
pub const TABLE: &str = "thinlane";
pub const FAMILY: u8 = libc::NFPROTO_INET as u8;

const CREATE: u16 = libc::NLM_F_CREATE as u16;
const NEW: u16 = CREATE | libc::NLM_F_EXCL as u16;
const APPEND: u16 = CREATE | libc::NLM_F_APPEND as u16;

/// `NFT_MSG_*`.
pub mod kind {
    pub const NEW_TABLE: u8 = 0;
    pub const GET_TABLE: u8 = 1;
    pub const DELETE_TABLE: u8 = 2;
    pub const NEW_CHAIN: u8 = 3;
    pub const GET_CHAIN: u8 = 4;
    pub const DELETE_CHAIN: u8 = 5;
    pub const NEW_RULE: u8 = 6;
    pub const GET_RULE: u8 = 7;
    pub const NEW_SET: u8 = 9;
    pub const GET_SET: u8 = 10;
    pub const NEW_ELEMENT: u8 = 12;
    pub const GET_ELEMENT: u8 = 13;
    pub const DELETE_ELEMENT: u8 = 14;
    pub const NEW_GENERATION: u8 = 15;
    pub const NEW_OBJECT: u8 = 18;
    pub const GET_OBJECT: u8 = 19;
    pub const DELETE_OBJECT: u8 = 20;
    pub const NEW_FLOWTABLE: u8 = 22;
    pub const GET_FLOWTABLE: u8 = 23;
    pub const DELETE_FLOWTABLE: u8 = 24;
}

/// A type as the `nft` program numbers it, which is how it knows to print a key; the kernel only keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Address = 7,
    Protocol = 12,
    Port = 13,
    Icmp = 14,
    Interface = 41,
}

impl Type {
    fn len(self) -> u32 {
        match self {
            Type::Protocol | Type::Icmp => 1,
            Type::Port => 2,
            Type::Address => 4,
            Type::Interface => 16,
        }
    }
}

/// What a set maps its keys to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maps {
    Nothing,
    Verdict,
    Address,
    Counter,
}

/// A set or map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set {
    pub name: &'static str,
    pub key: &'static [Type],
    pub maps: Maps,
    /// Elements carry a timeout, and the kernel looks for expired ones this often.
    pub expires: Option<Span>,
}

const SET_MAP: u32 = 0x8;
const SET_TIMEOUT: u32 = 0x10;
const SET_OBJECT: u32 = 0x40;
const VERDICT_TYPE: u32 = 0xffff_ff00;

impl Set {
    pub fn flags(&self) -> u32 {
        let maps = match self.maps {
            Maps::Nothing => 0,
            Maps::Verdict | Maps::Address => SET_MAP,
            Maps::Counter => SET_OBJECT,
        };
        maps | if self.expires.is_some() { SET_TIMEOUT } else { 0 }
    }

    /// nft's number of the key's type: six bits for each field.
    pub fn key_type(&self) -> u32 {
        self.key.iter().fold(0, |sum, field| sum << 6 | *field as u32)
    }

    /// Bytes of a key; fields of a concatenation are padded to four bytes.
    pub fn key_len(&self) -> u32 {
        match self.key {
            [one] => one.len(),
            many => many.iter().map(|field| field.len().next_multiple_of(4)).sum(),
        }
    }

    pub fn create(&self, id: u32) -> Command {
        let mut attrs = AttrBuf::new().text(1, TABLE).text(2, self.name).u32(10, id);
        attrs = attrs.u32(3, self.flags()).u32(4, self.key_type()).u32(5, self.key_len());
        attrs = match self.maps {
            Maps::Nothing => attrs,
            Maps::Verdict => attrs.u32(6, VERDICT_TYPE).u32(7, 16),
            Maps::Address => attrs.u32(6, Type::Address as u32).u32(7, Type::Address.len()),
            Maps::Counter => attrs.u32(15, OBJECT_COUNTER),
        };
        if self.key == [Type::Interface] {
            // For the nft program alone: a key that is a text is in host byte order, or it prints nothing.
            const KEY_BYTE_ORDER: [u8; 2] = [0, 4];
            let order = 1u32.to_ne_bytes();
            attrs = attrs.bytes(13, &[KEY_BYTE_ORDER.as_slice(), &order].concat());
        }
        if let Some(every) = self.expires {
            attrs = attrs.u32(12, u32::try_from(every.as_millis()).unwrap_or(u32::MAX));
        }
        Command { kind: kind::NEW_SET, flags: NEW, attrs, about: About::Set(self.name.to_owned()) }
    }
}

/// The key of an element: its fields, each padded to four bytes where there are several.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(pub Vec<u8>);

impl Key {
    pub fn interface(name: &str) -> Self {
        Self(crate::expr::ifname(name).to_vec())
    }

    pub fn icmp_type(number: u8) -> Self {
        Self(vec![number])
    }

    pub fn address(address: Ipv4Addr) -> Self {
        Self(address.octets().to_vec())
    }

    pub fn interface_address(name: &str, address: Ipv4Addr) -> Self {
        let mut bytes = crate::expr::ifname(name).to_vec();
        bytes.extend(address.octets());
        Self(bytes)
    }

    pub fn flow(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, port: u16) -> Self {
        let mut bytes = source.octets().to_vec();
        bytes.extend(destination.octets());
        bytes.extend([protocol, 0, 0, 0]);
        bytes.extend(port.to_be_bytes());
        bytes.extend([0, 0]);
        Self(bytes)
    }
}

/// What an element's key is mapped to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    Nothing,
    Goto(String),
    Address(Ipv4Addr),
    Counter(String),
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    pub set: &'static str,
    pub key: Key,
    pub data: Data,
    pub timeout: Option<Span>,
}

impl Element {
    /// Key, counter and value, as a dump shows them.
    pub fn parts(&self) -> (Vec<u8>, Option<String>, Option<Vec<u8>>) {
        let (counter, value) = match &self.data {
            Data::Nothing | Data::Goto(_) => (None, None),
            Data::Address(address) => (None, Some(address.octets().to_vec())),
            Data::Counter(name) => (Some(name.clone()), None),
        };
        (self.key.0.clone(), counter, value)
    }

    fn list(&self, element: AttrBuf) -> AttrBuf {
        element_list(self.set, element)
    }

    fn command(&self, kind: u8, flags: u16, element: AttrBuf) -> Command {
        Command { kind, flags, attrs: self.list(element), about: About::Element(self.set.to_owned()) }
    }

    fn whole(&self) -> AttrBuf {
        let mut attrs = key_attr(&self.key);
        attrs = match &self.data {
            Data::Nothing => attrs,
            Data::Goto(chain) => attrs.nest(2, Verdict::Goto(chain.clone()).data()),
            Data::Address(address) => attrs.nest(2, AttrBuf::new().bytes(1, &address.octets())),
            Data::Counter(name) => attrs.text(9, name),
        };
        match self.timeout {
            // Big-endian milliseconds.
            Some(timeout) => attrs.u64(4, timeout.as_millis()),
            None => attrs,
        }
    }

    /// Adds the element; refused by the kernel (EEXIST) if its key is there.
    pub fn add_new(&self) -> Command {
        self.command(kind::NEW_ELEMENT, NEW, self.whole())
    }

    /// Adds the element, or leaves one with the same key and data as it is (kernels differ in the timeout).
    pub fn add(&self) -> Command {
        self.command(kind::NEW_ELEMENT, CREATE, self.whole())
    }

    /// Deletes the element with this key; the batch fails if there is none.
    pub fn delete(&self) -> Command {
        self.command(kind::DELETE_ELEMENT, 0, key_attr(&self.key))
    }

    /// The attributes that ask for this element alone.
    pub fn query(&self) -> AttrBuf {
        self.list(key_attr(&self.key))
    }
}

fn key_attr(key: &Key) -> AttrBuf {
    AttrBuf::new().nest(1, AttrBuf::new().bytes(1, &key.0))
}

fn element_list(set: &str, element: AttrBuf) -> AttrBuf {
    AttrBuf::new().text(1, TABLE).text(2, set).nest(3, AttrBuf::new().nest(1, element))
}

/// Where a base chain sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// `NF_INET_*`.
    pub hook: u32,
    pub priority: i32,
}

/// A chain with its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    pub base: Option<Base>,
    pub rules: Vec<Rule>,
}

impl Chain {
    pub fn create(&self) -> Command {
        let mut attrs = AttrBuf::new().text(1, TABLE).text(3, &self.name);
        if let Some(base) = self.base {
            let hook = AttrBuf::new().u32(1, base.hook).u32(2, base.priority.cast_unsigned());
            attrs = attrs.nest(4, hook).u32(5, libc::NF_ACCEPT as u32).text(7, base.kind);
        }
        Command { kind: kind::NEW_CHAIN, flags: NEW, attrs, about: About::Chain(self.name.clone()) }
    }

    pub fn append_rules(&self) -> impl Iterator<Item = Command> + '_ {
        self.rules.iter().map(|rule| {
            let attrs = AttrBuf::new().text(1, TABLE).text(2, &self.name).nest(4, expressions(rule));
            Command { kind: kind::NEW_RULE, flags: APPEND, attrs, about: About::Rule(self.name.clone()) }
        })
    }
}

/// A rule as `NFTA_RULE_EXPRESSIONS` carries it.
pub fn expressions(rule: &Rule) -> AttrBuf {
    rule.iter()
        .fold(AttrBuf::new(), |list, expr| list.nest(1, AttrBuf::new().text(1, expr.name).nest(2, expr.attrs.clone())))
}

/// Deletes a chain with its rules; the kernel refuses (EBUSY) while a verdict leads to it.
pub fn delete_chain(name: &str) -> Command {
    let attrs = AttrBuf::new().text(1, TABLE).text(3, name);
    Command { kind: kind::DELETE_CHAIN, flags: 0, attrs, about: About::Chain(name.to_owned()) }
}

/// A named counter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counter {
    pub name: String,
    pub packets: u64,
    pub bytes: u64,
}

impl Counter {
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), packets: 0, bytes: 0 }
    }

    /// Makes the counter, beginning with what it holds.
    pub fn create(&self) -> Command {
        let data = AttrBuf::new().u64(1, self.bytes).u64(2, self.packets);
        let attrs = AttrBuf::new().text(1, TABLE).text(2, &self.name).u32(3, OBJECT_COUNTER).nest(4, data);
        Command { kind: kind::NEW_OBJECT, flags: NEW, attrs, about: About::Counter(self.name.clone()) }
    }
}

/// Deletes a named counter; the kernel refuses (EBUSY) while a rule or element uses it.
pub fn delete_counter(name: &str) -> Command {
    let attrs = AttrBuf::new().text(1, TABLE).text(2, name).u32(3, OBJECT_COUNTER);
    Command { kind: kind::DELETE_OBJECT, flags: 0, attrs, about: About::Counter(name.to_owned()) }
}

/// Makes the table, or leaves it as it is.
pub fn create_table() -> Command {
    let attrs = AttrBuf::new().text(1, TABLE).u32(2, 0);
    Command { kind: kind::NEW_TABLE, flags: CREATE, attrs, about: About::Table }
}

/// Deletes the table with all that is in it; the batch fails if there is none.
pub fn delete_table() -> Command {
    Command { kind: kind::DELETE_TABLE, flags: 0, attrs: AttrBuf::new().text(1, TABLE), about: About::Table }
}
