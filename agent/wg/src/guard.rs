//! What may cross a lane, at either end: the gate at the gateway's, two addresses at the engineer's.

use std::net::{IpAddr, Ipv4Addr};

use thinlane_model::{Boot, Counters, PacketVerdict, Protocol, Span, Tuple};

use crate::device::{DeniedFlow, Direction, LaneRole};
use crate::gate::{Gate, Load, Reset};
use crate::packet;

/// A gateway's lane ends by itself this long before its deadline, so that the resets still find the kernel's
/// lane open, which ends at the deadline.
pub(crate) const LEAD: Span = Span::from_millis(15);

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Sent {
    Pass,
    Answer(Reset),
    Drop,
}

#[derive(Debug)]
pub(crate) enum Guard {
    Gateway(Box<Gate>),
    Engineer(Ends),
}

/// The engineer's end: its own address and the one that it may reach.
#[derive(Debug)]
pub(crate) struct Ends {
    address: Ipv4Addr,
    allowed: Ipv4Addr,
    shut: bool,
    counters: Counters,
    late: u64,
    last_passed: Option<Boot>,
    /// Follows TCP connections and judges nothing: so that the engineer's tools are told when the lane ends.
    connections: Option<Box<Gate>>,
}

impl Guard {
    pub(crate) fn new(role: LaneRole) -> Self {
        match role {
            LaneRole::Gateway { tuple, deadline } => Guard::Gateway(Box::new(Gate::new(tuple, deadline))),
            LaneRole::Engineer { address, allowed } => Guard::Engineer(Ends {
                address,
                allowed,
                shut: false,
                counters: Counters::default(),
                late: 0,
                last_passed: None,
                connections: None,
            }),
        }
    }

    /// Judges a packet out of the tunnel; a SYN that passes announces at most `mss`.
    pub(crate) fn arriving(&mut self, packet: &mut [u8], mss: u16, now: Boot) -> Sent {
        match self {
            Guard::Gateway(gate) => {
                let verdict = gate.up(packet, now);
                through(gate, Direction::Up, packet, verdict, mss, now)
            }
            Guard::Engineer(ends) => ends.judge(Direction::Down, packet, Load::of(packet), now),
        }
    }

    /// Judges a packet on its way into the tunnel; a SYN that passes announces at most `mss`.
    pub(crate) fn leaving(&mut self, packet: &mut [u8], mss: u16, now: Boot) -> Sent {
        match self {
            Guard::Gateway(gate) => {
                let verdict = gate.down(packet, now);
                through(gate, Direction::Down, packet, verdict, mss, now)
            }
            Guard::Engineer(ends) => ends.judge(Direction::Up, packet, Load::of(packet), now),
        }
    }

    /// Judges at once, on their way into the tunnel, the packets that `packet` is still to be cut into. None of them
    /// is a SYN.
    pub(crate) fn leaving_many(&mut self, packet: &[u8], load: Load, now: Boot) -> Sent {
        match self {
            Guard::Gateway(gate) => match gate.down_many(packet, load, now) {
                PacketVerdict::Pass => Sent::Pass,
                verdict => gate.answer(Direction::Down, packet, verdict, now).map_or(Sent::Drop, Sent::Answer),
            },
            Guard::Engineer(ends) => ends.judge(Direction::Up, packet, load, now),
        }
    }

    /// Whether it is time for the lane to end by itself.
    pub(crate) fn expires(&self, now: Boot) -> bool {
        self.expiry().is_some_and(|expiry| expiry <= now)
    }

    /// When the lane ends by itself; `None`: it does not, or it is over.
    pub(crate) fn expiry(&self) -> Option<Boot> {
        match self {
            Guard::Gateway(gate) if !gate.is_shut() => Some(gate.deadline() - LEAD),
            _ => None,
        }
    }

    pub(crate) fn is_over(&self, now: Boot) -> bool {
        match self {
            Guard::Gateway(gate) => gate.is_over(now),
            Guard::Engineer(ends) => ends.shut,
        }
    }

    #[must_use]
    pub(crate) fn extend(&mut self, deadline: Boot, now: Boot) -> bool {
        match self {
            Guard::Gateway(gate) => gate.extend(deadline, now),
            Guard::Engineer(ends) => !ends.shut,
        }
    }

