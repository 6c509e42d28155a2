//! An open slide: levels, properties, decoded blocks, associated images.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::RgbImage;
use stream_grad_files::refuse_input;

use crate::bad_regions::{BadRegion, BadRegionPolicy};
use crate::cache::{BLOCK_EDGE, Block, BlockCache, BlockKey, SlideKey};
use crate::color_profile::{ToSrgb, embedded};
use crate::error::{Result, SlideError, check_limit};
use crate::geometry::{Extent, Level, PixelScale, Region, Rgb};
use crate::levels::LevelGeometry;
use crate::numbers::to_usize;
use crate::openslide_source::OpenSlideSource;
use crate::options::{Limits, OpenOptions};
use crate::properties::Properties;
use crate::raster::RasterSource;
use crate::stored_colors::StoredColors;
use crate::tiff_pages::TiffSource;
use crate::warning::SlideWarning;

/// Bytes of decoded pixels that a slide keeps when it is not given a cache to share.
const DEFAULT_CACHE_BYTES: u64 = 64 << 20;

/// An open slide, cheap to clone and safe to share between threads.
///
/// # Examples
/// ```
/// use stream_grad_slides::{MicronsPerPixel, PyramidOptions, PyramidWriter, Region, Slide};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("slide.tiff");
/// let options = PyramidOptions::default().with_microns_per_pixel(MicronsPerPixel::new(0.5)?);
/// let mut writer = PyramidWriter::create(&path, 600, 800, &options)?;
/// writer.write_rows(&vec![200; 600 * 800 * 3])?;
/// writer.finish()?;
///
/// let slide = Slide::open(&path)?;
/// let mut rgb = vec![0; 64 * 64 * 3];
/// // At one micron per pixel the slide is 300 x 400; what lies outside is white.
/// slide.read_at(MicronsPerPixel::new(1.0)?, &Region::new(-32..32, 380..444), &mut rgb)?;
/// assert_eq!(rgb[..3], [255, 255, 255]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Slide {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    source: Source,
    levels: Vec<LevelGeometry>,
    properties: Properties,
    limits: Limits,
    cache: Arc<BlockCache>,
    key: SlideKey,
    bad_regions: BadRegionPolicy,
    warnings: Vec<SlideWarning>,
    /// The page of a TIFF file that is the finest level.
    page: usize,
    stored_colors: StoredColors,
    /// Applied to every block, if wanted.
    to_srgb: Option<ToSrgb>,
}

/// Where pixels come from.
#[derive(Debug)]
pub(crate) enum Source {
    OpenSlide(OpenSlideSource),
    /// Pages of a TIFF file; pictures that come with the slide are OpenSlide's, if it opens the file.
    Pages(TiffSource, Option<OpenSlideSource>),
    Raster(RasterSource),
}

impl Source {
    const fn openslide(&self) -> Option<&OpenSlideSource> {
        match self {
            Self::OpenSlide(source) | Self::Pages(_, Some(source)) => Some(source),
            Self::Pages(_, None) | Self::Raster(_) => None,
        }
    }
}

/// What is known of a slide when it is opened.
pub(crate) struct Parts {
    pub(crate) levels: Vec<LevelGeometry>,
    pub(crate) properties: Properties,
    pub(crate) stored_colors: StoredColors,
    pub(crate) page: usize,
    pub(crate) warnings: Vec<SlideWarning>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.cache.forget(self.key);
    }
}

impl Slide {
    /// The slide just opened, its colours converted from its profile.
    pub(crate) fn in_srgb(self) -> Result<Self> {
        let Some(profile) = self.icc_profile()? else {
            return Ok(self);
        };
        let to_srgb = ToSrgb::new(&profile, self.inner.stored_colors)
            .map_err(|reason| self.bad_profile(reason))?;
        match Arc::try_unwrap(self.inner) {
            Ok(mut inner) => {
                inner.to_srgb = Some(to_srgb);
                Ok(Self {
                    inner: Arc::new(inner),
                })
            }
            Err(inner) => Ok(Self { inner }),
        }
    }

