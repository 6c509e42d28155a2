//! ICC profiles: found in files, and applied.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use image::{ImageDecoder, ImageReader};
use moxcms::{ColorProfile, Layout, Transform8BitExecutor, TransformOptions};
use serde::{Deserialize, Serialize};

use crate::tiff_pages::TiffPages;

/// Whether the colours of a file are changed when it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColorManagement {
    /// Pixels are as the file holds them; [`Slide::icc_profile`](crate::Slide::icc_profile) passes on what they mean.
    #[default]
    AsStored,
    /// Pixels are converted from the file's ICC profile to sRGB. Without a profile they are taken as sRGB.
    ToSrgb,
}

/// What the pixels of a file are before they are read as RGB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum StoredColors {
    Gray,
    Rgb,
    Cmyk,
    /// Whoever reads the file does not say.
    #[default]
    Unknown,
}

/// The profile that stands in the file itself: in a page of a TIFF and what is built on it, in PNG or JPEG.
pub(crate) fn embedded(path: &Path, page: usize) -> Option<Vec<u8>> {
    let profile = match TiffPages::open(path).ok()? {
        Some(tiff) => tiff.icc_profile(page)?,
        None => {
            let reader = ImageReader::open(path).ok()?.with_guessed_format().ok()?;
            reader.into_decoder().ok()?.icc_profile().ok()??
        }
    };
    (!profile.is_empty()).then_some(profile)
}

/// From a profile's colours to sRGB.
#[derive(Clone)]
pub(crate) struct ToSrgb(Arc<Transform8BitExecutor>);

impl fmt::Debug for ToSrgb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ToSrgb")
    }
}

impl ToSrgb {
    /// From the bytes of an ICC profile of RGB colours.
    pub(crate) fn new(profile: &[u8]) -> Result<Self, String> {
        let profile = ColorProfile::new_from_slice(profile).map_err(|error| error.to_string())?;
        profile
            .create_transform_8bit(
                Layout::Rgb,
                &ColorProfile::new_srgb(),
                Layout::Rgb,
                TransformOptions::default(),
            )
            .map(Self)
            .map_err(|error| error.to_string())
    }

    /// Converts RGB pixels; each new pixel depends on its old one alone.
    pub(crate) fn apply(&self, rgb: &mut [u8]) -> Result<(), String> {
        let stored = rgb.to_vec();
        self.0
            .transform(&stored, rgb)
            .map_err(|error| error.to_string())
    }
}
