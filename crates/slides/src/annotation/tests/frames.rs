//! From where coordinates count.

use super::*;

const BOUNDS: GeoJsonFrame = GeoJsonFrame::Bounds {
    row: 200,
    column: 300,
};

/// A box that QuPath shows at rows 100 to 228 and columns 64 to 320.
const SHOWN: &str = r#"{"type":"Feature","geometry":{"type":"Polygon","coordinates":
    [[[64,100],[320,100],[320,228],[64,228],[64,100]]]},"properties":{"classification":{"name":"Tumor"}}}"#;

fn parse_in(frame: GeoJsonFrame, text: &str) -> Annotations {
    let options = AnnotationOptions::new(frame).with_strictness(Strictness::Refuse);
    let file = Annotations::parse(Path::new("drawn.geojson"), text.as_bytes(), &options);
    file.unwrap().annotations
}

fn square(left: f64, top: f64, right: f64, bottom: f64) -> Shape {
    let ring = polygon![(x: left, y: top), (x: right, y: top), (x: right, y: bottom), (x: left, y: bottom)];
    Shape::Area(MultiPolygon::new(vec![ring]))
}

#[test]
fn geojson_counts_from_the_corner_that_is_named() {
    let on_level_0 = parse_in(GeoJsonFrame::Level0, SHOWN);
    let in_bounds = parse_in(BOUNDS, SHOWN);
    assert_eq!(on_level_0.items[0].shape, square(64.0, 100.0, 320.0, 228.0));
    assert_eq!(in_bounds.items[0].shape, square(364.0, 300.0, 620.0, 428.0));
    // An area is the same wherever it lies.
    let scale = PixelScale::square(MicronsPerPixel::new(0.5).unwrap());
    for drawn in [&on_level_0, &in_bounds] {
        let area = drawn.area_mm2(Some("Tumor"), scale);
        assert!((area - 256.0 * 128.0 * 0.25e-6).abs() < 1e-9, "{area}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drawn.geojson");
    in_bounds.write_geojson(&path, BOUNDS).unwrap();
    assert_eq!(read(&path), on_level_0, "as QuPath wrote it");
    in_bounds
        .write_geojson(&path, GeoJsonFrame::Level0)
        .unwrap();
    assert_eq!(read(&path), in_bounds);
}

#[test]
fn lines_and_points_count_from_it_too() {
    let text = r#"{"type":"GeometryCollection","geometries":[
        {"type":"LineString","coordinates":[[1,2],[3,4]]},{"type":"Point","coordinates":[5,6,7]}]}"#;
    let found = parse_in(BOUNDS, text);
    let line = MultiLineString::new(vec![ring(&[(301.0, 202.0), (303.0, 204.0)])]);
    let points = MultiPoint::new(vec![point!(x: 305.0, y: 206.0)]);
    assert_eq!(found.items[0].shape, Shape::Line(line));
    assert_eq!(found.items[1].shape, Shape::Points(points));
}

#[test]
fn asap_counts_from_level_0_whatever_is_said_of_geojson() {
    let options = AnnotationOptions::new(BOUNDS);
    let file = Annotations::parse(Path::new("drawn.xml"), XML.as_bytes(), &options).unwrap();
    assert_eq!(file.annotations, parse(XML).unwrap());
}

#[test]
fn what_the_frame_cannot_hold_is_not_written() {
    let far = 4_294_967_295.0;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drawn.geojson");
    // Beyond what is read again; and a triangle so small that rounding makes its points one.
    for (shape, frame, told) in [
        (
            square(0.0, 0.0, far, 1.0),
            GeoJsonFrame::Bounds { row: 0, column: -2 },
            "a coordinate of an annotation must be finite, and less than 2^32 pixels from the origin, found (4294967297, ",
        ),
        (
            square(0.0, 0.0, 1e-15, 1e-15),
            BOUNDS,
            "an outline of an annotation must be at least three different points, found 1",
        ),
    ] {
        let drawn = Annotations::from_iter([Annotation::new(shape).unwrap()]);
        drawn.write_geojson(&path, GeoJsonFrame::Level0).unwrap();
        let error = drawn.write_geojson(&path, frame).unwrap_err();
        assert!(error.to_string().starts_with(told), "{error}");
        assert_eq!(read(&path), drawn, "what was there stays");
    }
}

#[test]
fn a_corner_may_lie_outside_of_the_slide() {
    let frame = GeoJsonFrame::Bounds {
        row: -10,
        column: 5_000_000_000,
    };
    let options = AnnotationOptions::new(frame);
    let file = Annotations::parse(Path::new("x"), SHOWN.as_bytes(), &options).unwrap();
    assert!(file.annotations.is_empty());
    assert_eq!(file.passed_over[0].expected, "coordinates on a slide");
    let frame = GeoJsonFrame::Bounds {
        row: -10,
        column: -20,
    };
    let found = parse_in(frame, SHOWN);
    assert_eq!(found.items[0].shape, square(44.0, 90.0, 300.0, 218.0));
}

proptest! {
    #[test]
    fn rounding_moves_what_is_written_in_another_frame_by_less_than_a_millionth(
        points in proptest::collection::vec((-1e9..1e9_f64, -1.0..1.0_f64), 1..12),
        (row, column) in (-3_000_000_000..3_000_000_000_i64, -300_000..300_000_i64),
    ) {
        let frame = GeoJsonFrame::Bounds { row, column };
        let shape = Shape::Points(points.iter().copied().collect());
        let drawn = Annotations::from_iter([Annotation::new(shape).unwrap()]);
        let found = written_and_read(&drawn, frame).unwrap();
        let Shape::Points(found) = found.items[0].shape() else {
            panic!("{found:?}")
        };
        prop_assert_eq!(found.0.len(), points.len());
        for (found, (x, y)) in found.iter().zip(points) {
            prop_assert!((found.x() - x).abs() < 1e-6 && (found.y() - y).abs() < 1e-6);
        }
    }

    #[test]
    fn what_is_read_in_a_frame_is_written_in_it_bit_for_bit(
        points in proptest::collection::vec((-1e6..1e6_f64, -1e-3..1e3_f64), 3..12),
        (row, column) in (-300_000..300_000_i64, -300_000..300_000_i64),
    ) {
        let frame = GeoJsonFrame::Bounds { row, column };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("drawn.geojson");
        let drawn = Annotations::from_iter([area(vec![Polygon::new(ring(&points), Vec::new())])]);
        drawn.write_geojson(&path, GeoJsonFrame::Level0).unwrap();
        let options = AnnotationOptions::new(frame).with_strictness(Strictness::Refuse);
        let first = Annotations::read(&path, &options).unwrap();
        first.annotations.write_geojson(&path, frame).unwrap();
        prop_assert_eq!(Annotations::read(&path, &options).unwrap(), first);
    }
}
