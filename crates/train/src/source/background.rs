//! What is shown where a slide has no tissue.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stream_grad::tiling::{Fraction, Reuse};
use stream_grad_slides::{Mask, Region, Rgb, SlideError, SlideView};

/// What is shown where a slide has no tissue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Background {
    /// What was scanned.
    #[default]
    AsRead,
    /// One colour.
    Fill,
}

impl Background {
    /// Which tiles need not be computed: where the background is filled, those of one colour.
    #[must_use]
    pub const fn reuse(self) -> Reuse {
        match self {
            Self::AsRead => Reuse::Nothing,
            Self::Fill => Reuse::OneColor,
        }
    }
}

/// The share of a slide that is taken not to be filled where it is not known, so that recipes depend on the sizes of images alone: a
/// quarter.
#[must_use]
pub fn typical_texture() -> Fraction {
    Fraction::new(1, 4)
}

/// By so many pixels of the mask of tissue, 64 microns, slides are shown as they are beyond it.
const MARGIN: usize = 8;

/// The colour of what has no tissue, which is not decoded. What it does to a pixel depends on the pixel's place on the slide alone.
#[derive(Debug, Clone)]
pub(super) struct Filling {
    tissue: Arc<Mask>,
    color: Rgb,
}

impl Filling {
    /// Fills what lies further than the margin from all tissue; nothing where there is no tissue.
    pub(super) fn new(tissue: &Mask, color: Rgb) -> Option<Self> {
        tissue.bounding_box()?;
        Some(Self {
            tissue: Arc::new(tissue.grown(MARGIN)),
            color,
        })
    }

    pub(super) const fn color(&self) -> Rgb {
        self.color
    }

    /// The share of a view that is not filled.
    pub(super) fn texture(&self, view: &SlideView) -> Fraction {
        const PARTS: u32 = 1_000_000;
        let share = self.tissue.share_in(view, &view.extent().region());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share lies from 0 to 1"
        )]
        let parts = (share * f64::from(PARTS)).ceil() as u32;
        Fraction::new(parts.into(), PARTS.into())
    }

    /// Heap bytes of the mask: a bit of each pixel in a byte, and a sum.
    pub(super) fn bytes(&self) -> u64 {
        let extent = self.tissue.extent();
        extent.height.saturating_mul(extent.width).saturating_mul(9)
    }

    /// The part of a region that has to be decoded; none if all of it is filled.
    pub(super) fn decoded(&self, view: &SlideView, region: &Region) -> Option<Region> {
        self.tissue.part_in(view, region)
    }

    /// The pixels of a region, `height x width x 3`, of which `read` decodes a part.
    pub(super) fn read(
        &self,
        view: &SlideView,
        region: &Region,
        rgb: &mut [u8],
        read: impl FnOnce(&Region, &mut [u8]) -> Result<(), SlideError>,
    ) -> Result<(), SlideError> {
        let part = self.decoded(view, region);
        if part.as_ref() == Some(region) {
            read(region, rgb)?;
            return self.tissue.fill_others(view, region, self.color, rgb);
        }
        fill(rgb, self.color);
        let Some(part) = part else {
            return Ok(());
        };
        let length = |pixels: u64| usize::try_from(pixels).unwrap_or(usize::MAX);
        let row = length(part.width()) * 3;
        let mut decoded = vec![0; length(part.height()) * row];
        read(&part, &mut decoded)?;
        self.tissue
            .fill_others(view, &part, self.color, &mut decoded)?;
        // The part lies inside the region.
        let down = (part.rows.start - region.rows.start).unsigned_abs();
        let across = (part.columns.start - region.columns.start).unsigned_abs();
        let pitch = length(region.width()) * 3;
        let first = length(down) * pitch + length(across) * 3;
        for (from, to) in decoded
            .chunks_exact(row)
            .zip(rgb[first..].chunks_mut(pitch))
        {
            to[..row].copy_from_slice(from);
        }
        Ok(())
    }
}

fn fill(rgb: &mut [u8], color: Rgb) {
    for pixel in rgb.chunks_exact_mut(3) {
        pixel.copy_from_slice(&color.0);
    }
}
