//! The kernel's answers as values. Takes any bytes: what cannot be read is an error, never a panic.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use thinlane_model::{SessionId, Span};

use crate::attr::{AttrError, Attrs};
use crate::object::{Counter, TABLE};
use crate::{Flow, Flowtable};

pub use crate::denied::packets;
pub use crate::message::{Content, Messages};
pub use crate::watch::events;

/// An element of a map as dumped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundElement {
    pub key: Vec<u8>,
    /// The chain that a verdict leads to.
    pub chain: Option<String>,
    /// The counter that it names.
    pub counter: Option<String>,
    /// The value that it holds.
    pub value: Option<Vec<u8>>,
    /// Time left; `None`: it never expires.
    pub expires: Option<Span>,
}

/// A chain as dumped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundChain {
    pub name: String,
    /// Type, hook, priority and policy of a base chain.
    pub base: Option<(String, u32, i32, u32)>,
}

/// A set or map as dumped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSet {
    pub name: String,
    pub flags: u32,
    pub key_type: u32,
    pub key_len: u32,
}

/// A table as dumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundTable {
    /// `NFT_TABLE_F_*`: dormant, owned.
    pub flags: u32,
}

/// What a rule does, in a form in which two encodings of one rule are equal: for each expression its name and its
/// attributes by path, without those that are zero or empty, since kernels differ in which defaults they show.
pub type Canon = Vec<(String, BTreeMap<Vec<u16>, Vec<u8>>)>;

fn in_our_table(attrs: &Attrs<'_>) -> Result<bool, AttrError> {
    Ok(attrs.text(1)? == Some(TABLE))
}

/// `NFT_MSG_NEWTABLE`: our table, `None` for another.
pub fn table(attrs: &Attrs<'_>) -> Result<Option<FoundTable>, AttrError> {
    if !in_our_table(attrs)? {
        return Ok(None);
    }
    Ok(Some(FoundTable { flags: attrs.u32(2)?.unwrap_or(0) }))
}

/// `NFT_MSG_NEWCHAIN`: a chain of our table, `None` for one of another.
pub fn chain(attrs: &Attrs<'_>) -> Result<Option<FoundChain>, AttrError> {
    if !in_our_table(attrs)? {
        return Ok(None);
    }
    let name = attrs.need(3)?.text()?.to_owned();
    let base = match attrs.find(4) {
        Some(hook) => {
            let hook = hook.nested();
            let kind = attrs.text(7)?.unwrap_or_default().to_owned();
            let policy = attrs.u32(5)?.unwrap_or(libc::NF_ACCEPT as u32);
            Some((kind, hook.need(1)?.u32()?, hook.need(2)?.u32()?.cast_signed(), policy))
        }
        None => None,
    };
    Ok(Some(FoundChain { name, base }))
}

/// `NFT_MSG_NEWSET`: a set of our table, `None` for one of another.
pub fn set(attrs: &Attrs<'_>) -> Result<Option<FoundSet>, AttrError> {
    if !in_our_table(attrs)? {
        return Ok(None);
    }
    Ok(Some(FoundSet {
        name: attrs.need(2)?.text()?.to_owned(),
        flags: attrs.u32(3)?.unwrap_or(0),
        key_type: attrs.u32(4)?.unwrap_or(0),
        key_len: attrs.u32(5)?.unwrap_or(0),
    }))
}

/// `NFT_MSG_NEWSETELEM`: the elements of one message, empty for another table.
pub fn elements(attrs: &Attrs<'_>) -> Result<Vec<FoundElement>, AttrError> {
    if !in_our_table(attrs)? {
        return Ok(Vec::new());
    }
    let Some(list) = attrs.find(3) else { return Ok(Vec::new()) };
    list.nested().map(|element| found(&element?.nested())).collect()
}

fn found(element: &Attrs<'_>) -> Result<FoundElement, AttrError> {
    let key = element.need(1)?.nested().need(1)?.value.to_vec();
    let data = element.find(2).map(|data| data.nested());
    let verdict = data.as_ref().and_then(|data| data.find(2)).map(|verdict| verdict.nested());
    let chain = verdict.map(|verdict| verdict.text(2)).transpose()?.flatten().map(str::to_owned);
    let value = data.and_then(|data| data.find(1)).map(|value| value.value.to_vec());
    let counter = element.text(9)?.map(str::to_owned);
    // A timeout without a remaining time is one that has just begun.
    let left = element.u64(5)?.or(element.u64(4)?).filter(|millis| *millis != 0);
    Ok(FoundElement { key, chain, counter, value, expires: left.map(Span::from_millis) })
}

/// `NFT_MSG_NEWOBJ`: a counter of our table, `None` for anything else.
pub fn counter(attrs: &Attrs<'_>) -> Result<Option<Counter>, AttrError> {
    if !in_our_table(attrs)? || attrs.u32(3)? != Some(crate::expr::OBJECT_COUNTER) {
        return Ok(None);
    }
    let data = attrs.need(4)?.nested();
    Ok(Some(Counter {
        name: attrs.need(2)?.text()?.to_owned(),
        bytes: data.u64(1)?.unwrap_or(0),
        packets: data.u64(2)?.unwrap_or(0),
    }))
}

