//! How much each class, label or level counts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::{Label, Task};
use crate::error::{Result, TrainError};

/// Factors of the loss by the slide's class, so that rare classes count as much as common ones, or as much as is wanted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeights {
    /// Every slide counts alike.
    #[default]
    None,
    /// Those of scikit-learn's `class_weight="balanced"`: a class of `n` of `N` slides has `N / (classes * n)`. Of several
    /// labels, having and not having each of them are two classes.
    Balanced,
    /// One for each class or level, as in PyTorch's `CrossEntropyLoss(weight)`; of several labels, that of having each, as in
    /// PyTorch's `BCEWithLogitsLoss(pos_weight)`. For two classes there are two.
    #[serde(untagged)]
    List(Vec<f64>),
}

/// Factors as they are used.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Factors {
    /// All 1.
    Alike,
    /// By class or level.
    Classes(Vec<f64>),
    /// By label: for slides without it, and with it.
    Labels(Vec<[f64; 2]>),
}

impl ClassWeights {
    /// Checks that the task takes them.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for weights of a task that predicts a number, another number of them than classes, or one that is
    /// negative or not finite; for balanced ones of pixels, which nobody has counted.
    pub fn check(&self, task: Task) -> Result<()> {
        let refuse = |expected: String, found: String| {
            Err(TrainError::setting("train.class_weights", expected, found))
        };
        match (self, task.classes()) {
            (Self::Balanced, Some(_)) if matches!(task, Task::Segmentation { .. }) => refuse(
                "`none` or a list, since the pixels of each class are not counted beforehand"
                    .to_owned(),
                "`balanced`".to_owned(),
            ),
            (Self::None, _) | (Self::Balanced, Some(_)) => Ok(()),
            (_, None) => refuse(
                "none, since a number has no classes".to_owned(),
                format!("{self:?}"),
            ),
            (Self::List(list), Some(classes)) => {
                let legal = |weight: &f64| weight.is_finite() && *weight >= 0.0;
                if list.len() == classes
                    && list.iter().all(legal)
                    && list.iter().any(|weight| *weight > 0.0)
                {
                    return Ok(());
                }
                let expected = format!(
                    "{classes} finite numbers of 0 or more, one for each class, and not all 0"
                );
                refuse(expected, format!("{list:?}"))
            }
        }
    }
}

impl Factors {
    pub(super) fn new(task: Task, weights: &ClassWeights, labels: &[&Label]) -> Result<Self> {
        weights.check(task)?;
        let several = matches!(task, Task::MultiLabel { .. });
        Ok(match weights {
            ClassWeights::None => Self::Alike,
            ClassWeights::List(list) if several => {
                Self::Labels(list.iter().map(|weight| [1.0, *weight]).collect())
            }
            ClassWeights::List(list) => Self::Classes(list.clone()),
            ClassWeights::Balanced if several => {
                let count = |place: usize| {
                    let has = |label: &&&Label| matches!(label, Label::Set(set) if set.get(place) == Some(&true));
                    labels.iter().filter(has).count()
                };
                let pair = |place| {
                    let with = count(place);
                    [labels.len() - with, with].map(|number| balanced(labels.len(), 2, number))
                };
                Self::Labels((0..task.classes().unwrap_or(0)).map(pair).collect())
            }
            ClassWeights::Balanced => {
                let classes = task.classes().unwrap_or(0);
                let count = |class: usize| {
                    labels
                        .iter()
                        .filter(|label| label.class() == Some(class))
                        .count()
                };
                // A class without slides is never met, and scikit-learn does not count it.
                let present = (0..classes).filter(|class| count(*class) > 0).count();
                Self::Classes(
                    (0..classes)
                        .map(|class| balanced(labels.len(), present, count(class)))
                        .collect(),
                )
            }
        })
    }

