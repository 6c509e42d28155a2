//! The method of Macenko et al., ISBI 2009.

use nalgebra::{Matrix3, Matrix3x2, SymmetricEigen, Vector3};
use serde::{Deserialize, Serialize};

use super::density::DensityMap;
use super::statistics::{moments, percentile};
use super::{Map, StainNormalizer, pixels_of};
use crate::error::{Result, SlideError};

/// Fewer pixels than this say nothing about a stain.
const FEWEST_PIXELS: usize = 100;

/// How stains are estimated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MacenkoOptions {
    /// The byte of light that passed through nothing: 240 by default.
    pub white: f64,
    /// Pixels with an optical density below this in any channel are glass: 0.15 by default.
    pub transparent: f64,
    /// The stains are the directions at this percentile of all pixels, and at 100 minus it: 1 by default.
    pub percentile: f64,
}

impl Default for MacenkoOptions {
    fn default() -> Self {
        Self {
            white: 240.0,
            transparent: 0.15,
            percentile: 1.0,
        }
    }
}

/// The two stains of a slide.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MacenkoProfile {
    /// The byte of light that passed through nothing.
    pub white: f64,
    /// Optical densities of red, green and blue for one unit of haematoxylin.
    pub haematoxylin: [f64; 3],
    /// Optical densities of red, green and blue for one unit of eosin.
    pub eosin: [f64; 3],
    /// Amounts of haematoxylin and eosin that 99 % of the pixels stay below.
    pub strongest: [f64; 2],
}

impl MacenkoProfile {
    /// The reference of the authors' own program, a common target.
    pub const REFERENCE: Self = Self {
        white: 240.0,
        haematoxylin: [0.5626, 0.7201, 0.4062],
        eosin: [0.2159, 0.8012, 0.5581],
        strongest: [1.9705, 1.0308],
    };

    /// Estimates the stains from pixels of tissue.
    ///
    /// The densities of all pixels nearly lie in a plane, which the two largest eigenvectors of their covariance span. The
    /// stains are the outermost directions in it; the one with more red absorbed is haematoxylin.
    ///
    /// # Shapes
    /// `rgb`: `pixels x 3`.
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] for options out of range, fewer than 100 pixels that are not glass, or pixels of one
    /// colour; [`SlideError::BufferLength`] unless it is whole pixels.
    pub fn estimate(rgb: &[u8], options: &MacenkoOptions) -> Result<Self> {
        check(options)?;
        let density = densities(options.white);
        let pixels: Vec<[f64; 3]> = pixels_of(rgb)?
            .iter()
            .map(|pixel| pixel.map(|byte| density[usize::from(byte)]))
            .collect();
        let stained: Vec<[f64; 3]> = pixels
            .iter()
            .copied()
            .filter(|pixel| pixel.iter().all(|&value| value >= options.transparent))
            .collect();
        if stained.len() < FEWEST_PIXELS {
            return Err(unusable(
                "at least 100 that are not glass",
                format!("{} of {}", stained.len(), pixels.len()),
            ));
        }
        let one_colour = || unusable("of more than one colour", "one colour".to_owned());
        let (along, across) = plane(&stained);
        let mut angles: Vec<f64> = stained
            .iter()
            .map(|pixel| {
                let pixel = Vector3::from(*pixel);
                pixel.dot(&along).atan2(pixel.dot(&across))
            })
            .collect();
        let mut direction = |percent| {
            let angle = percentile(&mut angles, percent).ok_or_else(one_colour)?;
            Ok(across * angle.cos() + along * angle.sin())
        };
        let (low, high): (Vector3<f64>, Vector3<f64>) = (
            direction(options.percentile)?,
            direction(100.0 - options.percentile)?,
        );
        let (haematoxylin, eosin) = if low.x > high.x {
            (low, high)
        } else {
            (high, low)
        };
        let mut profile = Self {
            white: options.white,
            haematoxylin: haematoxylin.into(),
            eosin: eosin.into(),
            strongest: [1.0; 2],
        };
        let unmixing = profile.unmixing().ok_or_else(one_colour)?;
        for (stain, strongest) in unmixing.into_iter().zip(&mut profile.strongest) {
            let mut amounts: Vec<f64> = pixels
                .iter()
                .map(|pixel| pixel.iter().zip(stain).map(|(a, b)| a * b).sum())
                .collect();
            *strongest = percentile(&mut amounts, 99.0)
                .filter(|amount| *amount > 0.0)
                .ok_or_else(one_colour)?;
        }
        Ok(profile)
    }

    /// Gives pixels with this profile the colours of `target`.
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] for a profile whose stains have one colour, or whose numbers are not finite.
    pub fn normalizer_to(&self, target: &Self) -> Result<StainNormalizer> {
        for profile in [self, target] {
            profile.check()?;
        }
        let unmixing = self
            .unmixing()
            .ok_or_else(|| unusable("stains of different colours", format!("{self:?}")))?;
        let mut matrix = [[0.0; 3]; 3];
        let stains = [target.haematoxylin, target.eosin];
        for (stain, colour) in stains.iter().enumerate() {
            let strength = target.strongest[stain] / self.strongest[stain];
            for (row, to) in matrix.iter_mut().zip(colour) {
                for (weight, from) in row.iter_mut().zip(unmixing[stain]) {
                    *weight += to * strength * from;
                }
            }
        }
        let map = DensityMap::new(&densities(self.white), matrix, [0.0; 3], target.white);
        Ok(StainNormalizer {
            map: Map::Density(map),
        })
    }

    /// For each stain, the weights of the densities that give its amount (least squares).
    fn unmixing(&self) -> Option<[[f64; 3]; 2]> {
        let stains = Matrix3x2::from_columns(&[self.haematoxylin.into(), self.eosin.into()]);
        let inverse = (stains.transpose() * stains).try_inverse()?;
        let weights = inverse * stains.transpose();
        let row = |index: usize| {
            [
                weights[(index, 0)],
                weights[(index, 1)],
                weights[(index, 2)],
            ]
        };
        let unmixing = [row(0), row(1)];
        unmixing
            .iter()
            .flatten()
            .all(|weight| weight.is_finite())
            .then_some(unmixing)
    }

    fn check(&self) -> Result<()> {
        check_white(self.white)?;
        let colours = self.haematoxylin.iter().chain(&self.eosin);
        let usable = colours.clone().all(|value| value.is_finite())
            && self
                .strongest
                .iter()
                .all(|amount| amount.is_finite() && *amount > 0.0);
        if usable {
            Ok(())
        } else {
            Err(unusable("finite, amounts above 0", format!("{self:?}")))
        }
    }
}

