//! Signals to processes and their groups.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, ExitStatus};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// Does a program's whole work, with room enough on the stack: the first thread has it.
pub fn with_room(work: fn() -> ExitCode) -> ExitCode {
    work()
}

/// Whether a file is a program.
pub fn runs(path: &Path) -> bool {
    path.is_file() && path.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0)
}

/// A command and what it started, as far as it can be ended as a whole.
pub struct Tree {
    /// The process group of its own that the command leads.
    group: Option<Pid>,
}

impl Tree {
    /// Starts a command. `apart`: in a process group of its own, so that what it starts ends with it; otherwise it
    /// stays in the terminal's foreground.
    pub fn start(command: &mut Command, apart: bool) -> io::Result<(Child, Self)> {
        if apart {
            command.process_group(0);
        }
        let child = command.spawn()?;
        let group = pid(&child).filter(|_| apart);
        Ok((child, Self { group }))
    }

    /// Asks all of it to end.
    pub fn ask(&mut self, child: &Child) {
        self.signal(child, Signal::SIGTERM);
    }

    /// Ends all of it.
    pub fn end(&mut self, child: &Child) {
        self.signal(child, Signal::SIGKILL);
    }

    /// Ends what the command started and did not take along.
    pub fn end_rest(&mut self) {
        if let Some(group) = self.group {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }

    fn signal(&self, child: &Child, signal: Signal) {
        // It may be gone already, which is what is wanted.
        let _ = match (self.group, pid(child)) {
            (Some(group), _) => killpg(group, signal),
            (None, Some(pid)) => kill(pid, signal),
            (None, None) => Ok(()),
        };
    }
}

/// `None`: it has been reaped, and its id may be another's.
fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw)
}

/// A status as a shell reports it.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code & 0xff).unwrap_or(1)
}

/// The status of a process that somebody else has reaped; how it ended is not known.
pub fn unknown_status() -> ExitStatus {
    ExitStatus::from_raw(1 << 8)
}

/// Asks another process to end in good order.
pub fn ask_to_end(id: u32) -> io::Result<()> {
    let id = i32::try_from(id).map_err(|_| io::Error::other("a process id is out of range"))?;
    kill(Pid::from_raw(id), Signal::SIGTERM).map_err(io::Error::from)
}

/// Ends another process at once.
pub fn end(id: u32) {
    if let Ok(id) = i32::try_from(id) {
        let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
    }
}

/// Leaves the terminal's session, so that its end is not this process's.
pub fn leave_terminal() {
    // A process started by another is no group leader, so this cannot fail; if it does, the lane works all the same.
    let _ = nix::unistd::setsid();
}

/// Lets go of the pipe to whoever started this process: that goes on without it.
pub fn let_go_of_stdout() {
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdout(&null);
    }
}
