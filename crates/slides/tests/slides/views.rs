//! What a view promises: a pixel depends on its coordinates alone, and outside is background.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use stream_grad_slides::{
    BlockCache, Compression, Extent, Level, OpenOptions, PyramidOptions, PyramidWriter, Region,
    Slide, SlideView, Target,
};

const HEIGHT: usize = 1301;
const WIDTH: usize = 1107;

/// A pyramid with odd sizes, so that OpenSlide's downsamples are broken numbers; with hardly any cache.
static SLIDE: LazyLock<Slide> = LazyLock::new(|| {
    // A static is never dropped: in cargo's folder the file is overwritten by the next run instead of piling up.
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("views-odd.tiff");
    let options = PyramidOptions::default()
        .with_compression(Compression::Deflate)
        .with_tile_edge(128);
    let mut writer = PyramidWriter::create(&path, HEIGHT as u64, WIDTH as u64, &options).unwrap();
    writer
        .write_rows(&crate::common::picture(HEIGHT, WIDTH))
        .unwrap();
    writer.finish().unwrap();
    let options = OpenOptions::default().with_cache(Arc::new(BlockCache::new(2 << 20)));
    Slide::open_with(path, &options).unwrap()
});

fn whole(view: &SlideView) -> Vec<u8> {
    let Extent { height, width } = view.extent();
    let mut rgb = vec![0; (height * width * 3) as usize];
    view.read(&view.extent().region(), &mut rgb).unwrap();
    rgb
}

/// Pixels of `region` taken from the whole view, white outside.
fn expected(whole: &[u8], extent: Extent, region: &Region) -> Vec<u8> {
    let mut rgb = Vec::new();
    for row in region.rows.clone() {
        for column in region.columns.clone() {
            let inside = (0..extent.height as i64).contains(&row)
                && (0..extent.width as i64).contains(&column);
            if inside {
                let start = (row as usize * extent.width as usize + column as usize) * 3;
                rgb.extend_from_slice(&whole[start..start + 3]);
            } else {
                rgb.extend([255; 3]);
            }
        }
    }
    rgb
}

