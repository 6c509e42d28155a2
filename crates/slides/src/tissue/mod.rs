//! Where the tissue is.

mod colour;
mod morphology;

use image::{GrayImage, Luma, RgbImage};

use crate::error::Result;
use crate::geometry::{Extent, MicronsPerPixel, Region};
use crate::resample::float;
use crate::slide::Slide;
use crate::view::{SlideView, Target};

use morphology::Bitmap;

/// Longest side of the mask of a slide without a scale.
const UNSCALED_SIDE: u64 = 2048;

/// How tissue is found. The defaults suit H&E sections.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TissueOptions {
    /// Scale of the mask: 8 microns per pixel by default. A slide without a scale is reduced to 2048 pixels.
    pub microns_per_pixel: MicronsPerPixel,
    /// Gaps up to twice so many mask pixels are closed, and specks thinner than that removed: 1 by default.
    pub smoothing: usize,
    /// Pieces of tissue with fewer mask pixels are dropped: 256 by default, 0.016 square millimetres at 8 microns.
    pub minimum_area: usize,
    /// Holes with fewer mask pixels are filled: 256 by default.
    pub filled_holes: usize,
    /// What to do about marks of pens.
    pub pens: PenMarks,
}

impl Default for TissueOptions {
    fn default() -> Self {
        Self {
            microns_per_pixel: MicronsPerPixel::EIGHT,
            smoothing: 1,
            minimum_area: 256,
            filled_holes: 256,
            pens: PenMarks::Exclude,
        }
    }
}

/// What to do about blue, green and black marks of pens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PenMarks {
    /// They are no tissue, nor is what lies within a pixel of them.
    #[default]
    Exclude,
    /// They count as what their saturation makes them.
    Ignore,
}

/// A map of tissue at low resolution.
///
/// A pixel is tissue where its saturation (of HSV, after a 3 x 3 mean) is above Otsu's threshold (Otsu 1979), which is kept
/// between 0.05 and 0.16 so that neither bare glass nor a slide full of tissue is split in two. The map is then
/// cleaned: opened and closed by a square, small holes filled, small pieces dropped, marks of pens left out.
///
/// # Examples
/// ```
/// use stream_grad_slides::{Extent, OpenOptions, Slide, TissueMask, TissueOptions};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // A pink square on glass.
/// let mut rgb = vec![245; 200 * 200 * 3];
/// for row in 50..150 {
///     for column in 60..160 {
///         let start = (row * 200 + column) * 3;
///         rgb[start..start + 3].copy_from_slice(&[220, 130, 180]);
///     }
/// }
/// let slide = Slide::from_rgb("memory", Extent { height: 200, width: 200 }, rgb, &OpenOptions::default())?;
/// let mask = TissueMask::of(&slide, &TissueOptions::default())?;
/// assert!((mask.share() - 0.25).abs() < 0.01);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TissueMask {
    bitmap: Bitmap,
    /// Level-0 pixels per mask pixel, (vertical, horizontal).
    downsample: (f64, f64),
    /// Number of tissue pixels above and left of each corner of the grid: (height + 1) x (width + 1).
    sums: Vec<u64>,
}

impl TissueMask {
    /// Finds the tissue of a whole slide.
    ///
    /// # Errors
    /// [`SlideError::RegionFailed`](crate::SlideError::RegionFailed),
    /// [`SlideError::LimitExceeded`](crate::SlideError::LimitExceeded) for a picture of the slide beyond the limits.
    pub fn of(slide: &Slide, options: &TissueOptions) -> Result<Self> {
        let longest = slide.extent().height.max(slide.extent().width);
        let target = match slide.scale() {
            Ok(_) => Target::MicronsPerPixel(options.microns_per_pixel),
            Err(_) => Target::Downsample((float(longest) / float(UNSCALED_SIDE)).max(1.0)),
        };
        let view = slide.view(target)?;
        Ok(Self::from_picture(
            &view.to_image()?,
            view.downsample(),
            options,
        ))
    }

    /// Finds the tissue in a picture of which each pixel stands for `downsample` (vertical, horizontal) level-0 pixels.
    #[must_use]
    pub fn from_picture(
        picture: &RgbImage,
        downsample: (f64, f64),
        options: &TissueOptions,
    ) -> Self {
        let mut tissue = colour::saturated(picture, options.pens);
        tissue.open(options.smoothing);
        tissue.close(options.smoothing);
        tissue.fill_holes(options.filled_holes);
        tissue.drop_pieces(options.minimum_area);
        if options.pens == PenMarks::Exclude {
            // Closing and filling may have grown back over a mark.
            tissue.subtract(&colour::pen_marks(picture));
        }
        Self::from_bitmap(tissue, downsample)
    }

    fn from_bitmap(bitmap: Bitmap, downsample: (f64, f64)) -> Self {
        let sums = bitmap.summed();
        Self {
            bitmap,
            downsample,
            sums,
        }
    }

    /// Size of the mask.
    #[must_use]
    pub fn extent(&self) -> Extent {
        let wide = |side: usize| u64::try_from(side).unwrap_or(u64::MAX);
        Extent {
            height: wide(self.bitmap.height()),
            width: wide(self.bitmap.width()),
        }
    }

