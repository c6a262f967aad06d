//! What was found out about the way to the controller, before anybody judges it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::Serialize;
use thinlane_model::Endpoint;

use crate::interfaces::Interface;

/// Everything about the network.
#[derive(Debug, Clone)]
pub struct NetworkFacts {
    pub controller: Endpoint,
    /// Whether anything leads out of this machine by default, over IPv4 or IPv6.
    pub default_route: bool,
    pub interfaces: Vec<Interface>,
    pub name: Name,
    /// How packets to the controller would leave; `None`: not at all, or its address is not known.
    pub way: Option<Way>,
    pub contact: Contact,
    pub relay: RelayFact,
    /// The overlay pools, as the controller told them, or the usual ones.
    pub pools: Vec<Cidr>,
}

/// What became of the controller's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// It is an address; no name server is needed.
    Address,
    Known(Vec<IpAddr>),
    /// The resolver's words, or that it did not answer; `servers` are the name servers that are configured.
    Unknown {
        why: String,
        servers: Vec<String>,
    },
}

/// How packets leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Way {
    /// The interface, where the source address tells.
    pub interface: Option<String>,
    pub source: IpAddr,
    /// The interface's MTU, in bytes.
    pub mtu: Option<u32>,
}

/// How far a connection to the controller gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contact {
    /// Its address is not known, or nothing leads there.
    NotTried,
    /// No answer in time, or somebody on the way says that there is no way.
    Unreachable(String),
    /// The host is there, and nothing listens on the port.
    Refused,
    /// Something answers that is no TLS server, or breaks off.
    NotTls(String),
    /// A TLS server that does not descend from the authority that is trusted.
    Stranger,
    /// The right authority's, but for other names.
    OtherName(String),
    /// The controller itself, which does not answer as it should.
    Odd(String),
    Answers {
        version: String,
        /// This machine's wall clock minus the controller's, in milliseconds.
        offset_ms: i64,
        round_trip_ms: u64,
        validity: Validity,
    },
}

/// How the controller's certificate looks by this machine's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    Good,
    Expired,
    NotYet,
}

/// What became of the probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayFact {
    /// Why nothing was tried.
    NotTried(String),
    /// The relay's name is not known here.
    NoName(Endpoint),
    /// Nothing can be sent there from here.
    NoWay { relay: SocketAddr, why: String },
    /// The host says that nobody takes UDP there.
    Refused(SocketAddr),
    /// Sent, and never answered.
    Silent { relay: SocketAddr, sent: usize },
    Answers {
        relay: SocketAddr,
        round_trip_ms: u64,
        /// Where the relay sees us.
        seen_from: SocketAddr,
        /// The largest IP packet that came through unfragmented, of those tried, in bytes.
        largest: u16,
        /// The largest one that was tried.
        tried: u16,
        /// Whether a full datagram came through in fragments; `None`: there was no need to try.
        fragments: Option<bool>,
    },
}

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    pub address: Ipv4Addr,
    pub length: u8,
}

impl Cidr {
    /// The network that an address with this prefix length is in.
    pub fn of(address: Ipv4Addr, length: u8) -> Self {
        let length = length.min(32);
        Self { address: Ipv4Addr::from(u32::from(address) & mask(length)), length }
    }

    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Cidr) -> bool {
        let mask = mask(self.length.min(other.length));
        u32::from(self.address) & mask == u32::from(other.address) & mask
    }

    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.overlaps(&Cidr::of(address, 32))
    }
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Cidr {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, length) = text.split_once('/').ok_or(())?;
        let length = length.parse().map_err(|_| ())?;
        if length > 32 {
            return Err(());
        }
        Ok(Self::of(address.parse().map_err(|_| ())?, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Cidr {
        text.parse().expect("a network")
    }

    #[test]
    fn networks_overlap_where_one_holds_the_other() {
        for (one, other, overlap) in [
            ("198.18.0.0/16", "198.18.4.0/24", true),
            ("198.18.4.1/24", "198.18.0.0/16", true),
            ("198.18.0.0/16", "198.19.0.0/16", false),
            ("0.0.0.0/0", "10.0.0.0/8", true),
            ("10.0.0.1/32", "10.0.0.2/32", false),
        ] {
            assert_eq!(net(one).overlaps(&net(other)), overlap, "{one} {other}");
            assert_eq!(net(other).overlaps(&net(one)), overlap, "{other} {one}");
        }
        assert_eq!(net("192.168.1.77/24").to_string(), "192.168.1.0/24");
        assert!("1.2.3.4/33".parse::<Cidr>().is_err() && "1.2.3.4".parse::<Cidr>().is_err());
    }
}
