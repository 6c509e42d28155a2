//! Splits and cross-validation folds by patient.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Sample, Split};
use crate::error::{Result, TrainError};

/// Shares of the patients in each split; what is left over is the training split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitShares {
    /// Share of the validation split.
    pub validation: f64,
    /// Share of the test split.
    pub test: f64,
}

/// One round of cross-validation: its slides, with splits.
#[derive(Debug, Clone, PartialEq)]
pub struct Fold {
    /// All slides; the fold's own are the test split, the next fold's the validation split, the rest the training split.
    pub samples: Vec<Sample>,
}

/// Gives every patient a split by chance, patients with and without positive slides apart so that shares hold for both.
/// Splits that samples have already are replaced.
///
/// # Errors
/// [`TrainError::Setting`] for shares outside 0 to 1, together 1 or more.
pub fn assign_splits(samples: &mut [Sample], shares: SplitShares, seed: u64) -> Result<()> {
    let legal = |share: f64| (0.0..1.0).contains(&share);
    if !legal(shares.validation) || !legal(shares.test) || shares.validation + shares.test >= 1.0 {
        return Err(TrainError::setting(
            "shares of splits",
            "shares of 0 or more, together below 1",
            format!("{} and {}", shares.validation, shares.test),
        ));
    }
    let mut splits: BTreeMap<String, Split> = BTreeMap::new();
    for patients in shuffled_strata(samples, seed) {
        let test = portion(patients.len(), shares.test);
        let validation = portion(patients.len(), shares.validation);
        for (place, patient) in patients.into_iter().enumerate() {
            let split = match place {
                place if place < test => Split::Test,
                place if place < test + validation => Split::Validation,
                _ => Split::Train,
            };
            splits.insert(patient, split);
        }
    }
    for sample in samples {
        sample.split = splits.get(&sample.patient_or_slide()).copied();
    }
    Ok(())
}

/// Deals the patients into `folds` parts, those with and without positive slides apart, and makes a round of each.
///
/// # Errors
/// [`TrainError::Setting`] for fewer than three folds or more than patients.
pub fn cross_validation(samples: &[Sample], folds: usize, seed: u64) -> Result<Vec<Fold>> {
    let strata = shuffled_strata(samples, seed);
    let patients: Vec<String> = strata.into_iter().flatten().collect();
    if folds < 3 || folds > patients.len() {
        return Err(TrainError::setting(
            "folds",
            format!("3 to {} (the number of patients)", patients.len()),
            folds,
        ));
    }
    let parts: BTreeMap<String, usize> = patients
        .into_iter()
        .enumerate()
        .map(|(place, patient)| (patient, place % folds))
        .collect();
    let split = |sample: &Sample, round: usize| {
        let part = parts.get(&sample.patient_or_slide()).copied();
        if part == Some(round) {
            Split::Test
        } else if part == Some((round + 1) % folds) {
            Split::Validation
        } else {
            Split::Train
        }
    };
    Ok((0..folds)
        .map(|round| Fold {
            samples: samples
                .iter()
                .map(|sample| Sample {
                    split: Some(split(sample, round)),
                    ..sample.clone()
                })
                .collect(),
        })
        .collect())
}

/// Patients by their highest label, each group shuffled.
fn shuffled_strata(samples: &[Sample], seed: u64) -> Vec<Vec<String>> {
    let mut highest: BTreeMap<String, f64> = BTreeMap::new();
    for sample in samples {
        let label = highest
            .entry(sample.patient_or_slide())
            .or_insert(f64::NEG_INFINITY);
        *label = label.max(sample.label);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut positive, mut negative): (Vec<_>, Vec<_>) =
        highest.into_iter().partition(|(_, label)| *label > 0.0);
    [&mut negative, &mut positive]
        .into_iter()
        .map(|stratum| {
            stratum.shuffle(&mut rng);
            stratum.drain(..).map(|(patient, _)| patient).collect()
        })
        .collect()
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a small count"
)]
fn portion(count: usize, share: f64) -> usize {
    (count as f64 * share).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{check_patients, of_split};

    fn samples() -> Vec<Sample> {
        (0..60)
            .map(|i| Sample {
                patient: Some(format!("p{}", i / 2)),
                ..Sample::new(format!("{i}.tif"), f64::from(u8::from(i % 3 == 0)))
            })
            .collect()
    }

    #[test]
    fn splits_keep_patients_together_and_shares() {
        let mut samples = samples();
        assign_splits(
            &mut samples,
            SplitShares {
                validation: 0.2,
                test: 0.3,
            },
            5,
        )
        .unwrap();
        check_patients(&samples).unwrap();
        let counts = Split::ALL.map(|split| of_split(&samples, split).len());
        assert_eq!(counts.iter().sum::<usize>(), 60);
        assert_eq!(counts, [30, 12, 18]);
        let mut again = samples.clone();
        assign_splits(
            &mut again,
            SplitShares {
                validation: 0.2,
                test: 0.3,
            },
            5,
        )
        .unwrap();
        assert_eq!(samples, again);
        assert!(
            assign_splits(
                &mut again,
                SplitShares {
                    validation: 0.5,
                    test: 0.5
                },
                5
            )
            .is_err()
        );
    }

    #[test]
    fn each_slide_is_tested_once() {
        let samples = samples();
        let rounds = cross_validation(&samples, 5, 1).unwrap();
        for index in 0..samples.len() {
            let tested = rounds
                .iter()
                .filter(|round| round.samples[index].split == Some(Split::Test))
                .count();
            assert_eq!(tested, 1);
        }
        for round in &rounds {
            check_patients(&round.samples).unwrap();
            assert!(
                Split::ALL
                    .iter()
                    .all(|split| of_split(&round.samples, *split).len() >= 10)
            );
        }
        assert!(cross_validation(&samples, 31, 1).is_err());
        assert!(cross_validation(&samples, 2, 1).is_err());
    }
}
