//! Colours of stains: separated, and made alike on all slides.
//!
//! Light that passes through stained tissue is weakened by a factor for each stain: the *optical density*, minus the
//! logarithm of the light that passes, is a sum over the stains, each its amount times its colour.

mod density;
mod hed;
mod macenko;
mod profile;
mod reinhard;
mod sample;
mod statistics;

use rayon::prelude::*;

use crate::error::{Result, SlideError};
use crate::numbers::wide;

pub use hed::{HedJitter, combine_hed, separate_hed};
pub use macenko::{MacenkoOptions, MacenkoProfile};
pub use profile::{StainMethod, StainProfile};
pub use reinhard::ReinhardProfile;
pub use sample::{TissueSample, sample_tissue};

use density::DensityMap;
use reinhard::LabMap;

/// Pixels that one thread changes before it looks for more.
const PIXELS_AT_ONCE: usize = 1 << 14;

/// Gives pixels of one slide the colours of another.
///
/// A pixel's new colour depends on its old one alone, so that tiles come out the same however the slide is cut. Cheap to
/// clone, and safe to share between threads.
///
/// # Examples
/// ```
/// use stream_grad_slides::{
///     Extent, MacenkoOptions, MacenkoProfile, Mask, OpenOptions, Slide, TissueOptions, TissueSample, sample_tissue,
/// };
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Purple nuclei on pink.
/// let rgb: Vec<u8> = (0..400 * 400_usize)
///     .flat_map(|i| if i % 7 < 3 { [110, 70, 150] } else { [190 + (i % 5) as u8, 120, 180] })
///     .collect();
/// let slide = Slide::from_rgb("memory", Extent { height: 400, width: 400 }, rgb, &OpenOptions::default())?;
/// let mask = Mask::of_tissue(&slide, &TissueOptions::default())?;
/// let pixels = sample_tissue(&slide, &mask, &TissueSample::default())?;
/// let profile = MacenkoProfile::estimate(&pixels, &MacenkoOptions::default())?;
///
/// let normalizer = profile.normalizer_to(&MacenkoProfile::REFERENCE)?;
/// let mut tile = vec![110, 70, 150, 190, 120, 180];
/// normalizer.apply(&mut tile)?;
/// assert_ne!(tile, [110, 70, 150, 190, 120, 180]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct StainNormalizer {
    map: Map,
}

#[derive(Clone, Debug)]
enum Map {
    Density(DensityMap),
    Lab(LabMap),
}

impl StainNormalizer {
    /// Changes RGB pixels in place, on as many threads as the caller's rayon pool has.
    ///
    /// # Shapes
    /// `rgb`: `pixels x 3`.
    ///
    /// # Errors
    /// [`SlideError::BufferLength`] unless it is whole pixels; nothing is changed then.
    pub fn apply(&self, rgb: &mut [u8]) -> Result<()> {
        whole_pixels(rgb)?
            .par_chunks_mut(PIXELS_AT_ONCE)
            .for_each(|pixels| {
                for pixel in pixels {
                    *pixel = match &self.map {
                        Map::Density(map) => map.apply(*pixel),
                        Map::Lab(map) => map.apply(*pixel),
                    };
                }
            });
        Ok(())
    }
}

/// The inverse of a matrix of constants, which has one.
fn inverse(matrix: &[[f64; 3]; 3]) -> [[f64; 3]; 3] {
    let matrix = nalgebra::Matrix3::from_fn(|row, column| matrix[row][column]);
    let inverse = matrix
        .try_inverse()
        .unwrap_or_else(nalgebra::Matrix3::identity);
    [0, 1, 2].map(|row| [0, 1, 2].map(|column| inverse[(row, column)]))
}

/// RGB bytes as pixels.
fn whole_pixels(rgb: &mut [u8]) -> Result<&mut [[u8; 3]]> {
    let found = rgb.len();
    let (pixels, rest) = rgb.as_chunks_mut::<3>();
    if rest.is_empty() {
        Ok(pixels)
    } else {
        Err(not_whole(found))
    }
}

/// RGB bytes as pixels.
fn pixels_of(rgb: &[u8]) -> Result<&[[u8; 3]]> {
    let (pixels, rest) = rgb.as_chunks::<3>();
    if rest.is_empty() {
        Ok(pixels)
    } else {
        Err(not_whole(rgb.len()))
    }
}

fn not_whole(found: usize) -> SlideError {
    let found = wide(found);
    SlideError::BufferLength {
        what: "whole pixels, in bytes (3 each),",
        expected: found.div_ceil(3).saturating_mul(3),
        found,
    }
}

#[cfg(test)]
mod tests;
