//! The channel between gateway and controller as machines: log-in, resume, keepalive, back-off, both ends.
//!
//! [`AgentLink`] dials, logs in and stays; [`ControllerLink`] is the other end of one connection; [`SiteChannels`]
//! decides which of a gateway's connections counts, and tells a reconnect from a copied key.
//!
//! All of them take bytes and the time and give bytes back: a shell moves the bytes and waits until
//! `poll_timeout`. After every input: drain `poll_effect`, then `poll_event`.
#![forbid(unsafe_code)]

mod agent;
mod channels;
mod controller;
mod desired;
mod jitter;
mod keepalive;
#[cfg(test)]
mod pair;

pub use agent::{AgentEffect, AgentEvent, AgentLink, AgentLinkConfig, AgentState};
pub use channels::{ChannelEffect, ConnId, SiteChannels};
pub use controller::{Access, AgentClock, ControllerLink, LinkConfig, LinkEffect, LinkEvent};
pub use desired::{Desired, DesiredGrant, Known};
