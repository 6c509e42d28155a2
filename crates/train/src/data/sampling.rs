//! In which order, and how often, slides are trained on.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Label, Sample};

/// How the slides of an epoch are drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// Every slide once, in a new order.
    #[default]
    Shuffled,
    /// As many draws as slides, with replacement, every label equally likely. Where slides have several labels, each label is
    /// drawn equally often, and so is having none; then one of the slides that have it.
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
            let by_label = by_label(samples);
            (0..samples.len())
                .map(|_| {
                    let indices = &by_label[rng.random_range(0..by_label.len())];
                    indices[rng.random_range(0..indices.len())]
                })
                .collect()
        }
    }
}

/// Indices of the slides of each label, in the order in which the labels are met.
fn by_label(samples: &[Sample]) -> Vec<Vec<usize>> {
    let mut groups: Vec<(Label, Vec<usize>)> = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        for label in single_labels(sample.label.as_ref()) {
            match groups.iter_mut().find(|(known, _)| *known == label) {
                Some((_, indices)) => indices.push(index),
                None => groups.push((label, vec![index])),
            }
        }
    }
    groups.into_iter().map(|(_, indices)| indices).collect()
}

/// A label by which slides are drawn; of several, one of each that the slide has, or the empty set.
fn single_labels(label: Option<&Label>) -> Vec<Label> {
    match label {
        Some(Label::Set(set)) if set.contains(&true) => {
            let only =
                |place: usize| Label::Set((0..set.len()).map(|other| other == place).collect());
            (0..set.len())
                .filter(|place| set[*place])
                .map(only)
                .collect()
        }
        label => label.cloned().into_iter().collect(),
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

    /// Of 3000 draws a third for each label and for having none; six standard deviations are 155. The second label's slides have
    /// the first one too.
    #[test]
    fn balanced_epochs_draw_each_of_several_labels_alike() {
        let set = |index: usize| match index {
            0..100 => vec![true, true],
            100..1000 => vec![true, false],
            _ => vec![false, false],
        };
        let samples: Vec<_> = (0..3000)
            .map(|i| Sample::new(i.to_string(), set(i)))
            .collect();
        let order = epoch_order(&samples, Sampling::Balanced, 1, 0);
        let count =
            |range: std::ops::Range<usize>| order.iter().filter(|i| range.contains(i)).count();
        // The second label, and a tenth of the first one's draws.
        assert!(count(0..100).abs_diff(1100) < 160, "{}", count(0..100));
        assert!(
            count(1000..3000).abs_diff(1000) < 155,
            "{}",
            count(1000..3000)
        );
    }
}
