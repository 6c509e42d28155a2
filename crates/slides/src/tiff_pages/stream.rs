//! The bytes of a strip or tile, decompressed as they are asked for.

use std::io::{BufRead, BufReader, Cursor, Error, ErrorKind, Read, Result};

use fax::Color;
use fax::decoder::{DecodeStatus, Group4Decoder, pels};
use flate2::read::ZlibDecoder;
use image_webp::WebPDecoder;
use ruzstd::decoding::StreamingDecoder;
use weezl::decode::{Configuration, Decoder as LzwDecoder};
use weezl::{BitOrder, LzwStatus};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::directory::Span;
use super::page::Compression;
use crate::numbers::wide;

/// Size and samples of a strip or tile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkShape {
    pub(crate) width: usize,
    /// Rows that are wanted; there may be more.
    pub(crate) rows: usize,
    /// Rows of a whole chunk.
    pub(crate) most_rows: usize,
    /// Samples of a pixel within the chunk.
    pub(crate) samples: usize,
}

/// Where a strip or tile comes from.
pub(crate) struct Stored<'a> {
    pub(crate) bytes: Span<'a>,
    pub(crate) compression: Compression,
    /// Tables that stand in front of each JPEG stream.
    pub(crate) jpeg_tables: Option<&'a [u8]>,
    /// Bits within each byte are stored the other way round.
    pub(crate) is_bit_reversed: bool,
}

impl<'a> Stored<'a> {
    /// The decompressed bytes, row by row from the top.
    pub(crate) fn open(self, shape: ChunkShape) -> Result<Box<dyn Read + 'a>> {
        let source = BufReader::new(Straight {
            inner: self.bytes,
            is_reversed: self.is_bit_reversed,
        });
        Ok(match self.compression {
            Compression::None => Box::new(source),
            Compression::Lzw => Box::new(Lzw::new(source)),
            Compression::Deflate => Box::new(ZlibDecoder::new(source)),
            Compression::PackBits => Box::new(PackBits::new(source)),
            Compression::Zstd => Box::new(StreamingDecoder::new(source).map_err(invalid)?),
            Compression::Fax4 => Box::new(Fax4::new(source, shape)?),
            Compression::Jpeg => Box::new(jpeg(source, self.jpeg_tables, shape)?),
            Compression::WebP => Box::new(webp(source, shape)?),
        })
    }
}

fn invalid(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidData, error.to_string())
}

/// Bytes with their bits in the usual order.
struct Straight<'a> {
    inner: Span<'a>,
    is_reversed: bool,
}

impl Read for Straight<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = self.inner.read(buffer)?;
        if self.is_reversed {
            for byte in &mut buffer[..count] {
                *byte = byte.reverse_bits();
            }
        }
        Ok(count)
    }
}

struct Lzw<R> {
    source: R,
    decoder: LzwDecoder,
}

impl<R: BufRead> Lzw<R> {
    fn new(source: R) -> Self {
        let configuration = Configuration::with_tiff_size_switch(BitOrder::Msb, 8);
        Self {
            source,
            decoder: configuration.with_yield_on_full_buffer(true).build(),
        }
    }
}

impl<R: BufRead> Read for Lzw<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let stored = self.source.fill_buf()?;
            let is_at_end = stored.is_empty();
            let progress = self.decoder.decode_bytes(stored, buffer);
            self.source.consume(progress.consumed_in);
            if progress.consumed_out > 0 {
                return Ok(progress.consumed_out);
            }
            match progress.status.map_err(invalid)? {
                LzwStatus::Done => return Ok(0),
                _ if is_at_end => return Ok(0),
                _ => {}
            }
        }
    }
}

/// Runs of bytes: a head, then one byte that is repeated, or bytes as they are.
struct PackBits<R> {
    source: R,
    /// Bytes that are left of the run.
    left: usize,
    /// The byte that is repeated.
    repeated: Option<u8>,
}

impl<R: Read> PackBits<R> {
    const fn new(source: R) -> Self {
        Self {
            source,
            left: 0,
            repeated: None,
        }
    }

    /// The next byte; none at the end.
    fn next(&mut self) -> Result<Option<u8>> {
        let mut byte = [0];
        let count = self.source.read(&mut byte)?;
        Ok((count == 1).then_some(byte[0]))
    }
}

impl<R: Read> Read for PackBits<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        while self.left == 0 {
            let Some(head) = self.next()? else {
                return Ok(0);
            };
            match head {
                0..=127 => (self.left, self.repeated) = (usize::from(head) + 1, None),
                // Does nothing.
                128 => {}
                129.. => {
                    self.left = 257 - usize::from(head);
                    self.repeated = self.next()?;
                    if self.repeated.is_none() {
                        return Ok(0);
                    }
                }
            }
        }
        let wanted = buffer.len().min(self.left);
        let target = &mut buffer[..wanted];
        let count = match self.repeated {
            Some(byte) => {
                target.fill(byte);
                wanted
            }
            None => self.source.read(target)?,
        };
        self.left -= count;
        Ok(count)
    }
}

/// Bytes as a decoder of CCITT's codes takes them.
type FaxBytes<R> = std::io::Bytes<R>;

struct Fax4<R> {
    decoder: Group4Decoder<FaxBytes<R>>,
    width: u16,
    line: Vec<u8>,
    /// How much of the line was read.
    place: usize,
}

