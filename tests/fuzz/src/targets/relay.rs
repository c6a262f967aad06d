//! The relay between two ends and strangers.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use thinlane_model::{Boot, PublicKey, SessionId, Span};
use thinlane_relay::{DropReason, Relay, Verdict};
use thinlane_wg::packet::sample::Reach;
use thinlane_wire::{ProbeKey, ProbeTicket};

use super::{Target, USUAL, sealed};

pub(super) const RELAY: Target = Target {
    name: "relay",
    run: story,
    seeds: stories,
    // Each begins with tables of some thousand budgets.
    replayed: USUAL / 4,
    deepest: &[
        "an initiation is forwarded",
        "a response is forwarded",
        "a cookie is forwarded",
        "data completes a handshake",
        "data from elsewhere is forwarded",
        "an end has moved",
        "a probe is answered",
        "a copy of an initiation",
        "a response with a wrong MAC1",
        "data that is not ahead",
        "after the end",
    ],
};

const ENGINEER: [u8; 32] = [1; 32];
const GATEWAY: [u8; 32] = [2; 32];
const END: Boot = Boot(60_000);
/// Initiations of one end that the relay surely remembers.
const REMEMBERED: usize = 64;

/// What an onlooker, who sees every datagram and computes each MAC1 again, knows.
#[derive(Default)]
struct Onlooker {
    /// Where messages with the MAC1 of the gateway came from, thus where the engineer may be; and the other way round.
    engineer: BTreeSet<SocketAddr>,
    gateway: BTreeSet<SocketAddr>,
    /// What such messages want to be answered under.
    indices: BTreeSet<u32>,
    /// Whom it is for, and its MAC1, of each initiation that was forwarded, and of all that could have been.
    forwarded: BTreeSet<(bool, [u8; 16])>,
    initiations: BTreeSet<(bool, [u8; 16])>,
    /// Everybody who has said something.
    heard: BTreeSet<SocketAddr>,
    count: u64,
}

