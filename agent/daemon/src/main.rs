//! The gateway's daemon: opens lanes that a controller has signed, and proves that nothing else is open.
//!
//! ```text
//!            channel (TLS)            site machine                kernel thread
//! controller <==frames==> AgentLink --grants--> Site --effects--> nft, WireGuard, routes
//!                                      ^                               |
//!                                      '--results, counters, events----'
//! ```
//! The machines decide (crates `link` and `site`); everything here does as told and answers what came of it.
#![forbid(unsafe_code)]

mod backend;
mod channel;
mod clock;
mod cmd;
mod config;
mod control;
mod daemon;
mod dial;
mod executor;
mod failure;
mod files;
mod forwarding;
mod http;
mod identity;
mod intent;
mod kernel;
mod logging;
mod owner;
mod privilege;
mod saved;
mod tally;
mod tls;
mod traces;
mod vault;
mod watch;
mod witness;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing::level_filters::LevelFilter;

use crate::failure::Failure;
use crate::files::Dirs;
use crate::logging::LogFormat;
use crate::owner::Keep;

/// The gateway's agent: opens one lane per session, and nothing else.
#[derive(Debug, Parser)]
#[command(name = "thinlane-agent", version, max_term_width = 100)]
struct Cli {
    /// State that outlives reboots: identity, clock floor, witness.
    #[arg(long, global = true, value_name = "DIR", env = "THINLANE_DIR", default_value = "/var/lib/thinlane")]
    dir: PathBuf,
    /// State of this boot, in memory: lanes, control socket.
    #[arg(long, global = true, value_name = "DIR", env = "THINLANE_RUN_DIR", default_value = "/run/thinlane")]
    run_dir: PathBuf,
    /// How log lines on standard error look.
    #[arg(long, global = true, env = "THINLANE_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// off, error, warn, info, debug or trace; names and addresses appear at debug only.
    #[arg(long, global = true, env = "THINLANE_LOG_LEVEL", default_value = "info")]
    log_level: LevelFilter,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes this gateway's key and exchanges a one-time code for its certificate.
    Enroll(cmd::enroll::Enroll),
    /// Runs the agent in the foreground.
    Run(cmd::run::Run),
    /// Proves from kernel state that nothing is open that should not be (exit code 7: something is).
    Check(cmd::check::Check),
    /// Removes everything that the agent ever made; the identity stays unless --forget.
    Cleanup(cmd::cleanup::Cleanup),
    /// Shows the running agent, or checks it for a monitoring system.
    Status(cmd::status::StatusArgs),
    /// The site's own switch: closes every lane and lets none be opened; nothing remote can override it.
    Isolate(cmd::isolate::IsolateArgs),
    /// Prints a completion script.
    Completions { shell: clap_complete::Shell },
    /// Writes the manual pages into a directory.
    Man {
        #[arg(value_name = "DIR")]
        out: PathBuf,
    },
    /// Prints the version.
    Version,
}

impl Command {
    fn wants_json(&self) -> bool {
        match self {
            Command::Check(args) => args.json,
            Command::Status(args) => args.json,
            Command::Isolate(args) => args.json,
            _ => false,
        }
    }
}

fn main() -> ExitCode {
    // Rust ignores SIGPIPE; a pager that is left early must not turn into a panic message.
    let cli = Cli::parse();
    logging::start(cli.log_format, cli.log_level);
    let dirs = Dirs { dir: cli.dir, run: cli.run_dir };
    let json = cli.command.wants_json();
    match run(cli.command, &dirs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if json {
                eprintln!("{}", failure.json());
            } else {
                eprintln!("thinlane-agent: {failure}");
            }
            ExitCode::from(failure.code)
        }
    }
}

fn run(command: Command, dirs: &Dirs) -> Result<(), Failure> {
    match &command {
        Command::Completions { .. } | Command::Man { .. } | Command::Version => {}
        Command::Run(_) => owner::become_owner(dirs, Keep::Network)?,
        _ => owner::become_owner(dirs, Keep::NetworkAndReading)?,
    }
    match command {
        Command::Enroll(args) => cmd::enroll::enroll(&args, dirs),
        Command::Status(args) => cmd::status::status(&args, dirs),
        Command::Run(args) => cmd::run::run(&args, dirs),
        Command::Check(args) => cmd::check::check(&args, dirs),
        Command::Cleanup(args) => cmd::cleanup::cleanup(&args, dirs),
        Command::Isolate(args) => cmd::isolate::isolate(&args, dirs),
        Command::Completions { shell } => cmd::manual::completions(shell),
        Command::Man { out } => cmd::manual::man(&out),
        Command::Version => cmd::manual::version(),
    }
}

/// The command line as clap sees it, for completions and manual pages.
fn command_line() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_sound() {
        super::command_line().debug_assert();
    }
}
