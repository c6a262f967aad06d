//! The thread of the kernel backend: it alone changes the lanes, ends them at their deadlines, and looks for handshakes
//! while somebody waits for one.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use thinlane_model::{Boot, Counters, PublicKey, Secret, SessionId, Span, Wall};

use super::wire::{Found, Peer, Wire};
use super::{KernelConfig, lock};
use crate::clock;
use crate::device::{DeviceError, Event, LaneReport, LaneRole, LaneSpec};
use crate::link::Link;

pub(super) type Command = Box<dyn FnOnce(&mut Worker) + Send>;

/// An awaited handshake is looked for this soon, then half as often each time, down to `SELDOM`.
const SOON: Span = Span::from_millis(10);
const SELDOM: Span = Span::from_millis(1000);
/// The longest sleep with a lane open: the clock of deadlines runs on while the machine sleeps, that of waiting not.
const LONGEST: Span = Span::from_secs(30);
/// Seconds between the tries of an end that has no keepalive of its own and awaits its first handshake.
const INSIST: u16 = 5;
/// Packets that may wait in an interface before it drops them.
const QUEUE: u32 = 1000;
/// How often a peer is listened for until its silence is too long: the kernel does not say when it heard one.
const LOOKS: u64 = 5;
/// Lanes at one machine.
const MOST: usize = 1024;

/// The thread's state.
pub(super) struct Worker {
    config: KernelConfig,
    inbox: Receiver<Command>,
    link: Link,
    wire: Wire,
    lanes: BTreeMap<SessionId, Lane>,
    stopped: bool,
}

struct Lane {
    name: String,
    index: u32,
    peer: PublicKey,
    preshared: Option<Secret>,
    endpoint: Option<SocketAddr>,
    /// Where the peer is looked for when it is not heard any more at `endpoint`.
    fallback: Option<SocketAddr>,
    /// As asked for; 0: none.
    keepalive: u16,
    /// Tries every five seconds until the first handshake, also without a keepalive of its own.
    insist: bool,
    role: LaneRole,
    /// Nothing passes any more; what was seen last is final.
    shut: bool,
    expired: bool,
    gone: bool,
    seen: Seen,
    /// When to look for the first handshake again, and how long after that.
    awaited: Option<(Boot, Span)>,
    /// When the peer was heard, or looked for elsewhere, as far as was looked; and when that was listened for.
    heard: Boot,
    listened: Boot,
}

/// What the kernel has said of a lane.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    last_handshake: Option<Wall>,
    /// The peer as it is now has handshaken.
    fresh: bool,
    rekeys: u64,
    spoofed: u64,
    /// Of this peer, as the kernel counts it, and of those before it.
    rx: (u64, u64),
    tx: (u64, u64),
    last_packet: Option<Boot>,
}

impl Worker {
    /// Opens the sockets in the calling thread's network namespace.
    pub fn new(config: KernelConfig, inbox: Receiver<Command>) -> Result<Self, DeviceError> {
        let wire = Wire::open().map_err(doing("open a generic netlink socket"))?;
        Ok(Self { config, inbox, link: Link::open()?, wire, lanes: BTreeMap::new(), stopped: false })
    }

