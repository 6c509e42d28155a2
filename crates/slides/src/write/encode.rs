//! Compressing tiles.

use std::io::Write;

use flate2::write::ZlibEncoder;
use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, SamplingFactor};

use crate::error::SlideError;

/// How tiles are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// JPEG, lossy; for bytes only. Below quality 90 colour is kept at half the resolution.
    Jpeg {
        /// From 1 to 100.
        quality: u8,
    },
    /// Deflate, lossless.
    Deflate,
    /// LZW, lossless.
    Lzw,
}

/// Whether pixels have colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColorModel {
    /// Red, green and blue.
    #[default]
    Rgb,
    /// One value.
    Gray,
}

impl ColorModel {
    /// Samples of a pixel.
    pub(crate) const fn channels(self) -> usize {
        match self {
            Self::Rgb => 3,
            Self::Gray => 1,
        }
    }
}

impl Compression {
    /// The value of TIFF's Compression tag.
    pub(super) const fn tag(self) -> u16 {
        match self {
            Self::Jpeg { .. } => 7,
            Self::Deflate => 8,
            Self::Lzw => 5,
        }
    }

    /// Horizontal and vertical chroma subsampling, for JPEG.
    pub(super) const fn subsampling(self) -> Option<u16> {
        match self {
            Self::Jpeg { quality } if quality < 90 => Some(2),
            Self::Jpeg { .. } => Some(1),
            Self::Deflate | Self::Lzw => None,
        }
    }

    /// Compresses the bytes of `(width, height)` pixels.
    pub(super) fn encode(
        self,
        bytes: &[u8],
        (width, height): (u32, u32),
        color: ColorModel,
    ) -> Result<Vec<u8>, String> {
        match self {
            Self::Jpeg { quality } => {
                let side = |pixels: u32| u16::try_from(pixels).map_err(|error| error.to_string());
                jpeg(bytes, (side(width)?, side(height)?), color, quality)
            }
            Self::Deflate => {
                let packed = Vec::with_capacity(bytes.len() / 8);
                let mut encoder = ZlibEncoder::new(packed, flate2::Compression::default());
                encoder
                    .write_all(bytes)
                    .and_then(|()| encoder.finish())
                    .map_err(|error| error.to_string())
            }
            Self::Lzw => weezl::encode::Encoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8)
                .encode(bytes)
                .map_err(|error| error.to_string()),
        }
    }
}

/// Refuses a quality that JPEG does not have.
pub(crate) fn check_quality(quality: u8) -> crate::error::Result<()> {
    if (1..=100).contains(&quality) {
        return Ok(());
    }
    Err(SlideError::InvalidArgument {
        what: "JPEG quality",
        expected: "from 1 to 100",
        found: quality.to_string(),
    })
}

/// A complete JPEG file of `(width, height)` pixels.
pub(crate) fn jpeg(
    bytes: &[u8],
    (width, height): (u16, u16),
    color: ColorModel,
    quality: u8,
) -> Result<Vec<u8>, String> {
    let mut packed = Vec::with_capacity(bytes.len() / 8);
    let mut encoder = Encoder::new(&mut packed, quality);
    encoder.set_sampling_factor(match (Compression::Jpeg { quality }).subsampling() {
        Some(2) => SamplingFactor::F_2_2,
        _ => SamplingFactor::F_1_1,
    });
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    let kind = match color {
        ColorModel::Rgb => ColorType::Rgb,
        ColorModel::Gray => ColorType::Luma,
    };
    encoder
        .encode(bytes, width, height, kind)
        .map_err(|error| error.to_string())?;
    Ok(packed)
}
