//! The world as the API shows it.

use thinlane_model::{IdError, LockId, Now, Path, RequestId, SessionId, SiteId, Wall};
use thinlane_wire::api::{self, LockKind, SessionState};

use crate::decide::missing;
use crate::{Approval, Asset, LockTarget, Person, Refusal, Request, Session, World};

impl World {
    /// A session as `session show --json` prints it, with the newest counters seen.
    pub fn session_view(&self, id: &SessionId, now: Now) -> Option<api::SessionView> {
        Some(self.view_of_session(self.sessions.get(id)?, now))
    }

    fn view_of_session(&self, it: &Session, now: Now) -> api::SessionView {
        let seen = self.observed.get(&it.id);
        let remaining = || self.relay_until(it.id, now);
        api::SessionView {
            schema: api::Schema,
            id: it.id,
            request: it.request,
            user: it.user.clone(),
            org: it.org.clone(),
            site: it.site_name.clone(),
            asset: it.asset.clone(),
            task: it.task.clone(),
            protocol: it.protocol,
            port: it.port,
            state: it.state,
            address: it.engineer,
            asset_address: it.destination,
            opened_at: it.opened_at,
            ends_at: Some(it.ends_at),
            ended_at: it.ended_at,
            end_reason: it.end_reason.or_else(|| it.ending.as_ref().map(|ending| ending.reason)),
            end_detail: it.end_detail.clone().or_else(|| it.ending.as_ref().and_then(|ending| ending.detail.clone())),
            endpoint: seen.and_then(|seen| seen.endpoint.clone()).or_else(|| it.endpoint_seen.clone()),
            path: seen.and_then(|seen| seen.path).unwrap_or_else(|| it.path()),
            path_reason: Some(why(it, seen.and_then(|seen| seen.path).or(it.carried))),
            backend: it.backend.clone(),
            policy: it.policy.clone(),
            approvals: it.approvals.iter().map(view_of_approval).collect(),
            counters: seen.map_or(it.counters, |seen| seen.counters),
            counters_final: it.counters_final,
            merged: it.backend.as_deref() == Some("kernel"),
            last_handshake_at: it.last_handshake_at.max(seen.and_then(|seen| seen.last_handshake_at)),
            reason: it.reason.clone(),
            ticket: it.ticket.clone(),
            remaining_ms: (it.state == SessionState::Active).then(|| now.mono.until(remaining()).as_millis()),
        }
    }

    /// A request as `request show --json` prints it.
    pub fn request_view(&self, id: &RequestId) -> Option<api::RequestView> {
        self.requests.get(id).map(view_of_request)
    }

    pub fn asset_view(&self, name: &thinlane_model::AssetName) -> Option<api::AssetView> {
        self.assets.get(name).map(|asset| self.view_of_asset(asset))
    }

    fn view_of_asset(&self, it: &Asset) -> api::AssetView {
        api::AssetView {
            schema: api::Schema,
            asset: it.asset.clone(),
            site: it.site_name.clone(),
            kind: it.kind.to_string(),
            address: it.address,
            overlay_address: it.overlay_address,
            criticality: match it.criticality {
                thinlane_model::Criticality::Low => api::Criticality::Low,
                thinlane_model::Criticality::Medium => api::Criticality::Medium,
                thinlane_model::Criticality::High => api::Criticality::High,
            },
            labels: it.labels.clone(),
            locked: self.lock_of(&LockTarget::Asset(it.asset.clone())).is_some(),
        }
    }

    pub fn user_view(&self, login: &thinlane_model::Login, now: Wall) -> Option<api::UserView> {
        let it = self.people.get(login)?;
        Some(api::UserView {
            schema: api::Schema,
            user: it.login.clone(),
            name: it.name.clone(),
            org: it.org.clone(),
            sponsor: it.sponsor.clone(),
            roles: it.roles.clone(),
            until: it.until,
            state: self.state_of(it, now).to_owned(),
            created_at: it.created_at,
        })
    }

    fn state_of(&self, person: &Person, now: Wall) -> &'static str {
        match self.standing(person, now) {
            Err(Refusal::AccountEnded { .. }) => "ended",
            Err(_) => "locked",
            Ok(()) if person.set_up_at.is_none() => "invited",
            Ok(()) => "active",
        }
    }

    /// A site; `online` and what else only the connection knows is the caller's to fill in.
    pub fn site_view(&self, id: &SiteId, online: bool) -> Option<api::SiteView> {
        let it = self.sites.get(id)?;
        let agent = self.agents.get(id);
        let state = match (&it.frozen, agent, online) {
            (Some(_), _, _) => "frozen",
            (None, None, _) => "new",
            (None, Some(_), true) => "online",
            (None, Some(_), false) => "offline",
        };
        Some(api::SiteView {
            schema: api::Schema,
            id: it.id,
            site: it.name.clone(),
            endpoint: it.endpoint.clone(),
            state: state.to_owned(),
            enrolled_at: agent.map(|agent| agent.enrolled_at),
            last_seen_at: None,
            agent_version: agent.map(|agent| agent.version.clone()),
            backend: agent.and_then(|agent| agent.backend.clone()),
            ready: online && it.frozen.is_none() && agent.is_some_and(|agent| agent.why_not_ready.is_none()),
            why_not_ready: agent.and_then(|agent| agent.why_not_ready.clone()),
            isolated: agent.is_some_and(|agent| agent.isolated),
            locked: self.lock_of(&LockTarget::Site(it.name.clone())).is_some(),
            generation: it.generation,
            lanes: u32::try_from(self.live_sessions(id).count()).unwrap_or(u32::MAX),
            clock_offset_ms: None,
            certificate_expires_at: agent.and_then(|agent| agent.certificates.last()).map(|it| it.not_after),
        })
    }

    /// A lock, with the sessions that the command which set it touched.
    pub fn lock_view(&self, id: &LockId, sessions: &[SessionId]) -> Option<api::LockView> {
        let it = self.locks.get(id)?;
        let (kind, name) = kind_and_name(&it.target);
        let in_state = |wanted: fn(&Session) -> bool| {
            let hit = sessions.iter().filter_map(|id| self.sessions.get(id)).filter(move |it| wanted(it));
            hit.map(|session| session.id.to_string()).collect()
        };
        Some(api::LockView {
            schema: api::Schema,
            id: it.id,
            kind,
            name,
            reason: it.reason.clone(),
            by: it.set_by(),
            created_at: it.at,
            until: it.until,
            ended_sessions: in_state(|session| !session.is_live()),
            ending_sessions: in_state(Session::is_live),
        })
    }

    /// The request that a pasted id, or enough of its beginning, names.
    pub fn find_request(&self, text: &str) -> Result<RequestId, Refusal> {
        find("request", RequestId::PREFIX, text, |from| {
            self.requests.range(from..).map(|(id, _)| *id).take(2).collect()
        })
    }

    /// The session that a pasted id, or enough of its beginning, names.
    pub fn find_session(&self, text: &str) -> Result<SessionId, Refusal> {
        find("session", SessionId::PREFIX, text, |from| {
            self.sessions.range(from..).map(|(id, _)| *id).take(2).collect()
        })
    }
}

