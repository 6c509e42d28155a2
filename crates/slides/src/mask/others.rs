//! What lies beside a mask: parts of a view with nothing that is set, and giving those one colour.

use std::ops::Range;

use rayon::prelude::*;

use super::Mask;
use crate::error::{Result, check_rgb_length};
use crate::geometry::{Region, Rgb};
use crate::numbers::{centre, floor, to_usize};
use crate::view::SlideView;

impl Mask {
    /// The mask with all that lies within `pixels` mask pixels of what is set, by rows and by columns.
    ///
    /// # Examples
    /// ```
    /// use stream_grad_slides::{Extent, Mask, OpenOptions, Slide};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let slide = Slide::from_rgb("memory", Extent { height: 4, width: 5 }, vec![200; 60], &OpenOptions::default())?;
    /// let mut picture = image::GrayImage::new(5, 4);
    /// picture.put_pixel(0, 1, image::Luma([1]));
    /// let mask = Mask::from_picture(&picture, &slide)?.grown(1);
    /// assert!(mask.is_set(2, 1) && !mask.is_set(1, 2));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn grown(&self, pixels: usize) -> Self {
        let mut bitmap = self.bitmap.clone();
        bitmap.dilate(pixels);
        Self::new(bitmap, self.downsample, self.origin)
    }

    /// A part of a region of `view` that has all of its pixels whose centres lie on set pixels, and none only if there are none. It is
    /// the smallest one where the view's pixels are no larger than the mask's; else what lies between two centres counts, too.
    ///
    /// `view` must be a view of the slide of this mask.
    #[must_use]
    pub fn part_in(&self, view: &SlideView, region: &Region) -> Option<Region> {
        let Region { rows, columns } = region;
        let row_under = |row| self.row_under(view, row);
        let column_under = |column| self.column_under(view, column);
        let across = under(columns, column_under);
        let rows = shrink(rows, |span| {
            self.number_set(&under(span, row_under), &across)
        });
        let down = under(&rows, row_under);
        let columns = shrink(columns, |span| {
            self.number_set(&down, &under(span, column_under))
        });
        (!rows.is_empty() && !columns.is_empty()).then_some(Region { rows, columns })
    }

    /// Gives one colour to every pixel of a region of `view` whose centre lies on no set pixel.
    ///
    /// # Shapes
    /// `rgb`: `height x width x 3` of the region.
    ///
    /// # Errors
    /// [`SlideError::BufferLength`](crate::SlideError::BufferLength).
    pub fn fill_others(
        &self,
        view: &SlideView,
        region: &Region,
        color: Rgb,
        rgb: &mut [u8],
    ) -> Result<()> {
        check_rgb_length(region.height(), region.width(), rgb.len())?;
        let columns: Vec<i64> = region
            .columns
            .clone()
            .map(|column| self.column_under(view, column))
            .collect();
        let rows: Vec<i64> = region.rows.clone().collect();
        let lines = rgb.par_chunks_exact_mut(columns.len().max(1) * 3);
        lines.zip(&rows).for_each(|(line, &row)| {
            let row = self.row_under(view, row);
            for (pixel, &column) in line.chunks_exact_mut(3).zip(&columns) {
                if !self.is_set_at(row, column) {
                    pixel.copy_from_slice(&color.0);
                }
            }
        });
        Ok(())
    }

    /// The row of the mask, which may lie outside of it, under the centres of a row of a view.
    pub(super) fn row_under(&self, view: &SlideView, row: i64) -> i64 {
        let (place, _) = view.to_level_0(centre(row), 0.0);
        floor((place - self.origin.0) / self.downsample.0)
    }

    /// The column of the mask under the centres of a column of a view.
    pub(super) fn column_under(&self, view: &SlideView, column: i64) -> i64 {
        let (_, place) = view.to_level_0(0.0, centre(column));
        floor((place - self.origin.1) / self.downsample.1)
    }

    /// Whether a pixel of the mask is set; outside of the mask none is.
    pub(super) fn is_set_at(&self, row: i64, column: i64) -> bool {
        let place = usize::try_from(row).ok().zip(usize::try_from(column).ok());
        place.is_some_and(|(row, column)| self.bitmap.get(row, column))
    }

    /// Number of set pixels of a rectangle of mask pixels.
    fn number_set(&self, rows: &Range<i64>, columns: &Range<i64>) -> u64 {
        let corner =
            |place: i64, side: usize| to_usize(u64::try_from(place).unwrap_or(0)).min(side);
        let (height, width) = (self.bitmap.height(), self.bitmap.width());
        let (top, bottom) = (corner(rows.start, height), corner(rows.end, height));
        let (left, right) = (corner(columns.start, width), corner(columns.end, width));
        if rows.is_empty() || columns.is_empty() {
            return 0;
        }
        let at = |row: usize, column: usize| self.sums[row * (width + 1) + column];
        (at(bottom, right) + at(top, left)) - (at(top, right) + at(bottom, left))
    }
}

