//! The structure of a TIFF file: header, tiles as they come, directories at the end.
//!
//! The `tiff` crate's encoder lends its file to one image until that is complete, but the tiles of all levels come
//! interleaved here; so the few structures of a tiled file are written by hand, after the TIFF 6.0 specification
//! (sections 2 and 15) and the BigTIFF layout of libtiff.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::encode::{ColorModel, Compression};
use super::level::TileFormat;
use crate::error::{Result, SlideError};
use crate::geometry::Extent;
use crate::numbers::wide;

/// Width of offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    Classic,
    Big,
}

impl Container {
    /// Classic if even uncompressed pixels of all levels stay clear of 4 GiB.
    pub(super) fn for_pixels(extent: Extent, pixel_bytes: u64) -> Self {
        let finest = extent
            .height
            .saturating_mul(extent.width)
            .saturating_mul(pixel_bytes);
        if finest.saturating_mul(3) / 2 < 3 << 30 {
            Self::Classic
        } else {
            Self::Big
        }
    }

    const fn offset_bytes(self) -> usize {
        match self {
            Self::Classic => 4,
            Self::Big => 8,
        }
    }

    /// Where the header keeps the offset of the first directory.
    const fn first_link(self) -> u64 {
        match self {
            Self::Classic => 4,
            Self::Big => 8,
        }
    }
}

/// Where a tile or a strip lies in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredBlock {
    offset: u64,
    bytes: u64,
}

/// The blocks that pixels are stored in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Blocks<'a> {
    /// In rows from the top left.
    Tiles(&'a [StoredBlock]),
    /// The whole picture.
    Strip(StoredBlock),
}

/// What one directory says.
pub(super) struct Directory<'a> {
    pub(super) extent: Extent,
    pub(super) format: TileFormat,
    /// Bits and TIFF's SampleFormat of each sample.
    pub(super) sample: (u16, u16),
    pub(super) is_overview: bool,
    pub(super) description: Option<&'a str>,
    pub(super) microns_per_pixel: Option<f64>,
    pub(super) icc_profile: Option<&'a [u8]>,
    pub(super) blocks: Blocks<'a>,
    /// Where directories lie that hold the same picture in other sizes.
    pub(super) sub_directories: &'a [u64],
}

/// A TIFF file that grows at its end.
#[derive(Debug)]
pub(super) struct TiffFile<W> {
    writer: W,
    container: Container,
    path: PathBuf,
    position: u64,
    /// Where the offset of the next directory has to be written.
    link: u64,
}

impl<W: Write + Seek> TiffFile<W> {
    pub(super) fn begin(writer: W, container: Container, path: &Path) -> Result<Self> {
        let mut file = Self {
            writer,
            container,
            path: path.to_path_buf(),
            position: 0,
            link: container.first_link(),
        };
        match container {
            Container::Classic => file.append(&[b'I', b'I', 42, 0, 0, 0, 0, 0])?,
            Container::Big => {
                file.append(&[b'I', b'I', 43, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])?
            }
        }
        Ok(file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn write_block(&mut self, bytes: &[u8]) -> Result<StoredBlock> {
        let block = StoredBlock {
            offset: self.position,
            bytes: wide(bytes.len()),
        };
        self.append(bytes)?;
        Ok(block)
    }

    /// Appends a directory and links it to the one before.
    pub(super) fn write_directory(&mut self, directory: &Directory<'_>) -> Result<()> {
        let (start, next_link) = self.append_directory(directory)?;
        let link = self.offset(start)?;
        let path = &self.path;
        self.writer
            .seek(SeekFrom::Start(self.link))
            .and_then(|_| self.writer.write_all(&link))
            .and_then(|()| self.writer.seek(SeekFrom::End(0)))
            .map_err(|error| SlideError::io(path, error))?;
        self.link = next_link;
        Ok(())
    }

    /// Appends a directory that is in no chain, and returns where it lies.
    pub(super) fn write_sub_directory(&mut self, directory: &Directory<'_>) -> Result<u64> {
        Ok(self.append_directory(directory)?.0)
    }

    /// Appends a directory; returns where it lies and where it keeps the offset of the next one, which is none.
    fn append_directory(&mut self, directory: &Directory<'_>) -> Result<(u64, u64)> {
        let fields = directory.fields(self.container);
        let mut entries = Vec::new();
        for field in fields {
            let inline = field.bytes.len() <= self.container.offset_bytes();
            let mut value = if inline {
                field.bytes
            } else {
                self.pad()?;
                let offset = self.position;
                self.append(&field.bytes)?;
                self.offset(offset)?
            };
            value.resize(self.container.offset_bytes(), 0);
            entries.extend_from_slice(&field.tag.to_le_bytes());
            entries.extend_from_slice(&field.kind.to_le_bytes());
            entries.extend(self.offset(field.count)?);
            entries.extend(value);
        }
        self.pad()?;
        let start = self.position;
        let entry_bytes = 4 + 2 * self.container.offset_bytes();
        let count = wide(entries.len() / entry_bytes);
        let count_bytes = match self.container {
            Container::Classic => 2,
            Container::Big => 8,
        };
        self.append(&count.to_le_bytes()[..count_bytes])?;
        self.append(&entries)?;
        let next_link = self.position;
        self.append(&[0; 8][..self.container.offset_bytes()])?;
        Ok((start, next_link))
    }

    /// Hands back the file, with everything written to it.
    pub(super) fn finish(mut self) -> Result<W> {
        self.writer
            .flush()
            .map_err(|error| SlideError::io(&self.path, error))?;
        Ok(self.writer)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.position.saturating_add(wide(bytes.len()));
        if self.container == Container::Classic && end > u64::from(u32::MAX) {
            return Err(SlideError::LimitExceeded {
                path: self.path.clone(),
                what: "classic TIFF, in bytes,",
                needed: end,
                limit: u64::from(u32::MAX),
            });
        }
        self.writer
            .write_all(bytes)
            .map_err(|error| SlideError::io(&self.path, error))?;
        self.position = end;
        Ok(())
    }

    /// Directories and values begin at even offsets.
    fn pad(&mut self) -> Result<()> {
        if self.position % 2 == 1 {
            self.append(&[0])
        } else {
            Ok(())
        }
    }

    fn offset(&self, value: u64) -> Result<Vec<u8>> {
        if self.container == Container::Classic && value > u64::from(u32::MAX) {
            return Err(SlideError::LimitExceeded {
                path: self.path.clone(),
                what: "an offset in classic TIFF",
                needed: value,
                limit: u64::from(u32::MAX),
            });
        }
        Ok(value.to_le_bytes()[..self.container.offset_bytes()].to_vec())
    }
}

/// One field of a directory, its values in file order.
struct Field {
    tag: u16,
    kind: u16,
    count: u64,
    bytes: Vec<u8>,
}

const ASCII: u16 = 2;
const SHORT: u16 = 3;
const LONG: u16 = 4;
const RATIONAL: u16 = 5;
const UNDEFINED: u16 = 7;
const LONG8: u16 = 16;

impl Field {
    fn shorts(tag: u16, values: &[u16]) -> Self {
        Self::new(
            tag,
            SHORT,
            values.len(),
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        )
    }

    fn long(tag: u16, value: u64) -> Self {
        let value = u32::try_from(value).unwrap_or(u32::MAX);
        Self::new(tag, LONG, 1, value.to_le_bytes().to_vec())
    }

    fn offsets(tag: u16, container: Container, values: impl ExactSizeIterator<Item = u64>) -> Self {
        let kind = match container {
            Container::Classic => LONG,
            Container::Big => LONG8,
        };
        let width = container.offset_bytes();
        let count = values.len();
        let bytes = values
            .flat_map(|value| value.to_le_bytes().into_iter().take(width))
            .collect();
        Self::new(tag, kind, count, bytes)
    }

    /// Pixels per centimetre with four decimals where they fit.
    fn resolution(tag: u16, microns_per_pixel: f64) -> Self {
        let denominator: u32 = if microns_per_pixel > 0.05 { 10_000 } else { 1 };
        let scaled = (10_000.0 / microns_per_pixel * f64::from(denominator)).round();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and saturating at a resolution no microscope has"
        )]
        let numerator = scaled as u32;
        let bytes = [numerator.to_le_bytes(), denominator.to_le_bytes()].concat();
        Self::new(tag, RATIONAL, 1, bytes)
    }

