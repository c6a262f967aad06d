//! Kernel WireGuard interfaces, routing rules, and routes in tables of their own.
//!
//! Rules are marked with a protocol number of ours (FRA_PROTOCOL, include/uapi/linux/fib_rules.h), so that those of a
//! process that is gone are found again.

use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};

use super::message::{Message, RouteHead, attribute, fra, ifla, rta};
use super::{LANE, Link, LinkError, leads_to};

/// Free in `/etc/iproute2/rt_protos`.
const OURS: u8 = 84;
/// What a rule does (include/uapi/linux/fib_rules.h).
const TO_TABLE: u8 = 1;
const UNREACHABLE: u8 = 7;
/// `rx_frame_errors` in `struct rtnl_link_stats64`: the fourteenth number.
const FRAME_ERRORS: usize = 13 * 8;

/// A routing rule for IPv4.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Rules are asked in this order, the kernel's own for local addresses (0) first.
    pub priority: u32,
    /// The interface by which the packet came; `lo`: it is the machine's own.
    pub from_interface: Option<String>,
    pub source: Option<Ipv4Addr>,
    pub destination: Option<Ipv4Addr>,
    /// Mark and mask.
    pub mark: Option<(u32, u32)>,
    /// Only ICMP.
    pub icmp: bool,
    /// The table to look into; `None`: unreachable.
    pub table: Option<u32>,
}

impl Link {
    /// Makes a kernel WireGuard interface, which is down; the kernel loads the module for it where it can.
    ///
    /// EOPNOTSUPP where there is no WireGuard, EEXIST where the name is taken.
    pub(crate) fn add_wireguard(&mut self, name: &str) -> Result<u32, LinkError> {
        let message = Message::link(libc::RTM_NEWLINK, 0, 0)
            .with(ifla::IFNAME, name)
            .with(ifla::LINKINFO, attribute(ifla::INFO_KIND, b"wireguard"));
        self.change("make a WireGuard interface", message, NLM_F_CREATE | NLM_F_EXCL)?;
        self.index(name)
    }

    /// Packets that an interface has dropped because their source was not allowed (rx_frame_errors); `None`: it is gone.
    pub(crate) fn frame_errors(&mut self, index: u32) -> Result<Option<u64>, LinkError> {
        let message = Message::link(libc::RTM_GETLINK, index, 0);
        let answers = match self.socket.ask("read an interface's counters", message, 0) {
            Err(error) if error.is_one_of(&[libc::ENODEV]) => return Ok(None),
            answers => answers?,
        };
        Ok(answers.iter().find_map(frame_errors))
    }

    /// Adds a rule; done twice, it is there once.
    pub(crate) fn add_rule(&mut self, rule: &Rule) -> Result<(), LinkError> {
        match self.change("add a routing rule", message(libc::RTM_NEWRULE, rule), NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.is_one_of(&[libc::EEXIST]) => Ok(()),
            result => result,
        }
    }

    /// Takes a rule away; whether it was there.
    pub(crate) fn remove_rule(&mut self, rule: &Rule) -> Result<bool, LinkError> {
        self.remove("remove a routing rule", message(libc::RTM_DELRULE, rule), &[libc::ENOENT])
    }

    /// Every rule of ours, whoever made it.
    pub(crate) fn our_rules(&mut self) -> Result<Vec<Rule>, LinkError> {
        let question = Message::route(libc::RTM_GETRULE, RouteHead::default());
        let answers = self.socket.ask("list the routing rules", question, NLM_F_DUMP)?;
        Ok(answers.iter().filter_map(read).collect())
    }

    /// Leads one address (/32) into an interface, in a table that only rules lead to.
    pub(crate) fn add_route_in(&mut self, table: u32, index: u32, destination: Ipv4Addr) -> Result<(), LinkError> {
        let message = Message::route(libc::RTM_NEWROUTE, LANE)
            .with_word(rta::TABLE, table)
            .with_address(rta::DST, destination)
            .with_word(rta::OIF, index);
        self.change("add the lane's route", message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// What one table leads into an interface.
    pub(crate) fn routes_in(&mut self, table: u32, index: u32) -> Result<Vec<Ipv4Addr>, LinkError> {
        let question = Message::route(libc::RTM_GETROUTE, RouteHead::default());
        let answers = self.socket.ask("list the routes", question, NLM_F_DUMP)?;
        let there = |route: &&Message| leads_to(route) == Some(index) && route.word(rta::TABLE) == Some(table);
        Ok(answers.iter().filter(there).filter_map(super::destination).collect())
    }
}

pub(super) fn frame_errors(interface: &Message) -> Option<u64> {
    let number = interface.value(ifla::STATS64)?.get(FRAME_ERRORS..FRAME_ERRORS + 8)?;
    Some(u64::from_ne_bytes(number.try_into().ok()?))
}

/// To add a rule, or to take one away.
pub(super) fn message(kind: u16, rule: &Rule) -> Message {
    let length = |address: Option<Ipv4Addr>| if address.is_some() { 32 } else { 0 };
    let head = RouteHead {
        destination_length: length(rule.destination),
        source_length: length(rule.source),
        action: if rule.table.is_some() { TO_TABLE } else { UNREACHABLE },
        ..RouteHead::default()
    };
    let mut message = Message::route(kind, head).with_word(fra::PRIORITY, rule.priority).with(fra::PROTOCOL, [OURS]);
    if let Some(name) = &rule.from_interface {
        message = message.with(fra::IIFNAME, name);
    }
    if let Some(source) = rule.source {
        message = message.with_address(fra::SRC, source);
    }
    if let Some(destination) = rule.destination {
        message = message.with_address(fra::DST, destination);
    }
    if let Some((mark, mask)) = rule.mark {
        message = message.with_word(fra::FWMARK, mark).with_word(fra::FWMASK, mask);
    }
    if rule.icmp {
        message = message.with(fra::IP_PROTO, [ICMP]);
    }
    if let Some(table) = rule.table {
        message = message.with_word(fra::TABLE, table);
    }
    message
}

const ICMP: u8 = libc::IPPROTO_ICMP as u8;

/// `None`: not one of ours.
pub(super) fn read(message: &Message) -> Option<Rule> {
    (message.kind == libc::RTM_NEWRULE && message.value(fra::PROTOCOL)? == [OURS]).then_some(())?;
    let head = message.route_head();
    let mark = message.word(fra::FWMARK).filter(|mark| *mark != 0);
    Some(Rule {
        priority: message.word(fra::PRIORITY).unwrap_or_default(),
        from_interface: message.text(fra::IIFNAME),
        // An address of all zeros is one too: what has no source yet.
        source: message.ipv4(fra::SRC).or((head.source_length == 32).then_some(Ipv4Addr::UNSPECIFIED)),
        destination: message.ipv4(fra::DST),
        mark: mark.map(|mark| (mark, message.word(fra::FWMASK).unwrap_or(u32::MAX))),
        icmp: message.value(fra::IP_PROTO) == Some(&[ICMP]),
        table: message.word(fra::TABLE).filter(|_| head.action == TO_TABLE),
    })
}
