//! Held by flock(2).

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use super::files::{Owner, private};

/// A mark that is held; no longer when it is dropped.
pub type Held = Flock<File>;

/// Makes the mark, gives it away, and holds it.
pub fn hold(path: &Path, owner: Option<Owner>) -> io::Result<Held> {
    let file = private(File::options().write(true).create_new(true)).open(path)?;
    let given = owner.map_or(Ok(()), |owner| owner.take(&file));
    let held = given.and_then(|()| Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, no)| no.into()));
    if held.is_err() {
        let _ = fs::remove_file(path);
    }
    held
}

/// Whether somebody holds it, as far as can be said; those who ask do not disturb each other.
pub fn is_held(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => Flock::lock(file, FlockArg::LockSharedNonblock).is_err(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}
