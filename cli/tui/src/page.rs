//! The page of one session: what the snapshot does not carry.

use thinlane_model::{Boot, SessionId, Wall};
use thinlane_wire::api::{LogEntry, RequestView, Sample, SessionView};

/// What was fetched for a page.
#[derive(Debug, Clone)]
pub struct Found {
    pub session: SessionView,
    pub request: Option<RequestView>,
    /// Oldest first.
    pub history: Vec<Sample>,
    /// What the log says of it, oldest first.
    pub timeline: Vec<LogEntry>,
    /// What could not be fetched, and why.
    pub missing: Vec<String>,
}

/// A page on top of the lists.
#[derive(Debug, Clone)]
pub struct Page {
    pub id: SessionId,
    pub found: Option<Found>,
    pub problem: Option<String>,
    pub scroll: usize,
    /// How many lines it has, as drawn last.
    pub lines: usize,
    /// When its rest was asked for.
    pub asked: Boot,
}

/// Bytes of one stretch of a session's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    pub up: u64,
    pub down: u64,
    /// In some of it nobody was told what passed: it is no silence.
    pub unknown: bool,
}

/// A session's life as it is drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plot {
    pub stretches: Vec<Stretch>,
    /// Bytes that passed in what is unknown, both directions.
    pub untold: u64,
}

impl Page {
    pub fn new(id: SessionId, now: Boot) -> Self {
        Self { id, found: None, problem: None, scroll: 0, lines: 0, asked: now }
    }

    pub fn take(&mut self, found: Result<Found, String>) {
        match found {
            Ok(mut found) => {
                // A controller that has forgotten the beginning does not take it from whoever still has it.
                let had = self.found.take().map(|had| had.history).unwrap_or_default();
                let first = found.history.first().map(|sample| sample.at);
                let mut whole: Vec<Sample> =
                    had.into_iter().filter(|sample| first.is_none_or(|first| sample.at < first)).collect();
                whole.append(&mut found.history);
                found.history = whole;
                self.found = Some(found);
                self.problem = None;
            }
            Err(problem) => self.problem = Some(problem),
        }
    }
}

/// A session's life cut into `count` stretches of equal length: what was counted between two samples is spread
/// evenly over the time between them, except where nobody listened. Nothing is known after `known`.
pub fn plot(samples: &[Sample], from: Wall, to: Wall, known: Wall, count: usize) -> Plot {
    let mut parts = vec![(0.0, 0.0, false); count];
    let mut untold = 0u64;
    let length = (to.as_millis() - from.as_millis()).max(1) as f64;
    let place =
        |at: Wall| ((at.as_millis() - from.as_millis()) as f64 / length * count as f64).clamp(0.0, count as f64);
    let mut before = Sample { at: from, up_bytes: 0, down_bytes: 0, gap: false };
    for sample in samples {
        let (begin, end) = (place(before.at), place(sample.at));
        let up = sample.up_bytes.saturating_sub(before.up_bytes);
        let down = sample.down_bytes.saturating_sub(before.down_bytes);
        let whole = (end - begin).max(f64::EPSILON);
        let first = begin.floor() as usize;
        let last = (end.ceil() as usize).max(first + 1).min(count);
        if sample.gap {
            untold = untold.saturating_add(up).saturating_add(down);
        }
        for (at, part) in parts.iter_mut().enumerate().take(last).skip(first.min(count.saturating_sub(1))) {
            if sample.gap {
                part.2 = true;
                continue;
            }
            let share =
                if end <= begin { 1.0 } else { ((end.min(at as f64 + 1.0) - begin.max(at as f64)) / whole).max(0.0) };
            part.0 += up as f64 * share;
            part.1 += down as f64 * share;
        }
        before = *sample;
    }
    // Only whole stretches: the running one always is a little ahead of what was heard.
    let last = samples.last().map_or(from, |sample| sample.at).max(known);
    for part in parts.iter_mut().skip(place(last).ceil() as usize) {
        part.2 = true;
    }
    let stretch =
        |(up, down, unknown): (f64, f64, bool)| Stretch { up: up.round() as u64, down: down.round() as u64, unknown };
    Plot { stretches: parts.into_iter().map(stretch).collect(), untold }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64, up: u64, down: u64) -> Sample {
        Sample { at: Wall::from_millis(second * 1000), up_bytes: up, down_bytes: down, gap: false }
    }

    fn stretches(samples: &[Sample], from: Wall, to: Wall, count: usize) -> Vec<Stretch> {
        plot(samples, from, to, to, count).stretches
    }

    #[test]
    fn a_plot_holds_every_byte_wherever_the_samples_lie() {
        let samples = [at(3, 10, 0), at(17, 500, 40), at(18, 500, 4000), at(60, 530, 4000)];
        for count in [1, 2, 7, 60, 100] {
            let plot = stretches(&samples, Wall::from_millis(0), Wall::from_millis(60_000), count);
            let up: u64 = plot.iter().map(|part| part.up).sum();
            let down: u64 = plot.iter().map(|part| part.down).sum();
            assert!(up.abs_diff(530) <= count as u64 && down.abs_diff(4000) <= count as u64, "{count}: {up} {down}");
        }
    }

    #[test]
    fn a_burst_stands_where_it_was() {
        let plot = stretches(
            &[at(30, 0, 0), at(31, 900, 0), at(60, 900, 0)],
            Wall::from_millis(0),
            Wall::from_millis(60_000),
            60,
        );
        assert_eq!(plot.iter().position(|part| part.up > 0), Some(30));
        assert_eq!(plot[30].up, 900);
    }

    #[test]
    fn samples_at_one_moment_or_outside_divide_by_nothing() {
        let same = Wall::from_millis(5_000);
        let plot = stretches(&[at(5, 100, 0), at(5, 200, 0), at(90, 300, 0), at(1, 400, 0)], same, same, 10);
        assert_eq!(plot.len(), 10);
        assert!(stretches(&[at(5, 1, 1)], same, same, 0).is_empty());
    }

    #[test]
    fn what_nobody_was_told_of_is_unknown_and_neither_silence_nor_a_flat_bar() {
        let gap = |sample: Sample| Sample { gap: true, ..sample };
        let samples = [at(10, 100, 0), gap(at(40, 9_000, 1_000)), at(41, 9_050, 1_000), at(45, 9_050, 1_000)];
        let plot = plot(&samples, Wall::from_millis(0), Wall::from_millis(60_000), Wall::from_millis(50_000), 60);
        let unknown: Vec<usize> =
            plot.stretches.iter().enumerate().filter(|(_, part)| part.unknown).map(|(second, _)| second).collect();
        assert_eq!(unknown, (10..40).chain(50..60).collect::<Vec<_>>());
        assert_eq!(plot.stretches.iter().map(|part| part.up).sum::<u64>(), 150, "{plot:?}");
        assert_eq!(plot.untold, 8_900 + 1_000);
        assert!(plot.stretches[46..50].iter().all(|part| !part.unknown && part.up == 0), "a quiet lane is quiet");
    }
}
