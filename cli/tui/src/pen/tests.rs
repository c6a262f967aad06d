//! A small terminal reads what was written: it must show what was meant, whatever was there before.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::*;

const AREA: Rect = Rect { x: 0, y: 0, width: 40, height: 6 };

/// A terminal that knows nothing but ECMA-48.
struct Screen {
    cells: Buffer,
    at: (u16, u16),
    look: Look,
}

impl Screen {
    fn read(&mut self, bytes: &[u8]) {
        let text = std::str::from_utf8(bytes).expect("text");
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\r' => self.at.0 = 0,
                '\n' => self.at.1 += 1,
                '\u{1b}' => {
                    assert_eq!(letters.next(), Some('['));
                    let mut words = String::new();
                    let end = loop {
                        match letters.next().expect("an end") {
                            end @ '@'..='~' => break end,
                            other => words.push(other),
                        }
                    };
                    self.word(end, &words);
                }
                letter => {
                    assert!(self.at.0 < AREA.width && self.at.1 < AREA.height, "beyond the edge: {letter}");
                    let wide = letter.to_string().width() as u16;
                    self.put(self.at.0, &letter.to_string(), self.look);
                    (1..wide).for_each(|more| self.put(self.at.0 + more, " ", BLANK.look));
                    self.at.0 += wide;
                }
            }
        }
    }

    fn put(&mut self, x: u16, symbol: &str, look: Look) {
        let cell = &mut self.cells[(x, self.at.1)];
        cell.reset();
        cell.set_symbol(symbol);
        (cell.fg, cell.bg, cell.modifier) = (look.fg, look.bg, look.modifier);
    }

    fn word(&mut self, end: char, words: &str) {
        let numbers: Vec<u16> = words.split(';').map(|word| word.parse().unwrap_or(0)).collect();
        let first = numbers[0].max(1);
        match end {
            'H' => self.at = (numbers.get(1).map_or(0, |x| x - 1), first - 1),
            'C' => self.at.0 += first,
            'K' => (self.at.0..AREA.width).for_each(|x| self.put(x, " ", Look { bg: self.look.bg, ..BLANK.look })),
            'X' => (self.at.0..self.at.0 + first).for_each(|x| self.put(x, " ", BLANK.look)),
            'J' => self.cells = Buffer::empty(AREA),
            'm' => self.paint(&numbers),
            other => panic!("what is {other}?"),
        }
    }

    fn paint(&mut self, numbers: &[u16]) {
        let mut at = 0;
        while at < numbers.len() {
            match numbers[at] {
                0 => self.look = BLANK.look,
                1 => self.look.modifier |= Modifier::BOLD,
                2 => self.look.modifier |= Modifier::DIM,
                4 => self.look.modifier |= Modifier::UNDERLINED,
                7 => self.look.modifier |= Modifier::REVERSED,
                31 => self.look.fg = Color::Red,
                32 => self.look.fg = Color::Green,
                39 => self.look.fg = Color::Reset,
                49 => self.look.bg = Color::Reset,
                38 => (self.look.fg, at) = (Color::Indexed(numbers[at + 2] as u8), at + 2),
                48 => (self.look.bg, at) = (Color::Indexed(numbers[at + 2] as u8), at + 2),
                other => panic!("what is {other}?"),
            }
            at += 1;
        }
    }
}

/// Numbers that repeat, for cases that can be repeated.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    /// Something that changes a picture.
    fn scribble(&mut self, picture: &mut Buffer, wide: bool) {
        let style = match self.throw(6) {
            0 => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
            1 => Style::new().fg(Color::Green),
            2 => Style::new().add_modifier(Modifier::REVERSED),
            3 => Style::new().fg(Color::Indexed(16)).bg(Color::Indexed(231)),
            4 => Style::new().add_modifier(Modifier::DIM | Modifier::BOLD),
            _ => Style::new(),
        };
        let (x, y) = (self.throw(40) as u16, self.throw(6) as u16);
        let text = match self.throw(7) {
            0 => " ".repeat(30),
            1 => "███░░░".to_owned(),
            2 if wide => "変電所".to_owned(),
            3 => "a".to_owned(),
            4 => "  two  words  ".to_owned(),
            5 => "─".repeat(40),
            _ => "north-rtu7 online".to_owned(),
        };
        picture.set_stringn(x, y, text, usize::from(AREA.width - x), style);
    }
}

