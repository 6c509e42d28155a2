//! What people drew on a slide: areas, lines and points with classes.

mod area;
mod asap;
mod labels;
mod qupath;

use std::path::Path;

use geo::{Coord, CoordsIter, MultiLineString, MultiPoint, MultiPolygon};

use crate::error::{Result, SlideError};
use crate::files::write_whole;
use crate::geometry::{PixelScale, Rgb};

pub use labels::LabelMap;

/// Coordinates beyond this, in level-0 pixels, lie on no slide.
const FARTHEST: f64 = 4_294_967_296.0;

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
    fn coordinates(&self) -> Box<dyn Iterator<Item = Coord<f64>> + '_> {
        match self {
            Self::Area(polygons) => Box::new(polygons.coords_iter()),
            Self::Line(lines) => Box::new(lines.coords_iter()),
            Self::Points(points) => Box::new(points.coords_iter()),
        }
    }
}

/// One thing that was drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotation {
    shape: Shape,
    class: Option<String>,
    name: Option<String>,
    color: Option<Rgb>,
}

impl Annotation {
    /// An annotation without class, name or colour.
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] for coordinates that are not finite or lie 2^32 pixels or more from the origin.
    pub fn new(shape: Shape) -> Result<Self> {
        let lost = |value: f64| value.is_nan() || value.abs() >= FARTHEST;
        if let Some(Coord { x, y }) = shape.coordinates().find(|at| lost(at.x) || lost(at.y)) {
            return Err(SlideError::InvalidArgument {
                what: "a coordinate of an annotation",
                expected: "finite, and less than 2^32 pixels from the origin",
                found: format!("({x}, {y})"),
            });
        }
        Ok(Self {
            shape,
            class: None,
            name: None,
            color: None,
        })
    }

    /// Sets the class: ASAP's group, QuPath's classification.
    #[must_use]
    pub fn with_class(mut self, class: impl Into<String>) -> Self {
        self.class = Some(class.into());
        self
    }

    /// Sets the name.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the colour in which viewers draw it.
    #[must_use]
    pub const fn with_color(mut self, color: Rgb) -> Self {
        self.color = Some(color);
        self
    }

    /// What was drawn.
    #[must_use]
    pub const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The class, if it has one.
    #[must_use]
    pub fn class(&self) -> Option<&str> {
        self.class.as_deref()
    }

    /// The name, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The colour in which viewers draw it.
    #[must_use]
    pub const fn color(&self) -> Option<Rgb> {
        self.color
    }

    /// Area in square millimetres on a slide of this scale; overlapping parts count once, lines and points not at all.
    #[must_use]
    pub fn area_mm2(&self, scale: PixelScale) -> f64 {
        area::in_mm2(std::iter::once(self), scale)
    }
}

/// The annotations of a slide.
///
/// Read and written as ASAP's XML (which CAMELYON is published in) and as the GeoJSON of QuPath. Both hold level-0 pixels,
/// and so does this.
///
/// # Examples
/// ```
/// use stream_grad_slides::geo::{MultiPolygon, polygon};
/// use stream_grad_slides::{
///     Annotation, Annotations, Extent, MicronsPerPixel, OpenOptions, PixelScale, Region, Shape, Slide, Target,
/// };
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ring = polygon!(
///     exterior: [(x: 2.0, y: 2.0), (x: 10.0, y: 2.0), (x: 10.0, y: 10.0), (x: 2.0, y: 10.0)],
///     interiors: [[(x: 4.0, y: 4.0), (x: 8.0, y: 4.0), (x: 8.0, y: 8.0), (x: 4.0, y: 8.0)]],
/// );
/// let shape = Shape::Area(MultiPolygon::new(vec![ring]));
/// let drawn = Annotations::from_iter([Annotation::new(shape)?.with_class("metastases")]);
/// let scale = PixelScale::square(MicronsPerPixel::new(500.0)?);
/// assert!((drawn.area_mm2(Some("metastases"), scale) - (64.0 - 16.0) * 0.25).abs() < 1e-9);
///
/// // As labels of the slide at half the resolution.
/// let extent = Extent { height: 12, width: 12 };
/// let slide = Slide::from_rgb("memory", extent, vec![255; 12 * 12 * 3], &OpenOptions::default())?;
/// let labels = drawn.label_map(&slide.view(Target::Downsample(2.0))?, &[(Some("metastases"), 1)]);
/// let mut row = [0; 6];
/// labels.read(&Region::new(2..3, 0..6), &mut row)?;
/// assert_eq!(row, [0, 1, 0, 0, 1, 0]);
///
/// // And to a file and back.
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("slide.geojson");
/// drawn.write_geojson(&path)?;
/// assert_eq!(Annotations::read(&path)?, drawn);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Annotations {
    items: Vec<Annotation>,
}

