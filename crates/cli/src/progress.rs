//! Bars on standard error that show how far a command is, with the time that is left.

use std::fmt::Display;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use stream_grad::{Observer, Plan, Progress, SweepKind};

use crate::tell;

/// A bar that counts in whole items.
pub fn counting_bar(what: &str, length: u64) -> ProgressBar {
    bar(
        what,
        length,
        "{msg} {wide_bar} {pos}/{len}, {elapsed} so far, {eta} left",
    )
}

/// Writes a line to standard error, above the bar where it is shown.
pub fn tell_above(bar: &ProgressBar, line: impl Display) {
    if bar.is_hidden() {
        tell(line);
    } else {
        bar.println(line.to_string());
    }
}

fn bar(what: &str, length: u64, template: &str) -> ProgressBar {
    // The templates are constants of this file; should one ever not parse, the plain bar serves.
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(length)
        .with_style(style)
        .with_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// Follows the sweeps of one plan. Tiles count by their arithmetic, so that the time left is that of the whole.
pub(crate) struct SweepBar {
    bar: ProgressBar,
    forward_tile: u64,
    backward_tile: u64,
}

impl SweepBar {
    /// The bar of a forward and a backward sweep over `images` images.
    pub(crate) fn new(plan: &Plan, images: u64) -> Self {
        let cost = plan.cost();
        let per_tile = |flops: u128| {
            // In millions, of which no sweep has more than a bar can count.
            let flops = flops / cost.tiles.max(1) / 1_000_000;
            u64::try_from(flops).unwrap_or(u64::MAX).max(1)
        };
        let forward_tile = per_tile(cost.forward);
        let backward_tile = per_tile(cost.recompute.saturating_add(cost.vjp));
        let tiles = u64::try_from(cost.tiles).unwrap_or(u64::MAX);
        let once = tiles.saturating_mul(forward_tile.saturating_add(backward_tile));
        // Tiles that are swept again do what they did before.
        let again = u64::try_from(cost.resweep / 1_000_000).unwrap_or(u64::MAX);
        Self {
            bar: bar(
                "forward",
                once.saturating_add(again).saturating_mul(images),
                "{msg:8} {wide_bar} {percent}%, {elapsed} so far, {eta} left",
            ),
            forward_tile,
            backward_tile,
        }
    }
}

impl Observer for SweepBar {
    fn tile_done(&self, progress: &Progress) {
        let (name, work) = match progress.kind {
            SweepKind::Forward => ("forward", self.forward_tile),
            SweepKind::Resweep => ("resweep", self.forward_tile),
            SweepKind::Backward => ("backward", self.backward_tile),
        };
        if self.bar.message() != name {
            self.bar.set_message(name);
        }
        self.bar.inc(work);
    }
}

impl Drop for SweepBar {
    fn drop(&mut self) {
        self.bar.abandon();
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};
    use std::sync::Arc;

    use super::*;
    use crate::model;

    #[test]
    fn a_whole_run_is_the_length_of_the_bar() {
        let (_, net) = model::build("imagenette", DType::F32).unwrap();
        let image = Tensor::ones((2, 3, 200, 160), DType::F32, &Device::Cpu).unwrap();
        for segments in [1, 2] {
            let request = stream_grad::PlanRequest::new(200, 160).tile(32).batch(2);
            let plan = net.plan(request.segments(segments)).unwrap();
            let watcher = Arc::new(SweepBar::new(&plan, 2));
            let bar = watcher.bar.clone();
            let plan = plan.observed_by(watcher);
            let (features, residuals) = plan.forward(&image).unwrap();
            plan.vjp(residuals, &[features.ones_like().unwrap()])
                .unwrap();
            let (done, length) = (bar.position(), bar.length().unwrap());
            assert!(
                done.abs_diff(length) <= length / 20,
                "{done} of {length} with {segments} segment(s)"
            );
        }
    }
}
