//! Rows of stored samples to rows of RGB.

use super::page::{Alpha, Photometric, Storage};
use crate::geometry::Rgb;
use crate::numbers::nearest_byte;

/// Bytes of a palette: colours by index.
pub(crate) type Palette = Vec<[u8; 3]>;

/// Turns samples of a page into RGB over a background.
#[derive(Clone, Debug)]
pub(crate) struct ToRgb {
    photometric: Photometric,
    bits: u32,
    samples: usize,
    alpha: Option<Alpha>,
    palette: Palette,
}

impl ToRgb {
    pub(crate) const fn new(storage: &Storage, samples: usize, palette: Palette) -> Self {
        Self {
            photometric: storage.photometric,
            bits: storage.bits,
            samples,
            alpha: storage.alpha,
            palette,
        }
    }

    /// One row. `stored` has a row of each plane (one if samples are interleaved), samples of several bytes in this machine's order.
    ///
    /// # Errors
    /// A palette's index that has no colour.
    pub(crate) fn convert(
        &self,
        stored: &[Vec<u8>],
        background: Rgb,
        rgb: &mut [u8],
    ) -> Result<(), String> {
        if let (Photometric::Rgb, 8, 3, [row]) = (self.photometric, self.bits, self.samples, stored)
            && let Some(row) = row.get(..rgb.len())
        {
            rgb.copy_from_slice(row);
            return Ok(());
        }
        let planes: Vec<Vec<u8>> = stored.iter().map(|row| self.bytes(row)).collect();
        let mut pixel = vec![0; self.samples];
        for (column, target) in rgb.chunks_exact_mut(3).enumerate() {
            if let [interleaved] = planes.as_slice() {
                let start = column * self.samples;
                let found = interleaved.get(start..start + self.samples);
                pixel.copy_from_slice(found.ok_or("a row is too short")?);
            } else {
                for (value, plane) in pixel.iter_mut().zip(&planes) {
                    *value = *plane.get(column).ok_or("a row is too short")?;
                }
            }
            target.copy_from_slice(&self.over(background, self.colour(&pixel)?, &pixel));
        }
        Ok(())
    }

    /// A byte for each sample: its share of the largest value (of floating-point numbers, of 1), or for palettes the value.
    fn bytes(&self, row: &[u8]) -> Vec<u8> {
        match self.bits {
            8 => row.to_vec(),
            16 => {
                let wide = row.chunks_exact(2);
                wide.map(|pair| reduced(u16::from_ne_bytes([pair[0], pair[1]])))
                    .collect()
            }
            32 => {
                let (values, _) = row.as_chunks::<4>();
                let shares = values
                    .iter()
                    .map(|value| f64::from(f32::from_ne_bytes(*value)));
                shares.map(|share| nearest_byte(share * 255.0)).collect()
            }
            bits => {
                let per_byte = 8 / bits;
                let largest = u8::MAX >> (8 - bits);
                let scale = match self.photometric {
                    Photometric::Palette => 1,
                    _ => u8::MAX / largest,
                };
                let split = |&byte: &u8| {
                    (1..=per_byte).map(move |place| (byte >> (8 - place * bits) & largest) * scale)
                };
                row.iter().flat_map(split).collect()
            }
        }
    }

    fn colour(&self, pixel: &[u8]) -> Result<[u8; 3], String> {
        Ok(match (self.photometric, pixel) {
            (Photometric::BlackIsZero, &[value, ..]) => [value; 3],
            (Photometric::WhiteIsZero, &[value, ..]) => [u8::MAX - value; 3],
            (Photometric::Rgb, &[r, g, b, ..]) => [r, g, b],
            (Photometric::YCbCr, &[y, cb, cr, ..]) => from_ycbcr(y, cb, cr),
            (Photometric::Cmyk, &[c, m, y, k, ..]) => from_cmyk([c, m, y], k),
            (Photometric::Palette, &[index, ..]) => self
                .palette
                .get(usize::from(index))
                .copied()
                .ok_or_else(|| {
                let colours = self.palette.len();
                format!("index {index} into a palette of {colours} colours")
            })?,
            _ => return Err("a row is too short".to_owned()),
        })
    }

