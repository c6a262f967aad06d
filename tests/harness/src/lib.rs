//! A controller, a gateway, the network between them and the gateway's kernel, on one virtual clock.
//!
//! The machines are the real ones: `World`, `SiteChannels` and `ControllerLink` on one side, `AgentLink` and `Site`
//! on the other. What surrounds them is small and fails on purpose: a network that delays, cuts, goes silent and
//! loses, doubles or swaps frames, and a kernel whose steps fail and whose lanes expire by themselves.
//!
//! [`run`] plays one history that follows from its seed alone, [`run_broken`] one with a part that breaks its word. After each step a model that knows nothing of the
//! machines looks at the kernel (`model`); in the end everything is healed and both sides must agree.
#![forbid(unsafe_code)]

mod gateway;
mod head;
mod history;
mod kernel;
mod model;
mod network;
mod random;
mod sabotage;
mod simulation;

pub use history::{Failure, Summary, run, run_broken};
pub use sabotage::Sabotage;
