//! What an operator does to the world: chosen, named exactly, confirmed, done, and what came of it.

use jiff::tz::TimeZone;
use thinlane_model::{Now, RequestId, SessionId, Span};
use thinlane_wire::api::{LockKind, RequestState, SessionState};
use zeroize::Zeroizing;

use crate::columns::{request_word, state_word};
use crate::model::{Model, Peer};
use crate::text;

/// Letters that a reason may have.
const LONGEST_FIELD: usize = 200;
/// Said of a text that is longer: what stands in the log later must be what its writer believes it is.
const TOO_LONG: &str = "it takes 200 letters: what came after is not in it";

/// One thing to do, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    Kill {
        session: SessionId,
        reason: String,
    },
    Extend {
        session: SessionId,
        time: Span,
        reason: String,
    },
    Lock {
        kind: LockKind,
        name: String,
        time: Option<Span>,
        reason: String,
    },
    Unlock {
        kind: LockKind,
        name: String,
    },
    Unfreeze {
        site: String,
        reason: String,
    },
    Approve {
        request: RequestId,
        note: Option<String>,
    },
    Deny {
        request: RequestId,
        reason: String,
    },
    /// A new enrolment code for a site.
    Code {
        site: String,
    },
    /// A new log-in of whoever sits here.
    LogIn {
        password: Secret,
        code: Secret,
    },
}

/// What nobody may read over a shoulder or in a log; wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

/// At whom or what a question aims; fixed when it is asked, whatever happens to the list behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Kill(SessionId),
    Extend(SessionId),
    Lock(LockKind, String),
    Unlock(String),
    Unfreeze(String),
    Approve(RequestId),
    Deny(RequestId),
    Code(String),
    LogIn,
}

/// A line to be filled in; wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Field {
    pub label: &'static str,
    pub text: Zeroizing<String>,
    /// Shown as stars.
    pub hidden: bool,
    /// A default that nobody has touched: the first letter replaces it.
    pub untouched: bool,
}

/// Whether something can have been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    Unseen,
    /// In a picture that may still be on its way.
    Drawn,
    /// On the screen.
    Seen,
}

/// A question before something is done.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What could be meant; more than one for a lock.
    pub targets: Vec<Target>,
    pub chosen: usize,
    pub fields: Vec<Field>,
    pub focus: usize,
    /// It has been on the screen: before that nothing can be confirmed.
    pub sight: Sight,
    pub problem: Option<String>,
}

const REASON: &str = "reason";
const NOTE: &str = "note";
const TIME: &str = "for";
const PASSWORD: &str = "password";
const CODE: &str = "code";

impl Ask {
    /// A question about these targets; at least one.
    pub fn new(targets: Vec<Target>) -> Option<Self> {
        let fields = match targets.first()? {
            Target::Kill(_) => vec![Field::new(REASON, "stopped by the operator")],
            Target::Extend(_) => vec![Field::new(TIME, "15m"), Field::new(REASON, "extended by the operator")],
            Target::Lock(..) => vec![Field::new(REASON, "locked by the operator"), Field::new(TIME, "")],
            Target::Unfreeze(_) => vec![Field::new(REASON, "")],
            Target::Approve(_) => vec![Field::new(NOTE, "")],
            Target::Deny(_) => vec![Field::new(REASON, "")],
            Target::Unlock(_) | Target::Code(_) => Vec::new(),
            Target::LogIn => vec![Field { hidden: true, ..Field::new(PASSWORD, "") }, Field::new(CODE, "")],
        };
        Some(Self { targets, chosen: 0, fields, focus: 0, sight: Sight::Unseen, problem: None })
    }

    pub fn target(&self) -> &Target {
        &self.targets[self.chosen.min(self.targets.len() - 1)]
    }

    /// Another target, so many further on.
    pub fn choose(&mut self, by: isize) {
        let count = self.targets.len() as isize;
        self.chosen = (self.chosen as isize + by).rem_euclid(count) as usize;
        // What it would do now must be read first.
        if self.targets.len() > 1 {
            self.sight = Sight::Unseen;
        }
    }

    /// Another field, so many further on.
    pub fn turn(&mut self, by: isize) {
        if !self.fields.is_empty() {
            self.focus = (self.focus as isize + by).rem_euclid(self.fields.len() as isize) as usize;
        }
    }

    pub fn write(&mut self, letter: char) {
        let Some(field) = self.fields.get_mut(self.focus).filter(|_| !letter.is_control()) else { return };
        if std::mem::take(&mut field.untouched) {
            field.text.clear();
        }
        let fits = field.text.chars().count() < LONGEST_FIELD;
        if fits {
            field.text.push(letter);
        }
        self.problem = (!fits).then(|| TOO_LONG.to_owned());
    }

    pub fn erase(&mut self) {
        self.problem = None;
        if let Some(field) = self.fields.get_mut(self.focus) {
            field.untouched = false;
            field.text.pop();
        }
    }

