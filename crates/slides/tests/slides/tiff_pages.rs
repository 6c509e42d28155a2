//! Which page of a TIFF file of no scanner is the slide, and what is told about the others.

use std::path::Path;

use crate::common::corpus::level_0;
use crate::common::tiff_file::{Cut, Page, as_is, write_tiff};
use stream_grad_slides::{Extent, Level, Slide, SlideWarning};

/// RGB of the shared picture, in tiles or strips.
fn page(height: usize, width: usize, cut: Cut) -> Page {
    Page {
        height,
        width,
        pixel_bits: 24,
        pixels: crate::common::picture(height, width),
        cut,
        planes_of: None,
        compress: as_is,
        entries: vec![
            (258, 3, vec![8; 3]),
            (259, 3, vec![1]),
            (262, 3, vec![2]),
            (277, 3, vec![3]),
        ],
    }
}

/// Marks a page as a smaller version of another.
fn reduced(mut page: Page) -> Page {
    page.entries.push((254, 4, vec![1]));
    page
}

const TILES: Cut = Cut::Tiles(32);
const STRIPS: Cut = Cut::Strips(8);

fn open(folder: &Path, pages: &[Page]) -> Slide {
    let path = folder.join("pages.tif");
    write_tiff(&path, pages);
    Slide::open(&path).unwrap()
}

#[test]
fn the_largest_page_of_the_shape_is_the_slide() {
    let folder = tempfile::tempdir().unwrap();
    let (full, half, preview) = ((120, 160), (60, 80), (30, 40));
    for (name, first, last) in [
        ("a preview in tiles", TILES, TILES),
        ("one in strips", STRIPS, TILES),
        ("all in strips", STRIPS, STRIPS),
    ] {
        let pages = [
            page(preview.0, preview.1, first),
            page(half.0, half.1, last),
            page(full.0, full.1, last),
        ];
        let slide = open(folder.path(), &pages);
        let extent = Extent {
            height: 120,
            width: 160,
        };
        assert_eq!(slide.extent(), extent, "{name}");
        assert_eq!(level_0(&slide), pages[2].pixels, "{name}");
        let expected = [SlideWarning::OtherPage {
            page: 2,
            pages: 3,
            extent,
        }];
        assert_eq!(slide.warnings(), expected, "{name}");
    }
}

#[test]
fn smaller_versions_are_levels_wherever_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    let pages = [
        page(30, 40, STRIPS),
        reduced(page(60, 80, TILES)),
        page(120, 160, TILES),
        // Not said to be a smaller version.
        page(40, 53, TILES),
    ];
    let slide = open(folder.path(), &pages);
    let levels: Vec<(u64, f64)> = slide
        .levels()
        .iter()
        .map(|level| (level.extent.height, level.downsample))
        .collect();
    assert_eq!(levels, [(120, 1.0), (60, 2.0)]);
    let extent = slide.level(Level(1)).unwrap().extent;
    let mut rgb = vec![0; 60 * 80 * 3];
    slide
        .read_level(Level(1), &extent.region(), &mut rgb)
        .unwrap();
    assert_eq!(rgb, pages[1].pixels);
}

#[test]
fn the_first_page_is_the_slide_where_nothing_speaks_against_it() {
    let folder = tempfile::tempdir().unwrap();
    let pages = [
        page(120, 160, TILES),
        reduced(page(60, 80, TILES)),
        page(40, 40, STRIPS),
    ];
    let slide = open(folder.path(), &pages);
    assert_eq!(
        (level_0(&slide), slide.warnings()),
        (pages[0].pixels.clone(), &[][..])
    );
    assert_eq!(slide.levels().len(), 2);

    // A larger page of another shape, such as a photograph of the glass, is no slide; nor is a second page of one size.
    for (other, cut) in [
        ((200, 200), STRIPS),
        ((120, 160), TILES),
        ((120, 160), STRIPS),
    ] {
        let pages = [page(120, 160, TILES), page(other.0, other.1, cut)];
        let slide = open(folder.path(), &pages);
        assert_eq!(level_0(&slide), pages[0].pixels, "{other:?}");
        let expected = [SlideWarning::PagesPassedOver {
            taken: 0,
            pages: vec![1],
        }];
        assert_eq!(slide.warnings(), expected, "{other:?}");
    }
}

#[test]
fn masks_are_no_slides() {
    let folder = tempfile::tempdir().unwrap();
    let mut mask = page(120, 160, STRIPS);
    mask.entries.push((254, 4, vec![4]));
    let pages = [mask, page(60, 80, TILES)];
    let slide = open(folder.path(), &pages);
    assert_eq!(level_0(&slide), pages[1].pixels);
}

