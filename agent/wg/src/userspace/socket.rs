//! The UDP socket of a device.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind as bind_to, setsockopt, socket, sockopt,
};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};

/// What the kernel may hold for us while the thread is busy: of what comes, a few milliseconds at full speed, because
/// a datagram that finds no room is lost; of what leaves, less, because there we wait, and what waits here delays
/// what comes after it.
const RECEIVE: usize = 4 << 20;
const SEND: usize = 256 << 10;

/// Binds a socket that does not block. The unspecified address is bound for IPv4 and IPv6 at once, where the
/// machine has IPv6.
pub(super) fn bind(listen: SocketAddr, mark: Option<u32>) -> io::Result<UdpSocket> {
    let both = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), listen.port());
    if listen.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        && let Ok(socket) = bind_one(both, mark)
    {
        return Ok(socket);
    }
    bind_one(listen, mark)
}

fn bind_one(listen: SocketAddr, mark: Option<u32>) -> io::Result<UdpSocket> {
    let family = if listen.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Datagram, flags, None)?;
    if listen.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &(listen.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED)))?;
    }
    if let Some(mark) = mark {
        setsockopt(&fd, sockopt::Mark, &mark)?;
    }
    // Over IPv4, like the kernel's own WireGuard: no "don't fragment". A narrow link on the way then cuts what is too
    // long; with it such a datagram would be lost, for ever where the router's ICMP is filtered. What this machine
    // knows of the path still counts, and what leaves as one is still cut to size before (ip(7): IP_PMTUDISC_DONT).
    set_ip_mtu_discover(&fd, Ipv4PathMtuDiscovery::DONT)?;
    // Smaller buffers than asked for are slower, not wrong. Beyond the administrator's limit needs CAP_NET_ADMIN,
    // which whoever makes an interface has.
    if setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE).is_err() {
        let _ = setsockopt(&fd, sockopt::RcvBuf, &RECEIVE);
    }
    let _ = setsockopt(&fd, sockopt::SndBuf, &SEND);
    bind_to(fd.as_raw_fd(), &SockaddrStorage::from(listen))?;
    Ok(UdpSocket::from(fd))
}

/// Has the kernel put datagrams of one sender together, and says whether it does.
pub(super) fn receive_together(socket: &UdpSocket) -> bool {
    setsockopt(socket, sockopt::UdpGroSegment, &true).is_ok()
}

/// An address as people write it: an IPv4 address that came through an IPv6 socket is one again.
pub(super) fn plain(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::V4(SocketAddrV4::new(v4, v6.port())),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

/// An address as a socket of both families takes it.
pub(super) fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddr::V6(SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0)),
        SocketAddr::V6(_) => address,
    }
}