impl FromIterator<Annotation> for Annotations {
    fn from_iter<T: IntoIterator<Item = Annotation>>(items: T) -> Self {
        Self {
            items: items.into_iter().collect(),
        }
    }
}

impl<'a> IntoIterator for &'a Annotations {
    type Item = &'a Annotation;
    type IntoIter = std::slice::Iter<'a, Annotation>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

impl Annotations {
    /// Reads ASAP's XML or GeoJSON; what begins with `<` is XML.
    ///
    /// Of XML, annotations of the types `Polygon`, `Spline` and `Rectangle` become areas, `Dot` and `PointSet` points. Of
    /// GeoJSON, a feature collection, a feature, a list of features and a geometry are read; measurements and other
    /// properties are not kept.
    ///
    /// # Errors
    /// [`SlideError::Io`], [`SlideError::Malformed`] with the place in the file.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|error| SlideError::io(path, error))?;
        Self::parse(path, &bytes)
    }

    /// Parses the content of a file; `path` is for errors.
    fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|error| SlideError::Malformed {
            path: path.to_path_buf(),
            place: format!("byte {}", error.valid_up_to()),
            expected: "text in UTF-8".to_owned(),
            found: "other bytes".to_owned(),
        })?;
        let text = text.trim_start_matches('\u{feff}').trim_start();
        if text.starts_with('<') {
            asap::parse(path, text)
        } else {
            qupath::parse(path, text)
        }
    }

    /// Writes ASAP's XML, beside its place first and then renamed.
    ///
    /// ASAP knows no holes: a polygon with holes becomes one outline that runs to each hole, around it and back, which
    /// covers the same pixels and the same area. Each of several polygons becomes an annotation. Lines cannot be written.
    ///
    /// # Errors
    /// [`SlideError::Unsupported`] for lines, [`SlideError::Io`].
    pub fn write_asap(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        write_whole(path, &asap::to_xml(path, self)?)
    }

    /// Writes GeoJSON as QuPath reads it, beside its place first and then renamed.
    ///
    /// # Errors
    /// [`SlideError::Io`].
    pub fn write_geojson(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        write_whole(path, &qupath::to_geojson(path, self)?)
    }

    /// The annotations, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Annotation> {
        self.items.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Classes in the order of their first appearance.
    #[must_use]
    pub fn classes(&self) -> Vec<&str> {
        let mut classes = Vec::new();
        for class in self.items.iter().filter_map(Annotation::class) {
            if !classes.contains(&class) {
                classes.push(class);
            }
        }
        classes
    }

    /// Area of a class (`None`: of what has no class) in square millimetres; overlapping parts count once.
    #[must_use]
    pub fn area_mm2(&self, class: Option<&str>, scale: PixelScale) -> f64 {
        area::in_mm2(self.of_class(class), scale)
    }

    fn of_class<'a>(&'a self, class: Option<&'a str>) -> impl Iterator<Item = &'a Annotation> {
        self.items
            .iter()
            .filter(move |annotation| annotation.class() == class)
    }
}

#[cfg(test)]
mod tests;
