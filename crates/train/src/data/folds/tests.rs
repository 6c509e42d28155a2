//! What is given stays, patients stay whole, and shares come out right.

use proptest::prelude::*;

use super::*;
use crate::data::of_split;

const SHARES: SplitShares = SplitShares {
    validation: 0.2,
    test: 0.3,
};

fn samples() -> Vec<Sample> {
    (0..60)
        .map(|i| Sample {
            patient: Some(format!("p{}", i / 2)),
            ..Sample::new(format!("{i}.tif"), f64::from(u8::from(i % 3 == 0)))
        })
        .collect()
}

fn letter(split: Option<Split>) -> char {
    match split {
        None => '-',
        Some(Split::Train) => 'l',
        Some(Split::Validation) => 'v',
        Some(Split::Test) => 't',
    }
}

fn letters(samples: &[Sample]) -> String {
    samples.iter().map(|sample| letter(sample.split)).collect()
}

/// A slide for each letter, of labels 0 and 1 in turn, each of its own patient.
fn given(letters: &str) -> Vec<Sample> {
    let split = |letter| {
        Split::ALL
            .into_iter()
            .find(|split| self::letter(Some(*split)) == letter)
    };
    let sample = |(place, letter)| Sample {
        split: split(letter),
        ..Sample::new(
            format!("{place:02}.tif"),
            f64::from(u8::from(place % 2 == 1)),
        )
    };
    letters.chars().enumerate().map(sample).collect()
}

fn counts(samples: &[Sample]) -> [usize; 3] {
    Split::ALL.map(|split| of_split(samples, split).len())
}

#[test]
fn splits_keep_patients_together_and_shares() {
    let mut samples = samples();
    let drawn = assign_splits(&mut samples, Task::Binary, SHARES, 5).unwrap();
    let all = DrawnSplits {
        drawn: 60,
        ..DrawnSplits::default()
    };
    assert_eq!(drawn, all);
    check_patients(&samples).unwrap();
    assert_eq!(counts(&samples).iter().sum::<usize>(), 60);
    assert_eq!(counts(&samples), [30, 12, 18]);
    let mut again = samples.clone();
    assign_splits(&mut again, Task::Binary, SHARES, 5).unwrap();
    assert_eq!(samples, again);
    let halves = SplitShares {
        validation: 0.5,
        test: 0.5,
    };
    assert_eq!(
        assign_splits(&mut again, Task::Binary, halves, 5)
            .unwrap_err()
            .to_string(),
        "setting `data.splits`: expected shares of 0 or more, together below 1, found 0.5 and 0.5"
    );
}

/// A run that was stopped must find the splits that it began with.
#[test]
fn a_seed_draws_the_same_as_ever() {
    let mut samples = samples();
    assign_splits(&mut samples, Task::Binary, SHARES, 5).unwrap();
    let patients: Vec<Sample> = samples.into_iter().step_by(2).collect();
    assert_eq!(letters(&patients), "ltllltttlvtttvllvvlvllllllvtlt");
}

/// Of 20 slides with shares of 0.6, 0.1 and 0.3.
#[test]
fn what_is_given_stays_and_the_rest_is_drawn() {
    let shares = SplitShares {
        validation: 0.1,
        test: 0.3,
    };
    for (before, right) in [
        // Nothing given.
        ("--------------------", [12, 2, 6]),
        // The test split alone, as large as its share, larger (a seventh of three is none) and smaller.
        ("tttttt--------------", [12, 2, 6]),
        ("tttttttttttttt------", [6, 0, 14]),
        ("tt------------------", [16, 2, 2]),
        // The validation split alone: six tenths to three tenths.
        ("vvvv----------------", [10, 4, 6]),
        // The training split alone, as large as its share, smaller and larger.
        ("llllllllllll--------", [12, 2, 6]),
        ("ll------------------", [12, 2, 6]),
        ("llllllllllllllllll--", [18, 0, 2]),
        // Two of them.
        ("llllllllllllltttttt-", [13, 1, 6]),
        ("tttttt----------llll", [12, 2, 6]),
        ("ttttttvvvv----------", [10, 4, 6]),
        ("llllllvvvv----------", [10, 4, 6]),
        // All of them.
        ("ttttttvvvvlllllllll-", [10, 4, 6]),
        ("ttttttvvvvllllllllll", [10, 4, 6]),
        ("lllllllllllllltttttt", [14, 0, 6]),
    ] {
        for seed in 0..5 {
            let mut samples = given(before);
            let drawn = assign_splits(&mut samples, Task::Binary, shares, seed).unwrap();
            assert_eq!(counts(&samples), right, "{before}");
            let blanks = before.matches('-').count();
            assert_eq!(
                (drawn.given, drawn.of_patient, drawn.drawn),
                (20 - blanks, 0, blanks)
            );
            for (before, after) in before.chars().zip(letters(&samples).chars()) {
                assert!(before == '-' || before == after);
            }
            // Both labels alike, wherever there is room for both.
            for split in Split::ALL {
                let part = of_split(&samples, split);
                let positive = part
                    .iter()
                    .filter(|sample| sample.label == Some(Label::Number(1.0)))
                    .count();
                assert!(positive.abs_diff(part.len() - positive) <= 1, "{before}");
            }
        }
    }
}

