//! In which order, and how often, slides are trained on.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::Sample;

/// How the slides of an epoch are drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// Every slide once, in a new order.
    #[default]
    Shuffled,
    /// As many draws as slides, with replacement, every label equally likely.
    Balanced,
}

/// Indices of the slides of epoch `epoch`, a function of its arguments alone.
#[must_use]
pub fn epoch_order(samples: &[Sample], sampling: Sampling, seed: u64, epoch: u64) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(epoch);
    match sampling {
        Sampling::Shuffled => {
            let mut order: Vec<usize> = (0..samples.len()).collect();
            order.shuffle(&mut rng);
            order
        }
        Sampling::Balanced => {
            let mut by_label: Vec<(f64, Vec<usize>)> = Vec::new();
            for (index, sample) in samples.iter().enumerate() {
                match by_label
                    .iter_mut()
                    .find(|(label, _)| *label == sample.label)
                {
                    Some((_, indices)) => indices.push(index),
                    None => by_label.push((sample.label, vec![index])),
                }
            }
            (0..samples.len())
                .map(|_| {
                    let (_, indices) = &by_label[rng.random_range(0..by_label.len())];
                    indices[rng.random_range(0..indices.len())]
                })
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(positives: usize, total: usize) -> Vec<Sample> {
        (0..total)
            .map(|i| Sample::new(i.to_string(), f64::from(u8::from(i < positives))))
            .collect()
    }

    #[test]
    fn shuffled_epochs_hold_every_slide_once_and_differ() {
        let samples = samples(10, 40);
        let order = epoch_order(&samples, Sampling::Shuffled, 1, 0);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..40).collect::<Vec<_>>());
        assert_ne!(order, epoch_order(&samples, Sampling::Shuffled, 1, 1));
        assert_ne!(order, epoch_order(&samples, Sampling::Shuffled, 2, 0));
        assert_eq!(order, epoch_order(&samples, Sampling::Shuffled, 1, 0));
    }

    /// 2000 fair draws: six standard deviations are 134.
    #[test]
    fn balanced_epochs_draw_labels_alike() {
        let order = epoch_order(&samples(20, 2000), Sampling::Balanced, 1, 0);
        let positive = order.iter().filter(|index| **index < 20).count();
        assert_eq!(order.len(), 2000);
        assert!(positive.abs_diff(1000) < 134, "{positive}");
    }
}
