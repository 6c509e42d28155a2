//! Values over a slide, as colours.

mod color_map;
mod contours;
mod picture;

use std::ops::RangeInclusive;

use crate::error::{Result, SlideError, check_rgb_length};
use crate::geometry::{Extent, Region, Rgb};
use crate::numbers::{centre, float, nearest_byte, to_usize, whole};
use crate::view::SlideView;

pub use color_map::ColorMap;

/// How a heat map is drawn over a slide.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatmapStyle {
    /// Colours of the values: viridis by default.
    pub colors: ColorMap,
    /// Values of the first and the last colour; what lies outside has the nearer one. 0 to 1 by default.
    pub values: RangeInclusive<f32>,
    /// From 0, which shows the slide alone, to 1: 0.5 by default.
    pub opacity: f64,
}

impl Default for HeatmapStyle {
    fn default() -> Self {
        Self {
            colors: ColorMap::Viridis,
            values: 0.0..=1.0,
            opacity: 0.5,
        }
    }
}

/// A grid of values over a slide, such as predictions or attention; NaN where there is none.
///
/// It lies right on any view of the slide. As a picture for QuPath, draw it over
/// [`SlideView::cropped_to_bounds`](crate::SlideView::cropped_to_bounds): where a slide has bounds, QuPath shows what lies
/// inside only.
///
/// # Examples
/// ```
/// use stream_grad_slides::{Extent, Heatmap, HeatmapStyle, OpenOptions, Region, Slide, Target};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let extent = Extent { height: 64, width: 64 };
/// let slide = Slide::from_rgb("memory", extent, vec![255; 64 * 64 * 3], &OpenOptions::default())?;
/// let view = slide.view(Target::Downsample(2.0))?;
/// // Two values: nothing on the left, the highest on the right.
/// let map = Heatmap::over(&view, Extent { height: 1, width: 2 }, vec![f32::NAN, 1.0])?;
/// let mut rgb = vec![0; 32 * 32 * 3];
/// map.draw_over(&view, &view.extent().region(), &mut rgb, &HeatmapStyle::default())?;
/// assert_eq!(rgb[..3], [255, 255, 255]);
/// assert_eq!(rgb[31 * 3..32 * 3], [254, 243, 146]); // white and yellow
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Heatmap {
    extent: Extent,
    values: Vec<f32>,
    /// Level-0 pixels per value, (vertical, horizontal).
    downsample: (f64, f64),
    /// Where the corner of the first value lies on level 0, (row, column).
    origin: (f64, f64),
}

