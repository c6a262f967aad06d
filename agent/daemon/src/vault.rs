//! The keys of the open lanes: in memory and in one file under `/run`, 0600, so that a restarted agent resumes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use thinlane_model::{PublicKey, Secret, SessionId};
use thinlane_wg::key;
use zeroize::{Zeroize, Zeroizing};

use crate::files;

/// The longest file that is read, in bytes: a thousand lanes' keys.
const MOST: u64 = 1024 * 1024;

/// This end's keys of one lane.
#[derive(Debug, Clone)]
pub struct LaneKeys {
    pub private: Secret,
    pub preshared: Option<Secret>,
}

/// All lanes' keys.
#[derive(Debug)]
pub struct Vault {
    path: PathBuf,
    keys: BTreeMap<SessionId, LaneKeys>,
}

/// One lane's keys in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    private: String,
    preshared: Option<String>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.private.zeroize();
        self.preshared.zeroize();
    }
}

impl Vault {
    /// Reads the file; an absent one is an empty vault.
    pub fn load(path: PathBuf) -> anyhow::Result<Self> {
        let read = files::read_bounded(&path, MOST).with_context(|| format!("cannot read {}", path.display()))?;
        let mut keys = BTreeMap::new();
        if let Some(bytes) = read.map(Zeroizing::new) {
            let kept: BTreeMap<SessionId, Kept> =
                serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
            for (session, kept) in kept {
                let private = Secret::from_base64(&kept.private).context("a lane's private key")?;
                let preshared = kept.preshared.as_deref().map(Secret::from_base64).transpose();
                keys.insert(session, LaneKeys { private, preshared: preshared.context("a lane's preshared key")? });
            }
        }
        Ok(Self { path, keys })
    }

    /// Makes and keeps a key pair for a session, or finds the one that was made before; a preshared key that comes
    /// now replaces one that was kept.
    pub fn make(&mut self, session: SessionId, preshared: Option<&Secret>) -> anyhow::Result<PublicKey> {
        let private = match self.keys.get(&session) {
            Some(keys) => keys.private.clone(),
            None => key::key_pair()?.0,
        };
        let public = key::public_of(&private)?;
        let before = self.keys.get(&session).and_then(|keys| keys.preshared.clone());
        self.keys.insert(session, LaneKeys { private, preshared: preshared.cloned().or(before) });
        self.store()?;
        Ok(public)
    }

    /// A session's keys.
    pub fn keys(&self, session: SessionId) -> Option<LaneKeys> {
        self.keys.get(&session).cloned()
    }

    /// Wipes a session's keys.
    pub fn forget(&mut self, session: SessionId) -> anyhow::Result<()> {
        match self.keys.remove(&session) {
            Some(_) => self.store(),
            None => Ok(()),
        }
    }

    /// Wipes the keys of all sessions but these.
    pub fn keep_only(&mut self, sessions: &std::collections::BTreeSet<SessionId>) -> anyhow::Result<()> {
        let before = self.keys.len();
        self.keys.retain(|session, _| sessions.contains(session));
        if self.keys.len() == before { Ok(()) } else { self.store() }
    }

    /// Wipes everything.
    pub fn forget_all(&mut self) -> anyhow::Result<()> {
        self.keys.clear();
        files::remove(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))
    }

    fn store(&self) -> anyhow::Result<()> {
        let kept = |keys: &LaneKeys| Kept {
            private: keys.private.to_base64().to_string(),
            preshared: keys.preshared.as_ref().map(|preshared| preshared.to_base64().to_string()),
        };
        let all: BTreeMap<SessionId, Kept> = self.keys.iter().map(|(session, keys)| (*session, kept(keys))).collect();
        let bytes = Zeroizing::new(serde_json::to_vec(&all).context("the lanes' keys")?);
        files::write_atomic(&self.path, &bytes).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn session(number: u8) -> SessionId {
        SessionId::from_random([number; 5])
    }

    #[test]
    fn keys_outlive_a_restart_in_a_private_file_and_are_gone_when_forgotten() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lanes.key");
        let mut vault = Vault::load(path.clone()).expect("empty");
        let preshared = Secret::new([7; 32]);
        let public = vault.make(session(1), Some(&preshared)).expect("made");
        assert_eq!(std::fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        let mut again = Vault::load(path.clone()).expect("read");
        assert_eq!(again.make(session(1), None).expect("found"), public, "made once");
        assert_eq!(again.keys(session(1)).and_then(|keys| keys.preshared), Some(preshared.clone()));
        again.forget(session(1)).expect("forgotten");
        let text = std::fs::read_to_string(&path).expect("read");
        assert!(!text.contains(preshared.to_base64().as_str()), "{text}");
        assert!(Vault::load(path).expect("read").keys(session(1)).is_none());
    }

    #[test]
    fn every_session_has_keys_of_its_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut vault = Vault::load(dir.path().join("lanes.key")).expect("empty");
        let (one, two) = (vault.make(session(1), None).expect("made"), vault.make(session(2), None).expect("made"));
        assert_ne!(one, two);
        vault.keep_only(&[session(2)].into()).expect("kept");
        assert!(vault.keys(session(1)).is_none() && vault.keys(session(2)).is_some());
    }
}
