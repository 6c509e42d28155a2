"""Writes metrics.json: areas under the curve by scikit-learn and rank correlations by SciPy, with many ties.

usage: metrics.py      (numpy, scipy, scikit-learn; the versions used are in the file)
"""
import json, pathlib
import numpy, scipy, sklearn
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

rng = numpy.random.default_rng(0)
out = {"numpy": numpy.__version__, "scipy": scipy.__version__, "scikit-learn": sklearn.__version__, "area_under_curve": [], "spearman": []}
for size, distinct in ((10, 3), (40, 8), (60, 1000)):
    labels = rng.permutation(numpy.arange(size) % 2)
    scores = (rng.integers(0, distinct, size) + 0.2 * distinct * labels).round(1)
    out["area_under_curve"].append({"labels": labels.tolist(), "scores": scores.tolist(), "value": roc_auc_score(labels, scores)})
    truth, predictions = rng.integers(0, distinct, size).astype(float), rng.integers(0, distinct, size).astype(float)
    out["spearman"].append({"truth": truth.tolist(), "predictions": predictions.tolist(), "value": float(spearmanr(truth, predictions)[0])})
pathlib.Path(__file__).with_name("metrics.json").write_text(json.dumps(out) + "\n")
