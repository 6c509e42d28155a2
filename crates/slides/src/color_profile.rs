//! ICC profiles: found in files, and applied.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use image::{ImageDecoder, ImageReader};
use moxcms::{ColorProfile, DataColorSpace, Layout, Transform8BitExecutor, TransformOptions};

use crate::stored_colors::StoredColors;
use crate::tiff_pages::TiffPages;

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
