//! The gateway as a witness: it remembers the newest checkpoint of the controller's log and notices when a later
//! one does not grow out of it. A controller restored from an old backup, or one that shows different logs to
//! different people, is found here.

use std::path::PathBuf;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use thinlane_model::{Boot, Span};
use thinlane_tlog::tree::verify_consistency;
use thinlane_tlog::{Hash, SignedCheckpoint, Verifier};

use crate::files;

/// Flash is not written more often than this; what is lost by it is the last minute's growth.
const WRITE_AFTER: Span = Span::from_secs(60);
/// The longest file that is read, in bytes.
const MOST: u64 = 128 * 1024;

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    size: u64,
    root: Hash,
    /// The signed note: the proof in a dispute.
    note: String,
}

/// The newest checkpoint, and the key it must be signed with.
#[derive(Debug)]
pub struct Witness {
    path: PathBuf,
    log: Verifier,
    kept: Option<Kept>,
    written: Option<Boot>,
    unwritten: bool,
}

/// What a checkpoint was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Judgement {
    /// It grows out of the remembered one and is now remembered itself.
    Consistent,
    /// The proof does not begin at the remembered size: the controller is to be told which size that is.
    Elsewhere,
    /// The log was rolled back, forked or forged; the remembered checkpoint is kept.
    Problem(Problem),
}

/// How a checkpoint contradicts the remembered one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("a checkpoint is not signed by the log: {0}")]
    Signature(thinlane_tlog::note::VerifyError),
    #[error("the log was rolled back: it had {had} entries and now shows {has}")]
    RolledBack { had: u64, has: u64 },
    #[error("the log was forked: two different trees of {size} entries")]
    Forked { size: u64 },
    #[error("the log's {has} entries do not continue the {had} that were seen before: {why}")]
    Inconsistent { had: u64, has: u64, why: thinlane_tlog::tree::ProofError },
}

impl Witness {
    /// Reads what is remembered.
    ///
    /// # Errors
    /// A damaged file is an error and not forgotten: forgetting is what a rollback needs.
    pub fn load(path: PathBuf, log: Verifier) -> anyhow::Result<Self> {
        let read = files::read_bounded(&path, MOST).with_context(|| format!("cannot read {}", path.display()))?;
        let damaged = || {
            format!("{} is damaged; remove it only if the log was checked with `thinlane audit verify`", path.display())
        };
        let kept = match read {
            Some(bytes) => Some(serde_json::from_slice::<Kept>(&bytes).with_context(damaged)?),
            None => None,
        };
        Ok(Self { path, log, kept, written: None, unwritten: false })
    }

    /// Size and root that are remembered; nothing before the first checkpoint.
    pub fn remembered(&self) -> Option<(u64, Hash)> {
        self.kept.as_ref().map(|kept| (kept.size, kept.root))
    }

    /// Judges a checkpoint and the proof that the tree of `from` entries is its beginning.
    pub fn judge(&mut self, note: &str, from: u64, proof: &[Hash]) -> Judgement {
        let signed = match SignedCheckpoint::open(note.as_bytes(), &self.log) {
            Ok(signed) => signed,
            Err(error) => return Judgement::Problem(Problem::Signature(error)),
        };
        let (size, root) = (signed.checkpoint().size(), signed.checkpoint().root());
        if let Some(kept) = &self.kept {
            if size < kept.size {
                return Judgement::Problem(Problem::RolledBack { had: kept.size, has: size });
            }
            if size == kept.size {
                let same = root == kept.root;
                return if same { Judgement::Consistent } else { Judgement::Problem(Problem::Forked { size }) };
            }
            if from != kept.size {
                return Judgement::Elsewhere;
            }
            if let Err(why) = verify_consistency(kept.size, &kept.root, size, &root, proof) {
                return Judgement::Problem(Problem::Inconsistent { had: kept.size, has: size, why });
            }
        }
        self.kept = Some(Kept { size, root, note: note.to_owned() });
        self.unwritten = true;
        Judgement::Consistent
    }

