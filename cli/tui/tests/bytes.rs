//! What the screen costs on a slow line: 5 000 sessions, 500 updates a second.

mod common;

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;

use common::{POOR, RICH, at, crowd, overview, session, site, small};
use jiff::tz::TimeZone;
use thinlane_tui::canvas::Canvas;
use thinlane_tui::pace::{BYTES_PER_SECOND, Pace};
use thinlane_tui::{App, Config, Glyphs, Input, Key, View};
use thinlane_wire::api::LiveEvent;

#[derive(Clone, Default)]
struct Line(Rc<RefCell<Vec<u8>>>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const PEERS: u64 = 5_000;
const UPDATES: u64 = 500;

fn busy() -> App {
    let mut app = App::new(Config::default(), RICH, TimeZone::UTC).expect("a screen");
    let sessions = (0..PEERS).map(|number| session(number, 600_000 + number * 200, 0, 0)).collect();
    app.take(overview(sessions, Vec::new(), vec![site(1, "north", "online", 40)]), at(0));
    app
}

/// Runs so many seconds of a busy night; bytes by second.
fn night(app: &mut App, size: (u16, u16), seconds: u64, keys: bool) -> Vec<u64> {
    let line = Line::default();
    let mut canvas = Canvas::new(line.clone());
    let mut pace = Pace::new(None);
    let mut sent = vec![0; seconds as usize];
    let mut next = 0;
    // Every update is parsed once; its totals are then moved on.
    let LiveEvent::Session { session: template } =
        serde_json::from_value(serde_json::json!({"event": "session", "session": session(0, 600_000, 0, 0)}))
            .expect("an event")
    else {
        panic!("a session")
    };
    let views: Vec<_> = app.model.sessions.values().map(|peer| peer.view.clone()).collect();
    drop(template);
    for tick in 0..seconds * 50 {
        let now = at(tick * 20);
        for _ in 0..UPDATES / 50 {
            let mut view = views[(next * 7919 % PEERS) as usize].clone();
            next += 1;
            view.counters.up_bytes += next * 1_000;
            view.counters.down_bytes += next * 37_000;
            view.remaining_ms = view.remaining_ms.map(|left| left.saturating_sub(tick * 20));
            app.take(Input::Event(Box::new(LiveEvent::Session { session: Box::new(view) })), now);
        }
        pace.changed();
        if tick % 50 == 0 {
            app.tick(now);
        }
        if keys && tick % 25 == 0 {
            app.press(Key::Down, now);
            pace.pressed();
        }
        if pace.due().is_some_and(|due| due <= now.mono) {
            let piece = canvas.show(app, size, pace.most(), pace.asks(), now).expect("a line");
            pace.drawn(piece.bytes, piece.whole, now.mono);
            // A line without any delay.
            pace.arrived(now.mono);
            sent[(tick / 50) as usize] += piece.bytes;
        }
    }
    assert_eq!(line.0.borrow().len() as u64, sent.iter().sum::<u64>());
    sent
}

#[test]
fn five_thousand_sessions_and_500_updates_a_second_stay_within_the_budget() {
    for (size, sort) in [((80, 24), "left"), ((200, 50), "down")] {
        let mut app = busy();
        app.list_mut(thinlane_tui::View::Sessions).sort = sort;
        app.list_mut(thinlane_tui::View::Sessions).reverse = true;
        let sent = night(&mut app, size, 5, false);
        let steady: u64 = sent[1..].iter().sum();
        eprintln!("{size:?} by {sort}: {sent:?} bytes by second");
        assert!(steady <= u64::from(BYTES_PER_SECOND) * 4, "{sent:?}");
        assert!(sent.iter().all(|second| *second > 0), "the picture goes on: {sent:?}");
    }
}

#[test]
fn keys_are_answered_while_the_world_is_busy() {
    let mut app = busy();
    let sent = night(&mut app, (80, 24), 3, true);
    eprintln!("with two keys a second: {sent:?} bytes by second");
    assert!(sent[1..].iter().all(|second| *second <= 3 * u64::from(BYTES_PER_SECOND)), "{sent:?}");
    assert!(app.list(thinlane_tui::View::Sessions).selected.is_some());
}

#[test]
fn a_quiet_screen_costs_next_to_nothing() {
    let mut app = small(RICH);
    let line = Line::default();
    let mut canvas = Canvas::new(line.clone());
    canvas.show(&mut app, (120, 40), u64::MAX, false, at(0)).expect("a line");
    let first = line.0.borrow().len();
    assert!(first < 12_000, "{first}");
    for second in 1..=30 {
        app.take(Input::Alive, at(second * 1000));
        canvas.show(&mut app, (120, 40), u64::MAX, true, at(second * 1000)).expect("a line");
    }
    let each = (line.0.borrow().len() - first) / 30;
    eprintln!("seven idle sessions at 120x40: {each} bytes a second");
    assert!(each < 400, "{each} bytes a second for seven clocks");
    let before = line.0.borrow().len();
    let sent = canvas.show(&mut app, (120, 40), u64::MAX, true, at(30_000)).expect("a line");
    assert_eq!(sent.bytes, 0, "no change, no byte");
    assert_eq!(line.0.borrow().len(), before);
}

/// Bytes of each step from list to list, of a question, and of leaving it again.
fn steps(glyphs: Glyphs, size: (u16, u16)) -> Vec<(&'static str, u64)> {
    let mut app = crowd(glyphs);
    let mut canvas = Canvas::new(Line::default());
    let mut show = |app: &mut App| canvas.show(app, size, u64::MAX, true, at(0)).expect("a line").bytes;
    let mut steps = vec![("the first", show(&mut app))];
    for view in View::LISTS.into_iter().cycle().skip(1).take(View::LISTS.len()) {
        app.view = view;
        steps.push((view.word(), show(&mut app)));
    }
    for (name, key) in [("down", Key::Down), ("kill?", Key::Char('x')), ("left", Key::Esc), ("help", Key::Char('?'))] {
        app.press(key, at(0));
        steps.push((name, show(&mut app)));
    }
    steps
}

#[test]
fn another_list_costs_little_more_than_its_words() {
    for (glyphs, size, most) in [(RICH, (80, 24), 2_700), (POOR, (80, 24), 2_400), (RICH, (120, 40), 7_000)] {
        let steps = steps(glyphs, size);
        eprintln!("{size:?}, {glyphs:?}: {steps:?}");
        for (name, bytes) in &steps[1..] {
            assert!(*bytes <= most, "{name} at {size:?}: {bytes} bytes, of {most}");
        }
    }
}
