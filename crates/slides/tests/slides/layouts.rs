//! The layouts of pyramids: their pages by the `tiff` crate, their levels by OpenSlide.
//!
//! What other programs see of them is measured by `golden/slides/layouts.py`.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use stream_grad_slides::{
    Compression, MicronsPerPixel, PyramidLayout, PyramidOptions, PyramidWriter, Slide, TiffKind,
};
use tempfile::TempDir;
use tiff::decoder::ifd::Value;
use tiff::decoder::{Decoder, IfdDecoder};
use tiff::tags::{IfdPointer, Tag};

use crate::pyramids::{halved, read};

const HEIGHT: usize = 512;
const WIDTH: usize = 384;
const LEVELS: usize = 4;

const LAYOUTS: [PyramidLayout; 3] = [
    PyramidLayout::Aperio,
    PyramidLayout::Plain,
    PyramidLayout::OmeTiff,
];

fn options(layout: PyramidLayout) -> PyramidOptions {
    PyramidOptions::default()
        .with_layout(layout)
        .with_compression(Compression::Deflate)
        .with_tile_edge(64)
        .with_microns_per_pixel(MicronsPerPixel::new(0.5).unwrap())
}

fn write(height: usize, width: usize, options: &PyramidOptions) -> (TempDir, PathBuf) {
    write_picture(
        &crate::common::picture(height, width),
        (height, width),
        options,
    )
}

fn write_picture(
    rgb: &[u8],
    (height, width): (usize, usize),
    options: &PyramidOptions,
) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("written.tiff");
    let mut writer = PyramidWriter::create(&path, height as u64, width as u64, options).unwrap();
    writer.write_rows(rgb).unwrap();
    writer.finish().unwrap();
    (folder, path)
}

/// What one directory says.
#[derive(Debug, PartialEq)]
struct Page {
    size: (u32, u32),
    is_overview: bool,
    is_tiled: bool,
    description: Option<String>,
    /// Pixels per centimetre.
    resolution: u32,
    /// Where the first tile or strip lies.
    first_block: u64,
    sub_directories: Vec<u64>,
}

fn page(mut directory: IfdDecoder<'_>) -> Page {
    let tiles = directory.find_tag_unsigned_vec(Tag::TileOffsets).unwrap();
    let strips = directory.find_tag_unsigned_vec(Tag::StripOffsets).unwrap();
    assert!(tiles.is_some() != strips.is_some());
    assert_eq!(directory.get_tag_u32(Tag::ResolutionUnit).unwrap(), 3);
    let Value::Rational(pixels, units) = directory.get_tag(Tag::XResolution).unwrap() else {
        panic!("a resolution is no fraction");
    };
    let description = directory.find_tag(Tag::ImageDescription).unwrap();
    let sub_directories = directory.find_tag_unsigned_vec(Tag::SubIfd).unwrap();
    Page {
        size: (
            directory.get_tag_u32(Tag::ImageWidth).unwrap(),
            directory.get_tag_u32(Tag::ImageLength).unwrap(),
        ),
        is_overview: directory.get_tag_u32(Tag::NewSubfileType).unwrap() == 1,
        is_tiled: tiles.is_some(),
        description: description.map(|text| text.into_string().unwrap()),
        resolution: pixels / units,
        first_block: tiles.or(strips).unwrap()[0],
        sub_directories: sub_directories.unwrap_or_default(),
    }
}

/// The pages in the file's chain, and those within its first page.
fn pages(path: &Path) -> (Vec<Page>, Vec<Page>) {
    let mut decoder = Decoder::new(BufReader::new(File::open(path).unwrap())).unwrap();
    let mut chain = vec![page(decoder.image_ifd())];
    while decoder.more_images() {
        decoder.next_image().unwrap();
        chain.push(page(decoder.image_ifd()));
    }
    let within = chain[0].sub_directories.clone().into_iter();
    let within = within
        .map(|offset| {
            let directory = decoder.read_directory(IfdPointer(offset)).unwrap();
            assert!(directory.next().is_none(), "not in a chain");
            page(decoder.read_directory_tags(&directory))
        })
        .collect();
    (chain, within)
}

