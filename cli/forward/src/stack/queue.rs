//! Packets on their way between the TCP stack and the tunnel.

use std::collections::VecDeque;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// What the stack takes for a network interface.
pub(super) struct Queue {
    mtu: usize,
    most: usize,
    arriving: Vec<u8>,
    has_arrived: bool,
    leaving: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

impl Queue {
    pub(super) fn new(mtu: usize, most: usize) -> Self {
        Self { mtu, most, arriving: Vec::new(), has_arrived: false, leaving: VecDeque::new(), spare: Vec::new() }
    }

    /// Offers a packet to the stack's next look.
    pub(super) fn arrive(&mut self, packet: &[u8]) {
        self.arriving.clear();
        self.arriving.extend_from_slice(packet);
        self.has_arrived = true;
    }

    /// The stack has looked; whether or not it took the packet, it is gone.
    pub(super) fn arrived(&mut self) {
        self.has_arrived = false;
    }

    pub(super) fn is_full(&self) -> bool {
        self.leaving.len() >= self.most
    }

    pub(super) fn leave(&mut self) -> Option<Vec<u8>> {
        self.leaving.pop_front()
    }

    pub(super) fn recycle(&mut self, packet: Vec<u8>) {
        if self.spare.len() < self.most {
            self.spare.push(packet);
        }
    }
}

impl Device for Queue {
    type RxToken<'a> = Arriving<'a>;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arriving<'_>, Leaving<'_>)> {
        if !std::mem::take(&mut self.has_arrived) {
            return None;
        }
        // An answer to this packet may exceed the queue: one for each packet that the tunnel brings, no more.
        Some((Arriving(&self.arriving), Leaving { queue: &mut self.leaving, spare: &mut self.spare }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        if self.is_full() {
            return None;
        }
        Some(Leaving { queue: &mut self.leaving, spare: &mut self.spare })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

pub(super) struct Arriving<'a>(&'a [u8]);

impl RxToken for Arriving<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

pub(super) struct Leaving<'a> {
    queue: &'a mut VecDeque<Vec<u8>>,
    spare: &'a mut Vec<Vec<u8>>,
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut packet = self.spare.pop().unwrap_or_default();
        packet.clear();
        packet.resize(length, 0);
        let done = fill(&mut packet);
        self.queue.push_back(packet);
        done
    }
}
