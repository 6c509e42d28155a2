//! What cannot be used of a file.

use super::*;

/// What is read of a file, and what is told: place, expected and found.
fn lenient(bytes: &[u8]) -> (Annotations, Vec<String>) {
    let options = AnnotationOptions::new(GeoJsonFrame::Level0);
    let file = Annotations::parse(Path::new("drawn"), bytes, &options).unwrap();
    let notes = file.passed_over.iter().map(ToString::to_string).collect();
    // The strict reader refuses the first of them, in the same words.
    match (
        Annotations::parse(Path::new("drawn"), bytes, &STRICT),
        file.passed_over.first(),
    ) {
        (Ok(strict), None) => assert_eq!(strict, file),
        (Err(error), Some(first)) => assert_eq!(error.to_string(), format!("drawn, {first}")),
        (strict, first) => panic!("{strict:?}, {first:?}"),
    }
    (file.annotations, notes)
}

fn asap_file(annotations: &str) -> String {
    let good = "<Annotation Name='a' Type='Polygon' PartOfGroup='Tumor'><Coordinates>\
        <Coordinate Order='0' X='2' Y='2'/><Coordinate Order='1' X='18' Y='2'/>\
        <Coordinate Order='2' X='18' Y='18'/></Coordinates></Annotation>";
    format!(
        "<?xml version='1.0'?>\n<ASAP_Annotations><Annotations>\n{good}\n{annotations}\n{good}\n\
         </Annotations><AnnotationGroups/></ASAP_Annotations>\n"
    )
}

#[test]
fn asap_s_flaws_are_told_and_the_rest_is_read() {
    let point = |order: u32, x: &str| format!("<Coordinate Order='{order}' X='{x}' Y='{order}'/>");
    let of_type = |kind: &str, xs: &[&str]| {
        let points: Vec<String> = (0..).zip(xs).map(|(order, x)| point(order, x)).collect();
        format!(
            "<Annotation Type='{kind}' PartOfGroup='None'>{}</Annotation>",
            points.concat()
        )
    };
    let known = "expected the type Polygon, Spline, Rectangle, Dot or PointSet, found";
    for (flaw, note) in [
        (of_type("Measurement", &["2", "9"]), format!("{known} Measurement")),
        (of_type("None", &[]), format!("{known} None")),
        (of_type("Circle", &["1", "x", "3"]), format!("{known} Circle")),
        (
            "<Annotation><Coordinate Order='0' X='x' Y='0'/></Annotation>".to_owned(),
            "expected the attribute Type, found none in <Annotation>".to_owned(),
        ),
        (
            of_type("Polygon", &[]),
            "expected an outline of three points or more, found 0 points".to_owned(),
        ),
        (
            of_type("Spline", &["1"]),
            "expected an outline of three points or more, found 1 points".to_owned(),
        ),
        (
            "<Annotation Type='Polygon'><Coordinate Order='0' X='5' Y='5'/><Coordinate Order='1' X='5' Y='5'/>\
             <Coordinate Order='2' X='6' Y='5'/><Coordinate Order='3' X='5' Y='5'/></Annotation>"
                .to_owned(),
            "expected an outline of three points or more, found 2 points".to_owned(),
        ),
        (of_type("PointSet", &[]), "expected at least one point, found none".to_owned()),
        (
            of_type("Polygon", &["1", "nan", "3", "4", "inf"]),
            "expected a number as X, found nan".to_owned(),
        ),
        (
            of_type("Polygon", &["1", "2", "4294967296"]),
            "expected coordinates on a slide, found".to_owned(),
        ),
        (
            "<Annotation Type='Dot' Name='&unknown;'/>".to_owned(),
            "expected text as Name, found".to_owned(),
        ),
    ] {
        let (found, notes) = lenient(asap_file(&flaw).as_bytes());
        assert_eq!(found.len(), 2, "{flaw}");
        let [only] = notes.as_slice() else {
            panic!("{flaw}: {notes:?}")
        };
        assert!(
            only.contains(&note) && only.contains(", line 4, annotation 1: "),
            "{flaw}: {only}"
        );
    }
    // The other points of a set are good; and a point that belongs to nothing.
    let (found, notes) = lenient(asap_file(&of_type("PointSet", &["1", "", "3"])).as_bytes());
    let points: MultiPoint<f64> = [(1.0, 0.0), (3.0, 2.0)].into_iter().collect();
    assert_eq!(found.items[1].shape, Shape::Points(points));
    assert_eq!(notes.len(), 1, "{notes:?}");
    let (found, notes) = lenient(asap_file(&point(0, "1")).as_bytes());
    assert_eq!(found.len(), 2);
    assert!(
        notes[0].ends_with(", line 4: expected <Annotation>, found <Coordinate> outside of one"),
        "{notes:?}"
    );
    let (found, notes) = lenient(XML.replace("#ff0010", "crimson").as_bytes());
    assert_eq!(found.items[0].color(), Some(Rgb([0xf4, 0xfa, 0x58])));
    assert!(notes[0].ends_with("found crimson"), "{notes:?}");
}

