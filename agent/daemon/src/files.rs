//! Where the agent keeps what, and how it writes: whole files or nothing, readable by nobody else.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use ring::rand::SecureRandom as _;

/// The two directories of one agent.
///
/// `dir` outlives reboots and holds the identity; `run` is memory (tmpfs) and holds the lanes of this boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    pub dir: PathBuf,
    pub run: PathBuf,
}

impl Dirs {
    /// Key, certificate, controller and its keys: the result of `enroll`.
    pub fn identity(&self) -> PathBuf {
        self.dir.join("identity.json")
    }

    /// The newest time that the controller vouched for.
    pub fn clock(&self) -> PathBuf {
        self.dir.join("clock.json")
    }

    /// The newest checkpoint of the controller's log.
    pub fn witness(&self) -> PathBuf {
        self.dir.join("witness.json")
    }

    /// Stands while the site is isolated.
    pub fn isolated(&self) -> PathBuf {
        self.dir.join("isolated")
    }

    /// `agent.toml` beside the identity; the one in /etc is used where this is absent.
    pub fn config(&self) -> PathBuf {
        self.dir.join("agent.toml")
    }

    /// Held for as long as a daemon runs on this run directory.
    pub fn lock(&self) -> PathBuf {
        self.run.join("agent.lock")
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join("agent.sock")
    }

    /// Open lanes, ended sessions, and reports that the controller has not acknowledged.
    pub fn state(&self) -> PathBuf {
        self.run.join("state.json")
    }

    /// Private and preshared keys of the open lanes.
    pub fn lane_keys(&self) -> PathBuf {
        self.run.join("lanes.key")
    }

    /// Lanes that may have left something in the kernel.
    pub fn traces(&self) -> PathBuf {
        self.run.join("traces.json")
    }

    /// Forwarding switches as they were before the agent touched them.
    pub fn forwarding(&self) -> PathBuf {
        self.run.join("forwarding.json")
    }

    /// What the daemon was started with: `check` and `cleanup` compare the kernel with it.
    pub fn intent(&self) -> PathBuf {
        self.run.join("intent.json")
    }

    /// Every file that the agent makes in `run`.
    pub fn run_files(&self) -> [PathBuf; 7] {
        [self.socket(), self.state(), self.lane_keys(), self.traces(), self.forwarding(), self.intent(), self.lock()]
    }
}

/// Makes a directory for this user alone, or takes one that nobody else can write to.
///
/// # Errors
/// `PermissionDenied` where the directory is shared (sticky, or another user's).
pub fn private_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let found = fs::metadata(path)?;
    if !found.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotADirectory));
    }
    let shared = found.mode() & 0o1000 != 0 || found.uid() != nix::unistd::geteuid().as_raw();
    if shared {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} belongs to somebody else or is shared: use a directory of its own", path.display()),
        ));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Replaces a file as a whole, 0600: a reader, or a crash, sees the old one or the new one.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    // The pid keeps a command and the daemon from writing into one temporary file.
    let temporary = parent.join(format!(".{name}.{}", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        // An older temporary file may have been left with another mode.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(parent)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Proves that a directory can keep `bytes` more: writes as much there, down to the disk, and removes it again.
///
/// # Errors
/// `StorageFull`, `QuotaExceeded`, `ReadOnlyFilesystem`, or whatever else the first real file would have met.
pub fn prove_room(dir: &Path, bytes: usize) -> io::Result<()> {
    // A file system that compresses keeps zeros for nothing.
    let mut random = vec![0; bytes];
    ring::rand::SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("no randomness"))?;
    // Always the same name: one that a power cut left is taken up and removed here.
    let path = dir.join(".room");
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(&random)?;
        file.sync_all()
    })();
    let removed = remove(&path);
    written.and(removed)
}

/// Reads a file of at most `most` bytes; `None` where there is none.
pub fn read_bounded(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {most} bytes")));
    }
    Ok(Some(bytes))
}

/// Removes a file; fine where there is none.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The right to be the one agent on a run directory; given back when dropped.
#[derive(Debug)]
pub struct RunLock(#[expect(dead_code, reason = "held, not read")] Flock<File>);

impl RunLock {
    /// Takes the lock; `None` while another process holds it.
    pub fn take(dirs: &Dirs) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(dirs.lock())?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Self(lock))),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_is_whole_private_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.json");
        fs::write(&path, "old, longer than the new one").expect("written");
        write_atomic(&path, b"new").expect("written");
        assert_eq!(read_bounded(&path, 3).expect("read"), Some(b"new".to_vec()));
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read_and_an_absent_one_is_no_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x");
        assert_eq!(read_bounded(&path, 3).expect("no error"), None);
        fs::write(&path, "four").expect("written");
        assert_eq!(read_bounded(&path, 3).map_err(|error| error.kind()), Err(io::ErrorKind::FileTooLarge));
    }

    #[test]
    fn a_second_agent_on_one_run_directory_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let dirs = Dirs { dir: dir.path().into(), run: dir.path().into() };
        let first = RunLock::take(&dirs).expect("works");
        assert!(first.is_some());
        assert!(RunLock::take(&dirs).expect("works").is_none());
        drop(first);
        assert!(RunLock::take(&dirs).expect("works").is_some());
    }

    #[test]
    fn a_shared_directory_is_refused_and_a_readable_one_is_closed() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = dir.path().join("open");
        fs::create_dir(&open).expect("made");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).expect("set");
        private_dir(&open).expect("taken");
        assert_eq!(fs::metadata(&open).expect("there").mode() & 0o777, 0o700);
        let sticky = dir.path().join("sticky");
        fs::create_dir(&sticky).expect("made");
        fs::set_permissions(&sticky, fs::Permissions::from_mode(0o1777)).expect("set");
        assert_eq!(private_dir(&sticky).map_err(|error| error.kind()), Err(io::ErrorKind::PermissionDenied));
    }
}
