//! Live views: server-sent events, and the first picture.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use thinlane_model::{Role, SessionId};
use thinlane_wire::api::{ErrorBody, HistoryView, LiveEvent, Overview, RequestState, Schema, SessionState};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::error::{Answer, Problems};
use super::extract::{Caller, Name, Viewer};
use super::{requests, sessions};
use crate::app::App;
use crate::core::Live;
use crate::views;

/// A comment line keeps the connection open and shows a dead one.
const KEEP_OPEN: Duration = Duration::from_secs(10);
/// How long a stream goes on with the roles that it looked up; a lock or a reset ends the token, and with it the
/// stream, at once.
const ROLES_FRESH: Duration = Duration::from_secs(2);
/// How often, and every how long, a stream whose token has ended looks whether its session has ended with it.
const FAREWELLS: usize = 50;
const FAREWELL_EVERY: Duration = Duration::from_millis(20);

/// Who may see what others' lanes did not pass.
const SEES_DENIED: &[Role] = &[Role::Ops, Role::Admin, Role::Auditor];

/// One session as it stands, then every change of it; ends after its end.
#[utoipa::path(get, path = "/sessions/{id}/events", tag = "live", params(("id" = String, Path)),
    responses((status = 200, description = "A stream of LiveEvent, each as `data:` of an event of its kind", content_type = "text/event-stream", body = LiveEvent), Problems))]
pub async fn session_events(
    State(app): State<App>,
    caller: Caller,
    Name(text): Name,
) -> Answer<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let watch = app.core.watch();
    let first = sessions::look(&app, &caller, text).await?;
    let session = first.id;
    let first = LiveEvent::Session { session: Box::new(first) };
    Ok(serve(Feed { app, caller, watch, only: Some(session), first: Some(first), done: false, viewer: None }))
}

/// What a session's byte counters were over its life; for a plot.
#[utoipa::path(get, path = "/sessions/{id}/history", tag = "live", params(("id" = String, Path)),
    responses((status = 200, body = HistoryView), Problems))]
pub async fn history(State(app): State<App>, caller: Caller, Name(text): Name) -> Answer<Json<HistoryView>> {
    let session = sessions::look(&app, &caller, text).await?.id;
    Ok(Json(HistoryView { schema: Schema, session, samples: app.lately.history(&session) }))
}

/// Everything that the caller's roles may see; requesters see what is theirs.
#[utoipa::path(get, path = "/events", tag = "live",
    responses((status = 200, description = "A stream of LiveEvent, each as `data:` of an event of its kind", content_type = "text/event-stream", body = LiveEvent), Problems))]
pub async fn events(
    State(app): State<App>,
    caller: Caller,
) -> Answer<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let watch = app.core.watch();
    let login = caller.login.clone();
    let known: Result<Viewer, ErrorBody> = app.core.read(move |state| Viewer::of(state, &login)).await?;
    known?;
    Ok(serve(Feed { app, caller, watch, only: None, first: None, done: false, viewer: None }))
}

/// What is live now: open sessions, requests that wait or can be used, sites.
#[utoipa::path(get, path = "/overview", tag = "live", responses((status = 200, body = Overview), Problems))]
pub async fn overview(State(app): State<App>, caller: Caller) -> Answer<Json<Overview>> {
    let (relay, channels, denied) = (app.relay.clone(), app.channels.clone(), app.lately.denied());
    let found: Result<_, ErrorBody> = app
        .core
        .read(move |state| {
            let viewer = Viewer::of(state, &caller.login)?;
            let world = state.world();
            let live = world.all_live_sessions().filter(|session| sessions::is_shown(&viewer, session));
            let open = world.requests().filter(|request| {
                matches!(request.state, RequestState::Pending | RequestState::Approved)
                    && requests::is_shown(&viewer, request)
            });
            let mut sites: Vec<_> = world.sites().filter_map(|site| views::site(world, &channels, &site.id)).collect();
            sites.sort_by(|a, b| a.site.cmp(&b.site));
            Ok(Overview {
                schema: Schema,
                sessions: live.filter_map(|session| views::session(world, &relay, &session.id)).collect(),
                requests: open.filter_map(|request| world.request_view(&request.id)).collect(),
                sites,
                denied: if viewer.has(SEES_DENIED) { denied } else { Vec::new() },
            })
        })
        .await?;
    Ok(Json(found?))
}

