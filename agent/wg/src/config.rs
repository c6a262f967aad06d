//! How a userspace device is made.

use std::net::SocketAddr;

use crate::device::Event;
use crate::offload::Offload;

/// The MTU of a lane's interface: what fits into 1 500 with IPv6, UDP and WireGuard around it.
const MTU: u16 = 1420;

/// How a userspace device is made.
pub struct UserspaceConfig {
    /// The interface's name; it must not exist yet.
    pub interface: String,
    /// Its ifalias, which begins with `thinlane`.
    pub alias: String,
    pub mtu: u16,
    /// Port 0 takes a free one. The unspecified address takes IPv6 as well, where the machine has it.
    pub listen: SocketAddr,
    /// The mark of the datagrams sent (SO_MARK), for policy routing.
    pub mark: Option<u32>,
    /// What the device may use at most; it uses what the kernel has.
    pub offload: Offload,
    /// Called on the device's thread, which waits meanwhile: hand the event on and return.
    pub events: Option<Box<dyn FnMut(Event) + Send>>,
}

impl UserspaceConfig {
    /// The usual: MTU 1 420, any free port, any address.
    pub fn new(interface: impl Into<String>, alias: impl Into<String>) -> Self {
        Self {
            interface: interface.into(),
            alias: alias.into(),
            mtu: MTU,
            listen: SocketAddr::from(([0, 0, 0, 0], 0)),
            mark: None,
            offload: Offload::ALL,
            events: None,
        }
    }
}
