//! rtnetlink messages: a fixed head, then attributes (include/uapi/linux/rtnetlink.h, netlink(7), rtnetlink(7)).
//!
//! Only what this crate says and asks. A library for all of rtnetlink reads every kind of interface and queue there is,
//! and would be a fifteenth of the gateway's program.

use std::net::{IpAddr, Ipv4Addr};

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// Attributes may be flagged as nested or in network order; the rest is their number.
const NUMBER: u16 = 0x3fff;

/// Numbers of attributes in a message about an interface (include/uapi/linux/if_link.h).
pub(super) mod ifla {
    pub const IFNAME: u16 = 3;
    pub const MTU: u16 = 4;
    pub const LINK: u16 = 5;
    pub const MASTER: u16 = 10;
    pub const TXQLEN: u16 = 13;
    pub const LINKINFO: u16 = 18;
    pub const IFALIAS: u16 = 20;
    pub const STATS64: u16 = 23;
    pub const AF_SPEC: u16 = 26;
    pub const LINK_NETNSID: u16 = 37;
    /// Within LINKINFO.
    pub const INFO_KIND: u16 = 1;
    /// Within AF_SPEC, within AF_INET6.
    pub const INET6_ADDR_GEN_MODE: u16 = 8;
}

/// Of an address (include/uapi/linux/if_addr.h).
pub(super) mod ifa {
    pub const ADDRESS: u16 = 1;
    pub const LOCAL: u16 = 2;
}

/// Of a route.
pub(super) mod rta {
    pub const DST: u16 = 1;
    pub const OIF: u16 = 4;
    pub const GATEWAY: u16 = 5;
    pub const PREFSRC: u16 = 7;
    pub const TABLE: u16 = 15;
}

/// Of a routing rule (include/uapi/linux/fib_rules.h).
pub(super) mod fra {
    pub const DST: u16 = 1;
    pub const SRC: u16 = 2;
    pub const IIFNAME: u16 = 3;
    pub const PRIORITY: u16 = 6;
    pub const FWMARK: u16 = 10;
    pub const TABLE: u16 = 15;
    pub const FWMASK: u16 = 16;
    pub const PROTOCOL: u16 = 21;
    pub const IP_PROTO: u16 = 22;
}

/// One message, either way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// `RTM_NEWLINK` and so on.
    pub kind: u16,
    head: Vec<u8>,
    attributes: Vec<(u16, Vec<u8>)>,
}

/// The head of a message about a route or a rule (`struct rtmsg`, `struct fib_rule_hdr`), for IPv4.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RouteHead {
    pub destination_length: u8,
    pub source_length: u8,
    pub table: u8,
    pub protocol: u8,
    pub scope: u8,
    /// What a route does (`RTN_UNICAST`), or a rule (`FR_ACT_TO_TBL`).
    pub action: u8,
}

impl Message {
    /// About an interface, or all (0); of `flags`, those are set that are 1.
    pub fn link(kind: u16, index: u32, flags: u32) -> Self {
        let mut head = vec![0; 4];
        for word in [index, flags, flags] {
            head.extend(word.to_ne_bytes());
        }
        Self { kind, head, attributes: Vec::new() }
    }

    /// About an interface's IPv4 address that anybody may know (`RT_SCOPE_UNIVERSE`).
    pub fn address(kind: u16, index: u32, prefix_length: u8) -> Self {
        let mut head = vec![INET, prefix_length, 0, libc::RT_SCOPE_UNIVERSE];
        head.extend(index.to_ne_bytes());
        Self { kind, head, attributes: Vec::new() }
    }

    /// About an IPv4 route, or a rule.
    pub fn route(kind: u16, head: RouteHead) -> Self {
        let RouteHead { destination_length, source_length, table, protocol, scope, action } = head;
        let head = vec![INET, destination_length, source_length, 0, table, protocol, scope, action, 0, 0, 0, 0];
        Self { kind, head, attributes: Vec::new() }
    }

    /// With one attribute more.
    pub fn with(mut self, number: u16, value: impl AsRef<[u8]>) -> Self {
        self.attributes.push((number, value.as_ref().to_vec()));
        self
    }

