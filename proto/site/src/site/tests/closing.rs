//! How lanes end.

use thinlane_model::{EndReason, Grant, RefuseReason, Span};
use thinlane_wire::*;

use super::bench::*;
use crate::*;

#[test]
fn a_withdrawn_grant_is_torn_down_in_the_fixed_order_and_recorded_with_its_exact_counters() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    let opened = bench.now.mono;
    bench.pass(Span::from_secs(60));
    bench.count(1, 12);
    bench.clear();
    bench.delta(&[], &[(1, EndReason::Killed)]);
    assert_eq!(
        bench.steps,
        [
            "persist",
            "shut-device",
            "close-lane",
            "remove-peer",
            "drop-flows",
            "remove-route",
            "read-back-closed",
            "sign-closing",
            "persist"
        ]
    );
    assert!(bench.is_clean());
    let records = bench.records();
    let record = &records[0];
    assert_eq!((record.reason, record.serial, record.opened), (EndReason::Killed, 5, Some(opened)));
    assert_eq!((record.closed, record.verified, record.late_packets), (bench.now.mono, true, 2));
    assert_eq!(record.counters.counters.up_packets, 12);
    assert!(bench.events.contains(&SiteEvent::Closed {
        session: session(1),
        reason: EndReason::Killed,
        verified: true
    }));
}

#[test]
fn a_grant_that_vanished_without_a_word_ends_as_failed_and_with_one_for_its_reason() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5), grant(2, 6)]);
    let withdrawn = vec![Withdrawn { session: session(1), reason: EndReason::Policy }];
    bench.message(FromController::Snapshot(Snapshot { generation: 9, grants: vec![], withdrawn }));
    let reasons: Vec<_> = bench.records().iter().map(|record| (record.session, record.reason)).collect();
    assert_eq!(reasons, [(session(1), EndReason::Policy), (session(2), EndReason::Failed)]);
}

#[test]
fn a_lane_ends_exactly_at_its_deadline() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    bench.pass(Span::from_millis(10 * MINUTE - 1));
    assert!(bench.is_open(1));
    bench.pass(Span::from_millis(1));
    assert!(bench.is_clean());
    assert_eq!(bench.records()[0].closed, grant(1, 5).deadline);
    assert_eq!(bench.records()[0].reason, EndReason::Expired);
}

#[test]
fn a_lane_without_packets_ends_as_idle_and_one_with_packets_goes_on() {
    let mut bench = Bench::new();
    let idle = |byte, serial| Grant { idle: Some(Span::from_secs(60)), ..grant(byte, serial) };
    bench.want(&[idle(1, 5), idle(2, 6)]);
    for count in 1..=100 {
        bench.count(1, count);
        bench.count(2, 0);
        bench.pass(Span::from_secs(1));
    }
    assert!(bench.is_open(1) && !bench.is_open(2));
    assert_eq!((bench.records()[0].session, bench.records()[0].reason), (session(2), EndReason::Idle));
}

#[test]
fn a_lane_outlives_its_channel_for_as_long_as_its_grant_says_and_a_reconnect_saves_it() {
    let mut bench = Bench::new();
    let offline = Grant { offline: Span::from_secs(100), ..grant(1, 5) };
    bench.want(&[offline]);
    bench.site.handle_channel(false, bench.now);
    bench.pass(Span::from_secs(99));
    bench.site.handle_channel(true, bench.now);
    bench.pass(Span::from_secs(50));
    assert!(bench.is_open(1));
    bench.site.handle_channel(false, bench.now);
    bench.pass(Span::from_secs(99));
    assert!(bench.is_open(1));
    bench.pass(Span::from_secs(1));
    assert!(bench.is_clean());
    bench.clear();
    bench.site.handle_channel(true, bench.now);
    bench.run();
    assert_eq!(bench.records()[0].reason, EndReason::Offline);
}