    pub fn run(mut self) {
        while !self.stopped {
            let now = now();
            let command = match self.due() {
                None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => self.inbox.recv_timeout(now.until(at).min(LONGEST).to_std()),
            };
            match command {
                Ok(command) => command(&mut self),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.tick();
        }
        self.close_all();
    }

    pub fn stop(&mut self) {
        self.close_all();
        self.stopped = true;
    }

    pub fn open(&mut self, spec: LaneSpec) -> Result<(), DeviceError> {
        let session = spec.session;
        if self.lanes.contains_key(&session) {
            return Err(DeviceError::Open(session));
        }
        if self.lanes.len() >= MOST {
            return Err(DeviceError::Full { most: MOST });
        }
        let address = spec.role.far_address();
        if let Some((owner, _)) = self.lanes.iter().find(|(_, lane)| lane.role.far_address() == address) {
            return Err(DeviceError::AddressTaken { address, owner: *owner });
        }
        if let Some((owner, _)) = self.lanes.iter().find(|(_, lane)| lane.peer == spec.peer) {
            return Err(DeviceError::KeyTaken(*owner));
        }
        if let LaneRole::Gateway { deadline, .. } = spec.role
            && deadline <= now()
        {
            return Err(DeviceError::Ended(session));
        }
        let name = format!("{}{}", self.config.prefix, session.short());
        let index = self.link.add_wireguard(&name)?;
        let mut lane = Lane {
            name,
            index,
            peer: spec.peer,
            preshared: spec.preshared,
            endpoint: spec.endpoint,
            fallback: spec.fallback,
            keepalive: spec.keepalive.unwrap_or(0),
            insist: spec.initiate,
            role: spec.role,
            shut: false,
            expired: false,
            gone: false,
            seen: Seen::default(),
            awaited: Some((now() + SOON, SOON)),
            heard: now(),
            listened: now(),
        };
        match self.set_up(&mut lane, &spec.private) {
            Ok(()) => {
                self.lanes.insert(session, lane);
                Ok(())
            }
            Err(error) => {
                // The first error says why; what is left is removed when the next process starts.
                if let Err(second) = self.take_away(&lane) {
                    tracing::warn!(error = %second, "a lane's interface stays behind");
                }
                Err(error)
            }
        }
    }

    /// Locks, keys, addresses, and last the peer.
    fn set_up(&mut self, lane: &mut Lane, private: &Secret) -> Result<(), DeviceError> {
        let (name, index) = (&lane.name, lane.index);
        if let (LaneRole::Gateway { tuple, .. }, Some(marks)) = (&lane.role, self.config.marks) {
            lock::lock(&mut self.link, name, index, tuple, marks)?;
        }
        let port = self.config.port;
        self.wire.set_up(index, private, port, self.config.mark).map_err(doing("give the interface its key"))?;
        match self.link.set_up(name, &self.config.alias, self.config.mtu.into(), QUEUE) {
            Err(error) if port != 0 && error.is_one_of(&[libc::EADDRINUSE]) => {
                let source = io::Error::from_raw_os_error(libc::EADDRINUSE);
                return Err(DeviceError::Io {
                    doing: "take the one UDP port for another lane of the kernel's",
                    source,
                });
            }
            up => up?,
        };
        if let LaneRole::Gateway { tuple, .. } = &lane.role {
            lock::lead(&mut self.link, index, tuple)?;
        }
        self.let_in(lane)
    }

    /// Makes the lane's peer anew: no keys are agreed, and where it has an endpoint it handshakes at once.
    fn let_in(&mut self, lane: &mut Lane) -> Result<(), DeviceError> {
        let keepalive = match lane.keepalive {
            0 if lane.insist => INSIST,
            keepalive => keepalive,
        };
        // Without an endpoint a try would fail at once, and hold up the next one for five seconds.
        let keepalive = if lane.endpoint.is_some() { keepalive } else { 0 };
        let peer = Peer {
            key: &lane.peer,
            preshared: lane.preshared.as_ref(),
            endpoint: lane.endpoint,
            keepalive,
            allowed: lane.role.far_address(),
        };
        lane.seen.begin_anew();
        lane.awaited = Some((now() + SOON, SOON));
        self.wire.set_peer(lane.index, &peer).map_err(doing("let the peer in"))
    }

    pub fn extend(&mut self, session: SessionId, to: Boot) -> Result<(), DeviceError> {
        let lane = self.lanes.get_mut(&session).ok_or(DeviceError::Unknown(session))?;
        match &mut lane.role {
            LaneRole::Gateway { deadline, .. } if !lane.shut && *deadline > now() => *deadline = to,
            _ => return Err(DeviceError::Ended(session)),
        }
        Ok(())
    }

    pub fn shut(&mut self, session: SessionId) -> Result<(), DeviceError> {
        let mut lane = self.lanes.remove(&session).ok_or(DeviceError::Unknown(session))?;
        let result = self.shut_lane(&mut lane);
        self.lanes.insert(session, lane);
        result
    }

    fn shut_lane(&mut self, lane: &mut Lane) -> Result<(), DeviceError> {
        if lane.shut || lane.gone {
            return Ok(());
        }
        self.look(lane);
        match self.wire.remove_peers(lane.index) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => lane.gone = true,
            result => result.map_err(doing("remove the peer"))?,
        }
        (lane.shut, lane.awaited) = (true, None);
        Ok(())
    }

