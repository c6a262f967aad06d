//! Everything of this machine that a lane is made of: table, device, routes, connections, forwarding switches.
//!
//! One owner, on one thread, one step at a time. It decides nothing: each step does one thing and says what came
//! of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use thinlane_model::{Boot, Counters, Grant, PublicKey, Secret, SessionId, Span, Tuple};
use thinlane_nft::{Drift, LaneState, Nft};
use thinlane_wg::link::Link;
use thinlane_wg::{Backend, Device, Event, LaneReport, LaneRole, LaneSpec};

use crate::backend::{self, Choice};
use crate::clock;
use crate::config::Iface;
use crate::files::Dirs;
use crate::forwarding::Forwarding;
use crate::intent::Intent;
use crate::tally::Tally;
use crate::traces::Traces;
use crate::vault::Vault;

/// The userspace device's interface.
pub const INTERFACE: &str = "tl0";
/// What the ifalias of the gateway's interfaces begins with; the engineer's begin otherwise.
pub const ALIAS: &str = "thinlane gateway";
/// The NFLOG group; the number is arbitrary and unlikely to be taken.
const NFLOG_GROUP: u16 = 7443;
/// 1 420 bytes of a lane's MTU without IPv4 and TCP headers.
const MSS: u16 = 1380;
/// Seconds of silence after which the pinhole in a carrier's NAT is kept open.
const KEEPALIVE: u16 = 20;
/// How long the interface of a predecessor that was killed may take to vanish.
const PREDECESSOR: Duration = Duration::from_secs(2);

/// The lane of a grant as the table knows it; `interfaces` is the intent's.
pub fn lane(grant: &Grant, remaining: Span, interfaces: &str) -> thinlane_nft::Lane {
    thinlane_nft::Lane {
        session: grant.session,
        iface: backend::interface(interfaces, grant.session),
        tuple: grant.tuple,
        limits: grant.limits,
        keep_source: grant.keep_source,
        remaining,
    }
}

/// Table, device and routes.
pub struct Kernel {
    dirs: Dirs,
    nft: Nft,
    link: Link,
    choice: Choice,
    device: Option<Box<dyn Device>>,
    forwarding: Forwarding,
    vault: Vault,
    traces: Traces,
    /// Lanes in the table, with the deadlines that they have by now.
    standing: BTreeMap<SessionId, Grant>,
    tally: Tally,
    /// What was told of lanes that may go on.
    told: BTreeMap<SessionId, Counters>,
    /// LAN interfaces from the configuration; empty: each asset's is looked up.
    configured: Vec<Iface>,
    intent: Intent,
}

impl Kernel {
    /// Opens the sockets. Nothing is changed yet.
    ///
    /// `port` is the UDP port on which lanes are expected to be reached (0: any), by which the backend is chosen.
    pub fn open(dirs: &Dirs, configured: &[Iface], choice: Choice, port: u16) -> anyhow::Result<Self> {
        let mut nft = Nft::open().context("cannot talk to nf_tables")?;
        nft.flowtables().context("this kernel has no nf_tables, or this user no right to them (modprobe nf_tables)")?;
        let forwarding = Forwarding::load(dirs.forwarding())?;
        let lan: Vec<String> = configured.iter().map(Iface::to_string).collect();
        let guard_lan_forwarding = forwarding.guards(lan.iter().map(String::as_str));
        let intent = Intent {
            lan,
            guard_lan_forwarding,
            nflog_group: NFLOG_GROUP,
            mss: MSS,
            interface: backend::interfaces(choice.at(port)).to_owned(),
            listen: port,
        };
        Ok(Self {
            dirs: dirs.clone(),
            nft,
            link: Link::open().context("cannot talk to the kernel about interfaces")?,
            choice,
            device: None,
            forwarding,
            vault: Vault::load(dirs.lane_keys())?,
            traces: Traces::load(dirs.traces())?,
            standing: BTreeMap::new(),
            tally: Tally::default(),
            told: BTreeMap::new(),
            configured: configured.to_vec(),
            intent,
        })
    }

