//! The four WireGuard messages, as far as one without keys can read them (WireGuard, sections 5.4.2 to 5.4.7).

/// A handshake message's bytes under MAC1, and MAC1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp<'a> {
    pub covered: &'a [u8],
    pub mac1: &'a [u8; 16],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    /// Type 1: `sender` is the index under which its maker wants to be answered.
    Initiation { sender: u32, stamp: Stamp<'a> },
    /// Type 2: answers `receiver`, wants data under `sender`.
    Response { sender: u32, receiver: u32, stamp: Stamp<'a> },
    /// Type 3.
    Cookie { receiver: u32 },
    /// Type 4.
    Data { receiver: u32, counter: u64 },
}

impl<'a> Packet<'a> {
    /// Reads a datagram; `None`: it is no WireGuard message.
    pub(crate) fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (kind, rest) = datagram.split_first_chunk::<4>()?;
        let (first, rest) = rest.split_first_chunk::<4>()?;
        let first = u32::from_le_bytes(*first);
        match (u32::from_le_bytes(*kind), datagram.len()) {
            (1, 148) => Some(Packet::Initiation { sender: first, stamp: Stamp::of(datagram)? }),
            (2, 92) => {
                let receiver = u32::from_le_bytes(*rest.first_chunk()?);
                Some(Packet::Response { sender: first, receiver, stamp: Stamp::of(datagram)? })
            }
            (3, 64) => Some(Packet::Cookie { receiver: first }),
            // Header 16, tag 16: an empty one is a keepalive.
            (4, 32..) => Some(Packet::Data { receiver: first, counter: u64::from_le_bytes(*rest.first_chunk()?) }),
            _ => None,
        }
    }
}

impl<'a> Stamp<'a> {
    /// MAC1 and MAC2 are the last two times 16 bytes of both handshake messages.
    fn of(datagram: &'a [u8]) -> Option<Self> {
        let (head, _mac2) = datagram.split_last_chunk::<16>()?;
        let (covered, mac1) = head.split_last_chunk::<16>()?;
        Some(Self { covered, mac1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u8, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
        bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
        bytes
    }

    #[test]
    fn the_four_messages_are_read_at_their_documented_places() {
        let bytes = message(1, 148);
        let mac1: [u8; 16] = std::array::from_fn(|at| 116 + at as u8);
        let stamp = Stamp { covered: &bytes[..116], mac1: &mac1 };
        assert_eq!(Packet::parse(&bytes), Some(Packet::Initiation { sender: 0x0706_0504, stamp }));
        let bytes = message(2, 92);
        let mac1: [u8; 16] = std::array::from_fn(|at| 60 + at as u8);
        let stamp = Stamp { covered: &bytes[..60], mac1: &mac1 };
        let response = Packet::Response { sender: 0x0706_0504, receiver: 0x0b0a_0908, stamp };
        assert_eq!(Packet::parse(&bytes), Some(response));
        assert_eq!(Packet::parse(&message(3, 64)), Some(Packet::Cookie { receiver: 0x0706_0504 }));
        let data = Packet::Data { receiver: 0x0706_0504, counter: 0x0f0e_0d0c_0b0a_0908 };
        assert_eq!(Packet::parse(&message(4, 32)), Some(data));
        assert_eq!(Packet::parse(&message(4, 1500)), Some(data));
    }

    #[test]
    fn other_types_lengths_and_reserved_bytes_are_no_message() {
        for (kind, len) in
            [(1, 147), (1, 149), (2, 91), (2, 93), (3, 63), (3, 65), (4, 31), (0, 148), (5, 64), (255, 32)]
        {
            assert_eq!(Packet::parse(&message(kind, len)), None, "type {kind}, {len} bytes");
        }
        for at in 1..4 {
            let mut bytes = message(4, 64);
            bytes[at] = 1;
            assert_eq!(Packet::parse(&bytes), None, "reserved byte {at}");
        }
        assert_eq!(Packet::parse(&[]), None);
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..6) {
            let _ = Packet::parse(&bytes);
            let mut bytes = bytes;
            bytes.splice(0..bytes.len().min(4), [kind, 0, 0, 0]);
            let _ = Packet::parse(&bytes);
        }
    }
}
