//! Denials and alarms, and what of it a person must look at now.

use serde_json::Value;
use thinlane_model::{Now, Wall};
use thinlane_wire::api::{AlarmView, DeniedView, LogEntry, SessionState};

use crate::model::Model;
use crate::text;

/// The one alarm that cannot stand in the log.
pub const LOG_UNAVAILABLE: &str = "log-unavailable";
/// After so many milliseconds an alarm that nobody marked leaves the banner; it stays in its list.
pub const BANNER_TIME: u64 = 30 * 60_000;
/// A log-in that ends within so many milliseconds is said.
const LOGIN_ENDS: u64 = 20 * 60_000;
/// A gateway's clock that is further off than this is worth a look, in milliseconds.
const CLOCK_OFF: i64 = 5_000;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Good to know.
    Note,
    /// Look at it today.
    Warn,
    /// Look at it now.
    Urgent,
}

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Alarm,
    /// Packets that a lane did not pass.
    Denied,
    /// Somebody tried what is not theirs.
    Refused,
}

/// One denial or alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Counted on this screen.
    pub number: u64,
    pub at: Wall,
    pub class: Class,
    pub weight: Weight,
    pub site: Option<String>,
    /// The session, or who it was.
    pub about: Option<String>,
    pub kind: String,
    pub detail: String,
    /// Packets, for denials.
    pub packets: u64,
    /// Marked by the person at this screen.
    pub seen: bool,
}

impl Class {
    pub fn word(self) -> &'static str {
        match self {
            Class::Alarm => "ALARM",
            Class::Denied => "denied",
            Class::Refused => "refused",
        }
    }
}

impl Weight {
    /// Of an alarm, by its kind; a kind that this program does not know matters.
    fn of_alarm(kind: &str) -> Weight {
        match kind {
            "ready" | "isolated-off" => Weight::Note,
            "isolated" | "not-ready" | "renewal-waits" | "state" | "lane-lost" => Weight::Warn,
            _ => Weight::Urgent,
        }
    }
}

impl Notice {
    fn new(at: Wall, class: Class, weight: Weight, kind: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            number: 0,
            at,
            class,
            weight,
            site: None,
            about: None,
            kind: kind.into(),
            detail: detail.into(),
            packets: 0,
            seen: false,
        }
    }

    pub fn from_alarm(alarm: AlarmView) -> Self {
        let weight = Weight::of_alarm(&alarm.kind);
        let mut notice = Notice::new(alarm.at, Class::Alarm, weight, alarm.kind, alarm.detail);
        notice.site = alarm.site;
        notice
    }

    pub fn from_denied(denied: DeniedView) -> Self {
        let port = if denied.port == 0 { String::new() } else { format!(":{}", denied.port) };
        let detail =
            format!("{} {} {} -> {}{port}", denied.direction, denied.protocol, denied.source, denied.destination);
        let mut notice = Notice::new(denied.at, Class::Denied, Weight::Note, "packets", detail);
        notice.site = Some(denied.site);
        notice.about = denied.session;
        notice.packets = denied.packets;
        notice
    }

    /// What the log says that belongs here; `name` turns a site's id into its name.
    pub fn from_entry(entry: &LogEntry, name: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let field = |key: &str| entry.entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let at = entry.time;
        let mut notice = match entry.kind.as_str() {
            "alarm.raised" => {
                let kind = field("alarm");
                Notice::new(at, Class::Alarm, Weight::of_alarm(&kind), kind, field("detail"))
            }
            "site.frozen" => Notice::new(at, Class::Alarm, Weight::Urgent, "site-frozen", field("reason")),
            "policy.invalid" => {
                let errors = entry.entry.get("errors").and_then(|errors| errors.get(0)).and_then(Value::as_str);
                Notice::new(
                    at,
                    Class::Alarm,
                    Weight::Urgent,
                    "policy-invalid",
                    errors.unwrap_or("nothing is permitted"),
                )
            }
            "grant.refused" | "session.extension-refused" => {
                let detail = format!("{}: {}", field("reason"), field("detail"));
                Notice::new(at, Class::Refused, Weight::Warn, "grant", detail)
            }
            "attempt.refused" => {
                let detail = format!("{} {}: {}", field("command"), field("subject"), field("message"));
                Notice::new(at, Class::Refused, Weight::Note, "attempt", detail)
            }
            "auth.failed" => {
                let detail = format!("log-in as {} from {}: {}", field("login"), field("address"), field("why"));
                Notice::new(at, Class::Refused, Weight::Note, "log-in", detail)
            }
            "auth.locked-out" => {
                let detail = format!(
                    "{} is locked out until {}, last from {}",
                    field("login"),
                    field("until"),
                    field("address")
                );
                Notice::new(at, Class::Refused, Weight::Warn, "locked-out", detail)
            }
            _ => return None,
        };
        let site = field("site");
        notice.site = (!site.is_empty()).then(|| name(&site).unwrap_or(site));
        let session = field("session");
        notice.about =
            if session.is_empty() { entry.actor.strip_prefix("person:").map(str::to_owned) } else { Some(session) };
        Some(notice)
    }

    /// Whether the banner's line for this one stands for the other as well.
    pub fn says_no_less_than(&self, other: &Notice) -> bool {
        let earlier = other.number <= self.number && other.class == Class::Alarm && self.class == Class::Alarm;
        other.number == self.number || (earlier && other.kind == self.kind && other.site == self.site)
    }

    /// Whether both are about the same flow of the same session.
    pub fn is_same_flow(&self, other: &Notice) -> bool {
        self.class == Class::Denied
            && other.class == Class::Denied
            && self.about == other.about
            && self.site == other.site
            && self.detail == other.detail
    }

    /// Counts more packets of the same flow; what was told before is not counted twice.
    pub fn merge(&mut self, other: Notice) {
        if other.at > self.at {
            self.at = other.at;
            self.packets = self.packets.saturating_add(other.packets);
        }
    }
}

