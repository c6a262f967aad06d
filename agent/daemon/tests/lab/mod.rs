//! An engineer, a gateway with the agent's own binary, a device, and a controller that says what the test says.
//!
//! ```text
//! engineer 10.77.0.1 ---- 10.77.0.2 gateway (agent; controller on loopback) 192.168.1.1 ---- 192.168.1.10 device
//! ```
#![allow(dead_code)]

pub mod controller;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thinlane_model::{Boot, Grant, Limits, PolicyRef, Protocol, PublicKey, Secret, SessionId, Span, Tuple};
use thinlane_wg::link::Link;
use thinlane_wg::{Device, LaneRole, LaneSpec, Userspace, UserspaceConfig, key};

use controller::Controller;

pub const OVERLAY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
pub const DEVICE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 10);
pub const WAN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub const PORT: u16 = 7;
/// The site's direct endpoint.
pub const DIRECT: u16 = 51820;

const AGENT: &str = env!("CARGO_BIN_EXE_thinlane-agent");
static LABS: AtomicU32 = AtomicU32::new(0);

/// Who encrypts the gateway's lanes, where a test does not say: the agent itself, or who `THINLANE_TEST_BACKEND` names.
pub fn backend() -> String {
    std::env::var("THINLANE_TEST_BACKEND").unwrap_or_else(|_| "userspace".to_owned())
}

/// Whether it is the kernel.
pub fn by_kernel() -> bool {
    backend() == "kernel"
}

/// Three namespaces, an enrolled agent's directories, a controller. All of it goes when the lab is dropped.
pub struct Lab {
    pub engineer: String,
    pub gateway: String,
    pub device: String,
    pub files: tempfile::TempDir,
    pub controller: Controller,
}

/// Runs a script and insists that it succeeds.
pub fn sh(script: &str) -> String {
    let output = Command::new("sh").arg("-ec").arg(script).output().expect("sh runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{script}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Lab {
    /// Namespaces, links, and a gateway that was enrolled over the wire.
    pub fn new() -> Self {
        let tag = format!("{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let [e, g, d] = ["e", "g", "d"].map(|end| format!("tla-{tag}-{end}"));
        for ns in [&e, &g, &d] {
            sh(&format!("ip netns add {ns}; ip -n {ns} link set lo up"));
        }
        sh(&format!(
            "ip link add wan netns {e} type veth peer name wan netns {g}
             ip link add lan netns {g} type veth peer name lan netns {d}
             ip -n {e} addr add 10.77.0.1/24 dev wan; ip -n {e} link set wan up
             ip -n {g} addr add 10.77.0.2/24 dev wan; ip -n {g} link set wan up
             ip -n {g} addr add 192.168.1.1/24 dev lan; ip -n {g} link set lan up
             ip -n {d} addr add 192.168.1.10/24 dev lan; ip -n {d} link set lan up
             ip netns exec {g} sysctl -qw net.ipv4.ip_forward=0"
        ));
        let controller = Controller::start(&g);
        let lab =
            Self { engineer: e, gateway: g, device: d, files: tempfile::tempdir().expect("a directory"), controller };
        std::fs::write(lab.files.path().join("code"), "right\n").expect("written");
        let enrolled = lab.enroll("right", None);
        assert!(enrolled.status.success(), "{enrolled:?}");
        lab
    }

    pub fn enroll(&self, code: &str, fingerprint: Option<&str>) -> Output {
        let file = self.files.path().join("code");
        std::fs::write(&file, code).expect("written");
        let to = format!("localhost:{}", self.controller.port);
        let fingerprint = fingerprint.unwrap_or(&self.controller.fingerprint);
        let file = file.display().to_string();
        self.agent(&["enroll", "--controller", &to, "--ca-fingerprint", fingerprint, "--token-file", &file])
    }

    pub fn dir(&self) -> PathBuf {
        self.files.path().join("state")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.files.path().join("run")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.gateway, AGENT]).arg("--dir").arg(self.dir());
        command.arg("--run-dir").arg(self.run_dir()).args(args);
        command
    }

    /// Runs a command of the agent in the gateway.
    pub fn agent(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the agent's binary runs")
    }

    /// Runs a command that must succeed; its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.agent(args);
        assert!(output.status.success(), "{args:?}: {output:?}\n{}", self.log());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts the daemon.
    pub fn daemon(&self, env: &[(&str, &str)]) -> Daemon {
        let log = File::options().create(true).append(true).open(self.files.path().join("log")).expect("a log");
        let mut command = self.command(&["--log-level", "debug", "run"]);
        // On every machine the same, unless a test says otherwise.
        command.env("THINLANE_BACKEND", backend());
        command.envs(env.iter().copied()).stdout(Stdio::null()).stderr(log);
        Daemon(command.spawn().expect("the agent's binary runs"))
    }

    /// What the daemons of this lab said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.files.path().join("log")).unwrap_or_default()
    }

    /// Waits until the device has moved to the direct endpoint's port. The kernel has none before there is a lane.
    pub fn settled(&self) {
        if by_kernel() {
            return;
        }
        let end = Instant::now() + Duration::from_secs(5);
        let listens = || sh(&format!("ip netns exec {} ss -Hlun", self.gateway)).contains(&format!(":{DIRECT} "));
        while !listens() {
            assert!(Instant::now() < end, "nothing listens on {DIRECT}");
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(Duration::from_millis(100));
    }

    /// Everything of the gateway that the agent may change.
    pub fn kernel_state(&self) -> String {
        let ns = &self.gateway;
        sh(&format!(
            "ip netns exec {ns} nft list ruleset; ip -n {ns} -o link | cut -d: -f2; ip -n {ns} -4 route show table all
             ip netns exec {ns} sysctl -a 2>/dev/null | grep -E 'ipv4.*forwarding|ip_forward ' | grep -v mc_forwarding
             ip netns exec {ns} conntrack -L 2>/dev/null | grep -E '198[.]1[89]' || true"
        ))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the agent said:\n{}", self.log());
        }
        for ns in [&self.engineer, &self.gateway, &self.device] {
            let _ = Command::new("ip").args(["netns", "del", ns]).status();
        }
    }
}

