//! The two clocks of this machine.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use thinlane_model::{Boot, Now, Wall};

/// Both clocks, read one after the other.
pub fn now() -> Now {
    Now { mono: mono(), wall: wall() }
}

/// CLOCK_BOOTTIME.
pub fn mono() -> Boot {
    let at = clock_gettime(ClockId::Boottime);
    let secs = u64::try_from(at.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(at.tv_nsec).unwrap_or(0);
    Boot(secs.saturating_mul(1000).saturating_add(nanos / 1_000_000))
}

/// The wall clock.
pub fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
