//! The gateways' connections: which one counts, what each must be told.
//!
//! A connection is a task around a `ControllerLink`; per site a `SiteChannels` decides between connections. The
//! writer never waits for any of them: the desired state goes through a slot that keeps the newest, everything
//! else through short queues; a gateway that does not keep up is dropped.

mod connection;
mod inbound;

pub use connection::serve;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thinlane_link::{AgentClock as LinkClock, ChannelEffect, ConnId, DesiredGrant, Known, SiteChannels};
use thinlane_model::{Boot, Now, Secret, SessionId, SiteId, Span, Wall};
use thinlane_session::{AgentClock, Desired};
use thinlane_wire::{GoodbyeReason, GrantSigner, Hello, Withdrawn};
use tokio::sync::{mpsc, oneshot, watch};

/// What may wait for one connection.
const WAITING: usize = 256;
/// A gateway's clock is asked for again when it is older than this.
const FRESH: Span = Span::from_secs(1);
/// How long a gateway has to answer for its clock.
const CLOCK_TIME: Duration = Duration::from_secs(3);
/// How long an approval of a renewal is good.
const RENEWAL_TIME: Span = Span::from_secs(3600);

/// All gateways' connections; cheap to clone.
#[derive(Clone)]
pub struct Channels(Arc<Inner>);

struct Inner {
    signer: GrantSigner,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    sites: BTreeMap<SiteId, Site>,
    next: u64,
    /// Preshared keys of sessions that are being armed; nowhere else, and wiped afterwards.
    preshared: BTreeMap<SessionId, Secret>,
    /// Until when a site's expired gateway may renew its certificate, on our boot clock.
    renewals: BTreeMap<SiteId, Boot>,
    /// The newest signed checkpoint.
    checkpoint: Option<(u64, String)>,
}

#[derive(Default)]
struct Site {
    machine: SiteChannels,
    connections: BTreeMap<ConnId, Line>,
    online: bool,
    last_seen: Option<Wall>,
    clock_offset_ms: Option<i64>,
    clock: Option<LinkClock>,
    /// The world knows that it is frozen.
    freeze_known: bool,
    /// What the gateway says it remembers of the log.
    witnessed: Option<(u64, [u8; 32])>,
}

/// The way to one connection's task.
struct Line {
    orders: mpsc::Sender<Order>,
    desired: watch::Sender<Option<Desired>>,
}

/// What a connection's task is told.
enum Order {
    Accept {
        known: Option<Known>,
    },
    Goodbye {
        reason: GoodbyeReason,
        detail: String,
    },
    /// Ask the gateway, because another connection claims to be it.
    Probe,
    /// Ask the gateway for its clock.
    Clock(oneshot::Sender<LinkClock>),
}

/// What is known of a site's connection.
pub struct Seen {
    pub online: bool,
    pub at: Wall,
    pub clock_offset_ms: Option<i64>,
}

