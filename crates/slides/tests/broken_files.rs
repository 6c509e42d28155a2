//! Broken slides give errors that name the file, never panics; other inputs open behind the same type.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a test: small numbers, and a panic is how it fails"
)]

mod common;

use std::num::NonZeroUsize;
use std::path::Path;

use stream_grad_slides::{
    Compression, Extent, Level, Limits, MicronsPerPixel, OpenOptions, PyramidOptions,
    PyramidWriter, ReadAhead, ReadAheadOptions, Region, Slide, SlideError, Target,
};

fn read_all(slide: &Slide) -> Result<Vec<u8>, SlideError> {
    let Extent { height, width } = slide.extent();
    let mut rgb = vec![0; (height * width * 3) as usize];
    slide.read_level(Level(0), &slide.extent().region(), &mut rgb)?;
    Ok(rgb)
}

/// A deflate pyramid, in which a damaged tile cannot be decoded by accident.
fn write(path: &Path, rgb: &[u8], height: usize, width: usize) {
    let options = PyramidOptions::default().with_compression(Compression::Deflate);
    let mut writer = PyramidWriter::create(path, height as u64, width as u64, &options).unwrap();
    writer.write_rows(rgb).unwrap();
    writer.finish().unwrap();
}

#[test]
fn the_known_broken_slides_are_errors() {
    let error = Slide::open(common::asset("unopenable.tiff")).unwrap_err();
    assert!(
        matches!(&error, SlideError::CannotOpen { path, .. } if path.ends_with("unopenable.tiff")),
        "{error}"
    );
    let slide = Slide::open(common::asset("unreadable.svs")).unwrap();
    for _ in 0..2 {
        let error = read_all(&slide).unwrap_err();
        assert!(
            matches!(&error, SlideError::RegionFailed { path, level: Level(0), .. } if path.ends_with("unreadable.svs")),
            "{error}"
        );
    }
    let missing = Slide::open("no/such/slide.svs").unwrap_err();
    assert!(matches!(missing, SlideError::Io { .. }), "{missing}");
    let folder = tempfile::tempdir().unwrap();
    assert!(Slide::open(folder.path()).is_err());
    let empty = folder.path().join("empty.svs");
    std::fs::write(&empty, b"").unwrap();
    assert!(Slide::open(&empty).is_err());
}

#[test]
fn a_bad_tile_is_named_and_the_rest_can_still_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.tiff");
    let (height, width) = (1536, 1536);
    let rgb = common::picture(height, width);
    write(&path, &rgb, height, width);
    // Tile (2, 2) of 6 x 6: within block (1, 1).
    let mut decoder =
        tiff::decoder::Decoder::new(std::io::BufReader::new(std::fs::File::open(&path).unwrap()))
            .unwrap();
    let offsets = decoder
        .get_tag_u64_vec(tiff::tags::Tag::TileOffsets)
        .unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let start = offsets[2 * 6 + 2] as usize;
    bytes[start..start + 2000].fill(0xff);
    std::fs::write(&path, &bytes).unwrap();

    let slide = Slide::open(&path).unwrap();
    let good = Region::new(0..512, 1024..1536);
    let expected: Vec<u8> = (0..512)
        .flat_map(|row| rgb[(row * width + 1024) * 3..(row * width + 1536) * 3].to_vec())
        .collect();
    let mut found = vec![0; expected.len()];
    for round in 0..3 {
        let mut bad = vec![0; 10 * 10 * 3];
        let error = slide
            .read_level(Level(0), &Region::new(600..610, 700..710), &mut bad)
            .unwrap_err();
        let SlideError::RegionFailed { region, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(*region, Region::new(512..1024, 512..1024));
        slide.read_level(Level(0), &good, &mut found).unwrap();
        assert!(found == expected, "round {round}");
    }
    // A neighbour that reads on other threads must never fail because of the bad tile.
    let fresh = Slide::open_with(
        &path,
        &OpenOptions::default()
            .with_cache(std::sync::Arc::new(stream_grad_slides::BlockCache::new(0))),
    )
    .unwrap();
    std::thread::scope(|scope| {
        let spoiler = scope.spawn(|| {
            for _ in 0..10 {
                let mut bad = vec![0; 3];
                assert!(
                    fresh
                        .read_level(Level(0), &Region::new(600..601, 700..701), &mut bad)
                        .is_err()
                );
            }
        });
        let mut found = vec![0; expected.len()];
        while !spoiler.is_finished() {
            fresh.read_level(Level(0), &good, &mut found).unwrap();
            assert!(found == expected);
        }
    });
    // Reading ahead hands the error to the one who asks for the region.
    let options = ReadAheadOptions {
        threads: NonZeroUsize::new(2).unwrap(),
        depth: NonZeroUsize::new(2).unwrap(),
    };
    let schedule = vec![Region::new(600..700, 600..700), good.clone()];
    let ahead = ReadAhead::new(
        slide.view(Target::Downsample(1.0)).unwrap(),
        schedule.clone(),
        options,
    )
    .unwrap();
    assert!(matches!(
        ahead.read(&schedule[0], &mut vec![0; 30_000]),
        Err(SlideError::RegionFailed { .. })
    ));
    ahead.read(&good, &mut found).unwrap();
    assert!(found == expected);
}

