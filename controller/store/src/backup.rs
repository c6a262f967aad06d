//! A backup is one file: the database as it was at one moment, and the controller's other files in a table.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use rusqlite::backup::Backup;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, params};

use sha2::{Digest, Sha256};

use crate::open::{DATABASE, DirLock, OpenError, check, sync_dir};
use crate::read::Reader;
use crate::system::{mode_of, narrow, seal};

/// Bytes of all bundled files together, at most.
const MOST_BUNDLED: u64 = 64 << 20;

/// A file beside the database that belongs into a backup: its path below the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundled(PathBuf);

impl Bundled {
    /// Takes a plain relative path; `None` for one that leads out of the directory.
    pub fn new(path: impl Into<PathBuf>) -> Option<Self> {
        let path = path.into();
        let plain = path.components().all(|part| matches!(part, Component::Normal(_))) && path.file_name().is_some();
        (plain && path.to_str().is_some()).then_some(Self(path))
    }
}

/// Why a backup was not made, or not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{} exists already (next: name another file, or remove this one)", .0.display())]
    Exists(PathBuf),
    #[error("{} is no backup of a controller (next: name a file that `thinlane-controller backup` wrote)", .0.display())]
    NoBackup(PathBuf),
    #[error("{} is damaged: it is not what was written (next: restore another backup)", .0.display())]
    Damaged(PathBuf),
    #[error("the files of the controller are larger than {MOST_BUNDLED} bytes together")]
    Large,
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("the backup cannot be written or read: {0}")]
    Database(#[from] rusqlite::Error),
}

/// Writes the database of `dir` as it is at this moment, and the files `bundle`, into `to` (mode 0600), which must
/// not exist. A controller may run on the directory meanwhile.
pub fn backup(dir: &Path, bundle: &[Bundled], to: &Path) -> Result<(), BackupError> {
    let reader = Reader::open(dir)?;
    create_private(to)?;
    let made = fill(&reader, dir, bundle, to);
    if made.is_err() {
        let _ = fs::remove_file(to);
    }
    made
}

fn fill(reader: &Reader, dir: &Path, bundle: &[Bundled], to: &Path) -> Result<(), BackupError> {
    let mut copy =
        Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // All pages in one step: a reader's snapshot in write-ahead mode, which the writer does not wait for.
    Backup::new(reader.connection(), &mut copy)?.run_to_completion(i32::MAX, std::time::Duration::ZERO, None)?;
    copy.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get::<_, String>(0))?;
    let tx = copy.transaction()?;
    tx.execute_batch("CREATE TABLE bundle (path TEXT PRIMARY KEY, mode INTEGER NOT NULL, bytes BLOB NOT NULL) STRICT")?;
    let mut total = 0;
    for Bundled(path) in bundle {
        let from = dir.join(path);
        let io = |source| BackupError::Io { path: from.clone(), source };
        let meta = fs::metadata(&from).map_err(io)?;
        total += meta.len();
        if total > MOST_BUNDLED {
            return Err(BackupError::Large);
        }
        let bytes = fs::read(&from).map_err(io)?;
        let name = path.to_str().expect("checked when it was made");
        tx.execute("INSERT INTO bundle VALUES (?1, ?2, ?3)", params![name, mode_of(&meta), bytes])?;
    }
    let digest = digest(&tx)?;
    tx.execute_batch("CREATE TABLE bundle_digest (sha256 BLOB NOT NULL) STRICT")?;
    tx.execute("INSERT INTO bundle_digest VALUES (?1)", params![digest])?;
    tx.commit()?;
    copy.close().map_err(|(_, error)| error)?;
    let io = |source| BackupError::Io { path: to.to_owned(), source };
    fs::File::open(to).and_then(|file| file.sync_all()).map_err(io)
}

