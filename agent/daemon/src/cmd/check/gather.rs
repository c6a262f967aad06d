//! Asks the machine, the daemon and the network; each question is bounded in time, the slow ones run side by side.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::statvfs;
use thinlane_doctor::{Admission, Contact, Interface, Look, NetworkFacts, admission, interfaces, look};
use thinlane_model::Span;
use thinlane_nft::{BaseConfig, LANE_INTERFACES, Lanes, Nft, Side};
use thinlane_wg::link::Link;
use thinlane_wire::ProbeTicket;

use super::facts::{Certificate, Daemon, Disk, Enrolment, Facts, Kernel, Lan, Missing};
use super::is_isolated;
use crate::clock::{self, Floor};
use crate::config::Config;
use crate::control::{self, Ask, Reply};
use crate::daemon::input_is_on;
use crate::files::Dirs;
use crate::identity::{Identity, Validity};
use crate::intent::Intent;
use crate::kernel::INTERFACE;
use crate::{privilege, tls};

/// How long the daemon may take to say how it is, and to fetch a ticket from the controller.
const STATUS_PATIENCE: Duration = Duration::from_millis(1500);
const TICKET_PATIENCE: Duration = Duration::from_millis(2000);
/// How long showing the certificate may take, once the controller is known to answer.
const ADMISSION_PATIENCE: Duration = Duration::from_millis(2000);
/// The most interfaces that are taken for the LAN's.
const MOST_SIDES: usize = 8;
/// What makes interfaces for a userspace device.
const TUN: &str = "/dev/net/tun";
/// What is written to see whether something can be: as much as an identity takes.
const TRIAL: usize = 4096;
/// Vendors' modules that forward established connections past netfilter's forward hook.
const FAST_PATHS: [&str; 7] =
    ["shortcut_fe", "fast_classifier", "mtkhnat", "qca_nss_ecm", "ecm", "bcm_flow", "xt_FLOWOFFLOAD"];

/// Everything that can be found out.
pub fn gather(dirs: &Dirs, running: bool) -> Facts {
    let (identity, enrolment) = match Identity::load(&dirs.identity()) {
        Ok(Some(identity)) => {
            let known = Enrolment::Yes { site: identity.site_name.clone(), controller: identity.controller.clone() };
            (Some(identity), known)
        }
        Ok(None) => (None, Enrolment::No),
        Err(error) => (None, Enrolment::Damaged(format!("{error:#}"))),
    };
    let daemon = if running { ask_daemon(dirs) } else { Daemon::Stopped };
    let (config, config_problem) = match Config::load(None, dirs) {
        Ok((config, _)) => (config, None),
        Err(error) => (Config::default(), Some(error.to_string())),
    };
    let (network, mut kernel, disks) = std::thread::scope(|scope| {
        let network = scope.spawn(|| identity.as_ref().map(|identity| the_network(dirs, identity, &daemon)));
        let kernel = scope.spawn(|| the_kernel(dirs, running, &config));
        let disks = disks(dirs);
        // A look that panicked found nothing out.
        (network.join().unwrap_or_default(), kernel.join().unwrap_or_default(), disks)
    });
    let (network, admission) = network.unzip();
    // Only the controller can tell the pools.
    the_firewalls(&lanes(dirs, &config, network.as_ref()), &mut kernel);
    Facts {
        certificate: identity.as_ref().and_then(|identity| certificate(dirs, identity, network.as_ref())),
        isolated: is_isolated(dirs) || config.isolate_input.as_deref().is_some_and(input_is_on),
        lan_named: !config.lan.is_empty() || intended(dirs).is_some_and(|intent| !intent.lan.is_empty()),
        lan: lan(dirs, &config, running),
        privilege: privilege(),
        admission: admission.flatten(),
        enrolment,
        config_problem,
        daemon,
        kernel,
        disks,
        network,
    }
}

fn ask_daemon(dirs: &Dirs) -> Daemon {
    match control::ask(dirs, Ask::Status, STATUS_PATIENCE) {
        Ok(Reply::Status(status)) => Daemon::Runs(status),
        Ok(other) => Daemon::Mute(format!("it answered {other:?}")),
        Err(error) => Daemon::Mute(error.to_string()),
    }
}

fn intended(dirs: &Dirs) -> Option<Intent> {
    Intent::load(dirs).ok().flatten()
}

fn the_network(dirs: &Dirs, identity: &Identity, daemon: &Daemon) -> (NetworkFacts, Option<Admission>) {
    let at = Look { controller: identity.controller.clone(), ca: identity.ca.clone() };
    let facts = look(&at, || ticket(dirs, daemon));
    let connected = matches!(daemon, Daemon::Runs(status) if status.channel == "up");
    let answers = matches!(facts.contact, Contact::Answers { .. });
    let admission = (answers && !connected).then(|| show_certificate(dirs, identity, &facts));
    (facts, admission)
}

