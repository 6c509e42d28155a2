//! Classes over a slide, as annotations.

use geo::{Coord, MapCoords};

use crate::annotation::{Annotation, Annotations, Shape};
use crate::error::{Result, SlideError};
use crate::geometry::Extent;
use crate::numbers::{float, to_usize};
use crate::outlines::outlines;
use crate::view::SlideView;

/// A grid of classes over a view of a slide, such as a network's map of a segmentation.
///
/// # Examples
/// ```
/// use stream_grad_slides::{ClassMap, Extent, GeoJsonFrame, OpenOptions, Slide, Target};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let extent = Extent { height: 12, width: 20 };
/// let slide = Slide::from_rgb("memory", extent, vec![255; 12 * 20 * 3], &OpenOptions::default())?;
/// let view = slide.view(Target::Downsample(2.0))?;
/// // A cell is 4 x 4 pixels of the view of 6 x 10, which cuts the last row and column.
/// let map = ClassMap::over(&view, 4, vec![0, 1, 1, 0, 0, 2])?;
/// let drawn = map.outlines(&[(1, "tumour"), (2, "stroma")])?;
/// assert_eq!(drawn.classes(), ["tumour", "stroma"]);
/// drawn.write_geojson(std::env::temp_dir().join("classes-example.geojson"), GeoJsonFrame::bounds_of(&slide))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ClassMap {
    classes: Vec<u8>,
    width: usize,
    /// Level-0 pixels per cell, (vertical, horizontal).
    cell: (f64, f64),
    /// Where the map begins and ends on level 0, (row, column).
    corners: [(f64, f64); 2],
}

impl ClassMap {
    /// Lays cells of `edge x edge` pixels of `view` over all of it, from its corner on; those at the far sides are cut there.
    ///
    /// # Shapes
    /// `classes`: row by row, as many as rows and columns of cells reach over the view.
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] for another number of classes, or an edge of 0.
    pub fn over(view: &SlideView, edge: u64, classes: Vec<u8>) -> Result<Self> {
        let Extent { height, width } = view.extent();
        let cells = |side: u64| side.checked_div(edge).map(|_| side.div_ceil(edge));
        let fitting = cells(height)
            .zip(cells(width))
            .filter(|(rows, columns)| u64::try_from(classes.len()) == Ok(rows * columns));
        let Some((_, columns)) = fitting else {
            return Err(SlideError::InvalidArgument {
                what: "the number of cells of a map of classes",
                expected: "as many as cover the view",
                found: format!(
                    "{} of edge {edge} for a view of {}",
                    classes.len(),
                    view.extent()
                ),
            });
        };
        let (down, across) = view.downsample();
        Ok(Self {
            classes,
            width: to_usize(columns),
            cell: (down * float(edge), across * float(edge)),
            corners: [
                view.to_level_0(0.0, 0.0),
                view.to_level_0(float(height), float(width)),
            ],
        })
    }

    /// Outlines, on level 0, of the cells of each of `classes`, under its name: one annotation for each that has a cell, in the order
    /// given. [`Annotations::write_geojson`] writes them for QuPath.
    ///
    /// Outlines run along the borders of cells and hold exactly the cells, holes and what lies in them included.
    ///
    /// # Errors
    /// As [`Annotation::new`].
    pub fn outlines(&self, classes: &[(u8, &str)]) -> Result<Annotations> {
        let mut drawn = Vec::new();
        let [start, end] = self.corners;
        for &(class, name) in classes {
            let inside: Vec<bool> = self.classes.iter().map(|found| *found == class).collect();
            let cells = outlines(&inside, self.width);
            if cells.0.is_empty() {
                continue;
            }
            let area = cells.map_coords(|at| Coord {
                x: (start.1 + at.x * self.cell.1).min(end.1),
                y: (start.0 + at.y * self.cell.0).min(end.0),
            });
            drawn.push(Annotation::new(Shape::Area(area))?.with_class(name));
        }
        Ok(drawn.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Region;
    use crate::options::OpenOptions;
    use crate::slide::Slide;
    use crate::view::Target;

    /// What is outlined and painted again has the classes of the map.
    #[test]
    fn outlines_hold_exactly_the_cells() {
        let extent = Extent {
            height: 44,
            width: 60,
        };
        let rgb = vec![255; 44 * 60 * 3];
        let slide = Slide::from_rgb("memory", extent, rgb, &OpenOptions::default()).unwrap();
        let view = slide.view(Target::Downsample(2.0)).unwrap();
        let view = view.cropped(&Region::new(1..22, 3..30)).unwrap();
        // 21 x 27 pixels.
        for edge in [1, 2, 4, 64] {
            let (rows, columns) = (21_u64.div_ceil(edge), 27_u64.div_ceil(edge));
            let classes: Vec<u8> = (0..rows * columns)
                .map(|cell| u8::try_from((cell * cell / 3 + cell / 5) % 3).unwrap())
                .collect();
            let map = ClassMap::over(&view, edge, classes.clone()).unwrap();
            let drawn = map.outlines(&[(1, "one"), (2, "two")]).unwrap();
            let labels = drawn.label_map(&view, &[(Some("one"), 1), (Some("two"), 2)]);
            let mut found = vec![9; 21 * 27];
            labels.read(&Region::new(0..21, 0..27), &mut found).unwrap();
            for (place, found) in found.into_iter().enumerate() {
                let place = u64::try_from(place).unwrap();
                let cell = place / 27 / edge * columns + place % 27 / edge;
                assert_eq!(found, classes[to_usize(cell)], "{place}, {edge}");
            }
        }
        assert!(ClassMap::over(&view, 0, vec![0]).is_err());
        assert!(ClassMap::over(&view, 4, vec![0; 5]).is_err());
    }
}
