//! ICC profiles: found in files, and applied.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use image::{ImageDecoder, ImageReader};
use moxcms::{ColorProfile, DataColorSpace, Layout, Transform8BitExecutor, TransformOptions};
use serde::{Deserialize, Serialize};

use crate::tiff_pages::TiffPages;

/// Whether the colours of a file are changed when it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ColorManagement {
    /// Pixels are as the file holds them; [`Slide::icc_profile`](crate::Slide::icc_profile) passes on what they mean.
    #[default]
    AsStored,
    /// Pixels are converted from the file's ICC profile to sRGB. Without a profile they are taken as sRGB.
    ///
    /// A profile of RGB colours serves RGB and grey pixels, one of grey serves grey pixels. Any other profile, one that
    /// does not fit the pixels, and one that is damaged is an error when the slide is opened.
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

impl StoredColors {
    const fn name(self) -> &'static str {
        match self {
            Self::Gray => "grey",
            Self::Rgb => "RGB",
            Self::Cmyk => "CMYK",
            Self::Unknown => "unknown",
        }
    }
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
pub(crate) struct ToSrgb {
    transform: Arc<Transform8BitExecutor>,
    is_gray: bool,
}

impl fmt::Debug for ToSrgb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ToSrgb")
    }
}

impl ToSrgb {
    /// From the bytes of an ICC profile, for pixels that were stored as `stored` and are read as RGB.
    pub(crate) fn new(profile: &[u8], stored: StoredColors) -> Result<Self, String> {
        let profile = ColorProfile::new_from_slice(profile).map_err(|error| error.to_string())?;
        let layout = match (profile.color_space, stored) {
            (DataColorSpace::Rgb, StoredColors::Cmyk) => None,
            (DataColorSpace::Rgb, _) => Some(Layout::Rgb),
            (DataColorSpace::Gray, StoredColors::Gray | StoredColors::Unknown) => {
                Some(Layout::Gray)
            }
            _ => None,
        };
        let Some(layout) = layout else {
            return Err(format!(
                "it is of {:?} colours and the pixels are stored as {}: it must be of RGB, or of grey for grey pixels",
                profile.color_space,
                stored.name()
            ));
        };
        let transform = profile
            .create_transform_8bit(
                layout,
                &ColorProfile::new_srgb(),
                Layout::Rgb,
                TransformOptions::default(),
            )
            .map_err(|error| error.to_string())?;
        Ok(Self {
            transform,
            is_gray: layout == Layout::Gray,
        })
    }

    /// Converts RGB pixels; each new pixel depends on its old one alone.
    pub(crate) fn apply(&self, rgb: &mut [u8]) -> Result<(), String> {
        let stored = if self.is_gray {
            let greys = rgb.chunks_exact(3).map(|pixel| match *pixel {
                [r, g, b] if r == g && g == b => Ok(r),
                _ => Err(format!(
                    "a profile of grey, and a pixel of colour {pixel:?}"
                )),
            });
            greys.collect::<Result<Vec<u8>, String>>()?
        } else {
            rgb.to_vec()
        };
        self.transform
            .transform(&stored, rgb)
            .map_err(|error| error.to_string())
    }
}
