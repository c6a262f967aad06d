//! A QR code that a phone reads from a terminal, on a dark as on a light background.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// The code in half blocks: black on white whatever the terminal's colours are, where colour is allowed.
///
/// Without colour the blocks are drawn light, which is right on a dark background; many phones read the
/// inverse as well. `None`: the text is too long for a code.
pub fn render(text: &str, colour: bool) -> Option<String> {
    let code = QrCode::with_error_correction_level(text.as_bytes(), EcLevel::L).ok()?;
    let picture = if colour {
        code.render::<Dense1x2>().quiet_zone(true).build()
    } else {
        code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).quiet_zone(true).build()
    };
    let line =
        |line: &str| if colour { format!("\u{1b}[38;5;16;48;5;231m{line}\u{1b}[0m\n") } else { format!("{line}\n") };
    Some(picture.lines().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const URI: &str = "otpauth://totp/Thinlane:alice?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Thinlane";

    #[test]
    fn every_line_is_as_wide_as_the_others_and_fits_a_terminal() {
        let code = render(URI, false).expect("a code");
        let widths: Vec<usize> = code.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0] && *width <= 79), "{widths:?}");
        assert!(code.lines().count() <= 30);
    }

    #[test]
    fn colour_sets_black_on_white_on_every_line() {
        let code = render(URI, true).expect("a code");
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
        let plain: Vec<String> = render(URI, false).expect("a code").lines().map(str::to_owned).collect();
        assert_eq!(photograph(&plain), URI, "light blocks on a dark ground");
        let strip = |line: &str| line.replace("\u{1b}[38;5;16;48;5;231m", "").replace("\u{1b}[0m", "");
        // Black blocks on white: the other way round.
        let turned = |letter: char| match letter {
            '█' => ' ',
            ' ' => '█',
            '▀' => '▄',
            _ => '▀',
        };
        let colour = render(URI, true).expect("a code");
        let black: Vec<String> = colour.lines().map(|line| strip(line).chars().map(turned).collect()).collect();
        assert_eq!(photograph(&black), URI);
    }

    #[test]
    fn too_long_a_text_has_no_code() {
        assert!(render(&"x".repeat(10_000), false).is_none());
    }
}
