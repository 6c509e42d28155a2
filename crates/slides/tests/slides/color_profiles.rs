//! ICC profiles are found, passed on and applied.

use std::borrow::Cow;
use std::path::Path;

use moxcms::ColorProfile;
use stream_grad_slides::{
    ColorManagement, ColorModel, Compression, MicronsPerPixel, OpenOptions, PyramidOptions,
    PyramidWriter, Slide, SlideError,
};

/// Colours that exist in sRGB, too.
const COLOURS: [[u8; 3]; 4] = [
    [200, 110, 160],
    [120, 90, 150],
    [128, 128, 128],
    [240, 235, 238],
];

fn pixels() -> Vec<u8> {
    COLOURS
        .iter()
        .cycle()
        .take(40 * 50)
        .flatten()
        .copied()
        .collect()
}

fn png_with(path: &Path, profile: &[u8]) {
    let mut info = png::Info::with_size(50, 40);
    info.color_type = png::ColorType::Rgb;
    info.icc_profile = Some(Cow::Borrowed(profile));
    let file = std::fs::File::create(path).unwrap();
    let mut writer = png::Encoder::with_info(file, info)
        .unwrap()
        .write_header()
        .unwrap();
    writer.write_image_data(&pixels()).unwrap();
}

fn pyramid_with(path: &Path, profile: &[u8], options: &PyramidOptions) {
    let options = options
        .clone()
        .with_compression(Compression::Deflate)
        .with_icc_profile(profile.to_vec());
    let mut writer = PyramidWriter::create(path, 40, 50, &options).unwrap();
    writer.write_rows(&pixels()).unwrap();
    writer.finish().unwrap();
}

/// Display P3 to sRGB by the formulas of both standards, in f64.
fn expected([r, g, b]: [u8; 3]) -> [f64; 3] {
    let linear = |byte: u8| {
        let value = f64::from(byte) / 255.0;
        if value > 0.04045 {
            ((value + 0.055) / 1.055).powf(2.4)
        } else {
            value / 12.92
        }
    };
    let bent = |light: f64| {
        255.0
            * if light > 0.003_130_8 {
                1.055 * light.powf(1.0 / 2.4) - 0.055
            } else {
                light * 12.92
            }
    };
    let (r, g, b) = (linear(r), linear(g), linear(b));
    [
        bent(1.224_940 * r - 0.224_940 * g),
        bent(-0.042_057 * r + 1.042_057 * g),
        bent(-0.019_638 * r - 0.078_636 * g + 1.098_274 * b),
    ]
}

#[test]
fn profiles_are_passed_on_and_applied() {
    let profile = ColorProfile::new_display_p3().encode().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let png = folder.path().join("p3.png");
    png_with(&png, &profile);
    let generic = folder.path().join("generic.tiff");
    pyramid_with(&generic, &profile, &PyramidOptions::default());
    let aperio = folder.path().join("aperio.tiff");
    let scale = MicronsPerPixel::new(0.5).unwrap();
    pyramid_with(
        &aperio,
        &profile,
        &PyramidOptions::default().with_microns_per_pixel(scale),
    );
    for path in [&png, &generic, &aperio] {
        let stored = Slide::open(path).unwrap();
        assert_eq!(
            stored.icc_profile().unwrap().as_ref(),
            Some(&profile),
            "{}",
            path.display()
        );
        assert_eq!(crate::common::corpus::level_0(&stored), pixels());
        let options = OpenOptions::default().with_colors(ColorManagement::ToSrgb);
        let converted = crate::common::corpus::level_0(&Slide::open_with(path, &options).unwrap());
        for (found, colour) in converted.chunks_exact(3).zip(COLOURS.iter().cycle()) {
            for (found, expected) in found.iter().zip(expected(*colour)) {
                assert!(
                    (f64::from(*found) - expected).abs() <= 1.5,
                    "{colour:?}: {found}, not {expected}"
                );
            }
        }
        assert_ne!(converted, pixels());
    }
}

#[test]
fn no_profile_changes_nothing_and_a_broken_one_is_named() {
    let options = OpenOptions::default().with_colors(ColorManagement::ToSrgb);
    let path = crate::common::asset("boxes.png");
    let slide = Slide::open_with(&path, &options).unwrap();
    assert_eq!(slide.icc_profile().unwrap(), None);
    assert_eq!(
        crate::common::corpus::level_0(&slide),
        crate::common::corpus::level_0(&Slide::open(&path).unwrap())
    );

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.tiff");
    pyramid_with(&path, b"no profile at all", &PyramidOptions::default());
    assert!(
        Slide::open(&path).is_ok(),
        "only who wants the profile needs it"
    );
    let error = Slide::open_with(&path, &options).unwrap_err();
    assert!(
        matches!(&error, SlideError::ImageFailed { name, .. } if name == "ICC profile"),
        "{error}"
    );
}

