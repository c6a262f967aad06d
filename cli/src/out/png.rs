//! A QR code as a picture for a printer.

use qrcode::{Color, EcLevel, QrCode};

use crate::failure::{Failure, Result};

/// Pixels of one module, each way: large enough to be printed small.
const MODULE: usize = 8;
/// Modules of white around the code (ISO/IEC 18004 asks for four).
const QUIET: usize = 4;

/// The text as a black and white PNG.
///
/// # Errors
/// When the text is too long for a code.
pub fn qr(text: &str) -> Result<Vec<u8>> {
    let long = |_| Failure::failed("the code is too long for a QR code");
    let code = QrCode::with_error_correction_level(text.as_bytes(), EcLevel::M).map_err(long)?;
    let modules = code.width() + 2 * QUIET;
    let side = modules * MODULE;
    let dark = |x: usize, y: usize| {
        let inside = |at: usize| at.checked_sub(QUIET).filter(|at| *at < code.width());
        matches!((inside(x), inside(y)), (Some(x), Some(y)) if code[(x, y)] == Color::Dark)
    };
    let mut pixels = Vec::with_capacity(side * side);
    for y in 0..side {
        pixels.extend((0..side).map(|x| if dark(x / MODULE, y / MODULE) { 0 } else { 255 }));
    }
    encode(side, &pixels).map_err(|error| Failure::failed(format!("the picture: {error}")))
}

fn encode(side: usize, pixels: &[u8]) -> std::result::Result<Vec<u8>, png::EncodingError> {
    let side = u32::try_from(side).unwrap_or(u32::MAX);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_is_not_ours_reads_the_picture() {
        const CODE: &str = "7K2M-9Q4X-ABCD-EFGH-JKMN";
        let bytes = qr(CODE).expect("a picture");
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().expect("a PNG");
        let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
        let side = reader.next_frame(&mut pixels).expect("pixels").width as usize;
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(side, side, |x, y| pixels[y * side + x]);
        let found = image.detect_grids();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].decode().expect("a code").1, CODE);
    }

    #[test]
    fn the_picture_reads_back_as_the_modules_of_the_code() {
        const CODE: &str = "7K2M-9Q4X-ABCD-EFGH";
        let bytes = qr(CODE).expect("a picture");
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().expect("a PNG");
        let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut pixels).expect("pixels");
        let code = QrCode::with_error_correction_level(CODE.as_bytes(), EcLevel::M).expect("a code");
        assert_eq!(info.width as usize, (code.width() + 2 * QUIET) * MODULE);
        for y in 0..code.width() {
            for x in 0..code.width() {
                let middle = |at: usize| (at + QUIET) * MODULE + MODULE / 2;
                let dark = pixels[middle(y) * info.width as usize + middle(x)] == 0;
                assert_eq!(dark, code[(x, y)] == Color::Dark, "module {x},{y}");
            }
        }
        assert!(pixels[..info.width as usize * QUIET * MODULE].iter().all(|pixel| *pixel == 255), "the quiet zone");
    }

    #[test]
    fn too_long_a_text_has_no_picture() {
        assert!(qr(&"x".repeat(10_000)).is_err());
    }
}
