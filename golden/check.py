"""Makes the golden files afresh and compares them with the committed ones. Exits with 1 at the first difference.

Names, shapes, types, descriptions, and everything that was generated and not computed must be equal; computed values may
differ by another processor's order of sums: 1e-12 of the tensor's largest magnitude in f64, 1.2e-7 in f32.
"""

import json
import pathlib
import sys
import tempfile

import torch
from safetensors.torch import load_file

import make

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1.2e-7}

# Processors with and without instructions for bf16 round sums differently; of errors that only says how large they are.
ERROR_TOLERANCE = 0.05


def is_generated(file, name):
    if file == "operators.safetensors":
        return not name.endswith("/y") and (not name.endswith("_bar") or name.endswith("/y_bar"))
    return name in {"input", "y_bar"} or name.startswith("weight/")


def difference(a, b):
    """Largest difference over largest magnitude; not-a-numbers and infinities must be in the same places."""
    finite = torch.isfinite(a)
    if not torch.equal(finite, torch.isfinite(b)) or not torch.equal(a[~finite].nan_to_num(7.0), b[~finite].nan_to_num(7.0)):
        return float("inf")
    a, b = a[finite].double(), b[finite].double()
    if a.numel() == 0 or torch.equal(a, b):
        return 0.0
    return ((a - b).abs().max() / a.abs().max()).item()


def compare(committed, fresh):
    if committed.name == "autocast.json":
        a, b = (json.loads(file.read_text()) for file in (committed, fresh))
        if a.keys() != b.keys() or any(abs(a[key] - b[key]) > ERROR_TOLERANCE * a[key] for key in a):
            sys.exit(f"{committed.name}: the errors differ")
        return 0.0
    if committed.suffix == ".json":
        if committed.read_text() != fresh.read_text():
            sys.exit(f"{committed.name}: the descriptions differ")
        return 0.0
    a, b = load_file(committed), load_file(fresh)
    if {key: (value.shape, value.dtype) for key, value in a.items()} != {key: (value.shape, value.dtype) for key, value in b.items()}:  # fmt: skip
        sys.exit(f"{committed.name}: names, shapes or types differ")
    worst = 0.0
    for name, value in a.items():
        allowed = 0.0 if is_generated(committed.name, name) else TOLERANCE[value.dtype]
        found = difference(value, b[name])
        if found > allowed:
            sys.exit(f"{committed.name}: {name} differs by {found:.1e} of its largest magnitude, allowed are {allowed:.1e}")
        worst = max(worst, found)
    return worst


def main():
    committed = pathlib.Path(__file__).parent / "data"
    with tempfile.TemporaryDirectory() as folder:
        make.make(folder)
        names = sorted(path.name for path in pathlib.Path(folder).iterdir())
        if names != sorted(path.name for path in committed.iterdir()):
            sys.exit(f"the committed files are {sorted(path.name for path in committed.iterdir())}, made were {names}")
        for name in names:
            worst = compare(committed / name, pathlib.Path(folder) / name)
            print(f"{name}: equal, largest relative difference {worst:.1e}")


if __name__ == "__main__":
    main()
