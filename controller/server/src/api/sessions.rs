//! Sessions: open, see, extend, end.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use thinlane_model::{Secret, SessionId, SiteId};
use thinlane_session::{Answer as Told, Command, Session};
use thinlane_wire::api::{
    Activate, Activated, End, ErrorBody, ErrorCode, Extend, List, Schema, SessionState, SessionView,
};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::error::{Answer, Problem, Problems, refused};
use super::extract::{Body, Caller, Name, Params, Viewer};
use super::requests::{self, LONGEST_WAIT};
use crate::app::App;
use crate::core::{Live, State as Core};
use crate::views;

/// How long an activation waits for a gateway that is not connected at this moment.
const RECONNECT_TIME: Duration = Duration::from_secs(8);
/// How long a gateway has to arm; the world gives up at 30 s.
const ARM_TIME: Duration = Duration::from_secs(28);
/// How long the answer to an end waits for the closing record while the gateway is connected.
const CLOSE_TIME: Duration = Duration::from_secs(10);
/// What a lane's packets may carry: 1500 less the outer IPv6, UDP and WireGuard headers.
const MTU: u16 = 1420;
/// Seconds; keeps the engineer's own pinhole open.
const KEEPALIVE: u16 = 25;
/// Sessions in one answer.
const MOST_LISTED: usize = 10_000;

/// Opens the lane of an approved request: answers when the gateway has armed it, or says why not.
#[utoipa::path(post, path = "/requests/{id}/activate", tag = "sessions", params(("id" = String, Path)), request_body = Activate,
    responses((status = 200, body = Activated), Problems))]
pub async fn activate(
    State(app): State<App>,
    caller: Caller,
    Name(text): Name,
    Body(body): Body<Activate>,
) -> Answer<Json<Activated>> {
    let Activate { public_key, preshared_key, native } = body;
    let preshared_key = Zeroizing::new(preshared_key);
    let preshared = Secret::from_base64(&preshared_key)
        .map_err(|error| Problem::invalid(StatusCode::BAD_REQUEST, format!("preshared_key: {error}")))?;
    let login = caller.login.clone();
    let found: Result<_, ErrorBody> = app
        .core
        .read(move |state| {
            let viewer = Viewer::of(state, &login)?;
            let request = requests::find(state, &viewer, &text)?;
            let site = state.world().request(&request).map(|request| (request.site, request.site_name.clone()));
            site.map(|(site, name)| (request, site, name)).ok_or_else(|| unknown(&text))
        })
        .await?;
    let (request, site, site_name) = found?;
    // Whether it may be activated at all is the world's to say, before somebody waits for a gateway.
    let clock = match app.channels.clock(site, Duration::ZERO).await {
        Some(clock) => clock,
        None => {
            would_be_taken(&app, &caller, request).await?;
            let clock = app.channels.clock(site, RECONNECT_TIME).await;
            clock.ok_or_else(|| {
                ErrorBody::new(ErrorCode::SiteUnreachable, format!("the gateway of site {site_name} is not connected"))
                    .next(format!("`thinlane site show {site_name}` says since when; try again when it is online"))
            })?
        }
    };
    let mut watch = app.core.watch();
    let (channels, actor) = (app.channels.clone(), caller.actor());
    let made = Arc::new(OnceLock::new());
    let tell = made.clone();
    let session = app.core.write(move |step| {
        let activate = Command::Activate { request, engineer_key: public_key, native, clock };
        let Told::Session(session) = step.command(&actor, activate)? else {
            return Err(ErrorBody::new(ErrorCode::Internal, "no session was made"));
        };
        // Before the commit, because the grant goes out right after it.
        channels.put_preshared(session, preshared);
        let _ = tell.set(session);
        Ok(session)
    });
    let session = session.await.inspect_err(|_| {
        if let Some(session) = made.get() {
            app.channels.forget_preshared(session);
        }
    })?;
    let view = wait_while(&app, &mut watch, session, SessionState::Arming, ARM_TIME).await?;
    if view.state == SessionState::Active {
        return activated(&app, view).await.map(Json);
    }
    let view = if view.state == SessionState::Arming { give_up(&app, session).await? } else { view };
    Err(not_armed(&view).into())
}

