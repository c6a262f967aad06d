//! Which flows fill the interface's queue, so that they have one of their own and the others need not wait behind
//! them.
//!
//! An interface of several queues remembers for each flow through which of them its packets last came in, and sends
//! the flow's own packets out through the same (tun_flow_update, drivers/net/tun.c). So a flow is moved by the queue
//! that its answers are written to.

use super::coalesce::{Flow, flow_of};

/// Flows that are remembered; a further one takes the place of the one that was least lately heavy.
const MOST: usize = 32;

/// Flows that send more than one packet at a time.
#[derive(Debug, Default)]
pub(crate) struct Heavy {
    /// As their answers show them, and when each was last heavy.
    flows: Vec<(Flow, u64)>,
    turn: u64,
}

impl Heavy {
    /// Takes note of a large packet that the interface handed over.
    pub(crate) fn note(&mut self, packet: &[u8]) {
        let Some(flow) = flow_of(packet) else { return };
        let answers = turned(&flow);
        self.turn += 1;
        if let Some(known) = self.flows.iter_mut().find(|(known, _)| *known == answers) {
            known.1 = self.turn;
        } else if self.flows.len() < MOST {
            self.flows.push((answers, self.turn));
        } else if let Some(oldest) = self.flows.iter_mut().min_by_key(|(_, turn)| *turn) {
            *oldest = (answers, self.turn);
        }
    }

    /// Whether a packet on its way to the interface answers a heavy flow.
    pub(crate) fn is_answer(&self, packet: &[u8]) -> bool {
        !self.flows.is_empty() && flow_of(packet).is_some_and(|flow| self.flows.iter().any(|(heavy, _)| *heavy == flow))
    }
}

/// The same flow seen from its other end.
fn turned(flow: &Flow) -> Flow {
    let mut turned = *flow;
    turned[..4].copy_from_slice(&flow[4..8]);
    turned[4..8].copy_from_slice(&flow[..4]);
    turned[8..10].copy_from_slice(&flow[10..12]);
    turned[10..12].copy_from_slice(&flow[8..10]);
    turned
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::packet::sample::{icmp, tcp, udp};

    const ME: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
    const ASSET: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

    fn out(port: u16) -> Vec<u8> {
        tcp((ME, port), (ASSET, 2404), 0, 0, 0x10, &[0; 100])
    }

    fn answer(port: u16) -> Vec<u8> {
        tcp((ASSET, 2404), (ME, port), 0, 0, 0x10, b"")
    }

    #[test]
    fn only_answers_to_a_heavy_flow_take_its_queue() {
        let mut heavy = Heavy::default();
        assert!(!heavy.is_answer(&answer(1)));
        heavy.note(&out(1));
        assert!(heavy.is_answer(&answer(1)));
        assert!(!heavy.is_answer(&answer(2)) && !heavy.is_answer(&out(1)));
        assert!(!heavy.is_answer(&udp((ASSET, 2404), (ME, 1), b"x")));
        assert!(!heavy.is_answer(&icmp(ASSET, ME, 3, &out(1))) && !heavy.is_answer(b""));
    }

    #[test]
    fn many_flows_stay_few_and_the_latest_are_remembered() {
        let mut heavy = Heavy::default();
        for port in 0..1000 {
            heavy.note(&out(port));
            heavy.note(&out(7));
        }
        assert_eq!(heavy.flows.len(), MOST);
        assert!(heavy.is_answer(&answer(7)) && heavy.is_answer(&answer(999)) && !heavy.is_answer(&answer(100)));
    }
}