/// The real slide with a profile of its first directory, as Aperio's scanners write it: to a copy of the file that directory
/// is appended once more, with one entry more.
fn real_slide_with(path: &Path, profile: &[u8]) {
    let mut bytes = std::fs::read(crate::common::asset("default.svs")).unwrap();
    assert_eq!(bytes[..4], *b"II*\0");
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    let first = number(&bytes[4..8]) as usize;
    let count = usize::from(u16::from_le_bytes(
        bytes[first..first + 2].try_into().unwrap(),
    ));
    let end = first + 2 + count * 12;
    let mut entries: Vec<[u8; 12]> = bytes[first + 2..end]
        .chunks_exact(12)
        .map(|entry| entry.try_into().unwrap())
        .collect();
    let next = bytes[end..end + 4].to_vec();
    let place = bytes.len() as u32;
    bytes.extend(profile);
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    let directory = bytes.len() as u32;
    // InterColorProfile, of bytes of no type.
    let mut entry = [0; 12];
    entry[..2].copy_from_slice(&34675_u16.to_le_bytes());
    entry[2..4].copy_from_slice(&7_u16.to_le_bytes());
    entry[4..8].copy_from_slice(&(profile.len() as u32).to_le_bytes());
    entry[8..].copy_from_slice(&place.to_le_bytes());
    entries.push(entry);
    entries.sort_by_key(|entry| u16::from_le_bytes([entry[0], entry[1]]));
    bytes.extend((entries.len() as u16).to_le_bytes());
    bytes.extend(entries.into_iter().flatten());
    bytes.extend(next);
    bytes[4..8].copy_from_slice(&directory.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_thumbnail_has_the_slides_colours_and_photographs_have_their_own() {
    let profile = ColorProfile::new_display_p3().encode().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p3.svs");
    real_slide_with(&path, &profile);
    let stored = Slide::open(&path).unwrap();
    assert_eq!(stored.icc_profile().unwrap().as_ref(), Some(&profile));
    let options = OpenOptions::default().with_colors(ColorManagement::ToSrgb);
    let converted = Slide::open_with(&path, &options).unwrap();
    for (name, has_profile) in [("thumbnail", true), ("label", false), ("macro", false)] {
        let found = stored.associated_image_icc_profile(name).unwrap();
        assert_eq!(found.is_some(), has_profile, "{name}");
        let before = stored.associated_image(name).unwrap();
        let after = converted.associated_image(name).unwrap();
        assert_eq!(before != after, has_profile, "{name}");
        if !has_profile {
            continue;
        }
        for (before, after) in before.pixels().zip(after.pixels()) {
            for (expected, found) in expected(before.0).into_iter().zip(after.0) {
                // Colours that sRGB does not have are cut off.
                let expected = expected.clamp(0.0, 255.0);
                assert!(
                    (expected - f64::from(found)).abs() <= 2.0,
                    "{before:?}: {after:?}"
                );
            }
        }
    }
    assert!(matches!(
        stored.associated_image_icc_profile("no such image"),
        Err(SlideError::NoSuchImage { name, known, .. })
            if name == "no such image" && known == stored.associated_image_names().unwrap()
    ));
}

/// A profile of grey with a plain power as its curve, by the ICC specification: header, white point and grey curve.
fn gray_profile(gamma: u16) -> Vec<u8> {
    let mut tags = Vec::new();
    // XYZ of D50 in 16 bits before and 16 behind the point.
    let white: [u32; 3] = [0xf6d6, 0x1_0000, 0xd32d];
    tags.extend(b"XYZ \0\0\0\0");
    tags.extend(white.iter().flat_map(|value| value.to_be_bytes()));
    let curve_at = tags.len();
    // One value: a power, 8 bits before and 8 behind the point.
    tags.extend(b"curv\0\0\0\0");
    tags.extend(1_u32.to_be_bytes());
    tags.extend((gamma << 8).to_be_bytes());
    tags.extend([0; 2]);
    let start = 128 + 4 + 2 * 12;
    let mut profile = vec![0; 128];
    profile[8..12].copy_from_slice(&[2, 0x40, 0, 0]);
    profile[12..16].copy_from_slice(b"mntr");
    profile[16..20].copy_from_slice(b"GRAY");
    profile[20..24].copy_from_slice(b"XYZ ");
    profile[36..40].copy_from_slice(b"acsp");
    for (place, value) in white.iter().enumerate() {
        profile[68 + place * 4..72 + place * 4].copy_from_slice(&value.to_be_bytes());
    }
    profile.extend(2_u32.to_be_bytes());
    for (name, place, length) in [(b"wtpt", 0, 20_u32), (b"kTRC", curve_at, 16)] {
        profile.extend(name);
        profile.extend(((start + place) as u32).to_be_bytes());
        profile.extend(length.to_be_bytes());
    }
    profile.extend(tags);
    let length = (profile.len() as u32).to_be_bytes();
    profile[..4].copy_from_slice(&length);
    profile
}

/// Writes grey levels 0 to 255, or the same as RGB, with a profile.
fn ramp_with(path: &Path, profile: &[u8], color: ColorModel) {
    let options = PyramidOptions::default()
        .with_compression(Compression::Deflate)
        .with_color(color)
        .with_icc_profile(profile.to_vec());
    let mut writer = PyramidWriter::create(path, 16, 16, &options).unwrap();
    let ramp: Vec<u8> = match color {
        ColorModel::Gray => (0..=255).collect(),
        _ => (0..=255).flat_map(|value| [value; 3]).collect(),
    };
    writer.write_rows(&ramp).unwrap();
    writer.finish().unwrap();
}

#[test]
fn a_profile_of_grey_serves_grey_pixels() {
    let options = OpenOptions::default().with_colors(ColorManagement::ToSrgb);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("grey.tiff");
    for gamma in [1, 2] {
        let profile = gray_profile(gamma);
        ramp_with(&path, &profile, ColorModel::Gray);
        let slide = Slide::open_with(&path, &options).unwrap();
        assert_eq!(slide.icc_profile().unwrap(), Some(profile));
        let found = crate::common::corpus::level_0(&slide);
        for (value, pixel) in (0..=255_u8).zip(found.chunks_exact(3)) {
            let light = (f64::from(value) / 255.0).powi(gamma.into());
            let expected = 255.0
                * if light > 0.003_130_8 {
                    1.055 * light.powf(1.0 / 2.4) - 0.055
                } else {
                    light * 12.92
                };
            for channel in pixel {
                let error = f64::from(*channel) - expected;
                assert!(
                    error.abs() <= 1.5,
                    "{gamma}, {value}: {channel}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn a_profile_that_does_not_fit_the_pixels_is_named() {
    let options = OpenOptions::default().with_colors(ColorManagement::ToSrgb);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slide.tiff");
    let mut cmyk = gray_profile(1);
    cmyk[16..20].copy_from_slice(b"CMYK");
    let mut lab = gray_profile(1);
    lab[16..20].copy_from_slice(b"Lab ");
    let cases = [
        (ColorModel::Rgb, gray_profile(1), "Gray"),
        (ColorModel::Rgb, cmyk.clone(), "Cmyk"),
        (ColorModel::Gray, cmyk, "Cmyk"),
        (ColorModel::Rgb, lab, "Lab"),
    ];
    for (color, profile, kind) in cases {
        ramp_with(&path, &profile, color);
        assert!(
            Slide::open(&path).is_ok(),
            "{kind}: who wants no conversion needs no profile"
        );
        let error = Slide::open_with(&path, &options).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(&error, SlideError::ImageFailed { name, .. } if name == "ICC profile")
                && text.contains(kind),
            "{text}"
        );
    }
    // RGB profiles serve grey pixels.
    ramp_with(
        &path,
        &ColorProfile::new_display_p3().encode().unwrap(),
        ColorModel::Gray,
    );
    let slide = Slide::open_with(&path, &options).unwrap();
    for (value, pixel) in (0..=255_u8).zip(crate::common::corpus::level_0(&slide).chunks_exact(3)) {
        assert!(
            pixel.iter().all(|channel| channel.abs_diff(value) <= 1),
            "{value}: {pixel:?}"
        );
    }
}

/// Cut short anywhere and with any byte changed, a profile is applied or refused.
#[test]
fn damaged_profiles_are_errors() {
    let options = OpenOptions::default().with_colors(ColorManagement::ToSrgb);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slide.tiff");
    let (mut applied, mut refused) = (0, 0);
    for (color, profile) in [
        (ColorModel::Gray, gray_profile(2)),
        (
            ColorModel::Rgb,
            ColorProfile::new_display_p3().encode().unwrap(),
        ),
    ] {
        let cuts = (1..profile.len())
            .step_by(5)
            .map(|length| profile[..length].to_vec());
        let changed = (0..profile.len()).step_by(2).map(|place| {
            let mut profile = profile.clone();
            profile[place] ^= 0xff;
            profile
        });
        for damaged in cuts.chain(changed) {
            ramp_with(&path, &damaged, color);
            match Slide::open_with(&path, &options) {
                Ok(slide) => {
                    crate::common::corpus::level_0(&slide);
                    applied += 1;
                }
                Err(SlideError::ImageFailed { name, .. }) if name == "ICC profile" => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(
        applied > 10 && refused > 10,
        "{applied} applied, {refused} refused"
    );
}
