//! Strict reading of IP packets, and the few packets that a lane writes itself.
//!
//! No I/O and no state: bytes in, values out, and no bytes make it panic. What is not understood to the last
//! header field is `Malformed`, which a lane treats as denied. IPv4 after RFC 791, TCP after RFC 9293, ICMP
//! errors after RFC 792 and RFC 1812.

#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod recent;
pub mod sample;
mod write;
pub use recent::Recent;
pub use write::{Reset, TcpReset, clamp_mss, tcp_reset};

#[cfg(test)]
mod tests;

/// Length of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Length of a TCP header without options.
pub const TCP_HEADER: usize = 20;
/// The longest ICMP error that is taken for one (RFC 1812, 4.3.2.3).
pub const LONGEST_ICMP_ERROR: usize = 576;

/// TCP flags as they stand in the header.
pub mod flag {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
}

/// Protocol numbers that a lane knows (IANA).
pub mod number {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
}

/// Why bytes are not a packet that a lane could judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("shorter than its header")]
    Short,
    #[error("neither IPv4 nor IPv6")]
    Version,
    #[error("its length fields disagree with its length")]
    Length,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("it carries IP options")]
    Options,
    #[error("its fragment fields contradict each other")]
    Fragment,
    #[error("its header is split between fragments")]
    Split,
    #[error("not an ICMP error")]
    NotAnError,
}

/// An IP packet whose outer header was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ip<'a> {
    V4(Ipv4<'a>),
    /// Recognised so that it can be named when denied; lanes carry IPv4 only.
    V6 {
        source: Ipv6Addr,
        destination: Ipv6Addr,
        next: u8,
    },
}

/// An IPv4 packet with a whole, checked header without options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4<'a> {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    pub id: u16,
    pub more_fragments: bool,
    /// Where this fragment's payload begins in the whole packet's payload, in bytes.
    pub offset: usize,
    pub payload: &'a [u8],
}

/// The fields of a TCP header that a lane uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    pub source_port: u16,
    pub destination_port: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    /// Bytes after the header and its options.
    pub payload: usize,
}

impl Tcp {
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// The sequence number after this segment: SYN and FIN count one each.
    pub fn end(&self) -> u32 {
        let ends = u32::from(self.has(flag::SYN)) + u32::from(self.has(flag::FIN));
        let payload = u32::try_from(self.payload).unwrap_or(u32::MAX);
        self.seq.wrapping_add(payload).wrapping_add(ends)
    }
}

/// The ports of a UDP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp {
    pub source_port: u16,
    pub destination_port: u16,
}

/// An ICMP error: destination unreachable, time exceeded or parameter problem, and the packet it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpError {
    pub kind: u8,
    pub code: u8,
    /// Of the packet that the error is about.
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    pub source_port: u16,
    pub destination_port: u16,
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn ipv4_at(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    be32(bytes, at).map(Ipv4Addr::from_bits)
}

fn ipv6_at(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = bytes.get(at..at.checked_add(16)?)?.try_into().ok()?;
    Some(Ipv6Addr::from(octets))
}

/// The Internet checksum (RFC 1071) of `bytes`, begun with `start`: zero over data that includes a right one.
pub fn checksum(start: u32, bytes: &[u8]) -> u16 {
    !sum(start, bytes)
}

