//! Values of scikit-learn and SciPy (`tests/golden/metrics.py`), and what these do not refuse.

use proptest::prelude::*;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::*;

const TOLERANCE: f64 = 1e-13;

fn golden<T: DeserializeOwned>(kind: &str) -> Vec<T> {
    let mut file: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/golden/metrics.json")).unwrap();
    let cases: Vec<T> = serde_json::from_value(file[kind].take()).unwrap();
    assert!(!cases.is_empty());
    cases
}

/// `value` is the expected one, or there is none on either side.
fn check(value: Result<f64>, expected: Option<f64>, what: &str) {
    match (value, expected) {
        (Ok(value), Some(expected)) => {
            let scale = expected.abs().max(1.0);
            assert!(
                (value - expected).abs() <= TOLERANCE * scale,
                "{what}: {value}, expected {expected}"
            );
        }
        (Err(TrainError::Metric { .. }), None) => {}
        (value, expected) => panic!("{what}: {value:?}, expected {expected:?}"),
    }
}

fn check_all(values: &[f64], expected: &[f64]) {
    assert_eq!(values.len(), expected.len());
    for (value, expected) in values.iter().zip(expected) {
        check(Ok(*value), Some(*expected), "a point of a curve");
    }
}

fn positive(labels: &[u8]) -> Vec<bool> {
    labels.iter().map(|label| *label == 1).collect()
}

#[derive(Deserialize)]
struct Ranked {
    labels: Vec<u8>,
    scores: Vec<f64>,
    roc_auc: Option<f64>,
    average_precision: Option<f64>,
    roc_curve: Option<GoldenRoc>,
    precision_recall_curve: Option<GoldenPrecisionRecall>,
}

#[derive(Deserialize)]
struct GoldenRoc {
    fpr: Vec<f64>,
    tpr: Vec<f64>,
    thresholds: Vec<f64>,
}

#[derive(Deserialize)]
struct GoldenPrecisionRecall {
    precision: Vec<f64>,
    recall: Vec<f64>,
    thresholds: Vec<f64>,
}

#[test]
fn scores_of_two_classes_agree_with_scikit_learn() {
    let cases = golden::<Ranked>("ranked");
    assert!(cases.iter().any(|case| case.roc_auc.is_none()));
    for case in cases {
        let labels = positive(&case.labels);
        check(roc_auc_score(&labels, &case.scores), case.roc_auc, "AUC");
        let precision = average_precision_score(&labels, &case.scores);
        check(precision, case.average_precision, "average precision");
        if let Some(expected) = case.roc_curve {
            let curve = roc_curve(&labels, &case.scores).unwrap();
            check_all(&curve.fpr, &expected.fpr);
            check_all(&curve.tpr, &expected.tpr);
            assert_eq!(curve.thresholds[0], f64::INFINITY);
            check_all(&curve.thresholds[1..], &expected.thresholds);
        }
        if let Some(expected) = case.precision_recall_curve {
            let curve = precision_recall_curve(&labels, &case.scores).unwrap();
            check_all(&curve.precision, &expected.precision);
            check_all(&curve.recall, &expected.recall);
            check_all(&curve.thresholds, &expected.thresholds);
        }
    }
}

#[derive(Deserialize)]
struct Classes {
    truth: Vec<usize>,
    predictions: Vec<usize>,
    classes: usize,
    accuracy: Option<f64>,
    balanced_accuracy: Option<f64>,
    kappa_unweighted: Option<f64>,
    kappa_linear: Option<f64>,
    kappa_quadratic: Option<f64>,
    confusion_matrix: Vec<Vec<usize>>,
}

#[test]
fn classes_agree_with_scikit_learn() {
    for case in golden::<Classes>("classes") {
        let (truth, predictions, classes) = (&case.truth, &case.predictions, case.classes);
        check(
            accuracy_score(truth, predictions),
            case.accuracy,
            "accuracy",
        );
        check(
            balanced_accuracy_score(truth, predictions, classes),
            case.balanced_accuracy,
            "balanced accuracy",
        );
        for (weights, expected) in [
            (KappaWeights::Unweighted, case.kappa_unweighted),
            (KappaWeights::Linear, case.kappa_linear),
            (KappaWeights::Quadratic, case.kappa_quadratic),
        ] {
            let kappa = cohen_kappa_score(truth, predictions, classes, weights);
            check(kappa, expected, "kappa");
        }
        let matrix = confusion_matrix(truth, predictions, classes).unwrap();
        assert_eq!(matrix, case.confusion_matrix);
    }
}

