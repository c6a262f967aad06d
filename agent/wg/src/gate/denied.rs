//! What did not pass, as a bounded list of flows with counts.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::device::{DeniedFlow, Direction};
use crate::packet::{self, Ip};

/// Flows remembered between two reports.
const MOST: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    direction: Direction,
    spoofed: bool,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    port: Option<u16>,
}

#[derive(Debug, Default)]
pub(super) struct DeniedFlows {
    flows: BTreeMap<Key, u64>,
    unlisted: u64,
}

impl DeniedFlows {
    pub(super) fn note(&mut self, direction: Direction, spoofed: bool, bytes: &[u8], count: u64) {
        let key = describe(direction, spoofed, bytes);
        if let Some(packets) = self.flows.get_mut(&key) {
            *packets += count;
        } else if self.flows.len() < MOST {
            self.flows.insert(key, count);
        } else {
            self.unlisted += count;
        }
    }

    pub(super) fn drain(&mut self) -> (Vec<DeniedFlow>, u64) {
        let flows = std::mem::take(&mut self.flows);
        let list = flows.into_iter().map(|(key, packets)| DeniedFlow {
            direction: key.direction,
            source: key.source,
            destination: key.destination,
            protocol: key.protocol,
            port: key.port,
            spoofed: key.spoofed,
            packets,
        });
        (list.collect(), std::mem::take(&mut self.unlisted))
    }
}

/// Names a packet as well as it can be read; what cannot be is from and to the unspecified address.
fn describe(direction: Direction, spoofed: bool, bytes: &[u8]) -> Key {
    let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let (source, destination, protocol, port) = match packet::parse(bytes) {
        Ok(Ip::V4(ip)) => (ip.source.into(), ip.destination.into(), ip.protocol, ip.destination_port()),
        Ok(Ip::V6 { source, destination, next }) => (source.into(), destination.into(), next, None),
        Err(_) => {
            let destination = packet::destination_of(bytes).map_or(nowhere, IpAddr::V4);
            let protocol = if bytes.first().is_some_and(|first| first >> 4 == 4) { bytes.get(9) } else { None };
            (packet::source_of(bytes).unwrap_or(nowhere), destination, protocol.copied().unwrap_or(0), None)
        }
    };
    Key { direction, spoofed, source, destination, protocol, port }
}