    fn bad_profile(&self, reason: String) -> SlideError {
        SlideError::ImageFailed {
            path: self.inner.path.clone(),
            name: "ICC profile".to_owned(),
            reason,
        }
    }

    /// The file this slide was opened from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Refuses to have `output` written over the file that this slide is read from, by whatever name, link or hard link. To be
    /// called before a writer is begun that does not know the slide, such as [`PyramidWriter`](crate::PyramidWriter).
    ///
    /// # Errors
    /// [`SlideError::Destination`].
    pub fn check_output(&self, output: impl AsRef<Path>) -> Result<()> {
        refuse_input(output.as_ref(), [self.path()]).map_err(SlideError::file)
    }

    /// What the slide says about itself.
    #[must_use]
    pub fn properties(&self) -> &Properties {
        &self.inner.properties
    }

    /// What of the file is not shown, or shown in another way than its first page: empty for nearly all slides.
    ///
    /// Each is also told through `tracing` when the slide is opened.
    #[must_use]
    pub fn warnings(&self) -> &[SlideWarning] {
        &self.inner.warnings
    }

    /// The levels, finest first; there is at least one.
    #[must_use]
    pub fn levels(&self) -> &[LevelGeometry] {
        &self.inner.levels
    }

    /// One level.
    ///
    /// # Errors
    /// [`SlideError::NoSuchLevel`].
    pub fn level(&self, level: Level) -> Result<LevelGeometry> {
        self.inner
            .levels
            .get(level.0)
            .copied()
            .ok_or_else(|| SlideError::NoSuchLevel {
                path: self.inner.path.clone(),
                level,
                levels: self.inner.levels.len(),
            })
    }

