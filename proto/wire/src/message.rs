//! The channel's messages as checked types: whoever holds one need not look at the schema again.
//!
//! Reading refuses what is incomplete or odd and never fills in a default. A kind of message that this
//! version does not know reads as `None`: a peer one version newer may send it.

mod agent;
mod common;
mod controller;

pub use agent::{
    AgentFrame, Alarm, Applied, Armed, DeniedFlow, DeniedReport, Direction, FromAgent, Hello, Refused, SiteStatus,
    WitnessReport,
};
pub use common::SessionCounters;
pub use controller::{
    Checkpoint, Delta, FromController, Goodbye, GoodbyeReason, RenewAnswer, Snapshot, Welcome, Withdrawn,
};

/// The version of the protocol that this build speaks; it serves peers one version older and newer.
pub const PROTOCOL: u32 = 1;

/// Why a frame's bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("not a message of the channel: {0}")]
    Undecodable(#[from] prost::DecodeError),
    #[error("a message's {0} is missing or not as it must be")]
    Field(&'static str),
}

#[cfg(test)]
mod tests;
