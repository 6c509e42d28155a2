//! What a comparison of training ends with: a table, JSON, the bars.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use stream_grad::ByteCount;
use stream_grad_files::write_whole;

use super::epoch::EpochMeasurement;
use super::{Comparison, Trainer};
use crate::compare::conditions::Conditions;
use crate::compare::measured::median;
use crate::compare::store::Timed;

/// Times over PyTorch's, at most.
const WHOLE_BAR: f64 = 0.5;
const QUARTER_BAR: f64 = 0.7;
/// Share of PyTorch's memory that the second bar is about.
const QUARTER: f64 = 0.25;
/// Share of the time that may be spent waiting for slides.
const WAITING_BAR: f64 = 0.03;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct TrainReport {
    #[serde(flatten)]
    conditions: Conditions,
    model: String,
    /// Of the square slides, in pixels.
    edge: u64,
    slides: usize,
    threads: usize,
    rows: Vec<Row>,
    bars: Vec<Bar>,
}

/// A trainer's epochs.
#[derive(Debug, Serialize)]
struct Row {
    trainer: String,
    runs: Vec<Timed<EpochMeasurement>>,
    median_seconds: Option<f64>,
    /// The most of any run.
    added_bytes: Option<u64>,
    median_waiting_share: Option<f64>,
    /// Largest difference from PyTorch's losses in the first batch, which all begin with the same weights, over the largest of these.
    first_losses_differ: Option<f64>,
    failure: Option<String>,
}

/// What is asked for, beside what was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Bar {
    what: String,
    at_most: f64,
    measured: Option<f64>,
    reached: Option<bool>,
}

impl Bar {
    fn new(what: impl Into<String>, at_most: f64, measured: Option<f64>) -> Self {
        Self {
            what: what.into(),
            at_most,
            measured,
            reached: measured.map(|measured| measured <= at_most),
        }
    }
}

impl TrainReport {
    pub(super) fn new(comparison: &Comparison<'_>) -> Self {
        let epoch = &comparison.epoch;
        let peer = Trainer::PEERS.iter();
        let reference = peer
            .filter_map(|peer| comparison.runs(*peer).first())
            .map(|run| run.value.losses.as_slice())
            .next();
        let rows = Trainer::ALL.map(|trainer| {
            let runs = comparison.runs(trainer).to_vec();
            let failure = comparison.failures.get(&trainer.key()).cloned();
            row(trainer, runs, failure, reference)
        });
        let runs = |trainer| comparison.runs(trainer);
        Self {
            conditions: Conditions::new(comparison.store.origin(), &comparison.python),
            model: epoch.model.clone(),
            edge: epoch.edge,
            slides: epoch.samples.len(),
            threads: epoch.threads,
            rows: rows.into(),
            bars: bars(&runs),
        }
    }

    /// Writes `train.txt` and `train.json`.
    pub(super) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        write_whole(folder.join("train.txt"), self.to_string().as_bytes())?;
        let json = serde_json::to_vec_pretty(self)?;
        Ok(write_whole(folder.join("train.json"), &json)?)
    }
}

fn row(
    trainer: Trainer,
    runs: Vec<Timed<EpochMeasurement>>,
    failure: Option<String>,
    reference: Option<&[f64]>,
) -> Row {
    let values = || runs.iter().map(|run| &run.value);
    let first = runs.first().map(|run| run.value.losses.as_slice());
    Row {
        trainer: trainer.to_string(),
        median_seconds: median(values().map(|run| run.seconds)),
        added_bytes: values().filter_map(|run| run.resident.added_bytes()).max(),
        median_waiting_share: median(values().map(EpochMeasurement::waiting_share)),
        first_losses_differ: reference
            .zip(first)
            .and_then(|(reference, found)| first_losses_differ(reference, found)),
        failure,
        runs,
    }
}

