//! Annotations as labels of pixels.

use std::ops::Range;

use geo::{LineString, Polygon};
use image::GrayImage;

use super::{Annotations, Shape};
use crate::error::{Result, SlideError};
use crate::geometry::{Extent, Region};
use crate::mask::Mask;
use crate::numbers::{centre, floor, to_usize};
use crate::view::SlideView;

impl Annotations {
    /// Labels for the pixels of `view`: each class (`None`: what has no class) with its label, in the order in which they
    /// are painted, so that later ones cover earlier ones. What is not in `classes`, lines and points are left out.
    ///
    /// Positions are those of the view, which lies on level 0, whatever frame a file counted in.
    ///
    /// CAMELYON's exclusions are thus `[(Some("metastases"), 1), (Some("normal"), 0)]`.
    #[must_use]
    pub fn label_map(&self, view: &SlideView, classes: &[(Option<&str>, u8)]) -> LabelMap {
        let mut polygons = Vec::new();
        for &(class, label) in classes {
            for annotation in self.of_class(class) {
                if let Shape::Area(shape) = annotation.shape() {
                    polygons.extend(
                        shape
                            .iter()
                            .filter_map(|polygon| Outline::new(polygon, view, label)),
                    );
                }
            }
        }
        LabelMap {
            polygons,
            view: view.clone(),
        }
    }
}

/// Annotations as labels of the pixels of a view.
///
/// A pixel has the label of the last painted polygon that its centre lies in (even-odd rule), 0 where there is none. A
/// label depends on the pixel's coordinates alone: any region equals the same part of any larger region. Polygons that
/// share an edge share no pixel and leave none out.
#[derive(Clone, Debug)]
pub struct LabelMap {
    /// In the order in which they are painted.
    polygons: Vec<Outline>,
    view: SlideView,
}

impl LabelMap {
    /// Size of the view.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.view.extent()
    }

    /// Reads labels.
    ///
    /// # Shapes
    /// `region`: pixels of the view, may lie outside (there, annotations count too); `labels`: `height x width` of it.
    ///
    /// # Errors
    /// [`SlideError::InvalidArgument`] if `labels` has another length.
    pub fn read(&self, region: &Region, labels: &mut [u8]) -> Result<()> {
        let expected = region.height().saturating_mul(region.width());
        if u64::try_from(labels.len()) != Ok(expected) {
            return Err(SlideError::InvalidArgument {
                what: "the number of labels",
                expected: "height x width of the region",
                found: format!("{} for {expected}", labels.len()),
            });
        }
        labels.fill(0);
        if region.is_empty() {
            return Ok(());
        }
        let mut crossings = Vec::new();
        for polygon in &self.polygons {
            polygon.paint(region, labels, &mut crossings);
        }
        Ok(())
    }

    /// The labels of the whole view as a picture.
    ///
    /// # Errors
    /// [`SlideError::LimitExceeded`] beyond [`Limits::image_bytes`](crate::Limits::image_bytes).
    pub fn to_image(&self) -> Result<GrayImage> {
        let Extent { height, width } = self.extent();
        let slide = self.view.slide();
        let needed = height.saturating_mul(width);
        slide.check_limit(
            "labels of the whole view, in bytes,",
            needed,
            slide.limits().image_bytes,
        )?;
        let mut labels = vec![0; to_usize(needed)];
        self.read(&self.extent().region(), &mut labels)?;
        let side = |value| u32::try_from(value).unwrap_or(u32::MAX);
        GrayImage::from_raw(side(width), side(height), labels).ok_or_else(|| {
            SlideError::InvalidArgument {
                what: "a side of the picture",
                expected: "below 2^32",
                found: self.extent().to_string(),
            }
        })
    }

    /// Where the label is `label`, as a mask.
    ///
    /// # Errors
    /// As [`to_image`](Self::to_image).
    pub fn mask_of(&self, label: u8) -> Result<Mask> {
        let bits = self
            .to_image()?
            .into_raw()
            .into_iter()
            .map(|value| value == label)
            .collect();
        Ok(Mask::of_view(&self.view, bits))
    }
}

/// A polygon in pixels of a view.
#[derive(Clone, Debug)]
struct Outline {
    label: u8,
    /// Rows whose centres it may hold.
    rows: Range<i64>,
    columns: Range<i64>,
    /// Edges that are not horizontal.
    edges: Vec<Edge>,
}

/// From above to below.
#[derive(Clone, Copy, Debug)]
struct Edge {
    top: f64,
    bottom: f64,
    left_at_top: f64,
    /// Columns per row.
    slope: f64,
}

impl Outline {
    /// None if the polygon is empty.
    fn new(polygon: &Polygon<f64>, view: &SlideView, label: u8) -> Option<Self> {
        let (row_origin, column_origin) = view.to_level_0(0.0, 0.0);
        let (row_step, column_step) = view.downsample();
        let place = |at: geo::Coord<f64>| {
            (
                (at.y - row_origin) / row_step,
                (at.x - column_origin) / column_step,
            )
        };
        let mut edges = Vec::new();
        let (mut low, mut high) = ((f64::MAX, f64::MAX), (f64::MIN, f64::MIN));
        let mut add = |ring: &LineString<f64>| {
            for line in ring.lines() {
                let (a, b) = (place(line.start), place(line.end));
                low = (low.0.min(a.0).min(b.0), low.1.min(a.1).min(b.1));
                high = (high.0.max(a.0).max(b.0), high.1.max(a.1).max(b.1));
                let (above, below) = if a.0 <= b.0 { (a, b) } else { (b, a) };
                if above.0 < below.0 {
                    edges.push(Edge {
                        top: above.0,
                        bottom: below.0,
                        left_at_top: above.1,
                        slope: (below.1 - above.1) / (below.0 - above.0),
                    });
                }
            }
        };
        add(polygon.exterior());
        polygon.interiors().iter().for_each(&mut add);
        (!edges.is_empty()).then(|| Self {
            label,
            rows: first_centre_from(low.0)..first_centre_from(high.0),
            columns: first_centre_from(low.1)..first_centre_from(high.1),
            edges,
        })
    }

    /// Paints the pixels of `region` whose centres lie inside.
    fn paint(&self, region: &Region, labels: &mut [u8], crossings: &mut Vec<(i64, f64)>) {
        let inside = Region::new(self.rows.clone(), self.columns.clone()).intersection(region);
        if inside.is_empty() {
            return;
        }
        crossings.clear();
        for edge in &self.edges {
            let first = first_centre_from(edge.top).max(inside.rows.start);
            let end = first_centre_from(edge.bottom).min(inside.rows.end);
            crossings.extend((first..end).map(|row| {
                let down = centre(row) - edge.top;
                (row, edge.left_at_top + down * edge.slope)
            }));
        }
        crossings.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let width = to_usize(region.width());
        for pair in crossings.chunks_exact(2) {
            // Each row has an even number of crossings: its rings are closed.
            let &[(row, enters), (_, leaves)] = pair else {
                continue;
            };
            let start = first_centre_from(enters).max(inside.columns.start);
            let end = first_centre_from(leaves).min(inside.columns.end);
            if start < end {
                let row_start = to_usize(row.abs_diff(region.rows.start)) * width;
                let column = |value: i64| to_usize(value.abs_diff(region.columns.start));
                labels[row_start + column(start)..row_start + column(end)].fill(self.label);
            }
        }
    }
}

/// The first pixel whose centre is not before `position`.
fn first_centre_from(position: f64) -> i64 {
    floor((position - 0.5).ceil())
}
