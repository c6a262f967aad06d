//! Packets that nobody may cut, and the word of those that are too large for it.

use std::io;
use std::net::{SocketAddr, UdpSocket};

/// Forbids to cut what the socket sends, or allows it.
#[cfg(target_os = "linux")]
pub(crate) fn keep_whole(socket: &UdpSocket, to: SocketAddr, whole: bool) -> io::Result<()> {
    use rustix::net::sockopt::{
        Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
    };
    // `PROBE`: don't fragment, and don't believe what was learnt of the path before (ip(7)).
    if to.is_ipv4() {
        let how = if whole { Ipv4PathMtuDiscovery::PROBE } else { Ipv4PathMtuDiscovery::DONT };
        set_ip_mtu_discover(socket, how)?;
    } else {
        let how = if whole { Ipv6PathMtuDiscovery::PROBE } else { Ipv6PathMtuDiscovery::DONT };
        set_ipv6_mtu_discover(socket, how)?;
    }
    Ok(())
}

/// Other systems cut as they like, and what is measured there is what arrives at all, in one piece or in more.
#[cfg(not(target_os = "linux"))]
pub(crate) fn keep_whole(_socket: &UdpSocket, _to: SocketAddr, _whole: bool) -> io::Result<()> {
    Ok(())
}

/// Whether a packet was larger than the interface, or the known path, takes.
pub(crate) fn is_too_large(error: &io::Error) -> bool {
    #[cfg(unix)]
    const TOO_LARGE: i32 = nix::libc::EMSGSIZE;
    /// `WSAEMSGSIZE`
    #[cfg(windows)]
    const TOO_LARGE: i32 = 10_040;
    error.raw_os_error() == Some(TOO_LARGE)
}
