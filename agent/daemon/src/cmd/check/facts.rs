//! What was found out about this gateway, before anybody judges it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;
use thinlane_doctor::{Admission, Contact, Interface, NetworkFacts, RelayFact};
use thinlane_model::{Endpoint, SiteName, Wall};
use thinlane_nft::{Flowtable, ForeignChain};

use crate::control::Status;

/// Everything but the network's part of it.
#[derive(Debug)]
pub struct Facts {
    pub enrolment: Enrolment,
    /// Why agent.toml is not taken, naming line and key; `None`: it is, or there is none.
    pub config_problem: Option<String>,
    pub privilege: Option<Missing>,
    pub daemon: Daemon,
    /// The site's own switch, however it was turned.
    pub isolated: bool,
    pub lan: Vec<Lan>,
    /// Whether the LAN interfaces are named in the configuration, not looked up for each asset.
    pub lan_named: bool,
    pub kernel: Kernel,
    pub disks: Vec<Disk>,
    pub certificate: Option<Certificate>,
    pub network: Option<NetworkFacts>,
    /// `None`: there was no need to ask, or no way.
    pub admission: Option<Admission>,
}

/// Who this gateway is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrolment {
    No,
    Damaged(String),
    Yes { site: SiteName, controller: Endpoint },
}

/// What this user may not do, or this machine does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    pub what: String,
    pub next: String,
}

/// The daemon, as its control socket shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Daemon {
    Stopped,
    /// It runs and does not answer; why.
    Mute(String),
    Runs(Box<Status>),
}

/// One LAN interface that lanes lead to, or should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lan {
    pub name: String,
    /// `None`: there is no such interface.
    pub interface: Option<Interface>,
    /// Its forwarding switch, and that of the lanes' interface, while the daemon runs; `None`: not to be seen.
    pub forwards: Option<bool>,
}

/// What the kernel has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kernel {
    /// The kernel's words for what it does not know of the table; `None`: it knows all of it.
    pub lacks: Option<String>,
    /// Whether the connections can be listed and deleted.
    pub conntrack: bool,
    pub tun: bool,
    /// Whether the kernel has its own WireGuard, loaded or ready to be.
    pub wireguard: bool,
    pub flowtables: Vec<Flowtable>,
    /// The LAN interfaces and what lies beneath them, a bridge's ports for instance; looked up where there is a flowtable.
    pub lan_parts: BTreeSet<String>,
    /// Vendors' fast paths that are loaded.
    pub fast_paths: Vec<&'static str>,
    /// What the tables of others do to lanes.
    pub foreign: Vec<ForeignChain>,
    /// Why those could not be read; `None`: they were, or nothing can be.
    pub foreign_unread: Option<String>,
    /// Rules of the old iptables are in force, which nobody but iptables-legacy can read.
    pub legacy_rules: bool,
    /// The lanes' interface does not forward, though the daemon runs.
    pub lanes_do_not_forward: bool,
}

/// A directory of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    pub path: PathBuf,
    /// Why nothing can be written there; `None`: something could.
    pub unwritable: Option<String>,
    /// Bytes free for us; `None`: not known.
    pub free: Option<u64>,
    /// In memory, as a run directory should be.
    pub in_memory: bool,
    pub run: bool,
}

/// The gateway's certificate, and the best time that is known to judge it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certificate {
    pub not_before: Wall,
    pub not_after: Wall,
    pub now: Wall,
}

/// What goes into the JSON.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub controller: Option<String>,
    pub controller_version: Option<String>,
    pub round_trip_ms: Option<u64>,
    /// This machine's clock minus the controller's.
    pub clock_offset_ms: Option<i64>,
    pub wan: Option<thinlane_doctor::Way>,
    pub relay: Option<String>,
    pub relay_round_trip_ms: Option<u64>,
    /// Where the relay sees this gateway.
    pub seen_from: Option<String>,
    /// The largest IP packet that reached the relay and came back whole.
    pub path_mtu: Option<u16>,
    pub certificate_expires_at: Option<Wall>,
    pub backend: Option<String>,
    pub lan: Vec<String>,
}

