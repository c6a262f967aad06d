//! From a picture to bytes: only what has changed, counted, and written at once.

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;

use ratatui::backend::{Backend, ClearType, CrosstermBackend};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use thinlane_model::Now;

use crate::app::App;
use crate::draw;

/// A terminal that remembers what it shows.
pub struct Canvas<W: Write> {
    backend: CrosstermBackend<Gathered>,
    gathered: Gathered,
    to: W,
    shown: Option<Buffer>,
    cursor: Option<(u16, u16)>,
}

/// One picture's bytes: written in one go, so that half a picture is never shown.
#[derive(Clone, Default)]
struct Gathered(Rc<RefCell<Vec<u8>>>);

impl<W: Write> Canvas<W> {
    pub fn new(to: W) -> Self {
        let gathered = Gathered::default();
        Self { backend: CrosstermBackend::new(gathered.clone()), gathered, to, shown: None, cursor: None }
    }

    /// Forgets what the terminal shows: the next picture is drawn whole.
    pub fn forget(&mut self) {
        self.shown = None;
    }

    /// Draws the screen for a window of this size; how many bytes that took.
    ///
    /// # Errors
    /// When the terminal takes no bytes any more.
    pub fn show(&mut self, app: &mut App, (width, height): (u16, u16), now: Now) -> io::Result<u64> {
        let area = Rect { x: 0, y: 0, width, height };
        let mut next = Buffer::empty(area);
        let cursor = draw::draw(app, &mut next, area, now);
        let blank = match self.shown.take().filter(|shown| shown.area == area) {
            Some(shown) => shown,
            None => {
                self.backend.clear_region(ClearType::All)?;
                self.cursor = Some((0, 0));
                Buffer::empty(area)
            }
        };
        let changes = blank.diff(&next);
        if !changes.is_empty() {
            self.backend.draw(changes.into_iter())?;
        }
        match cursor {
            Some((x, y)) => {
                self.backend.set_cursor_position(Position { x, y })?;
                if self.cursor.is_none() {
                    self.backend.show_cursor()?;
                }
            }
            None if self.cursor.is_some() => self.backend.hide_cursor()?,
            None => {}
        }
        self.cursor = cursor;
        self.shown = Some(next);
        let bytes = std::mem::take(&mut *self.gathered.0.borrow_mut());
        if !bytes.is_empty() {
            self.to.write_all(&bytes)?;
            self.to.flush()?;
        }
        Ok(bytes.len() as u64)
    }
}

impl Write for Gathered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// The backend flushes after each of its commands; a picture is sent when it is whole.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
