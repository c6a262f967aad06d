//! What is expected of `relay`, as tests: a relay on loopback that swallows what it is told to.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use thinlane_model::Boot;
use thinlane_wire::{ProbeKey, ProbeQuestion, ProbeTicket};

use super::*;

const NOW: Boot = Boot(1_000_000);

/// Answers questions of up to so many bytes of UDP payload, until dropped.
struct Relay {
    at: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Relay {
    fn start(key: ProbeKey, most: usize) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let at = socket.local_addr().expect("bound");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let answer = ProbeQuestion::read(&buffer[..length])
                    .filter(|_| length <= most)
                    .and_then(|question| key.answer(&question, from, NOW).ok());
                if let Some(answer) = answer {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { at, stop, thread: Some(thread) }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ticket(key: &ProbeKey, relay: SocketAddr) -> ProbeTicket {
    let (ticket, secret) = key.issue([1; 8], NOW);
    ProbeTicket { ticket, secret, relay: relay.into(), life: ProbeKey::LIFE, pools: Vec::new() }
}

#[test]
fn a_relay_that_answers_everything_tells_where_it_sees_us() {
    let key = ProbeKey::new([1; 32]);
    let relay = Relay::start(key.clone(), 2000);
    let RelayFact::Answers { largest, seen_from, fragments, .. } = try_relay(&ticket(&key, relay.at)) else {
        panic!("no answer");
    };
    assert_eq!((largest, fragments), (1500, None));
    assert_eq!(seen_from.ip(), Ipv4Addr::LOCALHOST);
}

#[test]
fn the_largest_size_that_passes_is_found_and_that_a_full_one_does_not() {
    let key = ProbeKey::new([1; 32]);
    let relay = Relay::start(key.clone(), 1400 - 28);
    let fact = try_relay(&ticket(&key, relay.at));
    assert!(matches!(fact, RelayFact::Answers { largest: 1400, fragments: Some(false), .. }), "{fact:?}");
}

#[test]
fn silence_a_closed_port_and_a_stranger_are_told_apart() {
    let key = ProbeKey::new([1; 32]);
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let at = silent.local_addr().expect("bound");
    assert!(matches!(try_relay(&ticket(&key, at)), RelayFact::Silent { sent: 11.., .. }));
    drop(silent);
    assert_eq!(try_relay(&ticket(&key, at)), RelayFact::Refused(at));
    let other = Relay::start(ProbeKey::new([2; 32]), 2000);
    assert!(matches!(try_relay(&ticket(&key, other.at)), RelayFact::Silent { .. }), "another relay's ticket");
}
