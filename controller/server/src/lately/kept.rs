//! The file in which live views remember over a restart: what gateways reported last of live sessions, plots, and
//! denials. It is no part of the state, nothing is decided by it, and a broken one is left out with a warning.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thinlane_model::SessionId;
use thinlane_session::Observation;
use thinlane_wire::api::{DeniedView, Sample};
use tokio::sync::watch;

use super::{FIRST_STEP, History, Inner, Lately, MOST_DENIED, MOST_SAMPLES};
use crate::app::App;
use crate::dir::{Dir, write_passing};

/// The form of the file; another one is left out.
const FORM: u32 = 1;
/// Plots in the file, those that changed last; a session beyond begins again with a gap.
const MOST_KEPT: usize = 1_000;
/// A larger file is not ours.
const MOST_BYTES: u64 = 64 * 1024 * 1024;
/// What a crash costs at most while the file is small.
const EVERY: Duration = Duration::from_secs(2);
/// Bytes a second that keeping may cost: a large file is written more rarely.
const RATE: u64 = 64 * 1024;

#[derive(Serialize, Deserialize)]
struct Kept {
    form: u32,
    observed: Vec<(SessionId, Observation)>,
    histories: BTreeMap<SessionId, History>,
    denied: Vec<DeniedView>,
}

/// What an earlier process kept: for the live views, and for the world.
pub fn load(dir: &Dir) -> (Lately, Vec<(SessionId, Observation)>) {
    let path = dir.lately();
    let size = match std::fs::metadata(&path) {
        Ok(meta) => meta.len(),
        Err(_) => return Default::default(),
    };
    if size > MOST_BYTES {
        tracing::warn!(path = %path.display(), size, "what was seen before the restart is too large and is left out");
        return Default::default();
    }
    let read = std::fs::read(&path).map_err(anyhow::Error::from);
    match read.and_then(|bytes| Ok(serde_json::from_slice::<Kept>(&bytes)?)) {
        Ok(kept) if kept.form == FORM => kept.into_parts(),
        Ok(kept) => {
            tracing::warn!(form = kept.form, "what was seen before the restart has another form and is left out");
            Default::default()
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "what was seen before the restart cannot be read");
            Default::default()
        }
    }
}

/// Writes the file whenever something has changed, and once more at the end.
pub async fn keep(app: App, dir: Dir, mut stop: watch::Receiver<bool>) {
    let mut written = 0;
    let mut pause = EVERY;
    let mut warned = false;
    while !*stop.borrow() {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.changed() => {}
        }
        let changes = app.lately.lock().changes;
        if changes == written {
            continue;
        }
        let Ok(observed) = app.core.read(|state| state.observed()).await else { return };
        let kept = app.lately.kept(observed);
        let path = dir.lately();
        let done = tokio::task::spawn_blocking(move || {
            let bytes = serde_json::to_vec(&kept)?;
            write_passing(&path, &bytes)?;
            anyhow::Ok(bytes.len() as u64)
        });
        match done.await {
            Ok(Ok(size)) => {
                (written, warned) = (changes, false);
                pause = EVERY.max(Duration::from_secs(size / RATE));
            }
            Ok(Err(error)) if !warned => {
                warned = true;
                tracing::warn!(error = format!("{error:#}"), "live views would forget at a restart");
            }
            Ok(Err(_)) => {}
            Err(error) => return tracing::error!(%error, "what was seen lately is not kept any more"),
        }
    }
}

impl Lately {
    fn kept(&self, observed: Vec<(SessionId, Observation)>) -> Kept {
        let inner = self.lock();
        let mut newest: Vec<_> = inner.histories.iter().collect();
        if newest.len() > MOST_KEPT {
            newest.sort_by_key(|(_, history)| Reverse(history.samples.last().map(|sample| sample.at)));
            newest.truncate(MOST_KEPT);
        }
        Kept {
            form: FORM,
            observed,
            histories: newest.into_iter().map(|(id, history)| (*id, history.clone())).collect(),
            denied: inner.denied.iter().cloned().collect(),
        }
    }
}

impl Kept {
    /// What the file says, within the bounds that hold for everything.
    fn into_parts(self) -> (Lately, Vec<(SessionId, Observation)>) {
        let sound = |history: &History| {
            history.step >= FIRST_STEP
                && history.samples.len() <= MOST_SAMPLES
                && history.samples.is_sorted_by_key(|sample: &Sample| sample.at)
        };
        let histories = self.histories.into_iter().filter(|(_, history)| sound(history)).take(MOST_KEPT).collect();
        let over = self.denied.len().saturating_sub(MOST_DENIED);
        let denied = self.denied.into_iter().skip(over).collect();
        (Lately(Mutex::new(Inner { histories, denied, changes: 0 })), self.observed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_ours_is_nothing() {
        let place = tempfile::tempdir().expect("a directory");
        let dir = Dir::new(place.path());
        for bytes in [&b""[..], b"{", b"[1]", br#"{"form": 9, "observed": [], "histories": {}, "denied": []}"#] {
            std::fs::write(dir.lately(), bytes).expect("written");
            let (lately, seen) = load(&dir);
            assert!(lately.denied().is_empty() && seen.is_empty(), "{bytes:?}");
        }
        let much = (0..MOST_SAMPLES + 1).map(|at| {
            serde_json::json!({"at": format!("2026-11-22T03:{:02}:{:02}Z", at / 60, at % 60), "up_bytes": 1, "down_bytes": 1})
        });
        let id = SessionId::from_random([0; 5]);
        let history = serde_json::json!({"step": 1_000, "samples": much.collect::<Vec<_>>()});
        let whole =
            serde_json::json!({"form": 1, "observed": [], "histories": {id.to_string(): history}, "denied": []});
        std::fs::write(dir.lately(), whole.to_string()).expect("written");
        assert!(load(&dir).0.history(&id).is_empty());
    }
}
