//! What gateways report, and what the controller does on its own.

use std::net::Ipv4Addr;

use thinlane_model::{Boot, BootId, EndReason, Path, PublicKey, RefuseReason, SessionId, SiteId};
use thinlane_policy::{NameKind, Policy, PolicyState};
use thinlane_wire::api::SessionState;

use super::{Deciding, MOST_DETAIL, Outcome, bounded, cut, done, plausible, unknown};
use crate::event::Ended;
use crate::{Actor, Agent, Answer, Certificate, Closing, Decided, Event, Refusal, Session, World};

/// Base 64 of a closing record or a signature.
const MOST_RECORD: usize = 4_096;
const MOST_ERRORS: usize = 20;

impl<'a> Deciding<'a, '_> {
    pub(super) fn enrol(&mut self, code_hash: &str, certificate: Certificate, version: String) -> Outcome {
        self.system("enrolling a gateway")?;
        let code = self.world.usable_code(code_hash, self.now()).ok_or(Refusal::Code)?;
        self.fresh_certificate(&certificate)?;
        // Whatever the gateway before held, it holds no longer.
        let mut events: Vec<Event> = self.fail_all(code.site, "another gateway was enrolled");
        events.push(Event::AgentEnrolled { site: code.site, code: code.id, certificate, version: cut(&version, 64) });
        Ok(Decided { events, answer: Answer::Site(code.site) })
    }

    pub(super) fn renew(&mut self, certificate: Certificate) -> Outcome {
        let site = self.agent_site()?;
        self.fresh_certificate(&certificate)?;
        done(vec![Event::AgentRenewed { site, certificate }])
    }

    fn fresh_certificate(&self, certificate: &Certificate) -> Result<(), Refusal> {
        let serial = &certificate.serial;
        let hex =
            (1..=64).contains(&serial.len()) && serial.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if hex && !self.world.index.certificates.contains_key(serial) {
            return Ok(());
        }
        let problem = "a fresh serial number in lower-case hexadecimal is needed".to_owned();
        Err(Refusal::Invalid { field: "certificate", problem })
    }

    fn agent_site(&self) -> Result<SiteId, Refusal> {
        match self.actor {
            Actor::Agent(site) if self.world.agent(site).is_some() => Ok(*site),
            Actor::Agent(site) => Err(unknown("gateway of site", site)),
            Actor::Person(_) | Actor::System => Err(self.wrong_actor("a gateway's report")),
        }
    }

    fn agent(&self) -> Result<&'a Agent, Refusal> {
        let site = self.agent_site()?;
        self.world.agent(&site).ok_or_else(|| unknown("gateway of site", site))
    }

    /// A session of the gateway that reports.
    fn agent_session(&self, id: &SessionId) -> Result<&'a Session, Refusal> {
        let site = self.agent_site()?;
        self.world.session(id).filter(|session| session.site == site).ok_or_else(|| unknown("session", id))
    }

    /// Ends every live session of a site whose gateway no longer has it.
    fn fail_all(&self, site: SiteId, why: &str) -> Vec<Event> {
        self.world.live_sessions(&site).map(|session| self.lost(session, why)).collect()
    }

    /// The gateway lost it: ended at once, as `failed` unless it was being ended for another reason.
    fn lost(&self, session: &Session, why: &str) -> Event {
        let reason = session.ending.as_ref().map_or(EndReason::Failed, |ending| ending.reason);
        self.world.ended_without_record(session, reason, Some(why.to_owned()))
    }

    pub(super) fn hello(&mut self, boot: BootId, version: String, backend: Option<String>) -> Outcome {
        let agent = self.agent()?;
        let (version, backend) = (cut(&version, 64), backend.map(|backend| cut(&backend, 32)));
        let mut events: Vec<Event> = Vec::new();
        // Only a session of the boot before is lost; one that was just granted for this boot is not.
        let other_boot = self.world.live_sessions(&agent.site).filter(|session| session.boot != boot);
        events.extend(other_boot.map(|session| self.lost(session, "the gateway was started anew")));
        if agent.boot != Some(boot) || agent.version != version || (backend.is_some() && agent.backend != backend) {
            let backend = backend.or_else(|| agent.backend.clone());
            events.insert(0, Event::AgentStarted { site: agent.site, boot, version, backend });
        }
        done(events)
    }

    pub(super) fn status(
        &mut self,
        isolated: bool,
        why_not: Option<String>,
        backend: Option<String>,
        lan: Vec<Ipv4Addr>,
    ) -> Outcome {
        let agent = self.agent()?;
        let site = agent.site;
        let mut events = Vec::new();
        if let (Some(boot), Some(backend)) = (agent.boot, backend.map(|backend| cut(&backend, 32)))
            && agent.backend.as_ref() != Some(&backend)
        {
            events.push(Event::AgentStarted { site, boot, version: agent.version.clone(), backend: Some(backend) });
        }
        if agent.isolated != isolated {
            events.push(Event::SiteIsolated { site, isolated });
        }
        if isolated {
            let detail = Some("the site's switch was turned on".to_owned());
            let live = self.world.live_sessions(&site);
            events.extend(live.filter_map(|session| self.end(session, EndReason::Isolated, detail.clone())));
        }
        let why_not = why_not.map(|why| cut(&why, MOST_DETAIL)).filter(|why| !why.is_empty());
        if agent.why_not_ready != why_not {
            events.push(Event::SiteReady { site, ready: why_not.is_none(), why_not });
        }
        if agent.lan != lan {
            events.push(Event::SiteLan { site, lan });
        }
        done(events)
    }

    pub(super) fn armed(
        &mut self,
        id: SessionId,
        serial: u64,
        gateway_key: PublicKey,
        deadline: Boot,
        backend: String,
    ) -> Outcome {
        let session = self.agent_session(&id)?;
        if serial != session.serial {
            return done(Vec::new());
        }
        match session.state {
            SessionState::Arming => {}
            SessionState::Active if session.unextended.is_some() && session.gateway_key == Some(gateway_key) => {
                return done(vec![Event::ExtensionArmed { session: id, serial }]);
            }
            SessionState::Active | SessionState::Ending | SessionState::Ended => return done(Vec::new()),
        }
        // The relay tells sessions apart by these keys.
        if self.world.index.keys.contains_key(&gateway_key) {
            let detail = "its gateway answered with a key that is in use".to_owned();
            return done(vec![self.world.ended_without_record(session, EndReason::Failed, Some(detail))]);
        }
        let mut events = vec![Event::SessionActive { session: id, gateway_key, backend: cut(&backend, 32) }];
        if deadline > session.deadline {
            let detail = format!(
                "{id} was armed until {} ms, granted until {} ms",
                deadline.0.min(super::MOST),
                session.deadline.0
            );
            events.push(alarm(session.site, "deadline", detail));
        }
        done(events)
    }

    pub(super) fn refuse(&mut self, id: SessionId, serial: u64, reason: RefuseReason, detail: &str) -> Outcome {
        let session = self.agent_session(&id)?;
        if serial != session.serial || !session.is_desired() {
            return done(Vec::new());
        }
        let detail = cut(detail, MOST_DETAIL);
        if session.state == SessionState::Active && session.unextended.is_some() {
            return done(vec![Event::ExtensionRefused { session: id, serial, reason, detail }]);
        }
        let why = format!("its gateway refused the grant: {reason}");
        let why = if detail.is_empty() { why } else { format!("{why} ({detail})") };
        let refused = Event::GrantRefused { session: id, site: session.site, serial, reason, detail };
        let ends = self.end(session, EndReason::Failed, Some(why));
        done(std::iter::once(refused).chain(ends).collect())
    }

    pub(super) fn way(&mut self, id: SessionId, path: Path) -> Outcome {
        let news = self.agent_session(&id)?.would_note(path);
        done(if news { vec![Event::SessionWay { session: id, path }] } else { Vec::new() })
    }

    pub(super) fn close(&mut self, closing: Closing) -> Outcome {
        let site = self.agent_site()?;
        let Some(session) = self.world.session(&closing.session) else {
            let detail = format!("a closing record of {}, which this controller never granted", closing.session);
            return done(vec![alarm(site, "unknown-session", detail)]);
        };
        if session.site != site {
            return Err(unknown("session", closing.session));
        }
        if session.state == SessionState::Ended && session.counters_final {
            return done(Vec::new());
        }
        let reason = end_reason(session, closing.reason);
        let bounded_text = |text: String| Some(text).filter(|text| !text.is_empty() && text.len() <= MOST_RECORD);
        let seen = self.world.observation(&session.id);
        let ended = Ended {
            counters: bounded(closing.counters),
            counters_final: true,
            last_handshake_at: plausible(closing.last_handshake_at),
            path: seen.and_then(|seen| seen.path),
            endpoint: closing.endpoint.or_else(|| seen.and_then(|seen| seen.endpoint.clone())),
            late_packets: closing.late_packets.min(super::MOST),
            record: bounded_text(closing.record),
            signature: bounded_text(closing.signature),
            ..Ended::of(session, reason)
        };
        let ended = Box::new(ended);
        let mut events = vec![match session.state {
            SessionState::Ended => Event::SessionClosedLate { ended },
            SessionState::Arming | SessionState::Active | SessionState::Ending => Event::SessionEnded { ended },
        }];
        if !closing.verified {
            let detail = format!("{}: the kernel did not read back as closed", closing.session);
            events.push(alarm(site, "not-closed", detail));
        }
        done(events)
    }

    pub(super) fn agent_alarm(&mut self, number: u64, boot: BootId, kind: &str, detail: &str) -> Outcome {
        let agent = self.agent()?;
        if agent.boot != Some(boot) || number <= agent.alarms || number > super::MOST {
            return done(Vec::new());
        }
        done(vec![Event::AlarmRaised {
            site: Some(agent.site),
            alarm: cut(kind, 64),
            detail: cut(detail, MOST_DETAIL),
            number: Some(number),
        }])
    }

    /// Logs the policy now in force, and ends what a `forbid` of it matches or whose task is gone.
    pub(super) fn policy_changed(&mut self) -> Outcome {
        self.system("changing the policy")?;
        let policy = match self.ctx.policy {
            PolicyState::Valid(policy) => policy,
            PolicyState::Invalid(errors) => {
                let errors = errors.iter().take(MOST_ERRORS).map(|error| cut(&error.to_string(), 500)).collect();
                return done(vec![Event::PolicyInvalid { errors }]);
            }
        };
        let mut events = Vec::new();
        if self.world.policy_hash() != Some(policy.hash()) {
            events.push(Event::PolicyLoaded {
                hash: policy.hash().to_owned(),
                tasks: policy.tasks().count() as u64,
                permits: policy.permits().len() as u64,
                requires: policy.requires().len() as u64,
                forbids: policy.forbids().len() as u64,
                strangers: self.world.strangers(policy).take(MOST_ERRORS).collect(),
            });
        }
        for session in self.world.all_live_sessions() {
            let why = if policy.task(&session.task).is_none() {
                Some(format!("the policy no longer has task {}", session.task))
            } else {
                self.forbidden(policy, session)
            };
            events.extend(why.and_then(|why| self.end(session, EndReason::Policy, Some(why))));
        }
        done(events)
    }

    fn forbidden(&self, policy: &Policy, session: &Session) -> Option<String> {
        let (person, asset) = (self.world.person(&session.user)?, self.world.asset(&session.asset)?);
        let ask = World::ask(person, asset, &session.task, None, self.now());
        policy.forbidding(&ask).next().map(|rule| format!("{} forbids it now", rule.id))
    }

    pub(super) fn freeze_site(&mut self, id: SiteId, reason: &str) -> Outcome {
        self.system("freezing a site")?;
        let site = self.world.site(&id).ok_or_else(|| unknown("site", id))?;
        let reason = cut(reason, MOST_DETAIL);
        let mut events = Vec::new();
        if site.frozen.is_none() {
            events.push(Event::SiteFrozen { site: id, reason: reason.clone() });
            events.push(alarm(id, "site-frozen", format!("{}: {reason}", site.name)));
        }
        let detail = Some(format!("the site was frozen: {reason}"));
        let live = self.world.live_sessions(&id);
        events.extend(live.filter_map(|session| self.end(session, EndReason::Failed, detail.clone())));
        done(events)
    }

    pub(super) fn give_up(&mut self, id: SessionId, detail: &str) -> Outcome {
        self.system("giving up a session")?;
        let session = self.known_session(&id)?;
        let arming = session.state == SessionState::Arming;
        let detail = Some(cut(detail, MOST_DETAIL));
        done(if arming { self.end(session, EndReason::Failed, detail).into_iter().collect() } else { Vec::new() })
    }
}

