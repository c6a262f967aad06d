//! The terminal: taken over, and given back whatever happens.

use std::io::{self, Stdout, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::crossterm::event::{
    self, DisableBracketedPaste, EnableBracketedPaste, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers,
};
use ratatui::crossterm::terminal::{self, EnterAlternateScreen, LeaveAlternateScreen};
use ratatui::crossterm::{cursor, execute};
use thinlane_model::Now;
use thinlane_tui::canvas::Canvas;
use thinlane_tui::{App, Key};
use tokio::sync::mpsc;

use crate::failure::{Failure, Result, plain};

/// How long the reading thread waits before it looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// The terminal is ours.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// A thread has panicked while it was.
static PANICKED: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// Something from the keyboard, or a window of another size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pressed {
    Key(Key),
    Paste(String),
    Resized,
}

/// The terminal while it is ours; given back when dropped.
pub struct Screen {
    canvas: Canvas<Stdout>,
}

impl Screen {
    /// Takes the terminal over. The keys end when the terminal does.
    pub fn open() -> Result<(Self, mpsc::Receiver<Pressed>)> {
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                // First the terminal: what a panic says must be readable.
                if give_back() {
                    PANICKED.store(true, Ordering::SeqCst);
                }
                before(info);
            }));
        });
        let fail = |error: io::Error| Failure::failed(format!("the terminal: {}", plain(&error)));
        terminal::enable_raw_mode().map_err(fail)?;
        TAKEN.store(true, Ordering::SeqCst);
        let screen = Self { canvas: Canvas::new(io::stdout()) };
        execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste, cursor::Hide).map_err(fail)?;
        let (to, keys) = mpsc::channel(256);
        std::thread::Builder::new().name("keys".to_owned()).spawn(move || read_keys(&to)).map_err(fail)?;
        Ok((screen, keys))
    }

    /// Draws what has changed; how many bytes that took.
    pub fn show(&mut self, app: &mut App, now: Now) -> Result<u64> {
        // A terminal without a size is asked again with the next picture.
        let size = size().unwrap_or((80, 24));
        self.canvas.show(app, size, now).map_err(|_| Failure::silent(crate::failure::Exit::Other(129)))
    }

    /// The next picture is drawn whole.
    pub fn forget(&mut self) {
        self.canvas.forget();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Columns and rows of the terminal on stdout.
pub fn size() -> Option<(u16, u16)> {
    terminal::size().ok().filter(|(width, height)| *width > 0 && *height > 0)
}

/// A thread has panicked; the terminal was given back, and the screen must end.
pub fn has_panicked() -> bool {
    PANICKED.load(Ordering::SeqCst)
}

/// Gives the terminal back once; whether it was ours.
fn give_back() -> bool {
    let was = TAKEN.swap(false, Ordering::SeqCst);
    if was {
        // A terminal that is gone needs nothing; each step is tried whatever became of the one before.
        let _ = execute!(io::stdout(), DisableBracketedPaste, cursor::Show);
        let _ = execute!(io::stdout(), LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
        let _ = io::stdout().flush();
    }
    was
}

fn read_keys(to: &mpsc::Sender<Pressed>) {
    while !to.is_closed() {
        let pressed = match event::poll(LOOK) {
            Ok(false) => continue,
            Ok(true) => match event::read() {
                Ok(event) => pressed(event),
                Err(_) => return,
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        if let Some(pressed) = pressed
            && to.blocking_send(pressed).is_err()
        {
            return;
        }
    }
}

fn pressed(event: Event) -> Option<Pressed> {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => self::key(key).map(Pressed::Key),
        Event::Paste(text) => Some(Pressed::Paste(text)),
        Event::Resize(..) => Some(Pressed::Resized),
        _ => None,
    }
}

/// A key in the screen's own terms. With Alt it is no key of ours: Esc and a letter in one read look like that, and
/// must not act.
fn key(event: KeyEvent) -> Option<Key> {
    if event.modifiers.intersects(KeyModifiers::ALT | KeyModifiers::META | KeyModifiers::SUPER) {
        return None;
    }
    let control = event.modifiers.contains(KeyModifiers::CONTROL);
    Some(match event.code {
        KeyCode::Char('h') if control => Key::Backspace,
        KeyCode::Char(letter) if control => Key::Ctrl(letter.to_ascii_lowercase()),
        KeyCode::Char(letter) => Key::Char(letter),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Esc,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Delete => Key::Delete,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Runs this test program's own `name` on a terminal of its own, then asks that terminal how it is.
    fn on_a_terminal(name: &str, then: &str) -> String {
        let program = std::env::current_exe().expect("this program");
        let line = format!("{} --ignored --exact {name} --nocapture; {then} stty -a", program.display());
        let out = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("TERM", "xterm-256color")
            .stdin(std::process::Stdio::null())
            .output()
            .expect("script(1) of bsdutils");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn is_given_back(seen: &str) {
        let [took, gave] = ["\u{1b}[?1049h", "\u{1b}[?1049l"]
            .map(|code| seen.rfind(code).unwrap_or_else(|| panic!("no {code:?} in {seen:?}")));
        assert!(took < gave, "{seen:?}");
        assert!(seen.rfind("\u{1b}[?25h").is_some_and(|at| at > took), "the cursor is hidden: {seen:?}");
        for mode in ["icanon", "echo", "isig", "opost"] {
            assert!(seen.split_whitespace().any(|word| word == mode), "the terminal is still raw ({mode}): {seen:?}");
        }
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_speaks() {
        let seen = on_a_terminal("cmd::tui::terminal::tests::child_that_panics", "");
        is_given_back(&seen);
        let (gave, said) = (seen.find("\u{1b}[?1049l"), seen.find("on purpose"));
        assert!(gave < said, "{seen:?}");
    }

    #[test]
    fn a_panic_on_another_thread_gives_it_back_as_well() {
        is_given_back(&on_a_terminal("cmd::tui::terminal::tests::child_whose_thread_panics", ""));
    }

    #[test]
    fn an_ordinary_end_gives_it_back() {
        is_given_back(&on_a_terminal("cmd::tui::terminal::tests::child_that_ends", ""));
    }

    #[test]
    #[ignore = "runs inside the tests above"]
    fn child_that_panics() {
        let _screen = Screen::open().expect("a terminal");
        panic!("on purpose");
    }

    #[test]
    #[ignore = "runs inside the tests above"]
    fn child_whose_thread_panics() {
        let screen = Screen::open().expect("a terminal");
        let _ = std::thread::spawn(|| panic!("on purpose")).join();
        assert!(has_panicked());
        std::mem::forget(screen);
    }

    #[test]
    #[ignore = "runs inside the tests above"]
    fn child_that_ends() {
        drop(Screen::open().expect("a terminal"));
    }

    #[test]
    fn escape_and_a_letter_in_one_read_do_nothing() {
        let alt = |letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::ALT);
        assert_eq!(key(alt('x')), None);
        assert_eq!(key(KeyEvent::new(KeyCode::Char('x'), KeyModifiers::NONE)), Some(Key::Char('x')));
        assert_eq!(key(KeyEvent::new(KeyCode::Char('C'), KeyModifiers::CONTROL)), Some(Key::Ctrl('c')));
    }
}
