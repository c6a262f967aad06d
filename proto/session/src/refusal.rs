//! Why a command was not taken: what, why, and what to do next.

use thinlane_model::{Login, PublicKey, Role, Wall};
use thinlane_wire::api::ErrorCode;

use crate::Event;

/// A refusal together with what the log must say of the attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    pub refusal: Refusal,
    /// To be applied and logged like those of a command that was taken; often empty.
    pub events: Vec<Event>,
}

/// Why a command was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{what} needs one of the roles {}", words(.roles))]
    NotAllowed { what: &'static str, roles: &'static [Role] },
    #[error("{what} is not for {actor}")]
    WrongActor { what: &'static str, actor: String },
    #[error("{kind} {name} belongs to somebody else")]
    NotYours { kind: &'static str, name: String },
    #[error("nobody decides an own request")]
    OwnRequest,
    #[error("{login} is your own account, and nobody locks or unlocks their own")]
    OwnAccount { login: Login },
    #[error("this request is decided by people with one of the roles {roles}")]
    NotApprover { roles: String },
    #[error("{target} is locked, by {by} since {at}{}: {reason}", ends(.until))]
    Locked { target: String, reason: String, by: Login, at: Wall, until: Option<Wall> },
    #[error("the account of {login} ended at {at}")]
    AccountEnded { login: String, at: Wall },
    #[error("site {site} is isolated by its own switch")]
    Isolated { site: String },
    #[error("site {site} is frozen: {why}")]
    Frozen { site: String, why: String },
    #[error("site {site} has no gateway yet")]
    NotEnrolled { site: String },
    #[error("the gateway of site {site} is not ready: {why}")]
    NotReady { site: String, why: String },
    #[error("the gateway of site {site} started anew in this moment")]
    OtherBoot { site: String },
    #[error("no {kind} {name}")]
    Unknown { kind: &'static str, name: String },
    #[error("{name} names more than one {kind}")]
    Ambiguous { kind: &'static str, name: String },
    #[error("there is {} {name} already", article(.kind))]
    Exists { kind: &'static str, name: String },
    #[error("{kind} {name} is {state}")]
    State { kind: &'static str, name: String, state: &'static str },
    #[error("request {request} was denied: {reason}")]
    Denied { request: String, reason: String },
    #[error("{kind} {name} is over: {why}")]
    Over { kind: &'static str, name: String, why: String },
    #[error("request {request} may be used from {from}")]
    TooEarly { request: String, from: Wall },
    #[error("{by} approved it already")]
    ApprovedAlready { by: String },
    #[error("asset {asset} has live sessions")]
    InUse { asset: String },
    #[error("the key {0} is in use by a live session")]
    KeyInUse(PublicKey),
    #[error("the policy in force is invalid, so everything is denied")]
    PolicyInvalid,
    #[error("the policy denies it: {}", .reasons.join("; "))]
    PolicyDenied { reasons: Vec<String>, next: String },
    #[error("{what}: at most {most}")]
    Limit { what: &'static str, most: usize },
    #[error("no free address in {pool}")]
    PoolEmpty { pool: String },
    #[error("no relay is set up, and site {site} has no endpoint of its own")]
    NoPath { site: String },
    #[error("{field}: {problem}")]
    Invalid { field: &'static str, problem: String },
    #[error("the code is unknown, used or expired")]
    Code,
    #[error("{}", lines(.0))]
    Import(Vec<(String, Refusal)>),
}

impl Refusal {
    /// The API's stable word for it.
    pub fn code(&self) -> ErrorCode {
        use Refusal::*;
        match self {
            NotAllowed { .. }
            | WrongActor { .. }
            | NotYours { .. }
            | OwnRequest
            | OwnAccount { .. }
            | NotApprover { .. } => ErrorCode::Forbidden,
            Locked { .. } | AccountEnded { .. } | Frozen { .. } => ErrorCode::Locked,
            Isolated { .. } => ErrorCode::Isolated,
            NotEnrolled { .. } | OtherBoot { .. } => ErrorCode::SiteUnreachable,
            NotReady { .. } => ErrorCode::SiteRefused,
            Unknown { .. } | Ambiguous { .. } => ErrorCode::NotFound,
            Exists { .. } | State { .. } | TooEarly { .. } | ApprovedAlready { .. } | InUse { .. } | KeyInUse(_) => {
                ErrorCode::Conflict
            }
            Denied { .. } => ErrorCode::Denied,
            Over { .. } => ErrorCode::Ended,
            PolicyInvalid => ErrorCode::PolicyInvalid,
            PolicyDenied { .. } => ErrorCode::PolicyDenied,
            Limit { .. } | PoolEmpty { .. } => ErrorCode::Limit,
            NoPath { .. } => ErrorCode::Internal,
            Invalid { .. } | Import(_) => ErrorCode::Invalid,
            Code => ErrorCode::AuthenticationFailed,
        }
    }

    /// The next step to take, where there is one.
    pub fn next(&self) -> Option<String> {
        use Refusal::*;
        Some(match self {
            NotAllowed { roles, .. } => format!("ask somebody who is {}, or an admin for the role", words(roles)),
            OwnRequest => "ask another approver".to_owned(),
            NotApprover { roles } => format!("ask somebody who is {roles}"),
            OwnAccount { login } => {
                format!("ask somebody else who is ops or admin; they use `thinlane lock user {login} --reason ..`")
            }
            Locked { target, until, .. } => {
                let wait = until.map(|until| format!("wait until {until}, or ")).unwrap_or_default();
                format!("{wait}ask somebody who is {}: `thinlane unlock {target}`", words(crate::decide::OPS))
            }
            AccountEnded { .. } => "ask an admin".to_owned(),
            Isolated { site } => format!("ask the site's technician to run `thinlane-agent isolate off` at {site}"),
            Frozen { site, .. } => format!("find the second gateway, then `thinlane unlock site {site}`"),
            NotEnrolled { site } => {
                format!("`thinlane site token {site}`, then `thinlane-agent enroll` on the gateway")
            }
            NotReady { .. } => "`thinlane-agent status` on the gateway says more".to_owned(),
            OtherBoot { .. } => "try again".to_owned(),
            Unknown { kind: "request", .. } => "`thinlane request ls`".to_owned(),
            Unknown { kind: "session", .. } => "`thinlane session ls`".to_owned(),
            Unknown { kind: kind @ ("user" | "site" | "asset" | "task"), .. } => format!("`thinlane {kind} ls`"),
            Unknown { kind: "lock on", .. } => "`thinlane lock ls`".to_owned(),
            Unknown { .. } => return None,
            Ambiguous { .. } => "give more letters of the id".to_owned(),
            Denied { .. } | Over { kind: "request", .. } => "make a new request".to_owned(),
            Over { .. } => "`thinlane connect` opens a new one".to_owned(),
            TooEarly { from, .. } => format!("wait until {from}"),
            InUse { asset } => format!("`thinlane lock asset {asset}` ends them"),
            KeyInUse(_) => "make a fresh key pair for each session".to_owned(),
            PolicyInvalid => "`thinlane-controller policy check` says what is wrong".to_owned(),
            PolicyDenied { next, .. } => next.clone(),
            Limit { .. } => "try again later".to_owned(),
            PoolEmpty { .. } => "configure a larger pool".to_owned(),
            NoPath { .. } => "run the controller with `--relay-public`, or give the site an endpoint".to_owned(),
            Code => "`thinlane site token` makes a new one".to_owned(),
            Exists { kind, name } => format!("choose another name, or look at it with `thinlane {kind} show {name}`"),
            State { kind: kind @ ("request" | "session"), name, .. } => format!("`thinlane {kind} show {name}`"),
            ApprovedAlready { .. } => {
                "another approver is needed; `thinlane request show` says of which role".to_owned()
            }
            Invalid { field, .. } => return correction(field).map(str::to_owned),
            Import(_) => "correct these and import the whole file again; nothing was taken".to_owned(),
            WrongActor { .. } | NotYours { .. } | State { .. } => return None,
        })
    }

    /// Whether the attempt itself belongs in the log: somebody tried what is closed or not theirs.
    pub fn is_recorded(&self) -> bool {
        use ErrorCode::*;
        matches!(
            self.code(),
            Forbidden | PolicyDenied | Denied | Locked | Isolated | PolicyInvalid | AuthenticationFailed | Ended
        )
    }
}

/// What to write instead, by the field that was wrong.
fn correction(field: &str) -> Option<&'static str> {
    Some(match field {
        "sponsor" => "name one of your own people with `--sponsor LOGIN` (`thinlane user ls`)",
        "org" => "name the organisation with `--org ORG`, or leave `--sponsor` out",
        "role" => "name at least one with `--role`",
        "until" => "give a day to come: `--until 2030-12-31`",
        "reason" => "say why in a few words: `--reason \"...\"`",
        "name" => "give the person's name: `--name \"...\"`",
        "address" => "give the device's own address in the site's LAN; `thinlane asset ls` shows those taken",
        "label" => "write labels as KEY=VALUE",
        "for" => "write a time as 30m or 1h30m",
        "at" => "write the moment as 2030-12-31T08:00:00Z",
        _ => return None,
    })
}

fn article(kind: &str) -> String {
    format!("{} {kind}", if kind.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" })
}

/// The end of a lock, in a sentence.
fn ends(until: &Option<Wall>) -> String {
    until.map(|until| format!(" until {until}")).unwrap_or_default()
}

fn words(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
}

fn lines(errors: &[(String, Refusal)]) -> String {
    const SHOWN: usize = 20;
    let mut text: Vec<String> =
        errors.iter().take(SHOWN).map(|(asset, refusal)| format!("{asset}: {refusal}")).collect();
    if errors.len() > SHOWN {
        text.push(format!("and {} more", errors.len() - SHOWN));
    }
    text.join("\n")
}