/// Says early what would be refused anyway: a request that is not approved, a locked asset, an isolated site.
async fn would_be_taken(app: &App, caller: &Caller, request: thinlane_model::RequestId) -> Answer<()> {
    use thinlane_session::LockTarget;
    use thinlane_wire::api::RequestState;
    let login = caller.login.clone();
    let found: Result<(), ErrorBody> = app
        .core
        .read(move |state| {
            let world = state.world();
            let Some(request) = world.request(&request) else { return Ok(()) };
            let own = request.user == login;
            let agent = world.agent(&request.site);
            let isolated = agent.is_some_and(|agent| agent.isolated);
            let locks = [LockTarget::Site(request.site_name.clone()), LockTarget::Asset(request.asset.clone())];
            let locked = locks.iter().find_map(|target| world.lock_of(target));
            let body = |code, message: String| Err(ErrorBody::new(code, message));
            match request.state {
                _ if !own => body(ErrorCode::Forbidden, format!("request {} belongs to somebody else", request.id)),
                RequestState::Pending => body(ErrorCode::Conflict, format!("request {} is still pending", request.id)),
                RequestState::Denied => body(ErrorCode::Denied, format!("request {} was denied", request.id)),
                RequestState::Withdrawn | RequestState::Lapsed | RequestState::Used => {
                    body(ErrorCode::Ended, format!("request {} is over", request.id))
                }
                RequestState::Approved => match locked {
                    Some(lock) => body(ErrorCode::Locked, format!("{} is locked: {}", lock.target, lock.reason)),
                    None if isolated => {
                        body(ErrorCode::Isolated, format!("site {} is isolated by its own switch", request.site_name))
                    }
                    None => Ok(()),
                },
            }
        })
        .await?;
    Ok(found?)
}

async fn activated(app: &App, view: SessionView) -> Answer<Activated> {
    let id = view.id;
    let found = app
        .core
        .read(move |state| {
            let session = state.world().session(&id)?;
            Some((session.gateway_key?, session.endpoint()?.clone(), session.fallback().cloned()))
        })
        .await?;
    let (gateway_key, endpoint, fallback) =
        found.ok_or_else(|| Problem::not_found(format!("session {id} has ended")))?;
    Ok(Activated {
        schema: Schema,
        address: view.address,
        asset_address: view.asset_address,
        gateway_key,
        endpoint,
        fallback,
        mtu: MTU,
        keepalive: KEEPALIVE,
        remaining_ms: view.remaining_ms.unwrap_or(0),
        session: view,
    })
}

async fn give_up(app: &App, session: SessionId) -> Answer<SessionView> {
    let relay = app.relay.clone();
    let view = app.core.write(move |step| {
        let detail = "the gateway did not answer in time".to_owned();
        step.command(&thinlane_session::Actor::System, Command::GiveUp { session, detail })?;
        views::session(step.world(), &relay, &session).ok_or_else(|| unknown(&session.to_string()))
    });
    Ok(view.await?)
}

/// Why the lane is not there.
fn not_armed(view: &SessionView) -> ErrorBody {
    use thinlane_model::EndReason;
    let why = view.end_detail.clone().or_else(|| view.end_reason.map(|reason| reason.to_string()));
    let why = why.unwrap_or_else(|| "no reason was given".to_owned());
    let message = format!("session {} was not armed: {why}", view.id);
    let next = "make a new request; `thinlane-agent status` on the gateway says more".to_owned();
    let code = match view.end_reason {
        Some(EndReason::Locked) => ErrorCode::Locked,
        Some(EndReason::Isolated) => ErrorCode::Isolated,
        Some(EndReason::Policy) => ErrorCode::PolicyDenied,
        Some(EndReason::Killed | EndReason::Released | EndReason::Expired | EndReason::Idle) => ErrorCode::Ended,
        Some(EndReason::Failed) if why.contains("did not answer") => ErrorCode::SiteUnreachable,
        Some(EndReason::Failed) if why.contains("isolated") => ErrorCode::Isolated,
        Some(EndReason::Offline) | None => ErrorCode::SiteUnreachable,
        Some(EndReason::Failed) => ErrorCode::SiteRefused,
    };
    ErrorBody::new(code, message).next(next)
}

/// Which sessions.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// Not ended.
    #[serde(default)]
    active: bool,
    /// Of external people.
    #[serde(default)]
    vendor: bool,
    /// At this site.
    site: Option<String>,
    /// Of this person.
    user: Option<String>,
    /// At most so many.
    limit: Option<usize>,
}

