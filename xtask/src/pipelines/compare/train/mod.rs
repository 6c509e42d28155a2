//! `cargo xtask compare --train`: an epoch of training on slides, this project beside PyTorch.
//!
//! Both read the same slides in the same order, turn and recolour each in the same way, begin with the same weights, and make
//! the same steps; their losses tell whether they did. Rounds go over all contenders, so that they share the machine's moods.

pub(crate) mod epoch;
mod report;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, ensure};
use indicatif::HumanDuration;
use serde::{Deserialize, Serialize};
use stream_grad::ByteCount;
use stream_grad_models::ModelName;
use stream_grad_train::cohort::{CohortConfig, SplitSizes, generate};
use stream_grad_train::data::Sample;
use xtask::arguments::CompareArguments;

use epoch::{Epoch, EpochJob, EpochMeasurement};
use report::TrainReport;

use super::python::Python;
use super::step::Job;
use super::stopped;
use super::store::{Origin, Store, Timed};
use super::time_left::TimeLeft;
use super::worker::{Refusal, Worker};
use stream_grad_cli::{model, resident_memory, tell};

/// Edge of a slide in microns: what the made-up slides are drawn for.
const EDGE_MICRONS: f64 = 1024.0;
/// Slides and their edge in a rehearsal.
const QUICK: (usize, u64) = (4, 512);
/// Seconds for a slide of 2048 x 2048 pixels on two cores, to begin with: PyTorch's.
const SECONDS_OF_A_SLIDE: f64 = 5.0;
/// Slides whose decoded pixels the loader has memory for: it holds a slide whole only if that takes a quarter of its memory at most.
const HELD_SLIDES: u64 = 4;

/// What reading, a step of the optimiser and the allocator take besides.
const OTHER_BYTES: u64 = 32 << 20;

/// Who trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trainer {
    PyTorch,
    ChannelsLast,
    /// This project, in whatever memory is fastest.
    Own,
    /// This project, all in all in a quarter of what PyTorch's training adds.
    OwnQuarter,
}

impl Trainer {
    /// All, in their order: what a budget depends on comes before it.
    pub(crate) const ALL: [Self; 4] = [
        Self::PyTorch,
        Self::ChannelsLast,
        Self::Own,
        Self::OwnQuarter,
    ];
    pub(crate) const PEERS: [Self; 2] = [Self::PyTorch, Self::ChannelsLast];

    fn key(self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Trainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PyTorch => "PyTorch",
            Self::ChannelsLast => "PyTorch, channels_last",
            Self::Own => "stream-grad, all memory",
            Self::OwnQuarter => "stream-grad, a quarter of PyTorch's",
        })
    }
}

/// What a folder holds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Epochs {
    /// What all runs have in common; a folder holds those of one comparison.
    epoch: Option<Epoch>,
    runs: BTreeMap<String, Vec<Timed<EpochMeasurement>>>,
}

/// Measures what has not been measured yet, and prints and writes everything.
pub(crate) fn run(arguments: &CompareArguments, stop: &AtomicBool) -> anyhow::Result<()> {
    let output = arguments.output.join("train");
    let folder = std::path::absolute(&output)?;
    let mut store: Store<Epochs> = Store::open(&folder, Origin::here()?)?;
    let worker = Worker::new(folder.join("work"), stop)?;
    let epoch = epoch(arguments, &folder, worker.folder(), stop)?;
    match &store.results().epoch {
        Some(before) => ensure!(
            *before == epoch,
            "{} holds a comparison of another network, other slides or threads: remove it, or give another --output",
            folder.display()
        ),
        None => store.update(|epochs| epochs.epoch = Some(epoch.clone()))?,
    }
    if !epoch.weights.exists() {
        epoch.write_weights()?;
    }
    let python = super::python(arguments, stop)?;
    let mut comparison = Comparison {
        store,
        worker,
        python,
        epoch,
        failures: BTreeMap::new(),
    };
    comparison.run_all(arguments.repeats())?;
    let report = TrainReport::new(&comparison);
    report.write(&folder)?;
    super::show(&report, arguments, &output);
    Ok(())
}

/// The slides, made if they are not there, and how they are trained on.
fn epoch(
    arguments: &CompareArguments,
    folder: &Path,
    work: &Path,
    stop: &AtomicBool,
) -> anyhow::Result<Epoch> {
    let name: ModelName = arguments.model.parse()?;
    ensure!(
        matches!(name, ModelName::ResNet(_)),
        "torchvision has no `{name}`: --train takes resnet18, resnet34 or resnet50"
    );
    let (slides, edge) = if arguments.quick {
        QUICK
    } else {
        let image = arguments.image;
        ensure!(
            image.height == image.width,
            "--train takes square images, and {image} is none"
        );
        (arguments.slides.get(), image.height)
    };
    let microns_per_pixel = EDGE_MICRONS / edge as f64;
    Ok(Epoch {
        model: arguments.model.clone(),
        threads: model::threads(arguments.threads),
        edge,
        microns_per_pixel,
        samples: samples((slides, microns_per_pixel), &folder.join("slides"), stop)?,
        weights: work.join(format!("{name}.safetensors")),
    })
}

