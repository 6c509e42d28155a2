"""Writes all golden files. Usage: python make.py [FOLDER], by default `data` beside this script."""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file

import heatmaps
import networks
import operators


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def make(folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # one order of sums
    cases, tensors = operators.make()
    write_json(folder / "operators.json", cases)
    save_file(tensors, folder / "operators.safetensors")
    for name, tensors in networks.small().items():
        save_file({key: value.contiguous() for key, value in tensors.items()}, folder / f"{name}.safetensors")
    write_json(folder / "autocast.json", networks.autocast_errors("numerics", networks.numerics(), 61, 53))
    save_file({key: value.contiguous() for key, value in heatmaps.make().items()}, folder / "heatmaps.safetensors")
    descriptions, tensors = networks.full()
    write_json(folder / "full.json", descriptions)
    save_file(tensors, folder / "full.safetensors")


if __name__ == "__main__":
    make(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "data")
