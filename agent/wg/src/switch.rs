//! All lanes of one device: which of them a packet or datagram belongs to, and which acts next.
//!
//! No I/O. Datagrams are told apart by the index that we gave the peer (`receiver_idx >> 8`), initiations by
//! MAC1 among the lanes' keys, packets from the interface by their destination. What strangers can cause is
//! bounded: a number of MACs and of handshakes a second for the whole device.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use thinlane_model::{Boot, Now, SessionId};

use crate::bucket::{Bucket, ByOrigin};
use crate::device::{DeviceError, LaneReport, LaneSpec};
use crate::lane::{Lane, OVERHEAD, Output, Step, kind};
use crate::mac1::{INITIATION, RESPONSE};
use crate::offload::parcel::Parcel;
use crate::packet;

mod fuzz;
#[cfg(test)]
mod soak;
#[cfg(test)]
mod tests;

pub use fuzz::fuzz_device;

/// Lanes of one device at once.
pub(crate) const MOST: usize = 1024;
/// MACs computed in a second to find an initiation's lane, each some 0.4 ms per thousand: a lane that is looked at
/// costs one, so that 64 lanes look at 500 initiations at least. As many again for lanes whose peer was never there.
const MACS_PER_SECOND: u32 = 32_000;
/// Handshakes answered in a second by all lanes together, each some 0.2 ms of curve arithmetic.
const HANDSHAKES_PER_SECOND: u32 = 100;
/// Room for one message: the longest packet and what encryption adds.
const ROOM: usize = 65_535 + OVERHEAD + 1;

/// The lanes of one device.
#[derive(Debug)]
pub(crate) struct Switch {
    mtu: u16,
    /// By index, a number of 24 bits.
    lanes: BTreeMap<u32, Lane>,
    by_session: BTreeMap<SessionId, u32>,
    by_address: BTreeMap<Ipv4Addr, u32>,
    /// When lanes want to act, at the latest; a lane that would by now wait longer is asked again then.
    due: BTreeSet<(Boot, u32)>,
    due_of: BTreeMap<u32, Boot>,
    macs: ByOrigin,
    macs_of_new_lanes: Bucket,
    handshakes: Bucket,
    room: Box<[u8]>,
}

impl Switch {
    pub(crate) fn new(mtu: u16) -> Self {
        Self {
            mtu,
            lanes: BTreeMap::new(),
            by_session: BTreeMap::new(),
            by_address: BTreeMap::new(),
            due: BTreeSet::new(),
            due_of: BTreeMap::new(),
            macs: ByOrigin::new(MACS_PER_SECOND, MACS_PER_SECOND / 4),
            macs_of_new_lanes: Bucket::new(MACS_PER_SECOND, MACS_PER_SECOND / 4),
            handshakes: Bucket::new(HANDSHAKES_PER_SECOND, HANDSHAKES_PER_SECOND),
            room: vec![0; ROOM].into_boxed_slice(),
        }
    }

    /// Opens a lane; `random` yields 32 random bits at a time.
    pub(crate) fn open(
        &mut self,
        spec: LaneSpec,
        random: &mut dyn FnMut() -> u32,
        now: Now,
        out: &mut dyn Output,
    ) -> Result<(), DeviceError> {
        let session = spec.session;
        if self.by_session.contains_key(&session) {
            return Err(DeviceError::Open(session));
        }
        let address = spec.role.far_address();
        if let Some(owner) = self.by_address.get(&address).and_then(|index| self.lanes.get(index)) {
            return Err(DeviceError::AddressTaken { address, owner: owner.session });
        }
        if self.lanes.len() >= MOST {
            return Err(DeviceError::Full { most: MOST });
        }
        let index = self.free_index(random);
        let lane = Lane::new(spec, index, self.mtu, now)?;
        if lane.due(now.mono).is_none() && lane.is_over(now.mono) {
            return Err(DeviceError::Ended(session));
        }
        if let Some(other) = self.lanes.values().find(|other| other.public == lane.public) {
            return Err(DeviceError::KeyTaken(other.session));
        }
        self.lanes.insert(index, lane);
        self.by_session.insert(session, index);
        self.by_address.insert(address, index);
        self.step(index, now, out, |lane, step| lane.on_time(step));
        Ok(())
    }

    pub(crate) fn extend(
        &mut self,
        session: SessionId,
        deadline: Boot,
        now: Now,
        out: &mut dyn Output,
    ) -> Result<(), DeviceError> {
        let index = self.index(session)?;
        self.step(index, now, out, |lane, step| lane.extend(deadline, step.now.mono))
            .unwrap_or(Err(DeviceError::Unknown(session)))
    }

