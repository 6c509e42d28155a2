//! In which pages of the file the levels lie.

/// In which pages of a TIFF file the levels of a pyramid lie, and so which programs see them.
///
/// Each program looks for levels in its own way. This is what they see of the three levels of a file with a scale, in classic
/// and BigTIFF, compressed by Deflate, LZW and, of bytes, JPEG. `golden/slides/layouts.py` measures it, comparing every level
/// with the pixels that were written: exactly, by the mean error where JPEG is lossy, and to a 255th where `u16` is read as bytes:
///
/// | layout | pixels | OpenSlide 3.4.1 | OpenSlide 4.0.1 | tifffile 2026.3.3 | tiffslide 3.0.1 | GDAL 3.10.3 | libvips 8.18.7 | cuCIM 26.10.00 | Bio-Formats 7.3.1 |
/// |---|---|---|---|---|---|---|---|---|---|
/// | `Aperio` | RGB bytes | all | all | all | all | all | all | all | all |
/// | `Aperio` | RGB bytes, JPEG of quality 90 or more | all | all | all | all | all | all | all | wrong |
/// | `Aperio` | grey bytes | all | all | all | all | all | all | all (6 of 8); none (2 of 8) | all |
/// | `Aperio` | RGB `u16` | all | all | all | all | all | all | all (2 of 4); none (2 of 4) | all |
/// | `Aperio` | grey `u16` | all | wrong | all | all | all | all | none (2 of 4); wrong (2 of 4) | all |
/// | `Aperio` | `f32` | none | none | all | all | all | all | none | all |
/// | `Plain` | RGB bytes | all, no scale | all | all | all | all | all | all | first |
/// | `Plain` | RGB bytes, JPEG of quality 90 or more | all, no scale | all | all | all | all | all | all | wrong |
/// | `Plain` | grey bytes | all, no scale | all | all | all | all | all | all (6 of 8); none (2 of 8) | first |
/// | `Plain` | RGB `u16` | all, no scale | all | all | all | all | all | all (2 of 4); none (2 of 4) | first |
/// | `Plain` | grey `u16` | all, no scale | wrong | all | all | all | all | none (2 of 4); wrong (2 of 4) | first |
/// | `Plain` | `f32` | none | none | all | all | all | all | none | first |
/// | `OmeTiff` | RGB bytes | first, no scale | first | all | all | all | all | first | all |
/// | `OmeTiff` | RGB bytes, JPEG of quality 90 or more | first, no scale | first | all | all | all | all | first | wrong |
/// | `OmeTiff` | grey bytes | first, no scale | first | all | all | all | all | first (6 of 8); none (2 of 8) | all |
/// | `OmeTiff` | RGB `u16` | first, no scale | first | all | all | all | all | first (2 of 4); none (2 of 4) | all |
/// | `OmeTiff` | grey `u16` | first, no scale | wrong | all | all | all | all | none (2 of 4); wrong (2 of 4) | all |
/// | `OmeTiff` | `f32` | none | none | all | all | all | all | none | all |
///
/// *All* levels or the *first*, which is the finest; *wrong* pixels; or *none*: an error.
///
/// - *No scale*: OpenSlide 3.4.1 makes none of a resolution, but hands it on, and [`Slide`](crate::Slide) takes it from there.
/// - `f32`: OpenSlide opens such files and then fails at every read.
/// - Grey `u16`: the library for TIFF that comes with OpenSlide 4.0.1 garbles tiles that the right edge of the image cuts;
///   [`Slide`](crate::Slide) does not read these through it.
/// - JPEG of quality 90 or more has all its colours in full resolution, and Bio-Formats turns these into RGB twice. For it take
///   a lower quality or [`Deflate`](crate::Compression::Deflate).
/// - cuCIM opens neither grey pixels nor `u16` that are compressed by Deflate, and garbles grey `u16` compressed by LZW.
/// - QuPath reads through OpenSlide 4 what that opens, and the rest through Bio-Formats; it was not run itself.
/// - libvips was asked to read TIFF by itself; where it is built with OpenSlide it may read through that. Of levels within a page
///   it never takes the finest for a thumbnail: those of more than half the slide's size come from the first overview.
///
/// # Examples
/// ```
/// use stream_grad_slides::{ColorModel, Compression, PyramidLayout, PyramidOptions};
/// // A map of `f32` for programs that read by Bio-Formats.
/// let options = PyramidOptions::default()
///     .with_layout(PyramidLayout::OmeTiff)
///     .with_color(ColorModel::Gray)
///     .with_compression(Compression::Deflate);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PyramidLayout {
    /// An Aperio slide as its scanners write it, and the overviews once more for those who look elsewhere: every program of
    /// the table finds all levels and the scale.
    ///
    /// The pages are the finest level, a thumbnail in one strip that is smaller than every level, and the overviews, each with
    /// an Aperio description and none flagged as an overview: tifffile, tiffslide and Bio-Formats take a flagged page for a
    /// label. Bio-Formats wants a description on every page, and the thumbnail to be the smallest; tifffile takes the second
    /// page for a thumbnail, whatever it is. GDAL looks for flagged overviews alone and libvips for pages that are halves of
    /// those before: both find, among the first page's SubIFDs, directories that are flagged and share the tiles of the
    /// overviews. Programs that change tiles in place would have to know that; those that read need not.
    ///
    /// An image of one level has neither thumbnail nor SubIFDs. Without a scale and an objective power there is nothing that
    /// a description could say, and the file is written as [`Plain`](Self::Plain).
    #[default]
    Aperio,
    /// A pyramidal TIFF as libtiff's tools, GDAL and libvips write it: the levels are the pages, overviews are flagged as such,
    /// and the scale is the resolution. The objective power is written nowhere.
    Plain,
    /// An OME-TIFF: one page with the metadata of OME, its scale and objective power among it, and the overviews among its
    /// SubIFDs, where neither OpenSlide nor cuCIM looks for levels. Its name ends, by custom, in `.ome.tif` or `.ome.tiff`.
    OmeTiff,
}
