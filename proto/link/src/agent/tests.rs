//! What is expected of `agent`, as tests.

use thinlane_model::{Span, Wall};
use thinlane_wire::{Delta, RenewAnswer, Withdrawn};

use super::*;
use crate::pair::{Pair, config, session};

fn retry_after(pair: &Pair) -> Span {
    let Some(AgentEvent::Down { retry_at: Some(at), .. }) =
        pair.agent_events.iter().rev().find(|event| matches!(event, AgentEvent::Down { .. }))
    else {
        panic!("down: {:?}", pair.agent_events)
    };
    pair.now.mono.until(*at)
}

#[test]
fn an_idle_day_fits_the_budget_of_a_metered_link() {
    let mut pair = Pair::up();
    pair.frames.clear();
    pair.pass(Span::from_secs(24 * 3600));
    assert_eq!(pair.agent.state(), AgentState::Up);
    // Each frame is a TLS record (5 header, 1 type, 16 tag) in a TCP segment (20 IP, 20 TCP, 12 timestamps); each
    // exchange is followed by one bare acknowledgement, and each may be lost and sent again one time in fifty.
    let frames: usize = pair.frames.iter().map(|len| len + 22 + 52).sum();
    let acks = pair.frames.len() / 2 * 52;
    let day = (frames + acks) * 102 / 100;
    assert!(day <= 100_000, "{day} bytes a day, {} frames", pair.frames.len());
    assert!(pair.frames.len() > 500, "an idle channel is still looked after: {}", pair.frames.len());
}

#[test]
fn a_dead_channel_is_known_within_ten_seconds_while_a_lane_is_armed() {
    let mut pair = Pair::up();
    pair.pass(Span::from_secs(1000));
    pair.agent.handle_lanes(1, pair.now);
    if let Some(controller) = &mut pair.controller {
        controller.handle_armed(true, pair.now);
    }
    pair.pass(Span::from_secs(60));
    pair.black_hole = true;
    let from = pair.now.mono;
    pair.agent_events.clear();
    pair.link_events.clear();
    for _ in 0..110 {
        pair.pass(Span::from_millis(100));
        if pair.agent.state() != AgentState::Up && pair.controller.is_none() {
            break;
        }
    }
    assert!(from.until(pair.now.mono) <= Span::from_secs(10), "{}", from.until(pair.now.mono));
    assert_eq!(pair.agent.state(), AgentState::Backoff);
    assert!(pair.link_events.iter().any(|event| matches!(event, LinkEvent::Down { .. })));
}

use crate::LinkEvent;

#[test]
fn silence_while_armed_never_exceeds_five_seconds() {
    let mut pair = Pair::up();
    pair.agent.handle_lanes(3, pair.now);
    pair.frames.clear();
    for _ in 0..100 {
        let before = pair.frames.len();
        pair.pass(Span::from_secs(5));
        assert!(pair.frames.len() > before);
    }
}

#[test]
fn an_idle_interval_that_lost_the_channel_is_not_tried_again_the_same_day() {
    let mut pair = Pair::up();
    pair.pass(Span::from_secs(3600));
    pair.black_hole = true;
    pair.pass(Span::from_secs(400));
    assert_ne!(pair.agent.state(), AgentState::Up);
    pair.black_hole = false;
    pair.pass(Span::from_secs(600));
    assert_eq!(pair.agent.state(), AgentState::Up);
    pair.pass(Span::from_secs(3600));
    pair.frames.clear();
    pair.pass(Span::from_secs(3600));
    assert_eq!(pair.frames.len(), 2 * 3600 / 180, "every 180 s instead of 240 s");
}

#[test]
fn the_back_off_doubles_up_to_its_longest_and_begins_anew_only_after_a_log_in() {
    let mut pair = Pair::new();
    pair.agent.handle_start(pair.now);
    let mut spans = Vec::new();
    for _ in 0..12 {
        assert_eq!(pair.agent.poll_effect(), Some(AgentEffect::Connect));
        // TLS stands, and then the connection ends before the welcome: no log-in.
        pair.agent.handle_connected(pair.now);
        pair.agent.handle_disconnected("refused", pair.now);
        while let Some(event) = pair.agent.poll_event() {
            pair.agent_events.push(event);
        }
        while pair.agent.poll_effect().is_some() {}
        let span = retry_after(&pair);
        spans.push(span);
        pair.now.mono = pair.now.mono + span;
        pair.agent.handle_timeout(pair.now);
    }
    for (times, span) in spans.iter().enumerate() {
        let full = Span::from_secs(1 << times.min(7)).min(Span::from_secs(120));
        assert!(*span >= Span::from_millis(full.as_millis() / 2) && *span <= full, "{times}: {span}");
    }
    pair.run();
    assert_eq!(pair.agent.state(), AgentState::Up);
    pair.agent.handle_disconnected("reset", pair.now);
    pair.run();
    assert!(retry_after(&pair) <= Span::from_secs(1));
}

#[test]
fn gateways_that_lose_their_controller_together_do_not_come_back_together() {
    let mut spans = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut agent = AgentLink::new(config(), seed, Now::default());
        agent.handle_start(Now::default());
        for _ in 0..6 {
            agent.handle_disconnected("gone", Now::default());
            agent.handle_network_changed(Now::default());
        }
        agent.handle_disconnected("gone", Now::default());
        spans.insert(agent.poll_timeout().expect("it will come back"));
    }
    assert!(spans.len() > 190, "{}", spans.len());
}

