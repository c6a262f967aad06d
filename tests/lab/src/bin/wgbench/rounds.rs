//! The rounds: every implementation in turn, again and again, so that a busy minute hits all alike.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::figures::{Figures, Metric, Sample};
use crate::ground::{Ground, until};
use crate::peer::{Keys, Kind, Peer, Tunnel};
use crate::tcp;
use crate::udp::{Sink, Source};

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub runs: usize,
    /// Seconds of each TCP measurement.
    pub seconds: u64,
    /// Length of one try of the UDP search.
    pub probe: Duration,
    /// Seconds of idleness watched.
    pub idle: u64,
    /// Nothing new is begun after this.
    pub until: Instant,
}

/// What the rounds found beside figures.
#[derive(Debug, Default)]
pub struct Notes {
    pub failures: Vec<String>,
    /// Share of the kernel in the processor time of our ends under TCP.
    pub kernel_share: Vec<f64>,
    /// Rounds that were completed.
    pub rounds: usize,
}

pub fn run(peers: &[Peer], grounds: &[Ground], keys: &Keys, plan: &Plan, figures: &mut Figures) -> Notes {
    let mut notes = Notes::default();
    let mut guesses = BTreeMap::new();
    let mut longest = Duration::ZERO;
    for round in 0..plan.runs {
        let begun = Instant::now();
        if round > 0 && begun + longest > plan.until {
            notes.failures.push(format!("time was up after {round} of {} rounds", plan.runs));
            break;
        }
        for (number, (peer, ground)) in peers.iter().zip(grounds).enumerate() {
            eprint!("\r\x1b[Kround {} of {}: {}", round + 1, plan.runs, peer.title);
            let sample = figures.sample(&peer.id, &peer.title, round);
            let mut turn = Turn { peer, ground, number, keys, plan, guesses: &mut guesses };
            if let Err(error) = turn.measure(sample, &mut notes) {
                notes.failures.push(format!("{}, round {}: {error:#}", peer.title, round + 1));
            }
        }
        notes.rounds += 1;
        longest = longest.max(begun.elapsed());
    }
    eprint!("\r\x1b[K");
    notes
}

struct Turn<'a> {
    peer: &'a Peer,
    ground: &'a Ground,
    number: usize,
    keys: &'a Keys,
    plan: &'a Plan,
    guesses: &'a mut BTreeMap<(String, usize), f64>,
}

impl Turn<'_> {
    fn measure(&mut self, sample: &mut Sample, notes: &mut Notes) -> Result<()> {
        let tunnel = Tunnel::start(self.peer, self.ground, self.number, self.keys)?;
        if let Some(first) = tunnel.first {
            sample.insert(Metric::Start, first.as_secs_f64() * 1e3);
            std::thread::sleep(Duration::from_millis(300));
            sample.insert(Metric::MemoryIdle, tunnel.resident() as f64 / 1024.0);
        }
        let again = self.flows(&tunnel, 1, [Metric::Tcp1, Metric::Cpu1], sample, notes)?;
        if self.peer.pinned {
            return Ok(());
        }
        let again = again + self.loaded(&tunnel, sample, notes)?;
        sample.insert(Metric::Retransmits, again);
        // What differs between our own rows shows in the flows; the search for the highest rate takes the longest.
        if self.peer.id.starts_with("ours-") {
            return Ok(());
        }
        let sink = Sink::new(self.ground)?;
        for (size, metric, unit) in [
            (1372, Metric::Udp1400, 1400.0 * 8.0 / 1e6),
            (1400, Metric::UdpCut, 1400.0 * 8.0 / 1e6),
            (64, Metric::Udp64, 1e-3),
        ] {
            let source = Source::new(self.ground, tunnel.to, size)?;
            let key = (self.peer.id.clone(), size);
            let best = source.highest(&sink, self.guesses.get(&key).copied(), self.plan.probe);
            self.guesses.insert(key, best);
            sample.insert(metric, best * unit);
        }
        Ok(())
    }

    /// TCP flows with the processor time they cost; yields the retransmissions.
    fn flows(
        &self,
        tunnel: &Tunnel,
        flows: usize,
        [rate, cpu]: [Metric; 2],
        sample: &mut Sample,
        notes: &mut Notes,
    ) -> Result<f64> {
        let before = tunnel.cpu();
        let seen = tcp::flows(self.ground, &tunnel.to.to_string(), flows, self.plan.seconds, self.peer.cores())?;
        let after = tunnel.cpu();
        sample.insert(rate, seen.rate);
        if !tunnel.ends.is_empty() && seen.bytes > 0.0 {
            sample.insert(cpu, (after.seconds - before.seconds) / (seen.bytes / 1e9));
        }
        let (user, system) = (after.user - before.user, after.system - before.system);
        if self.peer.id == "ours" && user + system > 0 {
            notes.kernel_share.push(system as f64 / (user + system) as f64);
        }
        Ok(seen.retransmits)
    }

    /// Four flows, with pings and a look at the memory beside them.
    fn loaded(&self, tunnel: &Tunnel, sample: &mut Sample, notes: &mut Notes) -> Result<f64> {
        let done = std::sync::atomic::AtomicBool::new(false);
        let to = tunnel.to.to_string();
        std::thread::scope(|scope| {
            let pings = scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                tcp::ping(self.ground, &to, self.plan.seconds.saturating_sub(1).max(1))
            });
            let memory = scope.spawn(|| {
                let mut most = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    most = most.max(tunnel.resident());
                    std::thread::sleep(Duration::from_millis(150));
                }
                most
            });
            let again = self.flows(tunnel, 4, [Metric::Tcp4, Metric::Cpu4], sample, notes);
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            if let Ok(most @ 1..) = memory.join() {
                sample.insert(Metric::MemoryLoaded, most as f64 / 1024.0);
            }
            match pings.join() {
                Ok(Ok(pings)) => {
                    sample.insert(Metric::Ping, pings.median);
                    sample.insert(Metric::PingP99, pings.p99);
                    if pings.lost > 0 {
                        notes.failures.push(format!("{}: {} pings lost under load", self.peer.title, pings.lost));
                    }
                }
                Ok(Err(error)) => notes.failures.push(format!("{}: {error:#}", self.peer.title)),
                Err(_) => {}
            }
            again
        })
    }
}

