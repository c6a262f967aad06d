//! Cases: examples of requests with the decision that a policy must take.
//!
//! A cases file lies beside the policy, not in it (`policies/cases/*.toml`), and reads:
//!
//! ```toml
//! [[case]]
//! name = "a contractor needs ops as well"
//! who = { login = "vera", role = ["requester"], org = "acme" }   # with an org she is external
//! asset = { name = "rtu-7", type = "rtu", site = "north", criticality = "low", label = { owner = "acme" } }
//! task = "iec104"
//! for = "2h"
//! expect = "permit"          # permit | deny
//! # each of these is compared only where it is given
//! rules = ["requesters", "externals"]
//! time = "1h"
//! approvals = 1
//! approver_role = ["ops", "approver"]
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;
use thinlane_model::{
    AssetName, AssetType, Criticality, Login, OrgName, Role, Roles, RuleId, SiteName, Span, TaskName, Wall,
};

use crate::rule::list;
use crate::{Ask, AssetFacts, Policy, Verdict};

const MOST_BYTES: usize = 1 << 20;

/// The cases of one file.
#[derive(Debug, Clone)]
pub struct Cases(Vec<Case>);

/// Why a text is no cases file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CasesError {
    #[error("line {line}: {message}")]
    Toml { line: usize, message: String },
    #[error("a cases file has at most {MOST_BYTES} bytes")]
    Long,
    #[error("no [[case]] in it: it would prove nothing")]
    Empty,
}

/// What became of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub name: String,
    /// Empty: the policy decides as the case says.
    pub failures: Vec<CaseFailure>,
    /// The reasons that the decision gave.
    pub reasons: Vec<String>,
}

/// One difference between what a case says and what the policy decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected {expected}, decided {decided}")]
pub struct CaseFailure {
    pub what: &'static str,
    pub expected: String,
    pub decided: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    case: Vec<Case>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    who: Who,
    asset: Asset,
    task: TaskName,
    r#for: Option<Span>,
    #[serde(default)]
    at: Wall,
    expect: Verdict,
    rules: Option<Vec<RuleId>>,
    time: Option<Span>,
    approvals: Option<u32>,
    approver_role: Option<Roles>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Who {
    login: Login,
    #[serde(default = "requester")]
    role: Roles,
    org: Option<OrgName>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asset {
    name: AssetName,
    r#type: AssetType,
    site: SiteName,
    #[serde(default)]
    criticality: Criticality,
    #[serde(default)]
    label: BTreeMap<String, String>,
}

fn requester() -> Roles {
    Roles::from([Role::Requester])
}

impl Cases {
    /// Reads one cases file; unknown keys are refused.
    pub fn parse(text: &str) -> Result<Self, CasesError> {
        if text.len() > MOST_BYTES {
            return Err(CasesError::Long);
        }
        let file: File = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.as_bytes().get(..start).unwrap_or_default();
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            CasesError::Toml { line, message: error.message().to_owned() }
        })?;
        if file.case.is_empty() { Err(CasesError::Empty) } else { Ok(Self(file.case)) }
    }

    /// Puts every case to the policy, in order.
    pub fn run(&self, policy: &Policy) -> Vec<Outcome> {
        self.0.iter().map(|case| case.run(policy)).collect()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Case {
    fn run(&self, policy: &Policy) -> Outcome {
        let decision = policy.decide(&Ask {
            login: &self.who.login,
            roles: &self.who.role,
            org: self.who.org.as_ref(),
            external: self.who.org.is_some(),
            asset: AssetFacts {
                name: &self.asset.name,
                kind: &self.asset.r#type,
                criticality: self.asset.criticality,
                labels: &self.asset.label,
                site: &self.asset.site,
            },
            task: &self.task,
            time: self.r#for,
            now: self.at,
        });
        let mut failures = Vec::new();
        let mut compare = |what, expected: String, decided: String| {
            if expected != decided {
                failures.push(CaseFailure { what, expected, decided });
            }
        };
        compare("expect", word(self.expect), word(decision.verdict));
        if let Some(rules) = &self.rules {
            compare("rules", every(rules), every(&decision.rules));
        }
        if let Some(time) = self.time {
            compare("time", time.to_string(), Span::from_secs(decision.obligations.seconds).to_string());
        }
        if let Some(approvals) = self.approvals {
            compare("approvals", approvals.to_string(), decision.obligations.approvals.to_string());
        }
        if let Some(roles) = &self.approver_role {
            compare("approver_role", list(roles), list(&decision.obligations.approver_roles));
        }
        Outcome { name: self.name.clone(), failures, reasons: decision.reasons }
    }
}

/// All of them: a list that is cut would hide a difference.
fn every(rules: &[RuleId]) -> String {
    rules.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(", ")
}

fn word(verdict: Verdict) -> String {
    match verdict {
        Verdict::Permit => "permit".to_owned(),
        Verdict::Deny => "deny".to_owned(),
    }
}
