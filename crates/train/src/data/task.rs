//! What is predicted from a slide, and what a network's outputs say.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClassNames, Label};
use crate::error::{Result, TrainError};

/// What is predicted from a slide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Task {
    /// One of two classes, 0 and 1.
    Binary,
    /// One of several classes, 0 to `classes - 1`.
    Classification {
        /// Number of classes, two or more.
        #[schemars(example = 3)]
        classes: usize,
    },
    /// Any of several labels at once.
    MultiLabel {
        /// Number of labels, one or more.
        #[schemars(example = 3)]
        labels: usize,
    },
    /// One of several levels that have an order, 0 to `levels - 1`, such as grades.
    Ordinal {
        /// Number of levels, two or more.
        #[schemars(example = 3)]
        levels: usize,
    },
    /// A number.
    Regression,
    /// A class for each pixel, 0 to `classes - 1`: slides have label maps.
    Segmentation {
        /// Number of classes, two to 255; the first is the background.
        #[schemars(example = 3)]
        classes: usize,
    },
}

impl Task {
    /// Checks the number of classes, labels or levels.
    ///
    /// # Errors
    /// [`TrainError::Setting`].
    pub fn check(self) -> Result<()> {
        let (setting, legal, found) = match self {
            Self::Binary | Self::Regression => return Ok(()),
            Self::Classification { classes } => ("data.task.classes", 2..=MOST_CLASSES, classes),
            Self::MultiLabel { labels } => ("data.task.labels", 1..=MOST_CLASSES, labels),
            Self::Ordinal { levels } => ("data.task.levels", 2..=MOST_CLASSES, levels),
            Self::Segmentation { classes } => ("data.task.classes", 2..=MOST_OF_PIXELS, classes),
        };
        if legal.contains(&found) {
            return Ok(());
        }
        Err(TrainError::setting(
            setting,
            format!("{} to {}", legal.start(), legal.end()),
            found,
        ))
    }

    /// Number of values that the network gives for a slide, or for each pixel: one for each class or label, one fewer than levels,
    /// or one.
    #[must_use]
    pub const fn outputs(self) -> usize {
        match self {
            Self::Binary | Self::Regression => 1,
            Self::Classification { classes } | Self::Segmentation { classes } => classes,
            Self::MultiLabel { labels } => labels,
            Self::Ordinal { levels } => levels.saturating_sub(1),
        }
    }

    /// Number of classes, labels or levels; `None` for a number.
    #[must_use]
    pub const fn classes(self) -> Option<usize> {
        match self {
            Self::Binary => Some(2),
            Self::Classification { classes } | Self::Segmentation { classes } => Some(classes),
            Self::MultiLabel { labels } => Some(labels),
            Self::Ordinal { levels } => Some(levels),
            Self::Regression => None,
        }
    }

    /// Which labels are legal, in words.
    #[must_use]
    pub fn expected(self, names: &ClassNames) -> String {
        match self {
            Self::Binary | Self::Classification { .. } | Self::Ordinal { .. } => {
                if *names == ClassNames::numbered(self) {
                    format!("a whole number from 0 to {}", names.len().saturating_sub(1))
                } else {
                    format!("one of {names}")
                }
            }
            Self::MultiLabel { .. } => {
                format!("some of {names}, with semicolons between them, or `;` for none")
            }
            Self::Regression => "a finite number".to_owned(),
            Self::Segmentation { .. } => {
                "a file with the classes of the slide's pixels: a mask or annotations".to_owned()
            }
        }
    }

    /// Whether `label` is legal.
    #[must_use]
    pub fn accepts(self, label: &Label) -> bool {
        match (self, label) {
            (Self::Regression, Label::Number(number)) => number.is_finite(),
            (Self::MultiLabel { labels }, Label::Set(set)) => set.len() == labels,
            (Self::Segmentation { .. }, Label::Map(path)) => !path.as_os_str().is_empty(),
            (Self::MultiLabel { .. } | Self::Segmentation { .. }, Label::Number(_))
            | (_, Label::Set(_) | Label::Map(_)) => false,
            (_, Label::Number(_)) => label.class() < self.classes() && label.class().is_some(),
        }
    }