/// The ones' complement sum that a checksum is the complement of, begun with `start`: 0xffff over data that includes
/// a right checksum.
pub fn sum(start: u32, bytes: &[u8]) -> u16 {
    // The sum does not depend on the order of the bytes in a word, but for the order of its own two (RFC 1071, 2):
    // so eight at a time are added as the machine reads them, in lanes that a vector unit may take at once.
    let mut lanes = [0u64; 4];
    let mut blocks = bytes.chunks_exact(32);
    for block in &mut blocks {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(8)) {
            let word = word.try_into().map_or(0, u64::from_ne_bytes);
            *lane += (word & 0xffff_ffff) + (word >> 32);
        }
    }
    let native = fold(lanes.iter().sum());
    let mut sum = u64::from(start) + u64::from(u16::from_ne_bytes(native.to_be_bytes()));
    let mut pairs = blocks.remainder().chunks_exact(2);
    for pair in &mut pairs {
        sum += u64::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    if let [last] = pairs.remainder() {
        sum += u64::from(*last) << 8;
    }
    fold(sum)
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// What the TCP and UDP checksums begin with: addresses, protocol and length (RFC 9293, 3.1), unfolded.
pub fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: u16) -> u32 {
    let halves = |address: Ipv4Addr| (address.to_bits() >> 16) + (address.to_bits() & 0xffff);
    halves(source) + halves(destination) + u32::from(protocol) + u32::from(length)
}

/// The source address, where the bytes have at least one; says nothing about the rest of the packet.
pub fn source_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.first()? >> 4 {
        4 => ipv4_at(bytes, 12).map(IpAddr::V4),
        6 => ipv6_at(bytes, 8).map(IpAddr::V6),
        _ => None,
    }
}

/// The IPv4 destination, where the bytes have one; says nothing about the rest of the packet.
pub fn destination_of(bytes: &[u8]) -> Option<Ipv4Addr> {
    if bytes.first()? >> 4 == 4 { ipv4_at(bytes, 16) } else { None }
}

/// Reads the outer header of one whole packet.
pub fn parse(bytes: &[u8]) -> Result<Ip<'_>, Malformed> {
    match bytes.first().ok_or(Malformed::Short)? >> 4 {
        4 => parse_ipv4(bytes).map(Ip::V4),
        6 => parse_ipv6(bytes).ok_or(Malformed::Short),
        _ => Err(Malformed::Version),
    }
}

fn parse_ipv6(bytes: &[u8]) -> Option<Ip<'_>> {
    Some(Ip::V6 { next: *bytes.get(6)?, source: ipv6_at(bytes, 8)?, destination: ipv6_at(bytes, 24)? })
}

/// Reads an IPv4 packet that fills `bytes` exactly. Options are refused: nothing that crosses a lane needs
/// them, and source routes would lead elsewhere.
pub fn parse_ipv4(bytes: &[u8]) -> Result<Ipv4<'_>, Malformed> {
    let header = bytes.get(..IPV4_HEADER).ok_or(Malformed::Short)?;
    if header[0] >> 4 != 4 {
        return Err(Malformed::Version);
    }
    let header_length = usize::from(header[0] & 0x0f) * 4;
    if header_length < IPV4_HEADER || header_length > bytes.len() {
        return Err(Malformed::Length);
    }
    if usize::from(be16(header, 2).ok_or(Malformed::Short)?) != bytes.len() {
        return Err(Malformed::Length);
    }
    if header_length != IPV4_HEADER {
        return Err(Malformed::Options);
    }
    if checksum(0, header) != 0 {
        return Err(Malformed::Checksum);
    }
    let fragment = be16(header, 6).ok_or(Malformed::Short)?;
    let payload = &bytes[IPV4_HEADER..];
    let (more_fragments, offset) = (fragment & 0x2000 != 0, usize::from(fragment & 0x1fff) * 8);
    let reserved = fragment & 0x8000 != 0;
    let past_the_end = IPV4_HEADER + offset + payload.len() > usize::from(u16::MAX);
    let ragged = more_fragments && (payload.is_empty() || !payload.len().is_multiple_of(8));
    if reserved || past_the_end || ragged {
        return Err(Malformed::Fragment);
    }
    Ok(Ipv4 {
        source: ipv4_at(header, 12).ok_or(Malformed::Short)?,
        destination: ipv4_at(header, 16).ok_or(Malformed::Short)?,
        protocol: header[9],
        id: be16(header, 4).ok_or(Malformed::Short)?,
        more_fragments,
        offset,
        payload,
    })
}

impl<'a> Ipv4<'a> {
    /// The whole packet's length as its header says it, which is also what was read.
    pub fn length(&self) -> usize {
        IPV4_HEADER + self.payload.len()
    }

