//! TIFF files of every kind of pixels: in tiles, which OpenSlide reads where it can be trusted, and in strips, they read as
//! the same pixels, and as what the specification says they are.

use std::path::Path;

use crate::common::corpus::level_0;
use crate::common::tiff_file::{Compress, Cut, Entry, Page, as_is, write_tiff};
use stream_grad_slides::{Limits, OpenOptions, Slide, SlideError, SlideWarning};

pub(crate) const HEIGHT: usize = 70;
pub(crate) const WIDTH: usize = 90;
pub(crate) const CUTS: [Cut; 3] = [Cut::Strips(16), Cut::Strips(HEIGHT), Cut::Tiles(32)];

/// Photometric interpretations.
pub(crate) const WHITE_IS_ZERO: u64 = 0;
pub(crate) const BLACK_IS_ZERO: u64 = 1;
pub(crate) const RGB: u64 = 2;
const PALETTE: u64 = 3;
const CMYK: u64 = 5;
pub(crate) const YCBCR: u64 = 6;

/// A page of `bits` bits a sample, whole bytes a pixel unless there is one sample.
pub(crate) fn page(photometric: u64, bits: usize, samples: usize, pixels: Vec<u8>) -> Page {
    Page {
        height: HEIGHT,
        width: WIDTH,
        pixel_bits: bits * samples,
        pixels,
        cut: CUTS[0],
        planes_of: None,
        compress: as_is,
        entries: vec![
            (258, 3, vec![bits as u64; samples]),
            (259, 3, vec![1]),
            (262, 3, vec![photometric]),
            (277, 3, vec![samples as u64]),
        ],
    }
}

impl Page {
    pub(crate) fn with(mut self, entry: Entry) -> Self {
        self.entries.retain(|(tag, ..)| *tag != entry.0);
        self.entries.push(entry);
        self
    }

    pub(crate) fn compressed(mut self, compression: u64, compress: Compress) -> Self {
        self.compress = compress;
        self.with((259, 3, vec![compression]))
    }

    fn in_planes(mut self, sample_bytes: usize) -> Self {
        self.planes_of = Some(sample_bytes);
        self
    }

    pub(crate) fn cut(mut self, cut: Cut) -> Self {
        self.cut = cut;
        self
    }
}

pub(crate) fn picture() -> Vec<u8> {
    crate::common::picture(HEIGHT, WIDTH)
}

/// The red channel.
pub(crate) fn greys() -> Vec<u8> {
    picture().into_iter().step_by(3).collect()
}

pub(crate) fn thrice(greys: impl IntoIterator<Item = u8>) -> Vec<u8> {
    greys.into_iter().flat_map(|value| [value; 3]).collect()
}

/// Appends samples to each pixel.
fn and(pixels: &[u8], samples: usize, extra: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let pixels = pixels.chunks_exact(samples).enumerate();
    pixels
        .flat_map(|(index, pixel)| [pixel, &extra(index)].concat())
        .collect()
}

/// Each byte as 16 bits that stand for the same share.
fn wide(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|&byte| [byte, byte]).collect()
}

pub(crate) fn open(folder: &Path, name: &str, pages: &[Page]) -> Result<Slide, SlideError> {
    let path = folder.join(format!("{name}.tif"));
    write_tiff(&path, pages);
    Slide::open(&path)
}

/// Reads the page however it is cut.
pub(crate) fn check(name: &str, page: &Page, expected: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    for cut in CUTS {
        let slide = open(folder.path(), "page", &[page.clone().cut(cut)])
            .unwrap_or_else(|error| panic!("{name} in {cut:?}: {error}"));
        let found = level_0(&slide);
        let different = found.iter().zip(expected).position(|(a, b)| a != b);
        assert_eq!(
            (different, found.len()),
            (None, expected.len()),
            "{name} in {cut:?}"
        );
    }
}

