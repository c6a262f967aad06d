//! Packets written the slow way, as tests and fuzz targets want them; nothing else uses them.

use std::net::Ipv4Addr;

use super::{IPV4_HEADER, TCP_HEADER, number};

/// Told of each place in what is tested that an input got to, so that a run can say whether it tested anything.
pub type Reach<'a> = &'a mut dyn FnMut(&'static str);

/// An IPv4 packet with a right header checksum.
pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, id: u16, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0u8; IPV4_HEADER];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&((IPV4_HEADER + payload.len()) as u16).to_be_bytes());
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet[8] = 64;
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    seal(&mut packet);
    packet.extend_from_slice(payload);
    packet
}

/// Puts the header checksum right.
pub fn seal(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = naive_checksum(&packet[..IPV4_HEADER]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

pub fn tcp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), seq: u32, ack: u32, flags: u8, rest: &[u8]) -> Vec<u8> {
    tcp_with(from, to, seq, ack, flags, &[], rest)
}

pub fn tcp_with(
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    seq: u32,
    ack: u32,
    flags: u8,
    options: &[u8],
    rest: &[u8],
) -> Vec<u8> {
    assert_eq!(options.len() % 4, 0);
    let mut segment = vec![0u8; TCP_HEADER];
    segment[0..2].copy_from_slice(&from.1.to_be_bytes());
    segment[2..4].copy_from_slice(&to.1.to_be_bytes());
    segment[4..8].copy_from_slice(&seq.to_be_bytes());
    segment[8..12].copy_from_slice(&ack.to_be_bytes());
    segment[12] = ((TCP_HEADER + options.len()) as u8 / 4) << 4;
    segment[13] = flags;
    segment.extend_from_slice(options);
    segment.extend_from_slice(rest);
    let sum = naive_transport(from.0, to.0, number::TCP, &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ipv4(from.0, to.0, number::TCP, 1, 0, &segment)
}

pub fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    let mut datagram = [from.1.to_be_bytes(), to.1.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    datagram.extend_from_slice(payload);
    ipv4(from.0, to.0, number::UDP, 1, 0, &datagram)
}

/// An ICMP message of `kind` about `inner`, cut as routers cut it.
pub fn icmp(from: Ipv4Addr, to: Ipv4Addr, kind: u8, inner: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 3, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&inner[..inner.len().min(128)]);
    let sum = naive_checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv4(from, to, number::ICMP, 1, 0, &message)
}

/// RFC 1071 as it is told: add up words, carry by carry, and take the complement.
pub fn naive_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u16 = 0;
    for pair in bytes.chunks(2) {
        let word = u16::from(pair[0]) << 8 | u16::from(pair.get(1).copied().unwrap_or(0));
        let (added, carry) = sum.overflowing_add(word);
        sum = added + u16::from(carry);
    }
    !sum
}

/// The checksum of a TCP or UDP part, the slow way.
pub fn naive_transport(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, segment: &[u8]) -> u16 {
    let mut all = [source.octets(), destination.octets()].concat();
    all.extend_from_slice(&[0, protocol]);
    all.extend_from_slice(&(segment.len() as u16).to_be_bytes());
    all.extend_from_slice(segment);
    naive_checksum(&all)
}

/// Puts an IPv4 packet's lengths and checksums right, as far as it has room for them; what else it says stays as it is.
pub fn mend(packet: &mut [u8]) {
    let Ok(length) = u16::try_from(packet.len()) else { return };
    let header = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    if header < IPV4_HEADER || header > packet.len() {
        return;
    }
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[10..12].fill(0);
    let sum = naive_checksum(&packet[..header]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let (ip, segment) = packet.split_at_mut(header);
    let (protocol, fragment) = (ip[9], u16::from(ip[6]) << 8 | u16::from(ip[7]));
    let place = match protocol {
        number::ICMP => 2,
        number::UDP => 6,
        number::TCP => 16,
        _ => return,
    };
    if fragment & 0x1fff != 0 || segment.len() < place + 4 {
        return;
    }
    if protocol == number::UDP {
        // A first fragment is shorter than what it begins.
        let more = if fragment & 0x2000 != 0 { 8 } else { 0 };
        let length = (segment.len() as u16).wrapping_add(more);
        segment[4..6].copy_from_slice(&length.to_be_bytes());
    }
    segment[place..place + 2].fill(0);
    let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
    let sum = match protocol {
        number::ICMP => naive_checksum(segment),
        _ => naive_transport(address(12), address(16), protocol, segment),
    };
    // Of UDP, zero means that there is none (RFC 768).
    let sum = if protocol == number::UDP && sum == 0 { 0xffff } else { sum };
    segment[place..place + 2].copy_from_slice(&sum.to_be_bytes());
}
