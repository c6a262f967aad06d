//! What is expected of `gate`, as tests.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use proptest::prelude::*;
use thinlane_model::{PacketVerdict::*, Span};

use super::*;
use crate::packet::sample::{icmp, ipv4, tcp, udp};

const ME: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
const ASSET: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 10);
const PORT: u16 = 2404;
const END: Boot = Boot(1_000_000);
const NOW: Boot = Boot(1000);

fn tuple(protocol: Protocol) -> Tuple {
    Tuple { engineer: ME, destination: ASSET, address: LAN, protocol, port: PORT }
}

fn gate(protocol: Protocol) -> Gate {
    Gate::new(tuple(protocol), END)
}

fn up(port: u16, flags: u8) -> Vec<u8> {
    tcp((ME, port), (ASSET, PORT), 100, 0, flags, b"")
}

fn down(port: u16, flags: u8) -> Vec<u8> {
    tcp((ASSET, PORT), (ME, port), 500, 101, flags, b"")
}

#[test]
fn the_tuple_passes_and_is_counted_by_inner_length() {
    let mut gate = gate(Protocol::Tcp);
    assert_eq!(gate.up(&up(40_000, flag::SYN), NOW), Pass);
    assert_eq!(gate.down(&down(40_000, flag::SYN | flag::ACK), NOW), Pass);
    let data = tcp((ME, 40_000), (ASSET, PORT), 101, 501, flag::ACK, b"abc");
    assert_eq!(gate.up(&data, NOW), Pass);
    let wanted = Counters { up_packets: 2, up_bytes: 83, down_packets: 1, down_bytes: 40, ..Counters::default() };
    assert_eq!(gate.counters(), wanted);
    assert_eq!(gate.last_passed(), Some(NOW));
}

#[test]
fn one_field_off_is_denied_and_another_source_is_spoofed() {
    let mut gate = gate(Protocol::Tcp);
    let other = Ipv4Addr::new(198, 18, 0, 2);
    assert_eq!(gate.up(&tcp((ME, 1), (ASSET, PORT + 1), 0, 0, flag::SYN, b""), NOW), Denied);
    assert_eq!(gate.up(&tcp((ME, 1), (other, PORT), 0, 0, flag::SYN, b""), NOW), Denied);
    assert_eq!(gate.up(&tcp((ME, 1), (LAN, PORT), 0, 0, flag::SYN, b""), NOW), Denied);
    assert_eq!(gate.up(&udp((ME, 1), (ASSET, PORT), b""), NOW), Denied);
    assert_eq!(gate.up(&tcp((other, 1), (ASSET, PORT), 0, 0, flag::SYN, b""), NOW), Spoofed);
    let ipv6: Vec<u8> = [&[0x60, 0, 0, 0, 0, 0, 6, 64][..], &[1; 32]].concat();
    assert_eq!(gate.up(&ipv6, NOW), Spoofed);
    assert_eq!(gate.up(&[], NOW), Spoofed);
    let counters = gate.counters();
    assert_eq!((counters.denied_packets, counters.spoofed_packets, counters.up_packets), (4, 3, 0));
    let (denied, unlisted) = gate.drain_denied();
    assert_eq!(denied.iter().map(|flow| flow.packets).sum::<u64>() + unlisted, 7);
    assert_eq!(gate.drain_denied(), (vec![], 0));
}

#[test]
fn only_answers_come_down() {
    let mut gate = gate(Protocol::Tcp);
    assert_eq!(gate.down(&down(40_000, flag::ACK), NOW), Denied);
    assert_eq!(gate.up(&up(40_000, flag::SYN), NOW), Pass);
    assert_eq!(gate.down(&down(40_001, flag::SYN | flag::ACK), NOW), Denied);
    assert_eq!(gate.down(&down(40_000, flag::SYN), NOW), Denied, "the device may not open, on a known port either");
    assert_eq!(gate.down(&tcp((ASSET, PORT + 1), (ME, 40_000), 0, 0, flag::ACK, b""), NOW), Denied);
    assert_eq!(gate.down(&tcp((LAN, PORT), (ME, 40_000), 0, 0, flag::ACK, b""), NOW), Denied);
    assert_eq!(gate.down(&down(40_000, flag::SYN | flag::ACK), NOW), Pass);
}

