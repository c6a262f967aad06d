//! The second lock: what one lane lets pass, packet by packet, without the kernel's help.
//!
//! The gate stands at the gateway's end of the tunnel. `up` judges what came out of the tunnel, before the
//! kernel maps the asset's overlay address to its LAN address; `down` judges what goes into the tunnel, after
//! the kernel mapped it back. Both therefore see `Tuple::destination`.
//!
//! Up passes the engineer's packets to {destination, protocol, port}. Down passes answers only: packets of a
//! flow that the engineer opened. ICMP errors pass, a few a second, if they are about such a flow. Later
//! fragments pass after their first one did. After the deadline, or once shut, nothing does.

use std::net::{IpAddr, Ipv4Addr};

use thinlane_model::{Boot, Counters, PacketVerdict, Protocol, Tuple};

use crate::bucket::Bucket;
use crate::device::{DeniedFlow, Direction};
use crate::packet::{self, Ip, Ipv4, Malformed, Tcp, TcpReset, flag, number};

mod denied;
mod flows;
mod fragments;
mod fuzz;
#[cfg(test)]
mod tests;

use denied::DeniedFlows;
use flows::Flows;
use fragments::Fragments;

pub use fuzz::fuzz_gate;

/// ICMP errors that pass, each way.
const ICMP_PER_SECOND: u32 = 10;
/// Resets that answer what was denied or late.
const RESETS_PER_SECOND: u32 = 20;

/// A packet that the gate wants sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// Into the tunnel.
    ToEngineer(packet::Reset),
    /// Out of the interface, to where the engineer's packets go.
    ToAsset(packet::Reset),
}

/// What is counted: packets of record, and the bytes of their IP packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub packets: u64,
    pub bytes: u64,
}

impl Load {
    /// Of one packet.
    pub fn of(packet: &[u8]) -> Self {
        Self { packets: 1, bytes: packet.len() as u64 }
    }
}

/// The lock of one lane.
#[derive(Debug)]
pub struct Gate {
    tuple: Tuple,
    deadline: Boot,
    shut: bool,
    counters: Counters,
    late: u64,
    last_passed: Option<Boot>,
    flows: Flows,
    fragments_up: Fragments,
    fragments_down: Fragments,
    denied: DeniedFlows,
    icmp_up: Bucket,
    icmp_down: Bucket,
    resets: Bucket,
}

impl Gate {
    /// A gate that passes `tuple` until `deadline` of this machine's boot clock.
    pub fn new(tuple: Tuple, deadline: Boot) -> Self {
        Self {
            tuple,
            deadline,
            shut: false,
            counters: Counters::default(),
            late: 0,
            last_passed: None,
            flows: Flows::new(tuple.protocol),
            fragments_up: Fragments::default(),
            fragments_down: Fragments::default(),
            denied: DeniedFlows::default(),
            icmp_up: Bucket::new(ICMP_PER_SECOND, ICMP_PER_SECOND),
            icmp_down: Bucket::new(ICMP_PER_SECOND, ICMP_PER_SECOND),
            resets: Bucket::new(RESETS_PER_SECOND, RESETS_PER_SECOND),
        }
    }

    /// Judges and counts one packet from the tunnel.
    pub fn up(&mut self, bytes: &[u8], now: Boot) -> PacketVerdict {
        self.judge(Direction::Up, bytes, Load::of(bytes), now)
    }

    /// Judges and counts one packet on its way into the tunnel.
    pub fn down(&mut self, bytes: &[u8], now: Boot) -> PacketVerdict {
        self.down_many(bytes, Load::of(bytes), now)
    }

    /// Judges at once the packets that `bytes` is still to be cut into, and counts them as `load` says. They are of one
    /// flow and come one after the other, so what holds for the whole holds for each.
    pub fn down_many(&mut self, bytes: &[u8], load: Load, now: Boot) -> PacketVerdict {
        self.judge(Direction::Down, bytes, load, now)
    }

