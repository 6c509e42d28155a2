//! Slides to come are decoded ahead, and held for the next epoch.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use stream_grad::{Rect, TileSource};
use stream_grad_slides::{
    BadRegionLog, BadRegionPolicy, BlockCache, Mask, MicronsPerPixel, OpenOptions, PixelScale,
    Slide, SlideError, SlideView, StatedScale, Target, TissueOptions,
};

use super::background::Filling;
use super::slide::{Normalisation, Pixels, SlideSource, ViewPixels, of_slide};
use super::{Background, BadRegions, ImageLoader, ReadSettings, Trim};
use crate::data::Sample;
use crate::error::{Result, TrainError};

/// Loads slides at one scale, decoding those to come on threads of its own.
///
/// Decoded slides are held as long as [`ReadSettings::held_bytes`] allows, the least recently used going first; those that were decoded
/// ahead stay until they are loaded, and a thread that has no room for one more waits with it in hand. A slide of more than a quarter of
/// that is read region by region as it is streamed.
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
    /// Where what is found out about slides is kept.
    folder: Option<PathBuf>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Scales that are stated beside slides.
    scales: HashMap<PathBuf, MicronsPerPixel>,
    queue: VecDeque<PathBuf>,
    /// What was announced and has not been loaded yet, and how often it will be.
    expected: HashMap<PathBuf, usize>,
    decoding: HashSet<PathBuf>,
    /// What threads have decoded and have no room for yet, with its bytes.
    in_hand: HashMap<PathBuf, (SlideSource, u64)>,
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
        Self::build(scale, settings, None)
    }

    /// Loads slides at `scale`, and keeps what it finds out about them in `folder`: masks of tissue as pictures in `masks`,
    /// profiles of stains as JSON in `stains`. What is there already is used.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_folder(
        scale: MicronsPerPixel,
        settings: ReadSettings,
        folder: impl Into<PathBuf>,
    ) -> Result<Self> {
        Self::build(scale, settings, Some(folder.into()))
    }

    fn build(
        scale: MicronsPerPixel,
        settings: ReadSettings,
        folder: Option<PathBuf>,
    ) -> Result<Self> {
        settings.check()?;
        let threads = settings.decoding_threads;
        let shared = Arc::new(Shared {
            normalisation: Arc::new(Normalisation::new(&settings)),
            // Overlaps of neighbouring tiles of slides that are not held whole.
            blocks: Arc::new(BlockCache::new(settings.held_bytes / 4)),
            bad: Arc::default(),
            folder,
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

    /// Scales that `samples` state for their slides' finest levels; they are used in place of the files' and the settings'. To be
    /// called before slides are asked for.
    pub fn state_scales(&self, samples: &[Sample]) {
        let stated = samples
            .iter()
            .filter_map(|sample| Some((sample.slide.clone(), sample.microns_per_pixel?)));
        self.shared.lock().scales.extend(stated);
    }

    /// The part of a slide that is an image, at the loader's scale.
    ///
    /// # Errors
    /// [`TrainError::Slide`].
    pub fn view(&self, slide: &Path) -> Result<SlideView> {
        self.shared.view(slide)
    }

    /// Whether the scale that a slide's mask states is to be that of the slide: not where the slide's is given in place of its own.
    pub(super) fn stated_scale(&self, slide: &Path) -> StatedScale {
        let is_given = self.shared.settings.scale_override.is_some()
            || self.shared.lock().scales.contains_key(slide);
        if is_given {
            StatedScale::PassedOver
        } else {
            StatedScale::Compared
        }
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
        state.expected.clear();
        for path in upcoming {
            *state.expected.entry(path.to_path_buf()).or_default() += 1;
        }
        self.shared.changed.notify_all();
    }

    fn load(&self, slide: &Path) -> Result<Arc<dyn TileSource>> {
        let shared = &self.shared;
        let limit = shared.settings.held_bytes;
        let mut state = shared.lock();
        state.queue.retain(|queued| queued != slide);
        while state.decoding.contains(slide) {
            state = shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(times) = state.expected.get_mut(slide) {
            *times -= 1;
            if *times == 0 {
                state.expected.remove(slide);
                // There may be room for what is in hand now.
                shared.changed.notify_all();
            }
        }
        if let Some((source, bytes)) = state.in_hand.remove(slide) {
            state.hold(slide, &source, bytes, limit);
            return Ok(Arc::new(source));
        }
        if let Some(source) = state.touch(slide) {
            return Ok(Arc::new(source));
        }
        state.decoding.insert(slide.to_path_buf());
        drop(state);
        let opened = shared.open(slide);
        let mut state = shared.lock();
        state.decoding.remove(slide);
        if let Ok((source, bytes)) = &opened
            && source.is_held()
        {
            state.hold(slide, source, *bytes, limit);
        }
        shared.changed.notify_all();
        Ok(Arc::new(opened?.0))
    }

    fn stops_at(&self, error: &TrainError) -> bool {
        // A label map that does not fit is no accident of one slide.
        is_label_map(error)
            || (self.shared.settings.bad_regions == BadRegions::Stop && is_bad_region(error))
    }
}

/// Whether a label map did not fit, in whatever the error is wrapped.
fn is_label_map(error: &TrainError) -> bool {
    matches!(error, TrainError::LabelMap { .. })
        || causes(error)
            .any(|cause| matches!(cause.downcast_ref(), Some(TrainError::LabelMap { .. })))
}

/// Whether a slide's pixels could not be decoded, in whatever the error is wrapped.
fn is_bad_region(error: &TrainError) -> bool {
    matches!(error, TrainError::Slide(SlideError::RegionFailed { .. }))
        || causes(error)
            .any(|cause| matches!(cause.downcast_ref(), Some(SlideError::RegionFailed { .. })))
}

/// What an error came of, and what that came of.
fn causes(error: &TrainError) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(error), |cause| cause.source())
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
                        if state.decoding.contains(&path)
                            || state.in_hand.contains_key(&path)
                            || state.touch(&path).is_some() => {}
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
            let opened = self.open(&path);
            let mut state = self.lock();
            state.decoding.remove(&path);
            match opened {
                Ok(decoded) if decoded.0.is_held() => {
                    state.in_hand.insert(path.clone(), decoded);
                    self.changed.notify_all();
                    self.put_down(state, &path);
                }
                Ok(_) => self.changed.notify_all(),
                Err(error) => {
                    self.changed.notify_all();
                    // Whoever asks for the slide meets the error again and reports it.
                    tracing::debug!(slide = %path.display(), %error, "decoding ahead failed");
                }
            }
        }
    }

    /// Waits with a slide in hand until there is room for it beside what is expected, or it was taken, or is not expected any more.
    fn put_down(&self, mut state: MutexGuard<'_, State>, path: &Path) {
        while !state.stopped {
            let Some((source, bytes)) = state.in_hand.get(path).cloned() else {
                return;
            };
            let is_held = state.hold(path, &source, bytes, self.settings.held_bytes);
            if is_held || !state.expected.contains_key(path) {
                state.in_hand.remove(path);
                return;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn open(&self, path: &Path) -> Result<(SlideSource, u64)> {
        let (view, filling) = self.view_and_filling(path)?;
        let pixels = ViewPixels::new(view.clone(), filling);
        let stains = self.folder.as_deref().map(|folder| folder.join("stains"));
        let mut stain = self
            .settings
            .stain
            .normalizer(view.slide(), stains.as_deref())?;
        let extent = (view.extent().height, view.extent().width);
        let bytes = extent.0.saturating_mul(extent.1).saturating_mul(3);
        let pixels = match usize::try_from(bytes) {
            Ok(length) if bytes <= self.settings.held_bytes / 4 => {
                let mut rgb = vec![0; length];
                let region = Rect::whole(extent.0, extent.1);
                pixels.read(&of_slide(region), &mut rgb)?;
                if let Some(stain) = stain.take() {
                    stain.apply(&mut rgb)?;
                }
                Pixels::Held {
                    extent,
                    rgb: Arc::new(rgb),
                }
            }
            _ => Pixels::Read(pixels),
        };
        Ok((
            SlideSource {
                pixels,
                stain,
                normalisation: Arc::clone(&self.normalisation),
            },
            bytes,
        ))
    }

    fn view(&self, path: &Path) -> Result<SlideView> {
        let slide = self.slide(path)?;
        let tissue = match self.settings.trim {
            Trim::Whole => None,
            Trim::Tissue => Some(self.tissue(&slide)?),
        };
        self.view_of(&slide, tissue.as_ref())
    }

    /// What is read of a slide, and what is filled of it: tissue is looked for once.
    fn view_and_filling(&self, path: &Path) -> Result<(SlideView, Option<Filling>)> {
        let slide = self.slide(path)?;
        let settings = &self.settings;
        let needs_tissue = settings.trim == Trim::Tissue || settings.background == Background::Fill;
        let tissue = needs_tissue.then(|| self.tissue(&slide)).transpose()?;
        let filled = tissue
            .as_ref()
            .filter(|_| settings.background == Background::Fill);
        let filling = filled.and_then(|tissue| settings.filling(&slide, tissue));
        Ok((self.view_of(&slide, tissue.as_ref())?, filling))
    }

    fn slide(&self, path: &Path) -> Result<Slide> {
        let mut options = OpenOptions::default()
            .with_cache(Arc::clone(&self.blocks))
            .with_colors(self.settings.colors);
        if self.settings.bad_regions == BadRegions::Background {
            options = options.with_bad_regions(BadRegionPolicy::Background(Arc::clone(&self.bad)));
        }
        let stated = self.lock().scales.get(path).copied();
        let given = self.settings.scale_override.map(MicronsPerPixel::new);
        if let Some(edge) = stated.map_or(given.transpose()?, Some) {
            options.scale = Some(PixelScale::square(edge));
        }
        Ok(Slide::open_with(path, &options)?)
    }

    /// The slide at this loader's scale, trimmed to the tissue if it is to be.
    fn view_of(&self, slide: &Slide, tissue: Option<&Mask>) -> Result<SlideView> {
        let view = slide.view(Target::MicronsPerPixel(self.scale))?;
        let trimmed = tissue.filter(|_| self.settings.trim == Trim::Tissue);
        match trimmed.and_then(|tissue| tissue.bounding_box_in(&view)) {
            Some(around) => Ok(view.cropped(&around)?),
            None => Ok(view),
        }
    }

    fn tissue(&self, slide: &Slide) -> Result<Mask> {
        let options = TissueOptions::default();
        Ok(match &self.folder {
            Some(folder) => Mask::of_tissue_cached(slide, &options, folder.join("masks"))?,
            None => Mask::of_tissue(slide, &options)?,
        })
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

    /// Holds a slide if there is room, for which those go that are not expected, the least recently used first.
    fn hold(&mut self, path: &Path, source: &SlideSource, bytes: u64, limit: u64) -> bool {
        if let Some(replaced) = self.held.remove(path) {
            self.bytes -= replaced.bytes;
        }
        let may_go = |path: &PathBuf| !self.expected.contains_key(path);
        let others = self.held.iter().filter(|(path, _)| may_go(path));
        let room: u64 = others.map(|(_, held)| held.bytes).sum();
        if self.bytes - room + bytes > limit {
            return false;
        }
        while self.bytes + bytes > limit {
            let others = self.held.iter().filter(|(path, _)| may_go(path));
            let oldest = others
                .min_by_key(|(_, held)| held.used)
                .map(|(path, _)| path.clone());
            let Some(gone) = oldest.and_then(|oldest| self.held.remove(&oldest)) else {
                return false;
            };
            self.bytes -= gone.bytes;
        }
        self.clock += 1;
        let held = Held {
            source: source.clone(),
            bytes,
            used: self.clock,
        };
        self.held.insert(path.to_path_buf(), held);
        self.bytes += bytes;
        true
    }
}

#[cfg(test)]
mod tests;
