//! Who is answered, how much, and what it costs.

use thinlane_wire::{LONGEST_PROBE, ProbeKey, ProbeTicket, SHORTEST_PROBE};

use super::*;

fn relay() -> (Relay, ProbeTicket) {
    let key = ProbeKey::new([9; 32]);
    let (ticket, secret) = key.issue([1; 8], Boot(START));
    let mut relay = Relay::new(7);
    relay.answer_probes(key);
    let endpoint = "192.0.2.200:7443".parse().expect("an endpoint");
    (relay, ProbeTicket { ticket, secret, relay: endpoint, life: ProbeKey::LIFE, pools: Vec::new() })
}

fn answers(relay: &mut Relay, ticket: &ProbeTicket, from: SocketAddr, count: u32, now: u64) -> usize {
    let answered = |number: &u32| {
        let question = ticket.question(*number, SHORTEST_PROBE);
        matches!(relay.handle_datagram(from, &question, Boot(now)), Verdict::Answer(_))
    };
    (0..count).filter(answered).count()
}

#[test]
fn a_ticket_holder_is_answered_byte_for_byte_and_a_stranger_never() {
    let (mut relay, ticket) = relay();
    for length in [SHORTEST_PROBE, 1300, LONGEST_PROBE] {
        let question = ticket.question(1, length);
        let Verdict::Answer(answer) = relay.handle_datagram(at(1), &question, Boot(START)) else {
            panic!("no answer to {length} bytes");
        };
        assert_eq!(answer.len(), question.len(), "neither more nor less");
        assert_eq!(ticket.read(&answer).map(|read| read.seen_from), Some(at(1)));
    }
    let (_, other) = ProbeKey::new([8; 32]).issue([1; 8], Boot(START));
    let stranger = ProbeTicket { secret: other, ..ticket.clone() };
    assert_eq!(relay.handle_datagram(at(2), &stranger.question(1, 64), Boot(START)), Verdict::Drop(DropReason::Probe));
    let late = Boot(START) + ProbeKey::LIFE;
    assert_eq!(relay.handle_datagram(at(1), &ticket.question(1, 64), late), Verdict::Drop(DropReason::Probe));
    assert_eq!((relay.totals().answered, relay.totals().forwarded), (3, 0));
}

#[test]
fn a_relay_without_a_key_answers_nobody() {
    let (_, ticket) = relay();
    let mut silent = Relay::new(7);
    assert_eq!(answers(&mut silent, &ticket, at(1), 5, START), 0);
}

#[test]
fn one_source_gets_a_burst_and_then_twenty_a_second_whatever_ports_it_uses() {
    let (mut relay, ticket) = relay();
    let burst: usize = (0..10).map(|port| answers(&mut relay, &ticket, at(port), 100, START)).sum();
    assert_eq!(burst, 120);
    assert_eq!(answers(&mut relay, &ticket, at(77), 100, START + 1000), 20);
    let elsewhere = SocketAddr::from(([198, 51, 100, 9], 1));
    assert_eq!(answers(&mut relay, &ticket, elsewhere, 100, START + 1000), 100, "others have their own");
}

#[test]
fn a_flood_of_forged_probes_takes_nothing_from_lanes() {
    let mut world = World::connected();
    let (_, ticket) = relay();
    world.relay.answer_probes(ProbeKey::new([3; 32]));
    for number in 0..50_000u32 {
        let from = SocketAddr::from((number.to_be_bytes(), 9));
        let question = ticket.question(number, SHORTEST_PROBE);
        assert_eq!(world.send(from, &question), Err(DropReason::Probe));
    }
    assert_eq!(world.send(at(1), &data(20, 1)), Ok(vec![2]));
}
