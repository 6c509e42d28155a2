//! From where the coordinates of GeoJSON count.

use crate::geometry::Region;
use crate::slide::Slide;

/// From where a GeoJSON file counts its coordinates: the file does not say it, so whoever reads or writes one does.
///
/// Scanners of several makers (MIRAX, Leica, Hamamatsu and others) scan a part of the glass, which OpenSlide tells as
/// `openslide.bounds-x`, `-y`, `-width` and `-height`. QuPath shows that part alone, as if it were the whole slide. On a slide
/// without bounds both frames are the same.
///
/// ASAP's XML counts from level 0 on every slide, so there is no choice for it.
///
/// # Examples
/// ```
/// use stream_grad_slides::{Extent, GeoJsonFrame, OpenOptions, Slide};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let extent = Extent { height: 8, width: 8 };
/// let slide = Slide::from_rgb("memory", extent, vec![255; 8 * 8 * 3], &OpenOptions::default())?;
/// // This slide has no bounds.
/// assert_eq!(GeoJsonFrame::bounds_of(&slide), GeoJsonFrame::Bounds { row: 0, column: 0 });
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeoJsonFrame {
    /// From the corner of level 0, as OpenSlide's own coordinates do: QuPath where the slide was added to the project with
    /// `--no-crop` (or with "Crop to bounding box" switched off), and scripts that work on OpenSlide's coordinates.
    Level0,
    /// From the corner of the bounds: QuPath unless it is told otherwise. [`bounds_of`](Self::bounds_of) takes it from the
    /// slide.
    Bounds {
        /// The row of level 0 that the bounds begin with: `openslide.bounds-y`.
        row: i64,
        /// The column of level 0 that the bounds begin with: `openslide.bounds-x`.
        column: i64,
    },
}

impl GeoJsonFrame {
    /// QuPath's default for this slide.
    ///
    /// That is the corner of the bounds, even where the bounds reach beyond the slide. It is the corner of level 0 where one of the
    /// four properties is missing or is no whole number, since QuPath crops nothing then; and where the bounds are empty, which
    /// QuPath cannot show.
    #[must_use]
    pub fn bounds_of(slide: &Slide) -> Self {
        match &slide.properties().bounds {
            Some(Region { rows, columns }) => Self::Bounds {
                row: rows.start,
                column: columns.start,
            },
            None => Self::Bounds { row: 0, column: 0 },
        }
    }

    /// Where the frame's origin lies on level 0, (row, column).
    pub(super) const fn origin(self) -> (i64, i64) {
        match self {
            Self::Level0 => (0, 0),
            Self::Bounds { row, column } => (row, column),
        }
    }
}
