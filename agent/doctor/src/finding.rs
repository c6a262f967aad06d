//! A finding: what, why it matters, what to do.

use serde::Serialize;

/// How bad it is; a problem makes the exit code 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Something does not work.
    Problem,
    /// It works, but not as it should, or not for long.
    Warning,
    /// Good to know.
    Note,
}

impl Severity {
    /// As it is written in front of a finding.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Problem => "PROBLEM",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// One thing that a person should know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// Stable, for scripts: `no-default-route`.
    pub code: &'static str,
    /// What is found, in one sentence.
    pub message: String,
    /// Why it matters.
    pub why: String,
    /// The next step.
    pub next: String,
    /// Something can pass that should not.
    #[serde(skip_serializing_if = "is_false")]
    pub open: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Finding {
    pub fn problem(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Problem, code, message)
    }

    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message)
    }

    pub fn note(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Note, code, message)
    }

    pub fn new(severity: Severity, code: &'static str, message: impl Into<String>) -> Self {
        Self { severity, code, message: message.into(), why: String::new(), next: String::new(), open: false }
    }

    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = next.into();
        self
    }

    /// Marks it as something that can pass and should not.
    #[must_use]
    pub fn open(mut self) -> Self {
        self.open = true;
        self
    }
}

/// The findings as text, the worst first: a word and a code, the sentence, why, and the next step.
pub fn render(findings: &[Finding]) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.severity);
    let mut text = String::new();
    for finding in sorted {
        text.push_str(&format!("{:<8} {}\n", finding.severity.word(), finding.code));
        text.push_str(&format!("  {}\n", printable(&finding.message)));
        for (name, line) in [("why: ", &finding.why), ("next:", &finding.next)] {
            if !line.is_empty() {
                text.push_str(&format!("  {name} {}\n", printable(line)));
            }
        }
    }
    text
}

/// Parts of a sentence come from elsewhere (a server's words, an interface's name): none of it drives the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first_and_is_told_by_words_alone() {
        let findings = [
            Finding::note("userspace-wireguard", "It is so.").why("Because."),
            Finding::problem("no-default-route", "There is\u{1b}[31m none.").next("Plug it in."),
        ];
        let text = render(&findings);
        assert!(text.starts_with("PROBLEM  no-default-route\n"), "{text}");
        assert!(text.contains("next: Plug it in.") && text.contains("why:  Because."), "{text}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn a_finding_is_written_with_its_code_and_severity() {
        let text = serde_json::to_string(&Finding::warning("wrong-clock", "x")).expect("JSON");
        assert_eq!(
            text, r#"{"severity":"warning","code":"wrong-clock","message":"x","why":"","next":""}"#,
            "`open` only where something is"
        );
    }
}