    fn text(tag: u16, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        Self::new(tag, ASCII, bytes.len(), bytes)
    }

    fn new(tag: u16, kind: u16, count: usize, bytes: Vec<u8>) -> Self {
        Self {
            tag,
            kind,
            count: wide(count),
            bytes,
        }
    }
}

impl Directory<'_> {
    /// The fields in the order of their tags, as TIFF requires.
    fn fields(&self, container: Container) -> Vec<Field> {
        let TileFormat {
            edge,
            color,
            compression,
            ..
        } = self.format;
        let photometric = match (color, compression) {
            (ColorModel::Gray, _) => 1,
            (ColorModel::Rgb, Compression::Jpeg { .. }) => 6,
            (ColorModel::Rgb, _) => 2,
        };
        let channels = color.channels();
        let (bits, sample_format) = self.sample;
        let mut fields = vec![
            Field::long(254, u64::from(self.is_overview)),
            Field::long(256, self.extent.width),
            Field::long(257, self.extent.height),
            Field::shorts(258, &vec![bits; channels]),
            Field::shorts(259, &[compression.tag()]),
            Field::shorts(262, &[photometric]),
        ];
        fields.extend(self.description.map(|text| Field::text(270, text)));
        fields.push(Field::shorts(
            277,
            &[u16::try_from(channels).unwrap_or(u16::MAX)],
        ));
        if let Some(edge) = self.microns_per_pixel {
            fields.push(Field::resolution(282, edge));
            fields.push(Field::resolution(283, edge));
        }
        fields.push(Field::shorts(284, &[1]));
        if self.microns_per_pixel.is_some() {
            fields.push(Field::shorts(296, &[3]));
        }
        let offsets = |tag, blocks: &[StoredBlock]| {
            Field::offsets(tag, container, blocks.iter().map(|block| block.offset))
        };
        let byte_counts = |tag, blocks: &[StoredBlock]| {
            Field::offsets(tag, container, blocks.iter().map(|block| block.bytes))
        };
        fields.extend(match self.blocks {
            Blocks::Tiles(tiles) => vec![
                Field::long(322, u64::from(edge)),
                Field::long(323, u64::from(edge)),
                offsets(324, tiles),
                byte_counts(325, tiles),
            ],
            Blocks::Strip(strip) => vec![
                offsets(273, &[strip]),
                Field::long(278, self.extent.height),
                byte_counts(279, &[strip]),
            ],
        });
        if !self.sub_directories.is_empty() {
            let offsets = self.sub_directories.iter().copied();
            fields.push(Field::offsets(330, container, offsets));
        }
        fields.push(Field::shorts(339, &vec![sample_format; channels]));
        if color == ColorModel::Rgb
            && let Some(factor) = compression.subsampling()
        {
            fields.push(Field::shorts(530, &[factor, factor]));
        }
        if let Some(profile) = self.icc_profile {
            fields.push(Field::new(
                34_675,
                UNDEFINED,
                profile.len(),
                profile.to_vec(),
            ));
        }
        fields.sort_by_key(|field| field.tag);
        fields
    }
}
