//! What is expected of `channel`, as tests.

use thinlane_model::{BootId, Wall};
use tokio::net::TcpListener;

use super::*;
use crate::clock::Floor;
use crate::identity::tests::identity;
use crate::tls::tests::controller;

async fn dialer(name: &str) -> Dialer {
    let controller = controller(name, 3650).await;
    let dir = tempfile::tempdir().expect("a directory");
    let floor = Floor::load(dir.path().join("c"), BootId([0; 16]), Wall::from_millis(0)).expect("a floor");
    let config = tls::channel_config(&identity(&controller.authority, 3650), floor).expect("a config");
    let to = format!("localhost:{}", controller.address.port());
    Dialer::new(to.parse().expect("an endpoint"), config)
}

#[tokio::test]
async fn a_connection_tells_that_it_stands_what_arrives_and_its_end() {
    let mut dialer = dialer("localhost").await;
    dialer.connect();
    assert!(matches!(dialer.news().await, News::Connected(_)));
    // The stand-in greets with 1 where it saw our certificate.
    assert!(matches!(dialer.news().await, News::Bytes(bytes) if bytes[..] == [1]));
    assert!(matches!(dialer.news().await, News::Closed(_)));
}

#[tokio::test]
async fn a_dial_that_fails_says_why() {
    let mut dialer = dialer("elsewhere.example").await;
    dialer.connect();
    let News::Closed(why) = dialer.news().await else { panic!("believed") };
    assert!(why.contains("certificate"), "{why}");
}

#[tokio::test]
async fn what_an_old_connection_says_is_not_heard() {
    let mut dialer = dialer("localhost").await;
    dialer.connect();
    dialer.disconnect();
    dialer.connect();
    assert!(matches!(dialer.news().await, News::Connected(_)), "of the second one");
    assert!(matches!(dialer.news().await, News::Bytes(_)));
    assert!(matches!(dialer.news().await, News::Closed(_)));
    assert!(timeout(Duration::from_millis(200), dialer.news()).await.is_err(), "and nothing of the first");
}

#[tokio::test]
async fn a_silent_listener_keeps_nobody_waiting_once_it_is_let_go() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let mut dialer = dialer("localhost").await;
    dialer.controller = listener.local_addr().expect("bound").into();
    dialer.connect();
    assert!(timeout(Duration::from_millis(100), dialer.news()).await.is_err(), "no answer comes");
    for _ in 0..MOST_WAITING {
        dialer.send(Bytes::from_static(b"x"));
    }
    dialer.send(Bytes::from_static(b"one too many"));
    assert!(matches!(dialer.news().await, News::Closed(_)));
    dialer.disconnect();
}
