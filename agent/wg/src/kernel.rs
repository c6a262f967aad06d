//! The kernel backend: one WireGuard interface per lane, set up over netlink, and a thread that looks after them.
//!
//! Keys go to the kernel over netlink alone. A lane's interface has one peer, one allowed address (/32) and a UDP port of
//! its own, for the kernel's devices cannot share one. On a gateway it stands behind the second lock (`kernel/lock.rs`):
//! without the mark of our table nothing is routed into it or out of it.
//!
//! The kernel counts merged packets as one, and what a lane's rules deny is counted by the rules; of `Counters` this
//! backend knows `spoofed_packets` alone. It answers nobody with a reset: that is the table's part.
//!
//! At the end of a lane the asset's connections are let go ([`challenge`]), and our own engineer's end resets its own. A
//! stock client's are not: what its TCP expects could only be asked through the tunnel, and the answer takes a round trip
//! for which the peer of a lane that is over would have to stay. Its connections end by their own timeouts.
//!
//! The thread sleeps while no handshake is awaited and no deadline is near, but for a look now and then whether the peer of
//! a lane with a fallback is still heard where it was. It dies with its process, and the interfaces do not: the table ends
//! their lanes on time, and the next process removes them ([`Kernel::start`]).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use thinlane_model::{Boot, SessionId, Span};

use crate::device::{Backend, Device, DeviceError, Event, LaneReport, LaneSpec};
use crate::link::{Link, LinkError};

mod challenge;
mod fuzz;
mod lock;
mod wire;
mod worker;

pub use challenge::challenge;
#[doc(hidden)]
pub use fuzz::{fuzz_genetlink, fuzz_genetlink_seeds};
pub use lock::Marks;
use worker::{Command, Worker};

/// Commands that may wait for the thread.
const COMMANDS: usize = 64;
/// What fits into 1 500 bytes with IPv6, UDP and WireGuard around it.
const MTU: u16 = 1420;
/// Two keepalives of the peer's were lost, and a little more.
const SILENCE: Span = Span::from_secs(55);
/// An interface that is made to see whether one can be.
const TRIAL: &str = "tl-trial";

/// How a kernel backend is made.
pub struct KernelConfig {
    /// What the interfaces' names begin with; the rest is the session's.
    pub prefix: String,
    /// Their ifalias, which begins with `thinlane`. Interfaces of this prefix and alias that stand already are a dead
    /// process's, and are removed.
    pub alias: String,
    pub mtu: u16,
    /// The UDP port of the only lane; 0 gives each lane a free one.
    pub port: u16,
    /// The mark of the datagrams sent, for policy routing.
    pub mark: Option<u32>,
    /// By which marks a gateway's lanes are locked; `None` on an engineer's machine, which has no table.
    pub marks: Option<Marks>,
    /// A peer that was silent for so long is looked for at its lane's fallback, with new keys: the kernel sends its
    /// handshakes to one place at a time.
    pub silence: Span,
    /// Called on the device's thread, which waits meanwhile: hand the event on and return.
    pub events: Option<Box<dyn FnMut(Event) + Send>>,
}

impl KernelConfig {
    /// The usual: MTU 1 420, any free port, no marks, 55 s of silence.
    pub fn new(prefix: impl Into<String>, alias: impl Into<String>) -> Self {
        let (prefix, alias) = (prefix.into(), alias.into());
        Self { prefix, alias, mtu: MTU, port: 0, mark: None, marks: None, silence: SILENCE, events: None }
    }
}

/// Why this machine cannot use the kernel's WireGuard.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error("this kernel has no WireGuard, built in or as a module")]
    Missing,
    #[error("no right to make a WireGuard interface here (CAP_NET_ADMIN)")]
    Forbidden,
    #[error(transparent)]
    Link(LinkError),
}

/// Lanes that the kernel encrypts. Dropping it closes every lane and takes its interfaces away.
#[derive(Debug)]
pub struct Kernel {
    prefix: String,
    commands: SyncSender<Command>,
    thread: Option<JoinHandle<()>>,
    /// Known here so that asking for an interface's name needs no word with the thread.
    open: BTreeMap<SessionId, String>,
}

impl Kernel {
    /// Whether the calling thread's network namespace can have a WireGuard interface, by making one and removing it. The
    /// kernel loads the module where it is allowed to; else `modprobe` is asked once.
    pub fn available() -> Result<(), KernelError> {
        match trial() {
            Err(KernelError::Missing) => {
                let asked = std::process::Command::new("modprobe").args(["-q", "wireguard"]).output();
                if asked.is_ok_and(|output| output.status.success()) { trial() } else { Err(KernelError::Missing) }
            }
            result => result,
        }
    }