#[test]
fn a_udp_flow_is_answered_until_it_has_been_idle() {
    let mut gate = gate(Protocol::Udp);
    let (question, answer) = (udp((ME, 9000), (ASSET, PORT), b"?"), udp((ASSET, PORT), (ME, 9000), b"!"));
    assert_eq!(gate.down(&answer, NOW), Denied);
    assert_eq!(gate.up(&question, NOW), Pass);
    assert_eq!(gate.down(&answer, NOW + Span::from_secs(179)), Pass);
    assert_eq!(gate.down(&answer, NOW + Span::from_secs(179 + 180)), Denied);
}

#[test]
fn nothing_passes_from_the_deadline_on() {
    let mut gate = gate(Protocol::Tcp);
    assert_eq!(gate.up(&up(1, flag::SYN), Boot(END.0 - 1)), Pass);
    assert_eq!(gate.up(&up(1, flag::ACK), END), Late);
    assert_eq!(gate.down(&down(1, flag::ACK), END), Late);
    assert!(!gate.extend(Boot(END.0 + 1000), END), "what has ended is not extended");
    assert_eq!((gate.late(), gate.counters().up_packets), (2, 1));
}

#[test]
fn an_extension_moves_the_deadline_either_way() {
    let mut gate = gate(Protocol::Tcp);
    assert!(gate.extend(Boot(END.0 + 1000), NOW));
    assert_eq!(gate.up(&up(1, flag::SYN), END), Pass);
    assert!(gate.extend(Boot(END.0 + 10), END));
    assert_eq!(gate.up(&up(1, flag::ACK), Boot(END.0 + 10)), Late);
}

#[test]
fn a_shut_gate_stays_shut() {
    let mut gate = gate(Protocol::Tcp);
    gate.shut();
    assert_eq!(gate.up(&up(1, flag::SYN), NOW), Late);
    assert!(!gate.extend(Boot(END.0 + 1000), NOW));
    assert_eq!(gate.up(&up(1, flag::SYN), NOW), Late);
}

#[test]
fn both_ends_of_an_open_connection_are_reset_where_they_are() {
    let mut gate = gate(Protocol::Tcp);
    assert_eq!(gate.up(&tcp((ME, 5), (ASSET, PORT), 100, 0, flag::SYN, b""), NOW), Pass);
    assert_eq!(gate.down(&tcp((ASSET, PORT), (ME, 5), 500, 101, flag::SYN | flag::ACK, b""), NOW), Pass);
    assert_eq!(gate.up(&tcp((ME, 5), (ASSET, PORT), 101, 501, flag::ACK, b"four"), NOW), Pass);
    assert_eq!(gate.down(&tcp((ASSET, PORT), (ME, 5), 501, 105, flag::ACK, b"answer"), NOW), Pass);
    let mut seqs = BTreeSet::new();
    for reset in gate.resets() {
        let (to_engineer, bytes) = match reset {
            Reset::ToEngineer(bytes) => (true, bytes),
            Reset::ToAsset(bytes) => (false, bytes),
        };
        let ip = packet::parse_ipv4(&bytes).expect("a good packet");
        let tcp = ip.tcp().expect("a good segment");
        assert!(tcp.has(flag::RST));
        let ends = ((ip.source, tcp.source_port), (ip.destination, tcp.destination_port));
        assert_eq!(ends, if to_engineer { ((ASSET, PORT), (ME, 5)) } else { ((ME, 5), (ASSET, PORT)) });
        seqs.insert((to_engineer, tcp.seq));
    }
    // The engineer acknowledged 501 and may have got all up to 507; the asset acknowledged all 105.
    assert_eq!(seqs, BTreeSet::from([(true, 501), (true, 507), (false, 105)]));
}

