//! What a page of a TIFF file is, and who can be trusted to read it.

use super::directory::{Tag, TiffFile};
use super::orientation::Orientation;
use crate::geometry::Extent;
use crate::numbers::{to_usize, wide};

/// Why a page is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Known but not read: the subject of "is not supported".
    Unsupported(String),
    /// Something that no TIFF file says.
    Damaged(String),
}

impl From<String> for Refusal {
    fn from(what: String) -> Self {
        Self::Unsupported(what)
    }
}

/// Compressions that are decoded here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Fax4,
    Lzw,
    Jpeg,
    Deflate,
    PackBits,
    Zstd,
    WebP,
}

/// What a page's samples mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Photometric {
    WhiteIsZero,
    BlackIsZero,
    Rgb,
    Palette,
    Cmyk,
    YCbCr,
}

impl Photometric {
    /// Samples of a pixel that are colour.
    pub(crate) const fn colours(self) -> usize {
        match self {
            Self::WhiteIsZero | Self::BlackIsZero | Self::Palette => 1,
            Self::Rgb | Self::YCbCr => 3,
            Self::Cmyk => 4,
        }
    }

    pub(crate) const fn is_gray(self) -> bool {
        matches!(self, Self::WhiteIsZero | Self::BlackIsZero)
    }
}

/// A sample that says how much of a pixel is seen, by its place among the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alpha {
    /// Colours are multiplied by it already.
    Associated(usize),
    Unassociated(usize),
}

/// One page of a TIFF file, as its directory declares it.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// Its place in the file, from 0.
    pub(crate) index: usize,
    /// Size as stored.
    pub(crate) stored: Extent,
    pub(crate) orientation: Orientation,
    pub(crate) is_tiled: bool,
    /// Size of a tile or of a strip.
    pub(crate) chunk: Extent,
    /// Whether it says that it is a smaller version of another page.
    pub(crate) is_reduced: bool,
    /// Whether it says that it is a mask of another page.
    pub(crate) is_mask: bool,
    pub(crate) samples: usize,
    /// Each sample stands in a plane of its own.
    pub(crate) is_planar: bool,
    photometric: Option<u64>,
    compression: u64,
    bits: Vec<u64>,
    formats: Vec<u64>,
    extra: Vec<u64>,
    predictor: u64,
    ink_set: u64,
}

/// How the samples of a page that can be decoded here are stored.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    pub(crate) compression: Compression,
    pub(crate) photometric: Photometric,
    /// Bits of a sample: 1, 2, 4, 8 or 16 of a whole number, 32 of a floating-point number.
    pub(crate) bits: u32,
    pub(crate) is_predicted: bool,
    pub(crate) alpha: Option<Alpha>,
}

impl Page {
    /// A page by its place; none if it has no size or no pixels.
    pub(crate) fn read(file: &TiffFile, index: usize) -> Option<Self> {
        let number = |tag| file.number(index, tag);
        let stored = Extent {
            height: number(Tag::ImageLength)?,
            width: number(Tag::ImageWidth)?,
        };
        let is_tiled = file.has(index, Tag::TileOffsets) || file.has(index, Tag::TileWidth);
        let chunk = if is_tiled {
            Extent {
                height: number(Tag::TileLength)?,
                width: number(Tag::TileWidth)?,
            }
        } else {
            Extent {
                height: number(Tag::RowsPerStrip)
                    .unwrap_or(stored.height)
                    .min(stored.height),
                width: stored.width,
            }
        };
        let side = u64::from(u32::MAX);
        let is_side = |length: u64| (1..=side).contains(&length);
        let sides = [stored.height, stored.width, chunk.height, chunk.width];
        let samples = number(Tag::SamplesPerPixel).unwrap_or(1);
        if !sides.into_iter().all(is_side) || samples == 0 || samples > u64::from(u16::MAX) {
            return None;
        }
        let subfile = number(Tag::NewSubfileType).unwrap_or(0);
        let list = |tag| file.numbers(index, tag, samples);
        Some(Self {
            index,
            stored,
            orientation: Orientation::from_tag(number(Tag::Orientation)),
            is_tiled,
            chunk,
            is_reduced: subfile & 1 != 0 || number(Tag::SubfileType) == Some(2),
            is_mask: subfile & 4 != 0 || number(Tag::PhotometricInterpretation) == Some(4),
            samples: to_usize(samples),
            is_planar: number(Tag::PlanarConfiguration) == Some(2) && samples > 1,
            photometric: number(Tag::PhotometricInterpretation),
            compression: number(Tag::Compression).unwrap_or(1),
            bits: list(Tag::BitsPerSample).unwrap_or_else(|| vec![1]),
            formats: list(Tag::SampleFormat).unwrap_or_else(|| vec![1]),
            extra: list(Tag::ExtraSamples).unwrap_or_default(),
            predictor: number(Tag::Predictor).unwrap_or(1),
            ink_set: number(Tag::InkSet).unwrap_or(1),
        })
    }

