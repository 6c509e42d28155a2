//! Decoding regions on other threads before they are asked for.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use crate::bands::Parallelism;
use crate::error::{Result, SlideError, check_rgb_length};
use crate::geometry::Region;
use crate::numbers::to_usize;
use crate::view::SlideView;

/// How far and on how many threads to read ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadAheadOptions {
    /// Threads that decode, at most four for each core.
    pub threads: NonZeroUsize,
    /// Regions decoded or being decoded but not yet taken, at most.
    pub depth: NonZeroUsize,
}

impl ReadAheadOptions {
    /// Regions of the largest size, three bytes a pixel, that are in memory at most with one reader: those ahead of it, and the one that it
    /// copies.
    #[must_use]
    pub const fn most_regions(self) -> usize {
        self.depth.get().saturating_add(1)
    }
}

/// Reads the regions of a known schedule ahead of their use.
///
/// Threads of its own decode the regions in the order of the schedule, at most
/// [`depth`](ReadAheadOptions::depth) ahead of the reader, and never touch the rayon pool that computes.
/// [`read`](Self::read) then only copies. It may be called from several threads, in another order than the schedule's and
/// with regions that are not in it: it is always right, and fast when the schedule is kept. Scheduled regions that the
/// reader passed over by more than the depth are dropped.
///
/// # Examples
/// ```
/// use std::num::NonZeroUsize;
/// use stream_grad_slides::{Extent, OpenOptions, ReadAhead, ReadAheadOptions, Region, Slide, Target};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let extent = Extent { height: 64, width: 64 };
/// let slide = Slide::from_rgb("memory", extent, vec![9; 64 * 64 * 3], &OpenOptions::default())?;
/// let schedule: Vec<Region> = (0..4).map(|row| Region::new(row * 16..row * 16 + 16, 0..64)).collect();
/// let options = ReadAheadOptions { threads: NonZeroUsize::MIN, depth: NonZeroUsize::MIN };
/// let ahead = ReadAhead::new(slide.view(Target::Downsample(1.0))?, schedule.clone(), options)?;
/// let mut rgb = vec![0; 16 * 64 * 3];
/// for region in &schedule {
///     ahead.read(region, &mut rgb)?;
///     assert_eq!(rgb[0], 9);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ReadAhead {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    view: SlideView,
    schedule: Vec<Region>,
    depth: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    entries: Vec<Entry>,
    /// Places in the schedule of each region, those not yet taken.
    places: HashMap<Region, VecDeque<usize>>,
    /// No entry before this one waits.
    next: usize,
    /// Entries being decoded or ready.
    ahead: usize,
    /// Entries before this one are no longer kept for the reader.
    passed: usize,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
    stopped: bool,
}

#[derive(Debug)]
enum Entry {
    Waiting,
    Decoding,
    Ready(Result<Vec<u8>>),
    Done,
}

