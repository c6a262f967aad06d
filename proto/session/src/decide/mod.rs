//! Commands to events; nothing here changes the world.

mod agents;
mod assets;
mod inventory;
mod locks;
mod people;
mod requests;
mod sessions;

pub(crate) use requests::missing;

use thinlane_model::{Counters, Login, Role, Span, Wall};
use thinlane_policy::{Ask, AssetFacts, Policy, PolicyState};

use crate::{
    Actor, Answer, Asset, Command, Context, Decided, Event, LockTarget, Note, Person, Refusal, Refused, World,
};

/// The largest integer that every JSON reader takes exactly.
const MOST: u64 = (1 << 53) - 1;
/// Letters of a reason, note or ticket.
const MOST_TEXT: usize = 500;
/// Letters of what a gateway tells.
const MOST_DETAIL: usize = 300;

pub(crate) const OPS: &[Role] = &[Role::Ops, Role::Admin];
const ADMIN: &[Role] = &[Role::Admin];
const TECH: &[Role] = &[Role::SiteTech, Role::Admin];
const CODES: &[Role] = &[Role::SiteTech, Role::Ops, Role::Admin];
const REQUESTER: &[Role] = &[Role::Requester];

pub(crate) fn decide(
    world: &World,
    actor: &Actor,
    command: Command,
    ctx: &mut Context<'_>,
) -> Result<Decided, Refused> {
    let (name, subject) = (command.name(), command.subject());
    Deciding { world, actor, ctx }.command(command).map_err(|refusal| {
        let recorded = refusal.is_recorded().then(|| Event::AttemptRefused {
            command: name.to_owned(),
            subject,
            code: refusal.code(),
            message: cut(&refusal.to_string(), MOST_TEXT),
        });
        Refused { refusal, events: recorded.into_iter().collect() }
    })
}

/// One command on its way to events.
pub(crate) struct Deciding<'a, 'c> {
    world: &'a World,
    actor: &'a Actor,
    ctx: &'a mut Context<'c>,
}

type Outcome = Result<Decided, Refusal>;

