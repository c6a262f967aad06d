//! Events to rows, timers and effects. Total: an event that fits nothing changes nothing.

use thinlane_model::{Login, Now, Path, RequestId, SessionId, SiteId};
use thinlane_wire::api::{RequestState, SessionState};

use crate::event::Ended;
use crate::record::Unextended;
use crate::{Agent, Approval, Certificate, Denial, Effect, Ending, Entry, Event, LockTarget, Request, Session, World};

/// Certificates of one gateway that may log in at once: the current one, and its successor until it is used.
const CERTIFICATES: usize = 2;

/// `now` is `None` when the past is replayed.
pub(crate) fn apply(world: &mut World, entry: &Entry, now: Option<Now>) {
    Applying { world, entry, now }.event();
}

struct Applying<'a> {
    world: &'a mut World,
    entry: &'a Entry,
    now: Option<Now>,
}

impl Applying<'_> {
    fn event(&mut self) {
        let time = self.entry.time;
        match &self.entry.event {
            Event::UserAdded { user } => self.world.put_person(user.clone()),
            Event::UserReset { login } => {
                self.person(login, |person| person.set_up_at = None);
                self.effect(Effect::LogOut { login: login.clone() });
            }
            Event::UserSetUp { login, .. } => self.person(login, |person| person.set_up_at = Some(time)),

            Event::SiteAdded { site } => {
                self.world.put_site(site.clone());
                self.effect(Effect::SiteChanged { site: site.id });
            }
            Event::SiteCode { code } => self.code(code),
            Event::SiteFrozen { site, reason } => {
                if let Some(mut it) = self.world.sites.get(site).cloned() {
                    it.frozen = Some(reason.clone());
                    self.world.put_site(it);
                }
                self.effect(Effect::DropAgent { site: *site });
                self.effect(Effect::SiteChanged { site: *site });
            }
            Event::SiteUnfrozen { site } => {
                if let Some(mut it) = self.world.sites.get(site).cloned() {
                    it.frozen = None;
                    self.world.put_site(it);
                }
                self.effect(Effect::SiteChanged { site: *site });
            }
            Event::SiteIsolated { site, isolated } => self.agent(site, |agent| agent.isolated = *isolated),
            Event::SiteReady { site, why_not, .. } => {
                self.agent(site, |agent| agent.why_not_ready.clone_from(why_not));
            }
            Event::SiteLan { site, lan } => self.agent(site, |agent| agent.lan.clone_from(lan)),

            Event::AssetAdded { asset } => self.world.put_asset(asset.clone()),
            Event::AssetRemoved { asset, .. } => self.world.remove_asset(asset),

            Event::RequestCreated { request } => self.put_request((**request).clone()),
            Event::RequestApproval { .. }
            | Event::RequestApproved { .. }
            | Event::RequestDenied { .. }
            | Event::RequestWithdrawn { .. }
            | Event::RequestLapsed { .. } => self.request_event(),

            Event::GrantIssued { .. }
            | Event::GrantRefused { .. }
            | Event::SessionActive { .. }
            | Event::SessionWay { .. }
            | Event::SessionExtended { .. }
            | Event::ExtensionArmed { .. }
            | Event::ExtensionRefused { .. }
            | Event::SessionEnding { .. }
            | Event::SessionEnded { .. }
            | Event::SessionClosedLate { .. } => self.session_event(),

            Event::LockSet { lock } => {
                self.world.put_lock(lock.clone(), self.now);
                self.log_out(&lock.target);
                self.shows_otherwise(&lock.target);
            }
            Event::LockCleared { lock, target, .. } => {
                self.world.remove_lock(lock, self.now);
                self.shows_otherwise(target);
            }

            Event::AgentEnrolled { site, code, certificate, version } => {
                self.enrolled(*site, certificate, version);
                if let Some(mut code) = self.world.enrolments.get(code).cloned() {
                    code.used_at = Some(time);
                    self.world.put_enrolment(code);
                }
                self.effect(Effect::DropAgent { site: *site });
                self.effect(Effect::SiteChanged { site: *site });
            }
            Event::AgentRenewed { site, certificate } => self.agent(site, |agent| {
                agent.certificates.push(certificate.clone());
                let surplus = agent.certificates.len().saturating_sub(CERTIFICATES);
                agent.certificates.drain(..surplus);
            }),
            Event::AgentStarted { site, boot, version, backend } => self.agent(site, |agent| {
                if agent.boot != Some(*boot) {
                    agent.alarms = 0;
                }
                agent.boot = Some(*boot);
                agent.version.clone_from(version);
                agent.backend.clone_from(backend);
            }),

            Event::PolicyLoaded { hash, .. } => self.world.put_meta(|meta| meta.policy = Some(hash.clone())),
            Event::PolicyInvalid { errors } => {
                self.world.put_meta(|meta| meta.policy = None);
                let detail = errors.first().cloned().unwrap_or_default();
                self.effect(Effect::Alarm { site: None, kind: "policy-invalid".to_owned(), detail });
            }
            Event::AlarmRaised { site, alarm, detail, number } => {
                if let (Some(site), Some(number)) = (site, number) {
                    self.agent(site, |agent| agent.alarms = agent.alarms.max(*number));
                }
                self.effect(Effect::Alarm { site: *site, kind: alarm.clone(), detail: detail.clone() });
            }
            Event::LoggedIn { .. }
            | Event::LogInFailed { .. }
            | Event::LockedOut { .. }
            | Event::LoggedOut { .. }
            | Event::AttemptRefused { .. }
            | Event::ControllerStarted { .. } => {}
        }
    }

    fn request_event(&mut self) {
        let time = self.entry.time;
        match &self.entry.event {
            Event::RequestApproval { request, by, roles, note, .. } => self.request(request, |it| {
                it.approvals.push(Approval { by: by.clone(), roles: roles.clone(), at: time, note: note.clone() });
            }),
            Event::RequestApproved { request, lapses_at, .. } => self.request(request, |it| {
                it.state = RequestState::Approved;
                it.decided_at = Some(time);
                it.lapses_at = Some(*lapses_at);
            }),
            Event::RequestDenied { request, by, reason, .. } => self.request(request, |it| {
                it.state = RequestState::Denied;
                it.decided_at = Some(time);
                it.lapses_at = None;
                it.denial = by.clone().map(|by| Denial { by, at: time, reason: reason.clone() });
            }),
            Event::RequestWithdrawn { request, .. } => self.request(request, |it| {
                it.state = RequestState::Withdrawn;
                it.lapses_at = None;
            }),
            Event::RequestLapsed { request, .. } => self.request(request, |it| {
                it.state = RequestState::Lapsed;
                it.lapses_at = None;
            }),
            _ => {}
        }
    }

    fn session_event(&mut self) {
        let time = self.entry.time;
        match &self.entry.event {
            Event::GrantIssued { session } => self.issued(session),
            Event::SessionActive { session, gateway_key, backend } => {
                let mut relayed = false;
                self.session(session, |it| {
                    it.state = SessionState::Active;
                    it.gateway_key = Some(*gateway_key);
                    it.backend = Some(backend.clone());
                    it.opened_at = Some(time);
                    relayed = it.relay.is_some();
                });
                if relayed {
                    self.effect(Effect::RelaySetGateway { session: *session, gateway: *gateway_key });
                }
            }
            Event::SessionWay { session, path } => self.session(session, |it| {
                it.left_direct |= it.carried == Some(Path::Direct) && *path == Path::Relay;
                it.carried = Some(*path);
            }),
            Event::SessionExtended { session, serial, seconds, deadline, ends_at, .. } => {
                self.session(session, |it| {
                    let before = Unextended {
                        serial: it.serial,
                        seconds: it.seconds,
                        deadline: it.deadline,
                        ends_at: it.ends_at,
                    };
                    it.unextended.get_or_insert(before);
                    (it.serial, it.seconds, it.deadline, it.ends_at) = (*serial, *seconds, *deadline, *ends_at);
                });
                self.world.put_meta(|meta| meta.serial = meta.serial.max(*serial));
                self.relay_extend(*session);
                self.push(session);
            }
            Event::ExtensionArmed { session, .. } => self.session(session, |it| it.unextended = None),
            Event::ExtensionRefused { session, .. } => {
                self.session(session, |it| {
                    // The same grant as before, with its serial: a serial never says two things.
                    if let Some(before) = it.unextended.take() {
                        (it.serial, it.seconds) = (before.serial, before.seconds);
                        (it.deadline, it.ends_at) = (before.deadline, before.ends_at);
                    }
                });
                self.relay_extend(*session);
                self.push(session);
            }
            Event::SessionEnding { session, reason, detail } => {
                self.session(session, |it| {
                    it.state = SessionState::Ending;
                    it.ending = Some(Ending { reason: *reason, at: time, detail: detail.clone() });
                });
                self.effect(Effect::RelayClose { session: *session });
                self.push(session);
            }
            Event::SessionEnded { ended } => {
                let was_desired = self.world.sessions.get(&ended.session).is_some_and(Session::is_desired);
                self.session(&ended.session, |it| {
                    it.state = SessionState::Ended;
                    it.ended_at = Some(time);
                    it.end_reason = Some(ended.reason);
                    let said = it.ending.as_ref().and_then(|ending| ending.detail.clone());
                    it.end_detail = said.or_else(|| ended.detail.clone());
                    counted(it, ended);
                });
                self.effect(Effect::RelayClose { session: ended.session });
                if was_desired {
                    self.push(&ended.session);
                }
            }
            Event::SessionClosedLate { ended } => self.session(&ended.session, |it| counted(it, ended)),
            Event::GrantRefused { .. } => {}
            _ => {}
        }
    }

    fn issued(&mut self, session: &Session) {
        let (id, request, site) = (session.id, session.request, session.site);
        self.world.put_session(session.clone(), self.now);
        self.world.put_meta(|meta| {
            meta.serial = meta.serial.max(session.serial);
            meta.engineer_cursor = Some(session.engineer);
        });
        self.request(&request, |it| {
            it.state = RequestState::Used;
            it.lapses_at = None;
            it.session = Some(id);
        });
        if session.relay.is_some() {
            let until = self.now.map_or_else(Default::default, |now| self.world.relay_until(id, now));
            self.effect(Effect::RelayOpen { session: id, engineer: session.engineer_key, gateway: None, until });
        }
        self.effect(Effect::SessionChanged { session: id });
        self.push_site(site);
    }

    fn relay_extend(&mut self, session: SessionId) {
        if self.world.sessions.get(&session).is_some_and(|it| it.relay.is_some()) {
            let until = self.now.map_or_else(Default::default, |now| self.world.relay_until(session, now));
            self.effect(Effect::RelayExtend { session, until });
        }
    }

    fn code(&mut self, code: &crate::Enrolment) {
        let old: Vec<_> = self.world.enrolments.values().filter(|it| it.site == code.site).map(|it| it.id).collect();
        for id in old {
            self.world.remove_enrolment(&id);
        }
        self.world.put_enrolment(code.clone());
    }

    fn enrolled(&mut self, site: SiteId, certificate: &Certificate, version: &str) {
        self.world.put_agent(Agent {
            site,
            enrolled_at: self.entry.time,
            certificates: vec![certificate.clone()],
            version: version.to_owned(),
            backend: None,
            boot: None,
            isolated: false,
            why_not_ready: None,
            lan: Vec::new(),
            alarms: 0,
        });
    }

    /// Whoever watches a site sees that it is locked, or is no longer.
    fn shows_otherwise(&mut self, target: &LockTarget) {
        if let LockTarget::Site(name) = target
            && let Some(site) = self.world.site_named(name).map(|site| site.id)
        {
            self.effect(Effect::SiteChanged { site });
        }
    }

    fn log_out(&mut self, target: &LockTarget) {
        let people: Vec<Login> = match target {
            LockTarget::User(login) => vec![login.clone()],
            LockTarget::Org(org) => {
                let members = self.world.people.values().filter(|person| person.org.as_ref() == Some(org));
                members.map(|person| person.login.clone()).collect()
            }
            LockTarget::Site(_) | LockTarget::Asset(_) => Vec::new(),
        };
        for login in people {
            self.effect(Effect::LogOut { login });
        }
    }

    fn person(&mut self, login: &Login, change: impl FnOnce(&mut crate::Person)) {
        if let Some(mut person) = self.world.people.get(login).cloned() {
            change(&mut person);
            self.world.put_person(person);
        }
    }

    fn agent(&mut self, site: &SiteId, change: impl FnOnce(&mut Agent)) {
        if let Some(mut agent) = self.world.agents.get(site).cloned() {
            change(&mut agent);
            self.world.put_agent(agent);
            self.effect(Effect::SiteChanged { site: *site });
        }
    }

    fn request(&mut self, id: &RequestId, change: impl FnOnce(&mut Request)) {
        if let Some(mut request) = self.world.requests.get(id).cloned() {
            change(&mut request);
            self.put_request(request);
        }
    }

    fn put_request(&mut self, request: Request) {
        let id = request.id;
        self.world.put_request(request, self.now);
        self.effect(Effect::RequestChanged { request: id });
    }

    fn session(&mut self, id: &SessionId, change: impl FnOnce(&mut Session)) {
        if let Some(mut session) = self.world.sessions.get(id).cloned() {
            change(&mut session);
            self.world.put_session(session, self.now);
            self.effect(Effect::SessionChanged { session: *id });
        }
    }

    /// What should be open at the session's site has changed.
    fn push(&mut self, session: &SessionId) {
        if let Some(site) = self.world.sessions.get(session).map(|it| it.site) {
            self.push_site(site);
        }
    }

    fn push_site(&mut self, site: SiteId) {
        if let Some(mut it) = self.world.sites.get(&site).cloned() {
            it.generation += 1;
            self.world.put_site(it);
            self.effect(Effect::Push { site });
        }
    }

    fn effect(&mut self, effect: Effect) {
        if self.now.is_none() {
            return;
        }
        // One push carries all that changed before it: only the last of several counts, and it stays in its place
        // behind the relay's closes.
        if matches!(effect, Effect::Push { .. } | Effect::SessionChanged { .. } | Effect::RequestChanged { .. })
            && self.world.effects.back() == Some(&effect)
        {
            return;
        }
        self.world.effects.push_back(effect);
    }
}

/// Counters only ever rise, also when a closing record says less than was seen.
fn counted(session: &mut Session, ended: &Ended) {
    session.counters = ended.counters;
    session.counters_final = ended.counters_final;
    session.last_handshake_at = session.last_handshake_at.max(ended.last_handshake_at);
    session.carried = ended.path.or(session.carried);
    session.left_direct |= ended.left_direct;
    session.endpoint_seen = ended.endpoint.clone().or(session.endpoint_seen.take());
}
