//! The two clocks that a device reads.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(unix)]
use rustix::time::{ClockId, clock_gettime};
use thinlane_model::{Boot, Now, Wall};

/// The one that counts while the machine sleeps.
#[cfg(target_os = "linux")]
const BOOT: ClockId = ClockId::Boottime;
/// Darwin's counts through sleep as well (clock_gettime(3) there).
#[cfg(all(unix, not(target_os = "linux")))]
const BOOT: ClockId = ClockId::Monotonic;

/// CLOCK_BOOTTIME of this machine.
#[cfg(unix)]
pub fn boot() -> io::Result<Boot> {
    let time = clock_gettime(BOOT);
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    let millis = u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000;
    Ok(Boot(secs * 1000 + millis))
}

/// Time since this program first asked, counted through sleep (QueryPerformanceCounter): nothing here outlives it.
#[cfg(windows)]
pub fn boot() -> io::Result<Boot> {
    static FIRST: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let since = FIRST.get_or_init(std::time::Instant::now).elapsed();
    Ok(Boot(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
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
