//! A slow line, from 9 600 bit/s on, with a busy world at its other end: nothing piles up, and keys are answered.

mod common;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::Write;
use std::rc::Rc;

use common::{RICH, at, overview, session, site};
use jiff::tz::TimeZone;
use thinlane_tui::canvas::Canvas;
use thinlane_tui::decode::QUESTION;
use thinlane_tui::pace::Pace;
use thinlane_tui::{App, Config, Input, Key, View};
use thinlane_wire::api::LiveEvent;

/// Milliseconds of one step of the clock.
const STEP: u64 = 5;
/// Milliseconds from one end of the line to the other, beside what sending takes.
const WAY: u64 = 40;

const PEERS: u64 = 200;
/// Milliseconds of one run.
const RUN: u64 = 40_000;

/// Bytes that were written and have not arrived.
#[derive(Clone, Default)]
struct Queue(Rc<RefCell<VecDeque<u8>>>);

impl Write for Queue {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A line that carries so many bytes a second to a terminal that answers.
struct Slow {
    queue: Queue,
    per_second: u64,
    /// Thousandths of a byte that may go.
    credit: u64,
    /// The last bytes that have left the queue.
    tail: VecDeque<u8>,
    /// When answers come back.
    answers: VecDeque<u64>,
    most: usize,
}

impl Slow {
    fn new(queue: Queue, per_second: u64) -> Self {
        Self { queue, per_second, credit: 0, tail: VecDeque::new(), answers: VecDeque::new(), most: 0 }
    }

