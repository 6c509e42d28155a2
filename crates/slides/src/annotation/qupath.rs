//! The GeoJSON of QuPath.

use std::path::Path;

use geo::{Coord, LineString, MultiLineString, MultiPoint, MultiPolygon, Point, Polygon};
use geojson::{Feature, FeatureCollection, GeoJson, Geometry, GeometryValue, JsonObject, Position};
use serde_json::{Value, json};

use super::{Annotation, Annotations, Shape};
use crate::error::{Result, SlideError};
use crate::geometry::Rgb;

/// Reads the text of a file; `path` is for errors.
pub(super) fn parse(path: &Path, text: &str) -> Result<Annotations> {
    let not_json = |error: serde_json::Error| SlideError::Malformed {
        path: path.to_path_buf(),
        place: format!("line {}, column {}", error.line(), error.column()),
        expected: "GeoJSON".to_owned(),
        found: error.to_string(),
    };
    // QuPath's scripts write plain lists of features.
    let features = if text.starts_with('[') {
        serde_json::from_str::<Vec<Feature>>(text).map_err(not_json)?
    } else {
        match serde_json::from_str::<GeoJson>(text).map_err(not_json)? {
            GeoJson::FeatureCollection(collection) => collection.features,
            GeoJson::Feature(feature) => vec![feature],
            GeoJson::Geometry(geometry) => vec![Feature::from(geometry)],
        }
    };
    features
        .into_iter()
        .enumerate()
        .filter(|(_, feature)| feature.geometry.is_some())
        .map(|(index, feature)| annotation(feature).map_err(|wrong| wrong.at(path, index)))
        .collect()
}

/// What was wrong with a feature.
struct Wrong {
    expected: &'static str,
    found: String,
}

impl Wrong {
    fn at(self, path: &Path, index: usize) -> SlideError {
        SlideError::Malformed {
            path: path.to_path_buf(),
            place: format!("feature {index}"),
            expected: self.expected.to_owned(),
            found: self.found,
        }
    }
}

fn annotation(feature: Feature) -> Result<Annotation, Wrong> {
    let value = feature.geometry.map(|geometry| geometry.value);
    let shape = shape(value.as_ref())?;
    let mut annotation = Annotation::new(shape).map_err(|error| Wrong {
        expected: "coordinates on a slide",
        found: error.to_string(),
    })?;
    let properties = feature.properties.unwrap_or_default();
    let classification = properties.get("classification");
    annotation.name = properties
        .get("name")
        .and_then(Value::as_str)
        .map(str::to_owned);
    annotation.class = classification.and_then(class);
    annotation.color =
        color(&properties).or_else(|| classification.and_then(Value::as_object).and_then(color));
    Ok(annotation)
}

/// The name of a classification; of derived ones such as `Tumour: Positive` QuPath writes the parts as `names`.
fn class(classification: &Value) -> Option<String> {
    if let Some(name) = classification.as_str() {
        return Some(name.to_owned());
    }
    if let Some(name) = classification.get("name").and_then(Value::as_str) {
        return Some(name.to_owned());
    }
    let names = classification.get("names")?.as_array()?;
    let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
    (!names.is_empty()).then(|| names.join(": "))
}

/// `color` as three numbers, or the packed `colorRGB` of older versions.
fn color(object: &JsonObject) -> Option<Rgb> {
    if let Some(channels) = object.get("color").and_then(Value::as_array) {
        let channel = |index: usize| u8::try_from(channels.get(index)?.as_u64()?).ok();
        return Some(Rgb([channel(0)?, channel(1)?, channel(2)?]));
    }
    let packed = i32::try_from(object.get("colorRGB")?.as_i64()?).ok()?;
    let [_, red, green, blue] = packed.to_be_bytes();
    Some(Rgb([red, green, blue]))
}

