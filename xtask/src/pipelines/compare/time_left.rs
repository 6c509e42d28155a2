//! How long it will still take, said while it goes on.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use stream_grad_cli::progress::tell_above;

/// A run whose length is guessed from its arithmetic and from the runs before it.
#[derive(Debug)]
pub(crate) struct TimeLeft {
    bar: ProgressBar,
    runs: usize,
    done: usize,
    work_left: f64,
    work_done: f64,
    busy: Duration,
}

impl TimeLeft {
    /// For so many runs of so much work together, in any unit.
    pub(crate) fn new(runs: usize, work: f64) -> Self {
        // The template is a constant of this file; should it ever not parse, the plain bar serves.
        let style = ProgressStyle::with_template("{spinner} {msg}, {elapsed} so far")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style);
        bar.enable_steady_tick(Duration::from_millis(500));
        Self {
            bar,
            runs,
            done: 0,
            work_left: work,
            work_done: 0.0,
            busy: Duration::ZERO,
        }
    }

    /// Runs something, while the bar names it.
    pub(crate) fn during<T>(&mut self, name: &str, work: f64, run: impl FnOnce() -> T) -> T {
        let left = self.left().map_or(String::new(), |left| {
            format!(", about {} left", indicatif::HumanDuration(left))
        });
        let message = format!("[{}/{}] {name}{left}", self.done + 1, self.runs);
        self.bar.set_message(message);
        let start = Instant::now();
        let value = run();
        self.busy += start.elapsed();
        self.done += 1;
        self.work_done += work;
        self.work_left = (self.work_left - work).max(0.0);
        value
    }

    /// Runs something that was not reckoned with.
    pub(crate) fn aside<T>(&self, name: &str, run: impl FnOnce() -> T) -> T {
        self.bar.set_message(name.to_owned());
        run()
    }

    /// Takes what will not be run out of the reckoning.
    pub(crate) fn skip(&mut self, runs: usize, work: f64) {
        self.runs = self.runs.saturating_sub(runs);
        self.work_left = (self.work_left - work).max(0.0);
    }

    /// Prints a line on standard error, above the bar.
    pub(crate) fn say(&self, line: &str) {
        tell_above(&self.bar, line);
    }

    fn left(&self) -> Option<Duration> {
        if self.work_done <= 0.0 {
            return None;
        }
        let seconds = self.busy.as_secs_f64() * self.work_left / self.work_done;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

impl Drop for TimeLeft {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_tells_what_is_left() {
        let mut time = TimeLeft::new(4, 10.0);
        assert_eq!(time.left(), None);
        time.during("a", 2.0, || std::thread::sleep(Duration::from_millis(20)));
        let left = time.left().unwrap().as_secs_f64();
        assert!(
            (left - 4.0 * time.busy.as_secs_f64()).abs() < 1e-6,
            "{left}"
        );
        time.skip(1, 8.0);
        assert_eq!((time.left(), time.runs), (Some(Duration::ZERO), 3));
    }
}
