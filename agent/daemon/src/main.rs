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

use clap::builder::FalseyValueParser;
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
    /// Print results and failures as JSON, one object.
    #[arg(long, global = true, env = "THINLANE_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
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

/// Rust ignores SIGPIPE, and printing panics instead, which ends a program without unwinding with a signal: a pager that
/// is left early must not look like a fault.
fn end_quietly_without_a_reader() {
    /// As a shell tells that SIGPIPE ended a program.
    const PIPE: i32 = 128 + 13;
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let said = info.payload().downcast_ref::<String>().map_or("", String::as_str);
        if said.starts_with("failed printing to std") && said.contains("Broken pipe") {
            std::process::exit(PIPE);
        }
        before(info);
    }));
}

fn main() -> ExitCode {
    end_quietly_without_a_reader();
    let cli = Cli::parse();
    logging::start(cli.log_format, cli.log_level);
    let dirs = Dirs { dir: cli.dir, run: cli.run_dir };
    let json = cli.json;
    match run(cli.command, &dirs, json) {
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

fn run(command: Command, dirs: &Dirs, json: bool) -> Result<(), Failure> {
    match &command {
        Command::Completions { .. } | Command::Man { .. } | Command::Version => {}
        Command::Run(_) => owner::become_owner(dirs, Keep::Network)?,
        _ => owner::become_owner(dirs, Keep::NetworkAndReading)?,
    }
    match command {
        Command::Enroll(args) => cmd::enroll::enroll(&args, dirs, json),
        Command::Status(args) => cmd::status::status(&args, dirs, json),
        Command::Run(args) => cmd::run::run(&args, dirs),
        Command::Check(args) => cmd::check::check(&args, dirs, json),
        Command::Cleanup(args) => cmd::cleanup::cleanup(&args, dirs, json),
        Command::Isolate(args) => cmd::isolate::isolate(&args, dirs, json),
        Command::Completions { shell } => cmd::manual::completions(shell),
        Command::Man { out } => cmd::manual::man(&out),
        Command::Version => cmd::manual::version(json),
    }
}

/// The command line as clap sees it, for completions and manual pages.
fn command_line() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_sound_and_every_flag_has_its_variable() {
        fn walk(command: &clap::Command) {
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long().filter(|long| !["help", "version"].contains(long)) else { continue };
                let expected = format!("THINLANE_{}", long.to_ascii_uppercase().replace('-', "_"));
                let found = arg.get_env().map(|name| name.to_string_lossy().into_owned());
                assert_eq!(found, Some(expected), "{} --{long}", command.get_name());
            }
            command.get_subcommands().for_each(walk);
        }
        let mut command = super::command_line();
        command.build();
        command.clone().debug_assert();
        walk(&command);
    }

    #[test]
    fn every_command_takes_json() {
        use clap::Parser;
        let enroll = "enroll --controller hq:7443 --ca-fingerprint FINGERPRINT --token-file F";
        let enroll = enroll.replace("FINGERPRINT", &format!("sha256:{}", "ab".repeat(32)));
        for line in [enroll.as_str(), "run", "check", "cleanup", "status", "isolate on", "version"] {
            let words = ["thinlane-agent"].into_iter().chain(line.split(' ')).chain(["--json"]);
            assert!(super::Cli::try_parse_from(words).is_ok_and(|cli| cli.json), "{line}");
        }
    }
}