    /// Starts in the calling thread's network namespace, where it removes what an earlier process left.
    pub fn start(config: KernelConfig) -> Result<Self, DeviceError> {
        let fits = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'-' || letter == b'_';
        // A session's own part has eight letters, a kernel's name fifteen.
        if !(1..=7).contains(&config.prefix.len()) || !config.prefix.bytes().all(fits) {
            return Err(DeviceError::Name(config.prefix));
        }
        clear(&config.prefix, &config.alias)?;
        let prefix = config.prefix.clone();
        let (commands, inbox) = sync_channel(COMMANDS);
        let worker = Worker::new(config, inbox)?;
        let thread = std::thread::Builder::new()
            .name(format!("wg-{prefix}"))
            .spawn(move || worker.run())
            .map_err(|source| DeviceError::Io { doing: "start the device's thread", source })?;
        Ok(Self { prefix, commands, thread: Some(thread), open: BTreeMap::new() })
    }

    /// The UDP port on which a lane listens; `None`: no such lane.
    pub fn port(&self, session: SessionId) -> Option<u16> {
        self.ask(move |worker| worker.port(session)).ok()?
    }

    fn name(&self, session: SessionId) -> String {
        format!("{}{}", self.prefix, session.short())
    }

    /// Has the thread do something, and waits for it.
    fn ask<R: Send + 'static>(&self, act: impl FnOnce(&mut Worker) -> R + Send + 'static) -> Result<R, DeviceError> {
        let (reply, answer) = sync_channel(1);
        let command: Command = Box::new(move |worker| {
            // Whoever asked may have gone.
            let _ = reply.send(act(worker));
        });
        self.commands.send(command).map_err(|_| DeviceError::Stopped)?;
        answer.recv().map_err(|_| DeviceError::Stopped)
    }
}

/// Removes the interfaces of this prefix and alias, and every routing rule of ours, from the calling thread's network
/// namespace.
pub fn clear(prefix: &str, alias: &str) -> Result<(), LinkError> {
    let mut link = Link::open()?;
    for interface in link.ours()? {
        if interface.name.starts_with(prefix) && interface.alias.as_deref() == Some(alias) {
            link.delete_index(interface.index)?;
        }
    }
    // After the interfaces: what they are locked with holds until they are gone.
    lock::clear(&mut link)
}

fn trial() -> Result<(), KernelError> {
    let mut link = Link::open().map_err(KernelError::Link)?;
    let made = link.add_wireguard(TRIAL);
    match made {
        Ok(index) => link.delete_index(index).map(|_| ()).map_err(KernelError::Link),
        Err(error) if error.is_one_of(&[libc::EOPNOTSUPP, libc::ENOTSUP]) => Err(KernelError::Missing),
        Err(error) if error.is_one_of(&[libc::EPERM, libc::EACCES]) => Err(KernelError::Forbidden),
        // Another process is trying at this moment, or died while it did.
        Err(error) if error.is_one_of(&[libc::EEXIST]) => link.delete(TRIAL).map(|_| ()).map_err(KernelError::Link),
        Err(error) => Err(KernelError::Link(error)),
    }
}

impl Device for Kernel {
    fn open(&mut self, spec: LaneSpec) -> Result<(), DeviceError> {
        let session = spec.session;
        let name = self.name(session);
        self.ask(move |worker| worker.open(spec))??;
        self.open.insert(session, name);
        Ok(())
    }

    fn extend(&mut self, session: SessionId, deadline: Boot) -> Result<(), DeviceError> {
        self.ask(move |worker| worker.extend(session, deadline))?
    }

    fn shut(&mut self, session: SessionId) -> Result<(), DeviceError> {
        self.ask(move |worker| worker.shut(session))?
    }

    fn close(&mut self, session: SessionId) -> Result<LaneReport, DeviceError> {
        let report = self.ask(move |worker| worker.close(session))??;
        self.open.remove(&session);
        Ok(report)
    }

    fn report(&mut self, session: SessionId) -> Option<LaneReport> {
        self.ask(move |worker| worker.report(session)).ok()?
    }

    fn reports(&mut self) -> Vec<LaneReport> {
        self.ask(Worker::reports).unwrap_or_default()
    }

    fn set_endpoint(&mut self, session: SessionId, endpoint: SocketAddr) -> Result<(), DeviceError> {
        self.ask(move |worker| worker.set_endpoint(session, endpoint))?
    }

    fn handshake(&mut self) {
        // A device that has stopped has no lanes.
        let _ = self.ask(Worker::handshake);
    }

    fn close_all(&mut self) -> Vec<LaneReport> {
        self.open.clear();
        self.ask(Worker::close_all).unwrap_or_default()
    }

    fn suspend_all(&mut self) -> Vec<LaneReport> {
        // Nobody is reset here in either case.
        self.close_all()
    }

    fn missing(&mut self, session: SessionId) -> Result<Option<&'static str>, DeviceError> {
        self.ask(move |worker| worker.missing(session))?
    }

    fn interface(&self, session: SessionId) -> Option<String> {
        self.open.get(&session).cloned()
    }

    fn backend(&self) -> Backend {
        Backend::Kernel
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // A thread that has ended already has closed everything.
        let _ = self.ask(Worker::stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
