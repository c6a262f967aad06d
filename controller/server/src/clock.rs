//! The two clocks of this machine.

use std::time::{SystemTime, UNIX_EPOCH};

use thinlane_model::{Boot, Now, Wall};

/// Both clocks, read one after the other.
pub fn now() -> Now {
    Now { mono: mono(), wall: wall() }
}

/// CLOCK_BOOTTIME.
pub fn mono() -> Boot {
    thinlane_relay::boot_now()
}

/// The wall clock.
pub fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