impl Heatmap {
    /// Spreads a grid over all of `view`, which may be a part of a slide.
    ///
    /// # Shapes
    /// `values`: `height x width` of `extent`.
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] for an empty grid or another number of values.
    pub fn over(view: &SlideView, extent: Extent, values: Vec<f32>) -> Result<Self> {
        let needed = extent.height.saturating_mul(extent.width);
        if needed == 0 || u64::try_from(values.len()) != Ok(needed) {
            return Err(SlideError::InvalidArgument {
                what: "the number of values of a heat map",
                expected: "height x width, at least 1",
                found: format!("{} for {extent}", values.len()),
            });
        }
        let (row_step, column_step) = view.downsample();
        let shown = view.extent();
        Ok(Self {
            extent,
            values,
            downsample: (
                row_step * float(shown.height) / float(extent.height),
                column_step * float(shown.width) / float(extent.width),
            ),
            origin: view.to_level_0(0.0, 0.0),
        })
    }

    /// Rows and columns of the grid.
    #[must_use]
    pub const fn extent(&self) -> Extent {
        self.extent
    }

    /// The values, row by row.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Reads a region of `view` with the heat map over it: between the centres of its cells the values are bilinear.
    ///
    /// A pixel in a cell of NaN, or outside the grid, shows the slide alone; cells of NaN beside it do not count.
    ///
    /// # Shapes
    /// As [`SlideView::read`].
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] for an opacity outside 0 to 1 or a range that is empty or not finite;
    /// [`SlideError::BufferLength`], [`SlideError::RegionFailed`].
    pub fn draw_over(
        &self,
        view: &SlideView,
        region: &Region,
        rgb: &mut [u8],
        style: &HeatmapStyle,
    ) -> Result<()> {
        check(style)?;
        view.read(region, rgb)?;
        self.blend(view, region, rgb, style)
    }

    /// Draws over pixels that were read already.
    fn blend(
        &self,
        view: &SlideView,
        region: &Region,
        rgb: &mut [u8],
        style: &HeatmapStyle,
    ) -> Result<()> {
        check_rgb_length(region.height(), region.width(), rgb.len())?;
        let (low, high) = (
            f64::from(*style.values.start()),
            f64::from(*style.values.end()),
        );
        let colors = style.colors.table();
        let mut pixels = rgb.chunks_exact_mut(3);
        for row in region.rows.clone() {
            for column in region.columns.clone() {
                let Some(pixel) = pixels.next() else {
                    return Ok(());
                };
                let Some(value) = self.value_at(view, row, column) else {
                    continue;
                };
                let Rgb(color) = colors[index_of((value - low) / (high - low))];
                for (below, above) in pixel.iter_mut().zip(color) {
                    *below = mix(*below, above, style.opacity);
                }
            }
        }
        Ok(())
    }

    /// The value at the centre of a pixel of `view`; none outside the grid and in cells of NaN.
    fn value_at(&self, view: &SlideView, row: i64, column: i64) -> Option<f64> {
        let (row, column) = view.to_level_0(centre(row), centre(column));
        let rows = Cells::at(
            (row - self.origin.0) / self.downsample.0,
            self.extent.height,
        )?;
        let columns = Cells::at(
            (column - self.origin.1) / self.downsample.1,
            self.extent.width,
        )?;
        let value = |row: usize, column: usize| {
            let width = to_usize(self.extent.width);
            self.values
                .get(row * width + column)
                .map_or(f64::NAN, |&value| f64::from(value))
        };
        if value(rows.inside, columns.inside).is_nan() {
            return None;
        }
        let (mut sum, mut weights) = (0.0, 0.0);
        for (row, row_weight) in rows.near {
            for (column, column_weight) in columns.near {
                let (value, weight) = (value(row, column), row_weight * column_weight);
                if !value.is_nan() && weight > 0.0 {
                    sum += value * weight;
                    weights += weight;
                }
            }
        }
        Some(sum / weights)
    }
}

/// The cells along one axis that a position lies between.
struct Cells {
    /// The one it lies in.
    inside: usize,
    /// The two whose centres are nearest, with their weights.
    near: [(usize, f64); 2],
}

impl Cells {
    /// None outside of `0..length`.
    fn at(position: f64, length: u64) -> Option<Self> {
        if !(0.0..float(length)).contains(&position) {
            return None;
        }
        let between = (position - 0.5).clamp(0.0, float(length - 1));
        let first = to_usize(whole(between));
        let last = to_usize(length - 1);
        let part = between - between.floor();
        Some(Self {
            inside: to_usize(whole(position)),
            near: [(first, 1.0 - part), ((first + 1).min(last), part)],
        })
    }
}

fn check(style: &HeatmapStyle) -> Result<()> {
    let (low, high) = (*style.values.start(), *style.values.end());
    if !(0.0..=1.0).contains(&style.opacity) || !low.is_finite() || !high.is_finite() || low >= high
    {
        return Err(SlideError::InvalidArgument {
            what: "the style of a heat map",
            expected: "an opacity from 0 to 1, and a finite range that is not empty",
            found: format!("{style:?}"),
        });
    }
    Ok(())
}

/// Which of 256 colours.
fn index_of(share: f64) -> usize {
    usize::from(nearest_byte(share * 255.0))
}

fn mix(below: u8, above: u8, opacity: f64) -> u8 {
    nearest_byte(f64::from(below) * (1.0 - opacity) + f64::from(above) * opacity)
}

#[cfg(test)]
mod tests;
