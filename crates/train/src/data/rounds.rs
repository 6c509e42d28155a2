//! Rounds of training and testing: each labelled slide with a split.

use std::collections::BTreeSet;

use super::{DataSettings, Sample, Split, SplitShares, assign_splits};
use crate::error::{Result, TrainError};

/// Slides with splits, to train and to test on once.
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    /// What tells it from the others, such as `fold-2` or `center-utrecht`; `None` where there is one only. Good as a part of a
    /// file's name.
    pub name: Option<String>,
    /// All slides.
    pub samples: Vec<Sample>,
}

/// A round for each value of `column`, whose slides are the test split.
pub(super) fn leave_one_out(
    samples: &[Sample],
    column: &str,
    settings: &DataSettings,
    seed: u64,
) -> Result<Vec<Round>> {
    if let Some(first) = samples.iter().find(|sample| sample.split.is_some()) {
        let with_split = samples.iter().filter(|sample| sample.split.is_some());
        return Err(TrainError::Splits {
            place: "leaving one out",
            expected: "samples without splits (a blank `split_column` passes over them)",
            count: with_split.count(),
            total: samples.len(),
            found: "with a split",
            first: first.slide.clone(),
        });
    }
    let values = samples
        .iter()
        .map(|sample| value(sample, column))
        .collect::<Result<Vec<_>>>()?;
    let distinct: BTreeSet<&str> = values.iter().copied().collect();
    if distinct.len() < 2 {
        return Err(TrainError::Classes {
            set: format!("column `{column}`"),
            expected: "two or more values, of which one is left out".to_owned(),
            found: distinct
                .first()
                .map_or("no slides".to_owned(), |value| format!("`{value}` alone")),
        });
    }
    let mut rounds: Vec<Round> = Vec::with_capacity(distinct.len());
    for left_out in distinct {
        let mut samples = samples.to_vec();
        for (sample, value) in samples.iter_mut().zip(&values) {
            sample.split = (*value == left_out).then_some(Split::Test);
        }
        check_left_out(&samples)?;
        let shares = SplitShares {
            test: 0.0,
            ..settings.splits
        };
        assign_splits(&mut samples, settings.task, shares, seed)?;
        let mut name = file_name(&format!("{column}-{left_out}"));
        // `Utrecht 1` and `Utrecht/1` are two values.
        while rounds
            .iter()
            .any(|round| round.name.as_ref() == Some(&name))
        {
            name.push('_');
        }
        rounds.push(Round {
            name: Some(name),
            samples,
        });
    }
    Ok(rounds)
}

/// Refuses a patient of whom some slides are left out and others are not: they would take the split of the former.
fn check_left_out(samples: &[Sample]) -> Result<()> {
    let (out, kept): (Vec<&Sample>, Vec<&Sample>) =
        samples.iter().partition(|sample| sample.split.is_some());
    let kept: BTreeSet<&str> = kept
        .iter()
        .filter_map(|sample| sample.patient.as_deref())
        .collect();
    let both = out
        .iter()
        .filter_map(|sample| sample.patient.as_deref())
        .find(|patient| kept.contains(patient));
    match both {
        Some(patient) => Err(TrainError::SplitPatient {
            patient: patient.to_owned(),
            first: Split::Test.name(),
            second: Split::Train.name(),
        }),
        None => Ok(()),
    }
}

fn value<'a>(sample: &'a Sample, column: &str) -> Result<&'a str> {
    let cells = &sample.further;
    let is_column = |name: &str| name.to_lowercase() == column.to_lowercase();
    let cell = cells.iter().find(|cell| is_column(&cell.column));
    match cell.map(|cell| cell.text.as_str()) {
        Some("") => Err(TrainError::Classes {
            set: format!("column `{column}`"),
            expected: "a value for each slide".to_owned(),
            found: format!("none for {}", sample.slide.display()),
        }),
        Some(text) => Ok(text),
        None => Err(TrainError::NoColumn {
            path: sample.slide.clone(),
            column: column.to_owned(),
            setting: "leave_one_out",
            columns: cells.iter().map(|cell| cell.column.clone()).collect(),
        }),
    }
}

/// `text` with `_` for what file systems may not take.
fn file_name(text: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "-_.".contains(letter);
    let letter = |letter: char| if plain(letter) { letter } else { '_' };
    text.chars().map(letter).collect()
}