    /// With one attribute more, in the machine's byte order.
    pub fn with_word(self, number: u16, value: u32) -> Self {
        self.with(number, value.to_ne_bytes())
    }

    /// With an IPv4 address.
    pub fn with_address(self, number: u16, address: Ipv4Addr) -> Self {
        self.with(number, address.octets())
    }

    /// As it is sent.
    pub fn to_bytes(&self, flags: u16, sequence: u32) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        // The kernel knows which socket it came from.
        bytes.extend([0; 4]);
        bytes.extend(&self.head);
        for (number, value) in &self.attributes {
            bytes.extend(attribute(*number, value));
        }
        let length = u32::try_from(bytes.len()).expect("a message of ours is shorter than 4 GiB");
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    /// What follows the netlink header of a message; `None`: not one that this crate asks for, or cut short.
    pub fn read(kind: u16, body: &[u8]) -> Option<Self> {
        let head = match kind {
            libc::RTM_NEWLINK => 16,
            libc::RTM_NEWADDR => 8,
            libc::RTM_NEWROUTE | libc::RTM_NEWRULE => 12,
            _ => return None,
        };
        let (head, mut rest) = body.split_at_checked(head)?;
        let mut attributes = Vec::new();
        while let Some((number, value, after)) = next_attribute(rest) {
            attributes.push((number, value.to_vec()));
            rest = after;
        }
        Some(Self { kind, head: head.to_vec(), attributes })
    }

    /// The interface that a message about one, or about its address, is about.
    pub fn index(&self) -> u32 {
        word(&self.head, 4).unwrap_or_default()
    }

    /// The flags of the interface.
    pub fn flags(&self) -> u32 {
        word(&self.head, 8).unwrap_or_default()
    }

    /// The second field of a head: the length of an address's prefix, or of a destination's.
    pub fn prefix_length(&self) -> u8 {
        self.head.get(1).copied().unwrap_or_default()
    }

    /// The head of a route or a rule.
    pub fn route_head(&self) -> RouteHead {
        let byte = |at: usize| self.head.get(at).copied().unwrap_or_default();
        RouteHead {
            destination_length: byte(1),
            source_length: byte(2),
            table: byte(4),
            protocol: byte(5),
            scope: byte(6),
            action: byte(7),
        }
    }

    /// An attribute as it came.
    pub fn value(&self, number: u16) -> Option<&[u8]> {
        self.attributes.iter().find(|(found, _)| *found == number).map(|(_, value)| &value[..])
    }

    /// An attribute of four bytes in the machine's order.
    pub fn word(&self, number: u16) -> Option<u32> {
        word(self.value(number)?, 0)
    }

    /// An attribute that is text; the zero at its end is not part of it.
    pub fn text(&self, number: u16) -> Option<String> {
        let value = self.value(number)?;
        let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
        Some(String::from_utf8_lossy(&value[..end]).into_owned())
    }

    /// An attribute that is an IPv4 or IPv6 address, by its length.
    pub fn ip(&self, number: u16) -> Option<IpAddr> {
        let value = self.value(number)?;
        let four = || <[u8; 4]>::try_from(value).map(IpAddr::from);
        four().or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
    }

    /// An attribute that is an IPv4 address.
    pub fn ipv4(&self, number: u16) -> Option<Ipv4Addr> {
        <[u8; 4]>::try_from(self.value(number)?).ok().map(Ipv4Addr::from)
    }
}

const INET: u8 = libc::AF_INET as u8;

