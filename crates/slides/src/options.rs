//! How slides are opened.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bad_regions::BadRegionPolicy;
use crate::cache::BlockCache;
use crate::geometry::{MicronsPerPixel, PixelScale};

/// What a slide may ask of this machine. A file that declares more is refused before anything is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a plain image (PNG, JPEG, TIFF in strips), decoded as 3 bytes a pixel, or of an associated image. 1 GiB by
    /// default.
    pub image_bytes: u64,
    /// Bytes of one tile of the file, decoded as 4 bytes a pixel. 256 MiB by default.
    pub tile_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            image_bytes: 1 << 30,
            tile_bytes: 256 << 20,
        }
    }
}

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

/// How to open a slide.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Scale of the finest level, in place of what the file says.
    pub scale: Option<PixelScale>,
    /// Refusals.
    pub limits: Limits,
    /// A cache to share with other slides; without one, the slide has its own of 64 MiB.
    pub cache: Option<Arc<BlockCache>>,
    /// What to do where pixels cannot be decoded: fail by default.
    pub bad_regions: BadRegionPolicy,
    /// Whether colours are changed: as stored by default.
    pub colors: ColorManagement,
}

impl OpenOptions {
    /// Takes square pixels of this edge as the finest level's, whatever the file says.
    #[must_use]
    pub const fn with_microns_per_pixel(mut self, edge: MicronsPerPixel) -> Self {
        self.scale = Some(PixelScale::square(edge));
        self
    }

    /// Sets the refusals.
    #[must_use]
    pub const fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Shares a cache of decoded blocks.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<BlockCache>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Sets what to do where pixels cannot be decoded.
    #[must_use]
    pub fn with_bad_regions(mut self, policy: BadRegionPolicy) -> Self {
        self.bad_regions = policy;
        self
    }

    /// Sets whether colours are changed.
    #[must_use]
    pub const fn with_colors(mut self, colors: ColorManagement) -> Self {
        self.colors = colors;
        self
    }
}
