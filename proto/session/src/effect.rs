//! What the executor has to do after a commit, and what should be open at a site.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thinlane_model::{Boot, Counters, EndReason, Grant, Login, Path, PublicKey, RequestId, SessionId, SiteId, Wall};

/// One thing to do once the events are committed. The executor decides nothing; all of these may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send the gateway what [`crate::World::desired`] says, if it is connected.
    Push {
        site: SiteId,
    },
    /// Forward this session's datagrams until a moment of this machine's boot clock.
    RelayOpen {
        session: SessionId,
        engineer: PublicKey,
        gateway: Option<PublicKey>,
        until: Boot,
    },
    RelaySetGateway {
        session: SessionId,
        gateway: PublicKey,
    },
    /// Also earlier than before, where an extension was refused.
    RelayExtend {
        session: SessionId,
        until: Boot,
    },
    /// Comes before the `Push` that tells the gateway.
    RelayClose {
        session: SessionId,
    },
    /// Close this gateway's connections: frozen, enrolled anew, or renewed away.
    DropAgent {
        site: SiteId,
    },
    /// End this person's API tokens.
    LogOut {
        login: Login,
    },
    /// Something changed that somebody may be waiting for or looking at.
    SessionChanged {
        session: SessionId,
    },
    RequestChanged {
        request: RequestId,
    },
    SiteChanged {
        site: SiteId,
    },
    Alarm {
        site: Option<SiteId>,
        kind: String,
        detail: String,
    },
}

/// What should be open at a site: level-triggered, the same until `generation` rises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// By session id. Sign each; the same serial is always the same content.
    pub grants: Vec<Grant>,
    pub generation: u64,
    /// Sessions that wait for their closing record, and why they end.
    pub ending: BTreeMap<SessionId, EndReason>,
}

/// What a gateway reported of a running session; not logged, and no part of the state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Observation {
    pub counters: Counters,
    pub last_handshake_at: Option<Wall>,
    /// Where the engineer's datagrams come from, as the gateway sees it.
    pub endpoint: Option<String>,
    /// Counted by a kernel that merges segments.
    pub merged: bool,
    /// Which way the last handshake came, where there are two.
    pub path: Option<Path>,
}
