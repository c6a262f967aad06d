//! From texts to one checked policy; every error found is told, with its file and line.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::Range;
use std::str::FromStr;

use serde::Serialize;
use sha2::{Digest, Sha256};
use thinlane_model::{Limits, Role, Roles, RuleId, Span, TaskName};
use toml::Spanned;

use crate::raw::{self, Words};
use crate::rule::{default_approvers, list};
use crate::{Forbid, Matcher, Permit, Policy, PolicyError, Problem, Require, TaskProfile};

/// Bytes of one file.
const MOST_BYTES: usize = 1 << 20;
const MOST_FILES: usize = 256;
const MOST_TASKS: usize = 1_000;
const MOST_RULES: usize = 10_000;
const MOST_WORDS: usize = 10_000;
const MOST_APPROVALS: i64 = 10;
const MOST_TITLE: usize = 200;
/// No session lasts longer, extensions included.
const LONGEST: Span = Span::from_secs(7 * 86_400);
const DEFAULT: Span = Span::from_secs(30 * 60);
const MAX: Span = Span::from_secs(60 * 60);
const OFFLINE: Span = Span::from_secs(15 * 60);

pub(crate) fn load<N: AsRef<str>, T: AsRef<str>>(files: &[(N, T)]) -> Result<Policy, Vec<PolicyError>> {
    let mut errors = Vec::new();
    let mut parsed = Vec::new();
    if files.len() > MOST_FILES {
        let problem = Problem::TooMany { what: "policy files", most: MOST_FILES };
        return Err(vec![PolicyError { file: "policy".to_owned(), line: 0, key: String::new(), problem }]);
    }
    for (name, text) in files {
        match parse(name.as_ref(), text.as_ref()) {
            Ok(file) => parsed.push((Place { file: name.as_ref(), text: text.as_ref() }, file)),
            Err(error) => errors.push(*error),
        }
    }
    // Tasks of a file that does not parse are unknown; complaints about them would hide the cause.
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut build = Build::default();
    for (place, file) in &parsed {
        build.tasks(place, file);
    }
    for (place, file) in &parsed {
        build.rules(place, file);
    }
    build.finish()
}

fn parse(file: &str, text: &str) -> Result<raw::File, Box<PolicyError>> {
    let whole = |problem| PolicyError { file: file.to_owned(), line: 0, key: String::new(), problem };
    if text.len() > MOST_BYTES {
        return Err(Box::new(whole(Problem::TooMany { what: "bytes in a policy file", most: MOST_BYTES })));
    }
    toml::from_str(text).map_err(|error| {
        let at = Place { file, text };
        let line = error.span().map_or(0, |span| at.line(&span));
        Box::new(PolicyError { line, ..whole(Problem::Toml(error.message().to_owned())) })
    })
}

/// One file, to lead an error to its line.
struct Place<'a> {
    file: &'a str,
    text: &'a str,
}

impl Place<'_> {
    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().get(..span.start).unwrap_or(self.text.as_bytes());
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }
}

#[derive(Default)]
struct Build {
    errors: Vec<PolicyError>,
    tasks: BTreeMap<TaskName, TaskProfile>,
    permits: Vec<Permit>,
    requires: Vec<Require>,
    forbids: Vec<Forbid>,
    /// Where each task and rule id was first seen.
    seen: BTreeMap<(&'static str, String), String>,
}

/// What is checked at the moment: its place and name in errors.
struct Spot<'a> {
    place: &'a Place<'a>,
    what: String,
}

impl Build {
    fn error(&mut self, spot: &Spot<'_>, key: &str, span: &Range<usize>, problem: Problem) {
        let key = if key.is_empty() { spot.what.clone() } else { format!("{}: {key}", spot.what) };
        let (file, line) = (spot.place.file.to_owned(), spot.place.line(span));
        self.errors.push(PolicyError { file, line, key, problem });
    }

    /// Reads one checked value, or notes why it is none.
    fn value<T: FromStr>(&mut self, spot: &Spot<'_>, key: &str, kind: &'static str, text: &Spanned<String>) -> Option<T>
    where
        T::Err: Display,
    {
        match text.get_ref().parse() {
            Ok(value) => Some(value),
            Err(error) => {
                let found = text.get_ref().chars().take(80).collect();
                let problem = Problem::Value { kind, found, allowed: T::Err::to_string(&error) };
                self.error(spot, key, &text.span(), problem);
                None
            }
        }
    }

