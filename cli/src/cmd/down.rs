//! Closing lanes that background processes hold, and exported ones.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use clap::Args;
use thinlane_model::{EndReason, SessionId};
use thinlane_wire::api::{SessionState, SessionView};

use super::session;
use crate::api::Client;
use crate::api::paths::item;
use crate::context::Context;
use crate::failure::{Exit, Failure, Result};
use crate::lane::state::{self, LaneFile};
use crate::lane::{LaneEvent, Reporter, leftovers};
use crate::system::process;

/// How long a holder may take: its own release waits for the gateway.
const PATIENCE: Duration = Duration::from_secs(35);

#[derive(Args)]
pub struct Down {
    /// Only this session; the beginning of its id is enough
    #[arg(value_name = "SES")]
    session: Option<String>,
}

/// `thinlane down`
pub async fn down(context: &Context, args: Down) -> Result<()> {
    let lanes = state::all(&context.home)?;
    let chosen: Vec<&LaneFile> =
        lanes.iter().filter(|lane| args.session.as_ref().is_none_or(|name| lane.answers_to(name))).collect();
    match (&args.session, chosen.as_slice()) {
        (None, []) => {
            leftovers::sweep(context).await?;
            context.out.hint("no lane of yours is open on this machine");
            return Ok(());
        }
        (Some(name), []) => {
            leftovers::sweep(context).await?;
            return release_elsewhere(context, name).await;
        }
        (Some(name), [_, _, ..]) => {
            return Err(Failure::usage(format!(
                "{name} may be any of {}",
                crate::out::text::joined(chosen.iter().map(|lane| lane.name()))
            )));
        }
        _ => {}
    }
    let client = context.client().ok();
    let mut worst: Option<Exit> = None;
    for lane in chosen {
        if let Err(failure) = close(context, client.as_ref(), lane).await {
            worst = worst.max(Some(failure.exit));
            context.out.failure(&failure);
        }
    }
    leftovers::sweep(context).await?;
    worst.map_or(Ok(()), |exit| Err(Failure::silent(exit)))
}

/// Closes one lane: asks its holder, or releases it here.
async fn close(context: &Context, client: Option<&Client>, lane: &LaneFile) -> Result<()> {
    if lane.is_exported() {
        return close_exported(context, lane).await;
    }
    if !lane.holder.is_alive(&context.home) {
        // What is left of it goes with all else that no process holds.
        return Ok(());
    }
    stop_holder(context, lane).await?;
    let view = match (lane.session, client) {
        (Some(id), Some(client)) => client.get::<SessionView>(&item("sessions", id)).await.ok(),
        _ => None,
    };
    tell(context, lane, view.as_ref())
}