impl World {
    /// Names in a policy that nothing here has, one sentence each: the rule does not match what its author meant.
    pub fn strangers(&self, policy: &Policy) -> impl Iterator<Item = String> {
        let named = policy.rules().flat_map(|(kind, id, when)| when.names().map(move |name| (kind, id, name)));
        named.filter(|(_, _, (kind, name))| !self.knows(*kind, name)).map(|(rule, id, (kind, name))| {
            format!("{rule} {id} names {} {name}, which is not known here", kind.as_str())
        })
    }

    fn knows(&self, kind: NameKind, name: &str) -> bool {
        match kind {
            NameKind::User => self.people.contains_key(name),
            NameKind::Org => {
                self.people.values().any(|person| person.org.as_ref().is_some_and(|org| org.as_str() == name))
            }
            NameKind::Site => self.index.site_names.contains_key(name),
            NameKind::Asset => self.assets.contains_key(name),
        }
    }
}

/// Why a session ended: what the controller began stands; else what a gateway may say of its own accord.
fn end_reason(session: &Session, said: EndReason) -> EndReason {
    if let Some(known) = session.end_reason.or_else(|| session.ending.as_ref().map(|ending| ending.reason)) {
        return known;
    }
    match said {
        EndReason::Expired | EndReason::Idle | EndReason::Isolated | EndReason::Offline | EndReason::Failed => said,
        EndReason::Released | EndReason::Killed | EndReason::Locked | EndReason::Policy => EndReason::Failed,
    }
}

fn alarm(site: SiteId, kind: &str, detail: String) -> Event {
    Event::AlarmRaised { site: Some(site), alarm: kind.to_owned(), detail, number: None }
}
