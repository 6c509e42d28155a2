//! Who reads a file: OpenSlide, this crate's reader of TIFF pages, or a decoder of plain pictures.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Result, SlideError, check_rgb_length};
use crate::geometry::{Extent, PixelScale};
use crate::levels::{LevelGeometry, check_tiles};
use crate::openslide_source::OpenSlideSource;
use crate::options::{ColorManagement, OpenOptions};
use crate::properties::Properties;
use crate::raster::RasterSource;
use crate::slide::{Parts, Slide, Source};
use crate::tiff_pages::{Decision, InOpenSlide, TiffPages};

impl Slide {
    /// Opens any file that OpenSlide reads, or a PNG, JPEG or TIFF without a pyramid, with the default [`OpenOptions`].
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &OpenOptions::default())
    }

    /// Opens any file that OpenSlide reads, or a PNG, JPEG or TIFF without a pyramid.
    ///
    /// A TIFF file that no scanner wrote may have several pages. The slide is then the largest page that has the shape of the first
    /// page in tiles, or of the first page where none is in tiles. [`warnings`](Self::warnings) names the pages that are not shown.
    ///
    /// This crate reads what OpenSlide would show wrongly: pages that are to be turned (the tag Orientation), samples beyond the
    /// colours (alpha only where the file says so), ZSTD and WebP.
    ///
    /// # Errors
    /// [`SlideError::CannotOpen`] where no reader knows the file, [`SlideError::Unsupported`] where its pixels are known but
    /// are not read, such as floating-point numbers, [`SlideError::Io`] where it cannot be read at all,
    /// [`SlideError::LimitExceeded`] where it declares more than [`Limits`](crate::Limits) allow, [`SlideError::ImageFailed`]
    /// for an ICC profile that cannot be applied though that is wanted.
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let path = path.as_ref();
        std::fs::File::open(path).map_err(|error| SlideError::io(path, error))?;
        let tiff = TiffPages::open(path)?;
        let slide = match (OpenSlideSource::open(path), tiff) {
            (Ok(source), tiff) => Self::from_openslide(path, source, tiff, options)?,
            (Err(openslide_error), Some(tiff)) => {
                let decision = tiff.decide(None);
                Self::from_pages(tiff, decision, None, options)
                    .map_err(|error| both(path, &openslide_error, error))?
            }
            (Err(openslide_error), None) => {
                let source = RasterSource::open(path, options.limits.image_bytes)
                    .map_err(|error| both(path, &openslide_error, error))?;
                Self::from_raster(path, source, options)
            }
        };
        for warning in slide.warnings() {
            tracing::warn!(path = %path.display(), "{warning}");
        }
        match options.colors {
            ColorManagement::AsStored => Ok(slide),
            ColorManagement::ToSrgb => slide.in_srgb(),
        }
    }

    /// A slide of one level over pixels in memory. `name` stands for the path in errors.
    ///
    /// # Shapes
    /// `rgb`: `height x width x 3`.
    ///
    /// # Errors
    /// [`SlideError::BufferLength`] if `rgb` has another length, [`SlideError::InvalidArgument`] if the extent is empty.
    pub fn from_rgb(
        name: impl Into<std::path::PathBuf>,
        extent: Extent,
        rgb: Vec<u8>,
        options: &OpenOptions,
    ) -> Result<Self> {
        check_rgb_length(extent.height, extent.width, rgb.len())?;
        if rgb.is_empty() {
            return Err(SlideError::InvalidArgument {
                what: "the image's extent",
                expected: "at least one pixel",
                found: extent.to_string(),
            });
        }
        Ok(Self::from_raster(
            &name.into(),
            RasterSource::new(extent, rgb),
            options,
        ))
    }

    fn from_raster(path: &Path, source: RasterSource, options: &OpenOptions) -> Self {
        let parts = Parts {
            levels: vec![LevelGeometry::single(source.extent)],
            properties: Properties::from_raw(BTreeMap::new()),
            stored_colors: source.stored_colors,
            page: 0,
            warnings: Vec::new(),
        };
        Self::assemble(path, Source::Raster(source), parts, options)
    }

    fn from_openslide(
        path: &Path,
        source: OpenSlideSource,
        tiff: Option<TiffPages>,
        options: &OpenOptions,
    ) -> Result<Self> {
        let raw: BTreeMap<String, String> = source.raw_properties()?.into_iter().collect();
        let sizes = source.levels();
        let extents: Vec<Extent> = sizes.iter().map(|&(extent, _)| extent).collect();
        let decision = match tiff {
            None => Decision::default(),
            Some(tiff) => {
                let decision = tiff.decide(Some(&InOpenSlide {
                    vendor: raw.get("openslide.vendor").map(String::as_str),
                    levels: &extents,
                }));
                if decision.pages.is_some() {
                    return Self::from_pages(tiff, decision, Some((source, raw)), options);
                }
                decision
            }
        };
        check_tiles(path, &raw, sizes.len(), options.limits.tile_bytes)?;
        let parts = Parts {
            levels: LevelGeometry::all(path, &sizes)?,
            properties: Properties::from_raw(raw),
            stored_colors: decision.stored_colors,
            page: decision.page,
            warnings: decision.warnings,
        };
        Ok(Self::assemble(
            path,
            Source::OpenSlide(source),
            parts,
            options,
        ))
    }

    /// A slide whose pages are read here, with what OpenSlide says of the file, if it opens it.
    fn from_pages(
        tiff: TiffPages,
        decision: Decision,
        opened: Option<(OpenSlideSource, BTreeMap<String, String>)>,
        options: &OpenOptions,
    ) -> Result<Self> {
        let path = tiff.path().to_path_buf();
        let (openslide, raw) = opened.unzip();
        let mut properties = Properties::from_raw(raw.unwrap_or_default());
        let scale = tiff.scale(decision.page);
        match properties.vendor.as_deref() {
            // What OpenSlide says is of the page that it shows.
            None | Some("generic-tiff") => properties.scale = scale,
            Some(_) if tiff.is_transposed(decision.page) => {
                properties.scale = properties.scale.map(PixelScale::transposed);
            }
            Some(_) => {}
        }
        let source = tiff.into_source(&decision.pages.unwrap_or_default(), &options.limits)?;
        let levels = LevelGeometry::all(&path, &source.sizes())?;
        let source = if source.is_tiled() {
            Source::Pages(source, openslide)
        } else {
            let (extent, rgb) = source.read_whole(properties.background)?;
            Source::Raster(RasterSource::new(extent, rgb))
        };
        let parts = Parts {
            levels,
            properties,
            stored_colors: decision.stored_colors,
            page: decision.page,
            warnings: decision.warnings,
        };
        Ok(Self::assemble(&path, source, parts, options))
    }
}

/// What both readers said, where neither reads the file for what it holds.
fn both(path: &Path, openslide_error: &SlideError, error: SlideError) -> SlideError {
    match error {
        SlideError::CannotOpen { reason, .. } | SlideError::RegionFailed { reason, .. } => {
            let reason = format!("as a slide: {openslide_error}; as an image: {reason}");
            SlideError::cannot_open(path, reason)
        }
        other => other,
    }
}
