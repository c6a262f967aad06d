//! As much of IPv4 and UDP as the near end of a lane needs: reading as the gateway reads, plain writing.
//!
//! Pure. IPv4 after RFC 791, UDP after RFC 768.

use std::net::Ipv4Addr;

use thinlane_packet::{self as ip, number};
pub use thinlane_packet::{IPV4_HEADER, Ipv4, checksum};

/// Length of a UDP header.
pub const UDP_HEADER: usize = 8;
/// The longest IPv4 packet.
pub const LONGEST: usize = u16::MAX as usize;
/// The number of TCP in the IP header (IANA).
pub const TCP: u8 = number::TCP;
/// The number of UDP in the IP header (IANA).
pub const UDP: u8 = number::UDP;

/// The ports of a transport header and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    pub source_port: u16,
    pub destination_port: u16,
    pub payload: &'a [u8],
}

/// What the TCP and UDP checksums begin with; nothing that long is ever written, nor read.
pub(crate) fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: usize) -> u32 {
    ip::pseudo_header(source, destination, protocol, u16::try_from(length).unwrap_or(u16::MAX))
}

/// Reads an IPv4 packet that fills `bytes` exactly; `None`: it is none, or carries options, or contradicts itself.
pub fn parse(bytes: &[u8]) -> Option<Ipv4<'_>> {
    ip::parse_ipv4(bytes).ok()
}

/// The ports of an unfragmented TCP or UDP packet.
pub fn ports(packet: &Ipv4<'_>) -> Option<(u16, u16)> {
    let port = |at: usize| Some(u16::from_be_bytes(packet.payload.get(at..at + 2)?.try_into().ok()?));
    Some((port(0)?, port(2)?))
}

/// Reads an unfragmented UDP datagram, whose checksum must be right where there is one.
pub fn datagram<'a>(packet: &Ipv4<'a>) -> Option<Datagram<'a>> {
    let read = packet.udp().ok()?;
    let start = pseudo_header(packet.source, packet.destination, UDP, packet.payload.len());
    let unsigned = packet.payload.get(6..8)? == [0, 0];
    if packet.is_fragment() || !(unsigned || checksum(start, packet.payload) == 0) {
        return None;
    }
    let payload = &packet.payload[UDP_HEADER..];
    Some(Datagram { source_port: read.source_port, destination_port: read.destination_port, payload })
}

/// Writes a UDP header and its payload, checksum included; `None`: it is too long for one packet.
pub fn write_udp(source: Ipv4Addr, destination: Ipv4Addr, datagram: Datagram<'_>) -> Option<Vec<u8>> {
    let length = UDP_HEADER + datagram.payload.len();
    let told = u16::try_from(length).ok().filter(|_| IPV4_HEADER + length <= LONGEST)?;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(datagram.source_port.to_be_bytes());
    bytes.extend(datagram.destination_port.to_be_bytes());
    bytes.extend(told.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend_from_slice(datagram.payload);
    // A checksum of zero would say that there is none.
    let sum = match checksum(pseudo_header(source, destination, UDP, length), &bytes) {
        0 => 0xffff,
        sum => sum,
    };
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    Some(bytes)
}

/// Writes one IPv4 packet; `payload` and `offset` must fit into one.
pub fn write(packet: Ipv4<'_>) -> Vec<u8> {
    let length = IPV4_HEADER + packet.payload.len();
    let told = u16::try_from(length).expect("the caller keeps to the longest packet");
    let fragment = (packet.offset / 8) as u16 | if packet.more_fragments { 0x2000 } else { 0 };
    let mut bytes = vec![0x45, 0];
    bytes.reserve(length);
    bytes.extend(told.to_be_bytes());
    bytes.extend(packet.id.to_be_bytes());
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, packet.protocol, 0, 0]);
    bytes.extend(packet.source.octets());
    bytes.extend(packet.destination.octets());
    let sum = checksum(0, &bytes);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend_from_slice(packet.payload);
    bytes
}

/// Cuts a packet into as many as it takes to stay within `mtu` bytes each.
pub fn fragments<'a>(packet: Ipv4<'a>, mtu: usize) -> impl Iterator<Item = Vec<u8>> + 'a {
    let room = if IPV4_HEADER + packet.payload.len() <= mtu {
        packet.payload.len().max(1)
    } else {
        (mtu.saturating_sub(IPV4_HEADER) / 8 * 8).max(8)
    };
    let pieces = packet.payload.len().div_ceil(room).max(1);
    (0..pieces).map(move |piece| {
        let begin = piece * room;
        let end = (begin + room).min(packet.payload.len());
        let more_fragments = piece + 1 < pieces;
        write(Ipv4 { more_fragments, offset: begin, payload: &packet.payload[begin..end], ..packet })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(payload: &[u8]) -> Ipv4<'_> {
        Ipv4 {
            source: Ipv4Addr::new(198, 18, 0, 1),
            destination: Ipv4Addr::new(198, 19, 0, 1),
            protocol: UDP,
            id: 7,
            more_fragments: false,
            offset: 0,
            payload,
        }
    }

    #[test]
    fn what_is_written_reads_back_and_one_changed_bit_does_not() {
        let (source, destination) = (packet(&[]).source, packet(&[]).destination);
        let datagram = Datagram { source_port: 7, destination_port: 50_000, payload: b"measured value" };
        let udp = write_udp(source, destination, datagram).expect("it fits");
        let bytes = write(packet(&udp));
        assert_eq!(parse(&bytes).and_then(|packet| super::datagram(&packet)), Some(datagram));
        for bit in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            let read = parse(&other).and_then(|packet| super::datagram(&packet));
            assert!(read.is_none(), "bit {bit} may change unnoticed");
        }
    }

    #[test]
    fn the_known_header_of_rfc_1071s_kind_has_its_known_checksum() {
        let header = [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 192, 168, 0, 1, 192, 168, 0, 199];
        assert_eq!(checksum(0, &header), 0);
    }

    #[test]
    fn fragments_keep_to_the_mtu_and_to_eight_bytes() {
        let payload: Vec<u8> = (0..3000).map(|at| at as u8).collect();
        let cut: Vec<Vec<u8>> = fragments(packet(&payload), 1200).collect();
        assert_eq!(cut.len(), 3);
        let mut joined = Vec::new();
        for (at, bytes) in cut.iter().enumerate() {
            let part = parse(bytes).expect("a packet");
            assert!(bytes.len() <= 1200 && part.offset == joined.len() && part.more_fragments == (at < 2));
            joined.extend_from_slice(part.payload);
        }
        assert_eq!(joined, payload);
        assert_eq!(fragments(packet(b""), 1200).count(), 1);
    }

    #[test]
    fn what_is_no_whole_plain_packet_is_none() {
        let good = write(packet(&[1; 16]));
        assert!(parse(&good).is_some());
        let spoil = |change: fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            bytes[10..12].fill(0);
            let sum = checksum(0, bytes.get(..20).unwrap_or_default());
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            bytes
        };
        assert!(parse(&spoil(|bytes| bytes[0] = 0x46)).is_none(), "options");
        assert!(parse(&spoil(|bytes| bytes[0] = 0x65)).is_none(), "version");
        assert!(parse(&spoil(|bytes| bytes.push(0))).is_none(), "length");
        assert!(parse(&spoil(|bytes| bytes[6] = 0x80)).is_none(), "reserved bit");
        assert!(parse(&spoil(|bytes| bytes[6..8].copy_from_slice(&[0x1f, 0xff]))).is_none(), "past the end");
        assert!(parse(&good[..19]).is_none() && parse(&[]).is_none());
    }
}
