//! People: log-in, set-up, accounts.

use serde::{Deserialize, Serialize};
use thinlane_model::{Login, OrgName, Roles, Wall};

use super::Schema;

/// `POST /setup`: the first log-in, with the set-up code that an admin handed over. Two calls: without
/// `totp` it answers [`SetupStarted`]; with a code of the new secret it finishes and answers [`Token`].
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Setup {
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub user: Login,
    pub code: String,
    pub password: String,
    #[serde(default)]
    pub totp: Option<String>,
}

/// What the authenticator app and a safe need; shown once.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SetupStarted {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    /// Base 32; SHA-1, 6 digits, 30 s.
    pub totp_secret: String,
    /// `otpauth://` for a QR code.
    pub otpauth: String,
    pub recovery_codes: Vec<String>,
}

/// `POST /login`. `totp` may be a recovery code.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LogIn {
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub user: Login,
    pub password: String,
    pub totp: String,
}

/// A bearer token.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Token {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    pub token: String,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub user: Login,
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub roles: Roles,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub expires_at: Wall,
}

/// `GET /whoami`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WhoAmI {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub user: Login,
    pub name: String,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub org: Option<OrgName>,
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub roles: Roles,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub token_expires_at: Wall,
    pub controller_version: String,
}

/// `POST /users`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub user: Login,
    pub name: String,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub org: Option<OrgName>,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub sponsor: Option<Login>,
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub roles: Roles,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub until: Option<Wall>,
}

/// A person.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UserView {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub user: Login,
    pub name: String,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub org: Option<OrgName>,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub sponsor: Option<Login>,
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub roles: Roles,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub until: Option<Wall>,
    /// `invited` (no set-up yet) | `active` | `locked` | `ended`.
    pub state: String,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub created_at: Wall,
}

/// A one-time code, shown this once: a person's set-up code or a gateway's enrolment code.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Code {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    pub code: String,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub expires_at: Wall,
}

/// `POST /users/{login}/lock` and the like.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Reason {
    pub reason: String,
}
