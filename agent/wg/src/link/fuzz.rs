//! What a kernel, or what claims to be it, could say over rtnetlink: for fuzzing.

use super::message::{Frame, Message, attribute, fra, frames, ifa, ifla, rta};
use super::socket::{self, Part};
use super::{beneath, destination, interface, leads_to, rules};
use crate::packet::sample::Reach;

/// Reads a datagram as answers about interfaces, addresses, routes and rules. Nothing panics or goes on for ever, no
/// message is longer than what came, and what was read is the same after it was written and read again.
pub fn fuzz_rtnetlink(bytes: &[u8], reach: Reach<'_>) {
    let (mut seen, mut parts) = (0, Vec::new());
    for frame in frames(bytes) {
        seen += frame.body.len() + 16;
        assert!(seen <= bytes.len(), "more than what came");
        match socket::part(&frame) {
            Part::Message(message) => {
                again(&message, frame.sequence);
                read(&message, reach);
                parts.extend(beneath::part(&message));
            }
            Part::End => reach("an end"),
            Part::Refused(code) => {
                assert!(code > 0);
                reach("a refusal");
            }
            Part::Other => {}
        }
    }
    let first: Vec<String> = parts.first().map(|part| part.name.clone()).into_iter().collect();
    let found = beneath::all_beneath(&parts, &first);
    assert!(found.len() <= parts.len() && first.iter().all(|name| found.contains(name)));
    if found.len() > 1 {
        reach("something beneath");
    }
}

/// Writes what was read, and reads it again.
fn again(message: &Message, sequence: u32) {
    let bytes = message.to_bytes(0, sequence);
    let mut all = frames(&bytes);
    let (frame, more) = (all.next().expect("one message"), all.next());
    assert_eq!((frame.kind, frame.sequence, more), (message.kind, sequence, None::<Frame<'_>>));
    assert_eq!(Message::read(frame.kind, frame.body).as_ref(), Some(message));
}

fn read(message: &Message, reach: Reach<'_>) {
    let _ = (message.flags(), message.route_head(), message.ip(rta::GATEWAY), message.ipv4(rta::PREFSRC));
    if let Some(interface) = interface(message) {
        assert!(!interface.name.is_empty() && !interface.name.contains('\0'));
        reach("an interface");
    }
    if message.kind == libc::RTM_NEWADDR && message.ipv4(ifa::LOCAL).is_some() {
        reach("an address");
    }
    if message.kind == libc::RTM_NEWROUTE && destination(message).is_some() && leads_to(message).is_some() {
        reach("a route");
    }
    if let Some(rule) = rules::read(message) {
        // What this crate would ask for to remove it names the same rule.
        assert_eq!(rules::read(&rules::message(libc::RTM_NEWRULE, &rule)), Some(rule));
        reach("a rule of ours");
    }
    if rules::frame_errors(message).is_some() {
        reach("an interface's counters");
    }
}

/// One of each, and an end and a refusal.
pub fn fuzz_rtnetlink_seeds() -> Vec<Vec<u8>> {
    let link = |index: u32, name: &str| Message::link(libc::RTM_NEWLINK, index, 1).with(ifla::IFNAME, name);
    let bridge = link(7, "br-lan\0").with(ifla::IFALIAS, "thinlane\0").with_word(ifla::MTU, 1500);
    let port = link(3, "lan1\0").with_word(ifla::MASTER, 7).with_word(ifla::LINK, 2);
    let card = link(2, "eth0\0").with(ifla::STATS64, [1; 192]).with(ifla::LINK_NETNSID, [0; 4]);
    let nested = link(4, "tl0\0").with(ifla::LINKINFO, attribute(ifla::INFO_KIND, b"wireguard"));
    let address = Message::address(libc::RTM_NEWADDR, 3, 32).with(ifa::LOCAL, [198, 19, 0, 1]);
    let head = super::RouteHead { table: 254, ..super::LANE };
    let route = Message::route(libc::RTM_NEWROUTE, head).with(rta::DST, [198, 18, 0, 1]).with_word(rta::OIF, 4);
    let rule = |table| rules::Rule {
        priority: 9,
        from_interface: Some("lo".into()),
        source: Some([198, 19, 0, 1].into()),
        destination: Some([198, 18, 0, 1].into()),
        mark: Some((1, 3)),
        icmp: true,
        table,
    };
    let rules = [Some(84), None].map(|table| rules::message(libc::RTM_NEWRULE, &rule(table)));
    let odd = rules[0].clone().with(fra::PROTOCOL, [84]);
    let end = |kind: i32, code: i32| {
        let mut bytes = [20_u32.to_ne_bytes(), [0; 4], 1_u32.to_ne_bytes(), [0; 4], code.to_ne_bytes()].concat();
        bytes[4..6].copy_from_slice(&(kind as u16).to_ne_bytes());
        bytes
    };
    let all = |messages: &[Message]| messages.iter().flat_map(|one| one.to_bytes(2, 1)).collect::<Vec<_>>();
    vec![
        [all(&[bridge, port, card, nested]), end(libc::NLMSG_DONE, 0)].concat(),
        [all(&[address, route]), end(libc::NLMSG_ERROR, -libc::ENODEV)].concat(),
        [all(&rules), all(&[odd]), end(libc::NLMSG_ERROR, 0)].concat(),
    ]
}
