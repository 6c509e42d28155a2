"""Writes this folder's files: one small network's weights, as people save them with PyTorch.

Usage: python make.py, with the versions of golden/requirements.txt.

plain.safetensors is what all that can be loaded must give. Its values are multiples of 1/8 below 16, so that float16,
bfloat16, float32 and float64 hold the same. What is refused has a name that begins with `refused_`.
"""

import argparse
import collections
import io
import pathlib
import zipfile

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

HERE = pathlib.Path(__file__).parent


def network():
    """Two convolutions, whose weights `channels_last` lays out in another order."""
    net = nn.Sequential(nn.Conv2d(3, 4, (2, 3)), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, (3, 2)))
    next_value = 1
    with torch.no_grad():
        for parameter in net.parameters():
            values = (torch.arange(next_value, next_value + parameter.numel()) * 37 % 255 - 127) / 8
            parameter.copy_(values.reshape(parameter.shape))
            next_value += parameter.numel()
    return net


def prefixed(prefix, state):
    return collections.OrderedDict((prefix + name, value) for name, value in state.items())


def old(value, path):
    torch.save(value, path, _use_new_zipfile_serialization=False)


def compiled_in_part():
    net = network()
    net[0] = torch.compile(net[0])
    return net


def views():
    """All tensors of one storage, the first one also transposed in memory, behind values that belong to none."""
    state = network().state_dict()
    parts = [value.transpose(0, -1).flatten() if name == "0.weight" else value.flatten() for name, value in state.items()]
    storage = torch.cat([torch.full((7,), 9.0), *parts, torch.full((5,), 9.0)])
    start, result = 7, {}
    for name, value in state.items():
        part = storage[start : start + value.numel()]
        shape = value.transpose(0, -1).shape if name == "0.weight" else value.shape
        result[name] = part.view(shape).transpose(0, -1) if name == "0.weight" else part.view(shape)
        start += value.numel()
    return result


def mixed():
    state = network().state_dict()
    types = [torch.float16, torch.bfloat16, torch.float64, torch.float32]
    result = {name: value.to(dtype) for (name, value), dtype in zip(state.items(), types, strict=True)}
    return result | {"5.num_batches_tracked": torch.tensor(3, dtype=torch.int32), "fc.weight": torch.ones(2, 2)}


def training():
    """A training script's checkpoint: tensors and large integers beside the weights, which are there twice."""
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.0)
    net(torch.ones(1, 3, 9, 9)).sum().backward()
    optimizer.step()
    state = net.state_dict()
    return {
        "best_acc1": torch.tensor(0.75),
        "loss": torch.tensor([0.25]),
        "class_weights": torch.ones(3),
        "rng": torch.get_rng_state()[:16].clone(),
        "epoch": 3,
        "seed": 2**100,
        "negative": -(2**70),
        "nanoseconds": 1_764_000_000_000_000_000,
        "accuracy": np.float64(0.75),
        "arguments": argparse.Namespace(lr=0.1, data=pathlib.PurePosixPath("data")),
        "model_state_dict": state,
        "model": state,
        "optimizer": optimizer.state_dict(),
    }


def lightning():
    state = prefixed("model.backbone.", network().state_dict())
    state["model.head.weight"] = torch.ones(2, 2)
    return {
        "epoch": 1,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": state,
        "callbacks": {"EarlyStopping{'monitor': 'loss'}": {"best_score": torch.tensor(1.0)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}],
        "hyper_parameters": {"lr": 1e-3},
    }


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.weight


def script(path):
    """A TorchScript file without what it has for debugging, which names folders of the machine that wrote it."""
    whole = io.BytesIO()
    torch.jit.save(torch.jit.script(Scale()), whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                target.writestr(entry, source.read(entry))


def saved():
    state = network().state_dict()
    save_file(state, HERE / "plain.safetensors", metadata={"format": "pt"})
    # Names of files that say something else than what is in them.
    torch.save(network().to(memory_format=torch.channels_last).state_dict(), HERE / "channels_last.pth")
    old(network().to(memory_format=torch.channels_last).state_dict(), HERE / "legacy.safetensors")
    old({"epoch": 3, "state_dict": state, "model": state}, HERE / "legacy_nested")
    torch.save(torch.compile(network()).state_dict(), HERE / "compiled.weights")
    torch.save(nn.DataParallel(compiled_in_part()).state_dict(), HERE / "compiled_in_part.bin")
    torch.save(AveragedModel(network()).state_dict(), HERE / "averaged.pt")
    torch.save(prefixed("stream_network.", state), HERE / "stream_network.pth")
    torch.save({"net": {"encoder": state}}, HERE / "nested.pth", pickle_protocol=4)
    torch.save(views(), HERE / "views.pth")
    torch.save(mixed(), HERE / "mixed.pth")
    torch.save(training(), HERE / "training.tar")
    torch.save(lightning(), HERE / "lightning.ckpt")
    torch.save(network(), HERE / "module.pt")


def refused():
    state = network().state_dict()
    double = {name: 2 * value for name, value in state.items()}
    torch.save({"state_dict": state, "state_dict_ema": double}, HERE / "refused_ambiguous.pth")
    float8 = {name: value.to(torch.float8_e4m3fn) for name, value in state.items()}
    torch.save(float8, HERE / "refused_float8.pth")
    save_file(float8, HERE / "refused_float8.safetensors")
    torch.save({"x": torch.zeros(2, dtype=torch.complex64)}, HERE / "refused_complex.pth")
    torch.save({"x": torch.eye(2).to_sparse()}, HERE / "refused_sparse.pth")
    torch.save({"x": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}, HERE / "refused_quantised.pth")
    torch.save([state["0.bias"]], HERE / "refused_list.pth")
    torch.save({"epoch": 3}, HERE / "refused_nothing.pth")
    script(HERE / "refused_script.pt")


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    saved()
    refused()
