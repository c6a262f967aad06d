//! Requests: create, approve, deny, withdraw.

use thinlane_model::{RequestId, Role, Roles, Span, Wall};
use thinlane_policy::{Decision, Need};
use thinlane_wire::api::RequestState;

use super::{Deciding, MOST, Outcome, REQUESTER, done, optional, text, unknown};
use crate::timer::PENDING_LIFE;
use crate::world::lapse_of_approval;
use crate::{Answer, Approval, Asset, Decided, Event, LockTarget, NewRequest, Person, Refusal, Request, World};

/// Pending and approved requests of one person.
const MOST_OPEN: usize = 1_000;
/// A request may be made this long ahead.
const AHEAD: Span = Span::from_secs(90 * 86_400);

impl<'a> Deciding<'a, '_> {
    pub(super) fn create_request(&mut self, new: NewRequest) -> Outcome {
        let person = self.person_with("making a request", REQUESTER)?;
        let asset = self.world.asset(&new.asset).ok_or_else(|| unknown("asset", &new.asset))?;
        let open = self.world.index.open_requests.get(&person.login).map_or(0, |open| open.len());
        if open >= MOST_OPEN {
            return Err(Refusal::Limit { what: "open requests of one person", most: MOST_OPEN });
        }
        if new.seconds.is_some_and(|seconds| seconds == 0 || seconds > MOST / 1000) {
            return Err(Refusal::Invalid { field: "for", problem: "at least one second".to_owned() });
        }
        if new.not_before.is_some_and(|from| from > self.now() + AHEAD) {
            return Err(Refusal::Invalid { field: "at", problem: format!("at most {AHEAD} ahead") });
        }
        let reason = text("reason", &new.reason, true)?;
        let ticket = optional("ticket", new.ticket)?;
        self.open_for_business(asset)?;
        let policy = self.policy()?;
        if policy.task(&new.task).is_none() {
            return Err(unknown("task", &new.task));
        }
        let policy_hash = policy.hash().to_owned();
        let time = new.seconds.map(Span::from_secs);
        let decision = policy.decide(&World::ask(person, asset, &new.task, time, self.now()));
        let now = self.now();
        let world = self.world;
        let id = self.fresh(RequestId::from_random, |id| world.requests.contains_key(id))?;
        let granted = decision.is_permit().then_some(decision.obligations.seconds);
        let request = Request {
            id,
            state: RequestState::Pending,
            user: person.login.clone(),
            org: person.org.clone(),
            asset: asset.asset.clone(),
            site: asset.site,
            site_name: asset.site_name.clone(),
            task: new.task,
            asked_seconds: new.seconds,
            seconds: granted.or(new.seconds).unwrap_or(0),
            reason,
            ticket,
            not_before: new.not_before.filter(|from| *from > now),
            created_at: now,
            decided_at: None,
            lapses_at: Some(now + PENDING_LIFE),
            decision,
            policy_hash,
            approvals: Vec::new(),
            denial: None,
            session: None,
        };
        let verdict = first_verdict(&request, now);
        let created = Event::RequestCreated { request: Box::new(request) };
        Ok(Decided { events: std::iter::once(created).chain(verdict).collect(), answer: Answer::Request(id) })
    }

    /// Neither the asset nor its site is locked.
    pub(super) fn open_for_business(&self, asset: &Asset) -> Result<(), Refusal> {
        self.world.not_locked(LockTarget::Asset(asset.asset.clone()))?;
        self.world.not_locked(LockTarget::Site(asset.site_name.clone()))
    }

    pub(super) fn known_request(&self, id: &RequestId) -> Result<&'a Request, Refusal> {
        self.world.request(id).ok_or_else(|| unknown("request", id))
    }

    pub(super) fn withdraw_request(&mut self, id: RequestId) -> Outcome {
        let person = self.person("withdrawing a request")?;
        let request = self.known_request(&id)?;
        if request.user != person.login {
            return Err(Refusal::NotYours { kind: "request", name: id.to_string() });
        }
        match request.state {
            RequestState::Withdrawn => done(Vec::new()),
            RequestState::Pending | RequestState::Approved => {
                done(vec![Event::RequestWithdrawn { request: id, user: request.user.clone() }])
            }
            RequestState::Denied | RequestState::Lapsed | RequestState::Used => Err(not_open(request)),
        }
    }

    pub(super) fn approve_request(&mut self, id: RequestId, note: Option<String>) -> Outcome {
        let (person, request) = self.judge(&id)?;
        let needs = &request.decision.obligations.needs;
        if needs.iter().all(|need| need.roles.is_disjoint(&person.roles)) {
            let roles: Roles = needs.iter().flat_map(|need| need.roles.iter().copied()).collect();
            return Err(Refusal::NotApprover { roles: names(&roles) });
        }
        if request.approvals.iter().any(|approval| approval.by == person.login) {
            return Err(Refusal::ApprovedAlready { by: person.login.to_string() });
        }
        // No request is decided while no policy is in force.
        self.policy()?;
        let note = optional("note", note)?;
        let approval = Approval { by: person.login.clone(), roles: person.roles.clone(), at: self.now(), note };
        let all: Vec<&Approval> = request.approvals.iter().chain([&approval]).collect();
        let complete = unmet(needs, &all).is_none();
        let user = request.user.clone();
        let mut events = vec![Event::RequestApproval {
            request: id,
            user: user.clone(),
            by: approval.by.clone(),
            roles: approval.roles.clone(),
            note: approval.note.clone(),
        }];
        if complete {
            let lapses_at = lapse_of_approval(request, self.now());
            events.push(Event::RequestApproved { request: id, user, lapses_at });
        }
        done(events)
    }

    pub(super) fn deny_request(&mut self, id: RequestId, reason: String) -> Outcome {
        let (person, request) = self.judge(&id)?;
        let roles = &request.decision.obligations.approver_roles;
        if !person.roles.contains(&Role::Approver) && roles.is_disjoint(&person.roles) {
            return Err(Refusal::NotApprover { roles: names(roles) });
        }
        let reason = text("reason", &reason, true)?;
        let (user, by) = (request.user.clone(), Some(person.login.clone()));
        done(vec![Event::RequestDenied { request: id, user, by, reason }])
    }

    /// Whoever acts and a pending request that is not theirs.
    fn judge(&self, id: &RequestId) -> Result<(&'a Person, &'a Request), Refusal> {
        let person = self.person("deciding a request")?;
        let request = self.known_request(id)?;
        if request.user == person.login {
            return Err(Refusal::OwnRequest);
        }
        if request.state == RequestState::Pending { Ok((person, request)) } else { Err(not_open(request)) }
    }
}

