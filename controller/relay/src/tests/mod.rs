//! Two ends, strangers, and the relay between them, on virtual time.

use std::net::SocketAddr;

use thinlane_model::{Boot, PublicKey, SessionId};

use crate::mac::Mac1Key;
use crate::{DropReason, Relay, Side, Verdict};

mod hostile;
mod probe;
mod random;
mod scenario;

pub const START: u64 = 1_000_000;
pub const END: Boot = Boot(START + 3_600_000);

pub fn key(number: u16) -> PublicKey {
    let mut bytes = [0x55; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    PublicKey::new(bytes).expect("not zero")
}

pub fn session(number: u8) -> SessionId {
    SessionId::from_random([0, 0, 0, 0, number])
}

pub fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn stamped(mut message: Vec<u8>, to: PublicKey) -> Vec<u8> {
    let covered = message.len() - 32;
    let mac1 = Mac1Key::of(&to).over(&message[..covered]);
    message[covered..covered + 16].copy_from_slice(&mac1);
    message
}

/// An initiation to the owner of `to`; `stamp` stands for its encrypted timestamp.
pub fn initiation(to: PublicKey, sender: u32, stamp: u64) -> Vec<u8> {
    let mut message = vec![0; 148];
    message[0] = 1;
    message[4..8].copy_from_slice(&sender.to_le_bytes());
    message[8..16].copy_from_slice(&stamp.to_le_bytes());
    stamped(message, to)
}

pub fn response(to: PublicKey, sender: u32, receiver: u32) -> Vec<u8> {
    let mut message = vec![0; 92];
    message[0] = 2;
    message[4..8].copy_from_slice(&sender.to_le_bytes());
    message[8..12].copy_from_slice(&receiver.to_le_bytes());
    stamped(message, to)
}

pub fn cookie(receiver: u32) -> Vec<u8> {
    let mut message = vec![0; 64];
    message[0] = 3;
    message[4..8].copy_from_slice(&receiver.to_le_bytes());
    message
}

pub fn data(receiver: u32, counter: u64) -> Vec<u8> {
    let mut message = vec![0; 96];
    message[0] = 4;
    message[4..8].copy_from_slice(&receiver.to_le_bytes());
    message[8..16].copy_from_slice(&counter.to_le_bytes());
    message
}

/// One session with its engineer's key 1 and its gateway's key 2, and the time.
pub struct World {
    pub relay: Relay,
    pub now: u64,
    stamp: u64,
}

pub const ENGINEER: u16 = 1;
pub const GATEWAY: u16 = 2;

impl World {
    pub fn new() -> Self {
        let mut relay = Relay::new(7);
        relay.open(session(1), key(ENGINEER), Some(key(GATEWAY)), END).expect("room");
        Self { relay, now: START, stamp: 0 }
    }

    /// A session between engineer `at(1)` with index 10 and gateway `at(2)` with index 20.
    pub fn connected() -> Self {
        let mut world = Self::new();
        world.send(at(2), &initiation(key(ENGINEER), 99, 1)).expect_err("nobody there yet");
        world.shake(1, 10, 2, 20);
        world
    }

    pub fn now(&self) -> Boot {
        Boot(self.now)
    }

    pub fn wait(&mut self, millis: u64) {
        self.now += millis;
        self.relay.handle_timeout(Boot(self.now));
    }

    /// Where a datagram goes: the ports of `at`.
    pub fn send(&mut self, from: SocketAddr, datagram: &[u8]) -> Result<Vec<u16>, DropReason> {
        match self.relay.handle_datagram(from, datagram, Boot(self.now)) {
            Verdict::Forward { to, .. } => Ok(to.iter().map(|to| to.port()).collect()),
            Verdict::Drop(reason) => Err(reason),
            Verdict::Answer(_) => panic!("an answer without a probe"),
        }
    }

    pub fn stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp + 1000
    }

    /// A handshake that the engineer begins from port `from`, answered from port `to`, and its first data.
    pub fn shake(&mut self, from: u16, i: u32, to: u16, r: u32) {
        self.begin(from, i).expect("the gateway is known");
        self.send(at(to), &response(key(ENGINEER), r, i)).expect("answers");
        self.send(at(from), &data(r, 0)).expect("completes");
    }

    /// The engineer's initiation.
    pub fn begin(&mut self, from: u16, i: u32) -> Result<Vec<u16>, DropReason> {
        self.now += 1000;
        let stamp = self.stamp();
        self.send(at(from), &initiation(key(GATEWAY), i, stamp))
    }

    pub fn addresses(&self) -> (Option<u16>, Option<u16>) {
        let stats = self.relay.stats(session(1)).expect("open");
        (stats.engineer.map(|at| at.port()), stats.gateway.map(|at| at.port()))
    }

    /// Ports at which data for a side arrives.
    pub fn served(&mut self, side: Side) -> Vec<u16> {
        let end = self.relay.sessions[&session(1)].end(side);
        end.targets(Boot(self.now)).map(|to| to.iter().map(|to| to.port()).collect()).unwrap_or_default()
    }
}
