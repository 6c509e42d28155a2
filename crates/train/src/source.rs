//! Slides as images to stream: read at one scale, normalised, decoded ahead on other threads.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use serde::{Deserialize, Serialize};
use stream_grad::{ExternalError, PixelRegion, StridedMut, TileMut, TileSource};
use stream_grad_slides::{
    BadRegionLog, BadRegionPolicy, BlockCache, Mask, MicronsPerPixel, OpenOptions, PixelScale,
    Region, Slide, SlideError, SlideView, Target, TissueOptions,
};

use crate::error::{Result, TrainError};

/// How slides are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadSettings {
    /// Mean of red, green and blue, each from 0 to 1; fixed beforehand.
    pub mean: [f64; 3],
    /// Standard deviation of red, green and blue; fixed beforehand.
    pub deviation: [f64; 3],
    /// Microns per pixel of slides that state none, or a wrong number.
    pub scale_override: Option<f64>,
    /// Which part of a slide is an image.
    pub trim: Trim,
    /// Bytes of decoded pixels that are held for the next epochs and for slides to come.
    pub held_bytes: u64,
    /// Threads that decode ahead.
    pub decoding_threads: usize,
    /// What becomes of slides of which parts cannot be decoded.
    pub bad_regions: BadRegions,
}

/// What becomes of slides of which parts cannot be decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadRegions {
    /// The run stops.
    Stop,
    /// These parts read as background; the report says how many they are.
    Background,
    /// The slide does not count.
    #[default]
    SkipSlide,
}

/// Which part of a slide is an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trim {
    /// All of it.
    #[default]
    Whole,
    /// The smallest rectangle around its tissue; all of it if none is found.
    Tissue,
}

impl Default for ReadSettings {
    /// Means and deviations that suit stained tissue on glass.
    fn default() -> Self {
        Self {
            mean: [0.82, 0.70, 0.84],
            deviation: [0.15, 0.18, 0.11],
            scale_override: None,
            trim: Trim::Whole,
            held_bytes: 1 << 30,
            decoding_threads: 1,
            bad_regions: BadRegions::default(),
        }
    }
}

impl ReadSettings {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for means that are not finite, and deviations or a scale that are not above 0.
    pub fn check(&self) -> Result<()> {
        if !self.mean.iter().all(|mean| mean.is_finite()) {
            return Err(TrainError::setting(
                "read.mean",
                "finite numbers",
                format!("{:?}", self.mean),
            ));
        }
        if !self
            .deviation
            .iter()
            .all(|deviation| deviation.is_finite() && *deviation > 0.0)
        {
            return Err(TrainError::setting(
                "read.deviation",
                "finite numbers above 0",
                format!("{:?}", self.deviation),
            ));
        }
        if let Some(scale) = self.scale_override
            && !(scale.is_finite() && scale > 0.0)
        {
            return Err(TrainError::setting(
                "read.scale_override",
                "a finite number above 0",
                scale,
            ));
        }
        Ok(())
    }
}

/// Normalised values of the 256 grey levels of each channel.
#[derive(Debug)]
struct Normalisation {
    single: [[f32; 256]; 3],
    double: [[f64; 256]; 3],
}

impl Normalisation {
    fn new(settings: &ReadSettings) -> Self {
        let value = |channel: usize, level: u8| {
            (f64::from(level) / 255.0 - settings.mean[channel]) / settings.deviation[channel]
        };
        let mut tables = Self {
            single: [[0.0; 256]; 3],
            double: [[0.0; 256]; 3],
        };
        for channel in 0..3 {
            for level in 0..=u8::MAX {
                let value = value(channel, level);
                tables.double[channel][usize::from(level)] = value;
                #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is meant")]
                let rounded = value as f32;
                tables.single[channel][usize::from(level)] = rounded;
            }
        }
        tables
    }
}

/// A slide at one scale as an image of three normalised channels.
#[derive(Debug, Clone)]
pub struct SlideSource {
    pixels: Pixels,
    normalisation: Arc<Normalisation>,
}

