//! The command line as a whole; each family's own arguments stand with the family in `cmd`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueHint};
use reqwest::Url;

use crate::api::parse_url;
use crate::cmd::{account, asset, audit, down, lane, lock, request, session, site, system, task, tui, user};
use crate::lane::child;
use crate::secret::Source;

/// Opens one lane to one device: this person, this port, this half hour.
///
/// Log in, ask for a task on an asset, and connect when it is approved:
///
///   thinlane login https://hq.example:7443 --ca-fingerprint sha256:...
///   thinlane connect rtu-7 --task iec104 --for 30m --reason "replace CT" -- my-tool
///
/// Exit codes: 0 done, 1 failure, 2 usage, 3 denied, 4 timed out waiting, 5 expired, killed or revoked,
/// 6 unreachable, 7 verification failed.
#[derive(Parser)]
#[command(name = "thinlane", version, verbatim_doc_comment, arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Args, Clone)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Keep all of your files here instead of in the XDG directories, or in %LOCALAPPDATA%\thinlane
    #[arg(long, global = true, value_name = "DIR", env = "THINLANE_HOME", value_hint = ValueHint::DirPath)]
    pub home: Option<PathBuf>,
    /// The controller, if not the one you logged in to last
    #[arg(long, global = true, value_name = "URL", env = "THINLANE_URL", value_parser = parse_url)]
    pub url: Option<Url>,
    /// Use the bearer token in this file, or env://NAME, instead of your log-in
    #[arg(long, global = true, value_name = "FILE", env = "THINLANE_TOKEN_FILE", hide_env_values = true)]
    pub token_file: Option<Source>,
    /// Print JSON: one object, or one object a line
    #[arg(long, global = true, env = "THINLANE_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
    /// No hints and no progress on stderr
    #[arg(long, short, global = true, env = "THINLANE_QUIET", value_parser = FalseyValueParser::new())]
    pub quiet: bool,
}

#[derive(Subcommand)]
pub enum Command {
    /// Log in to a controller
    Login(account::Login),
    /// End your log-in, here and on the controller
    Logout,
    /// Show who you are to the controller
    Whoami(account::WhoAmI),
    /// First log-in: set your password, enrol your authenticator app
    Setup(account::Setup),

    /// Open a lane, use it, close it: the whole way in one command
    Connect(lane::Connect),
    /// Open a lane and leave it to a background process, or export it for a stock WireGuard client
    Up(lane::Up),
    /// Close a lane that `up` opened; without SES all of yours on this machine
    Down(down::Down),
    /// Ask for more time in a session
    Extend(session::Extend),
    /// End your session
    Release(session::Release),

    /// Ask for a task on an asset, and decide what others ask for
    #[command(subcommand, visible_alias = "req")]
    Request(request::Request),
    /// Look at sessions, and stop them
    #[command(subcommand, visible_alias = "ses")]
    Session(session::Session),

    /// Devices
    #[command(subcommand)]
    Asset(asset::Asset),
    /// Sites and their gateways
    #[command(subcommand)]
    Site(site::Site),
    /// What can be done on an asset: protocol, port, longest time
    #[command(subcommand)]
    Task(task::Task),
    /// People
    #[command(subcommand)]
    User(user::User),
    /// Close a person, organisation, site or asset at once, sessions included
    #[command(subcommand)]
    Lock(lock::Lock),
    /// Take a lock away
    Unlock(lock::Unlock),
    /// The transparency log
    #[command(subcommand)]
    Audit(audit::Audit),

    /// Watch every live session, and stop the right one
    Tui(tui::Tui),
    /// Check this machine and the way to the controller, with the next step for what is wrong
    Doctor,
    /// Print completions for a shell
    Completions(system::Completions),
    /// Write the manual pages into a directory
    Man(system::Man),
    /// Print the version
    Version,

    /// Holds the lane of an approved request; started by `up`
    #[command(hide = true)]
    Hold(lane::Hold),
    /// Becomes the command inside a lane; started by `connect`
    #[command(hide = true)]
    Inside(child::Inside),
}

/// Reads the command line; each flag that is not given counts as given where `THINLANE_<FLAG>` is set.
pub fn from_environment_too(words: impl IntoIterator<Item = OsString>) -> clap::error::Result<Cli> {
    let matches = with_environment(Cli::command()).try_get_matches_from(words)?;
    Cli::from_arg_matches(&matches)
}

