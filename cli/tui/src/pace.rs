//! How often the screen is drawn and how much is sent at once, so that what goes to the terminal is bounded whatever
//! the world does, and nothing piles up on the way there.
//!
//! Between this program and the eyes are a pseudo-terminal, a secure shell and a network, and each of them gladly
//! keeps seconds of pictures. So each piece that is sent ends with a question that every terminal answers, and the
//! next piece waits for the answer: what is under way is never more than one piece. Pieces become smaller until one
//! takes a quarter of a second, and grow where the line is fast.

use thinlane_model::Boot;

/// Milliseconds between two pictures at least.
const BETWEEN: u64 = 200;
/// Milliseconds between two pictures that a key asked for.
const BETWEEN_KEYS: u64 = 30;
/// Bytes a second that the world's changes may cost, unless configured.
pub const BYTES_PER_SECOND: u32 = 12_000;
/// The least that can be configured: a line of a screen each second.
const LEAST: u32 = 200;

/// A piece should be on the screen after so many milliseconds, the line's own delay aside.
const PIECE: u64 = 250;
/// Bytes of a piece: the least, the first, and the most.
const PIECES: (u64, u64, u64) = (200, 1_024, 65_536);
/// Milliseconds that a terminal has for its first answer; after that it is taken for one that never answers.
const FIRST: u64 = 1_500;
/// Milliseconds after which a terminal that used to answer is no longer waited for.
const STALLED: u64 = 10_000;

/// Whether the terminal says when a piece has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    Unknown,
    Yes,
    Never,
}

/// Allows pictures: never more than five a second without a key, after a costly one a pause that pays for it, and
/// none while another is still under way.
#[derive(Debug, Clone)]
pub struct Pace {
    per_second: u64,
    next: Boot,
    next_key: Boot,
    changed: bool,
    pressed: bool,
    answers: Answers,
    /// Sent and not answered: when, and how many bytes.
    under_way: Option<(Boot, u64)>,
    /// Bytes of a piece.
    piece: u64,
    /// How long an answer takes when nothing else is on the line, in milliseconds.
    delay: Option<u64>,
}

impl Pace {
    /// A pace of at most so many bytes a second for the world's changes.
    pub fn new(per_second: Option<u32>) -> Self {
        let per_second = u64::from(per_second.unwrap_or(BYTES_PER_SECOND).max(LEAST));
        Self {
            per_second,
            next: Boot::default(),
            next_key: Boot::default(),
            changed: true,
            pressed: true,
            answers: Answers::Unknown,
            under_way: None,
            piece: PIECES.1,
            delay: None,
        }
    }

    /// The world has changed, or a second has passed.
    pub fn changed(&mut self) {
        self.changed = true;
    }

    /// A key was pressed, the window has another size, or an answer to the person has come.
    pub fn pressed(&mut self) {
        self.pressed = true;
    }

    /// When the next piece may be sent; `None`: nothing is to be drawn.
    pub fn due(&self) -> Option<Boot> {
        let due = match (self.pressed, self.changed) {
            (true, _) => self.next_key,
            (false, true) => self.next,
            (false, false) => return None,
        };
        Some(due.max(self.given_up().unwrap_or_default()))
    }

    /// When what is under way is no longer waited for.
    fn given_up(&self) -> Option<Boot> {
        let (sent, _) = self.under_way?;
        Some(Boot(sent.0 + if self.answers == Answers::Yes { STALLED } else { FIRST }))
    }

    /// Bytes that the next piece may have; a line of the screen is never cut.
    pub fn most(&self) -> u64 {
        match self.answers {
            // Nobody would say when it has arrived.
            Answers::Never => u64::MAX,
            Answers::Unknown | Answers::Yes => self.piece,
        }
    }

    /// Whether a piece is to end with a question.
    pub fn asks(&self) -> bool {
        self.answers != Answers::Never
    }

    /// A question was sent for itself, to learn whether there will be answers.
    pub fn asked(&mut self, now: Boot) {
        self.under_way = Some((now, 0));
    }

    /// A piece was sent and cost so many bytes; `whole`: nothing of the picture is left to be sent.
    pub fn drawn(&mut self, bytes: u64, whole: bool, now: Boot) {
        if self.given_up().is_some_and(|at| at <= now) {
            // The line may be stalled, or its answer lost: both are found out with little.
            (self.under_way, self.piece) = (None, PIECES.0);
            if self.answers == Answers::Unknown {
                self.answers = Answers::Never;
            }
        }
        let pause = (bytes.saturating_mul(1000) / self.per_second).max(BETWEEN);
        let was_key = std::mem::take(&mut self.pressed);
        self.changed = false;
        self.next_key = Boot(now.0 + BETWEEN_KEYS);
        // Where nobody says how the line is, a key's picture is paid for as well: typing must not raise the world's
        // share. Where the terminal answers, nothing piles up, and a debt would only make the picture older.
        let from = if was_key && self.answers != Answers::Yes { self.next.max(now) } else { now };
        self.next = Boot((from.0 + pause).min(now.0 + 10_000));
        if bytes > 0 && self.asks() {
            self.under_way = Some((now, bytes));
        }
        if !whole {
            // The rest of what a key asked for comes as soon as the line is free, the world's in its own time.
            *(if was_key { &mut self.pressed } else { &mut self.changed }) = true;
        }
    }

