//! The tunnel of a forwarded lane: its peer, and whoever else sends datagrams to its port.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use smoltcp::time::{Duration, Instant};
use thinlane_forward::tunnel::{Heard, Tunnel};
use thinlane_model::{PublicKey, Secret};
use thinlane_wg::packet::sample::Reach;

use super::{Target, USUAL, packets, sealed};

pub(super) const TUNNEL: Target = Target {
    name: "forward-tunnel",
    run: story,
    seeds: stories,
    // Each has handshakes.
    replayed: USUAL / 40,
    deepest: &[
        "a handshake that we began",
        "a handshake that the peer began",
        "a packet of the peer's",
        "the path moves with the peer",
        "under load, the peer goes unheard",
        "an initiation with the peer's cookie",
        "a copy moves nothing",
        "a right MAC1 moves nothing",
    ],
};

const OURS: [u8; 32] = [9; 32];
const PEERS: [u8; 32] = [7; 32];
static OURS_PUBLIC: LazyLock<[u8; 32]> = LazyLock::new(|| public(OURS));
static PEERS_PUBLIC: LazyLock<[u8; 32]> = LazyLock::new(|| public(PEERS));
const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;
const COOKIE: u8 = 3;
const DATA: u8 = 4;
/// Messages that one step may make: what waits for a key, and then some.
const MOST: usize = 300;

/// A message that the peer made.
struct Genuine {
    bytes: Vec<u8>,
    delivered: bool,
}

struct Story<'a> {
    tunnel: Tunnel,
    now: Instant,
    peer: Tunn,
    room: Vec<u8>,
    genuine: Vec<Genuine>,
    /// What the tunnel said and has not reached its peer.
    out: Vec<Vec<u8>>,
    /// Where the peer is, and where the tunnel was led to believe that it is.
    at: IpAddr,
    path: Option<IpAddr>,
    /// What the peer sealed, or keeps until it has a key.
    packets: BTreeSet<Vec<u8>>,
    reach: Reach<'a>,
}