fn targets() -> impl Strategy<Value = Target> {
    prop_oneof![
        Just(Target::Downsample(1.0)),
        Just(Target::Downsample(2.0)),
        Just(Target::Downsample(3.0)),
        Just(Target::Downsample(0.7)),
        Just(Target::Level(Level(1))),
        Just(Target::Level(Level(3))),
        (1.0..40.0).prop_map(Target::Downsample),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_region_is_a_part_of_the_whole(
        target in targets(),
        (top, left) in (-1.2..1.2_f64, -1.2..1.2_f64),
        (height, width) in (1..300_i64, 1..300_i64),
    ) {
        let view = SLIDE.view(target).unwrap();
        let extent = view.extent();
        let top = (top * extent.height as f64) as i64;
        let left = (left * extent.width as f64) as i64;
        let region = Region::new(top..top + height, left..left + width);
        let mut rgb = vec![7; (height * width * 3) as usize];
        view.read(&region, &mut rgb).unwrap();
        prop_assert!(rgb == expected(&whole(&view), extent, &region), "{target:?} {region}");
    }

    #[test]
    fn a_crop_is_a_part_of_the_whole(target in targets(), rows in (0.0..1.0_f64, 0.0..1.0_f64), columns in (0.0..1.0_f64, 0.0..1.0_f64)) {
        let view = SLIDE.view(target).unwrap();
        let extent = view.extent();
        let span = |(a, b): (f64, f64), length: u64| {
            let at = |part: f64| (part * length as f64) as i64;
            at(a.min(b))..at(a.max(b)) + 1
        };
        let crop = Region::new(span(rows, extent.height), span(columns, extent.width));
        let cropped = view.cropped(&crop).unwrap();
        let inside = crop.intersection(&extent.region());
        prop_assert_eq!(cropped.extent(), Extent { height: inside.height(), width: inside.width() });
        let part = expected(&whole(&view), extent, &inside);
        prop_assert!(whole(&cropped) == part);
        // What the crop cuts off reads as background, though the slide goes on there.
        let around = Region::new(-2..2, -2..2);
        let mut rgb = vec![7; 48];
        cropped.read(&around, &mut rgb).unwrap();
        prop_assert_eq!(rgb, expected(&part, cropped.extent(), &around));
    }

    #[test]
    fn reduction_is_the_area_average(step in 1.0..30.0_f64, (row, column) in (0.0..1.0_f64, 0.0..1.0_f64)) {
        // One level in memory, so that the source is known: the plain definition in f64.
        static PICTURE: LazyLock<Vec<u8>> = LazyLock::new(|| crate::common::picture(90, 70));
        let extent = Extent { height: 90, width: 70 };
        let slide = Slide::from_rgb("memory", extent, PICTURE.clone(), &OpenOptions::default()).unwrap();
        let view = slide.view(Target::Downsample(step)).unwrap();
        if view.is_exact() {
            return Ok(());
        }
        let row = (row * view.extent().height as f64) as usize;
        let column = (column * view.extent().width as f64) as usize;
        let mut pixel = [0; 3];
        view.read(&Region::new(row as i64..row as i64 + 1, column as i64..column as i64 + 1), &mut pixel).unwrap();
        let overlap = |index: usize, at: usize| {
            let (lo, hi) = (index as f64 * step, (index + 1) as f64 * step);
            (hi.min(at as f64 + 1.0) - lo.max(at as f64)).max(0.0)
        };
        for (channel, &found) in pixel.iter().enumerate() {
            let (mut sum, mut area) = (0.0, 0.0);
            for r in 0..90 {
                for c in 0..70 {
                    let weight = overlap(row, r) * overlap(column, c);
                    sum += weight * f64::from(PICTURE[(r * 70 + c) * 3 + channel]);
                    area += weight;
                }
            }
            prop_assert!((sum / area - f64::from(found)).abs() <= 0.5 + 1e-3, "{} and {found}", sum / area);
        }
    }
}

#[test]
fn coordinates_at_the_ends_of_i64_are_background() {
    for target in [Target::Downsample(1.0), Target::Downsample(2.7)] {
        let view = SLIDE.view(target).unwrap();
        for start in [i64::MIN, i64::MIN / 2, i64::MAX - 4] {
            let mut rgb = [7; 48];
            view.read(&Region::new(start..start + 4, start..start + 4), &mut rgb)
                .unwrap();
            assert_eq!(rgb, [255; 48]);
        }
        let short = view.read(&Region::new(0..4, 0..4), &mut [0; 47]);
        assert_eq!(
            short.unwrap_err().to_string(),
            "a buffer of RGB, in bytes (height x width x 3), needs 48, found 47"
        );
        view.read(&Region::new(0..0, 0..4), &mut []).unwrap();
    }
}

#[test]
fn views_that_make_no_sense_are_refused() {
    for downsample in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(
            SLIDE
                .view(Target::Downsample(downsample))
                .unwrap_err()
                .to_string(),
            format!("downsample must be a finite number above zero, found {downsample}")
        );
    }
    let missing = SLIDE.view(Target::Level(Level(99))).unwrap_err();
    assert_eq!(
        missing.to_string(),
        format!(
            "slide {} has levels 0 to {}, level 99 was asked for",
            SLIDE.path().display(),
            SLIDE.levels().len() - 1
        )
    );
    let view = SLIDE.view(Target::Downsample(1.0)).unwrap();
    let outside = view.cropped(&Region::new(-10..0, 0..10)).unwrap_err();
    assert_eq!(
        outside.to_string(),
        format!(
            "a crop must be inside the view at least in part, found rows -10..0, columns 0..10 of {}",
            view.extent()
        )
    );
}

#[test]
fn the_cache_stays_within_its_bound() {
    let view = SLIDE.view(Target::Downsample(1.0)).unwrap();
    whole(&view);
    let cache = SLIDE.cache();
    assert!(cache.bytes() > 0 && cache.bytes() <= cache.capacity());
}