#[test]
fn a_file_that_was_cut_short_is_refused() {
    let options = AnnotationOptions::new(GeoJsonFrame::Level0);
    let whole = asap_file("");
    let end = whole.rfind("</ASAP_Annotations>").unwrap();
    let ends = whole.match_indices('>').map(|(end, _)| end + 1);
    for length in ends.take_while(|&length| length <= end) {
        let part = &whole[..length];
        let refused = Annotations::parse(Path::new("x"), part.as_bytes(), &options).unwrap_err();
        let is_within =
            part.matches("<Annotation ").count() > part.matches("</Annotation>").count();
        let told = if !part.contains("<ASAP_Annotations>") {
            "expected <ASAP_Annotations>, found no such element"
        } else if is_within {
            "expected </Annotation>, found the end of the file"
        } else {
            "expected </ASAP_Annotations>, found the end of the file"
        };
        let message = refused.to_string();
        assert!(
            message.starts_with(&format!("x, byte {length}, line ")) && message.ends_with(told),
            "{length}: {message}"
        );
    }
    assert!(Annotations::parse(Path::new("x"), whole.as_bytes(), &options).is_ok());
    for length in 0..GEOJSON.len() {
        let part = &GEOJSON.as_bytes()[..length];
        let message = Annotations::parse(Path::new("x"), part, &options).unwrap_err();
        let message = message.to_string();
        // After its point a number lacks digits.
        let found = if part.ends_with(b".") {
            ": expected GeoJSON, found invalid number"
        } else {
            ": expected GeoJSON, found EOF"
        };
        assert!(
            message.starts_with("x, line ") && message.contains(found),
            "{length}: {message}"
        );
    }
}

const RING: &str = "[[2,2],[18,2],[18,18],[2,2]]";

