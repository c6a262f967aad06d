//! A row of a picture as the fewest bytes that a terminal understands.
//!
//! What costs on a slow line is not the words: it is colours that are said again and again, spaces that are written
//! one by one where one word erases them all, and the way to the next place. So this knows where the terminal's cursor
//! is and how it writes, and says only what is different. Its words are those of ECMA-48 that every terminal since the
//! VT220 and the Linux console have: CUP, CUF, EL, ECH, ED and SGR.

use std::io::Write as _;
use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};
use unicode_width::UnicodeWidthStr;

/// How a cell looks beside its letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Look {
    fg: Color,
    bg: Color,
    modifier: Modifier,
}

/// A cell as the eye sees it: blanks that look alike are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spot<'a> {
    symbol: &'a str,
    look: Look,
}

const BLANK: Spot<'static> =
    Spot { symbol: " ", look: Look { fg: Color::Reset, bg: Color::Reset, modifier: Modifier::empty() } };

impl<'a> Spot<'a> {
    fn of(buffer: &'a Buffer, x: u16, y: u16) -> Self {
        let Some(cell) = buffer.cell((x, y)) else { return BLANK };
        let look = Look { fg: cell.fg, bg: cell.bg, modifier: cell.modifier };
        match cell.symbol() {
            "" | " " => Spot::empty(look),
            symbol => Spot { symbol, look },
        }
    }

    fn empty(look: Look) -> Self {
        /// What shows on a blank as well.
        const SEEN: Modifier = Modifier::REVERSED.union(Modifier::UNDERLINED).union(Modifier::CROSSED_OUT);
        let plain = look.bg == Color::Reset && !look.modifier.intersects(SEEN);
        if plain { BLANK } else { Spot { symbol: " ", look } }
    }

    /// Every terminal moves on by one column for this.
    fn is_sure(&self) -> bool {
        let mut letters = self.symbol.chars();
        matches!((letters.next(), letters.next()), (Some(' '..='~' | '·' | '…' | '\u{2500}'..='\u{25ff}'), None))
    }

    /// Says nothing that does not stand beside it in letters: bars, lines, borders.
    fn is_decoration(&self) -> bool {
        matches!(self.symbol.chars().next(), Some('·' | '\u{2500}'..='\u{259f}'))
    }
}

/// Where the terminal's cursor is and how it writes, as far as that is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pen {
    at: Option<(u16, u16)>,
    look: Option<Look>,
}

impl Pen {
    /// Blanks the whole screen.
    pub fn clear(&mut self, out: &mut Vec<u8>) {
        self.dip(BLANK.look, out);
        out.extend_from_slice(b"\x1b[2J");
    }

    /// Shows the cursor here.
    pub fn point(&mut self, (x, y): (u16, u16), out: &mut Vec<u8>) {
        self.jump(x, y, out);
    }

    /// Leaves the terminal writing plainly: others may write to it before the next piece does.
    pub fn rest(&mut self, out: &mut Vec<u8>) {
        if self.look.is_some_and(|look| look != BLANK.look) {
            self.dip(BLANK.look, out);
        }
        *self = Self::default();
    }

    /// Makes a row that is shown the next one.
    pub fn row(&mut self, shown: &Buffer, next: &Buffer, y: u16, out: &mut Vec<u8>) {
        let (old, new) = (spots(shown, y), spots(next, y));
        if old == new {
            return;
        }
        let (mut over, mut bytes) = (*self, Vec::new());
        over.anew(&new, y, &mut bytes);
        // What is wider than one column is not patched: half of it might stay.
        if old.iter().chain(&new).all(|spot| spot.symbol.width() == 1) {
            let (mut patched, mut fewer) = (*self, Vec::new());
            patched.patch(&old, &new, y, &mut fewer);
            if fewer.len() <= bytes.len() {
                (over, bytes) = (patched, fewer);
            }
        }
        *self = over;
        out.append(&mut bytes);
    }

