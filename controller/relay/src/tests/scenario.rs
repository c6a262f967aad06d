//! What the two ends of a session may rely on.

use super::*;
use crate::RelayError;

#[test]
fn a_handshake_and_data_pass_both_ways() {
    let mut world = World::new();
    // The gateway begins as soon as it is armed; nobody is there yet, but now it is known where it is.
    assert_eq!(world.send(at(2), &initiation(key(ENGINEER), 99, 1)), Err(DropReason::NoAddress));
    assert_eq!(world.addresses(), (None, Some(2)));
    assert_eq!(world.begin(1, 10), Ok(vec![2]));
    assert_eq!(world.send(at(2), &response(key(ENGINEER), 20, 10)), Ok(vec![1]));
    assert_eq!(world.send(at(1), &data(20, 0)), Ok(vec![2]));
    assert_eq!(world.send(at(2), &data(10, 0)), Ok(vec![1]));
    assert_eq!(world.send(at(1), &data(20, 1)), Ok(vec![2]));
    let stats = world.relay.stats(session(1)).expect("open");
    assert_eq!((stats.engineer, stats.gateway), (Some(at(1)), Some(at(2))));
    assert_eq!((stats.up_packets, stats.down_packets), (3, 2));
    assert_eq!((stats.up_bytes, stats.down_bytes), (148 + 96 + 96, 92 + 96));
    assert_eq!(stats.last_handshake, Some(world.now()));
    assert_eq!(world.relay.totals().forwarded, 5);
    assert_eq!(world.relay.totals().dropped[&DropReason::NoAddress], 1);
}

#[test]
fn the_gateway_may_begin_the_handshake_too() {
    let mut world = World::connected();
    world.wait(120_000);
    assert_eq!(world.send(at(2), &initiation(key(ENGINEER), 21, 5)), Ok(vec![1]));
    assert_eq!(world.send(at(1), &response(key(GATEWAY), 11, 21)), Ok(vec![2]));
    assert_eq!(world.send(at(2), &data(11, 0)), Ok(vec![1]));
    assert_eq!(world.send(at(1), &data(21, 0)), Ok(vec![2]));
    assert_eq!(world.send(at(1), &data(20, 9)), Ok(vec![2]), "the former key is still in use");
}

#[test]
fn the_gateways_key_may_come_later() {
    let mut world = World::new();
    world.relay.close(session(1));
    world.relay.open(session(1), key(ENGINEER), None, END).expect("room");
    assert_eq!(world.send(at(2), &initiation(key(ENGINEER), 99, 1)), Err(DropReason::NoAddress));
    assert_eq!(world.begin(1, 10), Err(DropReason::UnknownKey));
    world.relay.set_gateway(session(1), key(GATEWAY)).expect("open");
    assert_eq!(world.begin(1, 10), Ok(vec![2]));
    assert_eq!(world.send(at(2), &response(key(ENGINEER), 20, 10)), Ok(vec![1]));
}

#[test]
fn an_end_never_confirmed_is_looked_for_where_its_latest_initiation_came_from() {
    let mut world = World::new();
    let _ = world.send(at(2), &initiation(key(ENGINEER), 97, 1));
    world.wait(1000);
    let _ = world.send(at(3), &initiation(key(ENGINEER), 98, 2));
    assert_eq!(world.begin(1, 10), Ok(vec![3]));
}