/// One attribute (`struct nlattr`) with its padding; its value may be others.
pub(super) fn attribute(number: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).expect("an attribute of ours is shorter than 64 KiB");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(number.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Number, value, and what follows.
fn next_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let length = usize::from(half(0)?);
    let value = bytes.get(4..length)?;
    Some((half(2)? & NUMBER, value, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// Four bytes at a place, in the machine's order.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A netlink message of one datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub kind: u16,
    pub sequence: u32,
    pub body: &'a [u8],
}

/// The messages of a datagram; one that is cut short ends them.
pub(super) fn frames(datagram: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(word(rest, 0)?).ok()?;
        let body = rest.get(HEADER..length)?;
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let frame = Frame { kind, sequence: word(rest, 8)?, body };
        // Messages begin at multiples of four.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(frame)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let head = RouteHead {
            destination_length: 32,
            table: 254,
            protocol: 4,
            scope: 253,
            action: 1,
            ..RouteHead::default()
        };
        let message = Message::route(libc::RTM_NEWROUTE, head)
            .with_address(rta::DST, Ipv4Addr::new(198, 18, 0, 1))
            .with_word(rta::OIF, 7)
            .with(rta::GATEWAY, [0xfe; 16]);
        let bytes = message.to_bytes(0x405, 9);
        let found: Vec<_> = frames(&bytes).collect();
        assert_eq!((found.len(), found[0].kind, found[0].sequence), (1, libc::RTM_NEWROUTE, 9));
        let read = Message::read(found[0].kind, found[0].body).expect("read");
        assert_eq!(read, message);
        assert_eq!(read.ip(rta::GATEWAY), Some(IpAddr::from([0xfe; 16])));
        assert_eq!((read.ipv4(rta::GATEWAY), read.word(rta::OIF), read.word(rta::TABLE)), (None, Some(7), None));
    }

    /// What iproute2 6.1 sends for `ip route add 198.18.0.1/32 dev lo`, but for its length of the queue of attributes.
    #[test]
    fn a_route_is_the_bytes_that_the_kernel_documents() {
        let head = RouteHead {
            destination_length: 32,
            table: 254,
            protocol: 4,
            scope: 253,
            action: 1,
            ..RouteHead::default()
        };
        let message = Message::route(libc::RTM_NEWROUTE, head).with_address(rta::DST, Ipv4Addr::new(198, 18, 0, 1));
        let wanted: &[u8] = &[
            36, 0, 0, 0, 24, 0, 5, 4, 1, 0, 0, 0, 0, 0, 0, 0, // nlmsghdr
            2, 32, 0, 0, 254, 4, 253, 1, 0, 0, 0, 0, // rtmsg
            8, 0, 1, 0, 198, 18, 0, 1, // RTA_DST
        ];
        if cfg!(target_endian = "little") {
            assert_eq!(message.to_bytes(0x405, 1), wanted);
        }
    }

    #[test]
    fn no_cut_and_no_noise_is_taken_for_more_than_it_is() {
        let message = Message::link(libc::RTM_NEWLINK, 3, 1).with(ifla::IFNAME, "lan").with_word(ifla::MTU, 1500);
        let bytes = message.to_bytes(0, 1);
        for length in 0..bytes.len() {
            assert_eq!(frames(&bytes[..length]).count(), 0, "{length} bytes");
        }
        let body = &bytes[HEADER..];
        for length in 0..body.len() {
            let read = Message::read(libc::RTM_NEWLINK, &body[..length]);
            assert_eq!(read.is_some(), length >= 16, "{length} bytes");
            assert!(read.is_none_or(|read| read.value(ifla::MTU).is_none()));
        }
        // Lengths that lie: shorter than their own header, longer than everything.
        for lie in [0_u16, 1, 3, u16::MAX] {
            let mut body = body.to_vec();
            body[16..18].copy_from_slice(&lie.to_ne_bytes());
            assert_eq!(Message::read(libc::RTM_NEWLINK, &body).expect("the head is whole").value(ifla::MTU), None);
        }
        for lie in [0_u32, 15, u32::MAX] {
            let mut bytes = bytes.clone();
            bytes[..4].copy_from_slice(&lie.to_ne_bytes());
            assert_eq!(frames(&bytes).count(), 0);
        }
        assert_eq!(Message::read(libc::RTM_NEWQDISC, body), None, "nothing that was not asked for");
    }

    #[test]
    fn flags_of_an_attribute_are_no_part_of_its_number_and_text_ends_at_its_zero() {
        let nested = Message::link(libc::RTM_NEWLINK, 1, 0).with(ifla::IFALIAS | 0x8000, b"thinlane\0\0");
        let bytes = nested.to_bytes(0, 1);
        let read = Message::read(libc::RTM_NEWLINK, &bytes[HEADER..]).expect("read");
        assert_eq!(read.text(ifla::IFALIAS).as_deref(), Some("thinlane"));
    }
}
