//! Plain images (PNG, JPEG, TIFF without a pyramid) decoded into memory.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader};
use tiff::tags::Tag;

use crate::error::{Result, SlideError};
use crate::geometry::{Extent, PixelScale, Region};
use crate::numbers::to_usize;
use crate::properties::{ResolutionUnit, tiff_resolution};

/// A whole image in memory: `height x width x 3` bytes.
#[derive(Debug)]
pub(crate) struct RasterSource {
    pub(crate) extent: Extent,
    pub(crate) rgb: Vec<u8>,
}

impl RasterSource {
    /// Decodes the file as an image of at most `limit` bytes of RGB.
    pub(crate) fn open(path: &Path, limit: u64) -> Result<Self> {
        let reader = ImageReader::open(path)
            .and_then(ImageReader::with_guessed_format)
            .map_err(|error| SlideError::io(path, error))?;
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

/// The scale that a TIFF file states by its resolution tags.
pub(crate) fn tiff_scale(path: &Path) -> Option<PixelScale> {
    let mut decoder = tiff::decoder::Decoder::new(BufReader::new(File::open(path).ok()?)).ok()?;
    let unit = match decoder.find_tag_unsigned::<u16>(Tag::ResolutionUnit).ok()? {
        None | Some(2) => ResolutionUnit::Inch,
        Some(3) => ResolutionUnit::Centimetre,
        Some(_) => return None,
    };
    let mut axis = |tag| {
        let tiff::decoder::ifd::Value::Rational(numerator, denominator) =
            decoder.find_tag(tag).ok()??
        else {
            return None;
        };
        tiff_resolution(f64::from(numerator) / f64::from(denominator), unit)
    };
    Some(PixelScale {
        x: axis(Tag::XResolution)?,
        y: axis(Tag::YResolution)?,
    })
}

fn image_error(path: &Path, error: ImageError) -> SlideError {
    match error {
        ImageError::IoError(source) if source.kind() != std::io::ErrorKind::UnexpectedEof => {
            SlideError::io(path, source)
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
