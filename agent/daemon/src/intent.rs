//! What the daemon means the table to be.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use thinlane_nft::BaseConfig;

use crate::files::{self, Dirs};

/// What the daemon means the table to be, written down for `check` and `cleanup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    pub lan: Vec<String>,
    pub guard_lan_forwarding: bool,
    pub nflog_group: u16,
    pub mss: u16,
    /// `tl0` for all lanes, or `tl-`, what the name of each lane's own begins with.
    pub interface: String,
    /// The UDP port that peers are told; 0: any.
    pub listen: u16,
}

impl Intent {
    /// The base of the table.
    pub fn base(&self) -> BaseConfig {
        BaseConfig {
            lan: self.lan.clone(),
            guard_lan_forwarding: self.guard_lan_forwarding,
            nflog_group: self.nflog_group,
            mss: self.mss,
        }
    }

    /// What the last daemon on this run directory wrote down.
    pub fn load(dirs: &Dirs) -> anyhow::Result<Option<Self>> {
        let path = dirs.intent();
        let read = files::read_bounded(&path, 64 * 1024).with_context(|| format!("cannot read {}", path.display()))?;
        read.map(|bytes| serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display())))
            .transpose()
    }

    /// Writes it down, in one piece or not at all.
    pub fn store(&self, dirs: &Dirs) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(self).context("the intent")?;
        files::write_atomic(&dirs.intent(), &bytes).with_context(|| format!("cannot write {}", dirs.intent().display()))
    }
}
