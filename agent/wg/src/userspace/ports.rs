//! Where the switch's output goes: datagrams to the socket, packets to the interface, both in as few calls as may be.

use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use crate::device::Event;
use crate::lane::Output;
use crate::offload::coalesce::{Coalescer, Sink};
use crate::offload::header::HEADER;
use crate::offload::heavy::Heavy;
use crate::offload::outbox::Outbox;
use crate::offload::{Offload, TunOffload};
use crate::sys;

use super::socket::mapped;
use super::tun::{Queue, Tun};

pub(super) struct Ports {
    pub(super) interface: Interface,
    pub(super) udp: UdpSocket,
    dual: bool,
    receives_together: bool,
    outbox: Outbox,
    /// The socket is full: what is in the outbox waits until it is not.
    blocked: bool,
    /// Put together only where the interface takes it so.
    coalescer: Option<Coalescer>,
    events: Option<Box<dyn FnMut(Event) + Send>>,
    /// Datagrams that the kernel did not take.
    unsent: u64,
}

/// The interface, until somebody takes it away.
pub(super) struct Interface {
    pub(super) tun: Option<Tun>,
    /// The flows that have a queue of their own.
    pub(super) heavy: Heavy,
    /// Packets that the kernel did not take.
    undelivered: u64,
}

impl Sink for Interface {
    fn write(&mut self, header: &[u8; HEADER], packet: &[u8]) {
        let Some(tun) = &mut self.tun else { return };
        // A TUN interface has no queue in this direction: the kernel takes the packet at once, or has no memory.
        let queue = if self.heavy.is_answer(packet) { Queue::Heavy } else { Queue::Light };
        if let Err(error) = tun.write(queue, header, packet) {
            self.undelivered += 1;
            tracing::trace!(%error, length = packet.len(), "packet not delivered");
        }
    }
}

impl Output for Ports {
    fn space(&mut self) -> &mut [u8] {
        self.outbox.space()
    }

    fn send(&mut self, to: SocketAddr, length: usize) {
        let to = if self.dual { mapped(to) } else { to };
        self.outbox.push(to, length);
        if self.outbox.is_ready() && !self.blocked {
            self.send_waiting();
        }
    }

    fn interface(&mut self, packet: &[u8]) {
        match &mut self.coalescer {
            Some(coalescer) => coalescer.push(packet, &mut self.interface),
            None => self.interface.write(&[0; HEADER], packet),
        }
    }

    fn interface_alone(&mut self, packet: &[u8]) {
        if let Some(coalescer) = &mut self.coalescer {
            coalescer.pass(packet, &mut self.interface);
        } else {
            self.interface.write(&[0; HEADER], packet);
        }
    }

    fn event(&mut self, event: Event) {
        if let Some(events) = &mut self.events {
            events(event);
        }
    }
}

impl Ports {
    pub(super) fn new(
        tun: Tun,
        udp: UdpSocket,
        offload: Offload,
        events: Option<Box<dyn FnMut(Event) + Send>>,
    ) -> std::io::Result<Self> {
        let coalescer = (tun.level() > TunOffload::None).then(|| Coalescer::new(tun.level() == TunOffload::TsoUso));
        Ok(Self {
            dual: udp.local_addr()?.is_ipv6(),
            interface: Interface { tun: Some(tun), heavy: Heavy::default(), undelivered: 0 },
            udp,
            receives_together: offload.udp_receive,
            outbox: Outbox::new(offload.udp_send),
            blocked: false,
            coalescer,
            events,
            unsent: 0,
        })
    }

    /// What the kernel does for us now.
    pub(super) fn offload(&self) -> Offload {
        Offload {
            tun: self.interface.tun.as_ref().map_or(TunOffload::None, Tun::level),
            udp_send: self.outbox.is_together(),
            udp_receive: self.receives_together,
        }
    }

    /// Whether datagrams wait for the socket.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Lets go of all that was collected, as far as the socket takes it.
    pub(super) fn flush(&mut self) {
        if let Some(coalescer) = &mut self.coalescer {
            coalescer.flush(&mut self.interface);
        }
        if !self.blocked {
            self.send_waiting();
        }
    }

    /// The socket takes datagrams again.
    pub(super) fn unblock(&mut self) {
        self.blocked = false;
        self.send_waiting();
    }

    /// Datagrams and packets that were lost here.
    pub(super) fn lost(&self) -> u64 {
        self.unsent + self.interface.undelivered + self.outbox.dropped()
    }

    fn send_waiting(&mut self) {
        while let Some(next) = self.outbox.front() {
            let length = next.bytes.len();
            let together = next.size.is_some();
            match sys::send(self.udp.as_fd(), next.to, next.bytes, next.size) {
                Ok(()) => self.outbox.pop(length),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return;
                }
                Err(error) if together && refuses_together(&error) => {
                    let all = error.raw_os_error() == Some(libc::EIO);
                    tracing::debug!(%error, length, all, "the kernel does not send these datagrams as one");
                    self.outbox.split(all);
                }
                // No memory, no route, a refusal remembered from an earlier datagram: WireGuard takes loss.
                Err(error) => {
                    self.unsent += 1;
                    self.outbox.pop(length);
                    tracing::trace!(%error, "datagram not sent");
                }
            }
        }
    }
}

/// The device cannot cut (EIO), or the datagrams are longer than the path and have to go in fragments (EINVAL, and
/// EMSGSIZE in newer kernels).
fn refuses_together(error: &Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE))
}
