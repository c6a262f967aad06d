//! From a picture to bytes: only what has changed, counted, and written in pieces that the line can carry.

use std::cell::RefCell;
use std::io::{self, Write};
use std::ops::Range;
use std::rc::Rc;

use ratatui::backend::{Backend, ClearType, CrosstermBackend};
use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::{Position, Rect};
use thinlane_model::Now;

use crate::app::App;
use crate::decode::QUESTION;
use crate::draw;

/// A terminal that remembers what it shows.
pub struct Canvas<W: Write> {
    backend: CrosstermBackend<Gathered>,
    gathered: Gathered,
    to: W,
    shown: Option<Buffer>,
    cursor: Option<(u16, u16)>,
    /// The row with which the next piece goes on, so that no row waits for ever.
    from: u16,
}

/// What one piece was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// How many bytes, the question included.
    pub bytes: u64,
    /// Nothing of the picture is left to be sent.
    pub whole: bool,
    /// Nothing is left of what the person is asked or looks at.
    pub first: bool,
}

/// One piece's bytes: written in one go, so that half a line is never shown.
#[derive(Clone, Default)]
struct Gathered(Rc<RefCell<Vec<u8>>>);

impl Gathered {
    fn len(&self) -> u64 {
        self.0.borrow().len() as u64
    }
}

impl<W: Write> Canvas<W> {
    pub fn new(to: W) -> Self {
        let gathered = Gathered::default();
        Self { backend: CrosstermBackend::new(gathered.clone()), gathered, to, shown: None, cursor: None, from: 0 }
    }

    /// Forgets what the terminal shows: the next picture is drawn whole.
    pub fn forget(&mut self) {
        self.shown = None;
    }

    /// Draws the screen for a window of this size and sends `most` bytes of what has changed, or one row; what is
    /// being asked and the selected row first. `ask`: the terminal is to say when it has got it.
    ///
    /// # Errors
    /// When the terminal takes no bytes any more.
    pub fn show(
        &mut self,
        app: &mut App,
        (width, height): (u16, u16),
        most: u64,
        ask: bool,
        now: Now,
    ) -> io::Result<Sent> {
        let area = Rect { x: 0, y: 0, width, height };
        let mut next = Buffer::empty(area);
        let drawn = draw::draw(app, &mut next, area, now);
        let mut shown = match self.shown.take().filter(|shown| shown.area == area) {
            Some(shown) => shown,
            None => {
                self.backend.clear_region(ClearType::All)?;
                self.cursor = Some((0, 0));
                Buffer::empty(area)
            }
        };
        let (whole, first) = self.send(&mut shown, &next, &drawn.first, most)?;
        match drawn.cursor {
            // What was drawn has moved it.
            Some((x, y)) if self.gathered.len() > 0 || self.cursor != drawn.cursor => {
                self.backend.set_cursor_position(Position { x, y })?;
                if self.cursor.is_none() {
                    self.backend.show_cursor()?;
                }
            }
            Some(_) => {}
            None if self.cursor.is_some() => self.backend.hide_cursor()?,
            None => {}
        }
        self.cursor = drawn.cursor;
        self.shown = Some(shown);
        let mut bytes = std::mem::take(&mut *self.gathered.0.borrow_mut());
        if !bytes.is_empty() {
            if ask {
                bytes.extend_from_slice(QUESTION);
            }
            self.to.write_all(&bytes)?;
            self.to.flush()?;
        }
        Ok(Sent { bytes: bytes.len() as u64, whole, first })
    }

    /// Sends rows until `most` bytes are full; whether all are sent, and whether the first ones are.
    fn send(&mut self, shown: &mut Buffer, next: &Buffer, first: &[Range<u16>], most: u64) -> io::Result<(bool, bool)> {
        let changes = shown.diff(next);
        let before = self.gathered.len();
        if changes.is_empty() {
            return Ok((true, true));
        }
        self.backend.draw(changes.iter().copied())?;
        if self.gathered.len() <= most {
            *shown = next.clone();
            return Ok((true, true));
        }
        // Too much for one piece: row by row, and the rest the next time.
        self.gathered.0.borrow_mut().truncate(before as usize);
        let mut rows: Vec<&[(u16, u16, &Cell)]> = changes.chunk_by(|one, other| one.1 == other.1).collect();
        let height = next.area.height.max(1);
        let (mut from, now) = (self.from, self.from);
        let rank = |row: u16| {
            let place = first.iter().position(|rows| rows.contains(&row)).unwrap_or(first.len());
            let turn = if place < first.len() { row } else { (row + height - now % height) % height };
            (place, turn)
        };
        rows.sort_by_key(|cells| rank(cells[0].1));
        let mut sent = 0;
        for cells in &rows {
            let (at, row) = (self.gathered.len(), cells[0].1);
            self.backend.draw(cells.iter().copied())?;
            if sent > 0 && self.gathered.len() > most {
                self.gathered.0.borrow_mut().truncate(at as usize);
                break;
            }
            sent += 1;
            if rank(row).0 == first.len() {
                from = row + 1;
            }
            for x in next.area.left()..next.area.right() {
                shown[(x, row)] = next[(x, row)].clone();
            }
        }
        self.from = from % height;
        Ok((sent == rows.len(), rows[sent..].iter().all(|cells| rank(cells[0].1).0 == first.len())))
    }
}

impl Write for Gathered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// The backend flushes after each of its commands; a piece is sent when it is whole.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
