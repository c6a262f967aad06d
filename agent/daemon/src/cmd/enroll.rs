//! `enroll`: makes the gateway's key here and exchanges a one-time code for a certificate.

use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use clap::builder::FalseyValueParser;
use data_encoding::BASE64;
use serde_json::json;
use thinlane_model::Endpoint;
use thinlane_wire::api::{Enrol, Enrolled, ErrorBody, ErrorCode, Invitation};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::dial;
use crate::failure::{Failure, exit};
use crate::files::{self, Dirs};
use crate::http;
use crate::identity::Identity;
use crate::identity::IdentityKey;
use crate::tls::{self, Fingerprint, Found};

/// How long each step towards the controller may take.
const STEP: Duration = Duration::from_secs(15);
/// What the state directory must be able to keep, in bytes: the identity, the new one beside it at a renewal, and the small
/// files that go with it, in whole blocks.
const ROOM: usize = 32 * 1024;
/// The longest code file that is read, in bytes.
const MOST_CODE: u64 = 4096;

#[derive(Debug, Args)]
pub struct Enroll {
    /// Where the controller is; may stand in the token file instead.
    #[arg(long, value_name = "HOST:PORT", env = "THINLANE_CONTROLLER")]
    controller: Option<Endpoint>,
    /// SHA-256 of the controller's CA certificate, as `thinlane-controller init` prints it; may stand in the token file instead.
    #[arg(long, value_name = "sha256:HEX", env = "THINLANE_CA_FINGERPRINT")]
    ca_fingerprint: Option<Fingerprint>,
    /// File with the one-time code from `thinlane site token`: alone, as its --json, or as the line that its QR code holds;
    /// `-` reads standard input.
    #[arg(long, value_name = "FILE", env = "THINLANE_TOKEN_FILE")]
    token_file: PathBuf,
    /// Replace the identity that this gateway has already.
    #[arg(long, env = "THINLANE_FORCE", value_parser = FalseyValueParser::new())]
    force: bool,
}

