#!/usr/bin/env bash
# A guess: `OneCycleLR` makes a schedule of any number of steps and any `pct_start` from 0 to 1.
# So it is: where pct_start * total_steps is 1, as for 10 steps with 0.1, its constructor raises ZeroDivisionError. A little
# more or less than 1, and 0, are fine.
# Seen with: torch 2.15.0 (some gigabytes to download on Linux).
# Met in: crates/train/src/schedule.rs, whose `Schedule::OneCycle` begins at the peak there; its golden values, made by
# crates/train/tests/golden/optimizers.py, leave these cases out.
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
import sys

import torch
from torch.optim.lr_scheduler import OneCycleLR

print(f"torch {torch.__version__}")
# Steps, pct_start, whether the constructor raises.
cases = [
    (10, 0.1, True),
    (2, 0.5, True),
    (4, 0.25, True),
    (9, 0.1, False),
    (11, 0.1, False),
    (10, 0.2, False),
    (10, 0.0, False),
]
changed = False
for strategy in ("cos", "linear"):
    for steps, pct_start, expected in cases:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        try:
            scheduler = OneCycleLR(optimizer, 1.0, total_steps=steps, pct_start=pct_start, anneal_strategy=strategy)
            rates = scheduler.get_last_lr()
            for _ in range(steps - 1):
                optimizer.step()
                scheduler.step()
                rates += scheduler.get_last_lr()
            raised, said = False, "rates " + " ".join(f"{rate:.3f}" for rate in rates)
        except ZeroDivisionError as error:
            raised, said = True, f"ZeroDivisionError: {error}"
        changed |= raised != expected
        print(f"{strategy}, {steps} steps, pct_start {pct_start}: {said}")
if changed:
    sys.exit("the behaviour has changed")
print("as described")
PYTHON
