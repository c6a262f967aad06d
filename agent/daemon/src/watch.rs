//! What the kernel tells unasked: changed tables, and packets that lanes refused.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use thinlane_model::SessionId;
use thinlane_nft::{Denied, DeniedLog, Event, Watch};
use thinlane_wire::{DeniedFlow, DeniedReport, Direction};
use tokio::sync::{Notify, mpsc};

/// Kinds of denied packets that are told apart in one report; the rest is a number.
const MOST_KINDS: usize = 256;
/// These threads sleep in the kernel; this is only how often they look up when nothing happens.
const LONG: Duration = Duration::from_secs(3600);
/// How long to stay away from a socket that fails.
const AFTER_ERROR: Duration = Duration::from_secs(1);
/// `RTMGRP_IPV4_IFADDR` (linux/rtnetlink.h).
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
/// A link that flaps is not followed faster than this.
const SETTLE: Duration = Duration::from_secs(2);
/// Changes that may wait for the loop.
const MOST_EVENTS: usize = 64;
const STACK: usize = 512 * 1024;

/// Starts to watch the tables; the thread ends with the process.
pub fn tables(mut watch: Watch) -> anyhow::Result<mpsc::Receiver<Event>> {
    let (to_loop, events) = mpsc::channel(MOST_EVENTS);
    let run = move || {
        loop {
            let event = match watch.next(LONG) {
                Ok(Some(event)) => event,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(%error, "the kernel's notifications cannot be read");
                    std::thread::sleep(AFTER_ERROR);
                    Event::Overrun
                }
            };
            if to_loop.blocking_send(event).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("watch".into()).stack_size(STACK).spawn(run).context("cannot start a thread")?;
    Ok(events)
}

/// Starts to watch this machine's IPv4 addresses: a modem that comes back, or that was given another address, is
/// worth a try at once. The thread ends with the process.
pub fn addresses() -> anyhow::Result<mpsc::Receiver<()>> {
    let kind = SockType::Raw;
    let netlink = socket(AddressFamily::Netlink, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
        .context("cannot watch the addresses")?;
    bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, RTMGRP_IPV4_IFADDR)).context("cannot watch the addresses")?;
    // One is as good as many.
    let (to_loop, changes) = mpsc::channel(1);
    let run = move || {
        let mut notice = [0; 4096];
        loop {
            // What was lost in an overrun was a change as well.
            if let Err(errno) = recv(netlink.as_raw_fd(), &mut notice, MsgFlags::empty())
                && errno != Errno::ENOBUFS
            {
                std::thread::sleep(AFTER_ERROR);
                continue;
            }
            if let Err(mpsc::error::TrySendError::Closed(())) = to_loop.try_send(()) {
                return;
            }
            std::thread::sleep(SETTLE);
        }
    };
    std::thread::Builder::new()
        .name("addresses".into())
        .stack_size(STACK)
        .spawn(run)
        .context("cannot start a thread")?;
    Ok(changes)
}

/// Denied packets, counted by kind until somebody asks.
#[derive(Debug, Clone, Default)]
pub struct DeniedBook {
    pages: Arc<Mutex<Pages>>,
    /// Told when the first packet is written into an empty book.
    pub written: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Pages {
    kinds: BTreeMap<Kind, u64>,
    unlisted: u64,
}

/// What makes two denied packets alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// `None`: of no live session.
    pub session: Option<SessionId>,
    pub up: bool,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// IANA number.
    pub protocol: u8,
    /// Destination port.
    pub port: Option<u16>,
}

