//! The writer's loop.

use std::time::Duration;

use thinlane_session::Actor;
use thinlane_store::{CommitError, Committed, Tx};
use tokio::sync::{mpsc, watch};

use super::shell::Shell;
use super::state::{State, Step};
use super::{Finish, Job};

/// Jobs in one transaction.
const BATCH: usize = 512;
/// How long the writer sleeps at most: it feeds the watchdog.
const TICK: Duration = Duration::from_secs(5);

pub(super) async fn run(
    state: &mut State,
    shell: &mut Shell,
    mut queue: mpsc::Receiver<Job>,
    mut stop: watch::Receiver<bool>,
) {
    state.start();
    shell.execute(state);
    while !*stop.borrow() || !queue.is_empty() {
        let due = state.world().poll_timeout();
        let now = crate::clock::mono();
        let pause = due.map_or(TICK, |at| now.until(at).to_std().min(TICK));
        let first = tokio::select! {
            job = queue.recv() => match job {
                Some(job) => Some(job),
                None => break,
            },
            () = tokio::time::sleep(pause) => None,
            _ = stop.changed() => None,
        };
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        batch(state, shell, first, &mut queue);
    }
    tracing::info!("the writer has stopped");
}

/// One batch: what is due, then the jobs that wait, in one transaction.
fn batch(state: &mut State, shell: &mut Shell, first: Option<Job>, queue: &mut mpsc::Receiver<Job>) {
    let mut txs: Vec<Tx> = Vec::new();
    let mut finish: Vec<Finish> = Vec::new();
    {
        let mut step = Step::new(state, crate::clock::now());
        step.take_timeouts();
        if let Some(alarm) = shell.owed_alarm()
            && let Err(error) = step.note(&Actor::System, alarm)
        {
            tracing::error!(error = %error.error.message, "the alarm cannot be logged");
        }
        txs.extend(step.into_tx());
    }
    let mut looks = Vec::new();
    let mut next = first;
    while let Some(job) = next.take() {
        match job {
            Job::Write(change) => {
                let mut step = Step::new(state, crate::clock::now());
                finish.push(change(&mut step));
                txs.extend(step.into_tx());
            }
            Job::Read(look) => looks.push(look),
        }
        if finish.len() + looks.len() < BATCH {
            next = queue.try_recv().ok();
        }
    }
    let committed = commit(state, &txs);
    match &committed {
        Ok(done) => {
            shell.alarm_logged();
            shell.execute(state);
            if let (true, Some(note)) = (!txs.is_empty(), &done.note) {
                shell.checkpoint(done.size, note);
            }
            for one in finish {
                one(Ok(done));
            }
        }
        Err(error) => {
            shell.log_unavailable(error);
            state.reload();
            for one in finish {
                one(Err(error));
            }
        }
    }
    for look in looks {
        look(state);
    }
}

fn commit(state: &mut State, txs: &[Tx]) -> Result<Committed, CommitError> {
    if let Some(broken) = state.broken() {
        return Err(CommitError::Database(broken));
    }
    if txs.is_empty() {
        let store = state.store();
        let (size, root) = (store.size(), store.proofs().root());
        return Ok(Committed { first: size, size, root, note: None });
    }
    state.store_mut().commit(txs)
}

impl Step<'_> {
    /// Applies what is due by itself.
    fn take_timeouts(&mut self) {
        let events = self.state().world().handle_timeout(self.now());
        if let Err(error) = self.apply(&Actor::System, events) {
            tracing::error!(error = %error.error.message, "what is due cannot be logged");
        }
    }
}
