"""Reads with tifffile what `cargo run -p stream-grad-slides --example write_samples -- FOLDER` wrote, and checks it."""

import sys
from pathlib import Path

import numpy as np
import tifffile

HEIGHT, WIDTH = 300, 421


def written(kind, channels):
    row, column, channel = np.mgrid[:HEIGHT, :WIDTH, :channels]
    value = row + 2 * column + 50 * channel
    return {
        "u8": (value % 256).astype(np.uint8),
        "u16": (value * 17 % 65536).astype(np.uint16),
        "f32": (value.astype(np.float32) / np.float32(7)).astype(np.float32),
    }[kind]


def halved(image):
    padded = np.pad(image, [(0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)], mode="edge").astype(np.float64)
    four = padded[0::2, 0::2] + padded[0::2, 1::2] + padded[1::2, 0::2] + padded[1::2, 1::2]
    if image.dtype == np.float32:
        return (four / 4).astype(np.float32)
    return ((four + 2) // 4).astype(image.dtype)


def check(path):
    kind, colors, compression, container = path.stem.split("-")
    channels = {"rgb": 3, "gray": 1}[colors]
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff == (container == "big"), path
        assert len(file.series) == 1 or all(not level.is_pyramidal for level in file.series[1:]), path
        expected = written(kind, channels)
        for index, page in enumerate(file.pages):
            found = page.asarray().reshape(expected.shape)
            assert found.dtype == expected.dtype, (path, found.dtype)
            if compression.startswith("jpeg"):
                # The ramp wraps around, and lossy compression rings there.
                mean = np.abs(found.astype(float) - expected).mean()
                assert mean < 12, (path, index, mean)
            else:
                assert np.array_equal(found, expected), (path, index)
            assert page.is_tiled and page.tile == (128, 128), path
            assert (page.subfiletype == 1) == (index > 0), path
            x, unit = page.tags["XResolution"].value, page.tags["ResolutionUnit"].value
            assert unit == 3 and abs(x[0] / x[1] - 20000 / 2**index) < 1e-3, (path, x)
            assert bytes(page.tags["InterColorProfile"].value) == b"not a profile, but passed on", path
            expected = halved(expected)
        assert len(file.pages) == 3, path
        assert "MPP = 0.5" in file.pages[0].description, path


def main():
    files = sorted(Path(sys.argv[1]).glob("*.tiff"))
    assert len(files) == 32, f"expected 32 files, found {len(files)}"
    for path in files:
        check(path)
    print(f"tifffile {tifffile.__version__} reads all {len(files)} files as written")


if __name__ == "__main__":
    main()
