//! Any part of one page as RGB, strip by strip or tile by tile.

use std::io::Read;
use std::ops::Range;

use super::directory::{Tag, TiffFile};
use super::page::{Alpha, Compression, Page, Photometric, Refusal, Storage};
use super::row::{Palette, ToRgb, spread_units, to_native, undo_prediction};
use super::stream::{ChunkShape, Stored};
use crate::geometry::{Extent, Region, Rgb};
use crate::numbers::{to_usize, wide};

/// A page and where its pixels stand.
#[derive(Debug)]
pub(crate) struct PageReader {
    page: Page,
    storage: Storage,
    to_rgb: ToRgb,
    /// Planes that are read: those of samples that are shown.
    planes: usize,
    offsets: Vec<u64>,
    byte_counts: Vec<u64>,
    jpeg_tables: Option<Vec<u8>>,
    is_bit_reversed: bool,
    is_big_endian: bool,
    /// Pixels side by side and one below the other that share their colours, where these are stored once for all.
    unit: Option<(usize, usize)>,
}

/// A strip or tile by its place on the page's grid.
#[derive(Clone, Copy)]
struct Chunk {
    row: u64,
    column: u64,
}

impl PageReader {
    /// Makes ready for reading.
    ///
    /// # Errors
    /// What stands against it.
    pub(crate) fn new(file: &TiffFile, page: Page) -> Result<Self, Refusal> {
        let storage = page.storage()?;
        let planes = match (page.is_planar, storage.alpha) {
            (false, _) => 1,
            (true, None) => storage.photometric.colours(),
            (true, Some(Alpha::Associated(place) | Alpha::Unassociated(place))) => place + 1,
        };
        let down = page.stored.height.div_ceil(page.chunk.height);
        let across = page.stored.width.div_ceil(page.chunk.width);
        let chunks = down.saturating_mul(across).saturating_mul(wide(planes));
        let list = |tag, most| file.numbers(page.index, tag, most).unwrap_or_default();
        let (offsets, byte_counts) = if page.is_tiled {
            (
                list(Tag::TileOffsets, chunks),
                list(Tag::TileByteCounts, chunks),
            )
        } else {
            (
                list(Tag::StripOffsets, chunks),
                list(Tag::StripByteCounts, chunks),
            )
        };
        for found in [&offsets, &byte_counts] {
            if wide(found.len()) < chunks {
                return Err(Refusal::Damaged(format!(
                    "a page of {chunks} strips or tiles says where {} of them are",
                    found.len()
                )));
            }
        }
        let palette = if storage.photometric == Photometric::Palette {
            palette(&list(Tag::ColorMap, 3 << 16))
        } else {
            Palette::new()
        };
        let samples = if page.is_planar { planes } else { page.samples };
        Ok(Self {
            to_rgb: ToRgb::new(&storage, samples, palette),
            offsets,
            byte_counts,
            jpeg_tables: file.bytes(page.index, Tag::JpegTables),
            is_bit_reversed: file.number(page.index, Tag::FillOrder) == Some(2)
                && !matches!(storage.compression, Compression::Jpeg | Compression::WebP),
            is_big_endian: file.is_big_endian(),
            unit: unit(file, &page, &storage)?,
            planes,
            page,
            storage,
        })
    }

    /// Size as shown.
    pub(crate) const fn extent(&self) -> Extent {
        self.page.extent()
    }

    /// Bytes that reading needs beside the pixels that are read.
    pub(crate) fn scratch_bytes(&self) -> u64 {
        let pixels = match self.storage.compression {
            // Decoded as a whole.
            Compression::Jpeg | Compression::WebP => {
                self.page.chunk.height.saturating_mul(self.page.chunk.width)
            }
            _ => self.page.chunk.width,
        };
        let bytes = u64::from(self.storage.bits.div_ceil(8));
        pixels.saturating_mul(wide(self.page.samples).saturating_mul(bytes))
    }

    /// Reads `region` of the page as shown, which lies inside it.
    ///
    /// # Errors
    /// What the decoder says.
    pub(crate) fn read(
        &self,
        file: &TiffFile,
        region: &Region,
        background: Rgb,
        rgb: &mut [u8],
    ) -> Result<(), String> {
        let page = &self.page;
        let stored = page.orientation.stored_region(page.stored, region);
        let mut target = Target {
            page,
            region,
            stored: &stored,
            rgb,
        };
        let chunks = |span: &Range<i64>, edge: u64| {
            let (start, end) = (span.start.unsigned_abs(), span.end.unsigned_abs());
            start / edge..end.div_ceil(edge)
        };
        for row in chunks(&stored.rows, page.chunk.height) {
            for column in chunks(&stored.columns, page.chunk.width) {
                self.read_chunk(file, Chunk { row, column }, background, &mut target)?;
            }
        }
        Ok(())
    }

