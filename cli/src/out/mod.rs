//! What is shown: results on stdout as a table or as JSON, progress and hints on stderr.

pub mod png;
pub mod qr;
pub mod table;
pub mod text;
pub mod time;

use std::io::{IsTerminal, Write};

use serde::Serialize;
use serde_json::Value;
use thinlane_wire::api::SCHEMA;

use crate::failure::{Failure, Result};
use crate::system::terminal::understands_codes;
pub use table::Table;
pub use text::clean;

/// Where and how results are shown.
#[derive(Debug, Clone, Copy)]
pub struct Out {
    /// One JSON object per line instead of tables.
    pub json: bool,
    /// Colour on stdout.
    pub colour: bool,
    /// Hints and progress on stderr.
    pub hints: bool,
}

impl Out {
    /// As the terminal and `NO_COLOR` allow.
    pub fn new(json: bool, quiet: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let coded = understands_codes();
        Self { json, colour: !json && !plain && coded && std::io::stdout().is_terminal(), hints: !quiet }
    }

    /// One JSON object on one line, with its `schema`.
    pub fn object(&self, value: &impl Serialize) -> Result<()> {
        let value = with_schema(serde_json::to_value(value).map_err(|error| Failure::failed(error.to_string()))?);
        self.line(&value.to_string())
    }

    /// JSON when asked for, else what `text` makes.
    pub fn show<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        if self.json { self.object(value) } else { self.line(text(value).trim_end()) }
    }

    /// One JSON object per line when asked for, else the table that `table` makes; a hint when there is nothing.
    pub fn list<T: Serialize>(&self, items: &[T], nothing: &str, table: impl FnOnce(&[T]) -> Table) -> Result<()> {
        if self.json {
            return items.iter().try_for_each(|item| self.object(item));
        }
        if items.is_empty() {
            self.hint(nothing);
            return Ok(());
        }
        self.line(table(items).render(self.colour).trim_end())
    }

    /// A result line on stdout.
    pub fn line(&self, text: &str) -> Result<()> {
        let mut to = std::io::stdout().lock();
        to.write_all(text.as_bytes()).and_then(|()| to.write_all(b"\n")).and_then(|()| to.flush()).map_err(|error| {
            match error.kind() {
                // The reader has seen enough (`| head`).
                std::io::ErrorKind::BrokenPipe => Failure::silent(crate::failure::Exit::Other(141)),
                _ => Failure::failed(format!("stdout: {}", crate::failure::plain(&error))),
            }
        })
    }

    /// A sentence for the person, on stderr.
    pub fn hint(&self, text: &str) {
        if self.hints {
            // Nobody is there to be told that stderr is closed.
            let _ = writeln!(std::io::stderr().lock(), "{}", clean(text));
        }
    }

    /// Says why a command failed: a sentence and the next step, or both as JSON, on stderr.
    pub fn failure(&self, failure: &Failure) {
        if failure.message.is_empty() {
            return;
        }
        let mut to = std::io::stderr().lock();
        let _ = if self.json {
            writeln!(to, "{}", failure_json(failure))
        } else {
            let local = |text: &str| clean(&time::localised(text));
            let next = failure.next.as_deref().map(|next| format!("next: {}\n", local(next))).unwrap_or_default();
            write!(to, "error: {}\n{next}", local(&failure.message))
        };
    }
}

/// A failure as JSON: the controller's shape, plus the exit code.
pub fn failure_json(failure: &Failure) -> Value {
    serde_json::json!({
        "schema": SCHEMA,
        "error": { "code": failure.code, "message": failure.message, "next": failure.next, "exit": failure.exit.code() },
    })
}

/// The object with `"schema": 1` where it carries none yet.
pub fn with_schema(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.entry("schema").or_insert_with(|| SCHEMA.into());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_carries_its_schema_once() {
        let value = with_schema(serde_json::json!({"a": 1}));
        assert_eq!(value["schema"], 1);
        assert_eq!(with_schema(value.clone()), value);
    }
}