/// Of the first batch: later ones follow steps in which rounding has its say.
fn first_losses_differ(reference: &[f64], found: &[f64]) -> Option<f64> {
    if reference.len() != found.len() || found.is_empty() {
        return None;
    }
    let pairs = reference.iter().zip(found).take(super::epoch::BATCH);
    let largest = pairs.clone().map(|(a, _)| a.abs()).fold(0.0, f64::max);
    let differ = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    (largest > 0.0).then(|| differ / largest)
}

/// What is asked for. Times are compared round by round with those of the layout that is faster over all.
fn bars<'a>(runs: &dyn Fn(Trainer) -> &'a [Timed<EpochMeasurement>]) -> Vec<Bar> {
    let seconds = |trainer| runs(trainer).iter().map(|run| run.value.seconds);
    let middle = |trainer| median(seconds(trainer));
    let peers = Trainer::PEERS.into_iter();
    let best = peers
        .filter_map(|peer| Some((peer, middle(peer)?)))
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(peer, _)| peer);
    let ratio = |own| {
        median(
            seconds(own)
                .zip(seconds(best?))
                .map(|(own, peer)| own / peer),
        )
    };
    let added = |trainer| {
        let added = runs(trainer).iter();
        let added = added.filter_map(|run| run.value.resident.added_bytes());
        added.map(|bytes| bytes as f64).reduce(f64::max)
    };
    let thriftiest = || {
        Trainer::PEERS
            .into_iter()
            .filter_map(added)
            .reduce(f64::min)
    };
    let memory = || Some(added(Trainer::OwnQuarter)? / thriftiest()?);
    let waiting = |trainer| median(runs(trainer).iter().map(|run| run.value.waiting_share()));
    vec![
        Bar::new(
            "all memory: time over PyTorch's",
            WHOLE_BAR,
            ratio(Trainer::Own),
        ),
        Bar::new(
            "a quarter: time over PyTorch's",
            QUARTER_BAR,
            ratio(Trainer::OwnQuarter),
        ),
        Bar::new("a quarter: memory over PyTorch's", QUARTER, memory()),
        Bar::new(
            "all memory: share of waiting",
            WAITING_BAR,
            waiting(Trainer::Own),
        ),
        Bar::new(
            "a quarter: share of waiting",
            WAITING_BAR,
            waiting(Trainer::OwnQuarter),
        ),
    ]
}

impl fmt::Display for TrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}\n{}, {} slides of {edge}x{edge}, {} threads: one epoch; f32, norms frozen with trainable scale and shift, AdamW, \
             gradients of {} slides a step",
            self.conditions,
            self.model,
            self.slides,
            self.threads,
            super::epoch::BATCH,
            edge = self.edge,
        )?;
        let width = self.rows.iter().map(|row| row.trainer.chars().count());
        let width = width.max().unwrap_or(0);
        writeln!(
            f,
            "{:width$}  {:>9}  {:>15}  {:>10}  {:>7}  {:>22}",
            "", "median", "lowest, highest", "adds", "waiting", "losses from PyTorch's"
        )?;
        for row in &self.rows {
            writeln!(f, "{:width$}  {}", row.trainer, figures(row))?;
        }
        writeln!(f)?;
        for bar in &self.bars {
            let verdict = match bar.reached {
                Some(true) => "reached",
                Some(false) => "missed",
                None => "",
            };
            let measured = bar.measured.map_or("not measured".to_owned(), |measured| {
                format!("{measured:.3}")
            });
            writeln!(
                f,
                "{:34}  at most {:<4}  {measured}  {verdict}",
                bar.what, bar.at_most
            )?;
        }
        write!(
            f,
            "memory is of the process that computes, without the workers that read PyTorch's slides; a quarter holds pixels, gradients \
             and AdamW's means, too, and what the backward sweep needs may wait in a file"
        )
    }
}