/// Size and pixels per centimetre after so many halvings.
fn reduced(halvings: u32) -> ((u32, u32), u32) {
    (
        (WIDTH as u32 >> halvings, HEIGHT as u32 >> halvings),
        20_000 >> halvings,
    )
}

fn sizes(pages: &[Page]) -> Vec<((u32, u32), u32)> {
    pages
        .iter()
        .map(|page| (page.size, page.resolution))
        .collect()
}

#[test]
fn an_aperio_slide_has_a_thumbnail_in_second_place_and_its_overviews_twice() {
    for kind in [TiffKind::Classic, TiffKind::Big] {
        let options = options(PyramidLayout::Aperio)
            .with_kind(kind)
            .with_objective_power(20.0);
        let (_folder, path) = write(HEIGHT, WIDTH, &options);
        let (chain, within) = pages(&path);
        assert_eq!(sizes(&chain), [0, 4, 1, 2, 3].map(reduced));
        assert_eq!(
            chain.iter().map(|page| page.is_tiled).collect::<Vec<_>>(),
            [true, false, true, true, true]
        );
        assert!(chain.iter().all(|page| !page.is_overview));
        let descriptions = chain.iter().map(|page| page.description.as_deref());
        assert_eq!(
            descriptions.collect::<Vec<_>>(),
            [
                "Aperio Image\r\n384x512|AppMag = 20|MPP = 0.5",
                "Aperio Image\r\n384x512 -> 24x32|AppMag = 20|MPP = 0.5",
                "Aperio Image\r\n384x512 -> 192x256|AppMag = 20|MPP = 0.5",
                "Aperio Image\r\n384x512 -> 96x128|AppMag = 20|MPP = 0.5",
                "Aperio Image\r\n384x512 -> 48x64|AppMag = 20|MPP = 0.5",
            ]
            .map(Some)
        );
        // The same tiles, for those who look for overviews within the page that they are of.
        assert_eq!(sizes(&within), [1, 2, 3].map(reduced));
        for (copy, level) in within.iter().zip(&chain[2..]) {
            assert!(copy.is_overview && copy.is_tiled && copy.description.is_none());
            assert_eq!(copy.first_block, level.first_block);
        }
    }
}

#[test]
fn a_plain_pyramid_flags_its_overviews_and_says_its_scale_in_tags_alone() {
    let (_folder, path) = write(HEIGHT, WIDTH, &options(PyramidLayout::Plain));
    let (chain, within) = pages(&path);
    assert_eq!(sizes(&chain), [0, 1, 2, 3].map(reduced));
    assert!(
        chain
            .iter()
            .all(|page| page.is_tiled && page.description.is_none())
    );
    assert_eq!(
        chain
            .iter()
            .map(|page| page.is_overview)
            .collect::<Vec<_>>(),
        [false, true, true, true]
    );
    assert!(within.is_empty());
}

#[test]
fn an_ome_tiff_keeps_its_overviews_within_its_only_page() {
    let options = options(PyramidLayout::OmeTiff).with_objective_power(20.0);
    let (_folder, path) = write(HEIGHT, WIDTH, &options);
    let (chain, within) = pages(&path);
    assert_eq!(sizes(&chain), [reduced(0)]);
    assert_eq!(sizes(&within), [1, 2, 3].map(reduced));
    assert!(within.iter().all(|page| page.is_tiled && page.is_overview));
    let xml = chain[0].description.as_deref().unwrap();
    assert!(xml.is_ascii(), "as TIFF wants its texts");
    for part in [
        "SizeX=\"384\" SizeY=\"512\" SizeC=\"3\"",
        "Type=\"uint8\"",
        "PhysicalSizeX=\"0.5\" PhysicalSizeY=\"0.5\"",
        "NominalMagnification=\"20\"",
    ] {
        assert!(xml.contains(part), "{part} in {xml}");
    }
}