#[test]
fn data_from_a_new_address_passes_and_both_addresses_are_served_for_twenty_seconds() {
    let mut world = World::connected();
    assert_eq!(world.send(at(1), &data(20, 7)), Ok(vec![2]));
    assert_eq!(world.send(at(5), &data(20, 8)), Ok(vec![2]), "it moved to 5");
    assert_eq!(world.send(at(2), &data(10, 1)), Ok(vec![1, 5]));
    assert_eq!(world.addresses(), (Some(1), Some(2)), "no handshake, no move");
    world.wait(19_000);
    assert_eq!(world.send(at(5), &data(20, 9)), Ok(vec![2]));
    assert_eq!(world.send(at(2), &data(10, 2)), Ok(vec![1, 5]));
    world.wait(1000);
    assert_eq!(world.send(at(2), &data(10, 3)), Ok(vec![1]));
    assert_eq!(world.send(at(5), &data(20, 10)), Ok(vec![2]), "still heard");
    assert_eq!(world.send(at(2), &data(10, 4)), Ok(vec![1]), "but not served again");
    world.shake(5, 11, 2, 21);
    assert_eq!(world.send(at(2), &data(11, 0)), Ok(vec![5]));
}

#[test]
fn either_ends_data_keeps_a_rebound_end_from_stalling() {
    let mut world = World::connected();
    assert_eq!(world.send(at(6), &data(10, 1)), Ok(vec![1]), "the gateway moved to 6");
    assert_eq!(world.send(at(1), &data(20, 1)), Ok(vec![2, 6]));
    assert_eq!(world.begin(1, 11), Ok(vec![2, 6]));
    assert_eq!(world.send(at(6), &response(key(ENGINEER), 21, 11)), Ok(vec![1]));
    assert_eq!(world.addresses(), (Some(1), Some(2)));
    assert_eq!(world.send(at(1), &data(21, 0)), Ok(vec![6]));
    assert_eq!(world.addresses(), (Some(1), Some(6)));
}

#[test]
fn an_end_that_rebinds_again_and_again_is_followed() {
    let mut world = World::connected();
    for port in 5..12 {
        // Quicker than silence could show that the one before is no longer in use.
        world.wait(700);
        assert_eq!(world.send(at(port), &data(20, u64::from(port))), Ok(vec![2]));
        let served = world.send(at(2), &data(10, u64::from(port))).expect("served");
        assert!(served[0] == 1 && served.contains(&port) && served.len() <= 4, "{port}: {served:?}");
    }
    world.shake(11, 11, 2, 21);
    assert_eq!(world.served(Side::Engineer), [11]);
}

#[test]
fn an_address_moves_with_the_first_data_after_the_handshake_and_not_before() {
    let mut world = World::connected();
    assert_eq!(world.begin(5, 11), Ok(vec![2]));
    assert_eq!(world.addresses().0, Some(1));
    assert_eq!(world.send(at(2), &response(key(ENGINEER), 21, 11)), Ok(vec![5, 1]));
    assert_eq!(world.addresses().0, Some(1));
    assert_eq!(world.send(at(2), &data(10, 1)), Ok(vec![1]));
    assert_eq!(world.send(at(5), &data(21, 0)), Ok(vec![2]));
    assert_eq!(world.addresses().0, Some(5));
    assert_eq!(world.send(at(2), &data(11, 0)), Ok(vec![5]));
    // What was still on its way from the former address is taken, without serving it again.
    assert_eq!(world.send(at(1), &data(20, 50)), Ok(vec![2]));
    assert_eq!(world.send(at(2), &data(11, 1)), Ok(vec![5]));
}

#[test]
fn both_ends_may_move_in_one_handshake() {
    let mut world = World::connected();
    world.send(at(6), &data(10, 1)).expect("the gateway speaks from 6");
    world.begin(5, 11).expect("to both");
    assert_eq!(world.send(at(6), &response(key(ENGINEER), 21, 11)), Ok(vec![5, 1]));
    assert_eq!(world.addresses(), (Some(1), Some(2)));
    assert_eq!(world.send(at(5), &data(21, 0)), Ok(vec![6]));
    assert_eq!(world.addresses(), (Some(5), Some(6)));
}

