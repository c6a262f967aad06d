//! A UDP hop as a carrier's NAT is: it forgets mappings, goes silent, loses, duplicates and reorders.
//!
//! Every client gets a socket of its own towards the target, so that the target tells clients apart by their ports.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

const PAUSE: Duration = Duration::from_millis(20);

/// What happens to datagrams, and what was seen of them; both directions alike.
#[derive(Debug, Default)]
pub struct Weather {
    /// Nothing passes.
    pub silent: AtomicBool,
    /// Of a thousand: how many are lost, come twice, or change places with the next.
    pub lost: AtomicU32,
    pub twice: AtomicU32,
    pub swapped: AtomicU32,
    /// Datagrams that came in.
    pub seen: AtomicU64,
    /// Longest datagram that came in.
    pub longest: AtomicU64,
    /// WireGuard's cookie replies, and initiations that carry a cookie (MAC2).
    pub cookies: AtomicU64,
    pub with_cookie: AtomicU64,
    dice: AtomicU64,
}

impl Weather {
    fn note(&self, datagram: &[u8]) {
        self.seen.fetch_add(1, Relaxed);
        self.longest.fetch_max(datagram.len() as u64, Relaxed);
        match (datagram.first(), datagram.len()) {
            (Some(3), 64) => self.cookies.fetch_add(1, Relaxed),
            (Some(1), 148) if datagram[132..] != [0; 16] => self.with_cookie.fetch_add(1, Relaxed),
            _ => 0,
        };
    }

    /// The same throws in every run: a linear congruence is random enough for weather.
    fn happens(&self, of_thousand: &AtomicU32) -> bool {
        let wanted = of_thousand.load(Relaxed);
        if wanted == 0 {
            return false;
        }
        let next =
            |dice: u64| Some(dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
        let dice = self.dice.fetch_update(Relaxed, Relaxed, next).unwrap_or(0);
        (dice >> 33) % 1000 < u64::from(wanted)
    }

    /// Sends what there is to send of one datagram; `held` is one that waits for the next.
    fn pass(&self, datagram: &[u8], held: &mut Option<Vec<u8>>, send: impl Fn(&[u8])) {
        self.note(datagram);
        if self.silent.load(Relaxed) || self.happens(&self.lost) {
            return;
        }
        if held.is_none() && self.happens(&self.swapped) {
            *held = Some(datagram.to_vec());
            return;
        }
        send(datagram);
        if self.happens(&self.twice) {
            send(datagram);
        }
        if let Some(held) = held.take() {
            send(&held);
        }
    }
}

type Mappings = Arc<Mutex<BTreeMap<SocketAddr, (Arc<UdpSocket>, Arc<AtomicBool>)>>>;

/// A running hop; gone when dropped.
pub struct Hop {
    pub weather: Arc<Weather>,
    /// Where it listens.
    pub address: SocketAddr,
    mappings: Mappings,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Hop {
    /// Listens at `front` in a namespace and passes on to `target`.
    pub fn start(ns: &str, front: SocketAddr, target: SocketAddr) -> Self {
        let file = File::open(format!("/run/netns/{ns}")).expect("the namespace exists");
        let (weather, mappings, stop) =
            (Arc::new(Weather::default()), Mappings::default(), Arc::new(AtomicBool::new(false)));
        let (told, tell) = std::sync::mpsc::channel();
        let hop = (weather.clone(), mappings.clone(), stop.clone());
        let thread = thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).expect("root enters namespaces");
            let socket = UdpSocket::bind(front).expect("a free port");
            socket.set_read_timeout(Some(PAUSE)).expect("a timeout");
            told.send(socket.local_addr().expect("an address")).expect("somebody waits");
            forward(&Arc::new(socket), target, &hop.0, &hop.1, &hop.2);
        });
        let address = tell.recv().expect("the hop listens");
        Self { weather, address, mappings, stop, thread: Some(thread) }
    }

    /// Forgets every mapping: from the next datagram on, each client has another source port.
    pub fn rebind(&self) {
        for (_, (_, stop)) in std::mem::take(&mut *self.mappings.lock().expect("no panic holds it")) {
            stop.store(true, Relaxed);
        }
    }

    /// Nothing passes for a while.
    pub fn black_out(&self, length: Duration) {
        self.weather.silent.store(true, Relaxed);
        thread::sleep(length);
        self.weather.silent.store(false, Relaxed);
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.rebind();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn forward(front: &Arc<UdpSocket>, target: SocketAddr, weather: &Arc<Weather>, mappings: &Mappings, stop: &AtomicBool) {
    let mut buffer = [0; 65_536];
    let mut held: Option<Vec<u8>> = None;
    while !stop.load(Relaxed) {
        let Ok((length, client)) = front.recv_from(&mut buffer) else { continue };
        let back = mapping(front, client, target, weather, mappings);
        weather.pass(&buffer[..length], &mut held, |datagram| drop(back.send(datagram)));
    }
}

fn mapping(
    front: &Arc<UdpSocket>,
    client: SocketAddr,
    target: SocketAddr,
    weather: &Arc<Weather>,
    mappings: &Mappings,
) -> Arc<UdpSocket> {
    let mut mappings = mappings.lock().expect("no panic holds it");
    if let Some((back, _)) = mappings.get(&client) {
        return back.clone();
    }
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let back = Arc::new(UdpSocket::bind(any).expect("a socket"));
    back.connect(target).expect("a route");
    back.set_read_timeout(Some(PAUSE)).expect("a timeout");
    let over = Arc::new(AtomicBool::new(false));
    mappings.insert(client, (back.clone(), over.clone()));
    let (from, to, weather) = (back.clone(), front.clone(), weather.clone());
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        let mut held: Option<Vec<u8>> = None;
        while !over.load(Relaxed) {
            if let Ok(length) = from.recv(&mut buffer) {
                weather.pass(&buffer[..length], &mut held, |datagram| drop(to.send_to(datagram, client)));
            }
        }
    });
    back
}