    /// Factor of a slide, or of each of its labels; `None` where all count alike.
    pub(super) fn of(&self, label: &Label) -> Option<Vec<f64>> {
        match (self, label) {
            (Self::Classes(classes), _) => Some(vec![*classes.get(label.class()?)?]),
            (Self::Labels(pairs), Label::Set(set)) => Some(
                pairs
                    .iter()
                    .zip(set)
                    .map(|(pair, has)| pair[usize::from(*has)])
                    .collect(),
            ),
            _ => None,
        }
    }
}

/// Weight of a class with `count` of `total` slides; 1 where it has none.
#[expect(clippy::cast_precision_loss, reason = "numbers of slides are small")]
fn balanced(total: usize, classes: usize, count: usize) -> f64 {
    if count == 0 {
        return 1.0;
    }
    total as f64 / (classes as f64 * count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Settings {
        class_weights: ClassWeights,
    }

    #[test]
    fn settings_are_a_word_or_a_list() {
        for (text, weights) in [
            ("class_weights = \"none\"\n", ClassWeights::None),
            ("class_weights = \"balanced\"\n", ClassWeights::Balanced),
            (
                "class_weights = [1.0, 2.5]\n",
                ClassWeights::List(vec![1.0, 2.5]),
            ),
        ] {
            let settings = Settings {
                class_weights: weights,
            };
            assert_eq!(toml::from_str::<Settings>(text).unwrap(), settings);
            assert_eq!(toml::to_string(&settings).unwrap(), text);
        }
        let refused = toml::from_str::<Settings>("class_weights = \"even\"\n").unwrap_err();
        let message = refused.to_string();
        assert!(
            message.contains("line 1") && message.contains("class_weights = \"even\""),
            "{message}"
        );
    }

    #[test]
    fn weights_that_do_not_fit_are_refused() {
        let list = |list: &[f64]| ClassWeights::List(list.to_vec());
        for (weights, task) in [
            (list(&[1.0]), Task::Binary),
            (list(&[1.0, -1.0]), Task::Binary),
            (list(&[0.0, 0.0]), Task::Binary),
            (list(&[1.0, f64::NAN, 1.0]), Task::Ordinal { levels: 3 }),
            (ClassWeights::Balanced, Task::Regression),
            (ClassWeights::Balanced, Task::Segmentation { classes: 2 }),
            (list(&[1.0]), Task::Segmentation { classes: 2 }),
        ] {
            let message = weights.check(task).unwrap_err().to_string();
            assert!(message.contains("train.class_weights"), "{message}");
        }
        assert!(list(&[0.5, 0.0]).check(Task::Binary).is_ok());
    }

    /// `compute_class_weight("balanced", classes=[0, 1, 2], y=[0, 0, 0, 1, 1, 2])` of scikit-learn is 2/3, 1, 2.
    #[test]
    fn balanced_weights_are_those_of_scikit_learn() {
        let labels: Vec<Label> = [0.0, 0.0, 0.0, 1.0, 1.0, 2.0].map(Label::Number).into();
        let labels: Vec<&Label> = labels.iter().collect();
        let task = Task::Classification { classes: 3 };
        let Factors::Classes(found) = Factors::new(task, &ClassWeights::Balanced, &labels).unwrap()
        else {
            panic!("classes have factors")
        };
        assert!(
            found
                .iter()
                .zip([2.0 / 3.0, 1.0, 2.0])
                .all(|(a, b)| (a - b).abs() < 1e-12),
            "{found:?}"
        );

        let sets = [
            vec![true, false],
            vec![false, false],
            vec![false, false],
            vec![false, false],
        ];
        let labels: Vec<Label> = sets.map(Label::Set).into();
        let labels: Vec<&Label> = labels.iter().collect();
        let task = Task::MultiLabel { labels: 2 };
        let factors = Factors::new(task, &ClassWeights::Balanced, &labels).unwrap();
        // One of four has the first label; none has the second.
        assert_eq!(factors, Factors::Labels(vec![[2.0 / 3.0, 2.0], [0.5, 1.0]]));
    }
}