#[test]
fn a_closed_connection_is_not_reset() {
    let mut gate = gate(Protocol::Tcp);
    for port in [1, 2, 3] {
        assert_eq!(gate.up(&up(port, flag::SYN), NOW), Pass);
        assert_eq!(gate.down(&down(port, flag::SYN | flag::ACK), NOW), Pass);
    }
    assert_eq!(gate.up(&up(1, flag::RST), NOW), Pass);
    assert_eq!(gate.up(&up(2, flag::FIN | flag::ACK), NOW), Pass);
    assert_eq!(gate.down(&down(2, flag::FIN | flag::ACK), NOW), Pass);
    let ports: BTreeSet<u16> = gate
        .resets()
        .iter()
        .filter_map(|reset| match reset {
            Reset::ToEngineer(bytes) => packet::parse_ipv4(bytes).ok()?.destination_port(),
            Reset::ToAsset(_) => None,
        })
        .collect();
    assert_eq!(ports, BTreeSet::from([3]));
    assert_eq!(gate.down(&down(1, flag::ACK), NOW + Span::from_secs(10)), Denied, "a closed flow is over");
}

#[test]
fn an_asset_that_has_not_answered_is_reset_all_the_same() {
    let mut gate = gate(Protocol::Tcp);
    assert_eq!(gate.up(&up(1, flag::SYN), NOW), Pass);
    let resets = gate.resets();
    assert!(resets.iter().any(|reset| matches!(reset, Reset::ToAsset(bytes) if bytes[24..28] == 101u32.to_be_bytes())));
    assert!(
        resets.iter().any(|reset| matches!(reset, Reset::ToEngineer(bytes) if bytes[28..32] == 101u32.to_be_bytes()))
    );
}

#[test]
fn a_thousand_ports_do_not_grow_the_table_or_push_out_what_is_open() {
    let mut gate = gate(Protocol::Tcp);
    assert_eq!(gate.up(&up(7, flag::SYN), NOW), Pass);
    assert_eq!(gate.down(&down(7, flag::SYN | flag::ACK), NOW), Pass);
    for port in 1000..9000 {
        assert_eq!(gate.up(&up(port, flag::SYN), NOW + Span::from_millis(port.into())), Pass);
    }
    assert!(gate.resets().len() <= 512 * 4);
    assert_eq!(gate.down(&down(7, flag::ACK), NOW + Span::from_secs(20)), Pass);
    assert_eq!(gate.down(&down(1000, flag::ACK), NOW + Span::from_secs(20)), Denied);
}

#[test]
fn icmp_errors_pass_for_the_lanes_own_flow_only_and_few() {
    let mut gate = gate(Protocol::Udp);
    let question = udp((ME, 9000), (ASSET, PORT), b"?");
    let router = Ipv4Addr::new(192, 168, 1, 1);
    assert_eq!(gate.down(&icmp(router, ME, 3, &question), NOW), Denied, "before there is a flow");
    assert_eq!(gate.up(&question, NOW), Pass);
    assert_eq!(gate.down(&icmp(router, ME, 3, &question), NOW), Pass);
    for inner in [
        udp((ME, 9001), (ASSET, PORT), b"?"),
        udp((ME, 9000), (ASSET, PORT + 1), b"?"),
        udp((ME, 9000), (LAN, PORT), b"?"),
        udp((ASSET, PORT), (ME, 9000), b"?"),
        tcp((ME, 9000), (ASSET, PORT), 0, 0, 0, b""),
    ] {
        assert_eq!(gate.down(&icmp(router, ME, 3, &inner), NOW), Denied);
    }
    assert_eq!(gate.down(&icmp(router, ME, 5, &question), NOW), Denied, "a redirect");
    assert_eq!(gate.down(&icmp(router, ASSET, 3, &question), NOW), Denied);
    assert_eq!(gate.up(&icmp(ME, ASSET, 8, &question), NOW), Denied, "an echo request");
    let answer = udp((ASSET, PORT), (ME, 9000), b"!");
    assert_eq!(gate.up(&icmp(ME, ASSET, 3, &answer), NOW), Pass);
    let passed = (0..100).filter(|_| gate.down(&icmp(router, ME, 3, &question), NOW) == Pass).count();
    assert!(passed < 10, "{passed}");
}

