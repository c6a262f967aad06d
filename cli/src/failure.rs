//! Why a command did not do what it was asked to: a sentence, the next step, and an exit code.

use std::fmt;

use thinlane_wire::api::{ErrorBody, ErrorCode};

/// What every command returns.
pub type Result<T> = std::result::Result<T, Failure>;

/// The exit codes that scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Anything that has no code of its own.
    Failure,
    /// The command line itself is wrong.
    Usage,
    /// The policy, an approver or the log-in said no.
    Denied,
    /// The time given with `--wait` is over.
    TimedOut,
    /// The session expired, was killed or was revoked.
    Ended,
    /// Controller, gateway or asset cannot be reached.
    Unreachable,
    /// A fingerprint, a signature or the log is not what it should be.
    Verification,
    /// Any other code: that of a command run inside a lane, or 128 and a signal's number.
    Other(u8),
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Denied => 3,
            Exit::TimedOut => 4,
            Exit::Ended => 5,
            Exit::Unreachable => 6,
            Exit::Verification => 7,
            Exit::Other(code) => code,
        }
    }

    /// The exit that an exit code stands for.
    pub fn from_code(code: u8) -> Exit {
        match code {
            1 => Exit::Failure,
            2 => Exit::Usage,
            3 => Exit::Denied,
            4 => Exit::TimedOut,
            5 => Exit::Ended,
            6 => Exit::Unreachable,
            7 => Exit::Verification,
            other => Exit::Other(other),
        }
    }
}

/// A failed command.
#[derive(Debug, Clone)]
pub struct Failure {
    pub exit: Exit,
    /// One sentence: what failed and why. Empty: everything has been said already.
    pub message: String,
    /// The command to run, or the thing to do, next.
    pub next: Option<String>,
    /// What the controller called it.
    pub code: Option<ErrorCode>,
    /// Seconds after which trying again makes sense.
    pub retry_after: Option<u64>,
    /// The request was sent and no answer came that can be read: what it asked for may have been done.
    pub maybe_done: bool,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), next: None, code: None, retry_after: None, maybe_done: false }
    }

    /// A failure that has no exit code of its own.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failure, message)
    }

    /// A command line that does not say what it must.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Ends the process with `exit` and says nothing more.
    pub fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Puts what was being done before why it failed.
    pub fn during(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// Whether the controller said exactly this.
    pub fn is(&self, code: ErrorCode) -> bool {
        self.code == Some(code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<ErrorBody> for Failure {
    fn from(body: ErrorBody) -> Self {
        let detail = body.error;
        let next = detail.next.or_else(|| default_next(detail.code).map(str::to_owned));
        Self {
            exit: Exit::from_code(detail.code.exit_code()),
            message: detail.message,
            next,
            code: Some(detail.code),
            retry_after: detail.retry_after,
            maybe_done: false,
        }
    }
}

/// What helps where the controller named no next step.
fn default_next(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::Unauthenticated => Some("thinlane login"),
        ErrorCode::Forbidden => Some("thinlane whoami   # shows your roles; an admin can change them"),
        ErrorCode::Ended => Some("thinlane request ls --all"),
        ErrorCode::SiteUnreachable => Some("thinlane site ls   # shows which gateways are online"),
        ErrorCode::LogUnavailable => Some("tell whoever runs the controller: its log cannot be written"),
        _ => None,
    }
}

/// Gives an I/O error the sentence it needs.
pub fn io(doing: impl fmt::Display) -> impl FnOnce(std::io::Error) -> Failure {
    move |error| Failure::failed(format!("{doing}: {}", plain(&error)))
}

/// An error in words, without `(os error N)`, which says nothing to a person.
pub fn plain(error: &impl fmt::Display) -> String {
    let mut text = error.to_string();
    while let Some(begin) = text.find(" (os error ") {
        let Some(length) = text[begin..].find(')') else { break };
        text.replace_range(begin..=begin + length, "");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controllers_words_become_the_exit_codes_of_the_contract() {
        for (code, exit) in [
            (ErrorCode::PolicyDenied, 3),
            (ErrorCode::Denied, 3),
            (ErrorCode::Unauthenticated, 3),
            (ErrorCode::Isolated, 3),
            (ErrorCode::Ended, 5),
            (ErrorCode::SiteUnreachable, 6),
            (ErrorCode::NotFound, 1),
            (ErrorCode::Conflict, 1),
        ] {
            let failure = Failure::from(ErrorBody::new(code, "no"));
            assert_eq!(failure.exit.code(), exit, "{code:?}");
            assert!(failure.is(code));
        }
    }

    #[test]
    fn every_exit_code_reads_back_as_itself() {
        for code in 1..=255 {
            assert_eq!(Exit::from_code(code).code(), code);
        }
    }

    #[test]
    fn an_io_error_is_told_without_its_number() {
        let error = std::io::Error::from_raw_os_error(2);
        assert_eq!(plain(&error), "No such file or directory");
    }
}
