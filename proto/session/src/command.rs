//! What people, gateways and the controller itself may ask of the world.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use thinlane_model::{
    AssetName, AssetType, Boot, BootId, Counters, Criticality, EndReason, Endpoint, EnrolmentId, LockId, Login,
    OrgName, Path, PublicKey, RefuseReason, RequestId, Roles, SessionId, SiteId, SiteName, Span, TaskName, Wall,
};

use crate::Certificate;

/// What a lock closes; in JSON `{"kind": "user", "name": "alice"}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name", rename_all = "lowercase")]
pub enum LockTarget {
    User(Login),
    Org(OrgName),
    Site(SiteName),
    Asset(AssetName),
}

impl fmt::Display for LockTarget {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockTarget::User(name) => write!(to, "user {name}"),
            LockTarget::Org(name) => write!(to, "org {name}"),
            LockTarget::Site(name) => write!(to, "site {name}"),
            LockTarget::Asset(name) => write!(to, "asset {name}"),
        }
    }
}

/// A gateway's boot clock, as fresh as the caller has it: deadlines are counted from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentClock {
    pub boot: BootId,
    pub time: Boot,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPerson {
    pub login: Login,
    pub name: String,
    pub org: Option<OrgName>,
    pub sponsor: Option<Login>,
    pub roles: Roles,
    pub until: Option<Wall>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetSpec {
    pub asset: AssetName,
    pub site: SiteName,
    pub address: Ipv4Addr,
    pub kind: AssetType,
    pub criticality: Criticality,
    pub labels: BTreeMap<String, String>,
    /// Let the device see the engineer's own address instead of the gateway's.
    pub keep_source: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRequest {
    pub asset: AssetName,
    pub task: TaskName,
    /// `None`: the task's default.
    pub seconds: Option<u64>,
    pub reason: String,
    pub ticket: Option<String>,
    /// Not to be used before.
    pub not_before: Option<Wall>,
}

/// A gateway's closing record, its signature already checked by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    pub session: SessionId,
    pub reason: EndReason,
    pub counters: Counters,
    pub last_handshake_at: Option<Wall>,
    /// Where the relay sees the engineer, if it carries the session.
    pub endpoint: Option<String>,
    /// Packets that came after the end.
    pub late_packets: u64,
    /// The kernel was read back: nothing of the lane is left.
    pub verified: bool,
    /// The signed record and its signature, base 64, for the evidence.
    pub record: String,
    pub signature: String,
}

/// What happened outside the world and belongs in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    LoggedIn {
        login: Login,
        address: String,
    },
    /// `login` as it was typed: perhaps nobody's.
    LogInFailed {
        login: String,
        address: String,
        why: String,
    },
    LockedOut {
        login: Login,
        address: String,
        until: Wall,
    },
    LoggedOut {
        login: Login,
    },
    /// Password and second factor are set.
    SetUp {
        login: Login,
        address: String,
    },
    ControllerStarted {
        version: String,
    },
    Alarm {
        site: Option<SiteId>,
        kind: String,
        detail: String,
    },
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    // Admins.
    AddPerson(NewPerson),
    /// The password and second factor are void until a new set-up.
    ResetPerson {
        login: Login,
    },

    // Site technicians, admins; codes also ops.
    AddSite {
        name: SiteName,
        endpoint: Option<Endpoint>,
    },
    /// `code_hash`: SHA-256 in lower-case hexadecimal. An earlier unused code of the site is void.
    IssueCode {
        site: SiteName,
        code_hash: String,
    },
    AddAsset(AssetSpec),
    /// All or none; a refusal names each asset that is in the way.
    ImportAssets(Vec<AssetSpec>),
    RemoveAsset {
        asset: AssetName,
    },

    // Requesters and approvers.
    CreateRequest(NewRequest),
    WithdrawRequest {
        request: RequestId,
    },
    ApproveRequest {
        request: RequestId,
        note: Option<String>,
    },
    DenyRequest {
        request: RequestId,
        reason: String,
    },

    // Own sessions.
    Activate {
        request: RequestId,
        engineer_key: PublicKey,
        native: bool,
        clock: AgentClock,
    },
    Extend {
        session: SessionId,
        seconds: u64,
        reason: String,
    },
    Release {
        session: SessionId,
    },

    // Ops and admins.
    Kill {
        session: SessionId,
        reason: String,
    },
    Lock {
        target: LockTarget,
        time: Option<Span>,
        reason: String,
    },
    /// Also unfreezes a site.
    Unlock {
        target: LockTarget,
    },

    // Gateways; `Enrol` is the controller's own, for a gateway that is nobody yet.
    Enrol {
        code_hash: String,
        certificate: Certificate,
        version: String,
    },
    Renew {
        certificate: Certificate,
    },
    Hello {
        boot: BootId,
        version: String,
        backend: Option<String>,
    },
    Status {
        isolated: bool,
        why_not_ready: Option<String>,
        backend: Option<String>,
        /// The gateway's own addresses on its LANs.
        lan: Vec<Ipv4Addr>,
    },
    Armed {
        session: SessionId,
        serial: u64,
        gateway_key: PublicKey,
        deadline: Boot,
        backend: String,
    },
    Refuse {
        session: SessionId,
        serial: u64,
        reason: RefuseReason,
        detail: String,
    },
    /// Which way the lane's last handshake came, of two.
    Way {
        session: SessionId,
        path: Path,
    },
    Close(Closing),
    AgentAlarm {
        number: u64,
        boot: BootId,
        kind: String,
        detail: String,
    },

    // The controller itself.
    /// The policy of the context is in force from now on, or is invalid.
    PolicyChanged,
    FreezeSite {
        site: SiteId,
        reason: String,
    },
    /// An armed answer that can no longer come, or a grant that cannot be sent: gives up before the timeout.
    GiveUp {
        session: SessionId,
        detail: String,
    },
    Note(Note),
}

