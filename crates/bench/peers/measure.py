"""What the peers have in common: the network and its input from files, a measured step, and the result as JSON.

A job is a JSON file: `model`, `weights`, `input` (safetensors with `input` and `y_bar`), `threads`, `way`, `dtype`,
`tile`, and `gradients`, a file to write or null. The result has `seconds_forward`, `seconds_backward`, `resident_before_bytes` and
`resident_peak_bytes`; the last two are null where the system does not tell them.
"""

import ctypes
import gc
import json
import pathlib
import sys
import time

import torch
import torchvision
from safetensors.torch import load_file, save_file

WARM_UP_EDGE = 64


def read_job():
    job = json.loads(pathlib.Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    return job


def write_result(result):
    pathlib.Path(sys.argv[2]).write_text(json.dumps(result))


def read_network(job):
    """The network up to the global pooling; norms use their running statistics, their scale and shift are trainable."""
    model = getattr(torchvision.models, job["model"])(weights=None)
    missing, unknown = model.load_state_dict(load_file(job["weights"]), strict=False)
    # What stands after the pooling, and counters that nothing reads.
    missing = [name for name in missing if not name.startswith(("fc.", "classifier."))]
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unknown:
        sys.exit(f"{job['weights']}: torchvision's {job['model']} lacks {unknown} and wants {missing}")
    if hasattr(model, "features"):
        stages = model.features.eval()
    else:
        stem = torch.nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
        stages = torch.nn.Sequential(stem, model.layer1, model.layer2, model.layer3, model.layer4).eval()
    names = {parameter: name for name, parameter in model.named_parameters()}
    return stages, names


def resident(field):
    """`VmRSS` or `VmHWM`, in bytes. Python's `ru_maxrss` will not do: a process inherits its parent's."""
    try:
        for line in pathlib.Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None


def forget_peak():
    """Gives back what start-up freed, and lets the peak begin at what is resident now."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def run(job, names, forward, backward, layout=torch.preserve_format):
    """Warms the libraries up with a small image, then does one step, and times another, as in training. The resident peak is
    that of both. `names` tells the parameters' names."""
    # What is loaded is mapped from the file and would be read while the clock runs: copy it.
    files = load_file(job["input"])
    image, cotangent = files.pop("input").clone(memory_format=layout), files.pop("y_bar").clone()
    del files
    small = image[:, :, :WARM_UP_EDGE, :WARM_UP_EDGE].clone(memory_format=layout)

    def warm_up(image, cotangent=None):
        features = forward(image)
        backward(image, features, torch.ones_like(features) if cotangent is None else cotangent)
        for parameter in names:
            parameter.grad = None

    warm_up(small)
    forget_peak()
    before = resident("VmRSS")
    warm_up(image, cotangent)
    start = time.perf_counter()
    features = forward(image)
    middle = time.perf_counter()
    backward(image, features, cotangent)
    end = time.perf_counter()
    peak = resident("VmHWM")
    if job["gradients"]:
        gradients = {name: p.grad.contiguous() for p, name in names.items() if p.grad is not None}
        save_file(gradients, job["gradients"])
    write_result(
        {
            "seconds_forward": middle - start,
            "seconds_backward": end - middle,
            "resident_before_bytes": before,
            "resident_peak_bytes": peak,
        }
    )
