//! What strangers, replays and floods cannot do.

use super::*;

#[test]
fn spoofed_data_with_a_right_index_moves_nothing() {
    let mut world = World::connected();
    world.send(at(1), &data(20, 40)).expect("genuine");
    for counter in [0, 39, 40] {
        assert_eq!(world.send(at(66), &data(20, counter)), Err(DropReason::Stale), "recorded");
    }
    assert_eq!(world.served(Side::Engineer), [1]);
    for counter in [41, 1000, u64::MAX] {
        world.send(at(66), &data(20, counter)).expect("the gateway's cipher decides");
        assert_eq!(world.addresses(), (Some(1), Some(2)));
    }
    assert_eq!(world.served(Side::Engineer), [1, 66], "beside, never instead");
    assert_eq!(world.send(at(1), &data(20, 41)), Ok(vec![2]), "a forged counter takes nothing from the end");
    world.wait(20_000);
    for counter in 50..60 {
        world.send(at(66), &data(20, counter)).expect("the gateway's cipher decides");
    }
    assert_eq!(world.served(Side::Engineer), [1], "once, not for ever");
}

#[test]
fn a_stranger_cannot_keep_the_end_itself_from_being_followed() {
    let mut world = World::connected();
    for second in 0..30 {
        world.wait(1000);
        let _ = world.send(at(66 + second % 7), &data(20, 1_000_000));
    }
    world.shake(5, 11, 2, 21);
    assert_eq!(world.served(Side::Engineer), [5]);
    assert_eq!(world.addresses(), (Some(5), Some(2)));
}

#[test]
fn a_flood_of_data_with_a_right_index_is_bounded() {
    let mut world = World::connected();
    let passed = (0..10_000).filter(|n| world.send(at(3000 + n % 1000), &data(20, 1 << 40)).is_ok()).count();
    assert!(passed <= 200, "{passed}");
    assert_eq!(world.send(at(1), &data(20, 1)).map(|to| to[0]), Ok(2));
}

#[test]
fn a_replayed_initiation_moves_nothing() {
    let mut world = World::new();
    let _ = world.send(at(2), &initiation(key(ENGINEER), 99, 1));
    let recorded = initiation(key(GATEWAY), 10, 77);
    world.send(at(1), &recorded).expect("genuine");
    assert_eq!(world.send(at(66), &recorded), Err(DropReason::Duplicate));
    world.send(at(2), &response(key(ENGINEER), 20, 10)).expect("answers");
    world.send(at(1), &data(20, 0)).expect("completes");
    let mut cookied = recorded.clone();
    cookied[147] ^= 1;
    for copy in [&recorded, &cookied] {
        assert_eq!(world.send(at(66), copy), Err(DropReason::Duplicate));
    }
    assert_eq!((world.addresses(), world.served(Side::Engineer)), ((Some(1), Some(2)), vec![1]));
    // Long forgotten, it is forwarded; the gateway knows better and does not answer.
    for round in 1..=70u32 {
        world.wait(5000);
        world.shake(1, 10 + round, 2, 200 + round);
    }
    world.wait(5000);
    assert_eq!(world.send(at(66), &recorded), Ok(vec![2]));
    assert_eq!(world.served(Side::Engineer), [1]);
    assert_eq!(world.send(at(2), &data(80, 1)), Ok(vec![1]));
    assert_eq!(world.send(at(1), &data(270, 1)), Ok(vec![2]));
}

#[test]
fn an_initiation_held_back_by_a_limit_cannot_be_sent_from_elsewhere_later() {
    let mut world = World::connected();
    world.wait(10_000);
    let burst: Vec<Vec<u8>> = (0..10).map(|n| initiation(key(GATEWAY), 100 + n, u64::from(n))).collect();
    let limited: Vec<&Vec<u8>> =
        burst.iter().filter(|one| world.send(at(1), one) == Err(DropReason::Limited)).collect();
    assert_eq!(limited.len(), 8);
    world.wait(10_000);
    for one in limited {
        assert_eq!(world.send(at(66), one), Err(DropReason::Duplicate));
    }
}

#[test]
fn at_most_two_initiations_a_second_pass_for_a_session() {
    let mut world = World::connected();
    world.wait(10_000);
    let mut passed = 0;
    for n in 0..1000u32 {
        world.wait(10);
        passed += usize::from(world.send(at(1), &initiation(key(GATEWAY), n, u64::from(n))).is_ok());
        passed += usize::from(world.send(at(66), &initiation(key(GATEWAY), n + 5000, u64::from(n))).is_ok());
    }
    assert!((20..=24).contains(&passed), "{passed} in ten seconds");
}

