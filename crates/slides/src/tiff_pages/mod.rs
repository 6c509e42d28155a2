//! TIFF files whose pages are read here, and the choice between this reader and OpenSlide.
//!
//! OpenSlide reads the pyramids of scanners. Of other TIFF files it shows the first page, as libtiff converts it to RGBA: libtiff
//! takes any fourth sample for alpha, and turns tiles one by one. So the directories are read first, and this reader takes what
//! OpenSlide would show wrongly.

mod choice;
mod directory;
mod orientation;
mod page;
mod reader;
mod row;
mod stream;

use std::path::{Path, PathBuf};

use self::choice::{Choice, choose, passed_over};
use self::directory::{Tag, TiffFile};
use self::page::{Compression, Page, Photometric, Refusal};
use self::reader::PageReader;
use crate::error::{Result, SlideError, check_limit};
use crate::geometry::{Extent, Level, PixelScale, Region, Rgb};
use crate::numbers::to_usize;
use crate::options::Limits;
use crate::properties::{ResolutionUnit, tiff_resolution};
use crate::stored_colors::StoredColors;
use crate::warning::SlideWarning;

/// A TIFF file's pages.
#[derive(Debug)]
pub(crate) struct TiffPages {
    path: PathBuf,
    file: TiffFile,
    pages: Vec<Page>,
}

/// What OpenSlide makes of a file.
pub(crate) struct InOpenSlide<'a> {
    pub(crate) vendor: Option<&'a str>,
    /// Sizes of its levels.
    pub(crate) levels: &'a [Extent],
}

/// Who reads a file, and what its user should know.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    /// The pages that this crate reads, the slide first and then its smaller levels; none where OpenSlide is to read.
    pub(crate) pages: Option<Vec<usize>>,
    /// The page that is the finest level.
    pub(crate) page: usize,
    /// What that page's colours are stored as.
    pub(crate) stored_colors: StoredColors,
    pub(crate) warnings: Vec<SlideWarning>,
}

