//! Held by opening it for nobody else.

use std::fs::File;
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::path::Path;

use super::files::Owner;

/// A mark that is held; no longer when it is dropped.
pub type Held = File;

/// `FILE_FLAG_DELETE_ON_CLOSE`: it goes with the last handle, also when the process is killed.
const GOES: u32 = 0x0400_0000;

/// Makes the mark, and holds it.
pub fn hold(path: &Path, owner: Option<Owner>) -> io::Result<Held> {
    let file = File::options().write(true).create_new(true).share_mode(0).custom_flags(GOES).open(path)?;
    owner.map_or(Ok(()), |owner| owner.take(&file))?;
    Ok(file)
}

/// Whether somebody holds it, as far as can be said: then it can be opened by nobody else.
pub fn is_held(path: &Path) -> bool {
    File::options().read(true).open(path).is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
}