    /// Size as shown.
    pub(crate) const fn extent(&self) -> Extent {
        self.orientation.turned(self.stored)
    }

    /// Samples that are neither colour nor transparency, and so are not shown.
    pub(crate) fn passed_over(&self) -> usize {
        self.storage().map_or(0, |storage| {
            let shown = storage.photometric.colours() + usize::from(storage.alpha.is_some());
            self.samples.saturating_sub(shown)
        })
    }

    /// Whether the page is stored as shades of grey.
    pub(crate) fn is_gray(&self) -> bool {
        self.meaning().is_ok_and(Photometric::is_gray)
    }

    /// Whether the page is stored as amounts of four inks.
    pub(crate) fn is_cmyk(&self) -> bool {
        self.meaning() == Ok(Photometric::Cmyk)
    }

    /// Whether the page has uncompressed tiles whose bytes are no multiple of 1024. libtiff 4.5 cannot read them, nor can the libtiff
    /// that comes with OpenSlide 4.0.1.
    fn has_odd_small_tiles(&self) -> bool {
        let planes = if self.is_planar {
            1
        } else {
            wide(self.samples)
        };
        let bits = self.bits.first().copied().unwrap_or(1);
        let pixels = self.chunk.height.saturating_mul(self.chunk.width);
        let bytes = pixels.saturating_mul(planes).saturating_mul(bits) / 8;
        let is_subsampled = self.photometric == Some(6);
        self.compression == 1 && (is_subsampled || bytes % 1024 != 0)
    }

    /// Whether the page is grey, of 16 bits, and its right edge cuts tiles. The libtiff that comes with OpenSlide 4.0.1 garbles these;
    /// Debian's, with OpenSlide 3.4.1, reads them right.
    fn has_wide_greys_at_the_edge(&self) -> bool {
        let is_wide = self.bits.contains(&16);
        is_wide && self.is_gray() && !self.stored.width.is_multiple_of(self.chunk.width.max(1))
    }

    /// Whether libtiff, through which OpenSlide reads tiles, reads these pixels right.
    ///
    /// libtiff takes any fourth sample for alpha, turns each tile by itself, ignores signs, and does not premultiply grey.
    pub(crate) fn is_safe_in_openslide(&self) -> bool {
        // JPEG 2000 as Aperio stores it is decoded by OpenSlide itself.
        let is_aperio_jpeg2000 = matches!(self.compression, 33_003 | 33_005);
        let is_known = is_aperio_jpeg2000
            || matches!(
                self.compression,
                1..=8 | 32_766 | 32_773 | 32_809 | 32_946 | 34_925
            );
        self.is_tiled
            && is_known
            && self.orientation == Orientation::TopLeft
            && self.sample_bits().is_ok_and(|bits| bits <= 16)
            && !self.has_odd_small_tiles()
            && !(self.has_wide_greys_at_the_edge() && self.storage().is_ok())
            && self
                .meaning()
                .is_ok_and(|photometric| photometric.colours() == self.samples)
            && (!self.is_cmyk() || self.bits.iter().all(|&bits| bits == 8))
    }

    /// How the page is decoded here.
    ///
    /// # Errors
    /// What stands against it.
    pub(crate) fn storage(&self) -> Result<Storage, Refusal> {
        let bits = self.sample_bits()?;
        let photometric = self.meaning()?;
        let compression = match self.compression {
            1 => Compression::None,
            4 => Compression::Fax4,
            5 => Compression::Lzw,
            7 => Compression::Jpeg,
            8 | 32_946 => Compression::Deflate,
            32_773 => Compression::PackBits,
            50_000 => Compression::Zstd,
            50_001 => Compression::WebP,
            other => return Err(unread_compression(other)),
        };
        if bits == 32 && photometric != Photometric::Rgb {
            let what = "a slide of floating-point numbers (a map of values, which have no colour)";
            return Err(Refusal::Unsupported(what.to_owned()));
        }
        if self.samples < photometric.colours() {
            return Err(format!("{photometric:?} of {} samples a pixel", self.samples).into());
        }
        let fits = match compression {
            Compression::Fax4 => bits == 1 && self.samples == 1,
            Compression::Jpeg => bits == 8,
            Compression::WebP => bits == 8 && photometric == Photometric::Rgb && !self.is_planar,
            _ => true,
        } && (photometric != Photometric::Palette || bits <= 8)
            && (photometric != Photometric::YCbCr || bits == 8)
            && (photometric != Photometric::Cmyk || bits >= 8);
        if !fits {
            return Err(format!(
                "{photometric:?} of {bits} bits a sample, compressed as {compression:?},"
            )
            .into());
        }
        let is_predicted = match (self.predictor, compression) {
            // These have no predictor, whatever the tag says.
            (
                _,
                Compression::None
                | Compression::Fax4
                | Compression::Jpeg
                | Compression::WebP
                | Compression::PackBits,
            )
            | (1, _) => false,
            (2, _) if bits == 8 || bits == 16 => true,
            (other, _) => return Err(format!("predictor {other} of {bits} bits a sample").into()),
        };
        let alpha = self.alpha(photometric);
        if matches!(alpha, Some(Alpha::Associated(_)))
            && !matches!(photometric, Photometric::Rgb | Photometric::BlackIsZero)
        {
            return Err(format!("{photometric:?} multiplied by its alpha").into());
        }
        Ok(Storage {
            compression,
            photometric,
            bits,
            is_predicted,
            alpha,
        })
    }

