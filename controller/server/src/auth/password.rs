//! Argon2id, a bounded number at a time, away from the threads that serve.

use std::sync::{Arc, OnceLock};

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use thinlane_wire::api::{ErrorBody, ErrorCode};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Memory in KiB, passes, lanes: OWASP's first choice for Argon2id.
const COST: (u32, u32, u32) = (19_456, 2, 1);
/// Log-ins that may wait for their turn; one hash is computed at a time on each core.
const WAITING: usize = 128;
/// Lengths of a password in bytes.
pub const SHORTEST: usize = 8;
pub const LONGEST: usize = 1024;

/// Computes and checks password hashes.
#[derive(Clone)]
pub struct Passwords {
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        // Computed now, or the first unknown login would take twice as long as a known one.
        let _ = nobody();
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        Self { running: Arc::new(Semaphore::new(at_once)), admitted: Arc::new(Semaphore::new(at_once + WAITING)) }
    }
}

impl Passwords {
    /// Hashes a new password, in PHC form.
    pub async fn hash(&self, password: Zeroizing<String>) -> Result<String, ErrorBody> {
        self.run(move || hash(&password)).await?.map_err(|error| {
            tracing::error!(%error, "a password cannot be hashed");
            ErrorBody::new(ErrorCode::Internal, "the password cannot be hashed")
        })
    }

    /// Checks a password against a hash; without one it takes as long and is wrong.
    pub async fn check(&self, password: Zeroizing<String>, hash: Option<String>) -> Result<bool, ErrorBody> {
        self.run(move || {
            let known = hash.is_some();
            let text = hash.as_deref().unwrap_or_else(|| nobody());
            let right = PasswordHash::new(text)
                .is_ok_and(|parsed| argon2().verify_password(password.as_bytes(), &parsed).is_ok());
            right && known
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ErrorBody> {
        let busy = || {
            let mut body = ErrorBody::new(ErrorCode::Limit, "too many people log in at this moment").next("try again");
            body.error.retry_after = Some(5);
            body
        };
        let _admitted = self.admitted.clone().try_acquire_owned().map_err(|_| busy())?;
        let running = self.running.clone().acquire_owned().await.map_err(|_| busy())?;
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(running);
            done
        })
        .await
        .map_err(|_| ErrorBody::new(ErrorCode::Internal, "the password cannot be checked"))
    }
}

/// Why a password will not do.
pub fn check_new(password: &str) -> Result<(), ErrorBody> {
    let problem = match password.len() {
        0..SHORTEST => format!("a password has at least {SHORTEST} letters"),
        length if length > LONGEST => format!("a password has at most {LONGEST} bytes"),
        _ => return Ok(()),
    };
    Err(ErrorBody::new(ErrorCode::Invalid, problem).next("choose another one"))
}

fn argon2() -> Argon2<'static> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).expect("these costs are within Argon2's limits");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn hash(password: &str) -> anyhow::Result<String> {
    let salt = SaltString::encode_b64(&crate::random::bytes::<16>()?).map_err(|error| anyhow::anyhow!("{error}"))?;
    let hash = argon2().hash_password(password.as_bytes(), &salt).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(hash.to_string())
}

/// The hash of a password that nobody has.
fn nobody() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| hash("").unwrap_or_default())
}
