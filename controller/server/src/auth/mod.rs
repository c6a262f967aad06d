//! Who is there: log-in, first set-up, one-time codes.
//!
//! Wrong login, wrong password, wrong code and no set-up yet are one answer that takes the same time. Only whoever
//! has shown the right password learns more: that the code was used, or that the account is locked.

pub mod code;
mod guard;
mod password;
mod totp;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use thinlane_model::{Login, Span, Wall};
use thinlane_session::{Actor, Note};
use thinlane_wire::api::{ErrorBody, ErrorCode, LogIn, Schema, Setup, SetupStarted, Token};
use zeroize::Zeroizing;

use crate::api::error::refused;
use crate::core::{Core, Credential, Hashed, Step};
use guard::{Guard, Wrong};
pub use guard::{Kept, Who};
use password::Passwords;
use totp::Verdict;

/// How long a set-up code is good.
pub const SETUP_LIFE: Span = Span::from_secs(72 * 3600);
/// Letters of a set-up code: 100 bits.
const SETUP_LETTERS: usize = 20;
/// Recovery codes of a person, and letters of each: 75 bits.
const RECOVERY_CODES: usize = 10;
const RECOVERY_LETTERS: usize = 15;
/// Set-ups between their two calls.
const MOST_PENDING: usize = 1000;
const PENDING_LIFE: Span = Span::from_secs(3600);

/// The door.
pub struct Auth {
    core: Core,
    guard: Guard,
    passwords: Passwords,
    pending: Mutex<BTreeMap<Login, Pending>>,
}

/// A second factor that was shown and not yet confirmed.
#[derive(Clone)]
struct Pending {
    secret: Zeroizing<String>,
    recovery: Vec<Hashed>,
    until: Wall,
}

/// What a set-up call answers.
pub enum SetupAnswer {
    Started(SetupStarted),
    Finished(Token),
}

impl Auth {
    /// `kept` are the wrong tries of before the restart.
    pub fn new(core: Core, kept: Vec<(Who, Kept)>) -> Self {
        let guard = Guard::resume(kept, crate::clock::now());
        Self { core, guard, passwords: Passwords::default(), pending: Mutex::default() }
    }

    /// `POST /login`.
    pub async fn log_in(&self, body: LogIn, source: IpAddr) -> Result<Token, ErrorBody> {
        let LogIn { user, password, totp } = body;
        let (password, totp) = (Zeroizing::new(password), Zeroizing::new(totp));
        self.begin(&user, source)?;
        if password.len() > password::LONGEST || totp.len() > 100 {
            return Err(self.wrong(&user, source, "a field is too long").await);
        }
        let login = user.clone();
        let hash = self.core.read(move |state| state.credential(&login).and_then(|one| one.password.clone())).await?;
        if !self.passwords.check(password, hash.clone()).await? {
            return Err(self.wrong(&user, source, "password").await);
        }
        let login = user.clone();
        let found = self.core.write(move |step| finish_log_in(step, &login, hash.as_deref(), &totp, source)).await?;
        match found {
            LogInEnd::Done(token) => {
                self.guard.right(user.as_str());
                Ok(token)
            }
            LogInEnd::Wrong => Err(self.wrong(&user, source, "code").await),
            LogInEnd::Refused(body) => {
                self.guard.right(user.as_str());
                Err(body)
            }
        }
    }