    /// Flows from these ports of the engineer's go on.
    pub(crate) fn recall(
        &mut self,
        session: SessionId,
        ports: &[u16],
        now: Now,
        out: &mut dyn Output,
    ) -> Result<(), DeviceError> {
        let index = self.index(session)?;
        self.step(index, now, out, |lane, step| lane.recall(ports, step.now.mono));
        Ok(())
    }

    /// Packets of this lane reach the interface one by one.
    pub(crate) fn keep_apart(&mut self, session: SessionId, now: Now, out: &mut dyn Output) -> Result<(), DeviceError> {
        let index = self.index(session)?;
        self.step(index, now, out, |lane, _| lane.keep_apart());
        Ok(())
    }

    pub(crate) fn set_endpoint(
        &mut self,
        session: SessionId,
        endpoint: SocketAddr,
        now: Now,
        out: &mut dyn Output,
    ) -> Result<(), DeviceError> {
        let index = self.index(session)?;
        self.step(index, now, out, |lane, step| lane.set_endpoint(endpoint, step));
        Ok(())
    }

    /// Handshakes again in every lane that has an endpoint.
    pub(crate) fn handshake(&mut self, now: Now, out: &mut dyn Output) {
        let indices: Vec<u32> = self.lanes.keys().copied().collect();
        for index in indices {
            self.step(index, now, out, |lane, step| lane.handshake(step));
        }
    }

    pub(crate) fn shut(&mut self, session: SessionId, now: Now, out: &mut dyn Output) -> Result<(), DeviceError> {
        let index = self.index(session)?;
        self.step(index, now, out, |lane, step| lane.shut(step));
        Ok(())
    }

    /// Shuts a lane, wipes its keys and says what it carried.
    pub(crate) fn close(
        &mut self,
        session: SessionId,
        now: Now,
        out: &mut dyn Output,
    ) -> Result<LaneReport, DeviceError> {
        self.shut(session, now, out)?;
        self.suspend(session)
    }

    /// Takes a lane away without a word to either end, which will go on with the next one.
    pub(crate) fn suspend(&mut self, session: SessionId) -> Result<LaneReport, DeviceError> {
        let index = self.index(session)?;
        let mut lane = self.lanes.remove(&index).ok_or(DeviceError::Unknown(session))?;
        self.by_session.remove(&session);
        self.by_address.remove(&lane.role.far_address());
        if let Some(due) = self.due_of.remove(&index) {
            self.due.remove(&(due, index));
        }
        Ok(lane.report())
    }

    pub(crate) fn report(&mut self, session: SessionId) -> Option<LaneReport> {
        let index = self.index(session).ok()?;
        self.lanes.get_mut(&index).map(Lane::report)
    }

    pub(crate) fn sessions(&self) -> Vec<SessionId> {
        self.by_session.keys().copied().collect()
    }

    /// Takes what the interface sent, a packet or many in one; what is for no lane is dropped.
    pub(crate) fn take_parcel(&mut self, parcel: &mut Parcel<'_>, now: Now, out: &mut dyn Output) {
        let address = packet::destination_of(parcel.bytes());
        let index = address.and_then(|address| self.by_address.get(&address).copied());
        if let Some(index) = index {
            self.step(index, now, out, |lane, step| lane.take_parcel(parcel, step));
        }
    }

    /// Takes datagrams of one sender that came together, all `size` bytes long but for the last, which may be shorter.
    /// One that names no lane, or that there is no budget for, is dropped.
    pub(crate) fn take_datagrams(
        &mut self,
        bytes: &[u8],
        size: usize,
        from: SocketAddr,
        now: Now,
        out: &mut dyn Output,
    ) {
        let mut datagrams = bytes.chunks(size.max(1)).peekable();
        while let Some(datagram) = datagrams.next() {
            let Some(index) = self.lane_of(datagram, from, now.mono) else { continue };
            self.step(index, now, out, |lane, step| {
                lane.take_datagram(datagram, from, step);
                // Data for one lane mostly comes in one piece.
                while let Some(next) = datagrams.next_if(|next| data_for(next) == Some(index)) {
                    lane.take_datagram(next, from, step);
                }
            });
        }
    }

