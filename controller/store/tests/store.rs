//! What a store promises: all or nothing, one writer, clear refusals, backups that work, edits that are found.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ed25519_dalek::SigningKey;
use serde_json::json;
use thinlane_session::{Actor, Command, Context, Entry, NewPerson, Pools, World};
use thinlane_store::{
    BackupError, Bundled, DATABASE, OpenError, Reader, RowChange, SecretChange, Store, Tx, backup, restore, verify,
};
use thinlane_tlog::{Signer, canonical};

fn signer() -> Signer {
    Signer::new("store.test/log", SigningKey::from_bytes(&[9; 32])).expect("a name")
}

fn entry(text: &str) -> Tx {
    Tx { entries: vec![canonical::to_vec(&json!({"text": text})).expect("JSON")], ..Tx::default() }
}

/// A directory in which a small world was written, entry by entry.
fn world() -> (tempfile::TempDir, Store) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let mut store = Store::create(place.path(), signer()).expect("a new store");
    let mut world = World::new();
    let policy = thinlane_policy::PolicyState::load::<&str, &str>(&[]);
    let mut counter = 0u8;
    let mut random = |to: &mut [u8]| {
        counter += 1;
        to.fill(counter);
    };
    let now = thinlane_model::Now {
        mono: thinlane_model::Boot(1),
        wall: thinlane_model::Wall::from_millis(1_795_317_223_000),
    };
    for name in ["ada", "olga", "erik"] {
        let mut context = Context { now, policy: &policy, relay: None, pools: Pools::default(), random: &mut random };
        let person = NewPerson {
            login: name.parse().expect("a login"),
            name: name.to_owned(),
            org: None,
            sponsor: None,
            roles: [thinlane_model::Role::Requester].into_iter().collect(),
            until: None,
        };
        let decided = world.decide(&Actor::System, Command::AddPerson(person), &mut context).expect("it is taken");
        let mut tx = Tx::default();
        for event in decided.events {
            let entry = Entry::new(now.wall, Actor::System, event);
            world.apply(&entry, now.mono);
            tx.entries.push(canonical::to_vec(&entry).expect("an entry"));
        }
        let rows = world.take_changed_rows();
        tx.rows =
            rows.into_iter().map(|(key, doc)| RowChange { kind: key.kind.to_string(), id: key.id, doc }).collect();
        let done = store.commit(&[tx]).expect("it is written");
        assert!(done.note.is_some_and(|note| note.starts_with("store.test/log\n")));
    }
    (place, store)
}

fn sql(dir: &Path, statement: &str) {
    let db = rusqlite::Connection::open(dir.join(DATABASE)).expect("the file");
    assert!(db.execute(statement, []).expect("the edit") > 0, "{statement} changed nothing");
}

fn problems(dir: &Path) -> Vec<(String, String)> {
    let found = verify(dir, Vec::new()).expect("it can be read");
    found.problems.into_iter().map(|problem| (problem.kind.to_owned(), problem.message)).collect()
}

#[test]
fn a_store_that_nobody_touched_verifies_beside_its_writer_and_as_a_copy() {
    let (place, store) = world();
    assert_eq!(problems(place.path()), Vec::new());
    let copy = tempfile::tempdir().expect("a temporary directory");
    for name in fs::read_dir(place.path()).expect("files") {
        let path = name.expect("a file").path();
        fs::copy(&path, copy.path().join(path.file_name().expect("a name"))).expect("a copy");
    }
    drop(store);
    assert_eq!(problems(copy.path()), Vec::new());
}

#[test]
fn every_hand_edit_is_found_and_named() {
    let edits = [
        ("UPDATE rows SET doc = replace(doc, 'requester', 'admin') WHERE id = 'erik'", "rows", "erik"),
        ("DELETE FROM rows WHERE id = 'olga'", "rows", "olga"),
        ("INSERT INTO rows VALUES ('user', 'eve', '{}')", "rows", "eve"),
        ("UPDATE rows SET doc = 'x' WHERE id = 'ada'", "rows", "ada"),
        (
            "UPDATE entries SET json = CAST(replace(CAST(json AS TEXT), 'requester', 'admin') AS BLOB) WHERE idx = 1",
            "edited",
            "entry 1",
        ),
        ("DELETE FROM entries WHERE idx = 1", "missing", "entries 1"),
        ("DELETE FROM entries WHERE idx = 2", "missing", "ends at 2"),
        (
            "UPDATE checkpoints SET note = replace(note, 'store.test', 'stole.test') WHERE size = 3",
            "signature",
            "checkpoint",
        ),
    ];
    for (edit, kind, named) in edits {
        let (place, store) = world();
        drop(store);
        sql(place.path(), edit);
        let found = problems(place.path());
        assert!(found.iter().any(|(one, text)| one == kind && text.contains(named)), "{edit}: {found:?}");
    }
}

#[test]
fn a_rolled_back_database_is_found_by_what_others_remember() {
    let (place, mut store) = world();
    let before = place.path().join("before");
    backup(place.path(), &[], &before).expect("a backup");
    let note = store.commit(&[entry("later")]).expect("written").note.expect("a checkpoint");
    drop(store);
    let found = verify(place.path(), vec![("site north".to_owned(), note.clone())]).expect("it can be read");
    assert!(!found.problems.iter().any(|problem| problem.kind == "rolled-back"), "{:?}", found.problems);
    let old = tempfile::tempdir().expect("a temporary directory");
    restore(&before, old.path()).expect("restored");
    fs::copy(place.path().join("log.pub"), old.path().join("log.pub")).expect("the key");
    let found = verify(old.path(), vec![("site north".to_owned(), note)]).expect("it can be read");
    assert!(found.problems.iter().any(|p| p.kind == "rolled-back" && p.message.contains("site north")), "{found:?}");
}