#[test]
fn isolating_closes_everything_and_shuts_all_second_locks_before_anything_else() {
    let mut bench = Bench::new();
    let grants: Vec<Grant> = (1..=20).map(|byte| grant(byte, byte.into())).collect();
    bench.want(&grants);
    bench.clear();
    bench.site.handle_isolate(true, bench.now);
    bench.run();
    assert!(bench.is_clean());
    let devices = bench.steps.iter().rposition(|step| *step == "shut-device").expect("done");
    let lanes = bench.steps.iter().position(|step| *step == "close-lane").expect("done");
    assert!(devices < lanes);
    assert!(bench.records().iter().all(|record| record.reason == EndReason::Isolated));
    assert_eq!(bench.records().len(), 20);
    bench.want(&[grant(30, 99)]);
    assert_eq!(bench.refused(), [(Some(session(30)), 99, RefuseReason::Isolated)]);
    bench.site.handle_isolate(false, bench.now);
    bench.want(&[grant(31, 100)]);
    assert!(bench.is_open(31));
}

#[test]
fn a_kill_in_the_middle_of_opening_leaves_nothing() {
    for after in 0..8 {
        let mut bench = Bench::new();
        let snapshot = Snapshot { generation: 1, grants: vec![sign(&grant(1, 5))], withdrawn: vec![] };
        bench.site.handle_message(FromController::Snapshot(snapshot), bench.now);
        for _ in 0..after {
            bench.step();
        }
        let withdrawn = vec![Withdrawn { session: session(1), reason: EndReason::Killed }];
        bench.site.handle_message(
            FromController::Delta(Delta { from_generation: 1, generation: 2, grants: vec![], withdrawn }),
            bench.now,
        );
        bench.run();
        assert!(bench.is_clean(), "killed after {after} steps: {:?}", bench.steps);
        assert_eq!(bench.records()[0].reason, EndReason::Killed);
    }
}

#[test]
fn a_kill_while_a_step_is_being_performed_leaves_nothing() {
    let mut bench = Bench::new();
    bench.want(&[]);
    let snapshot = Snapshot { generation: 2, grants: vec![sign(&grant(1, 5))], withdrawn: vec![] };
    bench.site.handle_message(FromController::Snapshot(snapshot), bench.now);
    loop {
        let effect = bench.site.poll_effect().expect("on the way to open");
        if matches!(effect.step, Step::OpenLane { .. }) {
            bench.lanes.insert(session(1), grant(1, 5).deadline);
            let withdrawn = vec![Withdrawn { session: session(1), reason: EndReason::Killed }];
            let delta = Delta { from_generation: 2, generation: 3, grants: vec![], withdrawn };
            bench.site.handle_message(FromController::Delta(delta), bench.now);
            bench.site.handle_done(effect.id, Ok(Done::Plain), bench.now);
            break;
        }
        let done = match effect.step {
            Step::Keys { .. } => Done::Public(thinlane_model::PublicKey::new([1; 32]).expect("not zero")),
            _ => Done::Plain,
        };
        bench.site.handle_done(effect.id, Ok(done), bench.now);
    }
    bench.run();
    assert!(bench.is_clean());
    assert_eq!(bench.armed(), []);
}

