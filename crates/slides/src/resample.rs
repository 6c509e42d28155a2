//! The separable filter behind views: each output pixel depends on its own coordinates and on nothing else.
//!
//! `fast_image_resize` computes its weights from the crop it is given, so a pixel would change with the region asked for;
//! here the weights come from the pixel's index alone. Reduction is the exact area average (for whole-number steps the
//! mean of the covered pixels); enlargement is bilinear between pixel centres.

use crate::numbers::{float, narrow, to_usize, whole, wide};

/// How one axis of the output is made from one axis of a level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Axis {
    /// Level pixels per output pixel.
    step: f64,
    /// Length of the level along this axis, at least 1.
    source: u64,
}

/// Source pixels `first..first + weights.len()` and what each contributes; the weights add up to 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Taps {
    pub(crate) first: u64,
    pub(crate) weights: Vec<f32>,
}

impl Taps {
    /// One past the last source pixel.
    pub(crate) fn end(&self) -> u64 {
        self.first + wide(self.weights.len())
    }
}

/// Overlaps below this part of a pixel come from rounding and are dropped.
const SLIVER: f64 = 1e-6;

impl Axis {
    pub(crate) const fn new(step: f64, source: u64) -> Self {
        Self { step, source }
    }

    /// Level pixels per output pixel.
    pub(crate) const fn step(self) -> f64 {
        self.step
    }

    /// Number of output pixels: the nearest whole number, at least one.
    pub(crate) fn length(self) -> u64 {
        whole((float(self.source) / self.step).round()).max(1)
    }

    /// The taps of output pixel `index`.
    pub(crate) fn taps(self, index: u64, taps: &mut Taps) {
        taps.weights.clear();
        if self.step >= 1.0 {
            self.area(float(index), taps);
        } else {
            self.bilinear(float(index), taps);
        }
    }

    fn area(self, index: f64, taps: &mut Taps) {
        let start = index * self.step;
        let end = ((index + 1.0) * self.step).min(float(self.source));
        taps.first = whole((start + SLIVER).floor()).min(self.source - 1);
        let last = whole((end - SLIVER).ceil()).clamp(taps.first + 1, self.source);
        let overlap = |pixel: u64| {
            let lo = float(pixel).max(start);
            let hi = (float(pixel) + 1.0).min(end);
            (hi - lo).max(SLIVER)
        };
        let total: f64 = (taps.first..last).map(overlap).sum();
        taps.weights
            .extend((taps.first..last).map(|pixel| narrow(overlap(pixel) / total)));
    }

    fn bilinear(self, index: f64, taps: &mut Taps) {
        let centre = ((index + 0.5) * self.step - 0.5).clamp(0.0, float(self.source - 1));
        taps.first = whole(centre.floor());
        let towards_next = centre - centre.floor();
        if towards_next < SLIVER {
            taps.weights.push(1.0);
        } else {
            taps.weights
                .extend([narrow(1.0 - towards_next), narrow(towards_next)]);
        }
    }
}

/// Adds `weight` times a row of bytes to a row of sums.
pub(crate) fn add_weighted(sums: &mut [f32], bytes: &[u8], weight: f32) {
    for (sum, &byte) in sums.iter_mut().zip(bytes) {
        *sum += weight * f32::from(byte);
    }
}

/// Filters a row of sums (RGB, starting at source column `first`) into one output pixel per entry of `taps`.
pub(crate) fn filter_row(sums: &[f32], first: u64, taps: &[Taps], rgb: &mut [u8]) {
    for (taps, pixel) in taps.iter().zip(rgb.chunks_exact_mut(3)) {
        let start = to_usize(taps.first - first).saturating_mul(3);
        let mut value = [0.5_f32; 3];
        let source = sums.get(start..).unwrap_or_default();
        for (weight, colour) in taps.weights.iter().zip(source.chunks_exact(3)) {
            for (value, &channel) in value.iter_mut().zip(colour) {
                *value += weight * channel;
            }
        }
        for (out, value) in pixel.iter_mut().zip(value) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rounded average of bytes; the cast saturates"
            )]
            let byte = value as u8;
            *out = byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taps(axis: Axis, index: u64) -> Taps {
        let mut taps = Taps::default();
        axis.taps(index, &mut taps);
        taps
    }

    #[test]
    fn whole_steps_average_the_covered_pixels() {
        let axis = Axis::new(4.0, 10);
        assert_eq!(axis.length(), 3);
        assert_eq!(taps(axis, 1).first, 4);
        assert_eq!(taps(axis, 1).weights, [0.25; 4]);
        assert_eq!(taps(axis, 2).weights, [0.5; 2], "only two pixels are left");
    }

    #[test]
    fn broken_steps_weigh_by_overlap() {
        let found = taps(Axis::new(2.5, 100), 1);
        assert_eq!(found.first, 2);
        for (weight, expected) in found.weights.iter().zip([0.2, 0.4, 0.4]) {
            assert!((weight - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn enlarging_is_bilinear_between_centres() {
        let axis = Axis::new(0.5, 3);
        assert_eq!(axis.length(), 6);
        assert_eq!(taps(axis, 0).weights, [1.0]);
        assert_eq!(
            (taps(axis, 1).first, taps(axis, 1).weights),
            (0, vec![0.75, 0.25])
        );
        assert_eq!((taps(axis, 5).first, taps(axis, 5).weights), (2, vec![1.0]));
    }

    #[test]
    fn taps_stay_inside_add_up_to_one_and_move_forward() {
        for step in [0.3, 0.999, 1.0, 1.0001, 1.7, 3.0, 7.31, 1000.0] {
            for source in [1, 2, 3, 17, 1000] {
                let axis = Axis::new(step, source);
                let mut before = 0;
                for index in 0..axis.length() {
                    let taps = taps(axis, index);
                    assert!(taps.end() <= source && !taps.weights.is_empty());
                    assert!(taps.first >= before);
                    before = taps.first;
                    let sum: f32 = taps.weights.iter().sum();
                    assert!((sum - 1.0).abs() < 1e-4, "step {step}: {sum}");
                    assert!(taps.weights.iter().all(|weight| *weight > 0.0));
                }
            }
        }
    }
}