    fn chunks_across(&self) -> u64 {
        self.page.stored.width.div_ceil(self.page.chunk.width)
    }

    fn chunks_of_a_plane(&self) -> u64 {
        let down = self.page.stored.height.div_ceil(self.page.chunk.height);
        down.saturating_mul(self.chunks_across())
    }

    /// Samples of a pixel within a chunk.
    const fn chunk_samples(&self) -> usize {
        if self.page.is_planar {
            1
        } else {
            self.page.samples
        }
    }

    fn read_chunk(
        &self,
        file: &TiffFile,
        chunk: Chunk,
        background: Rgb,
        target: &mut Target<'_>,
    ) -> Result<(), String> {
        let Extent { height, width } = self.page.chunk;
        let top = chunk.row * height;
        // The rows of this chunk that are wanted.
        let end = target.stored.rows.end.unsigned_abs().min(top + height);
        let start = target.stored.rows.start.unsigned_abs().max(top);
        let wanted = start - top..end - top;
        let mut converted = vec![0; to_usize(width * 3)];
        let mut put = |row: u64, samples: Option<&[Vec<u8>]>| {
            match samples {
                Some(samples) => self.to_rgb.convert(samples, background, &mut converted)?,
                None => converted
                    .chunks_exact_mut(3)
                    .for_each(|pixel| pixel.copy_from_slice(&background.0)),
            }
            target.put(top + row, chunk.column * width, &converted);
            Ok(())
        };
        match self.planes_of(file, chunk)? {
            Some(mut planes) => {
                self.each_row(&mut planes, wanted, |row, samples| put(row, Some(samples)))
            }
            // Nothing was scanned here.
            None => wanted.into_iter().try_for_each(|row| put(row, None)),
        }
    }

    /// The streams of a chunk, one for each plane; none where the file leaves the chunk out.
    fn planes_of<'a>(
        &'a self,
        file: &'a TiffFile,
        chunk: Chunk,
    ) -> Result<Option<Vec<Box<dyn Read + 'a>>>, String> {
        let Extent { height, width } = self.page.chunk;
        let shape = ChunkShape {
            width: to_usize(width),
            rows: to_usize(if self.page.is_tiled {
                height
            } else {
                height.min(self.page.stored.height - chunk.row * height)
            }),
            most_rows: to_usize(height),
            samples: self.chunk_samples(),
        };
        let place = chunk.row * self.chunks_across() + chunk.column;
        let mut planes = Vec::new();
        for plane in 0..self.planes {
            let index = to_usize(wide(plane) * self.chunks_of_a_plane() + place);
            let list = |list: &[u64]| list.get(index).copied().unwrap_or(0);
            let (offset, bytes) = (list(&self.offsets), list(&self.byte_counts));
            if offset == 0 || bytes == 0 {
                return Ok(None);
            }
            let stored = Stored {
                bytes: file.span(offset, bytes),
                compression: self.storage.compression,
                jpeg_tables: self.jpeg_tables.as_deref(),
                is_bit_reversed: self.is_bit_reversed,
            };
            planes.push(stored.open(shape).map_err(|error| error.to_string())?);
        }
        Ok(Some(planes))
    }

    /// Hands on each row that is wanted: a row of each plane.
    fn each_row(
        &self,
        planes: &mut [Box<dyn Read + '_>],
        wanted: Range<u64>,
        mut take: impl FnMut(u64, &[Vec<u8>]) -> Result<(), String>,
    ) -> Result<(), String> {
        let width = to_usize(self.page.chunk.width);
        let (across, down) = self.unit.unwrap_or((1, 1));
        let samples = self.chunk_samples();
        let row_bytes = if self.unit.is_some() {
            width.div_ceil(across) * (across * down + 2)
        } else {
            (width * samples)
                .saturating_mul(to_usize(self.storage.bits.into()))
                .div_ceil(8)
        };
        let mut rows = vec![vec![0; row_bytes]; planes.len()];
        for first in (0..wanted.end).step_by(down) {
            for (plane, row) in planes.iter_mut().zip(&mut rows) {
                plane.read_exact(row).map_err(|error| error.to_string())?;
                if self.storage.bits > 8 {
                    to_native(
                        row,
                        to_usize((self.storage.bits / 8).into()),
                        self.is_big_endian,
                    );
                }
                if self.storage.is_predicted {
                    undo_prediction(row, self.storage.bits, samples);
                }
            }
            if self.unit.is_some() {
                let spread = spread_units(&rows[0], across, down, width);
                for (row, samples) in (first..).zip(spread) {
                    if wanted.contains(&row) {
                        take(row, &[samples])?;
                    }
                }
            } else if wanted.contains(&first) {
                take(first, &rows)?;
            }
        }
        Ok(())
    }
}

