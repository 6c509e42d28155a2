//! How often each class was taken for each, over the pixels of slides, and what follows from it.

use serde::{Deserialize, Serialize};

use super::{Bootstrap, Estimate, Groups, Metric};
use crate::error::{Result, TrainError};

/// How many pixels of each class were taken for each class.
///
/// ```
/// use stream_grad_train::metrics::Confusion;
/// let mut pixels = Confusion::new(3);
/// for (truth, predicted) in [(0, 0), (0, 0), (0, 1), (1, 1)] {
///     pixels.add(truth, predicted);
/// }
/// assert_eq!(pixels.dice(1), Some(2.0 / 3.0));
/// assert_eq!(pixels.iou(1), Some(0.5));
/// // Neither in the truth nor predicted: there is nothing to measure.
/// assert_eq!(pixels.dice(2), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Confusion {
    classes: usize,
    /// `classes x classes`: a row for each true class.
    counts: Vec<u64>,
}

impl Confusion {
    /// No pixels yet, of so many classes.
    #[must_use]
    pub fn new(classes: usize) -> Self {
        Self {
            classes,
            counts: vec![0; classes.saturating_mul(classes)],
        }
    }

    /// Counts as they stand in a table, row by row of true classes; `None` unless there are `classes x classes`.
    #[must_use]
    pub fn from_counts(classes: usize, counts: Vec<u64>) -> Option<Self> {
        (classes.checked_mul(classes) == Some(counts.len())).then_some(Self { classes, counts })
    }

    /// Number of classes.
    #[must_use]
    pub const fn classes(&self) -> usize {
        self.classes
    }

    /// The counts, row by row of true classes.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Adds a pixel of class `truth` that was taken for `predicted`; a class that there is not is passed over.
    pub fn add(&mut self, truth: usize, predicted: usize) {
        if predicted < self.classes
            && let Some(count) = self.counts.get_mut(truth * self.classes + predicted)
        {
            *count += 1;
        }
    }

    /// Adds all pixels of `other`, which has as many classes.
    pub fn add_all(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
    }

    /// Pixels of class `truth` that were taken for `predicted`.
    #[must_use]
    pub fn count(&self, truth: usize, predicted: usize) -> u64 {
        let place = truth * self.classes + predicted;
        self.counts.get(place).copied().unwrap_or(0)
    }

    /// Pixels whose true class is `class`.
    #[must_use]
    pub fn of_truth(&self, class: usize) -> u64 {
        (0..self.classes)
            .map(|predicted| self.count(class, predicted))
            .sum()
    }

    /// Pixels that were taken for `class`.
    #[must_use]
    pub fn of_prediction(&self, class: usize) -> u64 {
        (0..self.classes)
            .map(|truth| self.count(truth, class))
            .sum()
    }

    /// All pixels.
    #[must_use]
    pub fn pixels(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Dice of a class, `2 |A ∩ B| / (|A| + |B|)`: scikit-learn's `f1_score`. `None` where the class is neither in the truth nor
    /// predicted.
    #[must_use]
    pub fn dice(&self, class: usize) -> Option<f64> {
        let both = self.of_truth(class) + self.of_prediction(class);
        (both > 0).then(|| 2.0 * float(self.count(class, class)) / float(both))
    }

    /// Intersection over union of a class, `|A ∩ B| / |A ∪ B|`: scikit-learn's `jaccard_score`. `None` where the class is neither in
    /// the truth nor predicted.
    #[must_use]
    pub fn iou(&self, class: usize) -> Option<f64> {
        let same = self.count(class, class);
        let union = self.of_truth(class) + self.of_prediction(class) - same;
        (union > 0).then(|| float(same) / float(union))
    }

    /// A metric of one class; `None` where it has no meaning, or is none of a class.
    #[must_use]
    pub fn of_class(&self, metric: Metric, class: usize) -> Option<f64> {
        match metric {
            Metric::Dice => self.dice(class),
            Metric::Iou => self.iou(class),
            _ => None,
        }
    }

    /// The mean of a metric over the classes that are in the truth or predicted.
    ///
    /// # Errors
    /// [`TrainError::Metric`] for no pixels, or another metric than [`Metric::Dice`] and [`Metric::Iou`].
    pub fn mean(&self, metric: Metric) -> Result<f64> {
        let values = (0..self.classes).filter_map(|class| self.of_class(metric, class));
        let (sum, count) =
            values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
        if count > 0 {
            return Ok(sum / f64::from(count));
        }
        Err(TrainError::Metric {
            metric: metric.name(),
            expected: "pixels with a class, and Dice or IoU of them",
            found: format!("{} pixels", self.pixels()),
        })
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "rounding of more than 2^53 pixels does no harm"
)]
fn float(count: u64) -> f64 {
    count as f64
}

/// The pixels of several slides, by slide, for metrics with intervals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapOutcomes {
    classes: usize,
    slides: Vec<Confusion>,
}

impl MapOutcomes {
    /// The pixels of slides, each of `classes` classes.
    ///
    /// # Errors
    /// [`TrainError::State`] for a slide with another number of classes.
    pub fn new(classes: usize, slides: Vec<Confusion>) -> Result<Self> {
        if let Some(other) = slides.iter().find(|slide| slide.classes != classes) {
            return Err(TrainError::State {
                name: "confusion".to_owned(),
                expected: format!("{classes} classes"),
                found: other.classes.to_string(),
            });
        }
        Ok(Self { classes, slides })
    }

    /// Number of classes.
    #[must_use]
    pub const fn classes(&self) -> usize {
        self.classes
    }

