//! What `audit verify` does: reads a stored log from its first entry to its last, once, and says what is wrong.
//!
//! Three things are held against each other: each entry's bytes and its stored leaf hash; the tree over the
//! entries and the log's own signed checkpoints; and both with checkpoints that others remember. An edit that
//! forgets the hash shows in the first, one that forgets the signature in the second, and one by somebody who
//! holds the log's key in the third, which is why agents keep what they have seen.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::canonical;
use crate::note::{Checkpoint, SignedCheckpoint, Verifier};
use crate::tree::{Hash, Tree, leaf_hash};

/// Findings that are kept; more are only counted.
pub const MAX_FINDINGS: usize = 1000;

/// One thing that is wrong with a log. Its `Display` is one sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "finding", rename_all = "kebab-case")]
pub enum Finding {
    #[error("entry {index} was edited: its bytes do not have the leaf hash that was stored with them")]
    Edited { index: u64 },
    #[error("entry {index} is not canonical JSON, so it was not written by the log: {reason}")]
    NotCanonical { index: u64, reason: String },
    #[error("entry {index} calls itself number {says}: entries were moved")]
    Moved { index: u64, says: i64 },
    #[error("entries {index} to {last} are missing")]
    Gap { index: u64, last: u64 },
    #[error("entry {index} comes after entry {after}: the order was changed or an entry is there twice")]
    Reordered { index: u64, after: u64 },
    #[error("the log ends at {size} entries, but its own checkpoint signs {index}: the end was cut off")]
    Truncated { index: u64, size: u64 },
    #[error("the entries from {index} on are not those that the checkpoint over {size} entries signed")]
    Rewritten {
        /// The first entry that no fitting checkpoint covers.
        index: u64,
        /// Entries under the first checkpoint that does not fit.
        size: u64,
    },
    #[error("the log signed two different roots for {index} entries: it showed different people different logs")]
    TwoRoots { index: u64 },
    #[error("checkpoint {index} of the log is not to be believed: {reason}")]
    BadCheckpoint {
        /// The checkpoint's place among the stored ones, from 0.
        index: u64,
        reason: String,
    },
    #[error("checkpoint {index} of the log is over {size} entries, an earlier one over {before}: the log went back")]
    Backwards { index: u64, size: u64, before: u64 },
    #[error("there are {index} entries and no checkpoint that the log signed")]
    NoCheckpoint { index: u64 },
    #[error("{who} remembers a log of {index} entries, this one has {size}: it was rolled back")]
    RolledBack { who: String, index: u64, size: u64 },
    #[error("{who} remembers another log: its root over the first {index} entries is not this log's")]
    Forked { who: String, index: u64 },
    #[error("what {who} remembers is not to be believed: {reason}")]
    BadMemory { who: String, reason: String },
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct AuditReport {
    /// Entries that were read.
    pub entries: u64,
    /// The root over their bytes.
    pub root: Hash,
    /// Checkpoints of the log that carry its right signature and fit the entries.
    pub checkpoints: u64,
    /// The largest of these.
    pub signed: Option<Checkpoint>,
    /// Entries after the last fitting checkpoint: not wrong, but not yet signed for either.
    pub unsigned: u64,
    /// Memories of others that fit the entries.
    pub remembered: u64,
    /// In the order in which they came up; at most [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
    /// Findings beyond those.
    pub more: u64,
}

/// Reads a log once, entry by entry.
#[derive(Debug)]
pub struct Auditor {
    log: Verifier,
    sequence: Option<String>,
    claims: BTreeMap<u64, Vec<Claim>>,
    /// Over the bytes as they are.
    tree: Tree,
    /// Over the stored leaf hashes; differs from `tree` only once an entry's two hashes differ.
    stored: Option<Tree>,
    /// The index that comes next.
    next: u64,
    /// Entries that a fitting checkpoint of the log covers.
    proved: u64,
    rewritten: bool,
    report: AuditReport,
}

#[derive(Debug)]
struct Claim {
    checkpoint: Checkpoint,
    /// `None`: the log's own.
    who: Option<String>,
}

impl Auditor {
    /// Begins an audit of the log whose key is `log`.
    ///
    /// `checkpoints` are those stored with the log, oldest first; `remembered` those that others kept, each with
    /// a name for its keeper. All must be known before the first entry, for the log is read only once.
    pub fn new<C, R>(
        log: Verifier,
        checkpoints: impl IntoIterator<Item = C>,
        remembered: impl IntoIterator<Item = (String, R)>,
    ) -> Self
    where
        C: AsRef<[u8]>,
        R: AsRef<[u8]>,
    {
        let report = AuditReport {
            entries: 0,
            root: Tree::new().root(),
            checkpoints: 0,
            signed: None,
            unsigned: 0,
            remembered: 0,
            findings: Vec::new(),
            more: 0,
        };
        let tree = Tree::new();
        let mut audit = Self {
            log,
            sequence: None,
            claims: BTreeMap::new(),
            tree,
            stored: None,
            next: 0,
            proved: 0,
            rewritten: false,
            report,
        };
        let mut before = 0;
        for (index, bytes) in (0..).zip(checkpoints) {
            match SignedCheckpoint::open(bytes.as_ref(), &audit.log) {
                Err(error) => audit.found(Finding::BadCheckpoint { index, reason: error.to_string() }),
                Ok(signed) => {
                    let size = signed.checkpoint().size();
                    if size < before {
                        audit.found(Finding::Backwards { index, size, before });
                    }
                    before = before.max(size);
                    audit.claim(signed, None);
                }
            }
        }
        for (who, bytes) in remembered {
            match SignedCheckpoint::open(bytes.as_ref(), &audit.log) {
                Err(error) => audit.found(Finding::BadMemory { who, reason: error.to_string() }),
                Ok(signed) => audit.claim(signed, Some(who)),
            }
        }
        audit.compare(0);
        audit
    }

