//! What this project has set itself as a target, and what was measured.

use serde::Serialize;
use stream_grad::ByteCount;
use stream_grad_cli::image_size::ImageSize;
use xtask::arguments::CompareArguments;

use super::entry::{Contender, Entry, Own, Peer};
use super::measured::{PlanMeasurement, median};
use super::runner::products_key;
use super::scope::{ROUNDED, Run};
use super::step::Precision;
use super::store::Store;

const MODEL: &str = "resnet18";
/// The network of bottlenecks, in bf16.
const DEEP_MODEL: &str = "resnet50";
/// The network of the gigapixel image.
const SMALL_MODEL: &str = "numerics";

/// A target beside the figure that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) target: &'static str,
    /// `None` if something that it takes was not measured.
    pub(crate) measured: Option<String>,
    pub(crate) reached: Option<bool>,
}

/// Edges of images and tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// All memory against PyTorch.
    whole: u64,
    /// The same, of bottlenecks.
    deep: u64,
    /// A part of PyTorch's memory.
    part: u64,
    /// Against lightstream.
    lightstream: u64,
    lightstream_tile: u64,
    /// Time per pixel, streamed: a large image against one of edge `whole`, with one tile.
    large: u64,
    tile: u64,
    /// The same for the gigapixel image.
    gigapixel: u64,
    gigapixel_small: u64,
    gigapixel_tile: u64,
}

impl Sizes {
    /// Those of the targets.
    const TARGETS: Self = Self {
        whole: 2048,
        deep: 1536,
        part: 3072,
        lightstream: 4096,
        lightstream_tile: 1920,
        large: 8192,
        tile: 1024,
        gigapixel: 32_768,
        gigapixel_small: 4096,
        gigapixel_tile: 2048,
    };

    /// An eighth of them.
    const REHEARSAL: Self = Self {
        whole: 256,
        deep: 192,
        part: 384,
        lightstream: 512,
        // A tile of half the image is none for the published method.
        lightstream_tile: 1024,
        large: 1024,
        tile: 128,
        gigapixel: 4096,
        gigapixel_small: 512,
        gigapixel_tile: 256,
    };

    /// Those that the command line asks for.
    pub(crate) const fn of(arguments: &CompareArguments) -> Self {
        if arguments.quick {
            Self::REHEARSAL
        } else {
            Self::TARGETS
        }
    }

    /// Everything that the targets take.
    pub(crate) fn runs(self, threads: usize, repeats: usize) -> Vec<Run> {
        let run = |entry, repeats, error| Run {
            entry,
            repeats,
            error,
        };
        let peer = |peer, edge| entry(MODEL, edge, threads, Contender::Peer(peer));
        let own = |own, edge, threads| entry(MODEL, edge, threads, Contender::Own(own));
        let small = |edge| {
            let own = Own::Streamed(self.gigapixel_tile);
            entry(SMALL_MODEL, edge, threads, Contender::Own(own))
        };
        let lightstream = Peer::Lightstream {
            tile: self.lightstream_tile,
        };
        let within = Own::WithinLightstream {
            tile: self.lightstream_tile,
        };
        let mut runs = vec![
            run(peer(Peer::PlainPyTorch, self.whole), repeats, true),
            run(peer(Peer::ChannelsLast, self.whole), repeats, true),
            run(peer(Peer::Checkpointing, self.whole), repeats, true),
            run(own(Own::Whole, self.whole, threads), repeats, true),
            run(own(Own::WholeDirect, self.whole, threads), repeats, true),
            run(
                own(Own::Streamed(self.tile), self.whole, threads),
                repeats,
                false,
            ),
            run(peer(Peer::PlainPyTorch, self.part), repeats, false),
            run(peer(Peer::ChannelsLast, self.part), repeats, false),
            run(
                own(Own::PartOfPyTorch(5), self.part, threads),
                repeats,
                false,
            ),
            run(
                own(Own::PartOfPyTorch(10), self.part, threads),
                repeats,
                false,
            ),
            run(peer(lightstream, self.lightstream), repeats, false),
            run(own(within, self.lightstream, threads), repeats, false),
            run(small(self.gigapixel_small), repeats, false),
            run(own(Own::Streamed(self.tile), self.large, threads), 1, false),
            run(small(self.gigapixel), 1, false),
        ];
        for (model, edge) in [(MODEL, self.whole), (DEEP_MODEL, self.deep)] {
            let rounded = ROUNDED.map(|contender| Entry {
                precision: Precision::BF16,
                ..entry(model, edge, threads, contender)
            });
            runs.extend(rounded.map(|entry| run(entry, repeats, true)));
        }
        if threads > 1 {
            runs.insert(4, run(own(Own::Whole, self.whole, 1), repeats, false));
        }
        runs
    }

