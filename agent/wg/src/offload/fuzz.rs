//! The arithmetic of large packets under arbitrary input, for fuzzing.
//!
//! What comes out is compared byte by byte with a slow reading of the same rules that shares nothing with what is
//! tested, checksums included.

use super::coalesce::{Coalescer, Sink};
use super::header::{HEADER, Header};
use super::parcel::Parcel;
use crate::packet::flag;
use crate::packet::sample::{Reach, mend, naive_checksum};

const IPV6: usize = 40;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Packets that may become one (UDP_MAX_SEGMENTS).
const MOST: usize = 64;

/// A header that can be read is written as the same fields.
pub fn fuzz_header(bytes: &[u8], reach: Reach<'_>) {
    let Some((header, _)) = bytes.split_first_chunk::<HEADER>() else { return };
    if let Ok(header) = Header::read(header) {
        assert_eq!(Header::read(&header.bytes()), Ok(header));
        reach("read");
    }
}

/// Whatever the interface hands over is cut as a slow segmenter cuts it.
pub fn fuzz_segment(bytes: &[u8], reach: Reach<'_>) {
    let mut copy = bytes.to_vec();
    let Ok(parcel) = Parcel::read(&mut copy) else { return };
    let (header, packet) = bytes.split_at(HEADER);
    let word = |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
    let mut room = vec![0; 65_535];
    let count = parcel.count();
    let mut total = 0;
    if header[1] & 0x7f == 0 {
        let mut wanted = packet.to_vec();
        if header[0] & 1 == 1 {
            let (start, place) = (word(6), word(6) + word(8));
            let sum = naive_checksum(&packet[start..]);
            // UDP's is never zero, which means that there is none.
            let sum = if sum == 0 && word(8) == 6 { 0xffff } else { sum };
            wanted[place..place + 2].copy_from_slice(&sum.to_be_bytes());
            reach("checksum completed");
        }
        assert_eq!((count, &*parcel.segment(0, &mut room)), (1, &wanted[..]));
        total += wanted.len();
    } else {
        let slow = Slow::of(packet, header[1] & 0x7f, word(6), word(4));
        let payloads: Vec<&[u8]> = packet[slow.headers..].chunks(slow.size).collect();
        assert_eq!(payloads.len(), count);
        for (at, payload) in payloads.into_iter().enumerate() {
            let wanted = slow.segment(at, at + 1 == count, payload);
            assert_eq!(parcel.segment(at, &mut room), wanted, "segment {at} of {count}");
            total += wanted.len();
        }
        if count > 1 {
            reach(match (slow.tcp, slow.v6) {
                (true, false) => "tcp4 cut",
                (true, true) => "tcp6 cut",
                (false, false) => "udp4 cut",
                (false, true) => "udp6 cut",
            });
        }
    }
    assert_eq!(total, parcel.total());
    assert!(parcel.segment(count, &mut room).is_empty());
}

/// A packet to be cut, and how: a segmenter that writes each field by the book.
struct Slow<'a> {
    packet: &'a [u8],
    tcp: bool,
    v6: bool,
    ip: usize,
    headers: usize,
    size: usize,
}

impl<'a> Slow<'a> {
    fn of(packet: &'a [u8], kind: u8, ip: usize, size: usize) -> Self {
        let tcp = kind != 5;
        let headers = ip + if tcp { usize::from(packet[ip + 12] >> 4) * 4 } else { 8 };
        Self { packet, tcp, v6: packet[0] >> 4 == 6, ip, headers, size }
    }

    fn segment(&self, at: usize, last: bool, payload: &[u8]) -> Vec<u8> {
        let mut bytes = [&self.packet[..self.headers], payload].concat();
        let length = bytes.len();
        let word = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let put = |bytes: &mut [u8], at: usize, value: u16| bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
        if self.v6 {
            put(&mut bytes, 4, (length - IPV6) as u16);
        } else {
            put(&mut bytes, 2, length as u16);
            let id = word(&bytes, 4).wrapping_add(at as u16);
            put(&mut bytes, 4, id);
            put(&mut bytes, 10, 0);
            let sum = naive_checksum(&bytes[..self.ip]);
            put(&mut bytes, 10, sum);
        }
        let place = self.ip + if self.tcp { 16 } else { 6 };
        if self.tcp {
            let seq = u32::from(word(&bytes, self.ip + 4)) << 16 | u32::from(word(&bytes, self.ip + 6));
            let seq = seq.wrapping_add((at * self.size) as u32);
            put(&mut bytes, self.ip + 4, (seq >> 16) as u16);
            put(&mut bytes, self.ip + 6, seq as u16);
            // PSH and FIN are the last one's, and that the window was reduced (CWR) the first one's.
            let ends = if last { 0 } else { flag::PSH | flag::FIN };
            let begins = if at == 0 { 0 } else { 0x80 };
            bytes[self.ip + 13] &= !(ends | begins);
        } else {
            put(&mut bytes, self.ip + 4, (length - self.ip) as u16);
        }
        put(&mut bytes, place, 0);
        let addresses = if self.v6 { &bytes[8..IPV6] } else { &bytes[12..20] };
        let protocol = if self.tcp { TCP } else { UDP };
        let pseudo = [addresses, &((length - self.ip) as u32).to_be_bytes(), &[0, 0, 0, protocol]].concat();
        let sum = naive_checksum(&[&pseudo, &bytes[self.ip..]].concat());
        put(&mut bytes, place, if sum == 0 && !self.tcp { 0xffff } else { sum });
        bytes
    }
}

