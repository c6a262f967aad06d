//! The terminal: taken over, and given back whatever happens.

use std::io::{self, Stdout, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use ratatui::crossterm::terminal::{self, EnterAlternateScreen, LeaveAlternateScreen};
use ratatui::crossterm::{cursor, execute};
use thinlane_model::Now;
use thinlane_tui::App;
use thinlane_tui::canvas::{Canvas, Sent};
use thinlane_tui::decode::QUESTION;
use tokio::sync::mpsc;

use crate::failure::{Failure, Result, plain};
use crate::system::terminal::Keyboard;

/// The terminal is ours.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// A thread has panicked while it was.
static PANICKED: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// The terminal while it is ours; given back when dropped.
pub struct Screen {
    canvas: Canvas<Stdout>,
}

impl Screen {
    /// Takes the terminal over, and asks it once whether it says when something has arrived. What comes from it ends
    /// when the terminal does.
    pub fn open() -> Result<(Self, mpsc::Receiver<Vec<u8>>)> {
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
        let keyboard = Keyboard::open().map_err(fail)?;
        terminal::enable_raw_mode().map_err(fail)?;
        TAKEN.store(true, Ordering::SeqCst);
        let screen = Self { canvas: Canvas::new(io::stdout()) };
        execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste, cursor::Hide).map_err(fail)?;
        io::stdout().write_all(QUESTION).and_then(|()| io::stdout().flush()).map_err(fail)?;
        let (to, keys) = mpsc::channel(256);
        std::thread::Builder::new().name("keys".to_owned()).spawn(move || keyboard.read(&to)).map_err(fail)?;
        Ok((screen, keys))
    }

    /// Draws at most so many bytes of what has changed; `ask`: the terminal is to say when it has got them.
    pub fn show(&mut self, app: &mut App, most: u64, ask: bool, now: Now) -> Result<Sent> {
        // A terminal without a size is asked again with the next picture.
        let size = size().unwrap_or((80, 24));
        self.canvas.show(app, size, most, ask, now).map_err(|_| Failure::silent(crate::failure::Exit::Other(129)))
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

/// Makes the terminal's lines ordinary again without a byte to it: for one that takes none.
pub fn cook() {
    // A terminal that is gone needs nothing.
    let _ = terminal::disable_raw_mode();
}

/// Gives the terminal back once; whether it was ours.
fn give_back() -> bool {
    let was = TAKEN.swap(false, Ordering::SeqCst);
    if was {
        // A terminal that is gone needs nothing; each step is tried whatever became of the one before.
        let _ = io::stdout().write_all(b"\x1b[m");
        let _ = execute!(io::stdout(), DisableBracketedPaste, cursor::Show);
        let _ = execute!(io::stdout(), LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
        let _ = io::stdout().flush();
    }
    was
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
}
