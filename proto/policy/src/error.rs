//! What is wrong with a policy, and where.

use std::fmt;

/// One error in one policy file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PolicyError {
    pub file: String,
    /// Counted from 1; 0 where the error is of the file or the policy as a whole.
    pub line: usize,
    /// The rule and key, as in `permit contractors: max`; empty where TOML itself is at fault.
    pub key: String,
    pub problem: Problem,
}

/// What is wrong there, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// TOML's own words: syntax, an unknown key with those allowed, a value of the wrong kind.
    #[error("{0}")]
    Toml(String),
    #[error("{found:?} is {kind}: {allowed}")]
    Value { kind: &'static str, found: String, allowed: String },
    #[error("no task {task:?}; tasks of this policy: {known}")]
    UnknownTask { task: String, known: String },
    #[error("{what} {name:?} is there twice (also in {first})")]
    Duplicate { what: &'static str, name: String, first: String },
    #[error("an empty list matches nothing; name something, or leave the key out to match everything")]
    EmptyList,
    #[error("{what}: at most {most}")]
    TooMany { what: &'static str, most: usize },
    #[error("{what} is missing")]
    Missing { what: &'static str },
    #[error("{0}")]
    Contradiction(&'static str),
}

impl fmt::Display for PolicyError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.file)?;
        if self.line > 0 {
            write!(to, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(to, ": {}", self.key)?;
        }
        write!(to, ": {}", self.problem)
    }
}