/// What lies under a span of pixels of a view, from the first centre to the last.
fn under(span: &Range<i64>, place: impl Fn(i64) -> i64) -> Range<i64> {
    if span.is_empty() {
        return 0..0;
    }
    place(span.start)..place(span.end - 1) + 1
}

/// The shortest part of a span beside which nothing is set, given what is set in a part of it; by bisection, since longer parts have more.
fn shrink(span: &Range<i64>, number_set: impl Fn(&Range<i64>) -> u64) -> Range<i64> {
    let all = number_set(span);
    if all == 0 {
        return span.start..span.start;
    }
    let first = |condition: &dyn Fn(i64) -> bool| {
        let (mut low, mut high) = (span.start, span.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if condition(middle) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    };
    // A mask pixel under two neighbours counts for both.
    let start = first(&|place| number_set(&(span.start..place + 1)) > 0);
    let end = first(&|place| number_set(&(place..span.end)) == 0);
    start..end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::geometry::Extent;
    use crate::options::OpenOptions;
    use crate::slide::Slide;
    use crate::view::Target;

    proptest! {
        /// Against a look at each pixel.
        #[test]
        fn parts_and_colours_follow_the_centres(
            (height, width) in (1_u64..40, 1_u64..40),
            bits in prop::collection::vec(prop::bool::weighted(0.2), 6 * 5),
            downsample in 0.3_f64..3.0,
            (top, left) in (-5_i64..30, -5_i64..30),
            (rows, columns) in (0_i64..30, 0_i64..30),
        ) {
            let length = usize::try_from(height * width * 3).unwrap();
            let extent = Extent { height, width };
            let slide = Slide::from_rgb("m", extent, vec![9; length], &OpenOptions::default()).unwrap();
            let bits = bits.into_iter().map(u8::from).collect();
            let picture = image::GrayImage::from_raw(6, 5, bits).unwrap();
            let mask = Mask::from_picture(&picture, &slide).unwrap();
            let view = slide.view(Target::Downsample(downsample)).unwrap();
            let region = Region::new(top..top + rows, left..left + columns);
            let mut rgb = vec![1; usize::try_from(rows * columns * 3).unwrap()];
            mask.fill_others(&view, &region, Rgb([2, 3, 4]), &mut rgb).unwrap();
            let (mut expected, mut places) = (Vec::new(), Vec::new());
            for row in region.rows.clone() {
                for column in region.columns.clone() {
                    let is_set = mask.holds(&view, row, column);
                    expected.extend(if is_set { [1; 3] } else { [2, 3, 4] });
                    if is_set {
                        places.push((row, column));
                    }
                }
            }
            prop_assert_eq!(rgb, expected);
            let span = |at: fn(&(i64, i64)) -> i64| {
                let places = places.iter().map(at);
                Some(places.clone().min()?..places.max()? + 1)
            };
            let least = span(|place| place.0).zip(span(|place| place.1));
            let least = least.map(|(rows, columns)| Region::new(rows, columns));
            let found = mask.part_in(&view, &region);
            let (down, across) = mask.downsample();
            if downsample <= down.min(across) {
                prop_assert_eq!(&found, &least);
            }
            if let Some(least) = least {
                prop_assert_eq!(found.map(|found| found.intersection(&least)), Some(least));
            }
        }
    }
}
