//! A slide as the image of `vjp` and of `plan`.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use stream_grad::tiling::PerAxis;
use stream_grad::{ByteCount, PlanRequest};
use stream_grad_slides::{
    BlockCache, Level, MicronsPerPixel, OpenOptions, Slide, SlideView, Target,
};
use stream_grad_train::source::{Background, ReadSettings, SlideSource};

/// Bytes of decoded pixels that are held for neighbouring tiles, where the budget is not small.
const LARGEST_CACHE: u64 = 64 << 20;
/// Bytes for the lists of a slide and its cache.
const BOOKKEEPING: u64 = 4 << 20;

/// A slide at one scale. Red, green and blue are values from 0 to 1.
#[derive(Debug)]
pub(crate) struct SlideInput {
    view: SlideView,
    pub(crate) source: SlideSource,
    background: Background,
}

impl SlideInput {
    /// Opens the slide at `mpp` microns per pixel, or its finest level. Of a budget, an eighth holds decoded pixels. Where the background
    /// is filled, tissue is found here.
    pub(crate) fn open(
        path: &Path,
        mpp: Option<f64>,
        memory: Option<ByteCount>,
        background: Background,
    ) -> anyhow::Result<Self> {
        let cache = memory.map_or(LARGEST_CACHE, |memory| LARGEST_CACHE.min(memory.get() / 8));
        let options = OpenOptions::default().with_cache(Arc::new(BlockCache::new(cache)));
        let slide = Slide::open_with(path, &options)?;
        let target = match mpp {
            Some(mpp) => Target::MicronsPerPixel(MicronsPerPixel::new(mpp)?),
            None => Target::Level(Level(0)),
        };
        let view = slide
            .view(target)
            .with_context(|| format!("reading {}", path.display()))?;
        let settings = ReadSettings {
            mean: [0.0; 3],
            deviation: [1.0; 3],
            background,
            ..ReadSettings::default()
        };
        Ok(Self {
            source: SlideSource::new(view.clone(), &settings)?,
            view,
            background,
        })
    }

    /// `[1, 3, H, W]`.
    pub(crate) fn shape(&self) -> [u64; 4] {
        let extent = self.view.extent();
        [1, 3, extent.height, extent.width]
    }

    /// The request with what the slide says of reuse: where its background is filled, and how much that is.
    pub(crate) fn reusing(&self, request: PlanRequest) -> PlanRequest {
        let request = request.reuse(self.background.reuse());
        request.texture(self.source.texture())
    }

    /// The most heap bytes that reading tiles of this size holds: the cache, the pixels of a tile (twice where a part is decoded and the
    /// rest filled, with the mask that says so), those that are decoded ahead, and for each thread, with the one that decodes ahead, a row of
    /// blocks across it. OpenSlide's own memory is no heap of this program's.
    pub(crate) fn bytes(&self, tile: PerAxis<u64>, threads: usize) -> u64 {
        let slide = self.view.slide();
        let level = slide.level(self.view.level()).ok();
        // Columns of the level that a tile covers: at most all of it.
        let columns = level.map_or(0, |level| {
            let whole = self.view.extent().width.max(1);
            let part = u128::from(level.extent.width) * u128::from(tile.columns.min(whole));
            u64::try_from(part.div_ceil(u128::from(whole))).unwrap_or(u64::MAX)
        });
        let blocks = columns.div_ceil(BlockCache::BLOCK_EDGE).saturating_add(2);
        // Three bytes a pixel once decoded, four while OpenSlide's are converted, and the filter's sums.
        let row = blocks.saturating_mul(BlockCache::BLOCK_EDGE * BlockCache::BLOCK_EDGE * 7);
        let times = match self.background {
            Background::AsRead => 3,
            Background::Fill => 6,
        };
        let pixels = tile.rows.saturating_mul(tile.columns);
        let threads = (threads as u64).saturating_add(1);
        slide
            .cache()
            .capacity()
            .saturating_add(pixels.saturating_mul(times))
            .saturating_add(self.source.ahead_bytes(pixels))
            .saturating_add(row.saturating_mul(threads))
            .saturating_add(self.source.filling_bytes())
            .saturating_add(BOOKKEEPING)
    }
}
