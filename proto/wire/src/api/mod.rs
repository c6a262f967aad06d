//! The JSON of the HTTPS API under `/api/v1`, shared by server and command line.
//!
//! Every object carries `"schema": 1`. Times are RFC 3339 UTC with milliseconds, durations whole seconds.
//! Additions are compatible; names here are a contract (they are what `--json` prints).

mod account;
mod error;
mod inventory;
mod invitation;
mod log;
mod probe;
mod request;
mod session;

pub use account::*;
pub use error::*;
pub use inventory::*;
pub use invitation::*;
pub use log::*;
pub use probe::*;
pub use request::*;
pub use session::*;

use serde::{Deserialize, Serialize};

/// The version of every JSON object here.
pub const SCHEMA: u32 = 1;

/// The number that every object carries as `schema`; reading refuses any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Schema;

impl Serialize for Schema {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u32(SCHEMA)
    }
}

impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match u32::deserialize(from)? {
            SCHEMA => Ok(Schema),
            other => Err(serde::de::Error::custom(format_args!(
                "schema {other} is newer than this program knows ({SCHEMA})"
            ))),
        }
    }
}

/// A list as the API returns it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct List<T> {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    pub items: Vec<T>,
    /// Pass as `?after=` to go on; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// An answer that says nothing but that it was done.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Done {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
}
