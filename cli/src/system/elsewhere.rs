//! What other systems have instead of Linux's own.

/// Processes, told apart from later ones with the same id: each holds a file beside its lane's while it lives.
pub mod identity {
    use std::io;
    use std::path::Path;
    use std::sync::OnceLock;
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::super::files::Owner;
    use super::super::mark;
    pub use super::super::mark::{Mark, forget};

    /// How this process is recognised later: by when it first said so, in milliseconds since 1970.
    pub fn own() -> io::Result<(u64, String)> {
        static SINCE: OnceLock<u64> = OnceLock::new();
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = *SINCE.get_or_init(|| u64::try_from(now().as_millis()).unwrap_or_default());
        Ok((since, String::new()))
    }

    /// Marks this process, which was recognised by `known`, as one that lives: in the directory of its lane.
    pub fn mark(dir: &Path, known: u64, owner: Option<Owner>) -> io::Result<Mark> {
        Mark::hold(dir, std::process::id(), known, owner)
    }

    /// Whether the process that was recognised by these still runs, by its mark in the directory of its lane.
    pub fn is_alive(dir: &Path, pid: u32, known: u64, _boot: &str) -> bool {
        mark::is_held(dir, pid, known)
    }

    /// Whether a process has this id now: nobody asks where no interface names one.
    pub fn exists(_pid: u32) -> bool {
        true
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_process_lives_by_its_mark_in_the_directory_of_its_lane_and_nowhere_else() {
            let (dir, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
            let (known, boot) = own().expect("an identity");
            assert_eq!(own().expect("an identity"), (known, boot.clone()), "it stays the same");
            let alive = |dir: &Path| is_alive(dir, std::process::id(), known, &boot);
            assert!(!alive(dir.path()));
            let marked = mark(dir.path(), known, None).expect("a mark");
            assert!(alive(dir.path()) && !alive(other.path()));
            forget(dir.path(), std::process::id(), known);
            assert!(!alive(dir.path()), "forgotten with its lane");
            drop(marked);
        }
    }
}

/// Whether lanes may have an interface.
pub mod interfaces {
    use super::super::Obstacle;

    /// Why this process can make none; `None`: it can.
    pub fn obstacle() -> Option<Obstacle> {
        Some(Obstacle::Unsupported)
    }
}

/// What is asked of sockets.
pub mod sockets {
    use std::io;
    use std::net::UdpSocket;

    /// Whether datagrams may be cut on the way is left to the system: Windows and Darwin let them be, of sockets that are
    /// not told otherwise.
    pub fn let_be_cut(_socket: &UdpSocket) -> io::Result<()> {
        Ok(())
    }
}

/// The command inside a lane.
pub mod inside {
    use std::ffi::OsString;
    use std::io;

    use super::super::Stayed;

    /// What is started for a command: itself. Windows ends it with whoever holds the lane (`process::Tree`), Darwin has
    /// nothing for that.
    pub fn wrapped(command: &[OsString]) -> Vec<OsString> {
        command.to_vec()
    }

    /// Nobody is asked for this here.
    pub fn become_command(_parent: i32, _program: &OsString, _arguments: &[OsString]) -> Stayed {
        Stayed::Not(io::ErrorKind::Unsupported.into())
    }
}
