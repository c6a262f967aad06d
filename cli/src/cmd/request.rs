//! Requests: asking, waiting for the decision, deciding.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::json;
use thinlane_model::{AssetName, Span, TaskName};
use thinlane_wire::api::{Approve, ErrorCode, NewRequest, Reason, RequestState, RequestView};

use super::{parse_span, parse_words};
use crate::api::Client;
use crate::api::paths::{item, on, query, verb};
use crate::context::Context;
use crate::failure::{Exit, Failure, Result};
use crate::out::{Table, text, time};

/// How long the controller holds one answer back while nothing changes.
const HELD: u64 = 30;
/// How long a controller may be away while we wait for a decision.
const AWAY: Duration = Duration::from_secs(60);

#[derive(Subcommand)]
#[command(arg_required_else_help = true)]
pub enum Request {
    /// Ask for a task on an asset, and wait for the decision
    Create(Create),
    /// List your open requests
    Ls(Ls),
    /// Show one request, with the rules that decided it
    Show {
        /// A request, or the beginning of its id
        #[arg(value_name = "REQ")]
        request: String,
    },
    /// Approve somebody else's request
    Approve {
        /// A request, or the beginning of its id
        #[arg(value_name = "REQ")]
        request: String,
        /// A word to whoever asked; it is written into the log
        #[arg(long)]
        note: Option<String>,
    },
    /// Deny a request
    Deny {
        /// A request, or the beginning of its id
        #[arg(value_name = "REQ")]
        request: String,
        /// Why; whoever asked reads it
        #[arg(long, value_parser = parse_words)]
        reason: String,
    },
    /// Take your own request back
    Withdraw {
        /// A request, or the beginning of its id
        #[arg(value_name = "REQ")]
        request: String,
    },
}

#[derive(Args)]
pub struct Create {
    /// The device
    asset: AssetName,
    /// What is to be done; `thinlane task ls` shows what there is
    #[arg(long, env = "THINLANE_TASK")]
    task: TaskName,
    /// For how long; counted from `connect` or `up`, the task's default if left out
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_span, env = "THINLANE_FOR")]
    duration: Option<Span>,
    /// Why; the approver reads it
    #[arg(long, value_parser = parse_words, env = "THINLANE_REASON")]
    reason: String,
    /// The work order behind it
    #[arg(long, value_name = "ID", env = "THINLANE_TICKET")]
    ticket: Option<String>,
    /// Wait at most this long for the decision (then exit code 4); without end if left out
    #[arg(long, value_name = "DURATION", value_parser = parse_span, conflicts_with = "nowait")]
    wait: Option<Span>,
    /// Do not wait for the decision
    #[arg(long)]
    nowait: bool,
}

#[derive(Args)]
pub struct Ls {
    /// What waits for a decision
    #[arg(long, conflicts_with = "all")]
    pending: bool,
    /// Everything that you may see, the past included
    #[arg(long)]
    all: bool,
}

pub async fn run(context: &Context, command: Request) -> Result<()> {
    let client = context.client()?;
    let out = context.out;
    match command {
        Request::Create(args) => create(context, &client, args).await,
        Request::Ls(args) => {
            let path = query("/requests", &[("pending", on(args.pending)), ("all", on(args.all))]);
            let requests: Vec<RequestView> = client.list(&path, usize::MAX).await?;
            let nothing = match (args.pending, args.all) {
                (true, _) => "no request waits for a decision",
                (_, true) => "there is no request yet",
                _ => "no request is open; thinlane request ls --all shows past ones",
            };
            out.list(&requests, nothing, table)
        }
        Request::Show { request } => {
            let request: RequestView = client.get(&item("requests", request)).await?;
            out.show(&request, show)
        }
        Request::Approve { request, note } => {
            let request: RequestView = client.post(&verb("requests", request, "approve"), &Approve { note }).await?;
            out.show(&request, |request| match missing(request) {
                None => format!(
                    "{} is {}: {} may connect to {} for {}",
                    request.id,
                    word(request.state),
                    request.user,
                    request.asset,
                    time::duration(request.seconds)
                ),
                Some(missing) => format!("{} has your approval; it still needs {missing}", request.id),
            })
        }
        Request::Deny { request, reason } => {
            let request: RequestView = client.post(&verb("requests", request, "deny"), &Reason { reason }).await?;
            out.show(&request, |request| {
                format!(
                    "{} is {}: {} will not work on {}",
                    request.id,
                    word(request.state),
                    request.user,
                    request.asset
                )
            })
        }
        Request::Withdraw { request } => {
            let request: RequestView = client.post(&verb("requests", request, "withdraw"), &json!({})).await?;
            out.show(&request, |request| format!("{} is {}", request.id, word(request.state)))
        }
    }
}

