"""One epoch of training on slides: openslide-python in a DataLoader with workers, images turned, mirrored and recoloured, AdamW.

A job is a JSON file: `model` (torchvision's name), `weights` (safetensors, torchvision's names after `net.`, the linear layer
after `head.`), `edge` of the square images in pixels, `mean` and `deviation` of the normalisation, `batches`, `optimizer`,
`threads`, `workers` and `way` (`plain` or `channels_last`). A batch is a list of slides with `path`, `label` (0 or 1), and
what is done to them: `swapped`, `rows_backward`, `columns_backward`, `contrast` (a factor for each channel) and `brightness` (added
to each channel afterwards). The result has `seconds`, `waiting_seconds`, `losses` (one of each slide, in order),
`resident_before_bytes` and `resident_peak_bytes`; these are of the main process alone, without the workers'.
"""

import time

import numpy as np
import openslide
import torch
import torchvision
from safetensors.torch import load_file
from torch.utils.data import DataLoader, Dataset

import measure


class Slides(Dataset):
    """Each slide's finest level, normalised and augmented, `[1, 3, edge, edge]`, and its label."""

    def __init__(self, job, layout):
        self.items = [item for batch in job["batches"] for item in batch]
        self.edge, self.layout = job["edge"], layout
        self.mean, self.deviation = (torch.tensor(job[name]) for name in ("mean", "deviation"))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, place):
        item = self.items[place]
        with openslide.OpenSlide(item["path"]) as slide:
            pixels = np.asarray(slide.read_region((0, 0), 0, (self.edge, self.edge)).convert("RGB"))
        if item["swapped"]:
            pixels = pixels.transpose(1, 0, 2)
        if item["rows_backward"]:
            pixels = pixels[::-1]
        if item["columns_backward"]:
            pixels = pixels[:, ::-1]
        # The copy is whole and may be written to; seen this way, it is in the layout `channels_last`.
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
        contrast, brightness = torch.tensor(item["contrast"]), torch.tensor(item["brightness"])
        factor = contrast / (255 * self.deviation)
        shift = brightness - contrast * self.mean / self.deviation
        image = image.float().mul_(factor[:, None, None]).add_(shift[:, None, None])
        return image.contiguous(memory_format=self.layout), torch.tensor([[float(item["label"])]])


def network(job, layout):
    """The network with a linear layer for one score; norms use their running statistics, their scale and shift are trainable."""
    model = getattr(torchvision.models, job["model"])(weights=None, num_classes=1)
    tensors = load_file(job["weights"])
    model.load_state_dict({name.removeprefix("net.").removeprefix("head."): t.clone() for name, t in tensors.items()})
    return model.eval().to(memory_format=layout)


def train(model, job, layout):
    settings = job["optimizer"]
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings["learning_rate"],
        betas=(settings["beta1"], settings["beta2"]),
        eps=settings["epsilon"],
        weight_decay=settings["weight_decay"],
    )
    losses, waiting = [], 0.0
    measure.forget_peak()
    before = measure.resident("VmRSS")
    start = time.perf_counter()
    images = iter(DataLoader(Slides(job, layout), batch_size=None, num_workers=job["workers"]))
    for batch in job["batches"]:
        for _ in batch:
            asked = time.perf_counter()
            image, label = next(images)
            waiting += time.perf_counter() - asked
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(image), label)
            (loss / len(batch)).backward()
            losses.append(loss.item())
        if settings["max_norm"] is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings["max_norm"])
        optimizer.step()
        optimizer.zero_grad()
    measure.write_result(
        {
            "seconds": time.perf_counter() - start,
            "waiting_seconds": waiting,
            "losses": losses,
            "resident_before_bytes": before,
            "resident_peak_bytes": measure.resident("VmHWM"),
        }
    )


def main():
    job = measure.read_job()
    layout = torch.channels_last if job["way"] == "channels_last" else torch.contiguous_format
    train(network(job, layout), job, layout)


if __name__ == "__main__":
    main()
