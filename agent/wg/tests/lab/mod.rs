//! Network namespaces for tests: an engineer, a gateway and a device, wired up, without any firewall.
//!
//! ```text
//! engineer 10.77.0.1 ---- 10.77.0.2 gateway 192.168.1.1 ---- 192.168.1.10, .11 device
//! ```
//! The device has a route back to the engineer's /32, so nothing needs translation.
#![allow(dead_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use thinlane_model::{Boot, Protocol, PublicKey, Secret, SessionId, Span, Tuple};
use thinlane_wg::link::Link;
use thinlane_wg::{Device, Event, LaneRole, LaneSpec, Userspace, UserspaceConfig, key};

pub mod capture;
pub mod hop;
pub mod hostile;
pub mod stock;

pub const ENGINEER: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
pub const DEVICE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 10);
pub const OTHER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 11);
pub const GATEWAY_WAN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub const PORT: u16 = 7;

static LABS: AtomicU32 = AtomicU32::new(0);

/// Three namespaces; they go when the lab is dropped.
pub struct Lab {
    pub engineer: String,
    pub gateway: String,
    pub device: String,
    pub tag: String,
}

/// Runs a tool and insists that it succeeds.
pub fn run(command: &str) -> String {
    let output = Command::new("sh").arg("-ec").arg(command).output().expect("sh runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Lab {
    pub fn new() -> Self {
        let tag = format!("{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let [engineer, gateway, device] = ["e", "g", "d"].map(|end| format!("tlt-{tag}-{end}"));
        let lab = Self { engineer, gateway, device, tag };
        let (e, g, d) = (&lab.engineer, &lab.gateway, &lab.device);
        for ns in [e, g, d] {
            run(&format!("ip netns add {ns}; ip -n {ns} link set lo up"));
        }
        run(&format!(
            "ip link add wan netns {e} type veth peer name wan netns {g}
             ip link add lan netns {g} type veth peer name lan netns {d}
             ip -n {e} addr add 10.77.0.1/24 dev wan; ip -n {e} addr add 10.77.0.3/24 dev wan; ip -n {e} link set wan up
             ip -n {g} addr add 10.77.0.2/24 dev wan; ip -n {g} link set wan up
             ip -n {g} addr add 192.168.1.1/24 dev lan; ip -n {g} link set lan up
             ip -n {d} addr add 192.168.1.10/24 dev lan; ip -n {d} addr add 192.168.1.11/24 dev lan
             ip -n {d} link set lan up; ip -n {d} route add 198.19.0.0/16 via 192.168.1.1
             ip netns exec {g} sysctl -qw net.ipv4.ip_forward=1"
        ));
        lab
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for ns in [&self.engineer, &self.gateway, &self.device] {
            let _ = Command::new("ip").args(["netns", "del", ns]).status();
        }
    }
}

/// Does something in a namespace, on a thread of its own.
pub fn within<R: Send + 'static>(ns: &str, act: impl FnOnce() -> R + Send + 'static) -> R {
    let ns = ns.to_owned();
    let thread = thread::spawn(move || {
        enter(&ns);
        act()
    });
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn enter(ns: &str) {
    let file = File::open(format!("/run/netns/{ns}")).expect("the namespace exists");
    setns(file, CloneFlags::CLONE_NEWNET).expect("root enters namespaces");
}

/// Both ends' keys.
pub struct Keys {
    pub engineer: (Secret, PublicKey),
    pub gateway: (Secret, PublicKey),
    pub preshared: Secret,
}

impl Keys {
    pub fn new() -> Self {
        Self {
            engineer: key::key_pair().expect("randomness"),
            gateway: key::key_pair().expect("randomness"),
            preshared: key::preshared_key().expect("randomness"),
        }
    }
}

pub fn session(number: u8) -> SessionId {
    SessionId::from_random([number; 5])
}

pub fn tuple(protocol: Protocol) -> Tuple {
    Tuple { engineer: ENGINEER, destination: DEVICE, address: DEVICE, protocol, port: PORT }
}

pub fn boot_in(span: Span) -> Boot {
    thinlane_wg::boot().expect("a clock") + span
}

/// A device and what it said.
pub struct End {
    pub device: Userspace,
    pub events: Receiver<Event>,
}

impl End {
    pub fn start(ns: &str, name: &str, port: u16) -> Self {
        Self::narrowed(ns, name, port, 1420)
    }

    /// One whose interface takes packets of `mtu` bytes.
    pub fn narrowed(ns: &str, name: &str, port: u16, mtu: u16) -> Self {
        let (sender, events) = channel();
        let mut config = UserspaceConfig { mtu, ..UserspaceConfig::new(name, "thinlane test") };
        config.listen = SocketAddr::from(([0, 0, 0, 0], port));
        config.events = Some(Box::new(move |event| {
            let _ = sender.send(event);
        }));
        let device = within(ns, move || Userspace::start(config)).expect("a device starts");
        Self { device, events }
    }

    pub fn port(&self) -> u16 {
        self.device.local_addr().port()
    }

    pub fn wait_for(&self, wanted: Event, most: Duration) {
        let end = Instant::now() + most;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) if event == wanted => return,
                Ok(_) => {}
                Err(_) => panic!("no {wanted:?} in {most:?}"),
            }
        }
    }
}

