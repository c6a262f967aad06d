//! What a base chain of others does to the packets of lanes: each kind of packet is followed through it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::packet::{Field, Packet, Range, Stage, TCP, UDP, all_but, exactly, name, names, native, network};
use super::text::text;
use super::walk::{End, Fate, Place, Table};
use super::{Hook, Passes, Ruling};

/// What is known of the packets that lanes forward, and of those that carry lanes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lanes {
    /// `tl0`, or `tl-`: what the name of each lane's own interface begins with.
    pub device: String,
    /// Interfaces with devices behind them.
    pub lan: Vec<Side>,
    /// Whether those are what lanes lead to. Else lanes lead to one of them, nobody said which, and what lets lanes
    /// through to any is no fault.
    pub lan_is_certain: bool,
    /// Where engineers' addresses are from; empty: not known.
    pub engineers: Vec<(Ipv4Addr, u8)>,
    /// The interface by which controller and relay are reached.
    pub uplink: Option<String>,
    /// Numbers of interfaces, by name.
    pub indices: Vec<(String, u32)>,
}

/// An interface with devices behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Side {
    pub name: String,
    /// Its IPv4 networks: where devices are; empty: not known.
    pub networks: Vec<(Ipv4Addr, u8)>,
}

/// What one kind of packet meets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Met {
    passes: Passes,
    /// `None`: the policy, or nothing.
    place: Option<Place>,
    lost: bool,
}

/// Judges one base chain, whose policy `accepts`. `wanted` gets the sets that were not looked into.
pub fn judge(
    table: &Table,
    (hook, chain, accepts): (Hook, &str, bool),
    lanes: &Lanes,
    wanted: &mut BTreeSet<String>,
) -> (Passes, Option<Ruling>, bool) {
    let mut met = |packet: &Packet| passes(table.follow(chain, packet, wanted), accepts);
    let found = match hook {
        Hook::Input => {
            // What may be lost there is tried with packets of its own; only what is lost for certain is told.
            let answers = met(&lanes.carrier());
            if answers.passes == Passes::No {
                answers
            } else {
                Met { passes: Passes::Yes, place: None, lost: answers.lost }
            }
        }
        Hook::Forward => {
            let sides = lanes.lan.iter().map(Some).chain(lanes.lan.is_empty().then_some(None));
            let each = sides.map(|side| {
                let stages = [Stage::First, Stage::There, Stage::Back].map(|stage| {
                    let [tcp, udp] = [TCP, UDP].map(|protocol| met(&lanes.packet(side, stage, protocol)));
                    of_both(tcp, udp)
                });
                stages.into_iter().fold(None, worst).unwrap_or_else(fine)
            });
            let each: Vec<Met> = each.collect();
            let lost = each.iter().any(|met| met.lost);
            let found = if lanes.lan_is_certain {
                each.into_iter().fold(None, worst)
            } else {
                each.into_iter().min_by_key(|met| met.passes)
            };
            let found = found.unwrap_or_else(fine);
            // Where lanes lead is not known at all: only what meets all of them is told.
            let unsure = lanes.lan.is_empty() && found.passes == Passes::MayDrop;
            Met { lost, ..if unsure { fine() } else { found } }
        }
    };
    let ruling = found.place.and_then(|(chain, index)| {
        let rule = table.chains.get(&chain)?.get(index)?;
        Some(Ruling { handle: rule.handle, text: text(rule, table), chain })
    });
    (found.passes, ruling, found.lost)
}

fn fine() -> Met {
    Met { passes: Passes::Yes, place: None, lost: false }
}

/// The worse of two; of equal ones the first.
fn worst(one: Option<Met>, other: Met) -> Option<Met> {
    Some(one.filter(|one| one.passes >= other.passes).unwrap_or(other))
}

/// Lanes carry either protocol: what meets one of them may meet a lane.
fn of_both(tcp: Met, udp: Met) -> Met {
    match (tcp.passes, udp.passes) {
        (Passes::No, Passes::No) => tcp,
        (Passes::No, _) => Met { passes: Passes::MayDrop, ..tcp },
        (_, Passes::No) => Met { passes: Passes::MayDrop, ..udp },
        _ => worst(Some(tcp), udp).unwrap_or_else(fine),
    }
}

fn passes(fate: Fate, accepts: bool) -> Met {
    let Fate { end, doubt, passed, lost } = fate;
    let dropped = match end {
        End::Dropped(place) => Some(Some(place)),
        End::Back if !accepts => Some(None),
        End::Back | End::Gone => None,
    };
    let (passes, place) = match dropped {
        Some(place) if !passed && !lost => (Passes::No, place),
        Some(place) if !lost => (Passes::MayDrop, doubt.or(place)),
        _ if doubt.is_some() => (Passes::MayDrop, doubt),
        _ if lost => (Passes::Unclear, None),
        _ => (Passes::Yes, None),
    };
    Met { passes, place, lost }
}

impl Lanes {
    /// A packet that a lane forwards.
    fn packet(&self, side: Option<&Side>, stage: Stage, protocol: u128) -> Packet {
        let packet = Packet::default()
            .with(Field::Family, exactly(libc::NFPROTO_IPV4 as u128))
            .with(Field::Protocol, exactly(protocol))
            .at(stage);
        let lane = if self.device.ends_with('-') { names(&self.device) } else { exactly(name(&self.device)) };
        let lan = match (side, &self.uplink) {
            (Some(side), _) => Some(exactly(name(&side.name))),
            // Devices are not behind the way out.
            (None, Some(uplink)) => Some(all_but(name(uplink), 16)),
            (None, None) => None,
        };
        let engineers = self.engineers.iter().copied().map(network).collect::<Vec<_>>();
        let devices = side.map(|side| side.networks.iter().copied().map(network).collect::<Vec<_>>());
        let ends = [
            (Some(lane), self.number(Some(self.device.as_str())), Some(engineers)),
            (lan, self.number(side.map(|side| side.name.as_str())), devices),
        ];
        let [from, to] = if stage == Stage::Back {
            let [lane, lan] = ends;
            [lan, lane]
        } else {
            ends
        };
        [
            (Field::InName, from.0),
            (Field::InIndex, Some(from.1)),
            (Field::Source, from.2.filter(|all| !all.is_empty())),
            (Field::OutName, to.0),
            (Field::OutIndex, Some(to.1)),
            (Field::Destination, to.2.filter(|all| !all.is_empty())),
        ]
        .into_iter()
        .fold(packet, |packet, (field, known)| match known {
            Some(known) => packet.with(field, known),
            None => packet,
        })
    }

    /// An answer of the relay, which carries lanes: the gateway began that connection.
    fn carrier(&self) -> Packet {
        let packet = Packet::default()
            .with(Field::Family, exactly(libc::NFPROTO_IPV4 as u128))
            .with(Field::Protocol, exactly(UDP))
            .with(Field::OutName, Vec::new())
            .with(Field::OutIndex, Vec::new())
            .at(Stage::Back);
        let name = self.uplink.as_ref().map_or_else(|| all_but(name("lo"), 16), |uplink| exactly(name(uplink)));
        packet.with(Field::InName, name).with(Field::InIndex, self.number(self.uplink.as_deref()))
    }

    /// An interface's number; of one that is not here, any but the loopback interface's, which is 1.
    fn number(&self, interface: Option<&str>) -> Vec<Range> {
        let known = self.indices.iter().find(|(known, _)| interface == Some(known.as_str()));
        known.map_or_else(|| all_but(native(1), 4), |(_, index)| exactly(native(*index)))
    }
}