#[test]
fn a_transaction_that_fails_leaves_neither_rows_nor_entries_nor_a_changed_tree() {
    let (place, mut store) = world();
    let (size, root) = (store.size(), store.proofs().root());
    // A full disk, as SQLite sees it: another connection holds the write lock, so nothing can be written.
    let other = rusqlite::Connection::open(place.path().join(DATABASE)).expect("the file");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let error = store.commit(&[entry("lost")]).expect_err("nothing can be written");
    assert!(error.to_string().contains("log cannot be written"), "{error}");
    assert_eq!((store.size(), store.proofs().root()), (size, root));
    other.execute_batch("ROLLBACK").expect("unlocked");
    let done = store.commit(&[entry("kept")]).expect("it can be written again");
    assert_eq!((done.first, done.size), (size, size + 1));
    drop(store);
    let reader = Reader::open(place.path()).expect("readable");
    let last = reader.entries(size, 10).expect("entries");
    assert_eq!(last.len(), 1);
    assert!(String::from_utf8_lossy(&last[0].json).contains("kept"));
}

#[test]
fn one_directory_has_one_writer() {
    let (place, store) = world();
    let error = Store::open(place.path(), signer()).err().expect("it is in use");
    assert!(matches!(&error, OpenError::InUse { holder, .. } if *holder == std::process::id().to_string()), "{error}");
    drop(store);
    let again = Store::open(place.path(), signer()).expect("free again");
    assert_eq!(again.size(), 3);
}

#[test]
fn foreign_newer_missing_and_present_files_are_refused_in_words() {
    let empty = tempfile::tempdir().expect("a temporary directory");
    let missing = Store::open(empty.path(), signer()).err().expect("nothing there").to_string();
    assert!(missing.contains("thinlane-controller init"), "{missing}");
    fs::write(empty.path().join(DATABASE), b"not a database, just some text that is long enough to be looked at")
        .expect("written");
    assert!(matches!(Store::open(empty.path(), signer()), Err(OpenError::Foreign(_))));
    let (place, store) = world();
    drop(store);
    assert!(matches!(Store::create(place.path(), signer()), Err(OpenError::Exists(_))));
    let db = rusqlite::Connection::open(place.path().join(DATABASE)).expect("the file");
    db.pragma_update(None, "user_version", 99).expect("the future");
    drop(db);
    for error in [Store::open(place.path(), signer()).err(), Reader::open(place.path()).err()] {
        assert!(matches!(error, Some(OpenError::Newer { found: 99 })), "{error:?}");
    }
}

#[test]
fn a_backup_is_private_whole_and_makes_a_working_store() {
    let (place, mut store) = world();
    let secret =
        SecretChange { kind: "credential".to_owned(), id: "ada".to_owned(), doc: Some("{}".to_owned()), expires: None };
    store.commit(&[Tx { secrets: vec![secret], ..Tx::default() }]).expect("written");
    fs::create_dir(place.path().join("policies")).expect("a directory");
    fs::write(place.path().join("policies/rules.toml"), "# rules").expect("written");
    let bundle: Vec<Bundled> = ["log.pub", "policies/rules.toml"].into_iter().filter_map(Bundled::new).collect();
    let to = place.path().join("backup");
    backup(place.path(), &bundle, &to).expect("a backup beside the writer");
    assert_eq!(fs::metadata(&to).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(matches!(backup(place.path(), &bundle, &to), Err(BackupError::Exists(_))));

    let fresh = tempfile::tempdir().expect("a temporary directory");
    let dir = fresh.path().join("new");
    restore(&to, &dir).expect("restored");
    assert_eq!(problems(&dir), Vec::new());
    let mut again = Store::open(&dir, signer()).expect("it works");
    assert_eq!(again.secrets("credential").expect("secrets").len(), 1);
    again.commit(&[entry("after")]).expect("it goes on");
    assert_eq!(fs::read_to_string(dir.join("policies/rules.toml")).expect("there"), "# rules");
    assert!(matches!(restore(&to, &dir), Err(BackupError::Open(OpenError::InUse { .. } | OpenError::Exists(_)))));
    assert!(matches!(restore(&place.path().join(DATABASE), &fresh.path().join("x")), Err(BackupError::NoBackup(_))));
    let mut bytes = fs::read(&to).expect("read");
    let at = bytes.windows(7).position(|seen| seen == b"# rules").expect("the policy is in it");
    bytes[at + 6] ^= 1;
    let damaged = fresh.path().join("damaged");
    fs::write(&damaged, &bytes).expect("written");
    assert!(matches!(restore(&damaged, &fresh.path().join("y")), Err(BackupError::Damaged(_))));
    assert!(!fresh.path().join("y").exists(), "nothing is made of it");
    for path in ["../escape", "/etc/passwd", "a/../../b", "", "."] {
        assert_eq!(Bundled::new(path), None, "{path}");
    }
}

#[test]
fn secrets_that_ran_out_are_deleted_and_only_these() {
    let (_place, mut store) = world();
    let secret = |id: &str, expires| SecretChange {
        kind: "token".to_owned(),
        id: id.to_owned(),
        doc: Some("hash".to_owned()),
        expires,
    };
    let secrets = vec![secret("old", Some(5)), secret("new", Some(50)), secret("ever", None)];
    store.commit(&[Tx { secrets, ..Tx::default() }]).expect("written");
    assert_eq!(store.drop_expired_secrets(10).expect("deleted"), 1);
    let left: Vec<_> = store.secrets("token").expect("secrets").into_iter().map(|row| row.id).collect();
    assert_eq!(left, ["ever", "new"]);
}
