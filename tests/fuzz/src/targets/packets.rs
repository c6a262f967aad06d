//! The targets that read packets, and what kernels say of them.

use std::net::Ipv4Addr;

use thinlane_wg::packet::sample::{Reach, icmp, ipv4, mend, naive_checksum, naive_transport, tcp, tcp_with, udp};
use thinlane_wg::packet::{self, Ip, flag, number};

use super::{Target, USUAL};

pub(super) const PACKET: Target = Target {
    name: "packet",
    run: read_packet,
    seeds: packets,
    replayed: USUAL,
    deepest: &["tcp", "udp", "an ICMP error", "MSS lowered", "MSS lowered at an odd place"],
};
pub(super) const GATE: Target = Target {
    name: "gate",
    run: thinlane_wg::gate::fuzz_gate,
    seeds: stories,
    replayed: USUAL,
    deepest: &[
        "a question passes",
        "an answer passes",
        "an ICMP error passes",
        "a later fragment passes",
        "late",
        "denied or late, and answered",
        "reset at the end",
    ],
};
pub(super) const HEADER: Target = Target {
    name: "wg-header",
    run: thinlane_wg::offload::fuzz_header,
    seeds: large_packets,
    replayed: USUAL,
    deepest: &["read"],
};
pub(super) const SEGMENT: Target = Target {
    name: "wg-segment",
    run: thinlane_wg::offload::fuzz_segment,
    seeds: large_packets,
    replayed: USUAL,
    deepest: &["checksum completed", "tcp4 cut", "tcp6 cut", "udp4 cut", "udp6 cut"],
};
pub(super) const COALESCE: Target = Target {
    name: "wg-coalesce",
    run: thinlane_wg::offload::fuzz_coalesce,
    seeds: streams,
    replayed: USUAL / 4,
    deepest: &["tcp joined", "udp joined", "as many as there may be"],
};
pub(super) const DEVICE: Target = Target {
    name: "wg-device",
    run: thinlane_wg::fuzz_device,
    seeds: device_input,
    replayed: USUAL / 20,
    deepest: &[
        "a packet reaches the site",
        "a packet comes back",
        "a handshake message with a right MAC1",
        "the peer's own handshake moves the lane",
        "the peer's next keys",
    ],
};
pub(super) const FORWARD: Target = Target {
    name: "forward",
    run: thinlane_forward::fuzz_inner,
    seeds: thinlane_forward::fuzz_seeds,
    replayed: USUAL / 5,
    deepest: &[
        "bytes for the local program",
        "finished by both ends",
        "given up after silence",
        "a datagram for its local program",
        "a datagram put together",
    ],
};
pub(super) const KERNEL_ANSWER: Target = Target {
    name: "kernel-answer",
    run: kernel_answer,
    seeds: kernel_answers,
    replayed: USUAL,
    deepest: &["table", "chain", "set", "elements", "counter", "rule", "flow"],
};

const ME: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 19, 0, 1), 50_000);
const ASSET: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 18, 0, 1), 2404);
/// Of a SYN: padding, so that the MSS stands at an odd place; MSS 1 460; padding.
const ODD_MSS: [u8; 8] = [1, 2, 4, 5, 0xb4, 1, 1, 1];
const MSS: [u8; 4] = [2, 4, 5, 0xb4];

