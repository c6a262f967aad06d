//! The tests of lanes that the agent's own device passes, with the kernel's WireGuard on Linux 6.1, and what takes long there: in
//! an emulated machine whose time passes with its instructions, so that two minutes of a key's life cost no waiting.

use std::time::Duration;

use thinlane_vm::plan::{self, Part};

/// For a machine that is busy with other things; a quiet one needs a fifth of it.
const PATIENCE: Duration = Duration::from_secs(1800);

const PLAN: &[Part] = &[
    (
        "agent/wg",
        "kernel",
        &[
            "a_silent_engineer_is_looked_for_at_the_lanes_other_place",
            "a_key_is_renewed_between_a_kernel_end_and_ours_whichever_is_the_gateway",
            "a_kernel_gateway_is_reached_over_ipv6_and_in_foul_weather_and_no_byte_is_lost",
        ],
        &[],
    ),
    (
        "agent/daemon",
        "kernel_backend",
        &[
            "a_kernel_lane_counts_on_over_an_update_and_ends_on_time_without_its_controller",
            "without_the_kernels_module_the_kernel_is_refused_and_auto_is_the_agents_own",
            "an_interface_that_somebody_removes_is_told_and_its_lane_stands_again",
        ],
        &[],
    ),
    (
        "agent/daemon",
        "daemon",
        &[
            "a_lane_opens_carries_and_closes_with_a_signed_record_and_leaves_nothing",
            "a_killed_agent_resumes_its_lane_within_two_seconds_and_replays_nothing",
            "a_tcp_connection_survives_a_killed_agent_and_a_flush_and_is_reset_at_the_end",
            "a_tcp_connection_survives_an_upgrade_of_the_agent",
            "an_update_keeps_lanes_and_a_lane_without_an_agent_ends_on_time",
            "expiry_ends_the_lane_on_time_and_an_extension_moves_it",
            "a_flushed_ruleset_closes_first_and_then_the_lane_goes_on",
            "the_sites_own_switch_closes_everything_and_nothing_remote_opens_it",
            "a_lane_closes_after_a_crash_between_any_two_steps_and_the_record_arrives",
            "packets_that_a_lane_does_not_pass_are_counted_and_named",
            "check_finds_what_somebody_else_opened_and_names_it",
            "a_stopped_agent_keeps_nothing_open_and_isolates_all_the_same",
            "cleanup_ends_an_agent_that_hangs_and_leaves_nothing_of_it",
        ],
        &[("THINLANE_TEST_BACKEND", "kernel")],
    ),
];

#[test]
#[ignore = "computes for minutes: scripts/test --ignored steady_linux runs it"]
fn on_a_steady_linux_6_1_what_holds_for_the_agents_own_device_holds_for_the_kernels() {
    let outcomes = plan::run_steadily(PLAN, PATIENCE).expect("the machine ran everything");
    for ((.., tests, _), outcome) in PLAN.iter().zip(&outcomes) {
        let missing: Vec<&&str> = tests.iter().filter(|test| !outcome.passed().contains(test)).collect();
        assert!(
            missing.is_empty() && outcome.exit == 0,
            "{}: not passed: {missing:?}\n{}",
            outcome.label,
            outcome.output
        );
    }
}