#[derive(Debug, Clone)]
enum Pixels {
    /// All of it, decoded: height, width, RGB.
    Held {
        extent: (u64, u64),
        rgb: Arc<Vec<u8>>,
    },
    /// Read as it is asked for.
    Read(SlideView),
}

impl SlideSource {
    /// Reads `view` as it is asked for.
    #[must_use]
    pub fn new(view: SlideView, settings: &ReadSettings) -> Self {
        Self {
            pixels: Pixels::Read(view),
            normalisation: Arc::new(Normalisation::new(settings)),
        }
    }

    fn rgb(&self, region: &PixelRegion) -> Result<Vec<u8>, ExternalError> {
        let (height, width) = self.extent();
        if region.rows.end > height || region.columns.end > width {
            let (rows, columns) = (&region.rows, &region.columns);
            return Err(format!(
                "rows {rows:?}, columns {columns:?} lie outside a slide of {height} x {width}"
            )
            .into());
        }
        let length = region.width() * 3;
        let mut rgb = vec![0; region.height() * length];
        match &self.pixels {
            Pixels::Read(view) => view.read(&signed(region)?, &mut rgb)?,
            Pixels::Held { rgb: held, .. } => {
                let (top, left, stride) = (
                    usize::try_from(region.rows.start)?,
                    usize::try_from(region.columns.start)?,
                    usize::try_from(width)? * 3,
                );
                for (row, line) in rgb.chunks_exact_mut(length.max(1)).enumerate() {
                    let start = (top + row) * stride + left * 3;
                    line.copy_from_slice(&held[start..start + length]);
                }
            }
        }
        Ok(rgb)
    }
}

fn signed(region: &PixelRegion) -> Result<Region, ExternalError> {
    let rows = i64::try_from(region.rows.start)?..i64::try_from(region.rows.end)?;
    let columns = i64::try_from(region.columns.start)?..i64::try_from(region.columns.end)?;
    Ok(Region::new(rows, columns))
}

impl TileSource for SlideSource {
    fn batch(&self) -> usize {
        1
    }

    fn channels(&self) -> usize {
        3
    }

    fn extent(&self) -> (u64, u64) {
        match &self.pixels {
            Pixels::Held { extent, .. } => *extent,
            Pixels::Read(view) => (view.extent().height, view.extent().width),
        }
    }

    fn read(
        &self,
        _image: usize,
        region: &PixelRegion,
        out: TileMut<'_>,
    ) -> Result<(), ExternalError> {
        let rgb = self.rgb(region)?;
        match out {
            TileMut::F32(tile) => normalise(&rgb, &self.normalisation.single, tile),
            TileMut::F64(tile) => normalise(&rgb, &self.normalisation.double, tile),
        }
        Ok(())
    }
}

fn normalise<T: Copy>(rgb: &[u8], tables: &[[T; 256]; 3], mut tile: StridedMut<'_, T>) {
    let rows = tile.rows();
    for (row, line) in rgb
        .chunks_exact((rgb.len() / rows.max(1)).max(1))
        .enumerate()
    {
        for (pixel, values) in line.chunks_exact(3).zip(tile.row(row).chunks_exact_mut(3)) {
            for channel in 0..3 {
                values[channel] = tables[channel][usize::from(pixel[channel])];
            }
        }
    }
}

/// Gives the image of a slide, and is told beforehand which will be asked for.
pub trait ImageLoader: Send + Sync {
    /// The slides that will be asked for next, in this order.
    fn expect(&self, upcoming: &[&Path]);

    /// The image of a slide.
    ///
    /// # Errors
    /// A slide that cannot be opened or read.
    fn load(&self, slide: &Path) -> Result<Arc<dyn TileSource>>;

    /// Whether an error that came of a slide must stop the run, instead of the slide being skipped.
    fn stops_at(&self, error: &TrainError) -> bool {
        let _ = error;
        false
    }
}

/// A shared image, as a source of its own.
#[derive(Clone)]
pub struct SharedSource(pub Arc<dyn TileSource>);

impl TileSource for SharedSource {
    fn batch(&self) -> usize {
        self.0.batch()
    }

    fn channels(&self) -> usize {
        self.0.channels()
    }

