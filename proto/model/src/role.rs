//! What a person may do.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One role; a person may hold several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Own requests and sessions.
    Requester,
    /// Decides requests, never an own one.
    Approver,
    /// Sees all sessions; kill, lock, enrolment codes.
    Ops,
    /// Sites, assets, enrolment codes.
    SiteTech,
    /// Reads everything, changes nothing.
    Auditor,
    /// People, sites, assets, policies.
    Admin,
}

/// The roles of one person, in a fixed order.
pub type Roles = BTreeSet<Role>;

/// Why a text is not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no role {0:?}; roles are requester, approver, ops, site-tech, auditor and admin")]
pub struct RoleError(String);

impl Role {
    pub const ALL: [Role; 6] = [Role::Requester, Role::Approver, Role::Ops, Role::SiteTech, Role::Auditor, Role::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Requester => "requester",
            Role::Approver => "approver",
            Role::Ops => "ops",
            Role::SiteTech => "site-tech",
            Role::Auditor => "auditor",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = RoleError;
    fn from_str(text: &str) -> Result<Self, RoleError> {
        Role::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| RoleError(text.chars().take(40).collect()))
    }
}
