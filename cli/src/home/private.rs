//! Files that only their owner reads.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result, io};
use crate::system::files::{self, Owner};

/// Reads text of at most `largest` bytes; `None`: there is no such file.
pub fn read_bounded(file: &Path, largest: u64) -> Result<Option<String>> {
    let open = match File::open(file) {
        Ok(open) => open,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(file.display())(error)),
    };
    let mut text = String::new();
    open.take(largest + 1).read_to_string(&mut text).map_err(|error| match error.kind() {
        std::io::ErrorKind::IsADirectory => {
            Failure::failed(format!("{} is a directory", file.display())).next("name a file in it")
        }
        std::io::ErrorKind::InvalidData => Failure::failed(format!("{} is no text", file.display())),
        _ => io(file.display())(error),
    })?;
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

/// The largest file that may be replaced, in bytes.
const LARGEST_REPLACED: u64 = 64 * 1024;

/// Whether a result can be written to `file`, asked before anything is done for it: its directory is there and can be
/// written, and nobody misses what the file holds (it is empty, or `ours` says so of its text).
pub fn check_output(flag: &str, file: &Path, ours: impl Fn(&str) -> bool) -> Result<()> {
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if file.is_dir() {
        return Err(Failure::usage(format!("{flag}: {} is a directory", file.display())).next("name a file in it"));
    }
    if !dir.is_dir() {
        return Err(Failure::usage(format!("{flag}: there is no directory {}", dir.display()))
            .next(format!("{}, or name another file", files::making(dir))));
    }
    if file.exists() {
        let text = read_bounded(file, LARGEST_REPLACED).ok().flatten();
        if !text.is_some_and(|text| text.trim().is_empty() || ours(&text)) {
            return Err(Failure::usage(format!("{flag}: {} is there and was not written by thinlane", file.display()))
                .next("name another file, or remove this one"));
        }
    }
    let probe = dir.join(format!(".thinlane-{}", std::process::id()));
    write_private(&probe, b"", None)
        .map_err(|failure| failure.during(flag).next("name a file in a directory that you may write"))?;
    std::fs::remove_file(&probe).map_err(io(probe.display()))
}

/// A log that only its owner reads, opened for appending.
pub fn open_private_log(file: &Path, owner: Option<Owner>) -> Result<File> {
    if let Some(dir) = file.parent() {
        make_dirs(dir, owner)?;
    }
    let open = files::private(OpenOptions::new().append(true).create(true)).open(file).map_err(io(file.display()))?;
    give(&open, owner, file)?;
    Ok(open)
}

/// Refuses a secret file that others can read.
pub fn refuse_shared(file: &Path) -> Result<()> {
    match files::closing(file) {
        None => Ok(()),
        Some(next) => {
            Err(Failure::failed(format!("others can read {}, which holds a secret", file.display())).next(next))
        }
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
pub fn make_dirs(dir: &Path, owner: Option<Owner>) -> Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    for dir in missing.into_iter().rev() {
        match files::make_private_dir(dir, owner) {
            Ok(()) => {}
            // Somebody else was faster.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io(dir.display())(error)),
        }
    }
    Ok(())
}

fn give(file: &File, owner: Option<Owner>, path: &Path) -> Result<()> {
    match owner {
        Some(owner) => owner.take(file).map_err(io(path.display())),
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
            files::private(OpenOptions::new().write(true).create_new(true)).open(&path).map_err(io(path.display()))?;
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

#[cfg(test)]
mod output_tests {
    use super::*;

    #[test]
    fn a_configuration_that_cannot_be_written_is_found_out_before() {
        let ours = |text: &str| text.starts_with("# Thinlane ");
        let dir = tempfile::tempdir().expect("a directory");
        assert!(check_output("--out", &dir.path().join("x.conf"), ours).is_ok());
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 0);
        assert!(check_output("--out", dir.path(), ours).is_err());
        std::fs::write(dir.path().join("file"), "").expect("written");
        assert!(check_output("--out", &dir.path().join("file/x.conf"), ours).is_err());
        assert!(check_output("--out", &dir.path().join("file"), ours).is_ok(), "mktemp makes an empty one");
        std::fs::write(dir.path().join("file"), "# Thinlane ses_1 to rtu-7\n").expect("written");
        assert!(check_output("--out", &dir.path().join("file"), ours).is_ok(), "an earlier export");
        std::fs::write(dir.path().join("file"), "[Interface]\n").expect("written");
        let failure = check_output("--out", &dir.path().join("file"), ours).expect_err("somebody's own");
        assert!(failure.message.contains("was not written by thinlane"), "{failure}");
    }
}
