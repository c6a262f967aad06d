//! What is inside the tunnel: one address, one asset, one port, one protocol; nothing else passes in or out.
//!
//! Pure.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use smoltcp::time::Instant;
use thinlane_model::{Counters, Protocol};

use crate::datagrams::Datagrams;
use crate::packet::{self, Datagram, Ipv4};
use crate::random::Random;
use crate::reassembly::Reassembly;
use crate::stack::Stack;

/// The longest IP packet that leaves: with WireGuard and UDP over IPv6 around it, it fits a path of 1 280 bytes.
pub const MTU: usize = 1200;
/// UDP packets that wait for the tunnel; more are dropped, as on any slow link.
const WAITING: usize = 128;

/// The inside of a lane.
pub struct Inner {
    address: Ipv4Addr,
    asset: SocketAddrV4,
    reassembly: Reassembly,
    kind: Kind,
    counters: Counters,
}

enum Kind {
    Tcp(Box<Stack>),
    Udp(Udp),
}

struct Udp {
    flows: Datagrams,
    waiting: std::collections::VecDeque<Vec<u8>>,
    id: u16,
    mtu: usize,
}

impl Inner {
    /// From `address` to `asset`; `mtu` is what the gateway allows, of which less is used where it is large.
    pub fn new(address: Ipv4Addr, asset: SocketAddrV4, protocol: Protocol, mtu: u16, seed: u64, now: Instant) -> Self {
        // An IPv4 host takes packets of 576 bytes in any case (RFC 791).
        let mtu = usize::from(mtu).clamp(576, MTU);
        let mut random = Random::new(seed);
        let kind = match protocol {
            Protocol::Tcp => Kind::Tcp(Box::new(Stack::new(address, asset, mtu, random.draw(), now))),
            Protocol::Udp => Kind::Udp(Udp {
                flows: Datagrams::new(random.draw()),
                waiting: std::collections::VecDeque::new(),
                id: random.draw() as u16,
                mtu,
            }),
        };
        Self { address, asset, reassembly: Reassembly::default(), kind, counters: Counters::default() }
    }

    /// The TCP end; `None`: the lane carries UDP.
    pub fn tcp(&mut self) -> Option<&mut Stack> {
        match &mut self.kind {
            Kind::Tcp(stack) => Some(stack),
            Kind::Udp(_) => None,
        }
    }

    /// What has crossed, in IP packets and bytes.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes a packet that came through the tunnel. `Some`: a UDP datagram for this local source.
    pub fn take(&mut self, bytes: &[u8], now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        let Some(packet) = packet::parse(bytes).filter(|packet| self.is_ours(packet)) else {
            self.deny(bytes);
            return None;
        };
        self.counters.down_packets += 1;
        self.counters.down_bytes += bytes.len() as u64;
        if !packet.is_fragment() {
            return self.take_whole(bytes, &packet, now);
        }
        let payload = self.reassembly.take(&packet, now)?;
        let packet = Ipv4 { more_fragments: false, offset: 0, payload: &payload, ..packet };
        let bytes = packet::write(packet);
        self.take_whole(&bytes, &packet, now)
    }

    /// Takes a datagram of a local program's; it leaves when the tunnel is ready for it.
    pub fn send(&mut self, local: SocketAddr, payload: &[u8], now: Instant) {
        let Kind::Udp(udp) = &mut self.kind else { return };
        let (source_port, destination_port) = (udp.flows.leaves(local, now), self.asset.port());
        let datagram = Datagram { source_port, destination_port, payload };
        let Some(payload) = packet::write_udp(self.address, *self.asset.ip(), datagram) else { return };
        udp.id = udp.id.wrapping_add(1);
        let whole = Ipv4 {
            source: self.address,
            destination: *self.asset.ip(),
            protocol: packet::UDP,
            id: udp.id,
            more_fragments: false,
            offset: 0,
            payload: &payload,
        };
        let pieces: Vec<Vec<u8>> = packet::fragments(whole, udp.mtu).collect();
        // A datagram without one of its fragments is worth nothing.
        if udp.waiting.len() + pieces.len() <= WAITING {
            udp.waiting.extend(pieces);
        }
    }

    /// Acts on time and on what was written or read locally; packets wait in `packet` afterwards.
    pub fn poll(&mut self, now: Instant) {
        if let Kind::Tcp(stack) = &mut self.kind {
            stack.poll(now);
        }
    }

    /// The next packet for the tunnel.
    pub fn packet(&mut self) -> Option<Vec<u8>> {
        let packet = match &mut self.kind {
            Kind::Tcp(stack) => stack.packet(),
            Kind::Udp(udp) => udp.waiting.pop_front(),
        }?;
        self.counters.up_packets += 1;
        self.counters.up_bytes += packet.len() as u64;
        Some(packet)
    }

    /// Gives a packet's memory back.
    pub fn recycle(&mut self, packet: Vec<u8>) {
        if let Kind::Tcp(stack) = &mut self.kind {
            stack.recycle(packet);
        }
    }

    /// When `poll` is wanted next; `None`: not before something happens.
    pub fn due(&mut self, now: Instant) -> Option<Instant> {
        match &mut self.kind {
            Kind::Tcp(stack) => stack.due(now),
            Kind::Udp(udp) => (!udp.waiting.is_empty()).then_some(now),
        }
    }