    pub fn clear(&mut self) {
        self.problem = None;
        if let Some(field) = self.fields.get_mut(self.focus) {
            field.untouched = false;
            field.text.clear();
        }
    }

    fn field(&self, label: &str) -> &str {
        self.raw(label).trim()
    }

    /// With the spaces around it: a password may have them.
    fn raw(&self, label: &str) -> &str {
        self.fields.iter().find(|field| field.label == label).map_or("", |field| field.text.as_str())
    }

    fn needed(&self, label: &str) -> Result<String, String> {
        match self.field(label) {
            "" => Err(format!("a {label} is needed: it stands in the log")),
            text => Ok(text.to_owned()),
        }
    }

    fn time(&self) -> Result<Option<Span>, String> {
        match self.field(TIME) {
            "" => Ok(None),
            text => match text.parse::<Span>() {
                Ok(span) if span.as_millis() % 1000 == 0 => Ok(Some(span)),
                Ok(_) => Err("whole seconds, please".to_owned()),
                Err(error) => Err(error.to_string()),
            },
        }
    }

    /// The deed, or what is missing for it.
    pub fn deed(&self) -> Result<Deed, String> {
        Ok(match self.target().clone() {
            Target::Kill(session) => Deed::Kill { session, reason: self.needed(REASON)? },
            Target::Extend(session) => {
                let time = self.time()?.ok_or("for how long? as in 15m")?;
                Deed::Extend { session, time, reason: self.needed(REASON)? }
            }
            Target::Lock(kind, name) => Deed::Lock { kind, name, time: self.time()?, reason: self.needed(REASON)? },
            Target::Unlock(name) => Deed::Unlock { kind: LockKind::Site, name },
            Target::Unfreeze(site) => Deed::Unfreeze { site, reason: self.needed(REASON)? },
            Target::Approve(request) => {
                let note = self.field(NOTE);
                Deed::Approve { request, note: (!note.is_empty()).then(|| note.to_owned()) }
            }
            Target::Deny(request) => Deed::Deny { request, reason: self.needed(REASON)? },
            Target::Code(site) => Deed::Code { site },
            Target::LogIn => match (self.raw(PASSWORD), self.field(CODE)) {
                ("", _) => return Err("your password, please".to_owned()),
                (_, "") => return Err("and the six digits of your authenticator app (Tab)".to_owned()),
                (password, code) => Deed::LogIn { password: Secret::new(password), code: Secret::new(code) },
            },
        })
    }
}

impl Sight {
    /// It stands in the picture that is drawn now.
    pub fn draw(&mut self) {
        if *self == Sight::Unseen {
            *self = Sight::Drawn;
        }
    }

    /// It is not on the screen any more, or not whole: it must be read again.
    pub fn lose(&mut self) {
        *self = Sight::Unseen;
    }

    /// What was drawn is on the screen.
    pub fn arrive(&mut self) {
        if *self == Sight::Drawn {
            *self = Sight::Seen;
        }
    }
}

impl Field {
    fn new(label: &'static str, text: &str) -> Self {
        // Room for all of it, so that growing leaves no copies behind.
        let mut room = Zeroizing::new(String::with_capacity(LONGEST_FIELD * 4));
        room.push_str(text);
        Self { label, text: room, hidden: false, untouched: true }
    }
}

impl std::fmt::Debug for Field {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("Field").field("label", &self.label).finish_non_exhaustive()
    }
}

impl Secret {
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }

    /// For whoever sends it on.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("Secret")
    }
}

/// Who, on what, where: enough to know the right one from forty.
fn peer(peer: &Peer, now: Now) -> String {
    let view = &peer.view;
    let org = view.org.as_ref().map(|org| format!(" ({org})")).unwrap_or_default();
    let left = match peer.left(now) {
        Some(left) if view.state == SessionState::Active => format!("{} left", text::about(left)),
        // By whom stands in the detail.
        _ => match (view.end_reason, &view.end_detail) {
            (Some(reason), Some(detail)) => format!("{} ({reason}: {detail})", state_word(view.state)),
            (Some(reason), None) => format!("{} ({reason})", state_word(view.state)),
            (None, _) => state_word(view.state).to_owned(),
        },
    };
    format!("{}{org} on {} at {}, {}, {left}", view.user, view.asset, view.site, view.task)
}

/// What confirming a question would do, with what has been written into its fields.
pub fn asked(ask: &Ask, model: &Model, now: Now, zone: &TimeZone) -> String {
    const DAY: u64 = 86_400_000;
    let sentence = sentence(ask.target(), model, now);
    if !matches!(ask.target(), Target::Lock(..)) {
        return sentence;
    }
    match ask.time() {
        Ok(None) => format!("{sentence} until it is unlocked"),
        Ok(Some(span)) => {
            let end = model.controller_now(now) + span;
            let end = if span.as_millis() < DAY { text::clock(end, zone) } else { text::moment(end, zone) };
            format!("{sentence} until {end}, {} from now", text::about(span.as_millis()))
        }
        Err(_) => format!("{sentence} - for how long cannot be read, as in 1h"),
    }
}

