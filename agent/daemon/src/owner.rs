//! The user that the agent's files belong to. A package gives them to a user of their own; whoever starts a command as
//! root becomes that user and keeps only what the command needs, so that root never writes where another user may
//! have laid a link, and the daemon is no root.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use anyhow::Context as _;
use nix::unistd::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::files::Dirs;

/// What a command may still do after it became the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// CAP_NET_ADMIN: lanes, interfaces, switches.
    Network,
    /// That, and reading whatever root can read (CAP_DAC_READ_SEARCH): a code file that root was handed.
    NetworkAndReading,
}

/// Becomes the owner of the state directory, where this is root and the directory is not root's.
///
/// # Errors
/// Where the kernel refuses; then nothing was done yet, and the command must not go on as root.
pub fn become_owner(dirs: &Dirs, keep: Keep) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let Some((user, group)) = owner(&dirs.dir).with_context(|| format!("cannot look at {}", dirs.dir.display()))?
    else {
        return Ok(());
    };
    hand_over(&dirs.run, user, group)
        .with_context(|| format!("cannot give {} to the agent's user", dirs.run.display()))?;
    nix::sys::prctl::set_keepcaps(true).context("cannot keep capabilities")?;
    nix::unistd::setgroups(&[group]).context("cannot leave root's groups")?;
    nix::unistd::setresgid(group, group, group).context("cannot leave root's group")?;
    nix::unistd::setresuid(user, user, user).context("cannot become the agent's user")?;
    let kept = match keep {
        Keep::Network => CapabilitySet::NET_ADMIN,
        Keep::NetworkAndReading => CapabilitySet::NET_ADMIN | CapabilitySet::DAC_READ_SEARCH,
    };
    // A container's root may have fewer: what is missing is named where it is needed.
    let had = rustix::thread::capabilities(None).context("cannot read the capabilities")?.permitted;
    let kept = kept & had;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).context("cannot give up capabilities")
}

/// The user and group of a directory that is not root's; `None` where it is root's, or not there yet.
fn owner(dir: &Path) -> io::Result<Option<(Uid, Gid)>> {
    match fs::symlink_metadata(dir) {
        Ok(found) if found.uid() != 0 => Ok(Some((Uid::from_raw(found.uid()), Gid::from_raw(found.gid())))),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the run directory for that user. Its parent is root's, so nobody can exchange it meanwhile.
fn hand_over(run: &Path, user: Uid, group: Gid) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(run) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let found = fs::symlink_metadata(run)?;
    // Left by an agent that ran as root: an empty directory can change hands, files in it are not ours to give away.
    if found.is_dir() && found.uid() == 0 && found.mode() & 0o1000 == 0 && fs::read_dir(run)?.next().is_none() {
        std::os::unix::fs::chown(run, Some(user.as_raw()), Some(group.as_raw()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_roots_or_none_changes_nobody() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(owner(&dir.path().join("none")).expect("no error"), None);
        std::os::unix::fs::chown(dir.path(), Some(0), Some(0)).expect("these tests run as root");
        assert_eq!(owner(dir.path()).expect("no error"), None);
        std::os::unix::fs::chown(dir.path(), Some(7), Some(8)).expect("these tests run as root");
        assert_eq!(owner(dir.path()).expect("no error"), Some((Uid::from_raw(7), Gid::from_raw(8))));
    }
}
