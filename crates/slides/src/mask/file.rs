//! Masks as pictures of one bit a pixel that say what they were made of.

use std::io::Cursor;
use std::path::Path;

use png::{BitDepth, ColorType, Decoder, Encoder, Limits};

use super::Mask;
use super::morphology::Bitmap;
use crate::error::{Result, SlideError};
use crate::files::write_whole;

/// The PNG text chunk that says what the mask was made of.
const KEYWORD: &str = "stream-grad mask";

/// A stored mask: set is white. Any viewer shows it.
pub(crate) struct MaskFile<'a> {
    pub(crate) path: &'a Path,
    /// What the mask was made of; a file that says anything else is not read.
    pub(crate) origin: &'a str,
}

impl MaskFile<'_> {
    /// The bits of the stored mask; none if there is no such file, it is damaged, or it was made of something else.
    pub(crate) fn read(&self, height: usize, width: usize) -> Option<Vec<bool>> {
        let bytes = std::fs::read(self.path).ok()?;
        let row_bytes = width.div_ceil(8);
        let limits = Limits {
            bytes: row_bytes.checked_mul(height)?.saturating_add(1 << 20),
        };
        let mut reader = Decoder::new_with_limits(Cursor::new(bytes), limits)
            .read_info()
            .ok()?;
        let info = reader.info();
        let is_ours = info.utf8_text.iter().any(|chunk| {
            chunk.keyword == KEYWORD && chunk.get_text().is_ok_and(|text| text == self.origin)
        });
        let has_size = (usize::try_from(info.height), usize::try_from(info.width))
            == (Ok(height), Ok(width))
            && (info.color_type, info.bit_depth) == (ColorType::Grayscale, BitDepth::One);
        if !is_ours || !has_size {
            return None;
        }
        let mut packed = vec![0; row_bytes * height];
        reader.next_frame(&mut packed).ok()?;
        let bit = |row: &[u8], column: usize| row[column / 8] & (0x80 >> (column % 8)) != 0;
        Some(
            packed
                .chunks_exact(row_bytes.max(1))
                .flat_map(|row| (0..width).map(move |column| bit(row, column)))
                .collect(),
        )
    }

    /// Writes the mask, beside its place first and then renamed.
    pub(crate) fn write(&self, bitmap: &Bitmap) -> Result<()> {
        write_whole(self.path, &encode(self.path, bitmap, Some(self.origin))?)
    }
}

impl Mask {
    /// Writes the mask as a PNG of one bit a pixel (white is set), beside its place first and then renamed.
    ///
    /// # Errors
    /// [`SlideError::Io`].
    pub fn write_png(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        write_whole(path, &encode(path, self.bitmap(), None)?)
    }
}

fn encode(path: &Path, bitmap: &Bitmap, origin: Option<&str>) -> Result<Vec<u8>> {
    let failed = |error: png::EncodingError| SlideError::Encode {
        path: path.to_path_buf(),
        reason: error.to_string(),
    };
    let side = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let mut packed = Vec::with_capacity(bitmap.width().div_ceil(8) * bitmap.height());
    for row in bitmap.bits().chunks_exact(bitmap.width().max(1)) {
        packed.extend(row.chunks(8).map(|bits| {
            bits.iter().enumerate().fold(0, |byte, (place, &bit)| {
                byte | (u8::from(bit) << (7 - place))
            })
        }));
    }
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, side(bitmap.width()), side(bitmap.height()));
    encoder.set_color(ColorType::Grayscale);
    encoder.set_depth(BitDepth::One);
    if let Some(origin) = origin {
        encoder
            .add_itxt_chunk(KEYWORD.to_owned(), origin.to_owned())
            .map_err(failed)?;
    }
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&packed).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}
