//! A small site in throw-away network namespaces: engineer -- router (with a veth named tl0) -- LAN with a device.
#![allow(dead_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use thinlane_model::{Limits, Protocol, SessionId, Span, Tuple};
use thinlane_nft::{BaseConfig, Lane, Nft};

pub const ENGINEER: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
pub const OTHER_ENGINEER: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 2);
pub const OVERLAY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 10);
pub const DEVICE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 10);
pub const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 11);
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
pub const PORT: u16 = 2404;
pub const GROUP: u16 = 7070;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Runs a program and panics with its words if it fails.
pub fn run(line: &str) -> String {
    let mut words = line.split_ascii_whitespace();
    let program = words.next().expect("a program");
    let output = Command::new(program).args(words).output().expect(program);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A network namespace that goes away with this value.
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new(role: &str) -> Self {
        let name = format!("tlt-{}-{}-{role}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        run(&format!("ip netns add {name}"));
        let namespace = Self { name };
        namespace.ip("link set lo up");
        // Addresses serve at once, without a second of duplicate address detection.
        namespace.exec("sysctl -q -w net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.dad_transmits=0");
        namespace
    }

    pub fn ip(&self, arguments: &str) -> String {
        run(&format!("ip -n {} {arguments}", self.name))
    }

    pub fn exec(&self, line: &str) -> String {
        run(&format!("ip netns exec {} {line}", self.name))
    }

    /// Feeds `rules` to the nft program.
    pub fn nft(&self, rules: &str) {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.name, "nft", "-f", "-"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("nft");
        child.stdin.take().expect("piped").write_all(rules.as_bytes()).expect("nft reads");
        assert!(child.wait().expect("nft").success(), "{rules}");
    }

    /// Runs `work` in a thread inside this namespace.
    pub fn enter<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("the namespace");
        std::thread::spawn(move || {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).expect("setns");
            work()
        })
    }

    /// As `enter`, and waits for the result.
    pub fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self.enter(work).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    pub fn open(&self) -> Nft {
        self.within(|| Nft::open().expect("netlink"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

pub struct Lab {
    pub engineer: Namespace,
    pub router: Namespace,
    pub device: Namespace,
}

impl Lab {
    pub fn new() -> Self {
        let lab =
            Self { engineer: Namespace::new("eng"), router: Namespace::new("rtr"), device: Namespace::new("dev") };
        let (eng, rtr, dev) = (&lab.engineer, &lab.router, &lab.device);
        eng.ip(&format!("link add wg0 type veth peer name tl0 netns {}", rtr.name));
        rtr.ip(&format!("link add lan0 type veth peer name eth0 netns {}", dev.name));
        // Like a tunnel: no ARP, every packet is for the other end.
        for (namespace, link) in [(eng, "wg0"), (rtr, "tl0")] {
            namespace.ip(&format!("link set {link} address 02:00:00:00:00:01 arp off up"));
        }
        rtr.ip("link set lan0 up");
        dev.ip("link set eth0 up");
        for address in [ENGINEER, OTHER_ENGINEER] {
            eng.ip(&format!("addr add {address}/32 dev wg0"));
        }
        eng.ip(&format!("route add default dev wg0 src {ENGINEER}"));
        eng.ip("addr add fd00::1/64 dev wg0 nodad");
        eng.ip("route add fd01::/64 dev wg0");
        rtr.ip("route add 198.19.0.0/16 dev tl0");
        rtr.ip("addr add fd00::2/64 dev tl0 nodad");
        rtr.ip(&format!("addr add {GATEWAY}/24 dev lan0"));
        rtr.ip("addr add fd01::1/64 dev lan0 nodad");
        for address in [DEVICE, NEIGHBOUR] {
            dev.ip(&format!("addr add {address}/24 dev eth0"));
        }
        dev.ip("addr add fd01::10/64 dev eth0 nodad");
        dev.ip(&format!("route add default via {GATEWAY}"));
        dev.ip("route add fd00::/64 via fd01::1");
        for switch in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
            rtr.exec(&format!("sysctl -q -w {switch}"));
        }
        lab
    }

    /// The router with its base installed.
    pub fn nft(&self) -> Nft {
        let mut nft = self.router.open();
        nft.install_base(&config(), &[]).expect("the base");
        nft
    }
}

pub fn config() -> BaseConfig {
    BaseConfig { lan: vec!["lan0".to_owned()], guard_lan_forwarding: false, nflog_group: GROUP, mss: 1240 }
}

pub fn session(number: u8) -> SessionId {
    SessionId::from_random([number, 2, 3, 4, 5])
}

pub fn tuple(protocol: Protocol) -> Tuple {
    Tuple { engineer: ENGINEER, destination: OVERLAY, address: DEVICE, protocol, port: PORT }
}

pub fn lane(protocol: Protocol) -> Lane {
    Lane {
        session: session(1),
        iface: "tl0".to_owned(),
        tuple: tuple(protocol),
        limits: Limits::NONE,
        keep_source: false,
        remaining: Span::from_secs(60),
    }
}

/// Answers every TCP byte and UDP datagram on a port of every address, until the process ends or a minute has passed.
pub fn serve(namespace: &Namespace, port: u16) {
    let (ready, wait) = std::sync::mpsc::channel();
    let udp_ready = ready.clone();
    namespace.enter(move || {
        let listener = TcpListener::bind(("::", port)).expect("bind");
        udp_ready.send(()).expect("the test waits");
        for stream in listener.incoming().take(200) {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
                let _ = stream.set_nodelay(true);
                let mut buffer = [0; 4096];
                while let Ok(len @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..len]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    namespace.enter(move || {
        let socket = UdpSocket::bind(("::", port)).expect("bind");
        let _ = socket.set_read_timeout(Some(Duration::from_secs(60)));
        ready.send(()).expect("the test waits");
        let mut buffer = [0; 4096];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], from);
        }
    });
    for _ in 0..2 {
        wait.recv_timeout(Duration::from_secs(5)).expect("the server is up");
    }
}

/// What came of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Answered,
    Reset,
    Silence,
}

pub fn tcp(namespace: &Namespace, from: Ipv4Addr, to: Ipv4Addr, port: u16) -> Outcome {
    namespace.within(move || tcp_here(from, 0, to, port))
}

/// Connects from here and exchanges one word.
pub fn tcp_here(from: Ipv4Addr, from_port: u16, to: Ipv4Addr, port: u16) -> Outcome {
    match connect(from, from_port, to, port) {
        Ok(mut stream) => match exchange(&mut stream) {
            Ok(_) => Outcome::Answered,
            Err(error) => judge(&error),
        },
        Err(error) => judge(&error),
    }
}

fn judge(error: &std::io::Error) -> Outcome {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::ConnectionReset => Outcome::Reset,
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => Outcome::Silence,
        // What SO_SNDTIMEO makes of a connect without an answer.
        _ if error.raw_os_error() == Some(libc::EINPROGRESS) => Outcome::Silence,
        _ => panic!("{error}"),
    }
}

