//! The header that the kernel puts before every packet of an interface made with `IFF_VNET_HDR`
//! (`struct virtio_net_hdr`, linux/virtio_net.h), in the machine's byte order.

use crate::packet::Malformed;

/// Its length.
pub const HEADER: usize = 10;
/// The checksum field holds the sum of the pseudo-header only; whoever cuts the packet completes it.
const NEEDS_CHECKSUM: u8 = 1;
/// The flow knows explicit congestion notification: CWR belongs to the first segment only.
const ECN: u8 = 0x80;

/// What a packet is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// It is one packet.
    #[default]
    Whole,
    Tcp4,
    Tcp6,
    /// UDP over IPv4 or IPv6 (`VIRTIO_NET_HDR_GSO_UDP_L4`).
    Udp,
}

/// The header's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    pub kind: Kind,
    pub needs_checksum: bool,
    /// Bytes of IP and TCP or UDP headers: a hint, which the kernel itself does not always get right.
    pub headers: u16,
    /// Bytes of payload in every segment but the last.
    pub size: u16,
    /// Where in the packet the bytes begin that the checksum covers.
    pub checksum_start: u16,
    /// Where behind `checksum_start` the checksum stands.
    pub checksum_offset: u16,
}

impl Header {
    /// Reads the header; a kind of segments that nobody asked the kernel for is malformed.
    pub fn read(bytes: &[u8; HEADER]) -> Result<Self, Malformed> {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let kind = match bytes[1] & !ECN {
            0 => Kind::Whole,
            1 => Kind::Tcp4,
            4 => Kind::Tcp6,
            5 => Kind::Udp,
            _ => return Err(Malformed::Version),
        };
        Ok(Self {
            kind,
            needs_checksum: bytes[0] & NEEDS_CHECKSUM != 0,
            headers: word(2),
            size: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
        })
    }

    /// Writes the header.
    pub fn bytes(&self) -> [u8; HEADER] {
        let kind = match self.kind {
            Kind::Whole => 0,
            Kind::Tcp4 => 1,
            Kind::Tcp6 => 4,
            Kind::Udp => 5,
        };
        let mut bytes = [0; HEADER];
        bytes[0] = if self.needs_checksum { NEEDS_CHECKSUM } else { 0 };
        bytes[1] = kind;
        let words = [self.headers, self.size, self.checksum_start, self.checksum_offset];
        for (place, word) in bytes[2..].chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        for kind in [Kind::Whole, Kind::Tcp4, Kind::Tcp6, Kind::Udp] {
            for needs_checksum in [false, true] {
                let header =
                    Header { kind, needs_checksum, headers: 52, size: 1368, checksum_start: 20, checksum_offset: 16 };
                assert_eq!(Header::read(&header.bytes()), Ok(header));
            }
        }
    }

    #[test]
    fn congestion_marks_change_nothing_and_unknown_kinds_are_refused() {
        let mut bytes = Header { kind: Kind::Tcp4, ..Header::default() }.bytes();
        bytes[1] |= 0x80;
        assert_eq!(Header::read(&bytes).map(|header| header.kind), Ok(Kind::Tcp4));
        // UFO (3) was withdrawn, and was never asked for.
        for kind in [2, 3, 6, 0x7f] {
            bytes[1] = kind;
            assert_eq!(Header::read(&bytes), Err(Malformed::Version));
        }
    }
}