    /// Lets one step pass; how many answers have come.
    fn step(&mut self, now: u64) -> usize {
        let mut queue = self.queue.0.borrow_mut();
        self.most = self.most.max(queue.len());
        self.credit += self.per_second * STEP;
        while self.credit >= 1_000 {
            let Some(byte) = queue.pop_front() else {
                self.credit = 0;
                break;
            };
            self.credit -= 1_000;
            self.tail.push_back(byte);
            if self.tail.len() > QUESTION.len() {
                self.tail.pop_front();
            }
            if self.tail.iter().eq(QUESTION) {
                self.answers.push_back(now + 2 * WAY);
            }
        }
        let came = self.answers.iter().take_while(|at| **at <= now).count();
        self.answers.drain(..came);
        came
    }
}

/// How it went.
#[derive(Debug)]
struct Night {
    /// The longest time from a key to the first of its effect on the screen, and to all of it.
    begun: u64,
    slowest: u64,
    /// The most bytes that were under way.
    queued: usize,
    carried: u64,
    pictures: u64,
}

/// Some time at a screen of this size, with 500 updates a second and a key each two seconds.
fn night(per_second: u64, size: (u16, u16), keys: &[Key]) -> Night {
    let mut app = App::new(Config::default(), RICH, TimeZone::UTC).expect("a screen");
    let sessions = (0..PEERS).map(|number| session(number, 1_000_000 + number * 200, 0, 0)).collect();
    app.take(overview(sessions, Vec::new(), vec![site(1, "north", "online", 40)]), at(0));
    let list = app.list_mut(View::Sessions);
    (list.sort, list.reverse) = ("down", true);
    let views: Vec<_> = app.model.sessions.values().map(|peer| peer.view.clone()).collect();
    let queue = Queue::default();
    let mut canvas = Canvas::new(queue.clone());
    let mut line = Slow::new(queue.clone(), per_second);
    let mut pace = Pace::new(None);
    queue.clone().write_all(QUESTION).expect("a line");
    pace.asked(at(0).mono);
    let (mut pressed, mut sent_first, mut waiting) = (0usize, false, None);
    let mut night = Night { begun: 0, slowest: 0, queued: 0, carried: 0, pictures: 0 };
    for step in 0..RUN / STEP {
        let millis = step * STEP;
        let now = at(millis);
        for _ in 0..line.step(millis) {
            pace.arrived(now.mono);
            if let Some((at, true, begun @ false)) = &mut waiting {
                night.begun = night.begun.max(millis - *at);
                *begun = true;
            }
            if sent_first {
                app.arrived();
                // The key was pressed before this piece was made: its effect is there.
                if let Some((at, true, _)) = waiting {
                    night.slowest = night.slowest.max(millis - at);
                    waiting = None;
                }
            }
        }
        if step.is_multiple_of(2) {
            let number = step * 7919 / 2;
            for one in 0..5 {
                let total = step * 40_000 * (1 + (number + one) % 7);
                let mut view = views[((number + one) % PEERS) as usize].clone();
                view.remaining_ms = view.remaining_ms.map(|left| left.saturating_sub(millis));
                (view.counters.up_bytes, view.counters.down_bytes) = (total / 9, total);
                app.take(Input::Event(Box::new(LiveEvent::Session { session: Box::new(view) })), now);
            }
            pace.changed();
        }
        // The first picture is a whole one, and may take what it takes.
        if millis > 10_000 && millis.is_multiple_of(2_000) && waiting.is_none() {
            app.press(keys[pressed % keys.len()], now);
            pressed += 1;
            pace.pressed();
            waiting = Some((millis, false, false));
        }
        if pace.due().is_some_and(|due| due <= now.mono) {
            let sent = canvas.show(&mut app, size, pace.most(), pace.asks(), now).expect("a line");
            pace.drawn(sent.bytes, sent.whole, now.mono);
            sent_first = sent.first;
            night.carried += sent.bytes;
            night.pictures += 1;
            waiting = waiting.map(|(at, _, begun)| (at, true, begun));
        }
    }
    night.queued = line.most;
    assert!(pressed >= 10, "{pressed} keys had their effect: {night:?}");
    night
}

#[test]
fn nothing_piles_up_and_moving_is_seen_within_a_second_at_9600_bits_a_second() {
    for (per_second, size) in [(960, (80, 24)), (960, (120, 40)), (2_400, (80, 24)), (8_000, (200, 50))] {
        let night = night(per_second, size, &[Key::Down, Key::Down, Key::Up]);
        eprintln!("{per_second} bytes a second, {size:?}, moving: {night:?}");
        assert!(night.slowest <= 1_000, "{per_second}, {size:?}: {night:?}");
        assert!(night.queued as u64 <= per_second.max(1_100), "{per_second}, {size:?}: {night:?}");
        assert!(night.carried <= RUN / 1_000 * per_second, "{night:?}");
        assert!(night.pictures > 40, "the picture goes on: {night:?}");
    }
}

#[test]
fn a_question_can_be_read_and_answered_while_the_whole_screen_changes() {
    for (per_second, size, bound) in [(960, (80, 24), 2_500), (2_400, (80, 24), 1_200), (8_000, (120, 40), 800)] {
        let keys = [Key::Down, Key::Char('x'), Key::Esc];
        let night = night(per_second, size, &keys);
        eprintln!("{per_second} bytes a second, {size:?}, asking: {night:?}");
        assert!(night.begun <= 1_000 && night.slowest <= bound, "{per_second}, {size:?}: {night:?}");
    }
}

#[test]
fn enter_counts_only_when_the_question_has_arrived() {
    let mut app = common::small(RICH);
    app.press(Key::Down, at(0));
    let mut canvas = Canvas::new(Queue::default());
    canvas.show(&mut app, (80, 24), u64::MAX, true, at(0)).expect("a line");
    app.press(Key::Char('x'), at(10));
    let sent = canvas.show(&mut app, (80, 24), 120, true, at(10)).expect("a line");
    assert!(!sent.first && !sent.whole, "too long for one piece: {sent:?}");
    assert!(app.press(Key::Enter, at(20)).is_empty(), "it is still on its way");
    let mut pieces = 1;
    while !canvas.show(&mut app, (80, 24), 120, true, at(30)).expect("a line").first {
        pieces += 1;
        assert!(pieces < 12, "it ends");
    }
    assert!(app.press(Key::Enter, at(40)).is_empty(), "sent, and not there yet");
    app.arrived();
    assert_eq!(app.press(Key::Enter, at(50)).len(), 1);
}