/// A packet is read for what its bytes say. A SYN's MSS is lowered and nothing else changed, and a checksum that was right
/// stays so. The lowest bit of the first byte has lengths and checksums mended before.
fn read_packet(bytes: &[u8], reach: Reach<'_>) {
    const MOST: u16 = 1380;
    let Some((steer, bytes)) = bytes.split_first() else { return };
    let mut before = bytes.to_vec();
    if steer & 1 == 1 {
        mend(&mut before);
    }
    let mut after = before.clone();
    let lowered = packet::clamp_mss(&mut after, MOST);
    let Ok(Ip::V4(ip)) = packet::parse(&before) else {
        assert!(!lowered && after == before);
        return;
    };
    assert_eq!(naive_checksum(&before[..20]), 0);
    assert_eq!(
        (ip.length(), &before[12..16], &before[16..20]),
        (before.len(), &ip.source.octets()[..], &ip.destination.octets()[..])
    );
    match ip.protocol {
        number::TCP if ip.tcp().is_ok() => reach("tcp"),
        number::UDP if ip.udp().is_ok() => reach("udp"),
        number::ICMP if ip.icmp_error().is_ok() => reach("an ICMP error"),
        _ => {}
    }
    if !lowered {
        assert_eq!(after, before);
        return;
    }
    let is_syn = ip.tcp().expect("TCP").has(flag::SYN);
    let right = |bytes: &[u8]| naive_transport(ip.source, ip.destination, number::TCP, &bytes[20..]) == 0;
    assert!(is_syn && (right(&after) || !right(&before)), "a right checksum became wrong");
    let changed = |at: &usize| !(36..38).contains(at) && after[*at] != before[*at];
    let first = (0..before.len()).find(changed).expect("something was lowered");
    // The option's kind and length stand before its value, of which the upper byte may have stayed.
    let at = if after.get(first - 2..first) == Some(&[2, 4]) { first } else { first - 1 };
    assert_eq!((&after[at - 2..at], &after[at..at + 2]), (&[2, 4][..], &MOST.to_be_bytes()[..]));
    assert!((0..before.len()).filter(changed).all(|place| (at..at + 2).contains(&place)));
    reach(if at % 2 == 0 { "MSS lowered" } else { "MSS lowered at an odd place" });
}

fn packets() -> Vec<Vec<u8>> {
    let syn = |options: &[u8]| tcp_with(ME, ASSET, 1, 0, flag::SYN, options, b"");
    let all = [syn(&MSS), syn(&ODD_MSS), udp(ME, ASSET, b"1234"), icmp(ME.0, ASSET.0, 3, &syn(&MSS)), vec![0x60; 48]];
    let steered = |steer: u8| all.iter().map(move |packet| [&[steer][..], packet].concat());
    steered(0).chain(steered(1)).collect()
}

/// What crosses a lane, each packet behind how it comes: a connection, datagrams, fragments, errors, and the end.
fn stories() -> Vec<Vec<u8>> {
    let act = |how: u8, time: u8, content: &[u8]| [&[how, time, content.len() as u8][..], content].concat();
    let syn = tcp_with(ME, ASSET, 1, 0, flag::SYN, &MSS, b"");
    let data = tcp(ME, ASSET, 2, 2, flag::ACK | flag::PSH, b"payload!");
    let piece = |offset: u16, payload: &[u8]| ipv4(ME.0, ASSET.0, number::UDP, 9, offset, payload);
    let other = tcp(ME, (ASSET.0, 22), 1, 0, flag::SYN, b"");
    let tcp_story = [
        vec![0],
        act(0, 0, &syn),
        // SYN becomes SYN|ACK; then data and its acknowledgement.
        act(5, 1, &[flag::ACK]),
        act(2, 1, &data),
        act(5, 1, &[flag::PSH]),
        act(3, 1, &icmp(ASSET.0, ME.0, 3, &data)),
        act(2, 1, &other),
        act(2, 255, &data),
    ];
    let first = [&[0xc3, 0x50, 9, 0x64, 0, 24, 0, 0][..], &[7; 8]].concat();
    let udp_story = [
        vec![1],
        act(2, 0, &udp(ME, ASSET, b"question")),
        act(5, 1, &[]),
        act(2, 1, &piece(0x2000, &first)),
        act(2, 1, &piece(2, &[8; 8])),
        act(3, 2, &icmp(ASSET.0, ME.0, 3, &udp(ME, ASSET, b"question"))),
    ];
    let late: Vec<Vec<u8>> = [vec![0], act(0, 0, &syn), act(5, 1, &[flag::ACK])]
        .into_iter()
        .chain((0..7).map(|_| act(2, 250, &data)))
        .collect();
    let shut = [vec![0], act(0, 0, &syn), act(5, 1, &[flag::ACK]), act(0xc2, 1, &data), act(0xc5, 1, &[0])];
    vec![tcp_story.concat(), udp_story.concat(), late.concat(), shut.concat()]
}