#[test]
fn later_fragments_pass_behind_a_first_one_that_did() {
    let mut gate = gate(Protocol::Udp);
    let header = [0x23, 0x28, 0x09, 0x64, 0, 100, 0, 0];
    let first: Vec<u8> = [&header[..], &[1; 24]].concat();
    let later = |id, offset: u16| ipv4(ME, ASSET, 17, id, offset, &[2; 16]);
    assert_eq!(gate.up(&later(9, 4), NOW), Denied, "before the first one");
    assert_eq!(gate.up(&ipv4(ME, ASSET, 17, 9, 0x2000, &first), NOW), Pass);
    assert_eq!(gate.up(&later(9, 4), NOW), Pass);
    assert_eq!(gate.up(&later(9, 0x2000 | 6), NOW), Pass);
    for offset in 1..4 {
        assert_eq!(gate.up(&later(9, offset), NOW), Denied, "over the first one's bytes");
    }
    assert_eq!(gate.up(&later(10, 4), NOW), Denied, "another packet");
    assert_eq!(gate.up(&ipv4(ME, ASSET, 6, 9, 4, &[2; 16]), NOW), Denied, "another protocol");
    assert_eq!(gate.up(&ipv4(ME, LAN, 17, 9, 4, &[2; 16]), NOW), Denied, "another host");
    assert_eq!(gate.up(&ipv4(ME, ASSET, 17, 9, 0x2000, &first[..16]), NOW), Denied, "a shorter first one");
    assert_eq!(gate.down(&ipv4(ASSET, ME, 17, 9, 4, &[2; 16]), NOW), Denied, "the other way");
    assert_eq!(gate.up(&later(9, 4), NOW + Span::from_secs(30)), Denied, "too late");
}

#[test]
fn a_first_fragment_of_another_port_opens_nothing_for_later_ones() {
    let mut gate = gate(Protocol::Tcp);
    let mut first = vec![0; 24];
    first[2..4].copy_from_slice(&22u16.to_be_bytes());
    first[12] = 5 << 4;
    assert_eq!(gate.up(&ipv4(ME, ASSET, 6, 9, 0x2000, &first), NOW), Denied);
    assert_eq!(gate.up(&ipv4(ME, ASSET, 6, 9, 3, &[0; 8]), NOW), Denied);
}

#[test]
fn a_fragment_that_is_denied_opens_no_flow() {
    let mut gate = gate(Protocol::Udp);
    let first =
        |port: u16, more: usize| [&port.to_be_bytes()[..], &[0x09, 0x64, 0, 100, 0, 0], &vec![1; more]].concat();
    assert_eq!(gate.up(&ipv4(ME, ASSET, 17, 9, 0x2000, &first(9000, 24)), NOW), Pass);
    assert_eq!(gate.up(&ipv4(ME, ASSET, 17, 9, 0x2000, &first(9001, 16)), NOW), Denied, "of another length");
    assert_eq!(gate.down(&udp((ASSET, PORT), (ME, 9001), b"!"), NOW), Denied);
    assert_eq!(gate.down(&udp((ASSET, PORT), (ME, 9000), b"!"), NOW), Pass);
}

#[test]
fn fragments_of_a_thousand_packets_stay_bounded() {
    let mut gate = gate(Protocol::Udp);
    let first: Vec<u8> = [&[0x23, 0x28, 0x09, 0x64, 0, 100, 0, 0][..], &[1; 24]].concat();
    for id in 0..1000 {
        assert_eq!(gate.up(&ipv4(ME, ASSET, 17, id, 0x2000, &first), NOW + Span::from_millis(id.into())), Pass);
    }
    let known =
        (0..1000).filter(|id| gate.up(&ipv4(ME, ASSET, 17, *id, 4, &[2; 16]), NOW + Span::from_secs(2)) == Pass);
    assert_eq!(known.collect::<Vec<_>>(), (936..1000).collect::<Vec<_>>());
}

