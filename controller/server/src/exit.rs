//! How a command ends: exit codes, as scripts rely on them, and the words for a failure.

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

impl Exit {
    /// As a shell tells that SIGPIPE ended a program.
    pub const UNREAD: i32 = 128 + 13;

    fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failure => 1,
            Exit::Denied => 3,
            Exit::Unverified => 7,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit.code())
    }
}

/// What standard error says of a failure: the sentence and, on a line of its own, the next step; or one JSON object.
pub fn told(error: &anyhow::Error, exit: Exit, json: bool) -> String {
    let text = without_numbers(format!("{error:#}"));
    let (message, next) = split(&text);
    if json {
        let error = serde_json::json!({"message": message, "next": next, "exit": exit.code()});
        return serde_json::json!({"schema": 1, "error": error}).to_string();
    }
    match next {
        Some(next) => format!("error: {message}\nnext: {next}"),
        None => format!("error: {message}"),
    }
}

/// A sentence, and the next step that it ends with in brackets.
fn split(text: &str) -> (&str, Option<&str>) {
    let inside = text.strip_suffix(')').and_then(|text| text.rsplit_once(" (next: "));
    inside.map_or((text, None), |(message, next)| (message, Some(next)))
}

/// Without `(os error N)`, which says nothing to a person.
fn without_numbers(mut text: String) -> String {
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
    fn a_failure_is_a_sentence_and_its_next_step_in_words_and_in_json() {
        let error = anyhow::anyhow!("no such file (os error 2) (next: `make (one) x`)").context("cannot read X");
        assert_eq!(told(&error, Exit::Failure, false), "error: cannot read X: no such file\nnext: `make (one) x`");
        let json: serde_json::Value = serde_json::from_str(&told(&error, Exit::Unverified, true)).expect("JSON");
        assert_eq!(json["error"]["next"], "`make (one) x`");
        assert_eq!((&json["schema"], &json["error"]["exit"]), (&1.into(), &7.into()));
        let plain = anyhow::anyhow!("no user (none)");
        assert_eq!(told(&plain, Exit::Failure, false), "error: no user (none)");
    }
}
