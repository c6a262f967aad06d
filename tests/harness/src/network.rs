//! TCP connections as two queues, and what may happen to them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use thinlane_link::ConnId;

use crate::random::Random;

/// What travels one way.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    Frame(Bytes),
    End,
}

/// Which end something is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Gateway,
    Controller,
}

/// A frame-level fault, as no TCP makes it but a broken middle could.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Lose,
    Double,
    Swap,
}

#[derive(Debug, Default)]
struct Wire {
    to_gateway: VecDeque<(u64, Item)>,
    to_controller: VecDeque<(u64, Item)>,
    faulted: bool,
}

/// All connections between the two, also those that one end has long forgotten.
#[derive(Debug)]
pub(crate) struct Network {
    wires: BTreeMap<ConnId, Wire>,
    last: u64,
    /// Nothing arrives and nobody is told, until it is over.
    pub(crate) silent: bool,
    /// No new connection comes about.
    pub(crate) unreachable: bool,
    pub(crate) fault: Option<Fault>,
    latency: u64,
}

impl Network {
    pub(crate) fn new() -> Self {
        Self { wires: BTreeMap::new(), last: 0, silent: false, unreachable: false, fault: None, latency: 20 }
    }

    pub(crate) fn connect(&mut self) -> Option<ConnId> {
        if self.silent || self.unreachable {
            return None;
        }
        self.last += 1;
        self.wires.insert(ConnId(self.last), Wire::default());
        Some(ConnId(self.last))
    }

    pub(crate) fn set_latency(&mut self, latency: u64) {
        self.latency = latency;
    }

    pub(crate) fn send(&mut self, conn: ConnId, to: To, item: Item, now: u64, random: &mut Random) {
        let due = now + random.between(1, self.latency);
        let Some(wire) = self.wires.get_mut(&conn) else { return };
        let fault = if matches!(item, Item::Frame(_)) { self.fault.take() } else { None };
        wire.faulted |= fault.is_some();
        let queue = wire.queue(to);
        let due = queue.back().map_or(due, |(last, _)| due.max(*last));
        match fault {
            None => queue.push_back((due, item)),
            Some(Fault::Lose) => {}
            Some(Fault::Double) => {
                queue.push_back((due, item.clone()));
                queue.push_back((due, item));
            }
            Some(Fault::Swap) => {
                let before = queue.pop_back();
                queue.push_back((due, item));
                queue.extend(before.map(|(_, item)| (due, item)));
            }
        }
    }

    /// Both ends learn at once that the connection is gone, and what was under way is lost.
    pub(crate) fn reset_all(&mut self, now: u64) {
        for wire in self.wires.values_mut() {
            for to in [To::Gateway, To::Controller] {
                let queue = wire.queue(to);
                queue.clear();
                queue.push_back((now, Item::End));
            }
        }
    }

    /// One machine's end is gone without a word: it rebooted.
    pub(crate) fn forget_gateway(&mut self) {
        for wire in self.wires.values_mut() {
            wire.to_gateway.clear();
        }
    }

    /// One process is gone, and its kernel closes its sockets.
    pub(crate) fn close_all_from(&mut self, end: To, now: u64, random: &mut Random) {
        let other = if end == To::Gateway { To::Controller } else { To::Gateway };
        for conn in self.wires.keys().copied().collect::<Vec<_>>() {
            self.send(conn, other, Item::End, now, random);
            if let Some(wire) = self.wires.get_mut(&conn) {
                wire.queue(end).clear();
            }
        }
    }

    pub(crate) fn is_faulted(&self, conn: ConnId) -> bool {
        self.wires.get(&conn).is_none_or(|wire| wire.faulted)
    }

    /// When the next thing arrives.
    pub(crate) fn next(&self) -> Option<u64> {
        if self.silent {
            return None;
        }
        let fronts = self.wires.values().flat_map(|wire| [wire.to_gateway.front(), wire.to_controller.front()]);
        fronts.flatten().map(|(due, _)| *due).min()
    }

    /// What has arrived by now.
    pub(crate) fn receive(&mut self, now: u64) -> Option<(ConnId, To, Item)> {
        if self.silent {
            return None;
        }
        for (conn, wire) in &mut self.wires {
            for to in [To::Controller, To::Gateway] {
                let queue = wire.queue(to);
                if queue.front().is_some_and(|(due, _)| *due <= now) {
                    return queue.pop_front().map(|(_, item)| (*conn, to, item));
                }
            }
        }
        None
    }
}

impl Wire {
    fn queue(&mut self, to: To) -> &mut VecDeque<(u64, Item)> {
        match to {
            To::Gateway => &mut self.to_gateway,
            To::Controller => &mut self.to_controller,
        }
    }
}
