"""lightstream: overlapping tiles of edge `tile`. It freezes norms altogether, scale and shift included."""

import contextlib
import importlib.util
import io
import sys
import types
import warnings

import torch

import measure

# lightstream's own `__init__` imports Lightning, which only its training loop needs.
package = types.ModuleType("lightstream")
package.__path__ = importlib.util.find_spec("lightstream").submodule_search_locations
sys.modules["lightstream"] = package
from lightstream.core.constructor import StreamingConstructor  # noqa: E402
from lightstream.core.utils import freeze_normalization_layers  # noqa: E402

warnings.filterwarnings("ignore", message=".*autocast.*")

job = measure.read_job()
stages, names = measure.read_network(job)
by_place = {place: names[parameter] for place, parameter in stages.named_parameters()}
with contextlib.redirect_stdout(io.StringIO()):
    constructor = StreamingConstructor(
        stages,
        job["tile"],
        verbose=False,
        copy_to_gpu=False,
        normalize_on_gpu=False,
        add_keep_modules=[torch.nn.BatchNorm2d],
    )
    # As it is, statistics from the CPU send the network to a GPU afterwards.
    constructor.statistics_on_cpu = False
    streaming = constructor.prepare_streaming_model()
freeze_normalization_layers(streaming)
# The convolutions are new modules.
names = {parameter: by_place[place] for place, parameter in streaming.stream_module.named_parameters()}


def backward(image, _features, cotangent):
    streaming.backward(image, cotangent)


measure.run(job, names, streaming, backward)
