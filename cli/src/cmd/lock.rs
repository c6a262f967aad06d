//! Locks on people, organisations, sites and assets.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use thinlane_model::Span;
use thinlane_wire::api::{Done, LockKind, LockView, NewLock};

use super::{parse_span, parse_words};
use crate::api::paths::{encode, item};
use crate::context::Context;
use crate::failure::{Exit, Failure, Result};
use crate::out::{Table, text, time};

#[derive(Subcommand)]
#[command(arg_required_else_help = true)]
pub enum Lock {
    /// Lock a person
    User(Target),
    /// Lock everybody of an organisation
    Org(Target),
    /// Lock a site
    Site(Target),
    /// Lock an asset
    Asset(Target),
    /// List the locks in force
    Ls,
}

#[derive(Args)]
pub struct Target {
    /// A log-in, or the name of an organisation, site or asset
    name: String,
    /// Take the lock away by itself after this long
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_span)]
    duration: Option<Span>,
    /// Why; it is written into the log
    #[arg(long, value_parser = parse_words)]
    reason: String,
}

#[derive(Args)]
pub struct Unlock {
    /// user, org, site or asset, followed by its name; or the id of a lock
    #[arg(value_name = "KIND|LOCK")]
    what: String,
    /// Its name, after a kind
    name: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    User,
    Org,
    Site,
    Asset,
}

pub async fn run(context: &Context, command: Lock) -> Result<()> {
    let (kind, target) = match command {
        Lock::User(target) => (LockKind::User, target),
        Lock::Org(target) => (LockKind::Org, target),
        Lock::Site(target) => (LockKind::Site, target),
        Lock::Asset(target) => (LockKind::Asset, target),
        Lock::Ls => {
            let locks: Vec<LockView> = context.client()?.list("/locks", usize::MAX).await?;
            return context.out.list(&locks, "nothing is locked", table);
        }
    };
    let body = NewLock { kind, name: target.name, seconds: target.duration.map(Span::as_secs), reason: target.reason };
    let (_, lock): (_, LockView) = context.client()?.post_status("/locks", &body, super::session::CLOSING).await?;
    tell(context, &lock)
}

pub async fn unlock(context: &Context, args: Unlock) -> Result<()> {
    let (path, what) = match args.name {
        Some(name) => {
            let kind = Kind::from_str(&args.what, false)
                .map_err(|_| Failure::usage(format!("{:?} is none of user, org, site and asset", args.what)))?;
            let kind = match kind {
                Kind::User => LockKind::User,
                Kind::Org => LockKind::Org,
                Kind::Site => LockKind::Site,
                Kind::Asset => LockKind::Asset,
            };
            (format!("/locks/{}/{}", word(kind), encode(&name)), format!("{} {name}", word(kind)))
        }
        None => (item("locks", &args.what), format!("what {} locked", args.what)),
    };
    let _: Done = context.client()?.delete(&path).await?;
    context.out.show(&json!({ "unlocked": true }), |_| format!("{what} is unlocked"))
}

/// Says what a new lock has stopped; fails where a gateway is out of reach.
pub fn tell(context: &Context, lock: &LockView) -> Result<()> {
    context.out.show(lock, |lock| {
        let until = lock.until.map_or("until it is unlocked".to_owned(), |at| format!("until {}", time::local(at)));
        let ended = match lock.ended_sessions.len() {
            0 => "; no session was open".to_owned(),
            _ => format!("; ended: {}", text::joined(&lock.ended_sessions)),
        };
        format!("{} {} is locked {until} ({}){ended}", word(lock.kind), lock.name, lock.id)
    })?;
    context.out.hint(&format!("to undo it: thinlane unlock {} {}", word(lock.kind), lock.name));
    if lock.ending_sessions.is_empty() {
        return Ok(());
    }
    let sessions = text::joined(&lock.ending_sessions);
    Err(Failure::new(
        Exit::Unreachable,
        format!(
            "the gateway of {sessions} is out of reach: the relay has stopped forwarding, the closing record is missing"
        ),
    )
    .next("thinlane session ls --active   # shows when the gateway has reported"))
}

fn word(kind: LockKind) -> &'static str {
    match kind {
        LockKind::User => "user",
        LockKind::Org => "org",
        LockKind::Site => "site",
        LockKind::Asset => "asset",
    }
}

fn table(locks: &[LockView]) -> Table {
    let mut table = Table::new(&["id", "kind", "name", "by", "since", "until", "reason"]);
    for lock in locks {
        table.row([
            lock.id.to_string(),
            word(lock.kind).to_owned(),
            lock.name.clone(),
            lock.by.to_string(),
            time::local(lock.created_at),
            time::local_or_dash(lock.until),
            lock.reason.clone(),
        ]);
    }
    table
}