    /// Whether something is under way, so that nobody can have read it yet.
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// The terminal has answered: the piece is on the screen.
    pub fn arrived(&mut self, now: Boot) {
        if self.answers != Answers::Yes {
            (self.answers, self.piece) = (Answers::Yes, PIECES.1);
        }
        let Some((sent, bytes)) = self.under_way.take() else { return };
        let took = sent.until(now).as_millis();
        // Lines change: the shortest delay is forgotten, but slowly, or a long piece would pass for a long way.
        let delay = self.delay.map_or(took, |delay| took.min(delay + 1));
        self.delay = Some(delay);
        let sending = took - delay;
        if sending > PIECE {
            self.piece = (bytes.saturating_mul(PIECE) / sending).clamp(PIECES.0, PIECES.2);
        } else if sending < PIECE / 2 && bytes.saturating_mul(2) > self.piece {
            self.piece = (self.piece * 2).min(PIECES.2);
        }
        // The world gets half of a slow line at most: the other half is for keys.
        self.next = self.next.max(Boot(now.0 + sending));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_cost_no_more_than_the_budget_whatever_each_costs() {
        for cost in [100u64, 1_000, 4_000, 40_000] {
            let mut pace = Pace::new(Some(10_000));
            pace.drawn(0, true, Boot(0));
            let mut sent = 0;
            for now in 0..60_000 {
                pace.changed();
                if pace.due().is_some_and(|due| due.0 <= now) {
                    sent += cost;
                    pace.drawn(cost, true, Boot(now));
                }
            }
            assert!(sent <= 60 * 10_000 + cost, "{cost} a picture: {sent} in a minute");
            assert!(sent > 0);
        }
    }

    #[test]
    fn a_key_is_answered_at_once_even_when_the_budget_is_spent() {
        let mut pace = Pace::new(Some(1_000));
        pace.drawn(9_000, true, Boot(0));
        pace.arrived(Boot(5));
        pace.changed();
        assert!(pace.due().is_some_and(|due| due.0 > 5_000));
        pace.pressed();
        assert!(pace.due().is_some_and(|due| due.0 <= 100));
    }

    #[test]
    fn nothing_is_drawn_when_nothing_has_changed() {
        let mut pace = Pace::new(None);
        pace.drawn(10, true, Boot(0));
        assert_eq!(pace.due(), None);
    }

    #[test]
    fn nothing_is_sent_before_the_last_has_arrived() {
        let mut pace = Pace::new(None);
        pace.asked(Boot(0));
        pace.arrived(Boot(40));
        pace.drawn(900, true, Boot(40));
        pace.pressed();
        assert!(pace.is_under_way() && pace.due().is_some_and(|due| due.0 > 5_000), "a key waits as well");
        pace.arrived(Boot(900));
        assert!(pace.due().is_some_and(|due| due.0 <= 900));
    }

    #[test]
    fn a_terminal_that_never_answers_is_waited_for_once() {
        let mut pace = Pace::new(None);
        pace.asked(Boot(0));
        let due = pace.due().expect("the first picture");
        assert_eq!(due.0, FIRST);
        pace.drawn(5_000, true, due);
        assert!(!pace.asks() && !pace.is_under_way() && pace.most() == u64::MAX);
        pace.pressed();
        assert!(pace.due().is_some_and(|next| next.0 <= due.0 + BETWEEN_KEYS));
    }

    #[test]
    fn an_answer_that_is_lost_delays_and_does_not_end_the_pictures() {
        let mut pace = Pace::new(None);
        pace.asked(Boot(0));
        pace.arrived(Boot(1));
        pace.drawn(500, true, Boot(1));
        pace.changed();
        let due = pace.due().expect("due");
        assert_eq!(due.0, 1 + STALLED);
        pace.drawn(100, true, due);
        assert!(pace.asks() && pace.is_under_way(), "it is asked again");
    }

    #[test]
    fn pieces_fit_the_line() {
        for per_second in [960u64, 8_000, 1_000_000] {
            let mut pace = Pace::new(Some(u32::MAX));
            let mut now = 0;
            pace.asked(Boot(now));
            for _ in 0..200 {
                now += 50;
                pace.arrived(Boot(now));
                // Now a whole piece, now a line of text.
                for bytes in [pace.most(), 60] {
                    pace.drawn(bytes, true, Boot(now));
                    now += 50 + bytes * 1000 / per_second;
                    pace.arrived(Boot(now));
                }
                pace.asked(Boot(now));
            }
            let takes = pace.most() * 1000 / per_second;
            assert!(takes <= 2 * PIECE, "{per_second} bytes a second: a piece of {} takes {takes} ms", pace.most());
            assert!(takes >= PIECE / 4 || pace.most() == PIECES.2, "{per_second}: {}", pace.most());
        }
    }
}
