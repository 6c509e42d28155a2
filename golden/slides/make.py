"""Writes the golden values of data/: see README.md."""

import json
import sys
from pathlib import Path

import numpy as np
import shapely
import shapely.affinity
import tifffile
from PIL import Image
from scipy import ndimage
from skimage import color, draw, filters, measure, morphology
from torchstain.numpy.normalizers import NumpyMacenkoNormalizer, NumpyReinhardNormalizer

DATA = Path(__file__).parent / "data"


def write_json(name, value):
    (DATA / name).write_text(json.dumps(value, separators=(",", ":")) + "\n")


# ---------------------------------------------------------------------------------------------------------- polygons


def wobbly(seed, centre, radius, points):
    """An outline drawn by a shaky hand."""
    random = np.random.default_rng(seed)
    angles = np.sort(random.uniform(0, 2 * np.pi, points))
    radii = radius * random.uniform(0.4, 1.0, points)
    x, y = centre[0] + radii * np.cos(angles), centre[1] + radii * np.sin(angles)
    return np.round(np.stack([x, y], axis=1), 3).tolist()


def polygon_cases():
    big, hole, second = wobbly(1, (60.0, 50.0), 48.0, 40), wobbly(2, (62.0, 48.0), 9.0, 12), wobbly(3, (95.0, 70.0), 30.0, 9)
    yield "triangle", [[[[3.2, 2.1], [40.7, 11.3], [17.9, 33.4]]]]
    yield "wobbly", [[big]]
    yield "hole", [[big, hole]]
    yield "overlapping", [[big, hole], [second]]
    yield "bow tie", [[[[5.21, 5.37], [60.73, 50.29], [60.41, 4.63], [5.67, 51.53]]]]
    star = [[60 + 50 * np.sin(4 * np.pi * k / 5 + 0.1), 55 - 50 * np.cos(4 * np.pi * k / 5 + 0.1)] for k in range(5)]
    yield "star that crosses itself", [[np.round(star, 3).tolist()]]
    yield "partly outside", [[[[-20.3, -10.1], [30.2, 8.7], [10.4, 200.6]]]]
    yield "thin", [[[[2.1, 2.2], [100.3, 60.1], [100.9, 60.8]]]]


def as_shape(polygons):
    """The union of polygons under the even-odd rule."""
    valid = [shapely.make_valid(shapely.Polygon(rings[0], rings[1:]), method="linework") for rings in polygons]
    return shapely.union_all(valid)


def polygons():
    height, width, cases = 90, 110, []
    for name, rings in polygon_cases():
        shape = as_shape(rings)
        levels = []
        for step in [1.0, 2.0, 3.7]:
            rows, columns = max(1, round(height / step)), max(1, round(width / step))
            x, y = np.meshgrid((np.arange(columns) + 0.5) * step, (np.arange(rows) + 0.5) * step)
            inside = shapely.contains_xy(shape, x, y)
            assert not shapely.intersects_xy(shape.boundary, x, y).any(), "a centre lies on an edge: take other points"
            if step == 1.0 and len(rings) == 1 and len(rings[0]) == 1:
                # scikit-image puts pixel centres on whole numbers.
                points = np.array(rings[0][0])[:, ::-1] - 0.5
                assert (draw.polygon2mask((rows, columns), points) == inside).all(), name
            levels.append({"downsample": step, "height": rows, "width": columns, "inside": runs(inside)})
        cases.append({"name": name, "polygons": rings, "area": shape.area, "levels": levels})
    write_json("polygons.json", {"height": height, "width": width, "cases": cases})


def runs(bits):
    """Lengths of runs in rows, the first of zeros."""
    flat = np.concatenate([[0], bits.ravel().astype(int), [2]])
    changes = np.flatnonzero(np.diff(flat))
    lengths = np.diff(np.concatenate([[0], changes])).tolist()
    return lengths


# ------------------------------------------------------------------------------------------------------------ bounds

NANOMETRES = 500


