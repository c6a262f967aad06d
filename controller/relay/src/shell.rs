//! The relay's one UDP socket and the thread that serves it.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, SockaddrStorage, sendto, setsockopt, sockopt};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
use rustix::time::{ClockId, clock_gettime};
use thinlane_model::{Boot, PublicKey, Secret, SessionId};
use thinlane_wire::ProbeKey;
use tracing::{debug, trace, warn};

use crate::core::{Relay, RelayError};
use crate::verdict::{RelayStats, RelayTotals, Verdict};

/// How long the thread waits for a datagram before it looks whether it should stop or clean up.
const PATIENCE: Duration = Duration::from_millis(250);
/// Wanted socket buffers, in bytes; the kernel may give less.
const BUFFER: usize = 4 << 20;
/// Larger than any UDP payload.
const LARGEST: usize = 65_536;

/// A running relay; dropping it stops the thread and closes the socket.
pub struct Shell {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Opens and closes sessions of a running relay, from any thread.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    relay: Mutex<Relay>,
    /// Callers that want the lock: the thread lets them go first, so a kill does not wait behind a flood.
    callers: AtomicUsize,
    stop: AtomicBool,
    local: SocketAddr,
    probes: ProbeKey,
}

/// This machine's CLOCK_BOOTTIME, on which sessions of the relay end.
pub fn boot_now() -> Boot {
    let now = clock_gettime(ClockId::Boottime);
    Boot(u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000)
}

impl Shell {
    /// Binds the socket and serves it on a thread of its own.
    ///
    /// On a machine with several addresses bind the one that is handed out: an answer must come from where the
    /// ends sent to, and from a wildcard the kernel chooses by route.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let _ = setsockopt(&socket, sockopt::RcvBuf, &BUFFER);
        let _ = setsockopt(&socket, sockopt::SndBuf, &BUFFER);
        // As the ends send theirs (ip(7): IP_PMTUDISC_DONT): a narrow link behind the relay cuts what is too long, instead
        // of losing it wherever its routers do not say so. Not known of IPv6, where nobody on the way cuts.
        let _ = set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT);
        let seed = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| io::Error::other(error.to_string()))?;
        let probes = ProbeKey::new(key);
        let mut relay = Relay::new(seed);
        relay.answer_probes(probes.clone());
        let shared = Arc::new(Shared {
            relay: Mutex::new(relay),
            callers: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            local: socket.local_addr()?,
            probes,
        });
        let served = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("relay".into()).spawn(move || served.serve(&socket))?;
        Ok(Self { handle: Handle { shared }, thread: Some(thread) })
    }

    /// The address that was bound, its port chosen by the kernel where 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.shared.local
    }

    /// A handle for other threads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.handle.shared.stop.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            warn!("the relay's thread had panicked");
        }
    }
}

/// Each call is in effect when it returns.
impl Handle {
    /// See [`Relay::open`]; `until` is on [`boot_now`]'s clock.
    pub fn open(
        &self,
        session: SessionId,
        engineer: PublicKey,
        gateway: Option<PublicKey>,
        until: Boot,
    ) -> Result<(), RelayError> {
        self.with(|relay| relay.open(session, engineer, gateway, until))
    }

    /// See [`Relay::set_gateway`].
    pub fn set_gateway(&self, session: SessionId, key: PublicKey) -> Result<(), RelayError> {
        self.with(|relay| relay.set_gateway(session, key))
    }

    /// See [`Relay::extend`].
    pub fn extend(&self, session: SessionId, until: Boot) -> Result<(), RelayError> {
        self.with(|relay| relay.extend(session, until))
    }

    /// See [`Relay::close`]: after it returns, no datagram of the session leaves the relay.
    pub fn close(&self, session: SessionId) -> Option<RelayStats> {
        self.with(|relay| relay.close(session))
    }

    /// See [`Relay::stats`].
    pub fn stats(&self, session: SessionId) -> Option<RelayStats> {
        self.with(|relay| relay.stats(session))
    }

    /// See [`Relay::totals`].
    pub fn totals(&self) -> RelayTotals {
        self.with(|relay| relay.totals().clone())
    }

    /// See [`Relay::sessions`].
    pub fn sessions(&self) -> Vec<SessionId> {
        self.with(|relay| relay.sessions().collect())
    }

    /// A ticket for one who is known to the controller, with its secret; good for [`ProbeKey::LIFE`].
    ///
    /// Fails where the system has no randomness.
    pub fn probe_ticket(&self) -> io::Result<([u8; 16], Secret)> {
        let id = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        Ok(self.shared.probes.issue(id.to_be_bytes(), boot_now()))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Relay) -> T) -> T {
        self.shared.callers.fetch_add(1, Ordering::AcqRel);
        let mut relay = self.shared.lock();
        self.shared.callers.fetch_sub(1, Ordering::AcqRel);
        act(&mut relay)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Relay> {
        // A panic elsewhere must not silence every lane; each datagram leaves the tables whole.
        self.relay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, socket: &UdpSocket) {
        let mut buffer = vec![0; LARGEST];
        while !self.stop.load(Ordering::Relaxed) {
            match socket.recv_from(&mut buffer) {
                Ok((len, from)) => self.forward(socket, from, &buffer[..len]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    self.lock().handle_timeout(boot_now());
                }
                // What an earlier datagram met on its way (refused, unreachable) says nothing about the socket.
                Err(error) => {
                    debug!(%error, "receiving");
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }

    /// Decides and sends under one lock: what is closed meanwhile cannot be on its way out.
    fn forward(&self, socket: &UdpSocket, from: SocketAddr, datagram: &[u8]) {
        while self.callers.load(Ordering::Acquire) > 0 {
            std::thread::yield_now();
        }
        let mut relay = self.lock();
        let now = boot_now();
        relay.handle_timeout(now);
        match relay.handle_datagram(from, datagram, now) {
            Verdict::Drop(reason) => trace!(reason = reason.as_str(), "dropped"),
            Verdict::Forward { to, .. } => to.iter().for_each(|target| send(socket, datagram, target)),
            Verdict::Answer(answer) => send(socket, &answer, from),
        }
    }
}

/// Never waits: a full buffer loses a datagram, as any router does.
fn send(socket: &UdpSocket, datagram: &[u8], to: SocketAddr) {
    if let Err(error) = sendto(socket.as_raw_fd(), datagram, &SockaddrStorage::from(to), MsgFlags::MSG_DONTWAIT) {
        trace!(%error, "sending");
    }
}
