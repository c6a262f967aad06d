//! What differs between systems: who may read a file, and who holds a directory. The controller runs on Linux; elsewhere
//! copies of its directory are read and verified, in files that belong to whoever reads them.

pub(crate) use here::{Locked, lock, mode_of, narrow, seal, sync_dir};

#[cfg(unix)]
mod here {
    use std::fs::{File, Metadata, OpenOptions, Permissions, set_permissions};
    use std::io;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    use std::path::Path;

    use nix::errno::Errno;
    use nix::fcntl::{Flock, FlockArg};

    /// A file that no other process holds.
    pub(crate) type Locked = Flock<File>;

    /// Gives a new file this mode.
    pub(crate) fn narrow(options: &mut OpenOptions, mode: u32) -> &mut OpenOptions {
        options.mode(mode)
    }

    /// Takes the exclusive use of a file; `Err(Some(..))`: another process has it.
    pub(crate) fn lock(path: &Path) -> Result<Locked, (Option<File>, io::Error)> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = narrow(&mut options, 0o600).open(path).map_err(|error| (None, error))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(file),
            Err((file, Errno::EWOULDBLOCK)) => Err((Some(file), Errno::EWOULDBLOCK.into())),
            Err((_, errno)) => Err((None, errno.into())),
        }
    }

    /// A file's mode, as it is kept in a backup.
    pub(crate) fn mode_of(meta: &Metadata) -> u32 {
        meta.permissions().mode() & 0o777
    }

    /// Closes a directory to others.
    pub(crate) fn seal(dir: &Path) -> io::Result<()> {
        set_permissions(dir, Permissions::from_mode(0o700))
    }

    /// Makes what was put into a directory last through a loss of power.
    pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
        File::open(dir).and_then(|open| open.sync_all())
    }
}

#[cfg(windows)]
mod here {
    use std::fs::{File, Metadata, OpenOptions};
    use std::io;
    use std::os::windows::fs::OpenOptionsExt;
    use std::path::Path;

    /// A file that no other process holds.
    pub(crate) type Locked = File;

    /// `FILE_SHARE_READ`: others may read who holds it.
    const READERS: u32 = 1;
    /// `ERROR_SHARING_VIOLATION`
    const IN_USE: i32 = 32;

    /// Files take the access list of their directory.
    pub(crate) fn narrow(options: &mut OpenOptions, _mode: u32) -> &mut OpenOptions {
        options
    }

    /// Takes the exclusive use of a file; `Err(Some(..))`: another process has it.
    pub(crate) fn lock(path: &Path) -> Result<Locked, (Option<File>, io::Error)> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).share_mode(READERS);
        options.open(path).map_err(|error| match error.raw_os_error() {
            Some(IN_USE) => (OpenOptions::new().read(true).share_mode(READERS | 2).open(path).ok(), error),
            _ => (None, error),
        })
    }

    /// As files are made on systems with modes.
    pub(crate) fn mode_of(_meta: &Metadata) -> u32 {
        0o600
    }

    /// A directory takes the access list of the one above it.
    pub(crate) fn seal(_dir: &Path) -> io::Result<()> {
        Ok(())
    }

    /// A directory cannot be opened as a file; NTFS keeps its own journal of names.
    pub(crate) fn sync_dir(_dir: &Path) -> io::Result<()> {
        Ok(())
    }
}
