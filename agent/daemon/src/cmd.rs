//! The commands, one module each.

pub mod check;
pub mod cleanup;
pub mod enroll;
pub mod isolate;
pub mod manual;
pub mod run;
pub mod status;

use crate::failure::Failure;
use crate::files::{Dirs, RunLock};

/// Whether a daemon runs on this run directory.
pub fn daemon_runs(dirs: &Dirs) -> Result<bool, Failure> {
    if !dirs.lock().exists() {
        return Ok(false);
    }
    match RunLock::take(dirs) {
        Ok(lock) => Ok(lock.is_none()),
        Err(error) => Err(Failure::new(format_args!("cannot look at {}: {error}", dirs.lock().display()))
            .next("run it as the user that the agent runs as (root)")),
    }
}
