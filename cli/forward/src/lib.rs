//! A lane that ends in the process itself: WireGuard, TCP and UDP without an interface, a right, or a trace.
//!
//! ```text
//!  local tool --TCP or UDP--> 127.0.0.1:PORT   [local]  <- bytes ->  [inner] <- packets ->  [tunnel] <- datagrams -> UDP
//! ```
//!
//! * [`inner`] is what is inside the tunnel: [`stack`] for TCP (smoltcp), [`datagrams`] for UDP, [`reassembly`] of
//!   fragments. Pure: packets, bytes and the time come in, packets and bytes go out.
//! * [`tunnel`] encrypts (boringtun's `Tunn`), when is decided by [`timing`], when another way is tried by [`Doubt`],
//!   what is said of it by [`Told`]; all three are pure as well.
//! * [`Forward`] is the shell around both; [`path`] follows the network underneath.
//!
//! Nothing here is of one operating system only.
#![forbid(unsafe_code)]

pub mod datagrams;
mod doubt;
mod forward;
mod fuzz;
pub mod inner;
mod local;
pub mod packet;
pub mod path;
pub mod random;
pub mod reassembly;
pub mod stack;
pub mod timing;
mod told;
pub mod tunnel;

pub use doubt::Doubt;
pub use forward::{Config, Door, DoorError, Event, Forward, Hint, Prepare, StartError};
pub use fuzz::{fuzz_inner, fuzz_seeds};
pub use told::{News, Told};
