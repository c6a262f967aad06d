//! The console: its events as the bytes that a terminal sends.

use std::io;
use std::time::Duration;

use ratatui::crossterm::ansi_support::supports_ansi;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal;
use tokio::sync::mpsc;
use tokio::time::{Interval, interval};

/// How long the reading thread waits before it looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);
/// How often the size is looked at.
const SIZE: Duration = Duration::from_millis(250);

/// Whether letters beyond ASCII are shown, whatever the environment says: consoles take UTF-16.
pub const UNICODE: bool = true;

/// Whether colours and moves of the cursor are understood; asked for, because consoles begin without.
pub fn understands_codes() -> bool {
    supports_ansi()
}

/// A console that shows nothing of what is typed, and hands Ctrl-C over as a byte, so that it is never left like this.
pub struct Hidden;

impl Hidden {
    pub fn begin() -> io::Result<Self> {
        terminal::enable_raw_mode().map(|()| Self)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // There is nobody to tell, and no better state to leave the console in.
        let _ = terminal::disable_raw_mode();
    }
}

/// What is typed, as the bytes that a terminal sends.
pub struct Keyboard;

impl Keyboard {
    pub fn open() -> io::Result<Self> {
        Ok(Self)
    }

    /// Hands over what is typed until the console ends or nobody listens; blocks.
    pub fn read(self, to: &mpsc::Sender<Vec<u8>>) {
        while !to.is_closed() {
            let bytes = match event::poll(LOOK).and_then(|ready| ready.then(event::read).transpose()) {
                Ok(Some(Event::Key(key))) => bytes(key),
                Ok(Some(Event::Paste(text))) => [&b"\x1b[200~"[..], text.as_bytes(), &b"\x1b[201~"[..]].concat(),
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            if !bytes.is_empty() && to.blocking_send(bytes).is_err() {
                return;
            }
        }
    }
}

/// A key as a terminal sends it (ECMA-48, and xterm for what that does not know); nothing for what no terminal sends.
fn bytes(key: KeyEvent) -> Vec<u8> {
    if key.kind == KeyEventKind::Release {
        return Vec::new();
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL) && !key.modifiers.contains(KeyModifiers::ALT);
    let named: &[u8] = match key.code {
        KeyCode::Char(letter) if control && letter.is_ascii_alphabetic() => {
            return vec![letter.to_ascii_lowercase() as u8 - b'a' + 1];
        }
        KeyCode::Char(letter) => return letter.to_string().into_bytes(),
        KeyCode::Enter => b"\r",
        KeyCode::Tab => b"\t",
        KeyCode::BackTab => b"\x1b[Z",
        KeyCode::Backspace => b"\x7f",
        KeyCode::Esc => b"\x1b",
        KeyCode::Up => b"\x1b[A",
        KeyCode::Down => b"\x1b[B",
        KeyCode::Right => b"\x1b[C",
        KeyCode::Left => b"\x1b[D",
        KeyCode::Home => b"\x1b[H",
        KeyCode::End => b"\x1b[F",
        KeyCode::Insert => b"\x1b[2~",
        KeyCode::Delete => b"\x1b[3~",
        KeyCode::PageUp => b"\x1b[5~",
        KeyCode::PageDown => b"\x1b[6~",
        KeyCode::F(1) => b"\x1bOP",
        KeyCode::F(2) => b"\x1bOQ",
        KeyCode::F(3) => b"\x1bOR",
        KeyCode::F(4) => b"\x1bOS",
        KeyCode::F(5) => b"\x1b[15~",
        _ => b"",
    };
    named.to_vec()
}

/// Tells when the console's size has changed.
pub struct Resized {
    looks: Interval,
    last: Option<(u16, u16)>,
}

impl Resized {
    pub fn watch() -> io::Result<Self> {
        Ok(Self { looks: interval(SIZE), last: terminal::size().ok() })
    }

    /// Waits for the next change; `None`: there will be none.
    pub async fn next(&mut self) -> Option<()> {
        loop {
            self.looks.tick().await;
            let size = terminal::size().ok();
            if size != self.last {
                self.last = size;
                return Some(());
            }
        }
    }
}
