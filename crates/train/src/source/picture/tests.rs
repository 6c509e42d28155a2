//! Crops against torchvision.

use proptest::prelude::*;
use serde::Deserialize;
use stream_grad::{Rect, StridedMut, TileMut};

use super::*;

#[derive(Deserialize)]
struct Golden {
    height: usize,
    width: usize,
    crops: Vec<GoldenCrop>,
    centres: Vec<GoldenCentre>,
    normalised: Vec<f64>,
}

#[derive(Deserialize)]
struct GoldenCrop {
    crop: [usize; 4],
    size: usize,
    rgb: Vec<u8>,
}

#[derive(Deserialize)]
struct GoldenCentre {
    size: usize,
    rows: Vec<u64>,
    columns: Vec<u64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../../tests/golden/pictures.json")).unwrap()
}

/// The picture of the script.
fn picture(height: usize, width: usize) -> Picture {
    let value = |row: usize, column: usize, channel: usize| {
        let noise = (row * 7919 + column * 104_729 + channel * 1_299_709) % 97;
        let wave = row * 3 + column * (channel + 1) * 2 + (column / 9 % 2) * 90;
        u8::try_from((wave + noise) % 256).unwrap()
    };
    let values = (0..height * width * 3).map(|i| value(i / 3 / width, i / 3 % width, i % 3));
    Picture::from_rgb(height, width, values.collect()).unwrap()
}

/// Both round to whole grey levels between the two axes, Pillow and `fast_image_resize` in their own ways: a value may differ by
/// one level, in either direction.
#[test]
fn resized_crops_are_those_of_torchvision() {
    let golden = golden();
    let picture = picture(golden.height, golden.width);
    for case in golden.crops {
        let [top, left, height, width] = case.crop;
        let crop = Crop {
            top,
            left,
            height,
            width,
        };
        let resized = picture.resized_crop(crop, case.size).unwrap();
        assert_eq!(resized.rgb().len(), case.rgb.len());
        for (value, expected) in resized.rgb().iter().zip(&case.rgb) {
            assert!(
                value.abs_diff(*expected) <= 1,
                "{crop:?}: {value} and {expected}"
            );
        }
        let differences = resized.rgb().iter().zip(&case.rgb);
        let sum: f64 = differences
            .map(|(a, b)| f64::from(*a) - f64::from(*b))
            .sum();
        let mean = sum / case.rgb.len() as f64;
        assert!(mean.abs() < 0.1, "{crop:?}: {mean}");
    }
}

#[test]
fn middles_are_those_of_torchvision() {
    let golden = golden();
    let picture = picture(golden.height, golden.width);
    for case in golden.centres {
        let cut = picture.center_crop(case.size);
        assert_eq!(cut.extent(), (case.size, case.size));
        let sum = |wanted: &dyn Fn(usize) -> usize| {
            let mut sums = vec![0; case.size];
            for (place, value) in cut.rgb().iter().enumerate() {
                sums[wanted(place / 3)] += u64::from(*value);
            }
            sums
        };
        assert_eq!(sum(&|pixel| pixel / case.size), case.rows, "{}", case.size);
        assert_eq!(
            sum(&|pixel| pixel % case.size),
            case.columns,
            "{}",
            case.size
        );
    }
}

#[test]
fn values_are_normalised_as_torchvision_does() {
    let golden = golden();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture.png");
    let picture = picture(golden.height, golden.width);
    image::RgbImage::from_raw(83, 61, picture.rgb.clone())
        .unwrap()
        .save(&path)
        .unwrap();
    let settings = PictureSettings {
        size: 4,
        ..PictureSettings::default()
    };
    let loader = PictureLoader::new(settings, []).unwrap();
    let source = loader.load(&path).unwrap();
    let mut values = vec![0.0_f32; 48];
    let region = Rect::whole(4, 4);
    let tile = StridedMut::new(&mut values, 4, 12, 12).unwrap();
    source.read(0, region, TileMut::F32(tile)).unwrap();
    for (value, expected) in values.iter().zip(&golden.normalised) {
        assert!(
            (f64::from(*value) - expected).abs() < 1e-6,
            "{value} and {expected}"
        );
    }
}

#[test]
fn a_training_picture_is_cut_by_seed_epoch_and_name() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["a.png", "b.png"].map(|name| folder.path().join(name));
    let grey = image::GrayImage::from_fn(70, 50, |x, y| {
        image::Luma([u8::try_from(x * 2 + y).unwrap()])
    });
    for name in &names {
        grey.save(name).unwrap();
    }
    let loader = |seed| {
        let settings = PictureSettings {
            size: 16,
            seed,
            ..PictureSettings::default()
        };
        PictureLoader::new(settings, [names[0].clone()]).unwrap()
    };
    let first = loader(1);
    let cut = first.cut(&names[0]).unwrap();
    assert!(
        cut.rgb()
            .chunks_exact(3)
            .all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2])
    );
    assert_eq!(loader(1).cut(&names[0]).unwrap(), cut);
    assert_ne!(loader(2).cut(&names[0]).unwrap(), cut);
    first.set_epoch(1);
    assert_ne!(first.cut(&names[0]).unwrap(), cut);
    first.set_epoch(0);
    assert_eq!(first.cut(&names[0]).unwrap(), cut);
    assert_eq!(
        first.cut(&names[1]).unwrap(),
        Picture::open(&names[1]).unwrap().center_crop(16)
    );
}

#[test]
fn what_cannot_be_cut_is_refused() {
    for (height, count) in [(2, 11), (0, 0)] {
        let refused = Picture::from_rgb(height, 2, vec![0; count]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "setting `picture`: expected {height} x 2 pixels of three values, at least one, found {count} values"
            )
        );
    }
    let picture = picture(5, 5);
    let crop = Crop {
        top: 5,
        left: 0,
        height: 1,
        width: 1,
    };
    assert_eq!(
        picture.resized_crop(crop, 4).unwrap_err().to_string(),
        format!(
            "setting `crop`: expected a part of the picture and a size of 1 or more, found {crop:?} and 4"
        )
    );
    let size = PictureSettings {
        size: 0,
        ..PictureSettings::default()
    };
    assert_eq!(
        PictureLoader::new(size, []).err().unwrap().to_string(),
        "setting `pictures.size`: expected 1 or more, found 0"
    );
}

proptest! {
    /// Every part lies in the picture, and has the ratio and area that are asked for wherever some part fits.
    #[test]
    fn parts_lie_in_the_picture(height in 1_usize..400, width in 1_usize..400, seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let crop = random_resized_crop((height, width), &mut rng);
        prop_assert!(crop.height >= 1 && crop.width >= 1);
        prop_assert!(crop.top + crop.height <= height && crop.left + crop.width <= width);
        if height.min(width) > 60 && height.max(width) < 2 * height.min(width) {
            let ratio = crop.width as f64 / crop.height as f64;
            prop_assert!((0.70..1.43).contains(&ratio), "{crop:?}");
        }
    }
}