impl<'a> Deciding<'a, '_> {
    fn command(&mut self, command: Command) -> Outcome {
        match command {
            Command::AddPerson(new) => self.add_person(new),
            Command::ResetPerson { login } => self.reset_person(login),
            Command::AddSite { name, endpoint } => self.add_site(name, endpoint),
            Command::IssueCode { site, code_hash } => self.issue_code(&site, code_hash),
            Command::AddAsset(spec) => self.add_asset(spec),
            Command::ImportAssets(list) => self.import_assets(list),
            Command::RemoveAsset { asset } => self.remove_asset(asset),
            Command::CreateRequest(new) => self.create_request(new),
            Command::WithdrawRequest { request } => self.withdraw_request(request),
            Command::ApproveRequest { request, note } => self.approve_request(request, note),
            Command::DenyRequest { request, reason } => self.deny_request(request, reason),
            Command::Activate { request, engineer_key, native, clock } => {
                self.activate(request, engineer_key, native, clock)
            }
            Command::Extend { session, seconds, reason } => self.extend(session, seconds, reason),
            Command::Release { session } => self.release(session),
            Command::Kill { session, reason } => self.kill(session, reason),
            Command::Lock { target, time, reason } => self.lock(target, time, reason),
            Command::Unlock { target } => self.unlock(target),
            Command::Enrol { code_hash, certificate, version } => self.enrol(&code_hash, certificate, version),
            Command::Renew { certificate } => self.renew(certificate),
            Command::Hello { boot, version, backend } => self.hello(boot, version, backend),
            Command::Status { isolated, why_not_ready, backend, lan } => {
                self.status(isolated, why_not_ready, backend, lan)
            }
            Command::Armed { session, serial, gateway_key, deadline, backend } => {
                self.armed(session, serial, gateway_key, deadline, backend)
            }
            Command::Refuse { session, serial, reason, detail } => self.refuse(session, serial, reason, &detail),
            Command::Way { session, path } => self.way(session, path),
            Command::Close(closing) => self.close(closing),
            Command::AgentAlarm { number, boot, kind, detail } => self.agent_alarm(number, boot, &kind, &detail),
            Command::PolicyChanged => self.policy_changed(),
            Command::FreezeSite { site, reason } => self.freeze_site(site, &reason),
            Command::GiveUp { session, detail } => self.give_up(session, &detail),
            Command::Note(note) => self.note(note),
        }
    }

    fn now(&self) -> Wall {
        self.ctx.now.wall
    }

    /// The person who acts, if in good standing and holding one of the roles.
    fn person_with(&self, what: &'static str, roles: &'static [Role]) -> Result<&'a Person, Refusal> {
        let person = self.person(what)?;
        if roles.iter().any(|role| person.roles.contains(role)) {
            Ok(person)
        } else {
            Err(Refusal::NotAllowed { what, roles })
        }
    }

    /// The person who acts, if in good standing.
    fn person(&self, what: &'static str) -> Result<&'a Person, Refusal> {
        let Actor::Person(login) = self.actor else { return Err(self.wrong_actor(what)) };
        let person = self.known_person(login)?;
        self.world.standing(person, self.now())?;
        Ok(person)
    }

    /// A person with one of the roles, or the controller itself.
    fn person_or_system(&self, what: &'static str, roles: &'static [Role]) -> Result<Option<&'a Person>, Refusal> {
        match self.actor {
            Actor::System => Ok(None),
            Actor::Person(_) | Actor::Agent(_) => self.person_with(what, roles).map(Some),
        }
    }

    fn system(&self, what: &'static str) -> Result<(), Refusal> {
        if *self.actor == Actor::System { Ok(()) } else { Err(self.wrong_actor(what)) }
    }

    fn wrong_actor(&self, what: &'static str) -> Refusal {
        Refusal::WrongActor { what, actor: self.actor.to_string() }
    }

    fn known_person(&self, login: &Login) -> Result<&'a Person, Refusal> {
        self.world.person(login).ok_or_else(|| unknown("user", login))
    }

    fn policy(&self) -> Result<&Policy, Refusal> {
        match self.ctx.policy {
            PolicyState::Valid(policy) => Ok(policy),
            PolicyState::Invalid(_) => Err(Refusal::PolicyInvalid),
        }
    }

    /// A random id that nothing has yet.
    fn fresh<T>(&mut self, make: impl Fn([u8; 5]) -> T, taken: impl Fn(&T) -> bool) -> Result<T, Refusal> {
        for _ in 0..64 {
            let mut random = [0; 5];
            (self.ctx.random)(&mut random);
            let id = make(random);
            if !taken(&id) {
                return Ok(id);
            }
        }
        // 2^40 ids: only a broken source of randomness comes here.
        Err(Refusal::Limit { what: "tries for a fresh id", most: 64 })
    }

    fn note(&mut self, note: Note) -> Outcome {
        let allowed = match (&note, self.actor) {
            (_, Actor::System) => true,
            (
                Note::LoggedIn { login, .. } | Note::LoggedOut { login } | Note::SetUp { login, .. },
                Actor::Person(actor),
            ) => login == actor,
            _ => false,
        };
        if !allowed {
            return Err(self.wrong_actor("this entry"));
        }
        done(vec![match note {
            Note::LoggedIn { login, address } => Event::LoggedIn { login, address: cut(&address, MOST_DETAIL) },
            Note::LogInFailed { login, address, why } => Event::LogInFailed {
                login: cut(&login, 64),
                address: cut(&address, MOST_DETAIL),
                why: cut(&why, MOST_DETAIL),
            },
            Note::LockedOut { login, address, until } => {
                Event::LockedOut { login, address: cut(&address, MOST_DETAIL), until }
            }
            Note::LoggedOut { login } => Event::LoggedOut { login },
            Note::SetUp { login, address } => {
                self.known_person(&login)?;
                Event::UserSetUp { login, address: cut(&address, MOST_DETAIL) }
            }
            Note::ControllerStarted { version } => Event::ControllerStarted { version: cut(&version, MOST_DETAIL) },
            Note::Alarm { site, kind, detail } => {
                Event::AlarmRaised { site, alarm: cut(&kind, 64), detail: cut(&detail, MOST_DETAIL), number: None }
            }
        }])
    }
}

