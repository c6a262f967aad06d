//! Sessions: looking, stopping, extending.

use std::time::Duration;

use clap::{Args, Subcommand};
use reqwest::StatusCode;
use thinlane_model::{SiteName, Span};
use thinlane_wire::api::{End, Extend as ExtendBody, LiveEvent, SessionState, SessionView};

use super::{parse_span, parse_words};
use crate::api::Client;
use crate::api::paths::{item, on, query, verb};
use crate::context::Context;
use crate::failure::{Exit, Failure, Result};
use crate::out::{Table, clean, text, time};

/// How long a close may take: the controller waits some ten seconds for the closing record.
pub const CLOSING: Duration = Duration::from_secs(30);

#[derive(Subcommand)]
#[command(arg_required_else_help = true)]
pub enum Session {
    /// List sessions, newest first
    Ls {
        /// Only open ones
        #[arg(long)]
        active: bool,
        /// Only those of external people
        #[arg(long)]
        vendor: bool,
        /// Only those at this site
        #[arg(long)]
        site: Option<SiteName>,
    },
    /// Show one session
    Show {
        /// A session, or the beginning of its id
        #[arg(value_name = "SES")]
        session: String,
    },
    /// Stop somebody's session; returns when the gateway has closed it
    Kill {
        /// A session, or the beginning of its id
        #[arg(value_name = "SES")]
        session: String,
        /// Why; the engineer reads it
        #[arg(long, value_parser = parse_words)]
        reason: String,
    },
    /// Watch one session, or everything that you may see, as it happens
    Watch {
        /// A session, or the beginning of its id
        #[arg(value_name = "SES")]
        session: Option<String>,
    },
}

#[derive(Args)]
pub struct Extend {
    /// A session, or the beginning of its id
    #[arg(value_name = "SES")]
    session: String,
    /// How much longer
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_span)]
    duration: Span,
    /// Why; it is written into the log
    #[arg(long, value_parser = parse_words)]
    reason: String,
}

#[derive(Args)]
pub struct Release {
    /// A session, or the beginning of its id
    #[arg(value_name = "SES")]
    session: String,
}

pub async fn run(context: &Context, command: Session) -> Result<()> {
    let client = context.client()?;
    let out = context.out;
    match command {
        Session::Ls { active, vendor, site } => {
            let site = site.map(|site| site.to_string());
            let path = query("/sessions", &[("active", on(active)), ("vendor", on(vendor)), ("site", site)]);
            let sessions: Vec<SessionView> = client.list(&path, usize::MAX).await?;
            let nothing = match (active, vendor) {
                (true, _) => "no session is open",
                (_, true) => "no session of an external person is there",
                _ => "there is no session yet",
            };
            out.list(&sessions, nothing, table)
        }
        Session::Show { session } => {
            let session: SessionView = client.get(&item("sessions", session)).await?;
            out.show(&session, show)
        }
        Session::Kill { session, reason } => {
            let (status, session) = end(&client, &session, "kill", &reason).await?;
            tell_end(context, status, &session)
        }
        Session::Watch { session } => watch(context, &client, session.as_deref()).await,
    }
}

/// `thinlane extend`
pub async fn extend(context: &Context, args: Extend) -> Result<()> {
    let body = ExtendBody { seconds: args.duration.as_secs(), reason: args.reason };
    let session: SessionView = context.client()?.post(&verb("sessions", args.session, "extend"), &body).await?;
    context.out.show(&session, |session| format!("{} ends at {}", session.id, time::local_or_dash(session.ends_at)))
}

/// `thinlane release`
pub async fn release(context: &Context, args: Release) -> Result<()> {
    let (status, session) = end(&context.client()?, &args.session, "release", "").await?;
    tell_end(context, status, &session)
}

/// Ends a session by `kill` or `release`.
pub async fn end(client: &Client, session: &str, how: &str, reason: &str) -> Result<(StatusCode, SessionView)> {
    client.post_status(&verb("sessions", session, how), &End { reason: reason.to_owned() }, CLOSING).await
}

