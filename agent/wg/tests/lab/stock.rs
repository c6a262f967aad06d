//! Other people's WireGuard, set up with `wg`: `wireguard-go`, and whatever `THINLANE_INTEROP` names besides or, with
//! `THINLANE_INTEROP_ONLY`, instead.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use blake2::digest::Mac;
use blake2::{Blake2s256, Blake2sMac, Digest};
use thinlane_model::{PublicKey, Secret};

use super::{Process, run, until, within};

/// A program that takes `wg`'s settings, where the interface's name comes last; without words, the kernel.
#[derive(Debug, Clone)]
pub struct Program {
    pub name: String,
    words: Vec<String>,
}

impl Program {
    fn is_kernel(&self) -> bool {
        self.words.is_empty()
    }

    /// Whether it is under load for one sender at a time, and not for all at once.
    pub fn counts_each_sender(&self) -> bool {
        self.name.starts_with("gotatun")
    }
}

/// `wireguard-go`, and each `NAME=COMMAND LINE` of `THINLANE_INTEROP`, which `;` separates; `kernel=` is the kernel.
pub fn programs() -> Vec<Program> {
    let more = std::env::var("THINLANE_INTEROP").unwrap_or_default();
    let more = more.split(';').filter_map(|one| one.split_once('=')).map(|(name, line)| Program {
        name: name.trim().to_owned(),
        words: line.split_whitespace().map(str::to_owned).collect(),
    });
    let debian = Program { name: "wireguard-go".to_owned(), words: vec!["wireguard-go".to_owned(), "-f".to_owned()] };
    let debian = std::env::var_os("THINLANE_INTEROP_ONLY").is_none().then_some(debian);
    debian.into_iter().chain(more).collect()
}

/// One end that runs somebody else's program.
pub struct Stock {
    pub ns: String,
    pub interface: String,
    program: Program,
    process: Option<Process>,
    files: tempfile::TempDir,
    private: Secret,
    preshared: Secret,
    listen: Option<u16>,
    own: Option<Ipv4Addr>,
}

/// The peer of a stock end.
#[derive(Debug, Clone, Copy)]
pub struct Far {
    pub key: PublicKey,
    pub allowed: Ipv4Addr,
    pub endpoint: Option<SocketAddr>,
    pub keepalive: Option<u16>,
}

impl Stock {
    /// Starts the program; `interface` must be unique on the machine, for the control sockets are shared by all namespaces.
    pub fn start(program: &Program, ns: &str, interface: String, private: &Secret, preshared: &Secret) -> Self {
        let files = tempfile::tempdir().expect("a directory");
        let mut stock = Self {
            ns: ns.to_owned(),
            interface,
            program: program.clone(),
            process: None,
            files,
            private: private.clone(),
            preshared: preshared.clone(),
            listen: None,
            own: None,
        };
        stock.launch();
        stock
    }

    fn socket(&self) -> PathBuf {
        Path::new("/var/run/wireguard").join(format!("{}.sock", self.interface))
    }

    fn launch(&mut self) {
        if self.program.is_kernel() {
            run(&format!("ip -n {} link add {} type wireguard", self.ns, self.interface));
            return;
        }
        let words: Vec<&str> = self.program.words.iter().map(String::as_str).chain([self.interface.as_str()]).collect();
        self.process = Some(Process::start(&self.ns, &words));
        until(Duration::from_secs(10), &format!("{} is up", self.program.name), || self.socket().exists());
    }

    fn file(&self, name: &str, secret: &Secret) -> String {
        let path = self.files.path().join(name);
        std::fs::write(&path, secret.to_base64().as_str()).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        path.display().to_string()
    }

