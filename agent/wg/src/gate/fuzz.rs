//! A gate under arbitrary packets, for fuzzing.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use thinlane_model::{Boot, PacketVerdict, Protocol, Span, Tuple};

use super::{Gate, Load, Reset};
use crate::device::Direction;
use crate::packet::sample::{Reach, mend, naive_checksum, naive_transport};
use crate::packet::{self, flag, number};

const ENGINEER: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
const ASSET: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const PORT: u16 = 2404;
const DEADLINE: Boot = Boot(400_000);

/// What an onlooker who knows nothing of sequence numbers would let pass.
#[derive(Default)]
struct Onlooker {
    /// The engineer's ports from which something passed.
    opened: BTreeSet<u16>,
    /// Direction and id of first fragments that passed.
    begun: BTreeSet<(bool, u16)>,
    passed: u64,
}

/// Whatever the bytes are, a gate neither panics nor lets pass what is not its tuple, nor an answer without a question;
/// and what it writes itself is a right reset between the right ends.
///
/// The first byte says the protocol; the rest is a list of {how (1), time (1), length (1), content}. Bits of `how`: the
/// way (1); lengths and checksums are mended (2); the packet answers the last one, its flags changed by the content (4);
/// both of the upper two: the gate is shut (0xc0).
pub fn fuzz_gate(bytes: &[u8], reach: Reach<'_>) {
    let Some((steer, mut bytes)) = bytes.split_first() else { return };
    let protocol = if steer & 1 == 0 { Protocol::Tcp } else { Protocol::Udp };
    let tuple =
        Tuple { engineer: ENGINEER, destination: ASSET, address: Ipv4Addr::new(192, 168, 1, 10), protocol, port: PORT };
    let mut gate = Gate::new(tuple, DEADLINE);
    let (mut now, mut last, mut onlooker) = (Boot(0), Vec::new(), Onlooker::default());
    while let Some(([how, time, length], rest)) = bytes.split_first_chunk() {
        let (content, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        bytes = rest;
        // Up to a minute, mostly little.
        now = now + Span::from_millis(u64::from(*time) * u64::from(*time));
        if how & 0xc0 == 0xc0 {
            gate.shut();
        }
        let way = if how & 1 == 0 { Direction::Up } else { Direction::Down };
        let mut packet = if how & 4 == 0 { content.to_vec() } else { turned(&last, content) };
        if how & 6 != 0 {
            mend(&mut packet);
        }
        let verdict = gate.judge(way, &packet, Load::of(&packet), now);
        match verdict {
            PacketVerdict::Pass => {
                assert!(now < DEADLINE && how & 0xc0 != 0xc0, "it passed after the end");
                onlooker.sees(&tuple, way, &packet, reach);
            }
            PacketVerdict::Late => reach("late"),
            PacketVerdict::Denied | PacketVerdict::Spoofed => {}
        }
        if let Some(reset) = gate.answer(way, &packet, verdict, now) {
            reach("denied or late, and answered");
            check(&reset, &tuple);
        }
        last = packet;
    }
    let counters = gate.counters();
    assert_eq!(counters.up_packets + counters.down_packets, onlooker.passed);
    for reset in gate.resets() {
        reach("reset at the end");
        check(&reset, &tuple);
    }
}

impl Onlooker {
    fn sees(&mut self, tuple: &Tuple, way: Direction, bytes: &[u8], reach: Reach<'_>) {
        let up = way == Direction::Up;
        let ip = packet::parse_ipv4(bytes).expect("what passes is well formed");
        self.passed += 1;
        if ip.protocol == number::ICMP {
            let to = if up { tuple.destination } else { tuple.engineer };
            let error = ip.icmp_error().expect("only errors pass");
            let port = if up { error.destination_port } else { error.source_port };
            assert_eq!(ip.destination, to);
            assert!(self.opened.contains(&port), "an error about nothing");
            reach("an ICMP error passes");
            return;
        }
        let ends = if up { (ENGINEER, ASSET) } else { (ASSET, ENGINEER) };
        assert_eq!((ip.source, ip.destination, ip.protocol), (ends.0, ends.1, tuple.protocol.number()));
        if ip.offset > 0 {
            assert!(self.begun.contains(&(up, ip.id)), "a later fragment without its first");
            reach("a later fragment passes");
            return;
        }
        let port = |at: usize| u16::from_be_bytes([ip.payload[at], ip.payload[at + 1]]);
        let (engineers, assets) = if up { (port(0), port(2)) } else { (port(2), port(0)) };
        assert_eq!(assets, PORT);
        if up {
            self.opened.insert(engineers);
            reach("a question passes");
        } else {
            assert!(self.opened.contains(&engineers), "an answer without a question");
            reach("an answer passes");
        }
        if ip.more_fragments {
            self.begun.insert((up, ip.id));
        }
    }
}

/// What would answer a packet: ends and, of TCP, both numbers exchanged.
fn turned(packet: &[u8], change: &[u8]) -> Vec<u8> {
    let mut turned = packet.to_vec();
    if let Some(ends) = turned.get_mut(12..24) {
        let [a, b, c] = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]].map(|at| at.map(|at| ends[at]));
        ends[..4].copy_from_slice(&b);
        ends[4..8].copy_from_slice(&a);
        ends[8..].copy_from_slice(&[c[2], c[3], c[0], c[1]]);
    }
    if let Some(numbers) = turned.get_mut(24..34).filter(|_| packet.get(9) == Some(&number::TCP)) {
        numbers[..8].rotate_left(4);
        numbers[9] ^= change.first().copied().unwrap_or(flag::ACK);
    }
    turned
}

fn check(reset: &Reset, tuple: &Tuple) {
    let bytes = match reset {
        Reset::ToEngineer(bytes) => bytes,
        Reset::ToAsset(bytes) => {
            assert_eq!((&bytes[12..16], &bytes[16..20]), (&ENGINEER.octets()[..], &tuple.destination.octets()[..]));
            assert_eq!(bytes[22..24], tuple.port.to_be_bytes());
            bytes
        }
    };
    let address = |at: usize| Ipv4Addr::from([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (source, destination) = (address(12), address(16));
    assert!(matches!(reset, Reset::ToAsset(_)) || destination == ENGINEER);
    assert!(bytes[33] & flag::RST != 0 && naive_checksum(&bytes[..20]) == 0);
    assert_eq!(naive_transport(source, destination, number::TCP, &bytes[20..]), 0, "its checksum is wrong");
}
