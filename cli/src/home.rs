//! The person's own files: configuration and pinned CA, token, live lanes. All 0600 in directories 0700, or
//! in the person's profile where files have no modes.

pub mod config;
mod private;

use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use thinlane_model::{Login, Wall};
use zeroize::Zeroizing;

use crate::failure::{Exit, Failure, Result};
use crate::system::Places;
use crate::system::files::{self, Owner};
pub use config::Config;
pub use private::{check_output, open_private_log, read_bounded, write_private};

/// The largest file of ours that is read.
const LARGEST: u64 = 64 * 1024;

/// Where one person's files are.
#[derive(Debug, Clone)]
pub struct Home {
    config: PathBuf,
    state: PathBuf,
    /// Set where `--home` moved everything.
    moved: Option<PathBuf>,
    /// Under sudo: the person behind it, to whom new files are given.
    owner: Option<Owner>,
}

/// A stored log-in.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredToken {
    pub token: String,
    pub user: Login,
    pub expires_at: Wall,
    /// The controller that gave it.
    pub url: String,
}

impl Home {
    /// `--home` (or `THINLANE_HOME`), else where the system keeps them (`files::places`).
    pub fn locate(flag: Option<&Path>) -> Result<Home> {
        if let Some(dir) = flag {
            let dir = std::path::absolute(dir).map_err(crate::failure::io(dir.display()))?;
            return Ok(Home { config: dir.clone(), state: dir.clone(), moved: Some(dir), owner: None });
        }
        let places = files::places().map_err(|why| {
            Failure::failed(format!("there is no place for your files: {why}"))
                .next("name one: thinlane --home DIR ...")
        })?;
        let Places { config, state, owner } = places;
        Ok(Home { config, state, moved: None, owner })
    }

    /// The directory given with `--home`.
    pub fn moved(&self) -> Option<&Path> {
        self.moved.as_deref()
    }

    /// To whom new files belong, where that is not this process's user.
    pub fn owner(&self) -> Option<Owner> {
        self.owner
    }

    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    pub fn config_file(&self) -> PathBuf {
        self.config.join("config.toml")
    }

    /// Columns and order of the operator's screen.
    pub fn tui_file(&self) -> PathBuf {
        self.config.join("tui.toml")
    }

    pub fn ca_file(&self) -> PathBuf {
        self.config.join("ca.pem")
    }

    pub fn token_file(&self) -> PathBuf {
        self.state.join("token.json")
    }

    /// One file per lane that this machine holds, or has exported.
    pub fn lanes_dir(&self) -> PathBuf {
        self.state.join("lanes")
    }

    /// Makes sure that it is there.
    pub fn make_lanes_dir(&self) -> Result<PathBuf> {
        let dir = self.lanes_dir();
        private::make_dirs(&dir, self.owner)?;
        Ok(dir)
    }

    /// What background lanes had to say.
    pub fn log_dir(&self) -> PathBuf {
        self.state.join("log")
    }

    /// Writes one of our files, whole or not at all.
    pub fn write(&self, file: &Path, bytes: &[u8]) -> Result<()> {
        write_private(file, bytes, self.owner)
    }

    /// The configuration; the default where there is none.
    pub fn read_config(&self) -> Result<Config> {
        match read_bounded(&self.config_file(), LARGEST)? {
            Some(text) => Config::parse(&text, &self.config_file()),
            None => Ok(Config::default()),
        }
    }

    pub fn write_config(&self, config: &Config) -> Result<()> {
        self.write(&self.config_file(), config.render().as_bytes())
    }

    /// The pinned CA certificate.
    pub fn read_ca(&self) -> Result<Option<CertificateDer<'static>>> {
        let file = self.ca_file();
        let Some(text) = read_bounded(&file, LARGEST)? else { return Ok(None) };
        CertificateDer::from_pem_slice(text.as_bytes()).map(Some).map_err(|_| {
            Failure::new(Exit::Verification, format!("{} holds no certificate", file.display()))
                .next(format!("rm {} && thinlane login URL --ca-fingerprint sha256:HEX", file.display()))
        })
    }

    pub fn write_ca(&self, ca: &CertificateDer<'_>) -> Result<()> {
        self.write(&self.ca_file(), private::pem("CERTIFICATE", ca).as_bytes())
    }

    /// The stored log-in; refused where others can read it.
    pub fn read_token(&self) -> Result<Option<StoredToken>> {
        let file = self.token_file();
        private::refuse_shared(&file)?;
        let Some(text) = read_bounded(&file, LARGEST)?.map(Zeroizing::new) else { return Ok(None) };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|_| Failure::failed(format!("{} is damaged", file.display())).next("thinlane login"))
    }

    pub fn write_token(&self, token: &StoredToken) -> Result<()> {
        let text = Zeroizing::new(serde_json::to_vec(token).map_err(|error| Failure::failed(error.to_string()))?);
        self.write(&self.token_file(), &text)
    }

    pub fn remove_token(&self) -> Result<()> {
        match std::fs::remove_file(self.token_file()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(crate::failure::io(self.token_file().display())(error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