/// Whatever leaves the tunnel, the same packets come out when what was put together is cut again, each flow's in its
/// order.
///
/// The bytes are a list of {how (1), length (2), content}. What the lower two bits of `how` say: the content is a packet
/// as it is (0); with its lengths and checksums mended (1); or the payload of the next packet of a flow (2, 3), with PSH
/// if bit 4 is set and a bit of its last byte turned, which its checksum does not know, if bit 5 is. Bits 2 and 3 choose
/// among four flows.
pub fn fuzz_coalesce(mut bytes: &[u8], reach: Reach<'_>) {
    let mut coalescer = Coalescer::new(true);
    let mut checked = Checked { waiting: Vec::new(), room: vec![0; 65_535], reach };
    let mut flows: [Vec<u8>; 4] = Default::default();
    while let Some(([how, length @ ..], rest)) = bytes.split_first_chunk::<3>() {
        let (content, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        bytes = rest;
        let flow = &mut flows[usize::from(how >> 2 & 3)];
        *flow = match how & 3 {
            0 => content.to_vec(),
            1 => mended(content.to_vec()),
            _ => next_of(flow, content, how & 0x10 != 0),
        };
        if let Some(last) = flow.last_mut().filter(|_| how & 0x22 == 0x22) {
            *last ^= 1;
        }
        checked.waiting.push(flow.clone());
        coalescer.push(flow, &mut checked);
    }
    coalescer.flush(&mut checked);
    assert!(checked.waiting.is_empty(), "{} packets were lost", checked.waiting.len());
}

fn mended(mut packet: Vec<u8>) -> Vec<u8> {
    mend(&mut packet);
    packet
}

/// The packet that would follow another one of its flow.
fn next_of(packet: &[u8], payload: &[u8], push: bool) -> Vec<u8> {
    let udp = packet.get(9) == Some(&UDP);
    let tcp = packet.get(32).map_or(0, |length| usize::from(length >> 4) * 4);
    let headers = 20 + if udp { 8 } else { tcp.max(20) };
    let Some(carried) = packet.len().checked_sub(headers) else { return payload.to_vec() };
    let mut next = [&packet[..headers], payload].concat();
    let id = u16::from_be_bytes([next[4], next[5]]).wrapping_add(1);
    next[4..6].copy_from_slice(&id.to_be_bytes());
    if !udp {
        let seq = u32::from_be_bytes([next[24], next[25], next[26], next[27]]).wrapping_add(carried as u32);
        next[24..28].copy_from_slice(&seq.to_be_bytes());
        next[33] |= if push { flag::PSH } else { 0 };
    }
    mended(next)
}

/// Cuts what is handed to the interface, and looks for each packet among those that went in.
struct Checked<'a> {
    /// In the order in which they went in.
    waiting: Vec<Vec<u8>>,
    room: Vec<u8>,
    reach: Reach<'a>,
}

impl Sink for Checked<'_> {
    fn write(&mut self, header: &[u8; HEADER], packet: &[u8]) {
        assert!(packet.len() <= 65_535);
        let mut whole = [&header[..], packet].concat();
        let parcel = Parcel::read(&mut whole).expect("what was put together can be cut");
        let count = parcel.count();
        assert!(count <= MOST, "{count} packets became one");
        for at in 0..count {
            let segment = parcel.segment(at, &mut self.room);
            // The first of its flow that waits, or one overtook another.
            let of_flow = |waiting: &Vec<u8>| flow_of(waiting) == flow_of(segment);
            let first = self.waiting.iter().position(of_flow).expect("nothing comes out that did not go in");
            let wanted = self.waiting.remove(first);
            if count == 1 {
                assert_eq!(segment, wanted, "a lone packet was changed");
            } else {
                assert_eq!(comparable(segment), comparable(&wanted), "packet {at} of {count}");
            }
        }
        match (count, packet.get(9)) {
            (MOST, _) => (self.reach)("as many as there may be"),
            (2.., Some(&TCP)) => (self.reach)("tcp joined"),
            (2.., _) => (self.reach)("udp joined"),
            _ => {}
        }
    }
}

/// Addresses, ports and protocol of what looks like IPv4; what does not is all of one flow.
fn flow_of(packet: &[u8]) -> Option<(u8, &[u8])> {
    let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    Some((*packet.get(9)?, packet.get(12..24)?)).filter(|_| is_v4)
}

/// A joined packet without what may differ: the id of one that may not be fragmented means nothing (RFC 6864), and
/// ones' complement has two zeros.
fn comparable(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    assert_eq!(naive_checksum(&packet[..20]), 0, "its header's checksum is wrong");
    packet[10..12].fill(0);
    if packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
    }
    let place = 20 + if packet[9] == UDP { 6 } else { 16 };
    if packet[place..place + 2] == [0xff, 0xff] {
        packet[place..place + 2].fill(0);
    }
    packet
}
