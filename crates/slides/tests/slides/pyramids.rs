//! Pyramids written here and read back: through OpenSlide and through the `tiff` crate, which shares no code with it.

use std::path::{Path, PathBuf};

use openslide_rs::OpenSlide;
use stream_grad_slides::{
    Compression, Extent, Level, MicronsPerPixel, PyramidOptions, PyramidWriter, Slide, TiffKind,
};
use tempfile::TempDir;
use tiff::decoder::{Decoder, DecodingResult};

const HEIGHT: usize = 700;
const WIDTH: usize = 1001;

fn write(rgb: &[u8], options: &PyramidOptions) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("written.tiff");
    let mut writer = PyramidWriter::create(&path, HEIGHT as u64, WIDTH as u64, options).unwrap();
    writer.write_rows(rgb).unwrap();
    writer.finish().unwrap();
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "no temporary file is left"
    );
    (folder, path)
}

pub(crate) fn read(slide: &Slide, level: usize) -> Vec<u8> {
    let extent = slide.level(Level(level)).unwrap().extent;
    let mut rgb = vec![0; (extent.height * extent.width * 3) as usize];
    slide
        .read_level(Level(level), &extent.region(), &mut rgb)
        .unwrap();
    rgb
}

/// The plain definition of an overview, rounded to nearest.
pub(crate) fn halved(rgb: &[u8], height: usize, width: usize) -> (Vec<u8>, usize, usize) {
    let (rows, columns) = (height.div_ceil(2), width.div_ceil(2));
    let mut out = Vec::new();
    for row in 0..rows {
        for column in 0..columns {
            for channel in 0..3 {
                let at = |r: usize, c: usize| {
                    u32::from(
                        rgb[((row * 2 + r).min(height - 1) * width
                            + (column * 2 + c).min(width - 1))
                            * 3
                            + channel],
                    )
                };
                out.push(((at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1) + 2) / 4) as u8);
            }
        }
    }
    (out, rows, columns)
}

/// Pastes the tiles of the current directory together.
fn independent(decoder: &mut Decoder<std::io::BufReader<std::fs::File>>) -> Vec<u8> {
    match decoder.read_image().unwrap() {
        DecodingResult::U8(rgb) => rgb,
        other => panic!("not bytes: {other:?}"),
    }
}

fn open_independently(path: &Path) -> Decoder<std::io::BufReader<std::fs::File>> {
    Decoder::new(std::io::BufReader::new(std::fs::File::open(path).unwrap())).unwrap()
}

#[test]
fn deflate_keeps_every_pixel_of_every_level() {
    let picture = crate::common::picture(HEIGHT, WIDTH);
    for kind in [TiffKind::Classic, TiffKind::Big] {
        let options = PyramidOptions::default()
            .with_compression(Compression::Deflate)
            .with_kind(kind);
        let (_folder, path) = write(&picture, &options);
        let slide = Slide::open(&path).unwrap();
        let mut tiff = open_independently(&path);
        assert_eq!(slide.levels().len(), 3);
        let (mut rgb, mut height, mut width) = (picture.clone(), HEIGHT, WIDTH);
        for level in 0..3 {
            let geometry = slide.level(Level(level)).unwrap();
            assert_eq!(
                geometry.extent,
                Extent {
                    height: height as u64,
                    width: width as u64
                }
            );
            assert_eq!(geometry.downsample, f64::from(1 << level));
            assert!(
                independent(&mut tiff) == rgb,
                "{kind:?} level {level} by the tiff crate"
            );
            if level == 0 {
                assert!(read(&slide, 0) == rgb, "{kind:?} by OpenSlide");
                tiff.next_image().unwrap();
            } else if level < 2 {
                tiff.next_image().unwrap();
            }
            (rgb, height, width) = halved(&rgb, height, width);
        }
        assert!(!tiff.more_images());
    }
}

#[test]
fn whole_downsamples_are_read_exactly_at_every_level() {
    let (height, width) = (1024, 768);
    let picture = crate::common::picture(height, width);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("even.tiff");
    let options = PyramidOptions::default()
        .with_compression(Compression::Deflate)
        .with_tile_edge(64);
    let mut writer = PyramidWriter::create(&path, height as u64, width as u64, &options).unwrap();
    writer.write_rows(&picture).unwrap();
    writer.finish().unwrap();
    let slide = Slide::open(&path).unwrap();
    assert_eq!(slide.levels().len(), 5);
    let (mut rgb, mut height, mut width) = (picture, height, width);
    for level in 0..5 {
        assert!(read(&slide, level) == rgb, "level {level}");
        (rgb, height, width) = halved(&rgb, height, width);
    }
}

#[test]
fn jpeg_stays_near_the_picture() {
    // Smooth, as tissue is at the scale of a JPEG block; noise is what JPEG is made to lose.
    let picture: Vec<u8> = (0..HEIGHT)
        .flat_map(|row| {
            (0..WIDTH).flat_map(move |column| {
                let wave = |scale: f64| {
                    128.0
                        + 60.0
                            * ((row as f64 / scale).sin() + (column as f64 / (scale * 1.3)).cos())
                };
                [wave(31.0) as u8, wave(47.0) as u8, wave(64.0) as u8]
            })
        })
        .collect();
    for quality in [75, 90] {
        let options = PyramidOptions::default().with_compression(Compression::Jpeg { quality });
        let (_folder, path) = write(&picture, &options);
        let found = read(&Slide::open(&path).unwrap(), 0);
        let squares: f64 = found
            .iter()
            .zip(&picture)
            .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
            .sum();
        let error = (squares / picture.len() as f64).sqrt();
        assert!(error < 2.0, "quality {quality}: {error}");
        assert!(std::fs::metadata(&path).unwrap().len() < picture.len() as u64 / 10);
    }
}

#[test]
fn openslide_reads_scale_and_power() {
    let options = PyramidOptions::default()
        .with_microns_per_pixel(MicronsPerPixel::new(0.2425).unwrap())
        .with_objective_power(40.0);
    let (_folder, path) = write(&crate::common::picture(HEIGHT, WIDTH), &options);
    assert_eq!(OpenSlide::detect_vendor(&path).unwrap(), "aperio");
    let slide = Slide::open(&path).unwrap();
    let scale = slide.scale().unwrap();
    assert_eq!((scale.x.get(), scale.y.get()), (0.2425, 0.2425));
    assert_eq!(slide.properties().objective_power, Some(40.0));
    assert_eq!(slide.levels().len(), 3);
}

#[test]
fn without_scale_it_is_a_generic_tiff_that_states_none() {
    let (_folder, path) = write(
        &crate::common::picture(HEIGHT, WIDTH),
        &PyramidOptions::default(),
    );
    let slide = Slide::open(&path).unwrap();
    assert_eq!(slide.properties().vendor.as_deref(), Some("generic-tiff"));
    let error = slide.scale().unwrap_err().to_string();
    assert!(
        error.contains("written.tiff") && error.contains("none were given"),
        "{error}"
    );
}
