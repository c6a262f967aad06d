//! `cleanup`: removes everything that the agent ever made on this machine.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use clap::builder::FalseyValueParser;
use serde_json::json;
use thinlane_wg::link::Link;

use crate::backend::Choice;
use crate::control::{self, Ask, AskError, Reply};
use crate::failure::Failure;
use crate::files::{self, Dirs, RunLock};
use crate::kernel::{ALIAS, INTERFACE, Kernel};

/// How long a daemon that is well may take to answer at all.
const ALIVE: Duration = Duration::from_secs(5);
/// How long the daemon may take to close every lane and end.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the process may take after its answer.
const EXIT: Duration = Duration::from_secs(5);
const BY_HAND: &str = "stop it (systemctl stop thinlane-agent, or kill its process), then cleanup again";

#[derive(Debug, Args)]
pub struct Cleanup {
    /// Remove the identity as well: this gateway must be enrolled again.
    #[arg(long, env = "THINLANE_FORGET", value_parser = FalseyValueParser::new())]
    forget: bool,
}

/// Stops the daemon in good order, then removes table, interfaces, routes, connections and switches. Harmless where
/// there is nothing; does all it can, then names what failed.
pub fn cleanup(args: &Cleanup, dirs: &Dirs, json: bool) -> Result<(), Failure> {
    let (lock, stopped) = stop_daemon(dirs)?;
    refuse_strangers(dirs)?;
    let mut failed = Failed::default();
    failed.note("interfaces", remove_interfaces());
    match Kernel::open(dirs, &[], Choice::default(), 0) {
        Ok(mut kernel) => failed.note("kernel", kernel.remove_everything()),
        Err(error) => failed.note("kernel", Err(error)),
    }
    // What could not be removed is known by these files alone.
    if failed.0.is_empty() {
        for path in dirs.run_files() {
            failed.note("run directory", files::remove(&path).with_context(|| path.display().to_string()));
        }
    }
    if failed.0.is_empty() && args.forget {
        for path in [dirs.identity(), dirs.clock(), dirs.witness(), dirs.isolated()] {
            failed.note("state directory", files::remove(&path).with_context(|| path.display().to_string()));
        }
    }
    let failed = failed.0;
    drop(lock);
    if failed.is_empty() && json {
        let identity = match (args.forget, dirs.identity().exists()) {
            (true, _) => "removed",
            (false, true) => "kept",
            (false, false) => "none",
        };
        println!("{}", json!({ "schema": 1, "clean": true, "stopped": stopped, "identity": identity }));
        return Ok(());
    }
    if failed.is_empty() {
        let stopped = if stopped { "the running agent was stopped; " } else { "" };
        let identity = match (args.forget, dirs.identity().exists()) {
            (true, _) => "; this gateway must be enrolled again".to_owned(),
            (false, true) => format!("; its identity stays in {}", dirs.dir.display()),
            (false, false) => String::new(),
        };
        eprintln!("{stopped}table, interfaces, connections and switches of the agent are gone{identity}");
        return Ok(());
    }
    Err(Failure::new(format_args!("not everything could be removed: {}", failed.join("; ")))
        .next("mend that, then thinlane-agent cleanup again"))
}

/// What could not be removed.
#[derive(Debug, Default)]
struct Failed(Vec<String>);

impl Failed {
    fn note(&mut self, what: &str, result: anyhow::Result<()>) {
        if let Err(error) = result {
            self.0.push(format!("{what}: {error:#}"));
        }
    }
}

/// Has a running daemon end and takes its place (`None` where there is no run directory); whether one was running. One that
/// hangs is killed: what it leaves is removed here, as after a crash.
fn stop_daemon(dirs: &Dirs) -> Result<(Option<RunLock>, bool), Failure> {
    if !dirs.run.exists() {
        return Ok((None, false));
    }
    let began = Instant::now();
    let mut asked = false;
    loop {
        let locked = RunLock::take(dirs).with_context(|| format!("cannot use {}", dirs.run.display()))?;
        if let Some(lock) = locked {
            return Ok((Some(lock), asked));
        }
        if !asked {
            asked = true;
            let answer = match control::ask(dirs, Ask::Status, ALIVE) {
                Ok(_) => control::ask(dirs, Ask::Stop, PATIENCE),
                Err(error) => Err(error),
            };
            match answer {
                // It may end before its answer is out.
                Ok(Reply::Done { .. }) | Err(AskError::NotRunning) => {}
                Err(AskError::Io(error)) if hangs(&error) => control::end_hung(dirs).map_err(|error| {
                    Failure::new(format_args!("the running agent hangs, and cannot be ended: {error}")).next(BY_HAND)
                })?,
                Err(AskError::Io(_)) => {}
                Ok(other) => return Err(Failure::new(format_args!("the running agent answered {other:?}"))),
                Err(error) => return Err(Failure::new(error)),
            }
        }
        if began.elapsed() > PATIENCE + EXIT {
            return Err(Failure::new("the running agent does not end").next(BY_HAND));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// It was asked, and time passed.
fn hangs(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

/// An agent with another run directory may be at work in this network namespace: its things are not ours to remove.
fn refuse_strangers(dirs: &Dirs) -> Result<(), Failure> {
    if dirs.intent().exists() {
        return Ok(());
    }
    let mut link = Link::open().context("cannot talk to the kernel about interfaces")?;
    match link.interface(INTERFACE).context("cannot look at the interfaces")? {
        Some(found) if found.alias.as_deref().is_some_and(|alias| alias.starts_with(ALIAS)) => {
            Err(Failure::new(format_args!("{INTERFACE} belongs to an agent with another run directory"))
                .next("name that one with --run-dir"))
        }
        _ => Ok(()),
    }
}

fn remove_interfaces() -> anyhow::Result<()> {
    let mut link = Link::open()?;
    for interface in link.ours()? {
        if interface.alias.as_deref().is_some_and(|alias| alias.starts_with(ALIAS)) {
            link.delete(&interface.name)?;
        }
    }
    Ok(())
}
