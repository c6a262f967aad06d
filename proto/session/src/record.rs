//! What is known of each person, site, asset, request, session and lock: the rows.
//!
//! No secrets: of codes only hashes, of keys only public ones.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use thinlane_model::{
    AssetName, AssetType, Boot, BootId, Counters, Criticality, EndReason, Endpoint, EnrolmentId, Grant, Limits, LockId,
    Login, OrgName, Path, PolicyRef, Protocol, PublicKey, RequestId, Roles, SessionId, SiteId, SiteName, Span,
    TaskName, Tuple, Wall,
};
use thinlane_policy::Decision;
use thinlane_wire::api::{RequestState, SessionState};

use crate::LockTarget;

/// A person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    pub login: Login,
    pub name: String,
    /// Whoever has one is external, and has a sponsor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<OrgName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sponsor: Option<Login>,
    pub roles: Roles,
    /// When the account ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Wall>,
    pub created_at: Wall,
    /// When the password and second factor were last set up; `None`: invited, or reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_up_at: Option<Wall>,
}

impl Person {
    pub fn is_external(&self) -> bool {
        self.org.is_some()
    }
}

/// A site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    pub id: SiteId,
    pub name: SiteName,
    /// Where its gateway is reached directly; `None`: through the relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    pub created_at: Wall,
    /// Rises with every change of what should be open there.
    pub generation: u64,
    /// Why it is frozen, if it is: two gateways with one identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<String>,
}

/// A gateway's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The X.509 serial number, in lower-case hexadecimal.
    pub serial: String,
    pub not_after: Wall,
}

/// The gateway of a site, as far as it must be remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    pub site: SiteId,
    pub enrolled_at: Wall,
    /// Those that may log in: the newest last, at most two.
    pub certificates: Vec<Certificate>,
    pub version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootId>,
    pub isolated: bool,
    /// `None`: ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not_ready: Option<String>,
    /// Its own addresses on its LANs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lan: Vec<Ipv4Addr>,
    /// The highest alarm number of this boot.
    pub alarms: u64,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asset {
    pub asset: AssetName,
    pub site: SiteId,
    pub site_name: SiteName,
    #[serde(rename = "type")]
    pub kind: AssetType,
    pub criticality: Criticality,
    /// On the site's LAN.
    pub address: Ipv4Addr,
    pub overlay_address: Ipv4Addr,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub keep_source: bool,
    pub created_at: Wall,
}

/// One approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    pub by: Login,
    /// The roles held at that moment.
    pub roles: Roles,
    pub at: Wall,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// An approver's no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    pub by: Login,
    pub at: Wall,
    pub reason: String,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub id: RequestId,
    pub state: RequestState,
    pub user: Login,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<OrgName>,
    pub asset: AssetName,
    pub site: SiteId,
    pub site_name: SiteName,
    pub task: TaskName,
    /// What was asked for; `None`: the task's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_seconds: Option<u64>,
    /// As granted; what was asked where it was denied.
    pub seconds: u64,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// Not to be used before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Wall>,
    pub created_at: Wall,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Wall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lapses_at: Option<Wall>,
    pub decision: Decision,
    pub policy_hash: String,
    #[serde(default)]
    pub approvals: Vec<Approval>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denial: Option<Denial>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

/// That a session is being closed, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    pub reason: EndReason,
    pub at: Wall,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What a session was before an extension that its gateway has not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unextended {
    /// Of the grant by which the gateway still works.
    pub serial: u64,
    pub seconds: u64,
    pub deadline: Boot,
    pub ends_at: Wall,
}