    pub fn close(&mut self, session: SessionId) -> Result<LaneReport, DeviceError> {
        self.shut(session)?;
        let lane = self.lanes.get(&session).ok_or(DeviceError::Unknown(session))?;
        let report = lane.report(session);
        let (name, index) = (lane.name.clone(), lane.index);
        let lane = self.lanes.remove(&session).ok_or(DeviceError::Unknown(session))?;
        if let Err(error) = self.take_away(&lane) {
            self.lanes.insert(session, lane);
            return Err(error);
        }
        // Believed when the kernel says so.
        match self.link.interface(&name)? {
            Some(found) if found.index == index => {
                let source = io::Error::other(format!("{name} is still there"));
                Err(DeviceError::Io { doing: "remove the interface", source })
            }
            _ => Ok(report),
        }
    }

    /// The interface first, what locks it last.
    fn take_away(&mut self, lane: &Lane) -> Result<(), DeviceError> {
        self.link.delete_index(lane.index)?;
        if let (LaneRole::Gateway { tuple, .. }, Some(marks)) = (&lane.role, self.config.marks) {
            lock::unlock(&mut self.link, &lane.name, lane.index, tuple, marks)?;
        }
        Ok(())
    }

    pub fn close_all(&mut self) -> Vec<LaneReport> {
        let sessions: Vec<SessionId> = self.lanes.keys().copied().collect();
        let mut reports = Vec::new();
        for session in sessions {
            match self.close(session) {
                Ok(report) => reports.push(report),
                Err(error) => tracing::warn!(%session, %error, "a lane's interface stays behind"),
            }
        }
        self.lanes.clear();
        reports
    }

    pub fn report(&mut self, session: SessionId) -> Option<LaneReport> {
        let mut lane = self.lanes.remove(&session)?;
        self.look(&mut lane);
        let report = lane.report(session);
        let gone = lane.gone && !lane.shut;
        lane.shut |= gone;
        self.lanes.insert(session, lane);
        if gone {
            self.tell(Event::InterfaceGone);
        }
        Some(report)
    }

    pub fn reports(&mut self) -> Vec<LaneReport> {
        let sessions: Vec<SessionId> = self.lanes.keys().copied().collect();
        sessions.into_iter().filter_map(|session| self.report(session)).collect()
    }

    pub fn set_endpoint(&mut self, session: SessionId, endpoint: SocketAddr) -> Result<(), DeviceError> {
        let mut lane = self.lanes.remove(&session).ok_or(DeviceError::Unknown(session))?;
        // The peer may have come from elsewhere in the meantime.
        self.look(&mut lane);
        let result = self.point(&mut lane, endpoint);
        self.lanes.insert(session, lane);
        result
    }

    fn point(&mut self, lane: &mut Lane, endpoint: SocketAddr) -> Result<(), DeviceError> {
        if matches!(lane.role, LaneRole::Gateway { .. }) {
            let elsewhere = lane.endpoint.is_some() && lane.endpoint != lane.fallback;
            lane.fallback = Some(endpoint);
            if elsewhere {
                return Ok(());
            }
        }
        lane.endpoint = Some(endpoint);
        match (lane.shut, lane.seen.fresh) {
            (true, _) => Ok(()),
            (false, false) => self.let_in(lane),
            (false, true) => self
                .wire
                .change_peer(lane.index, &lane.peer, Some(endpoint), None)
                .map_err(doing("move the peer's endpoint")),
        }
    }