/// Whatever comes, from wherever, under load or not: what a tunnel takes for its peer's, and so for a reason to send there
/// from now on, is a message of the peer's, unchanged where it is under a key, that it has not taken before, and no
/// cookie; what it hands over is a packet that the peer sealed.
///
/// A list of {what, length, content}. The lowest four bits of `what` say what happens; bit 4 gives a message a right MAC1;
/// bit 5 holds what the peer answers back, so that others may deliver it; bit 6 loses what the tunnel says.
fn story(mut bytes: &[u8], reach: Reach<'_>) {
    let now = Instant::from_secs(1000);
    let tunnel = Tunnel::new(&Secret::new(OURS), &PublicKey::new(*PEERS_PUBLIC).expect("a key"), None, 25, 5, now);
    let ours = x25519::PublicKey::from(*OURS_PUBLIC);
    let peer = Tunn::new(x25519::StaticSecret::from(PEERS), ours, None, None, 77, None);
    let mut story = Story {
        tunnel,
        now,
        peer,
        room: vec![0; 70_000],
        genuine: Vec::new(),
        out: Vec::new(),
        at: address(1),
        path: None,
        packets: BTreeSet::new(),
        reach,
    };
    // More steps than this are another story.
    for _ in 0..64 {
        let Some(([what, length], rest)) = bytes.split_first_chunk() else { break };
        let (content, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        bytes = rest;
        story.act(*what, content);
        story.carry(*what);
    }
}

impl Story<'_> {
    fn act(&mut self, what: u8, content: &[u8]) {
        let byte = |at: usize| content.get(at).copied().unwrap_or_default();
        match what & 15 {
            0 => self.arrives(content, address(9)),
            1 => {
                self.now += Duration::from_millis(100 * content.len() as u64);
                let (tunnel, out) = (&mut self.tunnel, &mut self.out);
                tunnel.tick(self.now, &mut |message| out.push(message.to_vec()));
            }
            2 if self.tunnel.is_live(self.now) => {
                let (tunnel, out) = (&mut self.tunnel, &mut self.out);
                tunnel.seal(content, self.now, &mut |message| out.push(message.to_vec()));
            }
            3 => {
                let message = of(self.peer.format_handshake_initiation(&mut self.room, true));
                self.says(message, what);
            }
            4 => {
                let packet = packets::to_engineer(content);
                let message = of(self.peer.encapsulate(&packet, &mut self.room));
                self.packets.insert(packet);
                self.says(message, what);
            }
            // The peer goes elsewhere.
            5 => self.at = address(byte(0) & 3),
            // A message of the peer's comes again, or for the first time, from somewhere.
            6 => {
                let Some(copy) = self.recorded(byte(0)) else { return };
                self.arrives(&copy, address(byte(1) & 15));
            }
            // One comes changed.
            7 => {
                let Some(mut copy) = self.recorded(byte(0)) else { return };
                let at = usize::from(byte(1)) % copy.len();
                copy[at] ^= byte(2);
                if what & 16 != 0 {
                    sealed::stamp(&mut copy, &OURS_PUBLIC);
                }
                self.arrives(&copy, address(byte(3) & 15));
            }
            shape @ 8..=11 => {
                let bogus = bogus(shape - 7, content, what & 16 != 0, &OURS_PUBLIC);
                self.arrives(&bogus, address(9));
            }
            // Many initiations of strangers, for us; and for the peer, so that it asks for a cookie.
            12 => (0..byte(0) % 16).for_each(|number| {
                let bogus = bogus(INITIATION, &[number], true, &OURS_PUBLIC);
                self.arrives(&bogus, address(8 + (number & 1)));
            }),
            13 => (0..byte(0) % 16).for_each(|number| {
                let bogus = bogus(INITIATION, &[number], true, &PEERS_PUBLIC);
                let _ = self.peer.decapsulate(Some(address(8)), &bogus, &mut self.room);
            }),
            14 => self.tunnel.hurry(),
            _ => {
                let _ = self.tunnel.doubts(self.now);
            }
        }
    }

    fn recorded(&self, which: u8) -> Option<Vec<u8>> {
        self.genuine.get(usize::from(which) % self.genuine.len().max(1)).map(|one| one.bytes.clone())
    }

    /// The peer makes a message, and it arrives, or is held back.
    fn says(&mut self, message: Option<Vec<u8>>, what: u8) {
        let Some(bytes) = message else { return };
        self.genuine.push(Genuine { bytes: bytes.clone(), delivered: false });
        if what & 32 == 0 {
            self.arrives(&bytes, self.at);
        }
    }

    /// What the tunnel says reaches its peer, and the other way round, until nobody says anything more.
    fn carry(&mut self, what: u8) {
        for _ in 0..8 {
            let out = std::mem::take(&mut self.out);
            assert!(out.len() < MOST, "it never stops");
            for message in out {
                // MAC2 is zero without a cookie.
                if message.first() == Some(&INITIATION) && message[132..] != [0; 16] {
                    (self.reach)("an initiation with the peer's cookie");
                }
                if what & 64 != 0 {
                    continue;
                }
                let mut next = of(self.peer.decapsulate(Some(address(0)), &message, &mut self.room));
                while let Some(reply) = next {
                    let more = reply[0] != COOKIE;
                    self.says(Some(reply), what);
                    next = more.then(|| of(self.peer.decapsulate(None, &[], &mut self.room))).flatten();
                }
            }
        }
    }

    /// A datagram arrives at the tunnel.
    fn arrives(&mut self, datagram: &[u8], from: IpAddr) {
        let kind = datagram.first().copied().unwrap_or_default();
        let ours = self.genuine.iter().position(|one| authentic(&one.bytes) == authentic(datagram));
        let before = self.tunnel.handshakes();
        let (tunnel, out) = (&mut self.tunnel, &mut self.out);
        let said = out.len();
        let heard = tunnel.open(datagram, from, self.now, &mut |message| out.push(message.to_vec()));
        let (believed, packet) = match heard {
            Heard::Nothing => (false, None),
            Heard::Peer => (true, None),
            Heard::Packet(packet) => (true, Some(packet.to_vec())),
        };
        assert!(self.out[said..].iter().all(|message| message.first() != Some(&COOKIE)), "a cookie of our own");
        let grew = self.tunnel.handshakes() - before;
        if !believed {
            assert_eq!(grew, 0, "a handshake with nobody");
            match ours {
                Some(at) if self.genuine[at].delivered => (self.reach)("a copy moves nothing"),
                Some(_) if kind == INITIATION => (self.reach)("under load, the peer goes unheard"),
                _ => {}
            }
            if sealed::is_stamped(datagram, &OURS_PUBLIC) && ours.is_none() {
                (self.reach)("a right MAC1 moves nothing");
            }
            return;
        }
        let genuine = ours.map(|at| &mut self.genuine[at]).expect("it took a stranger's message for its peer's");
        assert!(!genuine.delivered, "a copy moves the path");
        assert!(matches!(kind, INITIATION | RESPONSE | DATA), "kind {kind} moves the path");
        genuine.delivered = true;
        assert!(grew <= 1);
        if let Some(packet) = packet {
            assert!(kind == DATA && self.packets.contains(&packet), "another packet than the peer's");
            (self.reach)("a packet of the peer's");
        }
        match (grew, kind) {
            (1, RESPONSE) => (self.reach)("a handshake that we began"),
            (1, DATA) => (self.reach)("a handshake that the peer began"),
            (grew, _) => assert_eq!(grew, 0, "an initiation alone is no handshake"),
        }
        if self.path.replace(from).is_some_and(|before| before != from) {
            (self.reach)("the path moves with the peer");
        }
    }
}