    /// Level-0 pixels per mask pixel, (vertical, horizontal).
    #[must_use]
    pub const fn downsample(&self) -> (f64, f64) {
        self.downsample
    }

    /// Whether a mask pixel is tissue; outside the mask nothing is.
    #[must_use]
    pub fn is_tissue(&self, row: u64, column: u64) -> bool {
        let side = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        self.bitmap.get(side(row), side(column))
    }

    /// Share of the slide that is tissue, from 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        let Extent { height, width } = self.extent();
        self.count(0.0..float(height), 0.0..float(width)) / (float(height) * float(width)).max(1.0)
    }

    /// Share of a region of `view` that is tissue, from 0 to 1; the parts outside the slide count as none.
    ///
    /// `view` must be a view of the slide of this mask. Mask pixels that the region cuts count by the part inside.
    #[must_use]
    pub fn share_in(&self, view: &SlideView, region: &Region) -> f64 {
        if region.is_empty() {
            return 0.0;
        }
        let (rows, columns) = self.to_mask(view, region);
        let area = (rows.end - rows.start) * (columns.end - columns.start);
        (self.count(rows, columns) / area).clamp(0.0, 1.0)
    }

    /// The smallest rectangle of mask pixels with all tissue; none where there is no tissue.
    #[must_use]
    pub fn bounding_box(&self) -> Option<Region> {
        self.bitmap.bounding_box()
    }

    /// The bounding box in pixels of `view`, rounded outwards and cut to the view.
    #[must_use]
    pub fn bounding_box_in(&self, view: &SlideView) -> Option<Region> {
        let found = self.bounding_box()?;
        let origin = view.to_level_0(0.0, 0.0);
        let (row_step, column_step) = view.downsample();
        let to_view = |span: std::ops::Range<i64>, mask_step: f64, origin: f64, step: f64| {
            let place = |position: i64| (position_to_float(position) * mask_step - origin) / step;
            floor(place(span.start))..floor(place(span.end).ceil())
        };
        let outward = Region::new(
            to_view(found.rows, self.downsample.0, origin.0, row_step),
            to_view(found.columns, self.downsample.1, origin.1, column_step),
        );
        let inside = outward.intersection(&view.extent().region());
        (!inside.is_empty()).then_some(inside)
    }

    /// The mask as a picture: 255 is tissue, 0 is none.
    #[must_use]
    pub fn to_image(&self) -> GrayImage {
        let side = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let index = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
        GrayImage::from_fn(
            side(self.bitmap.width()),
            side(self.bitmap.height()),
            |x, y| {
                Luma([if self.bitmap.get(index(y), index(x)) {
                    u8::MAX
                } else {
                    0
                }])
            },
        )
    }

    /// A region of a view in mask pixels.
    fn to_mask(
        &self,
        view: &SlideView,
        region: &Region,
    ) -> (std::ops::Range<f64>, std::ops::Range<f64>) {
        let corner = |row: i64, column: i64| {
            view.to_level_0(position_to_float(row), position_to_float(column))
        };
        let (top, left) = corner(region.rows.start, region.columns.start);
        let (bottom, right) = corner(region.rows.end, region.columns.end);
        (
            top / self.downsample.0..bottom / self.downsample.0,
            left / self.downsample.1..right / self.downsample.1,
        )
    }

    /// Area of tissue in a rectangle, in mask pixels.
    fn count(&self, rows: std::ops::Range<f64>, columns: std::ops::Range<f64>) -> f64 {
        self.sum_to(rows.end, columns.end)
            - self.sum_to(rows.start, columns.end)
            - self.sum_to(rows.end, columns.start)
            + self.sum_to(rows.start, columns.start)
    }

    /// Area of tissue above and left of a point. Between the corners of the grid the sum is bilinear, exactly.
    fn sum_to(&self, row: f64, column: f64) -> f64 {
        let stride = self.bitmap.width() + 1;
        let (top, down) = split(row, self.bitmap.height());
        let (left, across) = split(column, self.bitmap.width());
        let at = |r: usize, c: usize| self.sums.get(r * stride + c).copied().map_or(0.0, float);
        let (bottom, right) = (
            (top + 1).min(self.bitmap.height()),
            (left + 1).min(self.bitmap.width()),
        );
        let upper = at(top, left) * (1.0 - across) + at(top, right) * across;
        let lower = at(bottom, left) * (1.0 - across) + at(bottom, right) * across;
        upper * (1.0 - down) + lower * down
    }
}

/// The whole and the broken part of a position, kept within `0..=side`.
fn split(position: f64, side: usize) -> (usize, f64) {
    let limit = float(u64::try_from(side).unwrap_or(u64::MAX));
    let position = position.clamp(0.0, limit);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the side of a bitmap in memory"
    )]
    let whole = position as usize;
    (whole, position - position.floor())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "positions on slides are below 2^53"
)]
fn position_to_float(position: i64) -> f64 {
    position as f64
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a position that saturates far outside any slide"
)]
fn floor(position: f64) -> i64 {
    position.floor() as i64
}

#[cfg(test)]
mod tests;
