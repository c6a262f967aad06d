//! The device's thread: waits for packets, datagrams, commands and time, and hands them to the switch.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use thinlane_model::{Boot, Now, SessionId};

use super::socket::{mapped, plain};
use super::{errno, io};
use crate::clock;
use crate::device::{DeviceError, Event, LaneReport, LaneSpec};
use crate::lane::Output;
use crate::link::Link;
use crate::offload::Offload;
use crate::switch::Switch;

/// What a caller has the thread do.
pub(super) type Command = Box<dyn FnOnce(&mut Reactor) + Send>;

/// Packets taken from one source before the others have their turn, and for one reading of the clock.
const BATCH: usize = 64;
/// The longest packet or datagram.
const LONGEST: usize = 65_535;

const TUN: u64 = 0;
const UDP: u64 = 1;
const WAKE: u64 = 2;
const TIMER: u64 = 3;

pub(super) struct Reactor {
    switch: Switch,
    ports: Ports,
    epoll: Epoll,
    timer: TimerFd,
    /// What the timer is set to.
    alarm: Option<Boot>,
    wake: Arc<EventFd>,
    inbox: Receiver<Command>,
    buffer: Box<[u8]>,
    running: bool,
    /// The interface's index.
    interface: u32,
}

/// Where the switch's output goes.
struct Ports {
    tun: Option<File>,
    udp: UdpSocket,
    dual: bool,
    events: Option<Box<dyn FnMut(Event) + Send>>,
    /// Packets and datagrams that the kernel did not take.
    unsent: u64,
}

impl Output for Ports {
    fn udp(&mut self, to: SocketAddr, datagram: &[u8]) {
        let to = if self.dual { mapped(to) } else { to };
        // No buffer, no route, a refusal remembered from an earlier datagram: WireGuard takes loss.
        if let Err(error) = self.udp.send_to(datagram, to) {
            self.unsent += 1;
            tracing::trace!(%error, "datagram not sent");
        }
    }

    fn interface(&mut self, packet: &[u8]) {
        let Some(tun) = &mut self.tun else { return };
        if let Err(error) = tun.write(packet) {
            self.unsent += 1;
            tracing::trace!(%error, "packet not delivered");
        }
    }

    fn event(&mut self, event: Event) {
        if let Some(events) = &mut self.events {
            events(event);
        }
    }
}

