//! The one writer: owns the world and the store, takes commands in batches, answers after the commit.
//!
//! ```text
//! API, channels --Job--> [queue] --> steps on the world (events, rows, secrets)
//!                                        |  one transaction, one fsync for the whole batch
//!                                        v
//!                                    commit --fails--> world read again from the rows, everybody is told
//!                                        |
//!                                        +--> effects (relay first), live events --> answers
//! ```

mod credential;
mod shell;
mod state;
mod tokens;
mod writer;

pub use credential::{Credential, Hashed};
pub use shell::{Live, Shell};
pub use state::{State, Step};
pub use tokens::{Ended, Token, Tokens, Why};

use std::sync::Arc;

use thinlane_store::{CommitError, Committed};
use thinlane_wire::api::{ErrorBody, ErrorCode};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Jobs that may wait for the writer; more are refused.
const QUEUE: usize = 4096;
/// Live events that a slow reader may be behind before it loses some.
const LIVE: usize = 4096;

type Finish = Box<dyn FnOnce(Result<&Committed, &CommitError>) + Send>;

/// What waits for the writer.
pub(crate) enum Job {
    /// Changes something; answers after the commit.
    Write(Box<dyn FnOnce(&mut Step<'_>) -> Finish + Send>),
    /// Looks at what is durable, after the commit of the batch it is in, or after its failure.
    Read(Box<dyn FnOnce(&State) + Send>),
}

/// The way to the writer; cheap to clone.
#[derive(Clone)]
pub struct Core {
    jobs: mpsc::Sender<Job>,
    live: broadcast::Sender<Arc<Live>>,
    tokens: Tokens,
    stop: Arc<watch::Sender<bool>>,
}

/// The writer's thread; join it after [`Core::stop`].
pub struct Writer {
    thread: std::thread::JoinHandle<()>,
    ended: watch::Receiver<()>,
}

impl Core {
    /// Starts the writer's thread; `shell` builds what executes effects, given the way back.
    pub fn start(mut state: State, shell: impl FnOnce(&Core) -> Shell) -> std::io::Result<(Core, Writer)> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (live, _) = broadcast::channel(LIVE);
        let (stop, stopped) = watch::channel(false);
        let core = Core { jobs, live, tokens: state.tokens().clone(), stop: Arc::new(stop) };
        let mut shell = shell(&core);
        let (alive, ended) = watch::channel(());
        let thread = std::thread::Builder::new().name("writer".to_owned()).spawn(move || {
            // Dropped also when the thread panics.
            let _alive = alive;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            match runtime {
                Ok(runtime) => runtime.block_on(writer::run(&mut state, &mut shell, queue, stopped)),
                Err(error) => tracing::error!(%error, "the writer cannot start"),
            }
        })?;
        Ok((core, Writer { thread, ended }))
    }

    /// Runs `step` on the writer and answers once everything that it changed is durable.
    ///
    /// What a failing step has changed (a refused attempt's entry) is kept as well.
    pub async fn write<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Step<'_>) -> Result<T, ErrorBody> + Send + 'static,
    ) -> Result<T, ErrorBody> {
        let (answer, wait) = oneshot::channel();
        self.queue(write_job(step, answer))?;
        wait.await.map_err(|_| stopping())?
    }

    fn queue(&self, job: Job) -> Result<(), ErrorBody> {
        self.jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                ErrorBody::new(ErrorCode::Limit, "the controller has more to do than it can")
                    .next("try again in a few seconds")
            }
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })
    }

    /// As [`Core::write`], but waits for room in the queue: for what must not get lost.
    pub async fn write_surely<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Step<'_>) -> Result<T, ErrorBody> + Send + 'static,
    ) -> Result<T, ErrorBody> {
        let room = self.jobs.reserve().await.map_err(|_| stopping())?;
        let (answer, wait) = oneshot::channel();
        room.send(write_job(step, answer));
        wait.await.map_err(|_| stopping())?
    }

    /// Looks at the state between two batches: everything seen is durable. Works also while nothing can be written.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, ErrorBody> {
        let (answer, wait) = oneshot::channel();
        self.queue(Job::Read(Box::new(move |state| {
            let _ = answer.send(look(state));
        })))?;
        wait.await.map_err(|_| stopping())
    }

    /// Everything that happens from now on.
    pub fn watch(&self) -> broadcast::Receiver<Arc<Live>> {
        self.live.subscribe()
    }

    /// Whether anybody watches.
    pub fn is_watched(&self) -> bool {
        self.live.receiver_count() > 0
    }

    /// Tells those who watch.
    pub fn tell(&self, live: Live) {
        let _ = self.live.send(Arc::new(live));
    }

    pub(crate) fn live(&self) -> broadcast::Sender<Arc<Live>> {
        self.live.clone()
    }

    /// Lets the writer finish what waits and end.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Who is logged in.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }
}

impl Writer {
    /// Waits until the writer has ended: before [`Core::stop`] that is a fault, and nothing works any more.
    pub async fn ended(&mut self) {
        while self.ended.changed().await.is_ok() {}
    }

    /// Waits until the last batch is written.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the writer panicked");
        }
    }
}

fn write_job<T: Send + 'static>(
    step: impl FnOnce(&mut Step<'_>) -> Result<T, ErrorBody> + Send + 'static,
    answer: oneshot::Sender<Result<T, ErrorBody>>,
) -> Job {
    Job::Write(Box::new(move |on| {
        let done = step(on);
        Box::new(move |committed| {
            let _ = answer.send(match committed {
                Ok(_) => done,
                Err(error) => Err(log_unavailable(error)),
            });
        })
    }))
}

fn stopping() -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, "the controller is stopping").next("try again when it runs")
}

fn log_unavailable(error: &CommitError) -> ErrorBody {
    ErrorBody::new(ErrorCode::LogUnavailable, format!("nothing was changed: {error}"))
        .next("sessions that run go on; tell whoever runs the controller")
}
