//! One lane: its tunnel, its guard, and when it next wants to act.
//!
//! No I/O: datagrams, packets and the time come in, and `Output` takes what goes out. `Tunn` does the
//! cryptography and reads CLOCK_BOOTTIME itself; when to handshake and to keep a path open is decided here,
//! because our own ends are quicker than the protocol asks (5 s without an answer instead of 15) and an armed
//! lane must have a fresh key when its first packet comes.

use std::net::SocketAddr;
use std::sync::Arc;

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use thinlane_model::{Boot, Now, PublicKey, SessionId};
use thinlane_packet::Recent;

use crate::bucket::ByOrigin;
use crate::device::{DeviceError, Event, LaneReport, LaneRole, LaneSpec};
use crate::gate::{Load, Reset};
use crate::guard::{Guard, Sent};
use crate::key::public_of;
use crate::mac1::Mac1;
use crate::offload::parcel::Parcel;
use crate::timing::Timing;

/// Handshake messages that one lane answers in a second before it asks for a cookie.
const HANDSHAKES_PER_SECOND: u64 = 5;
/// Handshake messages of one lane that are looked at in a second, the ones answered with a cookie included; as many
/// from where its peer is, and from anywhere else.
const HANDSHAKE_MESSAGES: u32 = 10;
/// The last counter of a data message that is taken (whitepaper, 6.5: REJECT_AFTER_MESSAGES).
const LAST_COUNTER: u64 = u64::MAX - (1 << 13);
/// Packets of one lane that wait for a key: the beginning of what somebody says, and no more, because every lane has
/// its own. `Tunn` would keep 256.
const WAITING: usize = 64;
/// What a data message has around its packet: type, index, counter, tag.
pub(crate) const OVERHEAD: usize = 32;

/// The kinds of WireGuard messages, by their first byte.
pub(crate) mod kind {
    pub(crate) const INITIATION: u8 = 1;
    pub(crate) const RESPONSE: u8 = 2;
    pub(crate) const COOKIE: u8 = 3;
    pub(crate) const DATA: u8 = 4;
}

/// Where a lane's output goes.
pub(crate) trait Output {
    /// Room for the next message, at least 65 535 + 32 bytes.
    fn space(&mut self) -> &mut [u8];
    /// Sends the message that stands in the first `length` bytes of `space`.
    fn send(&mut self, to: SocketAddr, length: usize);
    /// Hands a packet over, perhaps together with others of its flow.
    fn interface(&mut self, packet: &[u8]);
    /// Hands a packet over by itself.
    fn interface_alone(&mut self, packet: &[u8]);
    fn event(&mut self, event: Event);

    /// Sends a message that stands elsewhere.
    fn udp(&mut self, to: SocketAddr, datagram: &[u8]) {
        let length = datagram.len();
        if let Some(space) = self.space().get_mut(..length) {
            space.copy_from_slice(datagram);
            self.send(to, length);
        }
    }
}

/// The time, where output goes, and room for one packet: what every step of a lane needs.
pub(crate) struct Step<'a> {
    pub(crate) now: Now,
    pub(crate) out: &'a mut dyn Output,
    /// At least 65 535 + 32 bytes.
    pub(crate) room: &'a mut [u8],
}

pub(crate) struct Lane {
    pub(crate) session: SessionId,
    pub(crate) role: LaneRole,
    pub(crate) public: PublicKey,
    pub(crate) mac1: Mac1,
    tunn: Box<Tunn>,
    limiter: Arc<RateLimiter>,
    handshake_messages: ByOrigin,
    guard: Guard,
    endpoint: Option<SocketAddr>,
    fallback: Option<SocketAddr>,
    /// Another way is being tried: only a handshake shows where the peer is.
    trying: bool,
    timing: Timing,
    /// Our index in the last response that was sent and not yet confirmed by data.
    unconfirmed: Option<u32>,
    /// The handshake messages that were looked at last.
    recent: Recent,
    /// The greatest segment that a SYN may announce.
    mss: u16,
    /// Packets reach the interface one by one.
    apart: bool,
    /// Packets that `Tunn` keeps until there is a key.
    waiting: usize,
    handshakes: u64,
    last_handshake: Option<thinlane_model::Wall>,
    rx_bytes: u64,
    tx_bytes: u64,
}