#[test]
fn a_denied_connection_is_answered_as_a_closed_port_would_and_not_for_ever() {
    let mut gate = gate(Protocol::Tcp);
    let syn = tcp((ME, 5), (LAN, 22), 77, 0, flag::SYN, b"");
    let verdict = gate.up(&syn, NOW);
    let Some(Reset::ToEngineer(bytes)) = gate.answer(Direction::Up, &syn, verdict, NOW) else { panic!("no answer") };
    let ip = packet::parse_ipv4(&bytes).expect("a good packet");
    let reset = ip.tcp().expect("a good segment");
    assert_eq!((ip.source, reset.source_port, reset.ack, reset.flags), (LAN, 22, 78, flag::RST | flag::ACK));
    let reset = tcp((ME, 5), (LAN, 22), 77, 0, flag::RST, b"");
    assert_eq!(gate.answer(Direction::Up, &reset, Denied, NOW), None, "a reset is never answered");
    assert_eq!(gate.answer(Direction::Up, &syn, Spoofed, NOW), None);
    assert_eq!(gate.answer(Direction::Down, &syn, Denied, NOW), None);
    let answered = (0..100).filter(|_| gate.answer(Direction::Up, &syn, Denied, NOW).is_some()).count();
    assert!(answered < 20, "{answered}");
}

#[test]
fn a_late_segment_lets_its_sender_go() {
    let mut gate = gate(Protocol::Tcp);
    assert_eq!(gate.up(&up(5, flag::SYN), NOW), Pass);
    assert_eq!(gate.down(&down(5, flag::SYN | flag::ACK), NOW), Pass);
    gate.shut();
    let late = down(5, flag::ACK);
    let verdict = gate.down(&late, NOW);
    let Some(Reset::ToAsset(bytes)) = gate.answer(Direction::Down, &late, verdict, NOW) else { panic!("no answer") };
    assert_eq!(bytes[24..28], 101u32.to_be_bytes());
    let stranger = down(6, flag::ACK);
    assert_eq!(gate.answer(Direction::Down, &stranger, Late, NOW), None, "not to what was never opened");
}

/// What the gate may pass at most, in the plainest words: no flows, no fragments.
fn may_pass(tuple: &Tuple, way: Direction, bytes: &[u8], now: Boot) -> bool {
    let Ok(ip) = packet::parse_ipv4(bytes) else { return false };
    let (source, destination) = match way {
        Direction::Up => (tuple.engineer, tuple.destination),
        Direction::Down => (tuple.destination, tuple.engineer),
    };
    let port = |at: usize| ip.payload.get(at..at + 2).map(|port| u16::from_be_bytes([port[0], port[1]]));
    let service = if way == Direction::Up { port(2) } else { port(0) };
    now < END
        && ip.destination == destination
        && (ip.protocol == number::ICMP
            || (ip.source == source
                && ip.protocol == tuple.protocol.number()
                && (ip.offset > 0 || service == Some(tuple.port))))
}

/// Packets around the tuple: every field is right more often than not.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let address = prop_oneof![4 => Just(ME), 4 => Just(ASSET), 1 => Just(LAN)];
    let service = prop_oneof![3 => Just(PORT), 1 => Just(22u16)];
    let port = prop_oneof![4 => service, 3 => 40_000u16..40_003];
    (address.clone(), address, port.clone(), port, any::<u8>(), 0u8..4, 0u16..4, any::<bool>()).prop_map(
        |(source, destination, from, to, flags, kind, offset, more)| match kind {
            0 | 1 => tcp((source, from), (destination, to), 1, 1, flags, b"payload"),
            2 => icmp(source, destination, 3, &tcp((destination, to), (source, from), 1, 1, 0, b"")),
            _ => {
                let fragment = offset | if more { 0x2000 } else { 0 };
                let mut payload = tcp((source, from), (destination, to), 1, 1, flags, b"1234")[20..].to_vec();
                payload.resize(24, 0);
                ipv4(source, destination, 6, offset % 2, fragment, &payload)
            }
        },
    )
}

