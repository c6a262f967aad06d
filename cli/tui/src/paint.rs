//! Writing into a buffer: cleaned, cut to its place, never beyond.

use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::UnicodeWidthStr;

use crate::text::Glyphs;

/// A buffer, and what its terminal can show.
pub struct Paint<'a> {
    buffer: &'a mut Buffer,
    glyphs: Glyphs,
    first: Vec<Range<u16>>,
}

impl<'a> Paint<'a> {
    pub fn new(buffer: &'a mut Buffer, glyphs: Glyphs) -> Self {
        Self { buffer, glyphs, first: Vec::new() }
    }

    /// These rows are what the person looks at: on a slow line they are sent before the others, the latest said first.
    pub fn first(&mut self, rows: Range<u16>) {
        self.first.insert(0, rows);
    }

    /// What [`Paint::first`] was told.
    pub fn into_first(self) -> Vec<Range<u16>> {
        self.first
    }

    /// Writes at most `width` columns; how many it took. What is outside of the buffer is not written.
    pub fn text(&mut self, x: u16, y: u16, width: u16, text: &str, style: Style) -> u16 {
        let area = self.buffer.area;
        if y < area.y || y >= area.bottom() || x >= area.right() || width == 0 {
            return 0;
        }
        let width = width.min(area.right() - x);
        let clean = self.glyphs.clean(text);
        let shown =
            if clean.width() > usize::from(width) { self.glyphs.fit(&clean, usize::from(width), false) } else { clean };
        self.buffer.set_stringn(x, y, &shown, usize::from(width), style);
        shown.width() as u16
    }

    /// Writes as it is: half blocks of a picture.
    pub fn raw(&mut self, x: u16, y: u16, text: &str, style: Style) {
        let area = self.buffer.area;
        if y >= area.y && y < area.bottom() && x < area.right() {
            self.buffer.set_stringn(x, y, text, usize::from(area.right() - x), style);
        }
    }

    /// Makes an area blank, with this style and no other.
    pub fn blank(&mut self, area: Rect, style: Style) {
        let area = area.intersection(self.buffer.area);
        for (x, y) in (area.top()..area.bottom()).flat_map(|y| (area.left()..area.right()).map(move |x| (x, y))) {
            if let Some(cell) = self.buffer.cell_mut((x, y)) {
                cell.reset();
                cell.set_style(style);
            }
        }
    }

    /// Gives a whole area a style.
    pub fn style(&mut self, area: Rect, style: Style) {
        self.buffer.set_style(area, style);
    }

    /// An empty box with a border and a title.
    pub fn frame(&mut self, area: Rect, title: &str, style: Style) {
        let area = area.intersection(self.buffer.area);
        // What is inside comes before the border, which says nothing.
        self.first(area.top()..area.bottom());
        self.first(area.top() + 1..area.bottom().saturating_sub(1));
        self.blank(area, Style::new());
        if area.width < 2 || area.height < 2 {
            return;
        }
        let [across, down, corners @ ..] = if self.glyphs.unicode {
            ['─', '│', '┌', '┐', '└', '┘']
        } else {
            ['-', '|', '+', '+', '+', '+']
        };
        let inner = usize::from(area.width - 2);
        let line = across.to_string().repeat(inner);
        let (top, end) = (area.y, area.bottom() - 1);
        self.raw(area.x, top, &format!("{}{line}{}", corners[0], corners[1]), style);
        self.raw(area.x, end, &format!("{}{line}{}", corners[2], corners[3]), style);
        for y in top + 1..end {
            self.raw(area.x, y, &down.to_string(), style);
            self.raw(area.right() - 1, y, &down.to_string(), style);
        }
        if !title.is_empty() && inner > 4 {
            self.text(area.x + 2, top, area.width - 4, &format!(" {title} "), style);
        }
    }
}