/// What the caller gets back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Done,
    Site(SiteId),
    Code {
        id: EnrolmentId,
        expires_at: Wall,
    },
    /// With their overlay addresses.
    Assets(Vec<(AssetName, Ipv4Addr)>),
    Request(RequestId),
    Session(SessionId),
    Lock {
        id: LockId,
        sessions: Vec<SessionId>,
    },
}

impl Command {
    /// The word under which refused attempts stand in the log.
    pub fn name(&self) -> &'static str {
        match self {
            Command::AddPerson(_) => "user.add",
            Command::ResetPerson { .. } => "user.reset",
            Command::AddSite { .. } => "site.add",
            Command::IssueCode { .. } => "site.token",
            Command::AddAsset(_) => "asset.add",
            Command::ImportAssets(_) => "asset.import",
            Command::RemoveAsset { .. } => "asset.rm",
            Command::CreateRequest(_) => "request.create",
            Command::WithdrawRequest { .. } => "request.withdraw",
            Command::ApproveRequest { .. } => "request.approve",
            Command::DenyRequest { .. } => "request.deny",
            Command::Activate { .. } => "session.activate",
            Command::Extend { .. } => "session.extend",
            Command::Release { .. } => "session.release",
            Command::Kill { .. } => "session.kill",
            Command::Lock { .. } => "lock.set",
            Command::Unlock { .. } => "lock.clear",
            Command::Enrol { .. } => "agent.enrol",
            Command::Renew { .. } => "agent.renew",
            Command::Hello { .. } => "agent.hello",
            Command::Status { .. } => "agent.status",
            Command::Armed { .. } => "agent.armed",
            Command::Refuse { .. } => "agent.refuse",
            Command::Way { .. } => "agent.way",
            Command::Close(_) => "agent.close",
            Command::AgentAlarm { .. } => "agent.alarm",
            Command::PolicyChanged => "policy.change",
            Command::FreezeSite { .. } => "site.freeze",
            Command::GiveUp { .. } => "session.give-up",
            Command::Note(_) => "note",
        }
    }

    /// What it is about, for the log of refused attempts.
    pub fn subject(&self) -> String {
        match self {
            Command::AddPerson(new) => new.login.to_string(),
            Command::ResetPerson { login } => login.to_string(),
            Command::AddSite { name, .. } | Command::IssueCode { site: name, .. } => name.to_string(),
            Command::AddAsset(spec) => spec.asset.to_string(),
            Command::ImportAssets(list) => format!("{} assets", list.len()),
            Command::RemoveAsset { asset } => asset.to_string(),
            Command::CreateRequest(new) => format!("{} {}", new.task, new.asset),
            Command::WithdrawRequest { request }
            | Command::ApproveRequest { request, .. }
            | Command::DenyRequest { request, .. }
            | Command::Activate { request, .. } => request.to_string(),
            Command::Extend { session, .. }
            | Command::Release { session }
            | Command::Kill { session, .. }
            | Command::Armed { session, .. }
            | Command::Refuse { session, .. }
            | Command::Way { session, .. }
            | Command::GiveUp { session, .. } => session.to_string(),
            Command::Close(closing) => closing.session.to_string(),
            Command::Lock { target, .. } | Command::Unlock { target } => target.to_string(),
            Command::FreezeSite { site, .. } => site.to_string(),
            Command::Enrol { .. }
            | Command::Renew { .. }
            | Command::Hello { .. }
            | Command::Status { .. }
            | Command::AgentAlarm { .. }
            | Command::PolicyChanged
            | Command::Note(_) => String::new(),
        }
    }
}
