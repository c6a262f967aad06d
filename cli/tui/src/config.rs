//! `tui.toml`: columns and order of every list, and how much may go to the terminal.

use serde::Deserialize;

use crate::keys::View;

/// The file, as it is written. Unknown keys are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// At most so many bytes a second go to the terminal while nobody presses a key.
    #[serde(default)]
    pub bytes_per_second: Option<u32>,
    #[serde(default)]
    pub sessions: Layout,
    #[serde(default)]
    pub requests: Layout,
    #[serde(default)]
    pub sites: Layout,
    #[serde(default)]
    pub alarms: Layout,
    #[serde(default)]
    pub log: Layout,
}

/// One list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Ids of columns, in order; absent: the standard ones.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
    #[serde(default)]
    pub sort: Option<String>,
    #[serde(default)]
    pub reverse: Option<bool>,
}

/// Why a `tui.toml` was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("line {line}: {what}")]
    Toml { line: usize, what: String },
    #[error("[{list}]: there is no column {column:?}; there are {known}")]
    Column { list: &'static str, column: String, known: String },
}

impl Config {
    /// Reads the file's text; an error names the line.
    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            ConfigError::Toml { line, what: error.message().trim_end().replace('\n', ", ") }
        })
    }

    pub fn layout(&self, view: View) -> Option<&Layout> {
        match view {
            View::Sessions => Some(&self.sessions),
            View::Requests => Some(&self.requests),
            View::Sites => Some(&self.sites),
            View::Alarms => Some(&self.alarms),
            View::Log => Some(&self.log),
            View::Detail => None,
        }
    }

    /// The same list to be written to.
    pub fn layout_mut(&mut self, view: View) -> Option<&mut Layout> {
        match view {
            View::Sessions => Some(&mut self.sessions),
            View::Requests => Some(&mut self.requests),
            View::Sites => Some(&mut self.sites),
            View::Alarms => Some(&mut self.alarms),
            View::Log => Some(&mut self.log),
            View::Detail => None,
        }
    }

    /// The file's text.
    pub fn render(&self) -> String {
        let mut text = String::from("# Columns and order of `thinlane tui`; its key c writes this file.\n");
        if let Some(bytes) = self.bytes_per_second {
            text.push_str(&format!("bytes_per_second = {bytes}\n"));
        }
        for view in View::LISTS {
            let Some(layout) = self.layout(view).filter(|layout| **layout != Layout::default()) else { continue };
            text.push_str(&format!("\n[{}]\n", view.word()));
            if let Some(columns) = &layout.columns {
                // A JSON array of plain words is a TOML one, too.
                let quoted: Vec<String> = columns.iter().map(|column| format!("{column:?}")).collect();
                text.push_str(&format!("columns = [{}]\n", quoted.join(", ")));
            }
            if let Some(sort) = &layout.sort {
                text.push_str(&format!("sort = {sort:?}\n"));
            }
            if let Some(reverse) = layout.reverse {
                text.push_str(&format!("reverse = {reverse}\n"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_as_the_same() {
        let mut config = Config { bytes_per_second: Some(4000), ..Config::default() };
        config.sessions.columns = Some(vec!["who".to_owned(), "left".to_owned()]);
        config.log.sort = Some("time".to_owned());
        config.log.reverse = Some(true);
        assert_eq!(Config::parse(&config.render()), Ok(config));
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = Config::parse("bytes_per_second = 9000\n[sessions]\ncolums = []\n").expect_err("refused");
        assert!(error.to_string().starts_with("line 3: "), "{error}");
        assert!(error.to_string().contains("columns"), "{error}");
    }
}