def scn_image(name, place, dimensions, power):
    """The part of a Leica description that places an image on the glass; all numbers but of `dimensions` are pixels."""
    x, y, width, height = (value * NANOMETRES for value in place)
    pixels = "".join(
        f'<dimension sizeX="{w}" sizeY="{h}" r="{r}" ifd="{ifd}"/>' for ifd, r, w, h in dimensions
    )
    return (
        f'<image name="{name}"><creationDate>2020-01-01T00:00:00.0Z</creationDate><device model="m" version="1"/>'
        f'<pixels>{pixels}</pixels><view sizeX="{width}" sizeY="{height}" offsetX="{x}" offsetY="{y}" spacingZ="0"/>'
        f"<scanSettings><objectiveSettings><objective>{power}</objective></objectiveSettings><illuminationSettings>"
        "<numericalAperture>0.5</numericalAperture><illuminationSource>brightfield</illuminationSource>"
        "</illuminationSettings></scanSettings></image>"
    )


def bounds():
    """A slide of which a part was scanned, a piece of tissue on it, and its outline in both frames."""
    (glass_width, glass_height), (left, top, width, height) = (640, 512), (96, 64, 384, 320)
    outline = [[40.125, 30.625], [200.75, 44.25], [170.375, 150.125], [60.875, 120.875]]
    tissue = shapely.Polygon(outline)
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    inside = shapely.contains_xy(tissue, x, y)
    assert not shapely.intersects_xy(tissue.boundary, x, y).any(), "a centre lies on an edge: take other points"
    scanned = np.full((height, width, 3), 240, np.uint8)
    scanned[inside] = (150, 60, 140)
    glass = scn_image("glass", (0, 0, glass_width, glass_height), [(1, 0, glass_width // 8, glass_height // 8)], 1)
    part = scn_image("part", (left, top, width, height), [(0, 0, width, height)], 20)
    description = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="c" sizeX="{glass_width * NANOMETRES}" sizeY="{glass_height * NANOMETRES}">'
        f"<barcode>YQ==</barcode>{glass}{part}</collection></scn>"
    )
    options = dict(photometric="rgb", tile=(128, 128), compression="zlib", metadata=None, resolutionunit="CENTIMETER")
    with tifffile.TiffWriter(DATA / "bounds.scn", bigtiff=True) as file:
        resolution = 1e7 / NANOMETRES
        file.write(scanned, description=description, resolution=(resolution, resolution), **options)
        overview = np.full((glass_height // 8, glass_width // 8, 3), 200, np.uint8)
        file.write(overview, resolution=(resolution / 8, resolution / 8), **options)
    on_glass = shapely.affinity.translate(tissue, left, top)
    x, y = np.meshgrid(np.arange(glass_width) + 0.5, np.arange(glass_height) + 0.5)
    write_json(
        "bounds.json",
        {
            "glass": [glass_height, glass_width],
            "bounds": {"row": top, "column": left, "height": height, "width": width},
            "in_bounds": outline,
            "on_level_0": [list(point) for point in on_glass.exterior.coords[:-1]],
            "area": tissue.area,
            "tissue": int(inside.sum()),
            "inside": runs(shapely.contains_xy(on_glass, x, y)),
        },
    )


# ------------------------------------------------------------------------------------------------------------ tissue


def overview(slide):
    rows, columns = slide.shape[0] // 8 * 8, slide.shape[1] // 8 * 8
    blocks = slide[:rows, :columns].reshape(rows // 8, 8, columns // 8, 8, 3)
    return np.round(blocks.mean(axis=(1, 3))).astype(np.uint8)


SQUARE = np.ones((3, 3), bool)


def pen_marks(picture):
    hsv = color.rgb2hsv(picture)
    hue, saturation, value = hsv[..., 0] * 360, hsv[..., 1], hsv[..., 2]
    ink = (hue >= 70) & (hue < 190) & (saturation > 0.2)
    ink |= (hue >= 190) & (hue < 238) & (saturation > 0.4)
    ink |= (value < 0.3) & (saturation < 0.4)
    return morphology.dilation(morphology.opening(ink, SQUARE), SQUARE)


def tissue(picture, pens):
    hsv = color.rgb2hsv(picture)
    saturation = np.floor(hsv[..., 1] * 255 + 0.5).astype(int)
    saturation[hsv[..., 2] < 0.1] = 0
    sums = ndimage.convolve(saturation, np.ones((3, 3), int), mode="nearest")
    saturation = ((sums + 4) // 9).astype(np.uint8)
    marks = pen_marks(picture) if pens else np.zeros(saturation.shape, bool)
    otsu = int(filters.threshold_otsu(saturation[~marks]))
    found = (saturation > np.clip(otsu, 12, 40)) & ~marks
    found = morphology.closing(morphology.opening(found, SQUARE), SQUARE)
    # remove_small_holes also fills bays at the border; holes are what is closed on all sides.
    holes = measure.label(~found, connectivity=1)
    for region in measure.regionprops(holes):
        top, left, bottom, right = region.bbox
        if region.area < 256 and top > 0 and left > 0 and bottom < found.shape[0] and right < found.shape[1]:
            found[holes == region.label] = True
    found = morphology.remove_small_objects(found, max_size=255, connectivity=2)
    return found & ~marks, otsu


def write_mask(name, bits):
    Image.fromarray(bits).convert("1").save(DATA / name, optimize=True)


def tissues(slide):
    small = overview(slide)
    Image.fromarray(small).save(DATA / "overview.png", optimize=True)
    found, otsu = tissue(small, pens=False)
    write_mask("tissue.png", found)
    marked = small.copy()
    marked[40:320, 100:106] = [30, 60, 180]
    marked[200:206, 20:250] = [20, 140, 70]
    Image.fromarray(marked).save(DATA / "overview_pens.png", optimize=True)
    found, otsu_pens = tissue(marked, pens=True)
    write_mask("tissue_pens.png", found)
    write_json("tissue.json", {"otsu": otsu, "otsu_pens": otsu_pens})


# ------------------------------------------------------------------------------------------------------------ stains


def stains(slide):
    source = slide[1500:1628, 800:928]
    target = slide[1900:2028, 1200:1328].astype(float)
    target = np.round(255 * (target / 255) ** [0.8, 1.2, 0.9]).astype(np.uint8)
    Image.fromarray(source).save(DATA / "source.png", optimize=True)
    Image.fromarray(target).save(DATA / "target.png", optimize=True)

    macenko = NumpyMacenkoNormalizer()
    profiles = {}
    for name, picture in [("source", source), ("target", target)]:
        fitted = NumpyMacenkoNormalizer()
        fitted.fit(picture)
        profiles[name] = {"stains": fitted.HERef.T.tolist(), "strongest": fitted.maxCRef.tolist()}
    macenko.fit(target)
    Image.fromarray(macenko.normalize(source, stains=False)[0]).save(DATA / "macenko.png", optimize=True)

    reinhard = NumpyReinhardNormalizer()
    reinhard.fit(target)
    Image.fromarray(reinhard.normalize(source)).save(DATA / "reinhard.png", optimize=True)
    moments = {"mean": [float(x) for x in reinhard.target_means], "deviation": [float(x) for x in reinhard.target_stds]}

    # Every colour of a corner, and the extremes.
    pixels = np.concatenate([source[:12, :12].reshape(-1, 3), [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 0, 255]]])
    pixels = pixels.astype(np.uint8)
    separated = color.rgb2hed(pixels[np.newaxis])[0]
    combined = np.round(color.hed2rgb(separated[np.newaxis])[0] * 255).astype(int)
    hed = {"rgb": pixels.tolist(), "hed": separated.tolist(), "combined": combined.tolist()}
    write_json("stains.json", {"macenko": profiles, "reinhard": {"target": moments}, "hed": hed})


def main():
    DATA.mkdir(exist_ok=True)
    slide = tifffile.imread(sys.argv[1], key=0)
    polygons()
    bounds()
    tissues(slide)
    stains(slide)


if __name__ == "__main__":
    main()