    /// Size of the finest level.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.inner.levels.first().map_or(
            Extent {
                height: 0,
                width: 0,
            },
            |level| level.extent,
        )
    }

    /// Scale of the finest level.
    ///
    /// # Errors
    /// [`SlideError::NoScale`] where neither the file nor the caller states one.
    pub fn scale(&self) -> Result<PixelScale> {
        self.inner
            .properties
            .scale
            .ok_or_else(|| SlideError::NoScale {
                path: self.inner.path.clone(),
            })
    }

    /// What shows outside the slide and where nothing was scanned.
    #[must_use]
    pub fn background(&self) -> Rgb {
        self.inner.properties.background
    }

    /// Names of the images that come with the slide, such as `label`, `macro` and `thumbnail`.
    ///
    /// # Errors
    /// [`SlideError::CannotOpen`] where the slide went bad since it was opened.
    pub fn associated_image_names(&self) -> Result<Vec<String>> {
        match self.inner.source.openslide() {
            Some(source) => source.associated_image_names(),
            None => Ok(Vec::new()),
        }
    }

    /// Decodes one of the images that come with the slide. Its colours are converted as the slide's are, where it has a
    /// profile.
    ///
    /// # Errors
    /// [`SlideError::NoSuchImage`], [`SlideError::LimitExceeded`], [`SlideError::ImageFailed`].
    pub fn associated_image(&self, name: &str) -> Result<RgbImage> {
        let known = self.associated_image_names()?;
        let Some(source) = self.inner.source.openslide() else {
            return Err(self.no_such_image(name, known));
        };
        if !known.iter().any(|other| other == name) {
            return Err(self.no_such_image(name, known));
        }
        let extent = source.associated_image_extent(name)?;
        let needed = extent.height.saturating_mul(extent.width).saturating_mul(4);
        self.check_limit(
            "an associated image, in bytes,",
            needed,
            self.inner.limits.image_bytes,
        )?;
        let (extent, mut rgb) = source.associated_image(name, self.background())?;
        if self.inner.to_srgb.is_some()
            && let Some(profile) = self.associated_image_icc_profile(name)?
        {
            ToSrgb::new(&profile, StoredColors::Unknown)
                .and_then(|to_srgb| to_srgb.apply(&mut rgb))
                .map_err(|reason| self.bad_profile(reason))?;
        }
        self.image(extent, rgb)
    }

    /// The ICC profile of one of the images that come with the slide, if any.
    ///
    /// OpenSlide 4 (the feature `openslide4`) reads the image's own. A `thumbnail` without one is made of the slide's pixels,
    /// and has the slide's profile; labels and macro images are photographs by another camera.
    ///
    /// # Errors
    /// [`SlideError::NoSuchImage`], [`SlideError::ImageFailed`].
    pub fn associated_image_icc_profile(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let known = self.associated_image_names()?;
        if !known.iter().any(|other| other == name) {
            return Err(self.no_such_image(name, known));
        }
        #[cfg(feature = "openslide4")]
        if let Some(source) = self.inner.source.openslide()
            && let Some(profile) = source.associated_image_icc_profile(name)?
        {
            return Ok(Some(profile));
        }
        if name == "thumbnail" {
            return self.icc_profile();
        }
        Ok(None)
    }

    /// The ICC profile that comes with the slide, if any: what its stored colours mean.
    ///
    /// OpenSlide 4 (the feature `openslide4`) knows where each format keeps it. Else it is looked for in the file itself,
    /// which finds it in PNG, JPEG, TIFF and formats built on TIFF such as Aperio's.
    ///
    /// # Errors
    /// [`SlideError::ImageFailed`] where it cannot be read.
    pub fn icc_profile(&self) -> Result<Option<Vec<u8>>> {
        #[cfg(feature = "openslide4")]
        if let Source::OpenSlide(source) = &self.inner.source
            && let Some(profile) = source.icc_profile()?
        {
            return Ok(Some(profile));
        }
        Ok(embedded(&self.inner.path, self.inner.page))
    }

    /// Whether colours are converted from a profile.
    pub(crate) fn is_in_srgb(&self) -> bool {
        self.inner.to_srgb.is_some()
    }

    /// The page of a TIFF file that is the finest level.
    pub(crate) fn page(&self) -> usize {
        self.inner.page
    }

    /// The cache that holds this slide's decoded blocks.
    #[must_use]
    pub fn cache(&self) -> &Arc<BlockCache> {
        &self.inner.cache
    }

    /// A decoded block, given by its place on the level's grid of blocks.
    pub(crate) fn block(&self, level: Level, row: u64, column: u64) -> Result<Arc<Block>> {
        let inner = &*self.inner;
        let key = BlockKey {
            slide: inner.key,
            level,
            row,
            column,
        };
        inner.cache.get_or_decode(key, || {
            let geometry = self.level(level)?;
            let place = Region::new(block_span(row), block_span(column))
                .intersection(&geometry.extent.region());
            let width = to_usize(place.width());
            let height = to_usize(place.height());
            let mut rgb = vec![0; height.saturating_mul(width).saturating_mul(3)];
            match &inner.source {
                Source::OpenSlide(source) => {
                    let read = source.read(
                        level,
                        geometry.addressing,
                        &place,
                        self.background(),
                        &mut rgb,
                    );
                    self.apply_policy(read, &mut rgb)?;
                }
                Source::Pages(source, _) => {
                    let read = source.read(level, &place, self.background(), &mut rgb);
                    self.apply_policy(read, &mut rgb)?;
                }
                Source::Raster(source) => source.read(&place, &mut rgb),
            }
            if let Some(to_srgb) = &inner.to_srgb {
                to_srgb
                    .apply(&mut rgb)
                    .map_err(|reason| self.bad_profile(reason))?;
            }
            Ok(Block { width, rgb })
        })
    }

    /// A block that could not be decoded becomes background where the policy says so.
    fn apply_policy(&self, read: Result<()>, rgb: &mut [u8]) -> Result<()> {
        match (read, &self.inner.bad_regions) {
            (
                Err(SlideError::RegionFailed {
                    path,
                    level,
                    region,
                    reason,
                }),
                BadRegionPolicy::Background(log),
            ) => {
                let Rgb(background) = self.background();
                for pixel in rgb.chunks_exact_mut(3) {
                    pixel.copy_from_slice(&background);
                }
                log.record(BadRegion {
                    path,
                    level,
                    region,
                    reason,
                });
                Ok(())
            }
            (read, _) => read,
        }
    }

    /// Makes a picture of RGB bytes.
    pub(crate) fn image(&self, extent: Extent, rgb: Vec<u8>) -> Result<RgbImage> {
        let too_large = || SlideError::LimitExceeded {
            path: self.inner.path.clone(),
            what: "a picture's side",
            needed: extent.height.max(extent.width),
            limit: u64::from(u32::MAX),
        };
        let width = u32::try_from(extent.width).map_err(|_| too_large())?;
        let height = u32::try_from(extent.height).map_err(|_| too_large())?;
        RgbImage::from_raw(width, height, rgb).ok_or_else(too_large)
    }

    pub(crate) fn check_limit(&self, what: &'static str, needed: u64, limit: u64) -> Result<()> {
        check_limit(&self.inner.path, what, needed, limit)
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    fn no_such_image(&self, name: &str, known: Vec<String>) -> SlideError {
        SlideError::NoSuchImage {
            path: self.inner.path.clone(),
            name: name.to_owned(),
            known,
        }
    }

    /// A slide of its parts; what the caller states of it wins.
    pub(crate) fn assemble(
        path: &Path,
        source: Source,
        parts: Parts,
        options: &OpenOptions,
    ) -> Self {
        let mut properties = parts.properties;
        properties.scale = options.scale.or(properties.scale);
        let cache = options
            .cache
            .clone()
            .unwrap_or_else(|| Arc::new(BlockCache::new(DEFAULT_CACHE_BYTES)));
        Self {
            inner: Arc::new(Inner {
                path: path.to_path_buf(),
                source,
                levels: parts.levels,
                properties,
                limits: options.limits,
                cache,
                key: SlideKey::next(),
                bad_regions: options.bad_regions.clone(),
                warnings: parts.warnings,
                page: parts.page,
                stored_colors: parts.stored_colors,
                to_srgb: None,
            }),
        }
    }
}

