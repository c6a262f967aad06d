//! How lanes open, and stay.

use thinlane_model::{Boot, Counters, EndReason, Grant, Path, RefuseReason, Span};
use thinlane_wire::*;

use super::bench::*;
use crate::*;

#[test]
fn a_grant_becomes_a_lane_in_the_fixed_order_and_is_saved_before_the_first_step() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    assert_eq!(bench.steps, ["persist", "keys", "open-device", "add-route", "open-lane", "read-back", "persist"]);
    assert!(bench.is_open(1));
    assert_eq!(bench.armed(), [(session(1), 5, grant(1, 5).deadline)]);
    let lanes: Vec<LaneView> = bench.site.lanes().collect();
    assert_eq!((lanes.len(), lanes[0].state, lanes[0].opened), (1, LaneState::Open, Some(bench.now.mono)));
}

#[test]
fn the_base_is_built_before_anything_else() {
    let now = thinlane_model::Now { mono: Boot(100 * MINUTE), ..Default::default() };
    let mut site = Site::new(site_config(), None, now);
    let snapshot = Snapshot { generation: 1, grants: vec![sign(&grant(1, 1))], withdrawn: vec![] };
    site.handle_message(FromController::Snapshot(snapshot), now);
    assert_eq!(site.poll_effect().map(|effect| effect.step), Some(Step::RebuildBase));
}

#[test]
fn the_same_state_again_changes_nothing() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5), grant(2, 6)]);
    bench.clear();
    for _ in 0..3 {
        bench.want(&[grant(1, 5), grant(2, 6)]);
    }
    assert_eq!(bench.steps, Vec::<&str>::new());
    assert_eq!((bench.armed(), bench.refused(), bench.records()), (vec![], vec![], vec![]));
}

#[test]
fn a_later_grant_extends_the_lane_and_says_so() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    bench.clear();
    let later = Grant { serial: 9, deadline: grant(1, 5).deadline + Span::from_secs(600), ..grant(1, 5) };
    bench.delta(std::slice::from_ref(&later), &[]);
    assert_eq!(bench.steps, ["extend-lane", "extend-device", "persist"]);
    assert_eq!(bench.armed(), [(session(1), 9, later.deadline)]);
    bench.pass(Span::from_secs(19 * 60));
    assert!(bench.is_open(1));
    bench.pass(Span::from_secs(60));
    assert!(bench.is_clean());
    assert_eq!(bench.records()[0].serial, 9);
}

#[test]
fn an_extension_that_fails_is_refused_and_the_lane_ends_when_it_would_have() {
    for step in ["extend-lane", "extend-device"] {
        let mut bench = Bench::new();
        bench.want(&[grant(1, 5)]);
        bench.failing.insert(step);
        bench.delta(&[Grant { serial: 9, deadline: grant(1, 5).deadline + Span::from_secs(600), ..grant(1, 5) }], &[]);
        assert_eq!(bench.refused(), [(Some(session(1)), 9, RefuseReason::Kernel)]);
        assert!(bench.is_open(1));
        bench.pass(Span::from_secs(600));
        assert!(bench.is_clean());
        assert_eq!((bench.records()[0].reason, bench.records()[0].serial), (EndReason::Expired, 5));
    }
}

#[test]
fn two_extensions_in_a_row_end_at_the_last() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    let later = |serial, secs| Grant { serial, deadline: grant(1, 5).deadline + Span::from_secs(secs), ..grant(1, 5) };
    bench.site.handle_message(
        FromController::Snapshot(Snapshot { generation: 2, grants: vec![sign(&later(6, 60))], withdrawn: vec![] }),
        bench.now,
    );
    bench.site.handle_message(
        FromController::Snapshot(Snapshot { generation: 3, grants: vec![sign(&later(7, 120))], withdrawn: vec![] }),
        bench.now,
    );
    bench.run();
    assert_eq!(bench.lanes[&session(1)], later(7, 120).deadline);
    assert_eq!(bench.devices[&session(1)], later(7, 120).deadline);
}