    /// `POST /setup`: the first call shows the second factor, the second one, with a code of it, finishes.
    pub async fn set_up(&self, body: Setup, source: IpAddr) -> Result<SetupAnswer, ErrorBody> {
        let Setup { user, code, password, totp } = body;
        let (code, password) = (Zeroizing::new(code), Zeroizing::new(password));
        self.begin(&user, source)?;
        let (login, typed) = (user.clone(), code::plain(&code));
        let good = self.core.read(move |state| has_setup_code(state.credential(&login), &typed)).await?;
        if !good {
            return Err(self.wrong(&user, source, "set-up code").await);
        }
        // The code was right: whatever is wrong from here on is a slip, not a guess.
        if totp.is_none() {
            self.guard.right(user.as_str());
            password::check_new(&password)?;
            return self.start_set_up(&user).map(SetupAnswer::Started);
        }
        password::check_new(&password).inspect_err(|_| self.guard.right(user.as_str()))?;
        let now = crate::clock::wall();
        let pending = {
            let all = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(&user).filter(|one| now < one.until).cloned()
        };
        let Some(pending) = pending else {
            self.guard.right(user.as_str());
            return Err(ErrorBody::new(
                ErrorCode::Conflict,
                "this set-up was not begun, or the controller was restarted since",
            )
            .next("`thinlane setup` begins it again"));
        };
        let typed = Zeroizing::new(totp.unwrap_or_default());
        let Verdict::Right { step: used } = totp::check(&pending.secret, &typed, 0, now) else {
            return Err(self.wrong(&user, source, "code of the second factor").await);
        };
        let hash = self.passwords.hash(password).await?;
        let (login, typed) = (user.clone(), code::plain(&code));
        let token =
            self.core.write(move |step| finish_set_up(step, &login, &typed, hash, pending, used, source)).await?;
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&user);
        self.guard.right(user.as_str());
        Ok(SetupAnswer::Finished(token))
    }

    fn start_set_up(&self, user: &Login) -> Result<SetupStarted, ErrorBody> {
        let internal = |error: anyhow::Error| ErrorBody::new(ErrorCode::Internal, error.to_string());
        let secret = totp::new_secret().map_err(internal)?;
        let codes: Vec<_> =
            (0..RECOVERY_CODES).map(|_| code::make(RECOVERY_LETTERS)).collect::<Result<_, _>>().map_err(internal)?;
        let otpauth = totp::url(&secret, user)
            .ok_or_else(|| ErrorBody::new(ErrorCode::Internal, "the second factor cannot be written as a URL"))?;
        let now = crate::clock::wall();
        let recovery = codes.iter().map(|code| code::hash(code)).collect();
        let pending = Pending { secret: Zeroizing::new(secret.clone()), recovery, until: now + PENDING_LIFE };
        let mut all = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, one| now < one.until);
        if all.len() >= MOST_PENDING && !all.contains_key(user) {
            return Err(ErrorBody::new(ErrorCode::Limit, "too many set-ups are under way").next("try again later"));
        }
        all.insert(user.clone(), pending);
        let recovery_codes = codes.into_iter().map(|code| code.to_string()).collect();
        Ok(SetupStarted { schema: Schema, totp_secret: secret, otpauth, recovery_codes })
    }

    /// Lets a gateway try its enrolment code.
    pub fn begin_enrolment(&self, source: IpAddr) -> Result<(), ErrorBody> {
        self.guard.admit(source, crate::clock::mono()).map_err(too_many)
    }

    /// The code was wrong; what must be kept of that.
    pub fn enrolment_failed(&self, source: IpAddr) -> Vec<(Who, Kept)> {
        let now = crate::clock::now();
        self.guard.wrong_from(source, now.mono);
        self.guard.keep(None, source, now)
    }

    fn begin(&self, user: &Login, source: IpAddr) -> Result<(), ErrorBody> {
        self.guard.begin(user.as_str(), source, crate::clock::mono()).map_err(too_many)
    }

    /// Logs a wrong try; the one answer to all of them.
    async fn wrong(&self, user: &Login, source: IpAddr, why: &'static str) -> ErrorBody {
        let now = crate::clock::now();
        self.guard.wrong_from(source, now.mono);
        let state = self.guard.state(user.as_str(), now.mono);
        let kept = self.guard.keep(Some(user.as_str()), source, now);
        let login = user.clone();
        let logged = self.core.write(move |step| {
            step.keep_tries(&kept);
            let (now, address) = (step.now().wall, source.to_string());
            let failed = Note::LogInFailed { login: login.to_string(), address: address.clone(), why: why.to_owned() };
            step.note(&Actor::System, failed)?;
            if let Wrong::Wait(wait) = state {
                step.note(&Actor::System, Note::LockedOut { login, address, until: now + wait })?;
            }
            Ok(())
        });
        if let Err(error) = logged.await {
            return error;
        }
        let mut body = ErrorBody::new(ErrorCode::AuthenticationFailed, "wrong login, password or code");
        body.error.next = Some("check them; after five wrong tries an account has to wait".to_owned());
        if let Wrong::Wait(wait) = state {
            body.error.retry_after = Some(wait.as_secs().max(1));
        }
        body
    }
}

/// Makes a set-up code for a person, whose old password and second factor are void from now on.
pub fn new_setup_code(step: &mut Step<'_>, login: &Login) -> Result<(Zeroizing<String>, Wall), ErrorBody> {
    let code = code::make(SETUP_LETTERS).map_err(|error| ErrorBody::new(ErrorCode::Internal, error.to_string()))?;
    let until = step.now().wall + SETUP_LIFE;
    step.put_credential(login, Credential { setup: Some((code::hash(&code), until)), ..Credential::default() });
    Ok((code, until))
}

enum LogInEnd {
    Done(Token),
    Wrong,
    Refused(ErrorBody),
}

