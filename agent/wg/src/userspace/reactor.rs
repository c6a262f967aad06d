//! The device's thread: waits for packets, datagrams, commands and time, and hands them to the switch.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
use thinlane_model::{Boot, Now, SessionId, Span};

use super::ports::Ports;
use super::socket::plain;
use super::tun::Queue;
use super::{errno, io};
use crate::clock;
use crate::device::{DeviceError, Event, LaneReport, LaneSpec};
use crate::lane::Output;
use crate::link::Link;
use crate::offload::Offload;
use crate::offload::header::HEADER;
use crate::offload::parcel::Parcel;
use crate::switch::Switch;
use crate::sys::Inbox;

/// What a caller has the thread do.
pub(super) type Command = Box<dyn FnOnce(&mut Reactor) + Send>;

/// Reads of one source before the others have their turn ...
const BATCH: usize = 64;
/// ... or as soon as this many bytes were read, which take a fraction of a millisecond: control waits no longer.
const BUDGET: usize = 256 * 1024;
/// What one read of the interface yields at most.
const LONGEST: usize = HEADER + 65_535;
/// Less of what fills its queue: nothing is lost by coming back soon.
const HEAVY_BUDGET: usize = BUDGET / 2;
/// While packets of other flows come as well, the processor is offered to whoever waits for it after this much of
/// what fills its queue: on a machine with few of them the far end, or who is to answer, is among those.
const OFFER: usize = 2 * BUDGET;
/// Other flows are there for this long after a packet of theirs.
const OTHERS: Span = Span::from_secs(2);
/// Bytes after which the clock is read again.
const CLOCK: usize = 32 * 1024;
/// Pieces that one call fetches from the socket while they are as long as the kernel makes them.
const LONG_PIECES: usize = BUDGET / 65_536;

const TUN: u64 = 0;
const UDP: u64 = 1;
const WAKE: u64 = 2;
const TIMER: u64 = 3;
const HEAVY: u64 = 4;

const QUEUES: [(Queue, u64); 2] = [(Queue::Light, TUN), (Queue::Heavy, HEAVY)];

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
    datagrams: Inbox,
    /// What came last was long: the kernel puts much together, and less of it is fetched at once.
    long_pieces: bool,
    /// When a packet last came that was not of a flow that fills its queue.
    light: Boot,
    /// Bytes that such flows brought since the processor was last offered.
    unoffered: usize,
    /// The socket is waited for, and nothing is read that would be sent through it.
    waits_for_socket: bool,
    running: bool,
    /// The interface's index.
    interface: u32,
}