/// One thing for the banner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attention {
    pub weight: Weight,
    pub site: Option<String>,
    /// A word for scripts: `site-lost`, `ruleset-flushed`, ...
    pub kind: String,
    pub text: String,
    /// The alarm that it is, if it is one: those can be marked as seen.
    pub notice: Option<u64>,
}

/// What needs a person now, most urgent first.
pub fn attention(model: &Model, now: Now) -> Vec<Attention> {
    let mut found = Vec::new();
    let mut say = |weight, site: Option<&str>, kind: &str, text: String| {
        found.push(Attention { weight, site: site.map(str::to_owned), kind: kind.to_owned(), text, notice: None });
    };
    if let Some(until) = model.until {
        match model.controller_now(now).until(until).as_millis() {
            0 => say(Weight::Urgent, None, "login-ended", "your log-in has ended: L logs in again".to_owned()),
            left if left < LOGIN_ENDS => {
                let text = format!("your log-in ends in {}: L logs in again, the screen stays", text::about(left));
                say(Weight::Warn, None, "login-ends", text);
            }
            _ => {}
        }
    }
    let mut open = std::collections::BTreeMap::new();
    for peer in model.live() {
        open.entry(&peer.view.site).or_insert((0u64, peer)).0 += 1;
    }
    for (name, place) in &model.sites {
        let here = open.get(name);
        let name = name.as_str();
        let view = &place.view;
        let lanes = here.map_or(0, |(count, _)| *count).max(u64::from(view.lanes));
        if view.state == "offline" && lanes > 0 {
            let ago = view.last_seen_at.map_or_else(
                || place.away.map_or(0, |away| away.until(now.mono).as_millis()),
                |at| model.since(at, now),
            );
            let who = here.map_or_else(String::new, |(_, peer)| {
                let more = if lanes > 1 { format!(" and {} more", lanes - 1) } else { String::new() };
                format!(" ({} on {}{more})", peer.view.user, peer.view.asset)
            });
            let text =
                format!("{name} lost its link {} ago with {} open{who}", text::about(ago), text::count(lanes, "lane"));
            say(Weight::Urgent, Some(name), "site-lost", text);
        }
        if view.state == "frozen" {
            say(Weight::Urgent, Some(name), "site-frozen", format!("{name} is frozen: two machines had its key"));
        }
        if let Some(off) = view.clock_offset_ms.filter(|off| off.abs() > CLOCK_OFF && view.state == "online") {
            let text = format!("{name}: the gateway's clock is off by {}", text::about(off.unsigned_abs()));
            say(Weight::Warn, Some(name), "clock-off", text);
        }
        if view.state == "online" && !view.ready {
            let why = view.why_not_ready.as_deref().unwrap_or("no reason given");
            let text = format!("{name} is not ready: {why}");
            say(if lanes > 0 { Weight::Urgent } else { Weight::Warn }, Some(name), "not-ready", text);
        }
    }
    for peer in model.live().filter(|peer| peer.view.state == SessionState::Ending) {
        let view = &peer.view;
        let lost = model.sites.get(&view.site).is_some_and(|place| place.view.state == "offline");
        // A close takes a moment, unless it cannot have got there.
        if lost || peer.seen.until(now.mono).as_millis() > 5_000 {
            let text = format!(
                "{}: {} on {} is ending, and {} has not confirmed it",
                view.id, view.user, view.asset, view.site
            );
            say(Weight::Urgent, Some(view.site.as_str()), "not-closed", text);
        }
    }
    let mut told = std::collections::BTreeSet::new();
    let fresh = |notice: &&Notice| !notice.seen && model.since(notice.at, now) < BANNER_TIME;
    for notice in model.notices.iter().rev().filter(|notice| notice.class == Class::Alarm).filter(fresh) {
        if notice.weight < Weight::Urgent || !told.insert((&notice.kind, &notice.site)) {
            continue;
        }
        let site = notice.site.as_deref().map(|site| format!("{site}: ")).unwrap_or_default();
        let ago = text::about(model.since(notice.at, now));
        let detail = if notice.detail.is_empty() { String::new() } else { format!(" ({})", notice.detail) };
        found.push(Attention {
            weight: Weight::Urgent,
            site: notice.site.clone(),
            kind: notice.kind.clone(),
            text: format!("{site}{} {ago} ago{detail}", words(&notice.kind)),
            notice: Some(notice.number),
        });
    }
    found.sort_by_key(|one| std::cmp::Reverse(one.weight));
    found
}

/// An alarm's kind in an operator's words.
pub fn words(kind: &str) -> &str {
    match kind {
        "ruleset-flushed" => "the firewall rules were flushed by another program",
        "clock-jump" => "the gateway's clock jumped",
        "foreign-change" => "another program changed what the agent made",
        "site-frozen" => "frozen, two machines had its key",
        "log-forked" => "the gateway remembers another log",
        "log-rolled-back" => "the log is shorter than the gateway remembers",
        "log-doubted" => "the gateway doubts the log",
        LOG_UNAVAILABLE => "the log cannot be written, nothing new is opened",
        "closing-not-believed" => "a closing record is not signed by the gateway",
        "not-closed" => "the gateway could not close a lane",
        "policy-invalid" => "the policy is invalid, nothing is permitted",
        "grant-refused" => "the gateway refused a grant",
        "teardown" => "a lane was not taken down cleanly",
        other => other,
    }
}
