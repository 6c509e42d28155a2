use std::path::PathBuf;

use super::*;
use crate::geometry::{Extent, Region};
use crate::options::OpenOptions;

/// A disc of tissue on glass with a hole, specks of dirt, and marks of three pens.
fn section() -> RgbImage {
    RgbImage::from_fn(300, 200, |x, y| {
        let distance = |cx: f64, cy: f64| (f64::from(x) - cx).hypot(f64::from(y) - cy);
        let grain = u8::try_from((x * 7 + y * 13) % 5).unwrap();
        let colour = if (20..30).contains(&x) {
            [30, 60, 180]
        } else if (250..258).contains(&x) {
            [20, 140, 70]
        } else if (180..186).contains(&y) {
            [15, 15, 18]
        } else if distance(150.0, 90.0) < 5.0
            || distance(220.0, 30.0) < 4.0 && distance(150.0, 90.0) > 60.0
        {
            // A pinhole in the tissue; a speck far from it.
            if distance(150.0, 90.0) < 5.0 {
                [243, 242, 244]
            } else {
                [210, 120, 170]
            }
        } else if distance(150.0, 90.0) < 60.0 {
            [200, 110, 170]
        } else {
            [243, 242, 244]
        };
        image::Rgb(colour.map(|channel: u8| channel.saturating_add(grain)))
    })
}

#[test]
fn tissue_is_found_and_pens_dirt_and_pinholes_are_not() {
    let mask = Mask::of_tissue_in(&section(), (1.0, 1.0), &TissueOptions::default());
    let (mut missed, mut false_alarms) = (0, 0);
    for y in 0..200_u32 {
        for x in 0..300_u32 {
            let distance = (f64::from(x) - 150.0).hypot(f64::from(y) - 90.0);
            let found = mask.is_set(u64::from(y), u64::from(x));
            missed += u32::from(distance < 57.0 && !found);
            false_alarms += u32::from(distance > 63.0 && found);
        }
    }
    assert_eq!((missed, false_alarms), (0, 0));
    let bounds = mask.bounding_box().unwrap();
    for (edge, expected) in [
        (bounds.rows.start, 30),
        (bounds.rows.end, 150),
        (bounds.columns.start, 90),
        (bounds.columns.end, 210),
    ] {
        assert!((edge - expected).abs() <= 3, "{bounds}");
    }
}

#[test]
fn ignored_pens_count_as_tissue() {
    let options = TissueOptions {
        pens: PenMarks::Ignore,
        ..TissueOptions::default()
    };
    let mask = Mask::of_tissue_in(&section(), (1.0, 1.0), &options);
    assert!(mask.is_set(50, 25) && mask.is_set(50, 254));
}

#[test]
fn glass_has_none_and_a_full_slide_is_all_tissue() {
    let grained = |base: [u8; 3]| {
        RgbImage::from_fn(80, 60, |x, y| {
            image::Rgb(base.map(|channel| channel + u8::try_from((x * 31 + y * 17) % 7).unwrap()))
        })
    };
    let mask =
        |picture: &RgbImage| Mask::of_tissue_in(picture, (1.0, 1.0), &TissueOptions::default());
    let glass = mask(&grained([240, 239, 241]));
    assert_eq!((glass.share(), glass.bounding_box()), (0.0, None));
    assert_eq!(mask(&grained([190, 110, 170])).share(), 1.0);
}

