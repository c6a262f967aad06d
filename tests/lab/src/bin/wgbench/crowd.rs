//! Memory of a device whose every lane carries something.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::ground::{Ground, INNER, until};
use crate::peer::{Keys, Kind, Peer, Tunnel};
use crate::rounds::Plan;
use crate::tcp;
use crate::udp::{PORT, Sink};

/// As many as the budget names.
pub const LANES: u32 = 50;
/// Datagrams of 1 400 bytes that each lane is sent in a second.
const EACH: u32 = 40;
/// MB of the larger end: to be reached, and to be aimed at.
pub const GATE: [f64; 2] = [16.0, 12.0];

/// What was seen.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    pub idle_mb: f64,
    pub loaded_mb: f64,
    /// Mbit/s of the four TCP flows beside.
    pub rate: f64,
    /// Datagrams that arrived over all lanes together.
    pub datagrams: u64,
}

/// Fifty lanes, four TCP flows through the first, datagrams through all.
pub fn measure(ground: &Ground, keys: &Keys, plan: &Plan) -> Result<Crowd> {
    let peer = Peer::new("ours", "thinlane", Kind::Ours { offload: "all", lanes: LANES as usize });
    let tunnel = Tunnel::start(&peer, ground, 0, keys)?;
    until(Duration::from_secs(60), || tunnel.ends.iter().all(|end| end.handshakes() >= LANES as usize));
    let idle = tunnel.resident();
    let sink = Sink::new(ground)?;
    let to = tunnel.to;
    let sockets = ground.within(0, move || {
        let nth = |first: Ipv4Addr, number: u32| Ipv4Addr::from_bits(first.to_bits() + number);
        let socket = |number: u32| -> std::io::Result<UdpSocket> {
            // A lane takes nothing that comes from another one's address.
            let socket = UdpSocket::bind((nth(INNER[0], number), 0))?;
            socket.connect((nth(to, number), PORT))?;
            Ok(socket)
        };
        (0..LANES).map(socket).collect::<std::io::Result<Vec<_>>>()
    })??;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let text = [7; 1400];
            for socket in sockets.iter().cycle() {
                if done.load(Relaxed) {
                    return;
                }
                // A full queue is loss like any other.
                let _ = socket.send(&text);
                thread::sleep(Duration::from_secs(1) / (LANES * EACH));
            }
        });
        let memory = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Relaxed) {
                most = most.max(tunnel.resident());
                thread::sleep(Duration::from_millis(100));
            }
            most
        });
        let flows = tcp::flows(ground, &to.to_string(), 4, plan.seconds.max(3), None);
        done.store(true, Relaxed);
        let loaded = memory.join().unwrap_or(0);
        let datagrams = sink.settled();
        let mb = |kib: u64| kib as f64 / 1024.0;
        Ok(Crowd { idle_mb: mb(idle), loaded_mb: mb(loaded), rate: flows?.rate, datagrams })
    })
}
