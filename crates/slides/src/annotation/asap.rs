//! ASAP's XML.

use std::collections::HashMap;
use std::path::Path;

use geo::{Coord, LineString, MultiPoint, MultiPolygon, Point, Polygon};
use quick_xml::XmlVersion;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, Event};
use quick_xml::{Reader, Writer};

use super::read::Notes;
use super::shape::{LEAST_OF_OUTLINE, different_points};
use super::{Annotation, Annotations, Shape};
use crate::error::{Result, SlideError};
use crate::geometry::Rgb;
use crate::numbers::to_usize;

/// Reads the text of a file.
pub(super) fn parse(text: &str, notes: &mut Notes<'_>) -> Result<Annotations> {
    let mut parser = Parser {
        text,
        reader: Reader::from_str(text),
        notes,
        line: (0, 1),
        depth: 0,
        begun: 0,
        is_within: false,
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

struct Parser<'t, 'n, 'p> {
    text: &'t str,
    reader: Reader<&'t [u8]>,
    notes: &'n mut Notes<'p>,
    /// A byte and the line that it lies on.
    line: (usize, usize),
    /// Elements that are open.
    depth: usize,
    /// How many annotations began so far, and whether the last is still open.
    begun: usize,
    is_within: bool,
    drawn: Option<Drawn>,
    found: Vec<Annotation>,
    group_colors: HashMap<String, Rgb>,
}

/// An annotation whose end has not come yet.
#[derive(Default)]
struct Drawn {
    kind: Kind,
    class: Option<String>,
    name: Option<String>,
    color: Option<Rgb>,
    points: Vec<(f64, Coord<f64>)>,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Kind {
    Outline,
    Points,
    /// It was told already why.
    #[default]
    PassedOver,
}

impl Drawn {
    fn new(element: &BytesStart<'_>, color: Option<Rgb>) -> Result<Self, Flaw> {
        let kind = match needed(element, "Type")?.as_str() {
            "Polygon" | "Spline" | "Rectangle" => Kind::Outline,
            "Dot" | "PointSet" => Kind::Points,
            // A ruler (`Measurement`) covers nothing, and ASAP neither shows nor paints what is `None`.
            other => {
                let known = "the type Polygon, Spline, Rectangle, Dot or PointSet";
                return Err(Flaw::new(known, other));
            }
        };
        let given = |text: &String| !text.is_empty();
        Ok(Self {
            kind,
            class: attribute(element, "PartOfGroup")?
                .filter(|group| given(group) && group != "None"),
            name: attribute(element, "Name")?.filter(given),
            color,
            points: Vec::new(),
        })
    }
}

/// What should stand in the file, and what does.
struct Flaw {
    expected: String,
    found: String,
}

impl Flaw {
    fn new(expected: impl Into<String>, found: impl ToString) -> Self {
        Self {
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}

impl Parser<'_, '_, '_> {
    fn run(&mut self) -> Result<()> {
        let mut has_root = false;
        loop {
            let event = match self.reader.read_event() {
                Ok(event) => event,
                Err(error) => return Err(self.refuse("well-formed XML", error)),
            };
            let (element, is_empty) = match event {
                Event::Start(element) => (element, false),
                Event::Empty(element) => (element, true),
                Event::End(element) => {
                    self.depth = self.depth.saturating_sub(1);
                    self.end(element.name().into_inner())?;
                    continue;
                }
                Event::Eof => break,
                _ => continue,
            };
            let name = element.name();
            if !has_root && name.into_inner() != "ASAP_Annotations" {
                return Err(self.refuse("<ASAP_Annotations>", format!("<{}>", name.into_inner())));
            }
            has_root = true;
            self.begin(&element)?;
            if is_empty {
                self.end(name.into_inner())?;
            } else {
                self.depth += 1;
            }
        }
        if self.drawn.is_some() {
            return Err(self.refuse("</Annotation>", "the end of the file"));
        }
        if !has_root {
            return Err(self.refuse("<ASAP_Annotations>", "no such element"));
        }
        if self.depth > 0 {
            // What is missing may be annotations.
            return Err(self.refuse("</ASAP_Annotations>", "the end of the file"));
        }
        Ok(())
    }

    fn begin(&mut self, element: &BytesStart<'_>) -> Result<()> {
        match element.name().into_inner() {
            "Annotation" if self.drawn.is_some() => {
                Err(self.refuse("</Annotation>", "another <Annotation>"))
            }
            "Annotation" => {
                self.begun += 1;
                self.is_within = true;
                let color = self.color(element)?;
                let drawn = match Drawn::new(element, color) {
                    Ok(drawn) => drawn,
                    Err(flaw) => {
                        self.pass_over(flaw)?;
                        Drawn::default()
                    }
                };
                self.drawn = Some(drawn);
                Ok(())
            }
            "Coordinate" => self.coordinate(element),
            "Group" => {
                let color = self.color(element)?;
                match attribute(element, "Name") {
                    Ok(Some(name)) => {
                        if let Some(color) = color {
                            self.group_colors.insert(name, color);
                        }
                        Ok(())
                    }
                    Ok(None) => Ok(()),
                    Err(flaw) => self.pass_over(flaw),
                }
            }
            _ => Ok(()),
        }
    }

    fn color(&mut self, element: &BytesStart<'_>) -> Result<Option<Rgb>> {
        match attribute(element, "Color") {
            Ok(Some(text)) if !text.is_empty() => {
                let color = color_of(&text);
                if color.is_none() {
                    self.pass_over(Flaw::new("a colour such as #f4fa58", text))?;
                }
                Ok(color)
            }
            Ok(_) => Ok(None),
            Err(flaw) => self.pass_over(flaw).map(|()| None),
        }
    }

    fn coordinate(&mut self, element: &BytesStart<'_>) -> Result<()> {
        let kind = self.drawn.as_ref().map(|drawn| drawn.kind);
        if kind == Some(Kind::PassedOver) {
            return Ok(());
        }
        match (point(element), &mut self.drawn) {
            (Ok(point), Some(drawn)) => {
                drawn.points.push(point);
                Ok(())
            }
            (Ok(_), None) => {
                self.pass_over(Flaw::new("<Annotation>", "<Coordinate> outside of one"))
            }
            (Err(flaw), drawn) => {
                // Of points the others are good; an outline without a corner would be another one.
                if let Some(drawn) = drawn
                    && drawn.kind == Kind::Outline
                {
                    drawn.kind = Kind::PassedOver;
                }
                self.pass_over(flaw)
            }
        }
    }

    fn end(&mut self, name: &str) -> Result<()> {
        match self.drawn.take_if(|_| name == "Annotation") {
            Some(drawn) => {
                self.finish(drawn)?;
                self.is_within = false;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn finish(&mut self, mut drawn: Drawn) -> Result<()> {
        drawn.points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let points = drawn.points.iter().map(|(_, point)| *point);
        let shape = match drawn.kind {
            Kind::PassedOver => return Ok(()),
            Kind::Outline => {
                // Closes the outline.
                let outline = Polygon::new(points.collect(), Vec::new());
                let different = different_points(outline.exterior());
                if different < LEAST_OF_OUTLINE {
                    return self.pass_over(Flaw::new(
                        "an outline of three points or more",
                        format!("{different} points"),
                    ));
                }
                Shape::Area(MultiPolygon::new(vec![outline]))
            }
            Kind::Points if drawn.points.is_empty() => {
                return self.pass_over(Flaw::new("at least one point", "none"));
            }
            Kind::Points => Shape::Points(MultiPoint::new(points.map(Point).collect())),
        };
        match Annotation::new(shape) {
            Ok(mut annotation) => {
                annotation.class = drawn.class;
                annotation.name = drawn.name;
                annotation.color = drawn.color;
                self.found.push(annotation);
                Ok(())
            }
            Err(error) => self.pass_over(Flaw::new("coordinates on a slide", error)),
        }
    }

    fn pass_over(&mut self, flaw: Flaw) -> Result<()> {
        let place = self.place();
        self.notes.pass_over(place, flaw.expected, flaw.found)
    }

    fn refuse(&mut self, expected: &str, found: impl ToString) -> SlideError {
        let place = self.place();
        self.notes.refuse(place, expected, found)
    }

    /// What was read last.
    fn place(&mut self) -> String {
        let byte = to_usize(self.reader.buffer_position());
        let (from, line) = self.line;
        let between = self.text.as_bytes().get(from..byte).unwrap_or_default();
        let line = line + between.iter().filter(|&&byte| byte == b'\n').count();
        self.line = (byte.max(from), line);
        let mut place = format!("byte {byte}, line {line}");
        if self.is_within {
            place += &format!(", annotation {}", self.begun.saturating_sub(1));
        }
        place
    }
}

/// A point and its place in the order.
fn point(element: &BytesStart<'_>) -> Result<(f64, Coord<f64>), Flaw> {
    let number = |name: &'static str| {
        let text = needed(element, name)?;
        // Some versions write a decimal comma.
        let value: Option<f64> = text.trim().replace(',', ".").parse().ok();
        value
            .filter(|value| value.is_finite())
            .ok_or_else(|| Flaw::new(format!("a number as {name}"), &text))
    };
    Ok((
        number("Order")?,
        Coord {
            x: number("X")?,
            y: number("Y")?,
        },
    ))
}

fn needed(element: &BytesStart<'_>, name: &'static str) -> Result<String, Flaw> {
    attribute(element, name)?.ok_or_else(|| {
        let missing = format!("none in <{}>", element.name().into_inner());
        Flaw::new(format!("the attribute {name}"), missing)
    })
}

fn attribute(element: &BytesStart<'_>, name: &'static str) -> Result<Option<String>, Flaw> {
    let found = element
        .try_get_attribute(name)
        .map_err(|error| Flaw::new("well-formed attributes", error))?;
    found
        .map(|attribute| {
            attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map(|value| value.into_owned())
                .map_err(|error| Flaw::new(format!("text as {name}"), error))
        })
        .transpose()
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