impl Reactor {
    pub(super) fn new(
        ports: Ports,
        interface: u32,
        wake: Arc<EventFd>,
        inbox: Receiver<Command>,
        mtu: u16,
    ) -> Result<Self, DeviceError> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(errno("make an epoll"))?;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)
            .map_err(errno("make a timer"))?;
        let watch = |fd: &dyn AsFd, token| {
            epoll.add(fd.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, token)).map_err(errno("watch a descriptor"))
        };
        if let Some(tun) = &ports.interface.tun {
            for (queue, token) in QUEUES {
                tun.queue(queue).map_or(Ok(()), |queue| watch(&queue, token))?;
            }
        }
        watch(&ports.udp, UDP)?;
        watch(&wake.as_fd(), WAKE)?;
        watch(&timer.as_fd(), TIMER)?;
        Ok(Self {
            switch: Switch::new(mtu),
            ports,
            epoll,
            timer,
            alarm: None,
            wake,
            inbox,
            buffer: vec![0; LONGEST].into_boxed_slice(),
            datagrams: Inbox::new(),
            long_pieces: false,
            light: Boot(0),
            unoffered: 0,
            waits_for_socket: false,
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
        if self.ports.lost() > 0 {
            tracing::debug!(lost = self.ports.lost(), "packets and datagrams that the kernel did not take");
        }
    }

    pub(super) fn open(&mut self, spec: LaneSpec) -> Result<(), DeviceError> {
        if self.ports.interface.tun.is_none() {
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
        self.ports.flush();
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
        let result = act(&mut self.switch, now, &mut self.ports);
        // Before whoever asked goes on: resets must have left when the lane's rules are taken away.
        self.ports.flush();
        Ok(result)
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
        let close = |session| self.switch.close(session, now, &mut self.ports).ok();
        let reports = sessions.into_iter().filter_map(close).collect();
        self.ports.flush();
        reports
    }

    pub(super) fn suspend_all(&mut self) -> Vec<LaneReport> {
        self.switch.sessions().into_iter().filter_map(|session| self.switch.suspend(session).ok()).collect()
    }

    pub(super) fn offload(&self) -> Offload {
        self.ports.offload()
    }

    pub(super) fn stop(&mut self) {
        self.running = false;
    }

    /// Closing the descriptor does it, but only once no process that was just forked holds a copy; asking the
    /// kernel does it now.
    fn remove_interface(&mut self) {
        if self.ports.interface.tun.take().is_some()
            && let Err(error) = Link::open().and_then(|mut link| link.delete_index(self.interface))
        {
            tracing::warn!(%error, "the lane interface may stay for a moment");
        }
    }

    fn turn(&mut self) -> Result<(), DeviceError> {
        self.set_alarm()?;
        let mut events = [EpollEvent::empty(); 5];
        let ready = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(errno("wait")(error)),
        };
        let flags = |token| events[..ready].iter().find(|event| event.data() == token).map(EpollEvent::events);
        // Commands and time before packets, and what comes before what leaves: it may be what makes room.
        if flags(WAKE).is_some() {
            self.obey();
        }
        if flags(TIMER).is_some() {
            self.ring()?;
        }
        if let Some(flags) = flags(UDP) {
            if flags.contains(EpollFlags::EPOLLOUT) && self.ports.is_blocked() {
                self.ports.unblock();
            }
            self.read_udp()?;
        }
        for (queue, token) in QUEUES {
            if let Some(flags) = flags(token) {
                self.read_tun(queue, flags)?;
            }
        }
        // Also when the timer has not rung: a flood of packets must not put off a deadline.
        let now = now()?;
        if self.switch.next_due().is_some_and(|due| due <= now.mono) {
            self.switch.on_time(now, &mut self.ports);
            self.ports.flush();
        }
        self.heed_socket()
    }

    /// While the socket is full nothing is read from the interface, whose queue then fills and tells the senders.
    fn heed_socket(&mut self) -> Result<(), DeviceError> {
        if self.waits_for_socket == self.ports.is_blocked() {
            return Ok(());
        }
        self.waits_for_socket = self.ports.is_blocked();
        let (tun, udp) = match self.waits_for_socket {
            true => (EpollFlags::empty(), EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT),
            false => (EpollFlags::EPOLLIN, EpollFlags::EPOLLIN),
        };
        for (queue, token) in QUEUES {
            if let Some(queue) = self.ports.interface.tun.as_ref().and_then(|file| file.queue(queue)) {
                self.epoll.modify(queue, &mut EpollEvent::new(tun, token)).map_err(errno("watch the interface"))?;
            }
        }
        self.epoll.modify(&self.ports.udp, &mut EpollEvent::new(udp, UDP)).map_err(errno("watch the socket"))
    }

    fn read_tun(&mut self, queue: Queue, flags: EpollFlags) -> Result<(), DeviceError> {
        let mut budget = if queue == Queue::Heavy { HEAVY_BUDGET } else { BUDGET };
        let (mut now, mut read, mut total) = (now()?, 0, 0);
        for _ in 0..BATCH {
            // What is made of one more packet than the socket takes has room; of two it has not.
            if budget == 0 || self.ports.is_blocked() {
                break;
            }
            if read >= CLOCK {
                (now, read) = (self::now()?, 0);
            }
            let Some(tun) = &mut self.ports.interface.tun else { return Ok(()) };
            let framed = tun.is_framed();
            match tun.read(queue, &mut self.buffer) {
                Ok(length) => {
                    let bytes = &mut self.buffer[..length];
                    match if framed { Parcel::read(bytes) } else { Ok(Parcel::whole(bytes)) } {
                        Ok(mut parcel) => {
                            if parcel.count() > 1 {
                                self.ports.interface.heavy.note(parcel.bytes());
                            }
                            self.switch.take_parcel(&mut parcel, now, &mut self.ports);
                        }
                        Err(error) => tracing::trace!(%error, length, "the interface contradicts itself"),
                    }
                    read += length;
                    total += length;
                    budget = budget.saturating_sub(length);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // EBADFD: deleted by somebody. Others do not mend either, and would make the loop spin.
                Err(error) => {
                    self.lose_tun(&error);
                    break;
                }
            }
        }
        if flags.contains(EpollFlags::EPOLLERR) && !flags.contains(EpollFlags::EPOLLIN) {
            self.lose_tun(&std::io::Error::from_raw_os_error(libc::ENODEV));
        }
        self.ports.flush();
        self.make_way(queue, total, now.mono);
        Ok(())
    }

    /// A thread that is never out of work keeps its processor for milliseconds, in which a queue of megabytes builds
    /// up before whoever comes next.
    fn make_way(&mut self, queue: Queue, bytes: usize, now: Boot) {
        match queue {
            Queue::Light if bytes > 0 => self.light = now,
            Queue::Heavy => self.unoffered += bytes,
            Queue::Light => {}
        }
        if self.unoffered >= OFFER {
            self.unoffered = 0;
            if self.light.until(now) < OTHERS {
                std::thread::yield_now();
            }
        }
    }

    fn lose_tun(&mut self, error: &std::io::Error) {
        if let Some(tun) = self.ports.interface.tun.take() {
            tracing::warn!(%error, "the lane interface is gone");
            // Closing the descriptor would take it from the epoll as well.
            for (queue, _) in QUEUES {
                let _ = tun.queue(queue).map(|queue| self.epoll.delete(queue));
            }
            self.ports.event(Event::InterfaceGone);
        }
    }

    fn read_udp(&mut self) -> Result<(), DeviceError> {
        let most = if self.long_pieces { LONG_PIECES } else { Inbox::SLOTS };
        let bytes = match self.datagrams.receive(self.ports.udp.as_fd(), most) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // An ICMP error about an earlier datagram (ECONNREFUSED and its kin): reading took it away.
            Err(error) => {
                tracing::trace!(%error, "datagram not received");
                return Ok(());
            }
        };
        self.long_pieces = bytes > BUDGET / 2;
        for (piece, bytes) in self.datagrams.received() {
            self.switch.take_datagrams(bytes, piece.size, plain(piece.from), now()?, &mut self.ports);
        }
        self.ports.flush();
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
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let at = due.map_or(never, |Boot(millis)| {
            // Zero would switch the timer off.
            let millis = i64::try_from(millis.max(1)).unwrap_or(i64::MAX);
            // 32 bits hold them, and are what some systems have.
            let nanos = i32::try_from(millis % 1000 * 1_000_000).unwrap_or(0);
            Timespec { tv_sec: millis / 1000, tv_nsec: nanos.into() }
        });
        // The kernel itself is asked, like for the time: what is preloaded to move the wall clock moves libc's timers.
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval: never, it_value: at })
            .map_err(|error| io("set the timer")(error.into()))?;
        self.alarm = due;
        Ok(())
    }
}

fn now() -> Result<Now, DeviceError> {
    clock::now().map_err(io("read the clock"))
}