    pub fn handshake(&mut self) {
        let sessions: Vec<SessionId> = self.lanes.keys().copied().collect();
        for session in sessions {
            let Some(mut lane) = self.lanes.remove(&session) else { continue };
            self.look(&mut lane);
            if !lane.shut && lane.endpoint.is_some() {
                lane.insist = true;
                if let Err(error) = self.let_in(&mut lane) {
                    tracing::warn!(%session, %error, "no handshake was begun");
                }
            }
            self.lanes.insert(session, lane);
        }
    }

    pub fn port(&mut self, session: SessionId) -> Option<u16> {
        let index = self.lanes.get(&session)?.index;
        self.wire.find(index).ok().map(|found| found.port)
    }

    pub fn missing(&mut self, session: SessionId) -> Result<Option<&'static str>, DeviceError> {
        let lane = self.lanes.get(&session).ok_or(DeviceError::Unknown(session))?;
        match self.wire.find(lane.index) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(Some("the interface")),
            Err(error) => return Err(doing("read the interface back")(error)),
            Ok(found) if !found.peer => return Ok(Some("the peer")),
            Ok(_) => {}
        }
        match (&lane.role, self.config.marks) {
            (LaneRole::Gateway { tuple, .. }, Some(marks)) => {
                Ok(lock::missing(&mut self.link, &lane.name, lane.index, tuple, marks)?)
            }
            _ => Ok(None),
        }
    }

    /// When the thread must look up by itself.
    fn due(&self) -> Option<Boot> {
        let of = |lane: &Lane| {
            let deadline = match lane.role {
                LaneRole::Gateway { deadline, .. } if !lane.expired => Some(deadline),
                _ => None,
            };
            [deadline, lane.awaited.map(|(at, _)| at), self.listen_at(lane)].into_iter().flatten().min()
        };
        self.lanes.values().filter_map(of).min()
    }

    /// When a lane's peer is to be listened for; `None`: it can be looked for nowhere else.
    fn listen_at(&self, lane: &Lane) -> Option<Boot> {
        let elsewhere = lane.fallback.is_some() && lane.endpoint.is_some() && lane.endpoint != lane.fallback;
        let pause = Span::from_millis(self.config.silence.as_millis() / LOOKS);
        (elsewhere && !lane.shut && !lane.gone).then(|| lane.listened + pause)
    }

    /// Looks for a peer elsewhere that was silent for too long, whether or not it was ever heard here.
    fn listen(&mut self, session: SessionId, lane: &mut Lane, now: Boot) {
        lane.listened = now;
        self.look(lane);
        if lane.gone || lane.heard.until(now) < self.config.silence {
            return;
        }
        tracing::debug!(%session, "the peer is silent, and is looked for elsewhere");
        (lane.endpoint, lane.heard) = (lane.fallback, now);
        if let Err(error) = self.let_in(lane) {
            tracing::warn!(%session, %error, "the peer is not looked for elsewhere");
        }
    }

    fn tick(&mut self) {
        let now = now();
        let sessions: Vec<SessionId> = self.lanes.keys().copied().collect();
        for session in sessions {
            let Some(mut lane) = self.lanes.remove(&session) else { continue };
            let mut events = Vec::new();
            if let LaneRole::Gateway { deadline, .. } = lane.role
                && deadline <= now
                && !lane.expired
            {
                lane.expired = true;
                if let Err(error) = self.shut_lane(&mut lane) {
                    tracing::warn!(%session, %error, "an expired lane's peer stays; the table lets nothing pass");
                }
                events.push(Event::Expired(session));
            }
            if let Some((at, pause)) = lane.awaited
                && at <= now
            {
                let next = (pause + pause).min(SELDOM);
                lane.awaited = Some((now + next, next));
                self.look(&mut lane);
                if lane.seen.fresh {
                    lane.awaited = None;
                    self.calm(&mut lane);
                    events.push(Event::Handshake(session));
                }
            }
            if self.listen_at(&lane).is_some_and(|at| at <= now) {
                self.listen(session, &mut lane, now);
            }
            self.lanes.insert(session, lane);
            events.into_iter().for_each(|event| self.tell(event));
        }
    }

    /// A keepalive that was there for the first handshake alone is taken back.
    fn calm(&mut self, lane: &mut Lane) {
        let insisted = std::mem::take(&mut lane.insist);
        if lane.keepalive == 0
            && insisted
            && let Err(error) = self.wire.change_peer(lane.index, &lane.peer, None, Some(0))
        {
            tracing::debug!(%error, "the keepalive stays");
        }
    }

    /// Reads what the kernel has of a lane.
    fn look(&mut self, lane: &mut Lane) {
        if lane.shut || lane.gone {
            return;
        }
        match (self.wire.find(lane.index), self.link.frame_errors(lane.index)) {
            (Ok(found), Ok(Some(spoofed))) => {
                lane.endpoint = found.endpoint.or(lane.endpoint);
                if lane.seen.take(&found, spoofed) {
                    lane.heard = now();
                }
            }
            (_, Ok(None)) => (lane.gone, lane.awaited) = (true, None),
            (Err(error), _) => tracing::warn!(%error, "the kernel's WireGuard does not answer"),
            (_, Err(error)) => tracing::warn!(%error, "the interface's counters cannot be read"),
        }
    }

    fn tell(&mut self, event: Event) {
        if let Some(events) = &mut self.config.events {
            events(event);
        }
    }
}

