//! `run`: the controller itself.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use data_encoding::BASE64;
use thinlane_policy::PolicyState;
use thinlane_session::{Actor, Note, Pools};
use thinlane_store::Store;
use thinlane_tlog::Signer;
use thinlane_wire::GrantSigner;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::app::{App, Inner};
use crate::auth::Auth;
use crate::ca::{Ca, server_names};
use crate::channel::Channels;
use crate::config::Config;
use crate::core::{Core, Shell, State};
use crate::dir::Dir;
use crate::tls::Tls;
use crate::{api, keys, lately, listen, policies};

/// How often the server's certificate, and secrets that have run out, are looked after.
const HOUSEKEEPING: Duration = Duration::from_secs(3600);
/// How long open requests have at the end.
const LAST_REQUESTS: Duration = Duration::from_secs(4);

/// The database does not stand where its log leads to: nothing is served from it, for whoever changed it may have
/// made himself an admin.
#[derive(Debug, thiserror::Error)]
#[error(
    "the database in {dir} was changed from outside: {first}{more}; nothing was started (next: `thinlane audit verify --dir {dir}` names every finding, `thinlane-controller restore --from BACKUP --dir NEWDIR` goes back to a good copy)"
)]
pub struct Tampered {
    dir: String,
    first: String,
    more: String,
}

/// Runs until SIGTERM or SIGINT.
pub fn run(dir: &Path) -> Result<()> {
    let dir = Dir::new(dir);
    dir.check()?;
    let config = Config::load(&dir)?;
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("serve")
        .build()
        .context("the runtime cannot start")?;
    let done = runtime.block_on(serve(dir, config));
    runtime.shutdown_timeout(Duration::from_secs(2));
    done
}

/// Compares the state with the log, and the log with its checkpoints, before anything is served.
fn verify(dir: &Dir) -> Result<()> {
    let found = thinlane_store::verify(dir.path(), Vec::new())?;
    let Some(first) = found.problems.first() else {
        tracing::info!(entries = found.entries, "the log verifies");
        return Ok(());
    };
    let more = found.problems.len() - 1;
    Err(Tampered {
        dir: dir.path().display().to_string(),
        first: first.message.clone(),
        more: if more == 0 { String::new() } else { format!(", and {more} findings more") },
    }
    .into())
}

async fn serve(dir: Dir, config: Config) -> Result<()> {
    let log_key = keys::load(&dir.log_key())?;
    let signer = Signer::new(&config.log, log_key)?;
    let log_key = signer.verifier().to_string();
    let store = Store::open(dir.path(), signer)?;
    // Both ports before anything else is changed: "in use" is the commonest fault.
    let listener =
        TcpListener::bind(config.listen).await.map_err(|error| port(error, "TCP", config.listen, "listen"))?;
    let relay = thinlane_relay::Shell::bind(config.relay).map_err(|error| port(error, "UDP", config.relay, "relay"))?;
    verify(&dir)?;
    let ca = Arc::new(Ca::load(&dir)?);
    let names = server_names(super::init::hosts(&config));
    let tls = Tls::new(&ca, ca.server(&dir, &names, crate::clock::wall())?)?;
    let grant_key = keys::load(&dir.grant_key())?;
    let grant_keys = vec![BASE64.encode(grant_key.verifying_key().as_bytes())];
    let checkpoint = store.checkpoint()?.and_then(|note| Some((checkpoint_size(&note)?, note)));
    let channels = Channels::new(GrantSigner::new(grant_key), checkpoint);
    let policy = policies::load(&config.policy_dir(dir.path()));
    report_policy(&policy);
    let mut state = State::load(store, policy, pools(&config)?, config.relay_public.clone())?;
    let (lately, seen) = lately::load(&dir);
    state.remember(seen);
    let tries = state.kept_tries()?;
    let (handle, executor) = (relay.handle(), channels.clone());
    let (core, mut writer) = Core::start(state, |core| Shell::new(core, handle, executor))?;
    core.write_surely(|step| {
        step.note(&Actor::System, Note::ControllerStarted { version: env!("CARGO_PKG_VERSION").to_owned() })?;
        step.policy_changed()
    })
    .await
    .map_err(|body| anyhow!(body.error.message))?;

    let (stop, stopped) = watch::channel(false);
    let (listening, relaying) = (listener.local_addr()?, relay.local_addr());
    let fingerprint = ca.fingerprint();
    let app = App::new(Inner {
        auth: Auth::new(core.clone(), tries),
        core: core.clone(),
        ca: ca.clone(),
        channels: channels.clone(),
        relay: relay.handle(),
        lately,
        dir: dir.path().to_owned(),
        log_key,
        grant_keys,
        stop: stopped.clone(),
    });
    let keeper = tokio::spawn(lately::keep(app.clone(), dir.clone(), stopped.clone()));
    let router = api::router(app.clone());
    let server = tokio::spawn(listen::serve(listener, app, router, tls.clone(), stopped));
    tracing::info!(
        listen = %listening, relay = %relaying, public = %config.public, fingerprint, version = env!("CARGO_PKG_VERSION"),
        "ready"
    );
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

    let mut hang_up = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
    let mut failed = false;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = writer.ended() => {
                failed = true;
                break;
            }
            _ = hang_up.recv() => reload(&dir, &config, &core).await,
            _ = housekeeping.tick() => {
                match ca.server(&dir, &names, crate::clock::wall()).and_then(|identity| tls.replace(&ca, identity)) {
                    Ok(()) => {}
                    Err(error) => tracing::error!(error = format!("{error:#}"), "the server's certificate cannot be renewed"),
                }
                let _ = core.write(|step| { step.drop_expired_secrets(); Ok(()) }).await;
            }
        }
    }
    tracing::info!("stopping");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    stop.send_replace(true);
    channels.stop();
    let _ = tokio::time::timeout(LAST_REQUESTS, server).await;
    let _ = tokio::time::timeout(LAST_REQUESTS, keeper).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    core.stop();
    tokio::task::spawn_blocking(move || writer.join()).await.context("the writer cannot be awaited")?;
    drop(relay);
    tracing::info!("stopped");
    if failed { Err(anyhow!("the writer has ended by itself; the log above says why")) } else { Ok(()) }
}

