//! What comes back to who sent a probe.

use std::net::{IpAddr, SocketAddr};

use thinlane_model::Boot;
use thinlane_wg::packet::sample::Reach;
use thinlane_wire::{ProbeKey, ProbeQuestion, ProbeTicket};

use super::{Target, USUAL, sealed};

pub(super) const ANSWER: Target = Target {
    name: "probe-answer",
    run: answer,
    seeds: answers,
    replayed: USUAL,
    deepest: &["read", "seen from IPv4", "seen from IPv6", "another ticket's", "a wrong MAC"],
};

fn ticket() -> ProbeTicket {
    let (ticket, secret) = ProbeKey::new([5; 32]).issue([1; 8], Boot(0));
    let relay = "192.0.2.9:7443".parse().expect("an endpoint");
    ProbeTicket { ticket, secret, relay, life: ProbeKey::LIFE, pools: Vec::new() }
}

/// Only what has the ticket, its MAC and a right length is read, and for what it says. The lowest bit of the first byte
/// has the MAC put right.
fn answer(bytes: &[u8], reach: Reach<'_>) {
    let Some((steer, bytes)) = bytes.split_first() else { return };
    let (ticket, mut bytes) = (ticket(), bytes.to_vec());
    let mac = sealed::probe(&bytes, ticket.secret.expose());
    if let Some(mac) = mac.filter(|_| steer & 1 == 1) {
        let at = bytes.len() - 16;
        bytes[at..].copy_from_slice(&mac);
    }
    let right_length = (64..=1472).contains(&bytes.len());
    let is_ours = bytes.get(4..20) == Some(&ticket.ticket);
    let is_sealed = mac.is_some_and(|mac| bytes.ends_with(&mac));
    let is_answer = bytes.starts_with(b"TLp!");
    match ticket.read(&bytes) {
        Some(read) => {
            assert!(right_length && is_ours && is_sealed && is_answer, "it was no answer of ours");
            let ip: [u8; 16] = bytes[24..40].try_into().expect("sixteen bytes");
            let port = u16::from_be_bytes([bytes[40], bytes[41]]);
            assert_eq!((read.number.to_be_bytes(), read.length), ([20, 21, 22, 23].map(|at| bytes[at]), bytes.len()));
            assert_eq!(read.seen_from, SocketAddr::new(IpAddr::from(ip).to_canonical(), port));
            reach("read");
            reach(if read.seen_from.is_ipv4() { "seen from IPv4" } else { "seen from IPv6" });
        }
        None => {
            assert!(!(right_length && is_ours && is_sealed && is_answer), "an answer of ours was not read");
            if right_length && is_answer && is_sealed {
                reach("another ticket's");
            } else if right_length && is_answer && is_ours {
                reach("a wrong MAC");
            }
        }
    }
}

fn answers() -> Vec<Vec<u8>> {
    let (key, ticket) = (ProbeKey::new([5; 32]), ticket());
    let mut seeds = Vec::new();
    for (length, from) in [(64, "203.0.113.9:4711"), (100, "[2001:db8::9]:4711"), (1472, "203.0.113.9:1")] {
        let question = ticket.question(3, length);
        let read = ProbeQuestion::read(&question).expect("a question");
        let answer = key.answer(&read, from.parse().expect("an address"), Boot(0)).expect("a good ticket");
        seeds.extend([0, 1].map(|steer| [&[steer][..], &answer].concat()));
    }
    seeds
}