    /// Writes what is new, at most once a minute unless `now` is `None` (on the way out).
    pub fn store(&mut self, now: Option<Boot>) -> anyhow::Result<()> {
        let early = matches!((now, self.written), (Some(now), Some(written)) if written.until(now) < WRITE_AFTER);
        let Some(kept) = self.kept.as_ref().filter(|_| self.unwritten && !early) else { return Ok(()) };
        let bytes = serde_json::to_vec(kept).context("the checkpoint")?;
        files::write_atomic(&self.path, &bytes).with_context(|| format!("cannot write {}", self.path.display()))?;
        self.written = now;
        self.unwritten = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use thinlane_tlog::tree::{consistency, leaf_hash, root_of};
    use thinlane_tlog::{Checkpoint, Signer};

    struct Log {
        signer: Signer,
        leaves: Vec<Hash>,
    }

    impl Log {
        fn new(entries: &[&str]) -> Self {
            let signer = Signer::new("log.example", SigningKey::from_bytes(&[9; 32])).expect("a name");
            Self { signer, leaves: entries.iter().map(|entry| leaf_hash(entry.as_bytes())).collect() }
        }

        fn note(&self, size: usize) -> String {
            let checkpoint = Checkpoint::new("log.example", size as u64, root_of(&self.leaves[..size])).expect("ok");
            checkpoint.sign(&self.signer).expect("signed").note().to_string()
        }

        fn proof(&self, from: usize, to: usize) -> Vec<Hash> {
            consistency(&self.leaves[..to], from as u64).expect("a proof")
        }
    }

    fn witness(dir: &tempfile::TempDir, log: &Log) -> Witness {
        Witness::load(dir.path().join("witness.json"), log.signer.verifier()).expect("loads")
    }

    #[test]
    fn a_growing_log_is_followed_and_remembered_over_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = Log::new(&["a", "b", "c", "d", "e"]);
        let mut seen = witness(&dir, &log);
        assert_eq!(seen.judge(&log.note(2), 0, &[]), Judgement::Consistent);
        assert_eq!(seen.judge(&log.note(5), 1, &log.proof(1, 5)), Judgement::Elsewhere);
        assert_eq!(seen.judge(&log.note(5), 2, &log.proof(2, 5)), Judgement::Consistent);
        seen.store(None).expect("written");
        assert_eq!(witness(&dir, &log).remembered().map(|(size, _)| size), Some(5));
    }

    #[test]
    fn rollback_fork_edit_and_forgery_are_told_apart_and_change_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = Log::new(&["a", "b", "c", "d", "e"]);
        let other = Log::new(&["a", "b", "X", "d", "e", "f"]);
        let mut seen = witness(&dir, &log);
        assert_eq!(seen.judge(&log.note(4), 0, &[]), Judgement::Consistent);
        let problem = |judgement| match judgement {
            Judgement::Problem(problem) => problem,
            fine => panic!("{fine:?}"),
        };
        assert_eq!(problem(seen.judge(&log.note(3), 4, &[])), Problem::RolledBack { had: 4, has: 3 });
        assert_eq!(problem(seen.judge(&other.note(4), 4, &[])), Problem::Forked { size: 4 });
        let edited = problem(seen.judge(&other.note(6), 4, &other.proof(4, 6)));
        assert!(matches!(edited, Problem::Inconsistent { had: 4, has: 6, .. }), "{edited:?}");
        let mut forger = Log::new(&["a", "b", "c", "d", "e"]);
        forger.signer = Signer::new("log.example", SigningKey::from_bytes(&[8; 32])).expect("a name");
        assert!(matches!(problem(seen.judge(&forger.note(5), 4, &forger.proof(4, 5))), Problem::Signature(_)));
        assert_eq!(seen.remembered().map(|(size, _)| size), Some(4));
    }

    #[test]
    fn flash_is_written_once_a_minute_and_on_the_way_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = Log::new(&["a", "b", "c"]);
        let mut seen = witness(&dir, &log);
        let written = || witness(&dir, &log).remembered().map(|(size, _)| size);
        assert_eq!(seen.judge(&log.note(1), 0, &[]), Judgement::Consistent);
        seen.store(Some(Boot(0))).expect("written");
        assert_eq!(written(), Some(1));
        assert_eq!(seen.judge(&log.note(2), 1, &log.proof(1, 2)), Judgement::Consistent);
        seen.store(Some(Boot(59_999))).expect("not yet");
        assert_eq!(written(), Some(1));
        seen.store(None).expect("written");
        assert_eq!(written(), Some(2));
    }

    #[test]
    fn a_damaged_memory_is_not_silently_forgotten() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("witness.json"), "{").expect("written");
        let log = Log::new(&[]);
        assert!(Witness::load(dir.path().join("witness.json"), log.signer.verifier()).is_err());
    }
}