/// A whole packet of 100 bytes of payload, TCP or UDP over IPv6.
fn over_ipv6(transport: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, if transport.len() == 20 { number::TCP } else { number::UDP }, 64];
    packet.extend([[0xfd; 16], [0xfc; 16]].concat());
    packet.extend(transport);
    packet.extend([0x5a; 100]);
    let length = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet
}

/// What an interface with offload hands over: a header, and a packet to be cut, or a lone one.
fn large_packets() -> Vec<Vec<u8>> {
    use thinlane_wg::offload::header::{Header, Kind};
    let of = |kind, size, offset, start, packet: &[u8]| {
        let headers = start + if offset == 6 { 8 } else { 20 };
        let header =
            Header { kind, needs_checksum: true, headers, size, checksum_start: start, checksum_offset: offset };
        [&header.bytes()[..], packet].concat()
    };
    // The last one's flags, and the first one's: FIN, PSH and CWR.
    let segments = tcp(ME, ASSET, 0xffff_ff00, 9, 0x99, &[0x5a; 100]);
    let datagrams = udp(ME, ASSET, &[0x5a; 100]);
    vec![
        of(Kind::Tcp4, 30, 16, 20, &segments),
        of(Kind::Udp, 30, 6, 20, &datagrams),
        of(Kind::Whole, 0, 16, 20, &tcp(ME, ASSET, 1, 9, flag::ACK, b"payload")),
        of(Kind::Tcp6, 30, 16, 40, &over_ipv6(&segments[20..40])),
        of(Kind::Udp, 30, 6, 40, &over_ipv6(&datagrams[20..28])),
    ]
}

/// Packets that follow each other, each behind how it comes and its length.
fn streams() -> Vec<Vec<u8>> {
    let act = |how: u8, content: &[u8]| [&[how][..], &(content.len() as u16).to_be_bytes(), content].concat();
    let stream = |first: &[u8], how: u8, more: usize, payload: usize| {
        let next = act(2 | how, &vec![0x5a; payload]);
        [act(1 | how, first), next.repeat(more), act(0x22 | how, &[1; 20]), act(0x12 | how, &[1])].concat()
    };
    let mut mixed = Vec::new();
    let (segment, datagram) = (tcp(ME, ASSET, 9, 9, flag::ACK, &[1; 20]), udp(ME, ASSET, &[1; 20]));
    for (slot, packet) in [(0, &segment), (4, &datagram)] {
        mixed.extend(act(1 | slot, packet));
    }
    for _ in 0..8 {
        mixed.extend([act(2, &[2; 20]), act(6, &[3; 20])].concat());
    }
    vec![stream(&segment, 0, 5, 20), stream(&datagram, 4, 5, 20), stream(&segment, 8, 70, 1), mixed]
}

/// One of each kind of thing that a device is given, each behind its kind and length; without a key, and with one.
fn device_input() -> Vec<Vec<u8>> {
    let packet = tcp(ME, ASSET, 1, 0, flag::ACK, &[0x5a; 20]);
    let back = tcp(ASSET, ME, 1, 1, flag::ACK, &[0x5a; 20]);
    let act = |what: u8, content: &[u8]| [&[what, content.len() as u8][..], content].concat();
    let mut all = vec![0];
    (0..16).for_each(|what| all.extend(act(what, &packet)));
    let mut talk = vec![1];
    for what in [14, 31] {
        talk.extend(act(what, &packet));
        talk.extend(act(0, &back));
    }
    talk.extend(act(1, &[0; 200]));
    talk.extend(act(6, &tcp(ME, (ASSET.0, 22), 1, 0, flag::SYN, b"")));
    let large = &large_packets()[0];
    talk.extend([&[8, large.len() as u8][..], large].concat());
    talk.extend((2..8).flat_map(|what| act(what, &packet)));
    // Handshakes of the peer's: from where it is, from elsewhere, changed; packets under the new keys; and strangers'.
    let mut keys = vec![1];
    for what in [0x13, 0x53] {
        keys.extend([act(what, &[]), act(14, &packet), act(0, &back)].concat());
    }
    keys.extend(
        [act(0x73, &[1]), act(0x7b, &[1]), act(0x4b, &packet), act(0x4c, &packet), act(0x45, &packet)].concat(),
    );
    keys.extend([act(0x0b, &[2]), act(0x0c, &[3]), act(0x0b, &[4])].concat());
    vec![all, talk, keys]
}

