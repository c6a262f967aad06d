//! What a hostile asset, or a gateway that lets everything pass, could send: for fuzzing.
//!
//! Whatever comes, nothing panics, nothing loops for ever, and memory stays within its bounds.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::time::{Duration, Instant};
use thinlane_model::Protocol;
use thinlane_packet::sample::Reach;

use crate::inner::Inner;
use crate::packet::{self, Datagram, Ipv4, TCP, UDP};
use crate::stack::{End, Id};

const ENGINEER: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 5);
const ASSET: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 9), 502);
/// Packets that one poll may make: each connection's buffers in the smallest segments, and then some.
const MOST_PACKETS: usize = 20_000;

/// Reads `bytes` as a story of packets, local acts and passing time.
pub fn fuzz_inner(bytes: &[u8], reach: Reach<'_>) {
    let protocol = if bytes.first().is_some_and(|byte| byte & 1 == 1) { Protocol::Udp } else { Protocol::Tcp };
    let mut story = Story {
        inner: Inner::new(ENGINEER, ASSET, protocol, 1420, 1, Instant::ZERO),
        now: Instant::from_secs(1),
        rest: bytes.get(1..).unwrap_or_default(),
        ids: Vec::new(),
        seen: BTreeMap::new(),
        reach,
    };
    // More steps than this are another story.
    for _ in 0..400 {
        let Some(act) = story.byte() else { break };
        story.act(act);
        story.settle();
    }
}

/// What the asset knows of one of our ports.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// The next byte that it expects of us.
    next: u32,
    /// What we acknowledged last.
    ack: u32,
}

struct Story<'a> {
    inner: Inner,
    now: Instant,
    rest: &'a [u8],
    ids: Vec<Id>,
    seen: BTreeMap<u16, Seen>,
    reach: Reach<'a>,
}