impl Channels {
    pub fn new(signer: GrantSigner, checkpoint: Option<(u64, String)>) -> Self {
        let table = Table { checkpoint, ..Table::default() };
        Self(Arc::new(Inner { signer, table: Mutex::new(table) }))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What should be open at a site has changed.
    pub fn push(&self, site: SiteId, desired: Desired) {
        let table = self.table();
        let Some(entry) = table.sites.get(&site) else { return };
        for line in entry.connections.values() {
            line.desired.send_replace(Some(desired.clone()));
        }
    }

    /// Ends all connections of a site's gateway: its certificate is no longer good, or it is frozen.
    pub fn drop_site(&self, site: SiteId) {
        let mut table = self.table();
        let Some(entry) = table.sites.get_mut(&site) else { return };
        let reason = if entry.machine.is_frozen() { GoodbyeReason::Frozen } else { GoodbyeReason::Revoked };
        for (conn, line) in std::mem::take(&mut entry.connections) {
            let detail = "the controller ended this gateway's connections".to_owned();
            if line.orders.try_send(Order::Goodbye { reason, detail }).is_ok() {
                entry.connections.insert(conn, line);
            }
        }
    }

    /// Follows what the world says of a freeze: thaws when somebody has unlocked the site.
    pub fn follow_freeze(&self, site: SiteId, frozen: bool) {
        let mut table = self.table();
        let entry = table.sites.entry(site).or_default();
        if frozen && !entry.freeze_known {
            entry.freeze_known = true;
            if !entry.machine.is_frozen() {
                entry.machine = SiteChannels::frozen();
            }
        } else if !frozen && std::mem::take(&mut entry.freeze_known) {
            entry.machine.handle_thaw(crate::clock::now());
        }
    }

    /// Keeps the preshared key of a session until its gateway has armed it.
    pub fn put_preshared(&self, session: SessionId, preshared: Secret) {
        self.table().preshared.insert(session, preshared);
    }

    /// Wipes it.
    pub fn forget_preshared(&self, session: &SessionId) {
        self.table().preshared.remove(session);
    }

    /// The newest signed checkpoint, for gateways to remember.
    pub fn checkpoint(&self, size: u64, note: &str) {
        self.table().checkpoint = Some((size, note.to_owned()));
    }

    fn newest_checkpoint(&self) -> Option<(u64, String)> {
        self.table().checkpoint.clone()
    }

    /// Lets a site's expired gateway renew its certificate within the next hour.
    pub fn allow_renewal(&self, site: SiteId, now: Boot) {
        self.table().renewals.insert(site, now + RENEWAL_TIME);
    }

    fn take_renewal(&self, site: &SiteId, now: Boot) -> bool {
        self.table().renewals.remove(site).is_some_and(|until| now < until)
    }

    /// What gateways say they remember of the log: site, size, root.
    pub fn witnessed(&self) -> Vec<(SiteId, u64, [u8; 32])> {
        let table = self.table();
        table.sites.iter().filter_map(|(site, entry)| entry.witnessed.map(|(size, root)| (*site, size, root))).collect()
    }

    fn put_witnessed(&self, site: SiteId, witnessed: (u64, [u8; 32])) {
        self.table().sites.entry(site).or_default().witnessed = Some(witnessed);
    }

    /// Whether a site's gateway is connected now.
    pub fn is_online(&self, site: &SiteId) -> bool {
        self.table().sites.get(site).is_some_and(|entry| entry.online)
    }

    /// What is known of a site's connection; `None`: it never had one since the controller started.
    pub fn seen(&self, site: &SiteId) -> Option<Seen> {
        let table = self.table();
        let entry = table.sites.get(site)?;
        Some(Seen { online: entry.online, at: entry.last_seen?, clock_offset_ms: entry.clock_offset_ms })
    }

    /// A gateway's boot clock, at most a second old; `None` when it is not connected within `patience`, or does not
    /// answer.
    pub async fn clock(&self, site: SiteId, patience: Duration) -> Option<AgentClock> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let (known, ask) = {
                let table = self.table();
                let entry = table.sites.get(&site).filter(|entry| entry.online);
                let known = entry.and_then(|entry| entry.clock);
                let line = entry.and_then(|entry| entry.connections.get(&entry.machine.current()?));
                (known, line.map(|line| line.orders.clone()))
            };
            if let (Some(clock), true) = (known, ask.is_some())
                && clock.heard.until(crate::clock::mono()) <= FRESH
            {
                return Some(AgentClock { boot: clock.boot, time: clock.at });
            }
            if let Some(line) = ask {
                let (answer, wait) = oneshot::channel();
                if line.try_send(Order::Clock(answer)).is_ok()
                    && let Ok(Ok(clock)) = tokio::time::timeout(CLOCK_TIME, wait).await
                {
                    return Some(AgentClock { boot: clock.boot, time: clock.at });
                }
            }
            if tokio::time::Instant::now() >= deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends every connection: the controller stops.
    pub fn stop(&self) {
        for entry in self.table().sites.values() {
            for line in entry.connections.values() {
                let goodbye =
                    Order::Goodbye { reason: GoodbyeReason::ShuttingDown, detail: "the controller stops".to_owned() };
                let _ = line.orders.try_send(goodbye);
            }
        }
    }

    /// A new connection of a site's gateway.
    fn join(&self, site: SiteId) -> (ConnId, mpsc::Receiver<Order>, watch::Receiver<Option<Desired>>) {
        let (orders, waiting) = mpsc::channel(WAITING);
        let (desired, newest) = watch::channel(None);
        let mut table = self.table();
        table.next += 1;
        let conn = ConnId(table.next);
        table.sites.entry(site).or_default().connections.insert(conn, Line { orders, desired });
        (conn, waiting, newest)
    }

    /// A connection said hello. `true`: two machines use one key.
    fn hello(&self, site: SiteId, conn: ConnId, hello: &Hello, now: Now) -> bool {
        self.with(site, |entry| {
            entry.clock_offset_ms = Some(hello.wall.as_millis().saturating_sub(now.wall.as_millis()));
            entry.machine.handle_hello(conn, hello, now);
        })
    }

    fn probing(&self, site: SiteId, conn: ConnId, nonce: u64) {
        self.with(site, |entry| entry.machine.handle_probing(conn, nonce));
    }

    fn answered(&self, site: SiteId, conn: ConnId, nonce: u64, now: Now) -> bool {
        self.with(site, |entry| entry.machine.handle_answered(conn, nonce, now))
    }

    fn applied(&self, site: SiteId, conn: ConnId, known: Known) {
        self.with(site, |entry| entry.machine.handle_applied(conn, known));
    }

    fn up(&self, site: SiteId, conn: ConnId) {
        self.with(site, |entry| {
            entry.online = entry.machine.current() == Some(conn);
            entry.last_seen = Some(crate::clock::wall());
        });
    }

    fn heard(&self, site: SiteId, conn: ConnId, clock: LinkClock) {
        let mut table = self.table();
        let Some(entry) = table.sites.get_mut(&site) else { return };
        if entry.machine.current() == Some(conn) {
            entry.clock = Some(clock);
            entry.last_seen = Some(crate::clock::wall());
        }
    }

    /// The connection is gone. `true`: the site is without one now.
    fn leave(&self, site: SiteId, conn: ConnId, now: Now) -> bool {
        let mut gone = false;
        self.with(site, |entry| {
            entry.connections.remove(&conn);
            if entry.machine.current() == Some(conn) {
                entry.online = false;
                entry.clock = None;
                gone = true;
            }
            entry.machine.handle_closed(conn, now);
        });
        gone
    }

    /// When a site's machine wants to be woken.
    fn machine_due(&self, site: SiteId) -> Option<Boot> {
        self.table().sites.get(&site)?.machine.poll_timeout()
    }

    fn machine_timeout(&self, site: SiteId, now: Now) -> bool {
        self.with(site, |entry| entry.machine.handle_timeout(now))
    }

    /// Gives the machine an input and executes what it says. `true`: two machines use one key.
    fn with(&self, site: SiteId, input: impl FnOnce(&mut Site)) -> bool {
        let mut table = self.table();
        let entry = table.sites.entry(site).or_default();
        input(entry);
        let mut cloned = false;
        while let Some(effect) = entry.machine.poll_effect() {
            let (conn, order) = match effect {
                ChannelEffect::Accept { conn, known } => (conn, Order::Accept { known }),
                ChannelEffect::Probe { conn } => (conn, Order::Probe),
                ChannelEffect::Close { conn, reason, detail } => {
                    (conn, Order::Goodbye { reason, detail: detail.to_owned() })
                }
                ChannelEffect::Clone => {
                    cloned = true;
                    continue;
                }
            };
            let full = entry.connections.get(&conn).is_some_and(|line| line.orders.try_send(order).is_err());
            if full {
                // Dropping its line ends the task.
                entry.connections.remove(&conn);
            }
        }
        cloned
    }

    /// The desired state as it is sent: signed, with the preshared keys that are still here.
    fn signed(&self, desired: &Desired) -> thinlane_link::Desired {
        let table = self.table();
        let grants = desired.grants.iter().map(|grant| DesiredGrant {
            session: grant.session,
            serial: grant.serial,
            signed: self.0.signer.sign(grant, table.preshared.get(&grant.session)),
        });
        let withdrawn = desired.ending.iter().map(|(session, reason)| Withdrawn { session: *session, reason: *reason });
        thinlane_link::Desired {
            // The channel's generations begin at 1, the world's at 0.
            generation: desired.generation + 1,
            grants: grants.collect(),
            withdrawn: withdrawn.collect(),
        }
    }
}
