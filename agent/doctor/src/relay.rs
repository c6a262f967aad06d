//! Whether UDP reaches the relay, and how large it may be: probes with a ticket of the controller's.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use thinlane_wire::{ProbeAnswer, ProbeTicket, SHORTEST_PROBE};

use crate::facts::{Name, RelayFact};
use crate::names::{addresses, plain, resolve};
use crate::whole::{is_too_large, keep_whole};

/// Sizes of IP packets that are tried unfragmented, in bytes.
const SIZES: [u16; 9] = [1280, 1340, 1380, 1400, 1420, 1440, 1460, 1480, 1500];
/// When questions that were not answered yet are asked (again), and when the last answer is waited for.
const ROUNDS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(350), Duration::from_millis(850)];
const PATIENCE: Duration = Duration::from_millis(1700);
/// The number of the smallest question; the others are numbered by their sizes.
const SMALLEST: u32 = 1;
/// The number of the one that may be fragmented.
const FRAGMENTED: u32 = 2;

/// A lane's packets at their largest, as an IPv4 packet: 1 420 bytes inside, 32 of WireGuard, 8 of UDP, 20 of IP.
pub(crate) const FULL_V4: u16 = 1480;
/// The same over IPv6.
pub(crate) const FULL_V6: u16 = 1500;

/// Asks the relay with questions of several sizes; takes at most 1.7 s after the name is known, which gets 2 s.
pub fn try_relay(ticket: &ProbeTicket) -> RelayFact {
    let name = resolve(&ticket.relay, Duration::from_secs(2));
    let Some(relay) = addresses(&ticket.relay, &name).first().copied() else {
        debug_assert!(matches!(name, Name::Unknown { .. }), "an address needs no name server");
        return RelayFact::NoName(ticket.relay.clone());
    };
    match exchange(ticket, relay) {
        Ok(fact) => fact,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => RelayFact::Refused(relay),
        Err(error) => RelayFact::NoWay { relay, why: plain(&error).to_lowercase() },
    }
}

/// What came back, by question.
#[derive(Default)]
struct Heard {
    answers: BTreeMap<u32, (ProbeAnswer, Duration)>,
    refused: bool,
}

fn exchange(ticket: &ProbeTicket, relay: SocketAddr) -> std::io::Result<RelayFact> {
    let header = if relay.is_ipv4() { 28 } else { 48 };
    let full = if relay.is_ipv4() { FULL_V4 } else { FULL_V6 };
    let whole = socket(relay, true)?;
    let loose = socket(relay, false)?;
    let began = Instant::now();
    let mut asked: BTreeMap<u32, Duration> = BTreeMap::new();
    let mut heard = Heard::default();
    let mut sent = 0;
    for (round, at) in ROUNDS.iter().enumerate() {
        listen(ticket, [&whole, &loose], &asked, began, *at, &mut heard);
        let mut first_error = None;
        let mut send = |socket: &UdpSocket, number: u32, size: u16| {
            if heard.answers.contains_key(&number) {
                return;
            }
            let question = ticket.question(number, usize::from(size.saturating_sub(header)).max(SHORTEST_PROBE));
            asked.insert(number, began.elapsed());
            match sent_at_last(socket, &question) {
                Ok(()) => sent += 1,
                // Larger than the interface takes: as good as no answer.
                Err(error) if is_too_large(&error) => {}
                // What an earlier one met: the host refuses, or a router knows no way.
                Err(error) => first_error = Some(error),
            }
        };
        send(&whole, SMALLEST, 0);
        for size in SIZES {
            send(&whole, u32::from(size), size);
        }
        let largest = largest(&heard);
        if round > 0 && largest < full {
            send(&loose, FRAGMENTED, full);
        }
        if let Some(error) = first_error.filter(|_| round > 0 && heard.answers.is_empty()) {
            return Err(error);
        }
    }
    listen(ticket, [&whole, &loose], &asked, began, PATIENCE, &mut heard);
    let Some((answer, _)) = heard.answers.values().next() else {
        return Ok(if heard.refused { RelayFact::Refused(relay) } else { RelayFact::Silent { relay, sent } });
    };
    let largest = largest(&heard);
    let round_trip = heard.answers.values().map(|(_, took)| *took).min().unwrap_or_default();
    Ok(RelayFact::Answers {
        relay,
        round_trip_ms: u64::try_from(round_trip.as_millis()).unwrap_or(u64::MAX),
        seen_from: answer.seen_from,
        largest,
        tried: SIZES[SIZES.len() - 1],
        fragments: (largest < full).then(|| heard.answers.contains_key(&FRAGMENTED)),
    })
}

/// Sends, also where what a router said of an earlier, larger packet is told in place of sending (ip(7)).
fn sent_at_last(socket: &UdpSocket, question: &[u8]) -> std::io::Result<()> {
    const TRIES: usize = 4;
    let mut last = Ok(());
    for _ in 0..TRIES {
        last = match socket.send(question) {
            Err(error) if is_too_large(&error) => Err(error),
            other => return other.map(drop),
        };
    }
    last
}

/// The largest packet that came back whole; 0: none but the smallest.
fn largest(heard: &Heard) -> u16 {
    let sizes: BTreeSet<u16> = heard.answers.keys().filter_map(|number| u16::try_from(*number).ok()).collect();
    SIZES.into_iter().filter(|size| sizes.contains(size)).max().unwrap_or(0)
}

/// Takes answers until so long after the beginning, or until everything has been answered.
fn listen(
    ticket: &ProbeTicket,
    sockets: [&UdpSocket; 2],
    asked: &BTreeMap<u32, Duration>,
    began: Instant,
    until: Duration,
    heard: &mut Heard,
) {
    let mut buffer = [0; 2048];
    while began.elapsed() < until && !asked.keys().all(|number| heard.answers.contains_key(number)) {
        for socket in sockets {
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    let Some(answer) = ticket.read(&buffer[..length]) else { continue };
                    let Some(at) = asked.get(&answer.number) else { continue };
                    let took = began.elapsed().saturating_sub(*at);
                    heard.answers.entry(answer.number).or_insert((answer, took));
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => heard.refused = true,
                Err(_) => {}
            }
        }
    }
}

/// A connected socket whose packets are never fragmented, or always may be.
fn socket(to: SocketAddr, whole: bool) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    keep_whole(&socket, to, whole)?;
    socket.connect(to)?;
    // Both sockets are listened to by turns.
    socket.set_read_timeout(Some(Duration::from_millis(10)))?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
