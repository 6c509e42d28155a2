use super::*;
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
    let mask = TissueMask::from_picture(&section(), (1.0, 1.0), &TissueOptions::default());
    let (mut missed, mut false_alarms) = (0, 0);
    for y in 0..200_u32 {
        for x in 0..300_u32 {
            let distance = (f64::from(x) - 150.0).hypot(f64::from(y) - 90.0);
            let found = mask.is_tissue(u64::from(y), u64::from(x));
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
    let mask = TissueMask::from_picture(&section(), (1.0, 1.0), &options);
    assert!(mask.is_tissue(50, 25) && mask.is_tissue(50, 254));
}

#[test]
fn glass_has_none_and_a_full_slide_is_all_tissue() {
    let grained = |base: [u8; 3]| {
        RgbImage::from_fn(80, 60, |x, y| {
            image::Rgb(base.map(|channel| channel + u8::try_from((x * 31 + y * 17) % 7).unwrap()))
        })
    };
    let mask = |picture: &RgbImage| {
        TissueMask::from_picture(picture, (1.0, 1.0), &TissueOptions::default())
    };
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
    let mask = TissueMask::of(&slide, &options).unwrap();
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
            inside += f64::from(u8::from(mask.is_tissue(row, column)));
            all += 1.0;
        }
    }
    assert!((mask.share_in(&third, &region) - inside / all).abs() < 1e-12);
}