/// What confirming would do to a target, as the world stands now.
fn sentence(target: &Target, model: &Model, now: Now) -> String {
    match target {
        Target::Kill(id) => match model.sessions.get(id) {
            Some(one) if one.view.state == SessionState::Ended => {
                format!("Kill {id}: it has ended already, {}", peer(one, now))
            }
            Some(one) => format!("Kill {id}: {}", peer(one, now)),
            None => format!("Kill {id}: it is not open any more"),
        },
        Target::Extend(id) => match model.sessions.get(id) {
            Some(one) if one.view.state == SessionState::Ended => {
                format!("Give more time to {id}: it has ended already, {}", peer(one, now))
            }
            Some(one) => format!("Give more time to {id}: {}", peer(one, now)),
            None => format!("Give more time to {id}: it is not open any more"),
        },
        Target::Lock(kind, name) => {
            let meant: Vec<&Peer> = model.live().filter(|one| meets(*kind, name, one)).collect();
            let ends = match meant.as_slice() {
                [] => "no open session ends".to_owned(),
                [one] => format!("ends {}: {}", one.view.id, peer(one, now)),
                more => {
                    let first: Vec<String> =
                        more.iter().take(3).map(|one| format!("{} on {}", one.view.user, one.view.asset)).collect();
                    let rest = if more.len() > 3 { ", ..." } else { "" };
                    format!("ends {} open sessions ({}{rest})", more.len(), first.join(", "))
                }
            };
            format!("Lock {} {name}: {ends}, and nothing new opens", kind_word(*kind))
        }
        Target::Unlock(site) => format!("Unlock site {site}: lanes there may be opened again"),
        Target::Unfreeze(site) => {
            format!("Unfreeze site {site}: its gateway may work again, although two machines had its key")
        }
        Target::Approve(id) | Target::Deny(id) => {
            let verb = if matches!(target, Target::Approve(_)) { "Approve" } else { "Deny" };
            let Some(asked) = model.requests.get(id) else { return format!("{verb} {id}: it is not open any more") };
            let view = &asked.view;
            let org = view.org.as_ref().map(|org| format!(" ({org})")).unwrap_or_default();
            let who = match (&view.denial, view.approvals.last()) {
                (Some(denial), _) => format!(", by {}: {}", denial.by, denial.reason),
                (None, Some(approval)) => format!(", by {}", approval.by),
                (None, None) => String::new(),
            };
            let state = match view.state {
                RequestState::Pending => String::new(),
                other => format!(" - it is {} already{who}", request_word(other)),
            };
            let time = text::about(view.seconds.saturating_mul(1000));
            format!(
                "{verb} {id}: {}{org} wants {} on {} at {} for {time}{state}",
                view.user, view.task, view.asset, view.site
            )
        }
        Target::Code(site) => {
            format!("Make an enrolment code for {site}: it is shown once, works once, and voids an earlier one")
        }
        Target::LogIn => {
            let who = model.login.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("Log in again as {who} at {}: the screen stays as it is", model.controller)
        }
    }
}

/// Whether a lock of this kind and name would end a session.
pub fn meets(kind: LockKind, name: &str, peer: &Peer) -> bool {
    let view = &peer.view;
    match kind {
        LockKind::User => view.user.as_str() == name,
        LockKind::Org => view.org.as_ref().is_some_and(|org| org.as_str() == name),
        LockKind::Site => view.site.as_str() == name,
        LockKind::Asset => view.asset.as_str() == name,
    }
}

/// A kind of lock in words.
pub fn kind_word(kind: LockKind) -> &'static str {
    match kind {
        LockKind::User => "person",
        LockKind::Org => "organisation",
        LockKind::Site => "site",
        LockKind::Asset => "asset",
    }
}

impl Deed {
    /// While it is under way.
    pub fn doing(&self) -> String {
        match self {
            Deed::Kill { session, .. } => format!("killing {session} ..."),
            Deed::Extend { session, .. } => format!("extending {session} ..."),
            Deed::Lock { kind, name, .. } => format!("locking {} {name} ...", kind_word(*kind)),
            Deed::Unlock { kind, name } => format!("unlocking {} {name} ...", kind_word(*kind)),
            Deed::Unfreeze { site, .. } => format!("unfreezing {site} ..."),
            Deed::Approve { request, .. } => format!("approving {request} ..."),
            Deed::Deny { request, .. } => format!("denying {request} ..."),
            Deed::Code { site } => format!("asking for a code for {site} ..."),
            Deed::LogIn { .. } => "logging in ...".to_owned(),
        }
    }
}
