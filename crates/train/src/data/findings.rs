//! What is suspicious in a list of samples: one slide twice, one patient under two names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use stream_grad_slides::{CopyKind, find_copies};

use super::{MissingClass, Sample, Split, check_patients};
use crate::error::{Result, TrainError};

/// Something that may be right, but makes results wrong if it is not. Its text says what, and in which splits.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum SampleWarning {
    /// Two files have one content, as far as [`find_copies`] compares them.
    SameContent {
        /// The sample that comes first.
        first: Sample,
        /// The other one.
        second: Sample,
    },
    /// A class that no slide of the validation or the test split has.
    NoSlides {
        /// The class, and the split.
        class: MissingClass,
        /// Name of the round of splits, where there are several.
        round: Option<String>,
    },
    /// Two patients are called the same but for case, blanks, leading zeros or a `.0`.
    SimilarPatients {
        /// A sample of the patient that comes first.
        first: Sample,
        /// A sample of the other one.
        second: Sample,
    },
}

/// Checks samples whose splits are fixed: no file stands there twice, under whatever name, and no patient lies in two splits.
/// Returns what may be a slide or a patient in two places all the same.
///
/// # Errors
/// [`TrainError::OneFile`], [`TrainError::SplitPatient`].
///
/// # Examples
/// ```
/// use stream_grad_train::data::{Sample, check_samples};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let slides = ["a.svs", "copy.svs"].map(|name| folder.path().join(name));
/// for slide in &slides {
///     std::fs::write(slide, "pixels")?;
/// }
/// let samples = slides.map(|slide| Sample::new(slide, 1.0));
/// let warnings = check_samples(&samples)?;
/// assert!(warnings[0].to_string().contains("have one content"));
/// # Ok(())
/// # }
/// ```
pub fn check_samples(samples: &[Sample]) -> Result<Vec<SampleWarning>> {
    check_patients(samples)?;
    let slides: Vec<_> = samples.iter().map(|sample| &sample.slide).collect();
    let mut warnings = Vec::new();
    for copy in find_copies(&slides) {
        let (first, second) = (&samples[copy.first], &samples[copy.second]);
        match copy.kind {
            CopyKind::OneFile => {
                return Err(TrainError::OneFile {
                    first: first.slide.clone(),
                    second: second.slide.clone(),
                });
            }
            CopyKind::SameContent => warnings.push(SampleWarning::SameContent {
                first: first.clone(),
                second: second.clone(),
            }),
        }
    }
    warnings.extend(similar_patients(samples));
    Ok(warnings)
}

fn similar_patients(samples: &[Sample]) -> Vec<SampleWarning> {
    let mut names: BTreeSet<&str> = BTreeSet::new();
    let mut firsts: BTreeMap<String, &Sample> = BTreeMap::new();
    let mut warnings = Vec::new();
    for sample in samples {
        let Some(name) = sample.patient.as_deref().filter(|name| names.insert(name)) else {
            continue;
        };
        match firsts.get(&plain(name)) {
            Some(first) => warnings.push(SampleWarning::SimilarPatients {
                first: (*first).clone(),
                second: sample.clone(),
            }),
            None => {
                firsts.insert(plain(name), sample);
            }
        }
    }
    warnings
}

/// A patient's name without what spreadsheets and people change: case, blanks, leading zeros, a `.0`.
fn plain(name: &str) -> String {
    let name: String = name.to_lowercase().split_whitespace().collect();
    let whole = name.strip_suffix(".0").unwrap_or(&name);
    if whole.is_empty() || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return name;
    }
    whole.trim_start_matches('0').to_owned()
}