#[test]
fn shares_and_boxes_follow_the_view() {
    let rgb: Vec<u8> = (0..160 * 160)
        .flat_map(|i| {
            let (row, column) = (i / 160, i % 160);
            if (40..120).contains(&row) && (60..140).contains(&column) {
                [200, 110, 170]
            } else {
                [244; 3]
            }
        })
        .collect();
    let extent = Extent {
        height: 160,
        width: 160,
    };
    let slide = Slide::from_rgb("memory", extent, rgb, &OpenOptions::default()).unwrap();
    let options = TissueOptions {
        smoothing: 0,
        ..TissueOptions::default()
    };
    let mask = Mask::of_tissue(&slide, &options).unwrap();
    // The 3 x 3 mean moves the edge by at most one pixel.
    let half = slide.view(Target::Downsample(2.0)).unwrap();
    let bounds = mask.bounding_box_in(&half).unwrap();
    for (edge, expected) in [
        (bounds.rows.start, 20),
        (bounds.rows.end, 60),
        (bounds.columns.start, 30),
        (bounds.columns.end, 70),
    ] {
        assert!((edge - expected).abs() <= 1, "{bounds}");
    }
    assert_eq!(mask.share_in(&half, &Region::new(25..55, 35..65)), 1.0);
    assert_eq!(mask.share_in(&half, &Region::new(0..10, 0..10)), 0.0);
    assert_eq!(mask.share_in(&half, &Region::new(-50..-40, 0..10)), 0.0);
    let cropped = half.cropped(&bounds).unwrap();
    assert!(mask.share_in(&cropped, &cropped.extent().region()) > 0.95);
    // Half outside the slide: at most half can be tissue; cut pixels count by their part.
    let third = slide.view(Target::Downsample(3.0)).unwrap();
    let region = Region::new(10..31, 7..33);
    let (mut inside, mut all) = (0.0, 0.0);
    for row in 10 * 3..31 * 3 {
        for column in 7 * 3..33 * 3 {
            inside += f64::from(u8::from(mask.is_set(row, column)));
            all += 1.0;
        }
    }
    assert!((mask.share_in(&third, &region) - inside / all).abs() < 1e-12);
}

#[test]
fn a_cached_mask_is_read_only_if_it_is_of_this_slide_and_these_options() {
    let folder = tempfile::tempdir().unwrap();
    let slide_path = folder.path().join("section.png");
    section().save(&slide_path).unwrap();
    let masks = folder.path().join("run/masks");
    let options = TissueOptions::default();
    let cached = |options: &TissueOptions| {
        let slide = Slide::open(&slide_path).unwrap();
        Mask::of_tissue_cached(&slide, options, &masks).unwrap()
    };
    let fresh = Mask::of_tissue(&Slide::open(&slide_path).unwrap(), &options).unwrap();
    assert_eq!(cached(&options), fresh);
    let files = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&masks).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let [stored] = <[PathBuf; 1]>::try_from(files()).unwrap();
    // Any viewer shows it.
    assert_eq!(image::open(&stored).unwrap().into_luma8(), fresh.to_image());
    // It is read, not found anew: another picture with the same word about its origin shows.
    let text = serde_json::to_string(&Origin::of(
        &Slide::open(&slide_path).unwrap(),
        VERSION,
        &options,
    ))
    .unwrap();
    let file = MaskFile {
        path: &stored,
        origin: &text,
    };
    let mut other = fresh.bitmap().clone();
    other.dilate(3);
    file.write(&other).unwrap();
    assert_eq!(cached(&options).bitmap(), &other);
    // Other options, a damaged picture, another slide: found anew.
    let ignoring = TissueOptions {
        pens: PenMarks::Ignore,
        ..TissueOptions::default()
    };
    assert_ne!(cached(&ignoring), fresh);
    assert_eq!(cached(&options), fresh);
    let bytes = std::fs::read(&stored).unwrap();
    std::fs::write(&stored, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(cached(&options), fresh);
    assert_eq!(std::fs::read(&stored).unwrap(), bytes);
    image::imageops::flip_horizontal(&section())
        .save(&slide_path)
        .unwrap();
    let flipped = Mask::of_tissue(&Slide::open(&slide_path).unwrap(), &options).unwrap();
    assert_eq!(cached(&options), flipped);
    assert_ne!(flipped, fresh);
    assert_eq!(files().len(), 1);
    // Nothing is kept of slides in memory.
    let extent = Extent {
        height: 4,
        width: 4,
    };
    let memory = Slide::from_rgb("memory", extent, vec![0; 48], &OpenOptions::default()).unwrap();
    Mask::of_tissue_cached(&memory, &options, folder.path().join("none")).unwrap();
    assert!(!folder.path().join("none").exists());
}
