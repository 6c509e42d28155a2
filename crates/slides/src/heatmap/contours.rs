//! Cells of a heat map at and above a threshold, as annotations.

use geo::{Coord, MapCoords, MultiPolygon};

use super::{Heatmap, HeatmapStyle, check, index_of};
use crate::annotation::{Annotation, Annotations, Shape};
use crate::error::{Result, SlideError};
use crate::numbers::to_usize;
use crate::outlines::outlines;

impl Heatmap {
    /// Outlines, on level 0, of the cells whose values are at least each of `thresholds`, in the order given: one annotation
    /// for each threshold that any cell reaches, of the class `<class> >= <threshold>`, in the colour that `style` gives the
    /// threshold. [`Annotations::write_geojson`] writes them for QuPath.
    ///
    /// Outlines run along the borders of cells and hold exactly the cells: holes and what lies in holes are kept, cells that
    /// touch at a corner only are no hindrance. Cells of NaN reach no threshold.
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] for a threshold that is not finite, or a senseless style.
    ///
    /// # Examples
    /// ```
    /// use stream_grad_slides::{
    ///     Extent, GeoJsonFrame, Heatmap, HeatmapStyle, MicronsPerPixel, OpenOptions, PixelScale, Slide, Target,
    /// };
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let extent = Extent { height: 64, width: 64 };
    /// let slide = Slide::from_rgb("memory", extent, vec![255; 64 * 64 * 3], &OpenOptions::default())?;
    /// let view = slide.view(Target::Downsample(2.0))?;
    /// let map = Heatmap::over(&view, Extent { height: 2, width: 2 }, vec![0.1, 0.6, 0.7, f32::NAN])?;
    /// let drawn = map.contours(&[0.5], "tumour", &HeatmapStyle::default())?;
    /// assert_eq!(drawn.classes(), ["tumour >= 0.5"]);
    /// // Two of four cells.
    /// let scale = PixelScale::square(MicronsPerPixel::new(1000.0)?);
    /// assert_eq!(drawn.area_mm2(Some("tumour >= 0.5"), scale), 64.0 * 64.0 / 2.0);
    /// drawn.write_geojson(std::env::temp_dir().join("contours-example.geojson"), GeoJsonFrame::bounds_of(&slide))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn contours(
        &self,
        thresholds: &[f32],
        class: &str,
        style: &HeatmapStyle,
    ) -> Result<Annotations> {
        check(style)?;
        let (low, high) = (*style.values.start(), *style.values.end());
        let colors = style.colors.table();
        let mut drawn = Vec::new();
        for &threshold in thresholds {
            if !threshold.is_finite() {
                return Err(SlideError::InvalidArgument {
                    what: "a threshold of a heat map",
                    expected: "a finite number",
                    found: threshold.to_string(),
                });
            }
            let area = self.reaching(threshold);
            if area.0.is_empty() {
                continue;
            }
            let share = f64::from(threshold - low) / f64::from(high - low);
            let annotation = Annotation::new(Shape::Area(area))?
                .with_class(format!("{class} >= {threshold}"))
                .with_color(colors[index_of(share)]);
            drawn.push(annotation);
        }
        Ok(drawn.into_iter().collect())
    }

    /// The cells at and above a threshold, on level 0.
    fn reaching(&self, threshold: f32) -> MultiPolygon<f64> {
        let (down, across) = self.downsample;
        let width = to_usize(self.extent.width);
        // Not those of NaN.
        let inside = self.values.iter().map(|value| *value >= threshold);
        outlines(&inside.collect::<Vec<_>>(), width).map_coords(|at| Coord {
            x: self.origin.1 + at.x * across,
            y: self.origin.0 + at.y * down,
        })
    }
}
