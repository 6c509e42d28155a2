//! Pixels of tissue from all over a slide.

use serde::{Deserialize, Serialize};

use crate::error::{Result, SlideError};
use crate::geometry::{MicronsPerPixel, Region};
use crate::mask::Mask;
use crate::numbers::to_usize;
use crate::slide::Slide;
use crate::view::Target;

/// Edge of the regions that are read.
const EDGE: i64 = 256;

/// How many pixels to take, and at which scale.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TissueSample {
    /// Scale at which pixels are taken: 2 microns per pixel by default. A slide without a scale is read as it is.
    pub microns_per_pixel: MicronsPerPixel,
    /// Regions of 256 x 256 pixels that are read at most: 256 by default.
    pub regions: usize,
    /// Pixels that are taken at most: 500,000 by default.
    pub pixels: usize,
}

impl Default for TissueSample {
    fn default() -> Self {
        Self {
            microns_per_pixel: MicronsPerPixel::TWO,
            regions: 256,
            pixels: 500_000,
        }
    }
}

/// Takes pixels of tissue: from regions spread evenly over the tissue, and evenly within them. The same every time.
///
/// Returns RGB, `pixels x 3`; none where there is no tissue.
///
/// # Errors
/// [`SlideError::InvalidArgument`] if no regions or pixels are wanted, [`SlideError::RegionFailed`].
pub fn sample_tissue(slide: &Slide, mask: &Mask, options: &TissueSample) -> Result<Vec<u8>> {
    if options.regions == 0 || options.pixels == 0 {
        return Err(SlideError::InvalidArgument {
            what: "a sample of tissue",
            expected: "of at least one region and one pixel",
            found: format!("{options:?}"),
        });
    }
    let view = slide.view(match slide.scale() {
        Ok(_) => Target::MicronsPerPixel(options.microns_per_pixel),
        Err(_) => Target::Downsample(1.0),
    })?;
    let whole = view.extent().region();
    let step = to_usize(EDGE.unsigned_abs());
    let mut regions: Vec<Region> = Vec::new();
    for top in (whole.rows.start..whole.rows.end).step_by(step) {
        for left in (whole.columns.start..whole.columns.end).step_by(step) {
            let region = Region::new(top..top + EDGE, left..left + EDGE).intersection(&whole);
            if mask.share_in(&view, &region) > 0.0 {
                regions.push(region);
            }
        }
    }
    let every = regions.len().div_ceil(options.regions).max(1);
    let mut pixels = Vec::new();
    let mut rgb = Vec::new();
    for region in regions.into_iter().step_by(every) {
        rgb.resize(to_usize(region.height() * region.width() * 3), 0);
        view.read(&region, &mut rgb)?;
        let width = to_usize(region.width());
        for (row, line) in region.rows.clone().zip(rgb.chunks_exact(width * 3)) {
            for (column, pixel) in region.columns.clone().zip(line.chunks_exact(3)) {
                if mask.holds(&view, row, column) {
                    pixels.extend_from_slice(pixel);
                }
            }
        }
    }
    Ok(thinned(pixels, options.pixels))
}

/// At most `limit` pixels, evenly chosen.
fn thinned(pixels: Vec<u8>, limit: usize) -> Vec<u8> {
    let every = (pixels.len() / 3).div_ceil(limit).max(1);
    if every == 1 {
        return pixels;
    }
    pixels
        .chunks_exact(3)
        .step_by(every)
        .flatten()
        .copied()
        .collect()
}
