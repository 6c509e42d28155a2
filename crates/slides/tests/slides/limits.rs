//! Files that declare more than a machine has are refused with both numbers, before anything is allocated.

use std::path::Path;

use stream_grad_slides::{Extent, OpenOptions, Slide, SlideError, Target};

/// Edge that is declared: a tebipixel.
const EDGE: u32 = 1 << 20;

/// A TIFF file without pixels that declares `EDGE x EDGE` RGB pixels, in one tile or one strip.
fn declare(path: &Path, tiled: bool) {
    let mut entries: Vec<(u16, u16, u32, u32)> = vec![
        (256, 4, 1, EDGE),
        (257, 4, 1, EDGE),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (277, 3, 1, 3),
    ];
    if tiled {
        entries.extend([
            (322, 4, 1, EDGE),
            (323, 4, 1, EDGE),
            (324, 4, 1, 8),
            (325, 4, 1, 64),
        ]);
    } else {
        entries.extend([(273, 4, 1, 8), (278, 4, 1, EDGE), (279, 4, 1, 64)]);
    }
    let count = entries.len() as u32 + 1;
    let after = 8 + 2 + count * 12 + 4;
    // Three times 8 bits do not fit into the entry.
    entries.push((258, 3, 3, after));
    entries.sort();
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    bytes.extend((count as u16).to_le_bytes());
    for (tag, kind, number, value) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(number.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    bytes.extend([8, 0, 8, 0, 8, 0]);
    std::fs::write(path, bytes).unwrap();
}

/// A PNG header of a tebipixel, and no pixels.
fn declare_png(path: &Path) {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, EDGE, EDGE);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_chunk(png::chunk::IDAT, &[]).unwrap();
    drop(writer);
    std::fs::write(path, bytes).unwrap();
}

fn refused(path: &Path) -> (u64, u64) {
    let error = Slide::open(path).unwrap_err();
    match &error {
        SlideError::LimitExceeded { needed, limit, .. } => {
            let text = error.to_string();
            assert!(
                text.contains(&needed.to_string()) && text.contains(&limit.to_string()),
                "{text}"
            );
            (*needed, *limit)
        }
        other => panic!("{other}"),
    }
}

#[test]
fn terabytes_are_refused_with_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let pixels = u64::from(EDGE) * u64::from(EDGE);
    let path = folder.path().join("one-tile.tiff");
    declare(&path, true);
    assert_eq!(refused(&path), (pixels * 4, 256 << 20));
    let path = folder.path().join("one-strip.tiff");
    declare(&path, false);
    assert_eq!(refused(&path), (pixels * 3, 1 << 30));
    let path = folder.path().join("giant.png");
    declare_png(&path);
    assert_eq!(refused(&path), (pixels * 3, 1 << 30));
}

#[test]
fn pictures_of_giant_views_are_refused() {
    let extent = Extent {
        height: 8,
        width: 8,
    };
    let slide = Slide::from_rgb("memory", extent, vec![0; 192], &OpenOptions::default()).unwrap();
    let view = slide.view(Target::Downsample(1e-5)).unwrap();
    let error = view.to_image().unwrap_err();
    assert!(
        matches!(
            error,
            SlideError::LimitExceeded {
                needed: 1_920_000_000_000,
                limit: 0x4000_0000,
                ..
            }
        ),
        "{error}"
    );
}
