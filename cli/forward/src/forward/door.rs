//! The port on 127.0.0.1 where local tools come in.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use thinlane_model::Protocol;

/// A local port that is held and not yet open.
///
/// It is taken before anything is asked of anybody, so that a lane never fails for a port that somebody else uses.
#[derive(Debug)]
pub struct Door {
    address: SocketAddr,
    held: Held,
}

#[derive(Debug)]
enum Held {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

/// A door that lets in.
pub(super) enum Open {
    Tcp(tokio::net::TcpListener),
    Udp(tokio::net::UdpSocket),
}

/// Why a local port cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error("port {0} of 127.0.0.1 is in use by another program")]
    Taken(u16),
    #[error("port {0} of 127.0.0.1 is for administrators: ports below 1024 need a right that you do not have here")]
    Privileged(u16),
    #[error("port {0} of 127.0.0.1 is kept for something else by the system, or by another program")]
    Kept(u16),
    #[error("no port of 127.0.0.1 can be used: {0}")]
    Other(#[source] io::Error),
}

impl DoorError {
    fn of(port: u16, error: io::Error) -> DoorError {
        match error.kind() {
            ErrorKind::AddrInUse => DoorError::Taken(port),
            ErrorKind::PermissionDenied if port < 1024 => DoorError::Privileged(port),
            // Windows keeps whole ranges of ports for virtual machines, and others' ports for them alone.
            ErrorKind::PermissionDenied => DoorError::Kept(port),
            _ => DoorError::Other(error),
        }
    }
}

impl Door {
    /// Takes exactly this port.
    pub fn at(protocol: Protocol, port: u16) -> Result<Door, DoorError> {
        hold(protocol, port).map_err(|error| DoorError::of(port, error))
    }

    /// Takes the asset's own port where that is free and needs no right, else any.
    pub fn like(protocol: Protocol, asset_port: u16) -> Result<Door, DoorError> {
        if asset_port >= 1024
            && let Ok(door) = hold(protocol, asset_port)
        {
            return Ok(door);
        }
        hold(protocol, 0).map_err(DoorError::Other)
    }

    pub fn protocol(&self) -> Protocol {
        match self.held {
            Held::Tcp(_) => Protocol::Tcp,
            Held::Udp(_) => Protocol::Udp,
        }
    }

    /// Where local tools will connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn open(self) -> io::Result<Open> {
        Ok(match self.held {
            Held::Tcp(listener) => Open::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Held::Udp(socket) => Open::Udp(tokio::net::UdpSocket::from_std(socket)?),
        })
    }
}

fn hold(protocol: Protocol, port: u16) -> io::Result<Door> {
    let (held, address) = match protocol {
        Protocol::Tcp => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            (Held::Tcp(listener), address)
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?;
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            (Held::Udp(socket), address)
        }
    };
    Ok(Door { address, held })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_said_and_another_is_found_when_any_will_do() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let first = Door::like(protocol, 502).expect("a port");
            let port = first.address().port();
            assert!(port >= 1024 && first.address().ip().is_loopback());
            assert!(matches!(Door::at(protocol, port), Err(DoorError::Taken(taken)) if taken == port));
            let second = Door::like(protocol, port).expect("another port");
            assert_ne!(second.address().port(), port);
            drop(first);
            assert_eq!(Door::like(protocol, port).expect("the same").address().port(), port);
        }
    }

    #[test]
    fn rights_are_named_only_for_ports_that_need_one() {
        let refused = |port| DoorError::of(port, ErrorKind::PermissionDenied.into()).to_string();
        assert!(refused(502).contains("below 1024"));
        assert!(refused(50_020).contains("kept") && !refused(50_020).contains("1024"));
    }
}