    /// Lets every lane act whose time has come.
    pub(crate) fn on_time(&mut self, now: Now, out: &mut dyn Output) {
        while let Some((due, index)) = self.due.first().copied().filter(|(due, _)| *due <= now.mono) {
            self.due.remove(&(due, index));
            self.due_of.remove(&index);
            self.step(index, now, out, |lane, step| lane.on_time(step));
        }
    }

    /// When `on_time` is wanted next.
    pub(crate) fn next_due(&self) -> Option<Boot> {
        self.due.first().map(|(due, _)| *due)
    }

    fn index(&self, session: SessionId) -> Result<u32, DeviceError> {
        self.by_session.get(&session).copied().ok_or(DeviceError::Unknown(session))
    }

    fn free_index(&self, random: &mut dyn FnMut() -> u32) -> u32 {
        loop {
            // At most one in 16 000 is taken.
            let index = random() >> 8;
            if !self.lanes.contains_key(&index) {
                return index;
            }
        }
    }

    fn lane_of(&mut self, datagram: &[u8], from: SocketAddr, now: Boot) -> Option<u32> {
        let known = |at: usize| {
            let word: [u8; 4] = datagram.get(at..at + 4)?.try_into().ok()?;
            let index = u32::from_le_bytes(word) >> 8;
            self.lanes.contains_key(&index).then_some(index)
        };
        match (datagram.get(..4)?, datagram.len()) {
            ([kind::DATA, 0, 0, 0], OVERHEAD..) => known(4),
            ([kind::COOKIE, 0, 0, 0], 64) => known(4),
            ([kind::RESPONSE, 0, 0, 0], RESPONSE) => {
                // Its index was in the clear: whoever saw it can write the rest, but for MAC1.
                let index = known(8)?;
                let lane = self.lanes.get(&index)?;
                let budget = self.macs.of(lane.endpoint() == Some(from));
                let right = budget.take(now) && lane.mac1.matches(datagram);
                (right && self.may_handshake(index, datagram, from, now)).then_some(index)
            }
            ([kind::INITIATION, 0, 0, 0], INITIATION) => {
                let index = self.lane_of_initiation(datagram, from, now)?;
                self.may_handshake(index, datagram, from, now).then_some(index)
            }
            _ => None,
        }
    }

    /// Looked at first: who has never been there, then who is there. Strangers' initiations have a budget of their own
    /// so that a flood of them does not keep lanes from new keys, and the lanes that wait for their engineer, mostly one
    /// or two, have theirs: hundreds of others do not keep him out.
    fn lane_of_initiation(&mut self, datagram: &[u8], from: SocketAddr, now: Boot) -> Option<u32> {
        let known = self.lanes.values().any(|lane| lane.endpoint() == Some(from));
        let rank = |lane: &Lane| match (lane.is_new(), lane.endpoint() == Some(from)) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 2,
        };
        for wanted in 0..=2 {
            let budget = if wanted == 0 && !known { &mut self.macs_of_new_lanes } else { self.macs.of(known) };
            for (index, lane) in self.lanes.iter().filter(|(_, lane)| rank(lane) == wanted) {
                if !budget.take(now) {
                    break;
                }
                if lane.mac1.matches(datagram) {
                    return Some(*index);
                }
            }
        }
        None
    }

    fn may_handshake(&mut self, index: u32, message: &[u8], from: SocketAddr, now: Boot) -> bool {
        self.lanes.get_mut(&index).is_some_and(|lane| lane.may_handshake(message, from, now))
            && self.handshakes.take(now)
    }

    /// Lets one lane act, and notes when it wants to act next.
    fn step<R>(
        &mut self,
        index: u32,
        now: Now,
        out: &mut dyn Output,
        act: impl FnOnce(&mut Lane, &mut Step<'_>) -> R,
    ) -> Option<R> {
        let lane = self.lanes.get_mut(&index)?;
        let result = act(lane, &mut Step { now, out, room: &mut self.room });
        let next = lane.due(now.mono);
        let noted = self.due_of.get(&index).copied();
        if let Some(next) = next
            && noted.is_none_or(|noted| next < noted)
        {
            if let Some(noted) = noted {
                self.due.remove(&(noted, index));
            }
            self.due.insert((next, index));
            self.due_of.insert(index, next);
        }
        Some(result)
    }
}

/// The lane that a data message names.
fn data_for(datagram: &[u8]) -> Option<u32> {
    let ([kind::DATA, 0, 0, 0], OVERHEAD..) = (datagram.get(..4)?, datagram.len()) else { return None };
    let word: [u8; 4] = datagram.get(4..8)?.try_into().ok()?;
    Some(u32::from_le_bytes(word) >> 8)
}