impl Story<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn short(&mut self) -> u16 {
        u16::from_be_bytes([self.byte().unwrap_or(0), self.byte().unwrap_or(0)])
    }

    fn part(&mut self, length: usize) -> Vec<u8> {
        let (part, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        part.to_vec()
    }

    fn act(&mut self, act: u8) {
        match act % 12 {
            0 | 1 => self.connect(),
            2..=5 => self.segment(),
            6 => {
                let length = usize::from(self.short() % 1500);
                let raw = self.part(length);
                self.inner.take(&raw, self.now);
            }
            7 => self.piece(),
            8 => {
                // From a millisecond to ten minutes.
                let pause = u64::from(self.short());
                self.now += Duration::from_millis(1 + pause * pause / 7000);
            }
            9 => {
                let length = usize::from(self.short() % 3000);
                let part = self.part(length);
                self.inner.send(([127, 0, 0, 1], u16::from(act) * 200).into(), &part, self.now);
                self.datagram(&part);
            }
            _ => self.local(),
        }
    }

    fn connect(&mut self) {
        let now = self.now;
        if let Some(Ok(id)) = self.inner.tcp().map(|stack| stack.connect(now)) {
            self.ids.push(id);
        }
    }

    /// What a local program does to one of its connections.
    fn local(&mut self) {
        let (what, which) = (self.byte().unwrap_or(0), self.byte().unwrap_or(0));
        let count = usize::from(self.short());
        let Some(id) = self.ids.get(usize::from(which) % self.ids.len().max(1)).copied() else { return };
        let Some(stack) = self.inner.tcp() else { return };
        match what % 6 {
            0 => {
                stack.write(id, |room| (count.min(room.len()), ()));
            }
            1 => {
                stack.read(id, |bytes| (count.min(bytes.len()), ()));
            }
            2 => stack.finish(id),
            3 => stack.abort(id),
            4 => stack.forget(id),
            _ => stack.await_change(id, true, true),
        }
        let pulse = stack.pulse(id);
        assert!(!(pulse.finished && pulse.readable), "finished before its last byte");
        stack.awake(|_| {});
        if pulse.readable {
            (self.reach)("bytes for the local program");
        }
        match pulse.end {
            Some(End::Finished) => (self.reach)("finished by both ends"),
            Some(End::Silent) => (self.reach)("given up after silence"),
            _ => {}
        }
    }

    /// A TCP segment that is near to what would be right.
    fn segment(&mut self) {
        let (which, flags) = (usize::from(self.byte().unwrap_or(0)), self.byte().unwrap_or(0));
        let (seq, ack) = (self.near(), self.near());
        let (window, options, length) =
            (self.short(), usize::from(self.byte().unwrap_or(0) % 11) * 4, self.short() % 1400);
        let ports: Vec<u16> = self.seen.keys().copied().collect();
        let port = ports.get(which % ports.len().max(1)).copied().unwrap_or(50_000);
        let seen = self.seen.get(&port).copied().unwrap_or_default();
        let options = self.part(options);
        let mut tcp = Vec::new();
        tcp.extend(ASSET.port().to_be_bytes());
        tcp.extend(port.to_be_bytes());
        tcp.extend(seen.ack.wrapping_add(seq).to_be_bytes());
        tcp.extend(seen.next.wrapping_add(ack).to_be_bytes());
        let padded = options.len().next_multiple_of(4);
        tcp.extend([((20 + padded) / 4 * 16) as u8, flags]);
        tcp.extend(window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(&options);
        tcp.resize(20 + padded + usize::from(length), 0x2a);
        let sum = packet::checksum(packet::pseudo_header(*ASSET.ip(), ENGINEER, TCP, tcp.len()), &tcp);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        self.deliver(TCP, false, 0, &tcp);
    }

    /// Mostly nothing, sometimes a little, sometimes anything.
    fn near(&mut self) -> u32 {
        match self.byte().unwrap_or(0) {
            0..=150 => 0,
            151..=200 => u32::from(self.short()),
            201..=240 => u32::from(self.short()).wrapping_neg(),
            _ => u32::from(self.short()) << 16,
        }
    }

    /// A fragment, or a packet of another protocol; one may begin a datagram to a port that we used.
    fn piece(&mut self) {
        let protocol = [TCP, UDP, 1, 200][usize::from(self.byte().unwrap_or(0) % 4)];
        let (flags, offset) = (self.byte().unwrap_or(0), usize::from(self.short() % 8190) * 8);
        let length = usize::from(self.short() % 1400) / 8 * 8;
        let mut payload = self.part(length);
        if let Some(header) = payload.first_chunk_mut::<8>().filter(|_| flags & 2 == 2) {
            let port = self.seen.keys().next().copied().unwrap_or_default();
            let whole = self.short();
            let words = [ASSET.port(), port, whole, 0].map(u16::to_be_bytes);
            *header = std::array::from_fn(|at| words[at / 2][at % 2]);
        }
        self.deliver(protocol, flags & 1 == 1, offset, &payload);
    }

    /// An answer to every port that we used.
    fn datagram(&mut self, payload: &[u8]) {
        let ports: Vec<u16> = self.seen.keys().copied().collect();
        for port in ports.into_iter().take(4) {
            let datagram = Datagram { source_port: ASSET.port(), destination_port: port, payload };
            if let Some(udp) = packet::write_udp(*ASSET.ip(), ENGINEER, datagram) {
                self.deliver(UDP, false, 0, &udp);
            }
        }
    }

    fn deliver(&mut self, protocol: u8, more_fragments: bool, offset: usize, payload: &[u8]) {
        let whole = Ipv4 {
            source: *ASSET.ip(),
            destination: ENGINEER,
            protocol,
            id: 1,
            more_fragments,
            offset: offset.min(65_000),
            payload,
        };
        let bytes = packet::write(whole);
        if self.inner.take(&bytes, self.now).is_some() {
            (self.reach)("a datagram for its local program");
            if offset > 0 {
                (self.reach)("a datagram put together");
            }
        }
    }

    /// Lets everything leave that wants to, and learns from it.
    fn settle(&mut self) {
        let mut made = 0;
        loop {
            self.inner.poll(self.now);
            let before = made;
            while let Some(bytes) = self.inner.packet() {
                made += 1;
                self.learn(&bytes);
                self.inner.recycle(bytes);
            }
            if made == before {
                break;
            }
            assert!(made < MOST_PACKETS, "it never stops sending");
        }
        let _ = self.inner.due(self.now);
    }

    fn learn(&mut self, bytes: &[u8]) {
        let packet = packet::parse(bytes).expect("what leaves is a packet");
        assert!(bytes.len() <= crate::inner::MTU && packet.source == ENGINEER && packet.destination == *ASSET.ip());
        let Some((port, to)) = packet::ports(&packet).filter(|_| packet.offset == 0) else { return };
        assert_eq!(to, ASSET.port(), "it leaves for another port");
        let word =
            |at: usize| packet.payload.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_be_bytes);
        if let (TCP, Some(seq), Some(ack)) = (packet.protocol, word(4), word(8)) {
            let header = usize::from(packet.payload[12] >> 4) * 4;
            let flags = u32::from(packet.payload[13]);
            let length = (packet.payload.len() - header) as u32 + (flags & 1) + (flags >> 1 & 1);
            self.seen.insert(port, Seen { next: seq.wrapping_add(length), ack });
        } else {
            self.seen.insert(port, Seen::default());
        }
        if self.seen.len() > 64 {
            self.seen.pop_first();
        }
    }
}

