//! The machine itself: its state, its inputs and its timers.

mod grants;
mod report;
mod resume;
mod steps;

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

use thinlane_model::{Boot, EndReason, Now, RefuseReason, SessionId, Span};
use thinlane_wire::{
    Applied, ClosingRecord, DeniedReport, FromAgent, FromController, Refused, SignedClosing, SiteStatus,
};

use crate::config::SiteConfig;
use crate::effect::{Effect, EffectId};
use crate::event::{LaneCount, LaneView, SiteEvent};
use crate::lane::{CloseStage, Lane, Phase};
use crate::saved::{SavedAlarm, SavedState};

/// For how long past its deadline an ended session's id is kept.
const ENDED_MARGIN: Span = Span::from_secs(60);
/// Ended sessions kept against replay; beyond it nothing new opens until some have run out.
const MOST_ENDED: usize = 4096;
/// Closing records that nobody has acknowledged; beyond it nothing new opens.
const MOST_CLOSINGS: usize = 256;
/// Alarms that nobody has acknowledged; beyond it the oldest are counted and dropped.
const MOST_ALARMS: usize = 128;
/// Events that nobody has taken; beyond it reports are left out and all of them made again later.
const MOST_EVENTS: usize = 4096;
/// Counters are sent at most this often. A little less than a second, so that a caller that counts once a second
/// is not put off to every other one.
const REPORT_EVERY: Span = Span::from_millis(950);
/// Counters are saved at most this often.
const SAVE_COUNTERS_EVERY: Span = Span::from_secs(10);
/// While a lane is open, that the channel is up is saved this often: an agent that dies must not begin anew to count
/// how long its lanes outlive the channel.
const SAVE_UP_EVERY: Span = Span::from_secs(30);
/// What was not acknowledged is said again.
const SAY_AGAIN_EVERY: Span = Span::from_secs(30);
/// After a failure of the base or of saving.
const RETRY_AFTER: Span = Span::from_secs(1);
/// For closing everything at a shutdown.
const SHUTDOWN_WAIT: Span = Span::from_secs(10);

/// How the agent is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// An upgrade or restart: lanes are saved and stay under the kernel's own deadlines.
    Leave,
    /// Everything closes.
    CloseAll,
}

