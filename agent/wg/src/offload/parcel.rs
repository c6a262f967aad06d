//! What one read from the interface yields: a packet, or up to 64 KB of a flow that is still to be cut.
//!
//! The cut follows what Linux does itself (tcp_gso_segment, __udp_gso_segment): every segment repeats the headers;
//! lengths and checksums are its own; the IPv4 id and the TCP sequence number count on; FIN and PSH stay with the
//! last segment, CWR with the first.

use super::header::{HEADER, Header, Kind};
use crate::packet::{IPV4_HEADER, Malformed, TCP_HEADER, flag, number, sum};

const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
/// Congestion window reduced (RFC 3168): said once.
const CWR: u8 = 0x80;

/// A packet as the interface hands it over.
#[derive(Debug)]
pub struct Parcel<'a> {
    bytes: &'a mut [u8],
    cut: Option<Cut>,
}

/// How a packet is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    protocol: u8,
    /// Bytes of the IP header.
    ip: usize,
    /// Bytes of all headers.
    headers: usize,
    /// Bytes of payload in every segment but the last.
    size: usize,
    count: usize,
}

impl<'a> Parcel<'a> {
    /// One packet that is as it should be.
    pub fn whole(bytes: &'a mut [u8]) -> Self {
        Self { bytes, cut: None }
    }

    /// Reads what came with a header (`IFF_VNET_HDR`), and completes a lone packet's checksum.
    ///
    /// Refuses only what no kernel writes: a header that contradicts its packet.
    pub fn read(bytes: &'a mut [u8]) -> Result<Self, Malformed> {
        let (header, bytes) = bytes.split_first_chunk_mut::<HEADER>().ok_or(Malformed::Short)?;
        let header = Header::read(header)?;
        if header.kind == Kind::Whole {
            if header.needs_checksum {
                complete(bytes, &header)?;
            }
            return Ok(Self::whole(bytes));
        }
        let cut = Cut::of(&header, bytes)?;
        Ok(Self { bytes, cut: Some(cut) })
    }

    /// The packet as it came, which for many segments is one that never crosses a wire: right but for its checksum
    /// and its length.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// The bytes of a packet that is not to be cut; `None`: it is.
    pub fn as_whole(&mut self) -> Option<&mut [u8]> {
        if self.cut.is_none() { Some(&mut *self.bytes) } else { None }
    }

    /// Into how many packets it is cut.
    pub fn count(&self) -> usize {
        self.cut.map_or(1, |cut| cut.count)
    }

    /// The bytes of all these packets together.
    pub fn total(&self) -> usize {
        self.bytes.len() + self.cut.map_or(0, |cut| (cut.count - 1) * cut.headers)
    }

    /// Writes segment `at`, counted from 0, to the beginning of `room` and yields it; empty where there is no such
    /// segment or too little room.
    pub fn segment<'r>(&self, at: usize, room: &'r mut [u8]) -> &'r mut [u8] {
        match self.cut {
            None if at == 0 => {
                let Some(room) = room.get_mut(..self.bytes.len()) else { return &mut [] };
                room.copy_from_slice(self.bytes);
                room
            }
            Some(cut) if at < cut.count => cut.write(self.bytes, at, room),
            _ => &mut [],
        }
    }
}

/// Completes the checksum of a packet that the kernel left to its hardware.
fn complete(packet: &mut [u8], header: &Header) -> Result<(), Malformed> {
    let start = usize::from(header.checksum_start);
    let place = start + usize::from(header.checksum_offset);
    if place + 2 > packet.len() {
        return Err(Malformed::Checksum);
    }
    // The field holds the pseudo-header's sum, and so takes part in it.
    put(packet, place, complement(sum(0, &packet[start..]), place == start + UDP_CHECKSUM));
    Ok(())
}

/// The complement of a sum; of UDP, where zero means "none", never zero (RFC 768).
fn complement(sum: u16, udp: bool) -> u16 {
    match !sum {
        0 if udp => 0xffff,
        checksum => checksum,
    }
}

