//! Held by flock(2).

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

/// A mark that is held; no longer when it is dropped.
pub type Held = Flock<File>;

/// Makes the mark, and holds it.
pub fn hold(path: &Path) -> io::Result<Held> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}

/// Whether somebody holds it.
pub fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err()
}
