//! What was measured, by row and round, and the few statistics that are made of it.

use std::collections::BTreeMap;

/// What one figure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    Tcp1,
    Tcp4,
    Cpu1,
    Cpu4,
    Retransmits,
    Ping,
    PingP99,
    Udp1400,
    UdpCut,
    Udp64,
    MemoryIdle,
    MemoryLoaded,
    Start,
    Wakes,
}

impl Metric {
    pub const ALL: [Metric; 14] = [
        Metric::Tcp1,
        Metric::Tcp4,
        Metric::Cpu1,
        Metric::Cpu4,
        Metric::Retransmits,
        Metric::Ping,
        Metric::PingP99,
        Metric::Udp1400,
        Metric::UdpCut,
        Metric::Udp64,
        Metric::MemoryIdle,
        Metric::MemoryLoaded,
        Metric::Start,
        Metric::Wakes,
    ];

    /// The heading, unit included.
    pub fn title(self) -> &'static str {
        match self {
            Metric::Tcp1 => "one TCP flow, Mbit/s",
            Metric::Tcp4 => "four TCP flows, Mbit/s",
            Metric::Cpu1 => "processor seconds per GB, both ends, one TCP flow",
            Metric::Cpu4 => "processor seconds per GB, both ends, four TCP flows",
            Metric::Retransmits => "TCP retransmissions, one flow and four",
            Metric::Ping => "ping under four TCP flows, median, ms",
            Metric::PingP99 => "ping under four TCP flows, 99th of a hundred, ms",
            Metric::Udp1400 => "UDP, packets of 1 400 bytes, highest rate with <= 0.5 % loss, Mbit/s",
            Metric::UdpCut => "UDP, 1 400 bytes in each datagram, two fragments at an MTU of 1 420, likewise, Mbit/s",
            Metric::Udp64 => "UDP, 64 bytes, highest rate with <= 0.5 % loss, thousand packets/s",
            Metric::MemoryIdle => "resident memory, idle, the larger end, MB",
            Metric::MemoryLoaded => "resident memory, four TCP flows, the larger end, MB",
            Metric::Start => "start of the process to the first answer, ms",
            Metric::Wakes => "wake-ups per minute, idle, both ends (keepalive 25 s at one)",
        }
    }

    /// The name in `--json`.
    pub fn key(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// One implementation in one round.
pub type Sample = BTreeMap<Metric, f64>;

/// All rounds of all implementations; a round that failed is an empty sample.
#[derive(Debug, Default)]
pub struct Figures {
    rows: Vec<(String, String, Vec<Sample>)>,
}

/// Middle and ends of some figures.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

pub fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (least, most) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
    Some(Spread { median, least, most })
}

impl Figures {
    /// The sample of a row in a round, made when it is not there.
    pub fn sample(&mut self, id: &str, title: &str, round: usize) -> &mut Sample {
        let at = match self.rows.iter().position(|row| row.0 == id) {
            Some(at) => at,
            None => {
                self.rows.push((id.to_owned(), title.to_owned(), Vec::new()));
                self.rows.len() - 1
            }
        };
        let samples = &mut self.rows[at].2;
        if samples.len() <= round {
            samples.resize(round + 1, Sample::new());
        }
        &mut samples[round]
    }

    /// Ids and titles, in the order of the table.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &str)> {
        self.rows.iter().map(|row| (row.0.as_str(), row.1.as_str()))
    }

    fn samples(&self, id: &str) -> &[Sample] {
        self.rows.iter().find(|row| row.0 == id).map_or(&[], |row| &row.2)
    }

    pub fn values(&self, id: &str, metric: Metric) -> Vec<f64> {
        self.samples(id).iter().filter_map(|sample| sample.get(&metric).copied()).collect()
    }

    pub fn median(&self, id: &str, metric: Metric) -> Option<f64> {
        spread(&self.values(id, metric)).map(|spread| spread.median)
    }

    /// `one` by `other`, round by round, where both have the figure.
    pub fn ratios(&self, one: &str, other: &str, metric: Metric) -> Vec<f64> {
        let pair = |(one, other): (&Sample, &Sample)| match (one.get(&metric), other.get(&metric)) {
            (Some(one), Some(other)) if *other > 0.0 => Some(one / other),
            _ => None,
        };
        self.samples(one).iter().zip(self.samples(other)).filter_map(pair).collect()
    }

    pub fn json(&self) -> serde_json::Value {
        let row = |(id, title, samples): &(String, String, Vec<Sample>)| {
            let samples: Vec<BTreeMap<String, f64>> = samples
                .iter()
                .map(|sample| sample.iter().map(|(metric, value)| (metric.key(), *value)).collect())
                .collect();
            serde_json::json!({"id": id, "title": title, "rounds": samples})
        };
        serde_json::json!({"schema": 1, "rows": self.rows.iter().map(row).collect::<Vec<_>>()})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_made_within_a_round_and_the_median_is_the_middle() {
        let mut figures = Figures::default();
        for (round, (ours, theirs)) in [(30.0, 10.0), (8.0, 4.0), (50.0, 10.0)].into_iter().enumerate() {
            figures.sample("ours", "ours", round).insert(Metric::Tcp1, ours);
            figures.sample("theirs", "theirs", round).insert(Metric::Tcp1, theirs);
        }
        figures.sample("ours", "ours", 3).insert(Metric::Tcp1, 1.0);
        let ratios = figures.ratios("ours", "theirs", Metric::Tcp1);
        assert_eq!(ratios, [3.0, 2.0, 5.0]);
        let spread = spread(&ratios).expect("there are some");
        assert_eq!((spread.least, spread.median, spread.most), (2.0, 3.0, 5.0));
    }
}
