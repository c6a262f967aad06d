//! UDP through a lane: which local program an answer from the asset belongs to.
//!
//! Pure. Every local source gets a port of its own in the lane for as long as it talks.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use smoltcp::time::{Duration, Instant};

use crate::random::Random;

/// Local sources at once; the one that was silent longest gives way.
const MOST: usize = 256;
/// How long an answer is awaited after the last datagram of either side.
const IDLE: Duration = Duration::from_secs(300);

/// Who talks to the asset from where.
#[derive(Debug)]
pub struct Datagrams {
    by_local: BTreeMap<SocketAddr, u16>,
    by_port: BTreeMap<u16, Flow>,
    random: Random,
}

#[derive(Debug)]
struct Flow {
    local: SocketAddr,
    used: Instant,
}

impl Datagrams {
    pub fn new(seed: u64) -> Self {
        Self { by_local: BTreeMap::new(), by_port: BTreeMap::new(), random: Random::new(seed) }
    }

    /// The port in the lane from which a local source's datagram leaves.
    pub fn leaves(&mut self, local: SocketAddr, now: Instant) -> u16 {
        self.forget_silent(now);
        if let Some(port) = self.by_local.get(&local).copied() {
            self.by_port.insert(port, Flow { local, used: now });
            return port;
        }
        if self.by_port.len() >= MOST
            && let Some(oldest) = self.by_port.iter().min_by_key(|(_, flow)| flow.used).map(|(port, _)| *port)
        {
            self.forget(oldest);
        }
        let port = self.random.port(|port| self.by_port.contains_key(&port));
        self.by_local.insert(local, port);
        self.by_port.insert(port, Flow { local, used: now });
        port
    }

    /// Whose answer a datagram to `port` is; `None`: nobody's, or not any more.
    pub fn arrives(&mut self, port: u16, now: Instant) -> Option<SocketAddr> {
        let flow = self.by_port.get_mut(&port).filter(|flow| now < flow.used + IDLE)?;
        flow.used = now;
        Some(flow.local)
    }

    /// How many local sources are remembered.
    pub fn sources(&self) -> usize {
        self.by_port.len()
    }

    fn forget_silent(&mut self, now: Instant) {
        let silent: Vec<u16> =
            self.by_port.iter().filter(|(_, flow)| flow.used + IDLE <= now).map(|(port, _)| *port).collect();
        silent.into_iter().for_each(|port| self.forget(port));
    }

    fn forget(&mut self, port: u16) {
        if let Some(flow) = self.by_port.remove(&port) {
            self.by_local.remove(&flow.local);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn at(secs: i64) -> Instant {
        Instant::from_secs(secs)
    }

    #[test]
    fn every_source_has_a_port_of_its_own_and_keeps_it_while_it_talks() {
        let mut datagrams = Datagrams::new(1);
        let one = datagrams.leaves(local(1), at(0));
        let other = datagrams.leaves(local(2), at(0));
        assert_ne!(one, other);
        assert!(one >= 49_152 && other >= 49_152);
        assert_eq!(datagrams.leaves(local(1), at(200)), one);
        assert_eq!(datagrams.arrives(one, at(400)), Some(local(1)));
        assert_eq!(datagrams.arrives(other, at(400)), None, "silent for too long");
        assert_eq!(datagrams.arrives(one ^ 1, at(400)), None);
    }

    #[test]
    fn more_sources_than_are_remembered_push_out_the_most_silent_one() {
        let mut datagrams = Datagrams::new(1);
        let ports: Vec<u16> = (0..MOST as u16 + 1)
            .map(|n| datagrams.leaves(local(1000 + n), Instant::from_millis(i64::from(n))))
            .collect();
        assert_eq!(datagrams.sources(), MOST);
        assert_eq!(datagrams.arrives(ports[0], at(1)), None);
        assert_eq!(datagrams.arrives(ports[1], at(1)), Some(local(1001)));
    }
}
