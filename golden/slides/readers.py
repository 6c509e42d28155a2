"""What other programs see of a pyramid: its levels, finest first, and the edge of a pixel in microns."""

import ctypes
import sys
import warnings

import numpy as np
import openslide_bin
import pyvips
import rasterio
import tifffile
import tiffslide

warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)


class OpenSlide:
    """A library of OpenSlide's, whichever it is: `openslide-python` would choose one."""

    def __init__(self, library):
        c = ctypes
        self.library = library if isinstance(library, c.CDLL) else c.CDLL(library)
        slide, text = c.c_void_p, c.c_char_p
        for name, result, *arguments in [
            ("get_version", text),
            ("open", slide, text),
            ("close", None, slide),
            ("get_error", text, slide),
            ("get_level_count", c.c_int32, slide),
            ("get_level_dimensions", None, slide, c.c_int32, c.POINTER(c.c_int64), c.POINTER(c.c_int64)),
            ("read_region", None, slide, c.c_void_p, c.c_int64, c.c_int64, c.c_int32, c.c_int64, c.c_int64),
            ("get_property_value", text, slide, text),
        ]:
            function = getattr(self.library, f"openslide_{name}")
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        self.name = f"OpenSlide {self.get_version().decode()}"

    def read(self, path):
        slide = self.open(str(path).encode())
        if not slide:
            return [], None
        try:
            return self.levels(slide), self.scale(slide)
        finally:
            self.close(slide)

    def levels(self, slide):
        levels = []
        for level in range(self.get_level_count(slide)):
            width, height = ctypes.c_int64(), ctypes.c_int64()
            self.get_level_dimensions(slide, level, width, height)
            argb = np.zeros((height.value, width.value), "<u4")
            self.read_region(slide, argb.ctypes.data, 0, 0, level, width.value, height.value)
            if self.get_error(slide):
                return levels
            levels.append(argb.view(np.uint8).reshape(*argb.shape, 4)[..., 2::-1])
        return levels

    def scale(self, slide):
        value = self.get_property_value(slide, b"openslide.mpp-x")
        return float(value) if value else None


class Tifffile:
    name = f"tifffile {tifffile.__version__}"

    @staticmethod
    def read(path):
        with tifffile.TiffFile(path) as file:
            x, unit = file.pages[0].tags["XResolution"].value, file.pages[0].tags["ResolutionUnit"].value
            levels = [level.asarray() for level in file.series[0].levels]
            return levels, 10_000 * x[1] / x[0] if unit == 3 else None


class TiffSlide:
    name = f"tiffslide {tiffslide.__version__}"

    @staticmethod
    def read(path):
        with tiffslide.TiffSlide(path) as slide:
            sizes = enumerate(slide.level_dimensions)
            levels = [slide.read_region((0, 0), level, size, as_array=True) for level, size in sizes]
            return levels, slide.properties.get("tiffslide.mpp-x")


class Gdal:
    name = f"GDAL {rasterio.__gdal_version__}"

    @staticmethod
    def read(path):
        with rasterio.open(path) as file:
            count, tags = len(file.overviews(1)), file.tags()
            levels = [np.moveaxis(file.read(), 0, -1)]
        for level in range(count):
            with rasterio.open(path, overview_level=level) as file:
                levels.append(np.moveaxis(file.read(), 0, -1))
        per_centimetre = tags["TIFFTAG_RESOLUTIONUNIT"].startswith("3")
        return levels, 10_000 / float(tags["TIFFTAG_XRESOLUTION"]) if per_centimetre else None


class Libvips:
    """The levels that `vipsthumbnail` chooses among: directories within the first page, or else all pages."""

    name = "libvips " + ".".join(str(pyvips.version(part)) for part in range(3))

    @staticmethod
    def read(path):
        image = pyvips.Image.tiffload(str(path))
        if image.get_typeof("n-subifds"):
            others = [{"subifd": index} for index in range(image.get("n-subifds"))]
        else:
            others = [{"page": index} for index in range(1, image.get("n-pages"))]
        levels = [image, *(pyvips.Image.tiffload(str(path), **which) for which in others)]
        return [level.numpy() for level in levels], 1000 / image.xres


class CuCim:
    def __init__(self):
        import cucim

        self.open, self.name = cucim.CuImage, f"cuCIM {cucim.__version__}"

    def read(self, path):
        image = self.open(str(path))
        sizes = enumerate(image.resolutions["level_dimensions"])
        # Some pixels come with an alpha channel of its own making.
        levels = [np.asarray(image.read_region((0, 0), size, level))[..., :3] for level, size in sizes]
        return levels, float(image.spacing()[0])


class BioFormats:
    """What ImageJ, OMERO and, of what OpenSlide does not open, QuPath read with."""

    TYPES = {"uint8": "u1", "uint16": "u2", "float": "f4"}

    def __init__(self, jar):
        import jpype

        jpype.startJVM(classpath=[jar])
        self.java = jpype.JClass
        self.java("loci.common.DebugTools").setRootLevel("ERROR")
        self.name = f"Bio-Formats {self.java('loci.formats.FormatTools').VERSION}"

    def read(self, path):
        service = self.java("loci.formats.services.OMEXMLService").class_
        metadata = self.java("loci.common.services.ServiceFactory")().getInstance(service).createOMEXMLMetadata()
        reader = self.java("loci.formats.ImageReader")()
        reader.setFlattenedResolutions(False)
        reader.setMetadataStore(metadata)
        reader.setId(str(path))
        levels = []
        for resolution in range(reader.getResolutionCount()):
            reader.setResolution(resolution)
            levels.append(self.plane(reader))
        size = metadata.getPixelsPhysicalSizeX(0)
        reader.close()
        return levels, size and float(size.value(self.java("ome.units.UNITS").MICROMETER))

    def plane(self, reader):
        height, width, channels = reader.getSizeY(), reader.getSizeX(), reader.getRGBChannelCount()
        kind = self.TYPES[str(self.java("loci.formats.FormatTools").getPixelTypeString(reader.getPixelType()))]
        order = "<" if reader.isLittleEndian() else ">"
        samples = np.frombuffer(bytes(reader.openBytes(0)), order + kind)
        if reader.isInterleaved():
            return samples.reshape(height, width, channels)
        return np.moveaxis(samples.reshape(channels, height, width), 0, -1)


def all_readers(jar, system_openslide):
    """Every reader; one that cannot be had is an error."""
    older = OpenSlide(system_openslide)
    if not older.name.startswith("OpenSlide 3.4."):
        sys.exit(f"{system_openslide} is {older.name}; name a library of 3.4.1")
    newer = OpenSlide(openslide_bin.libopenslide1)
    return [older, newer, Tifffile(), TiffSlide(), Gdal(), Libvips(), CuCim(), BioFormats(jar)]
