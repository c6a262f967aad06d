//! The WireGuard end of a lane: packets to datagrams and back.
//!
//! No I/O. `Tunn` does the cryptography and reads the boot clock itself; when to handshake and to keep the path open
//! is decided by [`crate::timing`].

use std::net::IpAddr;

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use smoltcp::time::Instant;
use thinlane_model::{PublicKey, Secret};
use thinlane_packet::Recent;

use crate::timing::Timing;

/// What a data message has around its packet: type, index, counter, tag.
pub const OVERHEAD: usize = 32;
/// The longest datagram.
const LONGEST: usize = 65_535;

/// The first byte of a message.
mod kind {
    pub const INITIATION: u8 = 1;
    pub const RESPONSE: u8 = 2;
    pub const DATA: u8 = 4;
}

/// What an incoming datagram was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard<'a> {
    /// Not from our peer, or one that came before.
    Nothing,
    /// From our peer, and no packet.
    Peer,
    /// A packet from our peer.
    Packet(&'a [u8]),
}

/// One tunnel to one peer.
pub struct Tunnel {
    tunn: Box<Tunn>,
    timing: Timing,
    room: Vec<u8>,
    handshakes: u64,
    /// Our index in the last response that was sent and not yet confirmed by data.
    unconfirmed: Option<u32>,
    /// The handshake messages that were looked at last.
    recent: Recent,
}

impl Tunnel {
    /// Makes one end; `index` should be random, relays tell sessions apart by it.
    pub fn new(
        private: &Secret,
        peer: &PublicKey,
        preshared: Option<&Secret>,
        keepalive: u16,
        index: u32,
        now: Instant,
    ) -> Self {
        let tunn = Tunn::new(
            x25519::StaticSecret::from(*private.expose()),
            x25519::PublicKey::from(*peer.as_bytes()),
            preshared.map(|key| *key.expose()),
            None,
            index & 0x00ff_ffff,
            None,
        );
        Self {
            tunn: Box::new(tunn),
            timing: Timing::new(keepalive, now),
            room: vec![0; LONGEST + OVERHEAD],
            handshakes: 0,
            unconfirmed: None,
            recent: Recent::default(),
        }
    }

    /// How many handshakes were completed.
    pub fn handshakes(&self) -> u64 {
        self.handshakes
    }

    /// Whether packets can be sealed now.
    pub fn is_live(&self, now: Instant) -> bool {
        self.handshakes > 0 && self.timing.is_live(now)
    }

    /// Whether an answer has been missing for a while; see [`Timing::misses`].
    pub fn misses(&self, now: Instant) -> bool {
        self.timing.misses(now)
    }

    /// Whether another way to the peer should be tried; see [`Timing::doubts`].
    pub fn doubts(&mut self, now: Instant) -> bool {
        self.timing.doubts(now)
    }

    /// There is more than one way to the peer; see [`Timing::has_choice`].
    pub fn has_choice(&mut self) {
        self.timing.has_choice();
    }

    /// The way to the peer has changed: it learns so by a new handshake.
    pub fn hurry(&mut self) {
        self.timing.hurry();
    }

    /// When `tick` is wanted next.
    pub fn due(&self, now: Instant) -> Instant {
        self.timing.due(now)
    }

    /// Encrypts a packet; call it while the tunnel is live.
    pub fn seal(&mut self, packet: &[u8], now: Instant, send: &mut dyn FnMut(&[u8])) {
        if let TunnResult::WriteToNetwork(message) = self.tunn.encapsulate(packet, &mut self.room) {
            note(&mut self.timing, message, !packet.is_empty(), now);
            send(message);
        }
    }

    /// Acts on time having passed: handshakes and keepalives.
    pub fn tick(&mut self, now: Instant, send: &mut dyn FnMut(&[u8])) {
        if self.timing.is_stale(now) {
            self.timing.ticked(now);
            match self.tunn.update_timers(&mut self.room) {
                TunnResult::WriteToNetwork(message) => {
                    note(&mut self.timing, message, false, now);
                    send(message);
                }
                // Keys wiped, or attempts given up: ours go on.
                TunnResult::Err(_) => self.timing.gave_up(),
                _ => {}
            }
        }
        if self.timing.wants_handshake(now) {
            // Also when there is nothing to send: it must not be asked again at once.
            self.timing.began(now);
            if let TunnResult::WriteToNetwork(message) = self.tunn.format_handshake_initiation(&mut self.room, true) {
                send(message);
            }
        } else if self.timing.wants_keepalive(now) {
            self.seal(&[], now, send);
        }
    }

