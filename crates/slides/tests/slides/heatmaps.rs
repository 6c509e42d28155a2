//! Heat maps as files: outlines hold exactly the cells that reach a threshold, and lie where viewers put them.

use proptest::prelude::*;
use serde_json::Value;
use stream_grad_slides::{
    AnnotationOptions, Annotations, Extent, GeoJsonFrame, Heatmap, HeatmapStyle, Level,
    OpenOptions, Region, Shape, Slide, SlideError, SlideView, Target,
};

/// A ring with an island in its hole, which has a hole of its own; two cells that touch at a corner; one at the border.
const KNOWN: [&str; 9] = [
    "..........#",
    ".#######...",
    ".#.....#.#.",
    ".#.###.#..#",
    ".#.#.#.#...",
    ".#.###.#...",
    ".#.....#...",
    ".#######...",
    "...........",
];

fn of_text(rows: &[&str]) -> (Extent, Vec<f32>) {
    let values = rows.iter().flat_map(|row| row.chars());
    let values = values.map(|cell| if cell == '#' { 0.5 } else { 0.499 });
    let extent = Extent {
        height: rows.len() as u64,
        width: rows[0].len() as u64,
    };
    (extent, values.collect())
}

fn blank(height: u64, width: u64) -> Slide {
    let rgb = vec![200; (height * width * 3) as usize];
    Slide::from_rgb(
        "memory",
        Extent { height, width },
        rgb,
        &OpenOptions::default(),
    )
    .unwrap()
}

/// Whether each pixel of `view` lies in a cell that reaches the threshold, where the map lies over `over`.
fn cells(view: &SlideView, over: &SlideView, map: &Heatmap, threshold: f32) -> Vec<u8> {
    let Extent { height, width } = map.extent();
    let (top, left) = over.to_level_0(0.0, 0.0);
    let (bottom, right) = over.to_level_0(over.extent().height as f64, over.extent().width as f64);
    let shown = view.extent();
    let mut inside = Vec::new();
    for row in 0..shown.height {
        for column in 0..shown.width {
            let (y, x) = view.to_level_0(row as f64 + 0.5, column as f64 + 0.5);
            let row = ((y - top) / (bottom - top) * height as f64).floor();
            let column = ((x - left) / (right - left) * width as f64).floor();
            let on = row >= 0.0 && column >= 0.0 && row < height as f64 && column < width as f64;
            let value = on.then(|| map.values()[row as usize * width as usize + column as usize]);
            inside.push(u8::from(value.is_some_and(|value| value >= threshold)));
        }
    }
    inside
}

fn labels(drawn: &Annotations, view: &SlideView, class: &str) -> Vec<u8> {
    let map = drawn.label_map(view, &[(Some(class), 1)]);
    map.to_image().unwrap().into_raw()
}

#[test]
fn holes_and_what_lies_in_them_are_outlined() {
    let (extent, values) = of_text(&KNOWN);
    let slide = blank(9 * 8, 11 * 8);
    let view = slide.view(Target::Level(Level(0))).unwrap();
    let map = Heatmap::over(&view, extent, values).unwrap();
    let drawn = map
        .contours(&[0.5, 0.6], "known", &HeatmapStyle::default())
        .unwrap();
    // Nothing reaches the second threshold.
    assert_eq!(drawn.classes(), ["known >= 0.5"]);
    assert_eq!(
        labels(&drawn, &view, "known >= 0.5"),
        cells(&view, &view, &map, 0.5)
    );
    let Shape::Area(area) = drawn.iter().next().unwrap().shape() else {
        panic!("not an area");
    };
    let mut holes: Vec<usize> = area
        .iter()
        .map(|polygon| polygon.interiors().len())
        .collect();
    holes.sort_unstable();
    // The ring, the island, two cells at a corner, and one at the border.
    assert_eq!(holes, [0, 0, 0, 1, 1]);
    // Cells are of 8 pixels: so are all corners.
    for polygon in area {
        let rings = std::iter::once(polygon.exterior()).chain(polygon.interiors());
        for at in rings.flat_map(|ring| ring.coords()) {
            assert_eq!((at.x % 8.0, at.y % 8.0), (0.0, 0.0));
        }
    }
}

