"""Measures which programs see which levels of the layouts that `PyramidWriter` writes, and compares with its documentation.

    layouts.py FOLDER BIOFORMATS_JAR [OPENSLIDE_3.4.1]

FOLDER is what `cargo run -p stream-grad-slides --example write_samples -- FOLDER` wrote. Every level is read back by every
program and compared with the pixels that were written. Exits with 1 if the table in `layout.rs` says anything else.
"""

import ctypes.util
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from read_back import FILES, SCALE, near, pyramid
from readers import all_readers

DOCUMENTED = Path(__file__).parents[2] / "crates/slides/src/write/layout.rs"
LAYOUTS = {"aperio": "Aperio", "plain": "Plain", "ome": "OmeTiff"}
# What files hold, and how their names say so.
PIXELS = {
    "RGB bytes": ["u8-rgb-deflate", "u8-rgb-lzw", "u8-rgb-jpeg80"],
    "RGB bytes, JPEG of quality 90 or more": ["u8-rgb-jpeg95"],
    "grey bytes": ["u8-gray"],
    "RGB `u16`": ["u16-rgb"],
    "grey `u16`": ["u16-gray"],
    "`f32`": ["f32"],
}


def seen(reader, path):
    """What `reader` sees of a file: `all` levels or the `first`, with or without its scale, `wrong` pixels, or `none`."""
    expected = pyramid(path)
    try:
        levels, scale = reader.read(path)
        right = [near(np.asarray(level), wanted, path) for level, wanted in zip(levels, expected)]
    except Exception as error:  # Whatever a program raises, it does not see the file.
        print(f"{reader.name}: {path.name}: {type(error).__name__}: {str(error)[:100]}", file=sys.stderr)
        return "none"
    if not levels:
        return "none"
    if right != [True] * len(levels):
        return "wrong"
    which = {len(expected): "all", 1: "first"}.get(len(levels), f"{len(levels)} of {len(expected)}")
    return which if scale is not None and abs(scale - SCALE) < 1e-3 else f"{which}, no scale"


def cell(reader, files):
    """What a reader sees of all files, or of how many it sees what."""
    counts = Counter(seen(reader, path) for path in files)
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{what} ({count} of {len(files)})" for what, count in sorted(counts.items()))


def table(folder, readers):
    yield "| layout | pixels | " + " | ".join(reader.name for reader in readers) + " |"
    yield "|---|---|" + "---|" * len(readers)
    for layout, variant in LAYOUTS.items():
        for pixels, kinds in PIXELS.items():
            files = sorted(path for kind in kinds for path in folder.glob(f"{layout}-{kind}-*.tiff"))
            cells = (cell(reader, files) for reader in readers)
            yield f"| `{variant}` | {pixels} | " + " | ".join(cells) + " |"


def main():
    folder, jar, *older = sys.argv[1:]
    files = list(Path(folder).glob("*.tiff"))
    assert len(files) == FILES, f"expected {FILES} files, found {len(files)}"
    older = older[0] if older else ctypes.util.find_library("openslide")
    documented = DOCUMENTED.read_text().splitlines()
    written = [line.removeprefix("///").strip() for line in documented if line.startswith("/// |")]
    measured = list(table(Path(folder), all_readers(jar, older)))
    print("\n".join(measured))
    if written != measured:
        sys.exit(f"the table in {DOCUMENTED} differs")
    print("as documented")


if __name__ == "__main__":
    main()
