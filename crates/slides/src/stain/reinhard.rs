//! The method of Reinhard et al., IEEE Computer Graphics and Applications 2001, in CIELAB.

use serde::{Deserialize, Serialize};

use super::statistics::moments;
use super::{Map, StainNormalizer, inverse, pixels_of};
use crate::error::{Result, SlideError};
use crate::numbers::nearest_byte;

/// Linear sRGB to XYZ (IEC 61966-2-1), rows X, Y and Z.
const TO_XYZ: [[f64; 3]; 3] = [
    [0.412_453, 0.357_580, 0.180_423],
    [0.212_671, 0.715_160, 0.072_169],
    [0.019_334, 0.119_193, 0.950_227],
];

/// The white point D65 for an observer of 2 degrees.
const WHITE: [f64; 3] = [0.950_47, 1.0, 1.088_83];

/// Mean and spread of a slide's colours in CIELAB.
///
/// The published method works in another space of lightness and two colour axes; programs for slides use CIELAB.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReinhardProfile {
    /// Mean of L*, a* and b*.
    pub mean: [f64; 3],
    /// Standard deviation of L*, a* and b*.
    pub deviation: [f64; 3],
}

impl ReinhardProfile {
    /// The tissue of a freely usable slide, Aperio's CMU-1-Small-Region (haematoxylin and eosin): a target where there is no
    /// other.
    pub const REFERENCE: Self = Self {
        mean: [52.9, 26.2, -11.1],
        deviation: [20.9, 12.1, 6.9],
    };

    /// Mean and spread of pixels of tissue.
    ///
    /// # Shapes
    /// `rgb`: `pixels x 3`.
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] for pixels of one colour or none; [`SlideError::BufferLength`] unless it is whole
    /// pixels.
    pub fn estimate(rgb: &[u8]) -> Result<Self> {
        let linear = linear_table();
        let lab: Vec<[f64; 3]> = pixels_of(rgb)?
            .iter()
            .map(|pixel| to_lab(*pixel, &linear))
            .collect();
        let (mean, deviation) = moments(&lab);
        let profile = Self { mean, deviation };
        profile.check()?;
        Ok(profile)
    }

    /// Gives pixels with this profile the mean and spread of `target`.
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] for a profile whose numbers are not finite or whose spread is 0.
    pub fn normalizer_to(&self, target: &Self) -> Result<StainNormalizer> {
        self.check()?;
        target.check()?;
        let mut factor = [0.0; 3];
        let mut offset = [0.0; 3];
        for axis in 0..3 {
            factor[axis] = target.deviation[axis] / self.deviation[axis];
            offset[axis] = target.mean[axis] - self.mean[axis] * factor[axis];
        }
        Ok(StainNormalizer {
            map: Map::Lab(LabMap {
                linear: Box::new(linear_table()),
                factor,
                offset,
                from_xyz: inverse(&TO_XYZ),
            }),
        })
    }

    fn check(&self) -> Result<()> {
        let spread = |value: &f64| value.is_finite() && *value > 1e-6;
        if self.mean.iter().all(|value| value.is_finite()) && self.deviation.iter().all(spread) {
            return Ok(());
        }
        Err(SlideError::InvalidArgument {
            what: "colours",
            expected: "finite and of more than one kind on each axis of CIELAB",
            found: format!("{self:?}"),
        })
    }
}

/// An affine map of each axis of CIELAB.
#[derive(Clone, Debug)]
pub(super) struct LabMap {
    linear: Box<[f64; 256]>,
    factor: [f64; 3],
    offset: [f64; 3],
    from_xyz: [[f64; 3]; 3],
}

impl LabMap {
    pub(super) fn apply(&self, pixel: [u8; 3]) -> [u8; 3] {
        let mut lab = to_lab(pixel, &self.linear);
        for ((value, factor), offset) in lab.iter_mut().zip(self.factor).zip(self.offset) {
            *value = *value * factor + offset;
        }
        from_lab(lab, &self.from_xyz)
    }
}

/// Light of each byte of sRGB, from 0 to 1.
fn linear_table() -> [f64; 256] {
    let mut table = [0.0; 256];
    for (light, byte) in table.iter_mut().zip(0..=u8::MAX) {
        let value = f64::from(byte) / 255.0;
        *light = if value > 0.040_45 {
            ((value + 0.055) / 1.055).powf(2.4)
        } else {
            value / 12.92
        };
    }
    table
}

fn to_lab(pixel: [u8; 3], linear: &[f64; 256]) -> [f64; 3] {
    let light = pixel.map(|byte| linear[usize::from(byte)]);
    let mut bent = multiply(&TO_XYZ, light);
    for (value, white) in bent.iter_mut().zip(WHITE) {
        let share = *value / white;
        *value = if share > 0.008_856 {
            share.cbrt()
        } else {
            7.787 * share + 16.0 / 116.0
        };
    }
    let [x, y, z] = bent;
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

fn from_lab([lightness, a, b]: [f64; 3], from_xyz: &[[f64; 3]; 3]) -> [u8; 3] {
    let y = (lightness + 16.0) / 116.0;
    let mut xyz = [y + a / 500.0, y, y - b / 200.0];
    for (value, white) in xyz.iter_mut().zip(WHITE) {
        let share = if *value > 0.206_896_6 {
            value.powi(3)
        } else {
            (*value - 16.0 / 116.0) / 7.787
        };
        *value = share * white;
    }
    multiply(from_xyz, xyz).map(|light| {
        let value = if light > 0.003_130_8 {
            1.055 * light.powf(1.0 / 2.4) - 0.055
        } else {
            12.92 * light
        };
        nearest_byte(value * 255.0)
    })
}

fn multiply(matrix: &[[f64; 3]; 3], [a, b, c]: [f64; 3]) -> [f64; 3] {
    matrix.map(|row| row[0] * a + row[1] * b + row[2] * c)
}
