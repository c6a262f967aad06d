//! A file beside a lane's own that the lane's process holds while it lives: the system lets go of it, however the process
//! ends. Whoever sees the lane sees it, too, whatever their session calls a temporary directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::files::Owner;
#[cfg(unix)]
use super::unix::mark as held;
#[cfg(windows)]
use super::windows::mark as held;

/// The mark of this process; let go of and taken away when it is dropped.
#[must_use = "it says so only while it is kept"]
pub struct Mark {
    path: PathBuf,
    _held: held::Held,
}

impl Mark {
    /// Makes it in a directory that is there. `since` tells this process from a later one with its id.
    pub fn hold(dir: &Path, pid: u32, since: u64, owner: Option<Owner>) -> io::Result<Self> {
        let path = path(dir, pid, since);
        Ok(Self { _held: held::hold(&path, owner)?, path })
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // Where a file that is held cannot be removed, it goes as it is let go of, which comes next.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the process that made this mark still holds it. Only a mark that is not there or that nobody holds says that it
/// does not: one that cannot be looked at may be a living process's.
pub fn is_held(dir: &Path, pid: u32, since: u64) -> bool {
    held::is_held(&path(dir, pid, since))
}

/// Takes the mark of a process that is gone away.
pub fn forget(dir: &Path, pid: u32, since: u64) {
    let _ = fs::remove_file(path(dir, pid, since));
}

fn path(dir: &Path, pid: u32, since: u64) -> PathBuf {
    dir.join(format!("{pid}-{since}.alive"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_mark_is_held_until_its_holder_lets_go_and_another_holders_is_not_taken_for_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let held = |since| is_held(dir.path(), 4711, since);
        assert!(!held(1), "nobody made it");
        let mark = Mark::hold(dir.path(), 4711, 1, None).expect("a mark");
        assert!(held(1) && held(1), "looking at it changes nothing");
        assert!(!held(2), "an earlier process with the same id");
        drop(mark);
        assert!(!held(1));
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 0, "it goes with its holder");
    }

    #[test]
    fn a_mark_that_cannot_be_looked_at_is_taken_for_a_living_ones() {
        let dir = tempfile::tempdir().expect("a directory");
        let odd = path(dir.path(), 4711, 1);
        std::os::unix::fs::symlink(&odd, &odd).expect("a link to itself");
        assert!(is_held(dir.path(), 4711, 1));
        fs::remove_file(&odd).expect("removed");
        assert!(!is_held(dir.path(), 4711, 1));
        assert!(!is_held(&dir.path().join("gone"), 4711, 1), "nor with its directory");
    }

    /// The directory in which this test, started by itself, holds a mark until it is killed.
    const HOLDER: &str = "THINLANE_TEST_MARK";

    #[test]
    fn a_mark_is_seen_from_another_session_and_says_so_when_its_process_is_killed() {
        if let Some(dir) = std::env::var_os(HOLDER).map(PathBuf::from) {
            let _mark = Mark::hold(&dir, std::process::id(), 7, None).expect("a mark");
            fs::write(dir.join("ready"), "").expect("written");
            let _ = io::stdin().lines().next();
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let this = "system::mark::tests::a_mark_is_seen_from_another_session_and_says_so_when_its_process_is_killed";
        let mut holder = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", this])
            .env(HOLDER, dir.path())
            .env("TMPDIR", dir.path().join("elsewhere"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("a process");
        let began = Instant::now();
        while !dir.path().join("ready").exists() && began.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(is_held(dir.path(), holder.id(), 7));
        holder.kill().expect("killed");
        holder.wait().expect("waited");
        assert!(!is_held(dir.path(), holder.id(), 7));
        forget(dir.path(), holder.id(), 7);
        assert!(!path(dir.path(), holder.id(), 7).exists());
    }
}
