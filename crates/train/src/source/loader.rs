//! Slides to come are decoded ahead, and held for the next epoch.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use stream_grad::{PixelRegion, TileSource};
use stream_grad_slides::{
    BlockCache, Mask, MicronsPerPixel, OpenOptions, PixelScale, Slide, SlideView, Target,
    TissueOptions,
};

use super::slide::{Normalisation, Pixels, SlideSource, signed};
use super::{ImageLoader, ReadSettings, Trim};
use crate::error::{Result, TrainError};

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
mod tests {
    use stream_grad::{StridedMut, TileMut};
    use stream_grad_slides::{Compression, PyramidOptions, PyramidWriter};

    use super::*;

    fn slide(folder: &Path, name: &str, seed: u8) -> PathBuf {
        let path = folder.join(name);
        let options = PyramidOptions::default()
            .with_compression(Compression::Deflate)
            .with_microns_per_pixel(MicronsPerPixel::new(1.0).unwrap());
        let mut writer = PyramidWriter::create(&path, 60, 80, &options).unwrap();
        let rgb: Vec<u8> = (0..60 * 80 * 3_u32)
            .map(|i| u8::try_from(i * 7 % 251).unwrap() ^ seed)
            .collect();
        writer.write_rows(&rgb).unwrap();
        writer.finish().unwrap();
        path
    }

    fn read(source: &dyn TileSource, region: &PixelRegion) -> Vec<f32> {
        let length = region.width() * 3;
        let mut out = vec![f32::NAN; region.height() * length];
        let tile = StridedMut::new(&mut out, region.height(), length, length).unwrap();
        source.read(0, region, TileMut::F32(tile)).unwrap();
        out
    }

    #[test]
    fn held_and_streamed_slides_agree_and_are_normalised() {
        let folder = tempfile::tempdir().unwrap();
        let path = slide(folder.path(), "a.tif", 0);
        let settings = ReadSettings {
            mean: [0.5, 0.25, 0.0],
            deviation: [0.5, 2.0, 1.0],
            ..ReadSettings::default()
        };
        let streamed = ReadSettings {
            held_bytes: 0,
            ..settings.clone()
        };
        let scale = MicronsPerPixel::new(1.0).unwrap();
        let held = SlideLoader::new(scale, settings)
            .unwrap()
            .load(&path)
            .unwrap();
        let streamed = SlideLoader::new(scale, streamed)
            .unwrap()
            .load(&path)
            .unwrap();
        assert_eq!((held.extent(), streamed.extent()), ((60, 80), (60, 80)));
        let region = PixelRegion {
            rows: 3..41,
            columns: 17..80,
        };
        let values = read(&*held, &region);
        assert_eq!(values, read(&*streamed, &region));
        let level = f32::from(u8::try_from((3 * 80 + 17) * 3 * 7 % 251_u32).unwrap());
        assert!((values[0] - (level / 255.0 - 0.5) / 0.5).abs() < 1e-6);
        let outside = PixelRegion {
            rows: 0..61,
            columns: 0..1,
        };
        let mut out = vec![0.0; 61 * 3];
        assert!(
            held.read(
                0,
                &outside,
                TileMut::F32(StridedMut::new(&mut out, 61, 3, 3).unwrap())
            )
            .is_err()
        );
    }

    #[test]
    fn slides_decoded_ahead_are_the_same_and_memory_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..6)
            .map(|i| slide(folder.path(), &format!("{i}.tif"), i))
            .collect();
        let one = 60 * 80 * 3;
        let settings = ReadSettings {
            held_bytes: 4 * one,
            decoding_threads: 2,
            ..ReadSettings::default()
        };
        let loader =
            SlideLoader::new(MicronsPerPixel::new(1.0).unwrap(), settings.clone()).unwrap();
        loader.expect(&paths.iter().map(PathBuf::as_path).collect::<Vec<_>>());
        let plain = SlideLoader::new(
            MicronsPerPixel::new(1.0).unwrap(),
            ReadSettings {
                decoding_threads: 0,
                ..settings
            },
        )
        .unwrap();
        let region = PixelRegion {
            rows: 0..60,
            columns: 0..80,
        };
        for path in paths.iter().chain(&paths) {
            assert_eq!(
                read(&*loader.load(path).unwrap(), &region),
                read(&*plain.load(path).unwrap(), &region)
            );
            assert!(loader.shared.lock().bytes <= 4 * one);
        }
    }

    #[test]
    fn a_missing_slide_is_named_each_time() {
        let loader =
            SlideLoader::new(MicronsPerPixel::new(1.0).unwrap(), ReadSettings::default()).unwrap();
        let path = Path::new("nowhere/there.tif");
        loader.expect(&[path]);
        for _ in 0..2 {
            let error = loader.load(path).err().unwrap().to_string();
            assert!(error.contains("there.tif"), "{error}");
        }
    }
}