/// Made-up slides whose finest level is the image.
fn samples(
    (slides, microns_per_pixel): (usize, f64),
    folder: &Path,
    stop: &AtomicBool,
) -> anyhow::Result<Vec<Sample>> {
    let config = CohortConfig {
        splits: SplitSizes {
            train: slides,
            validation: 0,
            test: 0,
        },
        microns_per_pixel,
        edge_microns: [EDGE_MICRONS; 2],
        edge_step_microns: EDGE_MICRONS,
        ..CohortConfig::default()
    };
    tell(format_args!(
        "{slides} made-up slides in {}",
        folder.display()
    ));
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    generate(&config, folder, stop, &|_, _| {})?.ok_or_else(stopped)
}

/// Runs trainers and keeps their failures.
pub(crate) struct Comparison<'a> {
    store: Store<Epochs>,
    worker: Worker<'a>,
    python: Result<Python, String>,
    epoch: Epoch,
    failures: BTreeMap<String, String>,
}

impl Comparison<'_> {
    fn runs(&self, trainer: Trainer) -> &[Timed<EpochMeasurement>] {
        let runs = self.store.results().runs.get(&trainer.key());
        runs.map_or(&[], Vec::as_slice)
    }

    /// Runs everything that has no result yet, round by round.
    fn run_all(&mut self, repeats: usize) -> anyhow::Result<()> {
        let missing = Trainer::ALL.map(|trainer| repeats.saturating_sub(self.runs(trainer).len()));
        let missing: usize = missing.into_iter().sum();
        let slides = self.epoch.samples.len() as f64;
        let pixels = self.epoch.edge.pow(2) as f64 / f64::from(1 << 22);
        let seconds = slides * pixels * SECONDS_OF_A_SLIDE * 2.0 / self.epoch.threads as f64;
        if missing > 0 {
            let most = std::time::Duration::try_from_secs_f64(seconds * missing as f64)?;
            tell(format_args!(
                "{missing} epochs of {slides} slides each, one after another: {} at most on cores that are not shared",
                HumanDuration(most)
            ));
        }
        let mut time = TimeLeft::new(missing, missing as f64);
        for round in 0..repeats {
            for trainer in Trainer::ALL {
                let key = trainer.key();
                if self.runs(trainer).len() > round || self.failures.contains_key(&key) {
                    continue;
                }
                let name = format!("{trainer}, epoch {} of {repeats}", round + 1);
                match time.during(&name, 1.0, || self.measure(trainer)) {
                    Ok(found) => {
                        time.say(&format!("{trainer}: {:.1} s", found.seconds));
                        self.store.update(|epochs| {
                            let runs = epochs.runs.entry(key).or_default();
                            runs.push(Timed::now(found));
                        })?;
                    }
                    Err(Refusal::Failed(reason)) => {
                        time.say(&format!("{trainer}: {reason}"));
                        self.failures.insert(key, reason);
                    }
                    Err(Refusal::Stopped) => return Err(stopped()),
                }
            }
        }
        Ok(())
    }

    fn measure(&self, trainer: Trainer) -> Result<EpochMeasurement, Refusal> {
        match trainer {
            Trainer::PyTorch => self.measure_peer("plain"),
            Trainer::ChannelsLast => self.measure_peer("channels_last"),
            Trainer::Own | Trainer::OwnQuarter => {
                let job = self.own_job(trainer)?;
                let command = Worker::own_command(self.epoch.threads)?;
                self.worker.measure(command, &Job::Epoch(job))
            }
        }
    }

    fn measure_peer(&self, way: &str) -> Result<EpochMeasurement, Refusal> {
        let python = self.python.as_ref();
        let python = python.map_err(|reason| Refusal::Failed(format!("no Python: {reason}")))?;
        let job = self.epoch.peer_job(way).map_err(Refusal::failed)?;
        let command = python.script("pytorch_train.py", self.epoch.threads);
        self.worker.measure(command, &job)
    }

    fn own_job(&self, trainer: Trainer) -> Result<EpochJob, Refusal> {
        let epoch = self.epoch.clone();
        let held_bytes = HELD_SLIDES * 3 * epoch.edge.pow(2);
        if trainer == Trainer::Own {
            return Ok(EpochJob {
                epoch,
                sweep_bytes: resident_memory::available_bytes().unwrap_or(u64::MAX),
                held_bytes,
                offload: None,
            });
        }
        let quarter = self.quarter().ok_or_else(|| {
            Refusal::Failed("what PyTorch's training adds was not measured".to_owned())
        })?;
        // Beside the sweeps: gradients that are summed over slides, and two means of AdamW; decoded pixels.
        let weights = epoch.weight_bytes().map_err(Refusal::failed)?;
        let beside = 3 * weights + held_bytes + held_bytes / 4 + OTHER_BYTES;
        let sweep_bytes = quarter.checked_sub(beside).filter(|bytes| *bytes > 0);
        let sweep_bytes = sweep_bytes.ok_or_else(|| {
            Refusal::Failed(format!(
                "a quarter is {}, and gradients, AdamW and pixels take {}",
                ByteCount::bytes(quarter),
                ByteCount::bytes(beside)
            ))
        })?;
        Ok(EpochJob {
            epoch,
            sweep_bytes,
            held_bytes,
            offload: Some(self.worker.folder().to_owned()),
        })
    }

    /// A quarter of what the thriftier layout of PyTorch added in its first epoch.
    fn quarter(&self) -> Option<u64> {
        let peers = Trainer::PEERS.iter();
        let added = peers.filter_map(|peer| self.runs(*peer).first()?.value.resident.added_bytes());
        added.min().map(|bytes| bytes / 4)
    }
}
