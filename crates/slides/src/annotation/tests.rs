mod flaws;
mod frames;

use geo::{LineString, MultiLineString, MultiPoint, MultiPolygon, Polygon, point, polygon};
use proptest::prelude::*;

use super::*;
use crate::geometry::{Extent, MicronsPerPixel, Region};
use crate::options::OpenOptions;
use crate::slide::Slide;
use crate::view::{SlideView, Target};

/// As ASAP writes it, with a decimal comma and an order that is not that of the file.
const XML: &str = r##"<?xml version="1.0"?>
<ASAP_Annotations>
  <Annotations>
    <Annotation Name="Annotation 0" Type="Polygon" PartOfGroup="metastases" Color="#F4FA58">
      <Coordinates>
        <Coordinate Order="0" X="1" Y="1" />
        <Coordinate Order="2" X="9" Y="9" />
        <Coordinate Order="1" X="9,0" Y="1" />
        <Coordinate Order="3" X="1" Y="9" />
      </Coordinates>
    </Annotation>
    <Annotation Name="a &lt; b" Type="Dot" PartOfGroup="None" Color="#000000">
      <Coordinates><Coordinate Order="0" X="4.5" Y="-2" /></Coordinates>
    </Annotation>
  </Annotations>
  <AnnotationGroups>
    <Group Name="metastases" PartOfGroup="None" Color="#ff0010"><Attributes /></Group>
  </AnnotationGroups>
</ASAP_Annotations>
"##;

/// On level 0.
const STRICT: AnnotationOptions =
    AnnotationOptions::new(GeoJsonFrame::Level0).with_strictness(Strictness::Refuse);

fn parse(text: &str) -> Result<Annotations> {
    let file = Annotations::parse(Path::new("drawn.txt"), text.as_bytes(), &STRICT)?;
    assert_eq!(file.passed_over, []);
    Ok(file.annotations)
}

fn read(path: &Path) -> Annotations {
    Annotations::read(path, &STRICT).unwrap().annotations
}

fn view(height: u64, width: u64, downsample: f64) -> SlideView {
    let length = usize::try_from(height * width * 3).unwrap();
    let extent = Extent { height, width };
    let slide = Slide::from_rgb("memory", extent, vec![0; length], &OpenOptions::default());
    slide.unwrap().view(Target::Downsample(downsample)).unwrap()
}

fn area(polygons: Vec<Polygon<f64>>) -> Annotation {
    Annotation::new(Shape::Area(MultiPolygon::new(polygons))).unwrap()
}

fn ring(points: &[(f64, f64)]) -> LineString<f64> {
    points.iter().copied().collect()
}

#[test]
fn asap_is_read() {
    let found = parse(XML).unwrap();
    let [outline, dot] = found.items.as_slice() else {
        panic!("{found:?}")
    };
    let square = polygon![(x: 1.0, y: 1.0), (x: 9.0, y: 1.0), (x: 9.0, y: 9.0), (x: 1.0, y: 9.0)];
    assert_eq!(
        outline.shape(),
        &Shape::Area(MultiPolygon::new(vec![square]))
    );
    assert_eq!(outline.class(), Some("metastases"));
    assert_eq!(outline.color(), Some(Rgb([0xff, 0, 0x10])), "the group's");
    assert_eq!((dot.name(), dot.class()), (Some("a < b"), None));
    let at = point!(x: 4.5, y: -2.0);
    assert_eq!(dot.shape(), &Shape::Points(MultiPoint::new(vec![at])));
    assert_eq!(found.classes(), ["metastases"]);
}