    /// Takes a datagram; what answers it is sent.
    pub fn open(&mut self, datagram: &[u8], from: IpAddr, now: Instant, send: &mut dyn FnMut(&[u8])) -> Heard<'_> {
        // Of the four bytes of the type three are zero; another one is no message, whatever `Tunn` calls it.
        let kind = match datagram {
            [kind, 0, 0, 0, ..] => *kind,
            _ => return Heard::Nothing,
        };
        let handshake = matches!(kind, kind::INITIATION | kind::RESPONSE);
        if handshake && self.recent.knows(datagram) {
            // Copies, the only thing that strangers have, would make `Tunn` ask the peer itself for cookies.
            return Heard::Nothing;
        }
        if self.timing.is_stale(now) {
            // `Tunn` stamps a new key with the time that it was last told.
            self.tick(now, send);
        }
        let result = self.tunn.decapsulate(Some(from), datagram, &mut self.room);
        if handshake && !matches!(result, TunnResult::Err(WireGuardError::InvalidMac)) {
            self.recent.note(datagram);
        }
        let length = match result {
            TunnResult::Done if kind == kind::DATA => 0,
            // A cookie: the next initiation carries it. It shows nothing of where the peer is.
            TunnResult::Done => return Heard::Nothing,
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => packet.len(),
            // Decrypted, thus the peer's, but no IP packet.
            TunnResult::Err(WireGuardError::InvalidPacket) if kind == kind::DATA && datagram.len() > OVERHEAD => 0,
            TunnResult::Err(error) => {
                tracing::trace!(?error, kind, "message refused");
                return Heard::Nothing;
            }
            TunnResult::WriteToNetwork(reply) => {
                let index = reply.get(4..8).and_then(|index| index.try_into().ok()).map(u32::from_le_bytes);
                match (kind, reply.first().copied()) {
                    (kind::INITIATION, Some(kind::RESPONSE)) => {
                        send(reply);
                        self.timing.heard(false, now);
                        self.timing.answered(now);
                        self.unconfirmed = index;
                    }
                    (kind::RESPONSE, Some(kind::DATA)) => {
                        send(reply);
                        self.timing.heard(false, now);
                        self.timing.sent(false, now);
                        self.established(true, now, send);
                    }
                    // A cookie of our own: whoever sent this has shown nothing yet. Nobody but the peer can write
                    // messages that make work, so it is not sent: the peer tries again by itself.
                    _ => return Heard::Nothing,
                }
                return Heard::Peer;
            }
        };
        self.timing.heard(length > 0, now);
        let index = datagram.get(4..8).and_then(|index| index.try_into().ok()).map(u32::from_le_bytes);
        if self.unconfirmed.is_some() && self.unconfirmed == index {
            // Data under a key that we answered for shows that the peer has it, too.
            self.confirmed(now);
        }
        if length > 0 { Heard::Packet(&self.room[..length]) } else { Heard::Peer }
    }

    fn confirmed(&mut self, now: Instant) {
        self.unconfirmed = None;
        self.handshakes += 1;
        self.timing.established(false, now);
    }

    fn established(&mut self, initiator: bool, now: Instant, send: &mut dyn FnMut(&[u8])) {
        self.unconfirmed = None;
        self.handshakes += 1;
        self.timing.established(initiator, now);
        // At most as many as `Tunn` keeps waiting.
        for _ in 0..256 {
            let TunnResult::WriteToNetwork(message) = self.tunn.decapsulate(None, &[], &mut self.room) else { break };
            note(&mut self.timing, message, true, now);
            send(message);
        }
    }
}