    /// Probabilities that a network's outputs stand for: of each class or level, which sum to 1, or of each label by itself. Of
    /// pixels, the outputs are those of one. Empty for a number.
    ///
    /// Of levels, output `k` is the log-odds that the level is above `k` where it is at least `k` (CORN: Shi, Cao, Raschka,
    /// "Deep neural networks for rank-consistent ordinal regression based on conditional probabilities", 2021).
    ///
    /// ```
    /// use stream_grad_train::data::Task;
    /// let levels = Task::Ordinal { levels: 3 }.probabilities(&[0.0, 0.0]);
    /// assert_eq!(levels, [0.5, 0.25, 0.25]);
    /// ```
    #[must_use]
    pub fn probabilities(self, outputs: &[f64]) -> Vec<f64> {
        match self {
            Self::Regression => Vec::new(),
            Self::Binary => outputs
                .iter()
                .take(1)
                .flat_map(|logit| [sigmoid(-logit), sigmoid(*logit)])
                .collect(),
            Self::MultiLabel { .. } => outputs.iter().copied().map(sigmoid).collect(),
            Self::Classification { .. } | Self::Segmentation { .. } => {
                let largest = outputs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let powers: Vec<f64> = outputs
                    .iter()
                    .map(|logit| (logit - largest).exp())
                    .collect();
                let sum: f64 = powers.iter().sum();
                powers.iter().map(|power| power / sum).collect()
            }
            Self::Ordinal { .. } => {
                let mut at_least = 1.0;
                let mut levels = Vec::with_capacity(outputs.len() + 1);
                for logit in outputs {
                    levels.push(at_least * sigmoid(-logit));
                    at_least *= sigmoid(*logit);
                }
                levels.push(at_least);
                levels
            }
        }
    }

    /// One number that a network's outputs stand for, by which slides can be put in an order: the log-odds of two classes, the
    /// expected level, or the predicted number. Of several classes or labels the first output.
    #[must_use]
    pub fn score(self, outputs: &[f64]) -> f64 {
        match self {
            Self::Ordinal { .. } => above(outputs).sum(),
            _ => outputs.first().copied().unwrap_or(f64::NAN),
        }
    }

    /// The label that a network's outputs stand for: the likeliest class (the first of several that are alike), the labels
    /// that are likelier than not, the level that is reached or passed with a probability above a half, or the number.
    #[must_use]
    pub fn predicted(self, outputs: &[f64]) -> Label {
        match self {
            Self::Regression => Label::Number(self.score(outputs)),
            Self::Binary => Label::of_class(usize::from(self.score(outputs) > 0.0)),
            Self::MultiLabel { .. } => {
                Label::Set(outputs.iter().map(|logit| *logit > 0.0).collect())
            }
            Self::Ordinal { .. } => Label::of_class(
                above(outputs)
                    .filter(|probability| *probability > 0.5)
                    .count(),
            ),
            Self::Classification { .. } | Self::Segmentation { .. } => {
                let first_largest = outputs
                    .iter()
                    .enumerate()
                    .rev()
                    .max_by(|a, b| a.1.total_cmp(b.1));
                Label::of_class(first_largest.map_or(0, |(class, _)| class))
            }
        }
    }
}

/// More classes than any task has, and few enough for all that counts them.
const MOST_CLASSES: usize = 1 << 16;

/// Label maps are bytes, of which the last stands for no class.
const MOST_OF_PIXELS: usize = 255;

/// For each output of an ordinal task, the probability of a level above its place.
fn above(outputs: &[f64]) -> impl Iterator<Item = f64> {
    outputs.iter().scan(1.0, |at_least, logit| {
        *at_least *= sigmoid(*logit);
        Some(*at_least)
    })
}

