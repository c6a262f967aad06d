//! The daemon's one loop: what arrives goes into a machine, and what the machines say is done.

mod channel;
mod control;
mod lanes;
mod names;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use thinlane_link::{AgentLink, AgentLinkConfig};
use thinlane_model::{Boot, Now, SessionId, Span, Wall};
use thinlane_nft::Event as TableEvent;
use thinlane_site::{EffectId, Shutdown, Site, SiteConfig};
use thinlane_wg::Event as DeviceEvent;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::channel::Dialer;
use crate::clock::{self, Floor, JumpWatch};
use crate::config::Config;
use crate::executor::{Answer, Executor, Job};
use crate::files::Dirs;
use crate::identity::Identity;
use crate::tls;
use crate::watch::DeniedBook;
use crate::witness::Witness;

use control::Waiting;
pub use control::input_is_on;
use names::Names;

/// Lanes at one site, those on their way out included.
const MOST_LANES: usize = 64;
/// Denied packets are reported this long after the first of them.
const DENIED_AFTER: Span = Span::from_secs(1);
/// Counters are read this often while a lane is open, and never while none is.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How often the site's key switch is looked at, where there is one.
const SWITCH_EVERY: Duration = Duration::from_secs(1);
/// Lanes are closed this long before their deadline: both ends' TCP connections are reset while packets still
/// pass, and an element that has not expired pins no chain. An agent that comes too late for it finds the lane
/// ended by the kernel.
const LEAD: Span = Span::from_millis(25);
/// What is left to be said on the control socket takes no longer.
const FLUSH: Duration = Duration::from_millis(20);
/// A device that could not be made is tried again after this.
const DEVICE_RETRY: Span = Span::from_secs(5);

/// What the loop is made of, ready to run.
pub struct Parts {
    pub dirs: Dirs,
    pub config: Config,
    pub identity: Identity,
    pub floor: Floor,
    pub witness: Witness,
    pub boot: thinlane_model::BootId,
    pub saved: Option<thinlane_site::SavedState>,
    pub isolated: bool,
    pub executor: Executor,
    pub book: DeniedBook,
    pub resolved: crate::executor::Resolved,
    pub device_offload: crate::executor::OffloadWords,
    /// The UDP port that the device listens on; 0: any.
    pub listen: u16,
    pub backend: thinlane_wg::Backend,
}

/// What the loop listens to.
pub struct Ears {
    pub answers: mpsc::UnboundedReceiver<Answer>,
    pub device: mpsc::UnboundedReceiver<DeviceEvent>,
    pub tables: mpsc::Receiver<TableEvent>,
    pub addresses: mpsc::Receiver<()>,
}

/// How the daemon ended.
#[derive(Debug)]
pub enum End {
    /// Told to by a signal: lanes stay in the table under the kernel's own deadlines.
    Left,
    /// Told to by `cleanup`: everything is removed, or the error says what is not.
    Removed(anyhow::Result<()>),
}

/// The loop's state.
pub struct Daemon {
    dirs: Dirs,
    config: Config,
    identity: Identity,
    floor: Floor,
    witness: Witness,
    site: Site,
    link: AgentLink,
    dialer: Dialer,
    executor: Executor,
    book: DeniedBook,
    names: Names,
    jumps: JumpWatch,
    started: Wall,
    /// Why the last connection failed or ended; `None` while one is up.
    channel_problem: Option<String>,
    /// Why the controller hung up last; `None` after a log-in.
    goodbye: Option<thinlane_wire::GoodbyeReason>,
    /// The controller's clock, as the last log-in told it.
    controller_clock: Option<clock::ControllerClock>,
    /// Why the log was not believed, told once.
    log_problem: Option<String>,
    /// Whether the table was found as intended when it was last looked at.
    ruleset: bool,
    /// Why the gateway is not ready, by who found it so.
    offload: Option<String>,
    /// How many packets the device moves with one call.
    device_offload: crate::executor::OffloadWords,
    device_problem: Option<String>,
    listen: u16,
    device_retry: Option<Boot>,
    denied_due: Option<Boot>,
    renew_due: Option<Boot>,
    sweep_due: Option<Boot>,
    /// The step that puts the base in place, while it is under way.
    rebuilding: Option<EffectId>,
    /// The first step was performed: the base is as it was meant to be, or known not to be.
    begun: bool,
    verifying: bool,
    counting: bool,
    /// Closing records that were sent and are not acknowledged.
    unacknowledged: BTreeSet<SessionId>,
    /// Closing records and alarms that wait for the controller, as last saved.
    spooled: usize,
    waiting: Waiting,
    ending: Option<Ending>,
}

