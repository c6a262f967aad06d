//! What crossed a lane.

use std::ops::Add;

use serde::{Deserialize, Serialize};

/// Packets and bytes of one session since it opened. Packets of record are segments as the device that
/// encrypts them counts them; bytes are inner IP lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Engineer to asset.
    pub up_packets: u64,
    pub up_bytes: u64,
    /// Asset to engineer.
    pub down_packets: u64,
    pub down_bytes: u64,
    /// Of this session's /32, either direction, but not its flow, wherever it was aimed.
    pub denied_packets: u64,
    /// With a source that is not this session's /32.
    pub spoofed_packets: u64,
}

impl Add for Counters {
    type Output = Counters;
    fn add(self, other: Counters) -> Counters {
        Counters {
            up_packets: self.up_packets.saturating_add(other.up_packets),
            up_bytes: self.up_bytes.saturating_add(other.up_bytes),
            down_packets: self.down_packets.saturating_add(other.down_packets),
            down_bytes: self.down_bytes.saturating_add(other.down_bytes),
            denied_packets: self.denied_packets.saturating_add(other.denied_packets),
            spoofed_packets: self.spoofed_packets.saturating_add(other.spoofed_packets),
        }
    }
}