#[test]
fn qupath_is_read_in_all_its_forms() {
    let feature = r#"{"type":"Feature","id":"x","geometry":{"type":"Polygon","coordinates":
        [[[0,0],[8,0],[8,8],[0,8],[0,0]],[[2,2],[4,2],[4,4],[2,4],[2,2]]]},
        "properties":{"objectType":"annotation","classification":{"name":"Tumor","colorRGB":-3670016}}}"#;
    for text in [
        feature.to_owned(),
        format!("[{feature}]"),
        format!(r#"{{"type":"FeatureCollection","features":[{feature}]}}"#),
        format!("\u{feff} {feature}"),
    ] {
        let found = parse(&text).unwrap();
        let [one] = found.items.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!(one.class(), Some("Tumor"));
        assert_eq!(one.color(), Some(Rgb([200, 0, 0])));
        let scale = PixelScale::square(MicronsPerPixel::new(1000.0).unwrap());
        assert!((one.area_mm2(scale) - 60.0).abs() < 1e-6);
    }
    let geometry = r#"{"type":"LineString","coordinates":[[0,0],[1,2.5]]}"#;
    let found = parse(geometry).unwrap();
    let line = MultiLineString::new(vec![ring(&[(0.0, 0.0), (1.0, 2.5)])]);
    assert_eq!(found.items[0].shape(), &Shape::Line(line));
    let derived = r#"{"type":"Feature","geometry":{"type":"Point","coordinates":[1,2,3]},
        "properties":{"name":"n","color":[1,2,3],"classification":{"names":["Tumor","Positive"]}}}"#;
    let found = parse(derived).unwrap();
    assert_eq!(found.items[0].class(), Some("Tumor: Positive"));
    assert_eq!(found.items[0].color(), Some(Rgb([1, 2, 3])));
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (text, place, expected) in [
        ("", "line 1, column 0", "GeoJSON"),
        ("{}", "line 1, column 2", "GeoJSON"),
        ("<a/>", "byte 4", "<ASAP_Annotations>"),
        ("<ASAP_Annotations><Annotation", "byte", "well-formed XML"),
        (
            "<ASAP_Annotations><Annotations><Annotation Type='Dot'>",
            "byte 54",
            "</Annotation>",
        ),
        (
            "<ASAP_Annotations><Coordinate Order='0' X='0' Y='0'/>",
            "byte 53",
            "<Annotation>",
        ),
        (
            "<ASAP_Annotations><Annotation Type='Circle'>",
            "byte 44",
            "the type Polygon",
        ),
        (
            "<ASAP_Annotations><Annotation Type='Polygon'><Coordinate Order='0' X='NaN' Y='0'/>",
            "byte 82",
            "a number as X",
        ),
        (
            "<ASAP_Annotations><Annotation Type='Polygon'></Annotation>",
            "byte 58",
            "an outline of three points",
        ),
        (
            "<ASAP_Annotations><Annotation Type='Polygon'><Coordinate Order='0' X='9' Y='0'/>\
             <Coordinate Order='1' X='1' Y='1'/><Coordinate Order='2' X='9' Y='0'/></Annotation>",
            "byte 163",
            "an outline of three points",
        ),
        (
            "<ASAP_Annotations><Annotation Type='Dot'><Coordinate Order='0' X='1e300' Y='0'/></Annotation>",
            "byte 93",
            "coordinates on a slide",
        ),
        (
            r#"[{"type":"Feature","geometry":null,"properties":null},
               {"type":"Feature","geometry":{"type":"Polygon","coordinates":[[[0,0],[1,1],[0,0]]]},"properties":null}]"#,
            "feature 1",
            "a closed ring of four positions or more",
        ),
    ] {
        let error = parse(text).unwrap_err();
        let SlideError::Malformed {
            place: found,
            expected: rule,
            ..
        } = &error
        else {
            panic!("{text}: {error}")
        };
        assert!(
            found.starts_with(place) && rule.starts_with(expected),
            "{text}: {error}"
        );
        assert!(error.to_string().starts_with("drawn.txt, "), "{error}");
    }
    let single = "<ASAP_Annotations><Annotation Type='Polygon'><Coordinate Order='0' X='9' Y='0'/></Annotation>";
    let error = parse(single).unwrap_err().to_string();
    assert!(error.contains("1 points"), "{error}");
    let error = Annotations::parse(Path::new("x"), b"<ASAP\xff", &STRICT).unwrap_err();
    assert!(error.to_string().contains("byte 5"), "{error}");
    let lost = Shape::Points(MultiPoint::new(vec![point!(x: f64::NAN, y: 0.0)]));
    assert_eq!(
        Annotation::new(lost).unwrap_err().to_string(),
        "a coordinate of an annotation must be finite, and less than 2^32 pixels from the origin, found (NaN, 0)"
    );
}

