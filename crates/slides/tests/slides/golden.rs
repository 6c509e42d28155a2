//! Annotations, tissue and stains against shapely, scikit-image and torchstain: `golden/slides`.

use serde_json::Value;
use stream_grad_slides::geo::{LineString, MultiPolygon, Polygon};
use stream_grad_slides::{
    Annotation, AnnotationOptions, Annotations, Extent, GeoJsonFrame, Level, MacenkoOptions,
    MacenkoProfile, Mask, MicronsPerPixel, OpenOptions, PenMarks, PixelScale, Region,
    ReinhardProfile, Shape, Slide, Target, TissueOptions, combine_hed, separate_hed,
};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/slides/data");

fn json(name: &str) -> Value {
    let text = std::fs::read_to_string(format!("{FOLDER}/{name}")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn picture(name: &str) -> image::RgbImage {
    image::open(format!("{FOLDER}/{name}")).unwrap().into_rgb8()
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().unwrap();
    list.iter().map(|number| number.as_f64().unwrap()).collect()
}

fn polygon(rings: &Value) -> Polygon<f64> {
    let mut rings = rings.as_array().unwrap().iter().map(|ring| {
        let points = ring.as_array().unwrap().iter();
        points
            .map(|point| <(f64, f64)>::from(<[f64; 2]>::try_from(numbers(point)).unwrap()))
            .collect::<LineString<f64>>()
    });
    Polygon::new(rings.next().unwrap(), rings.collect())
}

#[test]
fn polygons_hold_the_pixels_and_the_area_that_shapely_says() {
    let golden = json("polygons.json");
    let (height, width) = (
        golden["height"].as_u64().unwrap(),
        golden["width"].as_u64().unwrap(),
    );
    let slide = Slide::from_rgb(
        "memory",
        Extent { height, width },
        vec![255; (height * width * 3) as usize],
        &OpenOptions::default(),
    )
    .unwrap();
    let scale = PixelScale {
        x: MicronsPerPixel::new(2.0).unwrap(),
        y: MicronsPerPixel::new(0.5).unwrap(),
    };
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 8);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let polygons = case["polygons"].as_array().unwrap();
        let shape = Shape::Area(MultiPolygon::new(polygons.iter().map(polygon).collect()));
        let annotation = Annotation::new(shape).unwrap().with_class("drawn");
        let annotations = Annotations::from_iter([annotation]);
        let area = annotations.area_mm2(Some("drawn"), scale) * 1e6;
        let expected = case["area"].as_f64().unwrap();
        // The union works on a grid of about 2^-30 of the polygon's size.
        assert!(
            (area - expected).abs() <= expected * 1e-6,
            "{name}: area {area}, shapely says {expected}"
        );
        for level in case["levels"].as_array().unwrap() {
            let downsample = level["downsample"].as_f64().unwrap();
            let view = slide.view(Target::Downsample(downsample)).unwrap();
            let extent = Extent {
                height: level["height"].as_u64().unwrap(),
                width: level["width"].as_u64().unwrap(),
            };
            assert_eq!(view.extent(), extent);
            let map = annotations.label_map(&view, &[(Some("drawn"), 1)]);
            let labels = map.to_image().unwrap().into_raw();
            let expected = bits(&level["inside"]);
            let wrong = labels.iter().zip(&expected).filter(|(a, b)| a != b).count();
            assert_eq!(
                (labels.len(), wrong),
                (expected.len(), 0),
                "{name} at {downsample}"
            );
        }
    }
}

/// Lengths of runs, the first of zeros.
fn bits(runs: &Value) -> Vec<u8> {
    let runs = numbers(runs).into_iter().enumerate();
    runs.flat_map(|(index, run)| std::iter::repeat_n((index % 2) as u8, run as usize))
        .collect()
}