    fn first(&mut self, spot: &Spot<'_>, what: &'static str, name: &str, span: &Range<usize>) -> bool {
        let here = format!("{}:{}", spot.place.file, spot.place.line(span));
        // Permits, requires and forbids share one space of ids: a decision names rules by id alone.
        match self.seen.insert((what, name.to_owned()), here) {
            None => true,
            Some(first) => {
                self.error(spot, "", span, Problem::Duplicate { what, name: name.to_owned(), first });
                false
            }
        }
    }

    fn tasks(&mut self, place: &Place<'_>, file: &raw::File) {
        for (name, task) in &file.task {
            let spot = Spot { place, what: format!("task {name}") };
            let span = task.span();
            let parsed: Option<TaskName> =
                self.value(&spot, "", "no name for a task", &Spanned::new(span.clone(), name.clone()));
            let profile = self.task(&spot, task.get_ref());
            if self.first(&spot, "task", name, &span)
                && let (Some(name), Some(profile)) = (parsed, profile)
            {
                self.tasks.insert(name, profile);
            }
        }
    }

    fn task(&mut self, spot: &Spot<'_>, raw: &raw::Task) -> Option<TaskProfile> {
        let title = raw.title.get_ref();
        if title.is_empty() || title.len() > MOST_TITLE || title.chars().any(char::is_control) {
            let found = title.chars().take(80).collect();
            let allowed = format!("1 to {MOST_TITLE} bytes without control characters");
            self.error(spot, "title", &raw.title.span(), Problem::Value { kind: "no title", found, allowed });
        }
        let protocol = self.value(spot, "protocol", "no protocol", &raw.protocol);
        let port = self.number(spot, "port", &raw.port, 1, i64::from(u16::MAX));
        let max = self.span(spot, "max", raw.max.as_ref())?.unwrap_or(MAX);
        let default = self.span(spot, "default", raw.default.as_ref())?.unwrap_or(DEFAULT.min(max));
        let extend = self.extension(spot, raw.extend.as_ref())?;
        let offline = self.span(spot, "offline", raw.offline.as_ref())?.unwrap_or(OFFLINE);
        let idle = self.span(spot, "idle", raw.idle.as_ref())?;
        if let Some(wrong) = raw.default.as_ref().filter(|_| default > max) {
            let problem = Problem::Contradiction("the default time is longer than max");
            self.error(spot, "default", &wrong.span(), problem);
        }
        let mut limits = Limits::NONE;
        if let Some(raw) = &raw.limits {
            let most = i64::from(u32::MAX);
            let pps = raw.packets_per_second.as_ref();
            limits.packets_per_second = pps.and_then(|n| self.number(spot, "limits.packets_per_second", n, 1, most));
            limits.connections =
                raw.connections.as_ref().and_then(|n| self.number(spot, "limits.connections", n, 1, most));
        }
        let (protocol, port) = (protocol?, port?);
        Some(TaskProfile { title: title.clone(), protocol, port, default, max, extend, offline, idle, limits })
    }

    fn number<T: TryFrom<i64>>(
        &mut self,
        spot: &Spot<'_>,
        key: &str,
        number: &Spanned<i64>,
        least: i64,
        most: i64,
    ) -> Option<T> {
        let value = *number.get_ref();
        if (least..=most).contains(&value)
            && let Ok(value) = T::try_from(value)
        {
            return Some(value);
        }
        let allowed = format!("{least} to {most}");
        self.error(
            spot,
            key,
            &number.span(),
            Problem::Value { kind: "out of range", found: value.to_string(), allowed },
        );
        None
    }

    /// `None`: refused, and noted; `Some(None)`: not given.
    /// How much an engineer may add; `0s` says nothing.
    fn extension(&mut self, spot: &Spot<'_>, text: Option<&Spanned<String>>) -> Option<Option<Span>> {
        match text.map(|text| text.get_ref().trim()) {
            Some("0" | "0s" | "0m" | "0h") => Some(Some(Span::ZERO)),
            _ => self.span(spot, "extend", text),
        }
    }

