//! The columns of every list.

mod facts;
mod other;
mod sessions;

use thinlane_model::{Span, Wall};

use crate::table::{Cell, Ctx, Key};
use crate::text::{self, Tone};

/// Shorthand for a column's definition.
macro_rules! col {
    ($id:literal, $title:literal, $min:literal..$most:literal, $rank:literal, $align:ident, $standard:literal, $what:literal, $cell:expr, $key:expr) => {
        $crate::table::Column {
            id: $id,
            title: $title,
            what: $what,
            min: $min,
            most: $most,
            rank: $rank,
            right: $crate::columns::$align,
            standard: $standard,
            cell: $cell,
            key: $key,
        }
    };
}
pub(crate) use col;

pub(crate) const RIGHT: bool = true;
pub(crate) const LEFT: bool = false;

fn or_dash(text: Option<impl ToString>) -> Cell {
    text.map_or_else(|| Cell::dim("-"), |text| Cell::plain(text.to_string()))
}

fn text_key(text: Option<impl ToString>) -> Key {
    text.map_or(Key::Nothing, |text| Key::text(text.to_string()))
}

fn time_key(at: Option<Wall>) -> Key {
    at.map_or(Key::Nothing, |at| Key::Number(at.as_millis()))
}

/// How long ago, in few letters.
fn ago(at: Option<Wall>, ctx: &Ctx<'_>) -> Cell {
    at.map_or_else(|| Cell::dim("-"), |at| Cell::plain(text::short(ctx.model.since(at, ctx.now))))
}

fn moment(at: Wall, ctx: &Ctx<'_>) -> Cell {
    let age = ctx.model.since(at, ctx.now);
    let shown = if age < 86_400_000 { text::clock(at, ctx.zone) } else { text::moment(at, ctx.zone) };
    Cell::plain(shown)
}

fn seconds(secs: u64) -> String {
    Span::from_secs(secs).to_string()
}

fn flag(on: bool, word: &str) -> Cell {
    if on { Cell::new(word, Tone::Warn) } else { Cell::dim("-") }
}

pub use facts::facts;
pub(crate) use other::{actor, remarks, story, word as request_word};
pub(crate) use sessions::{path as path_word, state as state_word, state_tone};
