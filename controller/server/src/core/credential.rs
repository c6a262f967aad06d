//! What a person proves themselves with, as it is stored: hashes, and the second factor's secret.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thinlane_model::Wall;

/// The kind under which credentials are stored.
pub(super) const KIND_CREDENTIAL: &str = "credential";

/// SHA-256 of a random code or token, in hexadecimal: such texts need no slow hash, they cannot be guessed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hashed(String);

impl Hashed {
    pub fn of(text: &str) -> Self {
        Self(data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes())))
    }

    /// Compares in a time that depends on neither.
    pub fn matches(&self, text: &str) -> bool {
        use subtle::ConstantTimeEq;
        self.0.as_bytes().ct_eq(Self::of(text).0.as_bytes()).into()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One person's. Not `Debug`: it holds the second factor's secret.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Credential {
    /// Argon2id in PHC form; `None`: not set up.
    #[serde(default)]
    pub password: Option<String>,
    /// Base 32.
    #[serde(default)]
    pub totp: Option<String>,
    /// The newest 30 s step whose code was used: it and older ones are worth nothing.
    #[serde(default)]
    pub last_step: u64,
    #[serde(default)]
    pub recovery: Vec<Hashed>,
    /// A set-up code that was handed out, and its end.
    #[serde(default)]
    pub setup: Option<(Hashed, Wall)>,
}
