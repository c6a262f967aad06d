//! The two clocks that a device reads.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use thinlane_model::{Boot, Now, Wall};

/// CLOCK_BOOTTIME of this machine.
pub fn boot() -> io::Result<Boot> {
    let time = clock_gettime(ClockId::Boottime);
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    let millis = u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000;
    Ok(Boot(secs * 1000 + millis))
}

/// Boot clock and wall clock.
pub fn now() -> io::Result<Now> {
    Ok(Now { mono: boot()?, wall: wall() })
}

fn wall() -> Wall {
    let millis = |span: std::time::Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    Wall::from_millis(match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => millis(after),
        Err(before) => -millis(before.duration()),
    })
}
