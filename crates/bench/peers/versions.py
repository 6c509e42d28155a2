"""Prints the versions of Python and the peers as JSON; fails where one is missing."""

import importlib.metadata
import json
import platform

import safetensors.torch  # noqa: F401
import torch  # noqa: F401
import torchvision  # noqa: F401

versions = {name: importlib.metadata.version(name) for name in ("torch", "torchvision", "lightstream")}
print(json.dumps({"python": platform.python_version()} | versions))