#[test]
fn on_a_slide_with_bounds_outlines_lie_on_the_tissue_in_either_frame() {
    let golden = json("bounds.json");
    let slide = Slide::open(format!("{FOLDER}/bounds.scn")).unwrap();
    let number = |name: &str| golden["bounds"][name].as_i64().unwrap();
    let frame = GeoJsonFrame::bounds_of(&slide);
    let (row, column) = (number("row"), number("column"));
    assert_eq!(frame, GeoJsonFrame::Bounds { row, column });

    // The tissue itself, in level-0 pixels.
    let view = slide.view(Target::Level(Level(0))).unwrap();
    let expected = bits(&golden["inside"]);
    let pixels = view.to_image().unwrap();
    let tissue: Vec<u8> = pixels.pixels().map(|at| u8::from(at.0[1] < 100)).collect();
    assert_eq!(tissue.len(), expected.len());
    assert!(tissue == expected, "the slide is not as it was made");

    let folder = tempfile::tempdir().unwrap();
    let scale = slide.scale().unwrap();
    let check = |file: &std::path::Path, frame: GeoJsonFrame| {
        let drawn = Annotations::read(file, &AnnotationOptions::new(frame)).unwrap();
        assert_eq!(drawn.passed_over, []);
        let drawn = drawn.annotations;
        let labels = drawn.label_map(&view, &[(None, 1)]).to_image().unwrap();
        assert!(labels.into_raw() == expected, "{frame:?}");
        let area = drawn.area_mm2(None, scale) * 1e6 / (scale.x.get() * scale.y.get());
        let expected = golden["area"].as_f64().unwrap();
        assert!((area - expected).abs() < expected * 1e-6, "{area}");
        drawn
    };
    let path = folder.path().join("drawn.geojson");
    for (name, frame) in [("in_bounds", frame), ("on_level_0", GeoJsonFrame::Level0)] {
        let outline = &golden[name];
        let geometry = serde_json::json!({"type": "Polygon", "coordinates": [outline]});
        std::fs::write(&path, geometry.to_string()).unwrap();
        let drawn = check(&path, frame);
        // Each can be written for either, and for ASAP, which counts from level 0 on this slide, too.
        for frame in [frame, GeoJsonFrame::Level0, GeoJsonFrame::bounds_of(&slide)] {
            drawn.write_geojson(&path, frame).unwrap();
            check(&path, frame);
        }
        let path = folder.path().join("drawn.xml");
        drawn.write_asap(&path).unwrap();
        check(&path, GeoJsonFrame::bounds_of(&slide));
        let text = std::fs::read_to_string(&path).unwrap();
        let first = golden["on_level_0"][0][0].as_f64().unwrap();
        assert!(text.contains(&format!("X=\"{first}\"")), "{text}");
    }

    // What QuPath shows: in it, pixels lie where QuPath counts them.
    for (downsample, cut) in [(1.0, 1), (4.0, 4)] {
        let shown = slide.view(Target::Downsample(downsample)).unwrap();
        let shown = shown.cropped_to_bounds().unwrap();
        let extent = Extent {
            height: golden["bounds"]["height"].as_u64().unwrap() / cut,
            width: golden["bounds"]["width"].as_u64().unwrap() / cut,
        };
        assert_eq!(shown.extent(), extent);
        assert_eq!(shown.to_level_0(0.0, 0.0), (row as f64, column as f64));
        let again = shown.cropped_to_bounds().unwrap();
        assert_eq!(
            (again.extent(), again.to_level_0(0.0, 0.0)),
            (extent, (row as f64, column as f64))
        );
    }
    // To whole pixels, outwards.
    let shown = slide.view(Target::Downsample(10.0)).unwrap();
    let shown = shown.cropped_to_bounds().unwrap();
    assert_eq!(shown.to_level_0(0.0, 0.0), (60.0, 90.0));
    assert_eq!(
        shown.extent(),
        Extent {
            height: 33,
            width: 39
        }
    );
    // A part without any of the bounds.
    let corner = view.cropped(&Region::new(0..10, 0..10)).unwrap();
    let outside = corner.cropped_to_bounds().unwrap_err().to_string();
    assert!(
        outside.starts_with("a crop must be inside the view at least in part, found rows ")
            && outside.ends_with(" of 10 x 10 (height x width)"),
        "{outside}"
    );
}

#[test]
fn a_heat_map_covers_what_qupath_shows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("map.tiff");
    let slide = format!("{FOLDER}/bounds.scn");
    let arguments = [slide, path.to_str().unwrap().to_owned()];
    crate::examples::heatmap::run(&arguments).unwrap();
    // Bounds of 320 x 384 pixels of half a micron, in whole squares of 64 x 64 at two microns.
    let found = Slide::open(&path).unwrap();
    assert_eq!(
        found.extent(),
        Extent {
            height: 64,
            width: 64
        }
    );
}