impl Lane {
    /// Makes a lane whose messages carry `index`, a free number of 24 bits.
    pub(crate) fn new(spec: LaneSpec, index: u32, mtu: u16, now: Now) -> Result<Self, DeviceError> {
        let public = public_of(&spec.private)?;
        let own = x25519::PublicKey::from(*public.as_bytes());
        let limiter = Arc::new(RateLimiter::new(&own, HANDSHAKES_PER_SECOND));
        let mut timing = Timing::new(spec.initiate, spec.keepalive, now.mono);
        if spec.fallback.is_some() {
            timing.watch(now.mono);
        }
        let tunn = Tunn::new(
            x25519::StaticSecret::from(*spec.private.expose()),
            x25519::PublicKey::from(*spec.peer.as_bytes()),
            spec.preshared.as_ref().map(|key| *key.expose()),
            None,
            index,
            Some(limiter.clone()),
        );
        Ok(Self {
            session: spec.session,
            role: spec.role,
            public,
            mac1: Mac1::of(&public),
            tunn: Box::new(tunn),
            limiter,
            handshake_messages: ByOrigin::new(HANDSHAKE_MESSAGES, HANDSHAKE_MESSAGES),
            guard: Guard::new(spec.role),
            endpoint: spec.endpoint,
            fallback: spec.fallback,
            trying: false,
            timing,
            unconfirmed: None,
            recent: Recent::default(),
            mss: mtu.saturating_sub(40),
            apart: false,
            waiting: 0,
            handshakes: 0,
            last_handshake: None,
            rx_bytes: 0,
            tx_bytes: 0,
        })
    }

    /// Takes what the interface sent: a packet, or many in one.
    pub(crate) fn take_parcel(&mut self, parcel: &mut Parcel<'_>, step: &mut Step<'_>) {
        self.freshen(step);
        let now = step.now.mono;
        let load = Load { packets: parcel.count() as u64, bytes: parcel.total() as u64 };
        let sent = match parcel.as_whole() {
            Some(packet) => self.guard.leaving(packet, self.mss, now),
            None => self.guard.leaving_many(parcel.bytes(), load, now),
        };
        match sent {
            Sent::Pass => {
                for at in 0..parcel.count() {
                    self.seal_segment(parcel, at, step);
                }
            }
            Sent::Answer(reset) => self.send_reset(&reset, step),
            Sent::Drop => {}
        }
    }

