//! What was drawn, and what makes it worth drawing.

use geo::{Coord, CoordsIter, LineString, MapCoords, MultiLineString, MultiPoint, MultiPolygon};

use crate::error::{Result, SlideError};

/// Coordinates beyond this, in level-0 pixels, lie on no slide.
const FARTHEST: f64 = 4_294_967_296.0;

/// Different points that an outline needs to have an inside.
pub(super) const LEAST_OF_OUTLINE: usize = 3;

/// What was drawn, in level-0 pixels: `x` to the right and `y` down, from the upper left corner of the first pixel, so
/// that pixel `(row, column)` covers `[column, column + 1) x [row, row + 1)`.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Polygons, each with any number of holes. A point lies in a polygon if a ray from it crosses the polygon's rings
    /// an odd number of times (the even-odd rule, which gives outlines that cross themselves a meaning, too).
    Area(MultiPolygon<f64>),
    /// Open lines.
    Line(MultiLineString<f64>),
    /// Single points.
    Points(MultiPoint<f64>),
}

impl Shape {
    /// Whether it can be measured, painted, written and read again.
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |what, expected, found: String| {
            Err(SlideError::InvalidArgument {
                what,
                expected,
                found,
            })
        };
        if let Some(Coord { x, y }) = self.coordinates().find(|at| !lies_on_a_slide(*at)) {
            return refuse(
                "a coordinate of an annotation",
                "finite, and less than 2^32 pixels from the origin",
                format!("({x}, {y})"),
            );
        }
        let (what, pieces) = match self {
            Self::Area(polygons) => ("polygons", polygons.0.len()),
            Self::Line(lines) => ("lines", lines.0.len()),
            Self::Points(points) => ("points", points.0.len()),
        };
        if pieces == 0 {
            return refuse("an annotation", "at least one piece", format!("no {what}"));
        }
        match self {
            Self::Area(polygons) => polygons
                .iter()
                .flat_map(|polygon| std::iter::once(polygon.exterior()).chain(polygon.interiors()))
                .map(different_points)
                .find(|&points| points < LEAST_OF_OUTLINE)
                .map_or(Ok(()), |points| {
                    refuse(
                        "an outline of an annotation",
                        "at least three different points",
                        format!("{points}"),
                    )
                }),
            Self::Line(lines) => {
                lines
                    .iter()
                    .find(|line| line.0.len() < 2)
                    .map_or(Ok(()), |line| {
                        refuse(
                            "a line of an annotation",
                            "at least two points",
                            format!("{}", line.0.len()),
                        )
                    })
            }
            Self::Points(_) => Ok(()),
        }
    }

    /// The same, with coordinates that count from another point, `(row, column)` in the coordinates of this one.
    pub(super) fn counted_from(&self, origin: (f64, f64)) -> Self {
        let moved = |at: Coord<f64>| Coord {
            x: at.x - origin.1,
            y: at.y - origin.0,
        };
        match self {
            Self::Area(polygons) => Self::Area(polygons.map_coords(moved)),
            Self::Line(lines) => Self::Line(lines.map_coords(moved)),
            Self::Points(points) => Self::Points(points.map_coords(moved)),
        }
    }

    fn coordinates(&self) -> Box<dyn Iterator<Item = Coord<f64>> + '_> {
        match self {
            Self::Area(polygons) => Box::new(polygons.coords_iter()),
            Self::Line(lines) => Box::new(lines.coords_iter()),
            Self::Points(points) => Box::new(points.coords_iter()),
        }
    }
}

/// Whether it is finite, and near enough.
pub(super) fn lies_on_a_slide(at: Coord<f64>) -> bool {
    at.x.abs() < FARTHEST && at.y.abs() < FARTHEST
}

/// How many different points a ring has, counted up to [`LEAST_OF_OUTLINE`].
pub(super) fn different_points(ring: &LineString<f64>) -> usize {
    let mut different: Vec<Coord<f64>> = Vec::with_capacity(LEAST_OF_OUTLINE);
    for point in &ring.0 {
        if !different.contains(point) {
            different.push(*point);
        }
        if different.len() == LEAST_OF_OUTLINE {
            break;
        }
    }
    different.len()
}