/// The part of a log-in that must be one step: the code is used up with the token that it gives.
fn finish_log_in(
    step: &mut Step<'_>,
    login: &Login,
    hash: Option<&str>,
    typed: &str,
    source: IpAddr,
) -> Result<LogInEnd, ErrorBody> {
    let Some(mut credential) = step.state().credential(login).cloned() else { return Ok(LogInEnd::Wrong) };
    // The password may have been reset while it was checked.
    if credential.password.as_deref() != hash {
        return Ok(LogInEnd::Wrong);
    }
    match spend_code(&mut credential, typed, step.now().wall) {
        Verdict::Right { .. } => step.forget_tries(login),
        Verdict::Used { next_in } => {
            step.forget_tries(login);
            let failed = Note::LogInFailed {
                login: login.to_string(),
                address: source.to_string(),
                why: "code used before".to_owned(),
            };
            step.note(&Actor::System, failed)?;
            let mut body =
                ErrorBody::new(ErrorCode::AuthenticationFailed, "this code has been used; each one is good once")
                    .next("wait for the next code");
            body.error.retry_after = Some(next_in);
            return Ok(LogInEnd::Refused(body));
        }
        Verdict::Wrong => return Ok(LogInEnd::Wrong),
    }
    step.put_credential(login, credential);
    if let Err(body) = usable(step, login) {
        let failed = Note::LogInFailed {
            login: login.to_string(),
            address: source.to_string(),
            why: "closed account".to_owned(),
        };
        step.note(&Actor::System, failed)?;
        return Ok(LogInEnd::Refused(body));
    }
    step.note(&Actor::Person(login.clone()), Note::LoggedIn { login: login.clone(), address: source.to_string() })?;
    token(step, login).map(LogInEnd::Done)
}

/// Uses up a TOTP or a recovery code.
fn spend_code(credential: &mut Credential, typed: &str, now: Wall) -> Verdict {
    let Some(secret) = credential.totp.clone().map(Zeroizing::new) else { return Verdict::Wrong };
    let verdict = totp::check(&secret, typed, credential.last_step, now);
    match verdict {
        Verdict::Right { step } => credential.last_step = step,
        Verdict::Used { .. } => {}
        Verdict::Wrong => {
            let typed = code::plain(typed);
            let found = credential.recovery.iter().position(|code| code.matches(&typed));
            if let Some(at) = found {
                credential.recovery.remove(at);
                return Verdict::Right { step: credential.last_step };
            }
        }
    }
    verdict
}

fn finish_set_up(
    step: &mut Step<'_>,
    login: &Login,
    typed: &str,
    hash: String,
    pending: Pending,
    used: u64,
    source: IpAddr,
) -> Result<Token, ErrorBody> {
    if !has_setup_code(step.state().credential(login), typed) {
        return Err(ErrorBody::new(ErrorCode::AuthenticationFailed, "the set-up code has been used or is void")
            .next("ask an admin for `thinlane user reset`"));
    }
    usable(step, login)?;
    let credential = Credential {
        password: Some(hash),
        totp: Some(pending.secret.to_string()),
        last_step: used,
        recovery: pending.recovery,
        setup: None,
    };
    step.put_credential(login, credential);
    step.forget_tries(login);
    step.note(&Actor::Person(login.clone()), Note::SetUp { login: login.clone(), address: source.to_string() })?;
    token(step, login)
}

fn has_setup_code(credential: Option<&Credential>, typed: &str) -> bool {
    let now = crate::clock::wall();
    match credential.and_then(|one| one.setup.as_ref()) {
        Some((hash, until)) => hash.matches(typed) && now < *until,
        None => false,
    }
}

/// Whether the person may be here at all now.
fn usable(step: &Step<'_>, login: &Login) -> Result<(), ErrorBody> {
    let world = step.world();
    let Some(person) = world.person(login) else {
        return Err(ErrorBody::new(ErrorCode::AuthenticationFailed, "wrong login, password or code"));
    };
    world.standing(person, step.now().wall).map_err(|refusal| refused(&refusal))
}

fn token(step: &mut Step<'_>, login: &Login) -> Result<Token, ErrorBody> {
    let (text, expires_at) =
        step.issue_token(login).map_err(|error| ErrorBody::new(ErrorCode::Internal, error.to_string()))?;
    let roles = step.world().person(login).map(|person| person.roles.clone()).unwrap_or_default();
    Ok(Token { schema: Schema, token: text.to_string(), user: login.clone(), roles, expires_at })
}

fn too_many(wait: Span) -> ErrorBody {
    let seconds = wait.as_secs().max(1);
    let mut body = ErrorBody::new(ErrorCode::AuthenticationFailed, "too many wrong tries")
        .next(format!("wait {}", Span::from_secs(seconds)));
    body.error.retry_after = Some(seconds);
    body
}
