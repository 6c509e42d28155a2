//! Splits and cross-validation folds by patient.

use std::collections::BTreeMap;
use std::fmt;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Label, Sample, Split, Task, check_patients};
use crate::error::{Result, TrainError};

/// How many parts scores are cut into by rank.
const QUARTERS: usize = 4;

/// Shares of the patients in each split; what is left over is the training split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
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

/// How many slides got their split in which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DrawnSplits {
    /// Slides that had one.
    pub given: usize,
    /// Slides that took that of their patient.
    pub of_patient: usize,
    /// Slides whose patient was drawn.
    pub drawn: usize,
}

impl fmt::Display for DrawnSplits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            given,
            of_patient,
            drawn,
        } = self;
        write!(
            f,
            "splits of {given} slides were given, {of_patient} took their patient's, {drawn} were drawn"
        )
    }
}

/// Gives every sample a split. What is given stays; a sample without a split takes that of its patient; the patients of which
/// nothing is given are drawn by chance, whole.
///
/// - Of a test or validation split of which some samples are given, these are all: nothing is drawn into it. So where only `test`
///   is given, the rest is drawn into training and validation; where `test` and `validation` are given, the rest is trained on.
/// - The training split takes patients beside those that are given, and what is left over.
/// - Shares are those of the patients in the splits that are drawn into, those given to the training split included, and keep
///   their ratio: with shares of 0.1 and 0.3, and `test` given, a seventh of the others is for validation (0.1 of 0.7). Where fewer
///   patients are undrawn than validation and test lack, training gets none of them.
/// - Shares hold in each stratum: among the patients of each class, by the highest of their slides; for scores, among the four
///   quarters of the patients by rank. A stratum is rounded by itself, so that one of few patients may miss a split.
///
/// On an error nothing is changed.
///
/// # Errors
/// [`TrainError::Setting`] for shares outside 0 to 1, together 1 or more; [`TrainError::SplitPatient`] for a patient of whom two
/// different splits are given.
///
/// # Examples
/// ```
/// use stream_grad_train::data::{Sample, Split, SplitShares, Task, assign_splits};
/// let mut samples: Vec<Sample> = (0..20).map(|i| Sample::new(format!("{i}.svs"), f64::from(i % 2))).collect();
/// for sample in &mut samples[..6] {
///     sample.split = Some(Split::Test);
/// }
/// let shares = SplitShares { validation: 0.1, test: 0.3 };
/// let drawn = assign_splits(&mut samples, Task::Binary, shares, 1)?;
/// assert_eq!((drawn.given, drawn.drawn), (6, 14));
/// let count = |split| samples.iter().filter(|sample| sample.split == Some(split)).count();
/// assert_eq!(Split::ALL.map(count), [12, 2, 6]);
/// # Ok::<(), stream_grad_train::TrainError>(())
/// ```
pub fn assign_splits(
    samples: &mut [Sample],
    task: Task,
    shares: SplitShares,
    seed: u64,
) -> Result<DrawnSplits> {
    shares.check()?;
    check_patients(samples)?;
    let given: BTreeMap<Patient, Split> = samples
        .iter()
        .filter_map(|sample| Some((Patient::of(sample), sample.split?)))
        .collect();
    let open = shares.open(&given);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut drawn: BTreeMap<Patient, Split> = BTreeMap::new();
    for stratum in strata(samples, task) {
        let training = |patient: &&Patient| given.get(*patient) == Some(&Split::Train);
        let in_training = stratum.iter().filter(training).count();
        let mut patients = stratum;
        patients.retain(|patient| !given.contains_key(patient));
        patients.shuffle(&mut rng);
        let (test, validation) = open.counts(patients.len(), in_training);
        for (place, patient) in patients.into_iter().enumerate() {
            let split = match place {
                place if place < test => Split::Test,
                place if place < test + validation => Split::Validation,
                _ => Split::Train,
            };
            drawn.insert(patient, split);
        }
    }
    let mut counts = DrawnSplits::default();
    for sample in samples {
        let patient = Patient::of(sample);
        if sample.split.is_some() {
            counts.given += 1;
        } else if let Some(split) = given.get(&patient) {
            counts.of_patient += 1;
            sample.split = Some(*split);
        } else {
            counts.drawn += 1;
            sample.split = drawn.get(&patient).copied();
        }
    }
    Ok(counts)
}

impl SplitShares {
    /// Checks that shares are from 0, and that something is left to train on.
    ///
    /// # Errors
    /// [`TrainError::Setting`].
    pub fn check(self) -> Result<()> {
        let legal = |share: f64| (0.0..1.0).contains(&share);
        if legal(self.validation) && legal(self.test) && self.validation + self.test < 1.0 {
            return Ok(());
        }
        Err(TrainError::setting(
            "data.splits",
            "shares of 0 or more, together below 1",
            format!("{} and {}", self.validation, self.test),
        ))
    }

    /// Shares of the splits that are drawn into where `given` is given, in the same ratio.
    fn open(self, given: &BTreeMap<Patient, Split>) -> Self {
        let is_given = |split| given.values().any(|given| *given == split);
        let open = |share, split| if is_given(split) { 0.0 } else { share };
        let (validation, test) = (
            open(self.validation, Split::Validation),
            open(self.test, Split::Test),
        );
        // Exactly 1 where nothing is given.
        let rest = 1.0 - (self.validation - validation) - (self.test - test);
        Self {
            validation: validation / rest,
            test: test / rest,
        }
    }

