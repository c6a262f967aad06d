//! One request against the policy.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thinlane_model::{
    AssetName, AssetType, Criticality, Login, OrgName, Roles, RuleId, SiteName, Span, TaskName, Wall,
};

use crate::rule::{Matcher, Mismatch, list};
use crate::{Permit, Policy, TaskProfile};

/// Everything that a decision may depend on.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    pub login: &'a Login,
    pub roles: &'a Roles,
    pub org: Option<&'a OrgName>,
    pub external: bool,
    pub asset: AssetFacts<'a>,
    pub task: &'a TaskName,
    /// `None`: the task's default.
    pub time: Option<Span>,
    pub now: Wall,
}

/// The asset that is asked for.
#[derive(Debug, Clone)]
pub struct AssetFacts<'a> {
    pub name: &'a AssetName,
    pub kind: &'a AssetType,
    pub criticality: Criticality,
    pub labels: &'a BTreeMap<String, String>,
    pub site: &'a SiteName,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[must_use]
pub enum Verdict {
    Permit,
    Deny,
}

/// So many approvals by distinct people who hold one of these roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// The rule that asks for it.
    pub rule: RuleId,
    pub approvals: u32,
    pub roles: Roles,
}

/// What a permit comes with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Obligations {
    /// Time granted, in whole seconds; 0 when denied.
    pub seconds: u64,
    /// Seconds that the engineer may add to it without asking anybody; absent: up to the longest that is permitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extend: Option<u64>,
    /// The fewest people who can meet all needs: the largest single one.
    pub approvals: u32,
    /// All roles that any need names.
    pub approver_roles: Roles,
    /// Every one must be met.
    pub needs: Vec<Need>,
}

/// The answer, with the rules that determined it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct Decision {
    pub verdict: Verdict,
    /// A deny: the forbids that matched, or none. A permit: the permit taken, then the requires added.
    pub rules: Vec<RuleId>,
    pub obligations: Obligations,
    /// Sentences: the inputs, then why.
    pub reasons: Vec<String>,
    /// What to do next, as one sentence.
    pub next: String,
}

impl Decision {
    pub fn is_permit(&self) -> bool {
        self.verdict == Verdict::Permit
    }

    /// A deny that no rule took, because something stands before every rule.
    pub fn deny(reason: String, next: String) -> Self {
        Self {
            verdict: Verdict::Deny,
            rules: Vec::new(),
            obligations: Obligations::default(),
            reasons: vec![reason],
            next,
        }
    }
}

pub(crate) fn decide(policy: &Policy, ask: &Ask<'_>) -> Decision {
    let inputs = describe(ask);
    let Some(task) = policy.task(ask.task) else {
        let known = list(policy.tasks.keys());
        let reason = format!("the policy has no task {}; tasks: {known}", ask.task);
        return denied(Vec::new(), vec![inputs, reason], "see `thinlane task ls`".to_owned());
    };
    let forbids: Vec<&crate::Forbid> = policy.forbidding(ask).collect();
    if !forbids.is_empty() {
        let mut reasons = vec![inputs];
        reasons.extend(forbids.iter().map(|rule| format!("forbidden by {}{}", rule.id, because(&rule.when))));
        let next = "ask whoever keeps the policy; no approval lifts a forbid".to_owned();
        return denied(forbids.iter().map(|rule| rule.id.clone()).collect(), reasons, next);
    }
    let asked = ask.time.unwrap_or(task.default);
    let offer = policy
        .permits
        .iter()
        .filter(|rule| rule.when.mismatch(ask).is_none())
        .min_by_key(|rule| (rule.approvals, Reverse(granted(asked, rule.max, task)), &rule.id));
    match offer {
        Some(permit) => permitted(policy, ask, task, permit, asked, inputs),
        None => unmatched(policy, ask, inputs),
    }
}

fn granted(asked: Span, rule: Option<Span>, task: &TaskProfile) -> Span {
    asked.min(task.max).min(rule.unwrap_or(task.max))
}