#[test]
fn both_formats_keep_what_they_can_hold() {
    let with_hole = polygon!(
        exterior: [(x: 0.5, y: 0.0), (x: 8.0, y: 0.25), (x: 8.0, y: 8.0)],
        interiors: [[(x: 5.0, y: 2.0), (x: 6.0, y: 2.0), (x: 6.0, y: 3.0)]],
    );
    let other = polygon![(x: 20.0, y: 1.0), (x: 22.0, y: 1.0), (x: 22.0, y: 3.0)];
    let points = |list: &[(f64, f64)]| Shape::Points(list.iter().copied().collect());
    let red = Rgb([255, 0, 1]);
    let plain = Annotations::from_iter([
        area(vec![other.clone()])
            .with_class("A & \"b\"")
            .with_name("<first>")
            .with_color(red),
        Annotation::new(points(&[(1.0, 2.0), (1e-7, 3.25)]))
            .unwrap()
            .with_name("points"),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drawn");
    plain.write_asap(&path).unwrap();
    let mut back = read(&path);
    assert_eq!(
        back.items[1].color(),
        Some(Rgb([0xf4, 0xfa, 0x58])),
        "ASAP's own"
    );
    back.items[1].color = None;
    assert_eq!(back, plain);

    let line = Shape::Line(MultiLineString::new(vec![
        ring(&[(0.0, 1.0), (2.0, 3.5)]);
        2
    ]));
    let rich = Annotations::from_iter([
        area(vec![with_hole.clone(), other.clone()]).with_class("C"),
        area(vec![with_hole.clone()]).with_color(red),
        Annotation::new(line).unwrap(),
        Annotation::new(points(&[(1.0, 2.0)]))
            .unwrap()
            .with_name("n"),
    ]);
    rich.write_geojson(&path, GeoJsonFrame::Level0).unwrap();
    assert_eq!(read(&path), rich);
    let error = rich.write_asap(&path).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}: a line in ASAP's XML is not supported", path.display())
    );
    assert_eq!(read(&path), rich, "nothing was written");
}