fn block_span(index: u64) -> std::ops::Range<i64> {
    let start = i64::try_from(index.saturating_mul(BLOCK_EDGE)).unwrap_or(i64::MAX);
    start..start.saturating_add_unsigned(BLOCK_EDGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_images_must_have_their_length() {
        let extent = Extent {
            height: 2,
            width: 3,
        };
        let refused = |extent, rgb| {
            let slide = Slide::from_rgb("a", extent, rgb, &OpenOptions::default());
            slide.unwrap_err().to_string()
        };
        assert_eq!(
            refused(extent, vec![0; 17]),
            "a buffer of RGB, in bytes (height x width x 3), needs 18, found 17"
        );
        let empty = Extent {
            height: 0,
            width: 3,
        };
        assert_eq!(
            refused(empty, Vec::new()),
            "the image's extent must be at least one pixel, found 0 x 3 (height x width)"
        );
        let slide =
            Slide::from_rgb("a", extent, (0..18).collect(), &OpenOptions::default()).unwrap();
        let mut rgb = [0; 3];
        slide
            .read_level(Level(0), &Region::new(1..2, 2..3), &mut rgb)
            .unwrap();
        assert_eq!(rgb, [15, 16, 17]);
        assert_eq!(
            slide.scale().unwrap_err().to_string(),
            "slide a states no microns per pixel and none were given"
        );
        assert_eq!(
            slide.level(Level(1)).unwrap_err().to_string(),
            "slide a has levels 0 to 0, level 1 was asked for"
        );
    }
}
