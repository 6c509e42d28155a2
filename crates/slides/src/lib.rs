//! Whole-slide images through OpenSlide: regions at any microns per pixel, tissue, pyramid writing
//!
//! # Reading
//! [`Slide::open`] opens what OpenSlide reads, and plain PNG, JPEG and TIFF (of 1 to 16 bits a sample; grey, RGB, palettes,
//! YCbCr, CMYK; uncompressed, CCITT Group 4, LZW, Deflate, PackBits, JPEG, ZSTD, WebP). [`Slide::view`] gives the slide at one scale as a
//! [`SlideView`], an image of known size; [`SlideView::read`] fills the caller's RGB buffer with any region of it, background
//! where the region leaves the slide. What holds:
//!
//! - A pixel depends on its coordinates alone: every region is, bit for bit, a part of every larger one. Levels are decoded in
//!   blocks on a fixed grid, and the filter's weights come from the pixel's index.
//! - A level is read as it is; other scales are the exact area average of the nearest finer level.
//! - Decoded blocks are kept in a [`BlockCache`] of bounded size. [`ReadAhead`] decodes a schedule of regions on threads of its
//!   own.
//! - A block that cannot be decoded is a [`SlideError::RegionFailed`] with its place; the rest of the slide stays readable.
//!
//! Positions are `i64`, in the frame that each item names: pixels of a level or of a view, rows before columns.
//!
//! # What is on a slide
//! - [`Mask`]: tissue at low resolution, annotations or a user's own picture; the share of any region costs four look-ups.
//! - [`Annotations`]: ASAP's XML and QuPath's GeoJSON, as labels of pixels and areas in square millimetres. QuPath counts from
//!   the corner of what was scanned, which a [`GeoJsonFrame`] says.
//! - [`ClassMask`] and [`ClassMap`]: classes of pixels, read from pictures and outlined.
//! - [`StainProfile`], by [Macenko](MacenkoProfile) or [Reinhard](ReinhardProfile), and [`separate_hed`]: stains, made alike on
//!   all slides.
//!
//! # Writing
//! [`PyramidWriter`] writes pyramids as tiled TIFF from a stream of rows or tiles, [`DeepZoomWriter`] images for web pages;
//! [`Heatmap`] draws values over a slide and outlines them. Files appear under their name when they are complete.
//!
//! # Building
//! [OpenSlide](https://openslide.org) 3.4.1 or later must be installed with its headers, and `pkg-config` and libclang to
//! bind it: on Debian and Ubuntu `apt-get install libopenslide-dev pkg-config libclang-dev`. The feature `openslide4` adds
//! what only OpenSlide 4 can do: it knows where each format, and each picture that comes with a slide, keeps its colour
//! profile. The feature does not build with 3.4.1; `cargo xtask` finds out which version is installed and passes it on.
//!
//! Where the system has 3.4.1 only, as Debian 12 does, OpenSlide 4 may stand in a folder of its own. PyPI's package
//! `openslide-bin` has the library (to be linked as `lib/libopenslide.so`, too), OpenSlide's source has `openslide.h` and
//! `openslide-features.h`; and `lib/pkgconfig/openslide.pc` says
//!
//! ```text
//! prefix=/opt/openslide
//! Name: openslide
//! Description: OpenSlide
//! Version: 4.0.1
//! Libs: -L${prefix}/lib -lopenslide
//! Cflags: -I${prefix}/include/openslide
//! ```
//!
//! Then `PKG_CONFIG_PATH=/opt/openslide/lib/pkgconfig LD_LIBRARY_PATH=/opt/openslide/lib cargo xtask test` builds with it
//! and runs with it.
//!
//! # Examples
//! The [`guide`] goes through all of it. As programs, with a slide of your own (`cargo run --example NAME -- SLIDE ...`):
//! `thumbnail`, `tissue_mask`, `patches` (a grid of PNGs), `heatmap` (a map of values over the slide), and for many slides
//! `batch`, which skips and names bad ones and goes on where it was stopped.

mod annotation;
mod bad_regions;
mod bands;
mod cache;
mod class_map;
mod class_mask;
mod color_profile;
mod deep_zoom;
mod error;
mod files;
mod geometry;
mod heatmap;
mod levels;
mod list;
mod mask;
mod numbers;
mod open;
mod openslide_source;
mod options;
mod origin;
mod outlines;
mod properties;
mod raster;
mod read_ahead;
mod reading;
mod resample;
mod slide;
mod stain;
mod stored_colors;
mod table;
mod tiff_pages;
mod tissue;
mod view;
mod warning;
mod write;
mod written_rows;

/// A short guide.
#[doc = include_str!("guide.md")]
pub mod guide {}

pub use annotation::{
    Annotation, AnnotationFile, AnnotationOptions, Annotations, GeoJsonFrame, LabelMap, PassedOver,
    Shape, Strictness,
};
pub use bad_regions::{BadRegion, BadRegionLog, BadRegionPolicy};
pub use cache::BlockCache;
pub use class_map::ClassMap;
pub use class_mask::{ClassMask, StatedScale};
pub use deep_zoom::{DeepZoomFormat, DeepZoomOptions, DeepZoomWriter};
pub use error::{Result, SlideError};
pub use geo;
pub use geometry::{Extent, Level, MicronsPerPixel, PixelScale, Region, Rgb};
pub use heatmap::{ColorMap, Heatmap, HeatmapStyle};
pub use levels::LevelGeometry;
pub use list::{ListedSlide, is_slide_name, slides_in_folder, slides_in_table};
pub use mask::Mask;
pub use options::{ColorManagement, Limits, OpenOptions};
pub use properties::Properties;
pub use read_ahead::{ReadAhead, ReadAheadOptions};
pub use slide::Slide;
pub use stain::{
    HedJitter, MacenkoOptions, MacenkoProfile, ReinhardProfile, StainMethod, StainNormalizer,
    StainProfile, TissueSample, combine_hed, sample_tissue, separate_hed,
};
pub use table::{
    CopyKind, FurtherCell, SlideColumns, SlideCopy, SlideRow, SlideTable, TextRow, TextTable,
    find_copies, quick_identity,
};
pub use tissue::{PenMarks, TissueOptions};
pub use view::{SlideView, Target};
pub use warning::SlideWarning;
pub use write::{
    ColorModel, Compression, PyramidLayout, PyramidOptions, PyramidWriter, Reduction, Sample,
    TiffKind,
};
