//! The far end of a lane in one thread: the tunnel, and behind it an asset that echoes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use smoltcp::iface::{Config as Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as Now;
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Cidr};
use thinlane_forward::Config;
use thinlane_forward::packet::{self, Datagram, Ipv4};
use thinlane_forward::reassembly::Reassembly;
use thinlane_forward::tunnel::{Heard, Tunnel};
use thinlane_model::{Protocol, PublicKey, Secret};

const ENGINEER: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 5);
const ASSET: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 9);
const PORT: u16 = 502;

/// Keys from tests of WireGuard's own kind: any 32 bytes are a private one.
fn keys(byte: u8) -> (Secret, PublicKey) {
    let private = [byte; 32];
    let public = boringtun::x25519::PublicKey::from(&boringtun::x25519::StaticSecret::from(private));
    (Secret::new(private), PublicKey::new(public.to_bytes()).expect("a key"))
}

/// A running gateway; ends when dropped.
pub struct Gateway {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    connections: AtomicUsize,
    /// The source that is not heard any more.
    heard: Mutex<Option<SocketAddr>>,
    forsaken: Mutex<Option<SocketAddr>>,
}

impl Gateway {
    pub fn start(protocol: Protocol) -> Gateway {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let thread = {
            let shared = shared.clone();
            std::thread::spawn(move || Inside::new(protocol).serve(&socket, &shared))
        };
        Gateway { address, shared, thread: Some(thread) }
    }

    /// What the other end needs.
    pub fn config(&self) -> Config {
        Config {
            private: keys(1).0,
            peer: keys(2).1,
            preshared: Secret::new([3; 32]),
            endpoint: self.address.into(),
            fallback: None,
            keepalive: 25,
            address: ENGINEER,
            asset: SocketAddrV4::new(ASSET, PORT),
            mtu: 1420,
            prepare: |_| Ok(()),
        }
    }

    /// How many connections the asset has.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Hears nothing more from where it hears now, nor says anything there.
    pub fn forsake(&self) {
        let heard = *self.shared.heard.lock().expect("no panic");
        *self.shared.forsaken.lock().expect("no panic") = heard;
    }

