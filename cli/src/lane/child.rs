//! The command that runs inside a lane.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use clap::Args;
use thinlane_model::SessionId;
use tokio::process::{Child, Command};

use crate::failure::{Exit, Failure, Result, plain};
pub use crate::system::process::exit_code;
use crate::system::process::{Tree, runs, unknown_status};
use crate::system::{Stayed, inside};

/// How long a command may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(2);

/// A running command.
pub struct Running {
    child: Child,
    /// It and what it started, ended as a whole.
    tree: Tree,
}

/// What a command learns about its lane.
pub struct Surroundings<'a> {
    pub address: Ipv4Addr,
    pub port: u16,
    pub session: SessionId,
    pub iface: &'a str,
}

/// Refuses a command that is not there, before a request is used for it.
pub fn check(command: &[OsString]) -> Result<()> {
    let Some(program) = command.first() else { return Ok(()) };
    let path = Path::new(program);
    let found = if path.components().count() > 1 {
        runs(path)
    } else {
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| runs(&dir.join(path)))
    };
    match found {
        true => Ok(()),
        false => {
            Err(Failure::failed(format!("there is no command {}", path.display())).next("check its name, and PATH"))
        }
    }
}

/// What the program does between its start for a command and becoming that command.
#[derive(Args)]
pub struct Inside {
    /// The process that holds the lane
    parent: i32,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Becomes the command, which dies with whoever holds its lane, however that ends: a tool that goes on after `kill -9`
/// would talk into the next lane to the same device. Comes back only if it cannot.
pub fn become_command(inside: &Inside) -> Failure {
    let Some((program, arguments)) = inside.command.split_first() else {
        return Failure::usage("there is no command");
    };
    match inside::become_command(inside.parent, program, arguments) {
        Stayed::Outlives(why) => Failure::failed(format!("the command would outlive its lane: {why}")),
        Stayed::Orphan => Failure::silent(Exit::Other(137)),
        Stayed::Not(error) => {
            let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
            Failure::new(Exit::Other(code), format!("{}: {}", Path::new(program).display(), plain(&error)))
        }
    }
}

/// Starts a command inside a lane.
pub fn start(command: &[OsString], around: &Surroundings<'_>) -> Result<Running> {
    spawn(&inside::wrapped(command), around)
}

/// Starts a process.
///
/// At a terminal it stays in the foreground, so that it can be typed to; otherwise it gets a process group of
/// its own, so that what it starts ends with it.
fn spawn(command: &[OsString], around: &Surroundings<'_>) -> Result<Running> {
    let (program, arguments) = command.split_first().expect("a command was checked to have a name");
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("THINLANE_ASSET_ADDRESS", around.address.to_string())
        .env("THINLANE_ASSET_PORT", around.port.to_string())
        .env("THINLANE_SESSION", around.session.to_string())
        .env("THINLANE_IFACE", around.iface)
        .kill_on_drop(true);
    let (child, tree) = Tree::start(&mut command, !std::io::stdin().is_terminal())
        .map_err(|error| Failure::failed(format!("{}: {}", Path::new(program).display(), plain(&error))))?;
    Ok(Running { child, tree })
}

impl Running {
    /// Waits until it has ended.
    pub async fn wait(&mut self) -> ExitStatus {
        match self.child.wait().await {
            Ok(status) => status,
            // Somebody else has reaped it.
            Err(_) => unknown_status(),
        }
    }

    /// Waits a little for a command that has been told by the terminal already.
    pub async fn wait_a_little(&mut self) -> bool {
        tokio::time::timeout(GRACE, self.child.wait()).await.is_ok()
    }

    /// Ends it: asks, where the system knows how, and two seconds later asks no more.
    pub async fn stop(&mut self) {
        self.tree.ask(&self.child);
        if !self.wait_a_little().await {
            self.tree.end(&self.child);
            let _ = tokio::time::timeout(GRACE, self.child.wait()).await;
        } else {
            self.tree.end_rest();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn around() -> Surroundings<'static> {
        Surroundings {
            address: Ipv4Addr::new(198, 18, 0, 9),
            port: 2404,
            session: "ses_7k2m9q4x".parse().expect("an id"),
            iface: "tl-7k2m9q4x",
        }
    }

    fn sh(script: &str) -> Vec<OsString> {
        ["/bin/sh", "-c", script].into_iter().map(OsString::from).collect()
    }

    #[tokio::test]
    async fn a_command_learns_where_its_lane_is_and_its_code_passes_through() {
        let script = "test \"$THINLANE_ASSET_ADDRESS:$THINLANE_ASSET_PORT $THINLANE_SESSION $THINLANE_IFACE\" = \
                      '198.18.0.9:2404 ses_7k2m9q4x tl-7k2m9q4x' && exit 42";
        let mut running = spawn(&sh(script), &around()).expect("started");
        assert_eq!(exit_code(running.wait().await), 42);
    }

    #[tokio::test]
    async fn a_command_killed_by_a_signal_ends_as_in_a_shell() {
        let mut running = spawn(&sh("kill -9 $$"), &around()).expect("started");
        assert_eq!(exit_code(running.wait().await), 137);
    }

    #[tokio::test]
    async fn a_command_that_ignores_sigterm_is_killed_after_two_seconds() {
        let mut running = spawn(&sh("trap '' TERM; while :; do sleep 0.1; done"), &around()).expect("started");
        tokio::time::sleep(Duration::from_millis(200)).await;
        let asked = Instant::now();
        running.stop().await;
        let took = asked.elapsed();
        assert!(took >= Duration::from_millis(1900) && took < Duration::from_secs(4), "{took:?}");
        assert!(running.child.id().is_none(), "it runs still");
    }

    #[test]
    fn a_command_that_is_not_there_is_found_out_before() {
        assert!(check(&sh("true")).is_ok());
        assert!(check(&[]).is_ok());
        assert!(check(&["sh".into()]).is_ok());
        for name in ["thinlane-surely-not-there", "/etc/passwd", "./nothing"] {
            let failure = check(&[name.into()]).expect_err(name);
            assert!(failure.message.contains(name), "{}", failure.message);
        }
    }
}
