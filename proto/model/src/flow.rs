//! What a lane carries: one protocol, one port, between one engineer's /32 and one asset.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::text::serde_as_text;

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

/// Why a text is not a protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a protocol is tcp or udp, not {0:?}")]
pub struct ProtocolError(String);

impl Protocol {
    /// The number in the IP header (IANA).
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.pad(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = ProtocolError;
    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        match text {
            "tcp" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            other => Err(ProtocolError(other.chars().take(20).collect())),
        }
    }
}

/// The one flow that a lane passes, as the engineer's side sees it.
///
/// `destination` is what the engineer's packets carry: the asset's overlay /32, or with `--native` its LAN
/// address; `address` is the asset's LAN address, into which the gateway maps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    pub engineer: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub address: Ipv4Addr,
    pub protocol: Protocol,
    pub port: u16,
}

/// What a lane says of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum PacketVerdict {
    /// It is the lane's own flow.
    Pass,
    /// From this lane's engineer, or to it, but not the lane's flow.
    Denied,
    /// It carries a source that is not this lane's.
    Spoofed,
    /// The lane's deadline has passed.
    Late,
}

/// How the two ends of a lane reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    Relay,
    Direct,
}

impl Path {
    pub fn as_str(self) -> &'static str {
        match self {
            Path::Relay => "relay",
            Path::Direct => "direct",
        }
    }
}

/// A `HOST:PORT` to dial: a name, an IPv4 address, or an IPv6 address in brackets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    host: String,
    port: u16,
}

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an endpoint is written HOST:PORT (an IPv6 address in brackets), not {0:?}")]
pub struct EndpointError(String);

impl Endpoint {
    /// The host without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address, where the host is one and no name.
    pub fn as_socket_addr(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|host| SocketAddr::new(host, self.port))
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self { host: addr.ip().to_string(), port: addr.port() }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            to.pad(&format!("[{}]:{}", self.host, self.port))
        } else {
            to.pad(&format!("{}:{}", self.host, self.port))
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, to)
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let error = || EndpointError(text.chars().take(80).collect());
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(error)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let inner = rest.strip_suffix(']').ok_or_else(error)?;
                inner.parse::<std::net::Ipv6Addr>().map_err(|_| error())?;
                inner
            }
            None => host,
        };
        let named = !host.contains(':')
            && !host.is_empty()
            && host.len() <= 253
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        if named || host.parse::<std::net::Ipv6Addr>().is_ok() {
            Ok(Self { host: host.to_owned(), port })
        } else {
            Err(error())
        }
    }
}

serde_as_text!(Endpoint);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_read_back_as_themselves() {
        for text in ["relay.example:7443", "192.0.2.1:1", "[2001:db8::1]:7443"] {
            assert_eq!(text.parse::<Endpoint>().map(|to| to.to_string()), Ok(text.to_owned()));
        }
        for text in ["", ":1", "host", "host:", "host:0", "host:70000", "[::1:7", "a b:1", "::1:7443x", "[host]:1"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
