//! What is compared: how each implementation is started at both ends.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use thinlane_model::{Boot, PublicKey, SessionId};
use thinlane_relay::Shell;

use crate::ground::{Folder, Ground, INNER, OUTER, shell, tag, until};
use crate::process::{Cpu, Process};
use crate::udp::{Echo, first_echo};

const PORT: u16 = 51_820;
const RELAY: u16 = 7443;
const MTU: u16 = 1420;
/// Longer than any of them needs; OpenVPN takes seconds.
const UP: Duration = Duration::from_secs(20);

/// How something is started.
#[derive(Debug, Clone)]
pub enum Kind {
    /// The cable itself: the ceiling.
    Cable,
    /// Our userspace device (`wgend`), with an offload level and a number of lanes.
    Ours {
        offload: &'static str,
        lanes: usize,
    },
    /// Two of our devices that know the relay's address alone; it runs in this process, at the far end's host.
    Relayed,
    /// A program that takes `wg`'s settings over a socket in /var/run/wireguard; the interface's name comes last.
    Uapi {
        program: PathBuf,
        words: Vec<&'static str>,
    },
    OpenVpn,
    /// The kernel's own, where it has one.
    Kernel,
}

/// One row of the comparison.
#[derive(Debug, Clone)]
pub struct Peer {
    /// How `--only` and the gates name it.
    pub id: String,
    pub title: String,
    pub kind: Kind,
    /// Each end, with its iperf3, on a core of its own.
    pub pinned: bool,
}

impl Peer {
    pub fn new(id: &str, title: &str, kind: Kind) -> Self {
        Self { id: id.to_owned(), title: title.to_owned(), kind, pinned: false }
    }

    pub fn pinned(&self) -> Self {
        Self {
            id: format!("{}-pinned", self.id),
            title: format!("{}, pinned", self.title),
            pinned: true,
            ..self.clone()
        }
    }

    pub fn cores(&self) -> Option<[usize; 2]> {
        self.pinned.then_some([0, 1])
    }

    /// A WireGuard of somebody else's.
    pub fn foreign(&self) -> bool {
        matches!(self.kind, Kind::Uapi { .. })
    }
}

/// Keys and certificates of both ends, made once.
pub struct Keys {
    folder: Folder,
    public: [String; 2],
    fingerprint: [String; 2],
}

impl Keys {
    pub fn new(openvpn: bool) -> Result<Self> {
        let folder = Folder::new("keys")?;
        let at = folder.path().display();
        let mut public = [String::new(), String::new()];
        let mut fingerprint = [String::new(), String::new()];
        for (number, end) in ["a", "b"].into_iter().enumerate() {
            public[number] =
                shell(&format!("umask 077; wg genkey >{at}/{end}.key && wg pubkey <{at}/{end}.key"))?.trim().to_owned();
            if openvpn {
                let told = shell(&format!(
                    "umask 077; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 -days 2 \
                     -subj /CN={end} -keyout {at}/{end}.tls -out {at}/{end}.crt 2>/dev/null
                     openssl x509 -fingerprint -sha256 -noout -in {at}/{end}.crt"
                ))?;
                fingerprint[number] = told.split('=').nth(1).context("a fingerprint")?.trim().to_owned();
            }
        }
        Ok(Self { folder, public, fingerprint })
    }

    fn file(&self, end: usize, ending: &str) -> String {
        self.folder.path().join(format!("{}.{ending}", ["a", "b"][end])).display().to_string()
    }

    pub fn private(&self, end: usize) -> String {
        self.file(end, "key")
    }

    pub fn public(&self, end: usize) -> &str {
        &self.public[end]
    }
}

/// Both ends, running.
pub struct Tunnel {
    pub ends: Vec<Process>,
    /// Where the far end is reached, through the tunnel.
    pub to: Ipv4Addr,
    /// From the start of the near end's process to the first answer through the tunnel; `None` for the cable.
    pub first: Option<Duration>,
    _relay: Option<Shell>,
    _links: Vec<Link>,
}

/// An interface that no process owns; goes when this is dropped.
struct Link {
    space: String,
    name: String,
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = shell(&format!("ip -n {} link del {}", self.space, self.name));
    }
}

/// An interface of the kernel's, with its keys and peer.
fn kernel_end(ground: &Ground, number: usize, end: usize, keys: &Keys) -> Result<Link> {
    let link = Link { space: ground.space(end).to_owned(), name: interface(number, end) };
    shell(&format!("ip -n {} link add {} type wireguard", link.space, link.name))?;
    configure(ground, end, &link.name, keys)?;
    Ok(link)
}

