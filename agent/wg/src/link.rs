//! Interfaces, addresses and routes over rtnetlink, in the calling thread's network namespace.
//!
//! Every call is one or two system calls of some microseconds, so it blocks and needs no runtime. Taking away
//! what is not there is no error: clean-up can be repeated.

use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};

mod beneath;
mod fuzz;
mod message;
pub(crate) mod rules;
mod socket;
#[cfg(test)]
mod tests;

pub use crate::shown::{ALIAS, Interface, Reach};
#[doc(hidden)]
pub use fuzz::{fuzz_rtnetlink, fuzz_rtnetlink_seeds};
use message::{Message, RouteHead, attribute, ifa, ifla, rta};
pub use socket::LinkError;
use socket::Socket;

/// `IN6_ADDR_GEN_MODE_NONE` (include/uapi/linux/if_link.h).
const NO_ADDRESS: u8 = 1;
/// `IFF_UP`.
const UP: u32 = libc::IFF_UP as u32;
/// `AF_INET6` as an attribute's number.
const INET6: u16 = libc::AF_INET6 as u16;

/// An rtnetlink socket.
#[derive(Debug)]
pub struct Link {
    socket: Socket,
}

impl Link {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, LinkError> {
        Socket::open().map(|socket| Self { socket })
    }

    /// Names an interface as ours and brings it up: ifalias, MTU, queue, no IPv6 address of its own. Returns its
    /// index.
    pub fn set_up(&mut self, name: &str, alias: &str, mtu: u32, queue: u32) -> Result<u32, LinkError> {
        let index = self.index(name)?;
        let message = Message::link(libc::RTM_SETLINK, index, 0)
            .with(ifla::IFALIAS, alias)
            .with_word(ifla::MTU, mtu)
            .with_word(ifla::TXQLEN, queue);
        self.change("set the interface's alias and MTU", message, 0)?;

        let quiet = attribute(INET6, &attribute(ifla::INET6_ADDR_GEN_MODE, &[NO_ADDRESS]));
        let message = Message::link(libc::RTM_SETLINK, index, 0).with(ifla::AF_SPEC, quiet);
        match self.change("switch off IPv6 addresses", message, 0) {
            // A machine without IPv6 makes none anyway.
            Err(error) if error.is_one_of(&[libc::EAFNOSUPPORT, libc::EOPNOTSUPP, libc::EINVAL]) => {}
            result => result?,
        }

        self.change("bring the interface up", Message::link(libc::RTM_SETLINK, index, UP), 0)?;
        Ok(index)
    }

    /// Every interface.
    pub fn interfaces(&mut self) -> Result<Vec<Interface>, LinkError> {
        let answers = self.socket.ask("list interfaces", Message::link(libc::RTM_GETLINK, 0, 0), NLM_F_DUMP)?;
        Ok(answers.iter().filter_map(interface).collect())
    }

    /// The interfaces whose ifalias begins with `thinlane`.
    pub fn ours(&mut self) -> Result<Vec<Interface>, LinkError> {
        let mut all = self.interfaces()?;
        all.retain(|interface| interface.alias.as_deref().is_some_and(|alias| alias.starts_with(ALIAS)));
        Ok(all)
    }

