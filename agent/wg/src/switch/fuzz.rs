//! A device under arbitrary input, for fuzzing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use blake2::digest::consts::U16;
use blake2::digest::{Digest as _, Mac as _};
use blake2::{Blake2s256, Blake2sMac};
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
const SESSION: [u8; 5] = [1; 5];
const ENGINEER: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
const ASSET: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const PORT: u16 = 2404;
const FROM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 7443);
const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 7443);
const THIRD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3)), 7443);
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
/// content}; with a key, of `what`, bit 3 has a packet mended and bit 4 its datagram come twice. Handshake messages come
/// with a MAC1 that is right where bit 3 says so; with a key, bit 4 makes them the peer's own next one, and bit 5 has
/// that changed by the content. Bit 6 has what is no packet come from elsewhere: only what the peer made, unchanged and
/// for the first time, moves the lane there. The clock of the cipher is the machine's own.
pub fn fuzz_device(bytes: &[u8], reach: Reach<'_>) {
    let Some((steer, mut bytes)) = bytes.split_first() else { return };
    let mut switch = Switch::new(1420);
    let mut outside = Outside { space: vec![0; ROOM], datagrams: Vec::new(), packets: 0, events: 0 };
    let mut now = Now { mono: Boot(1_000_000), wall: Wall::from_millis(0) };
    let tuple = Tuple { engineer: ENGINEER, destination: ASSET, address: ASSET, protocol: Protocol::Tcp, port: PORT };
    let spec = LaneSpec {
        session: SessionId::from_random(SESSION),
        private: Secret::new(OURS),
        peer: public_of(&Secret::new(PEERS)).expect("a key"),
        preshared: None,
        endpoint: None,
        fallback: None,
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
            // The rest get far enough to be looked at: a known type, a known index, a right length, perhaps MAC1.
            shape => {
                let from = if what & 0x40 == 0 { FROM } else { ELSEWHERE };
                let own = peer.as_mut().filter(|_| what & 16 != 0).and_then(|peer| peer.handshake(shape));
                let mut datagram = own.clone().unwrap_or_else(|| shaped(shape, content));
                if own.is_some() && what & 32 != 0 {
                    // What MAC1 covers, but for type and index.
                    let end = datagram.len() - 32;
                    datagram[12..end].iter_mut().zip(content).for_each(|(place, change)| *place ^= change);
                }
                if what & 8 != 0 && matches!(datagram[0], kind::INITIATION | kind::RESPONSE) {
                    stamp(&mut datagram);
                    reach("a handshake message with a right MAC1");
                }
                let before = endpoint(&mut switch);
                switch.take_datagrams(&datagram, datagram.len(), from, now, &mut outside);
                if endpoint(&mut switch) != before {
                    assert_eq!(own.as_ref(), Some(&datagram), "who is not the peer moves the lane");
                    reach("the peer's own handshake moves the lane");
                    switch.take_datagrams(&datagram, datagram.len(), THIRD, now, &mut outside);
                    assert_eq!(endpoint(&mut switch), Some(from), "a copy moves the lane");
                }
            }
        }
        for datagram in std::mem::take(&mut outside.datagrams) {
            match &mut peer {
                Some(peer) => {
                    if let Some(confirmation) = peer.hear(&datagram, reach) {
                        reach("the peer's next keys");
                        switch.take_datagrams(&confirmation, confirmation.len(), FROM, now, &mut outside);
                    }
                }
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

    /// Its next initiation; it has no response to what it was not asked.
    fn handshake(&mut self, shape: u8) -> Option<Vec<u8>> {
        match self.tunn.format_handshake_initiation(&mut self.room, true) {
            TunnResult::WriteToNetwork(message) if shape == 3 => Some(message.to_vec()),
            _ => None,
        }
    }

    /// What comes back is from the asset, or a reset in its name; or it answers a handshake, whose last message this is.
    fn hear(&mut self, datagram: &[u8], reach: Reach<'_>) -> Option<Vec<u8>> {
        let asked = datagram.first() == Some(&kind::RESPONSE);
        match self.tunn.decapsulate(None, datagram, &mut self.room) {
            TunnResult::WriteToTunnelV4(bytes, _) => {
                let ip = packet::parse_ipv4(bytes).expect("what comes back is well formed");
                assert_eq!(ip.destination, ENGINEER);
                reach("a packet comes back");
                None
            }
            TunnResult::WriteToNetwork(message) if asked => Some(message.to_vec()),
            _ => None,
        }
    }
}

/// Where the device believes its peer to be.
fn endpoint(switch: &mut Switch) -> Option<SocketAddr> {
    switch.report(SessionId::from_random(SESSION))?.endpoint
}

/// Writes MAC1 for the device's key.
fn stamp(message: &mut [u8]) {
    let public = public_of(&Secret::new(OURS)).expect("a key");
    let key = Blake2s256::new().chain_update(b"mac1----").chain_update(public.as_bytes()).finalize();
    let (covered, macs) = message.split_at_mut(message.len() - 32);
    let mac = Blake2sMac::<U16>::new_from_slice(&key).expect("BLAKE2s takes keys of 32 bytes");
    macs[..16].copy_from_slice(&mac.chain_update(covered).finalize().into_bytes());
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
