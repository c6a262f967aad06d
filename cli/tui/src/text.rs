//! Texts for a terminal that may know no colour and no letters beyond ASCII.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use ratatui::style::{Color, Modifier, Style};
use thinlane_model::Wall;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glyphs {
    /// Letters beyond ASCII.
    pub unicode: bool,
    /// Colours; without them only bold, dim, underlined and reversed.
    pub colour: bool,
}

/// How something is meant; what it says stands in its text as well, never in its colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    #[default]
    Plain,
    Dim,
    Strong,
    Good,
    Warn,
    Bad,
}

impl Glyphs {
    /// Whether a locale (`LC_ALL`, else `LC_CTYPE`, else `LANG`, the first that is set and not empty) is UTF-8.
    pub fn is_utf8(all: Option<&str>, ctype: Option<&str>, lang: Option<&str>) -> bool {
        let set = [all, ctype, lang].into_iter().flatten().find(|value| !value.is_empty());
        set.is_some_and(|value| {
            let value = value.to_ascii_lowercase();
            value.contains("utf-8") || value.contains("utf8")
        })
    }

    /// Whether the locale that this process runs in is UTF-8.
    pub fn utf8_here() -> bool {
        let variable = |name: &str| std::env::var(name).ok();
        let (all, ctype, lang) = (variable("LC_ALL"), variable("LC_CTYPE"), variable("LANG"));
        Self::is_utf8(all.as_deref(), ctype.as_deref(), lang.as_deref())
    }

    /// How a tone looks here.
    pub fn style(self, tone: Tone) -> Style {
        let plain = Style::new();
        let (colour, modifier) = match tone {
            Tone::Plain => (None, Modifier::empty()),
            Tone::Dim => (None, Modifier::DIM),
            Tone::Strong => (None, Modifier::BOLD),
            Tone::Good => (Some(Color::Green), Modifier::empty()),
            Tone::Warn => (Some(Color::Yellow), Modifier::BOLD),
            Tone::Bad => (Some(Color::Red), Modifier::BOLD),
        };
        let style = plain.add_modifier(modifier);
        match colour {
            Some(colour) if self.colour => style.fg(colour),
            Some(_) if tone == Tone::Bad => style.add_modifier(Modifier::UNDERLINED),
            _ => style,
        }
    }

    /// The text without anything that could steer the terminal, turn the reading order round or hide; and in ASCII
    /// where the terminal shows nothing else.
    pub fn clean(self, text: &str) -> String {
        text.chars().filter_map(|letter| self.clean_letter(letter)).collect()
    }

    fn clean_letter(self, letter: char) -> Option<char> {
        let hidden = matches!(letter, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}');
        match letter {
            _ if hidden => None,
            _ if letter.is_control() => Some(' '),
            _ if self.unicode || letter.is_ascii() => Some(letter),
            '…' => Some('.'),
            '·' | '–' | '—' => Some('-'),
            _ => Some('?'),
        }
    }

    /// `part` of a bar of `width` letters, 0 to 1.
    pub fn bar(self, part: f64, width: usize) -> String {
        let part = part.clamp(0.0, 1.0);
        let (full, empty) = if self.unicode { ('█', '░') } else { ('#', '.') };
        // Anything left shows at least one letter, and only a whole bar shows all of them.
        let mut filled = (part * width as f64).floor() as usize;
        if part > 0.0 {
            filled = filled.max(1);
        }
        (0..width).map(|at| if at < filled { full } else { empty }).collect()
    }

    /// Values as heights, newest last, against the largest of them; nothing is a low dot.
    pub fn spark(self, values: &[u64]) -> String {
        let top = values.iter().copied().max().unwrap_or(0).max(1);
        let steps: &[char] = if self.unicode {
            &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
        } else {
            &['.', ':', '-', '=', '+', '*', '%', '#']
        };
        let height = |value: u64| -> char {
            if value == 0 {
                return if self.unicode { '·' } else { '_' };
            }
            // The square root keeps a keepalive visible beside a download.
            let part = (value as f64 / top as f64).sqrt();
            steps[((part * steps.len() as f64).ceil() as usize).clamp(1, steps.len()) - 1]
        };
        values.iter().map(|value| height(*value)).collect()
    }