#[test]
fn samples_of_every_kind() {
    let (rgb, grey) = (picture(), greys());
    check("RGB", &page(RGB, 8, 3, rgb.clone()), &rgb);
    check("RGB of 16 bits", &page(RGB, 16, 3, wide(&rgb)), &rgb);
    check(
        "RGB in planes",
        &page(RGB, 8, 3, rgb.clone()).in_planes(1),
        &rgb,
    );
    check(
        "planes of 16 bits",
        &page(RGB, 16, 3, wide(&rgb)).in_planes(2),
        &rgb,
    );
    check(
        "grey",
        &page(BLACK_IS_ZERO, 8, 1, grey.clone()),
        &thrice(grey.clone()),
    );
    check(
        "grey of 16 bits",
        &page(BLACK_IS_ZERO, 16, 1, wide(&grey)),
        &thrice(grey.clone()),
    );
    let inverted = grey.iter().map(|value| 255 - value).collect();
    check(
        "white is zero",
        &page(WHITE_IS_ZERO, 8, 1, inverted),
        &thrice(grey.clone()),
    );
    let bits: Vec<u8> = grey.iter().map(|value| value >> 7).collect();
    let expected = thrice(bits.iter().map(|bit| bit * 255));
    check("bilevel", &page(BLACK_IS_ZERO, 1, 1, bits), &expected);
    let halves: Vec<u8> = grey.iter().map(|value| value >> 4).collect();
    let expected = thrice(halves.iter().map(|half| half * 17));
    check(
        "grey of 4 bits",
        &page(BLACK_IS_ZERO, 4, 1, halves),
        &expected,
    );
    let colour = |index: u8| [index.wrapping_mul(7), 255 - index, index];
    let map = [0, 1, 2]
        .map(|channel| (0..=255).map(move |index| u64::from(colour(index)[channel]) * 257));
    let map = (320, 3, map.into_iter().flatten().collect());
    let expected: Vec<u8> = grey.iter().flat_map(|&index| colour(index)).collect();
    check(
        "palette",
        &page(PALETTE, 8, 1, grey.clone()).with(map),
        &expected,
    );
    let inks: Vec<u8> = rgb.iter().map(|value| 255 - value).collect();
    let inks = and(&inks, 3, |index| vec![if index % 2 == 0 { 0 } else { 255 }]);
    let expected: Vec<u8> = rgb
        .chunks_exact(3)
        .enumerate()
        .flat_map(|(index, pixel)| {
            if index % 2 == 0 {
                pixel.to_vec()
            } else {
                vec![0; 3]
            }
        })
        .collect();
    check("CMYK", &page(CMYK, 8, 4, inks.clone()), &expected);
    check(
        "CMYK of 16 bits",
        &page(CMYK, 16, 4, wide(&inks)),
        &expected,
    );
}

#[test]
fn colours_as_shares_of_one() {
    let rgb = picture();
    let shares = |scale: f32| -> Vec<u8> {
        let values = rgb.iter().map(|value| f32::from(*value) / 255.0 * scale);
        values.flat_map(f32::to_le_bytes).collect()
    };
    let floats = |pixels| page(RGB, 32, 3, pixels).with((339, 3, vec![3; 3]));
    check("floating-point", &floats(shares(1.0)), &rgb);
    // What is beyond is cut off.
    let expected: Vec<u8> = rgb.iter().map(|value| value.saturating_mul(2)).collect();
    check("too bright", &floats(shares(2.0)), &expected);
}

/// A value seen through alpha over white.
fn over_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (f64::from(value), f64::from(alpha) / 255.0);
    (value * alpha + 255.0 * (1.0 - alpha)).round() as u8
}

#[test]
fn alpha_is_what_the_file_calls_alpha() {
    let rgb = picture();
    let alpha = |index: usize| (index * 37 % 256) as u8;
    let seen: Vec<u8> = (rgb.iter().enumerate())
        .map(|(place, &value)| over_white(value, alpha(place / 3)))
        .collect();
    let kinds = |kinds: &[u64]| (338, 3, kinds.to_vec());
    let four = |bits, pixels| page(RGB, bits, 4, pixels);
    let with_alpha = and(&rgb, 3, |index| vec![alpha(index)]);
    check(
        "unassociated",
        &four(8, with_alpha.clone()).with(kinds(&[2])),
        &seen,
    );
    check(
        "of 16 bits",
        &four(16, wide(&with_alpha)).with(kinds(&[2])),
        &seen,
    );
    check(
        "in planes",
        &four(8, with_alpha.clone()).with(kinds(&[2])).in_planes(1),
        &seen,
    );
    // Of no kind, or of a kind that is not said.
    check(
        "unspecified",
        &four(8, with_alpha.clone()).with(kinds(&[0])),
        &rgb,
    );
    check(
        "unspecified of 16 bits",
        &four(16, wide(&with_alpha)).with(kinds(&[0])),
        &rgb,
    );
    check("without the tag", &four(8, with_alpha), &rgb);
    let five = and(&rgb, 3, |index| vec![200, alpha(index)]);
    check(
        "after another",
        &page(RGB, 8, 5, five).with(kinds(&[0, 2])),
        &seen,
    );

    // Colours multiplied by alpha already, half of it: 99 of 177, and what is left of white.
    let half = [99, 74, 149, 177_u8].repeat(HEIGHT * WIDTH);
    let expected = [177, 152, 227_u8].repeat(HEIGHT * WIDTH);
    check("associated", &four(8, half).with(kinds(&[1])), &expected);

    let grey = greys();
    let two = and(&grey, 1, |index| vec![alpha(index)]);
    let seen: Vec<u8> = (grey.iter().enumerate())
        .map(|(index, &value)| over_white(value, alpha(index)))
        .collect();
    let pair = page(BLACK_IS_ZERO, 8, 2, two.clone());
    check(
        "grey and alpha",
        &pair.clone().with(kinds(&[2])),
        &thrice(seen),
    );
    check("grey and another", &pair.with(kinds(&[0])), &thrice(grey));
}

