use stream_grad::tiling::PerAxis;
use stream_grad::{Span, StridedMut, TileMut};
use stream_grad_slides::{
    Compression, MacenkoProfile, PyramidOptions, PyramidWriter, ReinhardProfile, StainMethod,
    StainProfile,
};

use super::super::StainSettings;
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

fn slides(folder: &Path, count: u8) -> Vec<PathBuf> {
    let slides = (0..count).map(|place| slide(folder, &format!("{place}.tif"), place));
    slides.collect()
}

fn read(source: &dyn TileSource, region: Rect) -> Vec<f32> {
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
    let region = Rect::new(Span::new(3, 41), Span::new(17, 80));
    let values = read(&*held, region);
    assert_eq!(values, read(&*streamed, region));
    let level = f32::from(u8::try_from((3 * 80 + 17) * 3 * 7 % 251_u32).unwrap());
    assert!((values[0] - (level / 255.0 - 0.5) / 0.5).abs() < 1e-6);
    let outside = Rect::whole(61, 1);
    let mut out = vec![0.0; 61 * 3];
    for source in [&held, &streamed] {
        let tile = TileMut::F32(StridedMut::new(&mut out, 61, 3, 3).unwrap());
        let refused = source.read(0, outside, tile).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("{outside} lies outside a slide of 60 x 80")
        );
    }
}

#[test]
fn slides_decoded_ahead_are_the_same_and_memory_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let paths = slides(folder.path(), 6);
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
    let region = Rect::whole(60, 80);
    for path in paths.iter().chain(&paths) {
        assert_eq!(
            read(&*loader.load(path).unwrap(), region),
            read(&*plain.load(path).unwrap(), region)
        );
        assert!(loader.shared.lock().bytes <= 4 * one);
    }
}