#[test]
fn a_replayed_or_forged_response_moves_nothing() {
    let mut world = World::connected();
    assert_eq!(world.send(at(66), &response(key(ENGINEER), 20, 10)), Err(DropReason::NoHandshake));
    world.begin(1, 11).expect("forwarded");
    let mut forged = response(key(ENGINEER), 66, 11);
    forged[20] ^= 1;
    assert_eq!(world.send(at(66), &forged), Err(DropReason::BadMac));
    assert_eq!(world.send(at(66), &response(key(GATEWAY), 66, 11)), Err(DropReason::BadMac));
    assert_eq!(world.send(at(2), &response(key(ENGINEER), 21, 11)), Ok(vec![1]));
    assert_eq!(world.send(at(66), &response(key(ENGINEER), 21, 11)), Err(DropReason::Duplicate));
    world.send(at(1), &data(21, 0)).expect("completes");
    assert_eq!(world.addresses(), (Some(1), Some(2)));
    assert_eq!(world.send(at(66), &response(key(ENGINEER), 21, 11)), Err(DropReason::NoHandshake));
}

#[test]
fn a_response_alone_moves_no_responder() {
    let mut world = World::connected();
    world.begin(1, 11).expect("forwarded");
    assert_eq!(world.send(at(66), &response(key(ENGINEER), 66, 11)), Ok(vec![1]));
    assert_eq!(world.addresses(), (Some(1), Some(2)));
    // The engineer does not accept it, and never uses index 66; the next handshake is as good as ever.
    world.wait(5000);
    world.shake(1, 12, 2, 22);
    assert_eq!(world.addresses(), (Some(1), Some(2)));
}

#[test]
fn an_end_takes_its_attempt_back_from_one_who_was_quicker_with_a_copy() {
    let mut world = World::connected();
    world.wait(10_000);
    let fresh = initiation(key(GATEWAY), 11, 500);
    assert_eq!(world.send(at(66), &fresh), Ok(vec![2]), "the copy overtook");
    assert_eq!(world.send(at(1), &fresh), Err(DropReason::Duplicate));
    assert_eq!(world.send(at(2), &response(key(ENGINEER), 21, 11)), Ok(vec![1]));
    world.send(at(1), &data(21, 0)).expect("completes");
    assert_eq!(world.served(Side::Engineer), [1]);
}

#[test]
fn one_who_answers_for_the_former_address_cannot_hold_the_end_there() {
    let mut world = World::connected();
    world.begin(5, 11).expect("forwarded");
    world.send(at(2), &response(key(ENGINEER), 21, 11)).expect("answered");
    world.send(at(1), &data(21, 0)).expect("with the former address as its source");
    assert_eq!(world.addresses().0, Some(1));
    world.send(at(5), &data(21, 0)).expect("the end itself");
    assert_eq!(world.addresses().0, Some(5));
    assert_eq!(world.served(Side::Engineer), [5]);
}

#[test]
fn an_index_that_two_sessions_use_stays_with_its_own_ends() {
    let mut world = World::connected();
    world.relay.open(session(2), key(3), Some(key(4)), END).expect("room");
    let _ = world.send(at(4), &initiation(key(3), 99, 1));
    world.send(at(3), &initiation(key(4), 10, 1)).expect("the same index, other addresses");
    world.send(at(4), &response(key(3), 20, 10)).expect("answers");
    world.send(at(3), &data(20, 0)).expect("completes");
    assert_eq!(world.send(at(1), &data(20, 1)), Ok(vec![2]));
    assert_eq!(world.send(at(3), &data(20, 1)), Ok(vec![4]));
    assert_eq!(world.send(at(2), &data(10, 1)), Ok(vec![1]));
    assert_eq!(world.send(at(4), &data(10, 1)), Ok(vec![3]));
    assert_eq!(world.send(at(66), &data(20, 900)), Err(DropReason::Ambiguous), "from elsewhere it says nothing");
    world.relay.close(session(2));
    assert_eq!(world.send(at(66), &data(20, 900)), Ok(vec![2]));
}

#[test]
fn an_index_that_could_not_be_told_apart_at_one_gateway_is_refused_in_the_handshake() {
    let mut world = World::connected();
    world.relay.open(session(2), key(3), Some(key(4)), END).expect("room");
    let _ = world.send(at(2), &initiation(key(3), 99, 1));
    assert_eq!(world.send(at(3), &initiation(key(4), 10, 1)), Err(DropReason::Collision));
    world.wait(5000);
    assert_eq!(world.send(at(3), &initiation(key(4), 11, 2)), Ok(vec![2]));
    assert_eq!(world.send(at(2), &data(10, 1)), Ok(vec![1]));
}

#[test]
fn an_end_cannot_have_its_own_data_sent_back() {
    let mut world = World::connected();
    assert_eq!(world.send(at(1), &data(10, 500)), Err(DropReason::Foreign));
    assert_eq!(world.send(at(2), &data(20, 500)), Err(DropReason::Foreign));
    assert_eq!(world.served(Side::Gateway), [2]);
}