/// Ids sort as their letters do, so all that share a beginning stand together.
fn find<T>(kind: &'static str, prefix: &str, text: &str, from: impl Fn(T) -> Vec<T>) -> Result<T, Refusal>
where
    T: std::str::FromStr<Err = IdError> + ToString + Copy,
{
    let name = || text.chars().take(40).collect::<String>();
    let unknown = || Refusal::Unknown { kind, name: name() };
    let letters = text.strip_prefix(prefix).unwrap_or(text);
    if letters.is_empty() || letters.len() > 8 {
        return Err(unknown());
    }
    let start: T = format!("{prefix}{letters:0<8}").parse().map_err(|_| unknown())?;
    let whole = format!("{prefix}{letters}");
    let found: Vec<T> = from(start).into_iter().filter(|id| id.to_string().starts_with(&whole)).collect();
    match found.as_slice() {
        [] => Err(unknown()),
        [one] => Ok(*one),
        _ => Err(Refusal::Ambiguous { kind, name: name() }),
    }
}

fn view_of_approval(it: &Approval) -> api::Approval {
    api::Approval { by: it.by.clone(), at: it.at, note: it.note.clone() }
}

fn view_of_request(it: &Request) -> api::RequestView {
    let given: Vec<&Approval> = it.approvals.iter().collect();
    let obligations = &it.decision.obligations;
    api::RequestView {
        schema: api::Schema,
        id: it.id,
        state: it.state,
        user: it.user.clone(),
        org: it.org.clone(),
        asset: it.asset.clone(),
        site: it.site_name.clone(),
        task: it.task.clone(),
        seconds: it.seconds,
        reason: it.reason.clone(),
        ticket: it.ticket.clone(),
        created_at: it.created_at,
        decided_at: it.decided_at,
        lapses_at: it.lapses_at,
        decision: api::DecisionView {
            verdict: if it.decision.is_permit() { "permit" } else { "deny" }.to_owned(),
            rules: it.decision.rules.iter().map(ToString::to_string).collect(),
            obligations: api::ObligationsView {
                approvals: obligations.approvals,
                approvers: obligations
                    .needs
                    .iter()
                    .map(|need| api::ApproverDemand {
                        rule: need.rule.to_string(),
                        approvals: need.approvals,
                        roles: need.roles.iter().map(|role| role.as_str().to_owned()).collect(),
                        missing: missing(need, &given),
                    })
                    .collect(),
                seconds: obligations.seconds,
                extend_seconds: obligations.extend,
            },
            reasons: it.decision.reasons.clone(),
            policy_hash: it.policy_hash.clone(),
        },
        approvals: it.approvals.iter().map(view_of_approval).collect(),
        denial: it.denial.as_ref().map(|denial| api::Denial {
            by: denial.by.clone(),
            at: denial.at,
            reason: denial.reason.clone(),
        }),
        session: it.session,
    }
}

fn kind_and_name(target: &LockTarget) -> (LockKind, String) {
    match target {
        LockTarget::User(name) => (LockKind::User, name.to_string()),
        LockTarget::Org(name) => (LockKind::Org, name.to_string()),
        LockTarget::Site(name) => (LockKind::Site, name.to_string()),
        LockTarget::Asset(name) => (LockKind::Asset, name.to_string()),
    }
}

/// Why a lane takes the way it takes, for people; `carried`: the way that a handshake came.
fn why(it: &Session, carried: Option<Path>) -> String {
    match (&it.direct, carried) {
        (None, _) => format!("site {} has no endpoint of its own", it.site_name),
        (Some(direct), None) => format!("{direct} is tried first"),
        (Some(direct), Some(Path::Direct)) if it.left_direct => {
            format!("the gateway answers again at {direct}, which had stopped answering")
        }
        (Some(direct), Some(Path::Direct)) => format!("the gateway answered at {direct}"),
        (Some(direct), Some(Path::Relay)) if it.left_direct => {
            format!("the gateway's own address {direct} stopped answering")
        }
        (Some(direct), Some(Path::Relay)) => format!("{direct} was tried first and did not answer"),
    }
}
