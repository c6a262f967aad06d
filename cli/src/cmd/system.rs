//! Completions, manual pages, version.

use std::path::PathBuf;

use clap::{Args, CommandFactory, ValueHint};
use clap_complete::Shell;
use serde_json::json;

use crate::args::Cli;
use crate::context::Context;
use crate::failure::{Result, io};

#[derive(Args)]
pub struct Completions {
    /// bash, zsh, fish, elvish or powershell
    shell: Shell,
}

#[derive(Args)]
pub struct Man {
    /// Where to write them; sections 1, 5 and 8
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
}

/// `thinlane completions`
pub fn completions(args: Completions) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "thinlane", &mut script);
    match std::io::Write::write_all(&mut std::io::stdout().lock(), &script) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(io("stdout")(error)),
        _ => Ok(()),
    }
}

/// `thinlane version`
pub fn version(context: &Context) -> Result<()> {
    let version = json!({ "name": "thinlane", "version": env!("CARGO_PKG_VERSION") });
    context.out.show(&version, |_| concat!("thinlane ", env!("CARGO_PKG_VERSION")).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_completions_that_know_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "thinlane", &mut script);
            let script = String::from_utf8(script).expect("text");
            assert!(script.contains("connect") && script.contains("config-out"), "{shell}");
        }
    }
}
