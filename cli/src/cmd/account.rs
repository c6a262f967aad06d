//! Log-in, first log-in, log-out.

use std::time::Duration;

use clap::Args;
use reqwest::Url;
use serde_json::json;
use thinlane_model::Login as LoginName;
use thinlane_wire::api::{self, Done, ErrorCode, SetupStarted, StatusView, Token};

use crate::api::{Client, Fingerprint, Trust, parse_url};
use crate::context::Context;
use crate::failure::{Exit, Failure, Result};
use crate::home::{Config, StoredToken};
use crate::out::{clean, qr, text, time};
use crate::secret::{self, SecretText, Source, TOTP_STEP, TotpSecret};

#[derive(Args)]
pub struct Login {
    /// The controller, https://HOST:7443; the last one if left out
    #[arg(value_name = "URL", value_parser = parse_url)]
    controller: Option<Url>,
    /// Trust exactly the CA with this fingerprint, as `thinlane-controller init` printed it
    #[arg(long, value_name = "sha256:HEX", env = "THINLANE_CA_FINGERPRINT")]
    ca_fingerprint: Option<Fingerprint>,
    /// Who you are; the last one if left out
    #[arg(long, value_name = "LOGIN", env = "THINLANE_USER")]
    user: Option<LoginName>,
    #[command(flatten)]
    password: Password,
    /// The six digits of your authenticator app, or a recovery code
    #[arg(long, value_name = "CODE", env = "THINLANE_TOTP", hide_env_values = true)]
    totp: Option<String>,
    /// Compute the six digits from the secret in this file, or env://NAME
    #[arg(
        long,
        value_name = "FILE",
        env = "THINLANE_TOTP_SECRET_FILE",
        hide_env_values = true,
        conflicts_with = "totp"
    )]
    totp_secret_file: Option<Source>,
}

#[derive(Args)]
struct Password {
    /// Read the password from one line of stdin
    #[arg(long)]
    password_stdin: bool,
    /// Read the password from a file, or env://NAME
    #[arg(
        long,
        value_name = "FILE",
        env = "THINLANE_PASSWORD_FILE",
        hide_env_values = true,
        conflicts_with = "password_stdin"
    )]
    password_file: Option<Source>,
}

impl Password {
    fn read(&self, prompt: &str) -> Result<SecretText> {
        match &self.password_file {
            Some(source) => source.read("--password-file"),
            None => secret::password(self.password_stdin, prompt, "give it with --password-stdin or --password-file"),
        }
    }

    fn is_asked(&self) -> bool {
        self.password_file.is_none() && !self.password_stdin
    }
}

#[derive(Args)]
pub struct WhoAmI {
    /// Print the bearer token, for other clients of the API
    #[arg(long)]
    token: bool,
}

#[derive(Args)]
pub struct Setup {
    /// The controller, https://HOST:7443
    #[arg(value_name = "URL", value_parser = parse_url)]
    controller: Option<Url>,
    /// Trust exactly the CA with this fingerprint
    #[arg(long, value_name = "sha256:HEX", env = "THINLANE_CA_FINGERPRINT")]
    ca_fingerprint: Option<Fingerprint>,
    /// Who you are
    #[arg(long, value_name = "LOGIN", env = "THINLANE_USER")]
    user: Option<LoginName>,
    /// The file with your set-up code, or env://NAME; asked for if left out
    #[arg(long, value_name = "FILE", env = "THINLANE_CODE_FILE", hide_env_values = true)]
    code_file: Option<Source>,
    #[command(flatten)]
    password: Password,
}

/// `thinlane login`
pub async fn login(context: &Context, args: Login) -> Result<()> {
    let (client, url) = first_contact(context, args.controller, args.ca_fingerprint).await?;
    let user = who(context, args.user)?;
    let secret = match &args.totp_secret_file {
        Some(source) => Some(TotpSecret::parse(&source.read("--totp-secret-file")?)?),
        None => None,
    };
    let password = args.password.read(&format!("Password of {user}"))?;
    let token = match (secret, args.totp) {
        (Some(secret), _) => log_in_with_secret(context, &client, &user, &password, &secret).await?,
        (None, Some(code)) => log_in(&client, &user, &password, code.trim()).await?,
        (None, None) => {
            let code = secret::ask("Code of your authenticator app", "give it with --totp or --totp-secret-file")?;
            log_in(&client, &user, &password, &code).await?
        }
    };
    keep(context, &client, &url, &token)?;
    tell_log_in(context, &token)
}

/// A new log-in of the same person at the same controller, for a screen that stays open.
pub async fn log_in_again(context: &Context, password: &str, code: &str) -> Result<Token> {
    if context.has_token_file() {
        return Err(Failure::usage("this program was given its log-in with --token-file")
            .next("write a new token into that file: thinlane whoami --token, where you are logged in"));
    }
    let (client, url) = (context.anonymous()?, context.controller()?);
    let password = SecretText::new(password.to_owned());
    let token = log_in(&client, &who(context, None)?, &password, code).await?;
    keep(context, &client, &url, &token)?;
    Ok(token)
}