impl Tunnel {
    pub fn start(peer: &Peer, ground: &Ground, number: usize, keys: &Keys) -> Result<Self> {
        if matches!(peer.kind, Kind::Cable) {
            return Ok(Self { ends: Vec::new(), to: OUTER[1], first: None, _relay: None, _links: Vec::new() });
        }
        if matches!(peer.kind, Kind::Kernel) {
            let (_echo, begun) = (Echo::new(ground)?, Instant::now());
            let links = [1, 0].map(|end| kernel_end(ground, number, end, keys));
            let links = links.into_iter().collect::<Result<Vec<_>>>()?;
            first_echo(ground, INNER[1], UP).context("the kernel's WireGuard")?;
            return Ok(Self {
                ends: Vec::new(),
                to: INNER[1],
                first: Some(begun.elapsed()),
                _relay: None,
                _links: links,
            });
        }
        let relay = matches!(peer.kind, Kind::Relayed).then(|| relay(ground, keys)).transpose()?;
        let _echo = Echo::new(ground)?;
        let far = start_end(peer, ground, number, 1, keys).with_context(|| format!("{}, far end", peer.title))?;
        if matches!(peer.kind, Kind::OpenVpn | Kind::Ours { .. } | Kind::Relayed) {
            // These set themselves up; the far end must listen before the near one speaks.
            std::thread::sleep(Duration::from_millis(400));
        }
        let begun = Instant::now();
        let near = start_end(peer, ground, number, 0, keys).with_context(|| format!("{}, near end", peer.title))?;
        first_echo(ground, INNER[1], UP).with_context(|| peer.title.clone())?;
        Ok(Self {
            ends: vec![near, far],
            to: INNER[1],
            first: Some(begun.elapsed()),
            _relay: relay,
            _links: Vec::new(),
        })
    }

    pub fn cpu(&self) -> Cpu {
        self.ends.iter().map(Process::cpu).fold(Cpu::default(), |all, one| Cpu {
            seconds: all.seconds + one.seconds,
            user: all.user + one.user,
            system: all.system + one.system,
        })
    }

    /// KiB of the larger end.
    pub fn resident(&self) -> u64 {
        self.ends.iter().map(Process::resident).max().unwrap_or(0)
    }

    pub fn waits(&self) -> u64 {
        self.ends.iter().map(Process::waits).sum()
    }
}

/// Interface names are seen by all namespaces through the sockets' directory, so they tell runs and grounds apart.
pub fn interface(number: usize, end: usize) -> String {
    format!("{}{number}{}", tag(), ["a", "b"][end])
}

pub fn start_end(peer: &Peer, ground: &Ground, number: usize, end: usize, keys: &Keys) -> Result<Process> {
    let core = peer.cores().map(|cores| cores[end]);
    let name = interface(number, end);
    match &peer.kind {
        Kind::Cable | Kind::Kernel => anyhow::bail!("{} has no process", peer.title),
        Kind::Ours { offload, lanes } => {
            let wish = Wish { offload, lanes: *lanes, relayed: false };
            Process::start(ours(ground, core, end, &name, keys, wish)?)
        }
        Kind::Relayed => {
            let wish = Wish { offload: "all", lanes: 1, relayed: true };
            Process::start(ours(ground, core, end, &name, keys, wish)?)
        }
        Kind::Uapi { program, words } => {
            let program = program.display().to_string();
            let words: Vec<&str> = [&[program.as_str()], words.as_slice(), &[name.as_str()]].concat();
            let process = Process::start(ground.command(end, core, &words))?;
            let socket = PathBuf::from(format!("/var/run/wireguard/{name}.sock"));
            ensure!(until(Duration::from_secs(5), || socket.exists()), "{program} opens no control socket");
            // The socket may be there before anybody answers.
            let asked = format!("ip netns exec {} wg show {name}", ground.space(end));
            ensure!(until(Duration::from_secs(5), || shell(&asked).is_ok()), "{program} does not answer `wg`");
            configure(ground, end, &name, keys)?;
            Ok(process)
        }
        Kind::OpenVpn => Process::start(openvpn(ground, end, &name, keys)),
    }
}

/// The relay at the far end's host, with one session.
fn relay(ground: &Ground, keys: &Keys) -> Result<Shell> {
    let shell = ground.within(1, || Shell::bind((OUTER[1], RELAY).into()))?.context("the relay")?;
    let key = |end: usize| keys.public(end).parse::<PublicKey>();
    shell.handle().open(SessionId::from_random([1; 5]), key(0)?, Some(key(1)?), Boot(u64::MAX))?;
    Ok(shell)
}

/// How our device is to be started.
#[derive(Clone, Copy)]
struct Wish {
    offload: &'static str,
    lanes: usize,
    relayed: bool,
}

fn ours(ground: &Ground, core: Option<usize>, end: usize, name: &str, keys: &Keys, wish: Wish) -> Result<Command> {
    let program = std::env::current_exe()?.with_file_name("wgend").display().to_string();
    let (address, peer_address) = (INNER[end].to_string(), INNER[1 - end].to_string());
    let (private, lanes) = (keys.private(end), wish.lanes.to_string());
    let listen = if end == 1 { format!("0.0.0.0:{PORT}") } else { "0.0.0.0:0".to_owned() };
    let endpoint = format!("{}:{}", OUTER[1], if wish.relayed { RELAY } else { PORT });
    let mut words = vec![
        program.as_str(),
        "--interface",
        name,
        "--address",
        &address,
        "--peer-address",
        &peer_address,
        "--private-file",
        &private,
        "--peer",
        keys.public(1 - end),
        "--listen",
        &listen,
        "--offload",
        wish.offload,
        "--lanes",
        &lanes,
    ];
    if end == 0 || wish.relayed {
        words.extend(["--endpoint", &endpoint, "--keepalive", "25"]);
    }
    Ok(ground.command(end, core, &words))
}

