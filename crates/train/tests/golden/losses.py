"""Writes losses.json: values and gradients of PyTorch's losses, in double precision.

usage: losses.py      (torch, scikit-learn; the versions used are in the file)
Levels: the loss of CORN as its authors wrote it in PyTorch is a sum over conditions, each on the slides that meet it, divided by
the number of (slide, condition) pairs; here it is not divided, for one slide.
"""
import json, pathlib
import numpy, sklearn, torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

def case(task, outputs, label, loss, weights=None, train=None):
    z = torch.tensor([outputs], dtype=torch.float64, requires_grad=True)
    value = loss(z)
    value.backward()
    return {"task": task, "outputs": outputs, "label": label, "weights": weights, "train": train,
            "loss": value.item(), "gradient": z.grad[0].tolist()}

def row(values):
    return torch.tensor([values], dtype=torch.float64)

def corn(z, level):
    met = min(level + 1, z.shape[1])
    return F.binary_cross_entropy_with_logits(z[:, :met], row([float(k < level) for k in range(met)]), reduction="sum")

cases = []
for z in (-700., -3., -.5, 0., .25, 40.):
    for y in (0, 1):
        cases.append(case({"kind": "binary"}, [z], y, lambda t: F.binary_cross_entropy_with_logits(t, row([float(y)]))))
        cases.append(case({"kind": "binary"}, [z], y, lambda t: [.5, 3.][y]*F.binary_cross_entropy_with_logits(t, row([float(y)])), [.5, 3.]))
    cases.append(case({"kind": "regression"}, [z], 1.5, lambda t: F.mse_loss(t, row([1.5]))))
for z in ([.1, -2., 3.], [0., 0., 0.], [500., -500., 499.]):
    for y in range(3):
        kind = {"kind": "classification", "classes": 3}
        cases.append(case(kind, z, y, lambda t: F.cross_entropy(t, torch.tensor([y]))))
        cases.append(case(kind, z, y, lambda t: F.cross_entropy(t, torch.tensor([y]), torch.tensor([1., .25, 4.]).double(), reduction="sum"), [1., .25, 4.]))
        train = [0, 0, 0, 1, 1, 2]
        balanced = torch.tensor(compute_class_weight("balanced", classes=numpy.arange(3), y=numpy.array(train)))
        cases.append(case(kind, z, y, lambda t: F.cross_entropy(t, torch.tensor([y]), balanced, reduction="sum"), "balanced", train))
    for y in ([True, False, True], [False]*3):
        kind = {"kind": "multi_label", "labels": 3}
        truth = row([float(b) for b in y])
        cases.append(case(kind, z, y, lambda t: F.binary_cross_entropy_with_logits(t, truth)))
        cases.append(case(kind, z, y, lambda t: F.binary_cross_entropy_with_logits(t, truth, pos_weight=torch.tensor([1., .25, 4.]).double()), [1., .25, 4.]))
    for y in range(4):
        cases.append(case({"kind": "ordinal", "levels": 4}, z, y, lambda t: corn(t, y)))
out = {"torch": torch.__version__, "scikit-learn": sklearn.__version__, "cases": cases}
pathlib.Path(__file__).with_name("losses.json").write_text(json.dumps(out) + "\n")