/// Whatever the kernel (or what claims to be it) sends.
fn kernel_answer(bytes: &[u8], reach: Reach<'_>) {
    use thinlane_nft::decode::{self, Content};
    for message in decode::Messages::new(bytes).take(64) {
        let Ok(message) = message else { break };
        let Ok(Content::Netfilter { family, attrs, .. }) = message.content() else { continue };
        let read = [
            ("table", decode::table(&attrs).is_ok_and(|table| table.is_some())),
            ("chain", decode::chain(&attrs).is_ok_and(|chain| chain.is_some())),
            ("set", decode::set(&attrs).is_ok_and(|set| set.is_some())),
            ("elements", decode::elements(&attrs).is_ok_and(|elements| !elements.is_empty())),
            ("counter", decode::counter(&attrs).is_ok_and(|counter| counter.is_some())),
            ("rule", decode::rule(&attrs).is_ok_and(|rule| rule.is_some_and(|(_, all)| !all.is_empty()))),
            ("flow", decode::flow(&attrs).is_ok_and(|flow| flow.is_some())),
        ];
        read.iter().filter(|(_, read)| *read).for_each(|(place, _)| reach(place));
        let _ = decode::expressions(&attrs);
        let _ = decode::flowtable(family, &attrs);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = decode::prefix(text);
    }
}

/// A message with the headers that the kernel writes, and attributes nested in one another.
fn kernel_answers() -> Vec<Vec<u8>> {
    let all = |kind: u16, attrs: &[Vec<u8>]| attr(0x8000 | kind, &attrs.concat());
    let (table, name, number) = (attr(1, b"thinlane\0"), attr(2, b"lane-00000000-up\0"), 7u64.to_be_bytes());
    let of_table = |kind: u16, attrs: &[Vec<u8>]| message(0x0a00 | kind, &[&table[..], &attrs.concat()].concat());
    let expression = all(1, &[attr(1, b"counter\0"), all(2, &[attr(1, &number), attr(2, &number)])]);
    let verdict = all(2, &[all(2, &[attr(1, &[0, 0, 0, 1]), attr(2, b"lane-00000000-up\0")])]);
    let element = all(1, &[all(1, &[attr(1, &[198, 19, 0, 1])]), verdict, attr(4, &number), attr(9, b"c\0")]);
    let addresses = |from: u8, to: u8| all(1, &[attr(1, &[198, 19, 0, from]), attr(2, &[198, 18, 0, to])]);
    let ports = all(2, &[attr(1, &[6]), attr(2, &[0xc3, 0x50]), attr(3, &[9, 0x64])]);
    let devices = all(3, &[all(3, &[attr(1, b"eth0\0")])]);
    vec![
        of_table(0, &[attr(2, &[0, 0, 0, 1])]),
        of_table(
            3,
            &[attr(3, b"forward\0"), all(4, &[attr(1, &[0, 0, 0, 2]), attr(2, &[0; 4])]), attr(7, b"filter\0")],
        ),
        of_table(6, &[name.clone(), all(4, &[expression])]),
        of_table(9, &[name.clone(), attr(3, &[0, 0, 0, 8]), attr(4, &[0; 4]), attr(5, &[0, 0, 0, 4])]),
        of_table(12, &[name.clone(), all(3, &[element.clone(), element])]),
        of_table(18, &[name.clone(), attr(3, &[0, 0, 0, 1]), all(4, &[attr(1, &number), attr(2, &number)])]),
        of_table(22, &[name, devices]),
        message(0x0100, &[all(1, &[addresses(1, 2), ports.clone()]), all(2, &[addresses(2, 1), ports])].concat()),
    ]
}

/// A message of a netfilter subsystem, for the family inet.
pub(super) fn message(kind: u16, attrs: &[u8]) -> Vec<u8> {
    let mut bytes = ((20 + attrs.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes.extend([1, 0, 0, 0]);
    bytes.extend_from_slice(attrs);
    bytes
}

/// An attribute, padded.
pub(super) fn attr(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + payload.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A packet from the asset to the engineer that says `content`.
pub(super) fn to_engineer(content: &[u8]) -> Vec<u8> {
    udp(ASSET, ME, content)
}
