//! `init`: a new controller.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use thinlane_model::{Endpoint, Login, Role, Wall};
use thinlane_policy::PolicyState;
use thinlane_session::{Actor, Command, NewPerson};
use thinlane_store::Store;
use thinlane_tlog::Signer;

use crate::auth::new_setup_code;
use crate::ca::{Ca, server_names};
use crate::config::{Config, Pools};
use crate::core::{State, Step};
use crate::dir::{Dir, write_private};
use crate::{keys, policies};

#[derive(Debug, Args)]
pub struct Init {
    #[command(flatten)]
    dir: super::Dir,
    /// The first admin's login.
    #[arg(long, env = "THINLANE_ADMIN", value_name = "LOGIN")]
    admin: Login,
    /// Where HTTPS and the gateways' channel are bound (TCP).
    #[arg(long, env = "THINLANE_LISTEN", value_name = "ADDR:PORT", default_value = "0.0.0.0:7443")]
    listen: SocketAddr,
    /// Where the relay is bound (UDP); the same as --listen without it.
    #[arg(long, env = "THINLANE_RELAY", value_name = "ADDR:PORT")]
    relay: Option<SocketAddr>,
    /// What engineers and gateways dial; the bound address, or this machine's name, without it.
    #[arg(long, env = "THINLANE_PUBLIC", value_name = "HOST:PORT")]
    public: Option<Endpoint>,
    /// What WireGuard ends dial; the host of --public with the relay's port without it.
    #[arg(long, env = "THINLANE_RELAY_PUBLIC", value_name = "HOST:PORT")]
    relay_public: Option<Endpoint>,
    /// Read the policy from this directory instead of the shipped one.
    #[arg(long, env = "THINLANE_POLICIES", value_name = "DIR")]
    policies: Option<PathBuf>,
}

pub fn init(args: Init, json: bool) -> Result<()> {
    let dir = Dir::new(&args.dir.dir);
    let now = crate::clock::wall();
    let policies = match &args.policies {
        Some(path) => {
            policies::read_some(path)?;
            if let PolicyState::Invalid(errors) = policies::load(path) {
                let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
                bail!(
                    "the policy is invalid:\n{}\nnothing was made (next: mend it; `thinlane-controller policy check {}` says when it is right)",
                    lines.join("\n"),
                    path.display()
                );
            }
            path.canonicalize().with_context(|| format!("cannot use {}", path.display()))?
        }
        None => PathBuf::from("policies"),
    };
    let config = config(&args, policies)?;
    dir.create()?;
    let made = make(&dir, &config, &args.admin, now);
    if made.is_err() {
        // Half a controller is none: the next try begins with an empty directory again.
        empty(dir.path());
    }
    let (ca, code, expires) = made?;
    // The code stands in its file alone: the terminal's scrollback is no place for it.
    let setup = dir.admin_setup();
    write_private(&setup, format!("{}\n", code.as_str()).as_bytes())?;
    let fingerprint = ca.fingerprint();
    if json {
        let line = serde_json::json!({
            "schema": 1, "dir": dir.path(), "ca_fingerprint": fingerprint, "public": config.public.to_string(),
            "relay_public": config.relay_public.to_string(), "admin": args.admin.to_string(),
            "admin_setup": setup, "expires_at": expires.to_string(),
        });
        println!("{line}");
    } else {
        println!("made a controller in {}", dir.path().display());
        println!("CA fingerprint: {fingerprint}");
        eprintln!(
            "next: thinlane-controller run --dir {dir}\n\
             then: thinlane setup https://{public} --ca-fingerprint {fingerprint} --user {admin} --code-file {setup}\n\
             The set-up code in that file is good until {expires}.",
            dir = dir.path().display(),
            public = config.public,
            admin = args.admin,
            setup = setup.display(),
        );
    }
    Ok(())
}

fn make(dir: &Dir, config: &Config, admin: &Login, now: Wall) -> Result<(Ca, zeroize::Zeroizing<String>, Wall)> {
    config.save(dir)?;
    if config.policies.is_relative() {
        policies::ship(&config.policy_dir(dir.path()))?;
    }
    let ca = Ca::create(dir, config.public.host(), now)?;
    let names = server_names(hosts(config));
    drop(ca.server(dir, &names, now)?);
    keys::create(&dir.grant_key())?;
    let signer = Signer::new(&config.log, keys::create(&dir.log_key())?)?;
    let store = Store::create(dir.path(), signer)?;
    let pools = super::run::pools(config)?;
    let mut state = State::load(store, PolicyState::load::<&str, &str>(&[]), pools, config.relay_public.clone())?;
    let (code, expires) = state.change_once(|step: &mut Step<'_>| {
        let person = NewPerson {
            login: admin.clone(),
            name: admin.to_string(),
            org: None,
            sponsor: None,
            // The first person can set everything else up, and give these away.
            roles: [Role::Admin].into_iter().collect(),
            until: None,
        };
        step.command(&Actor::System, Command::AddPerson(person))?;
        new_setup_code(step, admin)
    })?;
    Ok((ca, code, expires))
}

fn config(args: &Init, policies: PathBuf) -> Result<Config> {
    let relay = args.relay.unwrap_or(args.listen);
    let public = match &args.public {
        Some(public) => public.clone(),
        None => endpoint(&own_host(args.listen.ip())?, args.listen.port())?,
    };
    let relay_public = match &args.relay_public {
        Some(public) => public.clone(),
        None if relay.ip().is_unspecified() || args.public.is_some() => endpoint(public.host(), relay.port())?,
        None => endpoint(&own_host(relay.ip())?, relay.port())?,
    };
    let tag = crate::auth::code::make(5)?;
    let log = format!("{}/{}", public.host(), tag.as_str());
    Ok(Config { listen: args.listen, relay, public, relay_public, log, policies, pools: Pools::default() })
}

/// The address that was asked for, or this machine's name where it is all addresses.
fn own_host(ip: IpAddr) -> Result<String> {
    if !ip.is_unspecified() {
        return Ok(ip.to_string());
    }
    let name = nix::unistd::gethostname().context("this machine has no name")?;
    Ok(name.to_string_lossy().into_owned())
}

fn endpoint(host: &str, port: u16) -> Result<Endpoint> {
    let text = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    text.parse().with_context(|| "give --public HOST:PORT".to_owned())
}

/// The hosts that the server's certificate is for.
pub fn hosts(config: &Config) -> Vec<String> {
    vec![config.public.host().to_owned(), config.listen.ip().to_string()]
}

fn empty(dir: &Path) {
    let Ok(inside) = std::fs::read_dir(dir) else { return };
    for entry in inside.flatten() {
        let path = entry.path();
        let _ = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
    }
}
