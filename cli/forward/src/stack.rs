//! TCP inside a lane: many connections from one address to one port of one asset.
//!
//! Pure. Packets, bytes and the time come in; packets and bytes go out. What a connection does to its peer is what
//! the local program did to it: bytes when it wrote, FIN when it finished, RST when it broke off, and a closed
//! window when it does not read.

mod connection;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Cidr};

pub use connection::{End, Pulse};

use crate::random::Random;
use connection::Connection;
use queue::Queue;

/// Connections at once.
pub const MOST: usize = 200;
/// Finished connections that are kept for their last acknowledgement; the oldest gives way.
const LINGERING: usize = 32;
/// Connections that get large buffers, which a fast and long path needs; the others get small ones.
const LARGE_ONES: usize = 16;
/// Bytes of each direction's buffer. The operating system gives memory to what is used of them only; at most
/// (16 x 256 + 216 x 64) x 2 KB = 36 MB.
const LARGE: usize = 256 * 1024;
const SMALL: usize = 64 * 1024;
/// Packets that wait for the tunnel; while they do, connections keep their bytes.
const WAITING: usize = 64;
/// How long an asset may take to answer a new connection.
const CONNECTING: Duration = Duration::from_secs(30);
/// How long an asset may stay silent while an answer is due: long enough for a train in a tunnel.
const SILENT: Duration = Duration::from_secs(300);

/// How many times as fast as the world's the sockets' clock goes. smoltcp waits a whole second before it repeats what was
/// lost and not missed soon by the asset (RFC 6298's least timeout; Linux waits 200 ms), and doubles that up to a minute: so
/// it waits 250 ms, and 15 s at most, and what it measures on the way is as much longer on its clock. A question that was lost
/// is asked again that soon, and a lossy path carries twice as much; where the first packet takes longer than that, it goes out
/// twice and the connection begins more slowly.
const HASTE: i64 = 4;
/// smoltcp's longest timeout before it repeats what was not confirmed (RTTE_MAX_RTO), on its clock.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// One connection of a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u64);

/// All connections that a lane carries are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MOST} connections are open, which is all that a lane carries")]
pub struct Full;

/// The TCP end of a lane.
pub struct Stack {
    asset: SocketAddrV4,
    iface: Interface,
    sockets: SocketSet<'static>,
    queue: Queue,
    connections: BTreeMap<Id, Connection>,
    by_port: BTreeMap<u16, Id>,
    /// Finished on this side; port and socket stay until the peer has surely heard so.
    lingering: VecDeque<(u16, SocketHandle, bool)>,
    large: usize,
    next: u64,
    random: Random,
    /// How far the sockets' clock was moved on.
    ahead: Duration,
}

