//! `config.toml`: the controller and the person, as the last log-in left them.

use std::path::Path;

use serde::{Deserialize, Serialize};
use thinlane_model::Login;

use crate::failure::{Exit, Failure, Result};

/// What need not be said with every command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The controller, `https://HOST:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Who logs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Login>,
    /// JSON instead of tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<bool>,
}

impl Config {
    /// Reads TOML; an unknown key or a wrong value is an error that names its line.
    pub fn parse(text: &str, file: &Path) -> Result<Config> {
        toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            Failure::new(Exit::Usage, format!("{}:{line}: {}", file.display(), error.message().trim_end()))
                .next("keys are url, user and json; man thinlane-config")
        })
    }

    /// The file's text.
    pub fn render(&self) -> String {
        let mut text = String::from("# Written by `thinlane login`; see thinlane-config(5).\n");
        // A JSON string or boolean is a TOML one too (TOML 1.0, basic strings).
        let mut line = |key: &str, value: serde_json::Value| text.push_str(&format!("{key} = {value}\n"));
        if let Some(url) = &self.url {
            line("url", url.as_str().into());
        }
        if let Some(user) = &self.user {
            line("user", user.as_str().into());
        }
        if let Some(json) = self.json {
            line("json", json.into());
        }
        text
    }
}
