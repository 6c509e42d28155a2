//! The GeoJSON of QuPath.

use std::path::Path;

use geo::{Coord, LineString, MultiLineString, MultiPoint, MultiPolygon, Point, Polygon};
use geojson::{Feature, FeatureCollection, Geometry, GeometryValue, JsonObject, Position};
use serde::Deserialize;
use serde_json::{Value, json};

use super::not_a_number::as_json;
use super::read::Notes;
use super::shape::{LEAST_OF_OUTLINE, different_points, lies_on_a_slide};
use super::{Annotation, Annotations, GeoJsonFrame, Shape};
use crate::error::{Result, SlideError};
use crate::geometry::Rgb;
use crate::numbers::position as float_of;

/// Reads the text of a file.
pub(super) fn parse(text: &str, frame: GeoJsonFrame, notes: &mut Notes<'_>) -> Result<Annotations> {
    let text = as_json(text, notes)?;
    let items = items(&text, notes)?;
    let (row, column) = frame.origin();
    let mut reader = FeatureReader {
        origin: (float_of(row), float_of(column)),
        notes,
        found: Vec::new(),
    };
    for (index, item) in items.into_iter().enumerate() {
        reader.item(format!("feature {index}"), item)?;
    }
    Ok(reader.found.into_iter().collect())
}

/// A feature, or what stands in its place.
#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Feature(LooseFeature),
    Other(Value),
}

/// A feature whose members may be anything.
#[derive(Deserialize)]
struct LooseFeature {
    r#type: Option<Value>,
    geometry: Option<LooseGeometry>,
    properties: Option<Value>,
}

/// A geometry that is right in all its parts, or what stands in its place.
#[derive(Deserialize)]
#[serde(untagged)]
enum LooseGeometry {
    Geometry(Geometry),
    Other(Value),
}

#[derive(Deserialize)]
struct Collection {
    features: Vec<Item>,
}

/// What a file says that it is.
#[derive(Deserialize)]
#[serde(expecting = "an object or a list")]
struct Head {
    r#type: Option<Value>,
}

fn items(text: &str, notes: &Notes<'_>) -> Result<Vec<Item>> {
    let not_geojson = |error: serde_json::Error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        notes.refuse(place, "GeoJSON", error)
    };
    // QuPath's scripts write plain lists of features.
    if text.starts_with('[') {
        return serde_json::from_str(text).map_err(not_geojson);
    }
    let head: Head = serde_json::from_str(text).map_err(not_geojson)?;
    match head.r#type.as_ref().and_then(Value::as_str) {
        Some("FeatureCollection") => {
            let collection: Collection = serde_json::from_str(text).map_err(not_geojson)?;
            Ok(collection.features)
        }
        Some("Feature") => Ok(vec![serde_json::from_str(text).map_err(not_geojson)?]),
        Some(
            "Point" | "MultiPoint" | "LineString" | "MultiLineString" | "Polygon" | "MultiPolygon"
            | "GeometryCollection",
        ) => Ok(vec![Item::Feature(LooseFeature {
            r#type: Some(json!("Feature")),
            geometry: Some(serde_json::from_str(text).map_err(not_geojson)?),
            properties: None,
        })]),
        _ => {
            let text = text.trim_end();
            let last = text.lines().last().unwrap_or_default();
            let place = format!("line {}, column {}", text.lines().count(), last.len());
            let found = head.r#type.map_or_else(
                || "an object without a type".to_owned(),
                |other| format!("the type {other}"),
            );
            Err(notes.refuse(place, "GeoJSON", found))
        }
    }
}

/// What was wrong with a part of a feature.
struct Flaw {
    expected: &'static str,
    found: String,
}

/// The parts of a geometry.
#[derive(Default)]
struct Parts {
    polygons: Vec<Polygon<f64>>,
    lines: Vec<LineString<f64>>,
    points: Vec<Point<f64>>,
}

impl Parts {
    /// A shape of each kind that there is.
    fn into_shapes(self) -> impl Iterator<Item = Shape> {
        let area = (!self.polygons.is_empty()).then_some(Shape::Area(MultiPolygon(self.polygons)));
        let line = (!self.lines.is_empty()).then_some(Shape::Line(MultiLineString(self.lines)));
        let points = (!self.points.is_empty()).then_some(Shape::Points(MultiPoint(self.points)));
        [area, line, points].into_iter().flatten()
    }
}

struct FeatureReader<'n, 'p> {
    /// Where the frame's corner lies on level 0, (row, column).
    origin: (f64, f64),
    notes: &'n mut Notes<'p>,
    found: Vec<Annotation>,
}

