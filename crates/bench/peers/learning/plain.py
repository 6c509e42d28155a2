"""Trains a plain net of four convolutions with batch norm in PyTorch on a file of pictures.py, and prints one line of JSON: the
metric on the test pictures (area under the curve, or Spearman's correlation with --regression) and the seconds that it took.

usage: plain.py PICTURES.safetensors --seed N [--epochs 12] [--regression]
Optimiser, schedule, batch, clipping and flips are the defaults of stream-grad's training; pictures and targets are
standardised by the training split.
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
layers = []
for a, b in [(3, 16), (16, 32), (32, 64), (64, 64)]:
    layers += [nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()]
net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1))
batch = 8
steps = -(-len(train)//batch)*arguments.epochs
optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-2)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, cycle_momentum=False)
loss = nn.MSELoss() if arguments.regression else nn.BCEWithLogitsLoss()
for _ in range(arguments.epochs):
    net.train()
    for chosen in torch.from_numpy(train)[torch.randperm(len(train))].split(batch):
        x = images[chosen]
        for axis in (2, 3):
            x = torch.where(torch.rand(len(x), 1, 1, 1) < .5, x.flip(axis), x)
        optimizer.zero_grad()
        loss(net(x)[:, 0], labels[chosen]).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.)
        optimizer.step()
        schedule.step()
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
