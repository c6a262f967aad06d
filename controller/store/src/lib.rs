//! State and log in one SQLite file; the only crate that knows SQL.
//!
//! A controller's directory holds `thinlane.db` in write-ahead mode. One [`Store`] writes to it and holds the
//! directory's lock; any number of [`Reader`]s read what has been committed, also from a copy and offline.
//!
//! ```text
//! Tx { entries, rows, secrets } --+
//! Tx { .. }                      --+-- Store::commit -- one transaction, one fsync --> Committed
//! signed checkpoint over the new size --+
//! ```
//!
//! Writing does not understand the rows: they are documents under a kind and an id. [`verify`] does: it replays
//! the log into an empty world and compares. The log's entries are
//! canonical JSON, hashed into an RFC 6962 tree whose checkpoints are signed in the same transaction.
#![forbid(unsafe_code)]

mod backup;
mod commit;
mod open;
mod proof;
mod read;
mod schema;
mod system;
mod verify;

pub use backup::{BackupError, Bundled, backup, restore};
pub use commit::{CommitError, Committed, RowChange, SecretChange, Tx};
pub use open::{DATABASE, DirLock, LOG_KEY, OpenError, Store};
pub use proof::Proofs;
pub use read::{Entry, ReadError, Reader, Row, SecretRow};
pub use schema::VERSION;
pub use verify::{Problem, Verified, VerifyError, verify};