    pub fn wait(&self, so: impl Fn() -> bool, what: &str) {
        let begun = Instant::now();
        while !so() {
            assert!(begun.elapsed() < Duration::from_secs(10), "it is still not so that {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Inside {
    protocol: Protocol,
    tunnel: Tunnel,
    link: Link,
    iface: smoltcp::iface::Interface,
    sockets: SocketSet<'static>,
    all: Vec<SocketHandle>,
    reassembly: Reassembly,
    begun: Instant,
}

impl Inside {
    fn new(protocol: Protocol) -> Self {
        let tunnel = Tunnel::new(&keys(2).0, &keys(1).1, Some(&Secret::new([3; 32])), 0, 9, Now::ZERO);
        let mut link = Link::default();
        let mut iface = smoltcp::iface::Interface::new(Interface::new(HardwareAddress::Ip), &mut link, Now::ZERO);
        iface.update_ip_addrs(|all| all.push(IpCidr::Ipv4(Ipv4Cidr::new(ASSET, 32))).expect("room"));
        iface.routes_mut().add_default_ipv4_route(ENGINEER).expect("room");
        let mut sockets = SocketSet::new(Vec::new());
        let all = (0..4)
            .map(|_| {
                let buffer = || SocketBuffer::new(vec![0; 65_535]);
                let mut socket = Socket::new(buffer(), buffer());
                socket.listen(PORT).expect("a port");
                sockets.add(socket)
            })
            .collect();
        Self { protocol, tunnel, link, iface, sockets, all, reassembly: Reassembly::default(), begun: Instant::now() }
    }

    fn serve(mut self, socket: &UdpSocket, shared: &Shared) {
        socket.set_read_timeout(Some(Duration::from_millis(2))).expect("a timeout");
        let mut room = vec![0; 65_536];
        let mut peer = None;
        while !shared.stop.load(Ordering::Relaxed) {
            let now = Now::from_micros(i64::try_from(self.begun.elapsed().as_micros()).expect("not for ages"));
            let mut out: Vec<Vec<u8>> = Vec::new();
            if let Ok((length, from)) = socket.recv_from(&mut room)
                && *shared.forsaken.lock().expect("no panic") != Some(from)
            {
                let send = &mut |message: &[u8]| out.push(message.to_vec());
                match self.tunnel.open(&room[..length], from.ip(), now, send) {
                    Heard::Nothing => {}
                    Heard::Peer => peer = Some(from),
                    Heard::Packet(bytes) => {
                        peer = Some(from);
                        self.link.arriving.push(bytes.to_vec());
                    }
                }
                *shared.heard.lock().expect("no panic") = peer;
            }
            let answers = match self.protocol {
                Protocol::Tcp => self.tcp(now),
                Protocol::Udp => self.udp(now),
            };
            for bytes in answers {
                self.tunnel.seal(&bytes, now, &mut |message| out.push(message.to_vec()));
            }
            let open = |handle: &&SocketHandle| self.sockets.get::<Socket<'_>>(**handle).state() != State::Listen;
            shared.connections.store(self.all.iter().filter(open).count(), Ordering::Relaxed);
            let dead = *shared.forsaken.lock().expect("no panic");
            if let Some(to) = peer.filter(|peer| Some(*peer) != dead) {
                for message in out {
                    socket.send_to(&message, to).expect("sent");
                }
            }
        }
    }

    fn tcp(&mut self, now: Now) -> Vec<Vec<u8>> {
        self.iface.poll(now, &mut self.link, &mut self.sockets);
        for handle in &self.all {
            let socket = self.sockets.get_mut::<Socket<'_>>(*handle);
            while socket.can_recv() && socket.can_send() {
                let room = socket.send_capacity() - socket.send_queue();
                let mut bytes = vec![0; room];
                let count = socket.recv_slice(&mut bytes).expect("it can");
                assert_eq!(socket.send_slice(&bytes[..count]), Ok(count));
                if count == 0 {
                    break;
                }
            }
            match socket.state() {
                State::CloseWait if socket.recv_queue() == 0 => socket.close(),
                State::Closed => socket.listen(PORT).expect("a port"),
                _ => {}
            }
        }
        self.iface.poll(now, &mut self.link, &mut self.sockets);
        std::mem::take(&mut self.link.leaving)
    }

    fn udp(&mut self, now: Now) -> Vec<Vec<u8>> {
        let mut answers = BTreeMap::new();
        for bytes in std::mem::take(&mut self.link.arriving) {
            let part = packet::parse(&bytes).expect("a packet");
            let Some(payload) =
                (if part.is_fragment() { self.reassembly.take(&part, now) } else { Some(part.payload.to_vec()) })
            else {
                continue;
            };
            let whole = Ipv4 { payload: &payload, more_fragments: false, offset: 0, ..part };
            let asked = packet::datagram(&whole).expect("a datagram");
            let answer = Datagram { source_port: PORT, destination_port: asked.source_port, payload: asked.payload };
            let answer = packet::write_udp(ASSET, ENGINEER, answer).expect("it fits");
            let back = Ipv4 { source: ASSET, destination: ENGINEER, payload: &answer, ..whole };
            answers.insert((asked.source_port, part.id), packet::fragments(back, 1420).collect::<Vec<_>>());
        }
        answers.into_values().flatten().collect()
    }
}

#[derive(Default)]
struct Link {
    arriving: Vec<Vec<u8>>,
    leaving: Vec<Vec<u8>>,
}

struct Arriving(Vec<u8>);
struct Leaving<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Arriving {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut bytes = vec![0; length];
        let done = fill(&mut bytes);
        self.0.push(bytes);
        done
    }
}

impl Device for Link {
    type RxToken<'a> = Arriving;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Now) -> Option<(Arriving, Leaving<'_>)> {
        if self.arriving.is_empty() {
            return None;
        }
        Some((Arriving(self.arriving.remove(0)), Leaving(&mut self.leaving)))
    }

    fn transmit(&mut self, _: Now) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.leaving))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1420;
        capabilities
    }
}