#[test]
fn after_a_flush_peers_go_first_then_the_base_stands_then_lanes_open_again_and_nothing_counted_is_lost() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5), grant(2, 6)]);
    bench.count(1, 40);
    bench.clear();
    bench.lanes.clear();
    // What crossed since the last report is in the device's last word alone.
    bench.counters.insert(session(1), Counters { up_packets: 45, ..Counters::default() });
    bench.site.handle_ruleset_flushed(bench.now);
    bench.run();
    assert_eq!(bench.steps[..3], ["remove-all-peers", "rebuild-base", "persist"]);
    assert!(!bench.steps.contains(&"keys"));
    assert!(bench.is_open(1) && bench.is_open(2));
    assert_eq!(bench.alarms(), ["ruleset-flushed"]);
    bench.count(1, 2);
    bench.delta(&[], &[(1, EndReason::Released)]);
    assert_eq!(bench.records()[0].counters.counters.up_packets, 47);
}

#[test]
fn a_flush_in_the_middle_of_opening_ends_with_the_lane_open_on_a_base_that_stands() {
    for after in 0..12 {
        let mut bench = Bench::new();
        let snapshot = Snapshot { generation: 1, grants: vec![sign(&grant(1, 5))], withdrawn: vec![] };
        bench.site.handle_message(FromController::Snapshot(snapshot), bench.now);
        for _ in 0..after {
            bench.step();
        }
        bench.lanes.clear();
        bench.site.handle_ruleset_flushed(bench.now);
        bench.run();
        assert!(bench.is_open(1), "flushed after {after} steps: {:?}", bench.steps);
        assert_eq!(bench.armed().last().map(|armed| armed.1), Some(5));
    }
}

#[test]
fn while_the_base_cannot_be_built_nothing_opens_and_it_is_tried_again() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    bench.failing.insert("rebuild-base");
    bench.lanes.clear();
    bench.site.handle_ruleset_flushed(bench.now);
    bench.run();
    assert!(bench.devices.is_empty(), "peers went first and stay away");
    bench.want(&[grant(1, 5), grant(2, 6)]);
    assert_eq!(bench.refused(), [(Some(session(2)), 6, RefuseReason::NotReady)]);
    bench.pass(Span::from_secs(5));
    assert!(bench.devices.is_empty());
    bench.failing.clear();
    bench.pass(Span::from_secs(2));
    assert!(bench.is_open(1), "what ran goes on");
}

#[test]
fn a_failing_step_of_an_opening_refuses_the_grant_and_leaves_nothing() {
    for step in ["keys", "open-device", "add-route", "open-lane", "read-back"] {
        let mut bench = Bench::new();
        bench.failing.insert(step);
        bench.want(&[grant(1, 5)]);
        assert_eq!(bench.refused(), [(Some(session(1)), 5, RefuseReason::Kernel)], "{step}");
        assert!(bench.is_clean(), "{step}");
        assert_eq!(bench.site.lanes().count(), 0);
        assert_eq!(bench.records(), [], "it never stood");
        bench.failing.clear();
        bench.want(&[grant(1, 5)]);
        assert!(!bench.is_open(1), "once refused it stays refused");
    }
}

#[test]
fn what_cannot_be_saved_is_not_opened() {
    let mut bench = Bench::new();
    bench.failing.insert("persist");
    bench.want(&[grant(1, 5)]);
    assert_eq!(bench.refused(), [(Some(session(1)), 5, RefuseReason::Kernel)]);
    assert!(bench.is_clean());
    assert!(!bench.steps.contains(&"open-lane"));
    assert_eq!(bench.alarms(), ["state"]);
    bench.failing.clear();
    bench.pass(Span::from_secs(2));
    bench.delta(&[grant(2, 6)], &[]);
    assert!(bench.is_open(2));
}

#[test]
fn counters_are_absolute_over_devices_and_sent_at_most_once_a_second() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    bench.clear();
    let reports = |bench: &Bench| -> Vec<u64> {
        let counts = |message: &FromAgent| match message {
            FromAgent::Counters(counts) => Some(counts[0].counters.up_packets),
            _ => None,
        };
        bench.sent.iter().filter_map(counts).collect()
    };
    for count in 1..=20 {
        bench.count(1, count);
        bench.pass(Span::from_millis(100));
    }
    bench.pass(Span::from_secs(2));
    let sent = reports(&bench);
    assert!(sent.len() <= 4 && sent.last() == Some(&20), "{sent:?}");
    bench.clear();
    for _ in 0..10 {
        bench.count(1, 20);
        bench.pass(Span::from_secs(1));
    }
    assert_eq!(reports(&bench), Vec::<u64>::new(), "silent when nothing changes");
}