/// The gateway's machine.
///
/// ```text
///   snapshot, delta ──> desired ──> checks ──refused──> report
///                          │           └──accepted──> lane ──steps──> armed ──> report
///                          └ withdrawn ────────────────┐
///   deadline, idle, offline, isolated, lost by the kernel ──> lane ──steps──> closing record ──> until acknowledged
///
///   ruleset flushed ──> all peers removed ──> base rebuilt ──> alarm ──> lanes that are still granted open again
/// ```
///
/// One effect is performed at a time; which one is next is decided anew after each answer: first the two steps after
/// a flush, then teardowns (the first lock of all of them before the second of any), saving, signing, extensions,
/// openings. What is opened has been saved before; what failed to close is tried again for ever.
#[derive(Debug)]
pub struct Site {
    config: SiteConfig,
    lanes: BTreeMap<SessionId, Lane>,
    /// As last received: also what was refused here or has ended here since.
    desired: BTreeMap<SessionId, u64>,
    generation: u64,
    /// Of the desired sessions those that opened nothing, told again at each log-in.
    refused: BTreeMap<SessionId, Refused>,
    /// Fingerprints of refused grants that prove no session of their own, so that each is told once.
    odd: VecDeque<([u8; 32], RefuseReason)>,
    ended: BTreeMap<SessionId, Boot>,
    closings: BTreeMap<SessionId, SignedClosing>,
    /// Records without a lane that wait for a signature.
    unsigned: BTreeMap<SessionId, ClosingRecord>,
    alarms: VecDeque<SavedAlarm>,
    last_alarm: u64,
    alarms_lost: u64,
    isolated: bool,
    /// This gateway's own addresses on its LANs.
    lan: Vec<Ipv4Addr>,
    not_ready: Option<String>,
    shutdown: Option<ShuttingDown>,
    up: bool,
    /// While the channel is up: until when it is known to be.
    down_since: Boot,
    up_saved_at: Boot,
    base: Base,
    /// Rises with whatever must be saved; saved up to `saved_version`.
    version: u64,
    saved_version: u64,
    save: Save,
    counters_saved_at: Boot,
    reported_at: Option<Boot>,
    say_again_at: Boot,
    status_told: Option<SiteStatus>,
    denied_untold: u64,
    doing: Option<(EffectId, steps::Doing)>,
    last_effect: u64,
    sign_retry: Option<Boot>,
    events: VecDeque<SiteEvent>,
    overflowed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Standing,
    Flushed,
    Missing,
    Retry(Boot),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Save {
    Works,
    Retry(Boot),
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ShuttingDown {
    how: Shutdown,
    until: Boot,
    finished: bool,
}

impl Site {
    /// A gateway's machine at the start of the agent; `saved` is what the agent before it left in this boot.
    pub fn new(config: SiteConfig, saved: Option<SavedState>, now: Now) -> Self {
        let isolated = config.isolated;
        let mut site = Self {
            config,
            lanes: BTreeMap::new(),
            desired: BTreeMap::new(),
            generation: 0,
            refused: BTreeMap::new(),
            odd: VecDeque::new(),
            ended: BTreeMap::new(),
            closings: BTreeMap::new(),
            unsigned: BTreeMap::new(),
            alarms: VecDeque::new(),
            last_alarm: 0,
            alarms_lost: 0,
            isolated,
            not_ready: None,
            shutdown: None,
            up: false,
            down_since: now.mono,
            up_saved_at: now.mono,
            base: Base::Missing,
            version: 1,
            saved_version: 0,
            save: Save::Works,
            counters_saved_at: now.mono,
            reported_at: None,
            say_again_at: now.mono,
            status_told: None,
            lan: Vec::new(),
            denied_untold: 0,
            doing: None,
            last_effect: 0,
            sign_retry: None,
            events: VecDeque::new(),
            overflowed: false,
        };
        if let Some(saved) = saved {
            site.resume(saved, now.mono);
        }
        site
    }

    /// A message of the controller; gives back what is not for this machine (certificates, checkpoints).
    pub fn handle_message(&mut self, message: FromController, now: Now) -> Option<FromController> {
        if self.up {
            self.down_since = now.mono;
        }
        match message {
            FromController::Snapshot(snapshot) => self.take_snapshot(snapshot, now.mono),
            FromController::Delta(delta) => self.take_delta(delta, now.mono),
            FromController::ClosingAck(session) => {
                if self.closings.remove(&session).is_some() {
                    self.version += 1;
                }
            }
            FromController::AlarmAck(number) => {
                self.alarms.retain(|alarm| alarm.number != number);
                self.version += 1;
            }
            other => return Some(other),
        }
        self.tell_status();
        None
    }

    /// The channel has logged in, or is no longer up. On log-in everything that the controller may have missed is
    /// said again.
    pub fn handle_channel(&mut self, up: bool, now: Now) {
        if self.up != up {
            self.up = up;
            self.version += 1;
            self.down_since = now.mono;
            self.up_saved_at = now.mono;
            if up {
                self.say_everything(now.mono);
            }
        }
    }

    /// The site's own switch: on, everything closes and nothing opens, whatever the controller says.
    pub fn handle_isolate(&mut self, isolated: bool, now: Now) {
        if self.isolated == isolated {
            return;
        }
        self.isolated = isolated;
        if isolated {
            self.alarm("isolated", "the site's own switch is on", now.mono);
            self.close_all(EndReason::Isolated, now.mono);
        } else {
            self.alarm("isolated-off", "the site's own switch is off", now.mono);
        }
        self.tell_status();
    }

    /// Counters of the lanes, absolute for each device; to be called at least once a second while a lane is open,
    /// because idleness is judged by them.
    pub fn handle_counters(&mut self, counts: &[LaneCount], now: Now) {
        // A restarted agent begins where the engineer was seen last.
        let lane = |count: &LaneCount| self.lanes.get(&count.session);
        let moved =
            |count: &LaneCount| lane(count).is_some_and(|lane| lane.is_armed() && lane.endpoint != count.endpoint);
        self.version += u64::from(counts.iter().any(moved));
        for count in counts {
            if let Some(lane) = self.lanes.get_mut(&count.session).filter(|lane| lane.is_armed()) {
                lane.count(count, now.mono);
            }
        }
        if counts.iter().any(|count| self.lanes.get(&count.session).is_some_and(|lane| lane.unreported))
            && self.counters_saved_at.until(now.mono) >= SAVE_COUNTERS_EVERY
        {
            self.counters_saved_at = now.mono;
            self.version += 1;
        }
        self.report_counters(now.mono);
    }

    /// Packets that were denied since the last call.
    pub fn handle_denied(&mut self, mut report: DeniedReport, _now: Now) {
        if self.up {
            report.not_reported = report.not_reported.saturating_add(std::mem::take(&mut self.denied_untold));
            self.say(FromAgent::Denied(report));
        } else {
            let packets = report.flows.iter().fold(report.not_reported, |sum, flow| sum.saturating_add(flow.packets));
            self.denied_untold = self.denied_untold.saturating_add(packets);
        }
    }

    /// Another program has flushed the ruleset, or taken our table out of it.
    pub fn handle_ruleset_flushed(&mut self, now: Now) {
        if self.base != Base::Flushed {
            self.base = Base::Flushed;
            self.alarm("ruleset-flushed", "another program removed the agent's table", now.mono);
        }
        self.tell_status();
    }

    /// The gateway cannot hold what a lane promises (a flowtable, a missing kernel feature), or can again.
    pub fn handle_not_ready(&mut self, why_not: Option<String>, now: Now) {
        if self.not_ready != why_not {
            match &why_not {
                Some(why) => self.alarm("not-ready", &why.clone(), now.mono),
                None => self.alarm("ready", "", now.mono),
            }
            self.not_ready = why_not;
        }
        self.tell_status();
    }

    /// The kernel no longer has a lane that should stand.
    pub fn handle_lane_lost(&mut self, session: SessionId, now: Now) {
        let Some(lane) = self.lanes.get(&session).filter(|lane| lane.is_armed()) else { return };
        // The kernel may collect an expired lane a moment before our own clock says so.
        if now.mono + Span::from_millis(100) >= lane.grant.deadline {
            return self.close(session, EndReason::Expired, now.mono);
        }
        self.alarm("foreign-change", &format!("{session}: the lane vanished from the kernel"), now.mono);
        self.close(session, EndReason::Failed, now.mono);
        self.tell_status();
    }

    /// The gateway's own addresses on its LANs: nothing opens towards them.
    pub fn handle_lan(&mut self, addresses: Vec<Ipv4Addr>) {
        self.lan = addresses;
        self.tell_status();
    }

    /// Something else at the gateway that people should know of (a clock jump, a foreign rule).
    pub fn handle_alarm(&mut self, kind: &str, detail: &str, now: Now) {
        self.alarm(kind, detail, now.mono);
    }

    /// The agent is about to stop; [`SiteEvent::Finished`] follows when nothing is left to do, or after ten seconds.
    pub fn handle_shutdown(&mut self, how: Shutdown, now: Now) {
        self.shutdown = Some(ShuttingDown { how, until: now.mono + SHUTDOWN_WAIT, finished: false });
        self.version += 1;
        if how == Shutdown::CloseAll {
            self.close_all(EndReason::Failed, now.mono);
        }
        self.tell_status();
        self.finish();
    }

    /// When to call [`Self::handle_timeout`], on the boot clock; ask again after every input.
    pub fn poll_timeout(&self) -> Option<Boot> {
        let lanes = self.lanes.values().filter_map(|lane| match &lane.phase {
            Phase::Closing(closing) => closing.retry_at,
            _ => Some(self.lane_ends(lane).0),
        });
        let base = match self.base {
            Base::Retry(at) => Some(at),
            Base::Standing | Base::Flushed | Base::Missing => None,
        };
        let save = match self.save {
            Save::Retry(at) => Some(at),
            Save::Works | Save::Failed => None,
        };
        let untold = self.up && self.lanes.values().any(|lane| lane.unreported);
        let report = self.reported_at.filter(|_| untold).map(|at| at + REPORT_EVERY);
        let unacknowledged = self.up && !(self.closings.is_empty() && self.alarms.is_empty());
        let again = unacknowledged.then_some(self.say_again_at);
        let shutdown = self.shutdown.filter(|shutdown| !shutdown.finished).map(|shutdown| shutdown.until);
        let up = self.saves_up().then_some(self.up_saved_at + SAVE_UP_EVERY);
        lanes.chain([up, base, save, report, again, shutdown, self.sign_retry].into_iter().flatten()).min()
    }

    /// The time has come, or may have.
    pub fn handle_timeout(&mut self, now: Now) {
        let now = now.mono;
        let ends: Vec<_> = self.lanes.iter().filter(|(_, lane)| !lane.is_closing()).collect();
        let ends = ends.into_iter().map(|(session, lane)| (*session, self.lane_ends(lane)));
        let ended: Vec<_> = ends.filter(|(_, (at, _))| *at <= now).collect();
        for (session, (_, reason)) in ended {
            self.close(session, reason, now);
        }
        for lane in self.lanes.values_mut() {
            if let Phase::Closing(closing) = &mut lane.phase
                && closing.retry_at.is_some_and(|at| at <= now)
            {
                closing.retry_at = None;
                closing.stage = CloseStage::Device;
            }
        }
        if matches!(self.base, Base::Retry(at) if at <= now) {
            self.base = Base::Missing;
        }
        if matches!(self.save, Save::Retry(at) if at <= now) {
            self.save = Save::Failed;
        }
        if self.sign_retry.is_some_and(|at| at <= now) {
            self.sign_retry = None;
        }
        if self.saves_up() && self.up_saved_at + SAVE_UP_EVERY <= now {
            self.down_since = now;
            self.up_saved_at = now;
            self.version += 1;
        }
        self.report_counters(now);
        if self.up && self.say_again_at <= now {
            self.say_unacknowledged(now);
        }
        if let Some(shutdown) = &mut self.shutdown
            && shutdown.until <= now
            && !shutdown.finished
        {
            shutdown.finished = true;
            self.push(SiteEvent::Finished);
        }
        self.tell_status();
    }

    /// The next step to perform; `None` while one is without its answer, or when there is nothing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        if self.doing.is_some() {
            return None;
        }
        let (doing, step) = self.next_step()?;
        self.last_effect += 1;
        let id = EffectId(self.last_effect);
        self.doing = Some((id, doing));
        Some(Effect { id, step })
    }