    fn extent(&self) -> (u64, u64) {
        self.0.extent()
    }

    fn read(
        &self,
        image: usize,
        region: &PixelRegion,
        out: TileMut<'_>,
    ) -> Result<(), ExternalError> {
        self.0.read(image, region, out)
    }
}

/// Loads slides at one scale, decoding those to come on threads of its own.
///
/// Decoded slides are held as long as [`ReadSettings::held_bytes`] allows, the least recently used going first. A slide
/// of more than a quarter of that is read region by region as it is streamed.
#[derive(Debug)]
pub struct SlideLoader {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    settings: ReadSettings,
    scale: MicronsPerPixel,
    normalisation: Arc<Normalisation>,
    blocks: Arc<BlockCache>,
    /// What read as background.
    bad: Arc<BadRegionLog>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<PathBuf>,
    decoding: HashSet<PathBuf>,
    held: HashMap<PathBuf, Held>,
    bytes: u64,
    clock: u64,
    stopped: bool,
}

#[derive(Debug)]
struct Held {
    source: SlideSource,
    bytes: u64,
    used: u64,
}

impl SlideLoader {
    /// Loads slides at `scale`.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for settings that cannot be used, [`TrainError::System`] if a thread is refused.
    pub fn new(scale: MicronsPerPixel, settings: ReadSettings) -> Result<Self> {
        settings.check()?;
        let threads = settings.decoding_threads;
        let shared = Arc::new(Shared {
            normalisation: Arc::new(Normalisation::new(&settings)),
            // Overlaps of neighbouring tiles of slides that are not held whole.
            blocks: Arc::new(BlockCache::new(settings.held_bytes / 4)),
            bad: Arc::default(),
            settings,
            scale,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let mut loader = Self {
            shared,
            workers: Vec::with_capacity(threads),
        };
        for _ in 0..threads {
            let shared = Arc::clone(&loader.shared);
            let worker = Builder::new()
                .name("slide-loader".to_owned())
                .spawn(move || shared.work());
            loader
                .workers
                .push(worker.map_err(|error| TrainError::System {
                    what: "a thread to decode slides",
                    reason: error.to_string(),
                })?);
        }
        Ok(loader)
    }

    /// The part of a slide that is an image, at the loader's scale.
    ///
    /// # Errors
    /// [`TrainError::Slide`].
    pub fn view(&self, slide: &Path) -> Result<SlideView> {
        self.shared.view(slide)
    }

    /// The parts of slides that read as background since the loader was made, since they cannot be decoded.
    #[must_use]
    pub fn bad_regions(&self) -> &BadRegionLog {
        &self.shared.bad
    }
}

impl ImageLoader for SlideLoader {
    fn expect(&self, upcoming: &[&Path]) {
        let mut state = self.shared.lock();
        state.queue = upcoming.iter().map(|path| path.to_path_buf()).collect();
        self.shared.changed.notify_all();
    }

    fn load(&self, slide: &Path) -> Result<Arc<dyn TileSource>> {
        let shared = &self.shared;
        let mut state = shared.lock();
        state.queue.retain(|queued| queued != slide);
        while state.decoding.contains(slide) {
            state = shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(source) = state.touch(slide) {
            return Ok(Arc::new(source));
        }
        state.decoding.insert(slide.to_path_buf());
        drop(state);
        Ok(Arc::new(shared.decode(slide)?))
    }

    fn stops_at(&self, error: &TrainError) -> bool {
        self.shared.settings.bad_regions == BadRegions::Stop && is_bad_region(error)
    }
}

/// Whether a slide's pixels could not be decoded, in whatever the error is wrapped.
fn is_bad_region(error: &TrainError) -> bool {
    if matches!(error, TrainError::Slide(SlideError::RegionFailed { .. })) {
        return true;
    }
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(SlideError::RegionFailed { .. }) = error.downcast_ref() {
            return true;
        }
        cause = error.source();
    }
    false
}

impl Drop for SlideLoader {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        for worker in self.workers.drain(..) {
            // A worker that panicked has nothing to hand over.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut state = self.lock();
            let path = loop {
                if state.stopped {
                    return;
                }
                match state.queue.pop_front() {
                    Some(path)
                        if state.decoding.contains(&path) || state.touch(&path).is_some() => {}
                    Some(path) => break path,
                    None => {
                        state = self
                            .changed
                            .wait(state)
                            .unwrap_or_else(PoisonError::into_inner)
                    }
                }
            };
            state.decoding.insert(path.clone());
            drop(state);
            if let Err(error) = self.decode(&path) {
                // Whoever asks for the slide meets the error again and reports it.
                tracing::debug!(slide = %path.display(), %error, "decoding ahead failed");
            }
        }
    }

    /// Decodes a slide that stands under `decoding`, holds it if it is small enough, and takes it off there.
    fn decode(&self, path: &Path) -> Result<SlideSource> {
        let decoded = self.open(path);
        let mut state = self.lock();
        state.decoding.remove(path);
        if let Ok((source, bytes)) = &decoded
            && matches!(source.pixels, Pixels::Held { .. })
        {
            state.hold(path, source.clone(), *bytes, self.settings.held_bytes);
        }
        self.changed.notify_all();
        Ok(decoded?.0)
    }

    fn open(&self, path: &Path) -> Result<(SlideSource, u64)> {
        let view = self.view(path)?;
        let extent = (view.extent().height, view.extent().width);
        let bytes = extent.0.saturating_mul(extent.1).saturating_mul(3);
        let pixels = match usize::try_from(bytes) {
            Ok(length) if bytes <= self.settings.held_bytes / 4 => {
                let mut rgb = vec![0; length];
                let region = PixelRegion {
                    rows: 0..extent.0,
                    columns: 0..extent.1,
                };
                let region = signed(&region).map_err(|error| TrainError::System {
                    what: "a region of a slide",
                    reason: error.to_string(),
                })?;
                view.read(&region, &mut rgb)?;
                Pixels::Held {
                    extent,
                    rgb: Arc::new(rgb),
                }
            }
            _ => Pixels::Read(view),
        };
        Ok((
            SlideSource {
                pixels,
                normalisation: Arc::clone(&self.normalisation),
            },
            bytes,
        ))
    }

    fn view(&self, path: &Path) -> Result<SlideView> {
        let mut options = OpenOptions::default().with_cache(Arc::clone(&self.blocks));
        if self.settings.bad_regions == BadRegions::Background {
            options = options.with_bad_regions(BadRegionPolicy::Background(Arc::clone(&self.bad)));
        }
        if let Some(edge) = self.settings.scale_override {
            options.scale = Some(PixelScale::square(MicronsPerPixel::new(edge)?));
        }
        let slide = Slide::open_with(path, &options)?;
        let view = slide.view(Target::MicronsPerPixel(self.scale))?;
        match self.settings.trim {
            Trim::Whole => Ok(view),
            Trim::Tissue => {
                match Mask::of_tissue(&slide, &TissueOptions::default())?.bounding_box_in(&view) {
                    Some(tissue) => Ok(view.cropped(&tissue)?),
                    None => Ok(view),
                }
            }
        }
    }
}

impl State {
    fn touch(&mut self, path: &Path) -> Option<SlideSource> {
        self.clock += 1;
        let clock = self.clock;
        self.held.get_mut(path).map(|held| {
            held.used = clock;
            held.source.clone()
        })
    }

    fn hold(&mut self, path: &Path, source: SlideSource, bytes: u64, limit: u64) {
        while self.bytes + bytes > limit {
            let oldest = self
                .held
                .iter()
                .min_by_key(|(_, held)| held.used)
                .map(|(path, _)| path.clone());
            let Some(gone) = oldest.and_then(|oldest| self.held.remove(&oldest)) else {
                break;
            };
            self.bytes -= gone.bytes;
        }
        self.clock += 1;
        let used = self.clock;
        if let Some(replaced) = self.held.insert(
            path.to_path_buf(),
            Held {
                source,
                bytes,
                used,
            },
        ) {
            self.bytes -= replaced.bytes;
        }
        self.bytes += bytes;
    }
}

#[cfg(test)]
mod tests;
