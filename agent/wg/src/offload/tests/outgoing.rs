//! Datagrams on their way out.

use std::net::SocketAddr;

use super::super::outbox::{Outbox, Outgoing};

fn place(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn push(outbox: &mut Outbox, port: u16, length: usize) {
    outbox.space()[..length].fill(port as u8);
    outbox.push(place(port), length);
}

/// Sends everything; yields {port, bytes, size} of each call.
fn drain(outbox: &mut Outbox) -> Vec<(u16, usize, Option<u16>)> {
    let mut sent = Vec::new();
    while let Some(Outgoing { to, bytes, size }) = outbox.front() {
        assert!(bytes.iter().all(|byte| *byte == to.port() as u8));
        sent.push((to.port(), bytes.len(), size));
        let length = bytes.len();
        outbox.pop(length);
    }
    sent
}

#[test]
fn equal_lengths_to_one_place_leave_as_one_and_a_shorter_one_is_the_last() {
    let mut outbox = Outbox::new(true);
    for (port, length) in [(1, 100), (1, 100), (1, 60), (1, 100), (2, 100), (2, 100), (2, 101), (1, 32)] {
        push(&mut outbox, port, length);
    }
    let wanted = [(1, 260, Some(100)), (1, 100, None), (2, 200, Some(100)), (2, 101, None), (1, 32, None)];
    assert_eq!(drain(&mut outbox), wanted);
    assert!(outbox.front().is_none());
}

#[test]
fn no_more_leave_as_one_than_the_kernel_takes() {
    let mut outbox = Outbox::new(true);
    for number in 1..=64 {
        assert!(!outbox.is_ready());
        push(&mut outbox, 1, 96);
        assert_eq!(outbox.is_ready(), number == 64);
    }
    push(&mut outbox, 1, 96);
    assert_eq!(drain(&mut outbox), [(1, 64 * 96, Some(96)), (1, 96, None)]);
    for _ in 0..46 {
        push(&mut outbox, 1, 1452);
    }
    // 65 507 bytes are the most that one IPv4 packet holds.
    assert_eq!(drain(&mut outbox), [(1, 45 * 1452, Some(1452)), (1, 1452, None)]);
}

#[test]
fn a_refusal_makes_them_leave_alone() {
    let mut outbox = Outbox::new(true);
    for _ in 0..3 {
        push(&mut outbox, 1, 1452);
    }
    outbox.split(false);
    assert_eq!(drain(&mut outbox), [(1, 1452, None); 3]);
    assert!(outbox.is_together(), "shorter ones may still fit the path");
    for _ in 0..2 {
        push(&mut outbox, 1, 1300);
    }
    assert_eq!(drain(&mut outbox), [(1, 2600, Some(1300))]);
    for _ in 0..2 {
        push(&mut outbox, 1, 1000);
    }
    outbox.split(false);
    assert!(!outbox.is_together(), "what fits every path is refused for another reason");
    assert_eq!(drain(&mut outbox), [(1, 1000, None); 2]);
    let mut outbox = Outbox::new(true);
    push(&mut outbox, 1, 1452);
    outbox.split(true);
    assert!(!outbox.is_together());
    assert!(!Outbox::new(false).is_together());
}

#[test]
fn what_the_socket_does_not_take_waits_up_to_a_limit() {
    let mut outbox = Outbox::new(true);
    for _ in 0..200 {
        push(&mut outbox, 1, 1000);
        assert!(outbox.space().len() >= 65_535 + 32);
    }
    let kept: usize = drain(&mut outbox).iter().map(|(_, length, _)| length / 1000).sum();
    assert_eq!(kept as u64 + outbox.dropped(), 200);
    assert!(kept >= 128, "{kept}");
    // Room again.
    push(&mut outbox, 1, 1000);
    assert_eq!(drain(&mut outbox), [(1, 1000, None)]);
}

#[test]
fn all_segments_of_a_large_packet_wait_when_the_socket_is_full() {
    let mut outbox = Outbox::new(true);
    while !outbox.is_ready() {
        push(&mut outbox, 1, 1452);
    }
    // The socket takes nothing from here on; a packet of 64 KB was just read.
    for _ in 0..48 {
        push(&mut outbox, 1, 1452);
    }
    assert_eq!(outbox.dropped(), 0);
}

#[test]
fn the_longest_message_fits() {
    let mut outbox = Outbox::new(true);
    push(&mut outbox, 1, 65_567);
    assert_eq!(drain(&mut outbox), [(1, 65_567, None)]);
}
