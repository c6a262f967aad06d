//! The state that a daemon leaves in `/run`, read by its successor and by `check`.

use std::collections::BTreeMap;

use anyhow::Context as _;
use thinlane_model::{Boot, BootId, Grant, SessionId};
use thinlane_site::SavedState;
use thinlane_wire::GrantVerifier;

use crate::files::{self, Dirs};

/// The longest file that is read, in bytes.
const MOST: u64 = 16 * 1024 * 1024;

/// Reads what a daemon left, in this boot or an earlier one; `None` where there is nothing.
///
/// # Errors
/// A file that cannot be understood is an error for `check`; a starting daemon opens nothing of it.
pub fn load(dirs: &Dirs) -> anyhow::Result<Option<SavedState>> {
    let path = dirs.state();
    let read = files::read_bounded(&path, MOST).with_context(|| format!("cannot read {}", path.display()))?;
    let Some(bytes) = read else { return Ok(None) };
    let state: SavedState = serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
    Ok(Some(state))
}

/// The lanes that may stand by this state: signed by the controller, of this `boot`, and not over.
///
/// The second list says which ones claim to be open without that.
pub fn live(
    state: &SavedState,
    verifier: &GrantVerifier,
    boot: BootId,
    now: Boot,
) -> (BTreeMap<SessionId, Grant>, Vec<String>) {
    let mut live = BTreeMap::new();
    let mut wrong = Vec::new();
    if state.boot != boot {
        return (live, wrong);
    }
    for lane in state.lanes.iter().filter(|lane| lane.closing.is_none()) {
        match verifier.open(&lane.grant) {
            Ok((grant, _)) if grant.boot != boot => wrong.push(format!("{} is of another boot", grant.session)),
            Ok((grant, _)) if grant.deadline > now => _ = live.insert(grant.session, grant),
            // It ended by itself; the daemon is about to say so.
            Ok(_) => {}
            Err(error) => {
                let session = lane.grant.peek().map_or("a lane".into(), |(session, _)| session.to_string());
                wrong.push(format!("{session}: {error}"));
            }
        }
    }
    (live, wrong)
}
