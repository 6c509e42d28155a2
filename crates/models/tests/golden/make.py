"""Writes this folder's files with PyTorch. Usage: python make.py, with the versions of golden/requirements.txt.

head.safetensors        poolings, standardisation and linear layer on features with ties, zeros and NaN; values and gradients
imagenette.safetensors  the tail of the Imagenette classifier; logits, gradient of the features, summaries of the others
plain.safetensors       the plain network, width 2 and depth 4; values and gradients
small.safetensors       the small residual network, width 2 and depth 1; values and gradients
resnet_1111.pth         a state_dict of torchvision's ResNet: basic blocks, one in each stage, width 1, with `fc` and counters
imagenette_nested.pth   a checkpoint {"epoch", "state_dict"} of the Imagenette network's streamed part in f16
"""

import pathlib
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torchvision.models.resnet import BasicBlock

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parents[3] / "golden"))
import generator  # noqa: E402
import networks  # noqa: E402


def generated(name, shape):
    return torch.from_numpy(generator.uniform(name, tuple(shape)))


def parameters(network, named):
    """Generated parameters in f64, as leaves."""
    return {k: torch.from_numpy(generator.parameter(network, k, tuple(v.shape))).double().requires_grad_() for k, v in named}


def gem(x, exponent, epsilon):
    return (x.pow(exponent).mean((2, 3)) + epsilon).pow(1 / exponent)


def head():
    features = generated("head/features", (3, 4, 3, 5)).relu()  # many zeros
    features[0, 0] = 0.0
    features[0, 1].view(-1)[[7, 3, 11]] = 2.0
    features[1, 2] = -1.5 * features[1, 2] - 1
    features[1, 3] = features[1, 3] + 1
    tensors = {"features": features.clone()}
    poolings = {
        "average": lambda x: x.mean((2, 3)),
        "maximum": lambda x: F.adaptive_max_pool2d(x, 1).flatten(1),
        "gem_4": lambda x: gem(x, 4.0, 1e-6),
    }

    def case(name, x, function):
        x = x.clone().requires_grad_()
        y = function(x)
        y_bar = generated(f"head/{name}/y_bar", y.shape)
        tensors[f"{name}/y"] = y.detach()
        tensors[f"{name}/x_bar"] = torch.autograd.grad(y, x, y_bar)[0]

    for name, function in poolings.items():
        case(name, features, function)
    case("gem_2.5", features.abs(), lambda x: gem(x, 2.5, 1e-3))
    broken = features.clone()
    broken[0, 0, 1, 1] = broken[2, 1, 2, 4] = broken[2, 1, 0, 3] = float("nan")
    broken[0, 2] = float("-inf")
    tensors["broken"] = broken.clone()
    case("maximum_broken", broken, poolings["maximum"])

    def classify(x, leaves):
        p = torch.cat([poolings["average"](x), poolings["maximum"](x), poolings["gem_4"](x)], 1)
        p = (p - leaves["running_mean"].detach()) * (leaves["running_var"].detach() + 1e-5).rsqrt()
        return F.linear(p, leaves["fc.weight"], leaves["fc.bias"])

    shapes = {"running_mean": (12,), "running_var": (12,), "fc.weight": (2, 12), "fc.bias": (2,)}
    leaves = parameters("head", [(k, torch.empty(v)) for k, v in shapes.items()])
    case("classify", features, lambda x: classify(x, leaves))
    y = classify(features, leaves)
    wanted = ["fc.weight", "fc.bias"]
    gradients = torch.autograd.grad(y, [leaves[k] for k in wanted], generated("head/classify/y_bar", y.shape))
    tensors.update({f"classify/{k}": v for k, v in zip(wanted, gradients, strict=True)})
    return tensors


def imagenette():
    block = lambda i, o: [nn.Conv2d(i, o, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    last = [nn.Conv2d(128, 256, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(256, 10)]
    whole = nn.Sequential(*block(3, 16), *block(16, 32), *block(32, 64), *block(64, 128), *last).double()
    leaves = parameters("imagenette", [(k, v) for k, v in whole.named_parameters() if int(k.split(".")[0]) >= 6])
    features = generated("imagenette/features", (2, 32, 5, 6)).requires_grad_()
    tail = whole[6:]
    y = torch.func.functional_call(tail, leaves, features)  # a slice keeps its members' numbers
    features_bar, *gradients = torch.autograd.grad(y, [features, *leaves.values()], generated("imagenette/logits_bar", y.shape))
    tensors = {"logits": y.detach(), "features_bar": features_bar}
    for name, value in zip(leaves, gradients, strict=True):
        norm, dot, _ = networks.summary("imagenette", name, value)
        tensors[f"summary/{name}"] = torch.tensor([norm, dot])
    return tensors


class ChannelNorm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        return F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, 1e-3).permute(0, 3, 1, 2)


class Gain(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5]))


class Block(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.norm1, self.conv1 = ChannelNorm(i), nn.Conv2d(i, o, 3, stride, 1)
        self.norm2, self.conv2, self.gain = ChannelNorm(o), nn.Conv2d(o, o, 3, 1, 1), Gain()
        self.shortcut = nn.Conv2d(i, o, 1, stride) if stride > 1 or i != o else nn.Identity()

    def forward(self, x):
        y = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return self.shortcut(x) + self.gain.weight * y


class Small(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.stem = nn.Conv2d(3, w, 5, 2, 2)
        self.blocks = nn.Sequential(Block(w, w, 1), Block(w, 2 * w, 2), Block(2 * w, 4 * w, 2), Block(4 * w, 4 * w, 2))
        self.norm = ChannelNorm(4 * w)

    def forward(self, x):
        return F.relu(self.norm(self.blocks(self.stem(x))))


class Plain(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, 2, 1) for i, o in [(3, w), (w, 2 * w), (2 * w, 4 * w), (4 * w, 4 * w)])

    def forward(self, x):
        for conv in self.convs:
            x = F.relu(conv(x))
        return x


def values_and_gradients(name, network):
    leaves = parameters(name, network.named_parameters())
    x = generated(f"{name}/input", (1, 3, 45, 38)).requires_grad_()
    y = torch.func.functional_call(network.double(), leaves, x)
    x_bar, *gradients = torch.autograd.grad(y, [x, *leaves.values()], generated(f"{name}/y_bar", y.shape))
    tensors = {"y": y.detach(), "x_bar": x_bar}
    return tensors | {f"gradient/{k}": v for k, v in zip(leaves, gradients, strict=True)}


def pickles():
    network = networks.Features(BasicBlock, [1, 1, 1, 1], divisor=64)
    network.fc = nn.Linear(8, 3)
    state = networks.state(network, "resnet_1111")
    network.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()}, strict=False)
    torch.save(network.state_dict(), HERE / "resnet_1111.pth")
    state = {k: torch.from_numpy(v).half() for k, v in networks.state(networks.imagenette(), "imagenette").items()}
    torch.save({"epoch": 3, "state_dict": state}, HERE / "imagenette_nested.pth")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, make in {
        "head": head,
        "imagenette": imagenette,
        "plain": lambda: values_and_gradients("plain", Plain(2)),
        "small": lambda: values_and_gradients("small", Small(2)),
    }.items():
        save_file({k: v.contiguous() for k, v in make().items()}, HERE / f"{name}.safetensors")
    pickles()
