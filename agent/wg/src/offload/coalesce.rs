//! Packets that leave the tunnel one after the other, put together to what the interface takes at once.
//!
//! The rules are those of Linux's own receive offload (tcp_gro_receive, udp_gro_receive), and a little stricter:
//! packets join only if cutting the whole again yields the same packets (but for the id of one that may not be
//! fragmented, which means nothing). A packet joins its flow's run if it
//! continues it without a gap and differs in nothing but sequence number, length, id and checksum; a shorter one, or
//! one that says PSH, is the run's last. Every checksum is verified before two packets become one, because the kernel
//! is then told not to look. Packets of one flow never overtake each other.
//!
//! Only IPv4 is put together, because nothing else comes out of a lane: both ends of a lane have one IPv4 address (a /32),
//! and the guard drops what is not between these two before it gets here. Should another packet come, it passes as it is.
//! What carries a lane, outside, may be IPv6.

use super::header::{HEADER, Header, Kind};
use crate::packet::{IPV4_HEADER, TCP_HEADER, flag, number, sum};

/// Flows that are put together at the same time; a further one ends the run that is longest without a packet.
const RUNS: usize = 4;
/// Packets of one run: what Linux cuts UDP into at most (UDP_MAX_SEGMENTS); one read of TCP is less than that.
const MOST: usize = 64;
const LONGEST: usize = 65_535;
const UDP_HEADER: usize = 8;

/// Takes a header and the packet behind it: one write to the interface.
pub trait Sink {
    fn write(&mut self, header: &[u8; HEADER], packet: &[u8]);
}

/// Puts packets together.
pub struct Coalescer {
    udp: bool,
    runs: [Run; RUNS],
    turn: u64,
}

/// What a packet shows of itself, if it can be one of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    flow: Flow,
    /// Bytes of IP and TCP or UDP headers.
    headers: usize,
    payload: usize,
    seq: u32,
    push: bool,
}

/// Addresses, ports and protocol of an IPv4 packet.
pub(crate) type Flow = [u8; 13];

#[derive(Default)]
struct Run {
    /// Room for the longest packet, made when it is first needed.
    packet: Vec<u8>,
    /// Of the first packet; `None`: nothing stands here.
    first: Option<Part>,
    /// Of the last.
    last_id: u16,
    count: usize,
    /// Nothing may follow.
    ended: bool,
    /// The first packet's checksum was looked at.
    verified: bool,
    used: u64,
}

impl Coalescer {
    /// With `udp`, for an interface that takes several UDP packets at once.
    pub fn new(udp: bool) -> Self {
        Self { udp, runs: Default::default(), turn: 0 }
    }

    /// Takes one whole IP packet: joins it to others, or hands it to the sink after all that it may not overtake.
    pub fn push(&mut self, packet: &[u8], sink: &mut dyn Sink) {
        let Some(flow) = flow_of(packet) else { return self.pass(packet, sink) };
        self.turn += 1;
        let turn = self.turn;
        let part = part_of(packet, flow).filter(|_| self.udp || flow[12] == number::TCP);
        let own = self.runs.iter().position(|run| run.first.is_some_and(|first| first.flow == flow));
        let Some(part) = part else {
            if let Some(own) = own {
                self.runs[own].flush(sink);
            }
            sink.write(&[0; HEADER], packet);
            return;
        };
        let at = own.unwrap_or_else(|| self.place());
        let run = &mut self.runs[at];
        run.used = turn;
        if !run.join(&part, packet) {
            run.flush(sink);
            run.begin(part, packet);
        }
    }

    /// Takes one whole IP packet that is to stay alone: hands it to the sink, after all that it may not overtake.
    pub fn pass(&mut self, packet: &[u8], sink: &mut dyn Sink) {
        self.flush(sink);
        sink.write(&[0; HEADER], packet);
    }

    /// Hands all that was put together to the sink.
    pub fn flush(&mut self, sink: &mut dyn Sink) {
        for run in &mut self.runs {
            run.flush(sink);
        }
    }

    /// A free place, or the one that was used least lately.
    fn place(&self) -> usize {
        let by_use = |at: &usize| self.runs[*at].first.map(|_| self.runs[*at].used);
        (0..RUNS).min_by_key(by_use).unwrap_or(0)
    }
}

impl Run {
    fn begin(&mut self, part: Part, packet: &[u8]) {
        if self.packet.capacity() == 0 {
            self.packet.reserve_exact(LONGEST);
        }
        self.packet.clear();
        self.packet.extend_from_slice(packet);
        self.first = Some(part);
        self.last_id = id(packet);
        self.count = 1;
        self.ended = part.push;
        self.verified = false;
    }

    /// Appends a packet; `false`: it may not follow what stands here.
    fn join(&mut self, part: &Part, packet: &[u8]) -> bool {
        let Some(first) = self.first else { return false };
        let fits = !self.ended
            && part.flow == first.flow
            && self.count < MOST
            && part.payload <= first.payload
            && self.packet.len() + part.payload <= LONGEST
            && self.is_next(&first, part, packet);
        if !fits {
            return false;
        }
        self.verified = self.verified || is_right(&self.packet, first.flow[12]);
        if !self.verified || !is_right(packet, first.flow[12]) {
            return false;
        }
        self.packet.extend_from_slice(&packet[part.headers..]);
        self.last_id = id(packet);
        self.count += 1;
        self.ended = part.push || part.payload < first.payload;
        if part.push {
            self.packet[IPV4_HEADER + 13] |= flag::PSH;
        }
        true
    }

