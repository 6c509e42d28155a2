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
    fn refused<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().to_string()
    }
    let estimate = |rgb: &[u8]| refused(MacenkoProfile::estimate(rgb, &MacenkoOptions::default()));
    let scarce = "pixels or stains must be at least 100 that are not glass, found";
    assert_eq!(estimate(&[]), format!("{scarce} 0 of 0"));
    assert_eq!(estimate(&[250; 3000]), format!("{scarce} 0 of 1000"));
    assert_eq!(
        estimate(&[0; 4]),
        "whole pixels, in bytes (3 each), needs 6, found 4"
    );
    assert_eq!(
        estimate(&[100; 3000]),
        "pixels or stains must be of more than one colour, found one colour"
    );
    for pixels in [&[100; 300][..], &[]] {
        let message = refused(ReinhardProfile::estimate(pixels));
        let told = "colours must be finite and of more than one kind on each axis of CIELAB, found";
        assert!(
            message.starts_with(told) && message.contains("deviation: ["),
            "{message}"
        );
    }
    let mut broken = MacenkoProfile::REFERENCE;
    broken.eosin = broken.haematoxylin;
    assert_eq!(
        refused(broken.normalizer_to(&MacenkoProfile::REFERENCE)),
        format!("pixels or stains must be stains of different colours, found {broken:?}")
    );
    broken.eosin[0] = f64::NAN;
    assert_eq!(
        refused(MacenkoProfile::REFERENCE.normalizer_to(&broken)),
        format!("pixels or stains must be finite, amounts above 0, found {broken:?}")
    );
    let jitter = HedJitter {
        factor: [f64::INFINITY; 3],
        offset: [0.0; 3],
    };
    assert_eq!(
        refused(jitter.prepare()),
        format!("a change of stains must be finite, found {jitter:?}")
    );
    assert_eq!(
        refused(separate_hed(&[0; 3], &mut [0.0; 6])),
        "a buffer of amounts of stains (3 for each pixel) needs 3, found 6"
    );
    assert_eq!(
        refused(combine_hed(&[0.0; 4], &mut [0; 4])),
        "whole pixels, in bytes (3 each), needs 6, found 4"
    );
    let options = MacenkoOptions {
        percentile: 50.0,
        ..MacenkoOptions::default()
    };
    assert_eq!(
        refused(MacenkoProfile::estimate(&[0; 3000], &options)),
        "an option for stains must be a percentile from 0 to below 50, found 50"
    );
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
    assert_eq!(
        sample_tissue(&slide, &mask, &options)
            .unwrap_err()
            .to_string(),
        format!(
            "a sample of tissue must be of at least one region and one pixel, found {options:?}"
        )
    );
    // Where there is no tissue there are no pixels.
    let glass = slide.view(crate::view::Target::Downsample(1.0)).unwrap();
    assert_eq!(mask.share_in(&glass, &Region::new(0..200, 0..200)), 0.0);
}
