//! Columns as data: what stands in a list, how wide, in which order, and which rows.

use jiff::tz::TimeZone;
use thinlane_model::{Now, RequestId, SessionId, SiteName};

use crate::model::Model;
use crate::text::{Glyphs, Tone};

/// What every cell may look at.
#[derive(Clone, Copy)]
pub struct Ctx<'a> {
    pub model: &'a Model,
    pub now: Now,
    pub zone: &'a TimeZone,
    pub glyphs: Glyphs,
}

/// A row, whatever its list: selections hold to this and never to a row's place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowId {
    Session(SessionId),
    Request(RequestId),
    Site(SiteName),
    Notice(u64),
    Entry(u64),
}

/// One cell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    pub text: String,
    pub tone: Tone,
}

/// What a column is sorted by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Number(i64),
    Text(String),
    /// Nothing there: last.
    Nothing,
}

/// One column of a list of `R`.
pub struct Column<R: ?Sized> {
    /// In tui.toml, and before the colon of a filter.
    pub id: &'static str,
    pub title: &'static str,
    /// What the choice of columns says of it.
    pub what: &'static str,
    pub min: u16,
    pub most: u16,
    /// Smaller is kept longer where there is no room for all.
    pub rank: u8,
    pub right: bool,
    pub standard: bool,
    /// The text at the width that it gets.
    pub cell: fn(&R, &Ctx<'_>, usize) -> Cell,
    pub key: fn(&R, &Ctx<'_>) -> Key,
}

/// What stands in a list.
pub trait Listed: 'static {
    fn id(&self) -> RowId;
    fn columns() -> &'static [Column<Self>];
    /// It has been dealt with, and goes where the others of its kind stand: nobody's eyes need to follow it there.
    fn is_over(&self) -> bool {
        false
    }
}

/// How one list is looked at.
#[derive(Debug, Clone)]
pub struct List {
    pub selected: Option<RowId>,
    /// Where the selected row was seen last, for going on when it is gone.
    pub last_place: usize,
    /// The selected row is over and has gone where nobody looks.
    pub adrift: bool,
    pub offset: usize,
    pub sort: &'static str,
    pub reverse: bool,
    pub filter: String,
    /// Ids of columns, in order.
    pub columns: Vec<&'static str>,
    pub follow: bool,
}

impl List {
    pub fn new<R: Listed>(sort: &'static str, reverse: bool, follow: bool) -> Self {
        Self {
            selected: None,
            last_place: 0,
            adrift: false,
            offset: 0,
            sort,
            reverse,
            filter: String::new(),
            columns: standard::<R>(),
            follow,
        }
    }

    /// Brings the window to where the selected row is, or keeps it within the list. `over`: the selected row is over,
    /// and does not take the window with it.
    pub fn settle(&mut self, ids: &[RowId], height: usize, newest_last: bool, over: bool) {
        let at = self.selected.as_ref().and_then(|id| ids.iter().position(|one| one == id));
        let height = height.max(1);
        let end = ids.len().saturating_sub(height);
        self.adrift = over && at.is_some_and(|at| !self.shows(at, height));
        if let Some(at) = at.filter(|_| !self.adrift) {
            self.last_place = at;
        }
        match at {
            _ if newest_last && self.follow => self.offset = end,
            Some(at) if self.follow && !over => {
                self.offset = self.offset.min(at).max((at + 1).saturating_sub(height));
            }
            _ => {}
        }
        self.offset = self.offset.min(end);
    }

    /// Whether the row at a place is in the window.
    pub fn shows(&self, at: usize, height: usize) -> bool {
        (self.offset..self.offset + height.max(1)).contains(&at)
    }

    /// Selects the row so many further down; from nothing, the first in the window, or where the last one was.
    pub fn step(&mut self, ids: &[RowId], by: isize, height: usize) {
        if ids.is_empty() {
            self.selected = None;
            return;
        }
        let last = ids.len() - 1;
        let at = self.selected.as_ref().and_then(|id| ids.iter().position(|one| one == id));
        let to = match (at.filter(|_| !self.adrift), &self.selected) {
            (Some(at), _) => at.saturating_add_signed(by).min(last),
            // It is gone: its neighbour, and no further.
            (None, Some(_)) => self.last_place.min(last),
            (None, None) => self.offset.min(last),
        };
        self.select(ids, to, height);
    }

    /// Selects the row at a place and brings it into the window.
    pub fn select(&mut self, ids: &[RowId], at: usize, height: usize) {
        let Some(id) = ids.get(at) else { return };
        self.selected = Some(id.clone());
        (self.last_place, self.adrift) = (at, false);
        self.offset = self.offset.min(at).max((at + 1).saturating_sub(height.max(1)));
    }
}

impl Cell {
    pub fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }

    pub fn plain(text: impl Into<String>) -> Self {
        Self::new(text, Tone::Plain)
    }

    pub fn dim(text: impl Into<String>) -> Self {
        Self::new(text, Tone::Dim)
    }
}