/// Cut files and files with a changed byte either fail or decode; both are fine, a panic is not.
#[test]
fn cut_and_changed_files_do_not_panic() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.tiff");
    write(&whole, &common::picture(150, 200), 150, 200);
    let mut png = Vec::new();
    image::RgbImage::from_raw(60, 50, common::picture(50, 60))
        .unwrap()
        .write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png)
        .unwrap();
    let small = std::fs::read(common::asset("small.svs")).unwrap();
    let (mut refused, mut decoded) = (0, 0);
    for (name, original) in [
        ("a.tiff", std::fs::read(&whole).unwrap()),
        ("a.png", png),
        ("a.svs", small),
    ] {
        let path = folder.path().join(name);
        let mut attempt = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            match Slide::open(&path).and_then(|slide| {
                if slide.extent().height < 4096 && slide.extent().width < 4096 {
                    read_all(&slide)
                } else {
                    Ok(Vec::new())
                }
            }) {
                Ok(_) => decoded += 1,
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().contains(name), "{error}");
                }
            }
        };
        for cut in 0..20 {
            attempt(&original[..original.len() * cut / 20]);
        }
        for place in 0..60 {
            let mut changed = original.clone();
            let index = place * original.len() / 60;
            changed[index] ^= 1 << (place % 8);
            attempt(&changed);
        }
    }
    assert!(
        refused > 40 && decoded > 10,
        "{refused} refused, {decoded} decoded"
    );
}

#[test]
fn plain_images_open_as_slides() {
    let folder = tempfile::tempdir().unwrap();
    let rgb = common::picture(90, 120);
    let picture = image::RgbImage::from_raw(120, 90, rgb.clone()).unwrap();
    for name in ["plain.png", "plain.tiff", "plain.jpg"] {
        let path = folder.path().join(name);
        picture
            .save_with_format(
                &path,
                match name {
                    "plain.jpg" => image::ImageFormat::Jpeg,
                    "plain.tiff" => image::ImageFormat::Tiff,
                    _ => image::ImageFormat::Png,
                },
            )
            .unwrap();
        let scale = MicronsPerPixel::new(0.5).unwrap();
        let slide =
            Slide::open_with(&path, &OpenOptions::default().with_microns_per_pixel(scale)).unwrap();
        assert_eq!(
            slide.extent(),
            Extent {
                height: 90,
                width: 120
            }
        );
        assert_eq!(
            slide
                .view(Target::MicronsPerPixel(MicronsPerPixel::new(1.0).unwrap()))
                .unwrap()
                .extent(),
            Extent {
                height: 45,
                width: 60
            }
        );
        if name != "plain.jpg" {
            assert!(read_all(&slide).unwrap() == rgb, "{name}");
        }
        let limits = {
            let mut limits = Limits::default();
            limits.image_bytes = 10_000;
            limits
        };
        let refused =
            Slide::open_with(&path, &OpenOptions::default().with_limits(limits)).unwrap_err();
        assert!(
            matches!(
                refused,
                SlideError::LimitExceeded {
                    needed: 32_400,
                    limit: 10_000,
                    ..
                }
            ),
            "{refused}"
        );
    }
}