    /// The netlink port that our own changes come from.
    pub fn port(&self) -> u32 {
        self.nft.port()
    }

    /// Where the table logs denied packets to.
    pub fn nflog_group(&self) -> u16 {
        self.intent.nflog_group
    }

    /// Waits until no other device holds our interface's name.
    pub fn await_interface(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        while let Some(found) = self.link.interface(INTERFACE).context("cannot look at the interfaces")? {
            if began.elapsed() > PREDECESSOR {
                let alias = found.alias.unwrap_or_default();
                let whose = if alias.starts_with(ALIAS) {
                    "another agent holds the interface tl0; end it, or find its run directory: ps ax | grep thinlane-agent"
                } else {
                    "another program holds the interface tl0; `ip -d link show tl0` shows what it is, `ip link del tl0` removes it"
                };
                bail!("{whose}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Lanes that the last agent left and that may go on, by their grants, and what it has told of them.
    pub fn resume(&mut self, grants: BTreeMap<SessionId, Grant>, told: BTreeMap<SessionId, Counters>) {
        (self.standing, self.told) = (grants, told);
    }

    /// Puts the whole table in force, in one transaction, with the lanes that may go on.
    ///
    /// A lane that were missing for a moment would have its device's next packet refused with a reset. Nothing
    /// passes by such a lane yet, for the device has no peer for it, and it ends at its deadline whatever becomes
    /// of it. For the same reason its own connections stay: without its mapping a device's packet would meet the
    /// gateway's own TCP.
    pub fn rebuild_base(&mut self) -> anyhow::Result<()> {
        if self.configured.is_empty() {
            for address in self.standing.values().map(|grant| grant.tuple.address).collect::<BTreeSet<_>>() {
                if let Some(reach) = self.link.reach(address)?.filter(|reach| leads_out(&reach.interface))
                    && !self.intent.lan.contains(&reach.interface)
                {
                    self.intent.lan.push(reach.interface);
                }
            }
        }
        self.install_base()?;
        for tuple in self.traces.all().values() {
            self.nft.drop_stray_flows(tuple)?;
        }
        Ok(())
    }

    /// Clears what earlier lanes left beside the table, but for those of `sessions`, which may go on.
    pub fn forget_others(&mut self, sessions: &BTreeSet<SessionId>) -> anyhow::Result<()> {
        self.vault.keep_only(sessions)?;
        for (session, tuple) in self.traces.all() {
            if !sessions.contains(&session) {
                self.link.remove_route(INTERFACE, tuple.engineer)?;
                self.nft.drop_flows(&tuple)?;
                self.traces.remove(session)?;
            }
        }
        Ok(())
    }

    fn install_base(&mut self) -> anyhow::Result<()> {
        for iface in self.configured.iter().map(Iface::as_str) {
            if self.link.interface(iface)?.is_none() {
                bail!("there is no LAN interface {iface}");
            }
        }
        let lan = self.intent.lan.clone();
        self.intent.guard_lan_forwarding = self.forwarding.guards(lan.iter().map(String::as_str));
        self.intent.store(&self.dirs)?;
        let lanes = standing(self.standing.values(), &self.intent.interface);
        self.nft.install_base(&self.intent.base(), &lanes).context("cannot install the table")?;
        // Only behind the guard.
        for iface in &lan {
            self.forwarding.enable(iface)?;
        }
        Ok(())
    }

    /// Starts a device with nothing behind it yet; says who encrypts.
    pub fn start_device(&mut self, port: u16, events: Box<dyn FnMut(Event) + Send>) -> anyhow::Result<Backend> {
        let backend = self.choice.at(port);
        self.intent.listen = port;
        backend::interfaces(backend).clone_into(&mut self.intent.interface);
        self.intent.store(&self.dirs)?;
        self.device = Some(backend::start(backend, port, events)?);
        match backend {
            Backend::Userspace => self.forwarding.enable(INTERFACE)?,
            // Each lane's interface has a switch of its own, which goes with it.
            Backend::Kernel => self.forwarding.restore_one(INTERFACE).map(|()| false)?,
        };
        Ok(backend)
    }

    /// Takes the interface and every peer away, for somebody to come back for them; table and keys stay.
    pub fn stop_device(&mut self) {
        self.remove_all_peers();
        self.device = None;
    }

    /// Makes this end's keys of a session, in `/run` alone, or finds those that were made before.
    ///
    /// Fails where no preshared key is given or kept.
    pub fn make_keys(&mut self, session: SessionId, preshared: Option<&Secret>) -> anyhow::Result<PublicKey> {
        let kept = || self.vault.keys(session).is_some_and(|keys| keys.preshared.is_some());
        anyhow::ensure!(preshared.is_some() || kept(), "the lane's preshared key is missing");
        self.vault.make(session, preshared)
    }

    /// Lets a lane's peer in, who is first looked for at `endpoint`, and at `relay` when not heard any more; the device
    /// itself judges every packet by tuple and deadline.
    pub fn open_device(
        &mut self,
        grant: &Grant,
        endpoint: Option<SocketAddr>,
        relay: Option<SocketAddr>,
        initiate: bool,
    ) -> anyhow::Result<()> {
        let keys = self.vault.keys(grant.session).context("the lane's keys are gone")?;
        let spec = LaneSpec {
            session: grant.session,
            private: keys.private,
            peer: grant.engineer_key,
            preshared: keys.preshared,
            endpoint,
            fallback: relay,
            keepalive: grant.relay.is_some().then_some(KEEPALIVE),
            initiate,
            role: LaneRole::Gateway { tuple: grant.tuple, deadline: grant.deadline },
        };
        let device = self.device()?;
        if device.interface(grant.session).is_some() {
            // Opened twice is opened once, with the newer words.
            device.close(grant.session)?;
        }
        device.open(spec)?;
        if grant.limits.packets_per_second.is_some() {
            // The table counts packets; several in one would be one.
            device.keep_apart(grant.session)?;
        }
        self.begin_count(grant.session)?;
        if self.traces.all().contains_key(&grant.session) {
            // It was open before: the kernel still knows the engineer's flows.
            let own = |flow: &thinlane_nft::Flow| {
                flow.source == grant.tuple.engineer && flow.protocol == grant.tuple.protocol.number()
            };
            let flows = self.nft.flows(grant.tuple.engineer)?;
            let ports: Vec<u16> = flows.iter().filter(|flow| own(flow)).map(|flow| flow.source_port).collect();
            self.device()?.recall(grant.session, &ports)?;
        }
        Ok(())
    }

    /// A lane of the kernel counts from here on, or from where the last agent left off.
    fn begin_count(&mut self, session: SessionId) -> anyhow::Result<()> {
        if self.backend() == Backend::Kernel {
            let start = match self.told.remove(&session) {
                Some(told) => told,
                None => {
                    let stands = self.nft.lanes()?.into_iter().find(|lane| lane.session == session);
                    stands.map(|lane| lane.counters()).unwrap_or_default()
                }
            };
            self.tally.begin(session, start);
        }
        Ok(())
    }

    /// Where the relay is: the peer is looked for there unless it was heard elsewhere.
    pub fn set_endpoint(&mut self, session: SessionId, endpoint: SocketAddr) -> anyhow::Result<()> {
        Ok(self.device()?.set_endpoint(session, endpoint)?)
    }

    /// Every lane shakes hands again at once.
    pub fn handshake(&mut self) {
        if let Some(device) = &mut self.device {
            device.handshake();
        }
    }

    /// Leads the engineer's address to the device.
    pub fn add_route(&mut self, grant: &Grant) -> anyhow::Result<()> {
        self.traces.add(grant.session, &grant.tuple)?;
        match self.device()?.backend() {
            Backend::Userspace => Ok(self.link.add_route(INTERFACE, grant.tuple.engineer)?),
            // It came with the interface, in a table of its own.
            Backend::Kernel => Ok(()),
        }
    }

    /// Opens the lane in the table, on a LAN that is known to it.
    pub fn open_lane(&mut self, grant: &Grant) -> anyhow::Result<()> {
        self.know_lan(grant.tuple.address)?;
        let same =
            |old: &Grant| (old.tuple, old.limits, old.keep_source) == (grant.tuple, grant.limits, grant.keep_source);
        let stands = self.standing.get(&grant.session).is_some_and(same);
        // What is left is looked up last: a step before it takes time, which must not be given to the lane.
        if !stands || self.nft.extend_lane(grant.session, remaining(grant.deadline)?).is_err() {
            self.close_lane(grant.session)?;
            self.nft.open_lane(&lane(grant, remaining(grant.deadline)?, &self.intent.interface))?;
        }
        self.standing.insert(grant.session, grant.clone());
        Ok(())
    }

    /// Checks that the asset is reached by a LAN interface that the table knows; learns it where none is configured.
    fn know_lan(&mut self, address: Ipv4Addr) -> anyhow::Result<()> {
        let Some(reach) = self.link.reach(address)? else {
            // Only an own address can be bound to.
            match std::net::UdpSocket::bind((address, 0)) {
                Ok(_) => bail!("{address} is this gateway's own address, and no device's"),
                Err(_) => bail!("the gateway has no route to {address}"),
            }
        };
        if self.intent.lan.contains(&reach.interface) {
            // It may be a new one of the same name, with the kernel's default.
            self.forwarding.enable(&reach.interface)?;
            return Ok(());
        }
        if !self.configured.is_empty() {
            bail!("the asset is reached by {}, which is no LAN interface of agent.toml", reach.interface);
        }
        if !leads_out(&reach.interface) {
            bail!("the asset's address leads to {}", reach.interface);
        }
        self.intent.lan.push(reach.interface);
        if let Some(why) = self.offload()? {
            self.intent.lan.pop();
            bail!("{why}");
        }
        self.install_base()
    }

    /// Moves a lane's end in the table, and reads the new end back.
    pub fn extend_lane(&mut self, session: SessionId, deadline: Boot) -> anyhow::Result<()> {
        self.nft.extend_lane(session, remaining(deadline)?)?;
        if let Some(grant) = self.standing.get_mut(&session) {
            grant.deadline = deadline;
        }
        Ok(())
    }

    /// Moves a lane's end in the device.
    pub fn extend_device(&mut self, session: SessionId, deadline: Boot) -> anyhow::Result<()> {
        Ok(self.device()?.extend(session, deadline)?)
    }

    /// Nothing passes any more; both ends' TCP connections are reset while the lane's rules still stand.
    pub fn shut_device(&mut self, session: SessionId) -> anyhow::Result<Option<LaneReport>> {
        let device = self.device()?;
        match device.shut(session) {
            Ok(()) => {
                let mut report = device.report(session);
                self.count(report.as_mut_slice());
                Ok(report)
            }
            Err(thinlane_wg::DeviceError::Unknown(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts the table's counters into reports of the kernel's backend, which has none: merged packets count as one.
    fn count(&mut self, reports: &mut [LaneReport]) {
        if reports.is_empty() || self.backend() != Backend::Kernel {
            return;
        }
        let lanes = self.nft.lanes().unwrap_or_else(|error| {
            tracing::warn!(%error, "the lanes' counters cannot be read");
            Vec::new()
        });
        self.tally.fill(reports, &lanes);
    }

    /// Closes the lane in the table; `None` where it was gone.
    pub fn close_lane(&mut self, session: SessionId) -> anyhow::Result<Option<LaneState>> {
        self.standing.remove(&session);
        match self.nft.close_lane(session) {
            Ok(state) => Ok(Some(state)),
            Err(thinlane_nft::NftError::NoLane(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes peer and keys away; `None` where there was no peer.
    pub fn remove_peer(&mut self, session: SessionId) -> anyhow::Result<Option<LaneReport>> {
        let closed = match &mut self.device {
            Some(device) => device.close(session).map(Some),
            None => Ok(None),
        };
        self.tally.end(session);
        self.vault.forget(session)?;
        match closed {
            Err(thinlane_wg::DeviceError::Unknown(_)) => Ok(None),
            closed => Ok(closed?),
        }
    }

    /// Deletes the engineer's connections and reads back that none is left.
    pub fn drop_flows(&mut self, tuple: &Tuple) -> anyhow::Result<u32> {
        let flows = if self.backend() == Backend::Kernel { self.nft.flows(tuple.engineer)? } else { Vec::new() };
        let dropped = self.nft.drop_flows(tuple)?;
        // Those of the userspace device it has reset itself.
        backend::let_go(&flows);
        Ok(dropped)
    }

    /// Takes the engineer's route away.
    pub fn remove_route(&mut self, tuple: &Tuple) -> anyhow::Result<()> {
        self.link.remove_route(INTERFACE, tuple.engineer)?;
        Ok(())
    }

    /// Reads back that nothing of a closed lane is left; an error names what is.
    ///
    /// The chain of an expired lane may stay until the kernel has collected the element that led to it: it leads
    /// nowhere, and [`Kernel::sweep`] removes it then.
    pub fn verify_closed(&mut self, session: SessionId, tuple: &Tuple) -> anyhow::Result<()> {
        let mut left = Vec::new();
        let waits = self.nft.sweep()?.contains(&session);
        let found = self.nft.lanes()?.into_iter().find(|lane| lane.session == session);
        if found.is_some_and(|lane| lane.is_open() || !waits) {
            left.push("a lane in the table");
        }
        if self.device.as_ref().is_some_and(|device| device.interface(session).is_some()) {
            left.push("a peer");
        }
        if self.routes()?.contains(&tuple.engineer) {
            left.push("a route");
        }
        let iface = backend::interface(&self.intent.interface, session);
        if iface != INTERFACE && self.link.interface(&iface)?.is_some() {
            left.push("an interface");
        }
        if !self.nft.flows(tuple.engineer)?.is_empty() {
            left.push("connections");
        }
        if !left.is_empty() {
            bail!("left: {}", left.join(", "));
        }
        self.traces.remove(session)?;
        self.forget_lan()
    }

    /// Removes chains that waited for the kernel; the sessions whose chains still do.
    pub fn sweep(&mut self) -> anyhow::Result<Vec<SessionId>> {
        Ok(self.nft.sweep()?)
    }

    /// With the last lane, a LAN interface that was looked up for it goes back to what it was.
    fn forget_lan(&mut self) -> anyhow::Result<()> {
        if !self.configured.is_empty() || !self.standing.is_empty() || self.intent.lan.is_empty() {
            return Ok(());
        }
        for iface in std::mem::take(&mut self.intent.lan) {
            self.forwarding.restore_one(&iface)?;
        }
        self.install_base()
    }

    /// Reads back that a lane stands as asked: chain, elements, peer, route.
    pub fn verify_open(&mut self, grant: &Grant) -> anyhow::Result<()> {
        let lanes = self.nft.lanes()?;
        let state = lanes.iter().find(|lane| lane.session == grant.session).context("the lane is not in the table")?;
        anyhow::ensure!(state.up.is_some() && state.down.is_some(), "the lane is not open in both directions");
        let peer = self.device.as_ref().is_some_and(|device| device.interface(grant.session).is_some());
        anyhow::ensure!(peer, "the peer is not in the device");
        let device = self.device()?;
        if let Some(what) = device.missing(grant.session)? {
            bail!("{what} is missing");
        }
        let routed = device.backend() == Backend::Kernel || self.routes()?.contains(&grant.tuple.engineer);
        anyhow::ensure!(routed, "the engineer's route is missing");
        Ok(())
    }

    /// Removes every peer at once: after a flush nothing else keeps packets from passing. Connections are not reset,
    /// for the lanes go on when the base stands again.
    pub fn remove_all_peers(&mut self) -> Vec<LaneReport> {
        let mut reports = self.device.as_mut().map(|device| device.suspend_all()).unwrap_or_default();
        self.count(&mut reports);
        reports
    }

    /// What every lane has carried.
    pub fn reports(&mut self) -> Vec<LaneReport> {
        let mut reports = self.device.as_mut().map(|device| device.reports()).unwrap_or_default();
        self.count(&mut reports);
        reports
    }

    /// Who encrypts, or would; `auto` may choose anew when the device begins anew.
    pub fn backend(&self) -> Backend {
        self.device.as_ref().map_or_else(|| self.choice.at(self.intent.listen), |device| device.backend())
    }

    /// How many packets the device moves with one call, in words; `None`: no device, or the kernel moves them.
    pub fn device_offload(&self) -> Option<String> {
        self.device.as_ref()?.offload().map(|offload| offload.to_string())
    }

    /// Compares the table with what is meant.
    pub fn verify(&mut self) -> anyhow::Result<Drift> {
        let lanes = standing(self.standing.values(), &self.intent.interface);
        Ok(self.nft.verify(&self.intent.base(), &lanes)?)
    }

    /// A flowtable that would carry a lane's packets past its rules, in a sentence; `None`: there is none.
    pub fn offload(&mut self) -> anyhow::Result<Option<String>> {
        let tables = self.nft.flowtables()?;
        // Nothing more to ask where there is none, which is nearly everywhere.
        if tables.is_empty() {
            return Ok(None);
        }
        let lan = self.link.beneath(&self.intent.lan)?;
        let ours = |device: &String| {
            device.starts_with("tl-") || device == INTERFACE || self.intent.lan.contains(device) || lan.contains(device)
        };
        // Without a known LAN any flowtable might touch it.
        let touches = |devices: &[String]| self.intent.lan.is_empty() || devices.iter().any(ours);
        let found = tables.iter().find(|table| touches(&table.devices));
        Ok(found.map(|found| {
            format!(
                "flow offload (flowtable {} of table {}) would carry lanes past their rules",
                found.name, found.table
            )
        }))
    }

    /// Removes everything: device, routes, connections, switches, table, keys. Does all it can, then names what failed.
    pub fn remove_everything(&mut self) -> anyhow::Result<()> {
        self.device = None;
        let mut failed = Vec::new();
        let mut note = |result: anyhow::Result<()>| {
            if let Err(error) = result {
                failed.push(format!("{error:#}"));
            }
        };
        for (session, tuple) in self.traces.all() {
            note(self.drop_flows(&tuple).map(|_| ()));
            note(self.traces.remove(session));
        }
        note(backend::clear());
        // The switches first: without the table nothing would guard the LAN.
        note(self.forwarding.restore());
        note(self.nft.remove().context("cannot remove the table"));
        note(self.vault.forget_all());
        if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
    }

    fn routes(&mut self) -> anyhow::Result<BTreeSet<Ipv4Addr>> {
        match self.link.routes(INTERFACE) {
            Ok(routes) => Ok(routes.into_iter().map(|(address, _)| address).collect()),
            Err(thinlane_wg::link::LinkError::NoInterface(_)) => Ok(BTreeSet::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn device(&mut self) -> anyhow::Result<&mut dyn Device> {
        Ok(self.device.as_mut().context("the device is not running")?.as_mut())
    }
}

/// How long until `deadline`, which must not have passed.
fn remaining(deadline: Boot) -> anyhow::Result<Span> {
    let left = clock::boot().until(deadline);
    anyhow::ensure!(left >= thinlane_nft::SHORTEST, "the deadline has passed");
    Ok(left)
}

/// Whether an interface can be a LAN's.
fn leads_out(iface: &str) -> bool {
    iface != INTERFACE && iface != "lo" && !iface.starts_with(thinlane_nft::LANE_INTERFACES)
}

/// The lanes of these grants that have not ended yet.
fn standing<'a>(grants: impl IntoIterator<Item = &'a Grant>, interfaces: &str) -> Vec<thinlane_nft::Lane> {
    let now = clock::boot();
    let left = |grant: &'a Grant| Some(now.until(grant.deadline)).filter(|left| *left >= thinlane_nft::SHORTEST);
    let lanes: BTreeMap<SessionId, thinlane_nft::Lane> =
        grants.into_iter().filter_map(|grant| Some((grant.session, lane(grant, left(grant)?, interfaces)))).collect();
    lanes.into_values().collect()
}
