//! Interfaces, addresses and routes over rtnetlink, in the calling thread's network namespace.
//!
//! Every call is one or two system calls of some microseconds, so it blocks and needs no runtime. Taking away
//! what is not there is no error: clean-up can be repeated.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

pub(crate) mod rules;
mod socket;
#[cfg(test)]
mod tests;

pub use socket::LinkError;
use socket::Socket;

/// What the ifalias of every interface of ours begins with.
pub const ALIAS: &str = "thinlane";

/// An rtnetlink socket.
#[derive(Debug)]
pub struct Link {
    socket: Socket,
}

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

impl Link {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, LinkError> {
        Socket::open().map(|socket| Self { socket })
    }

    /// Names an interface as ours and brings it up: ifalias, MTU, queue, no IPv6 address of its own. Returns its
    /// index.
    pub fn set_up(&mut self, name: &str, alias: &str, mtu: u32, queue: u32) -> Result<u32, LinkError> {
        let index = self.index(name)?;
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
        message.attributes.push(LinkAttribute::Mtu(mtu));
        message.attributes.push(LinkAttribute::TxQueueLen(queue));
        self.change("set the interface's alias and MTU", Message::SetLink(message), 0)?;

        let mut message = LinkMessage::default();
        message.header.index = index;
        let quiet = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![quiet])]));
        match self.change("switch off IPv6 addresses", Message::SetLink(message), 0) {
            // A machine without IPv6 makes none anyway.
            Err(error) if error.is_one_of(&[libc::EAFNOSUPPORT, libc::EOPNOTSUPP, libc::EINVAL]) => {}
            result => result?,
        }

        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change("bring the interface up", Message::SetLink(message), 0)?;
        Ok(index)
    }

    /// Every interface.
    pub fn interfaces(&mut self) -> Result<Vec<Interface>, LinkError> {
        let answers = self.socket.ask("list interfaces", Message::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        Ok(answers.into_iter().filter_map(interface).collect())
    }

    /// The interfaces whose ifalias begins with `thinlane`.
    pub fn ours(&mut self) -> Result<Vec<Interface>, LinkError> {
        let mut all = self.interfaces()?;
        all.retain(|interface| interface.alias.as_deref().is_some_and(|alias| alias.starts_with(ALIAS)));
        Ok(all)
    }

    /// One interface by name.
    pub fn interface(&mut self, name: &str) -> Result<Option<Interface>, LinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.socket.ask("look up an interface", Message::GetLink(message), 0) {
            Ok(answers) => Ok(answers.into_iter().find_map(interface)),
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
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.remove("delete the interface", Message::DelLink(message), &[libc::ENODEV])
    }

    /// Gives an interface an address as a /32. Done twice, it is there once.
    pub fn add_address(&mut self, name: &str, address: Ipv4Addr) -> Result<(), LinkError> {
        let message = Message::NewAddress(self.address(name, address)?);
        self.change("add the address", message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Takes an address (/32) from an interface; whether it was there.
    pub fn remove_address(&mut self, name: &str, address: Ipv4Addr) -> Result<bool, LinkError> {
        let message = match self.address(name, address) {
            Err(LinkError::NoInterface(_)) => return Ok(false),
            message => Message::DelAddress(message?),
        };
        self.remove("remove the address", message, &[libc::EADDRNOTAVAIL, libc::ENODEV])
    }

    /// The IPv4 addresses of an interface, with their prefix lengths.
    pub fn addresses(&mut self, name: &str) -> Result<Vec<(Ipv4Addr, u8)>, LinkError> {
        let index = self.index(name)?;
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        let answers = self.socket.ask("list addresses", Message::GetAddress(message), NLM_F_DUMP)?;
        let of = |answer| match answer {
            Message::NewAddress(message) if message.header.index == index => {
                local_address(&message).map(|address| (address, message.header.prefix_len))
            }
            _ => None,
        };
        Ok(answers.into_iter().filter_map(of).collect())
    }

    /// Leads one address (/32) into an interface. Done twice, it is there once.
    pub fn add_route(&mut self, name: &str, destination: Ipv4Addr) -> Result<(), LinkError> {
        let message = Message::NewRoute(self.route(name, destination)?);
        self.change("add the route", message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Takes the route to one address (/32) away; whether it was there.
    pub fn remove_route(&mut self, name: &str, destination: Ipv4Addr) -> Result<bool, LinkError> {
        let message = match self.route(name, destination) {
            Err(LinkError::NoInterface(_)) => return Ok(false),
            message => Message::DelRoute(message?),
        };
        self.remove("remove the route", message, &[libc::ESRCH, libc::ENODEV])
    }

    /// The destinations that the main table leads into an interface, with their prefix lengths.
    pub fn routes(&mut self, name: &str) -> Result<Vec<(Ipv4Addr, u8)>, LinkError> {
        let index = self.index(name)?;
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let answers = self.socket.ask("list routes", Message::GetRoute(message), NLM_F_DUMP)?;
        let of = |answer| match answer {
            Message::NewRoute(route)
                if route.header.table == RouteHeader::RT_TABLE_MAIN && leads_to(&route) == Some(index) =>
            {
                Some((destination(&route)?, route.header.destination_prefix_length))
            }
            _ => None,
        };
        Ok(answers.into_iter().filter_map(of).collect())
    }

    /// By which interface and with which address this machine sends to `address`; `None`: it has no route.
    pub fn reach(&mut self, address: Ipv4Addr) -> Result<Option<Reach>, LinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 32;
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(address)));
        let none = [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::ESRCH, libc::EACCES, libc::EINVAL];
        let answers = match self.socket.ask("look up a route", Message::GetRoute(message), 0) {
            Err(error) if error.is_one_of(&none) => return Ok(None),
            answers => answers?,
        };
        let route = answers.into_iter().find_map(|answer| match answer {
            Message::NewRoute(route) if route.header.kind == RouteType::Unicast => Some(route),
            _ => None,
        });
        let Some(route) = route else { return Ok(None) };
        let Some(index) = leads_to(&route) else { return Ok(None) };
        let source = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::PrefSource(RouteAddress::Inet(source)) => Some(*source),
            _ => None,
        });
        let router = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(router)) => Some(IpAddr::V4(*router)),
            RouteAttribute::Gateway(RouteAddress::Inet6(router)) => Some(IpAddr::V6(*router)),
            _ => None,
        });
        let interface = self.interfaces()?.into_iter().find(|interface| interface.index == index);
        Ok(interface.zip(source).map(|(interface, source)| Reach { interface: interface.name, source, router }))
    }

    fn index(&mut self, name: &str) -> Result<u32, LinkError> {
        let found = self.interface(name)?;
        found.map(|interface| interface.index).ok_or_else(|| LinkError::NoInterface(name.to_owned()))
    }

    fn address(&mut self, name: &str, address: Ipv4Addr) -> Result<AddressMessage, LinkError> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.index = self.index(name)?;
        message.header.prefix_len = 32;
        message.header.scope = AddressScope::Universe;
        message.attributes.push(AddressAttribute::Local(IpAddr::V4(address)));
        message.attributes.push(AddressAttribute::Address(IpAddr::V4(address)));
        Ok(message)
    }

    fn route(&mut self, name: &str, destination: Ipv4Addr) -> Result<RouteMessage, LinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Link;
        message.header.kind = RouteType::Unicast;
        message.header.destination_prefix_length = 32;
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(destination)));
        message.attributes.push(RouteAttribute::Oif(self.index(name)?));
        Ok(message)
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

fn interface(answer: Message) -> Option<Interface> {
    let Message::NewLink(message) = answer else { return None };
    let mut found = Interface {
        name: String::new(),
        index: message.header.index,
        alias: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name = name,
            LinkAttribute::IfAlias(alias) => found.alias = Some(alias),
            LinkAttribute::Mtu(mtu) => found.mtu = mtu,
            _ => {}
        }
    }
    (!found.name.is_empty()).then_some(found)
}

fn local_address(message: &AddressMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })
}

fn leads_to(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

fn destination(route: &RouteMessage) -> Option<Ipv4Addr> {
    let explicit = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    });
    // A default route has no destination attribute.
    explicit.or((route.header.destination_prefix_length == 0).then_some(Ipv4Addr::UNSPECIFIED))
}