    /// How many of `undrawn` patients of a stratum are for testing and for validation, beside `in_training` given ones.
    fn counts(self, undrawn: usize, in_training: usize) -> (usize, usize) {
        let pool = undrawn + in_training;
        let (test, validation) = (portion(pool, self.test), portion(pool, self.validation));
        if test + validation <= undrawn {
            return (test, validation);
        }
        let test = portion(undrawn, self.test / (self.test + self.validation));
        (test, undrawn - test)
    }
}

/// Deals the patients into `folds` parts, each class or quarter of scores by itself, and makes a round of each.
///
/// Every patient is dealt, so none may have a split: leave those out that are for another test set, and clear the others.
///
/// # Errors
/// [`TrainError::Splits`] for samples with splits, [`TrainError::Setting`] for fewer than three folds or more than patients.
pub fn cross_validation(
    samples: &[Sample],
    task: Task,
    folds: usize,
    seed: u64,
) -> Result<Vec<Fold>> {
    let with_split = |sample: &&Sample| sample.split.is_some();
    if let Some(first) = samples.iter().find(with_split) {
        return Err(TrainError::Splits {
            place: "cross-validation",
            expected: "samples without splits, since all are dealt into folds",
            count: samples.iter().filter(with_split).count(),
            total: samples.len(),
            found: "with a split",
            first: first.slide.clone(),
        });
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut patients = Vec::new();
    for mut stratum in strata(samples, task) {
        stratum.shuffle(&mut rng);
        patients.append(&mut stratum);
    }
    if folds < 3 || folds > patients.len() {
        return Err(TrainError::setting(
            "data.folds",
            format!(
                "3 or more, and no more than there are patients ({}): fewer folds, or more patients",
                patients.len()
            ),
            folds,
        ));
    }
    let parts: BTreeMap<Patient, usize> = patients
        .into_iter()
        .enumerate()
        .map(|(place, patient)| (patient, place % folds))
        .collect();
    let split = |sample: &Sample, round: usize| {
        let part = parts.get(&Patient::of(sample)).copied();
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

/// A patient, or a slide of which none is known. In the order of names: it decides what a seed draws.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Patient {
    name: String,
    is_known: bool,
}

impl Patient {
    fn of(sample: &Sample) -> Self {
        Self {
            name: sample.patient_or_slide(),
            is_known: sample.patient.is_some(),
        }
    }
}

/// Patients by their highest class or level, by the quarter that their highest score lies in, or by the rarest label that they
/// have, from low to high; those without any label come first.
fn strata(samples: &[Sample], task: Task) -> Vec<Vec<Patient>> {
    let ranks = LabelRanks::of(samples);
    let mut highest: BTreeMap<Patient, f64> = BTreeMap::new();
    for sample in samples {
        let label = highest
            .entry(Patient::of(sample))
            .or_insert(f64::NEG_INFINITY);
        *label = label.max(ranks.rank(sample.label.as_ref()));
    }
    let mut patients: Vec<(Patient, f64)> = highest.into_iter().collect();
    patients.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    let number = patients.len();
    let same = |(place, a): (usize, f64), (next, b): (usize, f64)| match task {
        Task::Regression => place * QUARTERS / number == next * QUARTERS / number,
        _ => a == b,
    };
    let mut strata: Vec<Vec<Patient>> = Vec::new();
    let mut last = None;
    for (place, (patient, label)) in patients.into_iter().enumerate() {
        match strata.last_mut() {
            Some(stratum) if last.is_some_and(|last| same(last, (place, label))) => {
                stratum.push(patient);
            }
            _ => strata.push(vec![patient]),
        }
        last = Some((place, label));
    }
    // Names decide what a seed draws, not labels.
    strata.iter_mut().for_each(|stratum| stratum.sort());
    strata
}

/// For each of several labels, how rare it is: the rarest has the highest rank, the first of those that are alike.
struct LabelRanks(Vec<f64>);

impl LabelRanks {
    fn of(samples: &[Sample]) -> Self {
        let mut counts: Vec<usize> = Vec::new();
        for sample in samples {
            if let Some(Label::Set(set)) = &sample.label {
                counts.resize(counts.len().max(set.len()), 0);
                counts
                    .iter_mut()
                    .zip(set)
                    .for_each(|(count, has)| *count += usize::from(*has));
            }
        }
        let mut order: Vec<usize> = (0..counts.len()).collect();
        order.sort_by_key(|label| std::cmp::Reverse((counts[*label], *label)));
        let mut ranks = vec![0.0; counts.len()];
        let mut rank = 0.0;
        for label in order {
            rank += 1.0;
            ranks[label] = rank;
        }
        Self(ranks)
    }

    /// A number, the rank of the rarest of several labels, 0 for none of them, less than any for what is not known.
    fn rank(&self, label: Option<&Label>) -> f64 {
        match label {
            None => f64::NEG_INFINITY,
            Some(Label::Number(number)) => *number,
            Some(Label::Set(set)) => {
                let has = self.0.iter().zip(set).filter(|(_, has)| **has);
                has.map(|(rank, _)| *rank).fold(0.0, f64::max)
            }
            // What its pixels are is not known before it is read.
            Some(Label::Map(_)) => 0.0,
        }
    }
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
mod tests;