/// What shows whose a message is. Of a handshake neither the sender's index nor the MACs at its end are under the peer's
/// key: whoever holds it back and knows our public key can write others (WireGuard whitepaper, 5.4).
fn authentic(message: &[u8]) -> &[u8] {
    match message {
        [INITIATION | RESPONSE, 0, 0, 0, ..] => message.get(8..message.len().saturating_sub(32)).unwrap_or(message),
        _ => message,
    }
}

fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, number).into()
}

fn public(private: [u8; 32]) -> [u8; 32] {
    x25519::PublicKey::from(&x25519::StaticSecret::from(private)).to_bytes()
}

fn of(result: TunnResult<'_>) -> Option<Vec<u8>> {
    match result {
        TunnResult::WriteToNetwork(message) => Some(message.to_vec()),
        _ => None,
    }
}

/// A message of a stranger's, who knows the public key and the index if it is right.
fn bogus(kind: u8, content: &[u8], right: bool, to: &[u8; 32]) -> Vec<u8> {
    let length = match kind {
        INITIATION => 148,
        RESPONSE => 92,
        COOKIE => 64,
        _ => content.len() + 32,
    };
    let mut message = sealed::message(kind, length, content);
    // The tunnel's index is 5, and its first handshakes count in the lowest byte.
    let at = if kind == RESPONSE { 8 } else { 4 };
    message[at..at + 4].copy_from_slice(&(5 << 8 | u32::from(content.first().copied().unwrap_or(1) & 7)).to_le_bytes());
    if right && matches!(kind, INITIATION | RESPONSE) {
        sealed::stamp(&mut message, to);
    }
    message
}

/// Handshakes of both, packets, a peer that moves; copies, changes and strangers; and load on either side.
fn stories() -> Vec<Vec<u8>> {
    let act = |what: u8, content: &[u8]| [&[what, content.len() as u8][..], content].concat();
    let time = |tenths: usize| act(1, &vec![0; tenths]);
    let meet = [time(1), act(4, b"packet"), act(2, b"back")].concat();
    let moved = [meet.clone(), act(5, &[2]), act(4, b"another"), act(3, &[]), act(4, b"and one more")].concat();
    let copies: Vec<u8> = (0..6).flat_map(|which| act(6, &[which, 9])).collect();
    let changed: Vec<u8> =
        (0..6).flat_map(|which| [act(7, &[which, 40, 1, 9]), act(23, &[which, 40, 1, 9])].concat()).collect();
    let strangers: Vec<u8> =
        (8..12).flat_map(|shape| [act(shape, &[0; 40]), act(shape | 16, &[0; 40])].concat()).collect();
    // An initiation of the peer's that is held back comes from elsewhere, and then again.
    let held = [act(3 | 32, &[]), act(6, &[0, 9]), act(6, &[0, 8]), act(4, b"packet")].concat();
    let load = [act(12, &[14]), act(3, &[]), act(12, &[14]), meet.clone()].concat();
    // The peer asks for a cookie; the next initiation, five seconds later, has it.
    let cookie = [act(13, &[14]), time(1), time(60), act(4, b"packet"), act(6, &[0, 9])].concat();
    vec![
        [moved.clone(), copies].concat(),
        [moved.clone(), changed, strangers].concat(),
        held,
        [meet, load.clone()].concat(),
        [load, moved].concat(),
        cookie,
    ]
}