    /// Bytes of a decoded chunk, all samples and planes of it, at least 4 a pixel.
    pub(crate) fn chunk_bytes(&self) -> u64 {
        let bits = self.bits.first().copied().unwrap_or(1);
        let pixels = self.chunk.height.saturating_mul(self.chunk.width);
        pixels.saturating_mul(wide(self.samples).saturating_mul(bits.div_ceil(8)).max(4))
    }

    /// The first of the samples beyond colour that says it is alpha.
    fn alpha(&self, photometric: Photometric) -> Option<Alpha> {
        let colours = photometric.colours();
        let extra = self.extra.iter().take(self.samples.saturating_sub(colours));
        extra.enumerate().find_map(|(place, &kind)| match kind {
            1 => Some(Alpha::Associated(colours + place)),
            2 => Some(Alpha::Unassociated(colours + place)),
            _ => None,
        })
    }

    fn meaning(&self) -> Result<Photometric, String> {
        match self.photometric {
            Some(0) => Ok(Photometric::WhiteIsZero),
            Some(1) => Ok(Photometric::BlackIsZero),
            Some(2) => Ok(Photometric::Rgb),
            Some(3) => Ok(Photometric::Palette),
            Some(5) if self.ink_set == 1 => Ok(Photometric::Cmyk),
            Some(5) => Err(format!("TIFF ink set {}", self.ink_set)),
            Some(6) => Ok(Photometric::YCbCr),
            // As libtiff takes files that leave the tag out.
            None if self.samples == 1 => Ok(Photometric::BlackIsZero),
            None if self.samples == 3 => Ok(Photometric::Rgb),
            None => Err(format!(
                "TIFF without a photometric interpretation, of {} samples a pixel,",
                self.samples
            )),
            Some(8..=10) => Err("colour as L*a*b* in TIFF".to_owned()),
            Some(other) => Err(format!("TIFF photometric interpretation {other}")),
        }
    }

    /// Bits of a sample.
    fn sample_bits(&self) -> Result<u32, String> {
        let bits = self.bits.first().copied().unwrap_or(1);
        let format = self.formats.first().copied().unwrap_or(1);
        if self.bits.iter().any(|&other| other != bits)
            || self.formats.iter().any(|&other| other != format)
        {
            return Err(format!(
                "samples of different types ({:?} bits, formats {:?})",
                self.bits, self.formats
            ));
        }
        let kind = match (format, bits) {
            // libtiff, too, takes what is not defined for whole numbers.
            (1 | 4, 1 | 2 | 4 | 8 | 16) | (3, 32) => {
                return u32::try_from(bits).map_err(|error| error.to_string());
            }
            (1 | 4, _) => "whole numbers",
            (2, _) => "whole numbers with a sign",
            (3, _) => "floating-point numbers",
            (5 | 6, _) => "complex numbers",
            _ => "an unknown type",
        };
        Err(format!("a slide whose samples are {bits}-bit {kind}"))
    }
}

fn unread_compression(compression: u64) -> Refusal {
    let name = match compression {
        2 => "CCITT modified Huffman",
        3 => "CCITT Group 3",
        6 => "old JPEG",
        32_766 => "NeXT",
        32_809 => "ThunderScan",
        33_003 | 33_005 | 34_712 => "JPEG 2000",
        34_676 | 34_677 => "SGI logarithms",
        34_887 => "LERC",
        34_925 => "LZMA",
        50_002 | 52_546 => "JPEG XL",
        other => return Refusal::Damaged(format!("TIFF compression {other} is not known")),
    };
    Refusal::Unsupported(format!("TIFF compression {compression} ({name})"))
}