impl DeniedBook {
    /// Counts `packets` of one kind.
    pub fn add(&self, kind: Kind, packets: u64) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let first = pages.kinds.is_empty() && pages.unlisted == 0;
        if pages.kinds.contains_key(&kind) || pages.kinds.len() < MOST_KINDS {
            let count = pages.kinds.entry(kind).or_default();
            *count = count.saturating_add(packets);
        } else {
            pages.unlisted = pages.unlisted.saturating_add(packets);
        }
        if first {
            self.written.notify_one();
        }
    }

    /// Counts packets of which nothing but their number is known.
    pub fn add_unlisted(&self, packets: u64) {
        if packets > 0 {
            let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
            pages.unlisted = pages.unlisted.saturating_add(packets);
            self.written.notify_one();
        }
    }

    /// Everything since the last time; `None` where there was nothing.
    pub fn take(&self) -> Option<DeniedReport> {
        let pages = std::mem::take(&mut *self.pages.lock().unwrap_or_else(PoisonError::into_inner));
        let flow = |(kind, packets): (Kind, u64)| DeniedFlow {
            session: kind.session,
            direction: if kind.up { Direction::Up } else { Direction::Down },
            source: kind.source,
            destination: kind.destination,
            protocol: kind.protocol,
            port: kind.port,
            packets,
        };
        let report = DeniedReport { flows: pages.kinds.into_iter().map(flow).collect(), not_reported: pages.unlisted };
        (!report.flows.is_empty() || report.not_reported > 0).then_some(report)
    }
}

/// Starts to write the packets that the table logs into `book`; the thread ends with the process.
pub fn denied(mut log: DeniedLog, book: DeniedBook) -> anyhow::Result<()> {
    let run = move || {
        let mut lost = 0;
        loop {
            match log.next(LONG) {
                Ok(Some(packet)) => book.add(kind(&packet), 1),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "the kernel's packet log cannot be read");
                    std::thread::sleep(AFTER_ERROR);
                }
            }
            book.add_unlisted(log.lost().saturating_sub(lost));
            lost = log.lost();
        }
    };
    std::thread::Builder::new().name("denied".into()).stack_size(STACK).spawn(run).context("cannot start a thread")?;
    Ok(())
}

fn kind(packet: &Denied) -> Kind {
    Kind {
        session: packet.session,
        up: packet.direction == thinlane_nft::Direction::Up,
        source: packet.source,
        destination: packet.destination,
        protocol: packet.protocol,
        port: packet.destination_port,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(port: u16) -> Kind {
        let address = |last| IpAddr::from([198, 19, 0, last]);
        Kind { session: None, up: true, source: address(1), destination: address(2), protocol: 6, port: Some(port) }
    }

    #[test]
    fn packets_that_look_alike_are_one_line_and_a_scan_stays_bounded() {
        let book = DeniedBook::default();
        book.add(kind(1), 1);
        book.add(kind(1), 2);
        for port in 2..=1000 {
            book.add(kind(port), 1);
        }
        let report = book.take().expect("something");
        assert_eq!(report.flows.len(), MOST_KINDS);
        assert_eq!(report.flows[0].packets, 3);
        assert_eq!(report.not_reported, 1000 - MOST_KINDS as u64);
        assert!(book.take().is_none(), "told once");
    }

    #[test]
    fn a_new_address_is_noticed() {
        let thread = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root has namespaces of its own");
            let mut changes = addresses().expect("watches");
            std::thread::sleep(Duration::from_millis(50));
            assert!(changes.try_recv().is_err(), "nothing happened yet");
            let added = std::process::Command::new("ip").args(["addr", "add", "192.0.2.1/32", "dev", "lo"]).status();
            assert!(added.expect("iproute2 is installed").success());
            let end = std::time::Instant::now() + Duration::from_secs(5);
            while changes.try_recv().is_err() {
                assert!(std::time::Instant::now() < end, "not noticed");
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        thread.join().expect("no panic");
    }

    #[tokio::test]
    async fn the_first_packet_rings_the_bell_and_the_second_does_not() {
        let book = DeniedBook::default();
        book.add(kind(1), 1);
        book.written.notified().await;
        book.add(kind(2), 1);
        assert!(tokio::time::timeout(Duration::from_millis(20), book.written.notified()).await.is_err());
        assert!(book.take().is_some());
        book.add(kind(3), 1);
        book.written.notified().await;
    }
}