proptest! {
    #[test]
    fn over_any_sequence_nothing_but_the_tuple_passes_and_every_packet_is_counted_once(
        packets in proptest::collection::vec((packet(), any::<bool>(), 0u64..100_000), 1..60),
    ) {
        let tuple = tuple(Protocol::Tcp);
        let mut gate = Gate::new(tuple, END);
        let mut opened = BTreeSet::new();
        let (mut now, mut bytes_up) = (NOW, 0);
        let (mut passed, mut refused) = (0, 0);
        for (bytes, is_up, later) in &packets {
            now = now + Span::from_millis(*later);
            let way = if *is_up { Direction::Up } else { Direction::Down };
            let verdict = if *is_up { gate.up(bytes, now) } else { gate.down(bytes, now) };
            if verdict != Pass {
                refused += 1;
                continue;
            }
            passed += 1;
            prop_assert!(may_pass(&tuple, way, bytes, now), "{:?} {:?}", way, bytes);
            let ip = packet::parse_ipv4(bytes).expect("what passes is well formed");
            bytes_up += if *is_up { bytes.len() as u64 } else { 0 };
            if let (Ok(tcp), number::TCP) = (ip.tcp(), ip.protocol) {
                if *is_up {
                    opened.insert(tcp.source_port);
                } else {
                    prop_assert!(opened.contains(&tcp.destination_port), "an answer without a question");
                    prop_assert!(!tcp.has(flag::SYN) || tcp.has(flag::ACK));
                }
            }
        }
        let counters = gate.counters();
        prop_assert_eq!(counters.up_packets + counters.down_packets, passed);
        prop_assert_eq!(counters.denied_packets + counters.spoofed_packets + gate.late(), refused);
        prop_assert_eq!(counters.up_bytes, bytes_up);
        let (listed, unlisted) = gate.drain_denied();
        let listed: u64 = listed.iter().map(|flow| flow.packets).sum();
        prop_assert_eq!(listed + unlisted, counters.denied_packets + counters.spoofed_packets);
    }

    #[test]
    fn a_large_packet_counts_and_ends_like_the_segments_it_is_cut_into(
        sizes in proptest::collection::vec(1usize..20, 1..6), late in any::<bool>(), port in prop_oneof![Just(PORT), any::<u16>()],
    ) {
        let (mut at_once, mut one_by_one) = (gate(Protocol::Tcp), gate(Protocol::Tcp));
        for gate in [&mut at_once, &mut one_by_one] {
            prop_assert_eq!(gate.up(&up(40_000, flag::SYN), NOW), Pass);
        }
        let now = if late { END } else { NOW };
        let (mut seq, each) = (500u32, 10usize);
        for size in sizes {
            let from = (ASSET, port);
            let large = tcp(from, (ME, 40_000), seq, 101, flag::ACK, &vec![0; size * each]);
            let load = Load { packets: size as u64, bytes: (size * (40 + each)) as u64 };
            let verdict = at_once.down_many(&large, load, now);
            for at in 0..size {
                let segment = tcp(from, (ME, 40_000), seq + (at * each) as u32, 101, flag::ACK, &vec![0; each]);
                prop_assert_eq!(one_by_one.down(&segment, now), verdict);
            }
            seq += (size * each) as u32;
        }
        prop_assert_eq!(at_once.counters(), one_by_one.counters());
        prop_assert_eq!(at_once.late(), one_by_one.late());
        prop_assert_eq!(at_once.resets(), one_by_one.resets());
        prop_assert_eq!(at_once.drain_denied(), one_by_one.drain_denied());
    }

    #[test]
    fn no_bytes_break_the_gate(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        fuzz_gate(&bytes, &mut |_| {});
    }
}

/// Every bit of every packet of a flow, flipped: what then passes is still the tuple.
#[test]
fn a_flipped_bit_opens_nothing() {
    let good = tcp((ME, 40_000), (ASSET, PORT), 1, 1, flag::ACK, b"payload");
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            let mut gate = gate(Protocol::Tcp);
            if gate.up(&bytes, NOW) == Pass {
                assert!(may_pass(&tuple(Protocol::Tcp), Direction::Up, &bytes, NOW), "bit {bit} of byte {at}");
            }
            fuzz_gate(&[&[0, 0, 1, bytes.len() as u8][..], &bytes].concat(), &mut |_| {});
        }
    }
}