#[test]
fn two_ends_that_both_moved_while_their_keys_died_meet_again() {
    let mut world = World::connected();
    world.wait(300_000);
    assert_eq!(world.send(at(6), &initiation(key(ENGINEER), 21, 9)), Ok(vec![1]), "to where nobody is any more");
    assert_eq!(world.begin(5, 11), Ok(vec![2, 6]));
    assert_eq!(world.send(at(6), &response(key(ENGINEER), 22, 11)), Ok(vec![5, 1]));
    world.send(at(5), &data(22, 0)).expect("completes");
    assert_eq!(world.addresses(), (Some(5), Some(6)));
}

#[test]
fn cookies_pass_to_whoever_is_asked_to_prove_its_address() {
    let mut world = World::connected();
    world.begin(5, 11).expect("forwarded");
    assert_eq!(world.send(at(2), &cookie(11)), Ok(vec![5]), "the gateway is under load");
    assert_eq!(world.send(at(9), &cookie(11)), Err(DropReason::Foreign));
    world.wait(5000);
    world.begin(5, 12).expect("forwarded");
    world.send(at(2), &response(key(ENGINEER), 22, 12)).expect("answered");
    world.send(at(5), &data(22, 0)).expect("completed");
    assert_eq!(world.send(at(5), &cookie(22)), Ok(vec![2]), "the engineer is under load");
    assert_eq!(world.send(at(5), &cookie(23)), Err(DropReason::UnknownIndex));
}

#[test]
fn several_keys_live_side_by_side_and_old_ones_die() {
    let mut world = World::connected();
    for round in 1..=3u32 {
        world.wait(118_000);
        world.shake(1, 10 + round, 2, 20 + round);
        assert_eq!(world.send(at(1), &data(20 + round - 1, 1)), Ok(vec![2]), "previous key");
    }
    assert_eq!(world.send(at(1), &data(20, 2)), Err(DropReason::UnknownIndex), "older than 240 s");
}

#[test]
fn handshakes_that_come_to_nothing_do_not_push_out_the_key_in_use() {
    let mut world = World::connected();
    for round in 1..=20u32 {
        world.wait(5000);
        world.begin(1, 10 + round).expect("forwarded");
        world.send(at(2), &response(key(ENGINEER), 20 + round, 10 + round)).expect("answered, but lost");
    }
    assert_eq!(world.send(at(1), &data(20, 5)), Ok(vec![2]));
    assert_eq!(world.send(at(2), &data(10, 5)), Ok(vec![1]));
}

#[test]
fn nothing_is_forwarded_once_the_time_is_over_whether_or_not_anybody_looked() {
    let mut world = World::connected();
    world.relay.extend(session(1), Boot(world.now + 100)).expect("open");
    assert_eq!(world.send(at(1), &data(20, 1)), Ok(vec![2]));
    world.now += 99;
    assert_eq!(world.send(at(1), &data(20, 2)), Ok(vec![2]));
    world.now += 1;
    assert_eq!(world.send(at(1), &data(20, 3)), Err(DropReason::Expired));
    assert_eq!(world.send(at(2), &data(10, 3)), Err(DropReason::Expired));
    assert_eq!(world.begin(1, 11), Err(DropReason::Expired));
    assert_eq!(world.send(at(2), &cookie(10)), Err(DropReason::Foreign));
    assert_eq!(world.relay.stats(session(1)).map(|stats| stats.up_packets), Some(4), "still to be asked for");
    world.relay.extend(session(1), END).expect("open");
    assert_eq!(world.send(at(1), &data(20, 4)), Ok(vec![2]));
}

#[test]
fn a_closed_session_leaves_nothing_behind() {
    let mut world = World::connected();
    world.send(at(5), &data(20, 1)).expect("moves");
    world.begin(6, 11).expect("forwarded");
    let stats = world.relay.close(session(1)).expect("was open");
    assert_eq!(stats.up_packets, 4);
    assert_eq!(world.relay.close(session(1)), None);
    assert_eq!(world.send(at(1), &data(20, 2)), Err(DropReason::UnknownIndex));
    assert_eq!(world.begin(1, 12), Err(DropReason::UnknownKey));
    assert!(world.relay.indices.is_empty() && world.relay.addresses.is_empty() && world.relay.waiting.is_empty());
    assert_eq!(world.relay.poll_timeout(), None);
    world.relay.open(session(2), key(ENGINEER), Some(key(GATEWAY)), END).expect("the keys are free again");
}