/// Ends a holder in good order, or at once if it does not listen.
async fn stop_holder(context: &Context, lane: &LaneFile) -> Result<()> {
    let pid = lane.holder.pid;
    match process::ask_to_end(pid).map_err(|error| error.kind()) {
        Err(ErrorKind::PermissionDenied) => {
            return Err(Failure::failed(format!("the lane {} is held by another user's process {pid}", lane.name()))
                .next(format!("sudo thinlane down {}", lane.name())));
        }
        Err(ErrorKind::Unsupported) => {
            release_held(context, lane).await.map_err(|failure| still_open(lane, failure))?;
        }
        // It may have ended by itself.
        Ok(()) | Err(_) => {}
    }
    let asked = Instant::now();
    while lane.holder.is_alive(&context.home) {
        if asked.elapsed() > PATIENCE {
            process::end(pid);
        }
        if asked.elapsed() > PATIENCE + Duration::from_secs(2) {
            return Err(Failure::failed(format!("process {pid}, which holds {}, does not end", lane.name()))
                .next("press Ctrl-C where it runs"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Ends a lane where no process can be asked to end: its holder hears from the controller that the session is over.
async fn release_held(context: &Context, lane: &LaneFile) -> Result<()> {
    let session = lane.session.ok_or_else(|| Failure::failed("its gateway has not answered yet"))?;
    release(context, session).await.map(drop)
}

/// Why a lane that no process can be asked to end goes on: whoever holds it can end it all the same.
fn still_open(lane: &LaneFile, refused: Failure) -> Failure {
    let there = format!("press Ctrl-C where it runs (process {})", lane.holder.pid);
    let next = match &refused.next {
        Some(next) => format!("{next}; or {there}"),
        None => there,
    };
    refused.during(format_args!("{} is still open", lane.name())).next(next)
}

async fn close_exported(context: &Context, lane: &LaneFile) -> Result<()> {
    let view = match lane.session {
        Some(session) => Some(release(context, session).await.map_err(|refused| refused.during(session))?),
        None => None,
    };
    lane.remove(&context.home);
    leftovers::take_config_away(context, lane);
    tell(context, lane, view.as_ref())
}

/// Releases a session; one that is over already, or about to be, is as good.
async fn release(context: &Context, session: SessionId) -> Result<SessionView> {
    let client = context.client()?;
    let refused = match session::end(&client, &session.to_string(), "release", "").await {
        Ok((_, view)) => return Ok(view),
        Err(failure) if failure.exit == Exit::Unreachable => return Err(failure),
        Err(failure) => failure,
    };
    match client.get::<SessionView>(&item("sessions", session)).await {
        Ok(view) if matches!(view.state, SessionState::Ending | SessionState::Ended) => Ok(view),
        _ => Err(refused),
    }
}

/// A session that no file here knows may be one's own all the same.
async fn release_elsewhere(context: &Context, name: &str) -> Result<()> {
    let (_, view) = session::end(&context.client()?, name, "release", "").await?;
    finish(context, &view)
}

fn tell(context: &Context, lane: &LaneFile, view: Option<&SessionView>) -> Result<()> {
    match (view, lane.session) {
        (Some(view), _) => finish(context, view),
        (None, Some(id)) => {
            let reporter = Reporter::foreground(context.out, false);
            reporter.tell(&LaneEvent::Down { session: id, reason: EndReason::Released.as_str(), detail: None })
        }
        (None, None) => Ok(()),
    }
}

fn finish(context: &Context, view: &SessionView) -> Result<()> {
    let reason = view.end_reason.unwrap_or(EndReason::Released);
    let reporter = Reporter::foreground(context.out, false);
    reporter.tell(&LaneEvent::Down {
        session: view.id,
        reason: reason.as_str(),
        detail: view.end_detail.as_deref(),
    })?;
    if view.state == SessionState::Ending { Err(session::still_ending(view)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::state::Holder;

    #[test]
    fn a_refusal_says_which_lane_is_still_open_why_and_where_it_can_be_closed() {
        let lane = LaneFile {
            request: "req_7k2m9q4x".parse().expect("an id"),
            asset: "rtu-7".parse().expect("a name"),
            session: Some("ses_abcdefgh".parse().expect("an id")),
            iface: None,
            asset_address: None,
            forward: None,
            ends_at: None,
            config: None,
            holder: Holder { pid: 4711, started: 1, boot: String::new() },
        };
        let refused = Failure::new(Exit::Denied, "your log-in has ended").next("thinlane login");
        let told = still_open(&lane, refused);
        assert_eq!(told.exit, Exit::Denied);
        assert_eq!(told.message, "ses_abcdefgh is still open: your log-in has ended");
        assert_eq!(told.next.as_deref(), Some("thinlane login; or press Ctrl-C where it runs (process 4711)"));
        let told = still_open(&LaneFile { session: None, ..lane }, Failure::failed("its gateway has not answered yet"));
        assert_eq!(told.message, "req_7k2m9q4x is still open: its gateway has not answered yet");
        assert_eq!(told.next.as_deref(), Some("press Ctrl-C where it runs (process 4711)"));
    }
}
