//! The arithmetic of large packets under arbitrary input, for fuzzing.

use super::coalesce::{Coalescer, Sink};
use super::header::{HEADER, Header};
use super::parcel::Parcel;
use crate::packet;

/// Checks what is handed to the interface: it can be cut again, and is not longer than what came.
struct Checked {
    packets: usize,
    bytes: usize,
}

impl Sink for Checked {
    fn write(&mut self, header: &[u8; HEADER], packet: &[u8]) {
        let mut whole = [&header[..], packet].concat();
        let parcel = Parcel::read(&mut whole).expect("what was put together can be cut");
        self.packets += parcel.count();
        self.bytes += parcel.total();
    }
}

/// A header that can be read is written as the same fields.
pub fn fuzz_header(bytes: &[u8]) {
    let Some((header, _)) = bytes.split_first_chunk::<HEADER>() else { return };
    if let Ok(header) = Header::read(header) {
        assert_eq!(Header::read(&header.bytes()), Ok(header));
    }
}

/// Whatever the interface hands over, cutting it yields segments that add up to it.
pub fn fuzz_segment(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    let Ok(parcel) = Parcel::read(&mut bytes) else { return };
    let mut room = vec![0; 65_535];
    let mut total = 0;
    for at in 0..parcel.count() {
        let segment = parcel.segment(at, &mut room);
        assert!(!segment.is_empty() || parcel.total() == 0);
        total += segment.len();
        if parcel.count() > 1
            && let Ok(ip) = packet::parse_ipv4(segment)
            && ip.protocol == packet::number::TCP
            && let Ok(tcp) = ip.tcp()
        {
            assert!(tcp.payload > 0);
        }
    }
    assert_eq!(total, parcel.total());
    assert!(parcel.segment(parcel.count(), &mut room).is_empty());
}

/// Whatever leaves the tunnel, no packet and no byte is lost or made when it is put together.
///
/// The bytes are a list of {length (2), content}.
pub fn fuzz_coalesce(mut bytes: &[u8]) {
    let mut coalescer = Coalescer::new(true);
    let mut checked = Checked { packets: 0, bytes: 0 };
    let (mut packets, mut length) = (0, 0);
    while let Some((size, rest)) = bytes.split_first_chunk::<2>() {
        let (packet, rest) = rest.split_at(usize::from(u16::from_be_bytes(*size)).min(rest.len()));
        bytes = rest;
        packets += 1;
        length += packet.len();
        coalescer.push(packet, &mut checked);
    }
    coalescer.flush(&mut checked);
    assert_eq!((checked.packets, checked.bytes), (packets, length));
}
