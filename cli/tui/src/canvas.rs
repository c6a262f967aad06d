//! From a picture to bytes: only what has changed, counted, and written in pieces that the line can carry.

use std::io::{self, Write};
use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use thinlane_model::Now;

use crate::app::App;
use crate::decode::QUESTION;
use crate::draw::{self, Scene};
use crate::pen::{Pen, bare, is_same_row};

/// A terminal that remembers what it shows.
pub struct Canvas<W: Write> {
    to: W,
    shown: Option<Buffer>,
    /// Where the cursor is shown, if it is; `None`: nobody knows.
    cursor: Option<Option<(u16, u16)>>,
    /// The row with which the next piece goes on, so that no row waits for ever.
    from: u16,
    scene: Option<Scene>,
    /// Rows of another scene than the last, whose words have not been sent yet.
    fresh: Vec<bool>,
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

impl<W: Write> Canvas<W> {
    pub fn new(to: W) -> Self {
        Self { to, shown: None, cursor: None, from: 0, scene: None, fresh: Vec::new() }
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
        let (mut pen, mut bytes) = (Pen::default(), Vec::new());
        let mut shown = match self.shown.take().filter(|shown| shown.area == area) {
            Some(shown) => shown,
            None => {
                pen.clear(&mut bytes);
                (self.cursor, self.scene) = (None, None);
                Buffer::empty(area)
            }
        };
        if self.scene.as_ref() != Some(&drawn.scene) {
            // Read from the top, and the words before what adorns them: a code's picture is no adornment.
            self.fresh = vec![drawn.scene != Scene::Code; usize::from(height)];
            (self.scene, self.from) = (Some(drawn.scene), 0);
        }
        let (whole, first) = self.send(&mut pen, &mut shown, &next, &drawn.first, most, &mut bytes);
        self.shown = Some(shown);
        if let Some(at) = drawn.cursor.filter(|_| !bytes.is_empty() || self.cursor != Some(drawn.cursor)) {
            // What was drawn has moved it.
            pen.point(at, &mut bytes);
        }
        if self.cursor.map(|at| at.is_some()) != Some(drawn.cursor.is_some()) {
            bytes.extend_from_slice(if drawn.cursor.is_some() { b"\x1b[?25h" } else { b"\x1b[?25l" });
        }
        self.cursor = Some(drawn.cursor);
        if !bytes.is_empty() {
            pen.rest(&mut bytes);
            if ask {
                bytes.extend_from_slice(QUESTION);
            }
            // In one go: half a line is never shown.
            self.to.write_all(&bytes)?;
            self.to.flush()?;
        }
        Ok(Sent { bytes: bytes.len() as u64, whole, first })
    }

    /// Adds rows until `most` bytes are full; whether all are sent, and whether the first ones are.
    fn send(
        &mut self,
        pen: &mut Pen,
        shown: &mut Buffer,
        next: &Buffer,
        first: &[Range<u16>],
        most: u64,
        bytes: &mut Vec<u8>,
    ) -> (bool, bool) {
        let height = next.area.height.max(1);
        let changed: Vec<u16> = (0..next.area.height).filter(|y| !is_same_row(shown, next, *y)).collect();
        let (mut whole, mut all) = (*pen, bytes.clone());
        changed.iter().for_each(|y| whole.row(shown, next, *y, &mut all));
        if all.len() as u64 <= most {
            (*pen, *bytes, *shown) = (whole, all, next.clone());
            self.fresh.fill(false);
            return (true, true);
        }
        // Too much for one piece: row by row, and the rest the next time. A new scene's words go before what adorns
        // them, and what is looked at before everything else.
        let adorned = self.scene != Some(Scene::Code);
        let words = if adorned { bare(shown, next, 0..height) } else { next.clone() };
        let now = self.from;
        let place = |row: u16| first.iter().position(|rows| rows.contains(&row)).unwrap_or(first.len());
        let turn = |row: u16| if place(row) < first.len() { row } else { (row + height - now % height) % height };
        let fresh = |row: u16| self.fresh.get(usize::from(row)).copied().unwrap_or(false);
        let mut steps: Vec<(bool, u16)> = changed.iter().map(|y| (false, *y)).collect();
        steps.extend(changed.iter().filter(|y| fresh(**y)).map(|y| (true, *y)));
        let class = |(bare, row): (bool, u16)| match (bare, place(row) < first.len()) {
            (true, true) => 0,
            (false, true) if !fresh(row) => 0,
            (true, false) => 1,
            (false, true) => 2,
            (false, false) => 3,
        };
        steps.sort_by_key(|step| (class(*step), place(step.1), turn(step.1)));
        let (mut sent, mut done) = (0, 0);
        for (bare, row) in &steps {
            let picture = if *bare { &words } else { next };
            let (mut one, before) = (*pen, bytes.len());
            one.row(shown, picture, *row, bytes);
            if sent > 0 && bytes.len() as u64 > most {
                bytes.truncate(before);
                break;
            }
            (*pen, done) = (one, done + 1);
            sent += usize::from(bytes.len() > before);
            if let Some(fresh) = self.fresh.get_mut(usize::from(*row)) {
                *fresh = false;
            }
            if !bare && place(*row) == first.len() {
                self.from = (row + 1) % height;
            }
            for x in next.area.left()..next.area.right() {
                shown[(x, *row)] = picture[(x, *row)].clone();
            }
        }
        let left = &steps[done..];
        // Where the words stand, what adorns them need not be waited for.
        let waits =
            left.iter().any(|(bare, row)| place(*row) < first.len() && (*bare || !is_same_row(shown, &words, *row)));
        (left.is_empty(), !waits)
    }
}