impl Reactor {
    pub(super) fn new(
        (tun, interface): (File, u32),
        udp: UdpSocket,
        wake: Arc<EventFd>,
        inbox: Receiver<Command>,
        mtu: u16,
        events: Option<Box<dyn FnMut(Event) + Send>>,
    ) -> Result<Self, DeviceError> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(errno("make an epoll"))?;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)
            .map_err(errno("make a timer"))?;
        let watch = |fd: &dyn AsFd, token| {
            epoll.add(fd.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, token)).map_err(errno("watch a descriptor"))
        };
        watch(&tun, TUN)?;
        watch(&udp, UDP)?;
        watch(&wake.as_fd(), WAKE)?;
        watch(&timer.as_fd(), TIMER)?;
        let dual = udp.local_addr().map_err(io("read the UDP socket's address"))?.is_ipv6();
        Ok(Self {
            switch: Switch::new(mtu),
            ports: Ports { tun: Some(tun), udp, dual, events, unsent: 0 },
            epoll,
            timer,
            alarm: None,
            wake,
            inbox,
            buffer: vec![0; LONGEST].into_boxed_slice(),
            running: true,
            interface,
        })
    }

    /// Runs until told to stop, or until the kernel no longer serves it.
    pub(super) fn run(mut self) {
        while self.running {
            if let Err(error) = self.turn() {
                tracing::error!(%error, "the device stops");
                break;
            }
        }
        self.close_all();
        self.remove_interface();
        if self.ports.unsent > 0 {
            tracing::debug!(unsent = self.ports.unsent, "packets that the kernel did not take");
        }
    }

    pub(super) fn open(&mut self, spec: LaneSpec) -> Result<(), DeviceError> {
        if self.ports.tun.is_none() {
            return Err(DeviceError::InterfaceGone);
        }
        let mut failure = None;
        let mut random = || {
            getrandom::u32().unwrap_or_else(|error| {
                failure = Some(error);
                0
            })
        };
        let now = now()?;
        // An index that is not random is still free: the lane works, and is closed again just below.
        let opened = self.switch.open(spec.clone(), &mut random, now, &mut self.ports);
        if let Some(error) = failure {
            let _ = self.switch.close(spec.session, now, &mut self.ports);
            return Err(DeviceError::Key(crate::key::KeyPairError::Randomness(error)));
        }
        opened
    }

    /// Lets the switch act, at this time, with this device's ports.
    pub(super) fn with<R>(
        &mut self,
        act: impl FnOnce(&mut Switch, Now, &mut dyn Output) -> R,
    ) -> Result<R, DeviceError> {
        let now = now()?;
        Ok(act(&mut self.switch, now, &mut self.ports))
    }

    pub(super) fn report(&mut self, session: SessionId) -> Option<LaneReport> {
        self.switch.report(session)
    }

    pub(super) fn reports(&mut self) -> Vec<LaneReport> {
        self.switch.sessions().into_iter().filter_map(|session| self.switch.report(session)).collect()
    }

    pub(super) fn close_all(&mut self) -> Vec<LaneReport> {
        let Ok(now) = now() else { return Vec::new() };
        let sessions = self.switch.sessions();
        sessions.into_iter().filter_map(|session| self.switch.close(session, now, &mut self.ports).ok()).collect()
    }

    pub(super) fn suspend_all(&mut self) -> Vec<LaneReport> {
        self.switch.sessions().into_iter().filter_map(|session| self.switch.suspend(session).ok()).collect()
    }

    pub(super) fn offload(&self) -> Offload {
        Offload::NONE
    }

    pub(super) fn stop(&mut self) {
        self.running = false;
    }

    /// Closing the descriptor does it, but only once no process that was just forked holds a copy; asking the
    /// kernel does it now.
    fn remove_interface(&mut self) {
        if self.ports.tun.take().is_some()
            && let Err(error) = Link::open().and_then(|mut link| link.delete_index(self.interface))
        {
            tracing::warn!(%error, "the lane interface may stay for a moment");
        }
    }

    fn turn(&mut self) -> Result<(), DeviceError> {
        self.set_alarm()?;
        let mut events = [EpollEvent::empty(); 4];
        let ready = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(errno("wait")(error)),
        };
        for event in &events[..ready] {
            match event.data() {
                TUN => self.read_tun(event.events())?,
                UDP => self.read_udp()?,
                WAKE => self.obey(),
                _ => self.ring()?,
            }
        }
        // Also when the timer has not rung: a flood of packets must not put off a deadline.
        let now = now()?;
        if self.switch.next_due().is_some_and(|due| due <= now.mono) {
            self.switch.on_time(now, &mut self.ports);
        }
        Ok(())
    }

    fn read_tun(&mut self, flags: EpollFlags) -> Result<(), DeviceError> {
        for _ in 0..BATCH {
            let Some(tun) = &mut self.ports.tun else { return Ok(()) };
            let now = now()?;
            match tun.read(&mut self.buffer) {
                Ok(length) => self.switch.take_packet(&mut self.buffer[..length], now, &mut self.ports),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // EBADFD: deleted by somebody. Others do not mend either, and would make the loop spin.
                Err(error) => {
                    self.lose_tun(&error);
                    return Ok(());
                }
            }
        }
        if flags.contains(EpollFlags::EPOLLERR) && !flags.contains(EpollFlags::EPOLLIN) {
            self.lose_tun(&std::io::Error::from_raw_os_error(libc::ENODEV));
        }
        Ok(())
    }

    fn lose_tun(&mut self, error: &std::io::Error) {
        if let Some(tun) = self.ports.tun.take() {
            tracing::warn!(%error, "the lane interface is gone");
            // Closing the descriptor would take it from the epoll as well.
            let _ = self.epoll.delete(&tun);
            self.ports.event(Event::InterfaceGone);
        }
    }

    fn read_udp(&mut self) -> Result<(), DeviceError> {
        let now = now()?;
        for _ in 0..BATCH {
            match self.ports.udp.recv_from(&mut self.buffer) {
                Ok((length, from)) => {
                    self.switch.take_datagram(&self.buffer[..length], plain(from), now, &mut self.ports)
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // An ICMP error about an earlier datagram (ECONNREFUSED and its kin): reading took it away.
                Err(error) => tracing::trace!(%error, "datagram not received"),
            }
        }
        Ok(())
    }

    fn obey(&mut self) {
        // Empties the counter; there may be more commands than the counter says, or fewer.
        let _ = self.wake.read();
        while let Ok(command) = self.inbox.try_recv() {
            command(self);
        }
    }

    fn ring(&mut self) -> Result<(), DeviceError> {
        self.alarm = None;
        // Reading rearms epoll; the time itself says what is due.
        match self.timer.wait() {
            Ok(()) | Err(Errno::EAGAIN | Errno::EINTR | Errno::ECANCELED) => Ok(()),
            Err(error) => Err(errno("read the timer")(error)),
        }
    }

    fn set_alarm(&mut self) -> Result<(), DeviceError> {
        let due = self.switch.next_due();
        if due == self.alarm {
            return Ok(());
        }
        match due {
            None => self.timer.unset(),
            Some(Boot(millis)) => {
                // Zero would switch the timer off.
                let millis = i64::try_from(millis.max(1)).unwrap_or(i64::MAX);
                let at = TimeSpec::new(millis / 1000, millis % 1000 * 1_000_000);
                self.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
            }
        }
        .map_err(errno("set the timer"))?;
        self.alarm = due;
        Ok(())
    }
}

fn now() -> Result<Now, DeviceError> {
    clock::now().map_err(io("read the clock"))
}
