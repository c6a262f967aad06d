//! The flows of a lane by the engineer's port: who opened them, and for TCP where both ends are.

use std::collections::BTreeMap;

use thinlane_model::{Boot, Protocol, Span, Tuple};

use super::Reset;
use crate::device::Direction;
use crate::packet::{Tcp, TcpReset, flag, tcp_reset};

/// Flows of one lane at once; beyond it the least useful one makes room.
const MOST: usize = 512;
/// UDP has no end: a flow is over after this long without a packet (as conntrack's stream timeout).
const UDP_IDLE: Span = Span::from_secs(180);
/// How long a TCP flow that was reset or closed may still be answered.
const TCP_CLOSED: Span = Span::from_secs(10);
/// How long a TCP connection may take to be answered at all.
const TCP_OPENING: Span = Span::from_secs(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Reset by an end, or closed by both: the first to make room.
    Closed,
    /// Nothing has come back yet.
    Opening,
    Open,
}

/// Where one direction of a TCP connection is.
#[derive(Debug, Clone, Copy, Default)]
struct Side {
    /// The sequence number after all that this side sent.
    end: Option<u32>,
    /// What this side acknowledged last.
    ack: Option<u32>,
    fin: bool,
}

#[derive(Debug, Clone, Copy)]
struct Flow {
    stage: Stage,
    used: Boot,
    up: Side,
    down: Side,
}

#[derive(Debug)]
pub(super) struct Flows {
    protocol: Protocol,
    by_port: BTreeMap<u16, Flow>,
}

impl Flows {
    pub(super) fn new(protocol: Protocol) -> Self {
        Self { protocol, by_port: BTreeMap::new() }
    }

    /// Whether the engineer has a flow from this port.
    pub(super) fn knows(&self, engineer_port: u16, now: Boot) -> bool {
        self.by_port.get(&engineer_port).is_some_and(|flow| !self.is_stale(flow, now))
    }

    /// Follows one segment of the lane's own ports; `false`: it may not pass.
    pub(super) fn pass_tcp(&mut self, way: Direction, tcp: &Tcp, now: Boot) -> bool {
        match way {
            Direction::Up => self.pass_tcp_up(tcp, now),
            Direction::Down => self.pass_tcp_down(tcp, now),
        }
    }

    /// Follows one datagram of the lane's own ports; `false`: it may not pass.
    pub(super) fn pass_udp(&mut self, way: Direction, source_port: u16, destination_port: u16, now: Boot) -> bool {
        match way {
            Direction::Up => {
                self.flow(source_port, now).used = now;
                true
            }
            Direction::Down if self.knows(destination_port, now) => {
                if let Some(flow) = self.by_port.get_mut(&destination_port) {
                    flow.used = now;
                    flow.stage = Stage::Open;
                }
                true
            }
            Direction::Down => false,
        }
    }

    /// A flow that was opened before this table was; where its ends are shows with their next segments.
    pub(super) fn recall(&mut self, engineer_port: u16, now: Boot) {
        let flow = self.flow(engineer_port, now);
        flow.used = now;
        flow.stage = Stage::Open;
    }

    pub(super) fn resets(&self, tuple: &Tuple) -> Vec<Reset> {
        if self.protocol != Protocol::Tcp {
            return Vec::new();
        }
        let open = self.by_port.iter().filter(|(_, flow)| flow.stage != Stage::Closed);
        open.flat_map(|(port, flow)| flow_resets(tuple, *port, flow)).collect()
    }

    /// Whatever the engineer sends to the lane's port belongs to a flow; a connection in mid-stream, too: a
    /// gateway that restarts resumes its lanes.
    fn pass_tcp_up(&mut self, tcp: &Tcp, now: Boot) -> bool {
        let opens = tcp.has(flag::SYN) && !tcp.has(flag::ACK);
        if tcp.has(flag::RST) && !self.knows(tcp.source_port, now) {
            // Nothing to reset: not worth a place in the table.
            return true;
        }
        let flow = self.flow(tcp.source_port, now);
        if opens && flow.up.end != Some(tcp.end()) && (flow.stage == Stage::Closed || flow.down.end.is_none()) {
            *flow = Flow::new(now);
        }
        flow.used = now;
        flow.up.follow(tcp);
        flow.settle(tcp);
        true
    }

