"""Prints the versions of Python and the peers as JSON; fails where one that all rows need is missing."""

import contextlib
import importlib.metadata
import json
import platform

import safetensors.torch  # noqa: F401
import torch  # noqa: F401
import torchvision  # noqa: F401

versions = {name: importlib.metadata.version(name) for name in ("torch", "torchvision")}
# Only its own row needs the first, and only training the others.
for name in ("lightstream", "openslide-python", "openslide-bin"):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions[name] = importlib.metadata.version(name)
print(json.dumps({"python": platform.python_version()} | versions))
