use std::io::{self, Cursor, Seek, SeekFrom, Write};

use super::*;

fn picture(height: usize, width: usize) -> Vec<u8> {
    (0..height * width * 3)
        .map(|i| u8::try_from((i * 7 + i / 11) % 251).unwrap())
        .collect()
}

/// A disk that is full after so many bytes.
struct FullDisk {
    inner: Cursor<Vec<u8>>,
    room: usize,
}

impl Write for FullDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.inner.get_ref().len() + bytes.len() > self.room {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for FullDisk {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.inner.seek(position)
    }
}

#[test]
fn a_full_disk_is_an_error_that_names_the_file() {
    let extent = Extent {
        height: 64,
        width: 64,
    };
    let disk = FullDisk {
        inner: Cursor::default(),
        room: 100,
    };
    let mut file = TiffFile::begin(disk, Container::Classic, Path::new("out.tiff")).unwrap();
    let format = TileFormat {
        edge: 64,
        color: ColorModel::Rgb,
        compression: Compression::Deflate,
        reduction: Reduction::Mean,
    };
    let mut level = LevelWriter::new(extent, format);
    let rgb = picture(64, 64);
    let error = rgb
        .chunks(64 * 3)
        .find_map(|row| level.push(row, &mut file).err())
        .unwrap();
    assert!(matches!(&error, SlideError::Io { path, source }
        if path == Path::new("out.tiff") && source.kind() == io::ErrorKind::StorageFull));
}

#[test]
fn an_unfinished_file_leaves_nothing_and_keeps_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slide.tiff");
    std::fs::write(&path, b"precious").unwrap();
    let mut writer = PyramidWriter::create(&path, 100, 50, &PyramidOptions::default()).unwrap();
    writer.write_rows(&picture(99, 50)).unwrap();
    let error = writer.finish().unwrap_err();
    assert!(
        matches!(
            error,
            SlideError::RowCount {
                expected: 100,
                found: 99,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn too_many_rows_or_broken_rows_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slide.tiff");
    let mut writer = PyramidWriter::create(&path, 4, 5, &PyramidOptions::default()).unwrap();
    assert!(matches!(
        writer.write_rows(&[0; 16]),
        Err(SlideError::BufferLength {
            expected: 30,
            found: 16,
            ..
        })
    ));
    writer.write_rows(&picture(4, 5)).unwrap();
    assert!(matches!(
        writer.write_rows(&picture(1, 5)),
        Err(SlideError::RowCount {
            expected: 4,
            found: 5,
            ..
        })
    ));
    for failed in [writer.write_rows(&picture(1, 5)), writer.finish()] {
        assert!(
            matches!(&failed, Err(SlideError::AfterFailure { path: named }) if *named == path),
            "{failed:?}"
        );
    }
    assert!(!path.exists());
}

#[test]
fn senseless_options_are_refused() {
    let create = |height, width, options: PyramidOptions| {
        PyramidWriter::create("x.tiff", height, width, &options).map(drop)
    };
    let defaults = PyramidOptions::default;
    let refused = |result: Result<()>| result.unwrap_err().to_string();
    assert_eq!(
        refused(create(0, 5, defaults())),
        "the image's extent must be at least one pixel, found 0 x 5 (height x width)"
    );
    assert_eq!(
        refused(create(u64::MAX, 5, defaults())),
        format!(
            "x.tiff: the longest side, in pixels, needs {}, the limit is {}",
            u64::MAX,
            u32::MAX / 2
        )
    );
    for edge in [0, 100, 32_784] {
        assert_eq!(
            refused(create(5, 5, defaults().with_tile_edge(edge))),
            format!("the edge of tiles must be a multiple of 16 from 16 to 32768, found {edge}")
        );
    }
    for quality in [0, 101] {
        let options = defaults().with_compression(Compression::Jpeg { quality });
        assert_eq!(
            refused(create(5, 5, options)),
            format!("JPEG quality must be from 1 to 100, found {quality}")
        );
    }
    assert_eq!(
        refused(create(5, 5, defaults().with_objective_power(f64::NAN))),
        "objective power must be a finite number above zero, found NaN"
    );
    let floats = PyramidWriter::<f32>::create_of_samples("x.tiff", 5, 5, &defaults());
    assert_eq!(
        refused(floats.map(drop)),
        "samples compressed as JPEG must be bytes, found 32 bits"
    );
    let missing = PyramidWriter::create("no/such/folder/x.tiff", 5, 5, &defaults());
    assert!(
        matches!(&missing, Err(SlideError::Io { path, source })
            if path.starts_with("no/such/folder") && source.kind() == io::ErrorKind::NotFound),
        "{missing:?}"
    );
}

#[test]
fn tiles_and_rows_give_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let (height, width, edge) = (70, 100, 32);
    let rgb = picture(height, width);
    let options = PyramidOptions::default()
        .with_tile_edge(32)
        .with_compression(Compression::Deflate);
    let by_rows = folder.path().join("rows.tiff");
    let mut writer = PyramidWriter::create(&by_rows, 70, 100, &options).unwrap();
    writer.write_rows(&rgb[..33 * width * 3]).unwrap();
    writer.write_rows(&rgb[33 * width * 3..]).unwrap();
    writer.finish().unwrap();
    let by_tiles = folder.path().join("tiles.tiff");
    let mut writer = PyramidWriter::create(&by_tiles, 70, 100, &options).unwrap();
    for top in (0..height).step_by(edge) {
        for left in (0..width).step_by(edge) {
            let right = (left + edge).min(width);
            let tile: Vec<u8> = (top..(top + edge).min(height))
                .flat_map(|row| rgb[(row * width + left) * 3..(row * width + right) * 3].to_vec())
                .collect();
            assert_eq!(
                writer.write_tile(&tile[3..]).unwrap_err().to_string(),
                format!(
                    "the next tile, in samples (height x width x channels), needs {}, found {}",
                    tile.len(),
                    tile.len() - 3
                )
            );
            writer.write_tile(&tile).unwrap();
        }
    }
    writer.finish().unwrap();
    assert_eq!(
        std::fs::read(by_rows).unwrap(),
        std::fs::read(by_tiles).unwrap()
    );
}

#[test]
fn large_images_become_bigtiff_by_themselves() {
    let size = |height, width| Container::for_pixels(Extent { height, width }, 3);
    assert_eq!(size(20_000, 20_000), Container::Classic);
    assert_eq!(size(32_768, 32_768), Container::Big);
    assert_eq!(size(u64::MAX, u64::MAX), Container::Big);
}

/// Takes any number of bytes and keeps none.
struct Bottomless(u64);

impl Write for Bottomless {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += u64::try_from(bytes.len()).unwrap();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Bottomless {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        Ok(self.0)
    }
}

#[test]
fn classic_files_refuse_to_grow_past_four_gigabytes() {
    let tile = vec![0; 1 << 26];
    let fill = |container| -> Result<()> {
        let mut file = TiffFile::begin(Bottomless(0), container, Path::new("giant.tiff"))?;
        (0..64).try_for_each(|_| file.write_block(&tile).map(drop))
    };
    let refused = fill(Container::Classic).unwrap_err();
    let SlideError::LimitExceeded { needed, limit, .. } = &refused else {
        panic!("{refused}")
    };
    assert_eq!((*needed, *limit), ((1 << 32) + 8, u64::from(u32::MAX)));
    fill(Container::Big).unwrap();
}
