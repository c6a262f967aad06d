//! Writing: many small transactions in one, with one fsync and one signed checkpoint.

use rusqlite::{ErrorCode, Transaction, params};
use serde_json::Value;
use thinlane_tlog::{Checkpoint, Hash, leaf_hash};

use crate::open::Store;

/// What one decision changes. All of it becomes durable, or none.
#[derive(Debug, Default, Clone)]
pub struct Tx {
    /// Canonical JSON, in the order in which things happened.
    pub entries: Vec<Vec<u8>>,
    pub rows: Vec<RowChange>,
    pub secrets: Vec<SecretChange>,
}

/// A change of the state: the document under (`kind`, `id`), or that it is gone.
#[derive(Debug, Clone)]
pub struct RowChange {
    pub kind: String,
    pub id: String,
    /// `None`: delete.
    pub doc: Option<Value>,
}

/// A change of what must never be shown: hashes of passwords, codes and tokens, second factors.
#[derive(Clone)]
pub struct SecretChange {
    pub kind: String,
    pub id: String,
    /// `None`: delete.
    pub doc: Option<String>,
    /// Wall clock in milliseconds after which the secret is worth nothing; `None`: it stays.
    pub expires: Option<i64>,
}

impl std::fmt::Debug for SecretChange {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "SecretChange({} {})", self.kind, if self.doc.is_some() { "put" } else { "delete" })
    }
}

/// What became durable.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The index of the first new entry.
    pub first: u64,
    /// Entries in the log now.
    pub size: u64,
    pub root: Hash,
    /// The signed checkpoint over `size` entries; `None` when no entry was added.
    pub note: Option<String>,
}

/// Why nothing was written. The log cannot be written now: open nothing new, let what runs go on, raise an alarm.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error("the disk that holds the log is full")]
    Full,
    #[error("the log is on a disk that is read-only")]
    ReadOnly,
    #[error("the disk that holds the log fails: {0}")]
    Disk(String),
    #[error("the log cannot be written: {0}")]
    Database(String),
    #[error("the checkpoint cannot be signed: {0}")]
    Sign(String),
}

impl Store {
    /// Makes all of `batch` durable, in order, in one transaction with one fsync; or nothing of it.
    ///
    /// When this returns `Ok`, the batch survives a crash of the process and of the machine.
    pub fn commit(&mut self, batch: &[Tx]) -> Result<Committed, CommitError> {
        let first = self.proofs.size();
        let done = self.write(batch);
        if done.is_err() {
            self.proofs.truncate(first);
        }
        done
    }

    fn write(&mut self, batch: &[Tx]) -> Result<Committed, CommitError> {
        let first = self.proofs.size();
        let tx = self.db.transaction().map_err(disposition)?;
        {
            let mut entry =
                tx.prepare_cached("INSERT INTO entries (idx, json, leaf) VALUES (?1, ?2, ?3)").map_err(disposition)?;
            for json in batch.iter().flat_map(|one| &one.entries) {
                let leaf = leaf_hash(json);
                let index = i64::try_from(self.proofs.size()).expect("a log of 2^63 entries fits no disk");
                entry.execute(params![index, json, leaf.0]).map_err(disposition)?;
                self.proofs.append(leaf);
            }
        }
        for one in batch {
            change_rows(&tx, &one.rows).map_err(disposition)?;
            change_secrets(&tx, &one.secrets).map_err(disposition)?;
        }
        let (size, root) = (self.proofs.size(), self.proofs.root());
        let mut note = None;
        if size > first {
            let signed = Checkpoint::new(self.signer.name(), size, root)
                .and_then(|checkpoint| checkpoint.sign(&self.signer))
                .map_err(|error| CommitError::Sign(error.to_string()))?
                .note()
                .to_string();
            tx.prepare_cached("INSERT INTO checkpoints (size, note) VALUES (?1, ?2)")
                .and_then(|mut put| put.execute(params![size as i64, signed]))
                .map_err(disposition)?;
            note = Some(signed);
        }
        tx.commit().map_err(disposition)?;
        Ok(Committed { first, size, root, note })
    }

    /// Deletes secrets whose time passed before `now` (wall clock, milliseconds); answers how many.
    pub fn drop_expired_secrets(&mut self, now: i64) -> Result<usize, CommitError> {
        self.db.execute("DELETE FROM secrets WHERE expires IS NOT NULL AND expires < ?1", [now]).map_err(disposition)
    }
}

fn change_rows(tx: &Transaction<'_>, rows: &[RowChange]) -> Result<(), rusqlite::Error> {
    for RowChange { kind, id, doc } in rows {
        match doc {
            Some(doc) => tx
                .prepare_cached("INSERT OR REPLACE INTO rows (kind, id, doc) VALUES (?1, ?2, ?3)")?
                .execute(params![kind, id, doc.to_string()])?,
            None => tx.prepare_cached("DELETE FROM rows WHERE kind = ?1 AND id = ?2")?.execute(params![kind, id])?,
        };
    }
    Ok(())
}

fn change_secrets(tx: &Transaction<'_>, secrets: &[SecretChange]) -> Result<(), rusqlite::Error> {
    for SecretChange { kind, id, doc, expires } in secrets {
        match doc {
            Some(doc) => tx
                .prepare_cached("INSERT OR REPLACE INTO secrets (kind, id, doc, expires) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![kind, id, doc, expires])?,
            None => tx.prepare_cached("DELETE FROM secrets WHERE kind = ?1 AND id = ?2")?.execute(params![kind, id])?,
        };
    }
    Ok(())
}

/// What the database's refusal means for whoever asked. Its text names no content, only what SQLite says.
fn disposition(error: rusqlite::Error) -> CommitError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => CommitError::Full,
        Some(ErrorCode::ReadOnly) => CommitError::ReadOnly,
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::DatabaseCorrupt) => {
            CommitError::Disk(error.to_string())
        }
        _ => CommitError::Database(error.to_string()),
    }
}