/// What the policy alone decides.
fn first_verdict(request: &Request, now: Wall) -> Option<Event> {
    let user = request.user.clone();
    if !request.decision.is_permit() {
        let reason = request.decision.reasons.iter().skip(1).cloned().collect::<Vec<_>>().join("; ");
        return Some(Event::RequestDenied { request: request.id, user, by: None, reason });
    }
    let free = request.decision.obligations.needs.is_empty();
    free.then(|| Event::RequestApproved { request: request.id, user, lapses_at: lapse_of_approval(request, now) })
}

/// The first need that these approvals do not meet. An approval counts for every need whose roles its giver held.
pub(super) fn unmet<'n>(needs: &'n [Need], approvals: &[&Approval]) -> Option<&'n Need> {
    needs.iter().find(|need| missing(need, approvals) > 0)
}

/// How many approvals a need still lacks; one person counts once.
pub(crate) fn missing(need: &Need, approvals: &[&Approval]) -> u32 {
    let people: std::collections::BTreeSet<_> =
        approvals.iter().filter(|it| !it.roles.is_disjoint(&need.roles)).map(|it| &it.by).collect();
    need.approvals.saturating_sub(u32::try_from(people.len()).unwrap_or(u32::MAX))
}

/// Why a request cannot be decided, used or withdrawn any more.
pub(super) fn not_open(request: &Request) -> Refusal {
    let name = request.id.to_string();
    let over = |why: &str| Refusal::Over { kind: "request", name: request.id.to_string(), why: why.to_owned() };
    match request.state {
        RequestState::Pending => Refusal::State { kind: "request", name, state: "still pending" },
        RequestState::Approved => Refusal::State { kind: "request", name, state: "approved already" },
        RequestState::Denied => Refusal::Denied { reason: why_denied(&request.decision, request), request: name },
        RequestState::Withdrawn => over("it was withdrawn"),
        RequestState::Lapsed => over("it lapsed"),
        RequestState::Used => over("it has been used"),
    }
}

fn why_denied(decision: &Decision, request: &Request) -> String {
    match &request.denial {
        Some(denial) => format!("{} by {}", denial.reason, denial.by),
        None => decision.reasons.iter().skip(1).cloned().collect::<Vec<_>>().join("; "),
    }
}

pub(super) fn names(roles: &Roles) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
}