/// The daemon is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ending {
    how: Shutdown,
    /// The site machine has nothing left to do.
    finished: bool,
    /// Until then acknowledgements are waited for.
    until: Boot,
    /// The executor was told.
    told: bool,
}

impl Daemon {
    fn new(parts: Parts) -> anyhow::Result<Self> {
        let Parts {
            dirs,
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
            device_offload,
            listen,
            backend,
        } = parts;
        let now = clock::now();
        let site = SiteConfig {
            site: identity.site,
            boot,
            verifier: thinlane_wire::GrantVerifier::new(identity.grant_keys.iter().copied()),
            ceilings: lanes::ceilings(&config),
            most_lanes: MOST_LANES,
            backend: backend.as_str().into(),
            isolated,
        };
        let link = AgentLinkConfig {
            boot,
            agent_version: env!("CARGO_PKG_VERSION").into(),
            capabilities: Vec::new(),
            backend: backend.as_str().into(),
        };
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        let tls = tls::channel_config(&identity, floor.clone())?;
        Ok(Self {
            site: Site::new(site, saved, now),
            link: AgentLink::new(link, u64::from_le_bytes(seed), now),
            dialer: Dialer::new(identity.controller.clone(), tls),
            executor,
            book,
            names: Names::new(resolved),
            device_offload,
            jumps: JumpWatch::default(),
            started: now.wall,
            channel_problem: None,
            goodbye: None,
            controller_clock: None,
            log_problem: None,
            ruleset: false,
            offload: None,
            device_problem: None,
            listen,
            device_retry: None,
            denied_due: None,
            renew_due: None,
            sweep_due: None,
            rebuilding: None,
            begun: false,
            verifying: false,
            counting: false,
            unacknowledged: BTreeSet::new(),
            spooled: 0,
            waiting: Waiting::default(),
            ending: None,
            dirs,
            config,
            identity,
            floor,
            witness,
        })
    }

    /// When the loop must look up by itself.
    fn due(&self) -> Option<Boot> {
        let ending = self.ending.filter(|ending| ending.finished && !ending.told).map(|ending| ending.until);
        let own = [self.denied_due, self.renew_due, self.sweep_due, self.device_retry, self.waiting.due(), ending];
        let site = self.site.poll_timeout().map(|at| at - LEAD);
        own.into_iter().chain([self.link.poll_timeout(), site]).flatten().min()
    }

    /// Whatever is due now.
    fn handle_time(&mut self, now: Now) {
        if let Some(moved) = self.jumps.look(now) {
            tracing::warn!(moved_ms = moved, "the wall clock jumped; no lane ends by it");
            // To the second: a person reads it.
            let far = Span::from_secs(moved.unsigned_abs() / 1000);
            let way = if moved < 0 { "back" } else { "ahead" };
            self.site.handle_alarm("clock-jump", &format!("the wall clock moved {far} {way}"), now);
        }
        let due = |at: Option<Boot>| at.is_some_and(|at| at <= now.mono);
        if due(self.link.poll_timeout()) {
            self.link.handle_timeout(now);
        }
        let ahead = Now { mono: now.mono + LEAD, wall: now.wall };
        if self.site.poll_timeout().is_some_and(|at| at <= ahead.mono) {
            self.site.handle_timeout(ahead);
        }
        if due(self.denied_due) {
            self.denied_due = None;
            if let Some(report) = self.book.take() {
                self.site.handle_denied(report, now);
            }
        }
        if due(self.renew_due) {
            self.renew(now);
        }
        if due(self.sweep_due) {
            self.sweep_due = None;
            self.submit(Job::Sweep);
        }
        if due(self.device_retry) {
            self.device_retry = None;
            self.submit(Job::Device(self.listen));
        }
        if due(self.waiting.due()) {
            self.waiting.give_up(now.mono);
        }
    }

    /// Does what the machines say until both are quiet.
    fn settle(&mut self) {
        loop {
            let now = clock::now();
            let mut quiet = !self.settle_link(now);
            quiet &= !self.settle_site(now);
            if quiet {
                break;
            }
        }
        self.link.handle_lanes(self.site.armed(), clock::now());
        let left = self.site.lanes().count();
        self.waiting.isolated(left);
    }

