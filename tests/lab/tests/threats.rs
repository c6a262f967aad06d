//! The threats of the threat model that need a whole lab, each judged at the device or with a foreign tool.
//! `docs/security.md` says which test stands for which threat.

#[path = "threats/ends.rs"]
mod ends;
#[path = "threats/network.rs"]
mod network;
#[path = "threats/people.rs"]
mod people;
#[path = "threats/site.rs"]
mod site;

use std::process::ExitCode;

use thinlane_lab::{Case, main as run};

const CASES: &[Case] = &[
    ("t01_a_running_flow_stops_however_the_grant_ends", ends::t01_a_running_flow_stops_however_the_grant_ends),
    ("t01_both_tcp_ends_are_reset", ends::t01_both_tcp_ends_are_reset),
    ("t02_a_killed_agents_lane_ends_on_time_in_the_kernel", ends::t02_a_killed_agents_lane_ends_on_time_in_the_kernel),
    ("t02_a_stopped_agents_lane_ends_on_time", ends::t02_a_stopped_agents_lane_ends_on_time),
    ("t04_a_clock_jump_moves_no_end", site::t04_a_clock_jump_moves_no_end),
    ("t06_a_full_scan_sees_one_open_port", network::t06_a_full_scan_sees_one_open_port),
    ("t07_a_spoofed_source_reaches_nothing", network::t07_a_spoofed_source_reaches_nothing),
    ("t10_fragments_pass_only_where_the_port_is_allowed", network::t10_fragments_pass_only_where_the_port_is_allowed),
    ("t11_icmp_and_ipv6_carry_nothing", network::t11_icmp_and_ipv6_carry_nothing),
    ("t12_a_device_cannot_open_towards_the_engineer", network::t12_a_device_cannot_open_towards_the_engineer),
    ("t14_a_cloned_gateway_freezes_both_and_reconnects_do_not", site::t14_a_cloned_gateway_freezes_both),
    ("t15_a_lane_survives_rebinding_loss_and_blackouts", network::t15_a_lane_survives_rebinding_loss_and_blackouts),
    ("t17_a_dead_controller_leaves_lanes_to_end_by_themselves", site::t17_a_dead_controller_leaves_lanes_to_end),
    ("t18_a_grant_beyond_the_ceiling_is_refused", site::t18_a_grant_beyond_the_ceiling_is_refused),
    ("t19_an_edited_log_is_found", people::t19_an_edited_log_is_found),
    ("t23_no_secret_is_on_disk_in_a_log_or_in_argv", people::t23_no_secret_is_on_disk_in_a_log_or_in_argv),
    ("t24_a_thousand_half_open_connections_hurt_nobody", people::t24_a_thousand_half_open_connections_hurt_nobody),
    ("t25_guessing_locks_out_and_a_code_works_once", people::t25_guessing_locks_out_and_a_code_works_once),
    ("t26_garbage_gets_a_clear_answer", people::t26_garbage_gets_a_clear_answer),
    ("t27_a_flushed_ruleset_opens_nothing", site::t27_a_flushed_ruleset_opens_nothing),
    ("t29_a_kill_over_a_dead_channel_still_stops_packets", site::t29_a_kill_over_a_dead_channel_still_stops_packets),
    // Last: gateways that have seen a forked log go on saying so.
    ("t17_a_restored_old_database_is_noticed", site::t17_a_restored_old_database_is_noticed),
];

fn main() -> ExitCode {
    run("tthr", CASES)
}
