//! The transparency log and the live views.

use serde::{Deserialize, Serialize};
use thinlane_model::Wall;

use super::{RequestView, Schema, SessionView, SiteView};

/// One entry of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogEntry {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    pub index: u64,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub time: Wall,
    /// `person:LOGIN`, `agent:SITE` or `system`.
    pub actor: String,
    /// As in `session.active`.
    pub kind: String,
    /// The canonical JSON of the entry: exactly what is hashed.
    pub entry: serde_json::Value,
    /// RFC 6962 leaf hash, hexadecimal.
    pub leaf_hash: String,
}

/// `GET /audit/checkpoint`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckpointView {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    pub size: u64,
    /// Hexadecimal.
    pub root: String,
    /// The signed note.
    pub note: String,
    /// The verifier key of the log.
    pub key: String,
}

/// What `audit verify` found.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditReport {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    pub ok: bool,
    pub entries: u64,
    pub root: String,
    /// Checkpoints that were compared: the log's own and what gateways remember.
    pub checkpoints: u64,
    pub problems: Vec<AuditProblem>,
}

/// One thing that does not fit.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditProblem {
    /// `edited` | `missing` | `reordered` | `rolled-back` | `forked` | `signature` | `rows` ...
    pub kind: String,
    #[serde(default)]
    pub index: Option<u64>,
    pub message: String,
}

/// Something that a person should see.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AlarmView {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub at: Wall,
    #[serde(default)]
    pub site: Option<String>,
    pub kind: String,
    pub detail: String,
}

/// Packets of one kind that a lane did not pass, since the last such event.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeniedView {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub at: Wall,
    pub site: String,
    #[serde(default)]
    pub session: Option<String>,
    /// `up` | `down`.
    pub direction: String,
    pub source: String,
    pub destination: String,
    pub protocol: String,
    pub port: u16,
    pub packets: u64,
}

/// `GET /status`, without log-in: is it up, and which version.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatusView {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    pub version: String,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub time: Wall,
}

/// Everything live at once, for the first picture of a screen.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Overview {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    pub sessions: Vec<SessionView>,
    pub requests: Vec<RequestView>,
    pub sites: Vec<SiteView>,
    /// Packets that lanes did not pass lately, oldest first; for those who may see them.
    #[serde(default)]
    pub denied: Vec<DeniedView>,
}
