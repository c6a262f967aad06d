//! TOML to checked rules, and the decision with the rules that determined it.
//!
//! All files of the policy directory are one [`Policy`]. What it says of one [`Ask`]:
//!
//! ```text
//! a forbid matches                -> deny, whatever permits
//! no permit matches               -> deny
//! otherwise                       -> the one matching permit that asks least
//!                                    (fewest approvals, then longest time, then id)
//!                                    plus what every matching require adds
//! ```
//!
//! So adding a permit takes nothing away, and adding a require or a forbid gives nothing; both are tested
//! as properties. Time asked for is shortened to what rule and task allow, never refused for its length.
//!
//! **Approvals.** The chosen permit and every matching require each make one [`Need`]: so many approvals by
//! distinct people who hold one of its roles. A request is approved when every need is met. One person's
//! approval counts for each need whose roles that person holds: somebody who is approver and ops meets a need
//! of either, but never counts twice for one need.
//!
//! An invalid policy decides nothing: [`PolicyState::Invalid`] denies all, with the errors.
#![forbid(unsafe_code)]

mod cases;
mod decide;
mod error;
mod load;
mod raw;
mod rule;

pub use cases::{CaseFailure, Cases, CasesError, Outcome};
pub use decide::{Ask, AssetFacts, Decision, Need, Obligations, Verdict};
pub use error::{PolicyError, Problem};
pub use rule::{Forbid, Matcher, Mismatch, NameKind, Permit, Require, TaskProfile};

use std::collections::BTreeMap;

use thinlane_model::{RuleId, TaskName};

/// Tasks and rules that have been checked as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    tasks: BTreeMap<TaskName, TaskProfile>,
    /// Sorted by id, as `requires` and `forbids` are: the order of files and rules means nothing.
    permits: Vec<Permit>,
    requires: Vec<Require>,
    forbids: Vec<Forbid>,
    hash: String,
}

/// The policy in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyState {
    Valid(Policy),
    /// Everything is denied until a valid policy is loaded.
    Invalid(Vec<PolicyError>),
}

impl Policy {
    /// Reads and checks `(file name, text)` pairs as one policy; every error found is returned.
    pub fn load<N: AsRef<str>, T: AsRef<str>>(files: &[(N, T)]) -> Result<Policy, Vec<PolicyError>> {
        load::load(files)
    }

    /// What this policy says of one request.
    pub fn decide(&self, ask: &Ask<'_>) -> Decision {
        decide::decide(self, ask)
    }

    /// SHA-256, in hexadecimal, over the checked content: comments and the order of files and rules do not count.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The profile of a task.
    pub fn task(&self, name: &TaskName) -> Option<&TaskProfile> {
        self.tasks.get(name)
    }

    /// All task profiles by name.
    pub fn tasks(&self) -> impl Iterator<Item = (&TaskName, &TaskProfile)> {
        self.tasks.iter()
    }

    pub fn permits(&self) -> &[Permit] {
        &self.permits
    }

    pub fn requires(&self) -> &[Require] {
        &self.requires
    }

    pub fn forbids(&self) -> &[Forbid] {
        &self.forbids
    }

    /// Every rule by kind, with its keys.
    pub fn rules(&self) -> impl Iterator<Item = (&'static str, &RuleId, &Matcher)> {
        let permits = self.permits.iter().map(|rule| ("permit", &rule.id, &rule.when));
        let requires = self.requires.iter().map(|rule| ("require", &rule.id, &rule.when));
        permits.chain(requires).chain(self.forbids.iter().map(|rule| ("forbid", &rule.id, &rule.when)))
    }

    /// The forbids that match, whatever permits: what ends a running session when a policy is loaded.
    pub fn forbidding(&self, ask: &Ask<'_>) -> impl Iterator<Item = &Forbid> {
        self.forbids.iter().filter(move |rule| rule.when.mismatch(ask).is_none())
    }
}

impl PolicyState {
    /// The policy, if there is a valid one.
    pub fn valid(&self) -> Option<&Policy> {
        match self {
            PolicyState::Valid(policy) => Some(policy),
            PolicyState::Invalid(_) => None,
        }
    }

    /// Loads files into the state that they deserve.
    pub fn load<N: AsRef<str>, T: AsRef<str>>(files: &[(N, T)]) -> Self {
        match Policy::load(files) {
            Ok(policy) => PolicyState::Valid(policy),
            Err(errors) => PolicyState::Invalid(errors),
        }
    }
}

#[cfg(test)]
mod tests;