    /// Whether a packet is what cutting would put after the last one.
    fn is_next(&self, first: &Part, part: &Part, packet: &[u8]) -> bool {
        let (mine, theirs) = (&self.packet, packet);
        // Type of service, flags (DF) and time to live; the id counts on unless it means nothing (RFC 6864).
        let same_ip = mine[1] == theirs[1] && mine[6] == theirs[6] && mine[8] == theirs[8];
        let atomic = mine[6] & 0x40 != 0;
        if !same_ip || part.headers != first.headers || !(atomic || id(packet) == self.last_id.wrapping_add(1)) {
            return false;
        }
        if first.flow[12] == number::UDP {
            return true;
        }
        let carried = self.packet.len() - first.headers;
        let (mine, theirs) = (&mine[IPV4_HEADER..first.headers], &theirs[IPV4_HEADER..part.headers]);
        // Acknowledgement, window, urgent pointer and options; the flags are ACK and perhaps PSH on both.
        part.seq == first.seq.wrapping_add(carried as u32)
            && mine[8..13] == theirs[8..13]
            && mine[14..16] == theirs[14..16]
            && mine[18..] == theirs[18..]
    }

    fn flush(&mut self, sink: &mut dyn Sink) {
        let Some(first) = self.first.take() else { return };
        if self.count == 1 {
            sink.write(&[0; HEADER], &self.packet);
            return;
        }
        let udp = first.flow[12] == number::UDP;
        let offset = if udp { 6 } else { 16 };
        let packet = &mut self.packet[..];
        let length = packet.len();
        put(packet, 2, length as u16);
        put(packet, 10, 0);
        put(packet, 10, !sum(0, &packet[..IPV4_HEADER]));
        let segment = length - IPV4_HEADER;
        if udp {
            put(packet, IPV4_HEADER + 4, segment as u16);
        }
        // The kernel completes it (CHECKSUM_PARTIAL).
        let pseudo = sum(u32::from(first.flow[12]) + segment as u32, &packet[12..20]);
        put(packet, IPV4_HEADER + offset, pseudo);
        let header = Header {
            kind: if udp { Kind::Udp } else { Kind::Tcp4 },
            needs_checksum: true,
            headers: first.headers as u16,
            size: first.payload as u16,
            checksum_start: IPV4_HEADER as u16,
            checksum_offset: offset as u16,
        };
        sink.write(&header.bytes(), packet);
    }
}

/// The flow of an IPv4 packet without options that is no fragment; `None`: it is something else.
pub(crate) fn flow_of(packet: &[u8]) -> Option<Flow> {
    let header = packet.get(..IPV4_HEADER + UDP_HEADER)?;
    let known = matches!(header[9], number::TCP | number::UDP);
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0xbfff;
    if header[0] != 0x45 || !known || fragment != 0 || usize::from(be16(header, 2)) != packet.len() {
        return None;
    }
    let mut flow = [0; 13];
    flow[..12].copy_from_slice(&header[12..24]);
    flow[12] = header[9];
    Some(flow)
}

/// What can be one of several: TCP with a payload and no flag but ACK and PSH, UDP with a payload and a checksum.
fn part_of(packet: &[u8], flow: Flow) -> Option<Part> {
    let bytes = &packet[IPV4_HEADER..];
    if flow[12] == number::UDP {
        let whole = usize::from(be16(bytes, 4)) == bytes.len() && be16(bytes, 6) != 0;
        let headers = IPV4_HEADER + UDP_HEADER;
        let payload = packet.len() - headers;
        return (whole && payload > 0).then_some(Part { flow, headers, payload, seq: 0, push: false });
    }
    let tcp = bytes.get(..TCP_HEADER)?;
    let headers = IPV4_HEADER + usize::from(tcp[12] >> 4) * 4;
    // The four bits beside the length are reserved, or ECN's (RFC 3540): none of them may be set.
    let plain = tcp[12] & 0x0f == 0 && tcp[13] & !flag::PSH == flag::ACK;
    if !plain || headers < IPV4_HEADER + TCP_HEADER || packet.len() <= headers {
        return None;
    }
    let seq = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    let push = tcp[13] & flag::PSH != 0;
    Some(Part { flow, headers, payload: packet.len() - headers, seq, push })
}

/// Whether both checksums of a packet are right.
fn is_right(packet: &[u8], protocol: u8) -> bool {
    let bytes = &packet[IPV4_HEADER..];
    let pseudo = u32::from(sum(u32::from(protocol) + bytes.len() as u32, &packet[12..20]));
    sum(0, &packet[..IPV4_HEADER]) == 0xffff && sum(pseudo, bytes) == 0xffff
}

fn id(packet: &[u8]) -> u16 {
    be16(packet, 4)
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
