//! Two WireGuard ends of another's making talk through the running relay on loopback.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey as DalekPublic, StaticSecret};
use thinlane_model::{PublicKey, SessionId, Span};
use thinlane_relay::{Handle, Shell, boot_now};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Longer than it takes until one more initiation of a session passes.
const TWO_INITIATIONS: Duration = Duration::from_millis(1100);

struct Peer {
    tunn: Tunn,
    socket: UdpSocket,
    relay: SocketAddr,
    got: Vec<Vec<u8>>,
}

fn keys(seed: u8) -> (StaticSecret, PublicKey) {
    let secret = StaticSecret::from([seed; 32]);
    let public = PublicKey::new(DalekPublic::from(&secret).to_bytes()).expect("not zero");
    (secret, public)
}

/// An IPv4 packet that `Tunn` takes for one.
fn packet(number: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len.max(24)];
    bytes[0] = 0x45;
    let total = bytes.len() as u16;
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    bytes[20..24].copy_from_slice(&number.to_be_bytes());
    bytes
}

impl Peer {
    fn new(own: StaticSecret, other: &PublicKey, index: u32, relay: SocketAddr) -> Self {
        let tunn = Tunn::new(own, DalekPublic::from(*other.as_bytes()), None, None, index, None);
        Self { tunn, socket: socket(), relay, got: Vec::new() }
    }

    fn begin(&mut self) {
        let mut buffer = [0; 2048];
        if let TunnResult::WriteToNetwork(out) = self.tunn.format_handshake_initiation(&mut buffer, true) {
            self.socket.send_to(out, self.relay).expect("loopback");
        }
    }

    fn send(&mut self, inner: &[u8]) {
        let mut buffer = vec![0; inner.len() + 200];
        if let TunnResult::WriteToNetwork(out) = self.tunn.encapsulate(inner, &mut buffer) {
            self.socket.send_to(out, self.relay).expect("loopback");
        }
    }

    /// Takes what has arrived, and answers it.
    fn poll(&mut self) {
        let (mut incoming, mut buffer) = ([0; 4096], [0; 4096]);
        while let Ok((len, _)) = self.socket.recv_from(&mut incoming) {
            let mut result = self.tunn.decapsulate(None, &incoming[..len], &mut buffer);
            loop {
                match result {
                    TunnResult::WriteToNetwork(out) => {
                        self.socket.send_to(out, self.relay).expect("loopback");
                        result = self.tunn.decapsulate(None, &[], &mut buffer);
                    }
                    TunnResult::WriteToTunnelV4(inner, _) => break self.got.push(inner.to_vec()),
                    _ => break,
                }
            }
        }
    }

    /// Leaves for another port, as behind a NAT that forgot it.
    fn rebind(&mut self) {
        self.socket = socket();
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind(LOOPBACK).expect("loopback");
    socket.set_read_timeout(Some(Duration::from_millis(2))).expect("a timeout");
    socket
}

struct Lane {
    engineer: Peer,
    gateway: Peer,
    session: SessionId,
}

impl Lane {
    fn open(shell: &Shell, seed: u8) -> Self {
        let (engineer, engineer_key) = keys(seed);
        let (gateway, gateway_key) = keys(seed + 100);
        let session = SessionId::from_random([seed; 5]);
        let until = boot_now() + Span::from_secs(600);
        shell.handle().open(session, engineer_key, Some(gateway_key), until).expect("room");
        let index = u32::from(seed);
        let engineer = Peer::new(engineer, &gateway_key, 1000 + index, shell.local_addr());
        let gateway = Peer::new(gateway, &engineer_key, 2000 + index, shell.local_addr());
        Self { engineer, gateway, session }
    }

    fn connect(&mut self, handle: &Handle) {
        self.gateway.begin();
        wait_for(|| handle.stats(self.session).is_some_and(|stats| stats.gateway.is_some()));
        self.engineer.begin();
        self.exchange(0);
    }

    fn poll(&mut self) {
        self.engineer.poll();
        self.gateway.poll();
    }

    /// Sends a packet each way and waits until both arrive.
    fn exchange(&mut self, number: u32) {
        let (up, down) = (packet(number, 200), packet(number, 1400));
        let start = Instant::now();
        let mut sent = start - Duration::from_secs(1);
        while !(self.gateway.got.contains(&up) && self.engineer.got.contains(&down)) {
            assert!(start.elapsed() < Duration::from_secs(10), "packet {number} did not arrive");
            if sent.elapsed() > Duration::from_millis(300) {
                sent = Instant::now();
                self.engineer.send(&up);
                self.gateway.send(&down);
            }
            self.poll();
        }
    }
}

/// Ends the flood also when an assertion fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn wait_for(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(5), "it did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn boringtun_ends_shake_hands_and_talk_through_the_relay() {
    let shell = Shell::bind(LOOPBACK).expect("loopback");
    let handle = shell.handle();
    let mut lane = Lane::open(&shell, 1);
    lane.connect(&handle);
    (1..20).for_each(|number| lane.exchange(number));
    let stats = handle.stats(lane.session).expect("open");
    assert_eq!(stats.engineer, lane.engineer.socket.local_addr().ok());
    assert_eq!(stats.gateway, lane.gateway.socket.local_addr().ok());
    assert!(stats.last_handshake.is_some() && stats.up_packets >= 20 && stats.down_packets >= 20);
}