#[test]
fn openslide_reads_every_pixel_of_every_level_that_it_sees() {
    for kind in [TiffKind::Classic, TiffKind::Big] {
        for layout in LAYOUTS {
            let (_folder, path) = write(HEIGHT, WIDTH, &options(layout).with_kind(kind));
            let slide = Slide::open(&path).unwrap();
            let (levels, images): (_, &[&str]) = match layout {
                PyramidLayout::Aperio => (LEVELS, &["thumbnail"]),
                PyramidLayout::Plain => (LEVELS, &[]),
                // It looks for no levels within a page.
                PyramidLayout::OmeTiff => (1, &[]),
            };
            assert_eq!(slide.levels().len(), levels, "{layout:?}");
            assert_eq!(slide.associated_image_names().unwrap(), images);
            assert_eq!(slide.scale().unwrap().x.get(), 0.5, "{layout:?}");
            let mut rgb = (crate::common::picture(HEIGHT, WIDTH), HEIGHT, WIDTH);
            for level in 0..levels {
                assert!(read(&slide, level) == rgb.0, "{layout:?} level {level}");
                rgb = halved(&rgb.0, rgb.1, rgb.2);
            }
            if layout == PyramidLayout::Aperio {
                let thumbnail = slide.associated_image("thumbnail").unwrap();
                assert_eq!(thumbnail.dimensions(), (rgb.2 as u32, rgb.1 as u32));
                assert!(thumbnail.into_raw() == rgb.0);
            }
        }
    }
}

#[test]
fn thumbnails_of_any_compression_are_read() {
    // Sides that are no multiples of a JPEG block's, and ramps, which JPEG keeps.
    let (height, width) = (333, 250);
    let ramps: Vec<u8> = (0..height * width)
        .flat_map(|index| {
            let (row, column) = (index / width, index % width);
            [
                row * 200 / height,
                column * 200 / width,
                (row + column) * 200 / (height + width),
            ]
        })
        .map(|value| value as u8)
        .collect();
    for compression in [
        Compression::Lzw,
        Compression::Jpeg { quality: 80 },
        Compression::Jpeg { quality: 95 },
    ] {
        let options = options(PyramidLayout::Aperio).with_compression(compression);
        let (_folder, path) = write_picture(&ramps, (height, width), &options);
        let slide = Slide::open(&path).unwrap();
        assert_eq!(slide.levels().len(), 4);
        let thumbnail = slide.associated_image("thumbnail").unwrap();
        assert_eq!(thumbnail.dimensions(), (16, 21));
        let coarsest = read(&slide, 3);
        let (expected, ..) = halved(&coarsest, 42, 32);
        let far = thumbnail.into_raw().into_iter().zip(expected);
        let far: u32 = far.map(|(a, b)| u32::from(a.abs_diff(b))).sum();
        assert!(far < 16 * 21 * 3 * 3, "{compression:?}: {far}");
    }
}

#[test]
fn an_image_of_one_level_has_neither_thumbnail_nor_overviews() {
    for layout in LAYOUTS {
        let (_folder, path) = write(64, 64, &options(layout));
        let (chain, within) = pages(&path);
        assert_eq!((chain.len(), within.len()), (1, 0), "{layout:?}");
        assert_eq!(Slide::open(&path).unwrap().levels().len(), 1);
    }
}

#[test]
fn without_scale_and_power_an_aperio_slide_is_a_plain_pyramid() {
    let bytes = |layout| {
        let mut options = options(layout);
        options.microns_per_pixel = None;
        let (_folder, path) = write(HEIGHT, WIDTH, &options);
        std::fs::read(path).unwrap()
    };
    assert!(bytes(PyramidLayout::Aperio) == bytes(PyramidLayout::Plain));
}