fn geojson_file(geometry: &str) -> String {
    let feature = |geometry: &str| {
        format!(
            r#"{{"type":"Feature","geometry":{geometry},"properties":{{"classification":{{"name":"C"}}}}}}"#
        )
    };
    let good = feature(&format!(r#"{{"type":"Polygon","coordinates":[{RING}]}}"#));
    format!(
        r#"{{"type":"FeatureCollection","features":[{good},{},{good}]}}"#,
        feature(geometry)
    )
}

#[test]
fn geojson_s_flaws_are_told_and_the_rest_is_read() {
    // What is left of the feature between two good ones: polygons, lines and points; and what is told.
    for (kind, coordinates, left, told) in [
        (
            "Polygon",
            "[]".to_owned(),
            [0, 0, 0],
            "feature 1: expected a polygon with an outer ring, found no ring",
        ),
        (
            "Polygon",
            "[[]]".to_owned(),
            [0, 0, 0],
            "feature 1: expected a closed ring of four positions or more, three of them different, found 0 positions",
        ),
        (
            "Polygon",
            "[[[5,5]]]".to_owned(),
            [0, 0, 0],
            "found 1 positions, 1 of them different",
        ),
        (
            "Polygon",
            "[[[5,5],[5,5],[6,6],[5,5],[5,5]]]".to_owned(),
            [0, 0, 0],
            "found 5 positions, 2 of them different",
        ),
        (
            "Polygon",
            format!("[{RING},[]]"),
            [1, 0, 0],
            "feature 1, hole 0: expected a closed ring",
        ),
        (
            "Polygon",
            format!("[{RING},[[3,3],[4,4],[3,1e30]]]"),
            [0, 0, 0],
            "feature 1, hole 0: expected coordinates on a slide",
        ),
        (
            "Polygon",
            "[[[0,0],[1,null],[1,1],[0,0]]]".to_owned(),
            [0, 0, 0],
            "feature 1: expected a geometry of finite numbers",
        ),
        (
            "Polygon",
            r#"[[[0,0],[1,"2,5"],[1,1],[0,0]]]"#.to_owned(),
            [0, 0, 0],
            "feature 1: expected a geometry of finite numbers",
        ),
        (
            "Circle",
            "[1,2]".to_owned(),
            [0, 0, 0],
            "feature 1: expected a geometry of finite numbers, found unknown variant `Circle`",
        ),
        (
            "MultiPolygon",
            "[]".to_owned(),
            [0, 0, 0],
            "feature 1: expected at least one piece as geometry, found none",
        ),
        (
            "MultiPolygon",
            format!("[[{RING}],[[[0,0]]],[{RING}]]"),
            [2, 0, 0],
            "feature 1, polygon 1: expected a closed ring",
        ),
        (
            "MultiPolygon",
            format!(r#"[[{RING}],[[[0,0],[0,"x"],[1,1]]],[{RING}]]"#),
            [2, 0, 0],
            "feature 1, polygon 1: expected a geometry of finite numbers",
        ),
        (
            "LineString",
            "[[1,2]]".to_owned(),
            [0, 0, 0],
            "feature 1: expected a line of two positions or more, found 1 positions",
        ),
        (
            "MultiLineString",
            "[[[1,2],[3,4]],[]]".to_owned(),
            [0, 1, 0],
            "feature 1, line 1: expected a line of two positions or more",
        ),
        (
            "MultiLineString",
            "[[[1,2],[3,4]],[[1,2],[null,4]]]".to_owned(),
            [0, 1, 0],
            "feature 1, line 1: expected a geometry of finite numbers",
        ),
        (
            "Point",
            "[1]".to_owned(),
            [0, 0, 0],
            "feature 1: expected a geometry of finite numbers, found",
        ),
        (
            "MultiPoint",
            "[[1,2],[3,null],[5,6]]".to_owned(),
            [0, 0, 2],
            "feature 1, point 1: expected a geometry of finite numbers",
        ),
        (
            "MultiPoint",
            "[[1,2],[3,1e10]]".to_owned(),
            [0, 0, 1],
            "feature 1, point 1: expected coordinates on a slide, found (3, 10000000000)",
        ),
    ] {
        let geometry = format!(r#"{{"type":"{kind}","coordinates":{coordinates}}}"#);
        let (found, notes) = lenient(geojson_file(&geometry).as_bytes());
        let [only] = notes.as_slice() else {
            panic!("{geometry}: {notes:?}")
        };
        assert!(only.contains(told), "{geometry}: {only}");
        let mut pieces = [0; 3];
        for annotation in &found.items[1..found.len() - 1] {
            assert_eq!(annotation.class(), Some("C"));
            match annotation.shape() {
                Shape::Area(polygons) => pieces[0] += polygons.0.len(),
                Shape::Line(lines) => pieces[1] += lines.0.len(),
                Shape::Points(points) => pieces[2] += points.0.len(),
            }
        }
        assert_eq!(pieces, left, "{geometry}");
    }
}

#[test]
fn a_collection_of_geometries_is_read_part_by_part() {
    let collection = |second: &str| {
        format!(
            r#"{{"type":"GeometryCollection","geometries":[{{"type":"Polygon","coordinates":[{RING}]}},{second},
            {{"type":"MultiPolygon","coordinates":[[{RING}]]}}]}}"#
        )
    };
    let line = r#"{"type":"LineString","coordinates":[[0,0],[5,5]]}"#;
    let (found, notes) = lenient(geojson_file(&collection(line)).as_bytes());
    assert_eq!(notes, Vec::<String>::new());
    let shapes: Vec<&Shape> = found.iter().map(Annotation::shape).collect();
    let [_, Shape::Area(both), Shape::Line(lines), _] = shapes.as_slice() else {
        panic!("{shapes:?}")
    };
    assert_eq!((both.0.len(), lines.0.len()), (2, 1));
    // A part of a part is wrong.
    let inner = collection(r#"{"type":"Point","coordinates":["1",2]}"#);
    let (found, notes) = lenient(geojson_file(&collection(&inner)).as_bytes());
    let Shape::Area(all) = found.items[1].shape() else {
        panic!("{found:?}")
    };
    assert_eq!((found.len(), all.0.len(), notes.len()), (3, 4, 1));
    assert!(
        notes[0].starts_with("feature 1, geometry 1, geometry 1: expected a geometry of finite"),
        "{notes:?}"
    );
    let (_, notes) =
        lenient(geojson_file(r#"{"type":"GeometryCollection","geometries":[]}"#).as_bytes());
    assert!(
        notes[0].starts_with("feature 1: expected at least one piece"),
        "{notes:?}"
    );
}

#[test]
fn features_that_are_none_are_told() {
    let point = r#"{"type":"Point","coordinates":[1,2]}"#;
    for (feature, read, told) in [
        (
            "5".to_owned(),
            0,
            r#"feature 0: expected an object of the type "Feature", found 5"#,
        ),
        (
            point.to_owned(),
            0,
            r#"feature 0: expected an object of the type "Feature", found the type "Point""#,
        ),
        (
            format!(r#"{{"type":"Feature","geometry":{point},"properties":7}}"#),
            1,
            "feature 0: expected an object as properties, found 7",
        ),
        (
            format!(r#"{{"type":"Feature","geometry":{point},"properties":{{"name":7}}}}"#),
            1,
            "feature 0: expected text as name",
        ),
        (
            format!(
                r#"{{"type":"Feature","geometry":{point},"properties":{{"classification":[]}}}}"#
            ),
            1,
            "feature 0: expected a name in the classification",
        ),
        (
            format!(
                r#"{{"type":"Feature","geometry":{point},"properties":{{"color":[1,2,300]}}}}"#
            ),
            1,
            "feature 0: expected three numbers",
        ),
    ] {
        let (found, notes) = lenient(format!("[{feature}]").as_bytes());
        assert_eq!(found.len(), read, "{feature}");
        assert!(
            notes.len() == 1 && notes[0].starts_with(told),
            "{feature}: {notes:?}"
        );
    }
    // Nothing was drawn, which is no flaw.
    for nothing in [
        r#"{"type":"FeatureCollection","features":[]}"#,
        r#"[{"type":"Feature","geometry":null,"properties":null}]"#,
        "[]",
    ] {
        let (found, notes) = lenient(nothing.as_bytes());
        assert!(found.is_empty() && notes.is_empty(), "{nothing}: {notes:?}");
    }
}

#[test]
fn bare_numbers_that_are_none_are_read_over() {
    let good = format!(
        "{{\"type\":\"Feature\",\"geometry\":{{\"type\":\"Polygon\",\"coordinates\":[{RING}]}},\n \"properties\":{{\
         \"name\":\"NaN \\\" Infinity\",\"measurements\":{{\"a\":NaN,\"b\":-Infinity,\"c\":Infinity,\"d\":1.5}}}}}}"
    );
    let (found, notes) = lenient(good.as_bytes());
    assert_eq!(found.items[0].name(), Some("NaN \" Infinity"));
    let column = good.lines().nth(1).unwrap().find(":NaN,").unwrap() + 2;
    let told = format!(
        "line 2, column {column}: expected a number of JSON, found NaN (the first of 3 such)"
    );
    assert_eq!(notes, [told]);
    // As QuPath 0.5 writes them.
    let (found, notes) = lenient(
        good.replace(":NaN", ":\"NaN\"")
            .replace(":-Infinity", ":null")
            .replace(":Infinity", ":0")
            .as_bytes(),
    );
    assert_eq!((found.len(), notes.len()), (1, 0));
    // Among coordinates they are told where they stand, too.
    let lost = "{\"type\":\"MultiPoint\",\"coordinates\":[[1,2],[NaN,3],[4,5]]}";
    let (found, notes) = lenient(lost.as_bytes());
    let points: MultiPoint<f64> = [(1.0, 2.0), (4.0, 5.0)].into_iter().collect();
    assert_eq!(found.items[0].shape, Shape::Points(points));
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(
        notes[1].starts_with("feature 0, point 1: expected a geometry of finite numbers, found"),
        "{notes:?}"
    );
    // What is no JSON for another reason is refused.
    for broken in ["[NaN,,]", "[NaN", "{\"type\":NaNa}", "[\"\\"] {
        let options = AnnotationOptions::new(GeoJsonFrame::Level0);
        let error = Annotations::parse(Path::new("x"), broken.as_bytes(), &options).unwrap_err();
        assert!(error.to_string().starts_with("x, line 1"), "{error}");
    }
}

#[test]
fn text_is_read_in_the_encoding_that_it_has() {
    let named = |declaration: &str| {
        asap_file("").replace("Tumor", "Tumör").replace(
            "<?xml version='1.0'?>",
            &format!("<?xml version='1.0'{declaration}?>"),
        )
    };
    let latin = |text: &str| {
        text.chars()
            .map(|c| u8::try_from(u32::from(c)).unwrap())
            .collect::<Vec<u8>>()
    };
    let wide =
        |text: &str, of: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(of).collect::<Vec<u8>>();
    let in_utf_16 = named(" encoding='UTF-16'");
    let json = format!(
        r#"{{"type":"Feature","geometry":{{"type":"Polygon","coordinates":[{RING}]}},"properties":{{"classification":"Tumör"}}}}"#
    );
    let doctype = named("").replacen(
        '\n',
        "<!DOCTYPE ASAP_Annotations [<!ENTITY a 'b'>]>\n<!-- ö -->",
        1,
    );
    for bytes in [
        named("").into_bytes(),
        named(" encoding='utf-8' standalone='yes'").into_bytes(),
        latin(&named(" encoding=\"ISO-8859-1\"")),
        latin(&named(" encoding='Windows-1252'")),
        [b"\xef\xbb\xbf".as_slice(), named("").as_bytes()].concat(),
        [b"\xff\xfe".as_slice(), &wide(&in_utf_16, u16::to_le_bytes)].concat(),
        [b"\xfe\xff".as_slice(), &wide(&in_utf_16, u16::to_be_bytes)].concat(),
        wide(&in_utf_16, u16::to_le_bytes),
        wide(&in_utf_16, u16::to_be_bytes),
        // .NET says so of text in UTF-8.
        in_utf_16.clone().into_bytes(),
        doctype.into_bytes(),
        [b"\xff\xfe".as_slice(), &wide(&json, u16::to_le_bytes)].concat(),
    ] {
        let (found, notes) = lenient(&bytes);
        assert_eq!(
            (found.classes(), notes),
            (vec!["Tumör"], Vec::new()),
            "{}",
            String::from_utf8_lossy(&bytes)
        );
    }
    // Bytes of the system's encoding, of which the file says nothing or something else.
    for text in [named(""), named(" encoding='UTF-8'"), json] {
        let (found, notes) = lenient(&latin(&text));
        assert_eq!(found.classes(), ["Tumör"]);
        let byte = text.find('ö').unwrap();
        assert_eq!(
            notes,
            [format!(
                "byte {byte}: expected text in UTF-8, found other bytes"
            )]
        );
    }
    let (found, notes) = lenient(named(" encoding='ebcdic-de'").as_bytes());
    assert_eq!(found.classes(), ["Tumör"]);
    assert_eq!(
        notes,
        ["the XML declaration: expected a known encoding, found ebcdic-de"]
    );
}

#[test]
fn a_shape_that_no_reader_takes_is_none() {
    let polygons = |rings: &[&[(f64, f64)]]| {
        let mut rings = rings.iter().map(|points| ring(points));
        let exterior = rings.next().unwrap();
        Shape::Area(MultiPolygon::new(vec![Polygon::new(
            exterior,
            rings.collect(),
        )]))
    };
    let good: &[(f64, f64)] = &[(0.0, 0.0), (9.0, 0.0), (9.0, 9.0)];
    assert!(Annotation::new(polygons(&[good, good])).is_ok());
    for (shape, told) in [
        (polygons(&[&[]]), "at least three different points, found 0"),
        (
            polygons(&[&[(1.0, 1.0)]]),
            "at least three different points, found 1",
        ),
        (
            polygons(&[&[(1.0, 1.0), (2.0, 2.0)]]),
            "at least three different points, found 2",
        ),
        (
            polygons(&[&[(1.0, 1.0), (2.0, 2.0), (1.0, 1.0), (2.0, 2.0)]]),
            "at least three different points, found 2",
        ),
        (
            polygons(&[good, &[(1.0, 1.0), (2.0, 2.0)]]),
            "at least three different points, found 2",
        ),
        (
            Shape::Area(MultiPolygon::new(Vec::new())),
            "at least one piece, found no polygons",
        ),
        (
            Shape::Line(MultiLineString::new(Vec::new())),
            "at least one piece, found no lines",
        ),
        (
            Shape::Points(MultiPoint::new(Vec::new())),
            "at least one piece, found no points",
        ),
        (
            Shape::Line(MultiLineString::new(vec![ring(&[(1.0, 1.0)])])),
            "at least two points, found 1",
        ),
    ] {
        let error = Annotation::new(shape).unwrap_err();
        assert!(
            matches!(error, SlideError::InvalidArgument { .. }),
            "{error}"
        );
        assert!(error.to_string().ends_with(told), "{error}");
    }
}
