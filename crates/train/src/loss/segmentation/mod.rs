//! The loss of a label map: cross-entropy and Dice over all pixels of an image.
//!
//! Both are functions of sums over pixels. The forward sweep hands out logits region by region and [`SegmentationSums`] adds up; the
//! backward sweep hands the same logits out again, and each region's cotangent follows from them, its labels and the sums. So neither
//! logits nor labels ever exist as a whole.

mod passes;
mod sums;

pub use passes::{SegmentationCotangents, SegmentationSink};
pub use sums::SegmentationSums;
pub(crate) use sums::likeliest;

use crate::error::{Result, TrainError};

/// The least denominator of a Dice score, as in `segmentation_models_pytorch`.
const EPSILON: f64 = 1e-7;

/// A weighted sum of cross-entropy and soft Dice over the pixels of an image whose class is known.
///
/// - Cross-entropy is PyTorch's `cross_entropy(logits, labels, weight, ignore_index)`: the mean over labelled pixels, each weighted as
///   its class.
/// - Dice is `DiceLoss("multiclass", smooth, eps=1e-7, ignore_index)` of `segmentation_models_pytorch` 0.6: the mean over all classes of
///   `1 - (I + smooth) / max(K / 2 + smooth, eps)`, where `I` sums the probabilities of a class over its own pixels and `K` those over all
///   labelled pixels and the number of its own. A class without a pixel in the truth counts as 0.
///
/// Pixels of the ignore index have no say. An image without a labelled pixel, or whose labelled pixels all have weight 0, has a loss and
/// gradients of 0, where PyTorch's mean is NaN. Logits that are NaN make the loss NaN, those that are infinite may.
///
/// ```
/// use stream_grad_train::loss::SegmentationLoss;
/// let loss = SegmentationLoss { dice: 0.0, ..SegmentationLoss::new(3) };
/// assert!(loss.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentationLoss {
    /// Classes, 0 to `classes - 1`: 2 to 255.
    pub classes: usize,
    /// What stands for pixels of no class: 255 by default. May be one of the classes.
    pub ignore_index: u8,
    /// A factor of 0 or more for each class in the cross-entropy; empty, the default, for all 1.
    pub class_weights: Vec<f64>,
    /// Factor of the cross-entropy, 0 or more: 1 by default.
    pub cross_entropy: f64,
    /// Factor of the Dice loss, 0 or more: 1 by default.
    pub dice: f64,
    /// Added to numerator and denominator of each Dice score, 0 or more: 0 by default.
    pub smooth: f64,
}

impl SegmentationLoss {
    /// The ignore index unless another is given.
    pub const IGNORE_INDEX: u8 = u8::MAX;

    /// Cross-entropy and Dice alike.
    #[must_use]
    pub const fn new(classes: usize) -> Self {
        Self {
            classes,
            ignore_index: Self::IGNORE_INDEX,
            class_weights: Vec::new(),
            cross_entropy: 1.0,
            dice: 1.0,
            smooth: 0.0,
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for factors that are negative or not finite, or both 0, and for another number of class weights than
    /// classes.
    pub fn check(&self) -> Result<()> {
        self.check_factors()?;
        let weights = &self.class_weights;
        if weights.is_empty()
            || (weights.len() == self.classes && weights.iter().copied().all(is_factor))
        {
            return Ok(());
        }
        Err(TrainError::setting(
            "train.class_weights",
            format!(
                "{} finite numbers of 0 or more, one for each class",
                self.classes
            ),
            format!("{weights:?}"),
        ))
    }

    /// Checks what does not depend on the number of classes.
    pub(crate) fn check_factors(&self) -> Result<()> {
        for (name, factor) in [
            ("train.cross_entropy_weight", self.cross_entropy),
            ("train.dice_weight", self.dice),
            ("train.dice_smooth", self.smooth),
        ] {
            if !is_factor(factor) {
                return Err(TrainError::setting(
                    name,
                    "a finite number of 0 or more",
                    factor,
                ));
            }
        }
        if self.cross_entropy + self.dice == 0.0 {
            return Err(TrainError::setting(
                "train.cross_entropy_weight and train.dice_weight",
                "one of them above 0",
                "0 and 0",
            ));
        }
        Ok(())
    }

    /// The loss that follows from sums over all pixels.
    #[must_use]
    pub fn value(&self, sums: &SegmentationSums) -> f64 {
        let mut value = 0.0;
        if self.cross_entropy > 0.0 && sums.weight > 0.0 {
            value += self.cross_entropy * sums.cross_entropy / sums.weight;
        }
        if self.dice > 0.0 {
            let scores = self.scores(sums);
            let losses = scores.iter().flatten().map(|score| 1.0 - score.value());
            value += self.dice * losses.sum::<f64>() / float(self.classes);
        }
        value
    }

    /// The Dice score of each class that has pixels in the truth.
    fn scores(&self, sums: &SegmentationSums) -> Vec<Option<Score>> {
        let score = |class: usize| {
            (sums.confusion.of_truth(class) > 0).then(|| Score {
                numerator: sums.intersection[class] + self.smooth,
                denominator: sums.cardinality[class] / 2.0 + self.smooth,
            })
        };
        (0..self.classes).map(score).collect()
    }

    fn weight_of(&self, class: usize) -> f64 {
        self.class_weights.get(class).copied().unwrap_or(1.0)
    }
}

/// A soft Dice score as a fraction.
#[derive(Debug, Clone, Copy)]
struct Score {
    numerator: f64,
    denominator: f64,
}

impl Score {
    fn value(self) -> f64 {
        // Not `f64::max`, which passes over NaN.
        let denominator = if self.denominator < EPSILON {
            EPSILON
        } else {
            self.denominator
        };
        self.numerator / denominator
    }

    /// Derivatives by the probability of a pixel of the class, on top of that of any pixel; and of any pixel.
    fn derivatives(self) -> (f64, f64) {
        if self.denominator < EPSILON {
            return (1.0 / EPSILON, 0.0);
        }
        (
            1.0 / self.denominator,
            -self.value() / (2.0 * self.denominator),
        )
    }
}

fn is_factor(factor: f64) -> bool {
    factor.is_finite() && factor >= 0.0
}

#[expect(clippy::cast_precision_loss, reason = "numbers of classes are small")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
