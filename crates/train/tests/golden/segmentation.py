"""Writes segmentation.json: losses and gradients of PyTorch and segmentation_models_pytorch in double precision, and scores of
scikit-learn.

usage: segmentation.py      (torch, segmentation-models-pytorch, scikit-learn; the versions used are in the file)
Logits and labels are listed pixel by pixel. A loss of no labelled pixel is left out: PyTorch's cross-entropy is NaN there.
"""
import json, pathlib
import numpy, segmentation_models_pytorch, sklearn, torch
import torch.nn.functional as F
from segmentation_models_pytorch.losses import DiceLoss
from sklearn.metrics import f1_score, jaccard_score

random = numpy.random.default_rng(0)

def loss_case(classes, labels, logits, cross_entropy=1., dice=1., smooth=0., weights=None, ignore_index=255):
    z = torch.tensor(logits, dtype=torch.float64).reshape(1, 1, len(labels), classes).permute(0, 3, 1, 2).contiguous().requires_grad_()
    y = torch.tensor(labels).reshape(1, 1, -1)
    w = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    value = cross_entropy * F.cross_entropy(z, y, weight=w, ignore_index=ignore_index)
    value = value + dice * DiceLoss("multiclass", smooth=smooth, ignore_index=ignore_index)(z, y)
    value.backward()
    return {"classes": classes, "ignore_index": ignore_index, "class_weights": weights, "cross_entropy": cross_entropy,
            "dice": dice, "smooth": smooth, "labels": labels, "logits": numpy.ravel(logits).tolist(), "loss": value.item(),
            "gradient": z.grad.permute(0, 2, 3, 1).reshape(-1).tolist()}

losses = []
for classes in (2, 3, 5):
    for scale in (1., 50.):
        labels = random.integers(0, classes, 12).tolist()
        logits = (scale * random.standard_normal((12, classes))).tolist()
        some = [255 if place % 4 == 0 else label for place, label in enumerate(labels)]
        one = [0 if label != 255 else 255 for label in some]
        losses.append(loss_case(classes, labels, logits))
        losses.append(loss_case(classes, some, logits, cross_entropy=0.))
        losses.append(loss_case(classes, some, logits, dice=0., weights=(random.random(classes) + .1).tolist()))
        losses.append(loss_case(classes, one, logits, .25, 2., smooth=1.))
        losses.append(loss_case(classes, [1 if label == 0 else 0 for label in labels], logits, ignore_index=0))

scores = []
for classes, share in ((2, .5), (3, .2), (4, .7), (5, .3), (6, .9)):
    slides = []
    for pixels in (7, 30, 12):
        # The last class is in no truth, and in the last cases predicted.
        truth = random.integers(0, classes - 1, pixels)
        guess = random.integers(0, classes - (classes < 4), pixels)
        slides.append([truth.tolist(), numpy.where(random.random(pixels) < share, truth, guess).tolist()])
    truth, predicted = (numpy.concatenate([slide[place] for slide in slides]) for place in (0, 1))
    of = dict(labels=range(classes), average=None, zero_division=0.)
    absent = [not ((truth == one).any() or (predicted == one).any()) for one in range(classes)]
    f1, jaccard = (numpy.where(absent, numpy.nan, score(truth, predicted, **of)) for score in (f1_score, jaccard_score))
    plain = lambda values: [None if numpy.isnan(value) else value for value in values]
    scores.append({"classes": classes, "slides": slides, "f1": plain(f1), "jaccard": plain(jaccard),
                   "f1_macro": numpy.nanmean(f1), "jaccard_macro": numpy.nanmean(jaccard)})

out = {"torch": torch.__version__, "segmentation-models-pytorch": segmentation_models_pytorch.__version__,
       "scikit-learn": sklearn.__version__, "losses": losses, "scores": scores}
pathlib.Path(__file__).with_name("segmentation.json").write_text(json.dumps(out) + "\n")
