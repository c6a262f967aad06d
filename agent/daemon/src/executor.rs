//! The shell of the site machine's effects: a thread that performs one step at a time and answers what came of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use thinlane_model::{Endpoint, SessionId};
use thinlane_nft::Drift;
use thinlane_site::{Done, Effect, EffectId, Outcome, SavedState, Step, StepError};
use thinlane_wg::{Backend, Event, LaneReport};
use tokio::sync::mpsc;

use crate::files;
use crate::identity::IdentityKey;
use crate::kernel::Kernel;

/// Jobs that may wait.
const MOST_JOBS: usize = 256;
const STACK: usize = 1024 * 1024;

/// Something to do.
pub enum Job {
    Step(Effect),
    /// What every lane has carried.
    Reports,
    /// Compare the table with what is meant.
    Verify,
    /// Look for flow offload.
    Offload,
    /// Remove chains that waited for the kernel.
    Sweep,
    /// A relay's name was resolved: where a lane's peer is to be looked for.
    Endpoint(SessionId, SocketAddr),
    /// New keys for every lane, now.
    Handshake,
    /// Begin anew with the device, on this UDP port (0: any).
    Device(u16),
    /// Stop; with `true` after removing everything.
    End(bool),
}

/// What came of a job.
#[derive(Debug)]
pub enum Answer {
    Step(EffectId, Outcome),
    /// Merged: packets that travelled together count as one.
    Reports {
        reports: Vec<LaneReport>,
        merged: bool,
    },
    Verified(anyhow::Result<Drift>),
    /// How many chains still wait.
    Swept(usize),
    /// Why lanes cannot be opened; `None`: they can.
    Offload(anyhow::Result<Option<String>>),
    /// The device runs, and who encrypts.
    Device(anyhow::Result<Backend>),
    Ended(anyhow::Result<()>),
}

/// Addresses of relays that were given by name, as last resolved.
pub type Resolved = Arc<Mutex<BTreeMap<Endpoint, SocketAddr>>>;

/// What the device takes off the processor, for `status`.
pub type OffloadWords = Arc<Mutex<Option<String>>>;

/// The thread's inbox.
#[derive(Debug, Clone)]
pub struct Executor {
    jobs: SyncSender<Job>,
}

/// What the thread works with.
pub struct Bench {
    pub kernel: Kernel,
    pub key: Arc<IdentityKey>,
    pub state: PathBuf,
    pub resolved: Resolved,
    pub offload: OffloadWords,
    /// What the device tells unasked.
    pub events: mpsc::UnboundedSender<Event>,
}

impl Executor {
    /// Starts the thread.
    pub fn start(bench: Bench) -> anyhow::Result<(Self, mpsc::UnboundedReceiver<Answer>)> {
        let (jobs, inbox) = sync_channel(MOST_JOBS);
        // Bounded by the jobs: each has one answer.
        let (to_loop, answers) = mpsc::unbounded_channel();
        let run = move || bench.run(&inbox, &to_loop);
        std::thread::Builder::new()
            .name("kernel".into())
            .stack_size(STACK)
            .spawn(run)
            .context("cannot start a thread")?;
        Ok((Self { jobs }, answers))
    }

    /// Hands a job over; `false`: the thread has ended, or is so far behind that the job cannot wait.
    pub fn submit(&self, job: Job) -> bool {
        self.jobs.try_send(job).is_ok()
    }
}

impl Bench {
    fn run(mut self, inbox: &Receiver<Job>, to_loop: &mpsc::UnboundedSender<Answer>) {
        while let Ok(job) = inbox.recv() {
            let answer = match job {
                Job::Step(Effect { id, step }) => {
                    let name = step.name();
                    crash_point(name, false);
                    let outcome = self.perform(step).inspect_err(|error| self.notice(error));
                    crash_point(name, true);
                    Some(Answer::Step(id, outcome.map_err(|error| StepError(format!("{error:#}")))))
                }
                Job::Reports => {
                    let reports = self.kernel.reports();
                    Some(Answer::Reports { reports, merged: self.kernel.backend() == Backend::Kernel })
                }
                Job::Verify => Some(Answer::Verified(self.kernel.verify())),
                Job::Offload => Some(Answer::Offload(self.kernel.offload())),
                Job::Sweep => {
                    let left = self.kernel.sweep().inspect_err(|error| tracing::warn!(%error, "no sweep"));
                    // After a failure another try is worth it.
                    Some(Answer::Swept(left.map_or(1, |left| left.len())))
                }
                Job::Endpoint(session, address) => {
                    // The lane may be gone by now.
                    if let Err(error) = self.kernel.set_endpoint(session, address) {
                        tracing::debug!(%session, %error, "no endpoint set");
                    }
                    None
                }
                Job::Handshake => {
                    self.kernel.handshake();
                    None
                }
                Job::Device(port) => {
                    self.kernel.stop_device();
                    Some(Answer::Device(self.start_device(port)))
                }
                Job::End(remove) => {
                    let ended = if remove { self.kernel.remove_everything() } else { Ok(()) };
                    self.kernel.stop_device();
                    let _ = to_loop.send(Answer::Ended(ended));
                    return;
                }
            };
            if answer.is_some_and(|answer| to_loop.send(answer).is_err()) {
                return;
            }
        }
    }