/// Makes `dir` (which must hold no controller) from the backup `from`.
///
/// The copy is a roll-back: gateways that remember a newer checkpoint will say so.
pub fn restore(from: &Path, dir: &Path) -> Result<(), BackupError> {
    let source = open_backup(from)?;
    fs::DirBuilder::new()
        .recursive(true)
        .create(dir)
        .map_err(|source| BackupError::Io { path: dir.to_owned(), source })?;
    seal(dir).map_err(|source| BackupError::Io { path: dir.to_owned(), source })?;
    let _lock = DirLock::take(dir)?;
    let database = dir.join(DATABASE);
    if database.exists() {
        return Err(OpenError::Exists(dir.to_owned()).into());
    }
    let mut files = source.prepare("SELECT path, mode, bytes FROM bundle")?;
    let mut rows = files.query([])?;
    while let Some(row) = rows.next()? {
        let (path, mode, bytes): (String, u32, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let Some(Bundled(path)) = Bundled::new(path) else { return Err(BackupError::NoBackup(from.to_owned())) };
        put_file(&dir.join(path), mode & 0o700, &bytes)?;
    }
    // The database comes last and under another name first: its presence says that all the rest is there.
    let fresh = dir.join("thinlane.db.restoring");
    let _ = fs::remove_file(&fresh);
    create_private(&fresh)?;
    let mut copy =
        Connection::open_with_flags(&fresh, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    Backup::new(&source, &mut copy)?.run_to_completion(i32::MAX, std::time::Duration::ZERO, None)?;
    copy.execute_batch("DROP TABLE bundle; DROP TABLE bundle_digest; VACUUM")?;
    copy.close().map_err(|(_, error)| error)?;
    let io = |source| BackupError::Io { path: database.clone(), source };
    fs::File::open(&fresh).and_then(|file| file.sync_all()).map_err(io)?;
    fs::rename(&fresh, &database).map_err(io)?;
    sync_dir(dir)?;
    Ok(())
}

fn open_backup(from: &Path) -> Result<Connection, BackupError> {
    if !from.is_file() {
        return Err(BackupError::NoBackup(from.to_owned()));
    }
    let db = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    match check(&db, from) {
        Ok(_) => {}
        Err(OpenError::Foreign(_)) => return Err(BackupError::NoBackup(from.to_owned())),
        Err(error) => return Err(error.into()),
    }
    if !db.table_exists(None, "bundle")? || !db.table_exists(None, "bundle_digest")? {
        return Err(BackupError::NoBackup(from.to_owned()));
    }
    // A page that cannot be read is damage as much as one that reads otherwise.
    let told = db.query_row("SELECT sha256 FROM bundle_digest", [], |row| row.get::<_, Vec<u8>>(0));
    match (told, digest(&db)) {
        (Ok(told), Ok(found)) if told == found => Ok(db),
        _ => Err(BackupError::Damaged(from.to_owned())),
    }
}

/// SHA-256 over every table's name, definition and rows, but for the table that holds it.
fn digest(db: &Connection) -> rusqlite::Result<Vec<u8>> {
    let mut hash = Sha256::new();
    let mut put = |kind: u8, bytes: &[u8]| {
        hash.update([kind]);
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    let mut tables = db.prepare(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'bundle_digest' \
         ORDER BY name",
    )?;
    let tables = tables.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    for table in tables {
        let (name, sql) = table?;
        put(b't', name.as_bytes());
        put(b's', sql.as_bytes());
        let mut rows = db.prepare(&format!("SELECT * FROM \"{}\"", name.replace('"', "\"\"")))?;
        let columns = rows.column_count();
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                match row.get_ref(column)? {
                    ValueRef::Null => put(b'0', b""),
                    ValueRef::Integer(number) => put(b'i', &number.to_be_bytes()),
                    ValueRef::Real(number) => put(b'r', &number.to_bits().to_be_bytes()),
                    ValueRef::Text(text) => put(b'x', text),
                    ValueRef::Blob(bytes) => put(b'b', bytes),
                }
            }
        }
    }
    Ok(hash.finalize().to_vec())
}

fn create_private(path: &Path) -> Result<(), BackupError> {
    match narrow(OpenOptions::new().write(true).create_new(true), 0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(BackupError::Exists(path.to_owned())),
        Err(source) => Err(BackupError::Io { path: path.to_owned(), source }),
    }
}

fn put_file(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), BackupError> {
    let io = |source| BackupError::Io { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io)?;
    }
    let mut file =
        narrow(OpenOptions::new().write(true).create(true).truncate(true), mode | 0o400).open(path).map_err(io)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io)
}