#[test]
fn a_flood_of_bogus_initiations_costs_little_and_starves_no_end() {
    let mut world = World::connected();
    for n in 2..=200u8 {
        world.relay.open(session(n), key(u16::from(n) * 2 + 1), Some(key(u16::from(n) * 2)), END).expect("room");
    }
    let mut bogus = initiation(key(9999), 1, 1);
    let (mut searched, mut flood) = (0, 0u32);
    for second in 0..5u32 {
        for _ in 0..10_000 {
            flood += 1;
            bogus[20..24].copy_from_slice(&flood.to_le_bytes());
            let from = SocketAddr::from(([10, (flood >> 16) as u8, (flood >> 8) as u8, flood as u8], 1000));
            searched += usize::from(world.send(from, &bogus) == Err(DropReason::UnknownKey));
        }
        world.wait(1000);
        // An end at its known address, one that moved, and one who has never been seen.
        let fresh = u64::from(second) + 100;
        assert_eq!(world.send(at(1), &initiation(key(GATEWAY), 300 + second, fresh)), Ok(vec![2]));
        let newcomer = key(u16::from(second as u8 + 2) * 2);
        let from = SocketAddr::from(([203, 0, 113, second as u8], 9));
        assert_eq!(world.send(from, &initiation(newcomer, 1, fresh)), Err(DropReason::NoAddress));
    }
    assert!(searched < 5_000, "{searched} of {flood} were searched for");
    assert_eq!(world.send(at(1), &data(20, 1)), Ok(vec![2]));
    assert_eq!(world.relay.addresses.len(), 7, "strangers leave nothing behind");
}

#[test]
fn a_flood_is_searched_for_in_bounds_also_when_no_session_waits() {
    let mut world = World::connected();
    for n in 2..=100u8 {
        let (e, g) = (u16::from(n) * 2 + 1, u16::from(n) * 2);
        let (engineer, gateway) = (at(1000 + u16::from(n)), at(2000 + u16::from(n)));
        let (i, r) = (100 + u32::from(n), 300 + u32::from(n));
        world.relay.open(session(n), key(e), Some(key(g)), END).expect("room");
        world.send(gateway, &initiation(key(e), 600, 1)).expect_err("nobody there yet");
        world.send(engineer, &initiation(key(g), i, 1)).expect("forwarded");
        world.send(gateway, &response(key(e), r, i)).expect("answered");
        world.send(engineer, &data(r, 0)).expect("completed");
    }
    assert!(world.relay.waiting.is_empty());
    let bogus = initiation(key(9999), 1, 1);
    let flood = |world: &mut World| {
        let from = |n: u32| SocketAddr::from(([10, 1, (n >> 8) as u8, n as u8], 1000));
        (0..20_000).filter(|n| world.send(from(*n), &bogus) == Err(DropReason::UnknownKey)).count()
    };
    world.wait(10_000);
    assert_eq!(flood(&mut world), 1000, "200 keys each, 200 000 a second");
    // Whoever moved is one of many strangers now, unless it is heard first.
    assert_eq!(world.send(at(5), &initiation(key(GATEWAY), 11, 50)), Err(DropReason::Overload));
    world.send(at(5), &data(20, 9)).expect("the engineer's data");
    assert_eq!(world.send(at(5), &initiation(key(GATEWAY), 11, 51)), Ok(vec![2]));
    assert_eq!(world.send(at(1), &initiation(key(GATEWAY), 12, 52)), Ok(vec![2]));
}

#[test]
fn one_source_cannot_use_up_the_searches_of_others() {
    let mut world = World::connected();
    for n in 2..=200u8 {
        world.relay.open(session(n), key(u16::from(n) * 2 + 1), Some(key(u16::from(n) * 2)), END).expect("room");
    }
    let mut searched = 0;
    for n in 0..10_000u32 {
        let bogus = initiation(key(9999), n, 1);
        searched += usize::from(world.send(at(66), &bogus) != Err(DropReason::Overload));
    }
    assert!(searched <= 101, "{searched}");
    let elsewhere = SocketAddr::from(([203, 0, 113, 1], 9));
    assert_eq!(world.send(elsewhere, &initiation(key(GATEWAY), 11, 5)), Ok(vec![2]));
}

#[test]
fn whatever_is_no_message_of_an_open_session_is_dropped() {
    let mut world = World::connected();
    assert_eq!(world.send(at(1), b""), Err(DropReason::Malformed));
    assert_eq!(world.send(at(1), &[4; 100]), Err(DropReason::Malformed));
    assert_eq!(world.send(at(1), &data(77, 1)), Err(DropReason::UnknownIndex));
    assert_eq!(world.send(at(1), &response(key(ENGINEER), 1, 77)), Err(DropReason::NoHandshake));
    assert_eq!(world.send(at(1), &initiation(key(9999), 1, 1)), Err(DropReason::UnknownKey));
    assert_eq!(world.send(at(1), &data(20, 1)[..31]), Err(DropReason::Malformed));
}