impl Key {
    pub fn text(text: impl AsRef<str>) -> Key {
        Key::Text(text.as_ref().to_lowercase())
    }

    pub fn number(number: impl TryInto<i64>) -> Key {
        Key::Number(number.try_into().unwrap_or(i64::MAX))
    }

    pub fn maybe(number: Option<u64>) -> Key {
        number.map_or(Key::Nothing, Key::number)
    }
}

/// The columns that are shown unless somebody chose others.
pub fn standard<R: Listed>() -> Vec<&'static str> {
    R::columns().iter().filter(|column| column.standard).map(|column| column.id).collect()
}

/// The column of this id.
pub fn column<R: Listed>(id: &str) -> Option<&'static Column<R>> {
    R::columns().iter().find(|column| column.id == id)
}

/// The rows that pass the filter, in the list's order; equal ones by their id, so that no two frames differ.
pub fn arrange<'m, R: Listed>(items: impl Iterator<Item = &'m R>, list: &List, ctx: &Ctx<'_>) -> Vec<&'m R> {
    let filter = Filter::new(&list.filter);
    let mut rows: Vec<&R> = items.filter(|row| filter.passes(*row, ctx)).collect();
    if let Some(column) = column::<R>(list.sort) {
        rows.sort_by_cached_key(|row| ((column.key)(row, ctx), row.id()));
        if list.reverse {
            // What has nothing to sort by stays last either way.
            let known = rows.partition_point(|row| (column.key)(row, ctx) != Key::Nothing);
            rows[..known].reverse();
        }
    }
    rows
}

/// Columns that fit into a width, each with its own; the most important first to be kept.
pub fn layout<R: Listed>(list: &List, width: u16) -> Vec<(&'static Column<R>, u16)> {
    /// A column that may be so wide holds texts of people.
    const LONG: u16 = 60;
    let wanted: Vec<&Column<R>> = list.columns.iter().filter_map(|id| column::<R>(id)).collect();
    let mut by_rank: Vec<usize> = (0..wanted.len()).collect();
    by_rank.sort_by_key(|at| (wanted[*at].rank, *at));
    let mut widths = vec![0u16; wanted.len()];
    let mut used: u16 = 0;
    for at in &by_rank {
        let gap = u16::from(used > 0);
        let more = wanted[*at].min.saturating_add(gap);
        if used.saturating_add(more) <= width {
            widths[*at] = wanted[*at].min;
            used += more;
        }
    }
    // What is left goes round, so that nobody gets all of it; long texts get more of it.
    let mut room = width.saturating_sub(used);
    let mut grown = true;
    while room > 0 && grown {
        grown = false;
        for at in &by_rank {
            let step = if wanted[*at].most >= LONG { 4 } else { 1 };
            let more = step.min(room).min(wanted[*at].most.saturating_sub(widths[*at]));
            if widths[*at] > 0 && more > 0 {
                widths[*at] += more;
                room -= more;
                grown = true;
            }
        }
    }
    wanted.into_iter().zip(widths).filter(|(_, width)| *width > 0).collect()
}

/// What a filter's line asks for.
struct Filter {
    terms: Vec<Term>,
}

struct Term {
    not: bool,
    column: Option<String>,
    text: String,
}

impl Filter {
    fn new(line: &str) -> Self {
        let term = |word: &str| {
            let (not, word) = word.strip_prefix('!').map_or((false, word), |rest| (true, rest));
            let (column, text) = match word.split_once(':') {
                Some((column, text)) if !column.is_empty() => (Some(column.to_lowercase()), text),
                _ => (None, word),
            };
            Term { not, column, text: text.to_lowercase() }
        };
        // A word that is still being written changes nothing yet.
        Self { terms: line.split_whitespace().map(term).filter(|term| !matches!(&*term.text, "" | "=")).collect() }
    }

    fn passes<R: Listed>(&self, row: &R, ctx: &Ctx<'_>) -> bool {
        /// Wide enough for every cell to say all it has.
        const WIDE: usize = 200;
        let says = |column: &Column<R>, text: &str| {
            let cell = (column.cell)(row, ctx, WIDE).text.to_lowercase();
            text.strip_prefix('=').map_or_else(|| cell.contains(text), |whole| cell.trim() == whole)
        };
        // Numbers change under one's eyes: they are looked for by their column's name only.
        let anywhere = |text: &str| R::columns().iter().any(|column| !column.right && says(column, text));
        self.terms.iter().all(|term| {
            let named = term.column.as_ref().and_then(|id| R::columns().iter().find(|column| column.id == id));
            let found = match (named, &term.column) {
                (Some(column), _) => says(column, &term.text),
                // No column of that name: an address with its port, perhaps.
                (None, Some(before)) => {
                    let whole = format!("{before}:{}", term.text);
                    anywhere(&whole)
                }
                (None, None) => anywhere(&term.text),
            };
            found != term.not
        })
    }
}