    /// Target and measured, side by side.
    pub(crate) fn targets(self, store: &Store, threads: usize) -> Vec<Target> {
        let figures = Figures { store, threads };
        let tile = Own::Streamed(self.tile);
        let streamed = |model, edge, own| entry(model, edge, threads, Contender::Own(own));
        let small = Own::Streamed(self.gigapixel_tile);
        let mut targets = vec![
            figures.against_pytorch(self.whole, Own::Whole, "at most 0.8", 0.8),
            figures.against_pytorch(self.part, Own::PartOfPyTorch(5), "at most 0.9", 0.9),
            figures.against_pytorch(self.part, Own::PartOfPyTorch(10), "at most 1.0", 1.0),
            figures.against_lightstream(self),
        ];
        let large = streamed(MODEL, self.large, tile);
        let limit = ByteCount::mib(1229);
        targets.push(figures.resident(&large, "at most 1.2 GiB", limit));
        targets.push(figures.per_pixel(&large, &streamed(MODEL, self.whole, tile)));
        let large = streamed(SMALL_MODEL, self.gigapixel, small);
        targets.push(figures.resident(&large, "under 2 GiB", ByteCount::gib(2)));
        targets
            .push(figures.per_pixel(&large, &streamed(SMALL_MODEL, self.gigapixel_small, small)));
        targets.push(figures.efficiency(self.whole));
        targets.push(figures.threads(self.whole));
        targets
    }
}

fn entry(model: &str, edge: u64, threads: usize, contender: Contender) -> Entry {
    Entry {
        model: model.to_owned(),
        image: ImageSize {
            height: edge,
            width: edge,
        },
        threads,
        contender,
        precision: Precision::F32,
    }
}

struct Figures<'a> {
    store: &'a Store,
    threads: usize,
}