    /// Erases the row first.
    fn anew(&mut self, new: &[Spot<'_>], y: u16, out: &mut Vec<u8>) {
        self.go(0, y, &[], out);
        self.dip(BLANK.look, out);
        out.extend_from_slice(b"\x1b[K");
        self.patch(&vec![BLANK; new.len()], new, y, out);
    }

    fn patch(&mut self, old: &[Spot<'_>], new: &[Spot<'_>], y: u16, out: &mut Vec<u8>) {
        let differs = |x: &usize| old[*x] != new[*x];
        let end = new.iter().rposition(|spot| *spot != BLANK).map_or(0, |last| last + 1);
        let mut x = 0;
        while x < end {
            if !differs(&x) {
                x += 1;
                continue;
            }
            self.go(x, y, new, out);
            let blanks = new[x..end].iter().take_while(|spot| **spot == BLANK).count();
            if blanks > 8 {
                // Erased, and passed over: cheaper than so many spaces.
                self.dip(BLANK.look, out);
                say(out, format_args!("\x1b[{blanks}X"));
                x += blanks;
                continue;
            }
            self.write(&new[x], new.len(), out);
            x += new[x].symbol.width().max(1);
        }
        if let Some(first) = (end..new.len()).find(differs) {
            self.go(first, y, new, out);
            self.dip(BLANK.look, out);
            out.extend_from_slice(b"\x1b[K");
        }
    }

    /// To a place in a row: over what stands there anyway where that is shorter.
    fn go(&mut self, x: usize, y: u16, row: &[Spot<'_>], out: &mut Vec<u8>) {
        let column = x as u16;
        match self.at {
            Some(at) if at == (column, y) => {}
            Some((from, same)) if same == y && from < column => {
                let gap = column - from;
                let jump = if gap == 1 { "\x1b[C".to_owned() } else { format!("\x1b[{gap}C") };
                let between = row.get(usize::from(from)..x).filter(|spots| {
                    let bytes: usize = spots.iter().map(|spot| spot.symbol.len()).sum();
                    bytes <= jump.len() && spots.iter().all(|spot| spot.is_sure() && Some(spot.look) == self.look)
                });
                match between {
                    Some(spots) => spots.iter().for_each(|spot| out.extend_from_slice(spot.symbol.as_bytes())),
                    None => out.extend_from_slice(jump.as_bytes()),
                }
                self.at = Some((column, y));
            }
            Some((_, above)) if x == 0 && above + 1 == y => {
                out.extend_from_slice(b"\r\n");
                self.at = Some((0, y));
            }
            _ => self.jump(column, y, out),
        }
    }

    fn jump(&mut self, x: u16, y: u16, out: &mut Vec<u8>) {
        match x {
            0 => say(out, format_args!("\x1b[{}H", y + 1)),
            _ => say(out, format_args!("\x1b[{};{}H", y + 1, x + 1)),
        }
        self.at = Some((x, y));
    }

    fn write(&mut self, spot: &Spot<'_>, width: usize, out: &mut Vec<u8>) {
        self.dip(spot.look, out);
        out.extend_from_slice(spot.symbol.as_bytes());
        // In the last column terminals differ in where the cursor stands, and with rare letters in how far it went.
        self.at = self.at.filter(|_| spot.is_sure()).map(|(x, y)| (x + 1, y)).filter(|(x, _)| usize::from(*x) < width);
    }

    /// Writes like this from now on.
    fn dip(&mut self, want: Look, out: &mut Vec<u8>) {
        if self.look == Some(want) {
            return;
        }
        let mut codes = String::new();
        if want != BLANK.look {
            codes.push('0');
            attributes(want.modifier, &mut codes);
            colours(BLANK.look, want, &mut codes);
        }
        if let Some(have) = self.look.filter(|have| want.modifier.contains(have.modifier)) {
            let mut more = String::new();
            attributes(want.modifier.difference(have.modifier), &mut more);
            colours(have, want, &mut more);
            let more = more.trim_start_matches(';');
            if !more.is_empty() && more.len() < codes.len() {
                codes = more.to_owned();
            }
        }
        say(out, format_args!("\x1b[{codes}m"));
        self.look = Some(want);
    }
}

/// A row as it can be shown: a wide letter of which another covers half is not.
fn spots(buffer: &Buffer, y: u16) -> Vec<Spot<'_>> {
    let mut row: Vec<Spot<'_>> = (0..buffer.area.width).map(|x| Spot::of(buffer, x, y)).collect();
    let mut x = 0;
    while x < row.len() {
        let wide = row[x].symbol.width().max(1);
        if wide > 1 {
            match row.get_mut(x + 1..x + wide) {
                Some(rest) if rest.iter().all(|spot| spot.symbol == " ") => rest.fill(BLANK),
                _ => row[x] = Spot::empty(row[x].look),
            }
        }
        x += if row[x].symbol == " " { 1 } else { wide };
    }
    row
}

/// The next picture with the decoration of these rows as it is shown, or blank where something else stood: what says
/// something goes first.
pub fn bare(shown: &Buffer, next: &Buffer, rows: Range<u16>) -> Buffer {
    let mut bare = next.clone();
    for (x, y) in rows.flat_map(|y| (0..next.area.width).map(move |x| (x, y))) {
        if Spot::of(next, x, y).is_decoration()
            && let Some(cell) = bare.cell_mut((x, y))
        {
            match shown.cell((x, y)) {
                Some(before) if Spot::of(shown, x, y).is_decoration() => *cell = before.clone(),
                _ => cell.reset(),
            }
        }
    }
    bare
}

/// Whether a row looks the same in both.
pub fn is_same_row(one: &Buffer, other: &Buffer, y: u16) -> bool {
    (0..one.area.width).all(|x| Spot::of(one, x, y) == Spot::of(other, x, y))
}

fn attributes(modifier: Modifier, codes: &mut String) {
    for (one, code) in [
        (Modifier::BOLD, ";1"),
        (Modifier::DIM, ";2"),
        (Modifier::UNDERLINED, ";4"),
        (Modifier::REVERSED, ";7"),
        (Modifier::CROSSED_OUT, ";9"),
    ] {
        if modifier.contains(one) {
            codes.push_str(code);
        }
    }
}

fn colours(have: Look, want: Look, codes: &mut String) {
    for (have, want, base) in [(have.fg, want.fg, 30), (have.bg, want.bg, 40)] {
        if have == want {
            continue;
        }
        let code = match want {
            Color::Reset => format!(";{}", base + 9),
            Color::Indexed(number) => format!(";{};5;{number}", base + 8),
            Color::Rgb(red, green, blue) => format!(";{};2;{red};{green};{blue}", base + 8),
            Color::Gray => format!(";{}", base + 7),
            Color::DarkGray => format!(";{}", base + 60),
            Color::White => format!(";{}", base + 67),
            named => {
                const NAMED: [Color; 7] =
                    [Color::Black, Color::Red, Color::Green, Color::Yellow, Color::Blue, Color::Magenta, Color::Cyan];
                const LIGHT: [Color; 6] = [
                    Color::LightRed,
                    Color::LightGreen,
                    Color::LightYellow,
                    Color::LightBlue,
                    Color::LightMagenta,
                    Color::LightCyan,
                ];
                let plain = NAMED.iter().position(|one| *one == named).map(|at| base + at);
                let light = LIGHT.iter().position(|one| *one == named).map(|at| base + 61 + at);
                format!(";{}", plain.or(light).unwrap_or(base + 9))
            }
        };
        codes.push_str(&code);
    }
}

fn say(out: &mut Vec<u8>, words: std::fmt::Arguments<'_>) {
    out.write_fmt(words).expect("a vector takes every byte");
}

#[cfg(test)]
mod tests;