    fn over(&self, background: Rgb, colour: [u8; 3], pixel: &[u8]) -> [u8; 3] {
        let (place, is_associated) = match self.alpha {
            None => return colour,
            Some(Alpha::Associated(place)) => (place, true),
            Some(Alpha::Unassociated(place)) => (place, false),
        };
        let alpha = u32::from(pixel.get(place).copied().unwrap_or(u8::MAX));
        let mut seen = colour;
        for (value, behind) in seen.iter_mut().zip(background.0) {
            let own = u32::from(*value) * if is_associated { 255 } else { alpha };
            let sum = own + u32::from(behind) * (255 - alpha);
            *value = u8::try_from((sum + 127) / 255).unwrap_or(u8::MAX);
        }
        seen
    }
}

/// A 16-bit value to the nearest of 8 bits, as libtiff does it.
fn reduced(value: u16) -> u8 {
    u8::try_from((u32::from(value) + 128) / 257).unwrap_or(u8::MAX)
}

/// What libtiff gives for four inks without a profile.
fn from_cmyk(inks: [u8; 3], black: u8) -> [u8; 3] {
    let light = u16::from(u8::MAX - black);
    inks.map(|ink| u8::try_from(light * u16::from(u8::MAX - ink) / 255).unwrap_or(u8::MAX))
}

/// By ITU-R BT.601 over the whole range, as JPEG has it, in libjpeg's arithmetic: sixteen bits behind the point.
fn from_ycbcr(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let red = y + ((91_881 * cr + HALF) >> 16);
    let green = y + ((HALF - 22_554 * cb - 46_802 * cr) >> 16);
    let blue = y + ((116_130 * cb + HALF) >> 16);
    [red, green, blue].map(|value| u8::try_from(value.clamp(0, 255)).unwrap_or_default())
}

/// Undoes horizontal differencing of one row of samples of 8 or 16 bits.
pub(crate) fn undo_prediction(row: &mut [u8], bits: u32, samples: usize) {
    if bits == 16 {
        for start in (2 * samples..row.len().saturating_sub(1)).step_by(2) {
            let before = start - 2 * samples;
            let left = u16::from_ne_bytes([row[before], row[before + 1]]);
            let difference = u16::from_ne_bytes([row[start], row[start + 1]]);
            row[start..start + 2].copy_from_slice(&left.wrapping_add(difference).to_ne_bytes());
        }
    } else {
        for place in samples..row.len() {
            row[place] = row[place].wrapping_add(row[place - samples]);
        }
    }
}

/// Puts samples of several bytes into this machine's order.
pub(crate) fn to_native(row: &mut [u8], sample_bytes: usize, is_big_endian: bool) {
    if is_big_endian != cfg!(target_endian = "big") {
        for sample in row.chunks_exact_mut(sample_bytes) {
            sample.reverse();
        }
    }
}

