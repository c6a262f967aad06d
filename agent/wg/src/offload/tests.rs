//! What is expected of `offload`, as tests: against a slow reference, on random packets.

use proptest::prelude::*;

use super::coalesce::{Coalescer, Sink};
use super::header::{HEADER, Header, Kind};
use super::parcel::Parcel;
use crate::packet::Malformed;
use crate::packet::sample::naive_checksum;

mod coalescing;
mod cutting;
mod outgoing;

/// A packet by its fields, TCP or UDP over IPv4 or IPv6, written the slow way.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Spec {
    v6: bool,
    udp: bool,
    tos: u8,
    ttl: u8,
    id: u16,
    /// May not be fragmented.
    atomic: bool,
    ports: (u16, u16),
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    options: Vec<u8>,
    payload: Vec<u8>,
}

const SOURCE: u8 = 3;
const DESTINATION: u8 = 5;

impl Spec {
    fn tcp(seq: u32, payload: &[u8]) -> Self {
        Self {
            v6: false,
            udp: false,
            tos: 0,
            ttl: 64,
            id: 7,
            atomic: true,
            ports: (40_000, 2404),
            seq,
            ack: 9,
            flags: 0x10,
            window: 500,
            options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            payload: payload.to_vec(),
        }
    }

    fn udp(payload: &[u8]) -> Self {
        Self { udp: true, options: Vec::new(), seq: 0, ack: 0, flags: 0, window: 0, ..Self::tcp(0, payload) }
    }

    fn address(&self, last: u8) -> Vec<u8> {
        if self.v6 { [vec![0xfd; 15], vec![last]].concat() } else { vec![198, 18, 0, last] }
    }

    fn ip_header(&self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    fn headers(&self) -> usize {
        self.ip_header() + if self.udp { 8 } else { 20 + self.options.len() }
    }

    /// The TCP or UDP part, its checksum left open.
    fn transport(&self) -> Vec<u8> {
        let mut bytes = [self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes()].concat();
        if self.udp {
            bytes.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            bytes.extend([0, 0]);
        } else {
            bytes.extend(self.seq.to_be_bytes());
            bytes.extend(self.ack.to_be_bytes());
            bytes.extend([((20 + self.options.len()) as u8 / 4) << 4, self.flags]);
            bytes.extend(self.window.to_be_bytes());
            bytes.extend([0, 0, 0, 0]);
            bytes.extend(&self.options);
        }
        bytes.extend(&self.payload);
        bytes
    }

    fn pseudo_header(&self, length: usize) -> Vec<u8> {
        let protocol = if self.udp { 17 } else { 6 };
        let mut bytes = [self.address(SOURCE), self.address(DESTINATION)].concat();
        bytes.extend((length as u32).to_be_bytes());
        bytes.extend([0, 0, 0, protocol]);
        bytes
    }

    fn checksum_at(&self) -> usize {
        if self.udp { 6 } else { 16 }
    }

    fn around(&self, transport: &[u8]) -> Vec<u8> {
        let protocol = if self.udp { 17 } else { 6 };
        let mut bytes = Vec::new();
        if self.v6 {
            bytes.extend([0x60 | self.tos >> 4, self.tos << 4, 0, 0]);
            bytes.extend((transport.len() as u16).to_be_bytes());
            bytes.extend([protocol, self.ttl]);
        } else {
            bytes.extend([0x45, self.tos]);
            bytes.extend(((20 + transport.len()) as u16).to_be_bytes());
            bytes.extend(self.id.to_be_bytes());
            bytes.extend([if self.atomic { 0x40 } else { 0 }, 0, self.ttl, protocol, 0, 0]);
        }
        bytes.extend(self.address(SOURCE));
        bytes.extend(self.address(DESTINATION));
        if !self.v6 {
            let sum = naive_checksum(&bytes);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        bytes.extend(transport);
        bytes
    }

    /// The packet as it crosses a wire.
    fn packet(&self) -> Vec<u8> {
        let mut transport = self.transport();
        let sum = naive_checksum(&[self.pseudo_header(transport.len()), transport.clone()].concat());
        let sum = if self.udp && sum == 0 { 0xffff } else { sum };
        let at = self.checksum_at();
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        self.around(&transport)
    }

    /// The packet as the kernel hands it over, to be cut for `size` bytes of payload, or whole with zero.
    fn large(&self, size: u16) -> Vec<u8> {
        let mut transport = self.transport();
        let partial = !naive_checksum(&self.pseudo_header(transport.len()));
        let at = self.checksum_at();
        transport[at..at + 2].copy_from_slice(&partial.to_be_bytes());
        let kind = match (size, self.udp, self.v6) {
            (0, _, _) => Kind::Whole,
            (_, true, _) => Kind::Udp,
            (_, false, false) => Kind::Tcp4,
            (_, false, true) => Kind::Tcp6,
        };
        let header = Header {
            kind,
            needs_checksum: true,
            headers: self.headers() as u16,
            size,
            checksum_start: self.ip_header() as u16,
            checksum_offset: at as u16,
        };
        [&header.bytes()[..], &self.around(&transport)].concat()
    }

    /// What `large` has to be cut into, packet by packet.
    fn cut(&self, size: usize) -> Vec<Spec> {
        let count = self.payload.len().div_ceil(size);
        let parts = self.payload.chunks(size).enumerate().map(|(at, payload)| {
            let last = at + 1 == count;
            let mut flags = self.flags;
            if !last {
                flags &= !0x09;
            }
            if at > 0 {
                flags &= !0x80;
            }
            Spec {
                id: self.id.wrapping_add(at as u16),
                seq: self.seq.wrapping_add((at * size) as u32),
                flags,
                payload: payload.to_vec(),
                ..self.clone()
            }
        });
        parts.collect()
    }
}

/// Any packet with a payload of 1 to `longest` bytes.
fn spec(longest: usize) -> impl Strategy<Value = Spec> {
    let ip = (any::<bool>(), any::<bool>(), any::<u8>(), any::<u8>(), any::<u16>(), any::<bool>());
    let options = (0usize..=10).prop_flat_map(|words| proptest::collection::vec(any::<u8>(), words * 4));
    let tcp = (any::<u32>(), any::<u32>(), any::<u8>(), any::<u16>(), options);
    let payload = (1..longest, any::<u8>()).prop_map(|(length, seed)| {
        // Of all ones too, whose sum is the one with two zeros.
        let byte = |at: usize| if seed == 0 { 0xff } else { (at as u8).wrapping_mul(seed) ^ (at >> 8) as u8 };
        (0..length).map(byte).collect::<Vec<u8>>()
    });
    (ip, any::<(u16, u16)>(), tcp, payload).prop_map(|((v6, udp, tos, ttl, id, atomic), ports, tcp, payload)| {
        let (seq, ack, flags, window, options) = tcp;
        let options = if udp { Vec::new() } else { options };
        Spec { v6, udp, tos, ttl, id, atomic, ports, seq, ack, flags, window, options, payload }
    })
}