    /// One interface by name.
    pub fn interface(&mut self, name: &str) -> Result<Option<Interface>, LinkError> {
        let message = Message::link(libc::RTM_GETLINK, 0, 0).with(ifla::IFNAME, name);
        match self.socket.ask("look up an interface", message, 0) {
            Ok(answers) => Ok(answers.iter().find_map(interface)),
            Err(error) if error.is_one_of(&[libc::ENODEV]) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes an interface away; whether it was there.
    pub fn delete(&mut self, name: &str) -> Result<bool, LinkError> {
        let Some(found) = self.interface(name)? else { return Ok(false) };
        self.delete_index(found.index)
    }

    /// Takes an interface away by its index, which no later one gets; whether it was there.
    pub fn delete_index(&mut self, index: u32) -> Result<bool, LinkError> {
        self.remove("delete the interface", Message::link(libc::RTM_DELLINK, index, 0), &[libc::ENODEV])
    }

    /// Gives an interface an address as a /32. Done twice, it is there once.
    pub fn add_address(&mut self, name: &str, address: Ipv4Addr) -> Result<(), LinkError> {
        let message = self.address(libc::RTM_NEWADDR, name, address)?;
        self.change("add the address", message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Takes an address (/32) from an interface; whether it was there.
    pub fn remove_address(&mut self, name: &str, address: Ipv4Addr) -> Result<bool, LinkError> {
        let message = match self.address(libc::RTM_DELADDR, name, address) {
            Err(LinkError::NoInterface(_)) => return Ok(false),
            message => message?,
        };
        self.remove("remove the address", message, &[libc::EADDRNOTAVAIL, libc::ENODEV])
    }

    /// The IPv4 addresses of an interface, with their prefix lengths.
    pub fn addresses(&mut self, name: &str) -> Result<Vec<(Ipv4Addr, u8)>, LinkError> {
        let index = self.index(name)?;
        let answers = self.socket.ask("list addresses", Message::address(libc::RTM_GETADDR, 0, 0), NLM_F_DUMP)?;
        let of = |answer: &Message| Some((answer.ipv4(ifa::LOCAL)?, answer.prefix_length()));
        Ok(answers.iter().filter(|answer| answer.index() == index).filter_map(of).collect())
    }

    /// Leads one address (/32) into an interface. Done twice, it is there once.
    pub fn add_route(&mut self, name: &str, destination: Ipv4Addr) -> Result<(), LinkError> {
        let message = self.route(libc::RTM_NEWROUTE, name, destination)?;
        self.change("add the route", message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Takes the route to one address (/32) away; whether it was there.
    pub fn remove_route(&mut self, name: &str, destination: Ipv4Addr) -> Result<bool, LinkError> {
        let message = match self.route(libc::RTM_DELROUTE, name, destination) {
            Err(LinkError::NoInterface(_)) => return Ok(false),
            message => message?,
        };
        self.remove("remove the route", message, &[libc::ESRCH, libc::ENODEV])
    }

    /// The destinations that the main table leads into an interface, with their prefix lengths.
    pub fn routes(&mut self, name: &str) -> Result<Vec<(Ipv4Addr, u8)>, LinkError> {
        let index = self.index(name)?;
        let message = Message::route(libc::RTM_GETROUTE, RouteHead::default());
        let answers = self.socket.ask("list routes", message, NLM_F_DUMP)?;
        let main = |route: &&Message| route.route_head().table == libc::RT_TABLE_MAIN && leads_to(route) == Some(index);
        let of = |route: &Message| Some((destination(route)?, route.prefix_length()));
        Ok(answers.iter().filter(main).filter_map(of).collect())
    }

    /// By which interface and with which address this machine sends to `address`; `None`: it has no route.
    pub fn reach(&mut self, address: Ipv4Addr) -> Result<Option<Reach>, LinkError> {
        let head = RouteHead { destination_length: 32, ..RouteHead::default() };
        let message = Message::route(libc::RTM_GETROUTE, head).with_address(rta::DST, address);
        let none = [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::ESRCH, libc::EACCES, libc::EINVAL];
        let answers = match self.socket.ask("look up a route", message, 0) {
            Err(error) if error.is_one_of(&none) => return Ok(None),
            answers => answers?,
        };
        let Some(route) = answers.iter().find(|route| route.route_head().action == libc::RTN_UNICAST) else {
            return Ok(None);
        };
        let Some(index) = leads_to(route) else { return Ok(None) };
        let (source, router) = (route.ipv4(rta::PREFSRC), route.ip(rta::GATEWAY));
        let interface = self.interfaces()?.into_iter().find(|interface| interface.index == index);
        Ok(interface.zip(source).map(|(interface, source)| Reach { interface: interface.name, source, router }))
    }

    fn index(&mut self, name: &str) -> Result<u32, LinkError> {
        let found = self.interface(name)?;
        found.map(|interface| interface.index).ok_or_else(|| LinkError::NoInterface(name.to_owned()))
    }

    fn address(&mut self, kind: u16, name: &str, address: Ipv4Addr) -> Result<Message, LinkError> {
        let message = Message::address(kind, self.index(name)?, 32);
        Ok(message.with_address(ifa::LOCAL, address).with_address(ifa::ADDRESS, address))
    }

    fn route(&mut self, kind: u16, name: &str, destination: Ipv4Addr) -> Result<Message, LinkError> {
        let message = Message::route(kind, RouteHead { table: libc::RT_TABLE_MAIN, ..LANE });
        Ok(message.with_address(rta::DST, destination).with_word(rta::OIF, self.index(name)?))
    }

    fn change(&mut self, doing: &'static str, message: Message, flags: u16) -> Result<(), LinkError> {
        self.socket.ask(doing, message, NLM_F_ACK | flags).map(|_| ())
    }

    /// Takes something away; `false`: the kernel says, with one of `gone`, that it is not there.
    fn remove(&mut self, doing: &'static str, message: Message, gone: &[i32]) -> Result<bool, LinkError> {
        match self.change(doing, message, 0) {
            Ok(()) => Ok(true),
            Err(error) if error.is_one_of(gone) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A route to one address that is on the link; its table may be named by an attribute.
const LANE: RouteHead = RouteHead {
    destination_length: 32,
    source_length: 0,
    table: 0,
    protocol: libc::RTPROT_STATIC,
    scope: libc::RT_SCOPE_LINK,
    action: libc::RTN_UNICAST,
};

fn interface(answer: &Message) -> Option<Interface> {
    if answer.kind != libc::RTM_NEWLINK {
        return None;
    }
    Some(Interface {
        name: answer.text(ifla::IFNAME).filter(|name| !name.is_empty())?,
        index: answer.index(),
        alias: answer.text(ifla::IFALIAS),
        mtu: answer.word(ifla::MTU).unwrap_or_default(),
        up: answer.flags() & UP != 0,
    })
}

fn leads_to(route: &Message) -> Option<u32> {
    route.word(rta::OIF)
}

fn destination(route: &Message) -> Option<Ipv4Addr> {
    // A default route has no destination attribute.
    route.ipv4(rta::DST).or((route.prefix_length() == 0).then_some(Ipv4Addr::UNSPECIFIED))
}
