"""PyTorch: `way` is `plain`, `channels_last`, or `checkpoint` (one stage after the other recomputed)."""

import torch
from torch.utils.checkpoint import checkpoint

import measure

job = measure.read_job()
stages, names = measure.read_network(job)
layout = torch.channels_last if job["way"] == "channels_last" else torch.contiguous_format
stages.to(memory_format=layout)


def forward(x):
    for stage in stages:
        x = checkpoint(stage, x, use_reentrant=False) if job["way"] == "checkpoint" else stage(x)
    return x


def backward(_image, features, cotangent):
    features.backward(cotangent)


measure.run(job, names, forward, backward, layout)
