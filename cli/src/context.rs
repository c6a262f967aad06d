//! What every command has at hand: the person's files, the way to show things, the controller.

use reqwest::Url;
use zeroize::Zeroizing;

use crate::api::{Client, Trust, parse_url};
use crate::args::Global;
use crate::failure::{Exit, Failure, Result};
use crate::home::{Config, Home};
use crate::out::Out;
use crate::secret::Source;

#[derive(Clone)]
pub struct Context {
    pub home: Home,
    pub config: Config,
    pub out: Out,
    url: Option<Url>,
    token_file: Option<Source>,
}

impl Context {
    /// Reads the configuration; what the command line or the environment says comes first.
    pub fn new(global: &Global, out: Out) -> Result<Context> {
        let home = Home::locate(global.home.as_deref())?;
        let config = home.read_config()?;
        let out = if config.json == Some(true) && !out.json { Out::new(true, global.quiet) } else { out };
        Ok(Context { home, config, out, url: global.url.clone(), token_file: global.token_file.clone() })
    }

    /// The flags that lead another process of this program to the same files and controller.
    pub fn as_flags(&self) -> Vec<std::ffi::OsString> {
        let mut flags = Vec::new();
        let mut push = |name: &str, value: std::ffi::OsString| flags.extend([name.into(), value]);
        if let Some(dir) = self.home.moved() {
            push("--home", dir.into());
        }
        if let Some(url) = &self.url {
            push("--url", url.as_str().into());
        }
        if let Some(source) = &self.token_file {
            push("--token-file", source.to_string().into());
        }
        flags
    }

    /// Whether the log-in comes from a file of the caller's.
    pub fn has_token_file(&self) -> bool {
        self.token_file.is_some()
    }

    /// The controller in use.
    pub fn controller(&self) -> Result<Url> {
        if let Some(url) = &self.url {
            return Ok(url.clone());
        }
        let text = self.config.url.as_deref().ok_or_else(|| {
            Failure::failed("no controller is known yet")
                .next("thinlane login https://HOST:7443 --ca-fingerprint sha256:HEX")
        })?;
        parse_url(text).map_err(|why| Failure::usage(format!("{}: {why}", self.home.config_file().display())))
    }

    /// A client that trusts the pinned CA and is nobody.
    pub fn anonymous(&self) -> Result<Client> {
        let url = self.controller()?;
        match self.home.read_ca()? {
            Some(ca) => Client::new(url, Trust::Ca(ca)),
            None => Err(Failure::new(Exit::Verification, format!("no CA is pinned for {}", url.authority()))
                .next(format!("thinlane login {url} --ca-fingerprint sha256:HEX"))),
        }
    }

    /// A client that is logged in.
    pub fn client(&self) -> Result<Client> {
        let client = self.anonymous()?;
        Ok(client.with_token(self.token()?))
    }

    /// The bearer token in use.
    pub fn token(&self) -> Result<Zeroizing<String>> {
        if let Some(source) = &self.token_file {
            return source.read("--token-file");
        }
        let url = self.controller()?;
        let stored = self.home.read_token()?.filter(|stored| stored.url == url.as_str());
        stored.map(|stored| Zeroizing::new(stored.token)).ok_or_else(|| {
            Failure::new(Exit::Denied, format!("you are not logged in at {}", url.authority())).next("thinlane login")
        })
    }
}
