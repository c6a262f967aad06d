//! The system calls that have no safe wrapper, or none that allocates nothing: making a TUN interface, sending
//! several datagrams as one, receiving several at once.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::offload::TunOffload;

/// Makes the TUN interface `name` (`IFF_TUN_EXCL`: it must not exist) that lives as long as the file is open.
/// Every read and write is one IP packet; `framed`, with a `virtio_net_hdr` before it. Reads do not block.
pub(crate) fn open_tun(name: &str, framed: bool) -> io::Result<File> {
    let header = if framed { libc::IFF_VNET_HDR } else { 0 };
    open_queue(name, libc::IFF_TUN_EXCL | header)
}

/// Makes a framed TUN interface of two queues, which have the same rights; it lives as long as one of them is open.
pub(crate) fn open_tun_queues(name: &str) -> io::Result<[File; 2]> {
    let several = libc::IFF_MULTI_QUEUE | libc::IFF_VNET_HDR;
    let first = open_queue(name, libc::IFF_TUN_EXCL | several)?;
    Ok([first, open_queue(name, several)?])
}

fn open_queue(name: &str, flags: libc::c_int) -> io::Result<File> {
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | flags;
    let mut ifr_name: [libc::c_char; libc::IFNAMSIZ] = [0; libc::IFNAMSIZ];
    if name.len() >= ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_flags: flags as libc::c_short };
    let mut request = libc::ifreq { ifr_name, ifr_ifru };
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq` (linux/if_tun.h), which `request` is, for the time
    // of the call; the descriptor is open.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(tun) }
}

mod code {
    // TUNSETOFFLOAD (linux/if_tun.h), whose number differs between architectures.
    nix::ioctl_write_int!(tun_set_offload, b'T', 208);
}

/// Has a framed interface hand over as much at once as `level` says; an error where the kernel has less.
pub(crate) fn set_offload(tun: &File, level: TunOffload) -> io::Result<()> {
    const CHECKSUM: u64 = 0x01;
    const TSO4: u64 = 0x02;
    // The kernel takes both or none.
    const USO4_AND_USO6: u64 = 0x20 | 0x40;
    let bits = match level {
        TunOffload::None => 0,
        TunOffload::Tso => CHECKSUM | TSO4,
        TunOffload::TsoUso => CHECKSUM | TSO4 | USO4_AND_USO6,
    };
    // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory of ours; the descriptor is open.
    unsafe { code::tun_set_offload(tun.as_raw_fd(), bits as nix::sys::ioctl::ioctl_param_type) }?;
    Ok(())
}

/// Room for a control message with one number, aligned as the kernel's header of it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

/// An address as the kernel takes it, and its length.
fn raw_address(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: `sockaddr_storage` is plain numbers, for which all zeros are a value.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let length = match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: `sockaddr_storage` is at least as long and as aligned as any address (POSIX).
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

/// The address that the kernel wrote; `None`: it is of another family.
fn plain_address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that this is a `sockaddr_in`, which fits into the storage and is plain numbers.
            let raw = unsafe { (&raw const *storage).cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(raw.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, of `sockaddr_in6`.
            let raw = unsafe { (&raw const *storage).cast::<libc::sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            let port = u16::from_be(raw.sin6_port);
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, raw.sin6_flowinfo, raw.sin6_scope_id)))
        }
        _ => None,
    }
}

/// Sends `bytes` without waiting: as one datagram or, with `size`, as datagrams of that size, the last of which may be
/// shorter (`UDP_SEGMENT`). The kernel takes all or nothing.
pub(crate) fn send(socket: BorrowedFd<'_>, to: SocketAddr, bytes: &[u8], size: Option<u16>) -> io::Result<()> {
    let (mut name, length) = raw_address(to);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control([0; 64]);
    // SAFETY: `msghdr` is numbers and pointers, for which all zeros are a value (null, nothing).
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = length;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some(size) = size {
        message.msg_control = (&raw mut control).cast();
        // SAFETY: CMSG_SPACE, CMSG_LEN, CMSG_FIRSTHDR and CMSG_DATA only compute (cmsg(3)); the control buffer is
        // 64 bytes, aligned for a `cmsghdr`, and one message with two bytes takes at most 24 of them.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(size_of::<u16>() as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_UDP;
            (*header).cmsg_type = libc::UDP_SEGMENT;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as _;
            libc::CMSG_DATA(header).cast::<u16>().write_unaligned(size);
        }
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: sendmsg(2) only reads, for the time of the call: the header, the address, the control message, and the
    // bytes, which all outlive it; the descriptor is open.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Where datagrams are received into.
pub(crate) struct Inbox {
    /// `SLOTS` pieces of `SLOT` bytes; only those are ever touched, and so resident, that something came into.
    buffer: Box<[u8]>,
    received: Vec<Received>,
}

/// One datagram, or several of one length from one sender that the kernel put together (`UDP_GRO`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    pub(crate) from: SocketAddr,
    slot: usize,
    length: usize,
    /// The length of all datagrams but the last, which may be shorter.
    pub(crate) size: usize,
}

/// The longest datagram, and the longest that the kernel puts together.
const SLOT: usize = 65_536;

impl Inbox {
    /// What one call may fetch.
    pub(crate) const SLOTS: usize = 32;

    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; SLOT * Self::SLOTS].into_boxed_slice(), received: Vec::with_capacity(Self::SLOTS) }
    }

    /// What the last call fetched.
    pub(crate) fn received(&self) -> impl Iterator<Item = (Received, &[u8])> {
        self.received.iter().map(|one| (*one, &self.buffer[one.slot * SLOT..one.slot * SLOT + one.length]))
    }

    /// Fetches what has come, without waiting: at most `most` pieces, and `SLOTS`. Returns how many bytes.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        self.received.clear();
        let most = most.min(Self::SLOTS);
        // SAFETY: these are numbers and pointers, for which all zeros are a value (null, nothing).
        let (mut names, mut parts, mut messages) = unsafe {
            (
                mem::zeroed::<[libc::sockaddr_storage; Self::SLOTS]>(),
                mem::zeroed::<[libc::iovec; Self::SLOTS]>(),
                mem::zeroed::<[libc::mmsghdr; Self::SLOTS]>(),
            )
        };
        let mut controls = [Control([0; 64]); Self::SLOTS];
        for (at, slot) in self.buffer.chunks_exact_mut(SLOT).enumerate().take(most) {
            parts[at] = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            let message = &mut messages[at].msg_hdr;
            message.msg_name = (&raw mut names[at]).cast();
            message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            message.msg_iov = &raw mut parts[at];
            message.msg_iovlen = 1;
            message.msg_control = (&raw mut controls[at]).cast();
            message.msg_controllen = size_of::<Control>() as _;
        }
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: recvmmsg(2) writes, for the time of the call, into the first `most` headers and what they point to:
        // names, control messages and slots of the given lengths, which all outlive it and do not overlap; the
        // descriptor is open.
        let count = unsafe {
            let headers = messages.as_mut_ptr();
            libc::recvmmsg(socket.as_raw_fd(), headers, most as u32, flags as _, std::ptr::null_mut())
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        let mut bytes = 0;
        for (slot, message) in messages[..count.min(most)].iter().enumerate() {
            let length = (message.msg_len as usize).min(SLOT);
            let Some(from) = plain_address(&names[slot]) else { continue };
            // SAFETY: the kernel has filled this header in, and what it points to is still there.
            let size = unsafe { merged_size(&message.msg_hdr) }.unwrap_or(length);
            bytes += length;
            self.received.push(Received { from, slot, length, size });
        }
        Ok(bytes)
    }
}

/// The length of the datagrams that the kernel put together (`UDP_GRO`); `None`: it did not.
///
/// # Safety
/// The header was filled in by recvmsg(2) or recvmmsg(2), and its control buffer is as it left it.
unsafe fn merged_size(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR yield null or a message that lies in the control buffer as a whole
    // (cmsg(3)); the data of UDP_GRO is an `int` (udp(7)).
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            if (*control).cmsg_level == libc::SOL_UDP && (*control).cmsg_type == libc::UDP_GRO {
                let size = libc::CMSG_DATA(control).cast::<libc::c_int>().read_unaligned();
                return usize::try_from(size).ok().filter(|size| *size > 0);
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use nix::sys::socket::{setsockopt, sockopt};

    use super::*;

    fn pair(address: &str) -> (UdpSocket, UdpSocket) {
        let bind = || UdpSocket::bind(address).expect("a socket");
        (bind(), bind())
    }

    #[test]
    fn datagrams_sent_as_one_arrive_each_on_its_own() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (from, to) = pair(address);
            let bytes: Vec<u8> = (0..250).collect();
            let there = to.local_addr().expect("an address");
            send(from.as_fd(), there, &bytes, Some(100)).expect("the loopback takes it");
            send(from.as_fd(), there, b"one", None).expect("sent");
            let mut inbox = Inbox::new();
            assert_eq!(inbox.receive(to.as_fd(), Inbox::SLOTS).expect("received"), 253);
            let got: Vec<(SocketAddr, Vec<u8>, usize)> =
                inbox.received().map(|(one, bytes)| (one.from, bytes.to_vec(), one.size)).collect();
            let me = from.local_addr().expect("an address");
            let wanted = [&bytes[..100], &bytes[100..200], &bytes[200..], b"one"];
            assert_eq!(got, wanted.map(|bytes| (me, bytes.to_vec(), bytes.len())));
            let empty = inbox.receive(to.as_fd(), Inbox::SLOTS).expect_err("nothing is left");
            assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
            assert_eq!(inbox.received().count(), 0);
        }
    }

    #[test]
    fn datagrams_that_the_kernel_put_together_come_with_their_length() {
        let (from, to) = pair("127.0.0.1:0");
        setsockopt(&to, sockopt::UdpGroSegment, &true).expect("Linux 5.0");
        let bytes = vec![7; 10_000];
        let there = to.local_addr().expect("an address");
        send(from.as_fd(), there, &bytes, Some(1400)).expect("the loopback takes it");
        let mut inbox = Inbox::new();
        let mut got = 0;
        while got < bytes.len() {
            got += inbox.receive(to.as_fd(), 1).expect("received");
            assert!(inbox.received().all(|(one, bytes)| one.size == 1400 || one.size == bytes.len()));
        }
        assert_eq!(got, bytes.len());
    }
}