impl FeatureReader<'_, '_> {
    fn item(&mut self, place: String, item: Item) -> Result<()> {
        const FEATURE: &str = "an object of the type \"Feature\"";
        let feature = match item {
            Item::Feature(feature) => feature,
            Item::Other(other) => return self.notes.pass_over(place, FEATURE, shortened(&other)),
        };
        let kind = feature.r#type.unwrap_or_default();
        if kind != "Feature" {
            let found = format!("the type {}", shortened(&kind));
            return self.notes.pass_over(place, FEATURE, found);
        }
        // Nothing was drawn.
        let Some(geometry) = feature.geometry else {
            return Ok(());
        };
        let mut parts = Parts::default();
        self.geometry(&place, geometry, &mut parts)?;
        let properties = match feature.properties {
            Some(Value::Object(properties)) => properties,
            None => JsonObject::new(),
            Some(other) => {
                let found = shortened(&other);
                self.notes
                    .pass_over(place.as_str(), "an object as properties", found)?;
                JsonObject::new()
            }
        };
        let (name, class, color) = self.described(&place, &properties)?;
        for shape in parts.into_shapes() {
            match Annotation::new(shape) {
                Ok(mut annotation) => {
                    annotation.name.clone_from(&name);
                    annotation.class.clone_from(&class);
                    annotation.color = color;
                    self.found.push(annotation);
                }
                Err(error) => {
                    self.notes
                        .pass_over(place.as_str(), "coordinates on a slide", error)?;
                }
            }
        }
        Ok(())
    }

    /// Name, class and colour.
    fn described(
        &mut self,
        place: &str,
        properties: &JsonObject,
    ) -> Result<(Option<String>, Option<String>, Option<Rgb>)> {
        let given = |object: &JsonObject, member: &str| {
            object.get(member).filter(|value| !value.is_null()).cloned()
        };
        let name = given(properties, "name");
        let name_text = name.as_ref().and_then(Value::as_str).map(str::to_owned);
        let classification = given(properties, "classification");
        let class = classification.as_ref().and_then(class);
        let of_class = classification.as_ref().and_then(Value::as_object);
        let has_color = |object: &JsonObject| {
            given(object, "color").is_some() || given(object, "colorRGB").is_some()
        };
        let colored = std::iter::once(properties)
            .chain(of_class)
            .find(|object| has_color(object));
        let color = colored.and_then(color);
        for (what, is_lost) in [
            ("text as name", name.is_some() && name_text.is_none()),
            (
                "a name in the classification",
                classification.is_some() && class.is_none(),
            ),
            (
                "three numbers from 0 to 255 as colour",
                colored.is_some() && color.is_none(),
            ),
        ] {
            if is_lost {
                self.notes.pass_over(place, what, "something else")?;
            }
        }
        Ok((name_text, class, color))
    }

    fn geometry(&mut self, place: &str, geometry: LooseGeometry, parts: &mut Parts) -> Result<()> {
        let mut value = match geometry {
            LooseGeometry::Geometry(geometry) => return self.whole(place, &geometry.value, parts),
            LooseGeometry::Other(value) => value,
        };
        // One wrong number must not take the pieces beside it along.
        let pieces = match value.get("type").and_then(Value::as_str) {
            Some("MultiPolygon") => Some(("coordinates", "polygon", Some("Polygon"))),
            Some("MultiLineString") => Some(("coordinates", "line", Some("LineString"))),
            Some("MultiPoint") => Some(("coordinates", "point", Some("Point"))),
            Some("GeometryCollection") => Some(("geometries", "geometry", None)),
            _ => None,
        };
        if let Some((member, name, kind)) = pieces
            && let Some(Value::Array(list)) = value.get_mut(member).map(Value::take)
        {
            for (index, piece) in list.into_iter().enumerate() {
                let piece = match kind {
                    Some(kind) => json!({"type": kind, "coordinates": piece}),
                    None => piece,
                };
                let place = format!("{place}, {name} {index}");
                let piece = serde_json::from_value(piece)
                    .map_err(|error| self.notes.refuse(place.as_str(), "GeoJSON", error))?;
                self.geometry(&place, piece, parts)?;
            }
            return Ok(());
        }
        let found = match Geometry::deserialize(&value) {
            Err(error) => error.to_string(),
            Ok(_) => shortened(&value),
        };
        self.notes
            .pass_over(place, "a geometry of finite numbers", found)
    }

    fn whole(&mut self, place: &str, geometry: &GeometryValue, parts: &mut Parts) -> Result<()> {
        let count = match geometry {
            GeometryValue::Polygon { coordinates } => {
                return self.polygon(place, coordinates, parts);
            }
            GeometryValue::LineString { coordinates } => {
                return self.line(place, coordinates, parts);
            }
            GeometryValue::Point { coordinates } => return self.point(place, coordinates, parts),
            GeometryValue::MultiPolygon { coordinates } => {
                for (index, rings) in coordinates.iter().enumerate() {
                    self.polygon(&format!("{place}, polygon {index}"), rings, parts)?;
                }
                coordinates.len()
            }
            GeometryValue::MultiLineString { coordinates } => {
                for (index, line) in coordinates.iter().enumerate() {
                    self.line(&format!("{place}, line {index}"), line, parts)?;
                }
                coordinates.len()
            }
            GeometryValue::MultiPoint { coordinates } => {
                for (index, point) in coordinates.iter().enumerate() {
                    self.point(&format!("{place}, point {index}"), point, parts)?;
                }
                coordinates.len()
            }
            GeometryValue::GeometryCollection { geometries } => {
                for (index, geometry) in geometries.iter().enumerate() {
                    let place = format!("{place}, geometry {index}");
                    self.whole(&place, &geometry.value, parts)?;
                }
                geometries.len()
            }
        };
        match count {
            0 => self
                .notes
                .pass_over(place, "at least one piece as geometry", "none"),
            _ => Ok(()),
        }
    }

