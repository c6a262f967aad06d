//! The control socket: one JSON object per line, for this machine's administrator alone.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use thinlane_model::{Counters, Endpoint, SessionId, SiteName, Wall};
use thinlane_wire::api::{ProbeView, Schema};

use crate::files::Dirs;

/// The longest line in either direction, in bytes.
pub const MOST_LINE: u64 = 1024 * 1024;

/// What may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    Status,
    /// A ticket to try the way to the relay with, from the controller.
    Probe,
    /// Answered when every lane is closed.
    Isolate {
        on: bool,
    },
    /// Ends the daemon and every lane, for `cleanup`.
    Stop,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Reply {
    Status(Box<Status>),
    Ticket(Box<ProbeView>),
    Done {
        schema: Schema,
        /// Lanes that were closed by what was asked.
        closed: usize,
    },
    Failed {
        schema: Schema,
        message: String,
    },
}

/// A picture of the running agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub schema: Schema,
    pub version: String,
    pub site: SiteName,
    pub controller: Endpoint,
    /// `up` | `connecting` | `waiting`.
    pub channel: String,
    /// Why the last connection failed or ended.
    pub channel_problem: Option<String>,
    pub backend: String,
    /// Why it is this backend, where there was a choice.
    #[serde(default)]
    pub backend_reason: Option<String>,
    /// What the device's interface takes off the processor, where it is told.
    #[serde(default)]
    pub offload: Option<String>,
    /// Whether lanes can be opened.
    pub ready: bool,
    pub why_not_ready: Option<String>,
    /// Whether the table in the kernel is as intended.
    pub ruleset: bool,
    pub isolated: bool,
    pub lanes: Vec<LaneStatus>,
    /// Closing records and alarms that the controller has not acknowledged yet.
    pub spooled: usize,
    pub generation: u64,
    pub started_at: Wall,
    pub certificate_expires_at: Wall,
    /// This machine's wall clock minus the controller's, in milliseconds, by the last log-in; `None`: none yet.
    #[serde(default)]
    pub clock_offset_ms: Option<i64>,
    /// Why the controller hung up last, as it calls it (`frozen`, `revoked`, ...); `None` after a log-in.
    #[serde(default)]
    pub goodbye: Option<String>,
    /// The LAN interfaces that lanes lead to, by configuration or by what was looked up.
    #[serde(default)]
    pub lan: Vec<LanStatus>,
    pub log_size: Option<u64>,
    /// Set when the controller's log contradicted what this gateway remembers.
    pub log_problem: Option<String>,
}

/// A LAN interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanStatus {
    pub interface: String,
    /// Its IPv4 addresses, as CIDR.
    pub addresses: Vec<String>,
}

/// One lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneStatus {
    pub session: SessionId,
    pub asset: String,
    pub task: String,
    /// `opening` | `open` | `closing`.
    pub state: String,
    pub address: String,
    pub protocol: String,
    pub port: u16,
    pub seconds_left: u64,
    pub counters: Counters,
}

/// Why the daemon did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No daemon runs on this run directory.
    #[error("no agent is running")]
    NotRunning,
    #[error("the running agent does not answer: {0}")]
    Io(#[source] std::io::Error),
    #[error("the running agent answered something else: {0}")]
    Malformed(#[source] serde_json::Error),
}

/// Asks the daemon and waits for its answer, `patience` at most.
pub fn ask(dirs: &Dirs, what: Ask, patience: Duration) -> Result<Reply, AskError> {
    let mut stream = UnixStream::connect(dirs.socket()).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => AskError::NotRunning,
        _ => AskError::Io(error),
    })?;
    let exchange = |stream: &mut UnixStream| -> std::io::Result<String> {
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut line = serde_json::to_string(&what)?;
        line.push('\n');
        stream.write_all(line.as_bytes())?;
        let mut answer = String::new();
        match BufReader::new(stream.take(MOST_LINE)).read_line(&mut answer)? {
            // It ended before it could say so.
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(answer),
        }
    };
    let answer = exchange(&mut stream).map_err(AskError::Io)?;
    serde_json::from_str(&answer).map_err(AskError::Malformed)
}

/// Kills the daemon that listens on the control socket: it does not answer, so it cannot be asked to end.
///
/// # Errors
/// Where nobody listens, where the listener is not to be seen from here (another process namespace), or is not ours to kill.
pub fn end_hung(dirs: &Dirs) -> std::io::Result<()> {
    let stream = UnixStream::connect(dirs.socket())?;
    // Those of the process that began to listen (unix(7), SO_PEERCRED).
    let pid = getsockopt(&stream, PeerCredentials)?.pid();
    if pid <= 1 {
        return Err(std::io::Error::new(std::io::ErrorKind::NotFound, "its process is not to be seen from here"));
    }
    Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_asked_is_written_as_documented_and_nothing_else_is_understood() {
        for (ask, text) in [
            (Ask::Status, r#"{"do":"status"}"#),
            (Ask::Isolate { on: true }, r#"{"do":"isolate","on":true}"#),
            (Ask::Stop, r#"{"do":"stop"}"#),
        ] {
            assert_eq!(serde_json::to_string(&ask).expect("written"), text);
            assert_eq!(serde_json::from_str::<Ask>(text).expect("read"), ask);
        }
        for text in ["{}", r#"{"do":"open"}"#, r#"{"do":"isolate"}"#, r#"{"do":"isolate","on":"yes"}"#, "status"] {
            assert!(serde_json::from_str::<Ask>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn without_a_daemon_the_answer_is_that_none_runs() {
        let dir = tempfile::tempdir().expect("a directory");
        let dirs = Dirs { dir: dir.path().into(), run: dir.path().into() };
        assert!(matches!(ask(&dirs, Ask::Status, Duration::from_secs(1)), Err(AskError::NotRunning)));
        // A socket that a killed daemon left behind.
        drop(std::os::unix::net::UnixListener::bind(dirs.socket()).expect("bound"));
        assert!(matches!(ask(&dirs, Ask::Status, Duration::from_secs(1)), Err(AskError::NotRunning)));
    }
}
