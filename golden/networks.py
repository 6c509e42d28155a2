"""Whole networks in f64: every value of small ones, summaries of those at full width, with generated weights."""

import numpy as np
import segmentation_models_pytorch
import torch
from torch import nn
from torchvision.models import convnext_small, convnext_tiny, mobilenet_v2
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

import generator

ENTRIES = 64


class Features(ResNet):
    """torchvision's ResNet up to the global pooling, with all widths divided by `divisor`."""

    def __init__(self, block, depths, divisor):
        super().__init__(block, depths)
        stem = 64 // divisor
        self.inplanes = stem
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        for stage, depth in enumerate(depths):
            layer = self._make_layer(block, stem << stage, depth, stride=1 if stage == 0 else 2)
            setattr(self, f"layer{stage + 1}", layer)
        del self.fc

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class Backbone(nn.Module):
    """The `features` of a model of torchvision."""

    def __init__(self, features):
        super().__init__()
        self.features = features

    def forward(self, x):
        return self.features(x)


def numerics():
    """The paper's comparison network: no padding, biases zero."""
    layers, channels = [], 3
    for _ in range(3):
        layers += [nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.MaxPool2d(2)]
        channels = 16
    return nn.Sequential(*layers)


def imagenette():
    """The streamed part of the paper's Imagenette network."""
    block = lambda i, o: [nn.Conv2d(i, o, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*block(3, 16), *block(16, 32))


RESNETS = {"resnet18": (BasicBlock, [2, 2, 2, 2]), "resnet34": (BasicBlock, [3, 4, 6, 3]), "resnet50": (Bottleneck, [3, 4, 6, 3])}  # fmt: skip


class Pyramid(nn.Module):
    """torchvision's feature pyramid; all its outputs."""

    def __init__(self, body):
        super().__init__()
        network = resnet_fpn_backbone(backbone_name=body, weights=None, trainable_layers=5, norm_layer=nn.BatchNorm2d)
        self.body, self.fpn = network.body, network.fpn

    def forward(self, x):
        return tuple(self.fpn(self.body(x)).values())


# That upsample what they have made smaller.
DENSE = {
    "resnet18_fpn": lambda: Pyramid("resnet18"),
    "resnet50_fpn": lambda: Pyramid("resnet50"),
    "unet_resnet18-3": lambda: segmentation_models_pytorch.Unet("resnet18", encoder_weights=None, classes=3),
    "unet_resnet50-1": lambda: segmentation_models_pytorch.Unet("resnet50", encoder_weights=None, classes=1),
}
BACKBONES = {"convnext_tiny": convnext_tiny, "convnext_small": convnext_small, "mobilenet_v2": mobilenet_v2}


def state(network, name):
    """Generated weights and running statistics by name, as f32."""
    values = {
        key: generator.parameter(name, key, tuple(value.shape))
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    if name == "numerics":  # as published: PyTorch's default range, 1/sqrt(fan-in), times 2.5; biases zero
        for key, value in values.items():
            fan_in = float(np.prod(value.shape[1:]))
            u = generator.uniform(f"{name}/{key}", value.shape)
            values[key] = (2.5 * u / np.sqrt(fan_in)).astype(np.float32) if value.ndim == 4 else np.zeros_like(value)
    return values


def vjp(network, values, x, y_bar_name):
    """Values, cotangents, parameter gradients and input gradient, in f64; norms use their running statistics.

    Of several outputs the second has a cotangent of the name `<y_bar_name>.1`, and so on.
    """
    network = network.double().eval()
    network.load_state_dict({key: torch.from_numpy(value).double() for key, value in values.items()}, strict=False)
    x = torch.from_numpy(x).requires_grad_()
    y = network(x)
    y = y if isinstance(y, tuple) else (y,)
    names = [f"{y_bar_name}.{index}" if index else y_bar_name for index in range(len(y))]
    y_bar = [torch.from_numpy(generator.uniform(name, tuple(one.shape))) for name, one in zip(names, y, strict=True)]
    names, parameters = zip(*network.named_parameters(), strict=True)
    *gradients, x_bar = torch.autograd.grad(y, [*parameters, x], y_bar)
    return [one.detach() for one in y], y_bar, dict(zip(names, gradients, strict=True)), x_bar


def complete(name, network, height, width, weight_dtype, gradient_dtype):
    """Every value of a small network. Weights and image are rounded to `weight_dtype` before the computation."""
    values = {key: value.astype(weight_dtype) for key, value in state(network, name).items()}
    x = generator.uniform(f"{name}/input", (1, 3, height, width)).astype(weight_dtype)
    y, y_bar, gradients, x_bar = vjp(network, values, x.astype(np.float64), f"{name}/y_bar")
    tensors = {"input": torch.from_numpy(x), "y": y[0], "y_bar": y_bar[0], "x_bar": x_bar.to(gradient_dtype)}
    if name != "resnet50_eighth":  # they can be generated; the files together stay under 4 MB
        tensors.update({f"weight/{key}": torch.from_numpy(value) for key, value in values.items()})
    tensors.update({f"gradient/{key}": value.to(gradient_dtype) for key, value in gradients.items()})
    return tensors


def autocast_errors(name, network, height, width):
    """Relative L2 errors of values and gradients under PyTorch's autocast to bf16, against f64, on what `complete` has."""
    exact = complete(name, network, height, width, np.float32, torch.float64)
    network = network.float()
    x = exact["input"].requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = network(x)
    y.backward(exact["y_bar"].to(y.dtype))
    found = {"y": y.detach(), "x_bar": x.grad}
    found.update({f"gradient/{key}": parameter.grad for key, parameter in network.named_parameters()})
    error = lambda key, value: ((value.double() - exact[key]).norm() / exact[key].norm()).item()
    return {key: round(error(key, value), 6) for key, value in found.items()}


def summary(name, tensor, values):
    """Norm, dot product with the generated vector `<name>/<tensor>/dot`, and entries at generated positions."""
    values = values.numpy().reshape(-1)
    positions = generator.indices(f"{name}/{tensor}/entries", values.size, ENTRIES)
    direction = generator.uniform(f"{name}/{tensor}/dot", values.shape)
    return np.sqrt(values @ values), values @ direction, values[positions]


def summarised(name, height, width):
    """Summaries of a full network: its description, and the tensors `norm`, `dot` and `entries` in that order."""
    if name in RESNETS:
        network = Features(*RESNETS[name], divisor=1)
    elif name in DENSE:
        network = DENSE[name]()
    else:
        network = Backbone(BACKBONES[name](weights=None).features)
    x = generator.uniform(f"{name}/input", (1, 3, height, width))
    y, _, gradients, x_bar = vjp(network, state(network, name), x, f"{name}/y_bar")
    outputs = {f"y.{index}" if index else "y": one for index, one in enumerate(y)}
    rows = {**outputs, "x_bar": x_bar, **gradients}
    norm, dot, entries = zip(*(summary(name, key, value) for key, value in rows.items()), strict=True)
    description = {
        "network": name,
        "input": [1, 3, height, width],
        "tensors": [{"name": key, "shape": list(value.shape)} for key, value in rows.items()],
    }
    arrays = {"norm": np.array(norm), "dot": np.array(dot), "entries": np.stack(entries)}
    return description, {f"{name}/{key}": torch.from_numpy(value) for key, value in arrays.items()}


def small():
    """The small networks whose values are stored whole: file name and tensors."""
    resnet = lambda name, height, width: complete(f"{name}_eighth", Features(*RESNETS[name], divisor=8), height, width, np.float16, torch.float32)  # fmt: skip
    return {
        "resnet18_eighth": resnet("resnet18", 75, 61),
        "resnet50_eighth": resnet("resnet50", 61, 75),
        "numerics": complete("numerics", numerics(), 61, 53, np.float32, torch.float64),
        "imagenette": complete("imagenette", imagenette(), 37, 42, np.float32, torch.float64),
    }


def full():
    """Networks at full width: descriptions and tensors."""
    descriptions, tensors = [], {}
    descriptions_and_arrays = []
    for name in [*RESNETS, *BACKBONES, *DENSE]:
        descriptions_and_arrays.append(summarised(name, 97, 83))
    for description, arrays in descriptions_and_arrays:
        descriptions.append(description)
        tensors.update(arrays)
    return descriptions, tensors
