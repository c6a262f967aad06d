//! Held by opening it for nobody else.

use std::fs::File;
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::path::Path;

/// A mark that is held; no longer when it is dropped.
pub type Held = File;

/// `FILE_FLAG_DELETE_ON_CLOSE`: it goes with the last handle, also when the process is killed.
const GOES: u32 = 0x0400_0000;
/// `ERROR_SHARING_VIOLATION`
const IN_USE: i32 = 32;

/// Makes the mark, and holds it.
pub fn hold(path: &Path) -> io::Result<Held> {
    File::options().write(true).create_new(true).share_mode(0).custom_flags(GOES).open(path)
}

/// Whether somebody holds it.
pub fn is_held(path: &Path) -> bool {
    File::options().read(true).open(path).is_err_and(|error| error.raw_os_error() == Some(IN_USE))
}
