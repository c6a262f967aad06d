//! Opening a controller's directory for writing: the lock, the file's checks, the tree in memory.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use thinlane_tlog::{Hash, Signer};

use crate::proof::Proofs;
use crate::schema;
use crate::system::{self, Locked, narrow};

/// The database's name in a controller's directory.
pub const DATABASE: &str = "thinlane.db";
/// The file with the log's verifier key (C2SP vkey), beside the database.
pub const LOG_KEY: &str = "log.pub";
const LOCK: &str = "lock";

/// Why a controller's directory cannot be used. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} holds no controller: there is no {DATABASE} in it (make one with `thinlane-controller init --dir {}`)", .0.display(), .0.display())]
    Missing(PathBuf),
    #[error("{} holds a controller already; choose another directory", .0.display())]
    Exists(PathBuf),
    #[error("another process (pid {holder}) uses {}; stop it first, or use another directory", .dir.display())]
    InUse { dir: PathBuf, holder: String },
    #[error("{} is no database of a controller (next: `thinlane-controller restore --from BACKUP --dir NEWDIR`)", .0.display())]
    Foreign(PathBuf),
    #[error(
        "the database has schema {found}, this program knows up to {}: use the newer program that wrote it",
        schema::VERSION
    )]
    Newer { found: i32 },
    #[error(
        "the log in the database has a gap after entry {0}: run `thinlane audit verify --dir`, then restore a backup"
    )]
    Gap(u64),
    #[error("cannot use {}: {source}", .path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("the database cannot be read: {0} (next: `thinlane-controller restore --from BACKUP --dir NEWDIR`)")]
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        OpenError::Database(error)
    }
}

/// The exclusive use of a controller's directory, until dropped.
#[derive(Debug)]
pub struct DirLock {
    _file: Locked,
}

impl DirLock {
    /// Takes the lock, or says who holds it.
    pub fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(LOCK);
        let io = |source| OpenError::Io { path: path.clone(), source };
        match system::lock(&path) {
            Ok(mut file) => {
                file.set_len(0).map_err(io)?;
                writeln!(file, "{}", std::process::id()).map_err(io)?;
                Ok(Self { _file: file })
            }
            Err((Some(mut file), _)) => {
                let mut holder = String::new();
                let _ = (&mut file).take(20).read_to_string(&mut holder);
                let holder = if holder.trim().is_empty() { "unknown" } else { holder.trim() }.to_owned();
                Err(OpenError::InUse { dir: dir.to_owned(), holder })
            }
            Err((None, error)) => Err(io(error)),
        }
    }
}

/// The writer of one controller's state and log. There is at most one per directory.
pub struct Store {
    pub(crate) db: Connection,
    pub(crate) proofs: Proofs,
    pub(crate) signer: Signer,
    pub(crate) dir: PathBuf,
    _lock: DirLock,
}

impl Store {
    /// Makes an empty database in `dir`, which must exist; `signer` signs the log's checkpoints.
    pub fn create(dir: &Path, signer: Signer) -> Result<Self, OpenError> {
        let path = dir.join(DATABASE);
        let lock = DirLock::take(dir)?;
        let io = |source| OpenError::Io { path: path.clone(), source };
        // SQLite gives its journal the mode of the database file, so that it is right from the first byte.
        match narrow(OpenOptions::new().write(true).create_new(true), 0o600).open(&path) {
            Ok(file) => file.sync_all().map_err(io)?,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(OpenError::Exists(dir.to_owned()));
            }
            Err(error) => return Err(io(error)),
        }
        let mut db = connect(&path).map_err(|error| named(error, &path))?;
        db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
        schema::migrate(&mut db, 0)?;
        write_log_key(dir, &signer)?;
        sync_dir(dir)?;
        Ok(Self { db, proofs: Proofs::new(), signer, dir: dir.to_owned(), _lock: lock })
    }

    /// Opens the database in `dir` for writing; older schemas are brought up to date.
    pub fn open(dir: &Path, signer: Signer) -> Result<Self, OpenError> {
        let path = dir.join(DATABASE);
        if !path.is_file() {
            return Err(OpenError::Missing(dir.to_owned()));
        }
        let lock = DirLock::take(dir)?;
        let mut db = connect(&path).map_err(|error| named(error, &path))?;
        let version = check(&db, &path)?;
        db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
        schema::migrate(&mut db, version)?;
        let proofs = load_tree(&db)?;
        Ok(Self { db, proofs, signer, dir: dir.to_owned(), _lock: lock })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The tree over all committed entries.
    pub fn proofs(&self) -> &Proofs {
        &self.proofs
    }

    /// Entries in the log.
    pub fn size(&self) -> u64 {
        self.proofs.size()
    }
}

fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    db.pragma_update(None, "trusted_schema", false)?;
    db.pragma_update(None, "secure_delete", true)?;
    Ok(db)
}

/// Whether the file is ours and not from the future; answers its schema's version.
pub(crate) fn check(db: &Connection, path: &Path) -> Result<i32, OpenError> {
    let id: i32 =
        db.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(|error| named(error, path))?;
    if id != schema::APPLICATION_ID {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    let version: i32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > schema::VERSION { Err(OpenError::Newer { found: version }) } else { Ok(version) }
}

/// A file that is no database at all is ours least of all.
fn named(error: rusqlite::Error, path: &Path) -> OpenError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => OpenError::Foreign(path.to_owned()),
        _ => OpenError::Database(error),
    }
}

pub(crate) fn load_tree(db: &Connection) -> Result<Proofs, OpenError> {
    let mut proofs = Proofs::new();
    let mut all = db.prepare("SELECT idx, leaf FROM entries ORDER BY idx")?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>(0)? != proofs.size() as i64 {
            return Err(OpenError::Gap(proofs.size()));
        }
        proofs.append(Hash(row.get(1)?));
    }
    Ok(proofs)
}

fn write_log_key(dir: &Path, signer: &Signer) -> Result<(), OpenError> {
    let path = dir.join(LOG_KEY);
    let io = |source| OpenError::Io { path: path.clone(), source };
    let mut file = narrow(OpenOptions::new().write(true).create(true).truncate(true), 0o644).open(&path).map_err(io)?;
    writeln!(file, "{}", signer.verifier()).and_then(|()| file.sync_all()).map_err(io)
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), OpenError> {
    system::sync_dir(dir).map_err(|source| OpenError::Io { path: dir.to_owned(), source })
}
