//! Sessions: activation, life, end.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use thinlane_model::{
    AssetName, Counters, EndReason, Endpoint, Login, OrgName, Path, PolicyRef, Protocol, PublicKey, RequestId,
    SessionId, SiteName, TaskName, Wall,
};

use super::{Approval, Schema};

/// `POST /requests/{id}/activate`: answers when the gateway has armed the lane, or says why not.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Activate {
    /// Of the key pair made for this session.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub public_key: PublicKey,
    /// 32 bytes in base 64, made by the engineer's side, passed on to the gateway and not stored.
    pub preshared_key: String,
    /// Use the device's real address instead of its overlay address.
    #[serde(default)]
    pub native: bool,
}

/// An armed lane, as the engineer's WireGuard needs it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Activated {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    pub session: SessionView,
    /// The engineer's /32.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: Ipv4Addr,
    /// The peer's allowed IP, and what the engineer's tool connects to.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub asset_address: Ipv4Addr,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub gateway_key: PublicKey,
    /// Where handshakes go: the relay, or the gateway itself.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub endpoint: Endpoint,
    /// The relay, where handshakes go when the gateway does not answer at its own endpoint.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub fallback: Option<Endpoint>,
    pub mtu: u16,
    pub keepalive: u16,
    /// What is left now, in milliseconds: for a countdown that needs no clock in step.
    pub remaining_ms: u64,
}

/// A session.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionView {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: SessionId,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub request: RequestId,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub user: Login,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub org: Option<OrgName>,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub site: SiteName,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub asset: AssetName,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub task: TaskName,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub protocol: Protocol,
    pub port: u16,
    pub state: SessionState,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: Ipv4Addr,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub asset_address: Ipv4Addr,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub opened_at: Option<Wall>,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub ends_at: Option<Wall>,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub ended_at: Option<Wall>,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub end_reason: Option<EndReason>,
    /// Who or what ended it, and why.
    #[serde(default)]
    pub end_detail: Option<String>,
    /// Where the engineer's datagrams come from, as far as known.
    #[serde(default)]
    pub endpoint: Option<String>,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub path: Path,
    /// Why this way and not the other, for people.
    #[serde(default)]
    pub path_reason: Option<String>,
    #[serde(default)]
    pub backend: Option<String>,
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
    pub policy: PolicyRef,
    pub approvals: Vec<Approval>,
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
    pub counters: Counters,
    /// The counters are the closing record's, final and exact.
    #[serde(default)]
    pub counters_final: bool,
    /// Counted by the gateway's kernel, for which packets that travel merged are one.
    #[serde(default)]
    pub merged: bool,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub last_handshake_at: Option<Wall>,
    pub reason: String,
    #[serde(default)]
    pub ticket: Option<String>,
    /// Milliseconds until the end, while it is open.
    #[serde(default)]
    pub remaining_ms: Option<u64>,
}

/// `POST /sessions/{id}/kill` (ops) and `/release` (own). Answers 200 with the ended session when the closing
/// record has arrived, 202 with state `ending` when the site is out of reach and the relay has stopped forwarding.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct End {
    #[serde(default)]
    pub reason: String,
}

/// `POST /sessions/{id}/extend`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Extend {
    pub seconds: u64,
    pub reason: String,
}

/// `GET /sessions/{id}/history`: what a session's counters were, over its life so far.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryView {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub session: SessionId,
    /// Oldest first; further apart the longer the session lasts.
    pub samples: Vec<Sample>,
}

/// A session's byte counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Sample {
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub at: Wall,
    pub up_bytes: u64,
    pub down_bytes: u64,
    /// Between the sample before (or the opening) and this one the controller was not told all the time: what was
    /// counted is known, when it passed is not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gap: bool,
}

/// What `GET /sessions/{id}/events` and `GET /events` send as server-sent events (`data:` is one of these, `event:` its kind).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum LiveEvent {
    /// A session changed state, was extended, or has new counters.
    Session { session: Box<SessionView> },
    /// A request changed state.
    Request { request: Box<crate::api::RequestView> },
    /// A gateway came, went or changed.
    Site { site: Box<crate::api::SiteView> },
    /// Something that a person should see.
    Alarm { alarm: crate::api::AlarmView },
    /// Packets that a lane did not pass.
    Denied { denied: crate::api::DeniedView },
    /// The stream was behind and skipped events: fetch the lists again.
    Lagged,
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SessionState {
    Arming,
    Active,
    Ending,
    Ended,
}
