"""Writes optimizers.json: steps of torch.optim's AdamW, SGD and Muon, and the rates of its OneCycleLR.

usage: optimizers.py      (torch; the version used is in the file)
The gradient of entry i at step k is cos(1.3 i + 0.7 k) (1 + i), in double precision; the last four entries are those of
the second parameter. Gradients are clipped. Under `late` the second parameter has no gradient before step 3 and in step 5,
as one that is unfrozen, or that a loss does not reach. `unfrozen` is one weight of 1 whose gradient is 1 from step 3 on.
Muon steps the first parameter and AdamW the second. PyTorch orthogonalises in bf16; the steps here are made with its own function in
double precision, and `muon_bf16` are those without that. `orthogonalized` is what that function makes of matrices of
cos(0.9 i i + 0.4) in double precision.
"""
import contextlib, json, pathlib
from unittest import mock
import torch
from torch.optim import _muon

def run(make, schedule, second_has_gradient=lambda k: True):
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
        if not second_has_gradient(k):
            parameters[1].grad = None
        norm = torch.nn.utils.clip_grad_norm_(parameters, 2.)
        rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()
        steps.append({"rate": rate, "norm": norm.item(), "values": torch.cat([p.detach().flatten() for p in parameters]).tolist()})
    return steps

def unfrozen():
    a, b = (torch.nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(2))
    optimizer = torch.optim.AdamW([a, b], .1, weight_decay=0.)
    values = []
    for k in range(6):
        a.grad, b.grad = torch.ones_like(a), torch.ones_like(b) if k >= 3 else None
        optimizer.step()
        values.append(b.item())
    return values

class MuonAndAdamW:
    def __init__(self, p):
        both = {"lr": 6e-3, "weight_decay": .1}
        self.parts = [torch.optim.Muon(p[:1], adjust_lr_fn="match_rms_adamw", **both), torch.optim.AdamW(p[1:], **both)]
        self.param_groups = self.parts[0].param_groups

    def step(self):
        for part in self.parts:
            part.step()

@contextlib.contextmanager
def in_double_precision():
    """Within this the function's `grad.to(dtype=torch.bfloat16, copy=True)` stays in double precision."""
    with mock.patch.object(_muon.torch, "bfloat16", torch.float64):
        yield

def orthogonalized(rows, columns):
    i = torch.arange(rows*columns, dtype=torch.float64)
    matrix = torch.cos(.9*i*i + .4).reshape(rows, columns)
    with in_double_precision():
        made = _muon._zeropower_via_newtonschulz(matrix, (3.4445, -4.7750, 2.0315), 5, 1e-7)
    return {"rows": rows, "columns": columns, "values": made.flatten().tolist()}

def rates(total, pct_start):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 1.)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1., total, pct_start=pct_start, cycle_momentum=False)
    found = [scheduler.get_last_lr()[0]]
    for _ in range(total - 1):
        optimizer.step()
        scheduler.step()
        found.append(scheduler.get_last_lr()[0])
    return {"total": total, "pct_start": pct_start, "rates": found}

one_cycle = lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 2e-3, 11, cycle_momentum=False)
constant = lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.)
both_constant = lambda o: constant(o.parts[0])
adamw = lambda p: torch.optim.AdamW(p, 2e-3, weight_decay=1e-2)
sgd = lambda p: torch.optim.SGD(p, 1e-2, momentum=.9, weight_decay=1e-3)
# As AdamW for a body and a head: the second parameter takes larger steps, and does not decay.
grouped = lambda p: torch.optim.AdamW([{"params": p[:1]}, {"params": p[1:], "lr": 2e-2, "weight_decay": 0.}], 2e-3, weight_decay=1e-2)
plain = lambda p: torch.optim.SGD(p, 1e-2, weight_decay=1e-3)
late = lambda k: k >= 3 and k != 5
# Where the rise would end at step 0 exactly, as in 10 steps with a share of 0.1, PyTorch divides by zero.
cycles = [rates(total, share) for total in (1, 2, 3, 7, 10) for share in (0., .1, .3, .5, 1.) if abs(total*share - 1) > 1e-9]
muon_bf16 = run(MuonAndAdamW, both_constant)
with in_double_precision():
    muon, muon_late = run(MuonAndAdamW, both_constant), run(MuonAndAdamW, both_constant, late)
out = {"torch": torch.__version__,
       "adamw": run(adamw, one_cycle),
       "grouped": run(grouped, constant),
       "sgd": run(sgd, constant),
       "plain_sgd": run(plain, constant),
       "muon": muon,
       "muon_bf16": muon_bf16,
       "orthogonalized": [orthogonalized(*shape) for shape in ((2, 3), (3, 2), (1, 5), (6, 6), (4, 18))],
       "late": {"adamw": run(adamw, constant, late), "sgd": run(sgd, constant, late), "muon": muon_late},
       "unfrozen": unfrozen(),
       "one_cycle": cycles}
pathlib.Path(__file__).with_name("optimizers.json").write_text(json.dumps(out) + "\n")
