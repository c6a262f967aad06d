//! Bearer tokens: 256 random bits, stored as a hash, 12 hours, ended at once by log-out, lock and reset.
//!
//! One that has ended opens nothing. It is remembered for some days, so that whoever holds it can be told why.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use thinlane_model::{Login, Span, Wall};
use thinlane_store::Store;
use zeroize::Zeroizing;

use super::credential::Hashed;

/// How long a token lasts.
pub const TOKEN_LIFE: Span = Span::from_secs(12 * 3600);
/// How long one that has ended is remembered: over a long weekend.
const REMEMBERED: Span = Span::from_secs(4 * 86_400);
/// The kind under which tokens are stored.
pub(super) const KIND_TOKEN: &str = "token";
/// What every token begins with, so that a leaked one is recognised.
const PREFIX: &str = "tlt_";

/// What is known of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub login: Login,
    pub created: Wall,
    pub expires: Wall,
    /// That it ended before its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

/// Why and when a token ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub at: Wall,
    pub why: Why,
}

/// What ended a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    LoggedOut,
    Locked,
    Reset,
}

impl Token {
    /// Until when it is remembered.
    pub(super) fn forgotten(&self) -> Wall {
        self.expires + REMEMBERED
    }

    fn stands(&self, now: Wall) -> bool {
        // A token from the future: the clock was set back; it must not live longer for that.
        self.ended.is_none() && now < self.expires && self.created <= now + Span::from_secs(300)
    }
}

/// All tokens, by their hash; shared with whoever checks requests.
#[derive(Clone, Default)]
pub struct Tokens(Arc<RwLock<BTreeMap<String, Token>>>);

impl Tokens {
    pub(super) fn load(&self, store: &Store) -> anyhow::Result<()> {
        let mut found = BTreeMap::new();
        for row in store.secrets(KIND_TOKEN)? {
            found.insert(row.id, serde_json::from_str(&row.doc)?);
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(())
    }

    /// Makes a token: its text, its id (a hash), its record.
    pub(super) fn make(login: &Login, now: Wall) -> anyhow::Result<(Zeroizing<String>, String, Token)> {
        let random = Zeroizing::new(crate::random::bytes::<32>()?);
        let text = Zeroizing::new(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(random.as_slice())));
        let id = Hashed::of(&text).as_str().to_owned();
        Ok((text, id, Token { login: login.clone(), created: now, expires: now + TOKEN_LIFE, ended: None }))
    }

    /// Whose token this is, its id and its end; `None`: nobody's, or it has ended.
    pub fn check(&self, text: &str, now: Wall) -> Option<(Login, String, Wall)> {
        if text.len() > 128 {
            return None;
        }
        let id = Hashed::of(text).as_str().to_owned();
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let token = all.get(&id).filter(|token| token.stands(now))?;
        Some((token.login.clone(), id.clone(), token.expires))
    }

    /// What is remembered of a token that opens nothing any more, by its text.
    pub fn former(&self, text: &str) -> Option<Token> {
        let id = Hashed::of(text);
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(id.as_str()).cloned()
    }

    /// Whether the token with this id still stands: for streams that outlive the check.
    pub fn stands(&self, id: &str, now: Wall) -> bool {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(id).is_some_and(|token| token.stands(now))
    }

    pub(super) fn put(&self, id: String, token: Token) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let now = token.created;
        all.retain(|_, old| now < old.forgotten());
        all.insert(id, token);
    }

    /// Ends a token; what is remembered of it, unless it is unknown or has ended before.
    pub(super) fn end(&self, id: &str, ended: Ended) -> Option<Token> {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let token = all.get_mut(id).filter(|token| token.ended.is_none())?;
        token.ended = Some(ended);
        Some(token.clone())
    }

    /// Ids of a person's tokens that have not been ended.
    pub(super) fn of(&self, login: &Login) -> Vec<String> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let theirs = all.iter().filter(|(_, token)| token.login == *login && token.ended.is_none());
        theirs.map(|(id, _)| id.clone()).collect()
    }
}
