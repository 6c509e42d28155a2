//! What to do where a slide cannot be decoded.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::geometry::{Level, Region};

/// Entries of a log that are kept whole; the rest is counted.
const KEPT: usize = 1000;

/// What a read does where pixels cannot be decoded.
#[derive(Clone, Debug, Default)]
pub enum BadRegionPolicy {
    /// It fails with [`SlideError::RegionFailed`](crate::SlideError::RegionFailed). Whoever reads many slides may skip this
    /// one then, or stop.
    #[default]
    Fail,
    /// The block that holds the bad pixels (512 x 512 pixels of its level) reads as background, and is put down in the log.
    Background(Arc<BadRegionLog>),
}

/// Pixels that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRegion {
    /// The slide.
    pub path: PathBuf,
    /// The level that was read.
    pub level: Level,
    /// The block that was given up, in the level's own pixels.
    pub region: Region,
    /// What the decoder said.
    pub reason: String,
}

/// Where bad regions of any number of slides are put down, each once, however often it is read.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use stream_grad_slides::{BadRegionLog, BadRegionPolicy, OpenOptions};
/// let log = Arc::new(BadRegionLog::default());
/// let options = OpenOptions::default().with_bad_regions(BadRegionPolicy::Background(Arc::clone(&log)));
/// // Open and read slides with `options`; then:
/// println!("{} regions could not be read", log.count());
/// for bad in log.regions() {
///     println!("{}, level {}: {}: {}", bad.path.display(), bad.level.0, bad.region, bad.reason);
/// }
/// ```
#[derive(Debug, Default)]
pub struct BadRegionLog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seen: HashSet<(PathBuf, Level, Region)>,
    kept: Vec<BadRegion>,
}

impl BadRegionLog {
    /// How many different regions could not be read.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().seen.len()
    }

    /// How many different regions of each slide could not be read; slides without any are not in it.
    #[must_use]
    pub fn by_slide(&self) -> BTreeMap<PathBuf, usize> {
        let mut counts = BTreeMap::new();
        for (path, ..) in &self.lock().seen {
            *counts.entry(path.clone()).or_default() += 1;
        }
        counts
    }

    /// The first thousand of them, in the order in which they were met.
    #[must_use]
    pub fn regions(&self) -> Vec<BadRegion> {
        self.lock().kept.clone()
    }

    pub(crate) fn record(&self, bad: BadRegion) {
        let mut state = self.lock();
        let key = (bad.path.clone(), bad.level, bad.region.clone());
        if state.seen.insert(key) {
            tracing::warn!(path = %bad.path.display(), level = bad.level.0, region = %bad.region, reason = bad.reason, "a region reads as background");
            if state.kept.len() < KEPT {
                state.kept.push(bad);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
