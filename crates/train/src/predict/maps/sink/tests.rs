//! Maps of regions in any order, written and read back.

use stream_grad::Span;
use stream_grad_slides::{
    ColorModel, Compression, Level, OpenOptions, Reduction, Region, Slide, Target,
};

use super::*;

const WHOLE: Extent = Extent {
    height: 30,
    width: 41,
};
const IMAGE: Extent = Extent {
    height: 20,
    width: 27,
};

fn class(row: i64, column: i64) -> usize {
    usize::try_from((row / 3 + column * 2) % 3).unwrap()
}

/// Logits of a region whose likeliest class is [`class`].
fn logits(region: Rect) -> Vec<f32> {
    let mut logits = Vec::new();
    for row in region.rows.lo..region.rows.hi {
        for column in region.columns.lo..region.columns.hi {
            let mut pixel = [-1.0, 0.5, -2.0];
            pixel[class(row, column)] = 3.0;
            logits.extend(pixel);
        }
    }
    logits
}

fn whole() -> SlideView {
    let bytes = vec![255; length(WHOLE.height * WHOLE.width * 3)];
    let slide = Slide::from_rgb("memory", WHOLE, bytes, &OpenOptions::default()).unwrap();
    slide.view(Target::Level(Level::FINEST)).unwrap()
}

fn options() -> PyramidOptions {
    PyramidOptions::default()
        .with_color(ColorModel::Gray)
        .with_compression(Compression::Deflate)
        .with_reduction(Reduction::Nearest)
        .with_tile_edge(16)
}

fn regions(rows: &[i64], columns: &[i64]) -> Vec<Rect> {
    let spans = |cuts: &[i64]| -> Vec<Span> {
        let cuts = cuts.windows(2);
        cuts.map(|cut| Span::new(cut[0], cut[1])).collect()
    };
    let columns = spans(columns);
    let regions = spans(rows).into_iter().flat_map(|rows| {
        let columns = columns.clone().into_iter();
        columns.map(move |columns| Rect::new(rows, columns))
    });
    regions.collect()
}

fn write(sink: &mut MapSink, region: Rect, logits: &[f32]) {
    let row = region.width() * 3;
    let tile = Strided::new(logits, region.height(), row, row).unwrap();
    sink.write(0, 0, region, TileRef::F32(tile)).unwrap();
}

#[test]
fn regions_in_any_order_become_one_map() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("map.tiff");
    let corner = (4, 9);
    let mut backward = regions(&[0, 7, 8, 20], &[0, 5, 27]);
    backward.reverse();
    for regions in [
        regions(&[0, 20], &[0, 27]),
        regions(&[0, 7, 8, 20], &[0, 5, 27]),
        backward,
    ] {
        let mut sink = MapSink::new(&path, (&whole(), corner, IMAGE), 3, &options()).unwrap();
        for region in regions {
            write(&mut sink, region, &logits(region));
        }
        let written = sink.finish().unwrap().unwrap();
        assert_eq!(written.counts.iter().sum::<u64>(), 20 * 27);
        assert_eq!((written.step, written.coarse.len()), (1, 30 * 41));

        let map = Slide::open(&path).unwrap();
        assert_eq!(map.extent(), WHOLE);
        assert!(map.levels().len() > 1);
        let mut rgb = vec![0; 30 * 41 * 3];
        map.read_level(Level(0), &Region::new(0..30, 0..41), &mut rgb)
            .unwrap();
        let found: Vec<u8> = rgb.into_iter().step_by(3).collect();
        assert_eq!(found, written.coarse);
        for (place, found) in (0_u64..).zip(found) {
            let (row, column) = (place / 41, place % 41);
            let inside = row
                .checked_sub(corner.0)
                .zip(column.checked_sub(corner.1))
                .filter(|(row, column)| *row < 20 && *column < 27);
            let expected = inside.map_or(NONE, |(row, column)| {
                let [row, column] = [row, column].map(|at| i64::try_from(at).unwrap());
                u8::try_from(class(row, column)).unwrap()
            });
            assert_eq!(found, expected, "{row}, {column}");
        }
    }
}

#[test]
fn logits_that_are_no_numbers_leave_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("map.tiff");
    let mut sink = MapSink::new(&path, (&whole(), (0, 0), IMAGE), 3, &options()).unwrap();
    let region = regions(&[0, 20], &[0, 27])[0];
    let mut logits = logits(region);
    logits[100] = f32::NAN;
    write(&mut sink, region, &logits);
    assert!(sink.finish().unwrap().is_none());
    assert!(!path.exists());
}

#[test]
fn a_large_map_is_reduced_to_a_level_of_its_pyramid() {
    let mut reduced = Reduced::of(Extent {
        height: 4096,
        width: 4097,
    });
    assert_eq!(reduced.step, 2);
    for row in 0..5_u8 {
        reduced.push(&[row, 9, row + 10, 9, row + 20]);
    }
    assert_eq!(reduced.cells, [0, 10, 20, 2, 12, 22, 4, 14, 24]);
}
