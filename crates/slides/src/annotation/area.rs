//! Areas of shapes that may overlap or cross themselves.

use geo::{Area, BooleanOps, MultiPolygon, unary_union};

use super::{Annotation, Shape};
use crate::geometry::PixelScale;

/// Area of the union in square millimetres.
pub(super) fn in_mm2<'a>(
    annotations: impl Iterator<Item = &'a Annotation>,
    scale: PixelScale,
) -> f64 {
    let nothing = MultiPolygon::new(Vec::new());
    // Outlines that cross themselves are taken apart first, polygon by polygon: the union needs valid ones.
    let valid: Vec<MultiPolygon<f64>> = annotations
        .filter_map(|annotation| match annotation.shape() {
            Shape::Area(polygons) => Some(polygons),
            Shape::Line(_) | Shape::Points(_) => None,
        })
        .flatten()
        .map(|polygon| polygon.union(&nothing))
        .collect();
    let pixels = match valid.as_slice() {
        [] => 0.0,
        [one] => one.unsigned_area(),
        several => unary_union(several).unsigned_area(),
    };
    pixels * scale.x.get() * scale.y.get() * 1e-6
}