#[test]
fn a_network_that_came_back_is_used_at_once() {
    let mut pair = Pair::new();
    pair.black_hole = true;
    pair.agent.handle_start(pair.now);
    pair.pass(Span::from_secs(1000));
    assert_ne!(pair.agent.state(), AgentState::Up);
    pair.black_hole = false;
    if pair.agent.state() == AgentState::Connecting {
        pair.agent.handle_disconnected("no route", pair.now);
    }
    pair.agent.handle_network_changed(pair.now);
    pair.run();
    assert_eq!(pair.agent.state(), AgentState::Up);
}

#[test]
fn connection_numbers_rise_also_across_a_restart_of_the_agent() {
    let hello = |pair: &Pair| match pair.link_events.first() {
        Some(LinkEvent::Hello(hello)) => hello.connection,
        other => panic!("{other:?}"),
    };
    let mut pair = Pair::up();
    let first = hello(&pair);
    pair.agent = AgentLink::new(config(), 8, pair.now);
    pair.link_events.clear();
    pair.pass(Span::from_millis(5));
    pair.agent.handle_start(pair.now);
    pair.run();
    assert!(hello(&pair) > first);
}

#[test]
fn a_delta_that_does_not_follow_on_what_we_have_is_not_applied_and_asks_for_the_whole() {
    let mut pair = Pair::up();
    pair.want(crate::pair::desired(2, &[(1, 1)], &[]));
    pair.messages();
    let stray = FromController::Delta(Delta {
        from_generation: 77,
        generation: 78,
        grants: vec![],
        withdrawn: vec![Withdrawn { session: session(1), reason: thinlane_model::EndReason::Killed }],
    });
    pair.controller.as_mut().expect("up").handle_send(&stray, pair.now);
    pair.run();
    assert_eq!(pair.messages(), []);
    assert_eq!(pair.agent.state(), AgentState::Up);
}

#[test]
fn deltas_that_arrive_in_one_read_are_all_delivered() {
    let mut pair = Pair::up();
    let controller = pair.controller.as_mut().expect("up");
    for generation in 2..10 {
        controller.handle_desired(crate::pair::desired(generation, &[(1, generation)], &[]), pair.now);
    }
    let mut bytes = Vec::new();
    while let Some(crate::LinkEffect::Send(frame)) = controller.poll_effect() {
        bytes.extend_from_slice(&frame);
    }
    pair.agent.handle_bytes(&bytes, pair.now);
    pair.run();
    assert_eq!(pair.messages().iter().filter(|one| matches!(one, FromController::Delta(_))).count(), 8);
    let known = pair.known.expect("the last was taken over");
    assert_eq!(known.generation(), 9);
}

#[test]
fn whoever_speaks_before_its_welcome_is_hung_up_on() {
    for message in [
        FromController::Pong(1),
        FromController::Snapshot(thinlane_wire::Snapshot { generation: 1, grants: vec![], withdrawn: vec![] }),
        FromController::Renewed(RenewAnswer::Refused("no".into())),
    ] {
        let mut agent = AgentLink::new(config(), 1, Now::default());
        agent.handle_start(Now::default());
        agent.handle_connected(Now::default());
        agent.handle_bytes(&message.encode().expect("short"), Now::default());
        assert_eq!(agent.state(), AgentState::Backoff, "{message:?}");
        let events: Vec<_> = std::iter::from_fn(|| agent.poll_event()).collect();
        assert!(!events.iter().any(|event| matches!(event, AgentEvent::Message(_) | AgentEvent::Up(_))));
    }
}

#[test]
fn a_protocol_that_is_too_new_is_hung_up_on() {
    let mut agent = AgentLink::new(config(), 1, Now::default());
    agent.handle_start(Now::default());
    agent.handle_connected(Now::default());
    let welcome = Welcome {
        protocol: PROTOCOL + 1,
        wall: Wall::default(),
        keepalive_idle: Span::from_secs(60),
        keepalive_armed: Span::from_secs(5),
        direct_port: None,
    };
    agent.handle_bytes(&FromController::Welcome(welcome).encode().expect("short"), Now::default());
    assert_eq!(agent.state(), AgentState::Backoff);
}

#[test]
fn a_frozen_or_revoked_gateway_stays_away_for_a_while() {
    for (reason, least) in
        [(GoodbyeReason::Frozen, 30), (GoodbyeReason::Revoked, 150), (GoodbyeReason::ShuttingDown, 1)]
    {
        let mut pair = Pair::up();
        pair.controller.as_mut().expect("up").handle_goodbye(reason, "", pair.now);
        pair.run();
        assert!(retry_after(&pair) >= Span::from_secs(least), "{reason:?}");
        assert!(pair.agent_events.iter().any(|event| matches!(event, AgentEvent::Goodbye(_))));
    }
}

#[test]
fn garbage_ends_the_connection_and_nothing_else() {
    let mut seed = 88_172_645_463_325_252_u64;
    for round in 0..2000_u64 {
        let mut pair_agent = AgentLink::new(config(), round, Now::default());
        pair_agent.handle_start(Now::default());
        pair_agent.handle_connected(Now::default());
        let bytes: Vec<u8> = (0..64)
            .map(|at| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                if at < 3 { 0 } else { (seed & 0xff) as u8 }
            })
            .collect();
        pair_agent.handle_bytes(&bytes, Now::default());
        let events: Vec<_> = std::iter::from_fn(|| pair_agent.poll_event()).collect();
        assert!(!events.iter().any(|event| matches!(event, AgentEvent::Up(_))), "{events:?}");
    }
}

#[test]
fn after_a_stop_nothing_dials() {
    let mut pair = Pair::up();
    pair.agent.handle_stop(pair.now);
    pair.pass(Span::from_secs(10_000));
    assert_eq!(pair.agent.state(), AgentState::Idle);
    assert!(pair.controller.is_none());
}