    /// What stands before the selected row.
    pub fn pointer(self) -> &'static str {
        if self.unicode { "▶ " } else { "> " }
    }

    /// Behind the title of the column that a list is sorted by.
    pub fn order(self, reverse: bool) -> &'static str {
        match (reverse, self.unicode) {
            (false, true) => "▲",
            (true, true) => "▼",
            (false, false) => "^",
            (true, false) => "v",
        }
    }

    /// Between things on one line.
    pub fn dot(self) -> &'static str {
        if self.unicode { " · " } else { " - " }
    }

    /// What stands at the end of a text that was cut.
    fn cut(self) -> char {
        if self.unicode { '…' } else { '~' }
    }

    /// Exactly `width` columns: cut with a mark, or filled with spaces.
    pub fn fit(self, text: &str, width: usize, right: bool) -> String {
        let clean = self.clean(text);
        let have = clean.width();
        let mut fitted = String::with_capacity(width + 4);
        if have > width {
            let mut used = 0;
            for letter in clean.chars() {
                let wide = letter.width().unwrap_or(0);
                if used + wide + 1 > width {
                    break;
                }
                used += wide;
                fitted.push(letter);
            }
            if width > 0 {
                fitted.push(self.cut());
                used += 1;
            }
            fitted.extend(std::iter::repeat_n(' ', width.saturating_sub(used)));
            return fitted;
        }
        let gap = width - have;
        if right {
            fitted.extend(std::iter::repeat_n(' ', gap));
        }
        fitted.push_str(&clean);
        if !right {
            fitted.extend(std::iter::repeat_n(' ', gap));
        }
        fitted
    }
}

/// Bytes, in four letters at most and a unit.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "k", "M", "G", "T", "P", "E"];
    let mut size = count as f64;
    let mut unit = 0;
    while size >= 999.5 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ if size < 9.95 => format!("{size:.1} {}", UNITS[unit]),
        _ => format!("{size:.0} {}", UNITS[unit]),
    }
}

/// Bytes a second; nothing is a dash.
pub fn rate(count: u64) -> String {
    if count == 0 { "-".to_owned() } else { bytes(count) }
}