/// The caller's buffer, and what it is of.
struct Target<'a> {
    page: &'a Page,
    /// As shown.
    region: &'a Region,
    /// The same as stored.
    stored: &'a Region,
    rgb: &'a mut [u8],
}

impl Target<'_> {
    /// Puts the pixels of a stored row from `left` on where they show; what is not wanted is passed over.
    fn put(&mut self, row: u64, left: u64, pixels: &[u8]) {
        let (row, left) = (signed(row), signed(left));
        let columns = &self.stored.columns;
        let start = columns.start.max(left);
        let end = columns.end.min(left + signed(wide(pixels.len() / 3)));
        if start >= end {
            return;
        }
        let bytes = |column: i64| to_usize(column.abs_diff(left)) * 3;
        let pixels = &pixels[bytes(start)..bytes(end)];
        let first = self.place(row, start);
        // A stored row shows as a run of pixels of which each lies as far from the one before.
        let step = if end - start > 1 {
            self.place(row, start + 1).wrapping_sub(first)
        } else {
            3
        };
        if step == 3 {
            if let Some(target) = self.rgb.get_mut(first..first + pixels.len()) {
                target.copy_from_slice(pixels);
            }
            return;
        }
        let mut place = first;
        for pixel in pixels.chunks_exact(3) {
            if let Some(target) = self.rgb.get_mut(place..place.wrapping_add(3)) {
                target.copy_from_slice(pixel);
            }
            place = place.wrapping_add(step);
        }
    }

    /// Where in the buffer a stored pixel shows.
    fn place(&self, row: i64, column: i64) -> usize {
        let (row, column) = self.page.orientation.shown(self.page.stored, row, column);
        let down = to_usize(row.abs_diff(self.region.rows.start));
        let across = to_usize(column.abs_diff(self.region.columns.start));
        (down * to_usize(self.region.width()) + across) * 3
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Red, green and blue stand one list after the other, of 16 bits; some writers store 8 bits, which libtiff takes, too.
fn palette(map: &[u64]) -> Palette {
    let colours = map.len() / 3;
    let shift = if map.iter().all(|&value| value < 256) {
        0
    } else {
        8
    };
    let byte = |value: u64| u8::try_from(value >> shift & 0xff).unwrap_or(u8::MAX);
    (0..colours)
        .map(|index| [0, 1, 2].map(|list| byte(map[list * colours + index])))
        .collect()
}

/// Of YCbCr outside JPEG, the pixels that share their colours.
fn unit(file: &TiffFile, page: &Page, storage: &Storage) -> Result<Option<(usize, usize)>, String> {
    if storage.photometric != Photometric::YCbCr || storage.compression == Compression::Jpeg {
        return Ok(None);
    }
    let list = file.numbers(page.index, Tag::YCbCrSubSampling, 2);
    let unit = match list.as_deref() {
        None => (2, 2),
        Some(&[across @ (1 | 2 | 4), down @ (1 | 2 | 4), ..]) => (to_usize(across), to_usize(down)),
        Some(other) => return Err(format!("YCbCr subsampling by {other:?}")),
    };
    if page.samples != 3 || page.is_planar || storage.is_predicted {
        return Err("YCbCr with further samples, in planes or predicted".to_owned());
    }
    let is_near = |tag, usual: &[f64]| {
        file.fractions(page.index, tag).is_none_or(|found| {
            found.len() == usual.len() && found.iter().zip(usual).all(|(a, b)| (a - b).abs() < 1e-3)
        })
    };
    if !is_near(Tag::YCbCrCoefficients, &[0.299, 0.587, 0.114])
        || !is_near(
            Tag::ReferenceBlackWhite,
            &[0.0, 255.0, 128.0, 255.0, 128.0, 255.0],
        )
    {
        return Err(
            "YCbCr of other coefficients than those of ITU-R BT.601, or of part of the range,"
                .to_owned(),
        );
    }
    Ok(Some(unit))
}
