#!/usr/bin/env bash
# A guess: the gradient of a function of single values depends on the value alone, and so does that at NaN: of `relu`, and of `relu6`
# and `hardtanh` in the same way.
# So it is: `relu` passes the cotangent of a NaN on. `relu6`, `hardtanh` and `softshrink` give 0 where the value is one of a whole
# register, and the cotangent where it is one of those left over at the end; `elu` and `hardswish` give NaN and the cotangent.
# So one NaN alone has another gradient than the first of many.
# Seen with: torch 2.15.0, on the CPU (some gigabytes to download on Linux).
# Met in: crates/kernels/src/activation.rs, whose `relu_vjp` passes the cotangent, and whose `relu6_vjp` gives 0 wherever the value
# lies; golden/operators.py has NaN among the inputs of its activations.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# What torch imports, and what its wheels for Linux are linked with; nothing else that it names as a dependency.
cat > "$folder/requirements.txt" <<'REQUIREMENTS'
torch==2.15.0
filelock==4.2.11
fsspec==2026.9.0
jinja2==3.1.6
markupsafe==3.0.4
mpmath==1.4.1
networkx==3.6.1
numpy==2.4.6
setuptools==84.2.1
sympy==1.14.0
typing-extensions==4.16.0
nvidia-cublas==13.4.1.3; platform_system == "Linux"
nvidia-cuda-cupti==13.2.86; platform_system == "Linux"
nvidia-cuda-nvrtc==13.2.86; platform_system == "Linux"
nvidia-cuda-runtime==13.2.86; platform_system == "Linux"
nvidia-cudnn-cu13==9.26.0.51; platform_system == "Linux"
nvidia-cufft==12.2.0.57; platform_system == "Linux"
nvidia-cufile==1.17.1.22; platform_system == "Linux"
nvidia-cusparse==12.7.10.12; platform_system == "Linux"
nvidia-cusparselt-cu13==0.8.1; platform_system == "Linux"
nvidia-nccl-cu13==2.30.7; platform_system == "Linux"
nvidia-nvjitlink==13.2.86; platform_system == "Linux"
nvidia-nvshmem-cu13==3.7.2; platform_system == "Linux"
REQUIREMENTS
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-cache-dir --no-deps -r "$folder/requirements.txt"

"$folder/venv/bin/python" - <<'PYTHON'
import math
import sys

import torch
from torch.nn import functional as F

print(f"torch {torch.__version__}, instructions: {torch.backends.cpu.get_cpu_capability()}")
COTANGENT = 3.0
# The function, and its gradient at a NaN in a whole register and among what is left over.
cases = [
    ("relu", F.relu, COTANGENT, COTANGENT),
    ("clamp to 0 and 6", lambda x: x.clamp(0.0, 6.0), 0.0, 0.0),
    ("relu6", F.relu6, 0.0, COTANGENT),
    ("hardtanh", F.hardtanh, 0.0, COTANGENT),
    ("softshrink", F.softshrink, 0.0, COTANGENT),
    ("elu", F.elu, math.nan, COTANGENT),
    ("hardswish", F.hardswish, math.nan, COTANGENT),
]


def gradient(function, count, dtype):
    x = torch.full((count,), math.nan, dtype=dtype, requires_grad=True)
    y = function(x)
    assert y.isnan().all()
    y.backward(torch.full_like(y, COTANGENT))
    return x.grad


def same(a, b):
    return a == b or (math.isnan(a) and math.isnan(b))


changed = False
for dtype in (torch.float32, torch.float64):
    for name, function, whole, left_over in cases:
        alone = gradient(function, 1, dtype).item()
        # Registers of any width, and some left over.
        many = gradient(function, 67, dtype).tolist()
        last = next(place for place in range(67) if all(same(value, many[-1]) for value in many[place:]))
        changed |= not (same(alone, left_over) and same(many[0], whole) and same(many[-1], left_over))
        said = f"{many[0]} of the first" + (f", {many[-1]} from place {last} on" if last else " and of all")
        print(f"{dtype} {name}: gradient {alone} of one NaN alone; of 67 NaN {said}")
if changed:
    sys.exit("the behaviour has changed")
print("as described")
PYTHON