/// `NFT_MSG_NEWRULE`: a rule of our table with its chain's name, `None` for one of another.
pub fn rule(attrs: &Attrs<'_>) -> Result<Option<(String, Canon)>, AttrError> {
    if !in_our_table(attrs)? {
        return Ok(None);
    }
    let chain = attrs.need(2)?.text()?.to_owned();
    let canon = match attrs.find(4) {
        Some(list) => expressions(&list.nested())?,
        None => Vec::new(),
    };
    Ok(Some((chain, canon)))
}

/// `NFTA_RULE_EXPRESSIONS` in canonical form.
pub fn expressions(list: &Attrs<'_>) -> Result<Canon, AttrError> {
    list.clone()
        .map(|item| {
            let item = item?.nested();
            let name = item.need(1)?.text()?.to_owned();
            let mut paths = BTreeMap::new();
            if let Some(data) = item.find(2) {
                for attr in data.nested() {
                    let attr = attr?;
                    if holds_data(&name, attr.kind) {
                        flatten(&attr.nested(), &mut vec![attr.kind], &mut paths)?;
                    } else if attr.value.iter().any(|byte| *byte != 0) {
                        paths.insert(vec![attr.kind], attr.value.to_vec());
                    }
                }
            }
            Ok((name, paths))
        })
        .collect()
}

/// Attributes with `struct nft_data` inside: compared values, immediates, masks.
fn holds_data(name: &str, kind: u16) -> bool {
    matches!((name, kind), ("cmp", 3) | ("immediate", 2) | ("bitwise", 4 | 5))
}

fn flatten(data: &Attrs<'_>, path: &mut Vec<u16>, paths: &mut BTreeMap<Vec<u16>, Vec<u8>>) -> Result<(), AttrError> {
    const VERDICT: u16 = 2;
    for attr in data.clone() {
        let attr = attr?;
        path.push(attr.kind);
        if attr.kind == VERDICT && path.len() == 2 {
            flatten(&attr.nested(), path, paths)?;
        } else {
            paths.insert(path.clone(), attr.value.to_vec());
        }
        path.pop();
    }
    Ok(())
}

/// `NFT_MSG_NEWFLOWTABLE`: a flowtable of any table.
pub fn flowtable(family: u8, attrs: &Attrs<'_>) -> Result<Flowtable, AttrError> {
    let mut devices = Vec::new();
    if let Some(list) = attrs.find(3).and_then(|hook| hook.nested().find(3)) {
        for device in list.nested() {
            devices.push(device?.text()?.to_owned());
        }
    }
    let table = attrs.need(1)?.text()?.to_owned();
    Ok(Flowtable { table, family, name: attrs.need(2)?.text()?.to_owned(), devices })
}

/// A connection as dumped, with what deletes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFlow {
    pub flow: Flow,
    /// `CTA_TUPLE_ORIG` and `CTA_ZONE` as they came.
    pub tuple: Vec<u8>,
    pub zone: Option<Vec<u8>>,
}

/// `IPCTNL_MSG_CT_NEW`: an IPv4 connection, `None` for one of another family.
pub fn flow(attrs: &Attrs<'_>) -> Result<Option<FoundFlow>, AttrError> {
    const ORIGINAL: u16 = 1;
    const REPLY: u16 = 2;
    const ZONE: u16 = 18;
    let original = attrs.need(ORIGINAL)?;
    let reply = attrs.need(REPLY)?;
    let (Some(there), Some(back)) = (half(&original.nested())?, half(&reply.nested())?) else { return Ok(None) };
    let flow = Flow {
        protocol: there.protocol,
        source: there.source,
        source_port: there.source_port,
        destination: there.destination,
        destination_port: there.destination_port,
        reply_source: back.source,
        reply_source_port: back.source_port,
        reply_destination: back.destination,
        reply_destination_port: back.destination_port,
    };
    let zone = attrs.find(ZONE).map(|zone| zone.value.to_vec());
    Ok(Some(FoundFlow { flow, tuple: original.value.to_vec(), zone }))
}

struct Half {
    protocol: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    source_port: u16,
    destination_port: u16,
}

fn half(tuple: &Attrs<'_>) -> Result<Option<Half>, AttrError> {
    let (addresses, protocol) = (tuple.need(1)?.nested(), tuple.need(2)?.nested());
    let (Some(source), Some(destination)) = (addresses.find(1), addresses.find(2)) else { return Ok(None) };
    let port = |kind| protocol.find(kind).map_or(Ok(0), |attr| attr.u16());
    Ok(Some(Half {
        protocol: protocol.need(1)?.u8()?,
        source: Ipv4Addr::from(source.array::<4>()?),
        destination: Ipv4Addr::from(destination.array::<4>()?),
        source_port: port(2)?,
        destination_port: port(3)?,
    }))
}

/// The session that a log prefix names, and whether the packet went up.
pub fn prefix(text: &str) -> Option<(Option<SessionId>, bool)> {
    let mut words = text.split_ascii_whitespace();
    if words.next() != Some("thinlane") {
        return None;
    }
    let session = match words.next()? {
        "-" => None,
        id => Some(id.parse().ok()?),
    };
    match words.next()? {
        "up" => Some((session, true)),
        "down" => Some((session, false)),
        _ => None,
    }
}