struct Feed {
    app: App,
    caller: Caller,
    watch: Receiver<std::sync::Arc<Live>>,
    only: Option<SessionId>,
    first: Option<LiveEvent>,
    done: bool,
    /// The caller's roles, and when they were looked up.
    viewer: Option<(Viewer, Instant)>,
}

fn serve(feed: Feed) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = stream::unfold(feed, |mut feed| async move {
        let event = feed.next().await?;
        Some((Ok(sent(&event)), feed))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_OPEN).text("alive"))
}

impl Feed {
    async fn next(&mut self) -> Option<LiveEvent> {
        if let Some(first) = self.first.take() {
            self.done = ends(&first);
            return Some(first);
        }
        let mut stop = self.app.stop.clone();
        while !self.done {
            let event = tokio::select! {
                _ = stop.changed() => return None,
                // A token that ended ends its streams, too.
                () = tokio::time::sleep(KEEP_OPEN) => {
                    if self.token_stands() { continue } else { return self.farewell().await }
                }
                event = self.watch.recv() => event,
            };
            if !self.token_stands() {
                return self.farewell().await;
            }
            match event {
                Err(RecvError::Closed) => return None,
                Err(RecvError::Lagged(_)) => return self.lagged().await,
                Ok(live) => {
                    let shown = match self.only {
                        Some(only) => live.session == Some(only) && !matches!(live.event, LiveEvent::Request { .. }),
                        None => self.may_see(&live).await,
                    };
                    if shown {
                        self.done = self.only.is_some() && ends(&live.event);
                        return Some(live.event.clone());
                    }
                }
            }
        }
        None
    }

    /// A lock ends the token together with the session: whoever holds the lane still learns that it is over, and why.
    async fn farewell(&mut self) -> Option<LiveEvent> {
        let only = self.only?;
        self.done = true;
        for _ in 0..FAREWELLS {
            let relay = self.app.relay.clone();
            let view = self.app.core.read(move |state| views::session(state.world(), &relay, &only)).await.ok()??;
            if matches!(view.state, SessionState::Ending | SessionState::Ended) {
                return Some(LiveEvent::Session { session: Box::new(view) });
            }
            tokio::time::sleep(FAREWELL_EVERY).await;
        }
        None
    }

    /// One session's stream catches up by itself; others are told to fetch their lists again.
    async fn lagged(&mut self) -> Option<LiveEvent> {
        let Some(only) = self.only else { return Some(LiveEvent::Lagged) };
        let view = sessions::look(&self.app, &self.caller, only.to_string()).await.ok()?;
        let event = LiveEvent::Session { session: Box::new(view) };
        self.done = ends(&event);
        Some(event)
    }

    fn token_stands(&self) -> bool {
        self.app.core.tokens().stands(&self.caller.token, crate::clock::wall())
    }

    async fn may_see(&mut self, live: &Live) -> bool {
        if live.owner.as_ref() == Some(&self.caller.login) {
            return true;
        }
        if self.viewer.as_ref().is_none_or(|(_, at)| at.elapsed() > ROLES_FRESH) {
            let login = self.caller.login.clone();
            let found = self.app.core.read(move |state| Viewer::of(state, &login)).await;
            self.viewer = found.ok().and_then(Result::ok).map(|viewer| (viewer, Instant::now()));
        }
        let Some((viewer, _)) = &self.viewer else { return false };
        match &live.event {
            LiveEvent::Site { .. } | LiveEvent::Lagged => true,
            LiveEvent::Alarm { .. } => viewer.has(&[Role::Ops, Role::Admin, Role::Auditor, Role::SiteTech]),
            LiveEvent::Denied { .. } => viewer.has(SEES_DENIED),
            LiveEvent::Session { .. } | LiveEvent::Request { .. } => viewer.sees_all(),
        }
    }
}

fn ends(event: &LiveEvent) -> bool {
    matches!(event, LiveEvent::Session { session } if session.state == SessionState::Ended)
}

fn sent(event: &LiveEvent) -> Event {
    let kind = match event {
        LiveEvent::Session { .. } => "session",
        LiveEvent::Request { .. } => "request",
        LiveEvent::Site { .. } => "site",
        LiveEvent::Alarm { .. } => "alarm",
        LiveEvent::Denied { .. } => "denied",
        LiveEvent::Lagged => "lagged",
    };
    let data = serde_json::to_string(event).unwrap_or_else(|_| "{}".to_owned());
    Event::default().event(kind).data(data)
}
