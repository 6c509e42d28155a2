//! The directories of a TIFF file, in which each page says what it is; read within the file's length, whatever they claim.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::error::{Result, SlideError};
use crate::numbers::{to_usize, wide};

/// More pages than this are not looked at, nor more entries of one directory or of all.
const MOST_PAGES: usize = 65_536;
const MOST_ENTRIES: u64 = 65_536;
const MOST_ENTRIES_IN_ALL: usize = 1 << 22;

/// Longer values of one tag, in bytes, are taken for damage.
const MOST_BYTES: u64 = 1 << 28;

/// Tags that are read here, as the TIFF 6.0 specification and libtiff number them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub(crate) enum Tag {
    NewSubfileType = 254,
    SubfileType = 255,
    ImageWidth = 256,
    ImageLength = 257,
    BitsPerSample = 258,
    Compression = 259,
    PhotometricInterpretation = 262,
    FillOrder = 266,
    StripOffsets = 273,
    Orientation = 274,
    SamplesPerPixel = 277,
    RowsPerStrip = 278,
    StripByteCounts = 279,
    XResolution = 282,
    YResolution = 283,
    PlanarConfiguration = 284,
    ResolutionUnit = 296,
    Predictor = 317,
    ColorMap = 320,
    TileWidth = 322,
    TileLength = 323,
    TileOffsets = 324,
    TileByteCounts = 325,
    InkSet = 332,
    ExtraSamples = 338,
    SampleFormat = 339,
    JpegTables = 347,
    YCbCrCoefficients = 529,
    YCbCrSubSampling = 530,
    ReferenceBlackWhite = 532,
    IccProfile = 34_675,
}

/// A TIFF file and the directories of its pages, in their order.
#[derive(Debug)]
pub(crate) struct TiffFile {
    file: Mutex<File>,
    length: u64,
    big_endian: bool,
    directories: Vec<Directory>,
}

/// What one page says about itself.
#[derive(Debug)]
struct Directory {
    entries: BTreeMap<u16, Entry>,
}

/// Where the values of a tag stand.
#[derive(Clone, Copy, Debug)]
struct Entry {
    kind: u16,
    count: u64,
    /// In the file.
    place: u64,
}

/// Sizes that differ between TIFF and BigTIFF.
struct Dialect {
    /// Bytes of an offset, and of what fits into an entry.
    offset: u64,
    /// Bytes of the number of entries.
    count: u64,
}

