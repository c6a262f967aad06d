//! Deeds as calls, and their answers in words.

use reqwest::StatusCode;
use serde_json::json;
use thinlane_model::{SessionId, Span};
use thinlane_tui::act::{Deed, kind_word};
use thinlane_tui::{Answer, Code};
use thinlane_wire::api::{
    Approve, Code as NewCode, Done, Extend, LockKind, LockView, NewLock, Reason, RequestState, RequestView,
    SessionState, SessionView, SiteView,
};

use crate::api::Client;
use crate::api::paths::{encode, verb};
use crate::cmd::session::{CLOSING, end};
use crate::cmd::{Door, invitation};
use crate::context::Context;
use crate::failure::{Exit, Failure, Result};
use crate::out::{text, time};

/// What is said of a controller that shows another certificate; what to do comes before the fingerprints.
pub const WRONG_CERTIFICATE: &str =
    "WRONG CERTIFICATE, another machine may stand in between: call whoever runs the controller";

/// Does it; whatever comes of it is an answer.
pub async fn perform(context: &Context, deed: Deed) -> Answer {
    let watched = match &deed {
        Deed::Kill { session, .. } => vec![*session],
        _ => Vec::new(),
    };
    let failed = |failure: Failure| answer(failure, watched);
    // A log-in needs no log-in.
    let client = if matches!(deed, Deed::LogIn { .. }) { context.anonymous() } else { context.client() };
    match client {
        Ok(client) => try_perform(context, &client, deed).await.unwrap_or_else(failed),
        Err(failure) => failed(failure),
    }
}

/// What a failure means for what was asked: it was not done, or nobody knows. `watched`: sessions whose end would tell.
fn answer(failure: Failure, watched: Vec<SessionId>) -> Answer {
    if failure.maybe_done {
        let text = format!("NOT KNOWN whether it was done, look before you do it again: {}", failure.message);
        return Answer::Unsure(text, watched);
    }
    let next = failure.next.map(|next| format!(" ({next})")).unwrap_or_default();
    Answer::Failed(match failure.exit {
        // The fingerprints would fill the line.
        Exit::Verification => format!("not done, and nothing was sent: {WRONG_CERTIFICATE}"),
        _ => format!("not done: {}{next}", failure.message),
    })
}

async fn try_perform(context: &Context, client: &Client, deed: Deed) -> Result<Answer> {
    Ok(match deed {
        Deed::Kill { session, reason } => {
            let (status, view) = end(client, &session.to_string(), "kill", &reason).await?;
            killed(status, &view)
        }
        Deed::Extend { session, time, reason } => {
            let body = Extend { seconds: time.as_secs(), reason };
            let view: SessionView = client.post(&verb("sessions", session, "extend"), &body).await?;
            let until = view.ends_at.map(time::local_clock).unwrap_or_default();
            let more = Span::from_secs(body.seconds);
            let text = format!("{session}: {} on {} has {more} more, until {until}", view.user, view.asset);
            Answer::Extended(text, session)
        }
        Deed::Lock { kind, name, time, reason } => {
            let body = NewLock { kind, name, seconds: time.map(Span::as_secs), reason };
            let (_, lock): (_, LockView) = client.post_status("/locks", &body, CLOSING).await?;
            locked(&lock)
        }
        Deed::Unlock { kind, name } => {
            let _: Done = client.delete(&format!("/locks/{}/{}", path_word(kind), encode(&name))).await?;
            Answer::Done(format!("{} {name} is unlocked", kind_word(kind)))
        }
        Deed::Unfreeze { site, reason } => {
            let view: SiteView = client.post(&verb("sites", &site, "unfreeze"), &Reason { reason }).await?;
            Answer::Done(format!("{site} is {}", view.state))
        }
        Deed::Approve { request, note } => {
            let view: RequestView = client.post(&verb("requests", request, "approve"), &Approve { note }).await?;
            approved(&view)
        }
        Deed::Deny { request, reason } => {
            let view: RequestView = client.post(&verb("requests", request, "deny"), &Reason { reason }).await?;
            Answer::Done(format!("{request} is denied: {} will not work on {}", view.user, view.asset))
        }
        Deed::LogIn { password, code } => {
            let token = crate::cmd::account::log_in_again(context, password.expose(), code.expose().trim()).await?;
            Answer::Done(format!("logged in as {} until {}", token.user, time::local(token.expires_at)))
        }
        Deed::Code { site } => {
            let code: NewCode = client.post(&verb("sites", &site, "token"), &json!({})).await?;
            let door = Door::of(context);
            Answer::Code(Code {
                line: invitation(door.as_ref(), &code.code),
                command: door.map_or(String::new(), |door| door.command("FILE")),
                until: time::local(code.expires_at),
                code: code.code.to_string(),
                site,
            })
        }
    })
}

