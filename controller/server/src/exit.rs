//! Exit codes, as scripts rely on them.

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Exit {
    Done,
    Failure,
    Denied,
    /// The log or the state that it leads to was changed from outside.
    Unverified,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failure => 1,
            Exit::Denied => 3,
            Exit::Unverified => 7,
        })
    }
}
