//! What a system shows of its interfaces and routes.

use std::net::{IpAddr, Ipv4Addr};

/// What the ifalias of every interface of ours begins with.
pub const ALIAS: &str = "thinlane";

/// An interface as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub index: u32,
    pub alias: Option<String>,
    pub mtu: u32,
    pub up: bool,
}

/// How this machine reaches an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The interface that packets leave by.
    pub interface: String,
    /// The address that they leave with.
    pub source: Ipv4Addr,
    /// The router in between; `None`: the address is on the link.
    pub router: Option<IpAddr>,
}
