"""Writes optimizers.json: ten steps of torch.optim's AdamW with one cycle and SGD with momentum, with gradients clipped.

usage: optimizers.py      (torch; the version used is in the file)
The gradient of entry i at step k is cos(1.3 i + 0.7 k) (1 + i), in double precision.
"""
import json, pathlib
import torch

def run(make, schedule):
    parameters = [torch.nn.Parameter(torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)), torch.nn.Parameter(torch.full((4,), .5, dtype=torch.float64))]
    optimizer = make(parameters)
    scheduler = schedule(optimizer)
    steps = []
    for k in range(10):
        offset = 0
        for p in parameters:
            i = torch.arange(offset, offset + p.numel(), dtype=torch.float64)
            p.grad = (torch.cos(1.3*i + .7*k)*(1 + i)).reshape(p.shape)
            offset += p.numel()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 2.)
        rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()
        steps.append({"rate": rate, "norm": norm.item(), "values": torch.cat([p.detach().flatten() for p in parameters]).tolist()})
    return steps

one_cycle = lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 2e-3, 11, cycle_momentum=False)
constant = lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.)
out = {"torch": torch.__version__,
       "adamw": run(lambda p: torch.optim.AdamW(p, 2e-3, weight_decay=1e-2), one_cycle),
       "sgd": run(lambda p: torch.optim.SGD(p, 1e-2, momentum=.9, weight_decay=1e-3), constant)}
pathlib.Path(__file__).with_name("optimizers.json").write_text(json.dumps(out) + "\n")
