//! The gateway's machine: desired grants in, effects on kernel and devices out.
//!
//! [`Site`] decides what is open, when it closes and what is said about it. It performs nothing: an executor takes
//! one [`Effect`] at a time from [`Site::poll_effect`], performs it, and tells [`Site::handle_done`] how it went.
#![forbid(unsafe_code)]

mod check;
mod config;
mod effect;
mod event;
mod lane;
mod saved;
mod site;

pub use config::{Ceilings, SiteConfig};
pub use effect::{Done, Effect, EffectId, Outcome, Step, StepError};
pub use event::{LaneCount, LaneState, LaneView, SiteEvent};
pub use saved::{SavedEnded, SavedLane, SavedState};
pub use site::{Shutdown, Site};
