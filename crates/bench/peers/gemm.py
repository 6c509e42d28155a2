"""The best rate of PyTorch's product of two square f32 matrices, in FLOPs per second: the yardstick for arithmetic."""

import time

import torch

import measure

EDGES = (1024, 2048, 3072)
SECONDS = 2.0

job = measure.read_job()
best = 0.0
for edge in EDGES:
    a, b = torch.rand(edge, edge), torch.rand(edge, edge)
    out = a @ b
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        best = max(best, 2 * edge**3 / (time.perf_counter() - start))
measure.write_result({"flops_per_second": best})
