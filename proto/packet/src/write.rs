//! The packets that a lane writes or rewrites: TCP resets and the MSS of a SYN.

use std::net::Ipv4Addr;

use super::{IPV4_HEADER, TCP_HEADER, checksum, flag, number, parse_ipv4, pseudo_header};

/// What a TCP reset says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpReset {
    pub source: (Ipv4Addr, u16),
    pub destination: (Ipv4Addr, u16),
    pub seq: u32,
    /// With an acknowledgement the segment carries RST and ACK.
    pub ack: Option<u32>,
}

/// A TCP reset as bytes: an IPv4 packet without options or payload.
pub type Reset = [u8; IPV4_HEADER + TCP_HEADER];

/// Writes a TCP reset (RFC 9293, 3.5.2).
pub fn tcp_reset(reset: &TcpReset) -> Reset {
    let mut packet = [0u8; IPV4_HEADER + TCP_HEADER];
    let (ip, tcp) = packet.split_at_mut(IPV4_HEADER);
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&((IPV4_HEADER + TCP_HEADER) as u16).to_be_bytes());
    ip[6] = 0x40;
    ip[8] = 64;
    ip[9] = number::TCP;
    ip[12..16].copy_from_slice(&reset.source.0.octets());
    ip[16..20].copy_from_slice(&reset.destination.0.octets());
    let sum = checksum(0, ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());

    tcp[0..2].copy_from_slice(&reset.source.1.to_be_bytes());
    tcp[2..4].copy_from_slice(&reset.destination.1.to_be_bytes());
    tcp[4..8].copy_from_slice(&reset.seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&reset.ack.unwrap_or(0).to_be_bytes());
    tcp[12] = ((TCP_HEADER / 4) as u8) << 4;
    tcp[13] = flag::RST | if reset.ack.is_some() { flag::ACK } else { 0 };
    let start = pseudo_header(reset.source.0, reset.destination.0, number::TCP, TCP_HEADER as u16);
    let sum = checksum(start, tcp);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Lowers the MSS option of a TCP SYN to `most` and mends its checksum (RFC 1624); says whether it did.
///
/// Anything else, also a SYN without the option, whose sender then takes 536, is left alone.
pub fn clamp_mss(packet: &mut [u8], most: u16) -> bool {
    // Looked at first, because every packet comes here and hardly one is a SYN.
    let perhaps = packet.get(9) == Some(&number::TCP) && packet.get(33).is_some_and(|flags| flags & flag::SYN != 0);
    let Some((at, mss)) = perhaps.then(|| find_mss(packet)).flatten() else { return false };
    if mss <= most {
        return false;
    }
    // The option may begin at an odd offset: then its bytes count in the sum the other way round.
    let odd = (at - IPV4_HEADER) % 2 == 1;
    let in_sum = |value: u16| if odd { value.swap_bytes() } else { value };
    let sum_at = IPV4_HEADER + 16;
    let old = u16::from_be_bytes([packet[sum_at], packet[sum_at + 1]]);
    let mut sum = u32::from(!old) + u32::from(!in_sum(mss)) + u32::from(in_sum(most));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[at..at + 2].copy_from_slice(&most.to_be_bytes());
    packet[sum_at..sum_at + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    true
}

/// Where in the packet the value of the MSS option stands, and the value.
fn find_mss(packet: &[u8]) -> Option<(usize, u16)> {
    let ip = parse_ipv4(packet).ok().filter(|ip| ip.protocol == number::TCP)?;
    let tcp = ip.tcp().ok().filter(|tcp| tcp.has(flag::SYN))?;
    let options = ip.payload.get(TCP_HEADER..ip.payload.len() - tcp.payload)?;
    let mut at = 0;
    while at < options.len() {
        match options[at] {
            0 => return None,
            1 => at += 1,
            2 if options.get(at + 1) == Some(&4) => {
                let value = options.get(at + 2..at + 4)?;
                return Some((IPV4_HEADER + TCP_HEADER + at + 2, u16::from_be_bytes([value[0], value[1]])));
            }
            _ => at += usize::from(*options.get(at + 1)?).max(2),
        }
    }
    None
}