    /// The next thing to know, in order.
    pub fn poll_event(&mut self) -> Option<SiteEvent> {
        let event = self.events.pop_front();
        if event.is_none() && std::mem::take(&mut self.overflowed) && self.up {
            self.say_everything(self.say_again_at);
            return self.events.pop_front();
        }
        event
    }

    /// The lanes, in the order of their sessions.
    pub fn lanes(&self) -> impl Iterator<Item = LaneView> {
        self.lanes.values().map(Lane::view)
    }

    /// How many lanes are open or opening: as long as there is one, the channel must not die unnoticed.
    pub fn armed(&self) -> usize {
        self.lanes.values().filter(|lane| !lane.is_closing()).count()
    }

    /// Why nothing would be opened now, apart from isolation.
    pub fn why_not_ready(&self) -> Option<String> {
        if self.shutdown.is_some() {
            return Some("the agent is stopping".into());
        }
        match (&self.not_ready, self.base, self.save) {
            (Some(why), _, _) => Some(why.clone()),
            (None, Base::Retry(_), _) => Some("the base table cannot be built".into()),
            (None, _, Save::Retry(_) | Save::Failed) => Some("the agent's state cannot be saved".into()),
            (None, _, Save::Works) => None,
        }
    }

    /// Whether the site's own switch is on.
    pub fn is_isolated(&self) -> bool {
        self.isolated
    }

