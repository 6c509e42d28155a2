//! Predictions beside the truth, and all metrics of them.

use super::{
    Bootstrap, Estimate, Groups, KappaWeights, Metric, accuracy_score, average_precision_score,
    balanced_accuracy_score, check_not_empty, cohen_kappa_score, count, expected_calibration_error,
    mean_absolute_error, mean_squared_error, pearsonr, roc_auc_score, spearmanr,
};
use crate::data::{Label, Task};
use crate::error::{Result, TrainError};

/// What a network gave for slides whose labels are known.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcomes {
    task: Task,
    truth: Vec<Label>,
    predicted: Vec<Label>,
    probabilities: Vec<Vec<f64>>,
    scores: Vec<f64>,
}

impl Outcomes {
    /// Labels and the network's outputs.
    ///
    /// # Errors
    /// [`TrainError::State`] for outputs of another number than the task's, a label that the task does not take, or a task of
    /// [pixels](super::MapOutcomes).
    ///
    /// # Examples
    /// ```
    /// use stream_grad_train::data::{Label, Task};
    /// use stream_grad_train::metrics::{Metric, Outcomes};
    /// let (negative, positive) = (Label::Number(0.0), Label::Number(1.0));
    /// let outcomes = Outcomes::new(Task::Binary, [(&negative, &[-2.0][..]), (&positive, &[-1.0]), (&negative, &[0.5])])?;
    /// assert_eq!(outcomes.metric(Metric::RocAuc)?, 0.5);
    /// assert_eq!(outcomes.metric(Metric::Accuracy)?, 1.0 / 3.0);
    /// # Ok::<(), stream_grad_train::TrainError>(())
    /// ```
    pub fn new<'a>(
        task: Task,
        pairs: impl IntoIterator<Item = (&'a Label, &'a [f64])>,
    ) -> Result<Self> {
        if let Task::Segmentation { .. } = task {
            return Err(TrainError::State {
                name: "task".to_owned(),
                expected: "one with a label for each slide".to_owned(),
                found: format!("{task:?}, whose outcomes are `MapOutcomes`"),
            });
        }
        let mut outcomes = Self {
            task,
            truth: Vec::new(),
            predicted: Vec::new(),
            probabilities: Vec::new(),
            scores: Vec::new(),
        };
        for (label, outputs) in pairs {
            if outputs.len() != task.outputs() {
                return Err(TrainError::State {
                    name: "outputs".to_owned(),
                    expected: task.outputs().to_string(),
                    found: outputs.len().to_string(),
                });
            }
            if !task.accepts(label) {
                return Err(TrainError::State {
                    name: "label".to_owned(),
                    expected: format!("a label of {task:?}"),
                    found: label.to_string(),
                });
            }
            outcomes.truth.push(label.clone());
            outcomes.predicted.push(task.predicted(outputs));
            outcomes.probabilities.push(task.probabilities(outputs));
            outcomes.scores.push(task.score(outputs));
        }
        Ok(outcomes)
    }

    /// Number of slides.
    #[must_use]
    pub fn len(&self) -> usize {
        self.truth.len()
    }

    /// Whether there are no slides.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.truth.is_empty()
    }

    /// What is predicted.
    #[must_use]
    pub fn task(&self) -> Task {
        self.task
    }

    /// The metric on all slides.
    ///
    /// # Errors
    /// [`TrainError::Metric`] where it has no meaning, as for slides of one class, or of a class without slides; or where the
    /// task has no such metric.
    pub fn metric(&self, metric: Metric) -> Result<f64> {
        self.metric_at(metric, &(0..self.len()).collect::<Vec<_>>())
    }

    /// The metric with its interval. `groups` say which slides are drawn together.
    ///
    /// # Errors
    /// As [`metric`](Self::metric) and [`Bootstrap::estimate`].
    pub fn estimate(
        &self,
        metric: Metric,
        groups: &Groups,
        bootstrap: &Bootstrap,
    ) -> Result<Estimate> {
        bootstrap.estimate(groups, |places| self.metric_at(metric, places))
    }

    /// For each class, level or label, of the slides at `places`: which have it, and by what they were ranked. Of two classes
    /// only the positive one.
    #[must_use]
    pub fn rankings(&self, places: &[usize]) -> Vec<(Vec<bool>, Vec<f64>)> {
        let classes = match self.task {
            Task::Regression => 0..0,
            Task::Binary => 1..2,
            task => 0..task.classes().unwrap_or(0),
        };
        let ranking = |class| {
            let has = |place: usize| match &self.truth[place] {
                Label::Set(set) => set.get(class).copied().unwrap_or(false),
                label => label.class() == Some(class),
            };
            // The log-odds of two classes: probabilities near 0 and 1 would be tied by rounding.
            let score = |place: usize| match self.task {
                Task::Binary => self.scores[place],
                _ => self.probabilities[place][class],
            };
            places
                .iter()
                .map(|&place| (has(place), score(place)))
                .unzip()
        };
        classes.map(ranking).collect()
    }

    /// Predictions whose probability is stated, of the slides at `places`: whether each came true, and its probability. Of two
    /// classes the positive one, of several or of levels the predicted one, of several labels all of them.
    #[must_use]
    pub fn claims(&self, places: &[usize]) -> (Vec<bool>, Vec<f64>) {
        match self.task {
            Task::Binary => {
                let claim = |&place: &usize| {
                    let probability = self.probabilities[place][1];
                    (self.truth[place].is_positive(), probability)
                };
                places.iter().map(claim).unzip()
            }
            Task::MultiLabel { .. } => self
                .rankings(places)
                .into_iter()
                .flat_map(|(has, scores)| has.into_iter().zip(scores))
                .unzip(),
            _ => places
                .iter()
                .filter_map(|&place| {
                    let class = self.predicted[place].class()?;
                    let probability = self.probabilities[place].get(class)?;
                    Some((self.predicted[place] == self.truth[place], *probability))
                })
                .unzip(),
        }
    }

    /// Classes or levels of the slides at `places`, true and predicted.
    #[must_use]
    pub fn classes(&self, places: &[usize]) -> (Vec<usize>, Vec<usize>) {
        places
            .iter()
            .filter_map(|&place| Some((self.truth[place].class()?, self.predicted[place].class()?)))
            .unzip()
    }

    /// Numbers or levels of the slides at `places`, true and predicted; of levels the expected one.
    #[must_use]
    pub fn numbers(&self, places: &[usize]) -> (Vec<f64>, Vec<f64>) {
        places
            .iter()
            .filter_map(|&place| Some((self.truth[place].number()?, self.scores[place])))
            .unzip()
    }

    /// The metric on the slides at `places`, some of them several times.
    pub(crate) fn metric_at(&self, metric: Metric, places: &[usize]) -> Result<f64> {
        check_not_empty(metric.name(), places.len())?;
        if !Metric::of(self.task).contains(&metric) {
            return Err(TrainError::Metric {
                metric: metric.name(),
                expected: "a task that has this metric",
                found: format!("{:?}", self.task),
            });
        }
        let count = self.task.classes().unwrap_or(0);
        match metric {
            Metric::RocAuc => self.mean_ranking(places, roc_auc_score),
            Metric::AveragePrecision => self.mean_ranking(places, average_precision_score),
            Metric::Accuracy => {
                let at = |labels: &[Label]| -> Vec<Label> {
                    places.iter().map(|&place| labels[place].clone()).collect()
                };
                accuracy_score(&at(&self.truth), &at(&self.predicted))
            }
            Metric::BalancedAccuracy => {
                let (truth, predicted) = self.classes(places);
                balanced_accuracy_score(&truth, &predicted, count)
            }
            Metric::QuadraticKappa => {
                let (truth, predicted) = self.classes(places);
                cohen_kappa_score(&truth, &predicted, count, KappaWeights::Quadratic)
            }
            Metric::Spearman => self.compare(places, spearmanr),
            Metric::Pearson => self.compare(places, pearsonr),
            Metric::MeanSquaredError => self.compare(places, mean_squared_error),
            Metric::MeanAbsoluteError => self.compare(places, mean_absolute_error),
            Metric::CalibrationError => self.calibration_error(places),
            // Of pixels: no task of slides has them.
            Metric::Dice | Metric::Iou => Err(TrainError::Metric {
                metric: metric.name(),
                expected: "classes of pixels",
                found: format!("{:?}", self.task),
            }),
        }
    }

    fn compare(&self, places: &[usize], metric: fn(&[f64], &[f64]) -> Result<f64>) -> Result<f64> {
        let (truth, predicted) = self.numbers(places);
        metric(&truth, &predicted)
    }

    /// The mean over classes or labels of a metric of one against the rest.
    fn mean_ranking(
        &self,
        places: &[usize],
        metric: fn(&[bool], &[f64]) -> Result<f64>,
    ) -> Result<f64> {
        let rankings = self.rankings(places);
        let several = rankings.len() > 1;
        let mut sum = 0.0;
        for (class, (labels, scores)) in rankings.iter().enumerate() {
            sum += metric(labels, scores).map_err(|error| match error {
                TrainError::Metric {
                    metric,
                    expected,
                    found,
                } if several => TrainError::Metric {
                    metric,
                    expected,
                    found: format!("{found} of class {class}"),
                },
                error => error,
            })?;
        }
        Ok(sum / count(rankings.len()))
    }

    fn calibration_error(&self, places: &[usize]) -> Result<f64> {
        if !matches!(self.task, Task::MultiLabel { .. }) {
            let (labels, probabilities) = self.claims(places);
            return expected_calibration_error(&labels, &probabilities, Metric::BINS);
        }
        self.mean_ranking(places, |labels, probabilities| {
            expected_calibration_error(labels, probabilities, Metric::BINS)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    fn outcomes(task: Task, truth: &[Label], outputs: &[Vec<f64>]) -> Outcomes {
        Outcomes::new(task, truth.iter().zip(outputs.iter().map(Vec::as_slice))).unwrap()
    }

    fn golden() -> serde_json::Value {
        serde_json::from_str(include_str!("../../tests/golden/metrics.json")).unwrap()
    }

    fn close(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-13, "{value}, {expected}");
    }

    #[derive(Deserialize)]
    struct Macro {
        truth: Vec<usize>,
        scores: Vec<Vec<f64>>,
        roc_auc: f64,
        average_precision: f64,
    }

    /// scikit-learn's `multi_class="ovr"`, `average="macro"`.
    #[test]
    fn classes_against_the_rest_agree_with_scikit_learn() {
        let cases: Vec<Macro> = serde_json::from_value(golden()["macro"].take()).unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let task = Task::Classification {
                classes: case.scores[0].len(),
            };
            let truth: Vec<Label> = case
                .truth
                .iter()
                .map(|class| Label::of_class(*class))
                .collect();
            // The softmax of logarithms of probabilities are the probabilities. Their rounding would break ties, so that
            // tied rows are given as equal logits.
            let logits: Vec<Vec<f64>> = case
                .scores
                .iter()
                .map(|row| row.iter().map(|share| share.ln()).collect())
                .collect();
            let mut outcomes = outcomes(task, &truth, &logits);
            for (rounded, exact) in outcomes.probabilities.iter_mut().zip(&case.scores) {
                for (rounded, exact) in rounded.iter_mut().zip(exact) {
                    close(*rounded, *exact);
                    *rounded = *exact;
                }
            }
            close(outcomes.metric(Metric::RocAuc).unwrap(), case.roc_auc);
            let precision = outcomes.metric(Metric::AveragePrecision).unwrap();
            close(precision, case.average_precision);
        }
    }

    #[derive(Deserialize)]
    struct Sets {
        truth: Vec<Vec<u8>>,
        scores: Vec<Vec<f64>>,
        per_label: Vec<f64>,
        roc_auc: f64,
        average_precision: f64,
        accuracy: f64,
    }

    #[test]
    fn several_labels_agree_with_scikit_learn() {
        let cases: Vec<Sets> = serde_json::from_value(golden()["labels"].take()).unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let labels = case.scores[0].len();
            let truth: Vec<Label> = case
                .truth
                .iter()
                .map(|set| Label::Set(set.iter().map(|has| *has == 1).collect()))
                .collect();
            let outcomes = outcomes(Task::MultiLabel { labels }, &truth, &case.scores);
            close(outcomes.metric(Metric::RocAuc).unwrap(), case.roc_auc);
            close(
                outcomes.metric(Metric::AveragePrecision).unwrap(),
                case.average_precision,
            );
            close(outcomes.metric(Metric::Accuracy).unwrap(), case.accuracy);
            let everything: Vec<usize> = (0..truth.len()).collect();
            let rankings = outcomes.rankings(&everything);
            assert_eq!(rankings.len(), labels);
            for ((has, scores), expected) in rankings.iter().zip(case.per_label) {
                close(roc_auc_score(has, scores).unwrap(), expected);
            }
        }
    }

    /// Every metric that a task has can be computed, and no other.
    #[test]
    fn each_task_has_its_metrics() {
        let number =
            |values: &[f64]| -> Vec<Label> { values.iter().copied().map(Label::Number).collect() };
        let cases = [
            (
                Task::Binary,
                number(&[0.0, 1.0, 1.0]),
                vec![vec![-1.0], vec![2.0], vec![-0.5]],
            ),
            (
                Task::Classification { classes: 2 },
                number(&[0.0, 1.0, 1.0]),
                vec![vec![1.0, 0.0], vec![0.0, 1.0], vec![0.5, 0.0]],
            ),
            (
                Task::MultiLabel { labels: 2 },
                vec![Label::Set(vec![true, false]), Label::Set(vec![false, true])],
                vec![vec![1.0, 0.0], vec![0.0, 1.0]],
            ),
            (
                Task::Ordinal { levels: 3 },
                number(&[0.0, 1.0, 2.0]),
                vec![vec![-1.0, 0.0], vec![1.0, -2.0], vec![2.0, 2.0]],
            ),
            (
                Task::Regression,
                number(&[10.0, 12.0, 9.0]),
                vec![vec![11.0], vec![12.5], vec![9.0]],
            ),
        ];
        let everything = [
            Metric::RocAuc,
            Metric::AveragePrecision,
            Metric::Accuracy,
            Metric::BalancedAccuracy,
            Metric::QuadraticKappa,
            Metric::Spearman,
            Metric::Pearson,
            Metric::MeanSquaredError,
            Metric::MeanAbsoluteError,
            Metric::CalibrationError,
        ];
        for (task, truth, outputs) in cases {
            let outcomes = outcomes(task, &truth, &outputs);
            assert_eq!(Metric::of(task)[0], Metric::main(task));
            for metric in everything {
                let value = outcomes.metric(metric);
                assert_eq!(
                    value.is_ok(),
                    Metric::of(task).contains(&metric),
                    "{task:?}, {metric}: {value:?}"
                );
                let json = serde_json::to_value(metric).unwrap();
                assert_eq!(json, metric.name());
            }
            assert!(outcomes.len() > 1 && !outcomes.is_empty());
        }
    }

    #[test]
    fn a_class_without_slides_is_named() {
        let truth = [Label::Number(0.0), Label::Number(1.0)];
        let outputs = [vec![1.0, 0.0, 0.0], vec![0.0, 1.0, 0.0]];
        let outcomes = outcomes(Task::Classification { classes: 3 }, &truth, &outputs);
        let message = outcomes.metric(Metric::RocAuc).unwrap_err().to_string();
        assert!(
            message.contains("0 positive and 2 negative of class 2"),
            "{message}"
        );
        assert_eq!(outcomes.metric(Metric::Accuracy).unwrap(), 1.0);
    }

    /// By hand: level probabilities of (0.5, 0.25, 0.25) and (0.25, 0.1875, 0.5625).
    #[test]
    fn levels_and_their_claims_by_hand() {
        let odds = 3.0_f64.ln();
        let truth = [Label::Number(0.0), Label::Number(1.0)];
        let outcomes = outcomes(
            Task::Ordinal { levels: 3 },
            &truth,
            &[vec![0.0, 0.0], vec![odds, odds]],
        );
        assert_eq!(outcomes.classes(&[0, 1]), (vec![0, 1], vec![0, 2]));
        let (truth, levels) = outcomes.numbers(&[0, 1]);
        assert_eq!(truth, [0.0, 1.0]);
        close(levels[0], 0.75);
        close(levels[1], 1.3125);
        let (right, probabilities) = outcomes.claims(&[0, 1]);
        assert_eq!(right, [true, false]);
        close(probabilities[0], 0.5);
        close(probabilities[1], 0.5625);
        close(
            outcomes.metric(Metric::CalibrationError).unwrap(),
            (0.5 + 0.5625) / 2.0,
        );
    }

    #[test]
    fn other_outputs_and_labels_are_refused() {
        let refused = |label: Label, outputs: &[f64]| {
            Outcomes::new(Task::Binary, [(&label, outputs)]).unwrap_err()
        };
        assert!(
            refused(Label::Number(1.0), &[0.0, 1.0])
                .to_string()
                .contains("found 2")
        );
        assert!(
            refused(Label::Number(3.0), &[0.0])
                .to_string()
                .contains("found 3")
        );
    }

    #[test]
    fn lower_errors_are_better() {
        assert!(
            Metric::MeanSquaredError.is_better(1.0, 2.0) && Metric::Spearman.is_better(0.5, 0.2)
        );
        assert!(
            !Metric::RocAuc.is_better(f64::NAN, 0.1) && !Metric::RocAuc.is_better(0.1, f64::NAN)
        );
    }
}
