//! ASAP's XML.

use std::collections::HashMap;
use std::path::Path;

use geo::{Coord, LineString, MultiPoint, MultiPolygon, Point, Polygon};
use quick_xml::XmlVersion;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, Event};
use quick_xml::{Reader, Writer};

use super::{Annotation, Annotations, Shape};
use crate::error::{Result, SlideError};
use crate::geometry::Rgb;

/// Reads the text of a file; `path` is for errors.
pub(super) fn parse(path: &Path, text: &str) -> Result<Annotations> {
    let mut parser = Parser {
        path,
        reader: Reader::from_str(text),
        has_root: false,
        drawn: None,
        found: Vec::new(),
        group_colors: HashMap::new(),
    };
    parser.run()?;
    let Parser {
        found,
        group_colors,
        ..
    } = parser;
    Ok(found
        .into_iter()
        .map(|annotation| {
            // A group's colour is what ASAP shows.
            match annotation.class().and_then(|class| group_colors.get(class)) {
                Some(&color) => annotation.with_color(color),
                None => annotation,
            }
        })
        .collect())
}

struct Parser<'a> {
    path: &'a Path,
    reader: Reader<&'a [u8]>,
    has_root: bool,
    drawn: Option<Drawn>,
    found: Vec<Annotation>,
    group_colors: HashMap<String, Rgb>,
}

/// An annotation whose end has not come yet.
struct Drawn {
    kind: Kind,
    class: Option<String>,
    name: Option<String>,
    color: Option<Rgb>,
    points: Vec<(f64, Coord<f64>)>,
}

#[derive(Clone, Copy)]
enum Kind {
    Outline,
    Points,
}

