//! Broken slides give errors that name the file, never panics; other inputs open behind the same type.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use stream_grad_slides::{
    BadRegionLog, BadRegionPolicy, Compression, Extent, Level, Limits, MicronsPerPixel,
    OpenOptions, PyramidOptions, PyramidWriter, ReadAhead, ReadAheadOptions, Region, Slide,
    SlideError, Target,
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
    let error = Slide::open(crate::common::asset("unopenable.tiff")).unwrap_err();
    assert!(
        matches!(&error, SlideError::CannotOpen { path, .. } if path.ends_with("unopenable.tiff")),
        "{error}"
    );
    let slide = Slide::open(crate::common::asset("unreadable.svs")).unwrap();
    for _ in 0..2 {
        let error = read_all(&slide).unwrap_err();
        assert!(
            matches!(&error, SlideError::RegionFailed { path, level: Level(0), .. } if path.ends_with("unreadable.svs")),
            "{error}"
        );
    }
    let missing = Slide::open("no/such/slide.svs").unwrap_err();
    assert!(
        matches!(&missing, SlideError::Io { path, source }
            if path.ends_with("slide.svs") && source.kind() == std::io::ErrorKind::NotFound),
        "{missing}"
    );
    let folder = tempfile::tempdir().unwrap();
    let refused = Slide::open(folder.path()).unwrap_err();
    assert!(
        matches!(&refused, SlideError::Io { path, source }
            if path == folder.path() && source.kind() == std::io::ErrorKind::IsADirectory),
        "{refused}"
    );
    let empty = folder.path().join("empty.svs");
    std::fs::write(&empty, b"").unwrap();
    let refused = Slide::open(&empty).unwrap_err();
    assert!(
        matches!(&refused, SlideError::CannotOpen { path, .. } if *path == empty),
        "{refused}"
    );
}

/// Side of the damaged slide.
const SIDE: usize = 1536;

/// Writes a slide with a bad tile in its middle; returns its pixels.
fn write_damaged(path: &Path) -> Vec<u8> {
    let rgb = crate::common::picture(SIDE, SIDE);
    write(path, &rgb, SIDE, SIDE);
    // Tile (2, 2) of 6 x 6: within block (1, 1).
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let mut decoder = tiff::decoder::Decoder::new(file).unwrap();
    let offsets = decoder
        .get_tag_u64_vec(tiff::tags::Tag::TileOffsets)
        .unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    let start = offsets[2 * 6 + 2] as usize;
    bytes[start..start + 2000].fill(0xff);
    std::fs::write(path, &bytes).unwrap();
    rgb
}

#[test]
fn a_bad_tile_reads_as_background_where_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.tiff");
    let mut expected = write_damaged(&path);
    for row in 512..1024 {
        expected[(row * SIDE + 512) * 3..(row * SIDE + 1024) * 3].fill(255);
    }
    let log = Arc::new(BadRegionLog::default());
    let options = OpenOptions::default()
        .with_bad_regions(BadRegionPolicy::Background(Arc::clone(&log)))
        .with_cache(Arc::new(stream_grad_slides::BlockCache::new(0)));
    // Read again, and opened again: a bad region counts once.
    for _ in 0..2 {
        let slide = Slide::open_with(&path, &options).unwrap();
        for _ in 0..2 {
            assert!(read_all(&slide).unwrap() == expected);
        }
    }
    let bad = log.regions();
    assert_eq!((log.count(), bad.len()), (1, 1));
    assert_eq!(log.by_slide(), [(path.clone(), 1)].into());
    assert_eq!((bad[0].level, &bad[0].path), (Level(0), &path));
    assert_eq!(bad[0].region, Region::new(512..1024, 512..1024));
    assert!(!bad[0].reason.is_empty());
}

#[test]
fn a_bad_tile_is_named_and_the_rest_can_still_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.tiff");
    let rgb = write_damaged(&path);

    let slide = Slide::open(&path).unwrap();
    let good = Region::new(0..512, 1024..1536);
    let expected: Vec<u8> = (0..512)
        .flat_map(|row| rgb[(row * SIDE + 1024) * 3..(row * SIDE + 1536) * 3].to_vec())
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
        &OpenOptions::default().with_cache(Arc::new(stream_grad_slides::BlockCache::new(0))),
    )
    .unwrap();
    std::thread::scope(|scope| {
        let spoiler = scope.spawn(|| {
            for _ in 0..10 {
                let mut bad = vec![0; 3];
                let failed = fresh.read_level(Level(0), &Region::new(600..601, 700..701), &mut bad);
                assert!(
                    matches!(&failed, Err(SlideError::RegionFailed { region, .. })
                        if *region == Region::new(512..1024, 512..1024)),
                    "{failed:?}"
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
        Err(SlideError::RegionFailed { region, .. })
            if region == Region::new(512..1024, 512..1024)
    ));
    ahead.read(&good, &mut found).unwrap();
    assert!(found == expected);
}

#[test]
fn plain_images_open_as_slides() {
    let folder = tempfile::tempdir().unwrap();
    let rgb = crate::common::picture(90, 120);
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
