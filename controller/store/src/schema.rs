//! The tables, as numbered migrations; each runs once, in its own transaction.

use rusqlite::Connection;

/// In the file's header: "Thln".
pub(crate) const APPLICATION_ID: i32 = 0x5468_6c6e;

/// The newest schema that this program knows.
pub const VERSION: i32 = MIGRATIONS.len() as i32;

const MIGRATIONS: [&str; 1] = [
    // 1: the log, the state as documents, what is secret, and the signed checkpoints.
    "CREATE TABLE entries (
         idx  INTEGER PRIMARY KEY,
         json BLOB NOT NULL,
         leaf BLOB NOT NULL CHECK (length(leaf) = 32)
     ) STRICT;
     CREATE TABLE rows (
         kind TEXT NOT NULL,
         id   TEXT NOT NULL,
         doc  TEXT NOT NULL,
         PRIMARY KEY (kind, id)
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE secrets (
         kind    TEXT NOT NULL,
         id      TEXT NOT NULL,
         doc     TEXT NOT NULL,
         expires INTEGER,
         PRIMARY KEY (kind, id)
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE checkpoints (
         size INTEGER PRIMARY KEY,
         note TEXT NOT NULL
     ) STRICT;",
];

/// Brings the file from whatever version it has to [`VERSION`]; a newer one is the caller's to refuse.
pub(crate) fn migrate(db: &mut Connection, from: i32) -> Result<(), rusqlite::Error> {
    let known = MIGRATIONS.iter().zip(1i32..).filter(|(_, number)| *number > from);
    for (sql, number) in known {
        let tx = db.transaction()?;
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", number)?;
        tx.commit()?;
    }
    Ok(())
}