impl Cut {
    fn of(header: &Header, packet: &[u8]) -> Result<Self, Malformed> {
        let version = packet.first().ok_or(Malformed::Short)? >> 4;
        let ip = usize::from(header.checksum_start);
        let known = match header.kind {
            Kind::Tcp4 => version == 4,
            Kind::Tcp6 => version == 6,
            Kind::Udp | Kind::Whole => matches!(version, 4 | 6),
        };
        let begins = if version == 4 { usize::from(packet[0] & 0x0f) * 4 == ip } else { ip >= IPV6_HEADER };
        let least = if version == 4 { IPV4_HEADER } else { IPV6_HEADER };
        if !known || !begins || ip < least || !header.needs_checksum {
            return Err(Malformed::Version);
        }
        let (protocol, headers) = if header.kind == Kind::Udp {
            (number::UDP, ip + UDP_HEADER)
        } else {
            let tcp = usize::from(packet.get(ip + 12).ok_or(Malformed::Short)? >> 4) * 4;
            if tcp < TCP_HEADER {
                return Err(Malformed::Length);
            }
            (number::TCP, ip + tcp)
        };
        // Of IPv6 the protocol may stand behind further headers, which only the kernel has read.
        if version == 4 && packet.get(9) != Some(&protocol) {
            return Err(Malformed::Version);
        }
        let size = usize::from(header.size);
        if size == 0 || packet.len() <= headers || packet.len() > usize::from(u16::MAX) {
            return Err(Malformed::Length);
        }
        Ok(Self { protocol, ip, headers, size, count: (packet.len() - headers).div_ceil(size) })
    }

    fn write<'r>(&self, packet: &[u8], at: usize, room: &'r mut [u8]) -> &'r mut [u8] {
        let from = self.headers + at * self.size;
        let payload = &packet[from..packet.len().min(from + self.size)];
        let Some(room) = room.get_mut(..self.headers + payload.len()) else { return &mut [] };
        room[..self.headers].copy_from_slice(&packet[..self.headers]);
        room[self.headers..].copy_from_slice(payload);
        self.number_ip(at, room);
        match self.protocol {
            number::TCP => self.number_tcp(at, room),
            _ => put(room, self.ip + 4, (room.len() - self.ip) as u16),
        }
        self.sign(room);
        room
    }

    fn number_ip(&self, at: usize, segment: &mut [u8]) {
        if segment[0] >> 4 == 6 {
            put(segment, 4, (segment.len() - IPV6_HEADER) as u16);
            return;
        }
        let id = u16::from_be_bytes([segment[4], segment[5]]).wrapping_add(at as u16);
        put(segment, 2, segment.len() as u16);
        put(segment, 4, id);
        put(segment, 10, 0);
        put(segment, 10, !sum(0, &segment[..self.ip]));
    }

    fn number_tcp(&self, at: usize, segment: &mut [u8]) {
        let tcp = &mut segment[self.ip..];
        let seq = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add((at * self.size) as u32);
        tcp[4..8].copy_from_slice(&seq.to_be_bytes());
        if at + 1 < self.count {
            tcp[13] &= !(flag::FIN | flag::PSH);
        }
        if at > 0 {
            tcp[13] &= !CWR;
        }
    }

    /// Gives a segment the checksum of its TCP or UDP part.
    fn sign(&self, segment: &mut [u8]) {
        let addresses = if segment[0] >> 4 == 6 { &segment[8..40] } else { &segment[12..20] };
        let length = segment.len() - self.ip;
        let pseudo = u32::from(sum(u32::from(self.protocol) + length as u32, addresses));
        let udp = self.protocol == number::UDP;
        let place = self.ip + if udp { UDP_CHECKSUM } else { TCP_CHECKSUM };
        put(segment, place, 0);
        put(segment, place, complement(sum(pseudo, &segment[self.ip..]), udp));
    }
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