impl ReadAhead {
    /// Starts to decode `schedule`, regions in pixels of `view`.
    ///
    /// # Errors
    /// [`SlideError::TooManyThreads`] for more than four for each core, [`SlideError::Io`] if the system refuses a thread.
    pub fn new(view: SlideView, schedule: Vec<Region>, options: ReadAheadOptions) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let (threads, most) = (options.threads.get(), 4 * cores);
        if threads > most {
            return Err(SlideError::TooManyThreads {
                threads,
                cores,
                most,
            });
        }
        let mut places: HashMap<Region, VecDeque<usize>> = HashMap::new();
        for (place, region) in schedule.iter().enumerate() {
            places.entry(region.clone()).or_default().push_back(place);
        }
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                entries: schedule.iter().map(|_| Entry::Waiting).collect(),
                places,
                next: 0,
                ahead: 0,
                passed: 0,
                spare: Vec::new(),
                stopped: false,
            }),
            view,
            schedule,
            depth: options.depth.get(),
            changed: Condvar::new(),
        });
        let mut reader = Self {
            shared,
            workers: Vec::new(),
        };
        for _ in 0..options.threads.get() {
            let shared = Arc::clone(&reader.shared);
            let worker = Builder::new()
                .name("slide-read-ahead".to_owned())
                .spawn(move || shared.work())
                .map_err(|error| SlideError::io(reader.view().slide().path(), error))?;
            reader.workers.push(worker);
        }
        Ok(reader)
    }

    /// The view that is read.
    #[must_use]
    pub fn view(&self) -> &SlideView {
        &self.shared.view
    }

    /// Reads a region: from what was decoded ahead, or at once if it is not scheduled or not begun.
    ///
    /// # Shapes
    /// As [`SlideView::read`].
    ///
    /// # Errors
    /// As [`SlideView::read`]; an error met ahead of time is returned when its region is read.
    pub fn read(&self, region: &Region, rgb: &mut [u8]) -> Result<()> {
        check_rgb_length(region.height(), region.width(), rgb.len())?;
        match self.shared.take(region) {
            Some(decoded) => {
                let decoded = decoded?;
                rgb.copy_from_slice(&decoded);
                self.shared.lock().spare.push(decoded);
                Ok(())
            }
            None => self.shared.view.read(region, rgb),
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        for worker in self.workers.drain(..) {
            // A worker that panicked has nothing left to clean up.
            drop(worker.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What was decoded of `region`; none if the caller has to read it.
    fn take(&self, region: &Region) -> Option<Result<Vec<u8>>> {
        let mut state = self.lock();
        let place = state.places.get_mut(region)?.pop_front()?;
        let decoded = loop {
            match std::mem::replace(&mut state.entries[place], Entry::Done) {
                Entry::Decoding => {
                    state.entries[place] = Entry::Decoding;
                    state = self.wait(state);
                }
                Entry::Ready(decoded) => {
                    state.ahead -= 1;
                    break Some(decoded);
                }
                Entry::Waiting | Entry::Done => break None,
            }
        };
        state.pass_over(place.saturating_sub(self.depth));
        drop(state);
        self.changed.notify_all();
        decoded
    }

    fn work(&self) {
        while let Some((place, mut rgb)) = self.claim() {
            let claim = Claim {
                shared: self,
                place,
            };
            let region = &self.schedule[place];
            let length = to_usize(region.height())
                .saturating_mul(to_usize(region.width()))
                .saturating_mul(3);
            if rgb.capacity() < length {
                // What is too small goes first, and no more comes than is needed: growing doubles.
                drop(std::mem::take(&mut rgb));
                rgb.reserve_exact(length);
            }
            rgb.resize(length, 0);
            let decoded = self
                .view
                .read_with(region, &mut rgb, Parallelism::Calling)
                .map(|()| rgb);
            claim.finish(decoded);
        }
    }

    /// The next place to decode and a buffer for it; none once there is nothing left to do.
    fn claim(&self) -> Option<(usize, Vec<u8>)> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            while matches!(state.entries.get(state.next), Some(entry) if !matches!(entry, Entry::Waiting))
            {
                state.next += 1;
            }
            if state.next == state.entries.len() {
                return None;
            }
            if state.ahead < self.depth {
                break;
            }
            state = self.wait(state);
        }
        let place = state.next;
        state.next += 1;
        state.ahead += 1;
        state.entries[place] = Entry::Decoding;
        Some((place, state.spare.pop().unwrap_or_default()))
    }
}

impl State {
    /// Gives up what lies before `place` and was never taken, so that a reader that skips does not stop the workers.
    fn pass_over(&mut self, place: usize) {
        for index in self.passed..place {
            match std::mem::replace(&mut self.entries[index], Entry::Done) {
                Entry::Decoding => self.entries[index] = Entry::Decoding,
                Entry::Ready(decoded) => {
                    self.spare.extend(decoded);
                    self.ahead -= 1;
                }
                Entry::Waiting | Entry::Done => {}
            }
        }
        self.passed = self.passed.max(place);
    }
}

/// A place that is being decoded. If its worker panics, the reader reads it instead of waiting for ever.
struct Claim<'a> {
    shared: &'a Shared,
    place: usize,
}