/// All implementations at once, nobody sending anything.
pub fn idle(peers: &[Peer], grounds: &[Ground], keys: &Keys, plan: &Plan, figures: &mut Figures) -> Vec<String> {
    let mut failures = Vec::new();
    let mut up = Vec::new();
    for (number, (peer, ground)) in peers.iter().zip(grounds).enumerate() {
        if matches!(peer.kind, Kind::Cable) || peer.pinned {
            continue;
        }
        match Tunnel::start(peer, ground, number, keys) {
            Ok(tunnel) => up.push((peer, tunnel)),
            Err(error) => failures.push(format!("{}, idle: {error:#}", peer.title)),
        }
    }
    // What belongs to the start has happened by then.
    std::thread::sleep(Duration::from_secs(6));
    let before: Vec<u64> = up.iter().map(|(_, tunnel)| tunnel.waits()).collect();
    std::thread::sleep(Duration::from_secs(plan.idle));
    for ((peer, tunnel), before) in up.iter().zip(before) {
        let waits = tunnel.waits().saturating_sub(before) as f64 * 60.0 / plan.idle as f64;
        figures.sample(&peer.id, &peer.title, 0).insert(Metric::Wakes, waits);
    }
    failures
}

/// What many lanes in one device cost.
#[derive(Debug, Clone, Copy)]
pub struct Lanes {
    pub lanes: usize,
    /// How many had made their handshake, and after how many seconds: all, or as many as did within a minute.
    pub up: usize,
    pub seconds: f64,
    pub idle_mb: f64,
    pub rate: f64,
    pub wakes: f64,
}

pub fn lanes(ground: &Ground, keys: &Keys, plan: &Plan) -> Vec<Result<Lanes>> {
    let one = |lanes: usize| -> Result<Lanes> {
        let peer = Peer::new("ours", "thinlane", Kind::Ours { offload: "all", lanes });
        let tunnel = Tunnel::start(&peer, ground, 0, keys)?;
        let begun = Instant::now();
        let all = || tunnel.ends.iter().all(|end| end.handshakes() >= lanes);
        until(Duration::from_secs(60), all);
        let up = tunnel.ends.iter().map(|end| end.handshakes().min(lanes)).min().unwrap_or(0);
        let seconds = tunnel.first.unwrap_or_default() + begun.elapsed();
        // What belongs to the start is over by then.
        std::thread::sleep(Duration::from_secs(5));
        let (before, idle) = (tunnel.waits(), tunnel.resident());
        let watched = plan.idle.min(10);
        std::thread::sleep(Duration::from_secs(watched));
        let wakes = tunnel.waits().saturating_sub(before) as f64 * 60.0 / watched as f64;
        let seen = tcp::flows(ground, &tunnel.to.to_string(), 1, plan.seconds, None)?;
        Ok(Lanes { lanes, up, seconds: seconds.as_secs_f64(), idle_mb: idle as f64 / 1024.0, rate: seen.rate, wakes })
    };
    [1, 100, 1000].into_iter().map(one).collect()
}