fn note(timing: &mut Timing, message: &[u8], data: bool, now: Instant) {
    match message.first() {
        Some(&kind::INITIATION) => timing.began(now),
        _ => timing.sent(data, now),
    }
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("Tunnel").field("timing", &self.timing).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    fn keys(byte: u8) -> (Secret, PublicKey) {
        let private = [byte; 32];
        let public = x25519::PublicKey::from(&x25519::StaticSecret::from(private));
        (Secret::new(private), PublicKey::new(public.to_bytes()).expect("a key"))
    }

    fn pair(preshared: [u8; 2]) -> (Tunnel, Tunnel) {
        let ((a, a_public), (b, b_public)) = (keys(1), keys(2));
        let [one, other] = preshared.map(|byte| Secret::new([byte; 32]));
        (Tunnel::new(&a, &b_public, Some(&one), 25, 7, NOW), Tunnel::new(&b, &a_public, Some(&other), 25, 9, NOW))
    }

    fn local() -> IpAddr {
        [127, 0, 0, 1].into()
    }

    /// Delivers until nobody says anything more; the packets that came out at `to`.
    fn deliver(first: Vec<Vec<u8>>, to: &mut Tunnel, from: &mut Tunnel) -> Vec<Vec<u8>> {
        let (mut packets, mut towards, mut back) = (Vec::new(), first, Vec::new());
        for _ in 0..8 {
            for datagram in towards.drain(..) {
                if let Heard::Packet(packet) = to.open(&datagram, local(), NOW, &mut |m| back.push(m.to_vec())) {
                    packets.push(packet.to_vec());
                }
            }
            for datagram in back.drain(..) {
                let _ = from.open(&datagram, local(), NOW, &mut |m| towards.push(m.to_vec()));
            }
        }
        packets
    }

    /// What answers an initiation, among what was said.
    fn response(said: Vec<Vec<u8>>) -> Option<Vec<u8>> {
        said.into_iter().find(|message| message[0] == kind::RESPONSE)
    }

    fn sent(act: impl FnOnce(&mut dyn FnMut(&[u8]))) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        act(&mut |message| all.push(message.to_vec()));
        all
    }

    #[test]
    fn two_ends_handshake_and_packets_cross() {
        let (mut a, mut b) = pair([5, 5]);
        let initiation = sent(|send| a.tick(NOW, send));
        assert_eq!(initiation.len(), 1);
        deliver(initiation, &mut b, &mut a);
        assert!(a.is_live(NOW) && b.is_live(NOW));
        assert_eq!((a.handshakes(), b.handshakes()), (1, 1));
        let packet = crate::packet::fragments(
            crate::packet::Ipv4 {
                source: [198, 19, 0, 1].into(),
                destination: [198, 18, 0, 1].into(),
                protocol: 17,
                id: 1,
                more_fragments: false,
                offset: 0,
                payload: &[1; 64],
            },
            1200,
        )
        .next()
        .expect("one");
        let sealed = sent(|send| a.seal(&packet, NOW, send));
        assert_eq!(deliver(sealed.clone(), &mut b, &mut a), [packet]);
        assert!(deliver(sealed, &mut b, &mut a).is_empty(), "a copy passed");
    }

    #[test]
    fn ends_with_different_preshared_keys_do_not_meet() {
        let (mut a, mut b) = pair([5, 6]);
        let initiation = sent(|send| a.tick(NOW, send));
        deliver(initiation, &mut b, &mut a);
        assert!(!a.is_live(NOW) && !b.is_live(NOW));
    }

    #[test]
    fn copies_of_what_the_peer_said_are_nothing_and_keep_nobody_from_new_keys() {
        let (mut a, mut b) = pair([5, 5]);
        let initiation = sent(|send| a.tick(NOW, send));
        let response = response(sent(|send| _ = b.open(&initiation[0], local(), NOW, send))).expect("one");
        let _ = sent(|send| assert_eq!(a.open(&response, local(), NOW, send), Heard::Peer));
        let stranger = [192, 0, 2, 66].into();
        for _ in 0..100 {
            let said = sent(|send| assert_eq!(a.open(&response, stranger, NOW, send), Heard::Nothing));
            assert!(said.is_empty());
            let said = sent(|send| assert_eq!(b.open(&initiation[0], stranger, NOW, send), Heard::Nothing));
            assert!(said.is_empty());
        }
        assert_eq!(a.handshakes(), 1);
        assert_eq!(b.handshakes(), 0, "no data came yet");
    }

    #[test]
    fn under_load_nothing_shows_where_the_peer_is() {
        let (mut a, mut b) = pair([5, 5]);
        let mut silent = false;
        // More of its own than it would look at in a second, each of them genuine.
        for number in 0..50 {
            a.hurry();
            let now = NOW + smoltcp::time::Duration::from_secs(6 * number);
            let Some(initiation) = sent(|send| a.tick(now, send)).pop() else { continue };
            let mut said = Vec::new();
            let heard = matches!(b.open(&initiation, local(), NOW, &mut |m| said.push(m.to_vec())), Heard::Peer);
            assert!(said.iter().all(|message| message[0] != 3), "a cookie was sent");
            assert_eq!(heard, response(said).is_some());
            silent |= !heard;
        }
        assert!(silent, "it was never under load");
    }

    #[test]
    fn garbage_is_nothing_and_is_answered_by_nothing() {
        let (mut a, _) = pair([5, 5]);
        let _ = sent(|send| a.tick(NOW, send));
        for length in 0..200 {
            for kind in 0..6 {
                let mut garbage = vec![length as u8; length];
                if let Some(first) = garbage.get_mut(..4) {
                    first.copy_from_slice(&[kind, 0, 0, 0]);
                }
                let mut said = 0;
                assert_eq!(a.open(&garbage, local(), NOW, &mut |_| said += 1), Heard::Nothing, "{kind} {length}");
                assert_eq!(said, 0);
            }
        }
    }
}