impl TiffPages {
    /// The pages of a file; none if it is no TIFF file.
    ///
    /// # Errors
    /// [`SlideError::Io`].
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        let Some(file) = TiffFile::open(path)? else {
            return Ok(None);
        };
        let pages: Vec<Page> = (0..file.pages())
            .filter_map(|index| Page::read(&file, index))
            .collect();
        Ok((!pages.is_empty()).then(|| Self {
            path: path.to_path_buf(),
            file,
            pages,
        }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Decides who reads the file.
    pub(crate) fn decide(&self, openslide: Option<&InOpenSlide<'_>>) -> Decision {
        let decision = match openslide {
            Some(opened) if opened.vendor == Some("generic-tiff") => self.decide_generic(opened),
            Some(opened) if opened.vendor == Some("aperio") => self.decide_aperio(opened),
            // Formats of other scanners keep their pixels in ways of their own.
            Some(_) => None,
            None => self.decide_alone(),
        };
        decision.unwrap_or_else(|| Decision {
            stored_colors: self.stored_colors(0),
            ..Decision::default()
        })
    }

    fn decide_alone(&self) -> Option<Decision> {
        let is_shown = |page: &&Page| !page.is_mask;
        let mut tiled = self.pages.iter().filter(|page| page.is_tiled);
        let first = tiled
            .find(is_shown)
            .or_else(|| self.pages.iter().find(is_shown))?;
        let choice = choose(&self.pages, first);
        Some(self.decision(choice))
    }

    fn decide_generic(&self, opened: &InOpenSlide<'_>) -> Option<Decision> {
        let shown = self.page_of(*opened.levels.first()?)?;
        let choice = choose(&self.pages, shown);
        let is_shown = choice.slide.index == shown.index;
        let mut decision = self.decision(choice);
        if is_shown && self.levels_are_safe(opened.levels) {
            decision.pages = None;
        }
        Some(decision)
    }

    /// Aperio's slide is the first page, its levels all pages in tiles.
    fn decide_aperio(&self, opened: &InOpenSlide<'_>) -> Option<Decision> {
        let (finest, smaller) = opened.levels.split_first()?;
        let slide = self.page_of(*finest)?;
        let choice = Choice {
            slide,
            smaller: smaller
                .iter()
                .filter_map(|&level| self.page_of(level))
                .collect(),
            warnings: passed_over(slide).into_iter().collect(),
        };
        let mut decision = self.decision(choice);
        if self.levels_are_safe(opened.levels) {
            decision.pages = None;
        }
        Some(decision)
    }

    /// To read here what was chosen.
    fn decision(&self, choice: Choice<'_>) -> Decision {
        let pages = [choice.slide].into_iter().chain(choice.smaller);
        let page = choice.slide.index;
        Decision {
            pages: Some(pages.map(|page| page.index).collect()),
            page,
            stored_colors: self.stored_colors(page),
            warnings: choice.warnings,
        }
    }

    /// The page that OpenSlide, which does not turn pages, shows as a level of this size.
    fn page_of(&self, level: Extent) -> Option<&Page> {
        self.pages
            .iter()
            .find(|page| page.is_tiled && page.stored == level)
    }

    fn levels_are_safe(&self, levels: &[Extent]) -> bool {
        self.pages
            .iter()
            .filter(|page| page.is_tiled && levels.contains(&page.stored))
            .all(Page::is_safe_in_openslide)
    }

    fn page(&self, index: usize) -> Option<&Page> {
        self.pages.iter().find(|page| page.index == index)
    }

    /// Whether a page's rows are shown as columns.
    pub(crate) fn is_transposed(&self, page: usize) -> bool {
        self.page(page)
            .is_some_and(|page| page.orientation.is_transposed())
    }

    fn stored_colors(&self, page: usize) -> StoredColors {
        match self.page(page) {
            Some(page) if page.is_gray() => StoredColors::Gray,
            Some(page) if page.is_cmyk() => StoredColors::Cmyk,
            Some(_) => StoredColors::Rgb,
            None => StoredColors::Unknown,
        }
    }

    /// What stands against taking a page's pixels for numbers of one byte, as they are stored.
    pub(crate) fn is_no_number(&self, page: usize) -> Option<String> {
        let Some(page) = self.page(page) else {
            return Some("no such page".to_owned());
        };
        let storage = match page.storage() {
            Ok(storage) => storage,
            Err(Refusal::Unsupported(what) | Refusal::Damaged(what)) => return Some(what),
        };
        let is_number = page.samples == 1
            && storage.bits == 8
            && storage.photometric == Photometric::BlackIsZero
            && storage.compression != Compression::Jpeg;
        (!is_number).then(|| {
            format!(
                "{:?} of {} samples of {} bits, compression {:?}",
                storage.photometric, page.samples, storage.bits, storage.compression
            )
        })
    }

    pub(crate) fn icc_profile(&self, page: usize) -> Option<Vec<u8>> {
        self.file.bytes(page, Tag::IccProfile)
    }

    /// The scale that a page states by its resolution tags, as it is shown.
    pub(crate) fn scale(&self, page: usize) -> Option<PixelScale> {
        let unit = match self.file.number(page, Tag::ResolutionUnit) {
            None | Some(2) => ResolutionUnit::Inch,
            Some(3) => ResolutionUnit::Centimetre,
            Some(_) => return None,
        };
        let axis = |tag| {
            let pixels = self.file.fractions(page, tag)?;
            tiff_resolution(*pixels.first()?, unit)
        };
        let (x, y) = (axis(Tag::XResolution)?, axis(Tag::YResolution)?);
        let scale = PixelScale { x, y };
        // Turning a page by a right angle turns its pixels, too.
        Some(if self.is_transposed(page) {
            scale.transposed()
        } else {
            scale
        })
    }

    /// Makes ready for reading these pages, the first of which is the slide.
    ///
    /// # Errors
    /// [`SlideError::Unsupported`], [`SlideError::CannotOpen`], [`SlideError::LimitExceeded`].
    pub(crate) fn into_source(self, levels: &[usize], limits: &Limits) -> Result<TiffSource> {
        let refused = |refusal| match refusal {
            Refusal::Unsupported(what) => SlideError::Unsupported {
                path: self.path.clone(),
                what,
            },
            Refusal::Damaged(reason) => SlideError::cannot_open(&self.path, reason),
        };
        let mut readers = Vec::new();
        for &index in levels {
            let Some(page) = self.page(index) else {
                continue;
            };
            if page.is_tiled {
                let bytes = page.chunk_bytes();
                check_limit(&self.path, "one tile, in bytes,", bytes, limits.tile_bytes)?;
            }
            let reader = PageReader::new(&self.file, page.clone()).map_err(refused)?;
            if !page.is_tiled {
                let Extent { height, width } = reader.extent();
                let needed = height.saturating_mul(width).saturating_mul(3);
                let needed = needed.max(reader.scratch_bytes());
                let what = "decoding the whole image, in bytes,";
                check_limit(&self.path, what, needed, limits.image_bytes)?;
            }
            readers.push(reader);
        }
        let is_tiled = levels
            .first()
            .and_then(|&index| self.page(index))
            .is_some_and(|page| page.is_tiled);
        Ok(TiffSource {
            path: self.path,
            file: self.file,
            levels: readers,
            is_tiled,
        })
    }
}

/// Pages that are read here.
#[derive(Debug)]
pub(crate) struct TiffSource {
    path: PathBuf,
    file: TiffFile,
    levels: Vec<PageReader>,
    is_tiled: bool,
}

impl TiffSource {
    /// Whether parts of the finest level can be decoded by themselves.
    pub(crate) const fn is_tiled(&self) -> bool {
        self.is_tiled
    }

    /// Size of each level as shown, and how much smaller it is.
    pub(crate) fn sizes(&self) -> Vec<(Extent, f64)> {
        let extents: Vec<Extent> = self.levels.iter().map(PageReader::extent).collect();
        let Some(&finest) = extents.first() else {
            return Vec::new();
        };
        let ratio =
            |fine: u64, coarse: u64| crate::numbers::float(fine) / crate::numbers::float(coarse);
        extents
            .into_iter()
            .map(|extent| {
                let rows = ratio(finest.height, extent.height);
                (
                    extent,
                    f64::midpoint(rows, ratio(finest.width, extent.width)),
                )
            })
            .collect()
    }

    /// Reads `region`, which lies inside the level, as RGB over `background`.
    pub(crate) fn read(
        &self,
        level: Level,
        region: &Region,
        background: Rgb,
        rgb: &mut [u8],
    ) -> Result<()> {
        let failed = |reason| SlideError::RegionFailed {
            path: self.path.clone(),
            level,
            region: region.clone(),
            reason,
        };
        let Some(reader) = self.levels.get(level.0) else {
            return Err(failed("there is no such level".to_owned()));
        };
        reader
            .read(&self.file, region, background, rgb)
            .map_err(failed)
    }

    /// The whole finest level, if memory can be had.
    pub(crate) fn read_whole(&self, background: Rgb) -> Result<(Extent, Vec<u8>)> {
        let Some((extent, _)) = self.sizes().first().copied() else {
            return Err(SlideError::cannot_open(&self.path, "it has no pages"));
        };
        let bytes = extent.height.saturating_mul(extent.width).saturating_mul(3);
        let mut rgb = Vec::new();
        rgb.try_reserve_exact(to_usize(bytes))
            .map_err(|error| SlideError::cannot_open(&self.path, error))?;
        rgb.resize(to_usize(bytes), 0);
        self.read(Level(0), &extent.region(), background, &mut rgb)?;
        Ok((extent, rgb))
    }
}
