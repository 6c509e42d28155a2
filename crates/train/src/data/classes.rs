//! Which classes the slides of each split have.

use super::{ClassNames, Label, Sample, Split, Task};
use crate::error::{Result, TrainError};

/// A class, level or label that no slide of a split has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingClass {
    /// Its name.
    pub name: String,
    /// The split.
    pub split: Split,
}

/// Checks that the training split of labelled samples has every class, level or label, which could not be learnt otherwise, and
/// returns each that another split with slides lacks, which cannot be measured there. Which classes pixels have, tables do not say.
///
/// # Errors
/// [`TrainError::Classes`] naming the class, and what to do.
///
/// # Examples
/// ```
/// use stream_grad_train::data::{ClassNames, Sample, Split, Task, check_classes};
/// let sample = |label: f64, split| Sample { split: Some(split), ..Sample::new("a.svs", label) };
/// let samples = [sample(0.0, Split::Train), sample(1.0, Split::Train), sample(0.0, Split::Test)];
/// let names = ClassNames::new(["benign", "malignant"])?;
/// let lacking = check_classes(&samples, Task::Binary, &names)?;
/// assert_eq!((lacking[0].name.as_str(), lacking[0].split), ("malignant", Split::Test));
/// let error = check_classes(&samples[1..], Task::Binary, &names).unwrap_err();
/// assert!(error.to_string().starts_with("the training split: expected slides of every class, with `benign` among them"));
/// # Ok::<(), stream_grad_train::TrainError>(())
/// ```
pub fn check_classes(
    samples: &[Sample],
    task: Task,
    names: &ClassNames,
) -> Result<Vec<MissingClass>> {
    let mut lacking = Vec::new();
    if let Task::Segmentation { .. } = task {
        return Ok(lacking);
    }
    for split in Split::ALL {
        let labels: Vec<&Label> = samples
            .iter()
            .filter(|sample| sample.split == Some(split))
            .filter_map(|sample| sample.label.as_ref())
            .collect();
        if labels.is_empty() && split != Split::Train {
            continue;
        }
        for class in 0..task.classes().unwrap_or(0) {
            if labels.iter().any(|label| has(label, class)) {
                continue;
            }
            let name = names.get(class).unwrap_or_default();
            if split == Split::Train {
                let slides = labels.len();
                return Err(TrainError::Classes {
                    set: "the training split".to_owned(),
                    expected: format!("every class, with `{name}` among them"),
                    found: format!(
                        "none of it among {slides} slides: add some, give it another split, or leave the class out"
                    ),
                });
            }
            let name = name.to_owned();
            lacking.push(MissingClass { name, split });
        }
    }
    Ok(lacking)
}

/// Whether a slide has a class or a label.
fn has(label: &Label, class: usize) -> bool {
    match label {
        Label::Set(set) => set.get(class) == Some(&true),
        Label::Number(_) | Label::Map(_) => label.class() == Some(class),
    }
}
