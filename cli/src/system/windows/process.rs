//! Job objects: what Windows ends as a whole.

use std::io;
use std::os::windows::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, ExitStatus};

use tokio::process::{Child, Command};
use win32job::Job;

/// `STATUS_CONTROL_C_EXIT`
const CONTROL_C: u32 = 0xc000_013a;

/// What other systems give a program's first thread, in bytes; here it has one megabyte.
const ROOM: usize = 8 << 20;

/// Does a program's whole work, with room enough on the stack.
pub fn with_room(work: fn() -> ExitCode) -> ExitCode {
    let worker = std::thread::Builder::new().name("main".to_owned()).stack_size(ROOM).spawn(work);
    // Told where it panicked; 101 is what Rust's programs end with then.
    worker.map_or_else(|_| work(), |worker| worker.join().unwrap_or(ExitCode::from(101)))
}

/// Whether a file is a program; its `.exe` need not be said.
pub fn runs(path: &Path) -> bool {
    let mut named = path.as_os_str().to_owned();
    named.push(".exe");
    path.is_file() || Path::new(&named).is_file()
}

/// A command and all that it started: a job, which the system ends when its last handle goes, and so with this process,
/// however that ends.
pub struct Tree {
    job: Option<Job>,
}

impl Tree {
    /// Starts a command. It stays at the console, which tells it and us of a Ctrl-C.
    pub fn start(command: &mut Command, _apart: bool) -> io::Result<(Child, Self)> {
        let job = Job::create().map_err(io::Error::other)?;
        let mut limits = job.query_extended_limit_info().map_err(io::Error::other)?;
        limits.limit_kill_on_job_close();
        job.set_extended_limit_info(&limits).map_err(io::Error::other)?;
        // Dropped with an error it is killed: nothing runs that would outlive its lane.
        let child = command.kill_on_drop(true).spawn()?;
        if let Some(handle) = child.raw_handle() {
            job.assign_process(handle as isize).map_err(io::Error::other)?;
        }
        Ok((child, Self { job: Some(job) }))
    }

    /// There is no asking: a program without a console of its own hears nothing.
    pub fn ask(&mut self, child: &Child) {
        self.end(child);
    }

    /// Ends all of it.
    pub fn end(&mut self, _child: &Child) {
        self.job = None;
    }

    /// Ends what the command started and did not take along.
    pub fn end_rest(&mut self) {
        self.job = None;
    }
}

/// A status as this program's own exit code, which is a byte: larger ones, as of crashes, are 255.
pub fn exit_code(status: ExitStatus) -> u8 {
    match status.code().map(|code| code.cast_unsigned()) {
        Some(CONTROL_C) => 130,
        Some(code) => u8::try_from(code).unwrap_or(255),
        None => 1,
    }
}

/// The status of a process whose end was not seen.
pub fn unknown_status() -> ExitStatus {
    ExitStatus::from_raw(1)
}

/// Asks another process to end in good order: there is no way to.
pub fn ask_to_end(_id: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Ends another process at once: its job goes with it, and whoever is asked politely ends by itself.
pub fn end(_id: u32) {}

/// Lanes are held at a console here, and by no process behind it.
pub fn leave_terminal() {}

/// Nobody waits for this process's output alone.
pub fn let_go_of_stdout() {}
