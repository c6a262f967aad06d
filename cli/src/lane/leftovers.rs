//! What a killed process left behind: found by the next command, removed, and released.

use std::time::Duration;

use thinlane_model::SessionId;
use thinlane_wg::link::Link;
use thinlane_wire::api::{RequestState, RequestView, SessionState, SessionView};

use super::state::{self, LaneFile, parse_alias};
use crate::api::Client;
use crate::api::paths::item;
use crate::cmd::session;
use crate::context::Context;
use crate::failure::{Exit, Result};
use crate::out::time;
use crate::system::identity;

/// How long a controller may take over what nobody waits for.
const PATIENCE: Duration = Duration::from_secs(12);

/// Removes everything that no living process holds, with a line for each.
///
/// Without the rights for it an interface stays, and that is said.
pub async fn sweep(context: &Context) -> Result<()> {
    let client = context.client().ok();
    for lane in state::all(&context.home)? {
        if lane.is_exported() {
            forget_ended(context, client.as_ref(), &lane).await;
        } else if !lane.holder.is_alive(&context.home) {
            end(context, client.as_ref(), &lane).await;
        }
    }
    for (name, session) in orphans() {
        if remove_interface(context, &name) {
            let fate = match &client {
                Some(client) => release(client, session).await,
                None => Fate::Untold,
            };
            context.out.hint(&told(&format!("the interface {name} of {session}"), fate));
        }
    }
    Ok(())
}

/// What became of the session of a lane that is over here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Closed,
    /// There never was one; whether its request can still be used.
    NeverOpened {
        usable: bool,
    },
    /// The controller could not be asked.
    Untold,
    /// The controller did not close it.
    Open,
}

/// Ends what is left of one lane whose holder is gone: interface, session, file. The file stays, for the next call to try
/// again, as long as the controller could not be told of a session whose time is not over.
pub async fn end(context: &Context, client: Option<&Client>, lane: &LaneFile) {
    if let Some(name) = &lane.iface
        && is_lanes(name, lane.session)
    {
        remove_interface(context, name);
    }
    let fate = match (lane.session, client) {
        (Some(session), Some(client)) => release(client, session).await,
        // Killed while the gateway armed it: the request knows.
        (None, Some(client)) => {
            let path = item("requests", lane.request);
            match tokio::time::timeout(PATIENCE, client.get::<RequestView>(&path)).await {
                Ok(Ok(RequestView { session: Some(session), .. })) => release(client, session).await,
                Ok(Ok(request)) => Fate::NeverOpened { usable: request.state == RequestState::Approved },
                _ => Fate::Untold,
            }
        }
        (_, None) => Fate::Untold,
    };
    let what = format!("the lane {} to {}", lane.name(), lane.asset);
    if fate == Fate::Untold && lane.ends_at.is_some_and(|end| end > time::now()) {
        context.out.hint(&format!(
            "the controller could not be told that {what} is over: the next connect, up or down tries again, and at its \
             deadline its session closes by itself"
        ));
        return;
    }
    lane.remove(&context.home);
    let goes_on = match fate {
        Fate::NeverOpened { usable: true } => format!("; thinlane connect {} goes on with it", lane.request),
        _ => String::new(),
    };
    context.out.hint(&format!("{}{goes_on}", told(&what, fate)));
}

fn told(what: &str, fate: Fate) -> String {
    let session = match fate {
        Fate::Closed => "its session is closed",
        Fate::NeverOpened { .. } => "no session was opened",
        Fate::Untold | Fate::Open => "its session closes at its deadline",
    };
    format!("removed what was left of {what}; {session}")
}

/// Releases a session.
async fn release(client: &Client, session: SessionId) -> Fate {
    let name = session.to_string();
    match tokio::time::timeout(PATIENCE, session::end(client, &name, "release", "")).await {
        Ok(Ok(_)) => Fate::Closed,
        Ok(Err(_)) if is_closed(client, session).await => Fate::Closed,
        Ok(Err(failure)) if failure.exit != Exit::Unreachable => Fate::Open,
        Ok(Err(_)) | Err(_) => Fate::Untold,
    }
}

async fn is_closed(client: &Client, session: SessionId) -> bool {
    let path = item("sessions", session);
    let view = tokio::time::timeout(PATIENCE, client.get::<SessionView>(&path)).await;
    matches!(view, Ok(Ok(view)) if matches!(view.state, SessionState::Ended | SessionState::Ending))
}

/// Forgets an exported lane once its session is over.
async fn forget_ended(context: &Context, client: Option<&Client>, lane: &LaneFile) {
    let over = lane.ends_at.is_none_or(|end| end < time::now());
    if !over {
        return;
    }
    let closed = match (lane.session, client) {
        (Some(session), Some(client)) => is_closed(client, session).await,
        (None, _) => true,
        (Some(_), None) => false,
    };
    if closed {
        lane.remove(&context.home);
        take_config_away(context, lane);
    }
}

/// Takes the exported configuration of a lane that is over away, and says so.
pub fn take_config_away(context: &Context, lane: &LaneFile) {
    let Some(file) = &lane.config else { return };
    let config = file.display();
    // `wg-quick up FILE` names its interface after the file, and needs the file to take it down again.
    let in_use = file
        .file_stem()
        .and_then(|stem| stem.to_str())
        .is_some_and(|name| Link::open().and_then(|mut link| link.interface(name)).is_ok_and(|found| found.is_some()));
    if in_use {
        context.out.hint(&format!("{config} opens nothing any more; next: wg-quick down {config}; rm {config}"));
    } else if lane.remove_config() {
        context.out.hint(&format!("removed {config}: it opens nothing any more"));
    } else if file.exists() {
        context.out.hint(&format!("{config} is of no use any more"));
    }
}

/// Interfaces of lanes whose process is gone.
pub fn orphans() -> Vec<(String, SessionId)> {
    let interfaces = Link::open().and_then(|mut link| link.ours()).unwrap_or_default();
    interfaces
        .into_iter()
        .filter_map(|interface| Some((interface.name, parse_alias(interface.alias.as_deref()?)?)))
        .filter(|(_, alias)| !identity::exists(alias.pid))
        .map(|(name, alias)| (name, alias.session))
        .collect()
}

/// Whether an interface is this session's lane, and not one that got its name later.
fn is_lanes(name: &str, session: Option<SessionId>) -> bool {
    let found = Link::open().and_then(|mut link| link.interface(name)).ok().flatten();
    let alias = found.and_then(|interface| interface.alias);
    alias.as_deref().and_then(parse_alias).is_some_and(|alias| Some(alias.session) == session)
}

fn remove_interface(context: &Context, name: &str) -> bool {
    match Link::open().and_then(|mut link| link.delete(name)) {
        Ok(there) => there,
        Err(error) => {
            context.out.hint(&format!(
                "the interface {name} of a lane that is over cannot be removed: {error}; next: sudo thinlane down"
            ));
            false
        }
    }
}