impl Figures<'_> {
    fn seconds(&self, entry: &Entry) -> Option<f64> {
        let steps = self.store.steps(&entry.key());
        median(steps.iter().map(|step| step.value.seconds()))
    }

    fn own(&self, edge: u64, own: Own, threads: usize) -> Entry {
        entry(MODEL, edge, threads, Contender::Own(own))
    }

    fn plan(&self, entry: &Entry) -> Option<&PlanMeasurement> {
        self.store.steps(&entry.key()).first()?.value.plan.as_ref()
    }

    /// The median of the better layout.
    fn pytorch(&self, edge: u64) -> Option<f64> {
        let layouts = [Peer::PlainPyTorch, Peer::ChannelsLast];
        let layouts = layouts.map(|peer| entry(MODEL, edge, self.threads, Contender::Peer(peer)));
        layouts
            .iter()
            .filter_map(|entry| self.seconds(entry))
            .reduce(f64::min)
    }

    fn against_pytorch(&self, edge: u64, own: Own, target: &'static str, limit: f64) -> Target {
        let entry = self.own(edge, own, self.threads);
        let figure = || {
            let (own, peer) = (self.seconds(&entry)?, self.pytorch(edge)?);
            let plan = self.plan(&entry)?;
            let ratio = own / peer;
            let budget = plan.budget.as_ref().map_or(String::new(), |budget| {
                format!(
                    "; {} at most, of which {} for buffers like the weights",
                    ByteCount::bytes(budget.bytes),
                    ByteCount::bytes(plan.planned_weight_bytes)
                )
            });
            Some((
                format!("{ratio:.2} ({own:.2} s against {peer:.2} s{budget})"),
                ratio <= limit,
            ))
        };
        let what = format!("{MODEL}, {edge}x{edge}, {own}: time against PyTorch's better layout");
        target_of(what, target, figure())
    }

    fn against_lightstream(&self, sizes: Sizes) -> Target {
        let (edge, tile) = (sizes.lightstream, sizes.lightstream_tile);
        let peer = Contender::Peer(Peer::Lightstream { tile });
        let peer = entry(MODEL, edge, self.threads, peer);
        let own = self.own(edge, Own::WithinLightstream { tile }, self.threads);
        let figure = || {
            let (slow, fast) = (self.seconds(&peer)?, self.seconds(&own)?);
            let added = |entry: &Entry| {
                let steps = self.store.steps(&entry.key()).iter();
                steps
                    .filter_map(|step| step.value.resident.added_bytes())
                    .max()
            };
            let (theirs, ours) = (added(&peer)?, added(&own)?);
            let ratio = slow / fast;
            Some((
                format!(
                    "{ratio:.1} ({slow:.1} s and {} against {fast:.1} s and {})",
                    ByteCount::bytes(theirs),
                    ByteCount::bytes(ours)
                ),
                ratio >= 8.0 && ours <= theirs,
            ))
        };
        let what = format!(
            "{MODEL}, {edge}x{edge}: times faster than lightstream with tile {tile}, at no more memory"
        );
        target_of(what, "at least 8", figure())
    }

    fn resident(&self, entry: &Entry, target: &'static str, limit: ByteCount) -> Target {
        let steps = self.store.steps(&entry.key()).iter();
        let peak = steps
            .filter_map(|step| step.value.resident.peak_bytes)
            .max();
        let figure = peak.map(|peak| {
            let peak = ByteCount::bytes(peak);
            (peak.to_string(), peak <= limit)
        });
        let what = format!("{}, {}: peak resident memory", entry.model, entry.image);
        target_of(what, target, figure)
    }

    fn per_pixel(&self, large: &Entry, small: &Entry) -> Target {
        let figure = || {
            let per_pixel = |entry: &Entry| Some(self.seconds(entry)? / entry.pixels() * 1e9);
            let (large, small) = (per_pixel(large)?, per_pixel(small)?);
            let ratio = large / small;
            Some((
                format!("{ratio:.3} ({large:.1} ns against {small:.1} ns)"),
                ratio <= 1.1,
            ))
        };
        let what = format!(
            "{}, {} against {}, {}: time per pixel",
            large.model, large.image, small.image, large.contender
        );
        target_of(what, "at most 1.1", figure())
    }

    /// The better library's rate of products.
    fn products(&self, threads: usize) -> Option<(f64, &'static str)> {
        let rates = ["PyTorch", "candle"].into_iter().filter_map(|library| {
            let rate = self.store.rate(&products_key(library, threads))?;
            Some((rate.flops_per_second, library))
        });
        rates.max_by(|a, b| a.0.total_cmp(&b.0))
    }

    fn efficiency(&self, edge: u64) -> Target {
        let entry = self.own(edge, Own::WholeDirect, self.threads);
        let figure = || {
            let rate = self.plan(&entry)?.flops / self.seconds(&entry)?;
            let (product, library) = self.products(self.threads)?;
            let ratio = rate / product;
            let (rate, product) = (rate / 1e9, product / 1e9);
            Some((
                format!("{ratio:.2} ({rate:.0} against {product:.0} GFLOP/s of {library})"),
                ratio >= 0.85,
            ))
        };
        let what = format!(
            "{MODEL}, {edge}x{edge}, whole step, direct arithmetic: FLOPs per second against the best product of matrices"
        );
        target_of(what, "at least 0.85", figure())
    }

    fn threads(&self, edge: u64) -> Target {
        let figure = || {
            let one = self.seconds(&self.own(edge, Own::Whole, 1))?;
            let all = self.seconds(&self.own(edge, Own::Whole, self.threads))?;
            let ((product_all, _), (product_one, _)) =
                (self.products(self.threads)?, self.products(1)?);
            Some((one, all, product_all / product_one))
        };
        let what = format!(
            "{MODEL}, {edge}x{edge}, whole step: times faster with {} threads than with one",
            self.threads
        );
        let limit = 0.9 * self.threads as f64;
        let figure = figure();
        Target {
            what,
            target: "at least 0.9 of the threads, where products of matrices scale so",
            measured: figure.map(|(one, all, products)| {
                let ratio = one / all;
                format!("{ratio:.2} ({one:.2} s against {all:.2} s; products {products:.2})")
            }),
            // Where the machine does not let products scale, nothing is asked.
            reached: figure
                .filter(|&(_, _, products)| products >= limit)
                .map(|(one, all, _)| one / all >= limit),
        }
    }
}

