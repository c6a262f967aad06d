//! A device under arbitrary input, for fuzzing.

use std::net::{Ipv4Addr, SocketAddr};

use thinlane_model::{Boot, Now, Protocol, Secret, SessionId, Span, Tuple, Wall};

use super::{ROOM, Switch};
use crate::device::{Event, LaneRole, LaneSpec};
use crate::key::public_of;
use crate::lane::{Output, kind};
use crate::offload::parcel::Parcel;

/// The index of the one lane, as a peer would name it.
const INDEX: u32 = 0x0012_3456;

/// Counts what would have reached the site.
struct Count {
    packets: u64,
    space: Vec<u8>,
}

impl Output for Count {
    fn space(&mut self) -> &mut [u8] {
        &mut self.space
    }
    fn send(&mut self, _: SocketAddr, length: usize) {
        assert!(length <= self.space.len());
    }
    fn interface(&mut self, _: &[u8]) {
        self.packets += 1;
    }
    fn interface_alone(&mut self, packet: &[u8]) {
        self.interface(packet);
    }
    fn event(&mut self, _: Event) {}
}

/// Feeds a gateway's device with datagrams, packets and time: it neither panics, nor lets anything through for
/// who has no key.
///
/// The bytes are a list of {what, length, content}. The clock of the cipher is the machine's own.
pub fn fuzz_device(mut bytes: &[u8]) {
    let mut switch = Switch::new(1420);
    let mut count = Count { packets: 0, space: vec![0; ROOM] };
    let mut now = Now { mono: Boot(1_000_000), wall: Wall::from_millis(0) };
    let engineer = Ipv4Addr::new(198, 19, 0, 1);
    let destination = Ipv4Addr::new(198, 18, 0, 1);
    let tuple = Tuple { engineer, destination, address: destination, protocol: Protocol::Tcp, port: 2404 };
    let peer = public_of(&Secret::new([7; 32])).expect("a key");
    let spec = LaneSpec {
        session: SessionId::from_random([1; 5]),
        private: Secret::new([9; 32]),
        peer,
        preshared: None,
        endpoint: None,
        keepalive: Some(25),
        initiate: true,
        role: LaneRole::Gateway { tuple, deadline: now.mono + Span::from_secs(1000) },
    };
    switch.open(spec, &mut || INDEX << 8, now, &mut count).expect("the first lane opens");
    let from = SocketAddr::from(([192, 0, 2, 1], 7443));
    while let Some(([what, length], rest)) = bytes.split_first_chunk() {
        let (content, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        bytes = rest;
        match what % 8 {
            0 => {
                let mut bytes = content.to_vec();
                let parcel = if what & 8 == 0 { Ok(Parcel::whole(&mut bytes)) } else { Parcel::read(&mut bytes) };
                if let Ok(mut parcel) = parcel {
                    switch.take_parcel(&mut parcel, now, &mut count);
                }
            }
            1 => {
                now.mono = now.mono + Span::from_millis(u64::from(*length) * 100);
                switch.on_time(now, &mut count);
            }
            2 => switch.take_datagrams(content, usize::from(*what), from, now, &mut count),
            // The rest get far enough to be looked at: a known type, a known index, a right length.
            shape => {
                let datagram = shaped(shape, content);
                switch.take_datagrams(&datagram, datagram.len(), from, now, &mut count);
            }
        }
    }
    assert_eq!(count.packets, 0, "a packet without a key");
}

fn shaped(shape: u8, content: &[u8]) -> Vec<u8> {
    let (kind, at, length) = match shape {
        3 => (kind::INITIATION, 4, 148),
        4 => (kind::RESPONSE, 8, 92),
        5 => (kind::COOKIE, 4, 64),
        _ => (kind::DATA, 4, content.len().max(32)),
    };
    let mut datagram = content.to_vec();
    datagram.resize(length, 0x5a);
    datagram[..4].copy_from_slice(&[kind, 0, 0, 0]);
    let cycle = datagram[at] & 7;
    datagram[at..at + 4].copy_from_slice(&(INDEX << 8 | u32::from(cycle)).to_le_bytes());
    datagram
}
