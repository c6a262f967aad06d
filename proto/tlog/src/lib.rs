//! The transparency log: canonical JSON, RFC 6962 tree, signed checkpoints, proofs, and the audit of all of these.
//!
//! Pure: entries, hashes, keys and texts come in as values; nothing here reads a file, a clock or randomness.
//!
//! ```text
//! event --canonical::to_vec--> bytes --leaf_hash--> Tree --root--> Checkpoint --sign--> Note (text)
//!                                                                                        |
//! audit::Auditor <-- (index, bytes, leaf) of a stored log, checkpoints, remembered ones <-'
//! ```
#![forbid(unsafe_code)]

pub mod audit;
pub mod canonical;
pub mod note;
pub mod tree;

pub use audit::{AuditReport, Auditor, Finding};
pub use note::{Checkpoint, Note, SignedCheckpoint, Signer, Verifier};
pub use tree::{Hash, Tree, leaf_hash, root_of};