    /// Starts the device and has it tell the loop what happens.
    pub fn start_device(&mut self, port: u16) -> anyhow::Result<Backend> {
        let events = self.events.clone();
        let tell = move |event| {
            // The loop ends only with the process.
            let _ = events.send(event);
        };
        let started = self.kernel.start_device(port, Box::new(tell));
        *self.offload.lock().unwrap_or_else(PoisonError::into_inner) = self.kernel.device_offload();
        started
    }

    fn perform(&mut self, step: Step) -> anyhow::Result<Done> {
        let kernel = &mut self.kernel;
        let plain = |()| Done::Plain;
        match step {
            Step::RebuildBase => kernel.rebuild_base().map(plain),
            Step::RemoveAllPeers => {
                let reports = kernel.remove_all_peers();
                Ok(Done::Finals(reports.into_iter().map(|report| (report.session, report.counters)).collect()))
            }
            Step::Keys { session, preshared } => kernel.make_keys(session, preshared.as_ref()).map(Done::Public),
            Step::OpenDevice { grant, endpoint, initiate } => {
                let direct = endpoint.and_then(|endpoint| endpoint.parse().ok());
                let relay = grant.relay.as_ref().and_then(|relay| self.lookup(relay));
                self.kernel.open_device(&grant, direct.or(relay), relay, initiate).map(plain)
            }
            Step::AddRoute { grant } => kernel.add_route(&grant).map(plain),
            Step::OpenLane { grant } => kernel.open_lane(&grant).map(plain),
            Step::ReadBack { grant } => kernel.verify_open(&grant).map(plain),
            Step::ExtendLane { session, deadline } => kernel.extend_lane(session, deadline).map(plain),
            Step::ExtendDevice { session, deadline } => kernel.extend_device(session, deadline).map(plain),
            Step::ShutDevice { session } => {
                let report = kernel.shut_device(session)?;
                Ok(Done::Final(report.map(|report| (report.counters, report.late_packets))))
            }
            Step::CloseLane { session } => kernel.close_lane(session).map(|_| Done::Plain),
            Step::RemovePeer { session } => kernel.remove_peer(session).map(|_| Done::Plain),
            Step::DropFlows { tuple, .. } => kernel.drop_flows(&tuple).map(|_| Done::Plain),
            Step::RemoveRoute { tuple, .. } => kernel.remove_route(&tuple).map(plain),
            Step::ReadBackClosed { session, tuple } => kernel.verify_closed(session, &tuple).map(plain),
            Step::SignClosing { message, .. } => Ok(Done::Signature(self.key.sign(&message))),
            Step::Persist(state) => self.persist(&state).map(plain),
        }
    }

    /// A device whose thread has ended says nothing itself.
    fn notice(&self, error: &anyhow::Error) {
        if let Some(thinlane_wg::DeviceError::Stopped) = error.downcast_ref() {
            // The loop ends only with the process.
            let _ = self.events.send(Event::InterfaceGone);
        }
    }

    fn lookup(&self, relay: &Endpoint) -> Option<SocketAddr> {
        let resolved = || self.resolved.lock().unwrap_or_else(PoisonError::into_inner).get(relay).copied();
        relay.as_socket_addr().or_else(resolved)
    }

    fn persist(&self, state: &SavedState) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(state).context("the state")?;
        files::write_atomic(&self.state, &bytes).with_context(|| format!("cannot write {}", self.state.display()))
    }
}

/// Ends the process where a test says so: `THINLANE_CRASH_AT=open-lane` before that step, `open-lane+` after it,
/// `open-lane:2` at its second time. In debug builds alone.
#[cfg(debug_assertions)]
fn crash_point(step: &str, after: bool) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static SEEN: AtomicU32 = AtomicU32::new(0);
    let Ok(wanted) = std::env::var("THINLANE_CRASH_AT") else { return };
    let (name, time) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    let (name, wants_after) = name.strip_suffix('+').map_or((name, false), |name| (name, true));
    if name == step && after == wants_after {
        let seen = SEEN.fetch_add(1, Ordering::Relaxed) + 1;
        if time.parse() == Ok(seen) {
            eprintln!("crash point {wanted}");
            std::process::abort();
        }
    }
}

#[cfg(not(debug_assertions))]
fn crash_point(_step: &str, _after: bool) {}