fn figures(row: &Row) -> String {
    let Some(median) = row.median_seconds else {
        return row.failure.clone().unwrap_or_else(|| "not run".to_owned());
    };
    let seconds = row.runs.iter().map(|run| run.value.seconds);
    let lowest = seconds.clone().fold(f64::INFINITY, f64::min);
    let highest = seconds.fold(0.0, f64::max);
    let added = row.added_bytes.map_or("unknown".to_owned(), |bytes| {
        ByteCount::bytes(bytes).to_string()
    });
    let waiting = row.median_waiting_share.unwrap_or(f64::NAN) * 100.0;
    let differ = row
        .first_losses_differ
        .map_or(String::new(), |differ| format!("{differ:.1e}"));
    let mut line = format!(
        "{median:>7.1} s  {:>15}  {added:>10}  {waiting:>6.1}%  {differ:>22}",
        format!("{lowest:.1}, {highest:.1}")
    );
    if let Some(reason) = &row.failure {
        line += &format!("  then {reason}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::measured::Resident;

    fn run(seconds: f64, added: u64, waiting: f64) -> Timed<EpochMeasurement> {
        Timed {
            at: 0,
            value: EpochMeasurement {
                seconds,
                waiting_seconds: waiting,
                losses: vec![1.0, 2.0],
                resident: Resident {
                    before_bytes: Some(100),
                    peak_bytes: Some(100 + added),
                },
                heap_peak_bytes: None,
            },
        }
    }

    /// The better layout counts for time, the thriftier one for memory.
    #[test]
    fn ratios_are_of_the_same_round_and_fall_on_both_sides_of_the_bars() {
        let plain = [run(10.0, 800, 0.0), run(20.0, 800, 0.0)];
        let channels_last = [run(8.0, 1000, 0.0), run(16.0, 1000, 0.0)];
        for (factor, reached) in [(0.4, true), (0.9, false)] {
            let added = if reached { 190 } else { 210 };
            let waiting = if reached { 0.01 } else { 0.9 };
            let own = [8.0, 16.0].map(|seconds| run(factor * seconds, added, waiting));
            let runs = |trainer| match trainer {
                Trainer::PyTorch => plain.as_slice(),
                Trainer::ChannelsLast => channels_last.as_slice(),
                Trainer::Own | Trainer::OwnQuarter => own.as_slice(),
            };
            let bars = bars(&runs);
            assert_eq!(bars.len(), 5);
            assert!((bars[0].measured.unwrap() - factor).abs() < 1e-9);
            assert!((bars[2].measured.unwrap() - added as f64 / 800.0).abs() < 1e-9);
            for bar in bars {
                assert_eq!(bar.reached, Some(reached), "{bar:?}");
            }
        }
    }

    #[test]
    fn without_figures_nothing_is_claimed() {
        for bar in bars(&|_| &[]) {
            assert_eq!((bar.measured, bar.reached), (None, None));
        }
    }

    #[test]
    fn losses_are_compared_in_the_first_batch_alone() {
        let mut reference = vec![1.0; 8];
        reference[3] = 4.0;
        reference.push(1.0);
        let mut found = reference.clone();
        found[1] = 1.5;
        found[8] = 100.0;
        assert_eq!(first_losses_differ(&reference, &found), Some(0.125));
        assert_eq!(first_losses_differ(&reference, &found[1..]), None);
        assert_eq!(first_losses_differ(&[], &[]), None);
    }

    #[test]
    fn a_row_says_what_was_measured_and_what_was_not() {
        let runs = vec![run(4.0, 2 << 20, 0.1), run(2.0, 1 << 20, 0.05)];
        let text = figures(&row(Trainer::Own, runs, None, Some(&[1.0, 2.5])));
        for part in ["3.0 s", "2.0, 4.0", "2.00 MiB", "2.5%", "2.0e-1"] {
            assert!(text.contains(part), "{text} lacks {part}");
        }
        let failed = row(Trainer::PyTorch, Vec::new(), Some("it broke".into()), None);
        assert_eq!(figures(&failed), "it broke");
    }
}
