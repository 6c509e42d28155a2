//! A slide file read through OpenSlide, in a way that repairs OpenSlide's traps.
//!
//! - Errors of OpenSlide are sticky: after one bad tile a handle refuses everything. A failed read is tried once more on a
//!   handle of its own, so that a good region never fails because of a neighbour, and the shared handle is replaced.
//! - OpenSlide addresses every level in level-0 pixels and interpolates where that does not fall on a whole pixel of the
//!   level. Reads start at a position that does (or nearly does) and the surplus is dropped.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use openslide_rs::{Address, OpenSlide, Region as OpenSlideRegion, Size};

use crate::error::{Result, SlideError};
use crate::geometry::{Extent, Level, Region, Rgb};
use crate::numbers::{index, to_usize, whole};

/// How far back a read may start to find a position that level-0 pixels can express.
const ALIGNMENT_MARGIN: u32 = 64;

/// Cairo rounds translations to 1/256 pixel: below half of that, nothing is interpolated.
const ALIGNED: f64 = 1.0 / 512.0;

#[derive(Debug)]
pub(crate) struct OpenSlideSource {
    path: PathBuf,
    handle: RwLock<Arc<OpenSlide>>,
}

impl OpenSlideSource {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let slide = OpenSlide::new(path).map_err(|error| SlideError::cannot_open(path, error))?;
        Ok(Self {
            path: path.to_path_buf(),
            handle: RwLock::new(Arc::new(slide)),
        })
    }

    /// Size of each level and the downsample by which OpenSlide addresses it.
    pub(crate) fn levels(&self) -> Vec<(Extent, f64)> {
        let slide = self.current();
        slide
            .all_level_dimensions()
            .iter()
            .zip(slide.all_level_downsamples())
            .map(|(size, &downsample)| (extent(*size), downsample))
            .collect()
    }

    pub(crate) fn raw_properties(&self) -> Result<Vec<(String, String)>> {
        let slide = self.current();
        let names = slide
            .property_names()
            .map_err(|error| SlideError::cannot_open(&self.path, error))?;
        Ok(names
            .into_iter()
            .filter_map(|name| {
                let value = slide.property_value(&name).ok()?;
                Some((name, value))
            })
            .collect())
    }

    /// Reads `region` (level pixels, wholly inside the level) as RGB over `background`.
    pub(crate) fn read(
        &self,
        level: Level,
        downsample: f64,
        region: &Region,
        background: Rgb,
        rgb: &mut [u8],
    ) -> Result<()> {
        let failed = |reason: String| SlideError::RegionFailed {
            path: self.path.clone(),
            level,
            region: region.clone(),
            reason,
        };
        let request = Request::new(level, downsample, region)
            .ok_or_else(|| failed("beyond 2^32 pixels".to_owned()))?;
        let argb = self
            .with_recovery(|slide| slide.read_region(&request.region))
            .map_err(failed)?;
        let row_bytes = index(request.region.size.w) * 4;
        let skipped = index(request.surplus_columns) * 4;
        let out_row = to_usize(region.width()).saturating_mul(3).max(1);
        let rows = argb
            .chunks_exact(row_bytes.max(1))
            .skip(index(request.surplus_rows));
        for (source, target) in rows.zip(rgb.chunks_exact_mut(out_row)) {
            composite(
                source.get(skipped..).unwrap_or_default(),
                background,
                target,
            );
        }
        Ok(())
    }

    pub(crate) fn associated_image_names(&self) -> Result<Vec<String>> {
        self.current()
            .associated_image_names()
            .map_err(|error| SlideError::cannot_open(&self.path, error))
    }

    /// Size of an associated image, without decoding it.
    pub(crate) fn associated_image_extent(&self, name: &str) -> Result<Extent> {
        self.current()
            .associated_image_dimensions(name)
            .map(extent)
            .map_err(|error| self.image_failed(name, error.to_string()))
    }

    pub(crate) fn associated_image(
        &self,
        name: &str,
        background: Rgb,
    ) -> Result<(Extent, Vec<u8>)> {
        let (size, argb) = self
            .with_recovery(|slide| slide.read_associated_buffer(name))
            .map_err(|reason| self.image_failed(name, reason))?;
        let mut rgb = vec![0; argb.len() / 4 * 3];
        composite(&argb, background, &mut rgb);
        Ok((extent(size), rgb))
    }

    /// The ICC profile embedded in the slide.
    #[cfg(feature = "openslide4")]
    pub(crate) fn icc_profile(&self) -> Result<Option<Vec<u8>>> {
        self.with_recovery(OpenSlide::icc_profile)
            .map_err(|reason| self.image_failed("ICC profile", reason))
    }

    /// The ICC profile embedded in an associated image.
    #[cfg(feature = "openslide4")]
    pub(crate) fn associated_image_icc_profile(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.with_recovery(|slide| slide.associated_image_icc_profile(name))
            .map_err(|reason| self.image_failed(name, reason))
    }

    fn image_failed(&self, name: &str, reason: String) -> SlideError {
        SlideError::ImageFailed {
            path: self.path.clone(),
            name: name.to_owned(),
            reason,
        }
    }

    fn current(&self) -> Arc<OpenSlide> {
        Arc::clone(&self.handle.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs `read`; if it fails, once more on a handle that no other thread can have spoiled.
    fn with_recovery<T>(
        &self,
        read: impl Fn(&OpenSlide) -> openslide_rs::Result<T>,
    ) -> Result<T, String> {
        let shared = self.current();
        let first = match read(&shared) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        tracing::debug!(path = %self.path.display(), error = %first, "reopening a slide after a failed read");
        let reopened = OpenSlide::new(&self.path)
            .map_err(|error| format!("{first}; reopening failed: {error}"))?;
        match read(&reopened) {
            Ok(value) => {
                self.replace(&shared, reopened);
                Ok(value)
            }
            Err(second) => {
                if let Ok(fresh) = OpenSlide::new(&self.path) {
                    self.replace(&shared, fresh);
                }
                Err(second.to_string())
            }
        }
    }

    /// Puts `fresh` in the place of `spoiled`, unless another thread already replaced it.
    fn replace(&self, spoiled: &Arc<OpenSlide>, fresh: OpenSlide) {
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&handle, spoiled) {
            *handle = Arc::new(fresh);
        }
    }
}