#[test]
fn an_engineer_by_ipv6_meets_a_gateway_by_ipv4() {
    let shell = Shell::bind("[::]:0".parse().expect("an address")).expect("IPv6 is there");
    let (handle, port) = (shell.handle(), shell.local_addr().port());
    let mut lane = Lane::open(&shell, 9);
    lane.gateway.relay = SocketAddr::new(LOOPBACK.ip(), port);
    lane.engineer.relay = SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), port);
    lane.engineer.socket = UdpSocket::bind("[::1]:0").expect("IPv6 is there");
    lane.engineer.socket.set_read_timeout(Some(Duration::from_millis(2))).expect("a timeout");
    lane.connect(&handle);
    (1..5).for_each(|number| lane.exchange(number));
    let stats = handle.stats(lane.session).expect("open");
    assert_eq!(stats.engineer, lane.engineer.socket.local_addr().ok());
}

#[test]
fn both_ends_may_rebind_by_data_and_by_handshake() {
    let shell = Shell::bind(LOOPBACK).expect("loopback");
    let handle = shell.handle();
    let mut lane = Lane::open(&shell, 2);
    lane.connect(&handle);
    let before = handle.stats(lane.session).expect("open");
    lane.engineer.rebind();
    lane.exchange(1);
    assert_eq!(handle.stats(lane.session).expect("open").engineer, before.engineer, "data alone moves nothing");
    std::thread::sleep(TWO_INITIATIONS);
    lane.engineer.begin();
    let moved = lane.engineer.socket.local_addr().ok();
    wait_for(|| {
        lane.poll();
        handle.stats(lane.session).expect("open").engineer == moved
    });
    lane.exchange(2);
    lane.gateway.rebind();
    lane.exchange(3);
    std::thread::sleep(TWO_INITIATIONS);
    lane.gateway.begin();
    let moved = lane.gateway.socket.local_addr().ok();
    wait_for(|| {
        lane.poll();
        handle.stats(lane.session).expect("open").gateway == moved
    });
    lane.exchange(4);
}

#[test]
fn nothing_of_a_closed_session_leaves_the_relay_even_under_load() {
    let shell = Shell::bind(LOOPBACK).expect("loopback");
    let handle = shell.handle();
    let (mut lane, mut other) = (Lane::open(&shell, 3), Lane::open(&shell, 4));
    lane.connect(&handle);
    other.connect(&handle);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stopped = StopOnDrop(&stop);
        let flood = lane.engineer.socket.try_clone().expect("a socket");
        let (relay, stop) = (shell.local_addr(), &stop);
        let mut engineer = lane.engineer;
        scope.spawn(move || {
            let mut buffer = vec![0; 2000];
            while !stop.load(Ordering::Relaxed) {
                if let TunnResult::WriteToNetwork(out) = engineer.tunn.encapsulate(&packet(7, 1400), &mut buffer) {
                    let _ = flood.send_to(out, relay);
                }
            }
        });
        wait_for(|| handle.stats(lane.session).is_some_and(|stats| stats.up_packets > 2000));
        let asked = Instant::now();
        let stats = handle.close(lane.session).expect("was open");
        let took = asked.elapsed();
        assert!(took < Duration::from_millis(50), "closing took {took:?}");
        // What the relay sent before may wait in the gateway's socket; after that, silence.
        let mut buffer = [0; 4096];
        lane.gateway.socket.set_nonblocking(true).expect("a socket");
        while lane.gateway.socket.recv_from(&mut buffer).is_ok() {}
        std::thread::sleep(Duration::from_millis(200));
        let late = lane.gateway.socket.recv_from(&mut buffer);
        assert!(late.is_err(), "a datagram after closing; {} had passed", stats.up_packets);
    });
    assert!(handle.totals().dropped[&thinlane_relay::DropReason::UnknownIndex] > 0, "the flood went on");
    other.exchange(5);
}

#[test]
fn an_end_that_is_gone_does_not_disturb_the_others() {
    let shell = Shell::bind(LOOPBACK).expect("loopback");
    let handle = shell.handle();
    let (mut lane, mut other) = (Lane::open(&shell, 5), Lane::open(&shell, 6));
    lane.connect(&handle);
    other.connect(&handle);
    // Its port is closed: the kernel answers each datagram with "port unreachable".
    lane.gateway.rebind();
    for number in 0..100 {
        lane.engineer.send(&packet(number, 100));
    }
    (1..5).for_each(|number| other.exchange(number));
}