fn permitted(
    policy: &Policy,
    ask: &Ask<'_>,
    task: &TaskProfile,
    permit: &Permit,
    asked: Span,
    inputs: String,
) -> Decision {
    let mut reasons = vec![inputs, format!("permitted by {}{}", permit.id, because(&permit.when))];
    let mut rules = vec![permit.id.clone()];
    let mut needs = Vec::new();
    let mut time = granted(asked, permit.max, task);
    let (mut longest, mut extend) = (granted(task.max, permit.max, task), task.extend);
    if permit.approvals > 0 {
        needs.push(Need { rule: permit.id.clone(), approvals: permit.approvals, roles: permit.approver_roles.clone() });
    }
    for rule in policy.requires.iter().filter(|rule| rule.when.mismatch(ask).is_none()) {
        rules.push(rule.id.clone());
        reasons.push(format!("{} adds to it{}", rule.id, because(&rule.when)));
        time = time.min(rule.max.unwrap_or(time));
        longest = longest.min(rule.max.unwrap_or(longest));
        extend = extend.into_iter().chain(rule.extend).min();
        if rule.approvals > 0 {
            needs.push(Need { rule: rule.id.clone(), approvals: rule.approvals, roles: rule.approver_roles.clone() });
        }
    }
    if time < asked {
        reasons.push(format!("shortened from {asked} to {time}, the least of request, rules and task"));
    }
    reasons.extend(needs.iter().map(|need| {
        format!("{} asks for {} of role {}", need.rule, plural(need.approvals, "approval"), list(&need.roles))
    }));
    let approvals = needs.iter().map(|need| need.approvals).max().unwrap_or(0);
    let approver_roles: Roles = needs.iter().flat_map(|need| need.roles.iter().copied()).collect();
    let next = match approvals {
        0 => format!("`thinlane connect {}`", ask.asset.name),
        _ => format!("wait for {} ({})", plural(approvals, "approval"), list(&approver_roles)),
    };
    let alone = longest.min(time + extend.unwrap_or(longest));
    reasons.push(match (alone > time, longest > alone) {
        (false, false) => "nobody may extend it".to_owned(),
        (false, true) => format!("only ops may extend it, to {longest} in all"),
        (true, false) => format!("the engineer or ops may extend it, to {longest} in all"),
        (true, true) => format!("the engineer may extend it to {alone} in all, ops to {longest}"),
    });
    let obligations =
        Obligations { seconds: time.as_secs(), extend: extend.map(Span::as_secs), approvals, approver_roles, needs };
    Decision { verdict: Verdict::Permit, rules, obligations, reasons, next }
}

/// No permit matched: name the ones that came nearest and the key that each fails on.
fn unmatched(policy: &Policy, ask: &Ask<'_>, inputs: String) -> Decision {
    const SHOWN: usize = 5;
    let mut reasons = vec![inputs, "no rule permits it".to_owned()];
    let misses: Vec<(&RuleId, Mismatch)> =
        policy.permits.iter().filter_map(|rule| Some((&rule.id, rule.when.mismatch(ask)?))).collect();
    let near = misses
        .iter()
        .filter(|(_, miss)| miss.key != "task")
        .chain(misses.iter().filter(|(_, miss)| miss.key == "task"));
    reasons.extend(near.take(SHOWN).map(|(id, miss)| {
        format!("{id} does not match: {} is {}, the rule wants {}", miss.key, miss.found, miss.wanted)
    }));
    let next = "ask whoever keeps the policy for a permit that covers this".to_owned();
    denied(Vec::new(), reasons, next)
}

fn denied(rules: Vec<RuleId>, reasons: Vec<String>, next: String) -> Decision {
    Decision { verdict: Verdict::Deny, rules, obligations: Obligations::default(), reasons, next }
}

fn because(when: &Matcher) -> String {
    let keys = when.keys();
    if keys.is_empty() { ", which matches everything".to_owned() } else { format!(" (by {})", keys.join(", ")) }
}

fn plural(count: u32, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Every input in one sentence.
fn describe(ask: &Ask<'_>) -> String {
    let org = match (ask.org, ask.external) {
        (Some(org), true) => format!(", external, of {org}"),
        (Some(org), false) => format!(", of {org}"),
        (None, true) => ", external".to_owned(),
        (None, false) => String::new(),
    };
    let time = ask.time.map_or_else(|| "the default time".to_owned(), |time| time.to_string());
    let labels: Vec<String> = ask.asset.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let labels = if labels.is_empty() { String::new() } else { format!(", labels {}", list(labels)) };
    format!(
        "{} ({}{org}) asks for {} on {} (type {}, criticality {}, site {}{labels}) for {time} at {}",
        ask.login,
        list(ask.roles),
        ask.task,
        ask.asset.name,
        ask.asset.kind,
        ask.asset.criticality,
        ask.asset.site,
        ask.now,
    )
}
