#!/usr/bin/env bash
# A guess: for a thumbnail, libvips takes the smallest level of a pyramid that is at least as large as asked for, wherever in
# the file the levels lie.
# So it is: where the overviews are SubIFDs of the first page, it never takes the finest level, not even for a thumbnail of the
# full size: that is the first overview, enlarged. Of the same levels as pages of their own it takes the finest.
# Seen with: libvips 8.18.7.
# Met in: crates/slides/src/write/layout.rs, whose documentation warns of it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet cffi==2.1.1 \
    numpy==2.4.6 pycparser==3.12 pyvips==3.2.0 pyvips-binary==8.18.7 tifffile==2026.3.3

"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import numpy as np
import pyvips
import tifffile

folder = sys.argv[1]
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}
SIZES = [(801, 1001), (401, 501), (201, 251), (101, 126)]
levels = [np.full((*size, 3), colour, np.uint8) for size, colour in zip(SIZES, COLOURS.values())]


def write(path, subifds):
    with tifffile.TiffWriter(path) as file:
        for index, level in enumerate(levels):
            first = {"subifds": len(levels) - 1} if subifds and index == 0 else {}
            flag = {"subfiletype": 1} if index else {}
            file.write(level, tile=(64, 64), photometric="rgb", metadata=None, **first, **flag)


def name(pixel):
    return next((name for name, colour in COLOURS.items() if tuple(pixel) == colour), str(pixel))


print("libvips " + ".".join(str(pyvips.version(part)) for part in range(3)))
print("levels: " + ", ".join(f"{size[1]} wide {colour}" for size, colour in zip(SIZES, COLOURS)))
WIDTHS = (1001, 900, 600, 500, 250, 100)
expected = {
    "pages": ["red", "red", "red", "green", "blue", "yellow"],
    "SubIFDs": ["green", "green", "green", "green", "blue", "yellow"],
}
changed = False
for kind, colours in expected.items():
    path = f"{folder}/{kind}.tiff"
    write(path, kind == "SubIFDs")
    image = pyvips.Image.new_from_file(path)
    print(f"overviews as {kind}: {image.get('vips-loader')} opens it {image.width} wide and {name(image(500, 400))}")
    found = []
    for width in WIDTHS:
        thumbnail = pyvips.Image.thumbnail(path, width)
        found.append(name(thumbnail(thumbnail.width // 2, thumbnail.height // 2)))
        print(f"  thumbnail {thumbnail.width} wide: {found[-1]}")
    changed |= found != colours
if changed:
    sys.exit("the behaviour has changed")
print("as described")
PYTHON