#[test]
fn a_device_that_counts_from_zero_again_loses_nothing() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    bench.count(1, 30);
    bench.count(1, 4);
    let counters: Counters = bench.site.lanes().next().expect("open").counters;
    assert_eq!(counters.up_packets, 34);
}

#[test]
fn everything_the_controller_may_have_missed_is_said_again_at_log_in() {
    let mut bench = Bench::new();
    let stranger = Grant { site: "site_00000002".parse().expect("an id"), ..grant(3, 7) };
    bench.want(&[grant(1, 5), grant(2, 6), stranger]);
    bench.delta(&[], &[(2, EndReason::Killed)]);
    bench.site.handle_channel(false, bench.now);
    bench.clear();
    bench.site.handle_channel(true, bench.now);
    bench.run();
    assert_eq!(bench.records().len(), 1);
    assert_eq!(bench.armed().len(), 1);
    assert_eq!(bench.refused(), [(Some(session(3)), 7, RefuseReason::Site)]);
    assert!(bench.sent.iter().any(|message| matches!(message, FromAgent::Status(status) if status.lanes == 1)));
    assert!(matches!(bench.sent[0], FromAgent::Closing(_)), "what ended is said first");
    bench.message(FromController::ClosingAck(session(2)));
    bench.clear();
    bench.site.handle_channel(false, bench.now);
    bench.site.handle_channel(true, bench.now);
    bench.run();
    assert_eq!(bench.records(), [], "acknowledged");
}

#[test]
fn messages_for_others_are_given_back() {
    let mut bench = Bench::new();
    let message = FromController::Renewed(RenewAnswer::Refused("no".into()));
    assert_eq!(bench.site.handle_message(message.clone(), bench.now), Some(message));
}

#[test]
fn a_delta_on_another_generation_changes_nothing_and_asks_for_the_whole() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    bench.clear();
    let withdrawn = vec![Withdrawn { session: session(1), reason: EndReason::Killed }];
    bench.message(FromController::Delta(Delta { from_generation: 7, generation: 8, grants: vec![], withdrawn }));
    assert!(bench.is_open(1));
    let state = [(session(1), 5)].into();
    let applied = Applied { generation: 1, digest: state_digest(&state) };
    assert_eq!(bench.sent, [FromAgent::Applied(applied)]);
}

#[test]
fn the_report_queue_is_bounded_and_what_was_left_out_is_said_when_there_is_room() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    for times in 0..10_000 {
        bench.site.handle_alarm("clock-jump", &times.to_string(), bench.now);
    }
    let mut events = 0;
    let mut armed = false;
    while let Some(event) = bench.site.poll_event() {
        events += 1;
        armed |= matches!(event, SiteEvent::Send(FromAgent::Armed(_)));
        assert!(events < 20_000);
    }
    assert!(armed, "everything was said again");
}

#[test]
fn whatever_address_a_relay_has_by_its_name_who_is_heard_there_came_through_it() {
    for (relay, seen, path) in [
        ("relay:7443", "198.51.100.2:7443", Path::Relay),
        ("relay:7443", "203.0.113.77:7443", Path::Relay),
        ("relay:7443", "[2001:db8::2]:7443", Path::Relay),
        ("relay:7443", "198.51.100.2:40123", Path::Direct),
        // One that was given by its address has no other.
        ("198.51.100.2:7443", "198.51.100.2:7443", Path::Relay),
        ("198.51.100.2:7443", "203.0.113.77:7443", Path::Direct),
        ("[2001:db8::2]:7443", "[2001:db8:0::2]:7443", Path::Relay),
    ] {
        let mut bench = Bench::new();
        bench.want(&[Grant { relay: Some(relay.parse().expect("an endpoint")), ..grant(1, 5) }]);
        bench.see(1, seen);
        bench.pass(Span::from_secs(2));
        let mut told = bench.sent.iter().rev().filter_map(|message| match message {
            FromAgent::Counters(counts) => counts[0].path,
            _ => None,
        });
        assert_eq!(told.next(), Some(path), "{relay}, heard at {seen}");
    }
}