/// A lane from an engineer to the device, both ends ours, up.
pub struct Pair {
    pub gateway: End,
    pub engineer: End,
    pub keys: Keys,
    pub deadline: Boot,
}

pub fn gateway_spec(keys: &Keys, number: u8, tuple: Tuple, deadline: Boot) -> LaneSpec {
    LaneSpec {
        session: session(number),
        private: keys.gateway.0.clone(),
        peer: keys.engineer.1,
        preshared: Some(keys.preshared.clone()),
        endpoint: None,
        fallback: None,
        keepalive: None,
        initiate: false,
        role: LaneRole::Gateway { tuple, deadline },
    }
}

pub fn engineer_spec(keys: &Keys, number: u8, endpoint: SocketAddr, address: Ipv4Addr) -> LaneSpec {
    LaneSpec {
        session: session(number),
        private: keys.engineer.0.clone(),
        peer: keys.gateway.1,
        preshared: Some(keys.preshared.clone()),
        endpoint: Some(endpoint),
        fallback: None,
        keepalive: Some(25),
        initiate: true,
        role: LaneRole::Engineer { address, allowed: DEVICE },
    }
}

/// Gives an end its addresses and routes.
pub fn lead(ns: &str, interface: &str, address: Option<Ipv4Addr>, destination: Ipv4Addr) {
    let interface = interface.to_owned();
    within(ns, move || {
        let mut link = Link::open().expect("rtnetlink");
        if let Some(address) = address {
            link.add_address(&interface, address).expect("an address");
        }
        link.add_route(&interface, destination).expect("a route");
    });
}

impl Pair {
    /// A lane for `life`, with its first handshake made.
    pub fn up(lab: &Lab, protocol: Protocol, life: Span) -> Self {
        let keys = Keys::new();
        let mut gateway = End::start(&lab.gateway, "tl0", 0);
        let deadline = boot_in(life);
        gateway.device.open(gateway_spec(&keys, 1, tuple(protocol), deadline)).expect("a lane opens");
        lead(&lab.gateway, "tl0", None, ENGINEER);
        let mut engineer = End::start(&lab.engineer, "tl-one", 0);
        let endpoint = SocketAddr::from((GATEWAY_WAN, gateway.port()));
        engineer.device.open(engineer_spec(&keys, 1, endpoint, ENGINEER)).expect("a lane opens");
        lead(&lab.engineer, "tl-one", Some(ENGINEER), DEVICE);
        engineer.wait_for(Event::Handshake(session(1)), Duration::from_secs(5));
        Self { gateway, engineer, keys, deadline }
    }
}

