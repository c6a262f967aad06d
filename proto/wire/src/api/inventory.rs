//! Sites, assets and tasks, locks, enrolment.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use thinlane_model::{AssetName, Endpoint, Limits, LockId, Login, Protocol, SiteId, SiteName, TaskName, Wall};

use super::Schema;

/// `POST /sites`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewSite {
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub site: SiteName,
    /// Where the gateway can be reached directly; absent: through the relay.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub endpoint: Option<Endpoint>,
}

/// A site and its gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteView {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: SiteId,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub site: SiteName,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub endpoint: Option<Endpoint>,
    /// `new` (no gateway yet) | `online` | `offline` | `frozen`.
    pub state: String,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub enrolled_at: Option<Wall>,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub last_seen_at: Option<Wall>,
    #[serde(default)]
    pub agent_version: Option<String>,
    #[serde(default)]
    pub backend: Option<String>,
    pub ready: bool,
    #[serde(default)]
    pub why_not_ready: Option<String>,
    pub isolated: bool,
    pub locked: bool,
    pub generation: u64,
    pub lanes: u32,
    /// The gateway's wall clock minus the controller's, in milliseconds.
    #[serde(default)]
    pub clock_offset_ms: Option<i64>,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub certificate_expires_at: Option<Wall>,
}

/// `POST /assets`, and each line of `POST /assets/import`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewAsset {
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub asset: AssetName,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub site: SiteName,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: Ipv4Addr,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub criticality: Criticality,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// `POST /assets/import`: all or none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ImportAssets {
    pub assets: Vec<NewAsset>,
    /// Add nothing, only say what is wrong with them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub check: bool,
}

/// A device.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AssetView {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub asset: AssetName,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub site: SiteName,
    #[serde(rename = "type")]
    pub kind: String,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: Ipv4Addr,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub overlay_address: Ipv4Addr,
    pub criticality: Criticality,
    pub labels: BTreeMap<String, String>,
    pub locked: bool,
}

/// A task profile, from the policy in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskView {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub task: TaskName,
    pub title: String,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub protocol: Protocol,
    pub port: u16,
    pub default_seconds: u64,
    pub max_seconds: u64,
    /// What an engineer may add without asking; absent: up to `max_seconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extend_seconds: Option<u64>,
    pub offline_seconds: u64,
    #[serde(default)]
    pub idle_seconds: Option<u64>,
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
    pub limits: Limits,
}

/// `POST /locks`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewLock {
    pub kind: LockKind,
    /// A login, an organisation, a site's or an asset's name.
    pub name: String,
    #[serde(default)]
    pub seconds: Option<u64>,
    pub reason: String,
}

/// A lock in force. For a new one, `ended_sessions` and `ending_sessions` say what it stopped.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockView {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: LockId,
    pub kind: LockKind,
    pub name: String,
    pub reason: String,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub by: Login,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub created_at: Wall,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub until: Option<Wall>,
    #[serde(default)]
    pub ended_sessions: Vec<String>,
    #[serde(default)]
    pub ending_sessions: Vec<String>,
}

/// `POST /enrol`, by a gateway with its one-time code.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Enrol {
    pub code: String,
    /// PKCS#10, DER in base 64; an Ed25519 key. Its subject is ignored.
    pub csr: String,
    pub agent_version: String,
}

/// What a gateway keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Enrolled {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub site: SiteId,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub site_name: SiteName,
    /// The gateway's certificate and the CA's, DER in base 64.
    pub chain: Vec<String>,
    /// Ed25519 public keys that sign grants, base 64.
    pub grant_keys: Vec<String>,
    /// The log's verifier key (C2SP vkey).
    pub log_key: String,
}

/// How much depends on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Criticality {
    Low,
    #[default]
    Medium,
    High,
}

/// What a lock closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum LockKind {
    User,
    Org,
    Site,
    Asset,
}