/// A running daemon; killed with its test.
pub struct Daemon(pub Child);

impl Daemon {
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).expect("a pid")), signal).expect("it runs");
    }

    /// Waits for its end.
    pub fn ended(&mut self, most: Duration) -> std::process::ExitStatus {
        let end = Instant::now() + most;
        loop {
            if let Some(status) = self.0.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < end, "the daemon does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Does something in a namespace, on a thread of its own.
pub fn within<R: Send + 'static>(ns: &str, act: impl FnOnce() -> R + Send + 'static) -> R {
    let ns = ns.to_owned();
    let thread = thread::spawn(move || {
        let file = File::open(format!("/run/netns/{ns}")).expect("the namespace exists");
        setns(file, CloneFlags::CLONE_NEWNET).expect("root enters namespaces");
        act()
    });
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// The engineer's side of one session.
pub struct Session {
    pub id: SessionId,
    /// Each session has one of its own, as the controller gives them out.
    pub engineer: Ipv4Addr,
    pub serial: u64,
    pub deadline: Boot,
    private: Secret,
    public: PublicKey,
    pub preshared: Secret,
    pub protocol: Protocol,
    device: Option<Userspace>,
}

impl Session {
    pub fn new(number: u8, life: Span) -> Self {
        let (private, public) = key::key_pair().expect("randomness");
        Self {
            id: SessionId::from_random([number; 5]),
            engineer: Ipv4Addr::new(198, 19, 0, number),
            serial: u64::from(number) * 100,
            deadline: thinlane_wg::boot().expect("a clock") + life,
            private,
            public,
            preshared: key::preshared_key().expect("randomness"),
            protocol: Protocol::Udp,
            device: None,
        }
    }

    /// A grant of this session to the device.
    pub fn grant(&self, controller: &Controller) -> Grant {
        Grant {
            serial: self.serial,
            site: controller.site,
            boot: controller.boot(),
            session: self.id,
            asset: "plc-1".parse().expect("a name"),
            task: "echo-udp".parse().expect("a name"),
            engineer_key: self.public,
            tuple: Tuple {
                engineer: self.engineer,
                destination: OVERLAY,
                address: DEVICE,
                protocol: self.protocol,
                port: PORT,
            },
            keep_source: false,
            limits: Limits::NONE,
            deadline: self.deadline,
            offline: Span::from_secs(900),
            idle: None,
            policy: PolicyRef { id: "p".into(), hash: "00".into() },
            relay: None,
        }
    }

    /// A kernel's interface instead of our device at the engineer's end: whatever is sent into it goes to the gateway,
    /// from whichever of `addresses`, to whichever of `destinations`.
    pub fn let_loose(&self, lab: &Lab, gateway: PublicKey, addresses: &[&str], destinations: &[&str]) {
        let ns = &lab.engineer;
        let file = |name: &str, secret: &Secret| {
            let path = lab.files.path().join(name);
            std::fs::write(&path, secret.to_base64().as_str()).expect("written");
            path.display().to_string()
        };
        let (private, preshared) = (file("private", &self.private), file("preshared", &self.preshared));
        let each = |words: &[&str], command: &str| {
            words.iter().map(|word| format!("ip -n {ns} {command} {word} dev tl-loose\n")).collect::<String>()
        };
        sh(&format!(
            "ip -n {ns} link add tl-loose type wireguard
             ip netns exec {ns} wg set tl-loose private-key {private} peer {gateway} preshared-key {preshared} \
                 endpoint {WAN}:{DIRECT} persistent-keepalive 5 allowed-ips 0.0.0.0/0,::/0
             {}ip -n {ns} link set tl-loose up
             {}",
            each(addresses, "addr add"),
            each(destinations, "route add")
        ));
    }

    /// Brings the engineer's device up towards the gateway's direct endpoint.
    pub fn up(&mut self, lab: &Lab, gateway: PublicKey) {
        let spec = LaneSpec {
            session: self.id,
            private: self.private.clone(),
            peer: gateway,
            preshared: Some(self.preshared.clone()),
            endpoint: Some(SocketAddr::from((WAN, DIRECT))),
            fallback: None,
            keepalive: Some(25),
            initiate: true,
            role: LaneRole::Engineer { address: self.engineer, allowed: OVERLAY },
        };
        let engineer = self.engineer;
        self.device = Some(within(&lab.engineer, move || {
            let mut device = Userspace::start(UserspaceConfig::new("tl-one", "thinlane test")).expect("a device");
            device.open(spec).expect("a lane");
            let mut link = Link::open().expect("rtnetlink");
            link.add_address("tl-one", engineer).expect("an address");
            link.add_route("tl-one", OVERLAY).expect("a route");
            device
        }));
    }
}

/// The device's echo service, until dropped.
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub fn start(lab: &Lab) -> Self {
        let udp = within(&lab.device, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("a free port"));
        udp.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = udp.recv_from(&mut buffer) {
                    let _ = udp.send_to(&buffer[..length], from);
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A TCP connection through the lane, and the device's end of it.
pub struct Wire {
    pub near: TcpStream,
    pub far: TcpStream,
}

impl Wire {
    pub fn open(lab: &Lab) -> Self {
        let listener = within(&lab.device, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("a free port"));
        let near = within(&lab.engineer, || {
            TcpStream::connect_timeout(&SocketAddr::from((OVERLAY, PORT)), Duration::from_secs(5)).expect("connects")
        });
        let (far, from) = listener.accept().expect("arrives");
        assert_eq!(from.ip(), Ipv4Addr::new(192, 168, 1, 1), "with the gateway's own address");
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
            stream.set_nodelay(true).expect("a flag");
        }
        Self { near, far }
    }

    /// A byte each way, the device first: whatever was lost is sent again by TCP itself.
    pub fn carries(&mut self) {
        self.far.write_all(b"a").expect("the device's end stands");
        self.near.write_all(b"b").expect("the engineer's end stands");
        let mut byte = [0];
        self.near.read_exact(&mut byte).expect("the engineer hears");
        self.far.read_exact(&mut byte).expect("the device hears");
    }
}

/// The engineer's tool: one question, one answer.
pub struct Tool(UdpSocket);

impl Tool {
    pub fn start(lab: &Lab) -> Self {
        Self::to_port(lab, PORT)
    }

    pub fn to_port(lab: &Lab, port: u16) -> Self {
        let udp = within(&lab.engineer, move || {
            let udp = UdpSocket::bind(("0.0.0.0", 0)).expect("a socket");
            udp.connect((OVERLAY, port)).expect("a route");
            udp
        });
        udp.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        Self(udp)
    }

    /// Whether one question was answered.
    pub fn ask(&self) -> bool {
        let mut buffer = [0; 64];
        self.0.send(b"ping").is_ok() && self.0.recv(&mut buffer).is_ok()
    }

    /// The length of the answer to a question of `length` bytes; `None`: there was none.
    pub fn exchange(&self, length: usize) -> Option<usize> {
        self.0.send(&vec![7; length]).ok()?;
        self.0.recv(&mut [0; 4096]).ok()
    }

    /// Asks until it is answered.
    pub fn asks_until_answered(&self, most: Duration) {
        let end = Instant::now() + most;
        while !self.ask() {
            assert!(Instant::now() < end, "no answer in {most:?}");
        }
    }
}