impl Lane {
    fn report(&self, session: SessionId) -> LaneReport {
        let seen = &self.seen;
        LaneReport {
            session,
            counters: Counters { spoofed_packets: seen.spoofed, ..Counters::default() },
            late_packets: 0,
            last_handshake: seen.last_handshake,
            rekeys: seen.rekeys,
            last_packet: seen.last_packet,
            endpoint: self.endpoint,
            rx_bytes: seen.rx.0 + seen.rx.1,
            tx_bytes: seen.tx.0 + seen.tx.1,
            in_vain: Span::ZERO,
            denied: Vec::new(),
            denied_unlisted: 0,
        }
    }
}

impl Seen {
    /// Takes over what the kernel says; whether the peer was heard since the last time.
    fn take(&mut self, found: &Found, spoofed: u64) -> bool {
        if let (Some(before), Some(now)) = (self.last_handshake, found.last_handshake)
            && before != now
        {
            self.rekeys += 1;
        }
        self.fresh = found.last_handshake.is_some();
        self.last_handshake = found.last_handshake.or(self.last_handshake);
        if (self.rx.0, self.tx.0) != (found.rx_bytes, found.tx_bytes) {
            self.last_packet = Some(now());
        }
        let heard = self.rx.0 != found.rx_bytes;
        (self.rx.0, self.tx.0) = (found.rx_bytes, found.tx_bytes);
        self.spoofed = spoofed;
        heard
    }

    /// The kernel counts a new peer from nothing.
    fn begin_anew(&mut self) {
        self.fresh = false;
        self.rx = (0, self.rx.0 + self.rx.1);
        self.tx = (0, self.tx.0 + self.tx.1);
    }
}

/// CLOCK_BOOTTIME; it is there on every Linux.
fn now() -> Boot {
    clock::boot().unwrap_or(Boot(u64::MAX))
}

fn doing(doing: &'static str) -> impl FnOnce(io::Error) -> DeviceError {
    move |source| DeviceError::Io { doing, source }
}
