//! The person's profile: what is made in it takes its access list, which is the person's and the administrators' own.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::system::Places;

/// To whom a new file is given: always to who makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {}

impl Owner {
    /// Gives a file away.
    pub fn take(self, _file: &File) -> io::Result<()> {
        match self {}
    }
}

/// `%LOCALAPPDATA%\thinlane`, which does not roam: log-in and lanes are this machine's. What is not set is the error.
pub fn places() -> Result<Places, String> {
    let local = std::env::var_os("LOCALAPPDATA").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let dir = local.ok_or("LOCALAPPDATA is not set")?.join("thinlane");
    Ok(Places { config: dir.clone(), state: dir, owner: None })
}

/// A file that is made with these takes the access list of its directory.
pub fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// Makes a directory, which takes the access list of the one above it.
pub fn make_private_dir(dir: &Path, owner: Option<Owner>) -> io::Result<()> {
    match owner {
        Some(owner) => match owner {},
        None => DirBuilder::new().create(dir),
    }
}

/// The command that closes a file or directory which others can look into: in a profile nobody can.
pub fn closing(_path: &Path) -> Option<String> {
    None
}

/// The command that makes a directory.
pub fn making(dir: &Path) -> String {
    format!("mkdir {}", dir.display())
}
