//! Frames between gateway and controller, and the types of the HTTPS API.
//!
//! [`pb`] is the schema as written in `schema/channel.proto`; nothing outside this crate handles it. The rest
//! speaks [`api`] and the checked types: [`AgentFrame`] and [`FromController`] on the channel, [`SignedGrant`]
//! and [`SignedClosing`] for what is signed.
#![forbid(unsafe_code)]

pub mod api;
mod closing;
mod digest;
mod frame;
mod grant;
mod message;
mod probe;

pub use closing::{ClosingError, ClosingRecord, SignedClosing, closing_message};
pub use digest::state_digest;
pub use frame::{FrameDecoder, FrameError, LONGEST_FRAME};
pub use grant::{GrantError, GrantSigner, GrantVerifier, SignedGrant, is_lane_address};
pub use message::{
    AgentFrame, Alarm, Applied, Armed, Checkpoint, Delta, DeniedFlow, DeniedReport, Direction, FromAgent,
    FromController, Goodbye, GoodbyeReason, Hello, MessageError, PROTOCOL, Refused, RenewAnswer, SessionCounters,
    SiteStatus, Snapshot, Welcome, Withdrawn, WitnessReport,
};
pub use probe::{LONGEST_PROBE, ProbeAnswer, ProbeKey, ProbeQuestion, ProbeRefusal, ProbeTicket, SHORTEST_PROBE};

/// The messages of `schema/channel.proto`, generated.
#[allow(clippy::all, clippy::pedantic)]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/thinlane.v1.rs"));
}
