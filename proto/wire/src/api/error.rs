//! The one shape of every error.

use serde::{Deserialize, Serialize};

use super::Schema;

/// What went wrong, in a word that programs can rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ErrorCode {
    /// The request itself is malformed.
    Invalid,
    /// No valid token: log in.
    Unauthenticated,
    /// Wrong login, password or code, a used code, or too many tries.
    AuthenticationFailed,
    /// The person's roles do not allow it.
    Forbidden,
    /// The policy says no.
    PolicyDenied,
    /// An approver said no.
    Denied,
    /// Person, organisation, site or asset is locked.
    Locked,
    /// The site's own switch is on.
    Isolated,
    /// There is no such thing.
    NotFound,
    /// It exists already, or is in a state that does not allow this.
    Conflict,
    /// The request has lapsed, or the session has ended.
    Ended,
    /// A limit is reached: try later.
    Limit,
    /// The site's gateway is not connected or did not answer.
    SiteUnreachable,
    /// The gateway refused or could not build the lane.
    SiteRefused,
    /// The log cannot be written: nothing new is opened.
    LogUnavailable,
    /// The policy in force is invalid: everything is denied.
    PolicyInvalid,
    /// The controller failed; its log says more.
    Internal,
}

impl ErrorCode {
    /// The HTTP status that carries it.
    pub fn http_status(self) -> u16 {
        use ErrorCode::*;
        match self {
            Invalid => 400,
            Unauthenticated | AuthenticationFailed => 401,
            Forbidden | PolicyDenied | Denied | Locked | Isolated | PolicyInvalid => 403,
            NotFound => 404,
            Conflict => 409,
            Ended => 410,
            Limit => 429,
            Internal => 500,
            SiteRefused => 502,
            LogUnavailable => 503,
            SiteUnreachable => 504,
        }
    }

    /// The exit code of the command line (see INTERFACE: 1 failure, 3 denied, 5 ended, 6 unreachable).
    pub fn exit_code(self) -> u8 {
        use ErrorCode::*;
        match self {
            AuthenticationFailed | Forbidden | PolicyDenied | Denied | Locked | Isolated | PolicyInvalid => 3,
            Unauthenticated => 3,
            Ended => 5,
            SiteUnreachable => 6,
            Invalid | NotFound | Conflict | Limit | SiteRefused | LogUnavailable | Internal => 1,
        }
    }
}

/// An error as the API returns it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    pub error: ErrorDetail,
}

/// What, why, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorDetail {
    pub code: ErrorCode,
    /// One sentence: what failed and why.
    pub message: String,
    /// The next step to take, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Seconds after which trying again makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl ErrorBody {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { schema: Schema, error: ErrorDetail { code, message: message.into(), next: None, retry_after: None } }
    }

    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.error.next = Some(next.into());
        self
    }
}