    /// Number of slides.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.slides.len()
    }

    /// Whether there are no slides.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.slides.is_empty()
    }

    /// The pixels of all slides together.
    #[must_use]
    pub fn sum(&self) -> Confusion {
        self.sum_of(0..self.slides.len())
    }

    fn sum_of(&self, places: impl IntoIterator<Item = usize>) -> Confusion {
        let mut sum = Confusion::new(self.classes);
        for place in places {
            if let Some(slide) = self.slides.get(place) {
                sum.add_all(slide);
            }
        }
        sum
    }

    /// The mean of a metric over classes, of the pixels of all slides together, with an interval: `groups` say which slides are
    /// drawn together.
    ///
    /// # Errors
    /// As [`Confusion::mean`] and [`Bootstrap::estimate`].
    pub fn estimate(
        &self,
        metric: Metric,
        groups: &Groups,
        bootstrap: &Bootstrap,
    ) -> Result<Estimate> {
        bootstrap.estimate(groups, |places| {
            self.sum_of(places.iter().copied()).mean(metric)
        })
    }

    /// The same of one class. Resamples without a pixel of it are dropped and counted.
    ///
    /// # Errors
    /// [`TrainError::Metric`] for a class that is neither in the truth nor predicted; as [`Bootstrap::estimate`].
    pub fn estimate_class(
        &self,
        (metric, class): (Metric, usize),
        groups: &Groups,
        bootstrap: &Bootstrap,
    ) -> Result<Estimate> {
        bootstrap.estimate(groups, |places| {
            let sum = self.sum_of(places.iter().copied());
            sum.of_class(metric, class)
                .ok_or_else(|| TrainError::Metric {
                    metric: metric.name(),
                    expected: "a class that is in the truth or predicted",
                    found: format!("class {class} in neither, of {} pixels", sum.pixels()),
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        classes: usize,
        slides: Vec<[Vec<usize>; 2]>,
        f1: Vec<Option<f64>>,
        jaccard: Vec<Option<f64>>,
        f1_macro: f64,
        jaccard_macro: f64,
    }

    fn of_slide([truth, predicted]: &[Vec<usize>; 2], classes: usize) -> Confusion {
        let mut confusion = Confusion::new(classes);
        for (truth, predicted) in truth.iter().zip(predicted) {
            confusion.add(*truth, *predicted);
        }
        confusion
    }

    fn close(value: Option<f64>, expected: Option<f64>) {
        match (value, expected) {
            (Some(value), Some(expected)) => {
                assert!((value - expected).abs() < 1e-13, "{value}, {expected}");
            }
            (value, expected) => assert_eq!(value, expected),
        }
    }

    /// scikit-learn's `f1_score` and `jaccard_score` on the pixels of all slides.
    #[test]
    fn classes_and_their_mean_agree_with_scikit_learn() {
        let golden = include_str!("../../tests/golden/segmentation.json");
        let mut golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        let cases: Vec<Case> = serde_json::from_value(golden["scores"].take()).unwrap();
        assert!(cases.len() > 3);
        for case in cases {
            let slides = case.slides.iter();
            let slides = slides.map(|slide| of_slide(slide, case.classes)).collect();
            let sum = MapOutcomes::new(case.classes, slides).unwrap().sum();
            for class in 0..case.classes {
                close(sum.dice(class), case.f1[class]);
                close(sum.iou(class), case.jaccard[class]);
            }
            close(sum.mean(Metric::Dice).ok(), Some(case.f1_macro));
            close(sum.mean(Metric::Iou).ok(), Some(case.jaccard_macro));
        }
    }

    #[test]
    fn no_pixels_and_absent_classes_have_no_metric() {
        let nothing = Confusion::new(2);
        let message = nothing.mean(Metric::Dice).unwrap_err().to_string();
        assert!(message.contains("0 pixels"), "{message}");
        assert!(nothing.mean(Metric::RocAuc).is_err());
        let mut one = Confusion::new(2);
        one.add(0, 0);
        assert_eq!(one.mean(Metric::Dice).unwrap(), 1.0);
        let slides = MapOutcomes::new(2, vec![one.clone(), one]).unwrap();
        let (groups, bootstrap) = (Groups::new([0, 1]), Bootstrap::default());
        let absent = slides.estimate_class((Metric::Iou, 1), &groups, &bootstrap);
        let message = absent.unwrap_err().to_string();
        assert!(message.contains("class 1 in neither"), "{message}");
        assert!(MapOutcomes::new(3, vec![nothing]).is_err());
    }

    /// Two slides, one all right and one all wrong: pixels are summed before they are divided, and whole slides are drawn.
    #[test]
    fn slides_are_drawn_and_pixels_summed() {
        let slide = |right: u64, wrong: u64| {
            Confusion::from_counts(2, vec![right, wrong, wrong, right]).unwrap()
        };
        let slides = MapOutcomes::new(2, vec![slide(30, 0), slide(0, 10)]).unwrap();
        let groups = Groups::new([0, 1]);
        let dice = slides
            .estimate(Metric::Dice, &groups, &Bootstrap::default())
            .unwrap();
        assert_eq!((dice.value, dice.low, dice.high), (0.75, 0.0, 1.0));
        let class = slides.estimate_class((Metric::Dice, 1), &groups, &Bootstrap::default());
        assert_eq!(class.unwrap().value, 0.75);
    }

    #[test]
    fn counts_are_checked_and_classes_that_are_none_passed_over() {
        assert!(Confusion::from_counts(2, vec![0; 3]).is_none());
        let mut confusion = Confusion::new(2);
        confusion.add(2, 0);
        confusion.add(0, 2);
        assert_eq!(confusion.pixels(), 0);
    }
}