    /// The reset that answers a packet which did not pass: to the engineer for a denied one of theirs, and to
    /// the sender for one of the lane's own flow that came late. Bounded to a few a second.
    pub fn answer(&mut self, way: Direction, bytes: &[u8], verdict: PacketVerdict, now: Boot) -> Option<Reset> {
        let ip = packet::parse_ipv4(bytes).ok().filter(|ip| ip.protocol == number::TCP)?;
        let tcp = ip.tcp().ok().filter(|tcp| !tcp.has(flag::RST))?;
        let wanted = match (verdict, way) {
            (PacketVerdict::Denied, Direction::Up) => true,
            (PacketVerdict::Late, Direction::Up) => ip.source == self.tuple.engineer,
            (PacketVerdict::Late, Direction::Down) => {
                self.is_own(way, &ip, tcp.source_port, tcp.destination_port)
                    && self.flows.knows(tcp.destination_port, now)
            }
            _ => false,
        };
        if !wanted || !self.resets.take(now) {
            return None;
        }
        let reset = packet::tcp_reset(&answer_to(&ip, &tcp));
        Some(match way {
            Direction::Up => Reset::ToEngineer(reset),
            Direction::Down => Reset::ToAsset(reset),
        })
    }

    /// Moves the deadline; `false`: the gate was shut, or its deadline has passed, and stays so.
    #[must_use]
    pub fn extend(&mut self, deadline: Boot, now: Boot) -> bool {
        if self.is_over(now) {
            return false;
        }
        self.deadline = deadline;
        true
    }

    /// A flow that the engineer opened from this port before there was this gate goes on: the asset may speak first.
    pub fn recall(&mut self, engineer_port: u16, now: Boot) {
        self.flows.recall(engineer_port, now);
    }

    /// Lets nothing pass from now on.
    pub fn shut(&mut self) {
        self.shut = true;
    }

    /// Whether nothing passes any more.
    pub fn is_over(&self, now: Boot) -> bool {
        self.shut || now >= self.deadline
    }

    /// Whether `shut` was called.
    pub fn is_shut(&self) -> bool {
        self.shut
    }

    pub fn deadline(&self) -> Boot {
        self.deadline
    }

