//! Plain pictures, cut to one size as torchvision does it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use stream_grad::TileSource;
use stream_grad_slides::{Level, Slide, Target};

use super::slide::{Normalisation, Pixels, SlideSource};
use super::{ImageLoader, ReadSettings};
use crate::error::{Result, TrainError};

/// Mean of red, green and blue over ImageNet, as torchvision's models expect it.
pub const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of red, green and blue over ImageNet.
pub const IMAGENET_DEVIATION: [f64; 3] = [0.229, 0.224, 0.225];

/// A decoded picture; grey ones have three equal channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    height: usize,
    width: usize,
    /// RGB, row by row.
    rgb: Vec<u8>,
}

/// A part of a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crop {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Picture {
    /// Decodes a JPEG, PNG or TIFF.
    ///
    /// # Errors
    /// [`TrainError::Slide`].
    pub fn open(path: &Path) -> Result<Self> {
        let view = Slide::open(path)?.view(Target::Level(Level::FINEST))?;
        let image = view.to_image()?;
        let size = |edge: u32| usize::try_from(edge).unwrap_or(usize::MAX);
        Ok(Self {
            height: size(image.height()),
            width: size(image.width()),
            rgb: image.into_raw(),
        })
    }

    /// A picture of RGB values, row by row.
    ///
    /// # Errors
    /// [`TrainError::Setting`] unless there are `height * width * 3` values, and one or more.
    pub fn from_rgb(height: usize, width: usize, rgb: Vec<u8>) -> Result<Self> {
        let values = height
            .checked_mul(width)
            .and_then(|pixels| pixels.checked_mul(3));
        if values != Some(rgb.len()) || rgb.is_empty() {
            return Err(TrainError::setting(
                "picture",
                format!("{height} x {width} pixels of three values, at least one"),
                format!("{} values", rgb.len()),
            ));
        }
        Ok(Self { height, width, rgb })
    }

    /// Height and width in pixels.
    #[must_use]
    pub fn extent(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// RGB values, row by row.
    #[must_use]
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The square of `size` pixels in the middle, with black around a picture that is smaller: torchvision's `CenterCrop`.
    #[must_use]
    pub fn center_crop(&self, size: usize) -> Self {
        let (top, skip_rows) = middle(self.height, size);
        let (left, skip_columns) = middle(self.width, size);
        let mut rgb = vec![0; size * size * 3];
        let columns = self.width.min(size) * 3;
        for row in 0..self.height.min(size) {
            let from = ((row + top) * self.width + left) * 3;
            let to = ((row + skip_rows) * size + skip_columns) * 3;
            rgb[to..to + columns].copy_from_slice(&self.rgb[from..from + columns]);
        }
        Self {
            height: size,
            width: size,
            rgb,
        }
    }

    /// The part `crop`, resized to a square of `size` pixels: torchvision's `resized_crop` of a PIL image, bilinear. `crop` is cut to
    /// the picture.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a part or a size without pixels.
    pub fn resized_crop(&self, crop: Crop, size: usize) -> Result<Self> {
        let refuse = |reason: String| {
            TrainError::setting(
                "crop",
                "a part of the picture and a size of 1 or more",
                reason,
            )
        };
        let height = crop.height.min(self.height.saturating_sub(crop.top));
        let width = crop.width.min(self.width.saturating_sub(crop.left));
        if height == 0 || width == 0 || size == 0 {
            return Err(refuse(format!("{crop:?} and {size}")));
        }
        // Cut first: what lies outside the part does not count, as in torchvision.
        let mut part = Vec::with_capacity(height * width * 3);
        for row in crop.top..crop.top + height {
            let from = (row * self.width + crop.left) * 3;
            part.extend_from_slice(&self.rgb[from..from + width * 3]);
        }
        let edge = |pixels: usize| u32::try_from(pixels).unwrap_or(u32::MAX);
        // Of one type of pixels: for a type that is known at run time only, all of them would be compiled.
        let source = TypedImageRef::<U8x3>::from_buffer(edge(width), edge(height), &part)
            .map_err(|error| refuse(error.to_string()))?;
        let values = size
            .checked_mul(size)
            .and_then(|pixels| pixels.checked_mul(3));
        let mut rgb = vec![0; values.ok_or_else(|| refuse(format!("a size of {size}")))?];
        let mut resized = TypedImage::<U8x3>::from_buffer(edge(size), edge(size), &mut rgb)
            .map_err(|error| refuse(error.to_string()))?;
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        Resizer::new()
            .resize_typed(&source, &mut resized, &options)
            .map_err(|error| refuse(error.to_string()))?;
        drop(resized);
        Self::from_rgb(size, size, rgb)
    }
}

/// Along one axis: the first pixel of the middle part, and the pixels that are left out before a shorter picture.
fn middle(length: usize, size: usize) -> (usize, usize) {
    if length <= size {
        return (0, (size - length) / 2);
    }
    // Python's `round`: halves go to the even number.
    let doubled = length - size;
    let half = doubled / 2;
    (half + usize::from(doubled % 2 == 1 && half % 2 == 1), 0)
}

