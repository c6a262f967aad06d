//! Sessions: activate, extend, release, kill.

use thinlane_model::{EndReason, PolicyRef, PublicKey, RequestId, SessionId, Span};
use thinlane_policy::Decision;
use thinlane_wire::api::{RequestState, SessionState};

use super::requests::{names, not_open, unmet};
use super::{Deciding, MOST, OPS, Outcome, done, text, unknown};
use crate::timer::ARMING;
use crate::{AgentClock, Answer, Approval, Asset, Decided, Event, Person, Refusal, Request, Session, Site, World};

/// Live sessions of one site.
pub(crate) const MOST_LIVE: usize = 64;

impl<'a> Deciding<'a, '_> {
    /// Everything is looked at again: what was approved hours ago may be locked, isolated or forbidden now.
    pub(super) fn activate(
        &mut self,
        id: RequestId,
        engineer_key: PublicKey,
        native: bool,
        clock: AgentClock,
    ) -> Outcome {
        let person = self.person("opening a session")?;
        let request = self.known_request(&id)?;
        if request.user != person.login {
            return Err(Refusal::NotYours { kind: "request", name: id.to_string() });
        }
        if request.state != RequestState::Approved {
            return Err(not_open(request));
        }
        if let Some(from) = request.not_before.filter(|from| *from > self.now()) {
            return Err(Refusal::TooEarly { request: id.to_string(), from });
        }
        let asset = self.world.asset(&request.asset).ok_or_else(|| unknown("asset", &request.asset))?;
        let site = self.world.site(&asset.site).ok_or_else(|| unknown("site", asset.site))?;
        if asset.site != request.site {
            return Err(Refusal::Over { kind: "request", name: id.to_string(), why: "the asset moved".to_owned() });
        }
        self.open_for_business(asset)?;
        self.site_can_arm(site, clock)?;
        if self.world.index.keys.contains_key(&engineer_key) {
            return Err(Refusal::KeyInUse(engineer_key));
        }
        let decision = self.decide_again(person, asset, request, Span::from_secs(request.seconds))?;
        let seconds = self.within_account(person, decision.obligations.seconds.min(request.seconds))?;
        let session = self.session(request, asset, site, seconds, &decision, engineer_key, native, clock)?;
        let id = session.id;
        Ok(Decided { events: vec![Event::GrantIssued { session: Box::new(session) }], answer: Answer::Session(id) })
    }

    fn site_can_arm(&self, site: &Site, clock: AgentClock) -> Result<(), Refusal> {
        let name = || site.name.to_string();
        if let Some(why) = &site.frozen {
            return Err(Refusal::Frozen { site: name(), why: why.clone() });
        }
        let agent = self.world.agent(&site.id).ok_or_else(|| Refusal::NotEnrolled { site: name() })?;
        if agent.isolated {
            return Err(Refusal::Isolated { site: name() });
        }
        if let Some(why) = &agent.why_not_ready {
            return Err(Refusal::NotReady { site: name(), why: why.clone() });
        }
        if agent.boot != Some(clock.boot) || clock.time.0 > MOST / 2 {
            return Err(Refusal::OtherBoot { site: name() });
        }
        if self.world.live_sessions(&site.id).count() >= MOST_LIVE {
            return Err(Refusal::Limit { what: "live sessions at this site", most: MOST_LIVE });
        }
        Ok(())
    }

    /// What the policy in force says now; a deny, or a need that the approvals given do not meet, refuses.
    fn decide_again(&self, person: &Person, asset: &Asset, request: &Request, time: Span) -> Result<Decision, Refusal> {
        let policy = self.policy()?;
        let decision = policy.decide(&World::ask(person, asset, &request.task, Some(time), self.now()));
        if !decision.is_permit() {
            return Err(Refusal::PolicyDenied { reasons: decision.reasons, next: decision.next });
        }
        let approvals: Vec<&Approval> = request.approvals.iter().collect();
        if let Some(need) = unmet(&decision.obligations.needs, &approvals) {
            let roles = names(&need.roles);
            let reason =
                format!("{} now asks for {} approvals by {roles}, which are not there", need.rule, need.approvals);
            return Err(Refusal::PolicyDenied { reasons: vec![reason], next: "make a new request".to_owned() });
        }
        Ok(decision)
    }

    /// No session outlives the account.
    fn within_account(&self, person: &Person, seconds: u64) -> Result<u64, Refusal> {
        let Some(until) = person.until else { return Ok(seconds) };
        match self.now().until(until).as_secs().min(seconds) {
            0 => Err(Refusal::AccountEnded { login: person.login.to_string(), at: until }),
            left => Ok(left),
        }
    }

    #[allow(clippy::too_many_arguments)] // one grant, from all that it comes from; called once
    fn session(
        &mut self,
        request: &Request,
        asset: &Asset,
        site: &Site,
        seconds: u64,
        decision: &Decision,
        engineer_key: PublicKey,
        native: bool,
        clock: AgentClock,
    ) -> Result<Session, Refusal> {
        let (world, now) = (self.world, self.now());
        let relay = self.ctx.relay.cloned();
        if site.endpoint.is_none() && relay.is_none() {
            return Err(Refusal::NoPath { site: site.name.to_string() });
        }
        let pool = self.ctx.pools.engineers;
        let taken = |address| {
            let resting = world.index.resting.get(&address).is_some_and(|until| now < *until);
            resting || world.index.engineers.contains_key(&address)
        };
        let engineer = pool
            .next_free(world.meta.engineer_cursor, taken)
            .ok_or_else(|| Refusal::PoolEmpty { pool: pool.to_string() })?;
        let policy = self.policy()?;
        let task = policy.task(&request.task).ok_or_else(|| unknown("task", &request.task))?.clone();
        let permit = decision.rules.first().map(ToString::to_string).unwrap_or_default();
        let policy = PolicyRef { id: permit, hash: policy.hash().to_owned() };
        let id = self.fresh(SessionId::from_random, |id| world.sessions.contains_key(id))?;
        let length = Span::from_secs(seconds);
        Ok(Session {
            id,
            request: request.id,
            state: SessionState::Arming,
            user: request.user.clone(),
            org: request.org.clone(),
            site: site.id,
            site_name: site.name.clone(),
            asset: asset.asset.clone(),
            task: request.task.clone(),
            reason: request.reason.clone(),
            ticket: request.ticket.clone(),
            approvals: request.approvals.clone(),
            policy,
            rules: decision.rules.iter().map(ToString::to_string).collect(),
            engineer,
            destination: if native { asset.address } else { asset.overlay_address },
            address: asset.address,
            protocol: task.protocol,
            port: task.port,
            keep_source: asset.keep_source,
            engineer_key,
            gateway_key: None,
            limits: task.limits,
            offline_seconds: task.offline.as_secs(),
            idle_seconds: task.idle.map(Span::as_secs),
            relay,
            direct: site.endpoint.clone(),
            carried: None,
            left_direct: false,
            endpoint_seen: None,
            serial: world.meta.serial + 1,
            boot: clock.boot,
            deadline: clock.time + length,
            seconds,
            created_at: now,
            arm_by: now + ARMING,
            opened_at: None,
            ends_at: now + length,
            unextended: None,
            ending: None,
            ended_at: None,
            end_reason: None,
            end_detail: None,
            backend: None,
            counters: Default::default(),
            counters_final: false,
            last_handshake_at: None,
        })
    }

    pub(super) fn known_session(&self, id: &SessionId) -> Result<&'a Session, Refusal> {
        self.world.session(id).ok_or_else(|| unknown("session", id))
    }

    fn own_session(&self, what: &'static str, id: &SessionId) -> Result<(&'a Person, &'a Session), Refusal> {
        let person = self.person(what)?;
        let session = self.known_session(id)?;
        if session.user == person.login {
            Ok((person, session))
        } else {
            Err(Refusal::NotYours { kind: "session", name: id.to_string() })
        }
    }

    /// The engineer asks for more time, or ops give it on their call: either way no more than the policy permits the
    /// engineer, with the approvals that the request has.
    fn extendable_session(&self, id: &SessionId) -> Result<(&'a Person, &'a Session), Refusal> {
        const WHAT: &str = "extending a session";
        let session = self.known_session(id)?;
        if self.person(WHAT)?.login == session.user {
            return self.own_session(WHAT, id);
        }
        if self.person_with(WHAT, OPS).is_err() {
            return Err(Refusal::NotYours { kind: "session", name: id.to_string() });
        }
        let engineer = self.known_person(&session.user)?;
        self.world.standing(engineer, self.now())?;
        Ok((engineer, session))
    }

    pub(super) fn extend(&mut self, id: SessionId, added: u64, reason: String) -> Outcome {
        let (person, session) = self.extendable_session(&id)?;
        let reason = text("reason", &reason, true)?;
        match session.state {
            SessionState::Active => {}
            SessionState::Arming => {
                return Err(Refusal::State { kind: "session", name: id.to_string(), state: "still arming" });
            }
            SessionState::Ending | SessionState::Ended => return Err(over(session)),
        }
        if session.unextended.is_some() {
            let state = "being extended already";
            return Err(Refusal::State { kind: "session", name: id.to_string(), state });
        }
        if added == 0 || added > MOST / 1000 {
            return Err(Refusal::Invalid { field: "for", problem: "at least one second".to_owned() });
        }
        let request = self.known_request(&session.request)?;
        let asset = self.world.asset(&session.asset).ok_or_else(|| unknown("asset", &session.asset))?;
        self.open_for_business(asset)?;
        let seconds = session.seconds + added;
        let decision = self.decide_again(person, asset, request, Span::from_secs(seconds))?;
        let most = self.within_account(person, decision.obligations.seconds)?;
        let own = self.person("extending a session")?.login == session.user;
        if let Some(alone) = decision.obligations.extend.filter(|most| own && seconds - request.seconds > *most) {
            let reason = match alone {
                0 => "the policy lets only ops extend this session".to_owned(),
                _ => format!("you may add {} in all to the {} approved", secs(alone), secs(request.seconds)),
            };
            let next = format!("ask ops to run `thinlane extend {id} --for {} --reason \"...\"`", secs(added));
            return Err(Refusal::PolicyDenied { reasons: vec![reason], next });
        }
        if most < seconds {
            let reason = format!("a session of {} is permitted, this would be {}", secs(most), secs(seconds));
            let next = "make a new request for the time after this session".to_owned();
            return Err(Refusal::PolicyDenied { reasons: vec![reason], next });
        }
        let length = Span::from_secs(added);
        done(vec![Event::SessionExtended {
            session: id,
            serial: self.world.meta.serial + 1,
            added_seconds: added,
            seconds,
            deadline: session.deadline + length,
            ends_at: session.ends_at + length,
            rules: decision.rules.iter().map(ToString::to_string).collect(),
            policy_hash: self.policy()?.hash().to_owned(),
            reason,
        }])
    }

    pub(super) fn release(&mut self, id: SessionId) -> Outcome {
        let (_, session) = self.own_session("releasing a session", &id)?;
        done(self.end(session, EndReason::Released, None).into_iter().collect())
    }

    pub(super) fn kill(&mut self, id: SessionId, reason: String) -> Outcome {
        let person = self.person_or_system("killing a session", OPS)?;
        let session = self.known_session(&id)?;
        let reason = text("reason", &reason, true)?;
        let by = person.map_or_else(|| "the controller".to_owned(), |person| person.login.to_string());
        done(self.end(session, EndReason::Killed, Some(format!("{reason} (by {by})"))).into_iter().collect())
    }

    /// What ends a session from the controller's side; nothing where it ends or has ended already.
    pub(super) fn end(&self, session: &Session, reason: EndReason, detail: Option<String>) -> Option<Event> {
        match session.state {
            // The engineer never learnt the gateway's key: nothing can have passed.
            SessionState::Arming => Some(self.world.ended_without_record(session, reason, detail)),
            SessionState::Active => Some(Event::SessionEnding { session: session.id, reason, detail }),
            SessionState::Ending | SessionState::Ended => None,
        }
    }
}

fn over(session: &Session) -> Refusal {
    let reason = session.end_reason.or_else(|| session.ending.as_ref().map(|ending| ending.reason));
    let why = reason.map_or("ended", EndReason::as_str).to_owned();
    Refusal::Over { kind: "session", name: session.id.to_string(), why }
}

fn secs(seconds: u64) -> Span {
    Span::from_secs(seconds)
}
