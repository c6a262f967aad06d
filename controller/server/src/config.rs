//! `controller.toml`: where the controller listens, what it calls itself, and its address pools.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use thinlane_model::Endpoint;

use crate::dir::{Dir, read_text};

/// The settings of one controller. Unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where HTTPS and the agent channel are bound (TCP).
    pub listen: SocketAddr,
    /// Where the relay is bound (UDP).
    pub relay: SocketAddr,
    /// What engineers and gateways dial, HOST:PORT.
    pub public: Endpoint,
    /// What WireGuard ends dial, HOST:PORT.
    pub relay_public: Endpoint,
    /// The log's name: in every checkpoint, never to be changed.
    pub log: String,
    /// Where the policy is read from; relative to the controller's directory.
    #[serde(default = "default_policies")]
    pub policies: PathBuf,
    #[serde(default)]
    pub pools: Pools,
}

/// Address pools, as CIDR.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pools {
    /// Stable overlay addresses of assets.
    pub assets: String,
    /// Engineers' addresses, one per live session.
    pub engineers: String,
}

impl Default for Pools {
    fn default() -> Self {
        Self { assets: "198.18.0.0/16".to_owned(), engineers: "198.19.0.0/16".to_owned() }
    }
}

fn default_policies() -> PathBuf {
    PathBuf::from("policies")
}

impl Config {
    /// Reads `controller.toml`; an error names file, line and key.
    pub fn load(dir: &Dir) -> Result<Self> {
        let path = dir.config();
        if let Err(error) = path.metadata()
            && error.kind() == std::io::ErrorKind::PermissionDenied
        {
            return Err(anyhow!(
                "cannot look into {}: {error} (next: run this as the user that the directory belongs to, or as root)",
                dir.path().display()
            ));
        }
        if !path.exists() {
            return Err(anyhow!(
                "{} holds no controller: there is no controller.toml in it (next: `thinlane-controller init --dir {}`)",
                dir.path().display(),
                dir.path().display()
            ));
        }
        let text = read_text(&path)?;
        Self::parse(&text).map_err(|error| anyhow!("{}: {error}", path.display()))
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
            format!("line {line}: {}", error.message())
        })
    }

    /// Writes it as a file with a line of explanation above each key.
    pub fn save(&self, dir: &Dir) -> Result<()> {
        crate::dir::write_private(&dir.config(), self.render().as_bytes()).context("controller.toml")
    }

    fn render(&self) -> String {
        // A JSON string is a TOML basic string.
        let quote = |text: String| serde_json::Value::String(text).to_string();
        format!(
            "# Settings of this controller; `thinlane-controller run` reads them once at its start.\n\n\
             # Bound: HTTPS and the gateways' channel (TCP), the relay (UDP).\n\
             listen = {}\nrelay = {}\n\n\
             # Handed out: what engineers and gateways dial.\n\
             public = {}\nrelay_public = {}\n\n\
             # The log's name, in every checkpoint; never change it.\n\
             log = {}\n\n\
             # All *.toml in this directory are the policy; SIGHUP reads them again.\n\
             policies = {}\n\n\
             [pools]\nassets = {}\nengineers = {}\n",
            quote(self.listen.to_string()),
            quote(self.relay.to_string()),
            quote(self.public.to_string()),
            quote(self.relay_public.to_string()),
            quote(self.log.clone()),
            quote(self.policies.to_string_lossy().into_owned()),
            quote(self.pools.assets.clone()),
            quote(self.pools.engineers.clone()),
        )
    }

    /// The policy's directory.
    pub fn policy_dir(&self, dir: &Path) -> PathBuf {
        dir.join(&self.policies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Config {
        Config {
            listen: "0.0.0.0:7443".parse().expect("an address"),
            relay: "[::]:7443".parse().expect("an address"),
            public: "ctl.example:7443".parse().expect("an endpoint"),
            relay_public: "ctl.example:7444".parse().expect("an endpoint"),
            log: "ctl.example/abcd".to_owned(),
            policies: PathBuf::from("/etc/thinlane/policies"),
            pools: Pools::default(),
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        assert_eq!(Config::parse(&sample().render()), Ok(sample()));
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let text = sample().render().replace("[pools]", "[pools]\ncolour = \"red\"");
        let error = Config::parse(&text).expect_err("an unknown key");
        assert!(error.contains("colour") && error.contains("line 1"), "{error}");
    }
}
