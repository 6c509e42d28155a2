//! Whole-slide images through OpenSlide: regions at any microns per pixel, tissue, pyramid writing
//!
//! # Building
//! [OpenSlide](https://openslide.org) 3.4.1 or later must be installed with its headers, and `pkg-config` and libclang to
//! bind it: on Debian and Ubuntu `apt-get install libopenslide-dev pkg-config libclang-dev`.

mod bands;
mod cache;
mod error;
mod geometry;
mod openslide_source;
mod properties;
mod raster;
mod read_ahead;
mod resample;
mod slide;
mod tissue;
mod view;
mod write;

pub use cache::BlockCache;
pub use error::{Result, SlideError};
pub use geometry::{Extent, Level, MicronsPerPixel, PixelScale, Region, Rgb};
pub use properties::Properties;
pub use read_ahead::{ReadAhead, ReadAheadOptions};
pub use slide::{LevelGeometry, Limits, OpenOptions, Slide};
pub use tissue::{PenMarks, TissueMask, TissueOptions};
pub use view::{SlideView, Target};
pub use write::{Compression, PyramidOptions, PyramidWriter, TiffKind};