/// Threads that serve until dropped.
pub struct Service {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// How accepted TCP connections ended.
    pub ends: Arc<Mutex<Vec<String>>>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

const PAUSE: Duration = Duration::from_millis(50);

/// Echoes UDP and TCP on `port` of every address of a namespace.
pub fn echo(ns: &str, port: u16) -> Service {
    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
    let (udp, tcp) = within(ns, move || {
        let udp = UdpSocket::bind(any).expect("a free port");
        (udp, TcpListener::bind(any).expect("a free port"))
    });
    let stop = Arc::new(AtomicBool::new(false));
    let ends = Arc::new(Mutex::new(Vec::new()));
    udp.set_read_timeout(Some(PAUSE)).expect("a timeout");
    tcp.set_nonblocking(true).expect("a flag");
    let stopped = stop.clone();
    let datagrams = thread::spawn(move || {
        let mut buffer = [0; 2048];
        while !stopped.load(Ordering::Relaxed) {
            if let Ok((length, from)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(&buffer[..length], from);
            }
        }
    });
    let (stopped, noted) = (stop.clone(), ends.clone());
    let connections = thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            match tcp.accept() {
                Ok((stream, _)) => {
                    let (stopped, noted) = (stopped.clone(), noted.clone());
                    thread::spawn(move || echo_stream(stream, &stopped, &noted));
                }
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    });
    Service { stop, threads: vec![datagrams, connections], ends }
}

fn echo_stream(mut stream: TcpStream, stopped: &AtomicBool, ends: &Mutex<Vec<String>>) {
    stream.set_nonblocking(false).expect("a flag");
    stream.set_read_timeout(Some(PAUSE)).expect("a timeout");
    let mut buffer = [0; 65536];
    while !stopped.load(Ordering::Relaxed) {
        let end = match stream.read(&mut buffer) {
            Ok(0) => "closed".to_owned(),
            Ok(length) => match stream.write_all(&buffer[..length]) {
                Ok(()) => continue,
                Err(error) => format!("{:?}", error.kind()),
            },
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => format!("{:?}", error.kind()),
        };
        ends.lock().expect("no panic holds it").push(end);
        return;
    }
}

/// A UDP socket in a namespace, connected.
pub fn udp_to(ns: &str, to: SocketAddr) -> UdpSocket {
    let socket = within(ns, move || {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).expect("a socket");
        socket.connect(to).expect("a route");
        socket
    });
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    socket
}

/// A TCP connection from a namespace.
pub fn tcp_to(ns: &str, to: SocketAddr, most: Duration) -> std::io::Result<TcpStream> {
    let stream = within(ns, move || TcpStream::connect_timeout(&to, most))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    Ok(stream)
}

/// Sends bytes in `portions` through the echo, doing `between` after each; what comes back must be what was sent.
pub fn transfer(lab: &Lab, portions: usize, length: usize, mut between: impl FnMut(usize)) {
    let mut stream = tcp_to(&lab.engineer, (DEVICE, PORT).into(), Duration::from_secs(20)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    for portion in 0..portions {
        let sent: Vec<u8> = (0..length).map(|at| (at * 31 + portion) as u8).collect();
        let mut writer = stream.try_clone().expect("a clone");
        let text = sent.clone();
        let writing = std::thread::spawn(move || writer.write_all(&text));
        let mut got = vec![0; length];
        stream.read_exact(&mut got).expect("everything comes back");
        writing.join().expect("no panic").expect("written");
        assert!(got == sent, "portion {portion} came back changed");
        between(portion);
    }
}

/// A process that is killed with its test.
pub struct Process(pub Child);

impl Process {
    pub fn start(ns: &str, command: &[&str]) -> Self {
        let mut all = Command::new("ip");
        all.args(["netns", "exec", ns]).args(command).stdout(Stdio::null()).stderr(Stdio::null());
        Self(all.spawn().expect("the tool is installed"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something is so.
pub fn until(most: Duration, what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + most;
    while !so() {
        assert!(Instant::now() < end, "not within {most:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