impl World {
    /// Whether a person may act at all now: neither locked, nor of a locked organisation, nor past the account's end.
    pub fn standing(&self, person: &Person, now: Wall) -> Result<(), Refusal> {
        if let Some(at) = person.until
            && now >= at
        {
            return Err(Refusal::AccountEnded { login: person.login.to_string(), at });
        }
        self.not_locked(LockTarget::User(person.login.clone()))?;
        person.org.as_ref().map_or(Ok(()), |org| self.not_locked(LockTarget::Org(org.clone())))
    }

    pub(crate) fn not_locked(&self, target: LockTarget) -> Result<(), Refusal> {
        match self.lock_of(&target) {
            None => Ok(()),
            Some(lock) => Err(Refusal::Locked {
                target: target.to_string(),
                reason: lock.reason.clone(),
                by: lock.set_by(),
                at: lock.at,
                until: lock.until,
            }),
        }
    }

    /// Puts a request to a policy: also for `policy explain` and for people's forms.
    pub fn ask<'a>(
        person: &'a Person,
        asset: &'a Asset,
        task: &'a thinlane_model::TaskName,
        time: Option<Span>,
        now: Wall,
    ) -> Ask<'a> {
        Ask {
            login: &person.login,
            roles: &person.roles,
            org: person.org.as_ref(),
            external: person.is_external(),
            asset: AssetFacts {
                name: &asset.asset,
                kind: &asset.kind,
                criticality: asset.criticality,
                labels: &asset.labels,
                site: &asset.site_name,
            },
            task,
            time,
            now,
        }
    }
}

fn done(events: Vec<Event>) -> Outcome {
    Ok(Decided { events, answer: Answer::Done })
}

fn unknown(kind: &'static str, name: impl ToString) -> Refusal {
    Refusal::Unknown { kind, name: name.to_string() }
}

/// A text from a person: bounded, printable, on one line; `needed` also not empty.
fn text(field: &'static str, text: &str, needed: bool) -> Result<String, Refusal> {
    let invalid = |problem: String| Err(Refusal::Invalid { field, problem });
    let text = text.trim();
    if needed && text.is_empty() {
        return invalid("must not be empty".to_owned());
    }
    if text.chars().count() > MOST_TEXT {
        return invalid(format!("at most {MOST_TEXT} letters"));
    }
    if text.chars().any(unprintable) {
        return invalid("no control characters".to_owned());
    }
    Ok(text.to_owned())
}

fn optional(field: &'static str, value: Option<String>) -> Result<Option<String>, Refusal> {
    let value = value.map(|value| text(field, &value, false)).transpose()?;
    Ok(value.filter(|value| !value.is_empty()))
}

/// A text from a machine: cut and cleaned, never refused.
fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).map(|letter| if unprintable(letter) { ' ' } else { letter }).collect()
}

/// Control characters, and those that turn the direction of a line: a log line must read as it is written.
fn unprintable(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}')
}

/// A moment that a gateway told as so long ago; one that RFC 3339 cannot write is none.
pub(crate) fn plausible(at: Option<Wall>) -> Option<Wall> {
    at.filter(|at| (0..MOST.cast_signed() / 64).contains(&at.as_millis()))
}

/// Counters that every JSON reader takes exactly.
pub(crate) fn bounded(counters: Counters) -> Counters {
    Counters {
        up_packets: counters.up_packets.min(MOST),
        up_bytes: counters.up_bytes.min(MOST),
        down_packets: counters.down_packets.min(MOST),
        down_bytes: counters.down_bytes.min(MOST),
        denied_packets: counters.denied_packets.min(MOST),
        spoofed_packets: counters.spoofed_packets.min(MOST),
    }
}
