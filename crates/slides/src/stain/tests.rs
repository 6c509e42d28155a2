use super::*;
use crate::geometry::{Extent, MicronsPerPixel, Region};
use crate::mask::Mask;
use crate::numbers::nearest_byte;
use crate::options::OpenOptions;
use crate::slide::Slide;
use crate::tissue::TissueOptions;

/// Pixels mixed of two stains of known colours, `spread` in their amounts.
fn mixed(haematoxylin: [f64; 3], eosin: [f64; 3]) -> Vec<u8> {
    let mut rgb = Vec::new();
    for h in 0..60 {
        for e in 0..60 {
            let (h, e) = (f64::from(h) / 40.0, f64::from(e) / 40.0);
            for channel in 0..3 {
                let density = h * haematoxylin[channel] + e * eosin[channel];
                rgb.push(nearest_byte(240.0 * (-density).exp() - 1.0));
            }
        }
    }
    rgb
}

#[test]
fn macenko_finds_the_stains_that_were_mixed() {
    let unit = |v: [f64; 3]| {
        let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        v.map(|x| x / norm)
    };
    let (haematoxylin, eosin) = (unit([0.65, 0.70, 0.29]), unit([0.15, 0.95, 0.25]));
    let options = MacenkoOptions {
        percentile: 0.0,
        ..MacenkoOptions::default()
    };
    let profile = MacenkoProfile::estimate(&mixed(haematoxylin, eosin), &options).unwrap();
    for (found, expected) in [(profile.haematoxylin, haematoxylin), (profile.eosin, eosin)] {
        for (a, b) in found.iter().zip(expected) {
            // Bytes are rounded, and weak stains lie in the glass that is left out.
            assert!((a - b).abs() < 0.1, "{found:?}, not {expected:?}");
        }
    }
}

#[test]
fn a_profile_normalised_to_itself_changes_nothing_but_rounding() {
    let rgb = mixed([0.65, 0.70, 0.29], [0.07, 0.99, 0.11]);
    let profile = MacenkoProfile::estimate(&rgb, &MacenkoOptions::default()).unwrap();
    let mut same = rgb.clone();
    profile
        .normalizer_to(&profile)
        .unwrap()
        .apply(&mut same)
        .unwrap();
    // One is added before the logarithm, as published; and colours are moved into the plane of the two stains.
    let far = rgb
        .iter()
        .zip(&same)
        .filter(|(a, b)| a.abs_diff(**b) > 4)
        .count();
    assert!(far < rgb.len() / 100, "{far} of {}", rgb.len());
    let profile = ReinhardProfile::estimate(&rgb).unwrap();
    let mut same = rgb.clone();
    profile
        .normalizer_to(&profile)
        .unwrap()
        .apply(&mut same)
        .unwrap();
    assert_eq!(same, rgb);
    let mut same = rgb.clone();
    let still = HedJitter {
        factor: [1.0; 3],
        offset: [0.0; 3],
    };
    still.prepare().unwrap().apply(&mut same).unwrap();
    assert!(
        rgb.iter()
            .zip(&same)
            .all(|(a, b)| a.max(&1).abs_diff(*b.max(&1)) == 0)
    );
}

#[test]
fn tiles_come_out_as_in_the_whole_and_profiles_survive_storing() {
    let rgb = mixed([0.65, 0.70, 0.29], [0.07, 0.99, 0.11]);
    let profile = MacenkoProfile::estimate(&rgb, &MacenkoOptions::default()).unwrap();
    let stored: MacenkoProfile = toml_like(&profile);
    assert_eq!(stored, profile);
    let normalizer = stored.normalizer_to(&MacenkoProfile::REFERENCE).unwrap();
    let (mut whole, mut tiled) = (rgb.clone(), rgb);
    normalizer.apply(&mut whole).unwrap();
    for tile in tiled.chunks_mut(3 * 77) {
        normalizer.apply(tile).unwrap();
    }
    assert_eq!(whole, tiled);
    let profile = ReinhardProfile::estimate(&whole).unwrap();
    assert_eq!(toml_like(&profile), profile);
}

/// Through JSON and back.
fn toml_like<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

#[test]
fn what_says_nothing_is_refused() {
    let estimate = |rgb: &[u8]| MacenkoProfile::estimate(rgb, &MacenkoOptions::default());
    assert!(estimate(&[]).is_err());
    assert!(estimate(&[0; 4]).is_err());
    assert!(estimate(&[250; 3000]).is_err(), "glass");
    assert!(estimate(&[100; 3000]).is_err(), "one colour");
    assert!(ReinhardProfile::estimate(&[100; 300]).is_err());
    assert!(ReinhardProfile::estimate(&[]).is_err());
    let mut broken = MacenkoProfile::REFERENCE;
    broken.eosin = broken.haematoxylin;
    assert!(broken.normalizer_to(&MacenkoProfile::REFERENCE).is_err());
    broken.eosin[0] = f64::NAN;
    assert!(MacenkoProfile::REFERENCE.normalizer_to(&broken).is_err());
    let jitter = HedJitter {
        factor: [f64::INFINITY; 3],
        offset: [0.0; 3],
    };
    assert!(jitter.prepare().is_err());
    assert!(separate_hed(&[0; 3], &mut [0.0; 6]).is_err());
    assert!(combine_hed(&[0.0; 4], &mut [0; 4]).is_err());
    let options = MacenkoOptions {
        percentile: 50.0,
        ..MacenkoOptions::default()
    };
    assert!(MacenkoProfile::estimate(&[0; 3000], &options).is_err());
}

#[test]
fn samples_are_tissue_and_bounded() {
    let (height, width) = (700_u64, 900_u64);
    let rgb: Vec<u8> = (0..height * width)
        .flat_map(|i| {
            let (row, column) = (i / width, i % width);
            if row >= 300 && column >= 400 {
                [200, 110, 170]
            } else {
                [244; 3]
            }
        })
        .collect();
    let scale = MicronsPerPixel::new(2.0).unwrap();
    let options = OpenOptions::default().with_microns_per_pixel(scale);
    let slide = Slide::from_rgb("memory", Extent { height, width }, rgb, &options).unwrap();
    let mask = Mask::of_tissue(&slide, &TissueOptions::default()).unwrap();
    let mut options = TissueSample {
        pixels: 1000,
        ..TissueSample::default()
    };
    let pixels = sample_tissue(&slide, &mask, &options).unwrap();
    assert!((1500..=3000).contains(&pixels.len()), "{}", pixels.len());
    let tissue = pixels.chunks(3).filter(|pixel| pixel[0] == 200).count();
    assert!(
        tissue * 100 > pixels.len() / 3 * 97,
        "the mask's edge is rounded: {tissue}"
    );
    assert_eq!(pixels, sample_tissue(&slide, &mask, &options).unwrap());
    options.regions = 0;
    assert!(sample_tissue(&slide, &mask, &options).is_err());
    // Where there is no tissue there are no pixels.
    let glass = slide.view(crate::view::Target::Downsample(1.0)).unwrap();
    assert_eq!(mask.share_in(&glass, &Region::new(0..200, 0..200)), 0.0);
}