/// Feeds a relay with datagrams and time: whatever comes, it forwards only what has a MAC1 of the session or names an
/// index of such a message, to who has spoken before, believes an end to be only where a handshake message of its own came
/// from, forwards no initiation twice and nothing after the end, and multiplies nothing.
///
/// A list of {how, length, content}. Of `how`, the lowest three bits say what: any bytes (0), the four messages (1 to 4),
/// a copy of what was said before, one bit of it changed (5), a probe (6), time (7); bits 3 and 4 from where; bit 5 for
/// whom; bit 6 has MAC1 stay as it is.
fn story(mut bytes: &[u8], reach: Reach<'_>) {
    let mut relay = Relay::new(1);
    let session = SessionId::from_random([1; 5]);
    let key = |bytes| PublicKey::new(bytes).expect("not zero");
    relay.answer_probes(ProbeKey::new([5; 32]));
    relay.open(session, key(ENGINEER), Some(key(GATEWAY)), END).expect("the first one");
    let (mut now, mut said, mut onlooker) = (Boot(1000), Vec::new(), Onlooker::default());
    while let Some(([how, length], rest)) = bytes.split_first_chunk() {
        let (content, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        bytes = rest;
        let from = SocketAddr::from(([192, 0, 2, 1 + (how >> 3 & 3)], 1000));
        let to = if how & 0x20 == 0 { &GATEWAY } else { &ENGINEER };
        let Some(datagram) = datagram(*how, content, to, &said) else {
            now = now + Span::from_millis(u64::from(*length) * 100);
            relay.handle_timeout(now);
            continue;
        };
        let before = relay.stats(session);
        onlooker.sees(&datagram, from);
        match relay.handle_datagram(from, &datagram, now) {
            Verdict::Answer(answer) => {
                assert!(answer.len() == datagram.len() && datagram.starts_with(b"TLp?"), "nothing is multiplied");
                reach("a probe is answered");
            }
            Verdict::Forward { to, .. } => {
                assert!(now < END, "forwarded after the end");
                assert!(to.iter().all(|to| onlooker.heard.contains(&to)), "to who never spoke");
                onlooker.forwards(&datagram, reach);
                let known = before.is_some_and(|stats| [stats.engineer, stats.gateway].contains(&Some(from)));
                if datagram[0] == 4 && !known {
                    reach("data from elsewhere is forwarded");
                }
            }
            Verdict::Drop(reason) => tell(reason, reach),
        }
        let Some((before, after)) = before.zip(relay.stats(session)) else { continue };
        assert_eq!(after.up_packets + after.down_packets, onlooker.count, "miscounted");
        assert!(after.engineer.is_none_or(|at| onlooker.engineer.contains(&at)), "the engineer was never there");
        assert!(after.gateway.is_none_or(|at| onlooker.gateway.contains(&at)), "the gateway was never there");
        if after.last_handshake != before.last_handshake {
            assert_eq!(datagram[0], 4, "only data completes a handshake");
            reach("data completes a handshake");
            if before.last_handshake.is_some() && (before.engineer, before.gateway) != (after.engineer, after.gateway) {
                reach("an end has moved");
            }
        }
        said.push(datagram);
    }
}

/// `None`: time passes.
fn datagram(how: u8, content: &[u8], to: &[u8; 32], said: &[Vec<u8>]) -> Option<Vec<u8>> {
    let byte = |at: usize| content.get(at).copied().unwrap_or_default();
    // Few numbers, so that they meet.
    let word = |at: usize| u32::from(byte(at) & 7).to_le_bytes();
    let of = |head: &[&[u8]]| [head.concat().as_slice(), content].concat();
    let mut datagram = match how & 7 {
        0 => content.to_vec(),
        1 => sealed::message(1, 148, &of(&[&word(0)])),
        2 => sealed::message(2, 92, &of(&[&word(0), &word(1)])),
        3 => sealed::message(3, 64, &of(&[&word(0)])),
        4 => sealed::message(4, 32 + content.len(), &of(&[&word(0), &u64::from(byte(1)).to_le_bytes()])),
        5 => {
            let mut copy = said.get(usize::from(byte(0)) % said.len().max(1))?.clone();
            let at = usize::from(byte(1)) % copy.len().max(1);
            copy.get_mut(at).into_iter().for_each(|place| *place ^= byte(2));
            return Some(copy);
        }
        6 => {
            let (ticket, secret) = ProbeKey::new([5; 32]).issue([byte(0); 8], Boot(0));
            let relay = "192.0.2.9:7443".parse().expect("an endpoint");
            let ticket = ProbeTicket { ticket, secret, relay, life: ProbeKey::LIFE, pools: Vec::new() };
            let mut question = ticket.question(1, content.len());
            let at = usize::from(byte(1)) % question.len();
            question[at] ^= byte(2);
            question
        }
        _ => return None,
    };
    if matches!(how & 7, 1 | 2) && how & 0x40 == 0 {
        sealed::stamp(&mut datagram, to);
    }
    Some(datagram)
}

/// Type and length of a message that is stamped for the gateway or the engineer, and for which of them: `true` for the
/// gateway.
fn stamped(datagram: &[u8]) -> Option<bool> {
    matches!((datagram.get(..4)?, datagram.len()), ([1, 0, 0, 0], 148) | ([2, 0, 0, 0], 92)).then_some(())?;
    let gateways = sealed::is_stamped(datagram, &GATEWAY);
    (gateways || sealed::is_stamped(datagram, &ENGINEER)).then_some(gateways)
}

fn word(datagram: &[u8]) -> u32 {
    u32::from_le_bytes(datagram[4..8].try_into().expect("four bytes"))
}

impl Onlooker {
    fn sees(&mut self, datagram: &[u8], from: SocketAddr) {
        self.heard.insert(from);
        let Some(for_gateway) = stamped(datagram) else { return };
        if for_gateway { &mut self.engineer } else { &mut self.gateway }.insert(from);
        self.indices.insert(word(datagram));
        if datagram[0] == 1 {
            self.initiations.insert((for_gateway, mac1(datagram)));
        }
    }

    fn forwards(&mut self, datagram: &[u8], reach: Reach<'_>) {
        self.count += 1;
        match datagram[0] {
            1 => {
                let for_gateway = stamped(datagram).expect("an initiation for nobody was forwarded");
                let fresh = self.forwarded.insert((for_gateway, mac1(datagram)));
                assert!(fresh || self.initiations.len() > REMEMBERED, "an initiation was forwarded twice");
                reach("an initiation is forwarded");
            }
            2 => {
                assert!(stamped(datagram).is_some(), "a response for nobody was forwarded");
                reach("a response is forwarded");
            }
            _ => {
                assert!(self.indices.contains(&word(datagram)), "nobody can have this index");
                if datagram[0] == 3 {
                    reach("a cookie is forwarded");
                }
            }
        }
    }
}

fn mac1(datagram: &[u8]) -> [u8; 16] {
    datagram[datagram.len() - 32..][..16].try_into().expect("sixteen bytes")
}

fn tell(reason: DropReason, reach: Reach<'_>) {
    match reason {
        DropReason::Duplicate => reach("a copy of an initiation"),
        DropReason::BadMac => reach("a response with a wrong MAC1"),
        DropReason::Stale => reach("data that is not ahead"),
        DropReason::Expired => reach("after the end"),
        _ => {}
    }
}

/// Two handshakes, the second from elsewhere; copies, cookies, probes and strangers' data between them; and the end.
fn stories() -> Vec<Vec<u8>> {
    let act = |how: u8, content: &[u8]| [&[how, content.len() as u8][..], content].concat();
    let wait = |tenths: u8| [&[7, tenths][..], &vec![0; tenths.into()]].concat();
    // The gateway (from 1) looks for the engineer, who is not there yet; the engineer (from 0) begins, is answered, and
    // speaks. Content: the sender's index and the receiver's; of data, the index and the counter.
    let connect = [act(0x29, &[6, 0, 9]), wait(11), act(1, &[1, 0, 1]), act(0x2a, &[2, 1]), act(4, &[2, 1])].concat();
    let first = [connect.clone(), act(0x0c, &[1, 1]), wait(11)].concat();
    let moved =
        [first.clone(), act(0x11, &[3, 0, 2]), act(0x2a, &[4, 3]), act(0x14, &[4, 1]), act(4, &[4, 2])].concat();
    let cookie = [first.clone(), act(1, &[3, 0, 2]), act(0x0b, &[3]), act(0x1b, &[3])].concat();
    let copies =
        [first.clone(), act(0x15, &[1, 0, 0]), act(0x1d, &[4, 0, 0]), act(0x1c, &[2, 0]), act(0x1c, &[2, 9])].concat();
    let wrong = [first.clone(), act(1, &[3, 0, 2]), act(0x6a, &[4, 3]), act(0x41, &[5])].concat();
    let over = [connect, wait(255), wait(255), wait(255), act(4, &[2, 3]), act(1, &[5, 0, 5])].concat();
    let probes = [act(6, &[1, 0, 0]), act(0x0e, &[1, 21, 1]), act(0, &[4; 40]), act(0, &[1; 148])].concat();
    vec![moved, cookie, copies, wrong, over, probes]
}