impl fmt::Display for SampleWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, second) = match self {
            Self::SameContent { first, second } => {
                let (a, b) = (first.slide.display(), second.slide.display());
                write!(f, "the slides {a} and {b} have one content")?;
                if first.label != second.label {
                    let label = |sample: &Sample| match &sample.label {
                        Some(label) => label.to_string(),
                        None => "none".to_owned(),
                    };
                    write!(
                        f,
                        ", with the labels {} and {}",
                        label(first),
                        label(second)
                    )?;
                }
                (first, second)
            }
            Self::NoSlides { class, round } => {
                let (name, split) = (&class.name, class.split.name());
                let place = round.as_ref();
                let place = place.map_or_else(String::new, |round| format!(" of {round}"));
                return write!(
                    f,
                    "no slide of class `{name}` in the {split} split{place}: it is not measured there"
                );
            }
            Self::SimilarPatients { first, second } => {
                let name = |sample: &Sample| sample.patient.clone().unwrap_or_default();
                write!(
                    f,
                    "the patients `{}` and `{}` may be one",
                    name(first),
                    name(second)
                )?;
                (first, second)
            }
        };
        let name = |split: Option<Split>| split.map_or("none", Split::name);
        match (first.split, second.split) {
            (None, None) => Ok(()),
            (a, b) if a == b => write!(f, "; both are in the split {}", name(a)),
            (a, b) => write!(f, "; they are in TWO SPLITS, {} and {}", name(a), name(b)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(slide: &std::path::Path, label: f64, split: Option<Split>, patient: &str) -> Sample {
        Sample {
            split,
            patient: Some(patient.to_owned()).filter(|patient| !patient.is_empty()),
            ..Sample::new(slide, label)
        }
    }

    #[test]
    fn one_content_is_told_with_both_splits() {
        let folder = tempfile::tempdir().unwrap();
        let slide = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let samples = [
            of(&slide("a.tif", "one"), 0.0, Some(Split::Test), ""),
            of(&slide("b.tif", "two"), 1.0, Some(Split::Train), ""),
            of(&slide("c.tif", "one"), 1.0, Some(Split::Train), ""),
            of(&slide("d.tif", "two"), 1.0, Some(Split::Train), ""),
        ];
        let texts: Vec<String> = check_samples(&samples)
            .unwrap()
            .iter()
            .map(SampleWarning::to_string)
            .collect();
        assert_eq!(texts.len(), 2);
        for (text, parts) in texts.iter().zip([
            [
                "a.tif",
                "c.tif",
                "labels 0 and 1",
                "TWO SPLITS, test and train",
            ],
            [
                "b.tif",
                "d.tif",
                "one content",
                "both are in the split train",
            ],
        ]) {
            for part in parts {
                assert!(text.contains(part), "{part:?} in {text:?}");
            }
        }
    }

    #[test]
    fn one_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tif");
        std::fs::write(&path, "one").unwrap();
        let other = folder.path().join(".").join("b/../a.tif");
        std::fs::create_dir(folder.path().join("b")).unwrap();
        let samples = [of(&path, 0.0, None, ""), of(&other, 0.0, None, "")];
        let error = check_samples(&samples).unwrap_err();
        assert!(
            matches!(&error, TrainError::OneFile { first, second } if *first == path && *second == other),
            "{error}"
        );
    }

    #[test]
    fn patients_that_differ_in_spelling_are_told() {
        let names = [
            "P1", "p 1", "7", "007", "7.0", "p2", "", "P1", "0.5", ".0", "1.5", "00", "p1.0",
        ];
        let samples: Vec<Sample> = names
            .iter()
            .enumerate()
            .map(|(place, name)| {
                let split = if *name == "p 1" {
                    Split::Test
                } else {
                    Split::Train
                };
                of(format!("{place}.tif").as_ref(), 0.0, Some(split), name)
            })
            .collect();
        let texts: Vec<String> = check_samples(&samples)
            .unwrap()
            .iter()
            .map(SampleWarning::to_string)
            .collect();
        assert_eq!(
            texts,
            [
                "the patients `P1` and `p 1` may be one; they are in TWO SPLITS, train and test",
                "the patients `7` and `007` may be one; both are in the split train",
                "the patients `7` and `7.0` may be one; both are in the split train",
            ]
        );
    }

    #[test]
    fn a_patient_in_two_splits_is_refused() {
        let samples = [
            of("a.tif".as_ref(), 0.0, Some(Split::Train), "p"),
            of("b.tif".as_ref(), 0.0, Some(Split::Test), "p"),
        ];
        assert_eq!(
            check_samples(&samples).unwrap_err().to_string(),
            "patient `p` has slides in the splits train and test; expected one split for each patient"
        );
    }
}
