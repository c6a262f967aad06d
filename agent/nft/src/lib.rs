//! A set of lanes as nf_tables batches over netlink, and the kernel's answers read back.
//!
//! * [`Nft`] installs the base table, opens, extends and closes lanes, reads their state, and deletes connections.
//! * [`Watch`] tells when somebody changes the tables.
//! * [`DeniedLog`] yields the packets that lanes refused.
//!
//! Everything blocks for at most a few milliseconds when the kernel is well (five seconds when it is not), so call it from a
//! thread that may.
//!
//! Needs of the kernel (6.1 and 6.18 are tried): nf_tables with family inet, ct, limit, log, nat, masq,
//! reject, objref, exthdr, and connlimit where a lane limits connections; conntrack with its netlink interface;
//! nfnetlink_log.
//!
//! What the rules say is in `docs/architecture.md` and, of a running gateway, in
//! `nft list table inet thinlane`.
#![forbid(unsafe_code)]

mod attr;
#[doc(hidden)]
pub mod decode;
mod denied;
#[doc(hidden)]
pub mod encode;
mod error;
mod expr;
mod flows;
mod foreign;
mod link;
mod message;
mod nft;
mod object;
mod ruleset;
mod verify;
mod watch;

use std::net::Ipv4Addr;

use thinlane_model::{Counters, Limits, SessionId, Span, Tuple};

pub use attr::AttrError;
pub use denied::{Denied, DeniedLog, Direction};
pub use error::{Difference, NftError};
#[doc(hidden)]
pub use foreign::fuzz_foreign;
pub use foreign::{ForeignChain, Hook, Lanes, Passes, Ruling, Side};
pub use message::About;
pub use nft::Nft;
pub use ruleset::{LANE_INTERFACES, MARK, MARK_MASK, MARK_REFUSED, SHARED_INTERFACE};
pub use verify::{Drift, Finding};
pub use watch::{Event, Watch};

/// The shortest time that is taken: the kernel rounds a timeout below one tick to none at all, which never ends.
pub const SHORTEST: Span = Span::from_millis(50);
/// The longest time that is taken.
pub const LONGEST: Span = Span::from_secs(31 * 86_400);
/// How long the chains of an expired lane are left alone before their removal is tried again.
pub const SWEEP_INTERVAL: Span = Span::from_millis(1500);
/// The most lanes that one table is given.
pub const MOST_LANES: usize = 1024;

/// What the base depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseConfig {
    /// LAN interfaces. Lanes lead nowhere else; empty: wherever the asset's address is routed.
    pub lan: Vec<String>,
    /// IP forwarding was off until the agent switched it on: drop all forwarding from LAN interfaces except to lanes,
    /// and to LAN interfaces except from lanes. The switch itself (`net.ipv4.ip_forward` or an interface's
    /// `forwarding`) is the caller's, and so is switching it off before the table is removed.
    pub guard_lan_forwarding: bool,
    /// The NFLOG group that refused packets are sent to; see [`DeniedLog`].
    pub nflog_group: u16,
    /// The TCP maximum segment size that lanes carry; larger offers are lowered to it.
    pub mss: u16,
}

/// One lane as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    pub session: SessionId,
    /// `tl0`, or `tl-` and something; a name, so that the interface may vanish and come back.
    pub iface: String,
    pub tuple: Tuple,
    pub limits: Limits,
    /// Send with the engineer's own address instead of the gateway's LAN address.
    pub keep_source: bool,
    /// From now on; the kernel closes the lane then by itself. Between [`SHORTEST`] and [`LONGEST`].
    pub remaining: Span,
}

/// One lane as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneState {
    pub session: SessionId,
    /// Time left for packets from the engineer; `None`: closed or expired.
    pub up: Option<Span>,
    /// Time left for packets to the engineer; `None`: closed or expired.
    pub down: Option<Span>,
    pub up_packets: u64,
    /// Inner IP lengths, as all bytes here.
    pub up_bytes: u64,
    pub down_packets: u64,
    pub down_bytes: u64,
    /// Of the session's /32, either direction, but not its flow.
    pub denied_packets: u64,
    /// Of the session's /32 after its end.
    pub late_packets: u64,
    /// Of its flow, but beyond its limits, or no valid part of a connection.
    pub dropped_packets: u64,
    /// Its chains stand; after a close they may until the kernel has collected expired elements.
    pub chain_present: bool,
}

impl LaneState {
    /// The kernel's view of what crossed; it counts merged packets as one and never sees a spoofed source.
    pub fn counters(&self) -> Counters {
        Counters {
            up_packets: self.up_packets,
            up_bytes: self.up_bytes,
            down_packets: self.down_packets,
            down_bytes: self.down_bytes,
            denied_packets: self.denied_packets,
            spoofed_packets: 0,
        }
    }

    /// Whether a packet can pass in either direction.
    pub fn is_open(&self) -> bool {
        self.up.is_some() || self.down.is_some()
    }
}

/// One connection as the kernel tracks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// IANA protocol number.
    pub protocol: u8,
    pub source: Ipv4Addr,
    /// Zero for protocols without ports, as the other ports.
    pub source_port: u16,
    pub destination: Ipv4Addr,
    pub destination_port: u16,
    /// Where answers come from: the asset's LAN address.
    pub reply_source: Ipv4Addr,
    pub reply_source_port: u16,
    /// Where answers go: the gateway's LAN address and the port that it took.
    pub reply_destination: Ipv4Addr,
    pub reply_destination_port: u16,
}

/// A flowtable of any table: it forwards established connections past everybody's rules.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flowtable {
    pub table: String,
    /// The table's NFPROTO number.
    pub family: u8,
    pub name: String,
    pub devices: Vec<String>,
}

/// Packets that no lane was charged with, since the base was installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BaseState {
    /// From or to a lane interface, refused for want of a lane, or for leaving its lane behind.
    pub refused_packets: u64,
    /// The gateway's own towards a lane interface.
    pub gateway_packets: u64,
    /// From or to the LAN, not forwarded because they were not before.
    pub guarded_packets: u64,
}
