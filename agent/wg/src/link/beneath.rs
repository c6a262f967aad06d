//! What interfaces stand on: a bridge on its ports, a VLAN on the card that carries it, a switch's port on its processor's card.

use std::collections::BTreeSet;

use netlink_packet_core::NLM_F_DUMP;

use super::message::{Message, ifla};
use super::{Link, LinkError};

/// An interface and its relations (IFLA_MASTER, IFLA_LINK), by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    index: u32,
    pub(super) name: String,
    /// The bridge or bond that it is a port of.
    master: Option<u32>,
    /// What carries it, in this network namespace.
    carrier: Option<u32>,
}

impl Link {
    /// The interfaces of these names, and everything beneath them, by name: what their packets may come in by.
    pub fn beneath(&mut self, names: &[String]) -> Result<BTreeSet<String>, LinkError> {
        let answers = self.socket.ask("list interfaces", Message::link(libc::RTM_GETLINK, 0, 0), NLM_F_DUMP)?;
        Ok(all_beneath(&answers.iter().filter_map(part).collect::<Vec<_>>(), names))
    }
}

pub(super) fn part(answer: &Message) -> Option<Part> {
    if answer.kind != libc::RTM_NEWLINK {
        return None;
    }
    // The other end of a cable into another namespace has a number that means something else here.
    let here = answer.value(ifla::LINK_NETNSID).is_none();
    Some(Part {
        index: answer.index(),
        name: answer.text(ifla::IFNAME)?,
        master: answer.word(ifla::MASTER),
        carrier: answer.word(ifla::LINK).filter(|_| here),
    })
}

pub(super) fn all_beneath(parts: &[Part], names: &[String]) -> BTreeSet<String> {
    let mut found: BTreeSet<u32> =
        parts.iter().filter(|part| names.contains(&part.name)).map(|part| part.index).collect();
    loop {
        let below = |part: &&Part| {
            part.master.is_some_and(|master| found.contains(&master))
                || parts.iter().any(|above| found.contains(&above.index) && above.carrier == Some(part.index))
        };
        let more: Vec<u32> =
            parts.iter().filter(below).map(|part| part.index).filter(|index| !found.contains(index)).collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    parts.iter().filter(|part| found.contains(&part.index)).map(|part| part.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(index: u32, name: &str, master: Option<u32>, carrier: Option<u32>) -> Part {
        Part { index, name: name.into(), master, carrier }
    }

    #[test]
    fn a_bridges_ports_and_what_carries_them_lie_beneath_it_and_the_uplink_does_not() {
        let parts = [
            part(2, "eth0", None, None),
            part(3, "lan1", Some(7), Some(2)),
            part(4, "eth1.5", Some(7), Some(5)),
            part(5, "eth1", None, None),
            part(6, "wan", None, Some(9)),
            part(7, "br-lan", None, None),
            part(8, "br-lan.9", None, Some(7)),
            part(9, "eth2", None, None),
        ];
        let beneath = |name: &str| all_beneath(&parts, &[name.to_owned()]).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(beneath("br-lan"), "br-lan eth0 eth1 eth1.5 lan1");
        assert_eq!(beneath("br-lan.9"), "br-lan br-lan.9 eth0 eth1 eth1.5 lan1");
        assert_eq!(beneath("wan"), "eth2 wan");
        assert_eq!(beneath("nowhere"), "");
    }

    #[test]
    fn interfaces_that_carry_each_other_end_the_search() {
        let parts = [part(2, "a", None, Some(3)), part(3, "b", None, Some(2))];
        assert_eq!(all_beneath(&parts, &["a".to_owned()]).len(), 2);
    }
}