/// A part of 8% to 100% of a picture's area and of an aspect ratio from 3/4 to 4/3, drawn as torchvision's `RandomResizedCrop` does;
/// after ten parts that do not fit, the largest one in the middle.
pub fn random_resized_crop((height, width): (usize, usize), rng: &mut impl RngExt) -> Crop {
    const RATIO: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];
    const SCALE: [f64; 2] = [0.08, 1.0];
    let (rows, columns) = (float(height), float(width));
    for _ in 0..10 {
        let area = rows * columns * between(SCALE, rng);
        let ratio = between(RATIO.map(f64::ln), rng).exp();
        let part = (whole((area / ratio).sqrt()), whole((area * ratio).sqrt()));
        if (1..=height).contains(&part.0) && (1..=width).contains(&part.1) {
            return Crop {
                top: rng.random_range(0..=height - part.0),
                left: rng.random_range(0..=width - part.1),
                height: part.0,
                width: part.1,
            };
        }
    }
    let ratio = columns / rows;
    let part = if ratio < RATIO[0] {
        (whole(columns / RATIO[0]), width)
    } else if ratio > RATIO[1] {
        (height, whole(rows * RATIO[1]))
    } else {
        (height, width)
    };
    Crop {
        top: (height - part.0.min(height)) / 2,
        left: (width - part.1.min(width)) / 2,
        height: part.0,
        width: part.1,
    }
}

fn between([low, high]: [f64; 2], rng: &mut impl RngExt) -> f64 {
    low + (high - low) * rng.random::<f64>()
}

#[expect(clippy::cast_precision_loss, reason = "edges of pictures are small")]
fn float(edge: usize) -> f64 {
    edge as f64
}

/// Rounded as Python does it: halves go to the even number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an edge of a picture, not negative"
)]
fn whole(edge: f64) -> usize {
    edge.round_ties_even() as usize
}

/// How pictures are cut and normalised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PictureSettings {
    /// Edge of the square that pictures are cut to, in pixels.
    pub size: usize,
    /// Mean of red, green and blue, each from 0 to 1; ImageNet's by default.
    pub mean: [f64; 3],
    /// Standard deviation of red, green and blue, above 0; ImageNet's by default.
    pub deviation: [f64; 3],
    /// Seed of the parts that are cut for training.
    pub seed: u64,
}

impl Default for PictureSettings {
    fn default() -> Self {
        Self {
            size: 320,
            mean: IMAGENET_MEAN,
            deviation: IMAGENET_DEVIATION,
            seed: 0,
        }
    }
}

/// Loads plain pictures: those to train on as a [part drawn by chance](random_resized_crop), all others as their
/// [middle](Picture::center_crop).
///
/// A part depends on the seed, the epoch and the picture's path alone, so that two runs see the same, and so does one that goes
/// on. Whoever trains says [which epoch](Self::set_epoch) it is.
#[derive(Debug)]
pub struct PictureLoader {
    settings: PictureSettings,
    normalisation: Arc<Normalisation>,
    training: HashSet<PathBuf>,
    epoch: AtomicU64,
}

impl PictureLoader {
    /// Loads pictures; those of `training` are trained on.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a size of 0, means that are not finite and deviations that are not above 0.
    pub fn new(
        settings: PictureSettings,
        training: impl IntoIterator<Item = PathBuf>,
    ) -> Result<Self> {
        let read = ReadSettings {
            mean: settings.mean,
            deviation: settings.deviation,
            ..ReadSettings::default()
        };
        read.check()?;
        if settings.size == 0 {
            return Err(TrainError::setting("pictures.size", "1 or more", 0));
        }
        Ok(Self {
            settings,
            normalisation: Arc::new(Normalisation::new(&read)),
            training: training.into_iter().collect(),
            epoch: AtomicU64::new(0),
        })
    }

    /// Which epoch the next pictures are for, from 0.
    pub fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    /// The picture of `path` as it is cut in the present epoch.
    ///
    /// # Errors
    /// [`TrainError::Slide`].
    pub fn cut(&self, path: &Path) -> Result<Picture> {
        let picture = Picture::open(path)?;
        if !self.training.contains(path) {
            return Ok(picture.center_crop(self.settings.size));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.settings.seed ^ name_hash(path));
        rng.set_stream(self.epoch.load(Ordering::Relaxed));
        let crop = random_resized_crop(picture.extent(), &mut rng);
        picture.resized_crop(crop, self.settings.size)
    }
}

/// A number for the end of a path, its folder and file, so that a data set may be moved (FNV-1a).
fn name_hash(path: &Path) -> u64 {
    let parts = [path.parent().and_then(Path::file_name), path.file_name()];
    let bytes = parts
        .into_iter()
        .flatten()
        .flat_map(|part| part.as_encoded_bytes().iter().chain(b"/"));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl ImageLoader for PictureLoader {
    fn expect(&self, _upcoming: &[&Path]) {}

    fn load(&self, slide: &Path) -> Result<Arc<dyn TileSource>> {
        let picture = self.cut(slide)?;
        let (height, width) = picture.extent();
        let edge = |pixels: usize| u64::try_from(pixels).unwrap_or(u64::MAX);
        Ok(Arc::new(SlideSource {
            pixels: Pixels::Held {
                extent: (edge(height), edge(width)),
                rgb: Arc::new(picture.rgb),
            },
            stain: None,
            normalisation: Arc::clone(&self.normalisation),
        }))
    }
}

#[cfg(test)]
mod tests;
