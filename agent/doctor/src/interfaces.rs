//! This machine's interfaces, as the kernel tells them to anybody.

use std::net::{IpAddr, Ipv4Addr};

use serde::Serialize;

use crate::facts::Cidr;

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interface {
    pub name: String,
    /// Switched on.
    pub up: bool,
    /// Something is at the other end: a cable, a network, a process.
    pub running: bool,
    /// IPv4 addresses with their prefix lengths.
    pub addresses: Vec<(Ipv4Addr, u8)>,
    /// IPv6 addresses, those of the link left out.
    pub addresses_v6: Vec<std::net::Ipv6Addr>,
    /// In bytes.
    pub mtu: Option<u32>,
}

impl Interface {
    /// The IPv4 networks that are on the link.
    pub fn networks(&self) -> impl Iterator<Item = Cidr> + '_ {
        self.addresses.iter().map(|(address, length)| Cidr::of(*address, *length))
    }

    pub(crate) fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.addresses.iter().any(|(own, _)| *own == address),
            IpAddr::V6(address) => self.addresses_v6.contains(&address),
        }
    }
}

/// Every interface but loopback, by name; empty where the kernel does not tell.
#[cfg(unix)]
pub fn interfaces() -> Vec<Interface> {
    use nix::ifaddrs::getifaddrs;
    use nix::net::if_::InterfaceFlags;

    let mut found: std::collections::BTreeMap<String, Interface> = std::collections::BTreeMap::new();
    for part in getifaddrs().into_iter().flatten() {
        if part.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            continue;
        }
        let entry = found.entry(part.interface_name.clone()).or_insert_with(|| Interface {
            up: part.flags.contains(InterfaceFlags::IFF_UP),
            running: part.flags.contains(InterfaceFlags::IFF_RUNNING),
            addresses: Vec::new(),
            addresses_v6: Vec::new(),
            mtu: mtu(&part.interface_name),
            name: part.interface_name,
        });
        let Some(address) = part.address else { continue };
        if let Some(v4) = address.as_sockaddr_in() {
            let mask = part.netmask.as_ref().and_then(|mask| mask.as_sockaddr_in()).map(|mask| u32::from(mask.ip()));
            let length = mask.unwrap_or(u32::MAX).count_ones();
            entry.addresses.push((v4.ip(), u8::try_from(length).unwrap_or(32)));
        } else if let Some(v6) = address.as_sockaddr_in6()
            && !v6.ip().is_unicast_link_local()
        {
            entry.addresses_v6.push(v6.ip());
        }
    }
    found.into_values().collect()
}

/// This system tells of its interfaces only through calls of its own, and nothing that is judged here needs them.
#[cfg(not(unix))]
pub fn interfaces() -> Vec<Interface> {
    Vec::new()
}

/// As /sys shows it, which a process that only entered a network namespace may not see.
#[cfg(unix)]
fn mtu(name: &str) -> Option<u32> {
    let path = format!("/sys/class/net/{name}/mtu");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