/// The plane of the densities: unit vectors along the largest and the second largest spread.
fn plane(stained: &[[f64; 3]]) -> (Vector3<f64>, Vector3<f64>) {
    let (mean, _) = moments(stained);
    let mut covariance = Matrix3::zeros();
    for pixel in stained {
        let from_mean = Vector3::from(*pixel) - Vector3::from(mean);
        covariance += from_mean * from_mean.transpose();
    }
    let eigen = SymmetricEigen::new(covariance);
    let mut order = [0, 1, 2];
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    let mut along: Vector3<f64> = eigen.eigenvectors.column(order[0]).into();
    // Densities are positive: with this sign no angle is near where the arc tangent jumps.
    if along.sum() < 0.0 {
        along = -along;
    }
    (along, eigen.eigenvectors.column(order[1]).into())
}

/// Optical density of each byte. One is added, so that black has one, too.
fn densities(white: f64) -> [f64; 256] {
    let mut table = [0.0; 256];
    for (value, byte) in table.iter_mut().zip(0..=u8::MAX) {
        *value = -((f64::from(byte) + 1.0) / white).ln();
    }
    table
}

fn check(options: &MacenkoOptions) -> Result<()> {
    check_white(options.white)?;
    if !options.transparent.is_finite() {
        return Err(unusable_option("finite", options.transparent));
    }
    if !(0.0..50.0).contains(&options.percentile) {
        return Err(unusable_option(
            "a percentile from 0 to below 50",
            options.percentile,
        ));
    }
    Ok(())
}

fn check_white(white: f64) -> Result<()> {
    if white.is_finite() && white > 0.0 {
        Ok(())
    } else {
        Err(unusable_option("a byte of white above 0", white))
    }
}

fn unusable_option(expected: &'static str, found: f64) -> SlideError {
    SlideError::InvalidArgument {
        what: "an option for stains",
        expected,
        found: found.to_string(),
    }
}

fn unusable(expected: &'static str, found: String) -> SlideError {
    SlideError::InvalidArgument {
        what: "pixels or stains",
        expected,
        found,
    }
}