/// Sessions, newest first.
#[utoipa::path(get, path = "/sessions", tag = "sessions", params(Which),
    responses((status = 200, body = List<SessionView>), Problems))]
pub async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(which): Params<Which>,
) -> Answer<Json<List<SessionView>>> {
    let relay = app.relay.clone();
    let found: Result<Vec<_>, ErrorBody> = app
        .core
        .read(move |state| {
            let viewer = Viewer::of(state, &caller.login)?;
            let world = state.world();
            if let Some(site) = &which.site
                && !world.sites().any(|known| known.name.as_str() == site)
            {
                return Err(ErrorBody::new(ErrorCode::NotFound, format!("no site {site}")).next("`thinlane site ls`"));
            }
            let wanted = |session: &&Session| {
                is_shown(&viewer, session)
                    && (!which.active || session.is_live())
                    && (!which.vendor || session.org.is_some())
                    && which.site.as_deref().is_none_or(|site| session.site_name.as_str() == site)
                    && which.user.as_deref().is_none_or(|user| session.user.as_str() == user)
            };
            let mut found: Vec<_> = world.sessions().filter(wanted).map(|one| (one.created_at, one.id)).collect();
            found.sort_by(|a, b| b.cmp(a));
            found.truncate(which.limit.unwrap_or(MOST_LISTED).min(MOST_LISTED));
            Ok(found.iter().filter_map(|(_, id)| views::session(world, &relay, id)).collect())
        })
        .await?;
    Ok(super::list(found?))
}

/// How long to wait for a change.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Until {
    /// Seconds, at most 60: answers when the state is another one than `state`, or at the end of the wait.
    #[param(maximum = 60)]
    wait: Option<u64>,
    /// Absent: the one that it has now.
    state: Option<SessionState>,
}

/// One session.
#[utoipa::path(get, path = "/sessions/{id}", tag = "sessions", params(("id" = String, Path), Until),
    responses((status = 200, body = SessionView), Problems))]
pub async fn show(
    State(app): State<App>,
    caller: Caller,
    Name(text): Name,
    Params(until): Params<Until>,
) -> Answer<Json<SessionView>> {
    let mut watch = app.core.watch();
    let view = look(&app, &caller, text).await?;
    let wait = Duration::from_secs(until.wait.unwrap_or(0).min(LONGEST_WAIT));
    if wait.is_zero() {
        return Ok(Json(view));
    }
    let old = until.state.unwrap_or(view.state);
    Ok(Json(wait_while(&app, &mut watch, view.id, old, wait).await?))
}

/// Stops a session now: the relay has closed when this answers.
#[utoipa::path(post, path = "/sessions/{id}/kill", tag = "sessions", params(("id" = String, Path)), request_body = End,
    responses((status = 200, description = "Ended, with its closing record", body = SessionView),
        (status = 202, description = "The gateway is out of reach: the relay has stopped forwarding, the session is ending", body = SessionView), Problems))]
pub async fn kill(
    State(app): State<App>,
    caller: Caller,
    Name(text): Name,
    Body(body): Body<End>,
) -> Answer<(StatusCode, Json<SessionView>)> {
    end(&app, &caller, text, move |session| Command::Kill { session, reason: body.reason }).await
}

/// Lets one's own session go.
#[utoipa::path(post, path = "/sessions/{id}/release", tag = "sessions", params(("id" = String, Path)), request_body = End,
    responses((status = 200, description = "Ended, with its closing record", body = SessionView),
        (status = 202, description = "The gateway is out of reach: the relay has stopped forwarding, the session is ending", body = SessionView), Problems))]
pub async fn release(
    State(app): State<App>,
    caller: Caller,
    Name(text): Name,
    Body(_): Body<End>,
) -> Answer<(StatusCode, Json<SessionView>)> {
    end(&app, &caller, text, |session| Command::Release { session }).await
}

/// Adds time to one's own session, as far as the policy permits.
#[utoipa::path(post, path = "/sessions/{id}/extend", tag = "sessions", params(("id" = String, Path)), request_body = Extend,
    responses((status = 200, body = SessionView), Problems))]
pub async fn extend(
    State(app): State<App>,
    caller: Caller,
    Name(text): Name,
    Body(body): Body<Extend>,
) -> Answer<Json<SessionView>> {
    let relay = app.relay.clone();
    let view = app.core.write(move |step| {
        let session = find_shown(step.state(), &caller, &text)?;
        let extend = Command::Extend { session, seconds: body.seconds, reason: body.reason };
        step.command(&caller.actor(), extend)?;
        views::session(step.world(), &relay, &session).ok_or_else(|| unknown(&text))
    });
    Ok(Json(view.await.map_err(Problem::from)?))
}

