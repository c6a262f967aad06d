//! Executes what the world says must be done, after the commit and before the answers.

use std::collections::BTreeSet;
use std::sync::Arc;

use thinlane_model::{Login, RequestId, SessionId, SiteId};
use thinlane_session::{Effect, Note};
use thinlane_store::CommitError;
use thinlane_wire::api::{AlarmView, LiveEvent, Schema, SessionState};
use tokio::sync::broadcast;

use super::Core;
use super::state::State;
use crate::channel::Channels;
use crate::views;

/// The alarm of a log that cannot be written.
const LOG_UNAVAILABLE: &str = "log-unavailable";

/// One thing that happened, for those who watch.
#[derive(Debug, Clone)]
pub struct Live {
    pub event: LiveEvent,
    /// Whose it is: a requester sees own ones only.
    pub owner: Option<Login>,
    pub session: Option<SessionId>,
    pub request: Option<RequestId>,
}

/// What effects are executed with.
pub struct Shell {
    relay: thinlane_relay::Handle,
    channels: Channels,
    live: broadcast::Sender<Arc<Live>>,
    /// What the log could not be told while it could not be written.
    failed: Option<String>,
}

impl Shell {
    pub fn new(core: &Core, relay: thinlane_relay::Handle, channels: Channels) -> Self {
        Self { relay, channels, live: core.live(), failed: None }
    }

    /// Executes all effects that wait, in their order; live events last, one for each thing that changed.
    pub(super) fn execute(&mut self, state: &mut State) {
        let mut sessions = BTreeSet::new();
        let mut requests = BTreeSet::new();
        let mut sites = BTreeSet::new();
        let mut alarms = Vec::new();
        while let Some(effect) = state.world_mut().poll_effect() {
            match effect {
                Effect::RelayClose { session } => {
                    if let Some(endpoint) = views::engineer(&self.relay, session) {
                        state.world_mut().saw(session, endpoint);
                    }
                    self.relay.close(session);
                }
                Effect::RelayOpen { session, engineer, gateway, until } => {
                    self.told(session, self.relay.open(session, engineer, gateway, until));
                }
                Effect::RelaySetGateway { session, gateway } => {
                    self.told(session, self.relay.set_gateway(session, gateway));
                }
                Effect::RelayExtend { session, until } => self.told(session, self.relay.extend(session, until)),
                Effect::Push { site } => {
                    self.channels.push(site, state.world().desired(&site));
                    // Its generation is another one.
                    sites.insert(site);
                }
                Effect::DropAgent { site } => self.channels.drop_site(site),
                // The same step has ended the tokens: see `Step::apply`.
                Effect::LogOut { .. } => {}
                Effect::SessionChanged { session } => {
                    // Its site has a lane more or less, perhaps.
                    sites.extend(state.world().session(&session).map(|session| session.site));
                    sessions.insert(session);
                }
                Effect::RequestChanged { request } => {
                    requests.insert(request);
                }
                Effect::SiteChanged { site } => {
                    sites.insert(site);
                }
                Effect::Alarm { site, kind, detail } => alarms.push((site, kind, detail)),
            }
        }
        for session in sessions {
            self.session_changed(state, session);
        }
        for request in requests {
            let Some(view) = state.world().request_view(&request) else { continue };
            let owner = Some(view.user.clone());
            let session = view.session;
            self.tell(LiveEvent::Request { request: Box::new(view) }, owner, session, Some(request));
        }
        for site in sites {
            self.channels.follow_freeze(site, state.world().site(&site).is_some_and(|site| site.frozen.is_some()));
            if let Some(view) = views::site(state.world(), &self.channels, &site) {
                self.tell(LiveEvent::Site { site: Box::new(view) }, None, None, None);
            }
        }
        for (site, kind, detail) in alarms {
            tracing::warn!(kind, site = site.map(tracing::field::display), detail, "alarm");
            self.alarm(state, site, kind, detail);
        }
    }

    fn session_changed(&self, state: &State, session: SessionId) {
        let Some(view) = views::session(state.world(), &self.relay, &session) else { return };
        if view.state != SessionState::Arming {
            self.channels.forget_preshared(&session);
        }
        let (owner, request) = (Some(view.user.clone()), Some(view.request));
        self.tell(LiveEvent::Session { session: Box::new(view) }, owner, Some(session), request);
    }

    fn alarm(&self, state: &State, site: Option<SiteId>, kind: String, detail: String) {
        let site = site.and_then(|site| state.world().site(&site)).map(|site| site.name.to_string());
        let alarm = AlarmView { schema: Schema, at: crate::clock::wall(), site, kind, detail };
        self.tell(LiveEvent::Alarm { alarm }, None, None, None);
    }

    fn tell(&self, event: LiveEvent, owner: Option<Login>, session: Option<SessionId>, request: Option<RequestId>) {
        // Without anybody watching this fails, and that is fine.
        let _ = self.live.send(Arc::new(Live { event, owner, session, request }));
    }

    fn told(&self, session: SessionId, done: Result<(), thinlane_relay::RelayError>) {
        if let Err(error) = done {
            tracing::warn!(%session, %error, "the relay refused a session");
        }
    }

    /// Gives gateways the newest signed checkpoint to remember.
    pub(super) fn checkpoint(&self, size: u64, note: &str) {
        self.channels.checkpoint(size, note);
    }

    /// Nothing could be written: alarm once, and an entry as soon as the log can be written again.
    pub(super) fn log_unavailable(&mut self, error: &CommitError) {
        tracing::error!(%error, "the log cannot be written; nothing new is opened");
        if self.failed.is_some() {
            return;
        }
        let detail = error.to_string();
        let alarm = AlarmView {
            schema: Schema,
            at: crate::clock::wall(),
            site: None,
            kind: LOG_UNAVAILABLE.to_owned(),
            detail: detail.clone(),
        };
        self.tell(LiveEvent::Alarm { alarm }, None, None, None);
        self.failed = Some(detail);
    }

    /// What the next batch must say of batches that failed.
    pub(super) fn owed_alarm(&self) -> Option<Note> {
        let detail = self.failed.clone()?;
        Some(Note::Alarm { site: None, kind: LOG_UNAVAILABLE.to_owned(), detail })
    }

    /// The batch with the owed alarm is in the log.
    pub(super) fn alarm_logged(&mut self) {
        if self.failed.take().is_some() {
            tracing::warn!("the log can be written again");
        }
    }
}
