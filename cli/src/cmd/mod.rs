//! The commands, one file per family.

pub mod account;
pub mod asset;
pub mod audit;
pub mod csv;
pub mod doctor;
pub mod down;
pub mod lane;
pub mod lock;
pub mod man;
pub mod request;
pub mod session;
pub mod site;
pub mod system;
pub mod task;
pub mod tui;
pub mod user;

use std::path::Path;

use thinlane_model::Span;
use thinlane_wire::api::{Code, Invitation};
use zeroize::Zeroizing;

use crate::api::Fingerprint;
use crate::args::Command;
use crate::context::Context;
use crate::failure::Result;
use crate::out::time;

/// Runs one command.
pub async fn run(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::Login(args) => account::login(context, args).await,
        Command::Logout => account::logout(context).await,
        Command::Whoami(args) => account::whoami(context, args).await,
        Command::Setup(args) => account::setup(context, args).await,
        Command::Connect(args) => lane::connect(context, args).await,
        Command::Up(args) => lane::up(context, args).await,
        Command::Hold(args) => lane::hold(context, args).await,
        Command::Inside(args) => Err(crate::lane::child::become_command(&args)),
        Command::Down(args) => down::down(context, args).await,
        Command::Extend(args) => session::extend(context, args).await,
        Command::Release(args) => session::release(context, args).await,
        Command::Request(args) => request::run(context, args).await,
        Command::Session(args) => session::run(context, args).await,
        Command::Asset(args) => asset::run(context, args).await,
        Command::Site(args) => site::run(context, args).await,
        Command::Task(args) => task::run(context, args).await,
        Command::User(args) => user::run(context, args).await,
        Command::Lock(args) => lock::run(context, args).await,
        Command::Unlock(args) => lock::unlock(context, args).await,
        Command::Audit(args) => audit::run(context, args).await,
        Command::Tui(args) => tui::run(context, args).await,
        Command::Doctor => doctor::run(context).await,
        Command::Completions(args) => system::completions(args),
        Command::Man(args) => man::write(&args.dir),
        Command::Version => system::version(context),
    }
}

/// A duration of at least one second, in whole seconds.
pub fn parse_span(text: &str) -> std::result::Result<Span, String> {
    let span: Span = text.parse().map_err(|error: thinlane_model::DurationError| error.to_string())?;
    match span.as_millis() % 1000 {
        0 => Ok(span),
        _ => Err("a duration is given in whole seconds here".to_owned()),
    }
}

/// Words that somebody will read: not nothing.
pub fn parse_words(text: &str) -> std::result::Result<String, String> {
    match text.trim() {
        "" => Err("say it in a few words".to_owned()),
        words => Ok(words.to_owned()),
    }
}

/// Whether a code can be written to `file`, asked before there is one: it is shown once. An earlier code may go.
fn check_code_file(flag: &str, file: Option<&Path>) -> Result<()> {
    let code = |text: &str| {
        let text = text.trim();
        (10..=100).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    file.map_or(Ok(()), |file| crate::home::check_output(flag, file, code))
}

/// Where a gateway trades its code: told with it, so that a laptop without a log-in can flash.
struct Door {
    /// `HOST:PORT`.
    controller: String,
    ca_fingerprint: Fingerprint,
}

impl Door {
    /// As this person's log-in knows it.
    fn of(context: &Context) -> Option<Self> {
        let ca = context.home.read_ca().ok()??;
        let url = context.controller().ok()?;
        let port = url.port_or_known_default().unwrap_or(7443);
        Some(Self { controller: format!("{}:{port}", url.host_str()?), ca_fingerprint: Fingerprint::of(&ca) })
    }

    /// What to type on the gateway, with the code in this file.
    fn command(&self, file: &str) -> String {
        let Self { controller, ca_fingerprint } = self;
        format!("thinlane-agent enroll --controller {controller} --ca-fingerprint {ca_fingerprint} --token-file {file}")
    }
}

/// What a QR code of a gateway's code holds: where to trade it as well, as far as this person's log-in knows it.
fn invitation(door: Option<&Door>, code: &str) -> String {
    let whole = door.and_then(|door| {
        let code = Zeroizing::new(code.to_owned());
        Some(
            Invitation { controller: door.controller.parse().ok()?, ca: door.ca_fingerprint.0, code }
                .line()
                .to_string(),
        )
    });
    whole.unwrap_or_else(|| code.to_owned())
}

/// Shows a one-time code, or writes it 0600 to a file.
fn show_code(context: &Context, code: &Code, door: Option<&Door>, file: Option<&Path>) -> Result<()> {
    let out = context.out;
    let expires = time::local(code.expires_at);
    if let Some(file) = file {
        crate::home::write_private(file, format!("{}\n", code.code).as_bytes(), context.home.owner())?;
        if out.json {
            return out.object(&serde_json::json!({ "out": file, "expires_at": code.expires_at }));
        }
        out.hint(&format!("the code is in {} and works once, until {expires}", file.display()));
        return Ok(());
    }
    if out.json {
        let mut told = serde_json::json!({ "code": code.code, "expires_at": code.expires_at });
        if let Some(door) = door {
            told["controller"] = door.controller.as_str().into();
            told["ca_fingerprint"] = door.ca_fingerprint.to_string().into();
        }
        return out.object(&told);
    }
    out.line(&code.code)?;
    out.hint(&format!("this code is shown once; it works once, until {expires}"));
    Ok(())
}
