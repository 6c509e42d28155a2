//! Loops over tasks on all threads of the caller's rayon pool, and a clock that says what the threads lose by them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rayon::prelude::*;

/// Clocks that run: without any, loops are not timed.
static CLOCKS: AtomicUsize = AtomicUsize::new(0);

/// Nanoseconds of all loops that were timed, and of all their tasks.
static LOOPS: AtomicU64 = AtomicU64::new(0);
static TASKS: AtomicU64 = AtomicU64::new(0);

/// The least number of pieces of a loop for each thread, of which rayon makes up to twice as many, where it has as many tasks: then
/// little is left to one thread alone at the end, and cutting takes little beside short tasks, such as rows.
const PIECES_PER_THREAD: usize = 32;

/// Runs `work` for every task, on all threads of the caller's rayon pool; a [`LoopClock`] sees it. A task runs no such loop of its own,
/// whose time would be counted twice.
///
/// ```
/// use rayon::prelude::*;
/// use stream_grad_kernels::parallel_for;
///
/// let mut values = [1, 2, 3];
/// parallel_for(values.par_iter_mut(), |value| *value *= 2);
/// assert_eq!(values, [2, 4, 6]);
/// ```
#[inline(always)]
pub fn parallel_for<Tasks: IndexedParallelIterator>(
    tasks: Tasks,
    work: impl Fn(Tasks::Item) + Sync + Send,
) {
    let is_timed = CLOCKS.load(Ordering::Relaxed) > 0;
    let begin = || is_timed.then(Instant::now);
    let start = begin();
    // By itself rayon cuts a loop for two threads into about four pieces, and the one that is last runs alone.
    let pieces = PIECES_PER_THREAD * rayon::current_num_threads();
    let longest = tasks.len().div_ceil(pieces).max(1);
    tasks.with_max_len(longest).for_each(
        #[inline(always)]
        |task| {
            let start = begin();
            work(task);
            count(&TASKS, start);
        },
    );
    count(&LOOPS, start);
}

/// Adds the time since `start`, if it was taken.
fn count(total: &AtomicU64, start: Option<Instant>) {
    if let Some(start) = start {
        // In so many bits there is room for 584 years.
        let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        total.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

/// Times the loops of this process while it lives, whoever runs them.
///
/// ```
/// use stream_grad_kernels::{LoopClock, Rect, ViewMut, fill};
///
/// let clock = LoopClock::start();
/// let mut values = vec![0.0_f32; 1 << 20];
/// fill(1.0, ViewMut::new(&mut values, Rect::whole(1 << 10, 1 << 10), 1)?);
/// let idle = clock.read().idle_in_loops(rayon::current_num_threads());
/// println!("of all threads' time, {:.1}% is lost in loops", 100.0 * idle);
/// # Ok::<(), stream_grad_kernels::KernelError>(())
/// ```
#[derive(Debug)]
pub struct LoopClock {
    start: Instant,
    loops: u64,
    tasks: u64,
}

impl LoopClock {
    /// A clock that runs from now on.
    #[must_use = "it runs while it lives"]
    pub fn start() -> Self {
        CLOCKS.fetch_add(1, Ordering::Relaxed);
        Self {
            start: Instant::now(),
            loops: LOOPS.load(Ordering::Relaxed),
            tasks: TASKS.load(Ordering::Relaxed),
        }
    }

    /// What has passed since its start.
    #[must_use]
    pub fn read(&self) -> LoopTimes {
        let since = |total: &AtomicU64, before: u64| {
            Duration::from_nanos(total.load(Ordering::Relaxed).saturating_sub(before))
        };
        LoopTimes {
            elapsed: self.start.elapsed(),
            loops: since(&LOOPS, self.loops),
            tasks: since(&TASKS, self.tasks),
        }
    }
}

impl Drop for LoopClock {
    fn drop(&mut self) {
        CLOCKS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a [`LoopClock`] has seen, of work that was one loop after another with serial parts between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopTimes {
    /// Time that has passed.
    pub elapsed: Duration,
    /// Time of it in loops.
    pub loops: Duration,
    /// Time that threads spent in tasks of loops, all threads together.
    pub tasks: Duration,
}

impl LoopTimes {
    /// Share of the time of `threads` threads in which they wait at the beginnings and ends of loops.
    #[must_use]
    pub fn idle_in_loops(&self, threads: usize) -> f64 {
        let all = threads_of(threads) * self.loops.as_secs_f64();
        self.share(threads, all - self.tasks.as_secs_f64())
    }

    /// Share of the time of `threads` threads in which they wait for the one that runs a serial part.
    #[must_use]
    pub fn idle_in_serial_parts(&self, threads: usize) -> f64 {
        let serial = self.elapsed.saturating_sub(self.loops).as_secs_f64();
        self.share(threads, (threads_of(threads) - 1.0) * serial)
    }

    fn share(&self, threads: usize, idle: f64) -> f64 {
        let all = threads_of(threads) * self.elapsed.as_secs_f64();
        if all > 0.0 { idle.max(0.0) / all } else { 0.0 }
    }
}

#[expect(clippy::cast_precision_loss, reason = "few threads")]
fn threads_of(threads: usize) -> f64 {
    threads.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten seconds, of which eight in loops: of twenty of two threads, two are lost to serial parts, and what tasks do not fill of
    /// sixteen to loops.
    #[test]
    fn shares_are_of_all_threads() {
        let seconds = Duration::from_secs;
        let times = LoopTimes {
            elapsed: seconds(10),
            loops: seconds(8),
            tasks: seconds(15),
        };
        assert_eq!(times.idle_in_loops(2), 1.0 / 20.0);
        assert_eq!(times.idle_in_serial_parts(2), 2.0 / 20.0);
        assert_eq!(times.idle_in_serial_parts(1), 0.0);
        let none = LoopTimes {
            elapsed: seconds(0),
            loops: seconds(0),
            tasks: seconds(0),
        };
        assert_eq!(none.idle_in_loops(2) + none.idle_in_serial_parts(2), 0.0);
    }

    /// A loop is counted whole, and each of its tasks.
    #[test]
    fn a_clock_sees_loops_and_tasks() {
        let nap = Duration::from_millis(5);
        let clock = LoopClock::start();
        parallel_for((0..4).into_par_iter(), |_| std::thread::sleep(nap));
        let times = clock.read();
        assert!(times.tasks >= 4 * nap, "{times:?}");
        assert!(times.loops >= nap && times.elapsed >= nap, "{times:?}");
    }
}
