//! Kernel WireGuard interfaces, routing rules, and routes in tables of their own.
//!
//! Rules are marked with a protocol number of ours (FRA_PROTOCOL, include/uapi/linux/fib_rules.h), so that those of a
//! process that is gone are found again.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::IpProtocol;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::{Link, LinkError, leads_to};

/// Free in `/etc/iproute2/rt_protos`.
const OURS: u8 = 84;

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
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)]));
        self.change("make a WireGuard interface", Message::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)?;
        self.index(name)
    }

    /// Packets that an interface has dropped because their source was not allowed (rx_frame_errors); `None`: it is gone.
    pub(crate) fn frame_errors(&mut self, index: u32) -> Result<Option<u64>, LinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let answers = match self.socket.ask("read an interface's counters", Message::GetLink(message), 0) {
            Err(error) if error.is_one_of(&[libc::ENODEV]) => return Ok(None),
            answers => answers?,
        };
        let of = |answer| match answer {
            Message::NewLink(message) => message.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::Stats64(stats) => Some(stats.rx_frame_errors),
                _ => None,
            }),
            _ => None,
        };
        Ok(answers.into_iter().find_map(of))
    }

    /// Adds a rule; done twice, it is there once.
    pub(crate) fn add_rule(&mut self, rule: &Rule) -> Result<(), LinkError> {
        match self.change("add a routing rule", Message::NewRule(message(rule)), NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.is_one_of(&[libc::EEXIST]) => Ok(()),
            result => result,
        }
    }

    /// Takes a rule away; whether it was there.
    pub(crate) fn remove_rule(&mut self, rule: &Rule) -> Result<bool, LinkError> {
        self.remove("remove a routing rule", Message::DelRule(message(rule)), &[libc::ENOENT])
    }

    /// Every rule of ours, whoever made it.
    pub(crate) fn our_rules(&mut self) -> Result<Vec<Rule>, LinkError> {
        let mut question = RuleMessage::default();
        question.header.family = AddressFamily::Inet;
        let answers = self.socket.ask("list the routing rules", Message::GetRule(question), NLM_F_DUMP)?;
        let of = |answer| match answer {
            Message::NewRule(message) => read(&message),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(of).collect())
    }

    /// Leads one address (/32) into an interface, in a table that only rules lead to.
    pub(crate) fn add_route_in(&mut self, table: u32, index: u32, destination: Ipv4Addr) -> Result<(), LinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Link;
        message.header.kind = RouteType::Unicast;
        message.header.destination_prefix_length = 32;
        message.attributes.push(RouteAttribute::Table(table));
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(destination)));
        message.attributes.push(RouteAttribute::Oif(index));
        self.change("add the lane's route", Message::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// What one table leads into an interface.
    pub(crate) fn routes_in(&mut self, table: u32, index: u32) -> Result<Vec<Ipv4Addr>, LinkError> {
        let mut question = RouteMessage::default();
        question.header.address_family = AddressFamily::Inet;
        let answers = self.socket.ask("list the routes", Message::GetRoute(question), NLM_F_DUMP)?;
        let of = |answer| match answer {
            Message::NewRoute(route)
                if leads_to(&route) == Some(index) && route.attributes.contains(&RouteAttribute::Table(table)) =>
            {
                super::destination(&route)
            }
            _ => None,
        };
        Ok(answers.into_iter().filter_map(of).collect())
    }
}

fn message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.action = if rule.table.is_some() { RuleAction::ToTable } else { RuleAction::Unreachable };
    message.attributes.push(RuleAttribute::Priority(rule.priority));
    message.attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(OURS)));
    if let Some(name) = &rule.from_interface {
        message.attributes.push(RuleAttribute::Iifname(name.clone()));
    }
    if let Some(source) = rule.source {
        message.header.src_len = 32;
        message.attributes.push(RuleAttribute::Source(IpAddr::V4(source)));
    }
    if let Some(destination) = rule.destination {
        message.header.dst_len = 32;
        message.attributes.push(RuleAttribute::Destination(IpAddr::V4(destination)));
    }
    if let Some((mark, mask)) = rule.mark {
        message.attributes.push(RuleAttribute::FwMark(mark));
        message.attributes.push(RuleAttribute::FwMask(mask));
    }
    if rule.icmp {
        message.attributes.push(RuleAttribute::IpProtocol(IpProtocol::Icmp));
    }
    if let Some(table) = rule.table {
        message.attributes.push(RuleAttribute::Table(table));
    }
    message
}

/// `None`: not one of ours.
fn read(message: &RuleMessage) -> Option<Rule> {
    let attributes = &message.attributes;
    attributes.contains(&RuleAttribute::Protocol(RouteProtocol::Other(OURS))).then_some(())?;
    let mut rule = Rule::default();
    // An address of all zeros is one too: what has no source yet.
    if message.header.src_len == 32 {
        rule.source = Some(Ipv4Addr::UNSPECIFIED);
    }
    let (mut mark, mut mask) = (0, u32::MAX);
    for attribute in attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Iifname(name) => rule.from_interface = Some(name.clone()),
            RuleAttribute::Source(IpAddr::V4(source)) => rule.source = Some(*source),
            RuleAttribute::Destination(IpAddr::V4(destination)) => rule.destination = Some(*destination),
            RuleAttribute::IpProtocol(IpProtocol::Icmp) => rule.icmp = true,
            RuleAttribute::FwMark(found) => mark = *found,
            RuleAttribute::FwMask(found) => mask = *found,
            RuleAttribute::Table(table) if message.header.action == RuleAction::ToTable => rule.table = Some(*table),
            _ => {}
        }
    }
    if mark != 0 {
        rule.mark = Some((mark, mask));
    }
    Some(rule)
}