fn target_of(what: String, target: &'static str, figure: Option<(String, bool)>) -> Target {
    let (measured, reached) = figure.unzip();
    Target {
        what,
        target,
        measured,
        reached,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::measured::{RateMeasurement, Resident, StepMeasurement};
    use crate::compare::store::Origin;

    fn store(folder: &std::path::Path) -> Store {
        let origin = Origin {
            build: String::new(),
            processor: String::new(),
            cores: 2,
        };
        Store::open(folder, origin).unwrap()
    }

    fn step(seconds: f64, peak: u64) -> StepMeasurement {
        StepMeasurement {
            seconds_forward: seconds / 4.0,
            seconds_backward: seconds * 3.0 / 4.0,
            resident: Resident {
                before_bytes: Some(0),
                peak_bytes: Some(peak),
            },
            plan: Some(PlanMeasurement {
                recipe: String::new(),
                tiles: 1,
                stored_nodes: Vec::new(),
                compute_ratio: 1.0,
                flops: 1e12,
                budget: None,
                planned_peak_bytes: 1,
                planned_weight_bytes: 1,
                heap_peak_bytes: 1,
            }),
            error: None,
        }
    }

    #[test]
    fn without_figures_nothing_is_claimed() {
        let folder = tempfile::tempdir().unwrap();
        let targets = Sizes::TARGETS.targets(&store(folder.path()), 2);
        assert_eq!(targets.len(), 10);
        for target in targets {
            assert_eq!((target.measured, target.reached), (None, None));
        }
    }

    /// Every run that the targets take is among those that are run, and both sides of each limit are told apart.
    #[test]
    fn figures_at_both_sides_of_the_limits() {
        let sizes = Sizes::TARGETS;
        for (factor, reached) in [(0.5, true), (2.0, false)] {
            let folder = tempfile::tempdir().unwrap();
            let mut store = store(folder.path());
            for run in sizes.runs(2, 1) {
                let conventional = match run.entry.contender {
                    Contender::Peer(Peer::Lightstream { .. }) => 10.0,
                    _ => 1.0,
                };
                let pixels = run.entry.pixels() / f64::from(1 << 22);
                let own = matches!(run.entry.contender, Contender::Own(_));
                let large = own && run.entry.image.height >= sizes.large;
                let mut seconds = conventional * pixels;
                if own {
                    seconds *= factor;
                }
                if large && !reached {
                    seconds *= 1.2;
                }
                if run.entry.threads == 1 {
                    seconds *= if reached { 1.9 } else { 1.1 };
                }
                let peak = if reached { 1 << 30 } else { 3 << 30 };
                store
                    .add_step(&run.entry.key(), step(seconds, peak))
                    .unwrap();
            }
            for (threads, rate) in [(1, 1.0e12), (2, 2.0e12)] {
                let rate = RateMeasurement {
                    flops_per_second: rate,
                };
                store
                    .add_rate(&products_key("candle", threads), rate)
                    .unwrap();
            }
            for target in sizes.targets(&store, 2) {
                assert_eq!(target.reached, Some(reached), "{target:?}");
            }
        }
    }
}