/// Units of subsampled YCbCr, side by side, to rows of three samples a pixel; each colour serves all pixels of its unit.
pub(crate) fn spread_units(units: &[u8], across: usize, down: usize, width: usize) -> Vec<Vec<u8>> {
    let unit_bytes = across * down + 2;
    let mut rows = vec![Vec::with_capacity(width * 3); down];
    for unit in units.chunks_exact(unit_bytes) {
        let (lights, colours) = unit.split_at(across * down);
        for (row, lights) in rows.iter_mut().zip(lights.chunks_exact(across)) {
            for &light in lights {
                row.extend([light, colours[0], colours[1]]);
            }
        }
    }
    for row in &mut rows {
        row.truncate(width * 3);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::super::page::Compression;
    use super::*;

    fn converted(photometric: Photometric, bits: u32, alpha: Option<Alpha>, row: &[u8]) -> Vec<u8> {
        let samples = photometric.colours() + usize::from(alpha.is_some());
        let storage = Storage {
            compression: Compression::None,
            photometric,
            bits,
            is_predicted: false,
            alpha,
        };
        let pixels = row.len() * 8 / (crate::numbers::index(bits) * samples);
        let mut rgb = vec![0; pixels * 3];
        let palette = vec![[1, 2, 3], [4, 5, 6]];
        ToRgb::new(&storage, samples, palette)
            .convert(&[row.to_vec()], Rgb([200, 100, 0]), &mut rgb)
            .unwrap();
        rgb
    }

    #[test]
    fn small_and_large_samples_are_shares_of_the_largest_value() {
        let grey = |bits, row: &[u8]| -> Vec<u8> {
            let rgb = converted(Photometric::BlackIsZero, bits, None, row);
            rgb.into_iter().step_by(3).collect()
        };
        assert_eq!(grey(1, &[0b1010_0001]), [255, 0, 255, 0, 0, 0, 0, 255]);
        assert_eq!(grey(2, &[0b0001_1011]), [0, 85, 170, 255]);
        assert_eq!(grey(4, &[0x0f, 0x18]), [0, 255, 17, 136]);
        let wide: Vec<u8> = [0_u16, 128, 129, 257, 385, 386, 65_535]
            .iter()
            .flat_map(|value| value.to_ne_bytes())
            .collect();
        // Halves between two bytes do not exist: 257 is odd.
        assert_eq!(grey(16, &wide), [0, 0, 1, 1, 1, 2, 255]);
        let white_is_zero = converted(Photometric::WhiteIsZero, 8, None, &[0, 255, 10]);
        assert_eq!(white_is_zero, [255, 255, 255, 0, 0, 0, 245, 245, 245]);
    }

    #[test]
    fn alpha_is_multiplied_once() {
        let over = |alpha, pixel: [u8; 4]| converted(Photometric::Rgb, 8, Some(alpha), &pixel);
        // Half of a colour over the background: (100 + 200) / 2, (50 + 100) / 2, 200 / 2.
        assert_eq!(
            over(Alpha::Unassociated(3), [100, 50, 200, 128]),
            [150, 75, 100]
        );
        assert_eq!(
            over(Alpha::Associated(3), [50, 25, 100, 128]),
            [150, 75, 100]
        );
        assert_eq!(over(Alpha::Unassociated(3), [9, 9, 9, 0]), [200, 100, 0]);
        assert_eq!(over(Alpha::Associated(3), [0, 0, 0, 0]), [200, 100, 0]);
        // More colour than alpha allows is cut off.
        assert_eq!(over(Alpha::Associated(3), [255, 25, 0, 128]), [255, 75, 0]);
    }

    #[test]
    fn other_colours() {
        let inks = [0, 0, 0, 0, 255, 0, 0, 0, 0, 255, 128, 51];
        assert_eq!(
            converted(Photometric::Cmyk, 8, None, &inks),
            [255, 255, 255, 0, 255, 255, 204, 0, 101]
        );
        // White, black, and the three primaries as JPEG stores them.
        let ycbcr = [
            255, 128, 128, 0, 128, 128, 76, 85, 255, 150, 44, 21, 29, 255, 107,
        ];
        let rgb = converted(Photometric::YCbCr, 8, None, &ycbcr);
        let expected = [255, 255, 255, 0, 0, 0, 254, 0, 0, 0, 255, 1, 0, 0, 254];
        assert_eq!(rgb, expected);
        assert_eq!(
            converted(Photometric::Palette, 1, None, &[0b1000_0000])[..6],
            [4, 5, 6, 1, 2, 3]
        );
    }

    #[test]
    fn an_index_beyond_the_palette_is_an_error() {
        let storage = Storage {
            compression: Compression::None,
            photometric: Photometric::Palette,
            bits: 8,
            is_predicted: false,
            alpha: None,
        };
        let to_rgb = ToRgb::new(&storage, 1, vec![[0; 3]; 2]);
        let error = to_rgb.convert(&[vec![2]], Rgb::WHITE, &mut [0; 3]);
        assert_eq!(error.unwrap_err(), "index 2 into a palette of 2 colours");
    }

    #[test]
    fn differences_are_added_up_per_sample() {
        let mut row = [10, 20, 1, 255, 2, 2];
        undo_prediction(&mut row, 8, 2);
        assert_eq!(row, [10, 20, 11, 19, 13, 21]);
        let mut row: Vec<u8> = [1000_u16, 65_535, 5]
            .iter()
            .flat_map(|v| v.to_ne_bytes())
            .collect();
        undo_prediction(&mut row, 16, 1);
        let expected: Vec<u8> = [1000_u16, 999, 1004]
            .iter()
            .flat_map(|v| v.to_ne_bytes())
            .collect();
        assert_eq!(row, expected);
    }

    #[test]
    fn units_are_spread() {
        // Two units of 2 x 2 lights, for three columns.
        let rows = spread_units(&[1, 2, 3, 4, 90, 91, 5, 6, 7, 8, 92, 93], 2, 2, 3);
        assert_eq!(rows[0], [1, 90, 91, 2, 90, 91, 5, 92, 93]);
        assert_eq!(rows[1], [3, 90, 91, 4, 90, 91, 7, 92, 93]);
    }
}
