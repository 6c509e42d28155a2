//! Metrics of scores that rank examples of two classes, and the curves behind them.

use super::{check_lengths, check_not_nan, count};
use crate::error::{Result, TrainError};

/// Area under the receiver operating characteristic curve, by the rank statistic of Mann and Whitney; ties count half.
///
/// `labels[i]` says whether example `i` is positive, `scores[i]` how positive it was predicted to be, on any scale.
///
/// # Errors
/// [`TrainError::Metric`] if the lengths differ, a score is NaN, or a class has no example.
///
/// # Examples
/// ```
/// use stream_grad_train::metrics::roc_auc_score;
/// assert_eq!(roc_auc_score(&[false, false, true, true], &[0.1, 0.4, 0.35, 0.8])?, 0.75);
/// # Ok::<(), stream_grad_train::TrainError>(())
/// ```
pub fn roc_auc_score(labels: &[bool], scores: &[f64]) -> Result<f64> {
    let steps = Steps::new("roc_auc", labels, scores)?;
    steps.check_both_classes("roc_auc")?;
    let (mut area, mut before) = (0.0, Counts::default());
    for step in &steps.counts {
        let negatives = count(step.negatives - before.negatives);
        area += negatives * count(step.positives + before.positives) / 2.0;
        before = *step;
    }
    Ok(area / (count(steps.all.positives) * count(steps.all.negatives)))
}

/// Average precision: the mean of the precision at each threshold, weighted by the recall that the threshold adds.
///
/// # Errors
/// [`TrainError::Metric`] if the lengths differ, a score is NaN, or there is no positive example.
pub fn average_precision_score(labels: &[bool], scores: &[f64]) -> Result<f64> {
    const METRIC: &str = "average_precision";
    let steps = Steps::new(METRIC, labels, scores)?;
    steps.check_positives(METRIC)?;
    let (mut sum, mut before) = (0.0, Counts::default());
    for step in &steps.counts {
        sum += count(step.positives - before.positives) * step.precision();
        before = *step;
    }
    Ok(sum / count(steps.all.positives))
}

/// A receiver operating characteristic curve, from the highest threshold to the lowest.
#[derive(Debug, Clone, PartialEq)]
pub struct RocCurve {
    /// False-positive rates, from 0 to 1.
    pub fpr: Vec<f64>,
    /// True-positive rates, from 0 to 1.
    pub tpr: Vec<f64>,
    /// Scores from which on an example counts as positive; the first is infinite.
    pub thresholds: Vec<f64>,
}

/// The curve whose area is [`roc_auc_score`], with every threshold (scikit-learn's `drop_intermediate=False`).
///
/// # Errors
/// As [`roc_auc_score`].
pub fn roc_curve(labels: &[bool], scores: &[f64]) -> Result<RocCurve> {
    let steps = Steps::new("roc_curve", labels, scores)?;
    steps.check_both_classes("roc_curve")?;
    let mut curve = RocCurve {
        fpr: vec![0.0],
        tpr: vec![0.0],
        thresholds: vec![f64::INFINITY],
    };
    for (step, threshold) in steps.counts.iter().zip(&steps.thresholds) {
        curve
            .fpr
            .push(count(step.negatives) / count(steps.all.negatives));
        curve
            .tpr
            .push(count(step.positives) / count(steps.all.positives));
        curve.thresholds.push(*threshold);
    }
    Ok(curve)
}

/// A precision-recall curve, from the lowest threshold to the highest.
#[derive(Debug, Clone, PartialEq)]
pub struct PrecisionRecallCurve {
    /// Precision at each threshold; after the last threshold comes 1.
    pub precision: Vec<f64>,
    /// Recall at each threshold; after the last threshold comes 0.
    pub recall: Vec<f64>,
    /// Scores from which on an example counts as positive.
    pub thresholds: Vec<f64>,
}

/// The curve behind [`average_precision_score`].
///
/// # Errors
/// As [`average_precision_score`].
pub fn precision_recall_curve(labels: &[bool], scores: &[f64]) -> Result<PrecisionRecallCurve> {
    const METRIC: &str = "precision_recall_curve";
    let steps = Steps::new(METRIC, labels, scores)?;
    steps.check_positives(METRIC)?;
    let recall = |step: &Counts| count(step.positives) / count(steps.all.positives);
    let rising = || steps.counts.iter().rev();
    Ok(PrecisionRecallCurve {
        precision: rising().map(Counts::precision).chain([1.0]).collect(),
        recall: rising().map(recall).chain([0.0]).collect(),
        thresholds: steps.thresholds.iter().rev().copied().collect(),
    })
}

/// Examples of both classes with a score of a threshold or more.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    positives: usize,
    negatives: usize,
}

impl Counts {
    fn precision(&self) -> f64 {
        count(self.positives) / count(self.positives + self.negatives)
    }
}

/// [`Counts`] at each distinct score, from the highest.
struct Steps {
    counts: Vec<Counts>,
    thresholds: Vec<f64>,
    all: Counts,
}

impl Steps {
    fn new(metric: &'static str, labels: &[bool], scores: &[f64]) -> Result<Self> {
        check_lengths(metric, labels.len(), scores.len())?;
        check_not_nan(metric, scores)?;
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let mut all = Counts::default();
        let (mut counts, mut thresholds) = (Vec::new(), Vec::new());
        // Both zeros are one score.
        for tied in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
            let positives = tied.iter().filter(|&&place| labels[place]).count();
            all.positives += positives;
            all.negatives += tied.len() - positives;
            counts.push(all);
            thresholds.push(scores[tied[0]]);
        }
        Ok(Self {
            counts,
            thresholds,
            all,
        })
    }

    fn check_both_classes(&self, metric: &'static str) -> Result<()> {
        let Counts {
            positives,
            negatives,
        } = self.all;
        if positives > 0 && negatives > 0 {
            return Ok(());
        }
        Err(TrainError::Metric {
            metric,
            expected: "examples of both classes",
            found: format!("{positives} positive and {negatives} negative"),
        })
    }

    fn check_positives(&self, metric: &'static str) -> Result<()> {
        if self.all.positives > 0 {
            return Ok(());
        }
        Err(TrainError::Metric {
            metric,
            expected: "a positive example or more",
            found: format!("0 positive and {} negative", self.all.negatives),
        })
    }
}