/// Connects from a chosen address and port.
pub fn connect(from: Ipv4Addr, from_port: u16, to: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt};
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    let limit = nix::sys::time::TimeVal::new(0, 700_000);
    setsockopt(&fd, sockopt::SendTimeout, &limit)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &limit)?;
    let raw = std::os::fd::AsRawFd::as_raw_fd(&fd);
    bind(raw, &SockaddrIn::from(std::net::SocketAddrV4::new(from, from_port)))?;
    connect(raw, &SockaddrIn::from(std::net::SocketAddrV4::new(to, port)))?;
    let stream = TcpStream::from(fd);
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub fn exchange(stream: &mut TcpStream) -> std::io::Result<Duration> {
    let began = Instant::now();
    stream.write_all(b"ping")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    Ok(began.elapsed())
}

pub fn udp(namespace: &Namespace, from: Ipv4Addr, to: Ipv4Addr, port: u16) -> Outcome {
    namespace.within(move || {
        let socket = UdpSocket::bind((from, 0)).expect("bind");
        socket.set_read_timeout(Some(Duration::from_millis(300))).expect("timeout");
        socket.send_to(b"ping", SocketAddr::from((to, port))).expect("send");
        match socket.recv_from(&mut [0; 64]) {
            Ok((4, peer)) if peer == SocketAddr::from((to, port)) => Outcome::Answered,
            Ok(other) => panic!("an answer from elsewhere: {other:?}"),
            Err(_) => Outcome::Silence,
        }
    })
}

/// Whether one ICMP echo is answered.
pub fn ping(namespace: &Namespace, from: &str, to: &str) -> bool {
    let arguments = ["netns", "exec", &namespace.name, "ping", "-c1", "-W1", "-I", from, to];
    Command::new("ip").args(arguments).output().expect("ping").status.success()
}

/// Counts, on the device, every packet that is not the lane's own flow from the gateway (nor neighbour discovery).
pub fn count_strangers(device: &Namespace) {
    device.nft(&format!(
        "table inet strangers {{
            counter strangers {{ }}
            chain seen {{
                type filter hook prerouting priority -300; policy accept;
                iifname != \"eth0\" accept
                ip saddr {GATEWAY} ip daddr {DEVICE} tcp dport {PORT} accept
                icmpv6 type {{ 130-143 }} accept
                counter name strangers
            }}
        }}"
    ));
}

/// What `count_strangers` has counted.
pub fn strangers(device: &Namespace) -> u64 {
    let text = device.exec("nft list counter inet strangers strangers");
    let number = text.split("packets ").nth(1).and_then(|rest| rest.split_ascii_whitespace().next());
    number.and_then(|number| number.parse().ok()).expect("a count")
}

/// Packets that a link has received, by the kernel's own count.
pub fn received(namespace: &Namespace, link: &str) -> u64 {
    let text = namespace.exec(&format!("cat /sys/class/net/{link}/statistics/rx_packets"));
    text.trim().parse().expect("a number")
}