/// A read as OpenSlide takes it, with the surplus to drop at its top and left.
struct Request {
    region: OpenSlideRegion,
    surplus_rows: u32,
    surplus_columns: u32,
}

impl Request {
    fn new(level: Level, downsample: f64, region: &Region) -> Option<Self> {
        let (y, surplus_rows) = aligned_origin(u32::try_from(region.rows.start).ok()?, downsample)?;
        let (x, surplus_columns) =
            aligned_origin(u32::try_from(region.columns.start).ok()?, downsample)?;
        Some(Self {
            region: OpenSlideRegion {
                size: Size {
                    w: u32::try_from(region.width())
                        .ok()?
                        .checked_add(surplus_columns)?,
                    h: u32::try_from(region.height())
                        .ok()?
                        .checked_add(surplus_rows)?,
                },
                level: u32::try_from(level.0).ok()?,
                address: Address { x, y },
            },
            surplus_rows,
            surplus_columns,
        })
    }
}

/// The level-0 address from which to read so that level pixel `position` comes out uninterpolated, and how many level
/// pixels that address lies before `position`. Where no such address is near, the one that is off by least.
fn aligned_origin(position: u32, downsample: f64) -> Option<(u32, u32)> {
    let mut best = None;
    for surplus in 0..=ALIGNMENT_MARGIN.min(position) {
        let wanted = f64::from(position - surplus);
        let address = (wanted * downsample).round();
        let error = (address / downsample - wanted).abs();
        if best.is_none_or(|(least, _, _)| error < least) {
            best = Some((error, address, surplus));
        }
        if error < ALIGNED {
            break;
        }
    }
    let (_, address, surplus) = best?;
    Some((u32::try_from(whole(address)).ok()?, surplus))
}

/// Lays premultiplied native-endian ARGB over an opaque background.
///
/// Nearly all pixels of a slide are opaque: four of them at a time are only put in order.
fn composite(argb: &[u8], background: Rgb, rgb: &mut [u8]) {
    let (sources, _) = argb.as_chunks::<16>();
    let (targets, _) = rgb.as_chunks_mut::<12>();
    let fours = sources.len().min(targets.len());
    for (source, target) in sources.iter().zip(targets) {
        match four_opaque(source) {
            Some(pixels) => *target = pixels,
            None => composite_each(source, background, target),
        }
    }
    composite_each(&argb[fours * 16..], background, &mut rgb[fours * 12..]);
}