    /// Who encrypts the lanes, as armed answers and status say it.
    pub fn backend(&self) -> &str {
        &self.config.backend
    }

    /// Another device encrypts from now on; told with the next status.
    pub fn set_backend(&mut self, backend: &str) {
        backend.clone_into(&mut self.config.backend);
    }

    /// The desired state that was taken over last.
    pub fn applied(&self) -> Applied {
        let digest = if self.generation == 0 { [0; 32] } else { thinlane_wire::state_digest(&self.desired) };
        Applied { generation: self.generation, digest }
    }

    fn lane_ends(&self, lane: &Lane) -> (Boot, EndReason) {
        let offline = (!self.up).then(|| (self.down_since + lane.grant.offline, EndReason::Offline));
        let idle = lane.idle_at().filter(|_| lane.is_armed()).map(|at| (at, EndReason::Idle));
        let first = [offline, idle].into_iter().flatten().min_by_key(|(at, _)| *at);
        match first {
            Some((at, reason)) if at < lane.grant.deadline => (at, reason),
            _ => (lane.grant.deadline, EndReason::Expired),
        }
    }

    fn saves_up(&self) -> bool {
        self.up && self.armed() > 0
    }

    fn close_all(&mut self, reason: EndReason, now: Boot) {
        let sessions: Vec<SessionId> = self.lanes.keys().copied().collect();
        for session in sessions {
            self.close(session, reason, now);
        }
    }

    fn close(&mut self, session: SessionId, reason: EndReason, now: Boot) {
        let Some(lane) = self.lanes.get_mut(&session).filter(|lane| !lane.is_closing()) else { return };
        let until = lane.newest().deadline + ENDED_MARGIN;
        lane.begin_close(reason, false);
        self.remember_ended(session, until, now);
    }

    fn remember_ended(&mut self, session: SessionId, until: Boot, now: Boot) {
        self.ended.retain(|_, until| *until > now);
        self.ended.insert(session, until);
        self.version += 1;
    }
}

#[cfg(test)]
mod tests;