impl Stack {
    /// For connections from `address` to `asset` in IP packets of at most `mtu` bytes.
    pub fn new(address: Ipv4Addr, asset: SocketAddrV4, mtu: usize, seed: u64, now: Instant) -> Self {
        let mut queue = Queue::new(mtu, WAITING);
        let mut random = Random::new(seed);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = random.draw();
        let mut iface = Interface::new(config, &mut queue, hasty(now));
        iface.update_ip_addrs(|addresses| {
            // The first of the two places that there are.
            let _ = addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(address, 32)));
        });
        // Of several routes that there is room for; on a medium without neighbours the router's address says nothing.
        let _ = iface.routes_mut().add_default_ipv4_route(*asset.ip());
        Self {
            asset,
            iface,
            sockets: SocketSet::new(Vec::new()),
            queue,
            connections: BTreeMap::new(),
            by_port: BTreeMap::new(),
            lingering: VecDeque::new(),
            large: 0,
            next: 0,
            random,
            ahead: Duration::ZERO,
        }
    }

    /// Begins a connection; its SYN leaves with the next `poll`.
    pub fn connect(&mut self, now: Instant) -> Result<Id, Full> {
        if self.connections.len() >= MOST {
            return Err(Full);
        }
        let large = self.large < LARGE_ONES;
        let size = if large { LARGE } else { SMALL };
        let buffer = || SocketBuffer::new(vec![0; size]);
        let mut socket = Socket::new(buffer(), buffer());
        // The tool decides what goes into one segment, as far as it fits.
        socket.set_nagle_enabled(false);
        socket.set_congestion_control(CongestionControl::Cubic);
        let (by_port, lingering) = (&self.by_port, &self.lingering);
        let port = self.random.port(|port| by_port.contains_key(&port) || lingering.iter().any(|kept| kept.0 == port));
        let remote = (*self.asset.ip(), self.asset.port());
        // Both ends are whole and the socket is new, which is all that it asks for.
        socket.connect(self.iface.context(), remote, port).expect("a new socket with two whole ends connects");
        self.large += usize::from(large);
        let id = Id(self.next);
        self.next += 1;
        self.connections.insert(id, Connection::new(self.sockets.add(socket), port, large, now));
        self.by_port.insert(port, id);
        Ok(id)
    }

    /// Takes a packet of the asset's, to us, that is no fragment.
    pub fn take(&mut self, packet: &[u8], to_port: u16, now: Instant) {
        self.queue.arrive(packet);
        let time = self.clock(now);
        self.iface.poll_ingress_single(time, &mut self.queue, &mut self.sockets);
        self.queue.arrived();
        if let Some(id) = self.by_port.get(&to_port)
            && let Some(connection) = self.connections.get_mut(id)
        {
            connection.heard = now;
            connection.observe(self.sockets.get::<Socket<'_>>(connection.handle).state());
        }
    }

    /// Acts on time and on what was written, read, finished or broken off; packets wait in `packet` afterwards.
    pub fn poll(&mut self, now: Instant) {
        for connection in self.connections.values_mut() {
            connection.judge(self.sockets.get_mut(connection.handle), now);
        }
        self.push(now);
        self.lingering.retain(|(_, handle, large)| {
            // A socket that knows its ends has something to say or to wait for; also a last reset.
            let keep = self.sockets.get::<Socket<'_>>(*handle).local_endpoint().is_some();
            if !keep {
                self.sockets.remove(*handle);
                self.large -= usize::from(*large);
            }
            keep
        });
    }

    /// Lets the sockets fill the queue as far as it has room.
    fn push(&mut self, now: Instant) {
        use smoltcp::iface::PollResult;
        let time = self.clock(now);
        while !self.queue.is_full()
            && self.iface.poll_egress(time, &mut self.queue, &mut self.sockets) == PollResult::SocketStateChanged
        {
        }
    }

    /// The asset could not be heard for a while, and now it can: what it has not confirmed is repeated with the next `poll`,
    /// and not when a timeout that doubled all the while is over.
    pub fn repeat(&mut self) {
        let waits = |socket: &Socket<'_>| {
            socket.send_queue() > 0 || matches!(socket.state(), State::SynSent | State::FinWait1 | State::LastAck)
        };
        if self.connections.values().any(|connection| waits(self.sockets.get(connection.handle))) {
            self.ahead += LONGEST_TIMEOUT;
        }
    }

    /// A time of the world's on the sockets' clock.
    fn clock(&self, now: Instant) -> Instant {
        hasty(now) + self.ahead
    }

    /// The next packet for the tunnel.
    pub fn packet(&mut self) -> Option<Vec<u8>> {
        self.queue.leave()
    }

    /// Gives a packet's memory back.
    pub fn recycle(&mut self, packet: Vec<u8>) {
        self.queue.recycle(packet);
    }

    /// When `poll` is wanted next; `None`: not before something happens.
    pub fn due(&mut self, now: Instant) -> Option<Instant> {
        let deadlines = self.connections.values().filter_map(Connection::deadline).min();
        // A full queue is emptied by the tunnel, not by time.
        let time = self.clock(now);
        let wanted = if self.queue.is_full() { None } else { self.iface.poll_at(time, &self.sockets) };
        let wanted = wanted.map(|then| at_ease(then - self.ahead));
        [deadlines, wanted].into_iter().flatten().min()
    }

    /// Has `read` fill the room for bytes to the asset; it says how many it filled, and whatever else it wants to.
    ///
    /// `None`: there is no room now, or no connection yet, or none any more.
    pub fn write<R>(&mut self, id: Id, read: impl FnOnce(&mut [u8]) -> (usize, R)) -> Option<R> {
        let connection = self.connections.get(&id)?;
        let socket = self.sockets.get_mut::<Socket<'_>>(connection.handle);
        if !socket.can_send() {
            return None;
        }
        socket.send(read).ok()
    }

    /// Has `write` take bytes from the asset; it says how many it took, and whatever else it wants to.
    ///
    /// `None`: there are none now.
    pub fn read<R>(&mut self, id: Id, write: impl FnOnce(&mut [u8]) -> (usize, R)) -> Option<R> {
        let connection = self.connections.get(&id)?;
        let socket = self.sockets.get_mut::<Socket<'_>>(connection.handle);
        if !socket.can_recv() {
            return None;
        }
        socket.recv(write).ok()
    }

    /// No more bytes will be written: a FIN follows the last one.
    pub fn finish(&mut self, id: Id) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.finish(self.sockets.get_mut(connection.handle));
        }
    }

    /// Breaks the connection off with an RST.
    pub fn abort(&mut self, id: Id) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.abort(self.sockets.get_mut(connection.handle), End::Reset);
        }
    }

    /// Breaks every connection off.
    pub fn abort_all(&mut self) {
        for connection in self.connections.values_mut() {
            connection.abort(self.sockets.get_mut(connection.handle), End::Reset);
        }
    }

    /// How a connection stands; one that is unknown was reset.
    pub fn pulse(&self, id: Id) -> Pulse {
        match self.connections.get(&id) {
            Some(connection) => connection.pulse(self.sockets.get(connection.handle)),
            None => Pulse { writable: false, readable: false, finished: false, end: Some(End::Reset) },
        }
    }

    /// Wakes `id` up the next time that one of these comes true: it has bytes, or an end; it has room.
    pub fn await_change(&mut self, id: Id, readable: bool, writable: bool) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.awaits = Some((readable, writable));
        }
    }

    /// The connections for which what they wait for has come true.
    pub fn awake(&mut self, mut tell: impl FnMut(Id)) {
        for (id, connection) in &mut self.connections {
            if connection.is_awaited(self.sockets.get(connection.handle)) {
                connection.awaits = None;
                tell(*id);
            }
        }
    }

    /// The local end has gone; what is left to say to the asset is still said.
    pub fn forget(&mut self, id: Id) {
        let Some(connection) = self.connections.remove(&id) else { return };
        self.by_port.remove(&connection.port);
        let socket = self.sockets.get_mut::<Socket<'_>>(connection.handle);
        if !matches!(socket.state(), State::TimeWait | State::Closed) {
            socket.abort();
        }
        self.lingering.push_back((connection.port, connection.handle, connection.large));
        // A closed socket leaves with the next poll, after its RST if it owes one.
        if self.lingering.len() > LINGERING
            && let Some((_, handle, large)) = self.lingering.pop_front()
        {
            self.sockets.remove(handle);
            self.large -= usize::from(large);
        }
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.connections.len()
    }
}

/// A time of the world's on the sockets' clock, where that was never moved on.
fn hasty(now: Instant) -> Instant {
    Instant::from_micros(now.total_micros().saturating_mul(HASTE))
}

/// A time of the sockets' clock in the world, where it has surely come.
fn at_ease(then: Instant) -> Instant {
    Instant::from_micros(then.total_micros().div_euclid(HASTE).saturating_add(1))
}