/// Every level is turned by what its own page says.
#[test]
fn levels_are_turned_too() {
    let folder = tempfile::tempdir().unwrap();
    let turned = |mut page: Page| {
        page.entries.push((274, 3, vec![3]));
        page
    };
    let pages = [
        turned(page(120, 160, TILES)),
        reduced(turned(page(60, 80, TILES))),
    ];
    let slide = open(folder.path(), &pages);
    for (index, page) in pages.iter().enumerate() {
        let extent = slide.level(Level(index)).unwrap().extent;
        let mut rgb = vec![0; page.pixels.len()];
        slide
            .read_level(Level(index), &extent.region(), &mut rgb)
            .unwrap();
        let expected: Vec<u8> = page
            .pixels
            .chunks_exact(3)
            .rev()
            .flatten()
            .copied()
            .collect();
        assert!(rgb == expected, "level {index}");
        // Any part is a part of the whole.
        let part = stream_grad_slides::Region::new(7..41, 13..59);
        let mut rgb = vec![0; 34 * 46 * 3];
        slide.read_level(Level(index), &part, &mut rgb).unwrap();
        let width = extent.width as usize;
        let rows = (7..41).map(|row| &expected[(row * width + 13) * 3..(row * width + 59) * 3]);
        assert!(
            rgb == rows.flatten().copied().collect::<Vec<u8>>(),
            "a part of level {index}"
        );
    }
}

/// Tiles that a file leaves out show the background.
#[test]
fn tiles_that_are_left_out_show_the_background() {
    let folder = tempfile::tempdir().unwrap();
    let mut page = page(64, 64, TILES);
    // Read here, since it is turned; of the four tiles the second has no bytes.
    page.entries.push((274, 3, vec![2]));
    page.compress = |raw, _, _| {
        if raw.iter().all(|&byte| byte == 7) {
            Vec::new()
        } else {
            raw.to_vec()
        }
    };
    for row in 0..32 {
        page.pixels[(row * 64 + 32) * 3..(row + 1) * 64 * 3].fill(7);
    }
    let slide = open(folder.path(), std::slice::from_ref(&page));
    let found = level_0(&slide);
    for row in 0..64 {
        for column in 0..64 {
            let expected = if row < 32 && column >= 32 {
                [255; 3]
            } else {
                page.pixels[(row * 64 + column) * 3..][..3]
                    .try_into()
                    .unwrap()
            };
            assert_eq!(
                found[(row * 64 + 63 - column) * 3..][..3],
                expected,
                "{row} {column}"
            );
        }
    }
}

/// No damage to the structure of a file that is read here is more than an error.
#[test]
fn damaged_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.tif");
    let mut turned = page(40, 50, Cut::Tiles(16));
    turned.entries.push((274, 3, vec![6]));
    let plain = page(40, 50, Cut::Strips(7));
    let (mut read, mut refused) = (0, 0);
    for page in [turned, plain] {
        write_tiff(&path, &[page]);
        let whole = std::fs::read(&path).unwrap();
        let structure = whole.len() - 600..whole.len();
        let cuts = (0..whole.len())
            .step_by(61)
            .map(|length| whole[..length].to_vec());
        let changes = structure.flat_map(|place| [0x01, 0x40, 0xff].map(|bits| (place, bits)));
        let changed = changes.map(|(place, bits)| {
            let mut bytes = whole.clone();
            bytes[place] ^= bits;
            bytes
        });
        for bytes in cuts.chain(changed) {
            std::fs::write(&path, bytes).unwrap();
            match Slide::open(&path).and_then(|slide| {
                let mut rgb = vec![0; 3];
                slide.read_level(
                    Level(0),
                    &stream_grad_slides::Region::new(0..1, 0..1),
                    &mut rgb,
                )
            }) {
                Ok(()) => read += 1,
                // Which one depends on what the byte was; each names the file.
                Err(error) => {
                    assert!(error.to_string().contains("damaged.tif"), "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(
        read > 100 && refused > 100,
        "{read} read, {refused} refused"
    );
}

/// libtiff, and so OpenSlide, refuses uncompressed tiles that are no multiple of 1024 bytes long.
#[test]
fn small_tiles_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for (height, width) in [(1, 1), (20, 33)] {
        let page = page(height, width, Cut::Tiles(16));
        let path = folder.path().join("small.tif");
        write_tiff(&path, std::slice::from_ref(&page));
        assert_eq!(level_0(&Slide::open(&path).unwrap()), page.pixels);
    }
}