impl Parser<'_> {
    fn run(&mut self) -> Result<()> {
        loop {
            let event = self
                .reader
                .read_event()
                .map_err(|error| self.wrong("well-formed XML", error))?;
            match event {
                Event::Start(element) => self.begin(&element)?,
                Event::Empty(element) => {
                    self.begin(&element)?;
                    self.end(element.name().into_inner())?;
                }
                Event::End(element) => self.end(element.name().into_inner())?,
                Event::Eof => break,
                _ => {}
            }
        }
        if self.drawn.is_some() {
            return Err(self.wrong("</Annotation>", "the end of the file"));
        }
        if !self.has_root {
            return Err(self.wrong("<ASAP_Annotations>", "no such element"));
        }
        Ok(())
    }

    fn begin(&mut self, element: &BytesStart<'_>) -> Result<()> {
        let name = element.name();
        if !self.has_root {
            if name.into_inner() != "ASAP_Annotations" {
                return Err(self.wrong("<ASAP_Annotations>", format!("<{}>", name.into_inner())));
            }
            self.has_root = true;
            return Ok(());
        }
        match name.into_inner() {
            "Annotation" if self.drawn.is_some() => {
                return Err(self.wrong("</Annotation>", "another <Annotation>"));
            }
            "Annotation" => self.drawn = Some(self.drawn(element)?),
            "Coordinate" => {
                let point = self.coordinate(element)?;
                match &mut self.drawn {
                    Some(drawn) => drawn.points.push(point),
                    None => return Err(self.wrong("<Annotation>", "<Coordinate> outside of one")),
                }
            }
            "Group" => {
                let name = self.attribute(element, "Name")?;
                let color = self.attribute(element, "Color")?;
                if let (Some(name), Some(color)) = (name, color.as_deref().and_then(color_of)) {
                    self.group_colors.insert(name, color);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn drawn(&self, element: &BytesStart<'_>) -> Result<Drawn> {
        let kind = match self.needed(element, "Type")?.as_str() {
            "Polygon" | "Spline" | "Rectangle" => Kind::Outline,
            "Dot" | "PointSet" => Kind::Points,
            other => {
                let known = "the type Polygon, Spline, Rectangle, Dot or PointSet";
                return Err(self.wrong(known, other));
            }
        };
        let given = |text: &String| !text.is_empty();
        Ok(Drawn {
            kind,
            class: self
                .attribute(element, "PartOfGroup")?
                .filter(|group| given(group) && group != "None"),
            name: self.attribute(element, "Name")?.filter(given),
            color: self
                .attribute(element, "Color")?
                .as_deref()
                .and_then(color_of),
            points: Vec::new(),
        })
    }

    fn coordinate(&self, element: &BytesStart<'_>) -> Result<(f64, Coord<f64>)> {
        let number = |name: &'static str| {
            let text = self.needed(element, name)?;
            // Some versions write a decimal comma.
            let value: Option<f64> = text.trim().replace(',', ".").parse().ok();
            value
                .filter(|value| value.is_finite())
                .ok_or_else(|| self.wrong(&format!("a number as {name}"), &text))
        };
        Ok((
            number("Order")?,
            Coord {
                x: number("X")?,
                y: number("Y")?,
            },
        ))
    }

    fn end(&mut self, name: &str) -> Result<()> {
        if name != "Annotation" {
            return Ok(());
        }
        let Some(mut drawn) = self.drawn.take() else {
            return Ok(());
        };
        drawn.points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let points = drawn.points.iter().map(|(_, point)| *point);
        let shape = match drawn.kind {
            Kind::Outline => {
                let mut points: Vec<_> = points.collect();
                if points.len() > 1 && points.first() == points.last() {
                    points.pop();
                }
                if points.len() < 3 {
                    return Err(self.wrong(
                        "an outline of three points or more",
                        format!("{} points", points.len()),
                    ));
                }
                // Closes the outline.
                let outline = Polygon::new(LineString::new(points), Vec::new());
                Shape::Area(MultiPolygon::new(vec![outline]))
            }
            Kind::Points => Shape::Points(MultiPoint::new(points.map(Point).collect())),
        };
        let mut annotation =
            Annotation::new(shape).map_err(|error| self.wrong("coordinates on a slide", error))?;
        annotation.class = drawn.class;
        annotation.name = drawn.name;
        annotation.color = drawn.color;
        self.found.push(annotation);
        Ok(())
    }

    fn needed(&self, element: &BytesStart<'_>, name: &'static str) -> Result<String> {
        self.attribute(element, name)?.ok_or_else(|| {
            let missing = format!("none in <{}>", element.name().into_inner());
            self.wrong(&format!("the attribute {name}"), missing)
        })
    }

    fn attribute(&self, element: &BytesStart<'_>, name: &'static str) -> Result<Option<String>> {
        let found = element
            .try_get_attribute(name)
            .map_err(|error| self.wrong("well-formed attributes", error))?;
        found
            .map(|attribute| {
                attribute
                    .normalized_value(XmlVersion::Implicit1_0)
                    .map(|value| value.into_owned())
                    .map_err(|error| self.wrong(&format!("text as {name}"), error))
            })
            .transpose()
    }

    fn wrong(&self, expected: &str, found: impl ToString) -> SlideError {
        SlideError::Malformed {
            path: self.path.to_path_buf(),
            place: format!("byte {}", self.reader.buffer_position()),
            expected: expected.to_owned(),
            found: found.to_string(),
        }
    }
}

/// `#rrggbb`.
fn color_of(text: &str) -> Option<Rgb> {
    let digits = text.strip_prefix('#')?;
    if digits.len() != 6 || !digits.is_ascii() {
        return None;
    }
    let [_, red, green, blue] = u32::from_str_radix(digits, 16).ok()?.to_be_bytes();
    Some(Rgb([red, green, blue]))
}

/// The file's content.
pub(super) fn to_xml(path: &Path, annotations: &Annotations) -> Result<Vec<u8>> {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    write(path, annotations, &mut writer)?;
    let mut xml = writer.into_inner();
    xml.push(b'\n');
    Ok(xml)
}

fn write(path: &Path, annotations: &Annotations, writer: &mut Writer<Vec<u8>>) -> Result<()> {
    let mut put = |event: Event<'_>| {
        writer
            .write_event(event)
            .map_err(|error| SlideError::io(path, error))
    };
    put(Event::Decl(BytesDecl::new("1.0", None, None)))?;
    put(Event::Start(BytesStart::new("ASAP_Annotations")))?;
    put(Event::Start(BytesStart::new("Annotations")))?;
    for (index, annotation) in annotations.iter().enumerate() {
        for (kind, points) in pieces(path, annotation)? {
            let unnamed = format!("Annotation {index}");
            let color = color_text(annotation.color());
            put(Event::Start(BytesStart::new("Annotation").with_attributes(
                [
                    ("Name", annotation.name().unwrap_or(&unnamed)),
                    ("Type", kind),
                    ("PartOfGroup", annotation.class().unwrap_or("None")),
                    ("Color", &color),
                ],
            )))?;
            put(Event::Start(BytesStart::new("Coordinates")))?;
            for (order, Coord { x, y }) in points.iter().enumerate() {
                put(Event::Empty(BytesStart::new("Coordinate").with_attributes(
                    [
                        ("Order", order.to_string().as_str()),
                        ("X", &x.to_string()),
                        ("Y", &y.to_string()),
                    ],
                )))?;
            }
            put(Event::End(BytesEnd::new("Coordinates")))?;
            put(Event::End(BytesEnd::new("Annotation")))?;
        }
    }
    put(Event::End(BytesEnd::new("Annotations")))?;
    put(Event::Start(BytesStart::new("AnnotationGroups")))?;
    for class in annotations.classes() {
        let first = annotations.of_class(Some(class)).next();
        let color = color_text(first.and_then(Annotation::color));
        put(Event::Start(BytesStart::new("Group").with_attributes([
            ("Name", class),
            ("PartOfGroup", "None"),
            ("Color", &color),
        ])))?;
        put(Event::Empty(BytesStart::new("Attributes")))?;
        put(Event::End(BytesEnd::new("Group")))?;
    }
    put(Event::End(BytesEnd::new("AnnotationGroups")))?;
    put(Event::End(BytesEnd::new("ASAP_Annotations")))
}

/// ASAP's own yellow where there is no colour.
fn color_text(color: Option<Rgb>) -> String {
    let [red, green, blue] = color.map_or([0xf4, 0xfa, 0x58], |color| color.0);
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// What ASAP holds as one annotation: its type and its points.
type Piece = (&'static str, Vec<Coord<f64>>);

fn pieces(path: &Path, annotation: &Annotation) -> Result<Vec<Piece>> {
    match annotation.shape() {
        Shape::Area(polygons) => Ok(polygons
            .iter()
            .filter(|polygon| !polygon.exterior().0.is_empty())
            .map(|polygon| ("Polygon", one_outline(polygon)))
            .collect()),
        Shape::Points(points) => {
            let kind = if points.0.len() == 1 {
                "Dot"
            } else {
                "PointSet"
            };
            Ok(vec![(kind, points.iter().map(|point| point.0).collect())])
        }
        Shape::Line(_) => Err(SlideError::Unsupported {
            path: path.to_path_buf(),
            what: "a line in ASAP's XML".to_owned(),
        }),
    }
}

/// One ring (its last point not repeated) that runs from the first point to each hole, around it, and back the same way.
fn one_outline(polygon: &Polygon<f64>) -> Vec<Coord<f64>> {
    let open = |ring: &LineString<f64>| ring.0[..ring.0.len().saturating_sub(1)].to_vec();
    let mut outline = open(polygon.exterior());
    let Some(&first) = outline.first() else {
        return outline;
    };
    let clockwise = signed_area(&outline) > 0.0;
    for hole in polygon.interiors() {
        let mut points = open(hole);
        let Some(&hole_start) = points.first() else {
            continue;
        };
        // Holes run the other way round, so that readers that count windings leave them out too.
        if (signed_area(&points) > 0.0) == clockwise {
            points.reverse();
            points.rotate_right(1);
        }
        outline.push(first);
        outline.append(&mut points);
        outline.push(hole_start);
    }
    outline
}

/// Twice the area of an open ring, with a sign for its direction.
fn signed_area(points: &[Coord<f64>]) -> f64 {
    let next = points.iter().cycle().skip(1);
    points
        .iter()
        .zip(next)
        .map(|(a, b)| a.x * b.y - b.x * a.y)
        .sum()
}