    fn span(&mut self, spot: &Spot<'_>, key: &str, text: Option<&Spanned<String>>) -> Option<Option<Span>> {
        let Some(text) = text else { return Some(None) };
        let span: Span = self.value(spot, key, "no duration", text)?;
        if span > LONGEST || span < Span::from_secs(1) {
            let allowed = format!("1s to {LONGEST}");
            let problem = Problem::Value { kind: "out of range", found: text.get_ref().clone(), allowed };
            self.error(spot, key, &text.span(), problem);
            return None;
        }
        Some(Some(span))
    }

    fn rules(&mut self, place: &Place<'_>, file: &raw::File) {
        for rule in &file.permit {
            let raw = rule.get_ref();
            let spot = Spot { place, what: format!("permit {}", short(raw.id.get_ref())) };
            let Some((id, when)) = self.head(&spot, &raw.id, &raw.when()) else { continue };
            let max = self.span(&spot, "max", raw.max.as_ref());
            let approvals =
                raw.approvals.as_ref().map_or(Some(1), |n| self.number(&spot, "approvals", n, 0, MOST_APPROVALS));
            let roles = self.approvers(&spot, raw.approver_role.as_ref());
            if let (Some(max), Some(approvals), Some(approver_roles)) = (max, approvals, roles) {
                self.permits.push(Permit { id, when, max, approvals, approver_roles });
            }
        }
        for rule in &file.require {
            let raw = rule.get_ref();
            let spot = Spot { place, what: format!("require {}", short(raw.id.get_ref())) };
            let Some((id, when)) = self.head(&spot, &raw.id, &raw.when()) else { continue };
            let max = self.span(&spot, "max", raw.max.as_ref());
            let extend = self.extension(&spot, raw.extend.as_ref());
            // A require that speaks of time alone asks for no approval besides.
            let of_time = raw.max.is_some() || raw.extend.is_some();
            let absent = u32::from(!of_time || raw.approver_role.is_some());
            let approvals =
                raw.approvals.as_ref().map_or(Some(absent), |n| self.number(&spot, "approvals", n, 0, MOST_APPROVALS));
            let roles = self.approvers(&spot, raw.approver_role.as_ref());
            if let (Some(max), Some(extend), Some(approvals), Some(approver_roles)) = (max, extend, approvals, roles) {
                self.requires.push(Require { id, when, max, extend, approvals, approver_roles });
            }
        }
        for rule in &file.forbid {
            let raw = rule.get_ref();
            let spot = Spot { place, what: format!("forbid {}", short(raw.id.get_ref())) };
            let Some((id, when)) = self.head(&spot, &raw.id, &raw.when()) else { continue };
            self.forbids.push(Forbid { id, when });
        }
    }

    fn head(&mut self, spot: &Spot<'_>, id: &Spanned<String>, when: &raw::When<'_>) -> Option<(RuleId, Matcher)> {
        let parsed: Option<RuleId> = self.value(spot, "id", "no id for a rule", id);
        let fresh = self.first(spot, "rule", id.get_ref(), &id.span());
        let when = self.matcher(spot, when);
        parsed.filter(|_| fresh).zip(when)
    }

