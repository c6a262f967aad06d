//! Whether a controller's directory tells one consistent story: entries, checkpoints, and the state they lead to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde_json::Value;
use thinlane_session::{Entry, World};
use thinlane_tlog::audit::{Auditor, Finding};
use thinlane_tlog::{Hash, Verifier};
use thinlane_wire::api::{AuditProblem, AuditReport, Schema};

use crate::open::{LOG_KEY, OpenError};
use crate::read::{ReadError, Reader};

/// Problems with rows that are kept; more are only counted.
const MOST_ROWS: usize = 200;
/// Entries that are no entries, likewise.
const MOST_UNREAD: u64 = 20;

/// What was found.
#[derive(Debug, Clone)]
#[must_use]
pub struct Verified {
    /// Entries that were read.
    pub entries: u64,
    pub root: Hash,
    /// Checkpoints that fit: the log's own and those that others remember.
    pub checkpoints: u64,
    pub problems: Vec<Problem>,
}

/// One thing that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `edited` | `missing` | `reordered` | `rolled-back` | `forked` | `signature` | `rows` | `entry`.
    pub kind: &'static str,
    /// The entry that it is about.
    pub index: Option<u64>,
    /// One sentence.
    pub message: String,
}

/// Why nothing could be verified at all.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{} with the log's verifier key cannot be read: {reason}", .path.display())]
    Key { path: PathBuf, reason: String },
}

impl Verified {
    /// Whether nothing at all is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

impl From<Verified> for AuditReport {
    /// As the API and the command line show it.
    fn from(found: Verified) -> Self {
        let problem = |it: Problem| AuditProblem { kind: it.kind.to_owned(), index: it.index, message: it.message };
        AuditReport {
            schema: Schema,
            ok: found.is_sound(),
            entries: found.entries,
            root: HEXLOWER.encode(&found.root.0),
            checkpoints: found.checkpoints,
            problems: found.problems.into_iter().map(problem).collect(),
        }
    }
}

/// Verifies the controller's directory `dir`, or a copy of it; needs neither a log-in nor the lock.
///
/// `remembered` are signed checkpoints that others kept, each with a name for its keeper.
pub fn verify(dir: &Path, remembered: Vec<(String, String)>) -> Result<Verified, VerifyError> {
    let log = log_key(dir)?;
    let reader = Reader::open(dir)?;
    reader.snapshot(|reader| examine(reader, log, remembered))
}

/// Reads the verifier key that lies beside the database.
fn log_key(dir: &Path) -> Result<Verifier, VerifyError> {
    let path = dir.join(LOG_KEY);
    let key = |reason: String| VerifyError::Key { path: path.clone(), reason };
    let text = fs::read_to_string(&path).map_err(|error| key(error.to_string()))?;
    text.trim().parse().map_err(|error| key(format!("{error}")))
}

fn examine(reader: &Reader, log: Verifier, remembered: Vec<(String, String)>) -> Result<Verified, VerifyError> {
    let mut world = World::new();
    let mut audit = Auditor::new(log, reader.checkpoints()?, remembered);
    let mut problems = Vec::new();
    let mut unread = 0u64;
    reader.each_entry(|index, json, leaf| {
        let index = index.max(0) as u64;
        // A hash of another length equals no hash: all zero stands for it.
        audit.entry(index, json, &leaf.try_into().map(Hash).unwrap_or(Hash([0; 32])));
        match serde_json::from_slice::<Entry>(json) {
            Ok(entry) => world.replay(&entry),
            Err(error) => {
                unread += 1;
                if unread <= MOST_UNREAD {
                    let message = format!("entry {index} is none of this log's: {error}");
                    problems.push(Problem { kind: "entry", index: Some(index), message });
                }
            }
        }
    })?;
    let report = audit.finish();
    let mut found: Vec<Problem> = report.findings.iter().map(problem).collect();
    found.append(&mut problems);
    if report.more > 0 {
        found.push(Problem { kind: "edited", index: None, message: format!("{} findings more", report.more) });
    }
    compare_rows(reader, &world, &mut found)?;
    Ok(Verified {
        entries: report.entries,
        root: report.root,
        checkpoints: report.checkpoints + report.remembered,
        problems: found,
    })
}

/// The state as stored against the state that the log leads to.
fn compare_rows(reader: &Reader, world: &World, problems: &mut Vec<Problem>) -> Result<(), ReadError> {
    let mut messages = Vec::new();
    let stored = match reader.rows() {
        Ok(rows) => rows,
        Err(ReadError::Document { kind, id, .. }) => {
            let message = format!("the row {kind} {id} was edited: it is no JSON any more");
            problems.push(Problem { kind: "rows", index: None, message });
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let mut told = documents(world);
    for row in stored {
        match told.remove(&(row.kind.clone(), row.id.clone())) {
            Some(doc) if doc == row.doc => {}
            Some(doc) => {
                let field = differing(&doc, &row.doc);
                messages.push(format!("the row {} {} was edited: {field} is not what the log says", row.kind, row.id));
            }
            None => messages.push(format!("the row {} {} was added: the log does not know it", row.kind, row.id)),
        }
    }
    // What an empty world has as well may be missing: it was never changed, so never written.
    let never: BTreeMap<(String, String), Value> = documents(&World::new());
    let deleted = told.into_iter().filter(|(key, doc)| never.get(key) != Some(doc));
    messages.extend(deleted.map(|((kind, id), _)| format!("the row {kind} {id} was deleted: the log has it")));
    let more = messages.len().saturating_sub(MOST_ROWS);
    messages.truncate(MOST_ROWS);
    if more > 0 {
        messages.push(format!("{more} rows more are not what the log says"));
    }
    problems.extend(messages.into_iter().map(|message| Problem { kind: "rows", index: None, message }));
    Ok(())
}

fn documents(world: &World) -> BTreeMap<(String, String), Value> {
    world.rows().map(|(key, doc)| ((key.kind.to_string(), key.id), doc)).collect()
}

/// The name of the first member in which two documents differ.
fn differing(told: &Value, stored: &Value) -> String {
    if let (Value::Object(told), Value::Object(stored)) = (told, stored) {
        let names = told.keys().chain(stored.keys());
        if let Some(name) = names.into_iter().find(|name| told.get(*name) != stored.get(*name)) {
            return format!("`{name}`");
        }
    }
    "the document".to_owned()
}

fn problem(finding: &Finding) -> Problem {
    let (kind, index) = match finding {
        Finding::Edited { index } | Finding::NotCanonical { index, .. } => ("edited", Some(*index)),
        Finding::Moved { index, .. } | Finding::Reordered { index, .. } => ("reordered", Some(*index)),
        Finding::Gap { index, .. } | Finding::Truncated { index, .. } => ("missing", Some(*index)),
        Finding::Rewritten { index, .. } => ("edited", Some(*index)),
        Finding::TwoRoots { index } | Finding::Forked { index, .. } => ("forked", Some(*index)),
        Finding::Backwards { index, .. } | Finding::RolledBack { index, .. } => ("rolled-back", Some(*index)),
        Finding::BadCheckpoint { .. } | Finding::BadMemory { .. } => ("signature", None),
        Finding::NoCheckpoint { index } => ("signature", Some(*index)),
    };
    Problem { kind, index, message: finding.to_string() }
}
