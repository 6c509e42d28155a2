//! Maps of a slide at low resolution: tissue, annotations, what a user drew.

mod file;
pub(crate) mod morphology;
mod others;

use std::ops::Range;

use image::{GrayImage, Luma};

use crate::error::{Result, SlideError};
use crate::geometry::{Extent, Region};
use crate::numbers::{float, floor, index, position, to_usize, whole, wide};
use crate::slide::Slide;
use crate::view::SlideView;

pub(crate) use file::MaskFile;
use morphology::Bitmap;

/// A yes or no for each pixel of a slide at low resolution. Masks of slides and pictures of them cover all of level 0, whatever
/// bounds the slide has.
///
/// Made of tissue by [`of_tissue`](Self::of_tissue), of annotations by [`LabelMap::mask_of`](crate::LabelMap::mask_of) and
/// of any picture by [`from_picture`](Self::from_picture). The share of any region of any view costs four look-ups.
///
/// # Examples
/// ```
/// use stream_grad_slides::{Extent, Mask, OpenOptions, Region, Slide, Target};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let extent = Extent { height: 100, width: 200 };
/// let slide = Slide::from_rgb("memory", extent, vec![200; 100 * 200 * 3], &OpenOptions::default())?;
/// // A picture of 1 x 2 pixels, of which the right one is set: the right half of the slide.
/// let picture = image::GrayImage::from_raw(2, 1, vec![0, 1]).ok_or("a picture")?;
/// let mask = Mask::from_picture(&picture, &slide)?;
/// let view = slide.view(Target::Downsample(4.0))?;
/// assert!((mask.share_in(&view, &Region::new(0..25, 20..40)) - 0.75).abs() < 1e-12);
/// assert_eq!(mask.bounding_box_in(&view), Some(Region::new(0..25, 25..50)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Mask {
    bitmap: Bitmap,
    /// Level-0 pixels per mask pixel, (vertical, horizontal).
    downsample: (f64, f64),
    /// Where the mask's corner lies on level 0, (row, column).
    origin: (f64, f64),
    /// Number of set pixels above and left of each corner of the grid: (height + 1) x (width + 1).
    sums: Vec<u64>,
}

impl Mask {
    /// Takes a picture of the whole slide, of any size: what is not 0 is set.
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] for an empty picture.
    pub fn from_picture(picture: &GrayImage, slide: &Slide) -> Result<Self> {
        if picture.is_empty() {
            return Err(SlideError::InvalidArgument {
                what: "the picture of a mask",
                expected: "at least one pixel",
                found: format!("{} x {}", picture.height(), picture.width()),
            });
        }
        let whole = slide.extent();
        let downsample = (
            float(whole.height) / f64::from(picture.height()),
            float(whole.width) / f64::from(picture.width()),
        );
        let bits = picture.as_raw().iter().map(|&value| value != 0).collect();
        let bitmap = Bitmap::from_bits(index(picture.height()), index(picture.width()), bits);
        Ok(Self::new(bitmap, downsample, (0.0, 0.0)))
    }

    /// One bit for each pixel of `view`, in rows.
    pub(crate) fn of_view(view: &SlideView, bits: Vec<bool>) -> Self {
        let Extent { height, width } = view.extent();
        Self::new(
            Bitmap::from_bits(to_usize(height), to_usize(width), bits),
            view.downsample(),
            view.to_level_0(0.0, 0.0),
        )
    }

    pub(crate) fn new(bitmap: Bitmap, downsample: (f64, f64), origin: (f64, f64)) -> Self {
        let sums = bitmap.summed();
        Self {
            bitmap,
            downsample,
            origin,
            sums,
        }
    }

    pub(crate) const fn bitmap(&self) -> &Bitmap {
        &self.bitmap
    }

    /// Size of the mask.
    #[must_use]
    pub fn extent(&self) -> Extent {
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

    /// Whether a mask pixel is set; outside the mask none is.
    #[must_use]
    pub fn is_set(&self, row: u64, column: u64) -> bool {
        self.bitmap.get(to_usize(row), to_usize(column))
    }

    /// Share of the mask that is set, from 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        let Extent { height, width } = self.extent();
        self.count(0.0..float(height), 0.0..float(width)) / (float(height) * float(width)).max(1.0)
    }

    /// Share of a region of `view` that is set, from 0 to 1; the parts outside the mask count as not set.
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

    /// Whether the centre of a pixel of `view` lies on a set pixel of the mask.
    pub(crate) fn holds(&self, view: &SlideView, row: i64, column: i64) -> bool {
        self.is_set_at(self.row_under(view, row), self.column_under(view, column))
    }

    /// The smallest rectangle of mask pixels with all that is set; none where nothing is.
    #[must_use]
    pub fn bounding_box(&self) -> Option<Region> {
        self.bitmap.bounding_box()
    }

    /// The bounding box in pixels of `view`, rounded outwards and cut to the view.
    #[must_use]
    pub fn bounding_box_in(&self, view: &SlideView) -> Option<Region> {
        let found = self.bounding_box()?;
        let origin = view.to_level_0(0.0, 0.0);
        let offset = (self.origin.0 - origin.0, self.origin.1 - origin.1);
        let (row_step, column_step) = view.downsample();
        let to_view = |span: Range<i64>, mask_step: f64, offset: f64, step: f64| {
            let place = |pixel: i64| (position(pixel) * mask_step + offset) / step;
            floor(place(span.start))..floor(place(span.end).ceil())
        };
        let outward = Region::new(
            to_view(found.rows, self.downsample.0, offset.0, row_step),
            to_view(found.columns, self.downsample.1, offset.1, column_step),
        );
        let inside = outward.intersection(&view.extent().region());
        (!inside.is_empty()).then_some(inside)
    }

    /// The mask as a picture: 255 is set, 0 is not.
    #[must_use]
    pub fn to_image(&self) -> GrayImage {
        let side = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
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
    fn to_mask(&self, view: &SlideView, region: &Region) -> (Range<f64>, Range<f64>) {
        let corner = |row: i64, column: i64| {
            let (row, column) = view.to_level_0(position(row), position(column));
            (
                (row - self.origin.0) / self.downsample.0,
                (column - self.origin.1) / self.downsample.1,
            )
        };
        let (top, left) = corner(region.rows.start, region.columns.start);
        let (bottom, right) = corner(region.rows.end, region.columns.end);
        (top..bottom, left..right)
    }

    /// Area that is set in a rectangle, in mask pixels.
    fn count(&self, rows: Range<f64>, columns: Range<f64>) -> f64 {
        self.sum_to(rows.end, columns.end)
            - self.sum_to(rows.start, columns.end)
            - self.sum_to(rows.end, columns.start)
            + self.sum_to(rows.start, columns.start)
    }

    /// Area that is set above and left of a point. Between the corners of the grid the sum is bilinear, exactly.
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
    let position = position.clamp(0.0, float(wide(side)));
    (to_usize(whole(position)), position - position.floor())
}
