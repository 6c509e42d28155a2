//! What people drew on a slide: areas, lines and points with classes.

mod area;
mod asap;
mod encoding;
mod frame;
mod labels;
mod not_a_number;
mod qupath;
mod read;
mod shape;

use std::path::Path;

use crate::error::{Result, SlideError};
use crate::files::write_whole;
use crate::geometry::{PixelScale, Rgb};

use encoding::decode;
use read::Notes;

pub use frame::GeoJsonFrame;
pub use labels::LabelMap;
pub use read::{AnnotationFile, AnnotationOptions, PassedOver, Strictness};
pub use shape::Shape;

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
    /// [`SlideError::InvalidArgument`] for coordinates that are not finite or lie 2^32 pixels or more from the origin, for a
    /// shape without any piece, for outlines (of holes, too) of fewer than three different points and for lines of fewer
    /// than two points.
    pub fn new(shape: Shape) -> Result<Self> {
        shape.check()?;
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
/// Read and written as ASAP's XML (which CAMELYON is published in) and as the GeoJSON of QuPath. Here they are in level-0
/// pixels, whatever the file counts in: ASAP's XML counts from level 0, of GeoJSON a [`GeoJsonFrame`] says it.
///
/// # Examples
/// ```
/// use stream_grad_slides::geo::{MultiPolygon, polygon};
/// use stream_grad_slides::{
///     Annotation, AnnotationOptions, Annotations, Extent, GeoJsonFrame, MicronsPerPixel, OpenOptions, PixelScale, Region,
///     Shape, Slide, Target,
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
/// // And to a file for QuPath and back.
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("slide.geojson");
/// let frame = GeoJsonFrame::bounds_of(&slide);
/// drawn.write_geojson(&path, frame)?;
/// let file = Annotations::read(&path, &AnnotationOptions::new(frame))?;
/// assert_eq!(file.annotations, drawn);
/// assert!(file.passed_over.is_empty());
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
    /// In XML, the types `Polygon`, `Spline` and `Rectangle` become areas, `Dot` and `PointSet` become points. GeoJSON may be a
    /// feature collection, a feature, a list of features or a geometry. A collection of geometries becomes up to three annotations:
    /// its areas, its lines and its points. A feature whose geometry is `null` draws nothing. Measurements are dropped.
    ///
    /// [`AnnotationFile::passed_over`] lists what cannot be used, and one warning through `tracing` tells of it:
    ///
    /// - ASAP's rulers (`Measurement`), and annotations of another type or of none;
    /// - outlines of fewer than three different points, which stray clicks leave;
    /// - coordinates that are not finite or lie on no slide, with the polygon, line or point that they belong to;
    /// - colours, names and classes that cannot be understood;
    /// - bare `NaN` and `Infinity`, which are not JSON: QuPath before 0.5 wrote them among measurements;
    /// - bytes that are not valid in the file's encoding, which a byte order mark or an XML declaration states, and which is UTF-8
    ///   otherwise.
    ///
    /// # Errors
    /// [`SlideError::Io`]; [`SlideError::Malformed`] with the place in the file, where it is not JSON or XML, ends too early
    /// or holds something else, and with [`Strictness::Refuse`] for the first thing that would be passed over.
    pub fn read(path: impl AsRef<Path>, options: &AnnotationOptions) -> Result<AnnotationFile> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|error| SlideError::io(path, error))?;
        let file = Self::parse(path, &bytes, options)?;
        if let Some(first) = file.passed_over.first() {
            let count = file.passed_over.len();
            tracing::warn!(path = %path.display(), count, %first, "parts of annotations were passed over");
        }
        Ok(file)
    }

    /// Parses the content of a file; `path` is for errors.
    fn parse(path: &Path, bytes: &[u8], options: &AnnotationOptions) -> Result<AnnotationFile> {
        let mut notes = Notes::new(path, options.strictness);
        let text = decode(bytes, &mut notes)?;
        let text = text.trim_start();
        let annotations = if text.starts_with('<') {
            asap::parse(text, &mut notes)?
        } else {
            qupath::parse(text, options.geojson_frame, &mut notes)?
        };
        Ok(AnnotationFile {
            annotations,
            passed_over: notes.into_passed_over(),
        })
    }

    /// Writes ASAP's XML, which counts from level 0, beside its place first and then renamed.
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
    /// What was read in a frame is written in it with the same coordinates, bit for bit; what was drawn otherwise may be moved
    /// by rounding, by less than 10^-6 pixels.
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] for what cannot be read again, since in this frame it lies 2^32 pixels or more from the
    /// corner or its points become one by rounding; [`SlideError::Io`].
    pub fn write_geojson(&self, path: impl AsRef<Path>, frame: GeoJsonFrame) -> Result<()> {
        let path = path.as_ref();
        write_whole(path, &qupath::to_geojson(path, self, frame)?)
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
