//! What differs between operating systems: a few small functions, the same on each; what is decided with them is decided
//! elsewhere, once. No other file of this program names a system (`tests/house`).
//!
//! * [`files`]: where a person's files are, and who else can look into them.
//! * [`process`]: the command inside a lane, and how a process is asked to end.
//! * [`signals`]: what asks this one to end.
//! * [`terminal`]: typing without echo, keys, size.
//! * [`identity`] tells a process from a later one with its id, [`interfaces`] whether lanes may have an interface.
//! * [`sockets`]: what is asked of those towards a gateway.

use std::path::PathBuf;

#[cfg(any(not(target_os = "linux"), test))]
#[cfg_attr(target_os = "linux", allow(dead_code, reason = "tested here as well"))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(not(target_os = "linux"), test))]
mod mark;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(not(target_os = "linux"))]
pub use elsewhere::{identity, inside, interfaces, sockets};
#[cfg(target_os = "linux")]
pub use linux::{identity, inside, interfaces, sockets};
#[cfg(unix)]
pub use unix::{files, process, signals, terminal};
#[cfg(windows)]
pub use windows::{files, process, signals, terminal};

/// Why a lane can have no interface here; each system knows some of these.
#[allow(dead_code, reason = "each system has its own")]
#[derive(Debug)]
pub enum Obstacle {
    /// The right to make one is missing.
    Unprivileged,
    /// The device behind them cannot be opened.
    Device { path: &'static str, error: std::io::Error },
    /// There is no backend for this system.
    Unsupported,
}

/// Where one person's files are.
#[derive(Debug)]
pub struct Places {
    pub config: PathBuf,
    pub state: PathBuf,
    /// To whom new files are given, where that is not this process's user.
    pub owner: Option<files::Owner>,
}

/// What asks this process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// Whoever stops services, or the machine.
    Terminate,
    /// The terminal is gone.
    HangUp,
}

/// Why the program did not become the command inside a lane.
#[allow(dead_code, reason = "each system has its own")]
#[derive(Debug)]
pub enum Stayed {
    /// It would live longer than its lane; why.
    Outlives(&'static str),
    /// Whoever holds the lane has died meanwhile.
    Orphan,
    /// It cannot be started.
    Not(std::io::Error),
}
