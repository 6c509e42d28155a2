//! Plain images decoded into memory: PNG and JPEG here, TIFF by [`tiff_pages`](crate::tiff_pages).

use std::path::Path;

use image::error::UnsupportedErrorKind;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader};

use crate::error::{Result, SlideError};
use crate::geometry::{Extent, Region};
use crate::numbers::to_usize;
use crate::stored_colors::StoredColors;

/// A whole image in memory: `height x width x 3` bytes.
#[derive(Debug)]
pub(crate) struct RasterSource {
    pub(crate) extent: Extent,
    rgb: Vec<u8>,
    /// What the file's colours are stored as.
    pub(crate) stored_colors: StoredColors,
}

impl RasterSource {
    /// Over `height x width x 3` bytes.
    pub(crate) const fn new(extent: Extent, rgb: Vec<u8>) -> Self {
        Self {
            extent,
            rgb,
            stored_colors: StoredColors::Rgb,
        }
    }

    /// Decodes the file as an image of at most `limit` bytes of RGB.
    pub(crate) fn open(path: &Path, limit: u64) -> Result<Self> {
        let mut reader = ImageReader::open(path)
            .and_then(ImageReader::with_guessed_format)
            .map_err(|error| SlideError::io(path, error))?;
        // The decoders' own limit is 512 MiB, whatever the caller allows; the caller's is checked below.
        let mut limits = image::Limits::default();
        limits.max_alloc = limits.max_alloc.map(|usual| usual.max(limit));
        reader.limits(limits);
        let mut decoder = reader
            .into_decoder()
            .map_err(|error| image_error(path, error))?;
        let (width, height) = decoder.dimensions();
        let extent = Extent {
            height: u64::from(height),
            width: u64::from(width),
        };
        // Decoders may hold the picture once more in its own pixel type, of up to 16 bytes.
        let needed = decoder.total_bytes().max(extent.height * extent.width * 3);
        if needed > limit {
            return Err(SlideError::LimitExceeded {
                path: path.to_path_buf(),
                what: "decoding the whole image, in bytes,",
                needed,
                limit,
            });
        }
        let stored_colors = if decoder.color_type().has_color() {
            StoredColors::Rgb
        } else {
            StoredColors::Gray
        };
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut image =
            DynamicImage::from_decoder(decoder).map_err(|error| image_error(path, error))?;
        image.apply_orientation(orientation);
        let rgb = over_white(image);
        Ok(Self {
            extent: Extent {
                height: u64::from(rgb.height()),
                width: u64::from(rgb.width()),
            },
            rgb: rgb.into_raw(),
            stored_colors,
        })
    }

    /// Copies `region`, which lies inside the image.
    pub(crate) fn read(&self, region: &Region, rgb: &mut [u8]) {
        let (Ok(first_row), Ok(column)) = (
            usize::try_from(region.rows.start),
            usize::try_from(region.columns.start),
        ) else {
            return;
        };
        let image_row = to_usize(self.extent.width).saturating_mul(3);
        let out_row = to_usize(region.width()).saturating_mul(3).max(1);
        for (row, target) in rgb.chunks_exact_mut(out_row).enumerate() {
            let start = (first_row + row) * image_row + column * 3;
            if let Some(source) = self.rgb.get(start..start + target.len()) {
                target.copy_from_slice(source);
            }
        }
    }
}

fn image_error(path: &Path, error: ImageError) -> SlideError {
    match error {
        ImageError::IoError(source) if source.kind() != std::io::ErrorKind::UnexpectedEof => {
            SlideError::io(path, source)
        }
        // A file that no decoder knows is another matter than pixels that one cannot read.
        ImageError::Unsupported(what) if matches!(what.kind(), UnsupportedErrorKind::Format(_)) => {
            SlideError::cannot_open(path, what)
        }
        ImageError::Unsupported(what) => SlideError::Unsupported {
            path: path.to_path_buf(),
            what: what.to_string(),
        },
        other => SlideError::cannot_open(path, other),
    }
}

/// RGB of any picture; transparent parts show white.
fn over_white(image: DynamicImage) -> image::RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let rgba = image.into_rgba8();
    image::RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [red, green, blue, alpha] = rgba.get_pixel(x, y).0;
        let over = |value: u8| {
            let mixed =
                (u32::from(value) * u32::from(alpha) + 255 * u32::from(255 - alpha) + 127) / 255;
            u8::try_from(mixed).unwrap_or(u8::MAX)
        };
        image::Rgb([over(red), over(green), over(blue)])
    })
}
