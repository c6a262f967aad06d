//! What the agent may have left in the kernel beyond its own table and interface: connections of engineers.
//!
//! Written down before a lane can carry its first packet and crossed out when the kernel was read back, so that
//! whoever comes next (a restarted agent, `check`, `cleanup`) knows where to look.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use thinlane_model::{Protocol, SessionId, Tuple};

use crate::files;

/// The longest file that is read, in bytes.
const MOST: u64 = 1024 * 1024;

/// One lane's tuple in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    engineer: Ipv4Addr,
    destination: Ipv4Addr,
    address: Ipv4Addr,
    protocol: Protocol,
    port: u16,
}

/// Tuples by session.
#[derive(Debug)]
pub struct Traces {
    path: PathBuf,
    kept: BTreeMap<SessionId, Kept>,
}

impl Traces {
    /// Reads the file; an absent one is an empty list.
    pub fn load(path: PathBuf) -> anyhow::Result<Self> {
        let read = files::read_bounded(&path, MOST).with_context(|| format!("cannot read {}", path.display()))?;
        let kept = match read {
            Some(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?,
            None => BTreeMap::new(),
        };
        Ok(Self { path, kept })
    }

    /// Every lane that may have left something.
    pub fn all(&self) -> BTreeMap<SessionId, Tuple> {
        let tuple = |kept: &Kept| {
            let Kept { engineer, destination, address, protocol, port } = *kept;
            Tuple { engineer, destination, address, protocol, port }
        };
        self.kept.iter().map(|(session, kept)| (*session, tuple(kept))).collect()
    }

    /// Writes a lane down; the file is written before this returns.
    pub fn add(&mut self, session: SessionId, tuple: &Tuple) -> anyhow::Result<()> {
        let Tuple { engineer, destination, address, protocol, port } = *tuple;
        let kept = Kept { engineer, destination, address, protocol, port };
        match self.kept.insert(session, kept) {
            Some(before) if before == kept => Ok(()),
            _ => self.store(),
        }
    }

    /// Nothing of this lane is left.
    pub fn remove(&mut self, session: SessionId) -> anyhow::Result<()> {
        match self.kept.remove(&session) {
            Some(_) => self.store(),
            None => Ok(()),
        }
    }

    fn store(&self) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(&self.kept).context("the list of lanes")?;
        files::write_atomic(&self.path, &bytes).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_outlives_its_writer_until_it_is_crossed_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("traces.json");
        let tuple = Tuple {
            engineer: Ipv4Addr::new(198, 19, 0, 1),
            destination: Ipv4Addr::new(198, 18, 0, 1),
            address: Ipv4Addr::new(192, 168, 1, 10),
            protocol: Protocol::Tcp,
            port: 502,
        };
        let session = SessionId::from_random([1; 5]);
        Traces::load(path.clone()).expect("empty").add(session, &tuple).expect("written");
        let mut again = Traces::load(path.clone()).expect("read");
        assert_eq!(again.all(), [(session, tuple)].into());
        again.remove(session).expect("written");
        assert!(Traces::load(path).expect("read").all().is_empty());
    }
}