/// A whole connection, from the first packet to the last, and a datagram with its answer.
pub fn fuzz_seeds() -> Vec<Vec<u8>> {
    // connect; SYN|ACK with MSS and window scale; data; local write, read, finish; FIN|ACK; time.
    let segment = |flags: u8, options: &[u8], length: u16| {
        let mut act = vec![2, 0, flags, 0, 0, 0x40, 0, (options.len() / 4) as u8];
        act.extend(length.to_be_bytes());
        act.extend(options);
        act
    };
    let syn_ack = segment(0x12, &[2, 4, 5, 0xb4, 1, 3, 3, 7], 0);
    let data = segment(0x18, &[], 700);
    let ack = segment(0x10, &[], 0);
    let fin = segment(0x11, &[], 0);
    let reset = segment(0x04, &[], 0);
    let local = |what: u8, count: u16| [&[10, what, 0][..], &count.to_be_bytes()].concat();
    let time = |short: u16| [&[8][..], &short.to_be_bytes()].concat();
    let tcp = [
        vec![0, 0],
        syn_ack.clone(),
        data.clone(),
        local(0, 5000),
        ack.clone(),
        local(1, 300),
        time(1000),
        data.clone(),
        local(2, 0),
        fin,
        time(60_000),
        local(4, 0),
    ];
    let broken = [vec![0, 0, 1], syn_ack, local(0, 60_000), ack, time(3000), reset, data, local(4, 0), time(65_000)];
    let udp = vec![1, 9, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 7, 1, 1, 0, 0, 0, 16, 1, 246, 192, 0, 0, 12];
    // A question; the answer in two pieces.
    let pieces =
        [&[1, 9, 0, 4, 1, 2, 3, 4][..], &[7, 1, 3, 0, 0, 0, 16], &[7; 16], &[0, 24, 7, 1, 0, 0, 2, 0, 8], &[8; 8]];
    vec![tcp.concat(), broken.concat(), udp, pieces.concat()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_reach_an_open_connection_and_its_end() {
        let seeds = fuzz_seeds();
        for seed in &seeds {
            fuzz_inner(seed, &mut |_| {});
        }
        // The first one up to its data: the connection must be open by then, or it tests nothing.
        let mut story = Story {
            inner: Inner::new(ENGINEER, ASSET, Protocol::Tcp, 1420, 1, Instant::ZERO),
            now: Instant::from_secs(1),
            rest: &seeds[0][1..],
            ids: Vec::new(),
            seen: BTreeMap::new(),
            reach: &mut |_| {},
        };
        for _ in 0..3 {
            let act = story.byte().expect("an act");
            story.act(act);
            story.settle();
        }
        let id = story.ids[0];
        let pulse = story.inner.tcp().expect("TCP").pulse(id);
        assert!(pulse.readable && pulse.writable, "{pulse:?}");
    }
}