#[test]
fn a_hole_survives_asap_in_pixels_and_area() {
    // Both directions of the hole, and a hole whose way there crosses another one.
    for reversed in [false, true] {
        let mut hole = vec![(10.2, 10.1), (20.7, 10.3), (20.1, 20.9), (9.7, 19.2)];
        if reversed {
            hole.reverse();
        }
        let square = ring(&[(1.3, 1.1), (40.2, 2.3), (41.9, 40.7), (2.2, 41.1)]);
        let holes = vec![
            ring(&[(25.1, 25.3), (35.2, 26.1), (30.3, 35.8)]),
            ring(&hole),
        ];
        let drawn = Annotations::from_iter([area(vec![Polygon::new(square, holes)])]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hole.xml");
        drawn.write_asap(&path).unwrap();
        let back = read(&path);
        let view = view(45, 45, 1.0);
        let labels = |drawn: &Annotations| drawn.label_map(&view, &[(None, 7)]).to_image().unwrap();
        assert_eq!(labels(&drawn), labels(&back));
        let scale = PixelScale::square(MicronsPerPixel::new(1.0).unwrap());
        let (before, after) = (drawn.area_mm2(None, scale), back.area_mm2(None, scale));
        assert!(
            (before - after).abs() < before * 1e-6,
            "{before} and {after}"
        );
    }
}

#[test]
fn later_classes_cover_earlier_ones_and_masks_follow() {
    let square = |from: f64, to: f64| {
        area(vec![
            polygon![(x: from, y: from), (x: to, y: from), (x: to, y: to), (x: from, y: to)],
        ])
    };
    let drawn = Annotations::from_iter([
        square(4.0, 12.0).with_class("normal"),
        square(0.0, 16.0).with_class("metastases"),
    ]);
    let whole = view(16, 16, 1.0);
    let map = drawn.label_map(&whole, &[(Some("metastases"), 1), (Some("normal"), 0)]);
    let mask = map.mask_of(1).unwrap();
    assert!((mask.share() - (256.0 - 64.0) / 256.0).abs() < 1e-12);
    // A mask of a part knows where it lies.
    let part = whole.cropped(&Region::new(2..16, 6..16)).unwrap();
    let map = drawn.label_map(&part, &[(Some("metastases"), 1), (Some("normal"), 0)]);
    let mask = map.mask_of(1).unwrap();
    assert_eq!(mask.share_in(&whole, &Region::new(4..12, 6..12)), 0.0);
    assert_eq!(mask.share_in(&whole, &Region::new(12..14, 6..12)), 1.0);
    let scale = PixelScale::square(MicronsPerPixel::new(1.0).unwrap());
    let both = drawn.iter().map(|one| one.area_mm2(scale)).sum::<f64>();
    assert!((both * 1e6 - 320.0).abs() < 1e-6);
    let short = map.read(&Region::new(0..2, 0..2), &mut [0; 3]);
    assert_eq!(
        short.unwrap_err().to_string(),
        "the number of labels must be height x width of the region, found 3 for 4"
    );
}

fn text_like(alphabet: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(alphabet), 0..40)
        .prop_map(|parts| parts.concat())
}

const XML_PARTS: &[&str] = &[
    "<ASAP_Annotations>",
    "</ASAP_Annotations>",
    "<Annotation ",
    "Type='Polygon'",
    "Type=\"Dot\"",
    ">",
    "/>",
    "</Annotation>",
    "<Coordinate Order='1' X='2' Y='3'/>",
    "<Coordinate ",
    "X='1e999'",
    "Order='",
    "&lt;",
    "&#x0;",
    "&bad;",
    "<!--",
    "-->",
    "<![CDATA[",
    "]]>",
    "<!DOCTYPE a [<!ENTITY b 'c'>]>",
    "<?xml version='1.0' encoding='utf-16'?>",
    "\u{0}",
    "é",
    "'",
];

const JSON_PARTS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"type\"",
    "\"Feature\"",
    "\"FeatureCollection\"",
    "\"features\"",
    "\"geometry\"",
    "\"Polygon\"",
    "\"coordinates\"",
    "[[0,0],[1,0],[1,1],[0,0]]",
    "[1]",
    "[]",
    "1e400",
    "NaN",
    "-Infinity",
    "-0",
    "null",
    "\"properties\"",
    "\"classification\"",
    "\"\\ud800\"",
    "é",
];

/// A well-formed file with bytes changed, cut out or repeated.
fn damaged(text: String) -> impl Strategy<Value = Vec<u8>> {
    let bytes = text.into_bytes();
    let length = bytes.len();
    let change = (0..length, any::<u8>(), 0..3_u8, 0..length);
    proptest::collection::vec(change, 0..6).prop_map(move |changes| {
        let mut bytes = bytes.clone();
        for (place, value, kind, other) in changes {
            let (place, other) = (place.min(bytes.len()), other.min(bytes.len()));
            match kind {
                0 if place < bytes.len() => bytes[place] = value,
                1 => {
                    drop(bytes.drain(place.min(other)..place.max(other).min(place.min(other) + 9)))
                }
                _ => {
                    let piece = bytes[place.min(other)..place.max(other)].to_vec();
                    bytes.splice(place..place, piece);
                }
            }
        }
        bytes
    })
}