fn tell_end(context: &Context, status: StatusCode, session: &SessionView) -> Result<()> {
    context.out.show(session, |session| {
        let counters = &session.counters;
        format!(
            "{}: {} on {} is {} ({}); {} up, {} down, {} denied",
            session.id,
            session.user,
            session.asset,
            word(session.state),
            text::or_dash(session.end_reason),
            text::bytes(counters.up_bytes),
            text::bytes(counters.down_bytes),
            text::count(counters.denied_packets, "packet"),
        )
    })?;
    if status == StatusCode::ACCEPTED || session.state == SessionState::Ending {
        return Err(still_ending(session));
    }
    Ok(())
}

/// The relay has stopped forwarding, but the gateway has not answered.
pub fn still_ending(session: &SessionView) -> Failure {
    Failure::new(
        Exit::Unreachable,
        format!(
            "the gateway of {} is out of reach: the relay has stopped forwarding {}, the closing record is missing",
            session.site, session.id
        ),
    )
    .next(format!("thinlane session show {}   # ends by itself at its deadline at the latest", session.id))
}

async fn watch(context: &Context, client: &Client, session: Option<&str>) -> Result<()> {
    let path = session.map_or("/events".to_owned(), |session| verb("sessions", session, "events"));
    let mut failures = 0;
    if session.is_none() {
        context.out.hint("watching all sessions; Ctrl-C ends it");
    }
    loop {
        match client.events(&path).await {
            Ok(mut stream) => {
                failures = 0;
                while let Ok(Some(data)) = stream.next().await {
                    if show_event(context, &data)? && session.is_some() {
                        return Ok(());
                    }
                }
            }
            Err(failure) if failure.exit == Exit::Unreachable && failure.code.is_none() && failures < 10 => {
                failures += 1
            }
            Err(failure) => return Err(failure),
        }
        context.out.hint("the live view was interrupted; connecting again");
        tokio::time::sleep(Duration::from_secs(1 + failures)).await;
    }
}

/// Shows one live event; `true`: it was the end of a session.
fn show_event(context: &Context, data: &str) -> Result<bool> {
    let out = context.out;
    if out.json {
        // Passed on whole: what this program does not know yet may be known to whoever reads it.
        if let Ok(value) = serde_json::from_str::<serde_json::Value>(data) {
            out.object(&value)?;
            return Ok(value["session"]["state"] == "ended");
        }
        return Ok(false);
    }
    let Ok(event) = serde_json::from_str::<LiveEvent>(data) else { return Ok(false) };
    let clock = |at| time::local_clock(at);
    let line = match &event {
        LiveEvent::Session { session } => format!("{}  {}", clock(time::now()), one_line(session)),
        LiveEvent::Request { request } => format!(
            "{}  {}  {}  {} wants {} on {} for {}: {}",
            clock(time::now()),
            request.id,
            super::request::word(request.state),
            request.user,
            request.task,
            request.asset,
            time::duration(request.seconds),
            request.reason
        ),
        LiveEvent::Site { site } => {
            let why = site.why_not_ready.as_ref().map(|why| format!(", not ready: {why}")).unwrap_or_default();
            let lanes = text::count(site.lanes.into(), "open lane");
            format!("{}  site {} is {} with {lanes}{why}", clock(time::now()), site.site, site.state)
        }
        LiveEvent::Alarm { alarm } => {
            let site = alarm.site.as_deref().map(|site| format!(" at {site}")).unwrap_or_default();
            format!("{}  ALARM {}{site}: {}", clock(alarm.at), alarm.kind, alarm.detail)
        }
        LiveEvent::Denied { denied } => format!(
            "{}  {}  denied {} {} -> {} {}/{} ({})",
            clock(denied.at),
            denied.session.as_deref().unwrap_or("-"),
            denied.direction,
            denied.source,
            denied.destination,
            denied.protocol,
            denied.port,
            text::count(denied.packets, "packet")
        ),
        LiveEvent::Lagged => "some events were skipped: too many at once".to_owned(),
    };
    out.line(&clean(&line))?;
    Ok(matches!(event, LiveEvent::Session { session } if session.state == SessionState::Ended))
}

fn one_line(session: &SessionView) -> String {
    let counters = &session.counters;
    let left = session.remaining_ms.map(|left| format!("{} left", time::countdown(Span::from_millis(left))));
    let end = session.end_reason.map(|reason| reason.to_string());
    format!(
        "{}  {}  {} on {}  {}  up {}  down {}  denied {}",
        session.id,
        word(session.state),
        session.user,
        session.asset,
        left.or(end).unwrap_or_default(),
        text::bytes(counters.up_bytes),
        text::bytes(counters.down_bytes),
        counters.denied_packets
    )
}