fn eye(picture: &Buffer) -> Vec<(String, Look)> {
    let seen = |spot: Spot<'_>| (spot.symbol.to_owned(), spot.look);
    (0..AREA.height).flat_map(|y| spots(picture, y)).map(seen).collect()
}

#[test]
fn whatever_was_there_before_the_terminal_shows_what_was_meant() {
    for (seed, wide) in [(1, false), (2, true), (3, false), (4, true)] {
        let mut dice = Dice(seed);
        let mut screen = Screen { cells: Buffer::empty(AREA), at: (7, 3), look: Look { fg: Color::Red, ..BLANK.look } };
        let (mut pen, mut shown) = (Pen::default(), Buffer::empty(AREA));
        let mut bytes = Vec::new();
        pen.clear(&mut bytes);
        for turn in 0..2_000 {
            let mut next = if dice.throw(9) == 0 { Buffer::empty(AREA) } else { shown.clone() };
            for _ in 0..=dice.throw(4) {
                dice.scribble(&mut next, wide);
            }
            (0..AREA.height).for_each(|y| pen.row(&shown, &next, y, &mut bytes));
            if dice.throw(3) == 0 {
                pen.rest(&mut bytes);
            }
            screen.read(&bytes);
            bytes.clear();
            let differ = eye(&screen.cells).into_iter().zip(eye(&next)).position(|(seen, meant)| seen != meant);
            let at = differ.map(|at| format!("{:?} is no {:?}", eye(&screen.cells)[at], eye(&next)[at]));
            assert_eq!(at, None, "seed {seed}, turn {turn}, letter {differ:?}");
            shown = next;
        }
    }
}

#[test]
fn what_stays_is_not_said_again() {
    let mut shown = Buffer::empty(AREA);
    shown.set_string(0, 0, "erik  north-rtu7   12:34", Style::new());
    let said = |next: &Buffer| {
        let mut bytes = Vec::new();
        Pen::default().row(&shown, next, 0, &mut bytes);
        String::from_utf8(bytes).expect("text")
    };
    assert_eq!(said(&shown), "");
    let mut next = shown.clone();
    next.set_string(22, 0, "29", Style::new());
    assert_eq!(said(&next), "\u{1b}[1;23H\u{1b}[m29", "the place, the look, and what is new");
    assert_eq!(said(&Buffer::empty(AREA)), "\u{1b}[1H\u{1b}[m\u{1b}[K", "a whole row goes in one word");
    let mut dim = shown.clone();
    dim.set_style(Rect { x: 4, y: 0, width: 2, height: 1 }, Style::new().add_modifier(Modifier::DIM));
    assert_eq!(said(&dim), "", "a dim blank is a blank");
}

#[test]
fn decoration_waits_and_words_do_not() {
    let (mut shown, mut next) = (Buffer::empty(AREA), Buffer::empty(AREA));
    shown.set_string(0, 0, "anna ██░░ yes", Style::new());
    shown.set_string(0, 1, "something else", Style::new());
    next.set_string(0, 0, "bert █░░░ no", Style::new());
    next.set_string(0, 1, "carl █░░░ ▶ ", Style::new());
    let bare = bare(&shown, &next, 0..2);
    let row = |y| (0..12).map(|x| bare[(x, y)].symbol().to_owned()).collect::<String>();
    assert_eq!(row(0), "bert ██░░ no", "the old bar stays until the new one comes");
    assert_eq!(row(1), "carl      ▶ ", "what stood there is no bar");
}