    /// Resets for both ends of every TCP connection that is still open.
    ///
    /// Each end gets one for what it acknowledged last and one for all that was sent to it, because a reset
    /// counts only at exactly the sequence number that is expected next (RFC 5961) and what is in flight is
    /// unknown.
    pub fn resets(&self) -> Vec<Reset> {
        self.flows.resets(&self.tuple)
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Packets after the end; none passed.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// When the last packet passed.
    pub fn last_passed(&self) -> Option<Boot> {
        self.last_passed
    }

    /// The denied flows since the last call, and how many packets did not fit into the list.
    pub fn drain_denied(&mut self) -> (Vec<DeniedFlow>, u64) {
        self.denied.drain()
    }

    fn judge(&mut self, way: Direction, bytes: &[u8], load: Load, now: Boot) -> PacketVerdict {
        let verdict = self.verdict(way, bytes, now);
        match (verdict, way) {
            (PacketVerdict::Pass, Direction::Up) => {
                self.counters.up_packets += load.packets;
                self.counters.up_bytes += load.bytes;
                self.last_passed = Some(now);
            }
            (PacketVerdict::Pass, Direction::Down) => {
                self.counters.down_packets += load.packets;
                self.counters.down_bytes += load.bytes;
                self.last_passed = Some(now);
            }
            (PacketVerdict::Denied, _) => {
                self.counters.denied_packets += load.packets;
                self.denied.note(way, false, bytes, load.packets);
            }
            (PacketVerdict::Spoofed, _) => {
                self.counters.spoofed_packets += load.packets;
                self.denied.note(way, true, bytes, load.packets);
            }
            (PacketVerdict::Late, _) => self.late += load.packets,
        }
        verdict
    }

    fn verdict(&mut self, way: Direction, bytes: &[u8], now: Boot) -> PacketVerdict {
        if way == Direction::Up && packet::source_of(bytes) != Some(IpAddr::V4(self.tuple.engineer)) {
            return PacketVerdict::Spoofed;
        }
        if self.is_over(now) {
            return PacketVerdict::Late;
        }
        match self.is_lane(way, bytes, now) {
            Ok(true) => PacketVerdict::Pass,
            Ok(false) | Err(_) => PacketVerdict::Denied,
        }
    }

    fn is_lane(&mut self, way: Direction, bytes: &[u8], now: Boot) -> Result<bool, Malformed> {
        let Ip::V4(ip) = packet::parse(bytes)? else { return Ok(false) };
        if ip.protocol == number::ICMP {
            return self.passes_icmp(way, &ip, now);
        }
        let (source, destination) = self.ends(way);
        if (ip.source, ip.destination, ip.protocol) != (source, destination, self.tuple.protocol.number()) {
            return Ok(false);
        }
        if ip.offset != 0 {
            return Ok(self.fragments(way).passes_later(&ip, now));
        }
        // Before the flows see it: a packet that is denied opens none.
        if ip.more_fragments && !self.fragments(way).may_begin(&ip, now) {
            return Ok(false);
        }
        let passes = match self.tuple.protocol {
            Protocol::Tcp => {
                let tcp = ip.tcp()?;
                self.is_own(way, &ip, tcp.source_port, tcp.destination_port) && self.flows.pass_tcp(way, &tcp, now)
            }
            Protocol::Udp => {
                let udp = ip.udp()?;
                self.is_own(way, &ip, udp.source_port, udp.destination_port)
                    && self.flows.pass_udp(way, udp.source_port, udp.destination_port, now)
            }
        };
        if passes && ip.more_fragments {
            self.fragments(way).begin(&ip, now);
        }
        Ok(passes)
    }

    /// Passes an error about a packet that this lane carried the other way.
    fn passes_icmp(&mut self, way: Direction, ip: &Ipv4<'_>, now: Boot) -> Result<bool, Malformed> {
        let outer = match way {
            Direction::Up => ip.destination == self.tuple.destination,
            // Also a router between gateway and asset may say that a packet was too long.
            Direction::Down => ip.destination == self.tuple.engineer,
        };
        if !outer {
            return Ok(false);
        }
        let error = ip.icmp_error()?;
        let (engineer_port, asset_port) = match way {
            Direction::Up => (error.destination_port, error.source_port),
            Direction::Down => (error.source_port, error.destination_port),
        };
        let opposite = match way {
            Direction::Up => Direction::Down,
            Direction::Down => Direction::Up,
        };
        let ours = (error.source, error.destination) == self.ends(opposite)
            && error.protocol == self.tuple.protocol.number()
            && asset_port == self.tuple.port
            && self.flows.knows(engineer_port, now);
        let bucket = match way {
            Direction::Up => &mut self.icmp_up,
            Direction::Down => &mut self.icmp_down,
        };
        Ok(ours && bucket.take(now))
    }

    /// Source and destination of the lane's packets that go `way`.
    fn ends(&self, way: Direction) -> (Ipv4Addr, Ipv4Addr) {
        match way {
            Direction::Up => (self.tuple.engineer, self.tuple.destination),
            Direction::Down => (self.tuple.destination, self.tuple.engineer),
        }
    }

    fn is_own(&self, way: Direction, ip: &Ipv4<'_>, source_port: u16, destination_port: u16) -> bool {
        let (source, destination) = self.ends(way);
        let port = match way {
            Direction::Up => destination_port,
            Direction::Down => source_port,
        };
        (ip.source, ip.destination, ip.protocol, port)
            == (source, destination, self.tuple.protocol.number(), self.tuple.port)
    }

    fn fragments(&mut self, way: Direction) -> &mut Fragments {
        match way {
            Direction::Up => &mut self.fragments_up,
            Direction::Down => &mut self.fragments_down,
        }
    }
}

/// The reset that a closed port would answer with (RFC 9293, 3.5.2).
fn answer_to(ip: &Ipv4<'_>, tcp: &Tcp) -> TcpReset {
    let (seq, ack) = if tcp.has(flag::ACK) { (tcp.ack, None) } else { (0, Some(tcp.end())) };
    TcpReset { source: (ip.destination, tcp.destination_port), destination: (ip.source, tcp.source_port), seq, ack }
}