/// The picture as stored so that the tag turns it back: TIFF 6.0's definitions, pixel by pixel.
fn stored_as(orientation: u64, rgb: &[u8]) -> Page {
    let (height, width) = if orientation > 4 {
        (WIDTH, HEIGHT)
    } else {
        (HEIGHT, WIDTH)
    };
    let mut pixels = Vec::new();
    for row in 0..height {
        for column in 0..width {
            let (bottom, right) = (HEIGHT - 1, WIDTH - 1);
            let (y, x) = match orientation {
                1 => (row, column),
                2 => (row, right - column),
                3 => (bottom - row, right - column),
                4 => (bottom - row, column),
                5 => (column, row),
                6 => (column, right - row),
                7 => (bottom - column, right - row),
                _ => (bottom - column, row),
            };
            pixels.extend(&rgb[(y * WIDTH + x) * 3..][..3]);
        }
    }
    let mut page = page(RGB, 8, 3, pixels).with((274, 3, vec![orientation]));
    (page.height, page.width) = (height, width);
    page
}

#[test]
fn pages_are_turned_as_they_say() {
    let rgb = picture();
    for orientation in 1..=8 {
        let name = format!("orientation {orientation}");
        check(&name, &stored_as(orientation, &rgb), &rgb);
    }
    // Microns of a pixel turn, too.
    let folder = tempfile::tempdir().unwrap();
    for cut in CUTS {
        let page = stored_as(6, &rgb).cut(cut);
        let page = page
            .with((282, 5, vec![5000]))
            .with((283, 5, vec![10_000]))
            .with((296, 3, vec![3]));
        let scale = open(folder.path(), "page", &[page])
            .unwrap()
            .scale()
            .unwrap();
        assert_eq!((scale.x.get(), scale.y.get()), (1.0, 2.0), "{cut:?}");
    }
}

fn refusal(page: Page) -> String {
    let folder = tempfile::tempdir().unwrap();
    let messages = CUTS.map(|cut| {
        let error = open(folder.path(), "page", &[page.clone().cut(cut)]).unwrap_err();
        assert!(
            matches!(error, SlideError::Unsupported { .. }),
            "{cut:?}: {error}"
        );
        error.to_string()
    });
    assert!(
        messages.iter().all(|message| *message == messages[0]),
        "{messages:?}"
    );
    messages[0].clone()
}

#[test]
fn what_is_not_read_is_named_when_the_file_is_opened() {
    let values = |count: usize| vec![0; HEIGHT * WIDTH * count];
    let format = |kind: u64| (339, 3, vec![kind]);
    for (page, expected) in [
        (
            page(BLACK_IS_ZERO, 32, 1, values(4)).with(format(3)),
            "a map of values",
        ),
        (
            page(RGB, 64, 3, values(24)).with((339, 3, vec![3; 3])),
            "64-bit floating-point",
        ),
        (
            page(BLACK_IS_ZERO, 16, 1, values(2)).with(format(2)),
            "16-bit whole numbers with a sign",
        ),
        (
            page(BLACK_IS_ZERO, 32, 1, values(4)),
            "32-bit whole numbers",
        ),
        (page(8, 8, 3, values(3)), "L*a*b*"),
        (
            page(RGB, 8, 3, values(3)).with((259, 3, vec![34_712])),
            "34712 (JPEG 2000)",
        ),
        (
            page(CMYK, 8, 4, values(4)).with((332, 3, vec![2])),
            "ink set 2",
        ),
    ] {
        let message = refusal(page);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn limits_hold_for_strips_and_tiles() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.tif");
    // Six samples, so that this crate reads the tiles, too.
    let six = and(&picture(), 3, |_| vec![1, 2, 3]);
    for (cut, needed) in [(CUTS[0], 70 * 90 * 3), (CUTS[2], 32 * 32 * 6)] {
        write_tiff(&path, &[page(RGB, 8, 6, six.clone()).cut(cut)]);
        for (limit, is_open) in [(needed, true), (needed - 1, false)] {
            let mut limits = Limits::default();
            (limits.image_bytes, limits.tile_bytes) = (limit, limit);
            let found = Slide::open_with(&path, &OpenOptions::default().with_limits(limits));
            match found {
                Ok(_) => assert!(is_open, "{cut:?} {limit}"),
                Err(SlideError::LimitExceeded { needed: found, .. }) => {
                    assert_eq!((found, is_open), (needed, false), "{cut:?}");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn samples_that_are_passed_over_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let five = and(&picture(), 3, |_| vec![9, 9]);
    for cut in CUTS {
        let page = page(RGB, 8, 5, five.clone())
            .with((338, 3, vec![0, 0]))
            .cut(cut);
        let slide = open(folder.path(), "page", &[page]).unwrap();
        let expected = [SlideWarning::SamplesPassedOver {
            page: 0,
            samples: 2,
        }];
        assert_eq!(slide.warnings(), expected, "{cut:?}");
    }
}
