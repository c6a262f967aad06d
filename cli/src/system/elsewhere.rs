//! What other systems have instead of Linux's own.

/// Processes, told apart from later ones with the same id: each holds a file while it lives.
pub mod identity {
    use std::io;
    use std::sync::{Mutex, PoisonError};
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::super::mark;

    /// This process's own mark, held until it ends.
    static MARK: Mutex<Option<(u64, mark::Held)>> = Mutex::new(None);

    /// How this process is recognised later: by when it first said so, in milliseconds since 1970.
    pub fn own() -> io::Result<(u64, String)> {
        let mut held = MARK.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match &*held {
            Some((since, _)) => *since,
            None => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let since = u64::try_from(now.as_millis()).unwrap_or_default();
                let file = mark::hold(&mark::path(std::process::id(), since))?;
                held.insert((since, file)).0
            }
        };
        Ok((since, String::new()))
    }

    /// Whether the process that was recognised by these still runs.
    pub fn is_alive(pid: u32, known: u64, _boot: &str) -> bool {
        mark::is_held(&mark::path(pid, known))
    }

    /// Whether a process has this id now: nobody asks where no interface names one.
    pub fn exists(_pid: u32) -> bool {
        true
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