/// A session, with all that its grant says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub id: SessionId,
    pub request: RequestId,
    pub state: SessionState,
    pub user: Login,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<OrgName>,
    pub site: SiteId,
    pub site_name: SiteName,
    pub asset: AssetName,
    pub task: TaskName,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    pub approvals: Vec<Approval>,
    pub policy: PolicyRef,
    /// All rules that determined the decision at activation.
    pub rules: Vec<String>,
    /// The engineer's /32.
    pub engineer: Ipv4Addr,
    /// What the engineer's packets carry: the overlay address, or with `--native` the LAN address.
    pub destination: Ipv4Addr,
    pub address: Ipv4Addr,
    pub protocol: Protocol,
    pub port: u16,
    pub keep_source: bool,
    pub engineer_key: PublicKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_key: Option<PublicKey>,
    pub limits: Limits,
    pub offline_seconds: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<Endpoint>,
    /// The gateway's own endpoint, which is tried before the relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct: Option<Endpoint>,
    /// Which way the last handshake came that was seen; known where there are two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Path>,
    /// It went through the relay after the gateway's own endpoint had answered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left_direct: bool,
    /// The engineer's outer address, known once the session has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_seen: Option<String>,
    pub serial: u64,
    pub boot: BootId,
    /// On the gateway's boot clock.
    pub deadline: Boot,
    /// The whole length, extensions included.
    pub seconds: u64,
    pub created_at: Wall,
    /// When arming is given up.
    pub arm_by: Wall,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_at: Option<Wall>,
    pub ends_at: Wall,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unextended: Option<Unextended>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Wall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_detail: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    pub counters: Counters,
    pub counters_final: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handshake_at: Option<Wall>,
}

impl Session {
    /// Not ended: it holds its address and counts against the site's limit.
    pub fn is_live(&self) -> bool {
        self.state != SessionState::Ended
    }

    /// Its gateway should have it.
    pub fn is_desired(&self) -> bool {
        matches!(self.state, SessionState::Arming | SessionState::Active)
    }

    /// Whether it belongs in the log that a handshake came this way. What follows once the gateway's own address has
    /// answered and stopped is seen live, so that a lane which changes all the time fills no log.
    pub fn would_note(&self, path: Path) -> bool {
        self.is_live() && self.direct.is_some() && !self.left_direct && self.carried != Some(path)
    }

    /// The way that the lane takes, as far as known; before the first handshake the one that is tried first.
    pub fn path(&self) -> Path {
        let first = if self.direct.is_some() { Path::Direct } else { Path::Relay };
        self.carried.unwrap_or(first)
    }

    /// Where the engineer's handshakes go first.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.direct.as_ref().or(self.relay.as_ref())
    }

    /// Where they go when nobody answers at the gateway's own endpoint.
    pub fn fallback(&self) -> Option<&Endpoint> {
        self.relay.as_ref().filter(|_| self.direct.is_some())
    }

    /// The grant as it stands: the same bytes each time until an extension raises the serial.
    pub fn grant(&self) -> Grant {
        Grant {
            serial: self.serial,
            site: self.site,
            boot: self.boot,
            session: self.id,
            asset: self.asset.clone(),
            task: self.task.clone(),
            engineer_key: self.engineer_key,
            tuple: Tuple {
                engineer: self.engineer,
                destination: self.destination,
                address: self.address,
                protocol: self.protocol,
                port: self.port,
            },
            keep_source: self.keep_source,
            limits: self.limits,
            deadline: self.deadline,
            offline: Span::from_secs(self.offline_seconds),
            idle: self.idle_seconds.map(Span::from_secs),
            policy: self.policy.clone(),
            relay: self.relay.clone(),
        }
    }
}

/// A lock in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    pub id: LockId,
    pub target: LockTarget,
    pub reason: String,
    /// `None`: the controller itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Login>,
    pub at: Wall,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Wall>,
}

impl Lock {
    /// Who set it; the controller's own locks stand under its own name.
    pub fn set_by(&self) -> Login {
        self.by.clone().unwrap_or_else(|| "controller".parse().expect("a fixed name that is well formed"))
    }
}

/// A one-time code for a site's gateway, of which only the hash is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    pub id: EnrolmentId,
    pub site: SiteId,
    /// SHA-256 of the code, in lower-case hexadecimal.
    pub code_hash: String,
    pub created_at: Wall,
    pub expires_at: Wall,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at: Option<Wall>,
}
