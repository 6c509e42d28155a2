#!/usr/bin/env bash
# A guess: where OpenSlide reads 16-bit RGB and 8-bit grey rightly, it reads 16-bit grey rightly, too.
# So it is: in 16-bit grey, the tiles that the right edge of the image cuts come back with wrong pixels, and nothing is said.
# Whole tiles, and those that the bottom edge cuts, are right.
# Seen with: openslide-bin 4.0.1.2.
# Met in: golden/slides/layouts.py, which compares every pixel. crates/slides/src/tiff_pages/ (`has_wide_greys_at_the_edge` in
# page.rs) reads such pages by itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 openslide-bin==4.0.1.2 \
    openslide-python==1.4.7 pillow==13.0.0 tifffile==2026.3.3

"$folder/venv/bin/python" - "$folder/image.tiff" <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import openslide
import tifffile

path = sys.argv[1]
TILE, ROWS = 128, 300
print(f"OpenSlide {openslide.__library_version__} of openslide-bin {version('openslide-bin')}")
print(f"images of {ROWS} rows, tiles of {TILE} x {TILE}")
random = np.random.default_rng(0)
changed = False
for columns in (384, 400, 421):
    for samples in (1, 3):
        for dtype in (np.uint8, np.uint16):
            # 16-bit values are bytes twice, so that every way of making bytes of them gives the same.
            wanted = random.integers(0, 256, (ROWS, columns, samples), np.uint8)
            image = wanted.astype(dtype) * (257 if dtype == np.uint16 else 1)
            image = image[..., 0] if samples == 1 else image
            tifffile.imwrite(path, image, tile=(TILE, TILE), photometric="minisblack" if samples == 1 else "rgb")
            assert np.array_equal(tifffile.imread(path), image)
            slide = openslide.OpenSlide(path)
            pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
            # One off would be rounding.
            wrong = (np.abs(pixels.astype(int) - wanted) > 1).any(axis=2)
            where = np.flatnonzero(wrong.any(axis=0))
            said = f"{wrong.sum()} pixels wrong, in columns {where[0]} to {where[-1]}" if where.size else "all pixels right"
            print(f"{columns} columns, {'grey' if samples == 1 else 'RGB'} {np.dtype(dtype).name}: {said}")
            cut = columns // TILE * TILE
            expected = range(cut, columns) if samples == 1 and dtype == np.uint16 else ()
            changed |= list(where) != list(expected)
if changed:
    sys.exit("the behaviour has changed")
print("as described")
PYTHON