/// Enrols, and says what to do next.
pub fn enroll(args: &Enroll, dirs: &Dirs, json: bool) -> Result<(), Failure> {
    files::private_dir(&dirs.dir).map_err(|error| unusable(dirs, &error))?;
    if dirs.identity().exists() && !args.force {
        let site = Identity::load(&dirs.identity())?.map(|identity| format!(" as site {}", identity.site_name));
        return Err(Failure::new(format_args!("this gateway is enrolled already{}", site.unwrap_or_default()))
            .next("run it with `thinlane-agent run`, or replace its identity with `enroll --force`"));
    }
    if super::daemon_runs(dirs)? {
        return Err(Failure::new("an agent is running with this identity").next("stop it first, then enrol"));
    }
    let Told { controller, ca, code } = read_told(args)?;
    let controller = args.controller.clone().or(controller).ok_or_else(|| {
        Failure::coded(exit::USAGE, "which controller? The token file does not say").next("--controller HOST:7443")
    })?;
    let ca = args.ca_fingerprint.or(ca).ok_or_else(|| {
        Failure::coded(exit::USAGE, "the controller's fingerprint is needed, and the token file does not say it")
            .next("--ca-fingerprint sha256:HEX (thinlane-controller init printed it)")
    })?;
    // The controller takes a code once: an identity that cannot be kept must not cost it.
    files::prove_room(&dirs.dir, ROOM).map_err(|error| unusable(dirs, &error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let identity = runtime.block_on(exchange(&controller, ca, &code))?;
    identity.store(&dirs.identity()).map_err(|error| {
        Failure::from(error)
            .next("the code has been used: mend that, and enrol with a new one (thinlane site token NAME)")
    })?;
    files::remove(&dirs.witness()).context("the old controller's checkpoint")?;
    files::remove(&dirs.clock()).context("the old controller's time")?;
    if json {
        let Identity { site_name, site, controller, .. } = &identity;
        println!("{}", json!({ "schema": 1, "site": site_name, "id": site, "controller": controller }));
        return Ok(());
    }
    println!("enrolled as site {} ({}) at {}", identity.site_name, identity.site, identity.controller);
    eprintln!("  next: thinlane-agent run");
    Ok(())
}

/// Why the identity could not be kept, found out while the code is still good.
fn unusable(dirs: &Dirs, error: &std::io::Error) -> Failure {
    let dir = dirs.dir.display();
    match error.kind() {
        ErrorKind::ReadOnlyFilesystem => {
            Failure::new(format_args!("{dir} is read-only: the identity cannot be kept there"))
                .next("the code was not used: mount it writable (mount -o remount,rw), then enrol again")
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Failure::new(format_args!("there is no room for the identity in {dir}: {error}"))
                .next(format_args!("the code was not used: make {} KB of room there, then enrol again", ROOM / 1024))
        }
        _ => Failure::new(format_args!("cannot use {dir}: {error}")).next("name another one with --dir"),
    }
}

/// What a token file says; the code alone is enough.
struct Told {
    controller: Option<Endpoint>,
    ca: Option<Fingerprint>,
    code: Zeroizing<String>,
}

fn read_told(args: &Enroll) -> Result<Told, Failure> {
    let bytes = if args.token_file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().take(MOST_CODE).read_to_end(&mut bytes).context("cannot read standard input")?;
        bytes
    } else {
        let path = args.token_file.display();
        files::read_bounded(&args.token_file, MOST_CODE).with_context(|| format!("cannot read {path}"))?.ok_or_else(
            || Failure::new(format_args!("there is no {path}")).next("make a code: thinlane site token NAME"),
        )?
    };
    let text = Zeroizing::new(String::from_utf8(bytes).map_err(|_| Failure::new("the code is not text"))?);
    let told = if Invitation::is_meant(text.trim()) {
        let Invitation { controller, ca, code } = text.parse().context("the code file")?;
        Told { controller: Some(controller), ca: Some(ca.into()), code }
    } else if let Ok(serde_json::Value::Object(object)) = serde_json::from_str(&text) {
        // What `site token --json` prints.
        let word = |key: &str| object.get(key).and_then(|word| word.as_str());
        Told {
            controller: word("controller").map(str::parse).transpose().context("the code file")?,
            ca: word("ca_fingerprint").map(str::parse).transpose().context("the code file")?,
            code: Zeroizing::new(word("code").unwrap_or_default().to_owned()),
        }
    } else {
        Told { controller: None, ca: None, code: Zeroizing::new(text.trim().to_owned()) }
    };
    if told.code.is_empty() {
        return Err(Failure::new("the code file is empty").next("make a code: thinlane site token NAME"));
    }
    Ok(told)
}

/// The whole exchange with a controller of which only the fingerprint is known.
pub async fn exchange(controller: &Endpoint, expected: Fingerprint, code: &str) -> Result<Identity, Failure> {
    let key = IdentityKey::generate()?;
    let unreachable = |why: &dyn std::fmt::Display| {
        Failure::coded(exit::UNREACHABLE, format_args!("cannot reach the controller at {controller}: {why}"))
            .next("check address and port, and that TCP may leave this site")
    };
    let tcp = timeout(STEP, dial::tcp(controller)).await;
    let tcp = tcp.map_err(|_| unreachable(&"no answer"))?.map_err(|error| unreachable(&error))?;
    let (config, found) = tls::enrol_config(expected)?;
    let name = tls::server_name(controller)?;
    let shaken = timeout(STEP, TlsConnector::from(config).connect(name, tcp)).await;
    let found = || found.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut stream = match shaken {
        Err(_) => return Err(unreachable(&"no answer to the TLS greeting")),
        Ok(Err(error)) => return Err(refused(controller, expected, found(), &error, &unreachable)),
        Ok(Ok(stream)) => stream,
    };
    let Some(Found::Authority(ca)) = found() else {
        return Err(Failure::coded(exit::VERIFICATION, "the controller's certificate was not verified"));
    };
    let request = Enrol {
        code: code.to_owned(),
        csr: BASE64.encode(&key.request()?),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let body = Zeroizing::new(serde_json::to_vec(&request).context("the request")?);
    let authority = controller.to_string();
    let posted = http::post_json(&mut stream, &authority, "/api/v1/enrol", &body);
    let answer = timeout(STEP, posted).await;
    let answer =
        answer.map_err(|_| unreachable(&"no answer to the enrolment"))?.map_err(|error| unreachable(&error))?;
    if !(200..300).contains(&answer.status) {
        return Err(denied(answer.status, &answer.body));
    }
    let enrolled: Enrolled = serde_json::from_slice(&answer.body).context("the controller's answer")?;
    Ok(Identity::from_enrolled(controller.clone(), ca, key, &enrolled)?)
}

/// A TLS greeting that failed: the wrong controller, or none at all.
fn refused(
    controller: &Endpoint,
    expected: Fingerprint,
    found: Option<Found>,
    error: &std::io::Error,
    unreachable: &dyn Fn(&dyn std::fmt::Display) -> Failure,
) -> Failure {
    match found {
        Some(Found::Others(shown)) => {
            let shown: Vec<String> = shown.iter().rev().map(Fingerprint::to_string).collect();
            let shown = shown.join("\n            ");
            Failure::coded(
                exit::VERIFICATION,
                format_args!("the controller at {controller} has another fingerprint\n  expected: {expected}\n  shown:    {shown}"),
            )
            .next("compare with what `thinlane-controller init` printed; somebody may be in between")
        }
        Some(Found::Authority(_)) => unreachable(&error),
        None => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(why)) => Failure::coded(
                exit::VERIFICATION,
                format_args!("the authority is the expected one, but not for {controller}: {why}"),
            )
            .next("dial the name that the controller was given with --public; check this gateway's clock"),
            _ => unreachable(&error),
        },
    }
}

/// An answer that is an error: a wrong, used or lapsed code is exit 3.
fn denied(status: u16, body: &[u8]) -> Failure {
    let Ok(ErrorBody { error, .. }) = serde_json::from_slice(body) else {
        return Failure::new(format_args!("the controller answered HTTP {status} and not in a form this agent knows"));
    };
    let code = match error.code {
        ErrorCode::Ended | ErrorCode::Conflict | ErrorCode::NotFound => exit::DENIED,
        other => other.exit_code(),
    };
    let failure = Failure::coded(code, error.message);
    match error.next {
        Some(next) => failure.next(next),
        None if code == exit::DENIED => failure.next("make a new code: thinlane site token NAME"),
        None => failure,
    }
}

#[cfg(test)]
mod tests;