    fn pass_tcp_down(&mut self, tcp: &Tcp, now: Boot) -> bool {
        let opens = tcp.has(flag::SYN) && !tcp.has(flag::ACK);
        if opens || !self.knows(tcp.destination_port, now) {
            return false;
        }
        let Some(flow) = self.by_port.get_mut(&tcp.destination_port) else { return false };
        if flow.stage != Stage::Closed {
            flow.used = now;
            flow.stage = Stage::Open;
        }
        flow.down.follow(tcp);
        flow.settle(tcp);
        true
    }

    /// The flow of a port, made if need be; an outlived one begins anew.
    fn flow(&mut self, port: u16, now: Boot) -> &mut Flow {
        let stale = self.by_port.get(&port).is_some_and(|flow| self.is_stale(flow, now));
        if stale {
            self.by_port.remove(&port);
        }
        if !self.by_port.contains_key(&port) && self.by_port.len() >= MOST {
            self.make_room(now);
        }
        self.by_port.entry(port).or_insert_with(|| Flow::new(now))
    }

    fn make_room(&mut self, now: Boot) {
        let protocol = self.protocol;
        self.by_port.retain(|_, flow| !is_stale(protocol, flow, now));
        if self.by_port.len() >= MOST {
            let least = self.by_port.iter().min_by_key(|(_, flow)| (flow.stage, flow.used)).map(|(port, _)| *port);
            least.map(|port| self.by_port.remove(&port));
        }
    }

    fn is_stale(&self, flow: &Flow, now: Boot) -> bool {
        is_stale(self.protocol, flow, now)
    }
}

fn is_stale(protocol: Protocol, flow: &Flow, now: Boot) -> bool {
    let idle = flow.used.until(now);
    match (protocol, flow.stage) {
        (Protocol::Udp, _) => idle >= UDP_IDLE,
        (Protocol::Tcp, Stage::Closed) => idle >= TCP_CLOSED,
        (Protocol::Tcp, Stage::Opening) => idle >= TCP_OPENING,
        (Protocol::Tcp, Stage::Open) => false,
    }
}

impl Flow {
    fn new(now: Boot) -> Self {
        Self { stage: Stage::Opening, used: now, up: Side::default(), down: Side::default() }
    }

    fn settle(&mut self, tcp: &Tcp) {
        if tcp.has(flag::RST) || (self.up.fin && self.down.fin) {
            self.stage = Stage::Closed;
        }
    }
}

impl Side {
    /// Moves forward only: what arrives late or twice does not take a side back (serial numbers, RFC 1982).
    fn follow(&mut self, tcp: &Tcp) {
        let later = |old: Option<u32>, new: u32| match old {
            Some(old) if (new.wrapping_sub(old) as i32) < 0 => Some(old),
            _ => Some(new),
        };
        if !tcp.has(flag::RST) {
            self.end = later(self.end, tcp.end());
            if tcp.has(flag::ACK) {
                self.ack = later(self.ack, tcp.ack);
            }
        }
        self.fin |= tcp.has(flag::FIN);
    }
}

fn flow_resets(tuple: &Tuple, port: u16, flow: &Flow) -> Vec<Reset> {
    let engineer = (tuple.engineer, port);
    let asset = (tuple.destination, tuple.port);
    let to_engineer = numbers(flow.up.ack, flow.down.end, flow.up.end.is_some()).map(|seq| {
        Reset::ToEngineer(tcp_reset(&TcpReset { source: asset, destination: engineer, seq, ack: flow.up.end }))
    });
    // An asset that has not answered may have no connection yet, but it may have begun one.
    let to_asset = numbers(flow.down.ack, flow.up.end, false).map(|seq| {
        Reset::ToAsset(tcp_reset(&TcpReset { source: engineer, destination: asset, seq, ack: flow.down.end }))
    });
    to_engineer.chain(to_asset).collect()
}

/// The sequence numbers that the receiver may expect next; with `always`, zero where nothing is known.
fn numbers(acked: Option<u32>, sent: Option<u32>, always: bool) -> impl Iterator<Item = u32> {
    let second = if acked == sent { None } else { sent };
    let none = acked.is_none() && sent.is_none() && always;
    acked.into_iter().chain(second).chain(none.then_some(0))
}