impl TiffFile {
    /// The file's pages; none if it is no TIFF file or its first directory cannot be read.
    ///
    /// # Errors
    /// [`SlideError::Io`] where the file cannot be opened.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        let io = |error| SlideError::io(path, error);
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut tiff = Self {
            file: Mutex::new(file),
            length,
            big_endian: false,
            directories: Vec::new(),
        };
        // What cannot be read is no TIFF file to this reader; others may say more.
        tiff.read_directories();
        Ok((!tiff.directories.is_empty()).then_some(tiff))
    }

    /// Number of pages.
    pub(crate) fn pages(&self) -> usize {
        self.directories.len()
    }

    pub(crate) const fn is_big_endian(&self) -> bool {
        self.big_endian
    }

    pub(crate) fn has(&self, page: usize, tag: Tag) -> bool {
        self.entry(page, tag).is_some()
    }

    /// The first value of a tag that holds whole numbers.
    pub(crate) fn number(&self, page: usize, tag: Tag) -> Option<u64> {
        let entry = self.entry(page, tag)?;
        let size = number_size(entry.kind)?;
        let bytes = self.bytes_at(entry.place, size)?;
        Some(self.join(&bytes))
    }

    /// The first `most` values of a tag that holds whole numbers.
    pub(crate) fn numbers(&self, page: usize, tag: Tag, most: u64) -> Option<Vec<u64>> {
        let entry = self.entry(page, tag)?;
        let size = number_size(entry.kind)?;
        let bytes = self.bytes_at(entry.place, size.checked_mul(entry.count.min(most))?)?;
        let size = to_usize(size);
        Some(
            bytes
                .chunks_exact(size)
                .map(|value| self.join(value))
                .collect(),
        )
    }

    /// The values of a tag that holds fractions.
    pub(crate) fn fractions(&self, page: usize, tag: Tag) -> Option<Vec<f64>> {
        let entry = self.entry(page, tag)?;
        if entry.kind != 5 {
            return None;
        }
        // None of these tags has more than six.
        let bytes = self.bytes_at(entry.place, entry.count.min(6) * 8)?;
        let part = |bytes: &[u8]| u32::try_from(self.join(bytes)).map_or(f64::NAN, f64::from);
        let values = bytes.chunks_exact(8);
        Some(
            values
                .map(|value| part(&value[..4]) / part(&value[4..]))
                .collect(),
        )
    }

    /// A tag that holds bytes.
    pub(crate) fn bytes(&self, page: usize, tag: Tag) -> Option<Vec<u8>> {
        let entry = self.entry(page, tag)?;
        (matches!(entry.kind, 1 | 2 | 6 | 7) && entry.count <= MOST_BYTES)
            .then(|| self.bytes_at(entry.place, entry.count))
            .flatten()
    }

    /// Reads on from a place in the file, for any number of readers at once.
    pub(crate) const fn span(&self, place: u64, bytes: u64) -> Span<'_> {
        Span {
            file: self,
            place,
            left: bytes,
        }
    }

    fn entry(&self, page: usize, tag: Tag) -> Option<Entry> {
        let directory = self.directories.get(page)?;
        let entry = directory.entries.get(&(tag as u16)).copied()?;
        (entry.count > 0).then_some(entry)
    }

    fn read_directories(&mut self) -> Option<()> {
        let start = self.bytes_at(0, 8)?;
        self.big_endian = match &start[..2] {
            b"II" => false,
            b"MM" => true,
            _ => return None,
        };
        let (dialect, mut next) = match (self.join(&start[2..4]), self.join(&start[4..8])) {
            (42, first) => (
                Dialect {
                    offset: 4,
                    count: 2,
                },
                first,
            ),
            // The size of offsets, and zero.
            (43, _) if self.join(&start[4..6]) == 8 => {
                let first = self.join(&self.bytes_at(8, 8)?);
                (
                    Dialect {
                        offset: 8,
                        count: 8,
                    },
                    first,
                )
            }
            _ => return None,
        };
        let mut seen = HashSet::new();
        let mut entries = 0;
        while next != 0
            && seen.insert(next)
            && self.directories.len() < MOST_PAGES
            && entries < MOST_ENTRIES_IN_ALL
        {
            let (directory, after) = self.directory(next, &dialect)?;
            entries += directory.entries.len();
            self.directories.push(directory);
            next = after?;
        }
        Some(())
    }

    /// The directory at a place, and where the next one is; the latter may be lacking at the end of a file.
    fn directory(&self, place: u64, dialect: &Dialect) -> Option<(Directory, Option<u64>)> {
        let count = self.join(&self.bytes_at(place, dialect.count)?);
        if count > MOST_ENTRIES {
            return None;
        }
        let size = 4 + 2 * dialect.offset;
        let start = place.checked_add(dialect.count)?;
        let bytes = count.checked_mul(size)?;
        let mut entries = BTreeMap::new();
        for (index, entry) in self
            .bytes_at(start, bytes)?
            .chunks_exact(to_usize(size))
            .enumerate()
        {
            let (head, rest) = entry.split_at(4);
            let (number, value) = rest.split_at(to_usize(dialect.offset));
            let (kind, count) = (self.join(&head[2..]), self.join(number));
            let kind = u16::try_from(kind).ok()?;
            let fits = kind_size(kind)
                .and_then(|size| size.checked_mul(count))
                .is_some_and(|bytes| bytes <= dialect.offset);
            let place = if fits {
                start + wide(index) * size + 4 + dialect.offset
            } else {
                self.join(value)
            };
            let tag = u16::try_from(self.join(&head[..2])).ok()?;
            // Of an entry that stands twice, the first counts, as in libtiff.
            entries.entry(tag).or_insert(Entry { kind, count, place });
        }
        let next = self
            .bytes_at(start.checked_add(bytes)?, dialect.offset)
            .map(|bytes| self.join(&bytes));
        Some((Directory { entries }, next))
    }

    fn bytes_at(&self, place: u64, count: u64) -> Option<Vec<u8>> {
        if place.checked_add(count)? > self.length {
            return None;
        }
        let mut bytes = vec![0; to_usize(count)];
        self.span(place, count).read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    /// A number of up to eight bytes.
    fn join(&self, bytes: &[u8]) -> u64 {
        let add = |sum: u64, &byte: &u8| sum << 8 | u64::from(byte);
        if self.big_endian {
            bytes.iter().fold(0, add)
        } else {
            bytes.iter().rev().fold(0, add)
        }
    }
}

/// A part of the file.
pub(crate) struct Span<'a> {
    file: &'a TiffFile,
    place: u64,
    left: u64,
}

impl Read for Span<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let wanted = buffer.len().min(to_usize(self.left));
        let mut file = self
            .file
            .file
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.place))?;
        let count = loop {
            match file.read(&mut buffer[..wanted]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.place += wide(count);
        self.left -= wide(count);
        Ok(count)
    }
}

/// Bytes of a value of any kind.
const fn kind_size(kind: u16) -> Option<u64> {
    match kind {
        1 | 2 | 6 | 7 => Some(1),
        3 | 8 => Some(2),
        4 | 9 | 11 | 13 => Some(4),
        5 | 10 | 12 | 16 | 17 | 18 => Some(8),
        _ => None,
    }
}

/// Bytes of a value of a kind of whole numbers without sign.
const fn number_size(kind: u16) -> Option<u64> {
    match kind {
        1 | 3 | 4 | 13 | 16 | 18 => kind_size(kind),
        _ => None,
    }
}
