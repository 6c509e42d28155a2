//! TIFF files of any kind, written tag by tag: what `PyramidWriter` would never write.

use std::path::Path;

/// A tag's values: its number, its type (3 SHORT, 4 LONG, 5 RATIONAL, 7 UNDEFINED) and the values. A fraction is one value,
/// its numerator; the denominator is 1.
pub(crate) type Entry = (u16, u16, Vec<u64>);

/// How a page's pixels are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Rows of a strip.
    Strips(usize),
    /// Edge of a tile.
    Tiles(usize),
}

/// Compresses rows of `width` pixels: the raw bytes, the width and the height.
pub(crate) type Compress = fn(&[u8], usize, usize) -> Vec<u8>;

/// A page: samples of whole bytes, side by side.
#[derive(Clone)]
pub(crate) struct Page {
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Bits of a pixel: a number of whole bytes, or for one sample 1 or 4.
    pub(crate) pixel_bits: usize,
    /// `height x width x` samples, 16-bit ones little-endian; each pixel of less than a byte in a byte of its own.
    pub(crate) pixels: Vec<u8>,
    pub(crate) cut: Cut,
    /// Bytes of a sample where each sample has a plane of its own.
    pub(crate) planes_of: Option<usize>,
    pub(crate) compress: Compress,
    /// All tags but sizes and places.
    pub(crate) entries: Vec<Entry>,
}

pub(crate) fn as_is(bytes: &[u8], _: usize, _: usize) -> Vec<u8> {
    bytes.to_vec()
}

impl Page {
    /// The pixels of a rectangle, zeros outside the page, packed row by row.
    fn cut_out(
        &self,
        pixels: &[u8],
        bytes: usize,
        top: usize,
        left: usize,
        size: (usize, usize),
    ) -> Vec<u8> {
        let mut packed = Vec::new();
        for row in top..top + size.0 {
            let mut values = vec![0; size.1 * bytes];
            if row < self.height {
                let end = (left + size.1).min(self.width);
                let from =
                    &pixels[(row * self.width + left) * bytes..(row * self.width + end) * bytes];
                values[..from.len()].copy_from_slice(from);
            }
            if self.pixel_bits < 8 {
                let per_byte = 8 / self.pixel_bits;
                packed.extend(values.chunks(per_byte).map(|values| {
                    let place = |index: usize| 8 - (index + 1) * self.pixel_bits;
                    let bits = values.iter().enumerate();
                    bits.fold(0_u8, |byte, (index, value)| byte | value << place(index))
                }));
            } else {
                packed.extend(values);
            }
        }
        packed
    }

    fn chunks(&self) -> Vec<Vec<u8>> {
        let pixel_bytes = (self.pixel_bits / 8).max(1);
        let planes: Vec<Vec<u8>> = match self.planes_of {
            None => vec![self.pixels.clone()],
            Some(bytes) => (0..pixel_bytes / bytes)
                .map(|plane| {
                    let pixels = self.pixels.chunks_exact(pixel_bytes);
                    pixels
                        .flat_map(|pixel| pixel[plane * bytes..][..bytes].to_vec())
                        .collect()
                })
                .collect(),
        };
        let bytes = self.planes_of.unwrap_or(pixel_bytes);
        let mut chunks = Vec::new();
        for plane in &planes {
            match self.cut {
                Cut::Strips(rows) => {
                    for top in (0..self.height).step_by(rows) {
                        let height = rows.min(self.height - top);
                        let raw = self.cut_out(plane, bytes, top, 0, (height, self.width));
                        chunks.push((self.compress)(&raw, self.width, height));
                    }
                }
                Cut::Tiles(edge) => {
                    for top in (0..self.height).step_by(edge) {
                        for left in (0..self.width).step_by(edge) {
                            let raw = self.cut_out(plane, bytes, top, left, (edge, edge));
                            chunks.push((self.compress)(&raw, edge, edge));
                        }
                    }
                }
            }
        }
        chunks
    }
}

/// Writes a little-endian TIFF file of these pages.
pub(crate) fn write_tiff(path: &Path, pages: &[Page]) {
    let mut bytes = b"II*\0\0\0\0\0".to_vec();
    let mut link = 4;
    for page in pages {
        let chunks = page.chunks();
        let (mut offsets, mut counts) = (Vec::new(), Vec::new());
        for chunk in chunks {
            offsets.push(bytes.len() as u64);
            counts.push(chunk.len() as u64);
            bytes.extend(chunk);
        }
        let mut entries = page.entries.clone();
        entries.push((256, 4, vec![page.width as u64]));
        entries.push((257, 4, vec![page.height as u64]));
        if page.planes_of.is_some() {
            entries.push((284, 3, vec![2]));
        }
        match page.cut {
            Cut::Strips(rows) => {
                entries.push((278, 4, vec![rows as u64]));
                entries.extend([(273, 4, offsets), (279, 4, counts)]);
            }
            Cut::Tiles(edge) => {
                entries.extend([(322, 4, vec![edge as u64]), (323, 4, vec![edge as u64])]);
                entries.extend([(324, 4, offsets), (325, 4, counts)]);
            }
        }
        entries.sort_by_key(|entry| entry.0);
        let mut heads = Vec::new();
        for (tag, kind, values) in &entries {
            let mut value = Vec::new();
            for number in values {
                let number = number.to_le_bytes();
                match kind {
                    3 => value.extend(&number[..2]),
                    4 => value.extend(&number[..4]),
                    5 => value.extend([&number[..4], &[1, 0, 0, 0]].concat()),
                    _ => value.push(number[0]),
                }
            }
            let mut head = Vec::new();
            head.extend(tag.to_le_bytes());
            head.extend(kind.to_le_bytes());
            head.extend((values.len() as u32).to_le_bytes());
            if value.len() > 4 {
                bytes.resize(bytes.len().next_multiple_of(2), 0);
                head.extend((bytes.len() as u32).to_le_bytes());
                bytes.extend(value);
            } else {
                value.resize(4, 0);
                head.extend(value);
            }
            heads.push(head);
        }
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        let place = (bytes.len() as u32).to_le_bytes();
        bytes[link..link + 4].copy_from_slice(&place);
        bytes.extend((heads.len() as u16).to_le_bytes());
        bytes.extend(heads.concat());
        link = bytes.len();
        bytes.extend([0; 4]);
    }
    std::fs::write(path, bytes).unwrap();
}