#[derive(Deserialize)]
struct Numbers {
    truth: Vec<f64>,
    predictions: Vec<f64>,
    spearman: Option<f64>,
    pearson: Option<f64>,
    mean_squared_error: Option<f64>,
    mean_absolute_error: Option<f64>,
}

#[test]
fn numbers_agree_with_scipy() {
    for case in golden::<Numbers>("numbers") {
        let (truth, predictions) = (&case.truth, &case.predictions);
        check(spearmanr(truth, predictions), case.spearman, "Spearman");
        check(pearsonr(truth, predictions), case.pearson, "Pearson");
        let squared = mean_squared_error(truth, predictions);
        check(squared, case.mean_squared_error, "MSE");
        let absolute = mean_absolute_error(truth, predictions);
        check(absolute, case.mean_absolute_error, "MAE");
    }
}

#[derive(Deserialize)]
struct Calibrated {
    labels: Vec<u8>,
    probabilities: Vec<f64>,
    bins: usize,
    prob_true: Vec<f64>,
    prob_pred: Vec<f64>,
    examples: Vec<usize>,
    error: f64,
}

#[test]
fn calibration_agrees_with_scikit_learn() {
    for case in golden::<Calibrated>("calibrated") {
        let labels = positive(&case.labels);
        let curve = calibration_curve(&labels, &case.probabilities, case.bins).unwrap();
        let values = |of: fn(&CalibrationBin) -> f64| curve.iter().map(of).collect::<Vec<_>>();
        check_all(&values(|bin| bin.prob_true), &case.prob_true);
        check_all(&values(|bin| bin.prob_pred), &case.prob_pred);
        let examples: Vec<usize> = curve.iter().map(|bin| bin.examples).collect();
        assert_eq!(examples, case.examples);
        let error = expected_calibration_error(&labels, &case.probabilities, case.bins);
        check(error, Some(case.error), "calibration error");
    }
}

#[test]
fn ties_count_half() {
    let auc = |labels: &[bool], scores: &[f64]| roc_auc_score(labels, scores).unwrap();
    assert_eq!(auc(&[true, false], &[0.5, 0.5]), 0.5);
    assert_eq!(auc(&[true, false, true], &[0.5, 0.5, 0.9]), 0.75);
    assert_eq!(auc(&[true, false, true], &[-3.0, 2.0, -9.0]), 0.0);
    assert_eq!(auc(&[true, false], &[0.0, -0.0]), 0.5);
    assert_eq!(auc(&[true, false], &[f64::INFINITY, 1e308]), 1.0);
}

