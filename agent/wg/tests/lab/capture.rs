//! Every IP packet that reaches a namespace's interface.

use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use thinlane_model::{Boot, Wall};
use thinlane_wg::packet::{Ip, parse};

use super::within;

/// One packet as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub at: Boot,
    pub bytes: Vec<u8>,
}

/// When the kernel took a packet in: this thread may look at it much later.
fn arrival(message: ControlMessageOwned) -> Option<Boot> {
    let ControlMessageOwned::ScmTimestampns(at) = message else { return None };
    let wall = Wall::from_millis(at.tv_sec() * 1000 + at.tv_nsec() / 1_000_000);
    let now = thinlane_wg::now().expect("a clock");
    Some(now.mono - wall.until(now.wall))
}

/// Captures until dropped.
pub struct Capture {
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Begins to listen on all interfaces of `ns`; packets that it sends itself are left out.
    pub fn start(ns: &str) -> Self {
        let fd = within(ns, || {
            let flags = SockFlag::SOCK_CLOEXEC;
            let fd =
                socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).expect("a packet socket");
            setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::milliseconds(20)).expect("a timeout");
            setsockopt(&fd, sockopt::ReceiveTimestampns, &true).expect("timestamps");
            fd
        });
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (noted, stopped) = (seen.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let mut frame = vec![0; 70_000];
            let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
            while !stopped.load(Ordering::Relaxed) {
                let mut parts = [IoSliceMut::new(&mut frame)];
                let Ok(message) =
                    recvmsg::<LinkAddr>(fd.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())
                else {
                    continue;
                };
                let at = message.cmsgs().expect("room for a timestamp").find_map(arrival).expect("a timestamp");
                let outgoing = message.address.is_some_and(|from| from.pkttype() == libc::PACKET_OUTGOING);
                let length = message.bytes;
                let ip = matches!(frame.get(12..14), Some([0x08, 0x00] | [0x86, 0xdd]));
                if ip && !outgoing {
                    let bytes = frame[14..length].to_vec();
                    noted.lock().expect("no panic holds it").push(Seen { at, bytes });
                }
            }
        });
        Self { seen, stop, thread: Some(thread) }
    }

    pub fn seen(&self) -> Vec<Seen> {
        // What was sent just before may still be on its way to this thread.
        thread::sleep(std::time::Duration::from_millis(100));
        self.seen.lock().expect("no panic holds it").clone()
    }

    /// The IPv4 packets as (protocol, destination port or 0, length).
    pub fn packets(&self) -> Vec<(u8, u16, usize)> {
        let of = |seen: &Seen| match parse(&seen.bytes) {
            Ok(Ip::V4(ip)) => Some((ip.protocol, ip.destination_port().unwrap_or(0), ip.length())),
            Ok(Ip::V6 { next, .. }) => Some((next, 0, seen.bytes.len())),
            Err(_) => Some((0, 0, seen.bytes.len())),
        };
        // IPv6 neighbour discovery of the wire itself is the device's own and not a lane's.
        self.seen()
            .iter()
            .filter(|seen| seen.bytes.first().is_some_and(|first| first >> 4 == 4))
            .filter_map(of)
            .collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