#[test]
fn an_expired_session_is_forgotten_after_a_while() {
    let mut world = World::connected();
    let sweep = world.relay.poll_timeout().expect("a session is open");
    world.relay.handle_timeout(sweep);
    assert!(world.relay.poll_timeout() > Some(sweep));
    world.now = END.0;
    world.wait(590_000);
    assert!(world.relay.stats(session(1)).is_some());
    world.wait(10_000);
    assert_eq!(world.relay.stats(session(1)), None);
    assert!(world.relay.indices.is_empty() && world.relay.addresses.is_empty());
}

#[test]
fn many_sessions_are_swept_a_few_at_a_time_and_none_is_left_over() {
    let mut relay = Relay::new(7);
    for n in 0..3000u32 {
        let [_, a, b, c] = n.to_be_bytes();
        let id = SessionId::from_random([9, 0, a, b, c]);
        relay.open(id, key(n as u16), None, Boot(START)).expect("room");
    }
    let mut now = Boot(START + 600_000);
    relay.handle_timeout(now);
    assert_eq!(relay.sessions().count(), 3000 - 256);
    while let Some(due) = relay.poll_timeout() {
        now = due;
        relay.handle_timeout(now);
        assert!(now.0 <= START + 640_000, "{} left", relay.sessions().count());
    }
}

#[test]
fn a_key_names_one_end_of_one_session() {
    let mut world = World::new();
    let open = |world: &mut World, n, e, g| world.relay.open(session(n), key(e), Some(key(g)), END);
    assert_eq!(open(&mut world, 2, ENGINEER, 9), Err(RelayError::KeyInUse));
    assert_eq!(open(&mut world, 2, 9, GATEWAY), Err(RelayError::KeyInUse));
    assert_eq!(open(&mut world, 2, 9, 9), Err(RelayError::KeyInUse));
    assert_eq!(open(&mut world, 1, 9, GATEWAY), Err(RelayError::Exists));
    assert_eq!(open(&mut world, 1, ENGINEER, 9), Err(RelayError::Exists));
    assert_eq!(open(&mut world, 1, ENGINEER, GATEWAY), Ok(()), "the same again");
    assert_eq!(world.relay.set_gateway(session(3), key(9)), Err(RelayError::Unknown));
    assert_eq!(world.relay.extend(session(3), END), Err(RelayError::Unknown));
}

#[test]
fn many_lanes_of_one_gateway_share_its_address() {
    let mut world = World::new();
    for n in 2..=64u8 {
        let (e, g) = (u16::from(n) * 2 + 1, u16::from(n) * 2);
        world.relay.open(session(n), key(e), Some(key(g)), END).expect("room");
        assert_eq!(world.send(at(2), &initiation(key(e), 5000 + u32::from(n), 1)), Err(DropReason::NoAddress));
    }
    for n in 2..=64u8 {
        let (e, g) = (u16::from(n) * 2 + 1, u16::from(n) * 2);
        let (i, r) = (100 + u32::from(n), 200 + u32::from(n));
        let engineer = at(1000 + u16::from(n));
        assert_eq!(world.send(engineer, &initiation(key(g), i, 1)), Ok(vec![2]));
        assert_eq!(world.send(at(2), &response(key(e), r, i)), Ok(vec![engineer.port()]));
        assert_eq!(world.send(engineer, &data(r, 0)), Ok(vec![2]));
        assert_eq!(world.send(at(2), &data(i, 0)), Ok(vec![engineer.port()]));
    }
}