#[test]
fn outlines_lie_in_the_frame_that_is_asked_for() {
    let folder = format!("{}/../../golden/slides/data", env!("CARGO_MANIFEST_DIR"));
    let slide = Slide::open(format!("{folder}/bounds.scn")).unwrap();
    let level_0 = slide.view(Target::Level(Level(0))).unwrap();
    // The map lies over a part of the scanned area, at another scale.
    let view = slide.view(Target::Downsample(2.0)).unwrap();
    let over = view.cropped(&Region::new(40..112, 60..148)).unwrap();
    let (extent, values) = of_text(&KNOWN);
    let map = Heatmap::over(&over, extent, values).unwrap();
    let class = "known >= 0.5";
    let drawn = map
        .contours(&[0.5], "known", &HeatmapStyle::default())
        .unwrap();
    let expected = cells(&level_0, &over, &map, 0.5);
    assert!(labels(&drawn, &level_0, class) == expected);

    let bounds = GeoJsonFrame::bounds_of(&slide);
    let GeoJsonFrame::Bounds { row, column } = bounds else {
        panic!("the slide has bounds");
    };
    assert!(row > 0 && column > 0);
    let path = tempfile::tempdir().unwrap().keep().join("contours.geojson");
    for (frame, origin) in [
        (bounds, (row as f64, column as f64)),
        (GeoJsonFrame::Level0, (0.0, 0.0)),
    ] {
        drawn.write_geojson(&path, frame).unwrap();
        // As QuPath reads it: numbers of the file are pixels from the frame's corner.
        let text = std::fs::read_to_string(&path).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let feature = &json["features"][0];
        assert_eq!(feature["properties"]["classification"]["name"], class);
        let least = least(&feature["geometry"]["coordinates"]);
        // The ring begins in the second row and column of cells of 16 pixels; the cell at the border in the first row.
        assert_eq!(least, [120.0 + 16.0 - origin.1, 80.0 - origin.0]);
        let again = Annotations::read(&path, &AnnotationOptions::new(frame)).unwrap();
        assert_eq!(again.passed_over, []);
        assert!(
            labels(&again.annotations, &level_0, class) == expected,
            "{frame:?}"
        );
    }
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

/// The least x and y of all positions.
fn least(coordinates: &Value) -> [f64; 2] {
    match coordinates.as_array().unwrap().as_slice() {
        [x, y] if x.is_number() => [x.as_f64().unwrap(), y.as_f64().unwrap()],
        parts => parts
            .iter()
            .map(least)
            .fold([f64::MAX; 2], |a, b| [a[0].min(b[0]), a[1].min(b[1])]),
    }
}

#[test]
fn thresholds_that_are_no_numbers_are_refused() {
    let view = blank(8, 8).view(Target::Level(Level(0))).unwrap();
    let extent = Extent {
        height: 1,
        width: 1,
    };
    let map = Heatmap::over(&view, extent, vec![1.0]).unwrap();
    let style = HeatmapStyle::default();
    for threshold in [f32::NAN, f32::INFINITY] {
        let refused = map.contours(&[0.5, threshold], "x", &style).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("a threshold of a heat map must be a finite number, found {threshold}")
        );
    }
    assert!(map.contours(&[], "x", &style).unwrap().is_empty());
}

#[test]
fn files_show_what_is_drawn() {
    let slide = blank(600, 80);
    let view = slide.overview(300).unwrap();
    assert_eq!(
        view.extent(),
        Extent {
            height: 300,
            width: 40
        }
    );
    let extent = Extent {
        height: 2,
        width: 2,
    };
    let map = Heatmap::over(&view, extent, vec![0.0, f32::NAN, 0.5, 1.0]).unwrap();
    let style = HeatmapStyle::default();
    let mut expected = vec![0; 300 * 40 * 3];
    let whole = view.extent().region();
    map.draw_over(&view, &whole, &mut expected, &style).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let png = folder.path().join("map.png");
    map.write_png(&png, &view, &style).unwrap();
    assert!(image::open(&png).unwrap().into_rgb8().into_raw() == expected);

    let mut bands = Vec::new();
    map.draw_bands(&view, &style, &mut |rows| {
        bands.extend_from_slice(rows);
        Ok(())
    })
    .unwrap();
    assert!(bands == expected);

    // This slide has no scale, so the pyramid says none.
    let tiff = folder.path().join("map.tiff");
    map.write_pyramid(&tiff, &view, &style).unwrap();
    let written = Slide::open(&tiff).unwrap();
    assert_eq!(written.extent(), view.extent());
    assert!(
        matches!(written.scale(), Err(SlideError::NoScale { path }) if path == tiff),
        "{:?}",
        written.scale()
    );
    assert_eq!(
        slide.overview(0).unwrap_err().to_string(),
        "the edge of a thumbnail or an overview must be at least 1, found 0"
    );
}

proptest! {
    #[test]
    fn outlines_hold_exactly_the_cells(
        (height, width) in (1_u64..14, 1_u64..14),
        cell in 1_u64..5,
        seed in any::<u64>(),
        dense in 1_u64..8,
    ) {
        let mut state = seed | 1;
        let values = (0..height * width).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            match state % 9 {
                8 => f32::NAN,
                value if value < dense => 1.0,
                _ => 0.25,
            }
        });
        let slide = blank(height * cell, width * cell);
        let view = slide.view(Target::Level(Level(0))).unwrap();
        let map = Heatmap::over(&view, Extent { height, width }, values.collect()).unwrap();
        let style = HeatmapStyle::default();
        for threshold in [0.25, 0.7] {
            let drawn = map.contours(&[threshold], "x", &style).unwrap();
            let class = format!("x >= {threshold}");
            let expected = cells(&view, &view, &map, threshold);
            prop_assert_eq!(labels(&drawn, &view, &class), expected);
        }
    }
}
