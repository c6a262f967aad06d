//! Unix: signals, modes, process groups, termios.

pub mod files;
#[cfg(any(not(target_os = "linux"), test))]
pub mod mark;
pub mod process;
pub mod signals;
pub mod terminal;
