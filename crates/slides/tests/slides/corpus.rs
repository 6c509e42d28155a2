//! The corpus is what it was, reads as what was written, and opens whatever its format.

use crate::common::corpus::{CORPUS, HEIGHT, Origin, Pixels, WIDTH, greys, level_0, sha256};
use stream_grad_slides::{Extent, Slide};

#[test]
fn every_file_has_its_checksum_and_its_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let colours = crate::common::picture(HEIGHT, WIDTH);
    let greys: Vec<u8> = greys().into_iter().flat_map(|value| [value; 3]).collect();
    for entry in &CORPUS {
        let path = entry.file(folder.path());
        let (name, pixels) = match &entry.origin {
            Origin::Asset(expected) => {
                assert_eq!(
                    sha256(&std::fs::read(&path).unwrap()),
                    *expected,
                    "{}",
                    entry.name
                );
                continue;
            }
            Origin::Written(_, pixels) => (entry.name, pixels),
        };
        let slide = Slide::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let extent = Extent {
            height: HEIGHT as u64,
            width: WIDTH as u64,
        };
        assert_eq!(slide.extent(), extent, "{name}");
        let found = level_0(&slide);
        match pixels {
            Pixels::Sha256(expected) => assert_eq!(sha256(&found), *expected, "{name}"),
            Pixels::Jpeg => {
                let expected = if name.starts_with("grey") {
                    &greys
                } else {
                    &colours
                };
                let (mean, usual) = (difference(&found, expected), codec_loss(expected));
                assert!(
                    mean > 0.0 && mean < 1.25 * usual,
                    "{name}: off by {mean} on average, where JPEG alone takes {usual}"
                );
            }
        }
    }
}

/// Mean difference in a channel.
fn difference(found: &[u8], expected: &[u8]) -> f64 {
    let pairs = found.iter().zip(expected);
    let sum: u64 = pairs.map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / found.len() as f64
}

/// What the codec of the `image` crate loses of a picture at quality 90.
fn codec_loss(rgb: &[u8]) -> f64 {
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90)
        .encode(
            rgb,
            WIDTH as u32,
            HEIGHT as u32,
            image::ExtendedColorType::Rgb8,
        )
        .unwrap();
    let decoded = image::load_from_memory(&bytes).unwrap().into_rgb8();
    difference(decoded.as_raw(), rgb)
}
