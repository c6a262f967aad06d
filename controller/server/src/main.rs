//! The controller: HTTPS API, agent channel, relay, log.
#![forbid(unsafe_code)]

mod api;
mod app;
mod auth;
mod ca;
mod channel;
mod clock;
mod cmd;
mod config;
mod core;
mod dir;
mod exit;
mod keys;
mod lately;
mod listen;
mod policies;
mod random;
mod tls;
mod views;

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};

use cmd::{Cli, Command};
use exit::Exit;

/// Rust ignores SIGPIPE, and printing panics instead: a pager that is left early must not look like a fault.
fn end_quietly_without_a_reader() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let said = info.payload().downcast_ref::<String>().map_or("", String::as_str);
        if said.starts_with("failed printing to std") && said.contains("Broken pipe") {
            std::process::exit(Exit::UNREAD);
        }
        before(info);
    }));
}

fn main() -> ExitCode {
    end_quietly_without_a_reader();
    let cli = Cli::parse();
    let json = cli.json;
    // Everything that we make is for ourselves, unless it is said otherwise.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    log();
    match dispatch(cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            let gap = matches!(error.downcast_ref(), Some(thinlane_store::OpenError::Gap(_)));
            let exit = if gap || error.is::<cmd::run::Tampered>() { Exit::Unverified } else { Exit::Failure };
            eprintln!("{}", exit::told(&error, exit, json));
            exit.into()
        }
    }
}

fn dispatch(cli: Cli) -> Result<Exit> {
    let json = cli.json;
    match cli.command {
        Command::Init(args) => cmd::init::init(args, json)?,
        Command::Run(dir) => cmd::run::run(&dir.dir)?,
        Command::Policy(command) => return cmd::policy::policy(command, json),
        Command::Backup { dir, to } => cmd::backup::backup(&dir.dir, &to, json)?,
        Command::Restore { from, dir } => cmd::backup::restore(&from, &dir.dir, json)?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "thinlane-controller", &mut script);
            print!("{}", String::from_utf8_lossy(&script));
        }
        Command::Man { dir } => {
            cmd::man::write(&dir).with_context(|| format!("cannot write into {}", dir.display()))?
        }
        Command::Version if json => {
            println!("{}", serde_json::json!({"schema": 1, "version": env!("CARGO_PKG_VERSION")}));
        }
        Command::Version => println!("thinlane-controller {}", env!("CARGO_PKG_VERSION")),
    }
    Ok(Exit::Done)
}

/// Logs to stderr; `THINLANE_LOG` says what, in the form of tracing's filters.
fn log() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("THINLANE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A log that nobody takes any more ends nothing.
        .log_internal_errors(false)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .init();
}
