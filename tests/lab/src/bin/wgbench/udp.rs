//! Datagrams at a steady rate, and the search for the highest that loses next to nothing.
//!
//! iperf3 spends more on a small datagram than a good tunnel does; this sends and receives in batches.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt};

use crate::ground::Ground;

/// Where the sink listens.
pub const PORT: u16 = 5301;
const ECHO_PORT: u16 = 5302;
const BATCH: usize = 32;
/// How much is sent between two looks at the clock; short, so that no queue on the way is filled by the sender's bursts.
const TICK: Duration = Duration::from_micros(200);
/// Loss that still counts as none.
pub const LOSS: f64 = 0.005;

/// Counts datagrams that arrive at the far end, until dropped.
pub struct Sink {
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    pub fn new(ground: &Ground) -> Result<Self> {
        let socket = ground.within(1, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))??;
        setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (count, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (count.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let mut buffers = vec![[0u8; 2048]; BATCH];
            let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
            while !stopped.load(Ordering::Relaxed) {
                let mut slices: Vec<[IoSliceMut; 1]> = buffers.iter_mut().map(|one| [IoSliceMut::new(one)]).collect();
                let got = recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, None);
                if let Ok(messages) = got {
                    counted.fetch_add(messages.count() as u64, Ordering::Relaxed);
                }
            }
        });
        Ok(Self { count, stop, thread: Some(thread) })
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The count once nothing has come for a while.
    pub fn settled(&self) -> u64 {
        let mut seen = self.count();
        let end = Instant::now() + Duration::from_secs(2);
        loop {
            thread::sleep(Duration::from_millis(60));
            let now = self.count();
            if now == seen || Instant::now() > end {
                return now;
            }
            seen = now;
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A socket at the near end, towards the sink.
pub struct Source {
    socket: UdpSocket,
    size: usize,
}

/// One try.
#[derive(Debug, Clone, Copy)]
struct Probe {
    /// Datagrams a second that were sent, and that arrived.
    sent: f64,
    arrived: f64,
}

impl Probe {
    fn clean(&self) -> bool {
        self.arrived >= self.sent * (1.0 - LOSS)
    }
}

impl Source {
    pub fn new(ground: &Ground, to: Ipv4Addr, size: usize) -> Result<Self> {
        let socket = ground.within(0, move || -> std::io::Result<UdpSocket> {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect((to, PORT))?;
            Ok(socket)
        })??;
        setsockopt(&socket, sockopt::SndBufForce, &(4 << 20))?;
        Ok(Self { socket, size })
    }

    /// Sends at `rate` datagrams a second, or as fast as it goes; says how many left and how long it took.
    fn send(&self, rate: Option<f64>, length: Duration) -> (u64, f64) {
        let text = vec![7u8; self.size];
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        let none = [None; BATCH];
        let (begun, mut sent) = (Instant::now(), 0u64);
        loop {
            let spent = begun.elapsed();
            if spent >= length {
                return (sent, spent.as_secs_f64());
            }
            let due = rate.map_or(BATCH as u64, |rate| ((spent.as_secs_f64() * rate) as u64).saturating_sub(sent));
            if due == 0 {
                thread::sleep(TICK);
                continue;
            }
            let batch = (due as usize).min(BATCH);
            let slices: Vec<[IoSlice; 1]> = (0..batch).map(|_| [IoSlice::new(&text)]).collect();
            let done =
                sendmmsg(self.socket.as_raw_fd(), &mut headers, slices.iter(), &none[..batch], [], MsgFlags::empty());
            match done {
                Ok(results) => sent += results.count() as u64,
                // A full queue near the sender is loss like any other.
                Err(nix::Error::ENOBUFS) => sent += batch as u64,
                Err(_) => thread::sleep(TICK),
            }
        }
    }

    fn probe(&self, sink: &Sink, rate: Option<f64>, length: Duration) -> Probe {
        let before = sink.settled();
        let (sent, seconds) = self.send(rate, length);
        let arrived = sink.settled() - before;
        Probe { sent: sent as f64 / seconds, arrived: arrived as f64 / seconds }
    }

    /// The highest rate that loses no more than [`LOSS`], in datagrams a second; 0 where even a trickle is lost.
    /// `guess` saves time: what an earlier search found.
    pub fn highest(&self, sink: &Sink, guess: Option<f64>, length: Duration) -> f64 {
        let start = guess.unwrap_or_else(|| self.probe(sink, None, length / 2).arrived).max(100.0);
        let (mut low, mut high, mut best): (Option<f64>, Option<f64>, f64) = (None, None, 0.0);
        for _ in 0..9 {
            let rate = match (low, high) {
                (None, None) => start,
                (Some(low), None) => low * 1.4,
                (None, Some(high)) => high / 1.5,
                (Some(low), Some(high)) if high / low > 1.04 => (low * high).sqrt(),
                _ => break,
            };
            let probe = self.probe(sink, Some(rate), length);
            if probe.clean() {
                best = best.max(probe.arrived);
                if probe.sent < rate * 0.9 {
                    // The sender has no more to give.
                    break;
                }
                low = Some(rate);
            } else {
                high = Some(rate);
            }
        }
        best
    }
}

/// Answers datagrams at the far end until dropped; shows when a path is open.
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub fn new(ground: &Ground) -> Result<Self> {
        let socket = ground.within(1, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, ECHO_PORT)))??;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
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

/// Waits until an echo comes back from `to`; fails after `most`.
pub fn first_echo(ground: &Ground, to: Ipv4Addr, most: Duration) -> Result<()> {
    ground
        .within(0, move || -> Option<()> {
            let end = Instant::now() + most;
            let mut buffer = [0; 64];
            while Instant::now() < end {
                let asked = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
                    socket.connect(SocketAddr::from((to, ECHO_PORT)))?;
                    socket.set_read_timeout(Some(Duration::from_millis(4)))?;
                    // The same socket for some tries: the answer to an earlier question counts.
                    for _ in 0..50 {
                        socket.send(b"?")?;
                        if socket.recv(&mut buffer).is_ok() {
                            return Ok(true);
                        }
                    }
                    Ok(false)
                });
                match asked {
                    Ok(true) => return Some(()),
                    Ok(false) => {}
                    Err(_) => thread::sleep(Duration::from_millis(2)),
                }
            }
            None
        })?
        .context("no packet crosses the tunnel")
}
