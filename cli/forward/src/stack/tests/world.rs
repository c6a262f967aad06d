//! A peer, a network between, and a clock that jumps from one event to the next.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Cidr};

use super::super::queue::Queue;
use super::super::{Id, Stack};
use crate::random::Random;

const ENGINEER: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 5);
const ASSET: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 9);
const PORT: u16 = 7;
/// What each of the peer's buffers holds, in bytes.
pub const BUFFER: usize = 65_535;

/// What happens to packets.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    /// In a hundred packets.
    pub loss: u64,
    pub copies: u64,
    /// In milliseconds; with jitter, packets overtake one another.
    pub delay: u64,
    pub jitter: u64,
}

impl Network {
    pub const GOOD: Network = Network { loss: 0, copies: 0, delay: 5, jitter: 0 };
}

/// The far end: a device that listens on one port.
pub struct Peer {
    iface: Interface,
    sockets: SocketSet<'static>,
    queue: Queue,
    all: Vec<SocketHandle>,
}

impl Peer {
    fn new(listeners: usize, now: Instant) -> Self {
        let mut queue = Queue::new(1420, 4096);
        let mut iface = Interface::new(Config::new(HardwareAddress::Ip), &mut queue, now);
        iface.update_ip_addrs(|all| all.push(IpCidr::Ipv4(Ipv4Cidr::new(ASSET, 32))).expect("room"));
        iface.routes_mut().add_default_ipv4_route(ENGINEER).expect("room");
        let mut sockets = SocketSet::new(Vec::new());
        let all = (0..listeners)
            .map(|_| {
                let buffer = || SocketBuffer::new(vec![0; BUFFER]);
                let mut socket = Socket::new(buffer(), buffer());
                socket.listen(PORT).expect("a port");
                sockets.add(socket)
            })
            .collect();
        Self { iface, sockets, queue, all }
    }

    /// The first connection that is open.
    pub fn open(&mut self) -> Option<&mut Socket<'static>> {
        let open = |state| !matches!(state, State::Listen | State::Closed | State::SynReceived | State::TimeWait);
        let handle = *self.all.iter().find(|handle| open(self.sockets.get::<Socket<'_>>(**handle).state()))?;
        Some(self.sockets.get_mut(handle))
    }

    /// The first socket, in whatever state.
    pub fn any(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.all[0])
    }

    /// Closed sockets listen again.
    pub fn listen_again(&mut self) {
        for handle in &self.all {
            let socket = self.sockets.get_mut::<Socket<'_>>(*handle);
            if socket.state() == State::Closed {
                socket.listen(PORT).expect("a port");
            }
        }
    }

    /// Sends back what has come, on every connection.
    pub fn echo(&mut self) {
        for handle in &self.all {
            let socket = self.sockets.get_mut::<Socket<'_>>(*handle);
            let mut word = [0; 1024];
            if socket.can_recv()
                && let Ok(count) = socket.recv_slice(&mut word)
            {
                socket.send_slice(&word[..count]).expect("room");
            }
        }
    }
}

/// Everything together.
pub struct World {
    pub stack: Stack,
    pub peer: Peer,
    pub network: Network,
    pub now: Instant,
    /// The longest packet of the stack's.
    pub longest: usize,
    random: Random,
    /// By arrival, then by departure.
    flying: BTreeMap<(Instant, u64), (bool, Vec<u8>)>,
    departures: u64,
}

impl World {
    pub fn new(network: Network, listeners: usize, seed: u64) -> Self {
        let now = Instant::from_secs(1);
        let asset = SocketAddrV4::new(ASSET, PORT);
        Self {
            stack: Stack::new(ENGINEER, asset, 1200, seed, now),
            peer: Peer::new(listeners, now),
            network,
            now,
            longest: 0,
            random: Random::new(seed),
            flying: BTreeMap::new(),
            departures: 0,
        }
    }

    /// A connection that is open at both ends.
    pub fn connect(&mut self) -> Id {
        let id = self.stack.connect(self.now).expect("room");
        self.run(60, |world| world.stack.pulse(id).writable && world.peer.open().is_some());
        assert!(self.stack.pulse(id).writable, "it does not open");
        id
    }

    /// Goes on for so many seconds of the world's time, or until it is `enough`.
    pub fn run(&mut self, seconds: u64, mut enough: impl FnMut(&mut World) -> bool) {
        let until = self.now + Duration::from_secs(seconds);
        while self.now < until {
            self.step();
            if enough(self) {
                // What was just done is still sent.
                return self.step();
            }
            self.advance(until);
        }
    }

    fn step(&mut self) {
        while let Some(entry) = self.flying.first_entry()
            && entry.key().0 <= self.now
        {
            let (to_asset, packet) = entry.remove();
            if to_asset {
                self.peer.queue.arrive(&packet);
                self.peer.iface.poll(self.now, &mut self.peer.queue, &mut self.peer.sockets);
            } else {
                let port = u16::from_be_bytes([packet[22], packet[23]]);
                self.stack.take(&packet, port, self.now);
            }
        }
        self.stack.poll(self.now);
        while let Some(packet) = self.stack.packet() {
            self.longest = self.longest.max(packet.len());
            self.fly(true, packet.clone());
            self.stack.recycle(packet);
            self.stack.poll(self.now);
        }
        self.peer.iface.poll(self.now, &mut self.peer.queue, &mut self.peer.sockets);
        while let Some(packet) = self.peer.queue.leave() {
            self.fly(false, packet);
        }
    }

    fn fly(&mut self, to_asset: bool, packet: Vec<u8>) {
        let mut chance = |percent| self.random.draw() % 100 < percent;
        let lost = chance(self.network.loss);
        let copies = if lost { 0 } else { 1 + usize::from(chance(self.network.copies)) };
        for _ in 0..copies {
            let jitter = self.random.draw() % (self.network.jitter + 1);
            let arrival = self.now + Duration::from_millis(self.network.delay + jitter);
            self.departures += 1;
            self.flying.insert((arrival, self.departures), (to_asset, packet.clone()));
        }
    }

    /// To the next thing that happens; a program looks again after 10 ms at the latest while something flies.
    fn advance(&mut self, until: Instant) {
        let flying = self.flying.first_key_value().map(|((at, _), _)| *at);
        let stack = self.stack.due(self.now);
        let peer = self.peer.iface.poll_at(self.now, &self.peer.sockets);
        let next = [flying, stack, peer].into_iter().flatten().min().unwrap_or(self.now + Duration::from_millis(500));
        self.now = next.max(self.now + Duration::from_millis(1)).min(until);
    }
}
