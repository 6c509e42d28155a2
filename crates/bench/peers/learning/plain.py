"""Trains a plain net of four convolutions with batch norm in PyTorch on a file of pictures.py, and prints one line of JSON: the
metric on the test pictures (area under the curve, or Spearman's correlation with --regression) and the seconds that it took.

usage: plain.py PICTURES.safetensors --seed N [--epochs 12] [--regression] [--norm batch] [--optimizer adamw]
Schedule, batch, clipping and flips are the defaults of stream-grad's training, and so is --optimizer muon, with AdamW for what is
no convolution's weight; pictures and targets are standardised by the training split.
"""
import argparse, json, time
import numpy as np
import torch
from safetensors.numpy import load_file
from torch import nn

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("pictures")
parser.add_argument("--seed", type=int, required=True)
parser.add_argument("--epochs", type=int, default=12)
parser.add_argument("--regression", action="store_true")
parser.add_argument("--norm", choices=["batch", "none"], default="batch")
parser.add_argument("--optimizer", choices=["adamw", "muon"], default="adamw")
arguments = parser.parse_args()

torch.set_num_threads(1)  # batches this small gain nothing by more
data = load_file(arguments.pictures)
train, test = (np.flatnonzero(data["test"] == part) for part in (0, 1))
images = torch.from_numpy(data["images"]).float().permute(0, 3, 1, 2).contiguous()
images = (images - images[train].mean((0, 2, 3), keepdim=True))/images[train].std((0, 2, 3), correction=0, keepdim=True)
labels = torch.from_numpy(data["labels"]).float()
if arguments.regression:
    labels = (labels - labels[train].mean())/labels[train].std(correction=0)

start = time.monotonic()
torch.manual_seed(arguments.seed)
class Conv2d(nn.Conv2d):
    """A convolution whose weights are a matrix, which is all that torch.optim.Muon takes."""
    def __init__(self, *settings):
        super().__init__(*settings)
        self.of = self.weight.shape[1:]
        self.weight = nn.Parameter(self.weight.detach().flatten(1))

    def forward(self, x):
        return self._conv_forward(x, self.weight.unflatten(1, self.of), self.bias)

layers = []
for a, b in [(3, 16), (16, 32), (32, 64), (64, 64)]:
    layers += [Conv2d(a, b, 3, 2, 1), *[nn.BatchNorm2d(b)]*(arguments.norm == "batch"), nn.ReLU()]
net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1))
batch = 8
steps = -(-len(train)//batch)*arguments.epochs
if arguments.optimizer == "adamw":
    rate = 2e-3
    optimizers = [torch.optim.AdamW(net.parameters(), rate, weight_decay=1e-2)]
else:
    rate = 6e-3
    matrices = [layer.weight for layer in net if isinstance(layer, Conv2d)]
    others = [p for p in net.parameters() if all(p is not matrix for matrix in matrices)]
    decay = [{"params": [p for p in others if p.ndim > 1]}, {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.}]
    optimizers = [torch.optim.Muon(matrices, rate, weight_decay=.1, adjust_lr_fn="match_rms_adamw"),
                  torch.optim.AdamW(decay, rate, weight_decay=.1)]
schedules = [torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, cycle_momentum=False) for optimizer in optimizers]
loss = nn.MSELoss() if arguments.regression else nn.BCEWithLogitsLoss()
for _ in range(arguments.epochs):
    net.train()
    for chosen in torch.from_numpy(train)[torch.randperm(len(train))].split(batch):
        x = images[chosen]
        for axis in (2, 3):
            x = torch.where(torch.rand(len(x), 1, 1, 1) < .5, x.flip(axis), x)
        net.zero_grad()
        loss(net(x)[:, 0], labels[chosen]).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.)
        for stepped in [*optimizers, *schedules]:
            stepped.step()
net.eval()
with torch.no_grad():
    scores = torch.cat([net(part)[:, 0] for part in images[test].split(64)]).double().numpy()
truth = labels[test].double().numpy()

def ranks(values):
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1)/2)[place]

if arguments.regression:
    metric = np.corrcoef(ranks(scores), ranks(truth))[0, 1]
else:
    positive = truth > .5
    metric = (ranks(scores)[positive].mean() - (positive.sum() + 1)/2)/(~positive).sum()
print(json.dumps({"metric": float(metric), "seconds": time.monotonic() - start}))
