use stream_grad::{StridedMut, TileMut};
use stream_grad_slides::{Compression, PyramidOptions, PyramidWriter};

use super::*;

fn slide(folder: &Path, name: &str, seed: u8) -> PathBuf {
    let path = folder.join(name);
    let options = PyramidOptions::default()
        .with_compression(Compression::Deflate)
        .with_microns_per_pixel(MicronsPerPixel::new(1.0).unwrap());
    let mut writer = PyramidWriter::create(&path, 60, 80, &options).unwrap();
    let rgb: Vec<u8> = (0..60 * 80 * 3_u32)
        .map(|i| u8::try_from(i * 7 % 251).unwrap() ^ seed)
        .collect();
    writer.write_rows(&rgb).unwrap();
    writer.finish().unwrap();
    path
}

fn read(source: &dyn TileSource, region: &PixelRegion) -> Vec<f32> {
    let length = region.width() * 3;
    let mut out = vec![f32::NAN; region.height() * length];
    let tile = StridedMut::new(&mut out, region.height(), length, length).unwrap();
    source.read(0, region, TileMut::F32(tile)).unwrap();
    out
}

#[test]
fn held_and_streamed_slides_agree_and_are_normalised() {
    let folder = tempfile::tempdir().unwrap();
    let path = slide(folder.path(), "a.tif", 0);
    let settings = ReadSettings {
        mean: [0.5, 0.25, 0.0],
        deviation: [0.5, 2.0, 1.0],
        ..ReadSettings::default()
    };
    let streamed = ReadSettings {
        held_bytes: 0,
        ..settings.clone()
    };
    let scale = MicronsPerPixel::new(1.0).unwrap();
    let held = SlideLoader::new(scale, settings)
        .unwrap()
        .load(&path)
        .unwrap();
    let streamed = SlideLoader::new(scale, streamed)
        .unwrap()
        .load(&path)
        .unwrap();
    assert_eq!((held.extent(), streamed.extent()), ((60, 80), (60, 80)));
    let region = PixelRegion {
        rows: 3..41,
        columns: 17..80,
    };
    let values = read(&*held, &region);
    assert_eq!(values, read(&*streamed, &region));
    let level = f32::from(u8::try_from((3 * 80 + 17) * 3 * 7 % 251_u32).unwrap());
    assert!((values[0] - (level / 255.0 - 0.5) / 0.5).abs() < 1e-6);
    let outside = PixelRegion {
        rows: 0..61,
        columns: 0..1,
    };
    let mut out = vec![0.0; 61 * 3];
    assert!(
        held.read(
            0,
            &outside,
            TileMut::F32(StridedMut::new(&mut out, 61, 3, 3).unwrap())
        )
        .is_err()
    );
}

#[test]
fn slides_decoded_ahead_are_the_same_and_memory_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = (0..6)
        .map(|i| slide(folder.path(), &format!("{i}.tif"), i))
        .collect();
    let one = 60 * 80 * 3;
    let settings = ReadSettings {
        held_bytes: 4 * one,
        decoding_threads: 2,
        ..ReadSettings::default()
    };
    let loader = SlideLoader::new(MicronsPerPixel::new(1.0).unwrap(), settings.clone()).unwrap();
    loader.expect(&paths.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    let plain = SlideLoader::new(
        MicronsPerPixel::new(1.0).unwrap(),
        ReadSettings {
            decoding_threads: 0,
            ..settings
        },
    )
    .unwrap();
    let region = PixelRegion {
        rows: 0..60,
        columns: 0..80,
    };
    for path in paths.iter().chain(&paths) {
        assert_eq!(
            read(&*loader.load(path).unwrap(), &region),
            read(&*plain.load(path).unwrap(), &region)
        );
        assert!(loader.shared.lock().bytes <= 4 * one);
    }
}

#[test]
fn a_missing_slide_is_named_each_time() {
    let loader =
        SlideLoader::new(MicronsPerPixel::new(1.0).unwrap(), ReadSettings::default()).unwrap();
    let path = Path::new("nowhere/there.tif");
    loader.expect(&[path]);
    for _ in 0..2 {
        let error = loader.load(path).err().unwrap().to_string();
        assert!(error.contains("there.tif"), "{error}");
    }
}

/// A slide of which the first of three tiles is damaged.
fn damaged(folder: &Path) -> PathBuf {
    let path = folder.join("damaged.tif");
    let options = PyramidOptions::default()
        .with_compression(Compression::Deflate)
        .with_microns_per_pixel(MicronsPerPixel::new(1.0).unwrap());
    let mut writer = PyramidWriter::create(&path, 600, 80, &options).unwrap();
    writer.write_rows(&[100; 600 * 80 * 3]).unwrap();
    writer.finish().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    // The first tile follows the header.
    bytes[8..40].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_bad_region_stops_the_run_is_background_or_costs_the_slide() {
    let folder = tempfile::tempdir().unwrap();
    let path = damaged(folder.path());
    let region = PixelRegion {
        rows: 0..600,
        columns: 0..80,
    };
    for held_bytes in [0, 1 << 24] {
        let loader = |bad_regions| {
            let settings = ReadSettings {
                held_bytes,
                bad_regions,
                ..ReadSettings::default()
            };
            SlideLoader::new(MicronsPerPixel::new(1.0).unwrap(), settings).unwrap()
        };
        let background = loader(BadRegions::Background);
        for _ in 0..2 {
            let values = read(&*background.load(&path).unwrap(), &region);
            let white =
                (1.0 - ReadSettings::default().mean[0]) / ReadSettings::default().deviation[0];
            assert!((f64::from(values[0]) - white).abs() < 1e-6, "{}", values[0]);
            assert!((f64::from(values[599 * 80 * 3]) - white).abs() > 0.5);
        }
        assert_eq!(
            background.bad_regions().by_slide(),
            [(path.clone(), 1)].into()
        );
        for (policy, stops) in [(BadRegions::Stop, true), (BadRegions::SkipSlide, false)] {
            let loader = loader(policy);
            let error = match loader.load(&path) {
                Err(error) => error,
                Ok(source) => {
                    let mut out = vec![0.0; 600 * 240];
                    let tile = StridedMut::new(&mut out, 600, 240, 240).unwrap();
                    let cause = source.read(0, &region, TileMut::F32(tile)).unwrap_err();
                    TrainError::Stream(stream_grad::StreamError::Source {
                        image: 0,
                        rows: 0..600,
                        columns: 0..80,
                        source: cause,
                    })
                }
            };
            assert!(error.to_string().contains("damaged.tif"), "{error}");
            assert_eq!(loader.stops_at(&error), stops, "{policy:?}");
            assert_eq!(loader.bad_regions().count(), 0);
        }
        let missing = loader(BadRegions::Stop);
        let error = missing.load(Path::new("nowhere.tif")).err().unwrap();
        assert!(!missing.stops_at(&error), "{error}");
    }
}