impl Claim<'_> {
    fn finish(self, decoded: Result<Vec<u8>>) {
        let mut state = self.shared.lock();
        if self.place < state.passed {
            state.spare.extend(decoded);
        } else {
            state.entries[self.place] = Entry::Ready(decoded);
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if matches!(state.entries[self.place], Entry::Decoding) {
            state.entries[self.place] = Entry::Done;
            state.ahead -= 1;
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Extent;
    use crate::options::OpenOptions;
    use crate::slide::Slide;
    use crate::view::Target;

    fn view() -> SlideView {
        let extent = Extent {
            height: 40,
            width: 30,
        };
        let rgb = (0..40 * 30 * 3)
            .map(|i| u8::try_from(i % 256).unwrap())
            .collect();
        let slide = Slide::from_rgb("memory", extent, rgb, &OpenOptions::default()).unwrap();
        slide.view(Target::Downsample(1.5)).unwrap()
    }

    fn schedule() -> Vec<Region> {
        let regions = (-2..6).map(|row| Region::new(row * 5..row * 5 + 7, -3..20));
        regions.clone().chain(regions.rev()).collect()
    }

    fn options(threads: usize, depth: usize) -> ReadAheadOptions {
        ReadAheadOptions {
            threads: NonZeroUsize::new(threads).unwrap(),
            depth: NonZeroUsize::new(depth).unwrap(),
        }
    }

    fn check(ahead: &ReadAhead, region: &Region) {
        let length = to_usize(region.height() * region.width() * 3);
        let (mut rgb, mut expected) = (vec![1; length], vec![2; length]);
        ahead.read(region, &mut rgb).unwrap();
        ahead.view().read(region, &mut expected).unwrap();
        assert_eq!(rgb, expected, "{region}");
    }

    #[test]
    fn more_than_four_threads_for_each_core_are_refused() {
        let cores = std::thread::available_parallelism().unwrap().get();
        let refused = |threads| {
            let ahead = ReadAhead::new(view(), schedule(), options(threads, 1));
            ahead.err().map(|error| error.to_string())
        };
        assert_eq!(refused(4 * cores), None);
        for threads in [4 * cores + 1, 999_999] {
            let message = refused(threads).unwrap();
            let expected = format!(
                "{threads} threads on {cores} cores: expected at most {}",
                4 * cores
            );
            assert!(message.contains(&expected), "{message}");
        }
    }

    #[test]
    fn every_order_gives_the_views_pixels() {
        let mut backwards = schedule();
        backwards.reverse();
        let skipping: Vec<Region> = schedule().into_iter().step_by(3).collect();
        let strange = vec![Region::new(100..104, 0..3), Region::new(0..1, 0..1)];
        for (threads, depth) in [(1, 1), (2, 1), (3, 4), (2, 100)] {
            for order in [
                schedule(),
                backwards.clone(),
                skipping.clone(),
                strange.clone(),
            ] {
                let ahead = ReadAhead::new(view(), schedule(), options(threads, depth)).unwrap();
                for region in &order {
                    check(&ahead, region);
                    assert!(ahead.shared.lock().ahead <= depth);
                }
            }
        }
    }

    #[test]
    fn no_more_is_held_than_is_said() {
        let schedule: Vec<Region> = (1..12).map(|rows| Region::new(0..rows, 0..20)).collect();
        let options = options(1, 2);
        let ahead = ReadAhead::new(view(), schedule.clone(), options).unwrap();
        for region in &schedule {
            check(&ahead, region);
        }
        let state = ahead.shared.lock();
        let held: usize = state.spare.iter().map(Vec::capacity).sum();
        assert!(held <= options.most_regions() * 11 * 20 * 3, "{held}");
    }

    #[test]
    fn several_readers_share_one_schedule() {
        let ahead = ReadAhead::new(view(), schedule(), options(2, 2)).unwrap();
        std::thread::scope(|scope| {
            for part in 0..4 {
                let ahead = &ahead;
                scope.spawn(move || {
                    schedule()
                        .iter()
                        .skip(part)
                        .step_by(4)
                        .for_each(|region| check(ahead, region))
                });
            }
        });
    }

    #[test]
    fn wrong_buffers_are_refused_and_keep_the_place() {
        let ahead = ReadAhead::new(view(), schedule(), options(1, 1)).unwrap();
        let region = &schedule()[0];
        assert_eq!(
            ahead.read(region, &mut [0; 4]).unwrap_err().to_string(),
            format!(
                "a buffer of RGB, in bytes (height x width x 3), needs {}, found 4",
                region.height() * region.width() * 3
            )
        );
        check(&ahead, &schedule()[0]);
    }

    #[test]
    fn dropping_early_stops_the_workers() {
        drop(ReadAhead::new(view(), schedule(), options(2, 1)).unwrap());
    }
}
