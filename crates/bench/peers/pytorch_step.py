"""PyTorch: `way` is `plain`, `channels_last`, or `checkpoint` (one stage after the other recomputed). A `dtype` of `bf16` is its
autocast: parameters and their gradients stay f32."""

import torch
from torch.utils.checkpoint import checkpoint

import measure

job = measure.read_job()
stages, names = measure.read_network(job)
layout = torch.channels_last if job["way"] == "channels_last" else torch.contiguous_format
stages.to(memory_format=layout)


def forward(x):
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=job["dtype"] == "bf16"):
        for stage in stages:
            x = checkpoint(stage, x, use_reentrant=False) if job["way"] == "checkpoint" else stage(x)
    return x


def backward(_image, features, cotangent):
    features.backward(cotangent.to(features.dtype))


measure.run(job, names, forward, backward, layout)
