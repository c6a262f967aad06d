//! Random sequences of real and hostile events against two ends that behave as WireGuard's do.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

/// Ports from here on are strangers'.
const STRANGE: u16 = 60_000;

#[derive(Debug, Clone)]
enum Event {
    Wait(u32),
    Rebind(Side),
    Shake { by: Side, lost: u8 },
    Say(Side),
    Replay { which: usize, port: u16 },
    Spoof { to: Side, counter: u64, port: u16 },
    Bogus { port: u16, salt: u64 },
    Flip { which: usize, bit: usize, port: u16 },
}

fn events() -> impl Strategy<Value = Event> {
    let side = || prop_oneof![Just(Side::Engineer), Just(Side::Gateway)];
    let strange = || STRANGE..STRANGE + 4;
    prop_oneof![
        (1u32..30_000).prop_map(Event::Wait),
        side().prop_map(Event::Rebind),
        (side(), any::<u8>()).prop_map(|(by, lost)| Event::Shake { by, lost: lost & (lost >> 3) & 7 }),
        side().prop_map(Event::Say),
        side().prop_map(Event::Say),
        (any::<usize>(), strange()).prop_map(|(which, port)| Event::Replay { which, port }),
        (side(), any::<u64>(), strange()).prop_map(|(to, counter, port)| Event::Spoof { to, counter, port }),
        (strange(), any::<u64>()).prop_map(|(port, salt)| Event::Bogus { port, salt }),
        (any::<usize>(), any::<usize>(), strange()).prop_map(|(which, bit, port)| Event::Flip { which, bit, port }),
    ]
}

struct Peer {
    side: Side,
    port: u16,
    ports: BTreeSet<u16>,
    /// The highest stamp that it has answered.
    answered: u64,
    waits_for: Option<u32>,
    /// Where its data goes, and the next counter.
    sends: Option<(u32, u64)>,
    /// Indices that it accepts data under, and what arrived.
    takes: BTreeSet<u32>,
    got: u64,
}

struct Net {
    world: World,
    engineer: Peer,
    gateway: Peer,
    next: u32,
    /// What passed the relay, for strangers to use again.
    recorded: Vec<Vec<u8>>,
    queue: VecDeque<(u16, Vec<u8>)>,
}

impl Peer {
    fn new(side: Side, port: u16) -> Self {
        let (answered, takes) = (0, BTreeSet::new());
        Self { side, port, ports: BTreeSet::from([port]), answered, waits_for: None, sends: None, takes, got: 0 }
    }

    fn key(&self) -> PublicKey {
        key(if self.side == Side::Engineer { ENGINEER } else { GATEWAY })
    }

    /// What it sends back.
    fn receive(&mut self, message: &[u8], other: PublicKey, next: &mut u32) -> Option<Vec<u8>> {
        let word = |from: usize| u32::from_le_bytes(message[from..from + 4].try_into().expect("four bytes"));
        let stamp = u64::from_le_bytes(message[8..16].try_into().expect("eight bytes"));
        match message[0] {
            1 if stamp > self.answered => {
                self.answered = stamp;
                *next += 1;
                self.takes.insert(*next);
                self.sends = Some((word(4), 0));
                Some(response(other, *next, word(4)))
            }
            2 if self.waits_for == Some(word(8)) => {
                self.waits_for = None;
                self.takes.insert(word(8));
                self.sends = Some((word(4), 1));
                Some(data(word(4), 0))
            }
            4 if self.takes.contains(&word(4)) => {
                self.got += 1;
                None
            }
            _ => None,
        }
    }
}

impl Net {
    fn new() -> Self {
        let mut net = Self {
            world: World::new(),
            engineer: Peer::new(Side::Engineer, 1),
            gateway: Peer::new(Side::Gateway, 30_000),
            next: 0,
            recorded: Vec::new(),
            queue: VecDeque::new(),
        };
        net.shake(Side::Gateway, 0);
        net.shake(Side::Engineer, 0);
        net
    }

    fn peer(&mut self, side: Side) -> &mut Peer {
        if side == Side::Engineer { &mut self.engineer } else { &mut self.gateway }
    }

    fn shake(&mut self, by: Side, lost: u8) {
        self.world.wait(1100);
        self.next += 1;
        let (index, stamp) = (self.next, self.world.stamp());
        let other = self.peer(by.other()).key();
        let peer = self.peer(by);
        peer.waits_for = Some(index);
        let port = peer.port;
        self.carry(port, initiation(other, index, stamp), lost);
    }