impl<R: BufRead> Fax4<R> {
    fn new(source: R, shape: ChunkShape) -> Result<Self> {
        let width = u16::try_from(shape.width).map_err(invalid)?;
        Ok(Self {
            decoder: Group4Decoder::new(source.bytes(), width)?,
            width,
            line: Vec::new(),
            place: 0,
        })
    }
}

impl<R: BufRead> Read for Fax4<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.place == self.line.len() {
            match self.decoder.advance() {
                Ok(DecodeStatus::Incomplete) => {}
                Ok(DecodeStatus::End) => return Ok(0),
                Err(_) => return Err(invalid("no CCITT Group 4 code")),
            }
            self.line.clear();
            self.line.resize(usize::from(self.width).div_ceil(8), 0);
            let colours = pels(self.decoder.transition(), self.width);
            for (column, colour) in colours.enumerate() {
                if matches!(colour, Color::Black)
                    && let Some(byte) = self.line.get_mut(column / 8)
                {
                    *byte |= 0x80 >> (column % 8);
                }
            }
            self.place = 0;
        }
        let rest = self.line.get(self.place..).unwrap_or_default();
        let count = buffer.len().min(rest.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.place += count;
        Ok(count)
    }
}

/// Decodes a JPEG stream to its own samples: YCbCr stays YCbCr, since the page says what samples mean.
fn jpeg(source: impl Read, tables: Option<&[u8]>, shape: ChunkShape) -> Result<Cursor<Vec<u8>>> {
    let mut stream = whole(source, shape)?;
    if let Some(tables) = tables {
        // The tables end as a stream does and the stream begins anew: neither belongs in between.
        let tables = tables.strip_suffix(&[0xff, 0xd9]).unwrap_or(tables);
        let rest = stream.strip_prefix(&[0xff, 0xd8]).unwrap_or(&stream);
        stream = [tables, rest].concat();
    }
    let options = DecoderOptions::default()
        .set_max_width(shape.width)
        .set_max_height(shape.most_rows);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(stream), options);
    decoder.decode_headers().map_err(invalid)?;
    let found = decoder.info();
    let size = found.map(|info| (usize::from(info.height), usize::from(info.width)));
    check_size("JPEG", size, shape)?;
    let colours = decoder.input_colorspace();
    match colours {
        Some(colours) if colours.num_components() == shape.samples => {
            decoder.set_options(options.jpeg_set_out_colorspace(colours));
        }
        other => {
            return Err(invalid(format!(
                "a JPEG stream of {other:?} in a page of {} samples a pixel",
                shape.samples
            )));
        }
    }
    Ok(Cursor::new(decoder.decode().map_err(invalid)?))
}

/// A whole compressed stream. One that is much longer than its pixels is taken for damage.
fn whole(source: impl Read, shape: ChunkShape) -> Result<Vec<u8>> {
    let pixels = shape.width.saturating_mul(shape.most_rows);
    let most = pixels
        .saturating_mul(2 * shape.samples)
        .saturating_add(1 << 20);
    let mut stream = Vec::new();
    source.take(wide(most)).read_to_end(&mut stream)?;
    if stream.len() == most {
        return Err(invalid("a stream that is longer than its pixels"));
    }
    Ok(stream)
}

fn webp(source: impl Read, shape: ChunkShape) -> Result<Cursor<Vec<u8>>> {
    let stream = whole(source, shape)?;
    let mut decoder = WebPDecoder::new(Cursor::new(stream)).map_err(invalid)?;
    let (width, height) = decoder.dimensions();
    let sides = usize::try_from(height)
        .ok()
        .zip(usize::try_from(width).ok());
    check_size("WebP", sides, shape)?;
    let size = decoder.output_buffer_size();
    let mut pixels = vec![0; size.ok_or_else(|| invalid("a WebP stream too large"))?];
    decoder.read_image(&mut pixels).map_err(invalid)?;
    let found = if decoder.has_alpha() { 4 } else { 3 };
    let pixels = match (found, shape.samples) {
        (3, 3) | (4, 4) => pixels,
        // As libtiff does: nothing is transparent, or what is does not count.
        (3, 4) => pixels
            .chunks_exact(3)
            .flat_map(|pixel| [pixel[0], pixel[1], pixel[2], u8::MAX])
            .collect(),
        (4, 3) => pixels
            .chunks_exact(4)
            .flat_map(|pixel| [pixel[0], pixel[1], pixel[2]])
            .collect(),
        (_, samples) => {
            return Err(invalid(format!(
                "a WebP stream in a page of {samples} samples a pixel"
            )));
        }
    };
    Ok(Cursor::new(pixels))
}

/// A stream with another width would be read as scrambled rows.
fn check_size(what: &str, found: Option<(usize, usize)>, shape: ChunkShape) -> Result<()> {
    let fits = found.is_some_and(|(height, width)| {
        width == shape.width && (shape.rows..=shape.most_rows).contains(&height)
    });
    if fits {
        return Ok(());
    }
    let (height, width) = found.unwrap_or_default();
    Err(invalid(format!(
        "a {what} stream of {height} x {width} pixels in a strip or tile of {} x {}",
        shape.rows, shape.width
    )))
}