/// Gives each flag its variable. `connect` hands THINLANE_IFACE to the command that it runs, to which it is no wish.
fn with_environment(command: clap::Command) -> clap::Command {
    let own = command.mut_args(|arg| match arg.get_long() {
        Some(long) if arg.get_env().is_none() && !["iface", "help", "version"].contains(&long) => {
            let name = format!("THINLANE_{}", long.to_ascii_uppercase().replace('-', "_"));
            let name: &'static str = Box::leak(name.into_boxed_str());
            let flag = matches!(arg.get_action(), ArgAction::SetTrue);
            let arg = arg.env(name).hide_env(true);
            if flag { arg.value_parser(FalseyValueParser::new()) } else { arg }
        }
        _ => arg,
    });
    own.mut_subcommands(with_environment)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    fn undescribed(command: &clap::Command, missing: &mut Vec<String>) {
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            if argument.get_help().is_none() {
                missing.push(format!("{} {}", command.get_name(), argument.get_id()));
            }
        }
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            if below.get_about().is_none() {
                missing.push(below.get_name().to_owned());
            }
            undescribed(below, missing);
        }
    }

    #[test]
    fn every_command_and_every_argument_is_described() {
        let mut missing = Vec::new();
        undescribed(&Cli::command(), &mut missing);
        assert!(missing.is_empty(), "{missing:?}");
    }

    fn parses(line: &str) -> bool {
        Cli::try_parse_from(std::iter::once("thinlane").chain(line.split(' '))).is_ok()
    }

    #[test]
    fn every_form_of_the_contract_is_taken() {
        for line in [
            "login https://hq:7443 --ca-fingerprint sha256:0000000000000000000000000000000000000000000000000000000000000000 --user alice --password-stdin --totp-secret-file F",
            "login hq:7443 --user alice --password-stdin --totp 123456",
            "whoami --token",
            "setup https://hq:7443 --ca-fingerprint sha256:0000000000000000000000000000000000000000000000000000000000000000 --user a --code-file F --password-stdin --json",
            "user add bob --name Bob --org acme --sponsor alice --role requester,approver --until 2027-01-31",
            "user ls",
            "user lock bob --reason x",
            "user reset bob --out F",
            "site add north --endpoint 192.0.2.1:7443",
            "site token north --qr --out F",
            "site token north --png F",
            "asset add rtu-7 --site north --address 192.168.1.10 --type rtu --criticality high --label owner=acme --label bay=7",
            "asset import F.csv",
            "asset rm rtu-7",
            "task show iec104",
            "request create rtu-7 --task iec104 --for 30m --reason x --ticket CHG-12 --wait 1m",
            "request create rtu-7 --task iec104 --reason x --nowait",
            "request ls --pending",
            "request approve req_7k2m9q4x --note fine",
            "request deny 7k2m --reason no",
            "connect rtu-7 --task iec104 --for 30m --reason x --wait 1m --native --iface tl-x -- sh -c true",
            "connect req_7k2m9q4x",
            "connect rtu-7 --forward",
            "connect rtu-7 --forward 15020 --native -- my-tool --fast",
            "connect rtu-7 --forward -- my-tool",
            "up req_7k2m9q4x --config-out F",
            "down",
            "down ses_7k2m9q4x",
            "extend ses_7k2m9q4x --for 15m --reason CODE",
            "release ses_7k2m9q4x",
            "session ls --active --vendor --site north --json",
            "session kill ses_7k2m9q4x --reason x",
            "session watch",
            "lock user bob --for 1h --reason x",
            "lock ls",
            "unlock org acme",
            "unlock lock_7k2m9q4x",
            "audit tail -f",
            "audit verify --dir /var/lib/thinlane",
            "audit verify --dir D --checkpoint F --checkpoint G",
            "audit checkpoint",
            "audit show ses_7k2m9q4x",
            "audit show req_7k2m --dir /var/lib/thinlane --json",
            "tui",
            "tui --once --json",
            "tui --once --view requests --filter acme",
            "doctor",
            "completions powershell",
            "version",
        ] {
            assert!(parses(line), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "connect",
            "request create rtu-7 --task x --reason y --wait 1m --nowait",
            "request create rtu-7 --task x --reason y --for 0s",
            "request deny req_7k2m9q4x",
            "session kill ses_7k2m9q4x",
            "asset add rtu-7 --site north --address 192.168.1.300 --type rtu",
            "user add bob --name Bob --role king",
            "lock user bob",
            "lock user bob --reason=",
            "request create rtu-7 --task x --reason=",
            "session kill ses_7k2m9q4x --reason=",
            "connect rtu-7 --task x --reason=",
            "up req_7k2m9q4x --config-out F --iface x",
            "connect rtu-7 --forward --iface x",
            "connect rtu-7 --forward 0",
            "connect --forward rtu-7",
            "login http://hq",
            "audit verify --checkpoint F",
        ] {
            assert!(!parses(line), "{line}");
        }
    }

    #[test]
    fn every_flag_has_its_variable() {
        let mut command = with_environment(Cli::command());
        command.build();
        let find = |path: &[&str], long: &str| {
            let below = path.iter().fold(&command, |command, name| command.find_subcommand(name).expect("a command"));
            let arg = below.get_arguments().find(|arg| arg.get_long() == Some(long)).expect("a flag");
            arg.get_env().map(|name| name.to_string_lossy().into_owned())
        };
        assert_eq!(find(&["request", "create"], "wait").as_deref(), Some("THINLANE_WAIT"));
        assert_eq!(find(&["request", "create"], "nowait").as_deref(), Some("THINLANE_NOWAIT"));
        assert_eq!(find(&["up"], "config-out").as_deref(), Some("THINLANE_CONFIG_OUT"));
        assert_eq!(find(&["user", "add"], "sponsor").as_deref(), Some("THINLANE_SPONSOR"));
        assert_eq!(find(&["connect"], "iface"), None);
        command.debug_assert();
    }
}
