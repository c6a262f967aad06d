//! One end of plain WireGuard, made of the userspace device alone: what benchmarks and interoperability tests put
//! beside other implementations.
//!
//! Makes an interface with address and routes, opens its lanes, says `ready` as JSON, and runs until SIGTERM or
//! SIGINT. SIGUSR1 prints what the lanes have carried.
#![forbid(unsafe_code)]

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::sys::signal::{SigSet, Signal};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use thinlane_model::{Boot, Protocol, PublicKey, Secret, SessionId, Tuple};
use thinlane_wg::link::Link;
use thinlane_wg::{Device, Event, LaneRole, LaneSpec, Offload, Userspace, UserspaceConfig, key};

/// One end of plain WireGuard, made of the userspace device alone.
#[derive(Debug, Parser)]
struct Options {
    /// The interface to make.
    #[arg(long)]
    interface: String,
    /// This end's address in the tunnel, a /32; lane N has the Nth address after it.
    #[arg(long)]
    address: Ipv4Addr,
    /// The other end's address in the tunnel, the one allowed IP; lane N has the Nth address after it.
    #[arg(long)]
    peer_address: Ipv4Addr,
    /// A file with this end's private key, in base64 or in hex.
    #[arg(long)]
    private_file: PathBuf,
    /// The other end's public key, in hex or in base64.
    #[arg(long)]
    peer: String,
    /// A file with a preshared key, in base64 or in hex.
    #[arg(long)]
    preshared_file: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one, which `ready` tells.
    #[arg(long, default_value = "0.0.0.0:0")]
    listen: SocketAddr,
    /// Where the other end is; with it, this end handshakes first.
    #[arg(long)]
    endpoint: Option<SocketAddr>,
    /// Seconds of silence after which an empty packet keeps the path open.
    #[arg(long)]
    keepalive: Option<u16>,
    #[arg(long, default_value_t = 1420)]
    mtu: u16,
    /// What the kernel may do for many packets at once: all, tso (no UDP through the interface), udp (not the
    /// interface, only the socket), none. It is used as far as the kernel has it.
    #[arg(long, default_value = "all")]
    offload: Offload,
    /// Judge packets as a gateway does: only this protocol and port of this end may be reached (`tcp:5201`).
    #[arg(long)]
    gate: Option<Gate>,
    /// Lanes; those after the first have keys that both ends make from the two public keys, so they keep no secret.
    #[arg(long, default_value_t = 1)]
    lanes: u32,
}

/// Lanes that an end opens in one moment.
const AT_ONCE: u32 = 100;
/// Between two of those that follow.
const APART: Duration = Duration::from_millis(15);

/// What a gateway's lane lets pass.
#[derive(Debug, Clone, Copy)]
struct Gate {
    protocol: Protocol,
    port: u16,
}

impl std::str::FromStr for Gate {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (protocol, port) = text.split_once(':').context("PROTOCOL:PORT, such as tcp:5201")?;
        Ok(Self { protocol: protocol.parse()?, port: port.parse()? })
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!((1..=1000).contains(&options.lanes), "1 to 1000 lanes");
    // Before any thread starts, so that only this one takes them.
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1]);
    signals.thread_block().context("block signals")?;
    let mut config = UserspaceConfig::new(&options.interface, "thinlane wgend");
    config.mtu = options.mtu;
    config.listen = options.listen;
    config.offload = options.offload;
    config.events = Some(Box::new(|event| match event {
        Event::Handshake(session) => say(&json!({"event": "handshake", "session": session.to_string()})),
        Event::Expired(session) => say(&json!({"event": "expired", "session": session.to_string()})),
        Event::InterfaceGone => say(&json!({"event": "interface-gone"})),
    }));
    let mut device = Userspace::start(config)?;
    let mut link = Link::open()?;
    let at_once = options.lanes.min(AT_ONCE);
    open_lanes(&options, 0..at_once, &mut device, &mut link)?;
    say(&json!({
        "event": "ready", "port": device.local_addr().port(), "offload": device.offload().to_string(),
        "pid": std::process::id(),
    }));
    // Engineers do not come by the thousand in one moment, and a device answers only so many a second.
    for number in at_once..options.lanes {
        if options.endpoint.is_some() {
            std::thread::sleep(APART);
        }
        open_lanes(&options, number..number + 1, &mut device, &mut link)?;
    }
    while signals.wait().context("wait for a signal")? == Signal::SIGUSR1 {
        report(&mut device, "report");
    }
    report(&mut device, "end");
    Ok(())
}