    fn is_ours(&self, packet: &Ipv4<'_>) -> bool {
        let protocol = match &self.kind {
            Kind::Tcp(_) => packet::TCP,
            Kind::Udp(_) => packet::UDP,
        };
        // Only a whole packet and a first fragment show their ports; the others say nothing without it.
        let ports = packet.offset > 0 || packet::ports(packet).is_some_and(|(source, _)| source == self.asset.port());
        packet.source == *self.asset.ip() && packet.destination == self.address && packet.protocol == protocol && ports
    }

    fn deny(&mut self, bytes: &[u8]) {
        let source = bytes.get(12..16).and_then(|octets| <[u8; 4]>::try_from(octets).ok());
        let spoofed = bytes.first().is_none_or(|first| first >> 4 != 4)
            || source.is_none_or(|octets| Ipv4Addr::from(octets) != *self.asset.ip());
        let count = if spoofed { &mut self.counters.spoofed_packets } else { &mut self.counters.denied_packets };
        *count += 1;
    }

    fn take_whole(&mut self, bytes: &[u8], packet: &Ipv4<'_>, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        match &mut self.kind {
            Kind::Tcp(stack) => {
                let (_, to) = packet::ports(packet)?;
                stack.take(bytes, to, now);
                None
            }
            Kind::Udp(udp) => {
                let datagram = packet::datagram(packet).filter(|datagram| datagram.source_port == self.asset.port())?;
                let local = udp.flows.arrives(datagram.destination_port, now)?;
                Some((local, datagram.payload.to_vec()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGINEER: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 5);
    const ASSET: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 9);
    const NOW: Instant = Instant::ZERO;

    fn inner(protocol: Protocol) -> Inner {
        Inner::new(ENGINEER, SocketAddrV4::new(ASSET, 7), protocol, 1420, 1, NOW)
    }

    fn answer(source: Ipv4Addr, destination: Ipv4Addr, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
        let datagram = Datagram { source_port: from, destination_port: to, payload };
        let payload = packet::write_udp(source, destination, datagram).expect("it fits");
        let whole = Ipv4 {
            source,
            destination,
            protocol: packet::UDP,
            id: 1,
            more_fragments: false,
            offset: 0,
            payload: &payload,
        };
        packet::write(whole)
    }

    fn local(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn answers_find_the_program_that_asked() {
        let mut inner = inner(Protocol::Udp);
        let mut ports = Vec::new();
        for asker in [1000, 2000] {
            inner.send(local(asker), b"question", NOW);
            let bytes = inner.packet().expect("a packet");
            let packet = packet::parse(&bytes).expect("IPv4");
            let datagram = packet::datagram(&packet).expect("UDP");
            assert_eq!((packet.source, packet.destination), (ENGINEER, ASSET));
            assert_eq!((datagram.destination_port, datagram.payload), (7, &b"question"[..]));
            ports.push(datagram.source_port);
        }
        for (asker, port) in [(1000, ports[0]), (2000, ports[1])] {
            let taken = inner.take(&answer(ASSET, ENGINEER, 7, port, b"answer"), NOW);
            assert_eq!(taken, Some((local(asker), b"answer".to_vec())));
        }
        assert_eq!((inner.counters().up_packets, inner.counters().down_packets), (2, 2));
    }

    #[test]
    fn only_the_assets_own_port_is_heard_and_only_for_us() {
        let mut inner = inner(Protocol::Udp);
        inner.send(local(1000), b"question", NOW);
        let bytes = inner.packet().expect("a packet");
        let port = packet::parse(&bytes).and_then(|packet| packet::datagram(&packet)).expect("UDP").source_port;
        let other = Ipv4Addr::new(198, 18, 0, 8);
        let mut tcp = answer(ASSET, ENGINEER, 7, port, b"x");
        (tcp[9], tcp[10], tcp[11]) = (packet::TCP, 0, 0);
        let sum = packet::checksum(0, &tcp[..20]);
        tcp[10..12].copy_from_slice(&sum.to_be_bytes());
        for bad in [
            answer(other, ENGINEER, 7, port, b"x"),
            answer(ASSET, other, 7, port, b"x"),
            answer(ASSET, ENGINEER, 8, port, b"x"),
            tcp,
            vec![0x60; 60],
            Vec::new(),
        ] {
            assert_eq!(inner.take(&bad, NOW), None, "{bad:?}");
        }
        let counters = inner.counters();
        assert_eq!((counters.down_packets, counters.denied_packets, counters.spoofed_packets), (0, 3, 3));
        assert_eq!(inner.take(&answer(ASSET, ENGINEER, 7, port ^ 1, b"x"), NOW), None);
    }

    #[test]
    fn long_datagrams_cross_in_fragments_both_ways() {
        let mut inner = inner(Protocol::Udp);
        let long: Vec<u8> = (0..5000).map(|at| at as u8).collect();
        inner.send(local(1000), &long, NOW);
        let mut reassembly = Reassembly::default();
        let mut whole = None;
        while let Some(bytes) = inner.packet() {
            assert!(bytes.len() <= MTU);
            whole = reassembly.take(&packet::parse(&bytes).expect("IPv4"), NOW);
        }
        let payload = whole.expect("a datagram");
        let port = u16::from_be_bytes([payload[0], payload[1]]);
        assert_eq!(&payload[8..], long);
        let back = answer(ASSET, ENGINEER, 7, port, &long);
        let pieces: Vec<Vec<u8>> = packet::fragments(packet::parse(&back).expect("IPv4"), 1420).collect();
        assert!(pieces.len() > 1);
        let taken: Vec<_> = pieces.iter().filter_map(|piece| inner.take(piece, NOW)).collect();
        assert_eq!(taken, [(local(1000), long)]);
    }
}