    /// Flows from these ports of the engineer's go on.
    pub(crate) fn recall(&mut self, ports: &[u16], now: Boot) {
        if let Guard::Gateway(gate) = self {
            ports.iter().for_each(|port| gate.recall(*port, now));
        }
    }

    /// Shuts, and names the resets that are then to be sent; none the second time.
    pub(crate) fn shut(&mut self) -> Vec<Reset> {
        match self {
            Guard::Gateway(gate) if !gate.is_shut() => {
                gate.shut();
                gate.resets()
            }
            Guard::Gateway(_) => Vec::new(),
            Guard::Engineer(ends) => ends.shut(),
        }
    }

    pub(crate) fn is_engineers(&self) -> bool {
        matches!(self, Guard::Engineer(_))
    }

    pub(crate) fn counters(&self) -> Counters {
        match self {
            Guard::Gateway(gate) => gate.counters(),
            Guard::Engineer(ends) => ends.counters,
        }
    }

    pub(crate) fn late(&self) -> u64 {
        match self {
            Guard::Gateway(gate) => gate.late(),
            Guard::Engineer(ends) => ends.late,
        }
    }

    pub(crate) fn last_passed(&self) -> Option<Boot> {
        match self {
            Guard::Gateway(gate) => gate.last_passed(),
            Guard::Engineer(ends) => ends.last_passed,
        }
    }

    pub(crate) fn drain_denied(&mut self) -> (Vec<DeniedFlow>, u64) {
        match self {
            Guard::Gateway(gate) => gate.drain_denied(),
            Guard::Engineer(_) => (Vec::new(), 0),
        }
    }
}

fn through(gate: &mut Gate, way: Direction, packet: &mut [u8], verdict: PacketVerdict, mss: u16, now: Boot) -> Sent {
    if verdict == PacketVerdict::Pass {
        packet::clamp_mss(packet, mss);
        return Sent::Pass;
    }
    gate.answer(way, packet, verdict, now).map_or(Sent::Drop, Sent::Answer)
}

impl Ends {
    fn judge(&mut self, way: Direction, packet: &[u8], load: Load, now: Boot) -> Sent {
        let (source, destination) = match way {
            Direction::Up => (self.address, self.allowed),
            Direction::Down => (self.allowed, self.address),
        };
        if packet::source_of(packet) != Some(IpAddr::V4(source)) {
            self.counters.spoofed_packets += load.packets;
            return Sent::Drop;
        }
        if self.shut {
            self.late += load.packets;
            return Sent::Drop;
        }
        if packet::destination_of(packet) != Some(destination) {
            self.counters.denied_packets += load.packets;
            return Sent::Drop;
        }
        let (packets, bytes) = match way {
            Direction::Up => (&mut self.counters.up_packets, &mut self.counters.up_bytes),
            Direction::Down => (&mut self.counters.down_packets, &mut self.counters.down_bytes),
        };
        *packets += load.packets;
        *bytes += load.bytes;
        self.last_passed = Some(now);
        self.follow(way, packet, now);
        Sent::Pass
    }

    /// The lane's port shows with the first answer that is no refusal.
    fn follow(&mut self, way: Direction, bytes: &[u8], now: Boot) {
        let Ok(ip) = packet::parse_ipv4(bytes) else { return };
        let Ok(tcp) = ip.tcp() else { return };
        if self.connections.is_none() && way == Direction::Down && !tcp.has(packet::flag::RST) {
            let tuple = Tuple {
                engineer: self.address,
                destination: self.allowed,
                address: self.allowed,
                protocol: Protocol::Tcp,
                port: tcp.source_port,
            };
            let mut followed = Gate::new(tuple, Boot(u64::MAX));
            followed.recall(tcp.destination_port, now);
            self.connections = Some(Box::new(followed));
        }
        let Some(followed) = &mut self.connections else { return };
        let _ = match way {
            Direction::Up => followed.up(bytes, now),
            Direction::Down => followed.down(bytes, now),
        };
    }

    fn shut(&mut self) -> Vec<Reset> {
        if std::mem::replace(&mut self.shut, true) {
            return Vec::new();
        }
        let resets = self.connections.take().map(|followed| followed.resets()).unwrap_or_default();
        resets.into_iter().filter(|reset| matches!(reset, Reset::ToEngineer(_))).collect()
    }
}
