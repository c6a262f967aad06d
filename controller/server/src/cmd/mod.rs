//! The commands.

pub mod backup;
pub mod init;
pub mod man;
pub mod policy;
pub mod run;

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};

/// Keeps people, sites, policy and log, decides requests, and relays the lanes of open sessions.
#[derive(Debug, Parser)]
#[command(name = "thinlane-controller", version, max_term_width = 100, propagate_version = true)]
pub struct Cli {
    /// Print results as JSON.
    #[arg(long, global = true, env = "THINLANE_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new controller: directory, keys, certificates, shipped policies, the first admin.
    Init(init::Init),
    /// Run the controller. SIGHUP reads the policies again; SIGTERM and SIGINT stop it.
    Run(Dir),
    /// Check, test and explain policies, offline.
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Write everything that makes this controller into one file (0600), also while it runs.
    Backup {
        #[command(flatten)]
        dir: Dir,
        /// The file to write; it must not exist.
        #[arg(long, value_name = "FILE", env = "THINLANE_TO")]
        to: PathBuf,
    },
    /// Make a controller's directory from a backup.
    Restore {
        /// The backup.
        #[arg(long, value_name = "FILE", env = "THINLANE_FROM")]
        from: PathBuf,
        #[command(flatten)]
        dir: Dir,
    },
    /// Print completions for a shell.
    Completions { shell: clap_complete::Shell },
    /// Write the man pages into a directory.
    Man {
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Print the version.
    Version,
}

/// The controller's directory.
#[derive(Debug, Clone, Args)]
pub struct Dir {
    /// The controller's directory.
    #[arg(long, env = "THINLANE_DIR", value_name = "DIR", default_value = "/var/lib/thinlane")]
    pub dir: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_flag_has_its_variable() {
        fn walk(command: &clap::Command) {
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long().filter(|long| !["help", "version"].contains(long)) else { continue };
                let expected = format!("THINLANE_{}", long.to_ascii_uppercase().replace('-', "_"));
                let found = arg.get_env().map(|name| name.to_string_lossy().into_owned());
                assert_eq!(found, Some(expected), "{} --{long}", command.get_name());
            }
            command.get_subcommands().for_each(walk);
        }
        let mut command = Cli::command();
        command.build();
        walk(&command);
        command.debug_assert();
    }
}
