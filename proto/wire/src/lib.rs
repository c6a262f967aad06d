//! Frames between gateway and controller, and the types of the HTTPS API.
//!
//! [`pb`] is the schema as written in `schema/channel.proto`; nothing outside this crate and the two shells
//! that frame it should handle it: [`api`] and the checked types are what the rest speaks.
#![forbid(unsafe_code)]

pub mod api;

/// The messages of `schema/channel.proto`, generated.
#[allow(clippy::all, clippy::pedantic)]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/thinlane.v1.rs"));
}
