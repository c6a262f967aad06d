//! Locks: on people, organisations, sites and assets.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use thinlane_model::{LockId, Role, Span};
use thinlane_session::{Answer as Told, Command, LockTarget};
use thinlane_wire::api::{Done, ErrorBody, ErrorCode, List, LockKind, LockView, NewLock};

use super::error::{Answer, Problem, Problems};
use super::extract::{Body, Caller, Name, Viewer};
use super::sessions::wait_for_ends;
use crate::app::App;

/// How long a lock's answer waits for closing records.
const CLOSE_TIME: Duration = Duration::from_secs(10);

/// 201 when everything that it stopped has ended, 202 while something is still ending.
pub type Locked = (StatusCode, Json<LockView>);

/// The locks in force.
#[utoipa::path(get, path = "/locks", tag = "locks", responses((status = 200, body = List<LockView>), Problems))]
pub async fn list(State(app): State<App>, caller: Caller) -> Answer<Json<List<LockView>>> {
    let found: Result<Vec<_>, ErrorBody> = app
        .core
        .read(move |state| {
            let viewer = Viewer::of(state, &caller.login)?;
            viewer.need("seeing locks", &[Role::Ops, Role::Admin, Role::Auditor, Role::Approver])?;
            let world = state.world();
            Ok(world.locks().filter_map(|lock| world.lock_view(&lock.id, &[])).collect())
        })
        .await?;
    Ok(super::list(found?))
}

/// Sets a lock: what it closes ends now, and nothing new opens.
#[utoipa::path(post, path = "/locks", tag = "locks", request_body = NewLock,
    responses((status = 201, body = LockView), (status = 202, description = "Some sessions are still ending", body = LockView), Problems))]
pub async fn set(State(app): State<App>, caller: Caller, Body(new): Body<NewLock>) -> Answer<Locked> {
    let target = target(new.kind, &new.name)?;
    let time = match new.seconds {
        Some(0) => return Err(Problem::invalid(StatusCode::BAD_REQUEST, "a lock lasts at least one second")),
        seconds => seconds.map(Span::from_secs),
    };
    lock(&app, &caller, target, time, new.reason).await
}

/// Ends a lock by its id, or enough of its beginning.
#[utoipa::path(delete, path = "/locks/{id}", tag = "locks", params(("id" = String, Path)),
    responses((status = 200, body = Done), Problems))]
pub async fn clear(State(app): State<App>, caller: Caller, Name(text): Name) -> Answer<Json<Done>> {
    let found: Result<LockTarget, ErrorBody> = app
        .core
        .read(move |state| {
            let whole = format!("{}{}", LockId::PREFIX, text.strip_prefix(LockId::PREFIX).unwrap_or(&text));
            let mut fitting = state.world().locks().filter(|lock| lock.id.to_string().starts_with(&whole));
            let shown: String = text.chars().take(40).collect();
            match (fitting.next(), fitting.next()) {
                (Some(one), None) if whole.len() > LockId::PREFIX.len() => Ok(one.target.clone()),
                (Some(_), Some(_)) => {
                    Err(ErrorBody::new(ErrorCode::NotFound, format!("{shown} names more than one lock")))
                }
                _ => Err(ErrorBody::new(ErrorCode::NotFound, format!("no lock {shown}")).next("`thinlane lock ls`")),
            }
        })
        .await?;
    unlock(&app, &caller, found?).await
}

/// Ends the lock on a person, organisation, site or asset; also unfreezes a site.
#[utoipa::path(delete, path = "/locks/{kind}/{name}", tag = "locks",
    params(("kind" = LockKind, Path), ("name" = String, Path)), responses((status = 200, body = Done), Problems))]
pub async fn clear_named(
    State(app): State<App>,
    caller: Caller,
    path: Result<Path<(LockKind, String)>, axum::extract::rejection::PathRejection>,
) -> Answer<Json<Done>> {
    let Ok(Path((kind, name))) = path else {
        return Err(Problem::invalid(StatusCode::BAD_REQUEST, "a lock is on a user, org, site or asset"));
    };
    unlock(&app, &caller, target(kind, &name)?).await
}

pub(super) async fn lock(
    app: &App,
    caller: &Caller,
    target: LockTarget,
    time: Option<Span>,
    reason: String,
) -> Answer<Locked> {
    let actor = caller.actor();
    // Watched from before the command, so that no end is missed.
    let watch = app.core.watch();
    let (id, sessions) = app
        .core
        .write(move |step| match step.command(&actor, Command::Lock { target, time, reason })? {
            Told::Lock { id, sessions } => Ok((id, sessions)),
            _ => Err(ErrorBody::new(ErrorCode::Internal, "no lock was set")),
        })
        .await?;
    let ended = wait_for_ends(app, watch, &sessions, CLOSE_TIME).await?;
    let view = app.core.read(move |state| state.world().lock_view(&id, &sessions)).await?;
    let view = view.ok_or_else(|| Problem::not_found("the lock has ended already"))?;
    Ok((if ended { StatusCode::CREATED } else { StatusCode::ACCEPTED }, Json(view)))
}

pub(super) async fn unlock(app: &App, caller: &Caller, target: LockTarget) -> Answer<Json<Done>> {
    let actor = caller.actor();
    app.core.write(move |step| step.command(&actor, Command::Unlock { target })).await?;
    Ok(Json(Done::default()))
}

fn target(kind: LockKind, name: &str) -> Answer<LockTarget> {
    let wrong = |error: thinlane_model::NameError| Problem::invalid(StatusCode::BAD_REQUEST, format!("name: {error}"));
    Ok(match kind {
        LockKind::User => LockTarget::User(name.parse().map_err(wrong)?),
        LockKind::Org => LockTarget::Org(name.parse().map_err(wrong)?),
        LockKind::Site => LockTarget::Site(name.parse().map_err(wrong)?),
        LockKind::Asset => LockTarget::Asset(name.parse().map_err(wrong)?),
    })
}