#[test]
fn a_teardown_does_all_it_can_goes_on_trying_and_says_what_is_left() {
    for step in ["shut-device", "close-lane", "remove-peer", "drop-flows", "remove-route", "read-back-closed"] {
        let mut bench = Bench::new();
        bench.want(&[grant(1, 5), grant(2, 6)]);
        bench.failing.insert(step);
        bench.clear();
        bench.delta(&[], &[(1, EndReason::Killed)]);
        for one in ["shut-device", "close-lane", "remove-peer", "drop-flows", "remove-route", "read-back-closed"] {
            assert!(bench.steps.contains(&one), "{step} fails and {one} is done all the same");
        }
        assert_eq!(bench.alarms(), ["teardown"]);
        bench.pass(Span::from_secs(5));
        let record = bench.records().into_iter().next().expect("not kept back for ever");
        assert!(!record.verified);
        assert!(bench.is_open(2), "the other lane is not disturbed");
        bench.pass(Span::from_secs(120));
        // Its address is still in use, so nobody else gets it.
        let other = Grant { session: session(9), ..grant(1, 9) };
        bench.delta(&[other], &[]);
        assert_eq!(bench.refused(), [(Some(session(9)), 9, RefuseReason::Address)]);
        bench.failing.clear();
        bench.pass(Span::from_secs(60));
        assert_eq!(bench.site.lanes().count(), 1);
        bench.delta(&[], &[(2, EndReason::Released)]);
        assert!(bench.is_clean(), "{step}");
        let mut records = bench.records();
        records.dedup();
        records.sort_by_key(|record| record.session);
        records.dedup();
        assert_eq!(records.len(), 2, "one record for each, said again until acknowledged");
    }
}

#[test]
fn closing_records_that_cannot_be_signed_at_first_are_signed_later() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    bench.failing.insert("sign-closing");
    bench.delta(&[], &[(1, EndReason::Released)]);
    bench.pass(Span::from_secs(3));
    assert_eq!(bench.records(), []);
    assert!(bench.is_open(1) == bench.lanes.contains_key(&session(1)) && bench.lanes.is_empty());
    bench.failing.clear();
    bench.pass(Span::from_secs(2));
    assert_eq!(bench.records()[0].reason, EndReason::Released);
}

#[test]
fn closing_records_are_said_again_until_acknowledged() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    bench.delta(&[], &[(1, EndReason::Released)]);
    bench.pass(Span::from_secs(95));
    assert_eq!(bench.records().len(), 4);
    bench.message(FromController::ClosingAck(session(1)));
    bench.clear();
    bench.pass(Span::from_secs(300));
    assert_eq!(bench.records(), []);
}

#[test]
fn a_withdrawn_session_that_never_reached_us_gets_a_record_that_says_so() {
    let mut bench = Bench::new();
    bench.want(&[]);
    bench.delta(&[], &[(7, EndReason::Killed)]);
    let records = bench.records();
    assert_eq!((records[0].session, records[0].serial, records[0].opened), (session(7), 0, None));
    assert_eq!((records[0].reason, records[0].verified), (EndReason::Killed, true));
    bench.message(FromController::ClosingAck(session(7)));
}

#[test]
fn a_lane_that_the_kernel_lost_is_closed_and_reported() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    bench.lanes.clear();
    bench.site.handle_lane_lost(session(1), bench.now);
    bench.run();
    assert!(bench.is_clean());
    assert_eq!(bench.alarms(), ["foreign-change"]);
    assert_eq!(bench.records()[0].reason, EndReason::Failed);
}

#[test]
fn closing_does_not_wait_for_a_state_that_cannot_be_saved() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    bench.failing.insert("persist");
    bench.delta(&[], &[(1, EndReason::Killed)]);
    assert!(bench.is_clean());
}

#[test]
fn a_shutdown_leaves_lanes_as_they_are_or_closes_them_all_and_says_when_it_is_done() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    bench.site.handle_shutdown(Shutdown::Leave, bench.now);
    bench.run();
    assert!(bench.is_open(1) && bench.events.contains(&SiteEvent::Finished));
    assert_eq!(bench.saved.as_ref().map(|saved| saved.lanes.len()), Some(1));

    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    bench.site.handle_shutdown(Shutdown::CloseAll, bench.now);
    bench.run();
    assert!(bench.is_clean() && bench.events.contains(&SiteEvent::Finished));

    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    bench.failing.insert("close-lane");
    bench.site.handle_shutdown(Shutdown::CloseAll, bench.now);
    bench.pass(Span::from_secs(11));
    assert!(bench.events.contains(&SiteEvent::Finished), "not for ever");
}
