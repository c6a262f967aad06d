//! Requests: make, see, decide.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use thinlane_model::{RequestId, Role};
use thinlane_session::{Answer as Told, Command, NewRequest as Asked, Request};
use thinlane_wire::api::{Approve, ErrorBody, ErrorCode, List, NewRequest, Reason, RequestState, RequestView};
use tokio::sync::broadcast::error::RecvError;

use super::error::{Answer, Problem, Problems, refused};
use super::extract::{Body, Caller, Name, Params, Viewer};
use crate::app::App;
use crate::core::State as Core;

/// The longest that an answer is held back.
pub(super) const LONGEST_WAIT: u64 = 60;
/// Requests in one answer.
const MOST_LISTED: usize = 10_000;

/// Which requests; without any: one's own that are pending or approved.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// All that wait for a decision and are shown to the caller.
    #[serde(default)]
    pending: bool,
    /// All that are shown to the caller, also decided and used ones.
    #[serde(default)]
    all: bool,
    /// For this asset only.
    asset: Option<String>,
    /// In this state only.
    state: Option<RequestState>,
}

/// Requests, newest first.
#[utoipa::path(get, path = "/requests", tag = "requests", params(Which),
    responses((status = 200, body = List<RequestView>), Problems))]
pub async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(which): Params<Which>,
) -> Answer<Json<List<RequestView>>> {
    let found: Result<Vec<_>, ErrorBody> = app
        .core
        .read(move |state| {
            let viewer = Viewer::of(state, &caller.login)?;
            let world = state.world();
            let wanted = |request: &&Request| {
                let open = matches!(request.state, RequestState::Pending | RequestState::Approved);
                let scope = match (which.all || which.state.is_some(), which.pending) {
                    (true, _) => true,
                    (false, true) => request.state == RequestState::Pending,
                    (false, false) => open && request.user == viewer.login,
                };
                scope
                    && is_shown(&viewer, request)
                    && which.state.is_none_or(|state| request.state == state)
                    && which.asset.as_deref().is_none_or(|asset| request.asset.as_str() == asset)
            };
            let mut found: Vec<_> = world.requests().filter(wanted).map(|one| (one.created_at, one.id)).collect();
            found.sort_by(|a, b| b.cmp(a));
            found.truncate(MOST_LISTED);
            Ok(found.iter().filter_map(|(_, id)| world.request_view(id)).collect())
        })
        .await?;
    Ok(super::list(found?))
}

/// Asks for a session. A policy that says no is the error `policy-denied`; the request is kept, denied.
#[utoipa::path(post, path = "/requests", tag = "requests", request_body = NewRequest,
    responses((status = 201, body = RequestView), Problems))]
pub async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<NewRequest>,
) -> Answer<(StatusCode, Json<RequestView>)> {
    let asked = Asked {
        asset: new.asset,
        task: new.task,
        seconds: new.seconds,
        reason: new.reason,
        ticket: new.ticket,
        not_before: None,
    };
    let view = app.core.write(move |step| {
        let Told::Request(id) = step.command(&caller.actor(), Command::CreateRequest(asked))? else {
            return Err(ErrorBody::new(ErrorCode::Internal, "no request was made"));
        };
        let request = step.world().request(&id);
        if let Some(request) = request.filter(|request| request.state == RequestState::Denied) {
            let why: Vec<_> = request.decision.reasons.iter().skip(1).map(String::as_str).collect();
            let message = format!("the policy denies request {id}: {}", why.join("; "));
            return Err(ErrorBody::new(ErrorCode::PolicyDenied, message).next(request.decision.next.clone()));
        }
        step.world().request_view(&id).ok_or_else(|| unknown(&id.to_string()))
    });
    Ok((StatusCode::CREATED, Json(view.await.map_err(Problem::from)?)))
}

/// How long to wait for a change.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Until {
    /// Seconds, at most 60: answers when the state is another one than `state`, or at the end of the wait.
    #[param(maximum = 60)]
    wait: Option<u64>,
    /// Absent: `pending`.
    state: Option<RequestState>,
}

/// One request; with `wait`, as soon as it is decided.
#[utoipa::path(get, path = "/requests/{id}", tag = "requests", params(("id" = String, Path), Until),
    responses((status = 200, body = RequestView), Problems))]
