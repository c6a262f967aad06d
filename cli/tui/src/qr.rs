//! A QR code in letters: two rows of it in one line of text.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// The lines of the code with its quiet zone, to be shown dark on light; `None`: the text is too long for one.
///
/// Without half blocks each module is two letters wide and one line high.
pub fn lines(text: &str, unicode: bool) -> Option<Vec<String>> {
    let code = QrCode::with_error_correction_level(text.as_bytes(), EcLevel::L).ok()?;
    let picture = if unicode {
        // "Light" is what the renderer leaves blank: the ground.
        code.render::<Dense1x2>().dark_color(Dense1x2::Dark).light_color(Dense1x2::Light).quiet_zone(true).build()
    } else {
        code.render::<char>().dark_color('#').light_color(' ').module_dimensions(2, 1).quiet_zone(true).build()
    };
    Some(picture.lines().map(str::to_owned).collect())
}
