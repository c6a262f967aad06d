//! Relays that are given by name: resolved beside the loop, so that a slow resolver holds nothing up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::PoisonError;
use std::time::Duration;

use thinlane_model::{Endpoint, SessionId};
use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::executor::Resolved;

/// Names remembered.
const MOST: usize = 64;
/// How long a resolver may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A name was resolved for a lane.
#[derive(Debug)]
pub struct Found {
    pub session: SessionId,
    pub relay: Endpoint,
    pub address: SocketAddr,
}

/// Resolves, and remembers.
#[derive(Debug)]
pub struct Names {
    resolved: Resolved,
    /// The controller's host as named, and the address that it answered from: a relay of the same name is there too,
    /// whatever else the name resolves to.
    controller: Option<(String, SocketAddr)>,
    to_loop: mpsc::Sender<Found>,
    from_tasks: mpsc::Receiver<Found>,
}

impl Names {
    pub fn new(resolved: Resolved) -> Self {
        let (to_loop, from_tasks) = mpsc::channel(16);
        Self { resolved, controller: None, to_loop, from_tasks }
    }

    /// The controller, named `host`, answered from `peer`.
    pub fn connected(&mut self, host: &str, peer: SocketAddr) {
        self.controller = Some((host.to_owned(), peer));
    }

    /// A lane is about to open through this relay. A known address is at hand when this returns; an unknown one
    /// follows as [`Found`].
    pub fn resolve(&mut self, session: SessionId, relay: &Endpoint) {
        if relay.as_socket_addr().is_some() {
            return;
        }
        if let Some((_, peer)) = self.controller.as_ref().filter(|(host, _)| host == relay.host()) {
            return self.remember(relay, SocketAddr::new(peer.ip(), relay.port()));
        }
        let (relay, to_loop) = (relay.clone(), self.to_loop.clone());
        tokio::spawn(async move {
            let found = timeout(PATIENCE, first(&relay)).await;
            match found {
                // The loop ends only with the process.
                Ok(Ok(Some(address))) => _ = to_loop.send(Found { session, relay, address }).await,
                Ok(Ok(None)) => tracing::warn!("the relay's name has no address"),
                Ok(Err(error)) => tracing::warn!(%error, "the relay's name was not resolved"),
                Err(_) => tracing::warn!("the relay's name was not resolved in time"),
            }
        });
    }

    /// Keeps an address for the next lane.
    pub fn remember(&self, relay: &Endpoint, address: SocketAddr) {
        let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        if resolved.len() < MOST || resolved.contains_key(relay) {
            resolved.insert(relay.clone(), address);
        }
    }

    /// The next name that was resolved.
    pub async fn found(&mut self) -> Found {
        self.from_tasks.recv().await.expect("this end holds a sender itself")
    }
}

/// The first address that this machine has a way to, or else the first.
async fn first(relay: &Endpoint) -> std::io::Result<Option<SocketAddr>> {
    let mut found: Vec<SocketAddr> = lookup_host((relay.host(), relay.port())).await?.collect();
    // Keeps the resolver's order otherwise.
    found.sort_by_key(|address| !has_a_way(*address));
    Ok(found.first().copied())
}

/// Whether the kernel knows a route there; connecting a UDP socket sends nothing.
fn has_a_way(to: SocketAddr) -> bool {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    std::net::UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(to)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionId {
        SessionId::from_random([1; 5])
    }

    #[tokio::test]
    async fn a_relay_named_as_the_controller_is_where_the_controller_answered() {
        let resolved = Resolved::default();
        let mut names = Names::new(resolved.clone());
        names.connected("c.example", "192.0.2.7:7443".parse().expect("an address"));
        let relay: Endpoint = "c.example:7444".parse().expect("an endpoint");
        names.resolve(session(), &relay);
        let known = resolved.lock().expect("not poisoned").get(&relay).copied();
        assert_eq!(known, "192.0.2.7:7444".parse().ok());
    }

    #[test]
    fn an_address_without_a_way_is_known_before_anything_is_sent() {
        assert!(has_a_way("127.0.0.1:9".parse().expect("an address")));
        // Link-local without an interface leads nowhere.
        assert!(!has_a_way("[fe80::1]:9".parse().expect("an address")));
    }

    #[tokio::test]
    async fn another_name_is_resolved_beside_the_loop() {
        let mut names = Names::new(Resolved::default());
        names.resolve(session(), &"localhost:7443".parse().expect("an endpoint"));
        let found = names.found().await;
        assert!(found.address.ip().is_loopback() && found.address.port() == 7443);
    }
}