/// `0:59`, `12:34`, `1:02:03`; rounded up, so that 0:00 is the end.
pub fn countdown(millis: u64) -> String {
    let secs = millis.div_ceil(1000);
    let (hours, minutes, seconds) = (secs / 3600, secs / 60 % 60, secs % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// A length of time in one or two units, for sentences: `45 s`, `12 min`, `2 h 5 min`, `3 d`.
pub fn about(millis: u64) -> String {
    let secs = millis.div_ceil(1000);
    match secs {
        0..120 => format!("{secs} s"),
        120..3600 => format!("{} min", secs / 60),
        3600..172_800 if (secs / 60).is_multiple_of(60) => format!("{} h", secs / 3600),
        3600..172_800 => format!("{} h {} min", secs / 3600, secs / 60 % 60),
        _ => format!("{} d", secs / 86_400),
    }
}

/// A length of time in few letters, for a column: `45s`, `12m`, `2h05`, `3d`.
pub fn short(millis: u64) -> String {
    let secs = millis / 1000;
    match secs {
        0..100 => format!("{secs}s"),
        100..6000 => format!("{}m", secs / 60),
        6000..172_800 => format!("{}h{:02}", secs / 3600, secs / 60 % 60),
        _ => format!("{}d", secs / 86_400),
    }
}

/// One thing, or several: `1 lane`, `3 lanes`.
pub fn count(number: u64, thing: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{s}")
}

/// The time of day in the operator's zone.
pub fn clock(at: Wall, zone: &TimeZone) -> String {
    zoned(at, zone, "%H:%M:%S")
}

/// Day and time in the operator's zone.
pub fn moment(at: Wall, zone: &TimeZone) -> String {
    zoned(at, zone, "%m-%d %H:%M:%S")
}

fn zoned(at: Wall, zone: &TimeZone, form: &str) -> String {
    match jiff::Timestamp::from_millisecond(at.as_millis()) {
        Ok(stamp) => stamp.to_zoned(zone.clone()).strftime(form).to_string(),
        Err(_) => at.to_string(),
    }
}

/// The lines of a text that is not to be wider than this; breaks between words where it can.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let mut word = word;
        while word.width() > width {
            let room = if line.is_empty() { width } else { width.saturating_sub(line.width() + 1) };
            let cut = at_width(word, room);
            if cut > 0 {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(&word[..cut]);
                word = &word[cut..];
            } else if line.is_empty() {
                // One letter wider than the whole line: nothing can be shown of it.
                return lines;
            }
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() && line.width() + 1 + word.width() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        let _ = write!(line, "{word}");
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// The byte at which so many columns are full.
fn at_width(text: &str, width: usize) -> usize {
    let mut used = 0;
    for (at, letter) in text.char_indices() {
        used += letter.width().unwrap_or(0);
        if used > width {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RICH: Glyphs = Glyphs { unicode: true, colour: true };
    const POOR: Glyphs = Glyphs { unicode: false, colour: false };

    #[test]
    fn the_first_locale_variable_that_is_set_decides() {
        assert!(Glyphs::is_utf8(None, None, Some("de_DE.UTF-8")));
        assert!(Glyphs::is_utf8(Some(""), Some("C.utf8"), Some("C")));
        assert!(!Glyphs::is_utf8(Some("C"), Some("C.UTF-8"), Some("C.UTF-8")));
        assert!(!Glyphs::is_utf8(None, None, Some("de_DE.ISO-8859-1")));
        assert!(!Glyphs::is_utf8(None, None, None));
    }

    #[test]
    fn a_text_cannot_steer_the_terminal_nor_turn_its_order_round() {
        assert_eq!(RICH.clean("a\u{1b}[31mb\u{202e}c\u{200b}d\n"), "a [31mbcd ");
        assert_eq!(POOR.clean("Zoë…"), "Zo?.");
    }

    #[test]
    fn a_fitted_text_has_exactly_its_width() {
        for text in ["", "abc", "abcdef", "日本語テキスト", "naïve-name"] {
            for width in 0..12 {
                for glyphs in [RICH, POOR] {
                    for right in [false, true] {
                        assert_eq!(glyphs.fit(text, width, right).width(), width, "{text:?} in {width}");
                    }
                }
            }
        }
        assert_eq!(RICH.fit("north-plc1", 6, false), "north…");
        assert_eq!(POOR.fit("north-plc1", 6, false), "north~");
    }

    #[test]
    fn a_bar_is_empty_only_at_nothing_and_full_only_at_all() {
        assert_eq!(RICH.bar(0.0, 4), "░░░░");
        assert_eq!(RICH.bar(0.01, 4), "█░░░");
        assert_eq!(RICH.bar(0.99, 4), "███░");
        assert_eq!(RICH.bar(1.0, 4), "████");
        assert_eq!(POOR.bar(0.5, 4), "##..");
    }

    #[test]
    fn a_spark_shows_small_beside_large() {
        assert_eq!(RICH.spark(&[0, 1, 100, 10_000]), "·▁▁█");
        assert!(POOR.spark(&[0, 1, 100, 10_000]).is_ascii());
    }

    #[test]
    fn lengths_of_time_and_sizes_are_short() {
        for (millis, text) in [(999, "0:01"), (0, "0:00"), (61_000, "1:01"), (3_723_000, "1:02:03")] {
            assert_eq!(countdown(millis), text);
        }
        for (millis, text) in [(45_000, "45 s"), (700_000, "11 min"), (7_500_000, "2 h 5 min"), (7_200_000, "2 h")] {
            assert_eq!(about(millis), text);
        }
        for count in [0, 1, 999, 1000, 9_949, 9_950, 99_499, 999_499, 999_500, 1_000_000, u64::MAX] {
            assert!(bytes(count).len() <= 6, "{count}: {}", bytes(count));
        }
        for millis in [0, 99_000, 100_000, 5_999_000, 6_000_000, 172_800_000, 863_990_000] {
            assert!(short(millis).len() <= 5, "{millis}: {}", short(millis));
        }
    }

    #[test]
    fn wrapped_lines_keep_every_word() {
        let text = "Kill ses_7k2m9q4x: erik (acme) on rtu-7 at north, 12 min left";
        for width in [5, 10, 20, 80] {
            let lines = wrap(text, width);
            assert!(lines.iter().all(|line| line.width() <= width), "{lines:?}");
            let joined: String = lines.concat().split_whitespace().collect();
            assert_eq!(joined, text.split_whitespace().collect::<String>());
        }
    }
}
