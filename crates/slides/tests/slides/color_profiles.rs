//! ICC profiles are found, passed on and applied.

use std::borrow::Cow;
use std::path::Path;

use moxcms::ColorProfile;
use stream_grad_slides::{
    ColorManagement, Compression, MicronsPerPixel, OpenOptions, PyramidOptions, PyramidWriter,
    Slide, SlideError,
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
        Err(SlideError::NoSuchImage { .. })
    ));
}