/// Keys, peer, address and route, once: some implementations do not bear to be told twice.
fn configure(ground: &Ground, end: usize, name: &str, keys: &Keys) -> Result<()> {
    let towards =
        if end == 0 { format!("endpoint {}:{PORT} persistent-keepalive 25", OUTER[1]) } else { String::new() };
    let listen = if end == 1 { format!("listen-port {PORT}") } else { String::new() };
    shell(&format!(
        "ip netns exec {ns} wg set {name} private-key {key} {listen} peer {peer} allowed-ips {far}/32 {towards}
         ip -n {ns} addr add {near}/32 dev {name}; ip -n {ns} link set {name} up mtu {MTU}
         ip -n {ns} route add {far}/32 dev {name}",
        ns = ground.space(end),
        key = keys.private(end),
        peer = keys.public(1 - end),
        near = INNER[end],
        far = INNER[1 - end],
    ))?;
    Ok(())
}

/// Two hosts with certificates and AES-GCM, as a flat VPN of today is run; everything else as it comes.
fn openvpn(ground: &Ground, end: usize, name: &str, keys: &Keys) -> Command {
    let (certificate, key) = (keys.file(end, "crt"), keys.file(end, "tls"));
    let (near, far, remote) = (INNER[end].to_string(), INNER[1 - end].to_string(), OUTER[1].to_string());
    let mut words = vec![
        "openvpn",
        "--dev",
        name,
        "--dev-type",
        "tun",
        "--proto",
        "udp4",
        "--cert",
        &certificate,
        "--key",
        &key,
        "--peer-fingerprint",
        &keys.fingerprint[1 - end],
        "--ifconfig",
        &near,
        &far,
        "--verb",
        "1",
        "--data-ciphers",
        "AES-256-GCM",
    ];
    if end == 0 {
        words.extend(["--tls-client", "--remote", &remote, "--nobind"]);
    } else {
        words.extend(["--tls-server", "--dh", "none"]);
    }
    ground.command(end, None, &words)
}

/// Everything that can be compared on this machine, and why what is missing is missing.
pub fn all(installed: &Path) -> (Vec<Peer>, Vec<String>) {
    let mut missing = Vec::new();
    let mut peers = vec![
        Peer::new("cable", "bare veth", Kind::Cable),
        Peer::new("ours", "thinlane", Kind::Ours { offload: "all", lanes: 1 }),
        Peer::new("ours-plain", "thinlane, no TUN offload", Kind::Ours { offload: "udp", lanes: 1 }),
        Peer::new("ours-relay", "thinlane, through the relay", Kind::Relayed),
    ];
    let mut uapi = |id: &str, title: &str, program: PathBuf, words: &[&'static str]| {
        if program.is_file() {
            peers.push(Peer::new(id, title, Kind::Uapi { program, words: words.to_vec() }));
        } else {
            missing.push(format!("{title}: {} is not there", program.display()));
        }
    };
    let bin = installed.join("bin");
    let bt = bin.join("boringtun-cli");
    uapi("boringtun", "boringtun-cli", bt.clone(), &["-f", "--disable-drop-privileges"]);
    uapi("boringtun-1", "boringtun-cli, 1 thread", bt, &["-f", "--disable-drop-privileges", "-t", "1"]);
    uapi("gotatun", "gotatun-cli", bin.join("gotatun"), &["-f", "--disable-drop-privileges", "-v", "error"]);
    uapi("wireguard-go", "wireguard-go (Debian)", PathBuf::from("/usr/bin/wireguard-go"), &["-f"]);
    let newest = installed.join("newest/wireguard-go");
    uapi("newest", &format!("{}, newest", version(&newest)), newest, &["-f"]);
    let named = std::env::var("WG_PEER_BIN").unwrap_or_default();
    for (number, path) in named.split(':').filter(|path| !path.is_empty()).enumerate() {
        let path = PathBuf::from(path);
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        uapi(&format!("peer{number}"), &format!("{name} (WG_PEER_BIN)"), path, &["-f"]);
    }
    if Path::new("/usr/sbin/openvpn").is_file() {
        peers.push(Peer::new("openvpn", "OpenVPN (Debian)", Kind::OpenVpn));
    } else {
        missing.push("OpenVPN: not installed".to_owned());
    }
    (peers, missing)
}

/// What a wireguard-go calls itself: name and version.
fn version(program: &Path) -> String {
    let told = Command::new(program).arg("--version").output().ok();
    let told = told.and_then(|told| String::from_utf8(told.stdout).ok());
    let line = told.as_deref().and_then(|told| told.lines().next()).filter(|line| line.starts_with("wireguard-go "));
    line.unwrap_or("wireguard-go").to_owned()
}