    fn say(&mut self, by: Side) {
        let peer = self.peer(by);
        let port = peer.port;
        if let Some((index, counter)) = &mut peer.sends {
            *counter += 1;
            let message = data(*index, *counter);
            self.carry(port, message, 0);
        }
    }

    /// Carries a message and all that it causes; bit n of `lost` loses the n-th on its way from the relay.
    fn carry(&mut self, port: u16, message: Vec<u8>, lost: u8) {
        self.queue.push_back((port, message));
        let mut count = 0;
        while let Some((port, message)) = self.queue.pop_front() {
            let Ok(targets) = self.world.send(at(port), &message) else { continue };
            if port < STRANGE {
                self.recorded.push(message.clone());
            }
            let is_lost = count < 8 && lost >> count & 1 == 1;
            count += 1;
            for target in targets.into_iter().filter(|_| !is_lost) {
                for side in [Side::Engineer, Side::Gateway] {
                    let other = self.peer(side.other()).key();
                    let mut next = self.next;
                    let peer = self.peer(side);
                    if peer.port != target {
                        continue;
                    }
                    let back = peer.receive(&message, other, &mut next);
                    let from = peer.port;
                    self.next = next;
                    self.queue.extend(back.map(|back| (from, back)));
                }
            }
        }
    }

    fn act(&mut self, event: Event) {
        match event {
            Event::Wait(millis) => self.world.wait(u64::from(millis)),
            Event::Rebind(side) => {
                let peer = self.peer(side);
                peer.port += 1;
                peer.ports.insert(peer.port);
            }
            Event::Shake { by, lost } => self.shake(by, lost),
            Event::Say(side) => self.say(side),
            Event::Replay { which, port } => {
                let message = self.recorded[which % self.recorded.len()].clone();
                self.carry(port, message, 0);
            }
            Event::Spoof { to, counter, port } => {
                let index = self.peer(to).takes.last().copied();
                self.carry(port, data(index.unwrap_or(0), counter), 0);
            }
            Event::Bogus { port, salt } => {
                let bogus = initiation(key(9999), salt as u32, salt);
                self.carry(port, bogus, 0);
            }
            Event::Flip { which, bit, port } => {
                let mut message = self.recorded[which % self.recorded.len()].clone();
                // What MAC1 does not cover is free to change: the type, reserved bytes, a handshake's MAC2, all data.
                let bit = bit % (message.len() * 8);
                message[bit / 8] ^= 1 << (bit % 8);
                self.carry(port, message, 0);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn an_end_is_only_ever_believed_to_be_where_it_was_and_always_found_again(events in proptest::collection::vec(events(), 1..80)) {
        let mut net = Net::new();
        for event in events {
            net.act(event);
            let stats = net.world.relay.stats(session(1)).expect("open");
            let (engineer, gateway) = (stats.engineer.expect("connected").port(), stats.gateway.expect("connected").port());
            prop_assert!(net.engineer.ports.contains(&engineer), "the engineer at {engineer}");
            prop_assert!(net.gateway.ports.contains(&gateway), "the gateway at {gateway}");
            let ends = &net.world.relay.sessions[&session(1)];
            let links = |side| ends.end(side).links.clone();
            prop_assert!(links(Side::Engineer).indices.len() <= 10 && links(Side::Gateway).indices.len() <= 10);
            prop_assert!(net.world.relay.indices.len() <= 20 && net.world.relay.addresses.len() <= 10);
        }
        net.world.wait(31_000);
        net.shake(Side::Gateway, 0);
        net.shake(Side::Engineer, 0);
        let (had_engineer, had_gateway) = (net.engineer.got, net.gateway.got);
        net.say(Side::Engineer);
        net.say(Side::Gateway);
        prop_assert!(net.engineer.got > had_engineer && net.gateway.got > had_gateway);
        prop_assert_eq!(net.world.addresses(), (Some(net.engineer.port), Some(net.gateway.port)));
    }

    #[test]
    fn nothing_of_a_closed_session_is_forwarded(events in proptest::collection::vec(events(), 1..40)) {
        let mut net = Net::new();
        for event in events {
            net.act(event);
        }
        net.world.relay.close(session(1));
        for message in std::mem::take(&mut net.recorded) {
            for port in [net.engineer.port, net.gateway.port, STRANGE] {
                prop_assert!(net.world.send(at(port), &message).is_err());
            }
        }
        prop_assert!(net.world.relay.indices.is_empty() && net.world.relay.addresses.is_empty());
    }
}
