//! Modes and owners.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User};

use crate::system::Places;

/// To whom a new file is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    uid: Uid,
    gid: Gid,
}

impl Owner {
    /// Gives a file away.
    pub fn take(self, file: &File) -> io::Result<()> {
        fchown(file, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
    }
}

/// The XDG directories; under sudo those of the person who called it. What is not set is the error.
pub fn places() -> Result<Places, String> {
    let person = sudo_person();
    let own = |name: &str| match &person {
        Some(_) => None,
        None => std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute()),
    };
    let home = match &person {
        Some(user) => Some(user.dir.clone()),
        None => std::env::var_os("HOME").map(PathBuf::from).filter(|dir| dir.is_absolute()),
    };
    let base = |name: &str, under: &str| {
        let base = own(name).or_else(|| home.as_ref().map(|home| home.join(under)));
        base.map(|dir| dir.join("thinlane")).ok_or_else(|| format!("neither HOME nor {name} is set"))
    };
    Ok(Places {
        config: base("XDG_CONFIG_HOME", ".config")?,
        state: base("XDG_STATE_HOME", ".local/state")?,
        owner: person.map(|user| Owner { uid: user.uid, gid: user.gid }),
    })
}

/// Who called sudo, where this process runs as root for a person whose home it does not have.
fn sudo_person() -> Option<User> {
    if !Uid::effective().is_root() {
        return None;
    }
    let uid: u32 = std::env::var("SUDO_UID").ok()?.parse().ok()?;
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten()?;
    (!user.uid.is_root()).then_some(user)
}

/// A file that is made with these is its owner's alone (0600).
pub fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600)
}

/// Makes a directory that is its owner's alone (0700), and gives it away.
pub fn make_private_dir(dir: &Path, owner: Option<Owner>) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(dir)?;
    match owner {
        Some(owner) => chown(dir, Some(owner.uid.as_raw()), Some(owner.gid.as_raw())),
        None => Ok(()),
    }
}

/// The command that closes a file or directory which others can look into; `None`: nobody can.
pub fn closing(path: &Path) -> Option<String> {
    let meta = std::fs::metadata(path).ok()?;
    let mode = if meta.is_dir() { "700" } else { "600" };
    (meta.permissions().mode() & 0o077 != 0).then(|| format!("chmod {mode} {}", path.display()))
}

/// The command that makes a directory.
pub fn making(dir: &Path) -> String {
    format!("mkdir -p {}", dir.display())
}
