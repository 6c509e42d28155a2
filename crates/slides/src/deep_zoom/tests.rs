use image::RgbImage;

use super::*;
use crate::geometry::Region;
use crate::numbers::to_usize;
use crate::options::OpenOptions;
use crate::slide::Slide;
use crate::view::Target;

fn picture(height: u64, width: u64) -> Vec<u8> {
    (0..height * width * 3)
        .map(|i| u8::try_from((i * 7 + i / 11) % 251).unwrap())
        .collect()
}

fn options(tile_edge: u32, overlap: u32) -> DeepZoomOptions {
    DeepZoomOptions {
        tile_edge,
        overlap,
        format: DeepZoomFormat::Png,
    }
}

/// The plain definition of the next level.
fn halved(rgb: &[u8], extent: Extent) -> (Vec<u8>, Extent) {
    let at = |row: u64, column: u64, channel: u64| {
        let (row, column) = (row.min(extent.height - 1), column.min(extent.width - 1));
        u32::from(rgb[to_usize((row * extent.width + column) * 3 + channel)])
    };
    let size = Extent {
        height: extent.height.div_ceil(2),
        width: extent.width.div_ceil(2),
    };
    let mut out = Vec::new();
    for row in 0..size.height {
        for column in 0..size.width {
            for channel in 0..3 {
                let sum = at(2 * row, 2 * column, channel)
                    + at(2 * row + 1, 2 * column, channel)
                    + at(2 * row, 2 * column + 1, channel)
                    + at(2 * row + 1, 2 * column + 1, channel);
                out.push(u8::try_from((sum + 2) / 4).unwrap());
            }
        }
    }
    (out, size)
}

#[test]
fn every_tile_of_every_level_is_its_part_of_the_image() {
    for (height, width, edge, overlap) in [
        (70, 101, 32, 1),
        (64, 64, 32, 1),
        (65, 33, 16, 0),
        (33, 97, 32, 3),
        (1, 5, 4, 4),
        (50, 1, 254, 1),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.dzi");
        let rgb = picture(height, width);
        let options = options(edge, overlap);
        let mut writer = DeepZoomWriter::create(&path, height, width, &options).unwrap();
        let split = to_usize(height / 3 * width * 3);
        writer.write_rows(&rgb[..split]).unwrap();
        writer.write_rows(&rgb[split..]).unwrap();
        writer.finish().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        let description = std::fs::read_to_string(&path).unwrap();
        assert!(description.contains(&format!(
            r#"TileSize="{edge}"><Size Height="{height}" Width="{width}"/>"#
        )));

        let mut level = u64::from(u64::BITS - (height.max(width) - 1).leading_zeros());
        let (mut rgb, mut extent) = (rgb, Extent { height, width });
        loop {
            let slide = Slide::from_rgb("x", extent, rgb.clone(), &OpenOptions::default()).unwrap();
            let view = slide.view(Target::Downsample(1.0)).unwrap();
            let edge = u64::from(edge);
            let tiles = extent.height.div_ceil(edge) * extent.width.div_ceil(edge);
            let place = folder.path().join(format!("image_files/{level}"));
            assert_eq!(std::fs::read_dir(&place).unwrap().count(), to_usize(tiles));
            for tile in 0..tiles {
                let (row, column) = (
                    tile / extent.width.div_ceil(edge),
                    tile % extent.width.div_ceil(edge),
                );
                let span = |tile: u64, length: u64| {
                    let start = (tile * edge).saturating_sub(u64::from(overlap));
                    let end = ((tile + 1) * edge + u64::from(overlap)).min(length);
                    i64::try_from(start).unwrap()..i64::try_from(end).unwrap()
                };
                let region = Region::new(span(row, extent.height), span(column, extent.width));
                let mut expected = vec![0; to_usize(region.height() * region.width() * 3)];
                view.read(&region, &mut expected).unwrap();
                let found: RgbImage = image::open(place.join(format!("{column}_{row}.png")))
                    .unwrap()
                    .into_rgb8();
                assert_eq!(
                    u64::from(found.height()),
                    region.height(),
                    "level {level}, {column}_{row}"
                );
                assert!(
                    found.into_raw() == expected,
                    "level {level}, {column}_{row}"
                );
            }
            if level == 0 {
                break;
            }
            level -= 1;
            (rgb, extent) = halved(&rgb, extent);
        }
        assert_eq!(
            extent,
            Extent {
                height: 1,
                width: 1
            }
        );
    }
}

#[test]
fn an_unfinished_image_leaves_nothing_and_an_old_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.dzi");
    let mut writer = DeepZoomWriter::create(&path, 10, 10, &options(4, 1)).unwrap();
    writer.write_rows(&picture(9, 10)).unwrap();
    assert_eq!(
        writer.write_rows(&[0; 7]).unwrap_err().to_string(),
        "whole rows, in bytes (width x 3 each), needs 30, found 7"
    );
    assert!(matches!(
        writer.finish(),
        Err(SlideError::RowCount {
            expected: 10,
            found: 9,
            ..
        })
    ));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let mut writer = DeepZoomWriter::create(&path, 2, 2, &options(4, 1)).unwrap();
    assert!(matches!(
        writer.write_rows(&picture(3, 2)),
        Err(SlideError::RowCount {
            expected: 2,
            found: 3,
            ..
        })
    ));
    for failed in [writer.write_rows(&picture(1, 2)), writer.finish()] {
        assert!(
            matches!(&failed, Err(SlideError::AfterFailure { path: named }) if *named == path),
            "{failed:?}"
        );
    }
    std::fs::create_dir(folder.path().join("image_files")).unwrap();
    let refused = DeepZoomWriter::create(&path, 2, 2, &options(4, 1)).unwrap_err();
    assert!(refused.to_string().contains("image_files"), "{refused}");
}

#[test]
fn senseless_options_are_refused() {
    let create = |height, options: &DeepZoomOptions| {
        DeepZoomWriter::create("no/such/folder/x.dzi", height, 4, options).map(drop)
    };
    let missing = create(4, &options(4, 1));
    assert!(
        matches!(&missing, Err(SlideError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound),
        "{missing:?}"
    );
    for height in [0, u64::MAX] {
        assert_eq!(
            create(height, &options(4, 1)).unwrap_err().to_string(),
            format!(
                "the image's extent must be at least one pixel and sides below 2^31, \
                 found {height} x 4 (height x width)"
            )
        );
    }
    for (edge, overlap) in [(0, 0), (4, 5), (20_000, 1)] {
        assert_eq!(
            create(4, &options(edge, overlap)).unwrap_err().to_string(),
            format!(
                "tile edge and overlap must be 1 to 16384, and an overlap of no more than the edge, \
                 found {edge} and {overlap}"
            )
        );
    }
    for quality in [0, 101] {
        let options = DeepZoomOptions {
            format: DeepZoomFormat::Jpeg { quality },
            ..DeepZoomOptions::default()
        };
        assert_eq!(
            create(4, &options).unwrap_err().to_string(),
            format!("JPEG quality must be from 1 to 100, found {quality}")
        );
    }
}
