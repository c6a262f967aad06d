//! One clock for all of it.

use ed25519_dalek::SigningKey;

use crate::gateway::Gateway;
use crate::head::Head;
use crate::model::Model;
use crate::network::{Network, To};
use crate::random::Random;
use crate::sabotage::Sabotage;

pub(crate) struct Simulation {
    pub(crate) now: u64,
    pub(crate) random: Random,
    pub(crate) head: Head,
    pub(crate) gateway: Gateway,
    pub(crate) network: Network,
    pub(crate) model: Model,
    counted_at: u64,
}

impl Simulation {
    pub(crate) fn new(seed: u64, sabotage: Option<Sabotage>) -> Self {
        let now = 100_000_000;
        let identity = SigningKey::from_bytes(&[4; 32]);
        let head = Head::new(seed, &identity, sabotage, now);
        let gateway = Gateway::new(head.site, head.verifier(), identity, sabotage, now);
        Self {
            now,
            random: Random::new(seed),
            head,
            gateway,
            network: Network::new(),
            model: Model::default(),
            counted_at: now,
        }
    }

    /// Nothing stands between the two: what one says the other hears.
    pub(crate) fn is_up(&self) -> bool {
        let same = self.gateway.conn.is_some() && self.gateway.conn == self.head.current();
        let clean = self.gateway.conn.is_some_and(|conn| !self.network.is_faulted(conn));
        same && clean && self.gateway.is_up() && self.head.dead_until.is_none() && !self.network.silent
    }

    /// Where the channel stands, for messages of a failure.
    pub(crate) fn describe(&self) -> String {
        let (gateway, head) = (&self.gateway, &self.head);
        let faulted = gateway.conn.map(|conn| self.network.is_faulted(conn));
        format!(
            "the gateway is {:?} on {:?} (faulted: {faulted:?}), dead until {:?}; the controller has {:?}, dead until {:?}",
            gateway.link.state(),
            gateway.conn,
            gateway.dead_until,
            head.current(),
            head.dead_until
        )
    }

    /// Moves what can move, then judges.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        loop {
            if let Some(conn) = self.gateway.pump(&mut self.network, self.now, &mut self.random) {
                if self.head.dead_until.is_none() {
                    self.head.accept(conn, self.now);
                } else {
                    self.network.close_all_from(To::Controller, self.now, &mut self.random);
                }
            }
            self.head.pump(&mut self.network, self.now);
            match self.network.receive(self.now) {
                Some((conn, To::Gateway, item)) => self.gateway.receive(conn, item, self.now),
                Some((conn, To::Controller, item)) => self.head.receive(conn, item, self.now),
                None => break,
            }
        }
        if let Some(error) = self.gateway.errors.pop().or_else(|| self.head.errors.pop()) {
            return Err(error);
        }
        let up = self.is_up();
        self.model.check(&self.head, &self.gateway, up, self.now)
    }

    /// Lets time pass, from one thing that happens to the next.
    pub(crate) fn pass(&mut self, millis: u64) -> Result<(), String> {
        let until = self.now + millis;
        self.settle()?;
        let mut still = 0;
        loop {
            let open = self.gateway.kernel.open(self.gateway.boot_time(self.now)).next().is_some();
            let count = (open && self.gateway.dead_until.is_none()).then_some(self.counted_at + 1_000);
            let nexts = [self.gateway.next(self.now), self.head.next(self.now), self.network.next(), count];
            let Some(next) = nexts.into_iter().flatten().min().filter(|next| *next <= until) else { break };
            still = if next <= self.now { still + 1 } else { 0 };
            if still > 10_000 {
                return Err("time stands still: something is always due".into());
            }
            self.now = self.now.max(next);
            self.gateway.handle_time(self.now, &mut self.random);
            self.head.handle_time(self.now);
            if self.counted_at + 1_000 <= self.now {
                self.counted_at = self.now;
                if self.gateway.dead_until.is_none() {
                    self.gateway.count(self.now);
                }
            }
            self.settle()?;
        }
        self.now = until;
        self.settle()
    }
}
