//! Closing lanes that background processes hold, and exported ones.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use clap::Args;
use thinlane_model::EndReason;
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
    let mut worst: Option<Failure> = None;
    for lane in chosen {
        if let Err(failure) = close(context, client.as_ref(), lane).await {
            context.out.hint(&format!("{}: {failure}", lane.name()));
            worst = Some(failure);
        }
    }
    leftovers::sweep(context).await?;
    worst.map_or(Ok(()), Err)
}

/// Closes one lane: asks its holder, or releases it here.
async fn close(context: &Context, client: Option<&Client>, lane: &LaneFile) -> Result<()> {
    if !lane.is_exported() && !lane.holder.is_alive() {
        leftovers::end(context, client, lane).await;
        return Ok(());
    }
    if lane.is_exported() {
        let client = match client {
            Some(client) => client.clone(),
            None => context.client()?,
        };
        return release_exported(context, &client, lane).await;
    }
    stop_holder(client, lane).await?;
    let view = match (lane.session, client) {
        (Some(id), Some(client)) => client.get::<SessionView>(&item("sessions", id)).await.ok(),
        _ => None,
    };
    tell(context, lane, view.as_ref())
}

/// Ends a holder in good order, or at once if it does not listen.
async fn stop_holder(client: Option<&Client>, lane: &LaneFile) -> Result<()> {
    let pid = lane.holder.pid;
    match process::ask_to_end(pid).map_err(|error| error.kind()) {
        Err(ErrorKind::PermissionDenied) => {
            return Err(Failure::failed(format!("the lane {} is held by another user's process {pid}", lane.name()))
                .next(format!("sudo thinlane down {}", lane.name())));
        }
        Err(ErrorKind::Unsupported) => release_held(client, lane).await?,
        // It may have ended by itself.
        Ok(()) | Err(_) => {}
    }
    let asked = Instant::now();
    while lane.holder.is_alive() {
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
async fn release_held(client: Option<&Client>, lane: &LaneFile) -> Result<()> {
    let by_hand = || Failure::failed(format!("{} cannot be closed from here now", lane.name()));
    match (client, lane.session) {
        (Some(client), Some(id)) => match session::end(client, &id.to_string(), "release", "").await {
            Err(failure) if failure.exit == Exit::Unreachable => Err(failure.next("press Ctrl-C where it runs")),
            // Over already: then its holder is on the way out.
            Ok(_) | Err(_) => Ok(()),
        },
        _ => Err(by_hand().next("press Ctrl-C where it runs")),
    }
}

async fn release_exported(context: &Context, client: &Client, lane: &LaneFile) -> Result<()> {
    let Some(id) = lane.session else {
        lane.remove(&context.home);
        return Ok(());
    };
    let view = match session::end(client, &id.to_string(), "release", "").await {
        Ok((_, view)) => Some(view),
        Err(failure) if failure.exit == Exit::Unreachable => return Err(failure),
        // It has ended already; how, the controller knows.
        Err(failure) => match client.get::<SessionView>(&item("sessions", id)).await {
            Ok(view) if view.state == SessionState::Ended => Some(view),
            _ => return Err(failure),
        },
    };
    lane.remove(&context.home);
    leftovers::take_config_away(context, lane);
    tell(context, lane, view.as_ref())
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
