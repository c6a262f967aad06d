//! `run`: takes the machine in hand, in an order that never leaves it open, and starts the loop.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use thinlane_nft::{DeniedLog, Watch};
use thinlane_wg::Backend;
use thinlane_wire::GrantVerifier;
use tokio::sync::mpsc;

use super::isolate::is_isolated;
use crate::backend::{Choice, Wanted};
use crate::clock::{self, Floor};
use crate::config::{Config, Iface};
use crate::daemon::{self, Ears, End, Parts};
use crate::executor::{Bench, Executor, OffloadWords, Resolved};
use crate::failure::Failure;
use crate::files::{self, Dirs, RunLock};
use crate::identity::{Identity, Validity};
use crate::intent::Intent;
use crate::kernel::Kernel;
use crate::watch::{self, DeniedBook};
use crate::witness::Witness;
use crate::{privilege, saved};

#[derive(Debug, Args)]
pub struct Run {
    /// The configuration; default: agent.toml in --dir, or /etc/thinlane/agent.toml.
    #[arg(long, value_name = "FILE", env = "THINLANE_CONFIG")]
    config: Option<PathBuf>,
    /// LAN interface (may be given more than once); default: those of the configuration, or looked up for each asset.
    #[arg(long, value_name = "IFACE", env = "THINLANE_LAN", value_delimiter = ',')]
    lan: Vec<Iface>,
    /// Who encrypts.
    #[arg(long, value_enum, default_value = "auto", env = "THINLANE_BACKEND")]
    backend: Wanted,
}

pub fn run(args: &Run, dirs: &Dirs) -> Result<(), Failure> {
    let (mut config, from) = Config::load(args.config.as_deref(), dirs)
        .map_err(|error| Failure::new(error).next("mend the file; docs/operations.md shows every key"))?;
    if !args.lan.is_empty() {
        config.lan.clone_from(&args.lan);
    }
    let identity = Identity::load(&dirs.identity())
        .map_err(|error| Failure::from(error).next("enrol this gateway again: thinlane-agent enroll --force"))?
        .ok_or_else(|| {
            Failure::new(format_args!("this gateway is not enrolled ({} is missing)", dirs.identity().display()))
                .next("thinlane-agent enroll --controller HOST:7443 --ca-fingerprint sha256:.. --token-file FILE")
        })?;
    privilege::check()?;
    let choice = Choice::make(args.backend)?;
    if choice.at(config.wireguard.port) == Backend::Userspace {
        privilege::tun()?;
    }
    files::private_dir(&dirs.run).map_err(|error| {
        Failure::new(format_args!("cannot use {}: {error}", dirs.run.display())).next("name another one with --run-dir")
    })?;
    let lock = RunLock::take(dirs).with_context(|| format!("cannot lock {}", dirs.run.display()))?;
    let Some(_lock) = lock else {
        return Err(Failure::new(format_args!("an agent is running on {} already", dirs.run.display()))
            .next("thinlane-agent status"));
    };
    let config_file = from.map_or_else(|| "none".into(), |path| path.display().to_string());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = config_file, "starting");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .context("cannot start")?;
    let end = runtime.block_on(async {
        let (parts, ears) = take_in_hand(dirs, config, identity, choice)?;
        daemon::run(parts, ears, ready).await
    })?;
    // A name being resolved must not hold up the end.
    runtime.shutdown_background();
    match end {
        End::Left => {
            tracing::info!("stopped; open lanes end at their deadlines, and go on if the agent is back before that");
            Ok(())
        }
        End::Removed(Ok(())) => {
            tracing::info!("stopped; everything was removed");
            Ok(())
        }
        End::Removed(Err(error)) => Err(error.into()),
    }
}

/// Closed base first, then the device, then what was open.
fn take_in_hand(dirs: &Dirs, config: Config, identity: Identity, choice: Choice) -> anyhow::Result<(Parts, Ears)> {
    let boot = clock::boot_id()?;
    let enrolled = Validity::of(&identity.certificate)?.not_before;
    let floor = Floor::load(dirs.clock(), boot, enrolled)?;
    let witness = Witness::load(dirs.witness(), identity.log_key.clone())?;
    let before = Intent::load(dirs).unwrap_or_else(|error| {
        tracing::warn!(error = format!("{error:#}"), "the last agent's intent cannot be read");
        None
    });
    // Peers of a direct endpoint know the port.
    let mut listen = match config.wireguard.port {
        0 => before.map_or(0, |intent| intent.listen),
        port => port,
    };
    let mut kernel = Kernel::open(dirs, &config.lan, choice, listen)?;
    let saved = saved::load(dirs).unwrap_or_else(|error| {
        tracing::warn!(error = format!("{error:#}"), "the last agent's state cannot be read: nothing of it is opened");
        None
    });
    kernel.await_interface()?;
    let tables = Watch::open([kernel.port()]).context("cannot watch the tables")?;
    let isolated = is_isolated(dirs) || config.isolate_input.as_deref().is_some_and(daemon::input_is_on);
    if let Some(state) = saved.as_ref().filter(|_| !isolated) {
        let verifier = GrantVerifier::new(identity.grant_keys.iter().copied());
        let told = state.lanes.iter().filter_map(|lane| Some((lane.grant.peek()?.0, lane.counters))).collect();
        kernel.resume(saved::live(state, &verifier, boot, clock::boot()).0, told);
    }
    kernel.rebuild_base()?;
    let resumable = saved.iter().flat_map(|state| &state.lanes).filter_map(|lane| lane.grant.peek());
    kernel.forget_others(&resumable.map(|(session, _)| session).collect())?;
    let book = DeniedBook::default();
    match DeniedLog::open(kernel.nflog_group()) {
        Ok(log) => watch::denied(log, book.clone())?,
        // Counters still say how many; only the kinds are missing.
        Err(error) => tracing::warn!(%error, "denied packets cannot be told apart"),
    }
    let (events, device) = mpsc::unbounded_channel();
    let (resolved, offload) = (Resolved::default(), OffloadWords::default());
    let key = identity.key.clone();
    let mut bench =
        Bench { kernel, key, state: dirs.state(), resolved: resolved.clone(), offload: offload.clone(), events };
    let mut started = bench.start_device(listen);
    if started.is_err() && config.wireguard.port != listen {
        // Somebody has taken the port that was remembered; the controller will name the right one.
        listen = 0;
        started = bench.start_device(listen);
    }
    let backend = match started {
        Ok(backend) => backend,
        Err(error) => {
            bench.kernel.remove_everything()?;
            return Err(error);
        }
    };
    tracing::info!(%backend, "who encrypts");
    let (executor, answers) = Executor::start(bench)?;
    let parts = Parts {
        dirs: dirs.clone(),
        config,
        identity,
        floor,
        witness,
        boot,
        saved,
        isolated,
        executor,
        book,
        resolved,
        device_offload: offload,
        listen,
        backend,
    };
    Ok((parts, Ears { answers, device, tables: watch::tables(tables)?, addresses: watch::addresses()? }))
}

/// Tells the service manager, and whoever reads the log.
fn ready() {
    tracing::info!("ready: the site is guarded");
    // No service manager listens: then nobody waits for it.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}
