//! A slide at one scale as an image to stream.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;
use stream_grad::{ExternalError, Rect, StridedMut, TileMut, TileSource};
use stream_grad_slides::{ReadAhead, ReadAheadOptions, Region, SlideView, StainNormalizer};

use super::ReadSettings;
use crate::error::Result as TrainResult;

/// Normalised values of the 256 grey levels of each channel.
#[derive(Debug)]
pub(super) struct Normalisation {
    single: [[f32; 256]; 3],
    double: [[f64; 256]; 3],
}

impl Normalisation {
    pub(super) fn new(settings: &ReadSettings) -> Self {
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
    pub(super) pixels: Pixels,
    /// Applied to what is read; pixels that are held have it applied already.
    pub(super) stain: Option<StainNormalizer>,
    pub(super) normalisation: Arc<Normalisation>,
}

#[derive(Debug, Clone)]
pub(super) enum Pixels {
    /// All of it, decoded: height, width, RGB.
    Held {
        extent: (u64, u64),
        rgb: Arc<Vec<u8>>,
    },
    /// Read as it is asked for, or ahead of that.
    Read { view: SlideView, ahead: Ahead },
}

impl Pixels {
    pub(super) fn read(view: SlideView) -> Self {
        Self::Read {
            view,
            ahead: Ahead::default(),
        }
    }
}

/// A thread that decodes what the sweep at hand will ask for. Of one source: a clone has its own.
#[derive(Debug, Default)]
pub(super) struct Ahead(Mutex<Option<Arc<ReadAhead>>>);

impl Clone for Ahead {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Ahead {
    /// One thread keeps ahead of a network that computes on all cores; two regions are decoded while one is used.
    const OPTIONS: ReadAheadOptions = ReadAheadOptions {
        threads: NonZeroUsize::MIN,
        depth: NonZeroUsize::MIN.saturating_add(1),
    };

    fn begin(&self, view: &SlideView, schedule: Vec<Region>) {
        // Without a thread, regions are decoded as they are asked for.
        let begun = ReadAhead::new(view.clone(), schedule, Self::OPTIONS).ok();
        let before = std::mem::replace(&mut *self.lock(), begun.map(Arc::new));
        // Waits for its thread, not for the lock.
        drop(before);
    }

    fn current(&self) -> Option<Arc<ReadAhead>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<ReadAhead>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SlideSource {
    /// Reads `view` as it is asked for; within a sweep, a thread of its own decodes the next regions ahead.
    ///
    /// Of the settings, `mean`, `deviation` and `stain` count: where stains are to be made alike, that of the whole slide is
    /// estimated here.
    ///
    /// # Errors
    /// [`TrainError::Slide`](crate::TrainError::Slide) for a slide whose stain cannot be estimated.
    pub fn new(view: SlideView, settings: &ReadSettings) -> TrainResult<Self> {
        Ok(Self {
            stain: settings.stain.normalizer(view.slide(), None)?,
            pixels: Pixels::read(view),
            normalisation: Arc::new(Normalisation::new(settings)),
        })
    }

    /// The region's pixels, row by row, with stains made alike.
    fn decode(
        &self,
        view: &SlideView,
        ahead: &Ahead,
        region: Rect,
    ) -> Result<Vec<u8>, ExternalError> {
        let mut rgb = vec![0; region.height() * region.width() * 3];
        let region = of_slide(region);
        match ahead.current() {
            Some(ahead) => ahead.read(&region, &mut rgb)?,
            None => view.read(&region, &mut rgb)?,
        }
        if let Some(stain) = &self.stain {
            stain.apply(&mut rgb)?;
        }
        Ok(rgb)
    }

    fn normalise(&self, rgb: Rows<'_>, out: TileMut<'_>) {
        match out {
            TileMut::F32(tile) => normalise(rgb, &self.normalisation.single, tile),
            TileMut::F64(tile) => normalise(rgb, &self.normalisation.double, tile),
        }
    }
}

/// Rows of RGB values in memory.
#[derive(Clone, Copy)]
struct Rows<'a> {
    values: &'a [u8],
    /// Where the first begins, and how far apart they are.
    first: usize,
    pitch: usize,
}

/// The same rectangle as slides have it.
pub(super) fn of_slide(region: Rect) -> Region {
    let Rect { rows, columns } = region;
    Region::new(rows.lo..rows.hi, columns.lo..columns.hi)
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
            Pixels::Read { view, .. } => (view.extent().height, view.extent().width),
        }
    }

    fn expect_reads(&self, reads: &mut dyn Iterator<Item = (usize, Rect)>) {
        if let Pixels::Read { view, ahead } = &self.pixels {
            let regions = reads.map(|(_, region)| of_slide(region));
            ahead.begin(view, regions.collect());
        }
    }

    fn read(&self, _image: usize, region: Rect, out: TileMut<'_>) -> Result<(), ExternalError> {
        let (height, width) = self.extent();
        if !Rect::whole(height, width).covers(region) {
            return Err(format!("{region} lies outside a slide of {height} x {width}").into());
        }
        match &self.pixels {
            Pixels::Held { rgb, .. } => {
                let pitch = usize::try_from(width)? * 3;
                let (top, left) = (region.rows.lo, region.columns.lo);
                let rows = Rows {
                    values: rgb,
                    first: usize::try_from(top)? * pitch + usize::try_from(left)? * 3,
                    pitch,
                };
                self.normalise(rows, out);
            }
            Pixels::Read { view, ahead } => {
                let rows = Rows {
                    values: &self.decode(view, ahead, region)?,
                    first: 0,
                    pitch: region.width() * 3,
                };
                self.normalise(rows, out);
            }
        }
        Ok(())
    }
}

fn normalise<T: Copy + Send + Sync>(
    rgb: Rows<'_>,
    tables: &[[T; 256]; 3],
    mut tile: StridedMut<'_, T>,
) {
    tile.par_rows().enumerate().for_each(|(row, values)| {
        let line = &rgb.values[rgb.first + row * rgb.pitch..][..values.len()];
        for (pixel, values) in line.chunks_exact(3).zip(values.chunks_exact_mut(3)) {
            for channel in 0..3 {
                values[channel] = tables[channel][usize::from(pixel[channel])];
            }
        }
    });
}