/// A ticket, which only the daemon's channel can fetch.
fn ticket(dirs: &Dirs, daemon: &Daemon) -> Result<ProbeTicket, String> {
    match daemon {
        Daemon::Stopped => return Err("the agent is not running".into()),
        Daemon::Mute(why) => return Err(why.clone()),
        Daemon::Runs(_) => {}
    }
    match control::ask(dirs, Ask::Probe, TICKET_PATIENCE) {
        Ok(Reply::Ticket(view)) => view.ticket().ok_or_else(|| "the controller's ticket cannot be read".into()),
        Ok(Reply::Failed { message, .. }) => Err(message),
        Ok(_) => Err("the agent that runs is of another version".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn show_certificate(dirs: &Dirs, identity: &Identity, facts: &NetworkFacts) -> Admission {
    let unknown = |error: anyhow::Error| Admission::Unknown(format!("{error:#}"));
    let config = match floor(dirs, identity).and_then(|floor| tls::channel_config(identity, floor)) {
        Ok(config) => config,
        Err(error) => return unknown(error),
    };
    let addresses = thinlane_doctor::addresses(&facts.controller, &facts.name);
    admission(&facts.controller, &addresses, config, Instant::now() + ADMISSION_PATIENCE)
}

fn floor(dirs: &Dirs, identity: &Identity) -> anyhow::Result<Floor> {
    Floor::load(dirs.clock(), clock::boot_id()?, Validity::of(&identity.certificate)?.not_before)
}

/// The newest time that anybody vouched for: the controller just now, or the floor.
fn certificate(dirs: &Dirs, identity: &Identity, network: Option<&NetworkFacts>) -> Option<Certificate> {
    let validity = Validity::of(&identity.certificate).ok()?;
    let kept = floor(dirs, identity).map(|floor| floor.time(clock::boot())).unwrap_or(validity.not_before);
    let told = match network.map(|network| &network.contact) {
        Some(Contact::Answers { offset_ms, .. }) => {
            let offset = Span::from_millis(offset_ms.unsigned_abs());
            Some(if *offset_ms < 0 { clock::wall() + offset } else { clock::wall() - offset })
        }
        _ => None,
    };
    let now = told.map_or(kept, |told| told.max(kept));
    Some(Certificate { not_before: validity.not_before, not_after: validity.not_after, now })
}

fn privilege() -> Option<Missing> {
    let failure = privilege::check().and_then(|()| privilege::tun()).err()?;
    // A device that is not there is a matter of the kernel, not of this user.
    if !failure.what.contains("CAP_NET_ADMIN") && !Path::new(TUN).exists() {
        return None;
    }
    Some(Missing { what: failure.what, next: failure.next.unwrap_or_default() })
}

/// The interfaces of the configuration, and those that the daemon was started with.
fn lan(dirs: &Dirs, config: &Config, running: bool) -> Vec<Lan> {
    let named = config.lan.iter().map(|iface| iface.as_str().to_owned());
    let names: BTreeSet<String> = named.chain(intended(dirs).into_iter().flat_map(|intent| intent.lan)).collect();
    let all = interfaces();
    let one = |name: String| Lan {
        interface: all.iter().find(|interface: &&Interface| interface.name == name).cloned(),
        forwards: if running { forwards(&name) } else { None },
        name,
    };
    names.into_iter().map(one).collect()
}

fn forwards(interface: &str) -> Option<bool> {
    let path = format!("/proc/sys/net/ipv4/conf/{interface}/forwarding");
    Some(std::fs::read_to_string(path).ok()?.trim() != "0")
}

fn the_kernel(dirs: &Dirs, running: bool, config: &Config) -> Kernel {
    let mut found = Kernel {
        tun: Path::new(TUN).exists(),
        wireguard: has_wireguard(),
        fast_paths: FAST_PATHS.into_iter().filter(|name| Path::new("/sys/module").join(name).exists()).collect(),
        legacy_rules: std::fs::read_to_string("/proc/net/ip_tables_names").is_ok_and(|all| all.contains("filter")),
        lanes_do_not_forward: running && forwards(INTERFACE) == Some(false),
        ..Kernel::default()
    };
    let mut nft = match Nft::open() {
        Ok(nft) => nft,
        Err(error) => {
            found.lacks = Some(error.to_string());
            return found;
        }
    };
    match nft.flowtables() {
        Ok(tables) => found.flowtables = tables,
        Err(error) => found.lacks = Some(format!("nf_tables: {error}")),
    }
    let lan = intended(dirs).map(|intent| intent.lan).unwrap_or_default();
    let lan: Vec<String> = lan.into_iter().chain(config.lan.iter().map(|iface| iface.as_str().to_owned())).collect();
    if !found.flowtables.is_empty() {
        found.lan_parts = Link::open().and_then(|mut link| link.beneath(&lan)).unwrap_or_default();
    }
    found.conntrack = nft.flows([192, 0, 2, 1].into()).is_ok();
    // A daemon that runs has its table, or says why it does not.
    if !running && found.lacks.is_none() {
        let base = BaseConfig { lan, guard_lan_forwarding: true, nflog_group: 7443, mss: 1380 };
        found.lacks = nft.try_base(&base).err().map(|error| error.to_string());
    }
    found
}

/// What can be known of the packets of this gateway's lanes.
fn lanes(dirs: &Dirs, config: &Config, network: Option<&NetworkFacts>) -> Lanes {
    let intent = intended(dirs);
    let named: BTreeSet<String> = config.lan.iter().map(|iface| iface.as_str().to_owned()).collect();
    let named: BTreeSet<String> =
        named.into_iter().chain(intent.iter().flat_map(|intent| intent.lan.clone())).collect();
    let uplink = network.and_then(|network| network.way.as_ref()?.interface.clone());
    let device = intent.map_or_else(|| INTERFACE.to_owned(), |intent| intent.interface);
    let may_be_lan = |one: &Interface| {
        let ours = one.name == INTERFACE || one.name.starts_with(LANE_INTERFACES);
        if named.is_empty() { !ours && uplink.as_ref() != Some(&one.name) } else { named.contains(&one.name) }
    };
    let side = |one: Interface| Side { name: one.name, networks: one.addresses };
    // One without an address leads to no device, which is a finding of its own.
    let all = interfaces().into_iter().filter(|one| may_be_lan(one) && !one.addresses.is_empty());
    let lan: Vec<Side> = all.take(MOST_SIDES).map(side).collect();
    let index = |name: &str| Some((name.to_owned(), if_nametoindex(name).ok()?));
    let known = lan.iter().map(|side| side.name.as_str()).chain([device.as_str()]).chain(uplink.as_deref());
    Lanes {
        indices: known.filter_map(index).collect(),
        device,
        lan,
        lan_is_certain: !named.is_empty(),
        // Assets' first, engineers' last.
        engineers: network
            .and_then(|network| network.pools.last())
            .map(|pool| (pool.address, pool.length))
            .into_iter()
            .collect(),
        uplink,
    }
}

fn the_firewalls(lanes: &Lanes, found: &mut Kernel) {
    match Nft::open().and_then(|mut nft| nft.foreign(lanes)) {
        Ok(chains) => found.foreign = chains,
        // Why the kernel says nothing at all is a finding of its own.
        Err(error) if found.lacks.is_none() => found.foreign_unread = Some(error.to_string()),
        Err(_) => {}
    }
}

/// Whether the kernel's own WireGuard is loaded, built in, or lies there as a module.
pub fn has_wireguard() -> bool {
    if Path::new("/sys/module/wireguard").exists() {
        return true;
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let modules = Path::new("/lib/modules").join(release.trim());
    let listed =
        |file: &str| std::fs::read_to_string(modules.join(file)).is_ok_and(|text| text.contains("/wireguard.ko"));
    // OpenWrt keeps its modules flat, without an index.
    listed("modules.dep") || listed("modules.builtin") || modules.join("wireguard.ko").exists()
}

fn disks(dirs: &Dirs) -> Vec<Disk> {
    [(&dirs.dir, false), (&dirs.run, true)].into_iter().filter_map(|(path, run)| disk(path, run)).collect()
}

/// `None`: the directory is not there, which has its own reasons.
fn disk(path: &Path, run: bool) -> Option<Disk> {
    if !path.is_dir() {
        return None;
    }
    #[allow(clippy::useless_conversion, reason = "these have 32 bits where a word has")]
    let free = statvfs(path)
        .ok()
        .map(|found| u64::from(found.blocks_available()).saturating_mul(u64::from(found.fragment_size())));
    let in_memory = statfs(path).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC);
    let unwritable = try_to_write(path).err().map(|error| thinlane_doctor::plain(&error));
    Some(Disk { path: path.to_owned(), unwritable, free, in_memory, run })
}

/// Writes as much as an identity takes, and takes it away again.
fn try_to_write(dir: &Path) -> std::io::Result<()> {
    let path = dir.join(format!(".check.{}", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(&[b' '; TRIAL])?;
        file.sync_all()
    })();
    let _ = std::fs::remove_file(&path);
    written
}
