//! How long a run took, and how much of that it waited for pixels.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use stream_grad::{ExternalError, Rect, TileMut, TileSource};

use crate::source::LabelSource;

/// Seconds of the training since it was last started; what came before a checkpoint is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Timing {
    /// From the first slide to the last, validation included.
    pub seconds: f64,
    /// Of these, until a slide was open and its pixels, normalised and augmented, were in a tile.
    pub waiting_seconds: f64,
}

impl Timing {
    /// The share of the time that was spent waiting for pixels; 0 for no time.
    #[must_use]
    pub fn waiting_share(&self) -> f64 {
        if self.seconds > 0.0 {
            self.waiting_seconds / self.seconds
        } else {
            0.0
        }
    }
}

/// A clock that only runs while something is waited for.
#[derive(Debug, Default)]
pub(super) struct Clock(AtomicU64);

impl Clock {
    /// Runs `work` and adds the time that it takes.
    pub(super) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        let nanoseconds = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(nanoseconds, Ordering::Relaxed);
        result
    }

    pub(super) fn seconds(&self) -> f64 {
        Duration::from_nanos(self.0.load(Ordering::Relaxed)).as_secs_f64()
    }
}

/// A source of pixels or labels whose reads are timed.
pub(super) struct Timed<'a, S> {
    pub(super) source: S,
    pub(super) clock: &'a Clock,
}

impl<S: TileSource> TileSource for Timed<'_, S> {
    fn batch(&self) -> usize {
        self.source.batch()
    }

    fn channels(&self) -> usize {
        self.source.channels()
    }

    fn extent(&self) -> (u64, u64) {
        self.source.extent()
    }

    fn expect_reads(&self, reads: &mut dyn Iterator<Item = (usize, Rect)>) {
        self.source.expect_reads(reads);
    }

    fn one_color(&self, image: usize, region: Rect) -> Result<Option<Vec<f64>>, ExternalError> {
        self.clock.during(|| self.source.one_color(image, region))
    }

    fn read(&self, image: usize, region: Rect, out: TileMut<'_>) -> Result<(), ExternalError> {
        self.clock.during(|| self.source.read(image, region, out))
    }
}

impl<S: LabelSource> LabelSource for Timed<'_, S> {
    fn extent(&self) -> (u64, u64) {
        self.source.extent()
    }

    fn read(&self, region: Rect, labels: &mut [u8]) -> Result<(), ExternalError> {
        self.clock.during(|| self.source.read(region, labels))
    }
}
