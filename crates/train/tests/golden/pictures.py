"""Writes pictures.json: what torchvision makes of a picture (torch 2, torchvision, Pillow).

usage: pictures.py > pictures.json
"""

import json

import numpy as np
from PIL import Image
from torchvision.transforms import functional as F

HEIGHT, WIDTH = 61, 83


def picture():
    """Smooth waves, edges and noise from whole numbers alone: the test makes the same."""
    rows, columns, channels = np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), np.arange(3), indexing="ij")
    noise = (rows * 7919 + columns * 104729 + channels * 1299709) % 97
    return ((rows * 3 + columns * (channels + 1) * 2 + (columns // 9 % 2) * 90 + noise) % 256).astype(np.uint8)


def main():
    image = Image.fromarray(picture())
    crops = []
    for crop, size in [
        ((0, 0, 61, 83), 24),
        ((5, 11, 40, 53), 24),
        ((20, 30, 9, 12), 24),
        ((60, 82, 1, 1), 5),
        ((3, 2, 17, 17), 17),
    ]:
        values = np.asarray(F.resized_crop(image, *crop, [size, size], antialias=True))
        crops.append({"crop": crop, "size": size, "rgb": values.reshape(-1).tolist()})
    centres = []
    for size in [20, 21, 61, 70, 90]:
        values = np.asarray(F.center_crop(image, [size, size]))
        rows, columns = values.sum(axis=(1, 2), dtype=int), values.sum(axis=(0, 2), dtype=int)
        centres.append({"size": size, "rows": rows.tolist(), "columns": columns.tolist()})
    middle = F.to_tensor(F.center_crop(image, [4, 4]))
    tensor = F.normalize(middle, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    golden = {
        "height": HEIGHT,
        "width": WIDTH,
        "crops": crops,
        "centres": centres,
        "normalised": tensor.permute(1, 2, 0).reshape(-1).tolist(),
    }
    print(json.dumps(golden, separators=(",", ":")))


if __name__ == "__main__":
    main()
