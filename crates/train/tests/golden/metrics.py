"""Writes metrics.json: metrics of scikit-learn and SciPy, with many ties, absent classes and resamples of one class.

usage: metrics.py      (numpy, scipy, scikit-learn; the versions used are in the file)

A value is null where the library has none: it gives NaN, or raises, or warns and gives a made-up number.
"""
import json, pathlib, warnings
import numpy as np, scipy, sklearn
from scipy.stats import pearsonr, spearmanr
from sklearn import metrics
from sklearn.calibration import calibration_curve

warnings.simplefilter("error")
warnings.filterwarnings("ignore", "A single label was found")  # of confusion matrices; the value is right
rng = np.random.default_rng(0)


def value(function):
    """What `function` gives, or None where the library warns or raises."""
    try:
        result = float(function())
    except (ValueError, Warning):
        return None
    return None if np.isnan(result) else result


def ranked(labels, scores):
    """Metrics and curves of scores of two classes."""
    case = {
        "labels": labels.tolist(), "scores": scores.tolist(),
        "roc_auc": value(lambda: metrics.roc_auc_score(labels, scores)),
        "average_precision": value(lambda: metrics.average_precision_score(labels, scores)),
    }
    if case["roc_auc"] is not None:
        fpr, tpr, thresholds = metrics.roc_curve(labels, scores, drop_intermediate=False)
        precision, recall, pr_thresholds = metrics.precision_recall_curve(labels, scores)
        case["roc_curve"] = {"fpr": fpr.tolist(), "tpr": tpr.tolist(), "thresholds": thresholds[1:].tolist()}
        case["precision_recall_curve"] = {
            "precision": precision.tolist(), "recall": recall.tolist(), "thresholds": pr_thresholds.tolist()}
    return case


def classes(truth, predictions, count):
    names = list(range(count))
    kappa = lambda weights: value(
        lambda: metrics.cohen_kappa_score(truth, predictions, labels=names, weights=weights))
    present = np.isin(predictions, truth).all()
    return {
        "truth": truth.tolist(), "predictions": predictions.tolist(), "classes": count,
        "accuracy": value(lambda: metrics.accuracy_score(truth, predictions)),
        # scikit-learn warns of classes that are predicted and absent from the truth, and leaves them out: so do we.
        "balanced_accuracy": value(lambda: metrics.balanced_accuracy_score(truth, predictions)) if present
        else float(np.mean([(predictions[truth == name] == name).mean() for name in np.unique(truth)])),
        "kappa_unweighted": kappa(None), "kappa_linear": kappa("linear"), "kappa_quadratic": kappa("quadratic"),
        "confusion_matrix": metrics.confusion_matrix(truth, predictions, labels=names).tolist(),
    }


def numbers(truth, predictions):
    return {
        "truth": truth.tolist(), "predictions": predictions.tolist(),
        "spearman": value(lambda: spearmanr(truth, predictions)[0]),
        "pearson": value(lambda: pearsonr(truth, predictions)[0]),
        "mean_squared_error": value(lambda: metrics.mean_squared_error(truth, predictions)),
        "mean_absolute_error": value(lambda: metrics.mean_absolute_error(truth, predictions)),
    }


def calibrated(labels, probabilities, bins):
    prob_true, prob_pred = calibration_curve(labels, probabilities, n_bins=bins)
    # The bins of scikit-learn, counted: it does not tell how many examples each of them holds.
    places = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probabilities)
    examples = np.bincount(places, minlength=bins)
    examples = examples[examples > 0]
    return {
        "labels": labels.tolist(), "probabilities": probabilities.tolist(), "bins": bins,
        "prob_true": prob_true.tolist(), "prob_pred": prob_pred.tolist(), "examples": examples.tolist(),
        "error": float(np.sum(examples * np.abs(prob_true - prob_pred)) / len(labels)),
    }


out = {"numpy": np.__version__, "scipy": scipy.__version__, "scikit-learn": sklearn.__version__,
       "ranked": [], "classes": [], "numbers": [], "calibrated": [], "macro": [], "labels": []}

