//! What a caller chooses about a pyramid.

use std::path::Path;

use super::encode::{ColorModel, Compression, check_quality};
use super::layout::PyramidLayout;
use crate::error::{Result, SlideError};
use crate::geometry::{Extent, MicronsPerPixel};

/// Which kind of TIFF file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TiffKind {
    /// BigTIFF where the pixels, uncompressed, could pass 4 GiB; else classic.
    #[default]
    Automatic,
    /// 32-bit offsets: at most 4 GiB.
    Classic,
    /// 64-bit offsets.
    Big,
}

/// How four pixels become one of the next level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// Their mean.
    #[default]
    Mean,
    /// The upper left one: for classes, which have no mean.
    Nearest,
}

/// How to write a pyramid.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PyramidOptions {
    /// How tiles are compressed: JPEG of quality 90 by default.
    pub compression: Compression,
    /// Whether pixels have colours: RGB by default.
    pub color: ColorModel,
    /// Edge of the tiles, a multiple of 16: 256 by default.
    pub tile_edge: u32,
    /// How a level is made of the one before: by means by default.
    pub reduction: Reduction,
    /// Which kind of TIFF file.
    pub kind: TiffKind,
    /// In which pages the levels lie, and so which programs see them: that of an Aperio slide by default.
    pub layout: PyramidLayout,
    /// Edge of a pixel of the finest level.
    pub microns_per_pixel: Option<MicronsPerPixel>,
    /// Magnification of the objective.
    pub objective_power: Option<f64>,
    /// ICC profile of the colours, to be passed on as it is.
    pub icc_profile: Option<Vec<u8>>,
}

impl Default for PyramidOptions {
    fn default() -> Self {
        Self {
            compression: Compression::Jpeg { quality: 90 },
            color: ColorModel::Rgb,
            tile_edge: 256,
            reduction: Reduction::Mean,
            kind: TiffKind::Automatic,
            layout: PyramidLayout::Aperio,
            microns_per_pixel: None,
            objective_power: None,
            icc_profile: None,
        }
    }
}

impl PyramidOptions {
    /// Sets the compression of the tiles.
    #[must_use]
    pub const fn with_compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Sets whether pixels have colours.
    #[must_use]
    pub const fn with_color(mut self, color: ColorModel) -> Self {
        self.color = color;
        self
    }

    /// Sets the edge of the tiles.
    #[must_use]
    pub const fn with_tile_edge(mut self, tile_edge: u32) -> Self {
        self.tile_edge = tile_edge;
        self
    }

    /// Sets how a level is made of the one before.
    #[must_use]
    pub const fn with_reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    /// Sets the kind of TIFF file.
    #[must_use]
    pub const fn with_kind(mut self, kind: TiffKind) -> Self {
        self.kind = kind;
        self
    }

    /// Sets the layout of the pages.
    #[must_use]
    pub const fn with_layout(mut self, layout: PyramidLayout) -> Self {
        self.layout = layout;
        self
    }

    /// Sets the scale.
    #[must_use]
    pub const fn with_microns_per_pixel(mut self, edge: MicronsPerPixel) -> Self {
        self.microns_per_pixel = Some(edge);
        self
    }

    /// Sets the magnification of the objective.
    #[must_use]
    pub const fn with_objective_power(mut self, power: f64) -> Self {
        self.objective_power = Some(power);
        self
    }

    /// Passes on an ICC profile.
    #[must_use]
    pub fn with_icc_profile(mut self, profile: Vec<u8>) -> Self {
        self.icc_profile = Some(profile);
        self
    }

    /// The layout in which the file is written: of nothing known there is no description to write.
    pub(super) fn page_layout(&self) -> PyramidLayout {
        let says_nothing = self.microns_per_pixel.is_none() && self.objective_power.is_none();
        match self.layout {
            PyramidLayout::Aperio if says_nothing => PyramidLayout::Plain,
            layout => layout,
        }
    }
}

/// Refuses what cannot be written at all.
pub(super) fn check_options(path: &Path, extent: Extent, options: &PyramidOptions) -> Result<()> {
    if extent.region().is_empty() {
        return Err(SlideError::InvalidArgument {
            what: "the image's extent",
            expected: "at least one pixel",
            found: extent.to_string(),
        });
    }
    let longest = extent.height.max(extent.width);
    let limit = u64::from(u32::MAX >> 1);
    if longest > limit {
        return Err(SlideError::LimitExceeded {
            path: path.to_path_buf(),
            what: "the longest side, in pixels,",
            needed: longest,
            limit,
        });
    }
    if options.tile_edge == 0 || !options.tile_edge.is_multiple_of(16) || options.tile_edge > 32_768
    {
        return Err(SlideError::InvalidArgument {
            what: "the edge of tiles",
            expected: "a multiple of 16 from 16 to 32768",
            found: options.tile_edge.to_string(),
        });
    }
    if let Some(power) = options
        .objective_power
        .filter(|power| !power.is_finite() || *power <= 0.0)
    {
        return Err(SlideError::InvalidScale {
            quantity: "objective power",
            found: power,
        });
    }
    match options.compression {
        Compression::Jpeg { quality } => check_quality(quality),
        Compression::Deflate | Compression::Lzw => Ok(()),
    }
}
