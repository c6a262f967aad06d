//! A file that a process holds while it lives: the system lets go of it, however the process ends.

use std::path::PathBuf;

#[cfg(unix)]
pub use super::unix::mark::*;
#[cfg(windows)]
pub use super::windows::mark::*;

/// The mark of one process, told from a later one with its id by when it was made.
pub fn path(pid: u32, since: u64) -> PathBuf {
    std::env::temp_dir().join(format!("thinlane-{pid}-{since}.alive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_held_until_its_holder_lets_go_and_another_holders_is_not_taken_for_it() {
        let mine = path(std::process::id(), 1);
        assert!(!is_held(&mine), "nobody made it");
        let file = hold(&mine).expect("a mark");
        assert!(is_held(&mine));
        assert!(!is_held(&path(std::process::id(), 2)), "an earlier process with the same id");
        drop(file);
        assert!(!is_held(&mine));
        let _ = std::fs::remove_file(&mine);
    }
}