/// `thinlane logout`
pub async fn logout(context: &Context) -> Result<()> {
    let client = context.client()?;
    let told = client.post::<Done>("/logout", &json!({})).await;
    context.home.remove_token()?;
    match told {
        Err(failure) if !failure.is(ErrorCode::Unauthenticated) && !failure.is(ErrorCode::Locked) => {
            Err(failure.during("you are logged out here, but the controller was not told"))
        }
        _ => context.out.show(&json!({ "logged_out": true }), |_| "logged out".to_owned()),
    }
}

/// `thinlane whoami`
pub async fn whoami(context: &Context, args: WhoAmI) -> Result<()> {
    let out = context.out;
    if args.token {
        let token = context.token()?;
        return if out.json { out.object(&json!({ "token": token.as_str() })) } else { out.line(&token) };
    }
    let me: api::WhoAmI = context.client()?.get("/whoami").await?;
    out.show(&me, |me| {
        text::pairs(&[
            ("user", me.user.to_string()),
            ("name", me.name.clone()),
            ("organisation", me.org.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("roles", text::joined(&me.roles)),
            ("controller", context.controller().map(|url| url.to_string()).unwrap_or_default()),
            ("version", me.controller_version.clone()),
            ("log-in until", time::local(me.token_expires_at)),
        ])
    })
}

/// `thinlane setup`
pub async fn setup(context: &Context, args: Setup) -> Result<()> {
    let out = context.out;
    // What is wrong here is said before anybody is asked anything.
    let code = args.code_file.as_ref().map(|source| source.read("--code-file")).transpose()?;
    let (client, url) = first_contact(context, args.controller, args.ca_fingerprint).await?;
    let user = who(context, args.user)?;
    let code = match code {
        Some(code) => code,
        None => secret::ask_secret("Set-up code", "give it with --code-file FILE or --code-file env://NAME")?,
    };
    let password = args.password.read(&format!("New password of {user}"))?;
    if args.password.is_asked() && *secret::ask_secret("The same again", "give it with --password-stdin")? != *password
    {
        return Err(Failure::usage("the two passwords differ"));
    }
    let mut request = api::Setup { user, code: code.to_string(), password: password.to_string(), totp: None };
    let started: SetupStarted = client.post("/setup", &request).await?;
    let totp = TotpSecret::parse(&started.totp_secret)?;

    let by_hand = !out.json && secret::attended();
    if by_hand {
        show_secret(context, &started)?;
    }
    let mut tries = 0;
    let token: Token = loop {
        tries += 1;
        request.totp =
            Some(if by_hand { secret::ask("The six digits it shows now", "")? } else { totp.code(unix_now()) });
        match client.post("/setup", &request).await {
            Err(failure) if failure.is(ErrorCode::AuthenticationFailed) && by_hand && tries < 3 => {
                out.hint(&failure.message);
            }
            other => break other?,
        }
    };
    keep(context, &client, &url, &token)?;
    if out.json {
        return out.object(&json!({
            "user": token.user,
            "totp_secret": started.totp_secret,
            "recovery_codes": started.recovery_codes,
            "expires_at": token.expires_at,
        }));
    }
    if !by_hand {
        out.line(&format!("TOTP secret (SHA-1, 6 digits, 30 s): {}", started.totp_secret))?;
    }
    out.line(
        "Recovery codes: each works once instead of the six digits. Keep them in a safe, they are not shown again.",
    )?;
    for code in &started.recovery_codes {
        out.line(&format!("  {}", clean(code)))?;
    }
    tell_log_in(context, &token)
}

fn show_secret(context: &Context, started: &SetupStarted) -> Result<()> {
    let out = context.out;
    out.line("Scan this with your authenticator app:")?;
    if let Some(picture) = qr::render(&started.otpauth, out.colour) {
        out.line(&picture)?;
    }
    out.line(&format!("or type the secret by hand (SHA-1, 6 digits, 30 s): {}\n", clean(&started.totp_secret)))
}

/// Makes sure of whom we talk to.
async fn first_contact(
    context: &Context,
    given: Option<Url>,
    fingerprint: Option<Fingerprint>,
) -> Result<(Client, Url)> {
    let url = match given {
        Some(url) => url,
        None => context.controller()?,
    };
    let pinned = context.home.read_ca();
    let trust = match (fingerprint, pinned) {
        (Some(fingerprint), _) => Trust::Fingerprint(fingerprint),
        (None, Ok(Some(ca))) => Trust::Ca(ca),
        (None, Ok(None)) => Trust::Fingerprint(ask_trust(context, &url).await?),
        (None, Err(failure)) => return Err(failure),
    };
    let client = Client::new(url.clone(), trust)?;
    let _: StatusView = client.get("/status").await?;
    Ok((client, url))
}

/// Shows the CA's fingerprint and has a person compare it; with nobody there, refuses.
async fn ask_trust(context: &Context, url: &Url) -> Result<Fingerprint> {
    let probe = Client::new(url.clone(), Trust::Nobody)?;
    let refused = match probe.get::<StatusView>("/status").await {
        Err(failure) => failure,
        Ok(_) => return Err(Failure::new(Exit::Verification, format!("{} showed no certificate", url.authority()))),
    };
    match probe.seen_ca() {
        Some(seen) if secret::attended() => {
            context.out.hint(&format!(
                "{} is not known yet. Its CA has the fingerprint\n\n  {}\n",
                url.authority(),
                seen.fingerprint
            ));
            let answer = secret::ask("Is this what `thinlane-controller init` printed? (yes/no)", "")?;
            if answer.eq_ignore_ascii_case("yes") { Ok(seen.fingerprint) } else { Err(refused) }
        }
        _ => Err(refused),
    }
}

fn who(context: &Context, flag: Option<LoginName>) -> Result<LoginName> {
    if let Some(user) = flag.or_else(|| context.config.user.clone()) {
        return Ok(user);
    }
    let text = secret::ask("Log-in name", "give it with --user LOGIN")?;
    text.parse().map_err(|error: thinlane_model::NameError| Failure::usage(error.to_string()))
}

async fn log_in(client: &Client, user: &LoginName, password: &SecretText, code: &str) -> Result<Token> {
    let body = api::LogIn { user: user.clone(), password: password.to_string(), totp: code.to_owned() };
    client.post("/login", &body).await
}

/// Logs in with a computed code; where the current one has been used, waits for the next.
async fn log_in_with_secret(
    context: &Context,
    client: &Client,
    user: &LoginName,
    password: &SecretText,
    secret: &TotpSecret,
) -> Result<Token> {
    const TRIES: u32 = 4;
    let mut tries = 0;
    loop {
        let at = unix_now();
        tries += 1;
        match log_in(client, user, password, &secret.code(at)).await {
            Err(failure) if tries < TRIES && is_used(&failure) => {
                let wait = TOTP_STEP - unix_now() % TOTP_STEP;
                context.out.hint(&format!("the current code has been used; waiting {wait} s for the next one"));
                tokio::time::sleep(Duration::from_secs(wait) + Duration::from_millis(200)).await;
            }
            other => return other,
        }
    }
}

/// Whether the controller refused a code only because it was used before.
fn is_used(failure: &Failure) -> bool {
    failure.is(ErrorCode::AuthenticationFailed)
        && failure.message.to_lowercase().contains("used")
        && failure.retry_after.is_none_or(|secs| secs <= TOTP_STEP)
}

/// Keeps the log-in, and with it the controller: its address and the CA under which it was believed.
fn keep(context: &Context, client: &Client, url: &Url, token: &Token) -> Result<()> {
    if let Some(seen) = client.seen_ca()
        && context.home.read_ca().ok().flatten().as_ref() != Some(&seen.certificate)
    {
        context.home.write_ca(&seen.certificate)?;
    }
    context.home.write_token(&StoredToken {
        token: token.token.clone(),
        user: token.user.clone(),
        expires_at: token.expires_at,
        url: url.to_string(),
    })?;
    let config = Config { url: Some(url.to_string()), user: Some(token.user.clone()), ..context.config.clone() };
    if config != context.config { context.home.write_config(&config) } else { Ok(()) }
}

fn tell_log_in(context: &Context, token: &Token) -> Result<()> {
    let shown = json!({ "user": token.user, "roles": token.roles, "expires_at": token.expires_at });
    context.out.show(&shown, |_| {
        format!("logged in as {} ({}) until {}", token.user, text::joined(&token.roles), time::local(token.expires_at))
    })
}

fn unix_now() -> u64 {
    u64::try_from(time::now().as_secs()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use thinlane_wire::api::ErrorBody;

    fn refused(message: &str, retry_after: Option<u64>) -> Failure {
        let mut body = ErrorBody::new(ErrorCode::AuthenticationFailed, message);
        body.error.retry_after = retry_after;
        body.into()
    }

    #[test]
    fn only_a_used_code_is_worth_waiting_for() {
        assert!(is_used(&refused("this code was used before", Some(12))));
        assert!(is_used(&refused("The code has been Used", None)));
        assert!(!is_used(&refused("wrong login, password or code", None)));
        assert!(!is_used(&refused("too many tries", Some(60))));
        assert!(!is_used(&refused("the code was used; locked out", Some(600))));
        assert!(!is_used(&Failure::failed("used")));
    }
}
