//! What only shows on another kernel than this one: Linux 6.1 with WireGuard, in an emulated machine.
//!
//! The machine boots once; each test here looks at its part of what it said.

use std::sync::OnceLock;
use std::time::Duration;

use thinlane_vm::Outcome;
use thinlane_vm::plan::{self, Part};

/// For a machine that is busy with other things; a quiet one needs a tenth of it.
const PATIENCE: Duration = Duration::from_secs(600);

/// Which tests run there.
const PLAN: &[Part] = &[
    (
        "agent/nft",
        "life",
        &[
            "an_extended_lane_outlives_its_first_deadline_and_ends_at_the_second",
            "running_flows_stop_at_expiry_with_nobody_acting",
            "an_expired_lane_is_closed_with_its_counters_and_its_chains_are_swept_later",
        ],
        &[("THINLANE_TEST_SLACK_MS", "250")],
    ),
    ("agent/nft", "table", &["a_flowtable_of_any_table_is_found_with_its_devices"], &[]),
    (
        "agent/wg",
        "kernel",
        &[
            "a_kernel_without_wireguard_says_so_and_one_with_it_can",
            "a_lane_between_two_kernel_ends_carries_and_leaves_no_trace",
            "a_userspace_engineer_uses_a_kernel_gateway_and_roams",
            "two_lanes_of_one_gateway_are_apart_and_a_wrong_preshared_key_opens_none",
            "without_the_tables_mark_nothing_is_routed_either_way",
            "a_kernel_lane_ends_at_its_deadline_and_a_dead_process_leaves_nothing_for_long",
            "an_interface_that_somebody_removes_is_told_and_a_port_is_not_shared",
        ],
        &[],
    ),
    (
        "agent/daemon",
        "kernel_backend",
        &[
            "a_lane_of_the_kernel_opens_carries_and_closes_and_a_flush_leaves_nothing_open",
            "a_lane_of_a_killed_agent_goes_on_ends_on_time_and_is_taken_over",
            "a_device_of_a_kernel_lane_is_let_go_and_flow_offload_keeps_the_gateway_closed",
            "whatever_else_is_sent_into_a_kernel_lane_reaches_neither_site_nor_gateway",
        ],
        &[],
    ),
];

fn outcomes() -> &'static [Outcome] {
    static ONCE: OnceLock<Result<Vec<Outcome>, String>> = OnceLock::new();
    // One failure is enough for all.
    let tried = ONCE.get_or_init(|| std::panic::catch_unwind(boot).map_err(|_| "the machine did not run".to_owned()));
    tried.as_ref().expect("it was said above why not")
}

fn boot() -> Vec<Outcome> {
    plan::run(PLAN, PATIENCE).expect("the machine ran everything")
}

/// All planned tests of one program passed, and none of them is missing.
fn all_passed(program: &str) {
    let outcome = outcomes().iter().find(|outcome| outcome.label == program).expect("it is planned");
    let planned = PLAN.iter().find(|(folder, name, ..)| program == format!("{folder}/tests/{name}.rs"));
    let missing: Vec<&str> =
        planned.expect("it is planned").2.iter().copied().filter(|test| !outcome.passed().contains(test)).collect();
    assert!(missing.is_empty() && outcome.exit == 0, "not passed: {missing:?}\n{}", outcome.output);
}

#[test]
fn on_linux_6_1_an_extended_lease_is_read_back_and_every_lane_ends_on_time() {
    all_passed("agent/nft/tests/life.rs");
}

#[test]
fn on_linux_6_1_flow_offload_is_found() {
    all_passed("agent/nft/tests/table.rs");
}

#[test]
fn on_linux_6_1_the_kernel_carries_lanes_behind_the_second_lock() {
    all_passed("agent/wg/tests/kernel.rs");
}

#[test]
fn on_linux_6_1_the_agent_drives_the_kernels_wireguard() {
    all_passed("agent/daemon/tests/kernel_backend.rs");
}