async fn end(
    app: &App,
    caller: &Caller,
    text: String,
    command: impl FnOnce(SessionId) -> Command + Send + 'static,
) -> Answer<(StatusCode, Json<SessionView>)> {
    let watch = app.core.watch();
    let (caller, again) = (caller.clone(), caller.clone());
    let session = app
        .core
        .write(move |step| {
            let session = find_shown(step.state(), &caller, &text)?;
            step.command(&caller.actor(), command(session))?;
            Ok(session)
        })
        .await?;
    let ended = wait_for_ends(app, watch, &[session], CLOSE_TIME).await?;
    let view = look(app, &again, session.to_string()).await?;
    Ok((if ended { StatusCode::OK } else { StatusCode::ACCEPTED }, Json(view)))
}

/// Waits until all these sessions have ended: so long at most, and not for a gateway that is not connected.
pub(super) async fn wait_for_ends(
    app: &App,
    mut watch: Receiver<Arc<Live>>,
    sessions: &[SessionId],
    most: Duration,
) -> Answer<bool> {
    let deadline = Instant::now() + most;
    let mut stop = app.stop.clone();
    loop {
        let asked = sessions.to_vec();
        let waiting: Vec<SiteId> = app
            .core
            .read(move |state| {
                let live = asked.iter().filter_map(|id| state.world().session(id)).filter(|one| one.is_live());
                live.map(|session| session.site).collect()
            })
            .await?;
        if waiting.is_empty() {
            return Ok(true);
        }
        if !waiting.iter().any(|site| app.channels.is_online(site)) {
            return Ok(false);
        }
        // Woken by any of them; looked at again each second, for a channel that died meanwhile.
        let look_again = (Instant::now() + Duration::from_secs(1)).min(deadline);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(look_again) => break,
                _ = stop.changed() => return Ok(false),
                event = watch.recv() => match event {
                    Ok(live) if live.session.is_none_or(|id| !sessions.contains(&id)) => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return Ok(false),
                },
            }
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
    }
}

/// Waits until a session's state is another one, so long at most.
pub(super) async fn wait_while(
    app: &App,
    watch: &mut Receiver<Arc<Live>>,
    session: SessionId,
    old: SessionState,
    most: Duration,
) -> Answer<SessionView> {
    let deadline = Instant::now() + most;
    let mut stop = app.stop.clone();
    loop {
        let relay = app.relay.clone();
        let view = app.core.read(move |state| views::session(state.world(), &relay, &session)).await?;
        let view = view.ok_or_else(|| unknown(&session.to_string()))?;
        if view.state != old {
            return Ok(view);
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return Ok(view),
                _ = stop.changed() => return Ok(view),
                event = watch.recv() => match event {
                    Ok(live) if live.session != Some(session) => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return Ok(view),
                },
            }
        }
    }
}

/// A session as it stands, if it is shown to the caller.
pub(super) async fn look(app: &App, caller: &Caller, text: String) -> Answer<SessionView> {
    let (caller, relay) = (caller.clone(), app.relay.clone());
    let view: Result<_, ErrorBody> = app
        .core
        .read(move |state| {
            let session = find_shown(state, &caller, &text)?;
            views::session(state.world(), &relay, &session).ok_or_else(|| unknown(&text))
        })
        .await?;
    Ok(view?)
}

fn find_shown(state: &Core, caller: &Caller, text: &str) -> Result<SessionId, ErrorBody> {
    let viewer = Viewer::of(state, &caller.login)?;
    let id = state.world().find_session(text).map_err(|refusal| refused(&refusal))?;
    let shown = state.world().session(&id).is_some_and(|session| is_shown(&viewer, session));
    if shown { Ok(id) } else { Err(unknown(text)) }
}

pub(super) fn is_shown(viewer: &Viewer, session: &Session) -> bool {
    session.user == viewer.login || viewer.sees_all()
}

fn unknown(text: &str) -> ErrorBody {
    let shown: String = text.chars().take(40).collect();
    ErrorBody::new(ErrorCode::NotFound, format!("no session {shown}")).next("`thinlane session ls`")
}
