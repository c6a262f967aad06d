//! Reaching a host by all of its addresses: one that swallows packets (a broken IPv6, most often) holds up nobody.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thinlane_model::Endpoint;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;

/// Addresses that are tried.
const MOST: usize = 6;
/// How long each address is ahead of the next (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Connects to whichever address answers first.
pub async fn tcp(to: &Endpoint) -> io::Result<TcpStream> {
    let found = lookup_host((to.host(), to.port())).await?;
    first(interleaved(found)).await
}

/// IPv4 and IPv6 by turns, in the resolver's order of each.
fn interleaved(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let (mut six, mut four): (Vec<_>, Vec<_>) = found.partition(SocketAddr::is_ipv6);
    six.reverse();
    four.reverse();
    let mut all = Vec::new();
    while all.len() < MOST && !(six.is_empty() && four.is_empty()) {
        all.extend(six.pop());
        all.extend(four.pop());
    }
    all.truncate(MOST);
    all
}

async fn first(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    for (address, turn) in addresses.into_iter().zip(0..) {
        attempts.spawn(async move {
            tokio::time::sleep(STAGGER * turn).await;
            TcpStream::connect(address).await
        });
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    // The set aborts the attempts that are left when it is dropped.
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(error) => last = io::Error::other(error),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn both_families_have_their_turn_and_a_long_list_is_cut() {
        let four = (1..10).map(|last| SocketAddr::from(([192, 0, 2, last], 1)));
        let all = interleaved(four.chain([address("[2001:db8::1]:1")]));
        assert_eq!(all.len(), MOST);
        assert_eq!(all[..2], [address("[2001:db8::1]:1"), address("192.0.2.1:1")]);
    }

    #[tokio::test]
    async fn an_address_that_refuses_does_not_keep_from_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let there = listener.local_addr().expect("bound");
        let closed = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let nobody = closed.local_addr().expect("bound");
        drop(closed);
        let stream = first(vec![nobody, there]).await.expect("connects");
        assert_eq!(stream.peer_addr().expect("connected"), there);
        assert!(first(vec![nobody]).await.is_err());
        assert!(first(Vec::new()).await.is_err());
    }
}