#[test]
fn tissue_is_what_scikit_image_makes_of_it() {
    for (name, pens, expected) in [
        ("overview.png", PenMarks::Ignore, "tissue.png"),
        ("overview_pens.png", PenMarks::Exclude, "tissue_pens.png"),
    ] {
        let options = TissueOptions {
            pens,
            ..TissueOptions::default()
        };
        let mask = Mask::of_tissue_in(&picture(name), (8.0, 8.0), &options);
        let expected = image::open(format!("{FOLDER}/{expected}"))
            .unwrap()
            .into_luma8();
        let found = mask.to_image();
        assert_eq!(found.dimensions(), expected.dimensions());
        let wrong = found
            .pixels()
            .zip(expected.pixels())
            .filter(|(a, b)| a != b)
            .count();
        assert_eq!(wrong, 0, "{name}: of {} pixels", found.len());
        assert!(mask.share() > 0.1 && mask.share() < 0.95);
    }
}

/// Largest differences, found minus expected.
fn differences(found: &[u8], expected: &[u8]) -> (i16, i16) {
    let all = || {
        found
            .iter()
            .zip(expected)
            .map(|(&a, &b)| i16::from(a) - i16::from(b))
    };
    (all().min().unwrap(), all().max().unwrap())
}

#[test]
fn macenko_agrees_with_torchstain() {
    let golden = &json("stains.json")["macenko"];
    let [source, target] = ["source", "target"].map(|name| {
        let rgb = picture(&format!("{name}.png")).into_raw();
        let profile = MacenkoProfile::estimate(&rgb, &MacenkoOptions::default()).unwrap();
        let golden = &golden[name];
        for (found, expected) in [
            (profile.haematoxylin.as_slice(), &golden["stains"][0]),
            (&profile.eosin, &golden["stains"][1]),
            (&profile.strongest, &golden["strongest"]),
        ] {
            for (found, expected) in found.iter().zip(numbers(expected)) {
                assert!(
                    (found - expected).abs() < 1e-9,
                    "{name}: {found}, not {expected}"
                );
            }
        }
        (rgb, profile)
    });
    let mut rgb = source.0;
    let normalizer = source.1.normalizer_to(&target.1).unwrap();
    normalizer.apply(&mut rgb).unwrap();
    // torchstain cuts off what this rounds.
    let (least, most) = differences(&rgb, picture("macenko.png").as_raw());
    assert!(least >= 0 && most <= 1, "{least} to {most}");
}

#[test]
fn reinhard_agrees_with_torchstain() {
    let golden = &json("stains.json")["reinhard"]["target"];
    let mut rgb = picture("source.png").into_raw();
    let source = ReinhardProfile::estimate(&rgb).unwrap();
    let target = ReinhardProfile::estimate(picture("target.png").as_raw()).unwrap();
    // torchstain works in f32.
    for (found, expected) in [
        (target.mean, &golden["mean"]),
        (target.deviation, &golden["deviation"]),
    ] {
        for (found, expected) in found.iter().zip(numbers(expected)) {
            assert!((found - expected).abs() < 1e-3, "{found}, not {expected}");
        }
    }
    source
        .normalizer_to(&target)
        .unwrap()
        .apply(&mut rgb)
        .unwrap();
    let (least, most) = differences(&rgb, picture("reinhard.png").as_raw());
    assert!(least >= 0 && most <= 1, "{least} to {most}");
}

#[test]
fn stains_separate_and_combine_as_in_scikit_image() {
    let golden = &json("stains.json")["hed"];
    let flat = |name: &str| {
        let rows = golden[name].as_array().unwrap();
        rows.iter().flat_map(numbers).collect::<Vec<f64>>()
    };
    let rgb: Vec<u8> = flat("rgb").into_iter().map(|byte| byte as u8).collect();
    let mut stains = vec![0.0; rgb.len()];
    separate_hed(&rgb, &mut stains).unwrap();
    for (found, expected) in stains.iter().zip(flat("hed")) {
        assert!(
            (f64::from(*found) - expected).abs() < 1e-6,
            "{found}, not {expected}"
        );
    }
    let mut combined = vec![0; rgb.len()];
    combine_hed(&stains, &mut combined).unwrap();
    let expected: Vec<u8> = flat("combined")
        .into_iter()
        .map(|byte| byte as u8)
        .collect();
    let (least, most) = differences(&combined, &expected);
    assert!(least >= -1 && most <= 1, "{least} to {most}");
}
