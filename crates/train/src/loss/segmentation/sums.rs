//! What losses need to know of all pixels.

use stream_grad::Stored;

use super::{SegmentationLoss, float};
use crate::metrics::Confusion;

/// Sums over the labelled pixels of an image, in double precision.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentationSums {
    /// Of the class weights.
    pub(super) weight: f64,
    /// Of the cross-entropies, each times its class weight.
    pub(super) cross_entropy: f64,
    /// For each class, of its probability over its own pixels.
    pub(super) intersection: Vec<f64>,
    /// For each class, of its probability over all labelled pixels, and the number of its own.
    pub(super) cardinality: Vec<f64>,
    /// How often each class was the likeliest (the first of several that are alike), by true class.
    pub(super) confusion: Confusion,
}

impl SegmentationSums {
    /// No pixels yet.
    #[must_use]
    pub fn new(classes: usize) -> Self {
        Self {
            weight: 0.0,
            cross_entropy: 0.0,
            intersection: vec![0.0; classes],
            cardinality: vec![0.0; classes],
            confusion: Confusion::new(classes),
        }
    }

    /// How many pixels of each class were taken for each class.
    #[must_use]
    pub const fn confusion(&self) -> &Confusion {
        &self.confusion
    }

    /// Adds a row of pixels: `logits` has `classes` values for each of `labels`.
    pub(super) fn add_row<T: Copy + Into<f64>>(
        &mut self,
        loss: &SegmentationLoss,
        (logits, labels): (&[T], &[u8]),
        probabilities: &mut [f64],
    ) {
        for (logits, &label) in logits.chunks_exact(loss.classes).zip(labels) {
            if label == loss.ignore_index {
                continue;
            }
            let truth = usize::from(label);
            let (largest, log_sum) = softmax(logits, probabilities);
            let weight = loss.weight_of(truth);
            self.weight += weight;
            // A factor of 0 takes out what is not finite, too: the class is not learnt.
            if weight > 0.0 {
                let logit: f64 = logits[truth].into();
                self.cross_entropy += weight * ((largest - logit) + log_sum);
            }
            self.intersection[truth] += probabilities[truth];
            self.cardinality[truth] += 1.0;
            for (sum, probability) in self.cardinality.iter_mut().zip(&*probabilities) {
                *sum += probability;
            }
            self.confusion.add(truth, likeliest(probabilities));
        }
    }

    /// Adds the pixels of `other`.
    pub(super) fn add(&mut self, other: &Self) {
        self.weight += other.weight;
        self.cross_entropy += other.cross_entropy;
        for (sums, others) in [
            (&mut self.intersection, &other.intersection),
            (&mut self.cardinality, &other.cardinality),
        ] {
            for (sum, other) in sums.iter_mut().zip(others) {
                *sum += other;
            }
        }
        self.confusion.add_all(&other.confusion);
    }

    /// What a region's cotangents are made of, beside its logits and labels.
    pub(super) fn factors(&self, loss: &SegmentationLoss) -> Factors {
        let cross_entropy = if self.weight > 0.0 {
            loss.cross_entropy / self.weight
        } else {
            0.0
        };
        let share = loss.dice / float(loss.classes);
        let derivatives = loss.scores(self).into_iter().map(|score| {
            let (own, any) = score.map_or((0.0, 0.0), super::Score::derivatives);
            (-share * own, -share * any)
        });
        let (own, any) = derivatives.unzip();
        Factors {
            cross_entropy,
            own,
            any,
        }
    }
}

/// Derivatives of the loss by what is summed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Factors {
    /// By a pixel's cross-entropy, before its class weight.
    cross_entropy: f64,
    /// By the probability of each class at its own pixels, on top of the next.
    own: Vec<f64>,
    /// By the probability of each class at any labelled pixel.
    any: Vec<f64>,
}

impl Factors {
    /// Writes the cotangent of a row of logits, 0 for pixels of no class.
    pub(super) fn write_row<T: Stored + Into<f64>>(
        &self,
        loss: &SegmentationLoss,
        (logits, labels): (&[T], &[u8]),
        probabilities: &mut [f64],
        cotangents: &mut [T],
    ) {
        let pixels = logits
            .chunks_exact(loss.classes)
            .zip(cotangents.chunks_exact_mut(loss.classes));
        for ((logits, cotangents), &label) in pixels.zip(labels) {
            if label == loss.ignore_index {
                cotangents.fill(T::rounded(0.0));
                continue;
            }
            let truth = usize::from(label);
            softmax(logits, probabilities);
            let by_probability = |class: usize| {
                let own = if class == truth { self.own[class] } else { 0.0 };
                own + self.any[class]
            };
            let mean: f64 = probabilities
                .iter()
                .enumerate()
                .map(|(class, probability)| probability * by_probability(class))
                .sum();
            let cross_entropy = self.cross_entropy * loss.weight_of(truth);
            for (class, cotangent) in cotangents.iter_mut().enumerate() {
                let probability = probabilities[class];
                let target = f64::from(u8::from(class == truth));
                *cotangent = T::rounded(
                    cross_entropy * (probability - target)
                        + probability * (by_probability(class) - mean),
                );
            }
        }
    }
}

/// Writes the probabilities of a pixel's logits, and returns the largest logit, and the logarithm of the sum of powers of the
/// logits less that: so no power overflows.
fn softmax<T: Copy + Into<f64>>(logits: &[T], probabilities: &mut [f64]) -> (f64, f64) {
    let largest = logits.iter().fold(f64::NEG_INFINITY, |largest, &logit| {
        largest.max(logit.into())
    });
    let mut sum = 0.0;
    for (probability, &logit) in probabilities.iter_mut().zip(logits) {
        *probability = (logit.into() - largest).exp();
        sum += *probability;
    }
    for probability in probabilities.iter_mut() {
        *probability /= sum;
    }
    (largest, sum.ln())
}

/// The first of the largest.
pub(crate) fn likeliest<T: Copy + PartialOrd>(values: &[T]) -> usize {
    let mut best = 0;
    for (place, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = place;
        }
    }
    best
}