/// A state as the API writes it.
pub fn word(state: SessionState) -> &'static str {
    match state {
        SessionState::Arming => "arming",
        SessionState::Active => "active",
        SessionState::Ending => "ending",
        SessionState::Ended => "ended",
    }
}

fn table(sessions: &[SessionView]) -> Table {
    let mut table = Table::new(&[
        "id", "state", "user", "org", "asset", "site", "task", "opened", "end", ">up", ">down", ">denied",
    ]);
    for session in sessions {
        // What ended it, or is ending it; else the time left.
        let end = match (session.end_reason, session.remaining_ms) {
            (Some(reason), _) => reason.to_string(),
            (None, Some(left)) => format!("{} left", time::countdown(Span::from_millis(left))),
            (None, None) => time::local_or_dash(session.ends_at),
        };
        table.row([
            session.id.to_string(),
            word(session.state).to_owned(),
            session.user.to_string(),
            text::or_dash(session.org.as_ref()),
            session.asset.to_string(),
            session.site.to_string(),
            session.task.to_string(),
            time::local_or_dash(session.opened_at),
            end,
            text::bytes(session.counters.up_bytes),
            text::bytes(session.counters.down_bytes),
            session.counters.denied_packets.to_string(),
        ]);
    }
    table
}

fn show(session: &SessionView) -> String {
    let who = match &session.org {
        Some(org) => format!("{} ({org})", session.user),
        None => session.user.to_string(),
    };
    let counters = &session.counters;
    let path = match session.path {
        thinlane_model::Path::Relay => "through the relay",
        thinlane_model::Path::Direct => "direct",
    };
    let path = match &session.path_reason {
        Some(why) => format!("{path}: {why}"),
        None => path.to_owned(),
    };
    let end = match (session.end_reason, &session.end_detail) {
        (Some(reason), Some(detail)) => format!("{reason}: {detail}"),
        (Some(reason), None) => reason.to_string(),
        (None, _) => String::new(),
    };
    // Compared with what an analyser counted, this must be known.
    let merged =
        if session.merged { " (merged: the gateway's kernel counts those that travel together as one)" } else { "" };
    let flow = |packets, bytes| format!("{}, {}{merged}", text::count(packets, "packet"), text::bytes(bytes));
    let foreign = match (session.merged, counters.spoofed_packets) {
        (true, 0) => "dropped uncounted by the gateway's kernel".to_owned(),
        (_, packets) => text::count(packets, "packet"),
    };
    let mut shown = text::pairs(&[
        ("id", session.id.to_string()),
        ("state", word(session.state).to_owned()),
        ("request", session.request.to_string()),
        ("user", who),
        ("asset", format!("{} at {}", session.asset, session.site)),
        ("task", format!("{} ({} {})", session.task, session.protocol, session.port)),
        ("lane", format!("{} -> {}", session.address, session.asset_address)),
        ("path", path),
        ("reason", session.reason.clone()),
        ("ticket", session.ticket.clone().unwrap_or_default()),
        ("opened", time::local_or_dash(session.opened_at)),
        ("ends", session.ends_at.map(time::local).unwrap_or_default()),
        ("left", session.remaining_ms.map(|left| time::countdown(Span::from_millis(left))).unwrap_or_default()),
        ("ended", session.ended_at.map(time::local).unwrap_or_default()),
        ("end reason", end),
        ("up", flow(counters.up_packets, counters.up_bytes)),
        ("down", flow(counters.down_packets, counters.down_bytes)),
        ("denied", text::count(counters.denied_packets, "packet")),
        ("spoofed", foreign),
        ("counters", if session.counters_final { "final" } else { "as last reported" }.to_owned()),
        ("last handshake", time::local_or_dash(session.last_handshake_at)),
        ("engineer's end", session.endpoint.clone().unwrap_or_default()),
        ("backend", session.backend.clone().unwrap_or_default()),
        ("policy", format!("{} ({})", session.policy.id, session.policy.hash.chars().take(12).collect::<String>())),
    ]);
    for approval in &session.approvals {
        shown.push_str(&format!("approved by {} at {}\n", approval.by, time::local(approval.at)));
    }
    shown
}
