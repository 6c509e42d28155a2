//! Pages of TIFF files in every compression that is read: alike in strips and in tiles, and no damage is more than an error.

use std::io::Write;

use crate::common::corpus::level_0;
use crate::common::tiff_file::{Compress, Cut, write_tiff};
use crate::tiff_kinds::{
    BLACK_IS_ZERO, CUTS, HEIGHT, RGB, WHITE_IS_ZERO, WIDTH, YCBCR, check, greys, open, page,
    picture, thrice,
};
use stream_grad_slides::Slide;

fn deflate(raw: &[u8], _: usize, _: usize) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(raw).unwrap();
    encoder.finish().unwrap()
}

/// Differences of 8-bit RGB.
fn predicted(raw: &[u8], width: usize, height: usize) -> Vec<u8> {
    let rows = raw.chunks_exact(width * 3);
    let differences: Vec<u8> = rows
        .flat_map(|row| {
            let before = |place: usize| if place < 3 { 0 } else { row[place - 3] };
            let places = row.iter().enumerate();
            places
                .map(|(place, value)| value.wrapping_sub(before(place)))
                .collect::<Vec<u8>>()
        })
        .collect();
    deflate(&differences, width, height)
}

fn lzw(raw: &[u8], _: usize, _: usize) -> Vec<u8> {
    let mut encoder = weezl::encode::Encoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8);
    encoder.encode(raw).unwrap()
}

/// Runs of three and bytes as they are, with a byte that means nothing in front.
fn packbits(raw: &[u8], _: usize, _: usize) -> Vec<u8> {
    let mut packed = vec![128];
    for part in raw.chunks(3) {
        if part.len() == 3 && part.iter().all(|byte| *byte == part[0]) {
            packed.extend([(-2_i8) as u8, part[0]]);
        } else {
            packed.push(part.len() as u8 - 1);
            packed.extend(part);
        }
    }
    packed
}

fn zstd(raw: &[u8], _: usize, _: usize) -> Vec<u8> {
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    ruzstd::encoding::compress_to_vec(raw, level)
}

fn webp(raw: &[u8], width: usize, height: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    image_webp::WebPEncoder::new(&mut stream)
        .encode(
            raw,
            width as u32,
            height as u32,
            image_webp::ColorType::Rgb8,
        )
        .unwrap();
    stream
}

fn fax4(raw: &[u8], width: usize, _: usize) -> Vec<u8> {
    let mut encoder = fax::encoder::Encoder::new(fax::VecWriter::new());
    for row in raw.chunks_exact(width.div_ceil(8)) {
        let bit = |column: usize| row[column / 8] & (0x80 >> (column % 8)) != 0;
        let colours = (0..width).map(|column| {
            if bit(column) {
                fax::Color::Black
            } else {
                fax::Color::White
            }
        });
        encoder.encode_line(colours, width as u16).unwrap();
    }
    encoder.finish().unwrap().finish()
}

#[test]
fn every_compression_that_loses_nothing() {
    let rgb = picture();
    let plain = page(RGB, 8, 3, rgb.clone());
    let kinds: [(&str, u64, Compress); 6] = [
        ("deflate", 8, deflate),
        ("old deflate", 32_946, deflate),
        ("LZW", 5, lzw),
        ("PackBits", 32_773, packbits),
        ("ZSTD", 50_000, zstd),
        ("WebP", 50_001, webp),
    ];
    for (name, number, compress) in kinds {
        check(name, &plain.clone().compressed(number, compress), &rgb);
    }
    let predictor = (317, 3, vec![2]);
    check(
        "predicted",
        &plain
            .clone()
            .compressed(8, predicted)
            .with(predictor.clone()),
        &rgb,
    );
    // With a sample that is passed over; the differences are those of four samples.
    let bits: Vec<u8> = greys().iter().map(|value| value >> 7).collect();
    let black_is_one = thrice(bits.iter().map(|bit| 255 - bit * 255));
    check(
        "CCITT Group 4",
        &page(WHITE_IS_ZERO, 1, 1, bits).compressed(4, fax4),
        &black_is_one,
    );
    // Bits the other way round.
    let reversed: Compress = |raw, width, height| {
        deflate(raw, width, height)
            .into_iter()
            .map(u8::reverse_bits)
            .collect()
    };
    check(
        "fill order 2",
        &plain.compressed(8, reversed).with((266, 3, vec![2])),
        &rgb,
    );
}