async fn create(context: &Context, client: &Client, args: Create) -> Result<()> {
    let out = context.out;
    let body = NewRequest {
        asset: args.asset,
        task: args.task,
        seconds: args.duration.map(Span::as_secs),
        reason: args.reason,
        ticket: args.ticket,
    };
    let created = match client.post::<RequestView>("/requests", &body).await {
        Ok(created) => created,
        Err(failure) => return Err(show_denied(context, client, failure).await),
    };
    if let Some(asked) = body.seconds.filter(|asked| *asked > created.seconds && created.seconds > 0) {
        let (asked, granted) = (time::duration(asked), time::duration(created.seconds));
        out.hint(&format!("shortened from {asked} to {granted}, the longest that the policy permits here"));
    }
    if !args.nowait {
        announce(context, &created);
    }
    let request = match args.nowait {
        true => created,
        false => match decision(context, client, created.clone(), args.wait.map(Span::to_std)).await {
            Ok(request) => request,
            Err(failure) => {
                // A script wants the id also of a request that nobody decided in time.
                if out.json && failure.exit == Exit::TimedOut {
                    let now: RequestView = client.get(&item("requests", created.id)).await.unwrap_or(created);
                    out.object(&now)?;
                }
                return Err(failure);
            }
        },
    };
    out.show(&request, |request| match request.state {
        RequestState::Approved => {
            format!(
                "{} is approved for {}; next: thinlane connect {}",
                request.id,
                time::duration(request.seconds),
                request.id
            )
        }
        state => format!("{} is {}", request.id, word(state)),
    })?;
    outcome(&request)
}

/// A request that the policy denied is kept: with `--json` it is shown before the failure.
async fn show_denied(context: &Context, client: &Client, failure: Failure) -> Failure {
    if !(context.out.json && failure.is(ErrorCode::PolicyDenied)) {
        return failure;
    }
    let letters = |letter: char| !(letter.is_ascii_alphanumeric() || letter == '_');
    if let Some(id) = failure.message.split(letters).find(|word| word.starts_with("req_"))
        && let Ok(request) = client.get::<RequestView>(&item("requests", id)).await
    {
        let _ = context.out.object(&request);
    }
    failure
}

/// Says on stderr that a request waits, and for whom.
pub fn announce(context: &Context, request: &RequestView) {
    if request.state == RequestState::Pending {
        let missing = missing(request).unwrap_or_else(|| "a decision".to_owned());
        context.out.hint(&format!("{} waits for {missing}: thinlane request approve {}", request.id, request.id));
    }
}