    fn matcher(&mut self, spot: &Spot<'_>, raw: &raw::When<'_>) -> Option<Matcher> {
        let before = self.errors.len();
        let mut when = Matcher {
            roles: self.words(spot, "role", raw.role.as_ref()),
            users: self.words(spot, "user", raw.user.as_ref()),
            orgs: self.words(spot, "org", raw.org.as_ref()),
            external: raw.external,
            tasks: self.words(spot, "task", raw.task.as_ref()),
            ..Matcher::default()
        };
        self.known_tasks(spot, raw.task.as_ref());
        if let Some(asset) = raw.asset {
            when.assets = self.words(spot, "asset.name", asset.name.as_ref());
            when.types = self.words(spot, "asset.type", asset.r#type.as_ref());
            when.sites = self.words(spot, "asset.site", asset.site.as_ref());
            when.criticality = self.words(spot, "asset.criticality", asset.criticality.as_ref());
            when.labels = self.labels(spot, &asset.label);
        }
        (self.errors.len() == before).then_some(when)
    }

    fn known_tasks(&mut self, spot: &Spot<'_>, tasks: Option<&Words>) {
        for task in tasks.into_iter().flat_map(|words| words.get_ref()) {
            // A task whose own entry is wrong has been complained about; it is not unknown.
            let name = task.get_ref();
            if !self.tasks.contains_key(name.as_str()) && !self.seen.contains_key(&("task", name.clone())) {
                let problem = Problem::UnknownTask { task: short(name), known: list(self.tasks.keys()) };
                self.error(spot, "task", &task.span(), problem);
            }
        }
    }

    fn words<T: FromStr + Ord>(&mut self, spot: &Spot<'_>, key: &str, words: Option<&Words>) -> Option<BTreeSet<T>>
    where
        T::Err: Display,
    {
        let words = words?;
        if words.get_ref().is_empty() {
            self.error(spot, key, &words.span(), Problem::EmptyList);
        }
        if words.get_ref().len() > MOST_WORDS {
            let problem = Problem::TooMany { what: "entries of one list", most: MOST_WORDS };
            self.error(spot, key, &words.span(), problem);
            return None;
        }
        Some(words.get_ref().iter().filter_map(|word| self.value(spot, key, "not taken here", word)).collect())
    }

    fn labels(
        &mut self,
        spot: &Spot<'_>,
        labels: &BTreeMap<String, Spanned<raw::OneOrMany>>,
    ) -> BTreeMap<String, BTreeSet<String>> {
        let mut checked = BTreeMap::new();
        for (key, values) in labels {
            let span = values.span();
            let values: Vec<&String> = match values.get_ref() {
                raw::OneOrMany::One(value) => vec![value],
                raw::OneOrMany::Many(values) => values.iter().collect(),
            };
            if values.is_empty() {
                self.error(spot, "asset.label", &span, Problem::EmptyList);
            }
            for value in &values {
                let label = Spanned::new(span.clone(), format!("{key}={value}"));
                let _: Option<thinlane_model::Label> = self.value(spot, "asset.label", "no label", &label);
            }
            checked.insert(key.clone(), values.into_iter().cloned().collect());
        }
        checked
    }

    fn approvers(&mut self, spot: &Spot<'_>, words: Option<&Words>) -> Option<Roles> {
        let Some(words) = words else { return Some(default_approvers()) };
        let before = self.errors.len();
        let roles: Roles = self.words(spot, "approver_role", Some(words)).unwrap_or_default();
        if roles.contains(&Role::Auditor) {
            let problem = Problem::Contradiction("an auditor changes nothing, so approves nothing");
            self.error(spot, "approver_role", &words.span(), problem);
        }
        (self.errors.len() == before).then_some(roles)
    }

    fn finish(mut self) -> Result<Policy, Vec<PolicyError>> {
        let rules = self.permits.len() + self.requires.len() + self.forbids.len();
        for (what, count, most) in [("tasks", self.tasks.len(), MOST_TASKS), ("rules", rules, MOST_RULES)] {
            if count > most {
                let problem = Problem::TooMany { what, most };
                self.errors.push(PolicyError { file: "policy".to_owned(), line: 0, key: String::new(), problem });
            }
        }
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        self.permits.sort_by(|one, other| one.id.cmp(&other.id));
        self.requires.sort_by(|one, other| one.id.cmp(&other.id));
        self.forbids.sort_by(|one, other| one.id.cmp(&other.id));
        let hash = hash(&self.tasks, &self.permits, &self.requires, &self.forbids);
        let Build { tasks, permits, requires, forbids, .. } = self;
        Ok(Policy { tasks, permits, requires, forbids, hash })
    }
}

fn hash(
    tasks: &BTreeMap<TaskName, TaskProfile>,
    permits: &[Permit],
    requires: &[Require],
    forbids: &[Forbid],
) -> String {
    #[derive(Serialize)]
    struct Content<'a> {
        form: u32,
        tasks: &'a BTreeMap<TaskName, TaskProfile>,
        permits: &'a [Permit],
        requires: &'a [Require],
        forbids: &'a [Forbid],
    }
    let content = Content { form: 1, tasks, permits, requires, forbids };
    let bytes = serde_json::to_vec(&content).expect("checked rules are maps with text keys, lists, texts and integers");
    data_encoding::HEXLOWER.encode(&Sha256::digest(&bytes))
}

fn short(text: &str) -> String {
    text.chars().take(64).collect()
}