/// How many cases a reader is tried with: 20,000, or as many as `SLIDES_FUZZ_CASES` says.
fn cases() -> ProptestConfig {
    let cases = std::env::var("SLIDES_FUZZ_CASES").ok();
    ProptestConfig::with_cases(cases.and_then(|text| text.parse().ok()).unwrap_or(20_000))
}

fn written_and_read(drawn: &Annotations, frame: GeoJsonFrame) -> Result<Annotations> {
    let path = Path::new("written");
    let json = qupath::to_geojson(path, drawn, frame)?;
    let options = AnnotationOptions::new(frame).with_strictness(Strictness::Refuse);
    Ok(Annotations::parse(path, &json, &options)
        .unwrap()
        .annotations)
}

/// Whatever the readers accept can be painted, measured and written, and comes back the same. What is accepted strictly is
/// accepted otherwise, too, with nothing to tell.
fn accepted_is_usable(bytes: &[u8], frame: GeoJsonFrame) {
    let path = Path::new("fuzz");
    let lenient = AnnotationOptions::new(frame);
    let strict = lenient.with_strictness(Strictness::Refuse);
    let file = Annotations::parse(path, bytes, &lenient);
    match (Annotations::parse(path, bytes, &strict), &file) {
        (Ok(strict), Ok(lenient)) => assert_eq!(&strict, lenient),
        (Err(error), Ok(lenient)) => {
            let first = lenient.passed_over.first().unwrap();
            assert_eq!(error.to_string(), format!("fuzz, {first}"));
        }
        // What is wrong first, and where, is up to the noise; that the content is wrong is not.
        (strict, Err(lenient)) => {
            let strict = strict.unwrap_err();
            for error in [&strict, lenient] {
                assert!(
                    matches!(error, SlideError::Malformed { path: named, .. } if named == path),
                    "{error}"
                );
            }
        }
    }
    let Ok(AnnotationFile {
        annotations: found, ..
    }) = file
    else {
        return;
    };
    let view = view(8, 8, 1.0);
    let map = found.label_map(&view, &[(None, 1), (Some("metastases"), 2)]);
    map.read(&Region::new(-2..6, 0..9), &mut [0; 72]).unwrap();
    let scale = PixelScale::square(MicronsPerPixel::new(0.25).unwrap());
    let area = found.area_mm2(None, scale);
    assert!(area.is_finite() && area >= 0.0, "{area}");
    // What counts from level 0 whatever was said, as ASAP's XML does, is the same again in that frame.
    let on_level_0 = Annotations::parse(path, bytes, &AnnotationOptions::new(GeoJsonFrame::Level0));
    let own = match on_level_0 {
        Ok(file) if file.annotations == found => GeoJsonFrame::Level0,
        _ => frame,
    };
    assert_eq!(written_and_read(&found, own).unwrap(), found);
    // Rounding may move it in another frame, but once only.
    match written_and_read(&found, frame) {
        Ok(moved) => assert_eq!(written_and_read(&moved, frame).unwrap(), moved),
        Err(SlideError::InvalidArgument { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    match asap::to_xml(path, &found) {
        Ok(xml) => {
            let text = String::from_utf8(xml).unwrap();
            parse(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
        }
        Err(SlideError::Unsupported { what, .. }) => assert_eq!(what, "a line in ASAP's XML"),
        Err(error) => panic!("{error}"),
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn no_text_makes_the_readers_panic(
        xml in text_like(XML_PARTS),
        json in text_like(JSON_PARTS),
        damaged_xml in damaged(XML.to_owned()),
        damaged_json in damaged(GEOJSON.to_owned()),
    ) {
        for bytes in [xml.as_bytes(), json.as_bytes(), &damaged_xml, &damaged_json] {
            accepted_is_usable(bytes, GeoJsonFrame::Level0);
            accepted_is_usable(bytes, GeoJsonFrame::Bounds { row: 70_001, column: -3 });
        }
    }
}

const GEOJSON: &str = r#"{"type":"FeatureCollection","features":[{"type":"Feature","geometry":{"type":"Polygon","coordinates":
[[[0,0],[8.5,0],[8,8],[0,8],[0,0]],[[2,2],[4,2],[4,4],[2,4],[2,2]]]},"properties":{"classification":{"name":"metastases","color":[1,2,3]}}},
{"type":"Feature","geometry":{"type":"MultiPoint","coordinates":[[1,2],[3,4]]},"properties":{"name":"p"}}]}"#;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_region_is_a_part_of_the_whole_and_neighbours_share_no_pixel(
        points in proptest::collection::vec((-5.0..40.0_f64, -5.0..40.0_f64), 3..12),
        (top, left, height, width) in (-4..20_i64, -4..20_i64, 1..20_i64, 1..20_i64),
        downsample in prop_oneof![Just(1.0), Just(2.0), 0.5..5.0_f64],
        cut in 0.0..30.0_f64,
    ) {
        let view = view(33, 37, downsample);
        let outline = Polygon::new(ring(&points), Vec::new());
        let drawn = Annotations::from_iter([area(vec![outline])]);
        let map = drawn.label_map(&view, &[(None, 9)]);
        let around = Region::new(-8..60, -8..60);
        let mut whole = vec![0; 68 * 68];
        map.read(&around, &mut whole).unwrap();
        let region = Region::new(top..top + height, left..left + width);
        let mut part = vec![1; usize::try_from(height * width).unwrap()];
        map.read(&region, &mut part).unwrap();
        let mut found = part.iter();
        for row in region.rows.clone() {
            for column in region.columns.clone() {
                let index = usize::try_from((row + 8) * 68 + column + 8).unwrap();
                prop_assert_eq!(found.next(), Some(&whole[index]));
            }
        }
        // A rectangle cut in two: every pixel of it lies in exactly one half.
        let half = |from: f64, to: f64| {
            let corners = [(0.0, from), (30.0, from), (30.0, to), (0.0, to)];
            Annotations::from_iter([area(vec![Polygon::new(ring(&corners), Vec::new())])])
        };
        let painted = |drawn: Annotations| {
            let mut labels = vec![0; 68 * 68];
            drawn.label_map(&view, &[(None, 1)]).read(&around, &mut labels).unwrap();
            labels
        };
        let (upper, lower, both) = (painted(half(0.0, cut)), painted(half(cut, 30.0)), painted(half(0.0, 30.0)));
        for ((a, b), both) in upper.iter().zip(&lower).zip(both) {
            prop_assert_eq!(a + b, both);
        }
    }

    #[test]
    fn a_pixel_is_inside_if_a_ray_crosses_the_outline_an_odd_number_of_times(
        points in proptest::collection::vec((0.0..20.0_f64, 0.0..20.0_f64), 3..15),
    ) {
        let drawn = Annotations::from_iter([area(vec![Polygon::new(ring(&points), Vec::new())])]);
        let labels = drawn.label_map(&view(20, 20, 1.0), &[(None, 1)]).to_image().unwrap();
        for (column, row, label) in labels.enumerate_pixels() {
            let (x, y) = (f64::from(column) + 0.5, f64::from(row) + 0.5);
            let mut inside = false;
            for (a, b) in points.iter().zip(points.iter().cycle().skip(1)) {
                if (a.1 <= y) != (b.1 <= y) && a.0 + (y - a.1) / (b.1 - a.1) * (b.0 - a.0) <= x {
                    inside = !inside;
                }
            }
            prop_assert_eq!(label.0[0] == 1, inside, "row {} column {}", row, column);
        }
    }
}