/// Waits until a request is pending no more; `wait` is the longest.
///
/// A controller that is away for less than a minute is waited for as well.
pub async fn decision(
    context: &Context,
    client: &Client,
    mut request: RequestView,
    wait: Option<Duration>,
) -> Result<RequestView> {
    let started = Instant::now();
    let mut away: Option<Instant> = None;
    while request.state == RequestState::Pending {
        let left = wait.map(|wait| wait.saturating_sub(started.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(Failure::new(Exit::TimedOut, format!("nobody has decided {} yet", request.id)).next(format!(
                "thinlane request show {}   # it stays open; connect {} when it is approved",
                request.id, request.id
            )));
        }
        let held = left.map_or(HELD, |left| left.as_secs().clamp(1, HELD));
        let path = query(
            &item("requests", request.id),
            &[("wait", Some(held.to_string())), ("state", Some("pending".into()))],
        );
        let asked = Instant::now();
        let answer = client.get_waiting::<RequestView>(&path, Duration::from_secs(held));
        let answer = match left {
            // The controller counts whole seconds; the person's limit holds exactly.
            Some(left) => match tokio::time::timeout(left, answer).await {
                Ok(answer) => answer,
                Err(_) => continue,
            },
            None => answer.await,
        };
        match answer {
            Ok(now) => {
                away = None;
                request = now;
            }
            Err(failure) if failure.exit == Exit::Unreachable && failure.code.is_none() => {
                let since = *away.get_or_insert_with(|| {
                    context.out.hint("the controller is away; waiting for it");
                    Instant::now()
                });
                if since.elapsed() > AWAY {
                    return Err(failure);
                }
            }
            Err(failure) => return Err(failure),
        }
        // Whatever answers at once must not be asked in a tight loop.
        if request.state == RequestState::Pending && asked.elapsed() < Duration::from_millis(300) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    Ok(request)
}

/// What a request's state means for whoever wants to use it.
pub fn outcome(request: &RequestView) -> Result<()> {
    let id = request.id;
    match request.state {
        RequestState::Pending | RequestState::Approved | RequestState::Used => Ok(()),
        RequestState::Denied => {
            let why = match &request.denial {
                Some(denial) => format!("{} denied {id}: {}", denial.by, denial.reason),
                None => format!("the policy denied {id} by {}", text::joined(&request.decision.rules)),
            };
            Err(Failure::new(Exit::Denied, why).next(format!("thinlane request show {id}")))
        }
        RequestState::Withdrawn => Err(Failure::new(Exit::Denied, format!("{id} was withdrawn"))
            .next("thinlane request create ASSET --task TASK --reason ..")),
        RequestState::Lapsed => Err(Failure::new(Exit::Ended, format!("{id} has lapsed, it was not used in time"))
            .next("thinlane request create ASSET --task TASK --reason ..")),
    }
}

/// `1 approval by approver or ops (rule two-eyes)`; `None`: none is missing.
pub fn missing(request: &RequestView) -> Option<String> {
    let demands: Vec<String> = request
        .decision
        .obligations
        .approvers
        .iter()
        .filter(|demand| demand.missing > 0)
        .map(|demand| {
            let roles = if demand.roles.is_empty() { "an approver".to_owned() } else { demand.roles.join(" or ") };
            format!("{} by {roles} (rule {})", text::count(demand.missing.into(), "approval"), demand.rule)
        })
        .collect();
    (!demands.is_empty()).then(|| demands.join(" and "))
}

/// A state as the API writes it.
pub fn word(state: RequestState) -> &'static str {
    match state {
        RequestState::Pending => "pending",
        RequestState::Approved => "approved",
        RequestState::Denied => "denied",
        RequestState::Withdrawn => "withdrawn",
        RequestState::Lapsed => "lapsed",
        RequestState::Used => "used",
    }
}

fn table(requests: &[RequestView]) -> Table {
    let mut table =
        Table::new(&["id", "state", "user", "asset", "site", "task", ">for", "created", "ticket", "reason"]);
    for request in requests {
        table.row([
            request.id.to_string(),
            word(request.state).to_owned(),
            request.user.to_string(),
            request.asset.to_string(),
            request.site.to_string(),
            request.task.to_string(),
            time::duration(request.seconds),
            time::local(request.created_at),
            text::or_dash(request.ticket.as_ref()),
            request.reason.clone(),
        ]);
    }
    table
}

fn show(request: &RequestView) -> String {
    let who = match &request.org {
        Some(org) => format!("{} ({org})", request.user),
        None => request.user.to_string(),
    };
    let decision = format!("{} by {}", request.decision.verdict, text::joined(&request.decision.rules));
    let mut shown = text::pairs(&[
        ("id", request.id.to_string()),
        ("state", word(request.state).to_owned()),
        ("user", who),
        ("asset", format!("{} at {}", request.asset, request.site)),
        ("task", request.task.to_string()),
        ("for", time::duration(request.seconds)),
        ("reason", request.reason.clone()),
        ("ticket", request.ticket.clone().unwrap_or_default()),
        ("created", time::local(request.created_at)),
        ("decided", request.decided_at.map(time::local).unwrap_or_default()),
        ("lapses", request.lapses_at.map(time::local).unwrap_or_default()),
        ("decision", decision),
        ("waits for", missing(request).filter(|_| request.state == RequestState::Pending).unwrap_or_default()),
        (
            "denied",
            request.denial.as_ref().map(|denial| format!("by {}: {}", denial.by, denial.reason)).unwrap_or_default(),
        ),
        ("session", request.session.map(|session| session.to_string()).unwrap_or_default()),
    ]);
    for reason in &request.decision.reasons {
        shown.push_str(&format!("  {}\n", crate::out::clean(reason)));
    }
    for approval in &request.approvals {
        let note = approval.note.as_deref().map(|note| format!(": {note}")).unwrap_or_default();
        let line = format!("approved by {} at {}{note}", approval.by, time::local(approval.at));
        shown.push_str(&format!("{}\n", crate::out::clean(&line)));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(state: &str, missing: u32) -> RequestView {
        serde_json::from_value(json!({
            "schema": 1, "id": "req_7k2m9q4x", "state": state, "user": "alice", "asset": "rtu-7", "site": "north",
            "task": "iec104", "seconds": 1800, "reason": "replace CT", "created_at": "2026-11-22T03:13:43.045Z",
            "decision": {
                "verdict": "permit", "rules": ["any"], "policy_hash": "00",
                "obligations": {
                    "approvals": 1, "seconds": 1800,
                    "approvers": [
                        {"rule": "any", "approvals": 1, "roles": ["approver", "ops"], "missing": missing},
                        {"rule": "two", "approvals": 2, "roles": ["ops"], "missing": 0},
                    ],
                },
            },
            "approvals": [],
        }))
        .expect("a request")
    }

    #[test]
    fn it_is_said_whose_approval_is_missing() {
        assert_eq!(missing(&request("pending", 1)).as_deref(), Some("1 approval by approver or ops (rule any)"));
        assert_eq!(missing(&request("pending", 0)), None);
    }

    #[test]
    fn each_state_has_its_exit_code() {
        for (state, code) in [("denied", 3), ("withdrawn", 3), ("lapsed", 5)] {
            assert_eq!(outcome(&request(state, 0)).expect_err(state).exit.code(), code, "{state}");
        }
        for state in ["pending", "approved", "used"] {
            assert!(outcome(&request(state, 0)).is_ok());
        }
    }
}
