//! The authorisation that a gateway acts on.

use std::net::Ipv4Addr;

use crate::{AssetName, Boot, BootId, Endpoint, PublicKey, SessionId, SiteId, Span, TaskName, Tuple};

/// One signed authorisation: one person, one device, one port, until one moment on the gateway's boot clock.
///
/// A grant is bytes (see `thinlane-wire`) with a signature over exactly those bytes; this is what they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Rises with every grant that the controller signs. A later grant of one session replaces an earlier one
    /// and may differ from it in `serial` and `deadline` only.
    pub serial: u64,
    pub site: SiteId,
    /// The boot of the gateway for which `deadline` is meant.
    pub boot: BootId,
    pub session: SessionId,
    pub asset: AssetName,
    pub task: TaskName,
    /// The engineer's key of this session.
    pub engineer_key: PublicKey,
    pub tuple: Tuple,
    /// Send with the engineer's own address instead of the gateway's LAN address.
    pub keep_source: bool,
    pub limits: Limits,
    /// On the gateway's CLOCK_BOOTTIME.
    pub deadline: Boot,
    /// How long the lane may outlive the gateway's channel to the controller.
    pub offline: Span,
    /// End the session after this long without a packet.
    pub idle: Option<Span>,
    pub policy: PolicyRef,
    /// Where the gateway sends its handshakes; `None`: it waits on its own endpoint.
    pub relay: Option<Endpoint>,
}

/// What a fragile device needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Packets per second from the engineer; `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets_per_second: Option<u32>,
    /// Connections (conntrack entries) at once; `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
}

impl Limits {
    pub const NONE: Limits = Limits { packets_per_second: None, connections: None };
}

/// The policy under which a decision was taken.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PolicyRef {
    /// The permit that was taken.
    pub id: String,
    /// SHA-256 over the whole policy, in hexadecimal.
    pub hash: String,
}

impl Grant {
    /// The engineer's /32.
    pub fn engineer(&self) -> Ipv4Addr {
        self.tuple.engineer
    }

    /// Whether `later` is the same lane with another serial and deadline.
    pub fn extends_to(&self, later: &Grant) -> bool {
        later.serial > self.serial && Grant { serial: self.serial, deadline: self.deadline, ..later.clone() } == *self
    }
}
