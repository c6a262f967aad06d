//! A QR code that a phone reads from a terminal, on a dark as on a light background.

use thinlane_tui::{Glyphs, qr};

/// Black on white, and the terminal's own colours again.
const COLOURS: (&str, &str) = ("\u{1b}[38;5;16;48;5;231m", "\u{1b}[0m");

/// The code for where this process writes: in half blocks, or in ASCII where the locale has no other letters.
///
/// `None`: the text is too long for a code.
pub fn render(text: &str, colour: bool) -> Option<String> {
    draw(text, Glyphs { unicode: Glyphs::utf8_here(), colour })
}

/// With colours black on white, whatever the terminal's colours are. Without them the picture is drawn light, which
/// is right on a dark background; many phones read the inverse as well.
fn draw(text: &str, glyphs: Glyphs) -> Option<String> {
    let lines = qr::lines(text, glyphs.unicode)?;
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let line = |line: &String| {
        let line = format!("{line:width$}");
        match (glyphs.unicode, glyphs.colour) {
            (true, true) => format!("{}{line}{}\n", COLOURS.0, COLOURS.1),
            (true, false) => line.chars().map(inverse).chain(['\n']).collect(),
            // A `#` is no dark square to a phone: blank letters on a light and a dark ground.
            (false, true) => {
                let mut drawn = String::from(COLOURS.0);
                let mut dark = false;
                for letter in line.chars() {
                    if (letter == '#') != dark {
                        dark = !dark;
                        drawn.push_str(if dark { "\u{1b}[48;5;16m" } else { "\u{1b}[48;5;231m" });
                    }
                    drawn.push(' ');
                }
                drawn + COLOURS.1 + "\n"
            }
            // Nothing but letters: what is light is drawn, as with the half blocks.
            (false, false) => line.chars().map(|letter| if letter == '#' { ' ' } else { '#' }).chain(['\n']).collect(),
        }
    };
    Some(lines.iter().map(line).collect())
}

fn inverse(letter: char) -> char {
    match letter {
        ' ' => '█',
        '█' => ' ',
        '▀' => '▄',
        '▄' => '▀',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKS: Glyphs = Glyphs { unicode: true, colour: false };
    const URI: &str = "otpauth://totp/Thinlane:alice?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Thinlane";

    #[test]
    fn every_line_is_as_wide_as_the_others_and_fits_a_terminal() {
        let code = draw(URI, BLOCKS).expect("a code");
        let widths: Vec<usize> = code.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0] && *width <= 79), "{widths:?}");
        assert!(code.lines().count() <= 30);
    }

    #[test]
    fn colour_sets_black_on_white_on_every_line() {
        let code = draw(URI, Glyphs { colour: true, ..BLOCKS }).expect("a code");
        assert!(code.lines().all(|line| line.starts_with("\u{1b}[38;5;16;48;5;231m") && line.ends_with("\u{1b}[0m")));
    }

    /// What a phone sees: each letter is a column of two squares, `#` for a light one.
    fn photograph(lines: &[String]) -> String {
        const MODULE: usize = 4;
        let squares: Vec<Vec<bool>> = lines
            .iter()
            .flat_map(|line| {
                let half = |both: [char; 2]| line.chars().map(|letter| both.contains(&letter)).collect::<Vec<_>>();
                [half(['█', '▀']), half(['█', '▄'])]
            })
            .collect();
        let (width, height) = (squares[0].len() * MODULE, squares.len() * MODULE);
        let light = |x: usize, y: usize| if squares[y / MODULE][x / MODULE] { 255 } else { 0 };
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, light);
        let found = image.detect_grids();
        found.first().map(|grid| grid.decode().expect("a code").1).unwrap_or_default()
    }

    #[test]
    fn a_phone_reads_it_from_a_dark_terminal_and_black_on_white_from_any() {
        let plain: Vec<String> = draw(URI, BLOCKS).expect("a code").lines().map(str::to_owned).collect();
        assert_eq!(photograph(&plain), URI, "light blocks on a dark ground");
        let strip = |line: &str| line.replace("\u{1b}[38;5;16;48;5;231m", "").replace("\u{1b}[0m", "");
        // Black blocks on white: the other way round.
        let turned = |letter: char| match letter {
            '█' => ' ',
            ' ' => '█',
            '▀' => '▄',
            _ => '▀',
        };
        let colour = draw(URI, Glyphs { colour: true, ..BLOCKS }).expect("a code");
        let black: Vec<String> = colour.lines().map(|line| strip(line).chars().map(turned).collect()).collect();
        assert_eq!(photograph(&black), URI);
    }

    #[test]
    fn too_long_a_text_has_no_code() {
        assert!(draw(&"x".repeat(10_000), BLOCKS).is_none());
    }

    #[test]
    fn a_locale_without_utf_8_gets_the_same_code_in_ascii() {
        let module = |picture: &str, row: usize, column: usize| {
            picture.lines().nth(row).and_then(|line| line.chars().nth(column)).expect("inside")
        };
        let blocks = draw(URI, BLOCKS).expect("a code");
        let letters = draw(URI, Glyphs { unicode: false, ..BLOCKS }).expect("a code");
        let colours = draw(URI, Glyphs { unicode: false, colour: true }).expect("a code");
        assert!(letters.is_ascii() && colours.is_ascii());
        assert!(!colours.contains('#'), "a letter is no dark square to a phone");
        let width = blocks.lines().next().expect("a line").chars().count();
        for (row, column) in (0..width).flat_map(|row| (0..width).map(move |column| (row, column))) {
            let light = match module(&blocks, row / 2, column) {
                '█' => true,
                '▀' => row % 2 == 0,
                '▄' => row % 2 == 1,
                _ => false,
            };
            assert_eq!(module(&letters, row, 2 * column) == '#', light, "{row} {column}");
        }
    }
}
