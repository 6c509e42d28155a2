//! Affine maps of optical densities, by tables.

use crate::numbers::nearest_byte;

/// Maps densities `d` to `matrix d + offset`. The exponential of a sum is a product of three factors, each of which depends
/// on one byte.
#[derive(Clone, Debug)]
pub(super) struct DensityMap {
    /// By new channel, old channel and byte.
    factors: Box<[[[f64; 256]; 3]; 3]>,
    /// What the new channels are where all factors are 1.
    white: [f64; 3],
}

impl DensityMap {
    /// `density`: optical density of each byte; `white`: the byte of density 0.
    pub(super) fn new(
        density: &[f64; 256],
        matrix: [[f64; 3]; 3],
        offset: [f64; 3],
        white: f64,
    ) -> Self {
        let factors =
            matrix.map(|row| row.map(|weight| density.map(|value| (-weight * value).exp())));
        Self {
            factors: Box::new(factors),
            white: offset.map(|value| white * (-value).exp()),
        }
    }

    pub(super) fn apply(&self, pixel: [u8; 3]) -> [u8; 3] {
        let [red, green, blue] = pixel.map(usize::from);
        let mut out = [0; 3];
        for ((out, factors), white) in out.iter_mut().zip(&*self.factors).zip(self.white) {
            *out = nearest_byte(white * factors[0][red] * factors[1][green] * factors[2][blue]);
        }
        out
    }
}
