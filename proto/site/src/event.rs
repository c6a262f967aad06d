//! What the machine tells the rest of the agent, and what it is told of running lanes.

use thinlane_model::{AssetName, Boot, Counters, EndReason, RefuseReason, SessionId, Span, TaskName, Tuple};
use thinlane_wire::FromAgent;

/// What the rest of the agent has to know.
#[derive(Debug, Clone, PartialEq)]
pub enum SiteEvent {
    /// To the controller. Need not be kept while the channel is down: what matters is said again when it is up.
    Send(FromAgent),
    /// A lane stands, or stands for longer.
    Armed { session: SessionId, deadline: Boot },
    /// A grant opened nothing.
    Refused { session: Option<SessionId>, serial: u64, reason: RefuseReason, detail: String },
    /// A lane is gone; `verified`: the kernel was read back.
    Closed { session: SessionId, reason: EndReason, verified: bool },
    /// A step failed and is tried again, or people should look.
    Trouble { what: String },
    /// After [`Site::handle_shutdown`](crate::Site::handle_shutdown): nothing is left to do.
    Finished,
}

/// What a device counted for one lane, absolute since the device was opened for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneCount {
    pub session: SessionId,
    pub counters: Counters,
    /// Since the last handshake.
    pub handshake_age: Option<Span>,
    /// Where the engineer's datagrams come from.
    pub endpoint: Option<String>,
    /// Counted by a kernel that merges segments.
    pub merged: bool,
}

/// Where a lane stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneState {
    Opening,
    Open,
    Closing(EndReason),
}

/// One lane, for `status` and `check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneView {
    pub session: SessionId,
    pub serial: u64,
    pub asset: AssetName,
    pub task: TaskName,
    pub tuple: Tuple,
    pub state: LaneState,
    pub opened: Option<Boot>,
    pub deadline: Boot,
    pub counters: Counters,
}
