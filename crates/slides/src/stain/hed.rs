//! Haematoxylin, eosin and DAB by colour deconvolution (Ruifrok and Johnston 2001).

use serde::{Deserialize, Serialize};

use super::density::DensityMap;
use super::{inverse, not_whole, pixels_of, whole_pixels};
use crate::error::{Result, SlideError};
use crate::numbers::{narrow, nearest_byte, wide};

/// Colours of haematoxylin, eosin and DAB, as densities of red, green and blue. scikit-image uses the same.
const STAINS: [[f64; 3]; 3] = [[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]];

/// Least light, so that the logarithm of black is finite. Amounts are in units of its density, 13.8.
const LEAST_LIGHT: f64 = 1e-6;

/// Amounts of haematoxylin, eosin and DAB in each pixel, at least 0; scikit-image's `rgb2hed`.
///
/// # Shapes
/// `rgb` and `stains`: `pixels x 3`.
///
/// # Errors
/// [`SlideError::BufferLength`] unless both are whole pixels, and as many.
pub fn separate_hed(rgb: &[u8], stains: &mut [f32]) -> Result<()> {
    let pixels = pixels_of(rgb)?;
    same_length(rgb.len(), stains.len())?;
    let density = densities();
    let unmixing = inverse(&STAINS);
    for (pixel, amounts) in pixels.iter().zip(stains.chunks_exact_mut(3)) {
        let densities = pixel.map(|byte| density[usize::from(byte)]);
        for (column, amount) in amounts.iter_mut().enumerate() {
            let sum: f64 = densities
                .iter()
                .zip(&unmixing)
                .map(|(density, row)| density * row[column])
                .sum();
            *amount = narrow(sum.max(0.0));
        }
    }
    Ok(())
}

/// The pixels of amounts of haematoxylin, eosin and DAB; scikit-image's `hed2rgb`.
///
/// # Shapes
/// `stains` and `rgb`: `pixels x 3`.
///
/// # Errors
/// [`SlideError::BufferLength`] unless both are whole pixels, and as many.
pub fn combine_hed(stains: &[f32], rgb: &mut [u8]) -> Result<()> {
    same_length(rgb.len(), stains.len())?;
    for (amounts, pixel) in stains.chunks_exact(3).zip(whole_pixels(rgb)?) {
        for (channel, byte) in pixel.iter_mut().enumerate() {
            let density: f64 = amounts
                .iter()
                .zip(&STAINS)
                .map(|(&amount, stain)| f64::from(amount) * stain[channel])
                .sum();
            *byte = nearest_byte(255.0 * (density * LEAST_LIGHT.ln()).exp());
        }
    }
    Ok(())
}

/// Changes the amounts of the three stains, as augmentation does (Tellez et al. 2018): amount times `factor` plus `offset`.
///
/// # Examples
/// ```
/// use stream_grad_slides::HedJitter;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut rgb = [150, 90, 170];
/// HedJitter { factor: [1.0; 3], offset: [0.0; 3] }.prepare()?.apply(&mut rgb)?;
/// assert_eq!(rgb, [150, 90, 170]);
/// HedJitter { factor: [1.2, 1.0, 1.0], offset: [0.0; 3] }.prepare()?.apply(&mut rgb)?;
/// assert!(rgb[0] < 150);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HedJitter {
    /// By which each stain is multiplied.
    pub factor: [f64; 3],
    /// What is added to each stain then, in the units of [`separate_hed`].
    pub offset: [f64; 3],
}

impl HedJitter {
    /// Makes the tables.
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] for numbers that are not finite.
    pub fn prepare(&self) -> Result<super::StainNormalizer> {
        if !self
            .factor
            .iter()
            .chain(&self.offset)
            .all(|value| value.is_finite())
        {
            return Err(SlideError::InvalidArgument {
                what: "a change of stains",
                expected: "finite",
                found: format!("{self:?}"),
            });
        }
        let unmixing = inverse(&STAINS);
        let mut matrix = [[0.0; 3]; 3];
        let mut offset = [0.0; 3];
        for (stain, colour) in STAINS.iter().enumerate() {
            for (channel, colour) in colour.iter().enumerate() {
                offset[channel] += self.offset[stain] * colour;
                for (from, row) in unmixing.iter().enumerate() {
                    matrix[channel][from] += colour * self.factor[stain] * row[stain];
                }
            }
        }
        // From units of the least light's density to plain densities.
        let unit = -LEAST_LIGHT.ln();
        let density = densities().map(|value| value * unit);
        let map = DensityMap::new(&density, matrix, offset.map(|value| value * unit), 255.0);
        Ok(super::StainNormalizer {
            map: super::Map::Density(map),
        })
    }
}

/// Density of each byte in units of the least light's.
fn densities() -> [f64; 256] {
    let mut table = [0.0; 256];
    for (value, byte) in table.iter_mut().zip(0..=u8::MAX) {
        *value = (f64::from(byte) / 255.0).max(LEAST_LIGHT).ln() / LEAST_LIGHT.ln();
    }
    table
}

fn same_length(rgb: usize, stains: usize) -> Result<()> {
    if rgb == stains && rgb.is_multiple_of(3) {
        Ok(())
    } else if rgb == stains {
        Err(not_whole(rgb))
    } else {
        Err(SlideError::BufferLength {
            what: "a buffer of amounts of stains (3 for each pixel)",
            expected: wide(rgb),
            found: wide(stains),
        })
    }
}