    /// Takes a datagram that names this lane.
    pub(crate) fn take_datagram(&mut self, datagram: &[u8], from: SocketAddr, step: &mut Step<'_>) {
        let kind = datagram.first().copied().unwrap_or(0);
        let acceptable = match kind {
            kind::DATA => counter(datagram).is_some_and(|counter| counter <= LAST_COUNTER),
            // Once over, a lane makes no new keys; what still comes under the old ones is counted as late.
            _ => !self.guard.is_over(step.now.mono),
        };
        if !acceptable {
            return;
        }
        if kind != kind::DATA {
            self.limiter.reset_count();
        }
        self.freshen(step);
        match self.tunn.decapsulate(Some(from.ip()), datagram, step.room) {
            TunnResult::Done if kind == kind::DATA => self.decrypted(datagram, from, 0, step),
            TunnResult::Done => {}
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                let length = packet.len();
                self.decrypted(datagram, from, length, step);
            }
            // Decrypted, thus the peer's, but no IP packet: `Tunn` leaves it where it decrypted it.
            TunnResult::Err(WireGuardError::InvalidPacket) if kind == kind::DATA => {
                self.decrypted(datagram, from, datagram.len() - OVERHEAD, step);
            }
            TunnResult::Err(error) => tracing::trace!(session = %self.session, ?error, kind, "message refused"),
            TunnResult::WriteToNetwork(reply) => {
                let length = reply.len();
                self.replied(kind, datagram, from, length, step);
            }
        }
    }

    /// Acts on time having passed.
    pub(crate) fn on_time(&mut self, step: &mut Step<'_>) {
        if self.guard.expires(step.now.mono) {
            tracing::debug!(session = %self.session, "deadline reached");
            self.shut(step);
            step.out.event(Event::Expired(self.session));
        }
        if !self.guard.is_over(step.now.mono) {
            self.drive(step);
        }
    }

    /// When `on_time` is wanted next.
    pub(crate) fn due(&self, now: Boot) -> Option<Boot> {
        if self.guard.is_over(now) {
            return None;
        }
        let act = self.timing.due(now, self.endpoint.is_some());
        [act, self.guard.expiry()].into_iter().flatten().min()
    }

    pub(crate) fn set_endpoint(&mut self, endpoint: SocketAddr, step: &mut Step<'_>) {
        if self.guard.is_engineers() {
            self.endpoint = Some(endpoint);
            self.trying = true;
            self.timing.renew(step.now.mono);
        } else {
            if self.endpoint.is_none() || self.endpoint == self.fallback {
                self.endpoint = Some(endpoint);
            }
            self.fallback = Some(endpoint);
            self.timing.watch(step.now.mono);
            self.timing.forget_attempt();
        }
        self.on_time(step);
    }

    /// Makes new keys, whatever the age of the present ones.
    pub(crate) fn handshake(&mut self, step: &mut Step<'_>) {
        if self.endpoint.is_some() {
            self.timing.renew(step.now.mono);
            self.on_time(step);
        }
    }

    /// Whether nothing passes any more.
    pub(crate) fn is_over(&self, now: Boot) -> bool {
        self.guard.is_over(now)
    }

    /// Moves a gateway's deadline; an engineer's lane has none and leaves it to the gateway.
    pub(crate) fn extend(&mut self, deadline: Boot, now: Boot) -> Result<(), DeviceError> {
        if self.guard.extend(deadline, now) { Ok(()) } else { Err(DeviceError::Ended(self.session)) }
    }

    /// Packets reach the interface one by one from now on.
    pub(crate) fn keep_apart(&mut self) {
        self.apart = true;
    }

    /// Flows from these ports of the engineer's go on.
    pub(crate) fn recall(&mut self, ports: &[u16], now: Boot) {
        self.guard.recall(ports, now);
    }

    /// Whether a handshake message, whose MAC1 is right, may cost anything now: a copy may not, and no peer takes all
    /// that the device has.
    #[must_use]
    pub(crate) fn may_handshake(&mut self, message: &[u8], from: SocketAddr, now: Boot) -> bool {
        if self.guard.is_over(now) || self.recent.knows(message) {
            return false;
        }
        let may = self.handshake_messages.of(self.endpoint == Some(from)).take(now);
        if may {
            self.recent.note(message);
        }
        may
    }

    /// Its peer has never been here.
    pub(crate) fn is_new(&self) -> bool {
        self.handshakes == 0
    }

    pub(crate) fn endpoint(&self) -> Option<SocketAddr> {
        self.endpoint
    }

    /// Lets nothing more pass, then resets both ends of what is connected.
    pub(crate) fn shut(&mut self, step: &mut Step<'_>) {
        for reset in self.guard.shut() {
            self.send_reset(&reset, step);
        }
    }

    pub(crate) fn report(&mut self) -> LaneReport {
        let (denied, denied_unlisted) = self.guard.drain_denied();
        LaneReport {
            session: self.session,
            counters: self.guard.counters(),
            late_packets: self.guard.late(),
            last_handshake: self.last_handshake,
            rekeys: self.handshakes.saturating_sub(1),
            last_packet: self.guard.last_passed(),
            endpoint: self.endpoint,
            rx_bytes: self.rx_bytes,
            tx_bytes: self.tx_bytes,
            in_vain: self.timing.in_vain(),
            denied,
            denied_unlisted,
        }
    }

    /// Judges the packet of `length` bytes that was decrypted into the room.
    fn arrived(&mut self, length: usize, step: &mut Step<'_>) {
        let packet = &mut step.room[..length];
        match self.guard.arriving(packet, self.mss, step.now.mono) {
            Sent::Pass if self.apart => step.out.interface_alone(packet),
            Sent::Pass => step.out.interface(packet),
            Sent::Answer(reset) => self.send_reset(&reset, step),
            Sent::Drop => {}
        }
    }

    /// Handles what `Tunn` wrote in answer to a handshake message.
    fn replied(&mut self, kind: u8, datagram: &[u8], from: SocketAddr, length: usize, step: &mut Step<'_>) {
        match (kind, step.room[0]) {
            // A cookie goes to whoever asked, and moves nothing.
            (_, kind::COOKIE) => step.out.udp(from, &step.room[..length]),
            (kind::INITIATION, kind::RESPONSE) => {
                self.unconfirmed = word(&step.room[..length], 4);
                self.heard(datagram, from, false, step);
                self.transmit(from, length, false, step);
            }
            _ => {
                self.trying = false;
                self.heard(datagram, from, false, step);
                self.transmit(from, length, false, step);
                self.established(true, step);
            }
        }
    }

    /// Sends the message of `length` bytes that stands in the room, an answer to what came from there.
    fn transmit(&mut self, to: SocketAddr, length: usize, data: bool, step: &mut Step<'_>) {
        let Some(space) = step.out.space().get_mut(..length) else { return };
        space.copy_from_slice(&step.room[..length]);
        self.send_to(Some(to), length, data, step);
    }

    /// Takes an authentic data message, whose packet of `length` bytes stands in the room.
    fn decrypted(&mut self, datagram: &[u8], from: SocketAddr, length: usize, step: &mut Step<'_>) {
        // Data under a key that we answered for shows that the peer has it, too.
        let confirmed = self.unconfirmed.is_some() && word(datagram, 4) == self.unconfirmed;
        self.trying &= !confirmed;
        self.heard(datagram, from, length > 0, step);
        if length > 0 {
            self.arrived(length, step);
        }
        if confirmed {
            self.established(false, step);
        } else if self.guard.is_engineers() && !self.guard.is_over(step.now.mono) && self.timing.insists(step.now.mono)
        {
            // Where the peer was just heard, which need not be where the lane is.
            self.ask(from, step);
        }
    }

    /// Begins a handshake there.
    fn ask(&mut self, at: SocketAddr, step: &mut Step<'_>) {
        let initiation = self.tunn.format_handshake_initiation(step.out.space(), true);
        if let Some(length) = length_of(&initiation) {
            self.send_to(Some(at), length, false, step);
        }
    }

    /// An authentic message came in: its source is where the peer is. While another way is tried, it only shows that
    /// the peer can be heard there, not that it hears.
    fn heard(&mut self, datagram: &[u8], from: SocketAddr, data: bool, step: &mut Step<'_>) {
        self.rx_bytes += datagram.len() as u64;
        if !self.trying {
            self.endpoint = Some(from);
        }
        self.timing.heard(data, step.now.mono);
    }

    /// A handshake is complete: what waited for it leaves.
    fn established(&mut self, initiator: bool, step: &mut Step<'_>) {
        self.unconfirmed = None;
        self.handshakes += 1;
        self.last_handshake = Some(step.now.wall);
        self.timing.established(initiator, step.now.mono);
        tracing::debug!(session = %self.session, initiator, "handshake complete");
        self.waiting = 0;
        for _ in 0..WAITING {
            let TunnResult::WriteToNetwork(sealed) = self.tunn.decapsulate(None, &[], step.out.space()) else { break };
            let length = sealed.len();
            self.send(length, true, step);
        }
        step.out.event(Event::Handshake(self.session));
    }

    fn send_reset(&mut self, reset: &Reset, step: &mut Step<'_>) {
        match reset {
            Reset::ToEngineer(packet) if self.guard.is_engineers() => step.out.interface(packet),
            Reset::ToEngineer(packet) => self.seal(packet, step),
            Reset::ToAsset(packet) => step.out.interface(packet),
        }
    }

    /// Encrypts and sends a packet, or keeps it until there is a key for it.
    fn seal(&mut self, packet: &[u8], step: &mut Step<'_>) {
        if !self.may_seal(step.now.mono) {
            return;
        }
        let sealed = self.tunn.encapsulate(packet, step.out.space());
        let length = length_of(&sealed);
        self.sealed(length, packet.len(), step);
    }

    /// Encrypts and sends a segment of a parcel.
    fn seal_segment(&mut self, parcel: &mut Parcel<'_>, at: usize, step: &mut Step<'_>) {
        if !self.may_seal(step.now.mono) {
            return;
        }
        let (sealed, length) = match parcel.as_whole() {
            Some(packet) => (self.tunn.encapsulate(packet, step.out.space()), packet.len()),
            None => {
                let segment = parcel.segment(at, step.room);
                (self.tunn.encapsulate(segment, step.out.space()), segment.len())
            }
        };
        let message = length_of(&sealed);
        self.sealed(message, length, step);
    }

    /// Whether `Tunn` is to be given a packet: it has a key, or it may ask for one and keep the packet meanwhile.
    fn may_seal(&self, now: Boot) -> bool {
        // Asked first because it is what holds while packets cross.
        self.timing.is_live(now) || (!self.guard.is_over(now) && self.waiting < WAITING)
    }

    /// Sends the message that `Tunn` made of a packet; where it made none, or an initiation, it kept the packet.
    fn sealed(&mut self, message: Option<usize>, packet: usize, step: &mut Step<'_>) {
        let Some(message) = message else {
            self.waiting += 1;
            return;
        };
        if step.out.space().first() != Some(&kind::DATA) {
            self.waiting += 1;
        }
        self.send(message, packet > 0, step);
    }

    /// Sends the message of `length` bytes that stands in the space.
    fn send(&mut self, length: usize, data: bool, step: &mut Step<'_>) {
        self.send_to(self.endpoint, length, data, step);
    }

    fn send_to(&mut self, to: Option<SocketAddr>, length: usize, data: bool, step: &mut Step<'_>) {
        let kind = step.out.space().first().copied().unwrap_or(0);
        self.timing.sent(kind, data, step.now.mono);
        let elsewhere = self.fallback.filter(|_| kind == kind::INITIATION && self.timing.strays());
        if let Some(to) = elsewhere.or(to) {
            self.tx_bytes += length as u64;
            step.out.send(to, length);
        }
    }

    /// Brings `Tunn`'s own clock up to date, which it reads only when told to.
    fn freshen(&mut self, step: &mut Step<'_>) {
        if self.timing.is_stale(step.now.mono) && !self.guard.is_over(step.now.mono) {
            self.drive(step);
        }
    }

    fn drive(&mut self, step: &mut Step<'_>) {
        let now = step.now.mono;
        self.timing.ticked(now);
        match self.tunn.update_timers(step.out.space()) {
            TunnResult::WriteToNetwork(message) => {
                let length = message.len();
                self.send(length, false, step);
            }
            TunnResult::Err(_) => {
                // What waited for a key waits no more.
                self.waiting = 0;
                self.timing.gave_up();
            }
            _ => {}
        }
        let Some(endpoint) = self.endpoint else { return };
        if self.timing.wants_handshake(now) {
            self.ask(endpoint, step);
        } else if self.timing.wants_keepalive(now) {
            self.seal(&[], step);
        }
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("Lane")
            .field("session", &self.session)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// The length of the message that `Tunn` wrote, if it wrote one.
fn length_of(result: &TunnResult<'_>) -> Option<usize> {
    match result {
        TunnResult::WriteToNetwork(message) => Some(message.len()),
        _ => None,
    }
}

fn word(message: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(message.get(at..at + 4)?.try_into().ok()?))
}

fn counter(message: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(message.get(8..16)?.try_into().ok()?))
}