/// Opens lanes, each with its address and route.
fn open_lanes(options: &Options, which: Range<u32>, device: &mut Userspace, link: &mut Link) -> Result<()> {
    let private = secret(&options.private_file)?;
    let public = key::public_of(&private)?;
    let peer = public_key(&options.peer)?;
    let preshared = options.preshared_file.as_deref().map(secret).transpose()?;
    for number in which {
        let nth = |first: Ipv4Addr| Ipv4Addr::from_bits(first.to_bits().wrapping_add(number));
        let (address, allowed) = (nth(options.address), nth(options.peer_address));
        let (private, peer) = match number {
            0 => (private.clone(), peer),
            _ => (derived(&public, number), key::public_of(&derived(&peer, number))?),
        };
        let role = match options.gate {
            None => LaneRole::Engineer { address, allowed },
            Some(Gate { protocol, port }) => {
                let tuple = Tuple { engineer: allowed, destination: address, address, protocol, port };
                LaneRole::Gateway { tuple, deadline: Boot(u64::MAX) }
            }
        };
        let [a, b, c, d] = (number + 1).to_be_bytes();
        device.open(LaneSpec {
            session: SessionId::from_random([0, a, b, c, d]),
            private,
            peer,
            preshared: preshared.clone(),
            endpoint: options.endpoint,
            fallback: None,
            keepalive: options.keepalive,
            initiate: options.endpoint.is_some(),
            role,
        })?;
        link.add_address(&options.interface, address)?;
        link.add_route(&options.interface, allowed)?;
    }
    Ok(())
}

/// The private key of an end's further lane: anybody can make it, which is what a benchmark wants.
fn derived(public: &PublicKey, number: u32) -> Secret {
    let hash = Sha256::new().chain_update(public.as_bytes()).chain_update(number.to_be_bytes()).finalize();
    Secret::new(hash.into())
}

fn secret(file: &Path) -> Result<Secret> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    match hex(text.trim()) {
        Some(bytes) => Ok(Secret::new(bytes)),
        None => Secret::from_base64(text.trim()).with_context(|| file.display().to_string()),
    }
}

fn public_key(text: &str) -> Result<PublicKey> {
    match hex(text) {
        Some(bytes) => Ok(PublicKey::new(bytes)?),
        None => Ok(text.parse()?),
    }
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
    }
    Some(bytes)
}

fn report(device: &mut Userspace, event: &str) {
    let lanes = device.reports().into_iter().map(|lane| {
        json!({
            "session": lane.session.to_string(),
            "up_packets": lane.counters.up_packets,
            "up_bytes": lane.counters.up_bytes,
            "down_packets": lane.counters.down_packets,
            "down_bytes": lane.counters.down_bytes,
            "denied_packets": lane.counters.denied_packets,
            "spoofed_packets": lane.counters.spoofed_packets,
            "rekeys": lane.rekeys,
            "endpoint": lane.endpoint.map(|endpoint| endpoint.to_string()),
            "rx_bytes": lane.rx_bytes,
            "tx_bytes": lane.tx_bytes,
        })
    });
    let lanes: Vec<Value> = lanes.collect();
    say(&json!({"event": event, "offload": device.offload().to_string(), "lanes": lanes}));
}

fn say(what: &Value) {
    // Nobody may be listening.
    let _ = writeln!(std::io::stdout(), "{what}");
}
