//! The shell: one task drives the tunnel, one takes local connections.

mod door;
mod drive;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use smoltcp::time::Instant;
use thinlane_model::{Counters, Endpoint, PublicKey, Secret};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

pub use door::{Door, DoorError};

use crate::inner::Inner;
use crate::local::{self, Bells};
use crate::path::Path;
use crate::stack::Stack;
use crate::told::News;
use crate::tunnel::Tunnel;

/// Events that wait to be looked at; hints beyond these are lost, they repeat.
const EVENTS: usize = 32;

/// All that a lane needs to end here.
#[derive(Debug)]
pub struct Config {
    /// This end's key, of this session only.
    pub private: Secret,
    /// The gateway's key for this session.
    pub peer: PublicKey,
    pub preshared: Secret,
    /// The relay, or the gateway itself.
    pub endpoint: Endpoint,
    /// Where the peer is tried when it does not answer there.
    pub fallback: Option<Endpoint>,
    /// Seconds of silence after which an empty packet keeps the path open; 0: none.
    pub keepalive: u16,
    /// The session's own address.
    pub address: Ipv4Addr,
    /// What the lane leads to.
    pub asset: SocketAddrV4,
    /// The longest packet that the gateway takes.
    pub mtu: u16,
    /// What is asked of every socket towards the peer.
    pub prepare: Prepare,
}

/// Sets of a fresh socket what only some operating systems have; one of which it cannot be had is used all the same.
pub type Prepare = fn(&std::net::UdpSocket) -> std::io::Result<()>;

/// Why a lane cannot begin here.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the operating system gave no randomness: {0}")]
    Randomness(getrandom::Error),
    #[error("the lane's endpoint {endpoint} cannot be used: {source}")]
    Endpoint {
        endpoint: Endpoint,
        #[source]
        source: std::io::Error,
    },
    #[error("the local port cannot be used: {0}")]
    Door(#[source] std::io::Error),
}

/// What a lane tells unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A handshake was completed: packets cross.
    Handshake,
    /// Something that a person should know.
    Hint(Hint),
    /// Of the way to the gateway; 0 is [`Config::endpoint`], 1 [`Config::fallback`].
    Way(News),
}

/// Something that a person should know; in text one sentence and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// The asset refused a connection.
    Refused,
    /// The asset did not answer a new connection.
    Unanswered,
    /// The asset fell silent on a connection.
    Silent,
    /// No further connection fits.
    Full,
    /// The gateway does not answer.
    Away,
    /// The gateway answers again.
    Back,
    /// The network of this machine has changed.
    Moved,
}

impl fmt::Display for Hint {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Hint::Refused => "the asset refused a connection: nothing listens on the lane's port there",
            Hint::Unanswered => {
                "the asset did not answer a new connection for 30 s; see whether it is on and connected"
            }
            Hint::Silent => "the asset did not answer on an open connection for 5 minutes; it was closed",
            Hint::Full => {
                "a connection was refused: 200 are open, which is all that a lane carries; close some in your tool"
            }
            Hint::Away => "the gateway does not answer; trying again, connections wait",
            Hint::Back => "the gateway answers again",
            Hint::Moved => "this machine's network has changed; the lane moves along",
        })
    }
}

/// A lane that ends here. Dropped, it takes every local connection with it at once.
#[derive(Debug)]
pub struct Forward {
    local: SocketAddr,
    shared: Arc<Shared>,
    events: mpsc::Receiver<Event>,
    /// `None`: it has ended by itself.
    drive: Option<JoinHandle<()>>,
    near: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
}

/// What the tasks of one lane share.
pub(crate) struct Shared {
    inner: Mutex<Inner>,
    /// Something local happened that the tunnel's task should look at.
    pub(crate) wake: Notify,
    pub(crate) bells: Bells,
    /// No local connection goes on.
    pub(crate) closing: Notify,
    events: mpsc::Sender<Event>,
    /// The way that the gateway was last heard, or is looked for.
    pub(crate) way: AtomicUsize,
    begun: std::time::Instant,
}

