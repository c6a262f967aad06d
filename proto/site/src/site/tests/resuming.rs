//! Restarts, reboots, and crashes between any two steps.

use thinlane_model::{BootId, EndReason, Grant, Span};
use thinlane_wire::*;

use super::bench::*;

#[test]
fn after_a_restart_open_lanes_go_on_with_the_keys_and_counters_they_had() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    bench.count(1, 10);
    bench.pass(Span::from_secs(11));
    bench.count(1, 11);
    bench.restart(site_config().boot);
    assert!(bench.is_open(1));
    assert_eq!(bench.steps[0], "rebuild-base");
    bench.counters.clear();
    bench.site.handle_channel(true, bench.now);
    bench.run();
    assert_eq!(bench.armed(), [(session(1), 5, grant(1, 5).deadline)]);
    bench.count(1, 3);
    bench.want(&[]);
    assert_eq!(bench.records()[0].counters.counters.up_packets, 14);
}

#[test]
fn counters_that_a_kernel_merged_stay_marked_whoever_counts_after_a_restart() {
    for counts_on in [false, true] {
        let mut bench = Bench::new();
        bench.want(&[grant(1, 5)]);
        bench.count_by(1, 10, true);
        bench.pass(Span::from_secs(11));
        bench.count_by(1, 11, true);
        bench.restart(site_config().boot);
        bench.counters.clear();
        bench.site.handle_channel(true, bench.now);
        bench.run();
        if counts_on {
            bench.count(1, 3);
        }
        bench.want(&[]);
        let record = bench.records().remove(0);
        assert!(record.counters.merged && record.counters.counters.up_packets >= 10, "{counts_on}: {record:?}");
    }
}

#[test]
fn a_lane_that_expired_while_the_agent_was_away_is_cleaned_up_and_recorded() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    bench.now.mono = grant(1, 5).deadline + Span::from_secs(5);
    bench.restart(site_config().boot);
    assert!(bench.is_clean());
    assert!(!bench.steps.contains(&"open-lane"));
    bench.site.handle_channel(true, bench.now);
    bench.run();
    assert_eq!(bench.records()[0].reason, EndReason::Expired);
}

#[test]
fn a_reboot_opens_nothing_and_says_that_its_lanes_ended() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    bench.lanes.clear();
    bench.routes.clear();
    bench.keys.clear();
    bench.restart(BootId([2; 16]));
    assert!(bench.is_clean());
    bench.site.handle_channel(true, bench.now);
    bench.run();
    let record = bench.records().into_iter().next().expect("one");
    assert_eq!((record.reason, record.boot, record.serial), (EndReason::Failed, BootId([1; 16]), 5));
    bench.want(&[grant(1, 5)]);
    assert_eq!(bench.refused()[0].2, thinlane_model::RefuseReason::Boot);
}

#[test]
fn the_time_without_a_channel_goes_on_across_a_restart() {
    let mut bench = Bench::new();
    bench.want(&[Grant { offline: Span::from_secs(100), ..grant(1, 5) }]);
    bench.site.handle_channel(false, bench.now);
    bench.pass(Span::from_secs(60));
    bench.restart(site_config().boot);
    assert!(bench.is_open(1));
    bench.pass(Span::from_secs(41));
    assert!(bench.is_clean());
}

#[test]
fn a_restart_does_not_begin_anew_to_count_the_time_without_a_channel() {
    let mut bench = Bench::new();
    bench.want(&[Grant { offline: Span::from_secs(100), ..grant(1, 5) }]);
    bench.pass(Span::from_secs(300));
    assert!(bench.is_open(1));
    // The agent dies with its channel up, and stays away for most of the time that its lanes may be alone.
    bench.devices.clear();
    bench.now.mono = bench.now.mono + Span::from_secs(60);
    bench.restart(site_config().boot);
    assert!(bench.is_open(1));
    bench.pass(Span::from_secs(41));
    assert!(bench.is_clean());
}

#[test]
fn an_idle_lane_is_not_closed_by_a_restart_after_a_long_quiet_time() {
    let mut bench = Bench::new();
    bench.want(&[Grant { offline: Span::from_secs(40), ..grant(1, 5) }]);
    bench.pass(Span::from_secs(329));
    bench.restart(site_config().boot);
    assert!(bench.is_open(1));
}

#[test]
fn ceilings_and_the_switch_hold_for_lanes_that_are_resumed() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    bench.config.ceilings.ports = Some(vec![22]);
    bench.restart(site_config().boot);
    assert!(bench.is_clean() && !bench.steps.contains(&"open-lane"));

    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    bench.config.isolated = true;
    bench.restart(site_config().boot);
    assert!(bench.is_clean() && !bench.steps.contains(&"open-lane"));
    bench.site.handle_channel(true, bench.now);
    bench.run();
    assert_eq!(bench.records()[0].reason, EndReason::Isolated);
}