    /// Also checks that the entry's member `name`, where it has one, is the entry's index.
    #[must_use]
    pub fn with_sequence(mut self, name: &str) -> Self {
        self.sequence = Some(name.to_owned());
        self
    }

    /// Takes the next entry: its index from 0, its bytes, and the leaf hash that was stored with them.
    pub fn entry(&mut self, index: u64, bytes: &[u8], leaf: &Hash) {
        if index < self.next {
            return self.found(Finding::Reordered { index, after: self.next - 1 });
        }
        if index > self.next {
            self.found(Finding::Gap { index: self.next, last: index - 1 });
        }
        let hash = leaf_hash(bytes);
        if hash != *leaf {
            self.stored.get_or_insert_with(|| self.tree.clone());
            self.found(Finding::Edited { index });
        }
        match canonical::parse(bytes) {
            Err(error) => self.found(Finding::NotCanonical { index, reason: error.to_string() }),
            Ok(value) => {
                let says = self.sequence.as_deref().and_then(|name| value.get(name)).and_then(|says| says.as_i64());
                if let Some(says) = says.filter(|says| u64::try_from(*says) != Ok(index)) {
                    self.found(Finding::Moved { index, says });
                }
            }
        }
        self.tree.append(hash);
        if let Some(stored) = &mut self.stored {
            stored.append(*leaf);
        }
        self.report.entries += 1;
        self.next = index.saturating_add(1);
        self.compare(self.next);
    }

    /// Ends the audit: what is signed or remembered beyond the last entry is missing.
    pub fn finish(mut self) -> AuditReport {
        let size = self.next;
        let beyond = self.claims.split_off(&size.saturating_add(1));
        let signed = beyond.iter().rev().find(|(_, claims)| claims.iter().any(|claim| claim.who.is_none()));
        match signed {
            Some((index, _)) => self.found(Finding::Truncated { index: *index, size }),
            None if size > 0 && self.report.checkpoints == 0 && !self.rewritten => {
                self.found(Finding::NoCheckpoint { index: size });
            }
            None => {}
        }
        for (index, claim) in beyond.into_iter().flat_map(|(at, claims)| claims.into_iter().map(move |one| (at, one))) {
            if let Some(who) = claim.who {
                self.found(Finding::RolledBack { who, index, size });
            }
        }
        self.report.root = self.tree.root();
        self.report.unsigned = size.saturating_sub(self.proved);
        self.report
    }

    fn claim(&mut self, signed: SignedCheckpoint, who: Option<String>) {
        let checkpoint = signed.checkpoint().clone();
        let size = checkpoint.size();
        let claims = self.claims.entry(size).or_default();
        let known = claims.iter().any(|other| other.checkpoint.root() == checkpoint.root() && other.who == who);
        let contradicts = claims.iter().any(|other| other.checkpoint.root() != checkpoint.root());
        if !known {
            claims.push(Claim { checkpoint, who });
        }
        if contradicts {
            self.found(Finding::TwoRoots { index: size });
        }
    }

    /// Holds every checkpoint over `size` entries against the tree so far.
    fn compare(&mut self, size: u64) {
        for claim in self.claims.remove(&size).unwrap_or_default() {
            let root = claim.checkpoint.root();
            // Where an entry's bytes and its stored hash differ, that has been said; either may be the signed one.
            let fits = self.tree.size() == size
                && (self.tree.root() == root || self.stored.as_ref().is_some_and(|tree| tree.root() == root));
            match (claim.who, fits) {
                (None, true) => {
                    self.proved = size;
                    self.report.checkpoints += 1;
                    self.report.signed = Some(claim.checkpoint);
                }
                (Some(_), true) => self.report.remembered += 1,
                // Everything signed later differs as well: once is enough.
                (None, false) if self.rewritten => {}
                (None, false) => {
                    self.rewritten = true;
                    self.found(Finding::Rewritten { index: self.proved, size });
                }
                (Some(who), false) => self.found(Finding::Forked { who, index: size }),
            }
        }
    }

    fn found(&mut self, finding: Finding) {
        if self.report.findings.len() < MAX_FINDINGS {
            self.report.findings.push(finding);
        } else {
            self.report.more += 1;
        }
    }
}

impl AuditReport {
    /// Whether nothing at all is wrong.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

#[cfg(test)]
mod tests;
