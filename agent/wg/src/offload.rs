//! How a device moves many packets with one call, and how much of the kernel's help it uses for that.
//!
//! Pure: [`parcel`] cuts what the interface hands over, [`coalesce`] puts together what it is handed, `outbox`
//! collects datagrams.

use std::fmt;
use std::str::FromStr;

pub mod coalesce;
mod fuzz;
pub mod header;
pub(crate) mod heavy;
pub(crate) mod outbox;
pub mod parcel;
#[cfg(test)]
mod tests;

pub use fuzz::{fuzz_coalesce, fuzz_header, fuzz_segment};

/// What the interface does for many packets at once, from nothing to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunOffload {
    /// One call, one packet.
    None,
    /// Up to 64 KB of a TCP flow with one call (`TUN_F_TSO4`: lanes carry IPv4), checksums left to whoever cuts them.
    Tso,
    /// Of a UDP flow as well (`TUN_F_USO4`, `TUN_F_USO6`; Linux 6.2).
    TsoUso,
}

/// A level of offload: what a device may use, or what it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Offload {
    pub tun: TunOffload,
    /// Datagrams of one length leave as one (`UDP_SEGMENT`; Linux 4.18).
    pub udp_send: bool,
    /// Datagrams of one sender arrive as one (`UDP_GRO`; Linux 5.0).
    pub udp_receive: bool,
}

impl Offload {
    /// All that this machine's kernel has.
    pub const ALL: Self = Self { tun: TunOffload::TsoUso, udp_send: true, udp_receive: true };
    /// One call, one packet.
    pub const NONE: Self = Self { tun: TunOffload::None, udp_send: false, udp_receive: false };
    /// Only the socket's, not the interface's.
    pub const UDP: Self = Self { tun: TunOffload::None, ..Self::ALL };
    /// All but UDP through the interface.
    pub const TSO: Self = Self { tun: TunOffload::Tso, ..Self::ALL };

    /// What both allow.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            tun: self.tun.min(other.tun),
            udp_send: self.udp_send && other.udp_send,
            udp_receive: self.udp_receive && other.udp_receive,
        }
    }
}

impl fmt::Display for Offload {
    /// Such as `tun tso+uso, udp gso+gro`.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tun = match self.tun {
            TunOffload::None => "none",
            TunOffload::Tso => "tso",
            TunOffload::TsoUso => "tso+uso",
        };
        let udp = match (self.udp_send, self.udp_receive) {
            (true, true) => "gso+gro",
            (true, false) => "gso",
            (false, true) => "gro",
            (false, false) => "none",
        };
        write!(to, "tun {tun}, udp {udp}")
    }
}

/// The word names no level of offload.
#[derive(Debug, thiserror::Error)]
#[error("offload is all, tso, udp or none, not {0:?}")]
pub struct OffloadError(String);

impl FromStr for Offload {
    type Err = OffloadError;

    /// Reads `all`, `tso`, `udp` or `none`.
    fn from_str(text: &str) -> Result<Self, OffloadError> {
        match text {
            "all" => Ok(Self::ALL),
            "tso" => Ok(Self::TSO),
            "udp" => Ok(Self::UDP),
            "none" => Ok(Self::NONE),
            other => Err(OffloadError(other.to_owned())),
        }
    }
}

#[cfg(test)]
mod level_tests {
    use super::*;

    #[test]
    fn a_level_says_what_it_is() {
        let says = |word: &str| word.parse::<Offload>().expect("a level").to_string();
        assert_eq!(says("all"), "tun tso+uso, udp gso+gro");
        assert_eq!(says("tso"), "tun tso, udp gso+gro");
        assert_eq!(says("udp"), "tun none, udp gso+gro");
        assert_eq!(says("none"), "tun none, udp none");
        assert!("some".parse::<Offload>().is_err());
    }

    #[test]
    fn two_levels_share_what_both_have() {
        assert_eq!(Offload::ALL.and(Offload::TSO), Offload::TSO);
        let send_only = Offload { udp_receive: false, ..Offload::UDP };
        assert_eq!(Offload::TSO.and(send_only), send_only);
        assert_eq!(send_only.and(Offload::NONE), Offload::NONE);
    }
}
