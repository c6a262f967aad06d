//! A clock that one thread moves: what `Tunn` and the standard library read through libc stands still there, and goes on
//! when it is told to.
#![allow(unsafe_code)]

use std::cell::Cell;

use libc::{c_int, clockid_t, timespec};
use thinlane_model::{Boot, Now};

thread_local! {
    static MOVED: Cell<Option<Now>> = const { Cell::new(None) };
}

/// From now on this thread's boot clock and wall clock say so.
pub fn set(now: Now) {
    MOVED.set(Some(now));
}

/// This thread's clocks are the machine's again.
pub fn release() {
    MOVED.set(None);
}

/// Stands in for libc's function of this name in this program, which only tests are linked into.
// SAFETY: the name is libc's, and so are the arguments and what is done with them.
#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: clockid_t, to: *mut timespec) -> c_int {
    let moved = MOVED.try_with(Cell::get).ok().flatten();
    let millis = moved.and_then(|Now { mono: Boot(mono), wall }| match clock {
        libc::CLOCK_BOOTTIME => i64::try_from(mono).ok(),
        libc::CLOCK_REALTIME => Some(wall.as_millis()),
        _ => None,
    });
    match millis {
        Some(millis) => {
            let time = timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 };
            // SAFETY: whoever calls clock_gettime hands over a `timespec` to be written.
            unsafe { to.write(time) };
            0
        }
        // SAFETY: the system call has the very contract of the function that this one stands for.
        None => unsafe { libc::syscall(libc::SYS_clock_gettime, clock, to) as c_int },
    }
}
