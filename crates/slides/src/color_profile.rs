//! ICC profiles: found in files, and applied.

use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use image::{ImageDecoder, ImageReader};
use moxcms::{ColorProfile, Layout, Transform8BitExecutor, TransformOptions};
use serde::{Deserialize, Serialize};
use tiff::tags::Tag;

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

/// The profile that stands in the file itself: TIFF and what is built on it, PNG, JPEG.
pub(crate) fn embedded(path: &Path) -> Option<Vec<u8>> {
    let in_tiff = || {
        let file = BufReader::new(File::open(path).ok()?);
        let mut decoder = tiff::decoder::Decoder::new(file).ok()?;
        decoder.find_tag(Tag::IccProfile).ok()??.into_u8_vec().ok()
    };
    let in_image = || {
        let reader = ImageReader::open(path).ok()?.with_guessed_format().ok()?;
        reader.into_decoder().ok()?.icc_profile().ok()?
    };
    in_tiff()
        .or_else(in_image)
        .filter(|profile| !profile.is_empty())
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