    fn submit(&self, job: Job) {
        if !self.executor.submit(job) {
            tracing::error!("the kernel thread takes nothing any more");
        }
    }

    fn begin_end(&mut self, how: Shutdown, now: Now) {
        if self.ending.is_none() {
            // No service manager listens: then nobody waits for it.
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
            self.ending = Some(Ending { how, finished: false, until: now.mono + lanes::FAREWELL, told: false });
            self.site.handle_shutdown(how, now);
        }
    }

    /// Tells the executor to end once nothing is left to wait for.
    fn end_when_done(&mut self, now: Now) {
        let Some(ending) = self.ending.as_mut().filter(|ending| ending.finished && !ending.told) else { return };
        let heard = self.unacknowledged.is_empty() || self.link.state() != thinlane_link::AgentState::Up;
        if ending.how == Shutdown::Leave || heard || ending.until <= now.mono {
            ending.told = true;
            let remove = ending.how == Shutdown::CloseAll;
            if let Err(error) = self.witness.store(None) {
                tracing::warn!(%error, "the checkpoint was not written");
            }
            self.link.handle_stop(now);
            self.settle_link(now);
            self.submit(Job::End(remove));
        }
    }
}

/// Runs until told to end; `ready` is called once the site is guarded and what was open stands again.
pub async fn run(parts: Parts, mut ears: Ears, ready: impl FnOnce()) -> anyhow::Result<End> {
    let mut requests = control::listen(&parts.dirs)?;
    let book = parts.book.clone();
    let switch = parts.config.isolate_input.clone();
    let mut daemon = Daemon::new(parts)?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    let mut watchdog = sd_notify::watchdog_enabled().map(|every| tokio::time::interval(every / 2));
    let mut count = tokio::time::interval(COUNT_EVERY);
    count.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut look = tokio::time::interval(SWITCH_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    daemon.submit(Job::Offload);
    let mut ready = Some(ready);
    loop {
        daemon.settle();
        if daemon.begun
            && let Some(ready) = ready.take()
        {
            ready();
            daemon.link.handle_start(clock::now());
            daemon.settle();
        }
        daemon.end_when_done(clock::now());
        let due = daemon.due();
        let counting = daemon.site.armed() > 0;
        tokio::select! {
            news = daemon.dialer.news() => daemon.handle_news(news, clock::now()),
            answer = ears.answers.recv() => {
                // Without it nothing can be closed here: the kernel's own deadlines and a restart can.
                let answer = answer.context("the kernel thread has ended")?;
                if let Answer::Ended(ended) = answer {
                    let end = daemon.ended(ended);
                    // For the answer to whoever asked for it.
                    tokio::time::sleep(FLUSH).await;
                    return Ok(end);
                }
                daemon.handle_answer(answer, clock::now());
            }
            Some(event) = ears.device.recv() => daemon.handle_device(event, clock::now()),
            event = ears.tables.recv() => {
                daemon.handle_tables(event.context("nobody watches the tables any more")?, clock::now());
            }
            Some(()) = ears.addresses.recv() => {
                daemon.tell_lan();
                daemon.link.handle_network_changed(clock::now());
            }
            Some(request) = requests.recv() => daemon.handle_request(request, clock::now()),
            found = daemon.names.found() => daemon.handle_name(found),
            () = book.written.notified() => {
                daemon.denied_due.get_or_insert(clock::boot() + DENIED_AFTER);
            }
            _ = count.tick(), if counting => daemon.count(),
            _ = look.tick(), if switch.is_some() => daemon.apply_switch(clock::now()),
            () = beat(&mut watchdog) => {
                // No service manager listens: then nobody misses it.
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            }
            _ = terminate.recv() => daemon.begin_end(Shutdown::Leave, clock::now()),
            _ = hangup.recv() => daemon.begin_end(Shutdown::Leave, clock::now()),
            _ = interrupt.recv() => daemon.begin_end(Shutdown::Leave, clock::now()),
            () = sleep_until(due) => {}
        }
        daemon.handle_time(clock::now());
    }
}

/// Waits for a moment of the boot clock; without one, for ever.
async fn sleep_until(due: Option<Boot>) {
    match due {
        Some(due) => tokio::time::sleep(clock::boot().until(due).to_std()).await,
        None => std::future::pending().await,
    }
}

async fn beat(watchdog: &mut Option<tokio::time::Interval>) {
    match watchdog {
        Some(every) => _ = every.tick().await,
        None => std::future::pending().await,
    }
}
