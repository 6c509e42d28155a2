"""Reads with tifffile what `cargo run -p stream-grad-slides --example write_samples -- FOLDER` wrote, and checks each page."""

import sys
from pathlib import Path

import numpy as np
import tifffile

HEIGHT, WIDTH = 300, 421
SCALE = 0.5
LEVELS = 3
FILES = 96
PROFILE = b"not a profile, but passed on"


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


def pyramid(path, count=LEVELS):
    """The levels that a file was written with, by its name, and what would come after them."""
    _, kind, colors, *_ = path.stem.split("-")
    levels = [written(kind, {"rgb": 3, "gray": 1}[colors])]
    while len(levels) < count:
        levels.append(halved(levels[-1]))
    return levels


def near(found, expected, path):
    """Whether pixels are those that were written, as far as the compression and 8 bits allow."""
    if found.shape[:2] != expected.shape[:2]:
        return False
    found = found.reshape(*expected.shape[:2], -1)
    if found.shape[2] not in (1, expected.shape[2], 3):
        return False
    expected, found = np.broadcast_arrays(expected, found)
    if "jpeg" in path.stem:
        # The ramp wraps around, and lossy compression rings there.
        return np.abs(found.astype(float) - expected).mean() < 12
    if found.dtype == np.uint8 and expected.dtype == np.uint16:
        return np.abs(found - expected / 257).max() <= 1
    return found.dtype.kind == expected.dtype.kind and np.array_equal(found, expected)


def check_page(page, index, flag, path):
    """A page whose picture is halved `index` times; `flag` says that it is an overview."""
    expected = pyramid(path, index + 1)[-1]
    found = page.asarray().reshape(expected.shape)
    assert found.dtype == expected.dtype, (path, found.dtype)
    if index == LEVELS and "jpeg" in path.stem:
        # So small a picture of the ramp is little but its jumps, whose colours subsampling spreads: its brightness is kept.
        assert np.abs((found.astype(float) - expected).mean(2)).mean() < 12, (path, index)
    else:
        assert near(found, expected, path), (path, index)
    assert page.is_tiled == (index < LEVELS), (path, index)
    assert not page.is_tiled or page.tile == (128, 128), path
    assert page.tags["NewSubfileType"].value == flag, path
    x, unit = page.tags["XResolution"].value, page.tags["ResolutionUnit"].value
    assert unit == 3 and abs(x[0] / x[1] - 10_000 / SCALE / 2**index) < 1e-3, (path, x)
    assert bytes(page.tags["InterColorProfile"].value) == PROFILE, path


def check(path):
    layout, _, _, _, container = path.stem.split("-")
    # Halvings and flag of each page in the chain, and of those within the first.
    chain, within = {
        "aperio": ([(0, 0), (3, 0), (1, 0), (2, 0)], [(1, 1), (2, 1)]),
        "plain": ([(0, 0), (1, 1), (2, 1)], []),
        "ome": ([(0, 0)], [(1, 1), (2, 1)]),
    }[layout]
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff == (container == "big"), path
        assert [level.shape[:2] for level in file.series[0].levels] == [
            level.shape[:2] for level in pyramid(path)
        ], path
        assert len(file.pages) == len(chain), path
        for page, (index, flag) in zip(file.pages, chain):
            check_page(page, index, flag, path)
            assert ("MPP = 0.5" in page.description) == (layout == "aperio"), path
        copies = file.pages[0].pages or []
        assert len(copies) == len(within), path
        for page, (index, flag) in zip(copies, within):
            check_page(page.aspage(), index, flag, path)
        assert ('PhysicalSizeX="0.5"' in file.pages[0].description) == (layout == "ome"), path


def main():
    files = sorted(Path(sys.argv[1]).glob("*.tiff"))
    assert len(files) == FILES, f"expected {FILES} files, found {len(files)}"
    for path in files:
        check(path)
    print(f"tifffile {tifffile.__version__} reads all {len(files)} files as written")


if __name__ == "__main__":
    main()
