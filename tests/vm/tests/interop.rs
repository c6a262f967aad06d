//! The kernel's own WireGuard beside ours, with real time for real keys: some minutes in an emulated machine.

use std::time::Duration;

use thinlane_vm::plan::{self, Part};

/// For a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(1800);

const PLAN: &[Part] =
    &[("agent/wg", "interop", &[], &[("THINLANE_INTEROP", "kernel="), ("THINLANE_INTEROP_ONLY", "1")])];

#[test]
#[ignore = "takes minutes: scripts/bench wg --interop runs it"]
fn on_linux_6_1_the_kernels_wireguard_and_ours_understand_each_other() {
    let outcomes = plan::run(PLAN, PATIENCE).expect("the machine ran everything");
    for outcome in &outcomes {
        outcome.output.lines().filter(|line| line.starts_with("interop: ")).for_each(|line| println!("{line}"));
        assert!(outcome.exit == 0 && !outcome.passed().is_empty(), "{}", outcome.output);
    }
}
