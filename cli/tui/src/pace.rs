//! How often the screen is drawn, so that what goes to the terminal is bounded whatever the world does.

use thinlane_model::Boot;

/// Milliseconds between two pictures at least.
const BETWEEN: u64 = 200;
/// Milliseconds between two pictures that a key asked for.
const BETWEEN_KEYS: u64 = 30;
/// Bytes a second that the world's changes may cost, unless configured.
pub const BYTES_PER_SECOND: u32 = 12_000;
/// The least that can be configured: a line of a screen each second.
const LEAST: u32 = 200;

/// Allows pictures: never more than five a second without a key, and after a costly one a pause that pays for it.
#[derive(Debug, Clone)]
pub struct Pace {
    per_second: u64,
    next: Boot,
    next_key: Boot,
    changed: bool,
    pressed: bool,
}

impl Pace {
    pub fn new(per_second: Option<u32>) -> Self {
        let per_second = u64::from(per_second.unwrap_or(BYTES_PER_SECOND).max(LEAST));
        Self { per_second, next: Boot::default(), next_key: Boot::default(), changed: true, pressed: true }
    }

    /// The world has changed, or a second has passed.
    pub fn changed(&mut self) {
        self.changed = true;
    }

    /// A key was pressed, the window has another size, or an answer to the person has come.
    pub fn pressed(&mut self) {
        self.pressed = true;
    }

    /// When the next picture may be drawn; `None`: nothing is to be drawn.
    pub fn due(&self) -> Option<Boot> {
        match (self.pressed, self.changed) {
            (true, _) => Some(self.next_key),
            (false, true) => Some(self.next),
            (false, false) => None,
        }
    }

    /// A picture was drawn and cost so many bytes.
    pub fn drawn(&mut self, bytes: u64, now: Boot) {
        let pause = (bytes.saturating_mul(1000) / self.per_second).max(BETWEEN);
        let was_key = std::mem::take(&mut self.pressed);
        self.changed = false;
        self.next_key = Boot(now.0 + BETWEEN_KEYS);
        // A key's picture is paid for as well, so that typing does not raise the world's share.
        let from = if was_key { self.next.max(now) } else { now };
        self.next = Boot((from.0 + pause).min(now.0 + 10_000));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_cost_no_more_than_the_budget_whatever_each_costs() {
        for cost in [100u64, 1_000, 4_000, 40_000] {
            let mut pace = Pace::new(Some(10_000));
            pace.drawn(0, Boot(0));
            let mut sent = 0;
            for now in 0..60_000 {
                pace.changed();
                if pace.due().is_some_and(|due| due.0 <= now) {
                    sent += cost;
                    pace.drawn(cost, Boot(now));
                }
            }
            assert!(sent <= 60 * 10_000 + cost, "{cost} a picture: {sent} in a minute");
            assert!(sent > 0);
        }
    }

    #[test]
    fn a_key_is_answered_at_once_even_when_the_budget_is_spent() {
        let mut pace = Pace::new(Some(1_000));
        pace.drawn(9_000, Boot(0));
        pace.changed();
        assert!(pace.due().is_some_and(|due| due.0 > 5_000));
        pace.pressed();
        assert!(pace.due().is_some_and(|due| due.0 <= 100));
    }

    #[test]
    fn nothing_is_drawn_when_nothing_has_changed() {
        let mut pace = Pace::new(None);
        pace.drawn(10, Boot(0));
        assert_eq!(pace.due(), None);
    }
}