    /// Reads the TCP header of a packet or of a first fragment, which must hold all of it (RFC 1858).
    pub fn tcp(&self) -> Result<Tcp, Malformed> {
        let bytes = self.payload;
        if self.offset != 0 {
            return Err(Malformed::Split);
        }
        let length = usize::from(bytes.get(12).ok_or(Malformed::Short)? >> 4) * 4;
        if length < TCP_HEADER {
            return Err(Malformed::Length);
        }
        if length > bytes.len() {
            return Err(if self.more_fragments { Malformed::Split } else { Malformed::Length });
        }
        let header = bytes.get(..TCP_HEADER).ok_or(Malformed::Short)?;
        Ok(Tcp {
            source_port: be16(header, 0).ok_or(Malformed::Short)?,
            destination_port: be16(header, 2).ok_or(Malformed::Short)?,
            seq: be32(header, 4).ok_or(Malformed::Short)?,
            ack: be32(header, 8).ok_or(Malformed::Short)?,
            flags: header[13],
            payload: bytes.len() - length,
        })
    }

    /// Reads the UDP header of a packet or of a first fragment.
    pub fn udp(&self) -> Result<Udp, Malformed> {
        if self.offset != 0 {
            return Err(Malformed::Split);
        }
        let header = self.payload.get(..8).ok_or(Malformed::Short)?;
        let length = usize::from(be16(header, 4).ok_or(Malformed::Short)?);
        // A whole datagram fills its packet; a first fragment is shorter than what it begins.
        let fits = if self.more_fragments { length > self.payload.len() } else { length == self.payload.len() };
        if length < 8 || !fits {
            return Err(Malformed::Length);
        }
        Ok(Udp {
            source_port: be16(header, 0).ok_or(Malformed::Short)?,
            destination_port: be16(header, 2).ok_or(Malformed::Short)?,
        })
    }

    /// Reads an ICMP error and the header and ports of the packet it is about. Redirects are none of them.
    pub fn icmp_error(&self) -> Result<IcmpError, Malformed> {
        if self.offset != 0 || self.more_fragments {
            return Err(Malformed::Fragment);
        }
        if self.length() > LONGEST_ICMP_ERROR {
            return Err(Malformed::Length);
        }
        let header = self.payload.get(..8).ok_or(Malformed::Short)?;
        if !matches!(header[0], 3 | 11 | 12) {
            return Err(Malformed::NotAnError);
        }
        if checksum(0, self.payload) != 0 {
            return Err(Malformed::Checksum);
        }
        let inner = &self.payload[8..];
        // The embedded packet is cut off, and its length and checksum may have been rewritten on the way.
        let first = *inner.first().ok_or(Malformed::Short)?;
        let inner_header = usize::from(first & 0x0f) * 4;
        if first >> 4 != 4 || inner_header < IPV4_HEADER {
            return Err(Malformed::Version);
        }
        if be16(inner, 6).ok_or(Malformed::Short)? & 0x1fff != 0 {
            return Err(Malformed::Split);
        }
        Ok(IcmpError {
            kind: header[0],
            code: header[1],
            protocol: *inner.get(9).ok_or(Malformed::Short)?,
            source: ipv4_at(inner, 12).ok_or(Malformed::Short)?,
            destination: ipv4_at(inner, 16).ok_or(Malformed::Short)?,
            source_port: be16(inner, inner_header).ok_or(Malformed::Short)?,
            destination_port: be16(inner, inner_header + 2).ok_or(Malformed::Short)?,
        })
    }

    /// Whether this is only a part of a packet.
    pub fn is_fragment(&self) -> bool {
        self.more_fragments || self.offset > 0
    }

    /// The destination port, where this packet shows one.
    pub fn destination_port(&self) -> Option<u16> {
        match self.protocol {
            number::TCP | number::UDP if self.offset == 0 => be16(self.payload, 2),
            _ => None,
        }
    }
}