/// A smooth picture, of which JPEG loses little.
fn smooth() -> Vec<u8> {
    let pixel = |row: usize, column: usize| [column * 2, row * 3, row + column];
    (0..HEIGHT * WIDTH)
        .flat_map(|index| pixel(index / WIDTH, index % WIDTH))
        .map(|value| value as u8)
        .collect()
}

fn jpeg_of(raw: &[u8], width: usize, height: usize, colours: jpeg_encoder::ColorType) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut stream, 98);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_1_1);
    encoder
        .encode(raw, width as u16, height as u16, colours)
        .unwrap();
    stream
}

#[test]
fn jpeg_in_strips() {
    let rgb = smooth();
    let grey: Vec<u8> = rgb.iter().copied().step_by(3).collect();
    let colours: Compress =
        |raw, width, height| jpeg_of(raw, width, height, jpeg_encoder::ColorType::Rgb);
    let greys: Compress =
        |raw, width, height| jpeg_of(raw, width, height, jpeg_encoder::ColorType::Luma);
    let folder = tempfile::tempdir().unwrap();
    let kinds = [
        (
            page(YCBCR, 8, 3, rgb.clone())
                .compressed(7, colours)
                .with((530, 3, vec![1, 1])),
            rgb,
        ),
        (
            page(BLACK_IS_ZERO, 8, 1, grey.clone()).compressed(7, greys),
            thrice(grey),
        ),
    ];
    for (page, expected) in kinds {
        for cut in CUTS {
            let found = level_0(&open(folder.path(), "page", &[page.clone().cut(cut)]).unwrap());
            let worst = found
                .iter()
                .zip(&expected)
                .map(|(a, b)| a.abs_diff(*b))
                .max();
            assert!(worst <= Some(6), "{cut:?}: off by {worst:?}");
        }
    }
}

#[test]
fn colours_that_are_stored_for_four_pixels_at_once() {
    // Units of 2 x 2 lights and two colours, in strips of 16 rows and tiles of 32.
    let units: Compress = |raw, width, height| {
        let pixel = |row: usize, column: usize| &raw[(row * width + column) * 3..][..3];
        let mut stored = Vec::new();
        for row in (0..height).step_by(2) {
            for column in (0..width).step_by(2) {
                stored.extend(
                    [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(y, x)| pixel(row + y, column + x)[0]),
                );
                stored.extend(&pixel(row, column)[1..]);
            }
        }
        stored
    };
    let lights = greys();
    let neutral: Vec<u8> = lights.iter().flat_map(|&light| [light, 128, 128]).collect();
    check(
        "neutral",
        &page(YCBCR, 8, 3, neutral)
            .compressed(1, units)
            .with((530, 3, vec![2, 2])),
        &thrice(lights),
    );
}

/// Bytes of compressed streams are changed, one at a time: an error or some pixels, never more.
#[test]
fn damaged_streams_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.tif");
    let rgb = picture();
    let bits: Vec<u8> = greys().iter().map(|value| value >> 7).collect();
    let colours: Compress =
        |raw, width, height| jpeg_of(raw, width, height, jpeg_encoder::ColorType::Rgb);
    let plain = page(RGB, 8, 3, rgb.clone());
    let pages = [
        plain.clone().compressed(5, lzw),
        plain.clone().compressed(8, deflate),
        plain.clone().compressed(32_773, packbits),
        plain.clone().compressed(50_000, zstd),
        plain.compressed(50_001, webp),
        page(YCBCR, 8, 3, rgb).compressed(7, colours),
        page(WHITE_IS_ZERO, 1, 1, bits).compressed(4, fax4),
    ];
    for page in pages {
        write_tiff(&path, &[page.cut(Cut::Strips(HEIGHT))]);
        let whole = std::fs::read(&path).unwrap();
        let end = whole.len().saturating_sub(200).max(100);
        assert_eq!(
            level_0(&Slide::open(&path).unwrap()).len(),
            HEIGHT * WIDTH * 3
        );
        for place in (8..end).step_by(end.div_ceil(300)) {
            for bits in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[place] ^= bits;
                std::fs::write(&path, bytes).unwrap();
                match Slide::open(&path) {
                    Ok(slide) => assert_eq!(level_0(&slide).len(), HEIGHT * WIDTH * 3),
                    // Which one depends on what the byte was; each names the file.
                    Err(error) => assert!(
                        error.to_string().contains(path.to_str().unwrap()),
                        "{error}"
                    ),
                }
            }
        }
    }
}