fn killed(status: StatusCode, view: &SessionView) -> Answer {
    let whose = format!("{}: {} on {}", view.id, view.user, view.asset);
    if status == StatusCode::ACCEPTED || view.state != SessionState::Ended {
        let text = format!(
            "{whose} is ending: {} is out of reach, the relay has stopped forwarding, the closing record is missing",
            view.site
        );
        return Answer::Ending(text, vec![view.id]);
    }
    let counters = &view.counters;
    let sum = format!(
        "{} up, {} down, {} denied{}",
        text::bytes(counters.up_bytes),
        text::bytes(counters.down_bytes),
        counters.denied_packets,
        if view.counters_final { ", final" } else { "" }
    );
    let reason = view.end_reason.map_or("ended".to_owned(), |reason| reason.to_string());
    Answer::Done(format!("{whose} is closed ({reason}): {sum}"))
}

fn locked(lock: &LockView) -> Answer {
    let what = format!("{} {}", kind_word(lock.kind), lock.name);
    let until = lock.until.map_or(String::new(), |at| format!(" until {}", time::local(at)));
    let undo = format!("undo: thinlane unlock {} {}", path_word(lock.kind), lock.name);
    let ended = match lock.ended_sessions.as_slice() {
        [] => "no session was open".to_owned(),
        [one] => format!("ended {one}"),
        more => format!("ended {} sessions", more.len()),
    };
    if lock.ending_sessions.is_empty() {
        return Answer::Done(format!("{what} is locked{until}; {ended}; {undo}"));
    }
    let text = format!(
        "{what} is locked{until}; {} still ending: the gateway is out of reach, the relay has stopped forwarding",
        text::joined(&lock.ending_sessions)
    );
    let ending = lock.ending_sessions.iter().filter_map(|id| id.parse().ok()).collect();
    Answer::Ending(text, ending)
}

fn approved(view: &RequestView) -> Answer {
    match view.state {
        RequestState::Pending => {
            let missing: u32 = view.decision.obligations.approvers.iter().map(|demand| demand.missing).sum();
            Answer::Done(format!("{}: your approval is in, {} more needed", view.id, missing))
        }
        _ => Answer::Done(format!("{} is approved: {} may connect to {}", view.id, view.user, view.asset)),
    }
}

/// As the API and `thinlane unlock` call it.
fn path_word(kind: LockKind) -> &'static str {
    match kind {
        LockKind::User => "user",
        LockKind::Org => "org",
        LockKind::Site => "site",
        LockKind::Asset => "asset",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_and_not_answered_is_not_said_to_be_undone() {
        let session: SessionId = "ses_00000001".parse().expect("an id");
        let mut silent = Failure::new(Exit::Unreachable, "the controller at hq:7443 cannot be reached");
        let Answer::Failed(text) = answer(silent.clone(), vec![session]) else { panic!("nothing was sent") };
        assert!(text.starts_with("not done: the controller at hq"), "{text}");
        silent.maybe_done = true;
        let Answer::Unsure(text, watched) = answer(silent, vec![session]) else { panic!("it may have been done") };
        assert!(text.starts_with("NOT KNOWN whether it was done"), "{text}");
        assert_eq!(watched, [session], "its end would tell");
    }

    #[test]
    fn a_wrong_certificate_says_what_to_do_before_its_fingerprints() {
        let failure = Failure::new(Exit::Verification, format!("hq is not the controller: {}", "a".repeat(150)));
        let Answer::Failed(text) = answer(failure, Vec::new()) else { panic!("nothing was sent") };
        assert!(text.len() < 158 && text.contains("nothing was sent") && text.contains("call whoever"), "{text}");
    }
}
