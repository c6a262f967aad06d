//! A device under arbitrary input, for fuzzing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use thinlane_model::{Boot, Now, Protocol, Secret, SessionId, Span, Tuple, Wall};

use super::{ROOM, Switch};
use crate::device::{Event, LaneRole, LaneSpec};
use crate::key::public_of;
use crate::lane::{Output, kind};
use crate::offload::parcel::Parcel;
use crate::packet::sample::{Reach, mend};
use crate::packet::{self, number};

/// The index of the one lane, as a peer would name it.
const INDEX: u32 = 0x0012_3456;
const ENGINEER: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
const ASSET: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const PORT: u16 = 2404;
const FROM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 7443);
const OURS: [u8; 32] = [9; 32];
const PEERS: [u8; 32] = [7; 32];

/// What the device sends and hands over.
struct Outside {
    space: Vec<u8>,
    datagrams: Vec<Vec<u8>>,
    /// What reached the site.
    packets: u64,
    events: u64,
}

impl Output for Outside {
    fn space(&mut self) -> &mut [u8] {
        &mut self.space
    }

    fn send(&mut self, _: SocketAddr, length: usize) {
        self.datagrams.push(self.space[..length].to_vec());
    }

    fn interface(&mut self, bytes: &[u8]) {
        let ip = packet::parse_ipv4(bytes).expect("what reaches the site is well formed");
        assert_eq!((ip.source, ip.destination), (ENGINEER, ASSET));
        let port = ip.destination_port().is_none_or(|port| port == PORT);
        assert!(matches!(ip.protocol, number::ICMP | number::TCP) && port, "it is not the lane's");
        self.packets += 1;
    }

    fn interface_alone(&mut self, packet: &[u8]) {
        self.interface(packet);
    }

    fn event(&mut self, _: Event) {
        self.events += 1;
    }
}

/// Feeds a gateway's device with datagrams, packets and time: it neither panics, nor lets anything through for who has no
/// key, nor what is not the lane's for who has one.
///
/// The lowest bit of the first byte says whether there is a peer with a key. The rest is a list of {what, length,
/// content}; with a key, of `what`, bit 3 has a packet mended and bit 4 its datagram come twice. The clock of the cipher
/// is the machine's own.
pub fn fuzz_device(bytes: &[u8], reach: Reach<'_>) {
    let Some((steer, mut bytes)) = bytes.split_first() else { return };
    let mut switch = Switch::new(1420);
    let mut outside = Outside { space: vec![0; ROOM], datagrams: Vec::new(), packets: 0, events: 0 };
    let mut now = Now { mono: Boot(1_000_000), wall: Wall::from_millis(0) };
    let tuple = Tuple { engineer: ENGINEER, destination: ASSET, address: ASSET, protocol: Protocol::Tcp, port: PORT };
    let spec = LaneSpec {
        session: SessionId::from_random([1; 5]),
        private: Secret::new(OURS),
        peer: public_of(&Secret::new(PEERS)).expect("a key"),
        preshared: None,
        endpoint: None,
        keepalive: Some(25),
        initiate: true,
        role: LaneRole::Gateway { tuple, deadline: now.mono + Span::from_secs(1000) },
    };
    switch.open(spec, &mut || INDEX << 8, now, &mut outside).expect("the first lane opens");
    let mut peer = (steer & 1 == 1).then(|| Peer::meet(&mut switch, now, &mut outside));
    while let Some(([what, length], rest)) = bytes.split_first_chunk() {
        let (content, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        bytes = rest;
        match what % 8 {
            0 => {
                let mut bytes = content.to_vec();
                let parcel = if what & 8 == 0 { Ok(Parcel::whole(&mut bytes)) } else { Parcel::read(&mut bytes) };
                if let Ok(mut parcel) = parcel {
                    switch.take_parcel(&mut parcel, now, &mut outside);
                }
            }
            1 => {
                now.mono = now.mono + Span::from_millis(u64::from(*length) * 100);
                switch.on_time(now, &mut outside);
            }
            2 => switch.take_datagrams(content, usize::from(*what), FROM, now, &mut outside),
            6 | 7 if peer.is_some() => {
                let sealed = peer.as_mut().and_then(|peer| peer.seal(content, what & 8 != 0)).unwrap_or_default();
                for _ in 0..1 + (what >> 4 & 1) {
                    switch.take_datagrams(&sealed, sealed.len(), FROM, now, &mut outside);
                }
            }
            // The rest get far enough to be looked at: a known type, a known index, a right length.
            shape => {
                let datagram = shaped(shape, content);
                switch.take_datagrams(&datagram, datagram.len(), FROM, now, &mut outside);
            }
        }
        for datagram in std::mem::take(&mut outside.datagrams) {
            match &mut peer {
                Some(peer) => peer.hear(&datagram, reach),
                None => assert_ne!(datagram.first(), Some(&kind::DATA), "data without a key"),
            }
        }
    }
    if peer.is_none() {
        assert_eq!((outside.packets, outside.events), (0, 0), "a packet or a handshake without a key");
    }
    if outside.packets > 0 {
        reach("a packet reaches the site");
    }
}

/// Who has a key: an engineer that does not keep to what is agreed.
struct Peer {
    tunn: Tunn,
    room: Vec<u8>,
}

impl Peer {
    /// Makes the handshake.
    fn meet(switch: &mut Switch, now: Now, outside: &mut Outside) -> Self {
        let public = public_of(&Secret::new(OURS)).expect("a key");
        let public = x25519::PublicKey::from(*public.as_bytes());
        let tunn = Tunn::new(x25519::StaticSecret::from(PEERS), public, None, None, 77, None);
        let mut peer = Self { tunn, room: vec![0; ROOM] };
        let mut carry = |result: TunnResult<'_>| {
            let TunnResult::WriteToNetwork(message) = result else { panic!("the peer says nothing") };
            switch.take_datagrams(message, message.len(), FROM, now, outside);
            outside.datagrams.pop()
        };
        let response = carry(peer.tunn.format_handshake_initiation(&mut peer.room, true)).expect("a response");
        let _ = carry(peer.tunn.decapsulate(None, &response, &mut peer.room));
        assert_eq!(outside.events, 1, "one handshake");
        outside.datagrams.clear();
        peer
    }

    fn seal(&mut self, content: &[u8], mended: bool) -> Option<Vec<u8>> {
        let mut packet = content.to_vec();
        if mended {
            mend(&mut packet);
        }
        match self.tunn.encapsulate(&packet, &mut self.room) {
            TunnResult::WriteToNetwork(message) => Some(message.to_vec()),
            _ => None,
        }
    }

    /// What comes back is from the asset, or a reset in its name.
    fn hear(&mut self, datagram: &[u8], reach: Reach<'_>) {
        if let TunnResult::WriteToTunnelV4(bytes, _) = self.tunn.decapsulate(None, datagram, &mut self.room) {
            let ip = packet::parse_ipv4(bytes).expect("what comes back is well formed");
            assert_eq!(ip.destination, ENGINEER);
            reach("a packet comes back");
        }
    }
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