#[test]
fn a_blank_row_takes_the_split_of_its_patient() {
    let mut samples = given("t--v-l-");
    for (sample, patient) in samples.iter_mut().zip(["a", "b", "a", "c", "c", "d", "d"]) {
        sample.patient = Some(patient.to_owned());
    }
    let drawn = assign_splits(&mut samples, Task::Binary, SHARES, 1).unwrap();
    assert_eq!(letters(&samples), "tltvvll");
    assert_eq!((drawn.given, drawn.of_patient, drawn.drawn), (3, 3, 1));
}

#[test]
fn two_given_splits_of_a_patient_are_refused() {
    let mut samples = given("t-l-");
    for sample in &mut samples {
        sample.patient = Some("p".to_owned());
    }
    let before = samples.clone();
    let error = assign_splits(&mut samples, Task::Binary, SHARES, 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "patient `p` has slides in the splits test and train; expected one split for each patient"
    );
    assert_eq!(samples, before);
}

/// A patient may be called as another one's slide.
#[test]
fn a_slide_is_not_a_patient_of_its_name() {
    let mut samples = given("t-");
    samples[0].patient = Some("01.tif".to_owned());
    assign_splits(&mut samples, Task::Binary, SHARES, 1).unwrap();
    assert_eq!(letters(&samples), "tl");
}

/// Each class, and each quarter of scores, is in each split by its share.
#[test]
fn classes_and_scores_are_strata() {
    let number = 80;
    let labelled = |label: fn(u32) -> f64| -> Vec<Sample> {
        (0..number)
            .map(|place| Sample::new(format!("{place:02}.tif"), label(place * 37 % number)))
            .collect()
    };
    for (task, mut samples) in [
        (
            Task::Classification { classes: 4 },
            labelled(|place| f64::from(place % 4)),
        ),
        (Task::Regression, labelled(|place| f64::from(place) - 7.5)),
        (Task::Regression, labelled(|place| 100.0 + f64::from(place))),
    ] {
        assign_splits(&mut samples, task, SHARES, 3).unwrap();
        let mut order: Vec<&Sample> = samples.iter().collect();
        let number = |sample: &Sample| sample.label.as_ref().and_then(Label::number).unwrap();
        order.sort_by(|a, b| number(a).total_cmp(&number(b)));
        for quarter in order.chunks(20) {
            let quarter: Vec<Sample> = quarter.iter().map(|sample| (*sample).clone()).collect();
            assert_eq!(counts(&quarter), [10, 4, 6], "{task:?}");
        }
    }
}

#[test]
fn each_slide_is_tested_once() {
    let samples = samples();
    let rounds = cross_validation(&samples, Task::Binary, 5, 1).unwrap();
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
    for folds in [2, 31] {
        let refused = cross_validation(&samples, Task::Binary, folds, 1);
        assert_eq!(
            refused.unwrap_err().to_string(),
            format!(
                "setting `data.folds`: expected 3 or more, and no more than there are patients (30): \
                 fewer folds, or more patients, found {folds}"
            )
        );
    }
}

#[test]
fn cross_validation_throws_no_split_away() {
    let mut samples = samples();
    samples[7].split = Some(Split::Test);
    let error = cross_validation(&samples, Task::Binary, 5, 1)
        .unwrap_err()
        .to_string();
    for part in ["1 of 60", "7.tif", "with a split"] {
        assert!(error.contains(part), "{part:?} in {error:?}");
    }
}

proptest! {
    #[test]
    fn any_given_splits_are_kept(
        rows in proptest::collection::vec((0..12u8, proptest::sample::select(vec!["", "train", "validation", "test"]), 0..3u8), 0..40),
        shares in proptest::sample::select(vec![(0.1, 0.3), (0.0, 0.5), (0.49, 0.5), (0.0, 0.0)]),
        seed in 0..4u64,
    ) {
        let before: Vec<Sample> = rows
            .iter()
            .enumerate()
            .map(|(place, (patient, split, label))| Sample {
                split: Split::parse(split),
                patient: (*patient > 2).then(|| patient.to_string()),
                ..Sample::new(place.to_string(), f64::from(*label))
            })
            .collect();
        let shares = SplitShares { validation: shares.0, test: shares.1 };
        for task in [Task::Classification { classes: 3 }, Task::Regression] {
            let mut after = before.clone();
            let drawn = match assign_splits(&mut after, task, shares, seed) {
                Err(error) => {
                    let expected = check_patients(&before).unwrap_err();
                    prop_assert_eq!(error.to_string(), expected.to_string());
                    prop_assert_eq!(&after, &before);
                    continue;
                }
                Ok(drawn) => drawn,
            };
            prop_assert_eq!(drawn.given + drawn.of_patient + drawn.drawn, before.len());
            check_patients(&after).unwrap();
            for (before, after) in before.iter().zip(&after) {
                prop_assert!(after.split.is_some());
                prop_assert!(before.split.is_none() || before.split == after.split);
                prop_assert_eq!(&Sample { split: before.split, ..after.clone() }, before);
            }
            // Nothing is drawn into a test or validation split that is given.
            for split in [Split::Validation, Split::Test] {
                let patients = |samples: &[Sample]| -> std::collections::BTreeSet<String> {
                    of_split(samples, split).iter().map(Sample::patient_or_slide).collect()
                };
                if !of_split(&before, split).is_empty() {
                    prop_assert_eq!(patients(&before), patients(&after));
                }
            }
        }
    }
}
