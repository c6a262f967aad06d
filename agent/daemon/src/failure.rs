//! How a command fails: what and why, what to do next, and the exit code that scripts rely on.

use std::fmt;

/// Exit codes, the same for all of Thinlane's programs.
pub mod exit {
    pub const FAILURE: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const DENIED: u8 = 3;
    pub const UNREACHABLE: u8 = 6;
    pub const VERIFICATION: u8 = 7;
}

/// The end of a command that did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    /// What and why, in a sentence.
    pub what: String,
    /// The next step to take.
    pub next: Option<String>,
}

impl Failure {
    /// A failure without a class of its own (exit code 1).
    pub fn new(what: impl fmt::Display) -> Self {
        Self::coded(exit::FAILURE, what)
    }

    pub fn coded(code: u8, what: impl fmt::Display) -> Self {
        Self { code, what: what.to_string(), next: None }
    }

    /// As `thinlane --json` tells a failure.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({"schema": 1, "error": {"message": self.what, "next": self.next, "exit": self.code}})
    }

    #[must_use]
    pub fn next(mut self, next: impl fmt::Display) -> Self {
        self.next = Some(next.to_string());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.what)?;
        match &self.next {
            Some(next) => write!(to, "\n  next: {next}"),
            None => Ok(()),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        // The whole chain on one line: the cause is most often the useful half.
        Self::new(format_args!("{error:#}"))
    }
}