#[test]
fn a_saved_state_that_was_tampered_with_opens_nothing() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    let stranger = GrantSigner::new(ed25519_dalek::SigningKey::from_bytes(&[8; 32]));
    if let Some(saved) = &mut bench.saved {
        saved.lanes[0].grant = stranger.sign(&grant(1, 5), None);
    }
    bench.restart(site_config().boot);
    assert!(bench.lanes.is_empty() && bench.devices.is_empty());
    bench.site.handle_channel(true, bench.now);
    bench.run();
    assert_eq!(bench.alarms(), ["state"]);
}

#[test]
fn unacknowledged_records_and_alarms_survive_a_restart_and_alarm_numbers_rise() {
    let mut bench = Bench::new();
    bench.want(&[grant(1, 5)]);
    bench.site.handle_alarm("clock-jump", "", bench.now);
    bench.delta(&[], &[(1, EndReason::Released)]);
    let number = |bench: &Bench| -> Vec<u64> {
        let number = |message: &FromAgent| match message {
            FromAgent::Alarm(alarm) => Some(alarm.number),
            _ => None,
        };
        bench.sent.iter().filter_map(number).collect()
    };
    let first = number(&bench)[0];
    bench.restart(site_config().boot);
    bench.site.handle_channel(true, bench.now);
    bench.site.handle_alarm("clock-jump", "", bench.now);
    bench.run();
    assert_eq!(bench.records().len(), 1);
    let numbers = number(&bench);
    assert!(numbers[0] == first && numbers[1] > first, "{numbers:?}");
    bench.message(FromController::AlarmAck(first));
    bench.message(FromController::AlarmAck(numbers[1]));
    bench.message(FromController::ClosingAck(session(1)));
    bench.restart(site_config().boot);
    bench.site.handle_channel(true, bench.now);
    bench.run();
    assert_eq!((bench.records().len(), number(&bench).len()), (0, 0));
}

/// Opens, extends and closes while the agent dies after every possible number of steps.
#[test]
fn a_crash_between_any_two_steps_converges() {
    for crash in 0..40 {
        let mut bench = Bench::new();
        let later = Grant { serial: 7, deadline: grant(1, 5).deadline + Span::from_secs(60), ..grant(1, 5) };
        let mut left: u32 = crash;
        let mut crashed = false;
        let stages: [&[Grant]; 3] = [&[grant(1, 5)], std::slice::from_ref(&later), &[]];
        for (at, wanted) in stages.into_iter().enumerate() {
            let grants = wanted.iter().map(sign).collect();
            let withdrawn = match at {
                2 => vec![Withdrawn { session: session(1), reason: EndReason::Killed }],
                _ => vec![],
            };
            let generation = at as u64 + 1;
            let message = FromController::Snapshot(Snapshot { generation, grants, withdrawn });
            bench.site.handle_message(message.clone(), bench.now);
            loop {
                if left == 0 && !crashed {
                    crashed = true;
                    bench.restart(site_config().boot);
                    bench.site.handle_channel(true, bench.now);
                    bench.message(message.clone());
                }
                left = left.saturating_sub(1);
                if !bench.step() {
                    break;
                }
            }
            let deadline = wanted.first().map(|grant| grant.deadline);
            let clear = |what: &str| format!("{what} after a crash at {crash}, stage {at}: {:?}", bench.steps);
            assert_eq!(bench.lanes.get(&session(1)).copied(), deadline, "{}", clear("nftables"));
            assert_eq!(bench.devices.get(&session(1)).copied(), deadline, "{}", clear("device"));
        }
        assert!(bench.is_clean());
        let record = bench.records().pop().expect("a record, whenever it died");
        assert_eq!(record.reason, EndReason::Killed);
        assert!(record.opened.is_some() && record.verified);
    }
}

/// A crash in the middle of a teardown, and no channel to say so again: what was to end does not come back.
#[test]
fn an_end_that_was_decided_stands_after_a_crash_without_a_channel() {
    for crash in 1..9 {
        let mut bench = Bench::new();
        bench.want(&[grant(1, 5)]);
        let withdrawn = vec![Withdrawn { session: session(1), reason: EndReason::Killed }];
        let message = FromController::Snapshot(Snapshot { generation: 2, grants: vec![], withdrawn });
        bench.site.handle_message(message, bench.now);
        for _ in 0..crash {
            bench.step();
        }
        bench.restart(site_config().boot);
        assert!(bench.is_clean(), "crash after {crash} steps");
        bench.site.handle_channel(true, bench.now);
        bench.run();
        assert_eq!(bench.records().len(), 1);
        assert_eq!(bench.records()[0].reason, EndReason::Killed);
    }
}
