//! What a lane of the kernel has carried since it was opened, from counters of the table that neither begin nor end with
//! the lane's device.

use std::collections::BTreeMap;

use thinlane_model::{Counters, SessionId};
use thinlane_nft::LaneState;
use thinlane_wg::LaneReport;

/// Lanes of the present device.
#[derive(Debug, Default)]
pub struct Tally(BTreeMap<SessionId, Lane>);

#[derive(Debug, Default)]
struct Lane {
    /// What the table said at the beginning.
    start: Counters,
    /// The last answer, for a table that is gone.
    last: Counters,
}

impl Tally {
    /// A lane begins, with `start` in the table by what was told of it before.
    pub fn begin(&mut self, session: SessionId, start: Counters) {
        self.0.insert(session, Lane { start, last: Counters::default() });
    }

    pub fn end(&mut self, session: SessionId) {
        self.0.remove(&session);
    }

    /// Puts what was carried into reports that know of nothing but spoofed packets.
    pub fn fill(&mut self, reports: &mut [LaneReport], table: &[LaneState]) {
        for report in reports {
            let lane = table.iter().find(|lane| lane.session == report.session);
            let spoofed_packets = report.counters.spoofed_packets;
            let counters = self.take(report.session, lane.map(LaneState::counters));
            report.counters = Counters { spoofed_packets, ..counters };
            report.late_packets += lane.map_or(0, |lane| lane.late_packets);
        }
    }

    /// What was carried since the beginning, where the table says `now`; `None`: there is no such lane in it.
    fn take(&mut self, session: SessionId, now: Option<Counters>) -> Counters {
        let lane = self.0.entry(session).or_default();
        if let Some(now) = now {
            if now.up_packets < lane.start.up_packets || now.down_packets < lane.start.down_packets {
                // It began anew, and counts from nothing.
                lane.start = Counters::default();
            }
            lane.last = since(now, lane.start);
        }
        lane.last
    }
}

fn since(now: Counters, start: Counters) -> Counters {
    Counters {
        up_packets: now.up_packets.saturating_sub(start.up_packets),
        up_bytes: now.up_bytes.saturating_sub(start.up_bytes),
        down_packets: now.down_packets.saturating_sub(start.down_packets),
        down_bytes: now.down_bytes.saturating_sub(start.down_bytes),
        denied_packets: now.denied_packets.saturating_sub(start.denied_packets),
        spoofed_packets: now.spoofed_packets.saturating_sub(start.spoofed_packets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(packets: u64) -> Counters {
        Counters { up_packets: packets, up_bytes: packets * 100, ..Counters::default() }
    }

    #[test]
    fn a_lane_counts_from_its_beginning_and_over_a_table_that_was_flushed() {
        let session = SessionId::from_random([1; 5]);
        let mut tally = Tally::default();
        tally.begin(session, up(10));
        assert_eq!(tally.take(session, Some(up(12))), up(2));
        assert_eq!(tally.take(session, None), up(2), "the table is gone: what was known last");
        assert_eq!(tally.take(session, Some(up(1))), up(1), "a new table, a new count");
        tally.end(session);
        assert_eq!(tally.take(session, Some(up(3))), up(3));
    }
}
