//! What a restart of the agent finds again; a reboot finds nothing, for it lies in memory.

use serde::{Deserialize, Serialize};
use thinlane_model::{Boot, BootId, Counters, EndReason, SessionId};
use thinlane_wire::SignedGrant;

use thinlane_wire::SignedClosing;

/// The machine's state as the executor keeps it in `/run`. Holds no secret: keys lie in the executor's own files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedState {
    /// 1.
    pub schema: u32,
    /// The boot that all times here are of.
    pub boot: BootId,
    pub lanes: Vec<SavedLane>,
    /// Sessions that ended here, against replay.
    pub ended: Vec<SavedEnded>,
    /// Closing records that the controller has not acknowledged.
    pub closings: Vec<SignedClosing>,
    pub alarms: Vec<SavedAlarm>,
    /// From when on the channel must be taken to have been down: since then it was, or nobody knows of later.
    pub down_since: Option<Boot>,
}

/// A lane that is open, opening or on its way out. The grant is kept as it was signed and is verified again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedLane {
    pub grant: SignedGrant,
    pub opened: Option<Boot>,
    pub counters: Counters,
    /// A part of them was counted by a kernel that merges segments.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub merged: bool,
    /// Where the engineer was seen last.
    pub endpoint: Option<String>,
    /// It was on its way out, for this reason.
    pub closing: Option<EndReason>,
    /// Its closing record is already among `closings`; only the kernel is not clean yet.
    pub recorded: bool,
}

/// A session that ended here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedEnded {
    pub session: SessionId,
    /// From then on its deadline alone keeps it from opening again.
    pub until: Boot,
}

/// An alarm that the controller has not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedAlarm {
    pub number: u64,
    pub boot: BootId,
    pub kind: String,
    pub detail: String,
}