pub async fn show(
    State(app): State<App>,
    caller: Caller,
    Name(text): Name,
    Params(until): Params<Until>,
) -> Answer<Json<RequestView>> {
    let mut watch = app.core.watch();
    let find = move |state: &Core| {
        let viewer = Viewer::of(state, &caller.login)?;
        let id = find(state, &viewer, &text)?;
        state.world().request_view(&id).ok_or_else(|| unknown(&text))
    };
    let mut view: RequestView = app.core.read(find.clone()).await??;
    let (id, old) = (view.id, until.state.unwrap_or(RequestState::Pending));
    let wait = Duration::from_secs(until.wait.unwrap_or(0).min(LONGEST_WAIT));
    let deadline = tokio::time::Instant::now() + wait;
    let mut stop = app.stop.clone();
    while view.state == old && !wait.is_zero() {
        let woken = tokio::select! {
            () = tokio::time::sleep_until(deadline) => break,
            _ = stop.changed() => break,
            event = watch.recv() => event,
        };
        match woken {
            Ok(live) if live.request != Some(id) => continue,
            Err(RecvError::Closed) => break,
            Ok(_) | Err(RecvError::Lagged(_)) => view = app.core.read(find.clone()).await??,
        }
    }
    Ok(Json(view))
}

/// Approves; never one's own.
#[utoipa::path(post, path = "/requests/{id}/approve", tag = "requests", params(("id" = String, Path)), request_body = Approve,
    responses((status = 200, body = RequestView), Problems))]
pub async fn approve(
    State(app): State<App>,
    caller: Caller,
    Name(text): Name,
    Body(body): Body<Approve>,
) -> Answer<Json<RequestView>> {
    decide(&app, caller, text, move |request| Command::ApproveRequest { request, note: body.note }).await
}

/// Denies.
#[utoipa::path(post, path = "/requests/{id}/deny", tag = "requests", params(("id" = String, Path)), request_body = Reason,
    responses((status = 200, body = RequestView), Problems))]
pub async fn deny(
    State(app): State<App>,
    caller: Caller,
    Name(text): Name,
    Body(body): Body<Reason>,
) -> Answer<Json<RequestView>> {
    decide(&app, caller, text, move |request| Command::DenyRequest { request, reason: body.reason }).await
}

/// Takes one's own request back.
#[utoipa::path(post, path = "/requests/{id}/withdraw", tag = "requests", params(("id" = String, Path)),
    responses((status = 200, body = RequestView), Problems))]
pub async fn withdraw(State(app): State<App>, caller: Caller, Name(text): Name) -> Answer<Json<RequestView>> {
    decide(&app, caller, text, |request| Command::WithdrawRequest { request }).await
}

async fn decide(
    app: &App,
    caller: Caller,
    text: String,
    command: impl FnOnce(RequestId) -> Command + Send + 'static,
) -> Answer<Json<RequestView>> {
    let view = app.core.write(move |step| {
        let viewer = Viewer::of(step.state(), &caller.login)?;
        let id = find(step.state(), &viewer, &text)?;
        step.command(&caller.actor(), command(id))?;
        step.world().request_view(&id).ok_or_else(|| unknown(&text))
    });
    Ok(Json(view.await.map_err(Problem::from)?))
}

/// The request that a text names, if it is shown to the viewer.
pub(super) fn find(state: &Core, viewer: &Viewer, text: &str) -> Result<RequestId, ErrorBody> {
    let id = state.world().find_request(text).map_err(|refusal| refused(&refusal))?;
    let shown = state.world().request(&id).is_some_and(|request| is_shown(viewer, request));
    if shown { Ok(id) } else { Err(unknown(text)) }
}

/// Own ones; all for those who watch; those that a rule asks one's role to decide.
pub(super) fn is_shown(viewer: &Viewer, request: &Request) -> bool {
    let asked = &request.decision.obligations.approver_roles;
    let decides: Vec<Role> = asked.iter().copied().collect();
    request.user == viewer.login || viewer.sees_all() || viewer.has(&decides)
}

fn unknown(text: &str) -> ErrorBody {
    let shown: String = text.chars().take(40).collect();
    ErrorBody::new(ErrorCode::NotFound, format!("no request {shown}")).next("`thinlane request ls`")
}
