//! Compressing tiles.

use std::io::Write;

use flate2::write::ZlibEncoder;
use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, SamplingFactor};

/// How tiles are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// JPEG, lossy. Below quality 90 colour is kept at half the resolution.
    Jpeg {
        /// From 1 to 100.
        quality: u8,
    },
    /// Deflate, lossless.
    Deflate,
}

impl Compression {
    /// The value of TIFF's Compression tag.
    pub(super) const fn tag(self) -> u16 {
        match self {
            Self::Jpeg { .. } => 7,
            Self::Deflate => 8,
        }
    }

    /// Horizontal and vertical chroma subsampling, for JPEG.
    pub(super) const fn subsampling(self) -> Option<u16> {
        match self {
            Self::Jpeg { quality } if quality < 90 => Some(2),
            Self::Jpeg { .. } => Some(1),
            Self::Deflate => None,
        }
    }

    /// Compresses `edge x edge` RGB pixels.
    pub(super) fn encode(self, rgb: &[u8], edge: u32) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::with_capacity(rgb.len() / 8);
        match self {
            Self::Jpeg { quality } => {
                let edge = u16::try_from(edge).map_err(|error| error.to_string())?;
                let mut encoder = Encoder::new(&mut bytes, quality);
                encoder.set_sampling_factor(match self.subsampling() {
                    Some(2) => SamplingFactor::F_2_2,
                    _ => SamplingFactor::F_1_1,
                });
                encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
                encoder
                    .encode(rgb, edge, edge, ColorType::Rgb)
                    .map_err(|error| error.to_string())?;
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(&mut bytes, flate2::Compression::default());
                encoder
                    .write_all(rgb)
                    .and_then(|()| encoder.finish().map(drop))
                    .map_err(|error| error.to_string())?;
            }
        }
        Ok(bytes)
    }
}
