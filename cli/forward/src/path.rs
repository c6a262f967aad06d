//! The way to the peer: sockets, addresses, and what to do when the network underneath changes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use thinlane_model::Endpoint;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::forward::Prepare;

/// How much the operating system may keep of what arrives in a burst, in bytes; it may give less.
const BUFFER: usize = 2 * 1024 * 1024;
/// How long a name server may take.
const LOOKUP: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const MOST: usize = 8;

/// One address of the peer's, and of which of its endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    way: usize,
    address: SocketAddr,
}

/// Where the peer is, and the socket that reaches it.
pub struct Path {
    socket: UdpSocket,
    prepare: Prepare,
    endpoints: Vec<Endpoint>,
    candidates: Vec<Candidate>,
    at: usize,
    /// Where the peer was last heard from, which is where it is.
    heard: Option<SocketAddr>,
    /// The endpoint that leads there: 0 or 1.
    way: usize,
    /// The address that this machine uses towards the peer; `None`: it has none now.
    own: Option<IpAddr>,
    found: mpsc::Receiver<Vec<Candidate>>,
    finds: mpsc::Sender<Vec<Candidate>>,
}

impl Path {
    /// Finds the peer's addresses, those of `endpoint` before those of `fallback`, and makes a socket for the first.
    pub async fn open(endpoint: Endpoint, fallback: Option<Endpoint>, prepare: Prepare) -> io::Result<Self> {
        let endpoints: Vec<Endpoint> = std::iter::once(endpoint).chain(fallback).collect();
        let candidates = look_up_all(&endpoints).await?;
        let Candidate { way, address } =
            *candidates.first().ok_or_else(|| io::Error::other("the name has no address"))?;
        let (finds, found) = mpsc::channel(1);
        let (socket, own) = (bind(address, prepare)?, own_address(address));
        Ok(Self { socket, prepare, endpoints, candidates, at: 0, heard: None, way, own, found, finds })
    }

    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Where datagrams go.
    pub fn to(&self) -> SocketAddr {
        let known = self.heard.or_else(|| self.candidates.get(self.at).map(|it| it.address));
        known.unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into())
    }

    /// Which endpoint leads there: 0 is the first that was given, 1 the fallback.
    pub fn way(&self) -> usize {
        self.way
    }

    /// Whether the peer may be at more than one address.
    pub fn has_choice(&self) -> bool {
        self.candidates.len() > 1
    }

    /// An authentic message came from there.
    pub fn heard(&mut self, from: SocketAddr) {
        if self.heard != Some(from)
            && let Some(known) = self.candidates.iter().find(|it| it.address == from)
        {
            self.way = known.way;
        }
        self.heard = Some(from);
    }

    /// Whether this machine's way to the peer is another than it was; then there is a fresh socket.
    pub fn has_moved(&mut self) -> bool {
        let own = own_address(self.to());
        let moved = own.is_some() && own != self.own;
        // Without any network the last address stays known: it may be the next one, too.
        if moved {
            self.own = own;
            self.renew();
        }
        moved
    }

    /// Nothing comes back this way: the next address of the peer's, and a fresh socket. `true`: it is another address.
    pub fn try_another(&mut self) -> bool {
        let before = self.to();
        match self.found.try_recv() {
            Ok(found) if found != self.candidates => {
                self.candidates = found;
                self.at = 0;
            }
            // What is known already is gone through to its end, over and over.
            _ => self.at = (self.at + 1) % self.candidates.len().max(1),
        }
        self.heard = None;
        self.way = self.candidates.get(self.at).map_or(self.way, |it| it.way);
        self.renew();
        if self.endpoints.iter().any(|endpoint| endpoint.as_socket_addr().is_none()) {
            let (endpoints, finds) = (self.endpoints.clone(), self.finds.clone());
            tokio::spawn(async move {
                if let Ok(found) = look_up_all(&endpoints).await
                    && !found.is_empty()
                {
                    // One answer that was not looked at yet is as good as two.
                    let _ = finds.try_send(found);
                }
            });
        }
        self.to() != before
    }

    /// A fresh socket; if there is none to be had, the old one stays.
    fn renew(&mut self) {
        match bind(self.to(), self.prepare) {
            Ok(socket) => self.socket = socket,
            Err(error) => tracing::debug!(%error, "no fresh socket"),
        }
    }
}

/// All addresses of some endpoints, in their order; an error only where none has any.
async fn look_up_all(endpoints: &[Endpoint]) -> io::Result<Vec<Candidate>> {
    let (mut all, mut error): (Vec<Candidate>, _) = (Vec::new(), None);
    for (way, endpoint) in endpoints.iter().enumerate() {
        match look_up(endpoint).await {
            Ok(found) => {
                for address in found {
                    if all.iter().all(|known| known.address != address) {
                        all.push(Candidate { way, address });
                    }
                }
            }
            Err(why) => error = Some(why),
        }
    }
    match error {
        Some(why) if all.is_empty() => Err(why),
        _ => Ok(all),
    }
}

/// All addresses of an endpoint, IPv4 before IPv6.
async fn look_up(endpoint: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    if let Some(address) = endpoint.as_socket_addr() {
        return Ok(vec![address]);
    }
    let looked = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((endpoint.host(), endpoint.port()))).await;
    let found = looked.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the name server does not answer"))??;
    let mut all: Vec<SocketAddr> = found.take(MOST).collect();
    all.sort_by_key(SocketAddr::is_ipv6);
    Ok(all)
}

fn unspecified(to: SocketAddr) -> SocketAddr {
    match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Not connected: so it survives a change of this machine's address, and errors of one moment are not kept.
fn bind(to: SocketAddr, prepare: Prepare) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(unspecified(to))?;
    socket.set_nonblocking(true)?;
    // As much as the system allows is enough.
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(BUFFER);
    if let Err(error) = prepare(&socket) {
        tracing::debug!(%error, "a socket without all that was asked of it");
    }
    UdpSocket::from_std(socket)
}

/// The address that the system would send from; connecting a UDP socket sends nothing.
fn own_address(to: SocketAddr) -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind(unspecified(to)).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