impl Facts {
    /// Where the kernel cannot be read for a reason that is a finding of its own.
    pub fn explains_a_blind_proof(&self) -> bool {
        self.privilege.is_some() || self.kernel.lacks.is_some() || !self.kernel.conntrack
    }

    pub fn site(&self) -> Option<String> {
        match &self.enrolment {
            Enrolment::Yes { site, .. } => Some(site.to_string()),
            Enrolment::No | Enrolment::Damaged(_) => None,
        }
    }

    pub fn status(&self) -> Option<&Status> {
        match &self.daemon {
            Daemon::Runs(status) => Some(status),
            Daemon::Stopped | Daemon::Mute(_) => None,
        }
    }

    pub fn summary(&self) -> Summary {
        let contact = self.network.as_ref().map(|network| &network.contact);
        let (version, offset, round_trip) = match contact {
            Some(Contact::Answers { version, offset_ms, round_trip_ms, .. }) => {
                (Some(version.clone()), Some(*offset_ms), Some(*round_trip_ms))
            }
            _ => (None, None, None),
        };
        let (relay, relay_ms, seen, path) = match self.network.as_ref().map(|network| &network.relay) {
            Some(RelayFact::Answers { relay, round_trip_ms, seen_from, largest, .. }) => {
                (Some(relay.to_string()), Some(*round_trip_ms), Some(seen_from.to_string()), Some(*largest))
            }
            _ => (None, None, None, None),
        };
        let lan = |lan: &Lan| {
            let of = |interface: &Interface| -> Vec<String> {
                interface.addresses.iter().map(|(address, length)| format!("{address}/{length}")).collect()
            };
            let addresses = lan.interface.as_ref().map(of).unwrap_or_default().join(" ");
            format!("{} {addresses}", lan.name).trim_end().to_owned()
        };
        Summary {
            controller: match &self.enrolment {
                Enrolment::Yes { controller, .. } => Some(controller.to_string()),
                Enrolment::No | Enrolment::Damaged(_) => None,
            },
            controller_version: version,
            round_trip_ms: round_trip,
            clock_offset_ms: offset,
            wan: self.network.as_ref().and_then(|network| network.way.clone()),
            relay,
            relay_round_trip_ms: relay_ms,
            seen_from: seen,
            path_mtu: path,
            certificate_expires_at: self.certificate.map(|certificate| certificate.not_after),
            backend: self.status().map(|status| status.backend.clone()),
            lan: self.lan.iter().map(lan).collect(),
        }
    }

    /// What is well, for a person: names and lines.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let summary = self.summary();
        let mut lines = Vec::new();
        if let (Some(controller), Some(version), Some(took)) =
            (&summary.controller, &summary.controller_version, summary.round_trip_ms)
        {
            lines.push(("controller", format!("{controller} answers in {took} ms, version {version}")));
        }
        if let (Some(relay), Some(took), Some(seen), Some(path)) =
            (&summary.relay, summary.relay_round_trip_ms, &summary.seen_from, summary.path_mtu)
        {
            lines.push(("relay", format!("{relay} answers in {took} ms, sees us at {seen}, passes {path} bytes")));
        }
        if let Some(way) = &summary.wan {
            let interface = way.interface.as_deref().unwrap_or("?");
            lines.push(("uplink", format!("{interface} {}", way.source)));
        }
        if !summary.lan.is_empty() {
            lines.push(("LAN", summary.lan.join(", ")));
        }
        if let Some(at) = summary.certificate_expires_at {
            lines.push(("certificate", format!("until {at}")));
        }
        if let Some(backend) = &summary.backend {
            lines.push(("backend", backend.clone()));
        }
        lines
    }
}