/// `1 / (1 + exp(-x))`, without overflow.
fn sigmoid(logit: f64) -> f64 {
    if logit >= 0.0 {
        1.0 / (1.0 + (-logit).exp())
    } else {
        let power = logit.exp();
        power / (1.0 + power)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn outputs_become_probabilities_and_labels() {
        let close = |a: &[f64], b: &[f64]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12)
        };
        let third = Task::Classification { classes: 3 };
        assert!(close(
            &third.probabilities(&[1000.0, 1000.0, 1000.0]),
            &[1.0 / 3.0; 3]
        ));
        assert_eq!(third.predicted(&[1.0, 3.0, 3.0]), Label::Number(1.0));
        let odds = 3.0_f64.ln();
        assert!(close(&Task::Binary.probabilities(&[odds]), &[0.25, 0.75]));
        assert_eq!(Task::Binary.predicted(&[0.1]), Label::Number(1.0));
        let several = Task::MultiLabel { labels: 2 };
        assert!(close(&several.probabilities(&[odds, -odds]), &[0.75, 0.25]));
        assert_eq!(
            several.predicted(&[odds, -odds]),
            Label::Set(vec![true, false])
        );
        // Above 0: 3/4; above 1: 3/4 of that; so levels 1/4, 3/16, 9/16, and 21/16 is to be expected.
        let levels = Task::Ordinal { levels: 3 };
        assert!(close(
            &levels.probabilities(&[odds, odds]),
            &[0.25, 0.1875, 0.5625]
        ));
        assert!((levels.score(&[odds, odds]) - 1.3125).abs() < 1e-12);
        assert_eq!(levels.predicted(&[odds, odds]), Label::Number(2.0));
        assert_eq!(levels.predicted(&[0.2, 0.2]), Label::Number(1.0));
        assert!(Task::Regression.probabilities(&[3.0]).is_empty());
        assert!(close(&Task::Binary.probabilities(&[-1000.0]), &[1.0, 0.0]));
    }

    #[test]
    fn only_legal_labels_are_accepted() {
        let number = Label::Number;
        let levels = Task::Ordinal { levels: 3 };
        assert!(levels.accepts(&number(2.0)) && !levels.accepts(&number(3.0)));
        for wrong in [
            number(-1.0),
            number(0.5),
            number(f64::NAN),
            number(f64::INFINITY),
        ] {
            assert!(
                !levels.accepts(&wrong) && !Task::Binary.accepts(&wrong),
                "{wrong}"
            );
        }
        let map = Label::Map("mask.png".into());
        let pixels = Task::Segmentation { classes: 2 };
        assert!(pixels.accepts(&map) && !pixels.accepts(&number(1.0)));
        assert!(!Task::Binary.accepts(&map) && !pixels.accepts(&Label::Map(PathBuf::new())));
        let set = Label::Set(vec![true, false]);
        assert!(Task::MultiLabel { labels: 2 }.accepts(&set));
        assert!(!Task::MultiLabel { labels: 3 }.accepts(&set) && !Task::Binary.accepts(&set));
        assert!(!Task::MultiLabel { labels: 2 }.accepts(&number(1.0)));
        assert!(
            Task::Regression.accepts(&number(-7.5)) && !Task::Regression.accepts(&number(f64::NAN))
        );
    }

    #[test]
    fn numbers_of_classes_are_checked() {
        for (task, setting, legal, found) in [
            (
                Task::Classification { classes: 1 },
                "classes",
                2..=MOST_CLASSES,
                1,
            ),
            (
                Task::MultiLabel { labels: 0 },
                "labels",
                1..=MOST_CLASSES,
                0,
            ),
            (Task::Ordinal { levels: 1 }, "levels", 2..=MOST_CLASSES, 1),
            (
                Task::Ordinal { levels: usize::MAX },
                "levels",
                2..=MOST_CLASSES,
                usize::MAX,
            ),
            (
                Task::Segmentation { classes: 1 },
                "classes",
                2..=MOST_OF_PIXELS,
                1,
            ),
            (
                Task::Segmentation { classes: 256 },
                "classes",
                2..=MOST_OF_PIXELS,
                256,
            ),
        ] {
            assert_eq!(
                task.check().unwrap_err().to_string(),
                format!(
                    "setting `data.task.{setting}`: expected {} to {}, found {found}",
                    legal.start(),
                    legal.end()
                )
            );
        }
        assert!(Task::MultiLabel { labels: 1 }.check().is_ok());
    }
}