/// RGB of four pixels, if all of them are opaque.
fn four_opaque(argb: &[u8; 16]) -> Option<[u8; 12]> {
    let (pixels, _) = argb.as_chunks::<4>();
    let &[a, b, c, d] = pixels else { return None };
    let [a, b, c, d] = [a, b, c, d].map(u32::from_ne_bytes);
    if a & b & c & d < 0xff00_0000 {
        return None;
    }
    // Red in the lowest byte, then green and blue.
    let [a, b, c, d] = [a, b, c, d].map(|pixel| pixel.swap_bytes() >> 8);
    let [a, b, c] = [a | b << 24, b >> 8 | c << 16, c >> 16 | d << 8].map(u32::to_le_bytes);
    let mut rgb = [0; 12];
    rgb[..4].copy_from_slice(&a);
    rgb[4..8].copy_from_slice(&b);
    rgb[8..].copy_from_slice(&c);
    Some(rgb)
}

/// Pixel by pixel.
fn composite_each(argb: &[u8], background: Rgb, rgb: &mut [u8]) {
    for (source, target) in argb.chunks_exact(4).zip(rgb.chunks_exact_mut(3)) {
        let &[b0, b1, b2, b3] = source else { continue };
        let [alpha, colour @ ..] = u32::from_ne_bytes([b0, b1, b2, b3]).to_be_bytes();
        if alpha == u8::MAX {
            target.copy_from_slice(&colour);
            continue;
        }
        for ((value, colour), behind) in target.iter_mut().zip(colour).zip(background.0) {
            let shows = (u16::from(behind) * u16::from(u8::MAX - alpha) + 127) / 255;
            *value = u8::try_from(u16::from(colour) + shows).unwrap_or(u8::MAX);
        }
    }
}

fn extent(size: Size) -> Extent {
    Extent {
        height: u64::from(size.h),
        width: u64::from(size.w),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_downsamples_need_no_surplus() {
        for (position, downsample) in [(0, 1.0), (512, 1.0), (513, 4.0), (70_001, 32.0)] {
            let (address, surplus) = aligned_origin(position, downsample).unwrap();
            assert_eq!(f64::from(address), f64::from(position) * downsample);
            assert_eq!(surplus, 0);
        }
    }

    #[test]
    fn odd_downsamples_start_near_where_a_level_pixel_begins() {
        let downsample = 16.0078;
        for position in [512, 1024, 5120] {
            let (address, surplus) = aligned_origin(position, downsample).unwrap();
            let error = f64::from(address) / downsample - f64::from(position - surplus);
            // Rounding the position itself would be off by up to half a level-0 pixel, 0.03 level pixels.
            assert!(error.abs() < 0.005, "position {position}: off by {error}");
        }
    }

    #[test]
    fn transparency_shows_the_background() {
        let mut rgb = [0; 9];
        let argb: Vec<u8> = [0xff01_0203_u32, 0x0000_0000, 0x8040_2010]
            .iter()
            .flat_map(|pixel| pixel.to_ne_bytes())
            .collect();
        composite(&argb, Rgb([200, 100, 0]), &mut rgb);
        assert_eq!(rgb, [1, 2, 3, 200, 100, 0, 0x40 + 100, 0x20 + 50, 0x10]);
    }

    #[test]
    fn four_pixels_at_a_time_are_as_one_by_one() {
        // Lengths around whole fours, with and without transparent pixels, and sources longer than the target.
        for count in 0..14_u32 {
            for transparent in [None, Some(0), Some(5), Some(9)] {
                let argb: Vec<u8> = (0..count + 3)
                    .flat_map(|pixel| {
                        let alpha = if transparent == Some(pixel) {
                            0x20
                        } else {
                            0xff
                        };
                        (alpha << 24 | (pixel * 0x01_0305 + 0x11_0702)).to_ne_bytes()
                    })
                    .collect();
                let mut found = vec![7; index(count) * 3];
                let mut expected = found.clone();
                composite(&argb, Rgb([9, 80, 200]), &mut found);
                composite_each(&argb, Rgb([9, 80, 200]), &mut expected);
                assert_eq!(found, expected, "{count} {transparent:?}");
            }
        }
    }
}
