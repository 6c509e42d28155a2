"""Grad-CAM and input gradients of ResNet-18 with generated weights, in f64, by hooks."""

import torch
from torch import nn

import generator
import networks

NAME, OUTPUTS, SIZE = "resnet18", 3, (1, 3, 97, 83)


class Classifier(nn.Module):
    """The features, their mean over all positions, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.features = networks.Features(*networks.RESNETS[NAME], divisor=1)
        self.fc = nn.Linear(512, OUTPUTS)
        values = networks.state(self.features, NAME)
        self.features.load_state_dict({key: torch.from_numpy(value) for key, value in values.items()}, strict=False)
        for key in ["weight", "bias"]:
            tensor = getattr(self.fc, key)
            tensor.data = torch.from_numpy(generator.uniform(f"{NAME}/fc.{key}", tuple(tensor.shape))).float()

    def forward(self, x):
        return self.fc(self.features(x).mean(dim=(2, 3)))


def grad_cam(model, module, x, output):
    """Selvaraju et al. 2017, equations 1 and 2, for the output of a module, at its resolution."""
    seen = {}

    def hook(_module, _inputs, activation):
        activation.retain_grad()
        seen["activation"] = activation

    handle = module.register_forward_hook(hook)
    model(x)[0, output].backward()
    handle.remove()
    activation = seen["activation"]
    weights = activation.grad.mean(dim=(2, 3), keepdim=True)
    return torch.relu((weights * activation).sum(dim=1))[0].detach()


def cells(values, cell):
    """Means over cells: rows are cut into ceil(height / cell) parts that differ by at most one row, columns likewise."""
    height, width = values.shape
    rows, columns = -(-height // cell), -(-width // cell)
    index = (torch.arange(height) * rows // height)[:, None] * columns + torch.arange(width) * columns // width
    sums = torch.zeros(rows * columns, dtype=values.dtype).index_add(0, index.reshape(-1), values.reshape(-1))
    return (sums / torch.bincount(index.reshape(-1))).reshape(rows, columns)


def make():
    """Logits; `grad_cam/<module>/<output>` and `input_gradient/<sum>/<cell>/<output>` by name."""
    model = Classifier().double().eval()
    model.requires_grad_(False)
    for module in model.features.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # a hook must see what the next layer sees
    x = torch.from_numpy(generator.uniform(f"{NAME}/input", SIZE)).requires_grad_()
    tensors = {"logits": model(x).detach()[0]}
    for name in ["layer4", "layer3", "layer2", "layer1", "maxpool"]:
        for output in range(OUTPUTS):
            tensors[f"grad_cam/{name}/{output}"] = grad_cam(model, getattr(model.features, name), x, output)
    for output in range(OUTPUTS):
        (gradient,) = torch.autograd.grad(model(x)[0, output], x)
        for cell in [1, 10]:
            tensors[f"input_gradient/absolute/{cell}/{output}"] = cells(gradient[0].abs().sum(dim=0), cell)
        tensors[f"input_gradient/signed/10/{output}"] = cells(gradient[0].sum(dim=0), 10)
    return {name: value.float() if value.numel() > 1000 else value for name, value in tensors.items()}