fn shape(geometry: Option<&GeometryValue>) -> Result<Shape, Wrong> {
    let kind = match geometry {
        Some(GeometryValue::Polygon { coordinates }) => {
            return Ok(Shape::Area(MultiPolygon::new(vec![polygon(coordinates)?])));
        }
        Some(GeometryValue::MultiPolygon { coordinates }) => {
            let polygons: Result<_, _> = coordinates.iter().map(|rings| polygon(rings)).collect();
            return Ok(Shape::Area(MultiPolygon::new(polygons?)));
        }
        Some(GeometryValue::LineString { coordinates }) => {
            return Ok(Shape::Line(MultiLineString::new(vec![line(coordinates)?])));
        }
        Some(GeometryValue::MultiLineString { coordinates }) => {
            let lines: Result<_, _> = coordinates.iter().map(|points| line(points)).collect();
            return Ok(Shape::Line(MultiLineString::new(lines?)));
        }
        Some(GeometryValue::Point { coordinates }) => {
            let point = Point(position(coordinates)?);
            return Ok(Shape::Points(MultiPoint::new(vec![point])));
        }
        Some(GeometryValue::MultiPoint { coordinates }) => {
            let points: Result<_, _> = coordinates
                .iter()
                .map(|at| position(at).map(Point))
                .collect();
            return Ok(Shape::Points(MultiPoint::new(points?)));
        }
        Some(GeometryValue::GeometryCollection { .. }) => "a collection of geometries",
        None => "none",
    };
    Err(Wrong {
        expected: "a point, line or polygon, or several of one kind, as geometry",
        found: kind.to_owned(),
    })
}

fn polygon(rings: &[Vec<Position>]) -> Result<Polygon<f64>, Wrong> {
    let mut rings = rings.iter().map(|ring| {
        if ring.len() < 4 {
            return Err(Wrong {
                expected: "a closed ring of four positions or more",
                found: format!("{} positions", ring.len()),
            });
        }
        line(ring)
    });
    let exterior = rings.next().unwrap_or_else(|| {
        Err(Wrong {
            expected: "a polygon with an outer ring",
            found: "no ring".to_owned(),
        })
    })?;
    // A ring that is not closed is closed here.
    Ok(Polygon::new(exterior, rings.collect::<Result<_, _>>()?))
}

fn line(points: &[Position]) -> Result<LineString<f64>, Wrong> {
    points.iter().map(position).collect()
}

fn position(position: &Position) -> Result<Coord<f64>, Wrong> {
    match position.as_slice() {
        &[x, y, ..] => Ok(Coord { x, y }),
        short => Err(Wrong {
            expected: "positions of two numbers",
            found: format!("{}", short.len()),
        }),
    }
}

/// The file's content.
pub(super) fn to_geojson(path: &Path, annotations: &Annotations) -> Result<Vec<u8>> {
    let features: Vec<Feature> = annotations.iter().map(feature).collect();
    serde_json::to_vec(&FeatureCollection::new(features))
        .map_err(|error| SlideError::io(path, error.into()))
}

fn feature(annotation: &Annotation) -> Feature {
    let mut properties = JsonObject::new();
    properties.insert("objectType".to_owned(), json!("annotation"));
    if let Some(name) = annotation.name() {
        properties.insert("name".to_owned(), json!(name));
    }
    if let Some(class) = annotation.class() {
        let mut classification = JsonObject::new();
        classification.insert("name".to_owned(), json!(class));
        if let Some(Rgb(color)) = annotation.color() {
            classification.insert("color".to_owned(), json!(color));
        }
        properties.insert("classification".to_owned(), Value::Object(classification));
    } else if let Some(Rgb(color)) = annotation.color() {
        properties.insert("color".to_owned(), json!(color));
    }
    Feature {
        bbox: None,
        geometry: Some(Geometry::new(geometry(annotation.shape()))),
        id: None,
        properties: Some(properties),
        foreign_members: None,
    }
}

fn geometry(shape: &Shape) -> GeometryValue {
    let at = |point: &Coord<f64>| Position::from([point.x, point.y]);
    let line = |line: &LineString<f64>| line.0.iter().map(at).collect::<Vec<_>>();
    let rings = |polygon: &Polygon<f64>| {
        std::iter::once(polygon.exterior())
            .chain(polygon.interiors())
            .map(line)
            .collect::<Vec<_>>()
    };
    match shape {
        Shape::Area(polygons) => match polygons.0.as_slice() {
            [polygon] => GeometryValue::Polygon {
                coordinates: rings(polygon),
            },
            several => GeometryValue::MultiPolygon {
                coordinates: several.iter().map(rings).collect(),
            },
        },
        Shape::Line(lines) => match lines.0.as_slice() {
            [single] => GeometryValue::LineString {
                coordinates: line(single),
            },
            several => GeometryValue::MultiLineString {
                coordinates: several.iter().map(line).collect(),
            },
        },
        Shape::Points(points) => match points.0.as_slice() {
            [single] => GeometryValue::Point {
                coordinates: at(&single.0),
            },
            several => GeometryValue::MultiPoint {
                coordinates: several.iter().map(|point| at(&point.0)).collect(),
            },
        },
    }
}