#[test]
fn what_has_no_meaning_is_refused_by_name() {
    let found = |result: Result<f64>, parts: [&str; 2]| {
        let message = result.unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    found(
        roc_auc_score(&[true, true], &[0.1, 0.2]),
        ["roc_auc", "2 positive and 0 negative"],
    );
    found(
        roc_auc_score(&[true, false], &[0.1, f64::NAN]),
        ["roc_auc", "NaN at place 1"],
    );
    found(
        roc_auc_score(&[true], &[0.1, 0.2]),
        ["2 predictions", "1 labels"],
    );
    found(
        average_precision_score(&[false], &[0.1]),
        ["average_precision", "0 positive"],
    );
    found(
        spearmanr(&[1.0, 1.0], &[1.0, 2.0]),
        ["spearman", "without spread"],
    );
    found(pearsonr(&[], &[]), ["pearson", "0 values"]);
    found(
        pearsonr(&[1.0, f64::INFINITY], &[0.0, 1.0]),
        ["label inf", "place 1"],
    );
    found(mean_squared_error(&[], &[]), ["mean_squared_error", "none"]);
    found(
        mean_absolute_error(&[1.0], &[f64::NAN]),
        ["prediction NaN", "place 0"],
    );
    found(accuracy_score::<u8>(&[], &[]), ["accuracy", "none"]);
    found(
        balanced_accuracy_score(&[3], &[0], 3),
        ["balanced_accuracy", "classes 3 and 0 of 3"],
    );
    found(
        cohen_kappa_score(&[1, 1], &[1, 1], 3, KappaWeights::Quadratic),
        ["cohen_kappa", "all of class 1"],
    );
    found(
        expected_calibration_error(&[true], &[1.5], 10),
        ["1.5", "place 0"],
    );
    found(
        expected_calibration_error(&[true], &[0.5], 0),
        ["one bin", "found 0"],
    );
}

#[test]
fn confusion_and_accuracy_by_hand() {
    let (truth, predictions) = ([0, 1, 2, 1, 0], [0, 2, 2, 1, 1]);
    assert_eq!(
        confusion_matrix(&truth, &predictions, 3).unwrap(),
        [[1, 1, 0], [0, 1, 1], [0, 0, 1]]
    );
    assert!((accuracy_score(&truth, &predictions).unwrap() - 0.6).abs() < 1e-15);
    assert_eq!(
        confusion_matrix(&truth, &predictions, 2)
            .unwrap_err()
            .to_string(),
        "confusion_matrix: expected classes below the number of classes, found classes 1 and 2 of 2"
    );
}

/// Neither sums nor squares of large numbers overflow, nor do small ones vanish.
#[test]
fn correlations_do_not_depend_on_the_scale() {
    let truth = [1.0, 2.0, 4.0, 3.0];
    let predictions = [2.0, 1.0, 5.0, 3.0];
    let expected = pearsonr(&truth, &predictions).unwrap();
    for scale in [1e-300, 1e300] {
        let scaled: Vec<f64> = truth.iter().map(|value| value * scale).collect();
        check(pearsonr(&scaled, &predictions), Some(expected), "Pearson");
    }
}

/// Few distinct scores, so that most are tied.
fn ranked_cases() -> impl Strategy<Value = (Vec<bool>, Vec<f64>)> {
    prop::collection::vec((any::<bool>(), -3..3_i8), 1..30)
        .prop_map(|cases| cases.into_iter().map(|(a, b)| (a, f64::from(b))).unzip())
}

proptest! {
    /// The share of pairs that are in order, ties by half, counted one by one.
    #[test]
    fn area_is_the_share_of_pairs_in_order((labels, scores) in ranked_cases()) {
        let (mut sum, mut pairs) = (0.0, 0.0);
        for (i, _) in labels.iter().enumerate().filter(|(_, label)| **label) {
            for (j, _) in labels.iter().enumerate().filter(|(_, label)| !**label) {
                pairs += 1.0;
                sum += match scores[i].total_cmp(&scores[j]) {
                    std::cmp::Ordering::Greater => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Less => 0.0,
                };
            }
        }
        match roc_auc_score(&labels, &scores) {
            Ok(area) => prop_assert!((area - sum / pairs).abs() < TOLERANCE),
            Err(TrainError::Metric { metric: "roc_auc", .. }) => prop_assert!(pairs == 0.0),
            Err(error) => panic!("{error}"),
        }
    }

    /// The curve's trapezoids are the area, and its precision-recall twin's steps the average precision.
    #[test]
    fn curves_have_the_metrics_as_areas((labels, scores) in ranked_cases()) {
        if let Ok(area) = roc_auc_score(&labels, &scores) {
            let curve = roc_curve(&labels, &scores).unwrap();
            let trapezoids: f64 = (1..curve.fpr.len())
                .map(|i| (curve.fpr[i] - curve.fpr[i - 1]) * (curve.tpr[i] + curve.tpr[i - 1]) / 2.0)
                .sum();
            prop_assert!((trapezoids - area).abs() < TOLERANCE);
            let curve = precision_recall_curve(&labels, &scores).unwrap();
            let steps: f64 = (1..curve.recall.len())
                .map(|i| (curve.recall[i - 1] - curve.recall[i]) * curve.precision[i - 1])
                .sum();
            prop_assert!((steps - average_precision_score(&labels, &scores).unwrap()).abs() < TOLERANCE);
        }
    }
}