impl Forward {
    /// Begins: a handshake leaves at once, and the door is open from now on.
    pub async fn start(config: Config, door: Door) -> Result<Forward, StartError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(StartError::Randomness)?;
        let (seed, index) = random.split_at(8);
        let seed = u64::from_le_bytes(seed.try_into().expect("eight bytes"));
        let index = u32::from_le_bytes(index[..4].try_into().expect("four bytes"));
        let endpoint = config.endpoint.clone();
        let path = Path::open(config.endpoint, config.fallback, config.prepare)
            .await
            .map_err(|source| StartError::Endpoint { endpoint, source })?;
        let local = door.address();
        let now = Instant::ZERO;
        let inner = Inner::new(config.address, config.asset, door.protocol(), config.mtu, seed, now);
        let mut tunnel =
            Tunnel::new(&config.private, &config.peer, Some(&config.preshared), config.keepalive, index, now);
        if path.has_choice() {
            tunnel.has_choice();
        }
        let (events, inbox) = mpsc::channel(EVENTS);
        let shared = Arc::new(Shared {
            inner: Mutex::new(inner),
            wake: Notify::new(),
            bells: Bells::default(),
            closing: Notify::new(),
            events,
            way: AtomicUsize::new(path.way()),
            begun: std::time::Instant::now(),
        });
        let (near, answers) = match door.open().map_err(StartError::Door)? {
            door::Open::Tcp(listener) => (tokio::spawn(local::accept(listener, shared.clone())), None),
            door::Open::Udp(socket) => {
                let socket = Arc::new(socket);
                (tokio::spawn(local::receive(socket.clone(), shared.clone())), Some(socket))
            }
        };
        let (stop, stopped) = oneshot::channel();
        let driver = drive::Driver::new(tunnel, path, shared.clone(), answers);
        let drive = tokio::spawn(driver.run(stopped));
        Ok(Forward { local, shared, events: inbox, drive: Some(drive), near, stop: Some(stop) })
    }

    /// Where local tools connect to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The way that is taken: 0 is [`Config::endpoint`], 1 [`Config::fallback`].
    pub fn way(&self) -> usize {
        self.shared.way.load(Ordering::Relaxed)
    }

    /// The next thing that it tells; `None`: it has come to an end by itself, which it should not.
    pub async fn event(&mut self) -> Option<Event> {
        let drive = self.drive.as_mut()?;
        tokio::select! {
            event = self.events.recv() => event,
            _ = drive => {
                self.drive = None;
                None
            }
        }
    }

    /// What has crossed, in IP packets and bytes.
    pub fn counters(&self) -> Counters {
        self.shared.with_inner(|inner, _| inner.counters())
    }

    /// Resets every local connection, and ends.
    ///
    /// `open`: the lane is still open, so that the asset is told as well; the packets of one that is over would only
    /// come too late.
    pub async fn close(mut self, open: bool) {
        self.shared.closing.notify_one();
        // Whatever became of it, it is no more.
        let _ = (&mut self.near).await;
        let stop = self.stop.take().filter(|_| open);
        if let (Some(stop), Some(drive)) = (stop, &mut self.drive)
            && stop.send(()).is_ok()
        {
            let _ = drive.await;
        }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.near.abort();
        if let Some(drive) = &self.drive {
            drive.abort();
        }
    }
}

impl Shared {
    /// The time since the lane began.
    pub(crate) fn now(&self) -> Instant {
        Instant::from_micros(i64::try_from(self.begun.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    pub(crate) fn with_inner<R>(&self, act: impl FnOnce(&mut Inner, Instant) -> R) -> R {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut inner, self.now())
    }

    /// `None`: the lane carries UDP.
    pub(crate) fn with_stack<R>(&self, act: impl FnOnce(&mut Stack, Instant) -> R) -> Option<R> {
        self.with_inner(|inner, now| inner.tcp().map(|stack| act(stack, now)))
    }

    pub(crate) fn tell(&self, event: Event) {
        // Nobody waits for it; a handshake that is not told of shows in what crosses.
        let _ = self.events.try_send(event);
    }

    pub(crate) fn hint(&self, hint: Hint) {
        self.tell(Event::Hint(hint));
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Shared").finish_non_exhaustive()
    }
}
