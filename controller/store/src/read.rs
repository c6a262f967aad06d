//! Reading what has been committed, beside the writer or without one.

use std::path::Path;

use data_encoding::HEXLOWER;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row as SqlRow, params};
use serde_json::Value;
use thinlane_tlog::Hash;
use thinlane_wire::api::{LogEntry, Schema};

use crate::open::{DATABASE, OpenError, Store, check};

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// From 0.
    pub index: u64,
    /// Canonical JSON: exactly the bytes that are hashed.
    pub json: Vec<u8>,
    pub leaf: Hash,
}

/// One document of the state.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub kind: String,
    pub id: String,
    pub doc: Value,
}

/// One secret; not `Debug`.
#[derive(Clone)]
pub struct SecretRow {
    pub kind: String,
    pub id: String,
    pub doc: String,
    /// Wall clock, milliseconds.
    pub expires: Option<i64>,
}

impl From<Entry> for LogEntry {
    /// As the API and the command line show it; what is no entry is shown as nothing.
    fn from(entry: Entry) -> Self {
        let json: Value = serde_json::from_slice(&entry.json).unwrap_or(Value::Null);
        let text = |name: &str| json.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        LogEntry {
            schema: Schema,
            index: entry.index,
            time: text("time").parse().unwrap_or_default(),
            actor: text("actor"),
            kind: text("kind"),
            leaf_hash: HEXLOWER.encode(&entry.leaf.0),
            entry: json,
        }
    }
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the database cannot be read: {0} (next: `thinlane-controller restore --from BACKUP --dir NEWDIR`)")]
    Database(rusqlite::Error),
    #[error("the row {kind} {id} is no JSON: {source}")]
    Document { kind: String, id: String, source: serde_json::Error },
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        ReadError::Database(error)
    }
}

/// A read-only view of a database; sees each commit as a whole.
pub struct Reader {
    db: Connection,
}

impl Reader {
    /// Opens the database in `dir` for reading. Works beside a running controller, and on a copy of its
    /// directory; takes no lock and changes nothing that belongs to the log.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(DATABASE);
        if !path.is_file() {
            return Err(OpenError::Missing(dir.to_owned()));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&path, flags)?;
        db.busy_timeout(std::time::Duration::from_secs(5))?;
        db.pragma_update(None, "trusted_schema", false)?;
        match check(&db, &path) {
            Ok(_) => Ok(Self { db }),
            // A copy on a read-only medium: write-ahead mode needs its index file beside it, unless the file
            // is declared to stay as it is.
            Err(OpenError::Database(error))
                if matches!(
                    error.sqlite_error_code(),
                    Some(rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::ReadOnly)
                ) =>
            {
                let uri = format!("file:{}?immutable=1", escape(&path));
                let db = Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?;
                check(&db, &path)?;
                Ok(Self { db })
            }
            Err(error) => Err(error),
        }
    }

    /// At most `limit` entries from index `from` on.
    pub fn entries(&self, from: u64, limit: usize) -> Result<Vec<Entry>, ReadError> {
        entries(&self.db, from, limit)
    }

    /// Entries in the log.
    pub fn size(&self) -> Result<u64, ReadError> {
        let size: i64 = self.db.query_row("SELECT coalesce(max(idx) + 1, 0) FROM entries", [], |row| row.get(0))?;
        Ok(size.max(0) as u64)
    }

    /// The newest signed checkpoint.
    pub fn checkpoint(&self) -> Result<Option<String>, ReadError> {
        checkpoint(&self.db)
    }

    /// All signed checkpoints, oldest first.
    pub fn checkpoints(&self) -> Result<Vec<String>, ReadError> {
        let mut all = self.db.prepare_cached("SELECT note FROM checkpoints ORDER BY size")?;
        let notes = all.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(notes)
    }

    /// All documents of the state, by kind and id.
    pub fn rows(&self) -> Result<Vec<Row>, ReadError> {
        rows(&self.db)
    }

    /// Runs `read` on one snapshot, whatever is committed meanwhile.
    pub fn snapshot<T, E: From<ReadError>>(&self, read: impl FnOnce(&Self) -> Result<T, E>) -> Result<T, E> {
        self.db.execute_batch("BEGIN DEFERRED").map_err(ReadError::from)?;
        let answer = read(self);
        let _ = self.db.execute_batch("ROLLBACK");
        answer
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.db
    }

    /// Calls `each` for every stored (index, bytes, leaf), whatever they are, in the order of the index.
    pub(crate) fn each_entry(&self, mut each: impl FnMut(i64, &[u8], &[u8])) -> Result<(), ReadError> {
        let mut all = self.db.prepare("SELECT idx, json, leaf FROM entries ORDER BY idx")?;
        let mut rows = all.query([])?;
        while let Some(row) = rows.next()? {
            each(
                row.get(0)?,
                row.get_ref(1)?.as_bytes().unwrap_or_default(),
                row.get_ref(2)?.as_bytes().unwrap_or_default(),
            );
        }
        Ok(())
    }
}

