//! Requests, decisions and approvals.

use serde::{Deserialize, Serialize};
use thinlane_model::{AssetName, Login, OrgName, RequestId, SessionId, SiteName, TaskName, Wall};

use super::Schema;

/// `POST /requests`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewRequest {
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub asset: AssetName,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub task: TaskName,
    /// Absent: the task's default.
    #[serde(default)]
    pub seconds: Option<u64>,
    pub reason: String,
    #[serde(default)]
    pub ticket: Option<String>,
}

/// A request. `state` is `pending|approved|denied|withdrawn|lapsed|used`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RequestView {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: RequestId,
    pub state: RequestState,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub user: Login,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub org: Option<OrgName>,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub asset: AssetName,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub site: SiteName,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub task: TaskName,
    /// As granted: the smallest of what was asked, the rule's and the task's.
    pub seconds: u64,
    pub reason: String,
    #[serde(default)]
    pub ticket: Option<String>,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub created_at: Wall,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub decided_at: Option<Wall>,
    /// When an approved request lapses unless it is used.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub lapses_at: Option<Wall>,
    pub decision: DecisionView,
    pub approvals: Vec<Approval>,
    #[serde(default)]
    pub denial: Option<Denial>,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub session: Option<SessionId>,
}

/// What the policy said.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DecisionView {
    /// `permit` | `deny`.
    pub verdict: String,
    /// The rules that determined it.
    pub rules: Vec<String>,
    pub obligations: ObligationsView,
    /// Each input and why, one sentence each.
    #[serde(default)]
    pub reasons: Vec<String>,
    pub policy_hash: String,
}

/// What a permit asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ObligationsView {
    /// The largest count of approvals asked for.
    pub approvals: u32,
    /// Each demand on its own: this many, of any of these roles.
    #[serde(default)]
    pub approvers: Vec<ApproverDemand>,
    /// The longest the session may be.
    pub seconds: u64,
    /// What the engineer may add to it without asking; absent: as much as ops may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extend_seconds: Option<u64>,
}

/// So many approvals by holders of any of these roles.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApproverDemand {
    pub rule: String,
    pub approvals: u32,
    pub roles: Vec<String>,
    /// How many are still missing.
    pub missing: u32,
}

/// One approval.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Approval {
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub by: Login,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub at: Wall,
    #[serde(default)]
    pub note: Option<String>,
}

/// One approver's no.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Denial {
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub by: Login,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub at: Wall,
    pub reason: String,
}

/// `POST /requests/{id}/approve`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Approve {
    #[serde(default)]
    pub note: Option<String>,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RequestState {
    Pending,
    Approved,
    Denied,
    Withdrawn,
    Lapsed,
    Used,
}
