//! What happened: the log's vocabulary, and the only way in which a world changes.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use thinlane_model::{
    AssetName, Boot, BootId, Counters, EndReason, EnrolmentId, LockId, Login, OrgName, PublicKey, RefuseReason,
    RequestId, Roles, SessionId, SiteId, TaskName, Wall,
};
use thinlane_wire::api::ErrorCode;

use crate::{Asset, Certificate, Enrolment, Lock, LockTarget, Person, Request, Session, Site};

/// Why a request lapsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LapseReason {
    /// Approved and not used in time.
    Unused,
    /// Never decided.
    Undecided,
}

/// One event. Who and when stand in the [`crate::Entry`] around it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Event {
    #[serde(rename = "user.added")]
    UserAdded { user: Person },
    #[serde(rename = "user.reset")]
    UserReset { login: Login },
    #[serde(rename = "user.set-up")]
    UserSetUp { login: Login, address: String },

    #[serde(rename = "site.added")]
    SiteAdded { site: Site },
    #[serde(rename = "site.code")]
    SiteCode { code: Enrolment },
    #[serde(rename = "site.frozen")]
    SiteFrozen { site: SiteId, reason: String },
    #[serde(rename = "site.unfrozen")]
    SiteUnfrozen { site: SiteId },
    #[serde(rename = "site.isolated")]
    SiteIsolated { site: SiteId, isolated: bool },
    #[serde(rename = "site.ready")]
    SiteReady {
        site: SiteId,
        ready: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why_not: Option<String>,
    },
    /// The gateway's own addresses on its LANs, which no asset can have.
    #[serde(rename = "site.lan")]
    SiteLan { site: SiteId, lan: Vec<Ipv4Addr> },

    #[serde(rename = "asset.added")]
    AssetAdded { asset: Asset },
    #[serde(rename = "asset.removed")]
    AssetRemoved { asset: AssetName, site: SiteId },

    /// With the policy's decision and every input of it named; `request.approved` or `request.denied` follows at
    /// once where no person is asked.
    #[serde(rename = "request.created")]
    RequestCreated { request: Box<Request> },
    #[serde(rename = "request.approval")]
    RequestApproval {
        request: RequestId,
        user: Login,
        by: Login,
        roles: Roles,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// Every approval that was asked for is there.
    #[serde(rename = "request.approved")]
    RequestApproved { request: RequestId, user: Login, lapses_at: Wall },
    /// `by` nobody: the policy.
    #[serde(rename = "request.denied")]
    RequestDenied {
        request: RequestId,
        user: Login,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Login>,
        reason: String,
    },
    #[serde(rename = "request.withdrawn")]
    RequestWithdrawn { request: RequestId, user: Login },
    #[serde(rename = "request.lapsed")]
    RequestLapsed { request: RequestId, user: Login, why: LapseReason },

    /// The grant that is signed from this; its request is used.
    #[serde(rename = "grant.issued")]
    GrantIssued { session: Box<Session> },
    #[serde(rename = "grant.refused")]
    GrantRefused { session: SessionId, site: SiteId, serial: u64, reason: RefuseReason, detail: String },
    #[serde(rename = "session.active")]
    SessionActive { session: SessionId, gateway_key: PublicKey, backend: String },
    /// The ends shook hands this way, where there are two: the first that is seen, and every other one after it until it
    /// is known that the gateway's own address had answered and did not any more.
    #[serde(rename = "session.way")]
    SessionWay { session: SessionId, path: thinlane_model::Path },
    #[serde(rename = "session.extended")]
    SessionExtended {
        session: SessionId,
        serial: u64,
        added_seconds: u64,
        seconds: u64,
        deadline: Boot,
        ends_at: Wall,
        rules: Vec<String>,
        policy_hash: String,
        reason: String,
    },
    /// The gateway works by the extended grant.
    #[serde(rename = "session.extension-armed")]
    ExtensionArmed { session: SessionId, serial: u64 },
    /// The gateway refused it: the session ends as before.
    #[serde(rename = "session.extension-refused")]
    ExtensionRefused { session: SessionId, serial: u64, reason: RefuseReason, detail: String },
    #[serde(rename = "session.ending")]
    SessionEnding {
        session: SessionId,
        reason: EndReason,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    #[serde(rename = "session.ended")]
    SessionEnded { ended: Box<Ended> },
    /// The closing record of a session that had been given up at its deadline.
    #[serde(rename = "session.closed-late")]
    SessionClosedLate { ended: Box<Ended> },

    #[serde(rename = "lock.set")]
    LockSet { lock: Lock },
    #[serde(rename = "lock.cleared")]
    LockCleared { lock: LockId, target: LockTarget, lapsed: bool },

    #[serde(rename = "agent.enrolled")]
    AgentEnrolled { site: SiteId, code: EnrolmentId, certificate: Certificate, version: String },
    #[serde(rename = "agent.renewed")]
    AgentRenewed { site: SiteId, certificate: Certificate },
    /// A new boot, version or backend of the gateway.
    #[serde(rename = "agent.started")]
    AgentStarted {
        site: SiteId,
        boot: BootId,
        version: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        backend: Option<String>,
    },

    #[serde(rename = "policy.loaded")]
    PolicyLoaded {
        hash: String,
        tasks: u64,
        permits: u64,
        requires: u64,
        forbids: u64,
        /// Rules that name somebody or something that is not known here; a slip of the pen, perhaps.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        strangers: Vec<String>,
    },
    /// Nothing is permitted until a valid one is loaded.
    #[serde(rename = "policy.invalid")]
    PolicyInvalid { errors: Vec<String> },

    #[serde(rename = "auth.login")]
    LoggedIn { login: Login, address: String },
    #[serde(rename = "auth.failed")]
    LogInFailed { login: String, address: String, why: String },
    #[serde(rename = "auth.locked-out")]
    LockedOut { login: Login, address: String, until: Wall },
    #[serde(rename = "auth.logout")]
    LoggedOut { login: Login },

    /// Somebody tried what is not theirs, or what is closed.
    #[serde(rename = "attempt.refused")]
    AttemptRefused { command: String, subject: String, code: ErrorCode, message: String },
    #[serde(rename = "alarm.raised")]
    AlarmRaised {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        site: Option<SiteId>,
        alarm: String,
        detail: String,
        /// The gateway's own number, where it came from one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        number: Option<u64>,
    },
    #[serde(rename = "controller.started")]
    ControllerStarted { version: String },
}

/// How a session ended, with what auditors ask for first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub session: SessionId,
    pub request: RequestId,
    pub user: Login,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<OrgName>,
    pub site: SiteId,
    pub asset: AssetName,
    pub task: TaskName,
    pub policy_hash: String,
    pub reason: EndReason,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    pub counters: Counters,
    /// The counters are those of the gateway's closing record.
    pub counters_final: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handshake_at: Option<Wall>,
    /// Which way the lane took, where there were two and one was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<thinlane_model::Path>,
    /// It went through the relay after the gateway's own address had answered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left_direct: bool,
    /// The engineer's outer address and port, as the gateway or the relay last saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    pub late_packets: u64,
    /// The gateway's signed record and its signature, base 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}