    fn polygon(&mut self, place: &str, rings: &[Vec<Position>], parts: &mut Parts) -> Result<()> {
        let Some((exterior, holes)) = rings.split_first() else {
            return self
                .notes
                .pass_over(place, "a polygon with an outer ring", "no ring");
        };
        let exterior = match self.positions(exterior).and_then(outline) {
            Ok(exterior) => exterior,
            Err(flaw) => return self.notes.pass_over(place, flaw.expected, flaw.found),
        };
        let mut interiors = Vec::with_capacity(holes.len());
        for (index, hole) in holes.iter().enumerate() {
            let place = format!("{place}, hole {index}");
            match self.positions(hole) {
                Ok(ring) => match outline(ring) {
                    Ok(ring) => interiors.push(ring),
                    // It has no area, so the polygon is the same without it.
                    Err(flaw) => self.notes.pass_over(place, flaw.expected, flaw.found)?,
                },
                Err(flaw) => return self.notes.pass_over(place, flaw.expected, flaw.found),
            }
        }
        parts.polygons.push(Polygon::new(exterior, interiors));
        Ok(())
    }

    fn line(&mut self, place: &str, line: &[Position], parts: &mut Parts) -> Result<()> {
        let flaw = match self.positions(line) {
            Ok(line) if line.0.len() >= 2 => {
                parts.lines.push(line);
                return Ok(());
            }
            Ok(line) => Flaw {
                expected: "a line of two positions or more",
                found: format!("{} positions", line.0.len()),
            },
            Err(flaw) => flaw,
        };
        self.notes.pass_over(place, flaw.expected, flaw.found)
    }

    fn point(&mut self, place: &str, point: &Position, parts: &mut Parts) -> Result<()> {
        match self.position(point) {
            Ok(at) => {
                parts.points.push(Point(at));
                Ok(())
            }
            Err(flaw) => self.notes.pass_over(place, flaw.expected, flaw.found),
        }
    }

    fn positions(&self, positions: &[Position]) -> Result<LineString<f64>, Flaw> {
        positions.iter().map(|at| self.position(at)).collect()
    }

    /// On level 0.
    fn position(&self, position: &Position) -> Result<Coord<f64>, Flaw> {
        let &[x, y, ..] = position.as_slice() else {
            return Err(Flaw {
                expected: "positions of two numbers",
                found: format!("{}", position.as_slice().len()),
            });
        };
        let at = Coord {
            x: x + self.origin.1,
            y: y + self.origin.0,
        };
        if lies_on_a_slide(Coord { x, y }) && lies_on_a_slide(at) {
            Ok(at)
        } else {
            Err(Flaw {
                expected: "coordinates on a slide",
                found: format!("({x}, {y})"),
            })
        }
    }
}

/// A ring that is not closed is closed here.
fn outline(mut ring: LineString<f64>) -> Result<LineString<f64>, Flaw> {
    let different = different_points(&ring);
    if different < LEAST_OF_OUTLINE {
        return Err(Flaw {
            expected: "a closed ring of four positions or more, three of them different",
            found: format!("{} positions, {different} of them different", ring.0.len()),
        });
    }
    ring.close();
    Ok(ring)
}

/// The beginning of a value, for a message.
fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
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

/// The file's content.
pub(super) fn to_geojson(
    path: &Path,
    annotations: &Annotations,
    frame: GeoJsonFrame,
) -> Result<Vec<u8>> {
    let (row, column) = frame.origin();
    let origin = (float_of(row), float_of(column));
    let features: Vec<Feature> = annotations
        .iter()
        .map(|annotation| feature(annotation, origin))
        .collect::<Result<_>>()?;
    serde_json::to_vec(&FeatureCollection::new(features))
        .map_err(|error| SlideError::io(path, error.into()))
}

fn feature(annotation: &Annotation, origin: (f64, f64)) -> Result<Feature> {
    let shape = annotation.shape().counted_from(origin);
    shape.check()?;
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
    Ok(Feature {
        bbox: None,
        geometry: Some(Geometry::new(geometry(&shape))),
        id: None,
        properties: Some(properties),
        foreign_members: None,
    })
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
