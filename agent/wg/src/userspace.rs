//! The userspace backend: one TUN interface, one UDP socket, one thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use nix::sys::eventfd::{EfdFlags, EventFd};
use thinlane_model::{Boot, SessionId};

use crate::config::UserspaceConfig;
use crate::device::{Backend, Device, DeviceError, LaneReport, LaneSpec};
use crate::link::Link;
use crate::offload::Offload;

mod ports;
mod reactor;
mod socket;
mod tun;

use ports::Ports;
use reactor::{Command, Reactor};
use tun::Tun;

/// Commands that may wait for the thread.
const COMMANDS: usize = 64;
/// Packets that may wait in the interface before it drops them.
const QUEUE: u32 = 1000;

/// A running userspace device. Dropping it closes every lane and takes the interface away.
#[derive(Debug)]
pub struct Userspace {
    interface: String,
    local: SocketAddr,
    commands: SyncSender<Command>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
    /// Known here so that asking for an interface's name needs no word with the thread.
    open: std::collections::BTreeSet<SessionId>,
}

impl Userspace {
    /// Makes the interface, in the calling thread's network namespace, and starts the device.
    ///
    /// Fails where the name is taken, the port is taken, or the rights are missing (CAP_NET_ADMIN).
    pub fn start(config: UserspaceConfig) -> Result<Self, DeviceError> {
        let fits = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'-' || letter == b'_';
        let named = (1..=15).contains(&config.interface.len()) && config.interface.bytes().all(fits);
        if !named {
            return Err(DeviceError::Name(config.interface));
        }
        let tun = Tun::open(&config.interface, config.offload.tun).map_err(io("make the interface"))?;
        let index = Link::open()?.set_up(&config.interface, &config.alias, config.mtu.into(), QUEUE)?;
        let socket = socket::bind(config.listen, config.mark).map_err(io("bind the UDP socket"))?;
        let local = socket.local_addr().map_err(io("read the UDP socket's address"))?;
        let wake = Arc::new(
            EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).map_err(errno("make an eventfd"))?,
        );
        let (commands, inbox) = sync_channel(COMMANDS);
        let udp_receive = config.offload.udp_receive && socket::receive_together(&socket);
        let offload = Offload { udp_receive, ..config.offload };
        let ports = Ports::new(tun, socket, offload, config.events).map_err(io("read the UDP socket's address"))?;
        tracing::debug!(interface = config.interface, offload = %ports.offload(), "offload");
        let reactor = Reactor::new(ports, index, wake.clone(), inbox, config.mtu)?;
        let thread = std::thread::Builder::new()
            .name(format!("wg-{}", config.interface))
            .spawn(move || reactor.run())
            .map_err(io("start the device's thread"))?;
        Ok(Self {
            interface: config.interface,
            local,
            commands,
            wake,
            thread: Some(thread),
            open: std::collections::BTreeSet::new(),
        })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.interface
    }

    /// Where the device listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What the kernel does for this device now; it becomes less when a path turns out not to carry it.
    pub fn offload(&self) -> Offload {
        self.ask(|reactor| reactor.offload()).unwrap_or(Offload::NONE)
    }

    /// Has the device's thread do something, and waits for it: a millisecond at most unless it is drowning.
    fn ask<R: Send + 'static>(&self, act: impl FnOnce(&mut Reactor) -> R + Send + 'static) -> Result<R, DeviceError> {
        let (reply, answer) = sync_channel(1);
        let command: Command = Box::new(move |reactor| {
            // Whoever asked may have gone.
            let _ = reply.send(act(reactor));
        });
        self.commands.send(command).map_err(|_| DeviceError::Stopped)?;
        self.wake.write(1).map_err(errno("wake the device's thread"))?;
        answer.recv().map_err(|_| DeviceError::Stopped)
    }
}

impl Device for Userspace {
    fn open(&mut self, spec: LaneSpec) -> Result<(), DeviceError> {
        let session = spec.session;
        self.ask(move |reactor| reactor.open(spec))??;
        self.open.insert(session);
        Ok(())
    }

    fn extend(&mut self, session: SessionId, deadline: Boot) -> Result<(), DeviceError> {
        self.ask(move |reactor| reactor.with(|switch, now, out| switch.extend(session, deadline, now, out)))??
    }

    fn recall(&mut self, session: SessionId, engineer_ports: &[u16]) -> Result<(), DeviceError> {
        let ports = engineer_ports.to_vec();
        self.ask(move |reactor| reactor.with(|switch, now, out| switch.recall(session, &ports, now, out)))??
    }

    fn keep_apart(&mut self, session: SessionId) -> Result<(), DeviceError> {
        self.ask(move |reactor| reactor.with(|switch, now, out| switch.keep_apart(session, now, out)))??
    }

    fn shut(&mut self, session: SessionId) -> Result<(), DeviceError> {
        self.ask(move |reactor| reactor.with(|switch, now, out| switch.shut(session, now, out)))??
    }

    fn close(&mut self, session: SessionId) -> Result<LaneReport, DeviceError> {
        let report = self.ask(move |reactor| reactor.with(|switch, now, out| switch.close(session, now, out)))???;
        self.open.remove(&session);
        Ok(report)
    }

    fn report(&mut self, session: SessionId) -> Option<LaneReport> {
        self.ask(move |reactor| reactor.report(session)).ok()?
    }

    fn reports(&mut self) -> Vec<LaneReport> {
        self.ask(Reactor::reports).unwrap_or_default()
    }

    fn set_endpoint(&mut self, session: SessionId, endpoint: SocketAddr) -> Result<(), DeviceError> {
        self.ask(move |reactor| reactor.with(|switch, now, out| switch.set_endpoint(session, endpoint, now, out)))??
    }

    fn handshake(&mut self) {
        // A device that has stopped has no lanes.
        let _ = self.ask(|reactor| reactor.with(|switch, now, out| switch.handshake(now, out)));
    }

    fn close_all(&mut self) -> Vec<LaneReport> {
        self.open.clear();
        self.ask(Reactor::close_all).unwrap_or_default()
    }

    fn suspend_all(&mut self) -> Vec<LaneReport> {
        self.open.clear();
        self.ask(Reactor::suspend_all).unwrap_or_default()
    }

    fn interface(&self, session: SessionId) -> Option<String> {
        self.open.contains(&session).then(|| self.interface.clone())
    }

    fn backend(&self) -> Backend {
        Backend::Userspace
    }

    fn offload(&self) -> Option<Offload> {
        Some(Userspace::offload(self))
    }
}

impl Drop for Userspace {
    fn drop(&mut self) {
        // A thread that has ended already has closed everything.
        let _ = self.ask(Reactor::stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> DeviceError {
    move |source| DeviceError::Io { doing, source }
}

fn errno(doing: &'static str) -> impl FnOnce(nix::Error) -> DeviceError {
    move |error| DeviceError::Io { doing, source: error.into() }
}