for size, distinct in ((10, 3), (40, 8), (60, 1000)):
    labels = rng.permutation(np.arange(size) % 2)
    scores = (rng.integers(0, distinct, size) + 0.2 * distinct * labels).round(1)
    out["ranked"].append(ranked(labels, scores))
rare = (np.arange(30) % 10 == 0).astype(int)
out["ranked"].append(ranked(rare, rng.normal(size=30).round(1) + rare))
out["ranked"].append(ranked(rare, np.zeros(30)))
# Resamples of four examples with one positive: some have one class.
few, scores = np.array([0, 0, 1, 0]), np.array([-1.5, 0.25, 0.25, 3.0])
for _ in range(12):
    places = rng.integers(0, 4, 4)
    out["ranked"].append(ranked(few[places], scores[places]))
out["ranked"].append(ranked(np.ones(3, int), np.array([0.1, 0.2, 0.3])))
out["ranked"].append(ranked(np.zeros(3, int), np.array([0.1, 0.2, 0.3])))

for size, count in ((12, 3), (60, 4), (200, 6)):
    truth = rng.integers(0, count, size)
    predictions = np.where(rng.random(size) < 0.6, truth, rng.integers(0, count, size))
    out["classes"].append(classes(truth, predictions, count))
out["classes"].append(classes(np.array([0, 1, 3, 3, 0, 1]), np.array([0, 3, 3, 1, 1, 1]), 5))  # 2 and 4 are absent
out["classes"].append(classes(np.array([0, 0, 1, 1]), np.array([0, 2, 1, 2]), 3))  # 2 is predicted alone
out["classes"].append(classes(np.array([1, 1, 1]), np.array([1, 1, 1]), 3))
out["classes"].append(classes(np.array([1, 1, 1]), np.array([0, 1, 2]), 3))
out["classes"].append(classes(np.array([0, 1, 2]), np.array([1, 1, 1]), 3))

for size, distinct in ((10, 3), (40, 8), (60, 1000)):
    out["numbers"].append(numbers(rng.integers(0, distinct, size).astype(float), rng.integers(0, distinct, size).astype(float)))
truth = rng.normal(5000, 900, 50)
out["numbers"].append(numbers(truth, truth + rng.normal(0, 500, 50)))
out["numbers"].append(numbers(truth * 1e-3, 7 - truth))
out["numbers"].append(numbers(np.full(5, 0.1), np.arange(5.0)))
out["numbers"].append(numbers(np.arange(5.0), np.full(5, 0.1)))

for size, bins in ((10, 5), (100, 10), (100, 15)):
    probabilities = rng.random(size).round(1)  # many on the borders of bins
    out["calibrated"].append(calibrated((rng.random(size) < probabilities).astype(int), probabilities, bins))
probabilities = rng.random(100) ** 3
out["calibrated"].append(calibrated((rng.random(100) < probabilities).astype(int), probabilities, 15))

for size, count in ((30, 3), (80, 5)):
    truth = rng.permutation(np.arange(size) % count)
    logits = rng.normal(size=(size, count)).round(1) + np.eye(count)[truth]
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    scores[::4] = 1 / count  # ties
    out["macro"].append({
        "truth": truth.tolist(), "scores": scores.tolist(),
        "roc_auc": value(lambda: metrics.roc_auc_score(truth, scores, multi_class="ovr", average="macro")),
        "average_precision": value(lambda: metrics.average_precision_score(truth, scores, average="macro")),
    })
    sets = (rng.random((size, count)) < 0.4).astype(int)
    scores = (sets + rng.normal(size=(size, count))).round(1)
    out["labels"].append({
        "truth": sets.tolist(), "scores": scores.tolist(),
        "per_label": metrics.roc_auc_score(sets, scores, average=None).tolist(),
        "roc_auc": value(lambda: metrics.roc_auc_score(sets, scores, average="macro")),
        "average_precision": value(lambda: metrics.average_precision_score(sets, scores, average="macro")),
        "accuracy": value(lambda: metrics.accuracy_score(sets, scores > 0)),
    })

pathlib.Path(__file__).with_name("metrics.json").write_text(json.dumps(out) + "\n")