impl Store {
    /// All documents of the state.
    pub fn rows(&self) -> Result<Vec<Row>, ReadError> {
        rows(&self.db)
    }

    /// All secrets of one kind.
    pub fn secrets(&self, kind: &str) -> Result<Vec<SecretRow>, ReadError> {
        let mut all =
            self.db.prepare_cached("SELECT kind, id, doc, expires FROM secrets WHERE kind = ?1 ORDER BY id")?;
        let found = all
            .query_map([kind], |row| {
                Ok(SecretRow { kind: row.get(0)?, id: row.get(1)?, doc: row.get(2)?, expires: row.get(3)? })
            })?
            .collect::<Result<_, _>>()?;
        Ok(found)
    }

    /// The newest signed checkpoint.
    pub fn checkpoint(&self) -> Result<Option<String>, ReadError> {
        checkpoint(&self.db)
    }

    /// At most `limit` entries from index `from` on.
    pub fn entries(&self, from: u64, limit: usize) -> Result<Vec<Entry>, ReadError> {
        entries(&self.db, from, limit)
    }
}

fn entries(db: &Connection, from: u64, limit: usize) -> Result<Vec<Entry>, ReadError> {
    let Ok(from) = i64::try_from(from) else { return Ok(Vec::new()) };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut some = db.prepare_cached("SELECT idx, json, leaf FROM entries WHERE idx >= ?1 ORDER BY idx LIMIT ?2")?;
    let found = some.query_map(params![from, limit], entry)?.collect::<Result<_, _>>()?;
    Ok(found)
}

fn entry(row: &SqlRow<'_>) -> Result<Entry, rusqlite::Error> {
    let index: i64 = row.get(0)?;
    Ok(Entry { index: index.max(0) as u64, json: row.get(1)?, leaf: Hash(row.get(2)?) })
}

fn checkpoint(db: &Connection) -> Result<Option<String>, ReadError> {
    let newest =
        db.query_row("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1", [], |row| row.get(0)).optional()?;
    Ok(newest)
}

fn rows(db: &Connection) -> Result<Vec<Row>, ReadError> {
    let mut all = db.prepare_cached("SELECT kind, id, doc FROM rows ORDER BY kind, id")?;
    let mut found = Vec::new();
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        let (kind, id): (String, String) = (row.get(0)?, row.get(1)?);
        let doc = serde_json::from_str(row.get_ref(2)?.as_str().unwrap_or_default());
        match doc {
            Ok(doc) => found.push(Row { kind, id, doc }),
            Err(source) => return Err(ReadError::Document { kind, id, source }),
        }
    }
    Ok(found)
}

/// A path inside a `file:` URI.
fn escape(path: &Path) -> String {
    path.to_string_lossy()
        .chars()
        .map(|letter| match letter {
            '%' | '?' | '#' => format!("%{:02X}", letter as u32),
            other => other.to_string(),
        })
        .collect()
}
