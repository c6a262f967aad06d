//! Files that only their owner reads.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid};

use crate::failure::{Failure, Result, io};

/// To whom a new file is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub uid: Uid,
    pub gid: Gid,
}

/// Reads text of at most `largest` bytes; `None`: there is no such file.
pub fn read_bounded(file: &Path, largest: u64) -> Result<Option<String>> {
    let open = match File::open(file) {
        Ok(open) => open,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(file.display())(error)),
    };
    let mut text = String::new();
    open.take(largest + 1).read_to_string(&mut text).map_err(io(file.display()))?;
    if text.len() as u64 > largest {
        return Err(Failure::failed(format!("{} is larger than {largest} bytes", file.display())));
    }
    Ok(Some(text))
}

/// Writes a file 0600 so that a reader sees the old content or the new; makes its directories 0700.
pub fn write_private(file: &Path, bytes: &[u8], owner: Option<Owner>) -> Result<()> {
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_dirs(dir, owner)?;
    let mut draft = Draft::open(file, owner)?;
    draft.file.write_all(bytes).and_then(|()| draft.file.sync_all()).map_err(io(draft.path.display()))?;
    draft.keep(file)
}

/// A log that only its owner reads, opened for appending.
pub fn open_private_log(file: &Path, owner: Option<Owner>) -> Result<File> {
    if let Some(dir) = file.parent() {
        make_dirs(dir, owner)?;
    }
    let open = OpenOptions::new().append(true).create(true).mode(0o600).open(file).map_err(io(file.display()))?;
    give(&open, owner, file)?;
    Ok(open)
}

/// Refuses a secret file that others can read.
pub fn refuse_shared(file: &Path) -> Result<()> {
    let Ok(meta) = std::fs::metadata(file) else { return Ok(()) };
    match meta.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => Err(Failure::failed(format!("others can read {}, which holds a secret", file.display()))
            .next(format!("chmod 600 {}", file.display()))),
    }
}

/// PEM text of one object.
pub fn pem(label: &str, der: &[u8]) -> String {
    let body = data_encoding::BASE64.encode(der);
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base 64 is ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Makes missing directories 0700, each given to `owner`.
fn make_dirs(dir: &Path, owner: Option<Owner>) -> Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    for dir in missing.into_iter().rev() {
        match std::fs::DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => {
                if let Some(owner) = owner {
                    std::os::unix::fs::chown(dir, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
                        .map_err(io(dir.display()))?;
                }
            }
            // Somebody else was faster.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io(dir.display())(error)),
        }
    }
    Ok(())
}

fn give(file: &File, owner: Option<Owner>, path: &Path) -> Result<()> {
    match owner {
        Some(owner) => std::os::unix::fs::fchown(file, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
            .map_err(io(path.display())),
        None => Ok(()),
    }
}

/// A file that is not yet in its place, and goes away unless it is kept.
struct Draft {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl Draft {
    fn open(target: &Path, owner: Option<Owner>) -> Result<Draft> {
        let name = target.file_name().ok_or_else(|| Failure::usage(format!("{} names no file", target.display())))?;
        let path = target.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
        // A draft of a process that died and whose id came round again.
        let _ = std::fs::remove_file(&path);
        let file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(io(path.display()))?;
        let draft = Draft { path, file, kept: false };
        give(&draft.file, owner, &draft.path)?;
        Ok(draft)
    }

    fn keep(mut self, target: &Path) -> Result<()> {
        std::fs::rename(&self.path, target).map_err(io(target.display()))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