    /// Keys, peer, address and route, in one go: some programs do not bear to be told twice.
    pub fn configure(&mut self, listen: Option<u16>, own: Option<Ipv4Addr>, far: &Far) {
        (self.listen, self.own) = (listen, own);
        let private = self.file("private", &self.private);
        let listen = listen.map_or(String::new(), |port| format!("listen-port {port}"));
        let peer = self.peer(far);
        let (ns, name) = (&self.ns, &self.interface);
        run(&format!("ip netns exec {ns} wg set {name} private-key {private} {listen} {peer}"));
        if let Some(own) = own {
            run(&format!("ip -n {ns} addr add {own}/32 dev {name}"));
        }
        run(&format!("ip -n {ns} link set {name} up mtu 1420; ip -n {ns} route replace {}/32 dev {name}", far.allowed));
    }

    fn peer(&self, far: &Far) -> String {
        let preshared = self.file("preshared", &self.preshared);
        let endpoint = far.endpoint.map_or(String::new(), |endpoint| format!("endpoint {endpoint}"));
        let keepalive = far.keepalive.map_or(String::new(), |secs| format!("persistent-keepalive {secs}"));
        format!("peer {} preshared-key {preshared} allowed-ips {}/32 {endpoint} {keepalive}", far.key, far.allowed)
    }

    /// Takes the peer away and tells it anew, so that this end must handshake again.
    pub fn forget(&self, far: &Far) {
        let (ns, name, peer) = (&self.ns, &self.interface, self.peer(far));
        run(&format!("ip netns exec {ns} wg set {name} peer {} remove", far.key));
        run(&format!("ip netns exec {ns} wg set {name} {peer}"));
    }

    /// Ends the program and starts it again with the same settings.
    pub fn restart(&mut self, far: &Far) {
        self.stop();
        let (ns, name) = (self.ns.clone(), self.interface.clone());
        until(Duration::from_secs(5), "the interface is gone", || {
            run(&format!("ip -n {ns} link show dev {name} 2>/dev/null || true")).is_empty()
        });
        self.launch();
        self.configure(self.listen, self.own, far);
    }

    fn stop(&mut self) {
        self.process = None;
        let _ = std::fs::remove_file(self.socket());
        if self.program.is_kernel() {
            let (ns, name) = (&self.ns, &self.interface);
            run(&format!("ip -n {ns} link del {name} 2>/dev/null || true"));
        }
    }

    /// Seconds since 1970 of the last handshake; 0: none yet.
    pub fn handshake(&self) -> u64 {
        let told = run(&format!("ip netns exec {} wg show {} latest-handshakes", self.ns, self.interface));
        told.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    /// Whether `handshake` means anything: some programs give the time since, and not the time.
    pub fn stamps(&self) -> bool {
        !self.program.name.starts_with("boringtun")
    }

    /// Where it thinks that its peer is.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        let told = run(&format!("ip netns exec {} wg show {} endpoints", self.ns, self.interface));
        told.split_whitespace().nth(1).and_then(|word| word.parse().ok())
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Initiations with a right MAC1 and nothing else right, from a stranger, until dropped.
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// `burst` of them every `pause`, aimed at the holder of `key` at `to`.
    pub fn start(ns: &str, from: Ipv4Addr, to: SocketAddr, key: PublicKey, burst: u32, pause: Duration) -> Self {
        let socket = within(ns, move || UdpSocket::bind((from, 0)).expect("a socket"));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        // Whitepaper, 5.4.4: MAC1 is keyed with the hash of a label and the responder's public key.
        let mac_key = Blake2s256::new().chain_update(b"mac1----").chain_update(key.as_bytes()).finalize();
        let thread = thread::spawn(move || {
            let mut sender = 0u32;
            while !stopped.load(Ordering::Relaxed) {
                for _ in 0..burst {
                    sender += 1;
                    let mut message = [5u8; 148];
                    message[..4].copy_from_slice(&[1, 0, 0, 0]);
                    message[4..8].copy_from_slice(&sender.to_le_bytes());
                    message[132..].fill(0);
                    let mut mac =
                        Blake2sMac::<blake2::digest::consts::U16>::new_from_slice(&mac_key).expect("32 bytes");
                    mac.update(&message[..116]);
                    message[116..132].copy_from_slice(&mac.finalize().into_bytes());
                    let _ = socket.send_to(&message, to);
                }
                thread::sleep(pause);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
