#!/usr/bin/env bash
# A guess: what OpenSlide opens as a tiled TIFF it also reads, whatever the size of the tiles.
# So it is: a file of uncompressed tiles whose size is no multiple of 1024 bytes opens without complaint, and then reading fails
# with "Invalid tile byte count", which sets the true size beside that size rounded up to 1024. Compressed by Deflate, or with
# tiles of another size, the same pixels are read.
# Seen with: openslide-bin 4.0.1.2.
# Met in: crates/slides/src/tiff_pages/ (`has_odd_small_tiles` in page.rs), which reads such pages by itself.
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
print(f"OpenSlide {openslide.__library_version__} of openslide-bin {version('openslide-bin')}")
rgb = np.random.default_rng(0).integers(0, 256, (192, 192, 3), np.uint8)
# Image, rows and columns of a tile, compression, whether OpenSlide reads it.
cases = [
    (rgb, (16, 16), None, False),
    (rgb, (16, 32), None, False),
    (rgb, (48, 48), None, False),
    (rgb, (16, 64), None, True),
    (rgb, (32, 32), None, True),
    (rgb, (16, 16), "zlib", True),
    (rgb[..., 0], (16, 16), None, False),
    (rgb[..., 0], (32, 32), None, True),
]
changed = False
for image, tile, compression, expected in cases:
    photometric = "rgb" if image.ndim == 3 else "minisblack"
    tifffile.imwrite(path, image, tile=tile, photometric=photometric, compression=compression)
    with tifffile.TiffFile(path) as file:
        stored = sorted(set(file.pages[0].databytecounts))
        assert np.array_equal(file.asarray(), image)
    slide = openslide.OpenSlide(path)
    try:
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
        wanted = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
        found, said = True, "reads all pixels" if np.array_equal(pixels, wanted) else "READS OTHER PIXELS"
        changed |= not np.array_equal(pixels, wanted)
    except openslide.OpenSlideError as error:
        found, said = False, "opens, then: " + str(error).replace(path, "image.tiff")
        changed |= "Invalid tile byte count" not in said
    changed |= found != expected
    bytes_stored = f"{stored[0]} bytes" if compression is None else "Deflate"
    print(f"{photometric}, tiles of {tile[0]} x {tile[1]} ({bytes_stored}): {said}")
if changed:
    sys.exit("the behaviour has changed")
print("as described")
PYTHON