/// Each slide is decoded once, although there is room for four of ten: its file is gone when it is loaded.
#[test]
fn what_was_decoded_ahead_stays_until_it_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let paths = slides(folder.path(), 10);
    let settings = ReadSettings {
        held_bytes: 4 * 60 * 80 * 3,
        ..ReadSettings::default()
    };
    let loader = SlideLoader::new(MicronsPerPixel::new(1.0).unwrap(), settings).unwrap();
    loader.expect(&paths.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    for path in &paths {
        let begin = std::time::Instant::now();
        let is_there = |state: &State| {
            assert!(state.in_hand.len() <= 1);
            state.held.contains_key(path) || state.in_hand.contains_key(path)
        };
        while !is_there(&loader.shared.lock()) {
            assert!(
                begin.elapsed().as_secs() < 60,
                "{} was not decoded",
                path.display()
            );
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        std::fs::remove_file(path).unwrap();
        loader.load(path).unwrap();
    }
    // What is expected no more makes room.
    let next = slide(folder.path(), "next.tif", 0);
    loader.expect(&[&next]);
    loader.load(&next).unwrap();
    assert!(loader.shared.lock().held.contains_key(&next));
}

/// A thread does not wait for ever with what is not asked for, nor with what is asked for out of turn.
#[test]
fn slides_may_be_loaded_in_another_order_than_announced() {
    let folder = tempfile::tempdir().unwrap();
    let paths = slides(folder.path(), 8);
    let settings = ReadSettings {
        held_bytes: 4 * 60 * 80 * 3,
        decoding_threads: 2,
        ..ReadSettings::default()
    };
    let loader = SlideLoader::new(MicronsPerPixel::new(1.0).unwrap(), settings).unwrap();
    loader.expect(&paths.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    for path in paths.iter().rev() {
        loader.load(path).unwrap();
    }
    loader.expect(&[&paths[0], &paths[0], &paths[7]]);
    for place in [7, 0, 0] {
        loader.load(&paths[place]).unwrap();
    }
}

/// Of what a sample, the settings and the file state, the first that is there holds.
#[test]
fn a_scale_beside_a_slide_comes_before_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    let [stated, other] = ["a.tif", "b.tif"].map(|name| slide(folder.path(), name, 0));
    let samples = [
        Sample {
            microns_per_pixel: Some(MicronsPerPixel::new(0.5).unwrap()),
            ..Sample::new(&stated, 1.0)
        },
        Sample::new(&other, 0.0),
    ];
    for (scale_override, right) in [
        (None, [(30, 40), (60, 80)]),
        (Some(2.0), [(30, 40), (120, 160)]),
    ] {
        let settings = ReadSettings {
            scale_override,
            ..ReadSettings::default()
        };
        let loader = SlideLoader::new(MicronsPerPixel::new(1.0).unwrap(), settings).unwrap();
        loader.state_scales(&samples);
        let extents = [&stated, &other].map(|slide| loader.load(slide).unwrap().extent());
        assert_eq!(extents, right);
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
    let region = Rect::whole(600, 80);
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
            let values = read(&*background.load(&path).unwrap(), region);
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
                    let cause = source.read(0, region, TileMut::F32(tile)).unwrap_err();
                    TrainError::Stream(stream_grad::StreamError::Source {
                        image: 0,
                        region,
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

/// A slide of tissue in two colours, with glass at its left.
fn stained(folder: &Path) -> PathBuf {
    let path = folder.join("stained.tif");
    let options = PyramidOptions::default()
        .with_compression(Compression::Deflate)
        .with_microns_per_pixel(MicronsPerPixel::new(4.0).unwrap());
    let mut writer = PyramidWriter::create(&path, 300, 400, &options).unwrap();
    let pixels = (0..300 * 400_u32).flat_map(|i| match (i * 31 + i / 400 * 17) % 7 {
        _ if i % 400 < 60 => [244; 3],
        0..3 => [110, 70, 150],
        pixel => [190 + u8::try_from(pixel).unwrap(), 120, 180],
    });
    writer.write_rows(&pixels.collect::<Vec<u8>>()).unwrap();
    writer.finish().unwrap();
    path
}

#[test]
fn stains_are_made_alike_whatever_is_held_and_however_it_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = stained(folder.path());
    for (kind, method) in [
        ("macenko", StainMethod::Macenko),
        ("reinhard", StainMethod::Reinhard),
    ] {
        let text = format!("[data.read]\nstain = {{ kind = \"{kind}\" }}\n");
        let settings = crate::settings::Settings::from_toml(&text)
            .unwrap()
            .data
            .read;
        // At 4 microns pixels are the file's, at 8 they are means of four.
        for microns in [4.0, 8.0] {
            let scale = MicronsPerPixel::new(microns).unwrap();
            let load = |held_bytes| {
                let settings = ReadSettings {
                    held_bytes,
                    ..settings.clone()
                };
                let loader = SlideLoader::new(scale, settings).unwrap();
                loader.load(&path).unwrap()
            };
            let (held, streamed) = (load(1 << 30), load(0));
            let (height, width) = held.extent();
            let whole = Rect::whole(height, width);
            let values = read(&*held, whole);

            // The same by hand: read, changed by the whole slide's profile, scaled.
            let slide = Slide::open(&path).unwrap();
            let view = slide.view(Target::MicronsPerPixel(scale)).unwrap();
            let mut rgb = vec![0; values.len()];
            view.read(&of_slide(whole), &mut rgb).unwrap();
            let before = rgb.clone();
            let reference = match method {
                StainMethod::Macenko => StainProfile::Macenko(MacenkoProfile::REFERENCE),
                StainMethod::Reinhard => StainProfile::Reinhard(ReinhardProfile::REFERENCE),
            };
            StainProfile::of_slide(&slide, method)
                .unwrap()
                .normalizer_to(&reference)
                .unwrap()
                .apply(&mut rgb)
                .unwrap();
            assert_ne!(rgb, before);
            let channels = (0..3).cycle();
            for ((found, byte), channel) in values.iter().zip(&rgb).zip(channels) {
                let expected = (f64::from(*byte) / 255.0 - settings.mean[channel])
                    / settings.deviation[channel];
                assert!((f64::from(*found) - expected).abs() < 1e-5);
            }

            let index = |value: u64| usize::try_from(value).unwrap();
            for source in [&held, &streamed] {
                for edge in [97, 1000] {
                    for (top, left) in corners(height, width, edge) {
                        let at = PerAxis::new(top.cast_signed(), left.cast_signed());
                        let square = Rect::whole(edge, edge).translate(at).unwrap();
                        let region = square.intersect(whole);
                        let tile = read(&**source, region);
                        let length = region.width() * 3;
                        for (row, line) in (top..).zip(tile.chunks_exact(length)) {
                            let start = index((row * width + left) * 3);
                            assert_eq!(line, &values[start..start + length]);
                        }
                    }
                }
            }
        }
    }
}

/// Corners of tiles.
fn corners(height: u64, width: u64, edge: u64) -> impl Iterator<Item = (u64, u64)> {
    let along = move |length: u64| (0..length.div_ceil(edge)).map(move |tile| tile * edge);
    along(height).flat_map(move |top| along(width).map(move |left| (top, left)))
}

#[test]
fn profiles_and_masks_are_kept_with_the_run_and_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = stained(folder.path());
    let run = folder.path().join("run");
    let settings = ReadSettings {
        trim: Trim::Tissue,
        stain: StainSettings::Macenko {
            reference: MacenkoProfile::REFERENCE,
        },
        ..ReadSettings::default()
    };
    let first_value = |microns: f64| {
        let scale = MicronsPerPixel::new(microns).unwrap();
        let loader = SlideLoader::with_folder(scale, settings.clone(), &run).unwrap();
        let image = loader.load(&path).unwrap();
        let region = Rect::whole(1, 1);
        read(&*image, region)
    };
    let only = |folder: &str| {
        let mut files = std::fs::read_dir(run.join(folder)).unwrap();
        let file = files.next().unwrap().unwrap().path();
        assert!(files.next().is_none(), "one file for all scales");
        file
    };
    let before = first_value(4.0);
    let (mask, stain) = (only("masks"), only("stains"));
    let (mask_bytes, stain_text) = (
        std::fs::read(&mask).unwrap(),
        std::fs::read_to_string(&stain).unwrap(),
    );
    first_value(8.0);
    assert_eq!(first_value(4.0), before);
    assert_eq!(
        (only("masks"), only("stains")),
        (mask.clone(), stain.clone())
    );
    assert_eq!(std::fs::read(&mask).unwrap(), mask_bytes);
    assert_eq!(std::fs::read_to_string(&stain).unwrap(), stain_text);
    // What stands in the file is what is used.
    let mut kept: serde_json::Value = serde_json::from_str(&stain_text).unwrap();
    let strongest = &mut kept["profile"]["strongest"][0];
    *strongest = (strongest.as_f64().unwrap() * 3.0).into();
    std::fs::write(&stain, kept.to_string()).unwrap();
    assert_ne!(first_value(4.0), before);
}

#[test]
fn a_slide_without_a_stain_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("glass.tif");
    let scale = MicronsPerPixel::new(8.0).unwrap();
    let options = PyramidOptions::default().with_microns_per_pixel(scale);
    let mut writer = PyramidWriter::create(&path, 60, 80, &options).unwrap();
    writer.write_rows(&[244; 60 * 80 * 3]).unwrap();
    writer.finish().unwrap();
    let settings = ReadSettings {
        stain: StainSettings::Reinhard {
            reference: ReinhardProfile::REFERENCE,
        },
        ..ReadSettings::default()
    };
    let loader = SlideLoader::new(scale, settings).unwrap();
    let error = loader.load(&path).err().unwrap();
    assert!(error.to_string().contains("glass.tif"), "{error}");
    assert!(!loader.stops_at(&error));
}
