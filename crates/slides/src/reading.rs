//! Pixels of a slide: by level, or at any scale.

use image::RgbImage;

use crate::bands::{Parallelism, read_blocks};
use crate::error::{Result, SlideError, check_rgb_length};
use crate::geometry::{Extent, Level, MicronsPerPixel, Region};
use crate::numbers::float;
use crate::slide::Slide;
use crate::view::{SlideView, Target};

impl Slide {
    /// Reads pixels of one level as they are, composited on the background.
    ///
    /// # Shapes
    /// `region`: pixels of `level`, may lie outside; `rgb`: `height x width x 3` of the region.
    ///
    /// # Errors
    /// [`SlideError::NoSuchLevel`], [`SlideError::BufferLength`], [`SlideError::RegionFailed`].
    pub fn read_level(&self, level: Level, region: &Region, rgb: &mut [u8]) -> Result<()> {
        check_rgb_length(region.height(), region.width(), rgb.len())?;
        let inside = region.intersection(&self.level(level)?.extent.region());
        read_blocks(self, level, region, &inside, rgb, Parallelism::Rayon)
    }

    /// Reads pixels at any scale; the same as [`SlideView::read`] of [`view`](Self::view).
    ///
    /// # Shapes
    /// `region`: pixels of the slide at `edge` microns per pixel, may lie outside; `rgb`: `height x width x 3` of the region.
    ///
    /// # Errors
    /// [`SlideError::NoScale`], [`SlideError::BufferLength`], [`SlideError::RegionFailed`].
    pub fn read_at(&self, edge: MicronsPerPixel, region: &Region, rgb: &mut [u8]) -> Result<()> {
        self.view(Target::MicronsPerPixel(edge))?.read(region, rgb)
    }

    /// The slide as one image of a known size at the scale that is asked for.
    ///
    /// # Errors
    /// [`SlideError::NoScale`], [`SlideError::NoSuchLevel`], [`SlideError::InvalidScale`].
    pub fn view(&self, target: Target) -> Result<SlideView> {
        SlideView::new(self.clone(), target)
    }

    /// The whole slide, reduced to fit into `edge x edge` pixels (never enlarged).
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] for an edge of zero, [`SlideError::RegionFailed`].
    pub fn thumbnail(&self, edge: u32) -> Result<RgbImage> {
        let downsample = downsample_to_fit(self.extent(), edge)?;
        self.view(Target::Downsample(downsample))?.to_image()
    }

    /// What was scanned (the slide's [`bounds`](crate::Properties::bounds), or all of it) reduced to fit into about `edge x edge` pixels,
    /// never enlarged: to look at, and to draw a [`Heatmap`](crate::Heatmap) over.
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] for an edge of zero, or bounds that lie outside of the slide.
    pub fn overview(&self, edge: u32) -> Result<SlideView> {
        let scanned = self
            .view(Target::Level(Level::FINEST))?
            .cropped_to_bounds()?;
        self.view(Target::Downsample(downsample_to_fit(
            scanned.extent(),
            edge,
        )?))?
        .cropped_to_bounds()
    }
}

/// How much a picture is reduced to fit into `edge x edge` pixels.
fn downsample_to_fit(picture: Extent, edge: u32) -> Result<f64> {
    if edge == 0 {
        return Err(SlideError::InvalidArgument {
            what: "the edge of a thumbnail or an overview",
            expected: "at least 1",
            found: edge.to_string(),
        });
    }
    let longest = picture.height.max(picture.width);
    Ok((float(longest) / f64::from(edge)).max(1.0))
}