/// Reads the policies again. An invalid policy denies everything new, and everybody is told.
async fn reload(dir: &Dir, config: &Config, core: &Core) {
    let path = config.policy_dir(dir.path());
    let policy = match tokio::task::spawn_blocking(move || policies::load(&path)).await {
        Ok(policy) => policy,
        Err(error) => return tracing::error!(%error, "the policy cannot be read"),
    };
    report_policy(&policy);
    match core.write_surely(move |step| step.set_policy(policy)).await {
        Ok(()) => {}
        Err(body) => tracing::error!(error = body.error.message, "the policy is not in force: it cannot be logged"),
    }
}

fn report_policy(policy: &PolicyState) {
    match policy {
        PolicyState::Valid(policy) => {
            tracing::info!(hash = policy.hash(), tasks = policy.tasks().count(), "policy in force")
        }
        PolicyState::Invalid(errors) => {
            for error in errors.iter().take(20) {
                tracing::error!(%error, "invalid policy");
            }
            tracing::error!(
                errors = errors.len(),
                "the policy is invalid: everything is denied until it is repaired and reloaded (SIGHUP)"
            );
        }
    }
}

/// The configured pools, checked.
pub fn pools(config: &Config) -> Result<Pools> {
    let pool = |name: &str, text: &str| text.parse().map_err(|error| anyhow!("controller.toml: pools.{name}: {error}"));
    let assets: thinlane_session::Pool = pool("assets", &config.pools.assets)?;
    let engineers: thinlane_session::Pool = pool("engineers", &config.pools.engineers)?;
    if assets.overlaps(&engineers) {
        return Err(anyhow!("controller.toml: the pools of assets and engineers overlap"));
    }
    Ok(Pools { assets, engineers })
}

fn checkpoint_size(note: &str) -> Option<u64> {
    let text = thinlane_tlog::Note::parse(note.as_bytes()).ok()?;
    thinlane_tlog::Checkpoint::parse(text.text()).ok().map(|checkpoint| checkpoint.size())
}

fn port(error: std::io::Error, kind: &str, address: SocketAddr, key: &str) -> anyhow::Error {
    let next = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!(
                "another program uses it: `ss -lnp | grep {}` names it; or set another `{key}` in controller.toml",
                address.port()
            )
        }
        std::io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: choose a higher one".to_owned(),
        std::io::ErrorKind::AddrNotAvailable => {
            format!("this machine has no such address: set `{key}` in controller.toml")
        }
        _ => format!("see `{key}` in controller.toml"),
    };
    anyhow!("cannot bind {kind} {address}: {error} (next: {next})")
}

/// As many connections as the system lets us have.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(1 << 20), hard);
    }
}
