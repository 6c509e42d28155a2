//! One epoch: what both sides train on and how, and this project's side in a process of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{bail, ensure};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use stream_grad_models::save_tensors;
use stream_grad_slides::MicronsPerPixel;
use stream_grad_train::augment::{Axes, Order};
use stream_grad_train::calibration::{CostModelCache, cache_folder};
use stream_grad_train::data::{Sample, Task, epoch_order};
use stream_grad_train::model::{Model, ModelSettings, Pooling, StreamedModel};
use stream_grad_train::optimizer::{OptimizerKind, WeightDecayOn};
use stream_grad_train::schedule::Schedule;
use stream_grad_train::source::{ReadSettings, SlideLoader};
use stream_grad_train::trainer::{Outcome, Run, TrainEvent, TrainSettings};

use super::super::measured::Resident;
use stream_grad_cli::counting_allocator::CountingAllocator;
use stream_grad_cli::tell;

/// Slides whose gradients are summed for one step.
pub(super) const BATCH: usize = 8;
/// Small: the network is untrained, and its frozen norms normalise nothing.
const LEARNING_RATE: f64 = 1e-4;
const TASK: Task = Task::Binary;

/// What is trained on what, the same for all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Epoch {
    pub(crate) model: String,
    pub(crate) threads: usize,
    /// Of the square slides, in pixels.
    pub(crate) edge: u64,
    pub(crate) microns_per_pixel: f64,
    pub(crate) samples: Vec<Sample>,
    /// The weights that all begin with; see [`Epoch::write_weights`].
    pub(crate) weights: PathBuf,
}

/// How this project trains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EpochJob {
    pub(crate) epoch: Epoch,
    /// Bytes that the sweeps of one slide may take.
    pub(crate) sweep_bytes: u64,
    /// Bytes of decoded pixels that are held.
    pub(crate) held_bytes: u64,
    /// Folder for a file of what does not fit.
    pub(crate) offload: Option<PathBuf>,
}

/// What an epoch took. The peers' script writes all but the heap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EpochMeasurement {
    /// From the first slide that is asked for to the last step.
    pub(crate) seconds: f64,
    /// Of these, waiting for slides.
    pub(crate) waiting_seconds: f64,
    /// Of each slide, in the order of the training.
    pub(crate) losses: Vec<f64>,
    /// Of the process that computes.
    #[serde(flatten)]
    pub(crate) resident: Resident,
    /// Heap bytes that the epoch added at its peak, by a counting allocator.
    #[serde(default)]
    pub(crate) heap_peak_bytes: Option<u64>,
}

impl EpochMeasurement {
    /// The share of the time that was spent waiting for slides.
    pub(crate) fn waiting_share(&self) -> f64 {
        if self.seconds > 0.0 {
            self.waiting_seconds / self.seconds
        } else {
            0.0
        }
    }
}

impl Epoch {
    fn settings(&self) -> TrainSettings {
        TrainSettings {
            epochs: 1,
            batch_size: BATCH,
            // As PyTorch decays all parameters that it is given.
            weight_decay_on: WeightDecayOn::All,
            learning_rate: LEARNING_RATE,
            schedule: Schedule::Constant,
            validate_every: 0,
            checkpoint_every: 0,
            optimizer: OptimizerKind::ADAMW,
            ..TrainSettings::default()
        }
    }

    fn model(&self, sweep_bytes: u64, offload: Option<PathBuf>) -> anyhow::Result<StreamedModel> {
        let settings = ModelSettings {
            name: self.model.clone(),
            pooling: vec![Pooling::Average],
            momentum: 0.0,
            memory_bytes: sweep_bytes,
            threads: self.threads,
            offload,
            ..ModelSettings::default()
        };
        let seed = self.settings().seed;
        Ok(StreamedModel::new(&settings, TASK.outputs(), seed)?)
    }

    /// Writes the weights that all begin with: torchvision's names after `net.`, the linear layer after `head.`.
    ///
    /// # Errors
    /// A model that is not known, a file that cannot be written.
    pub(crate) fn write_weights(&self) -> anyhow::Result<()> {
        let tensors: BTreeMap<String, Tensor> = self.model(1, None)?.tensors();
        Ok(save_tensors(&self.weights, &tensors)?)
    }

    /// Bytes of the trainable weights in f32.
    pub(crate) fn weight_bytes(&self) -> anyhow::Result<u64> {
        let variables = self.model(1, None)?.variables();
        let count: usize = variables.iter().map(|(_, var)| var.elem_count()).sum();
        Ok(4 * count as u64)
    }

    /// The job of the peers' script: the same slides in the same order, each changed in the same way.
    pub(crate) fn peer_job(&self, way: &str) -> anyhow::Result<serde_json::Value> {
        let settings = self.settings();
        let OptimizerKind::AdamW {
            beta1,
            beta2,
            epsilon,
            weight_decay,
        } = settings.optimizer
        else {
            bail!("the peers know AdamW alone");
        };
        let order = epoch_order(&self.samples, settings.sampling, settings.seed, 0);
        let mut batches = Vec::new();
        for (batch, indices) in order.chunks(BATCH).enumerate() {
            let items = indices.iter().enumerate().map(|(place, &index)| {
                let sample = &self.samples[index];
                let place = u64::try_from(batch * BATCH + place)?;
                let extent = (self.edge, self.edge);
                let drawn = settings.augmentation.draw(extent, settings.seed, 0, place);
                ensure!(
                    drawn.extent() == extent,
                    "the peers do not crop, and the augmentation does"
                );
                Ok(json!({
                    "path": std::path::absolute(&sample.slide)?,
                    "label": sample.label,
                    "swapped": drawn.axes == Axes::Swapped,
                    "rows_backward": drawn.rows == Order::Backward,
                    "columns_backward": drawn.columns == Order::Backward,
                    "contrast": drawn.contrast,
                    "brightness": drawn.brightness,
                }))
            });
            batches.push(items.collect::<anyhow::Result<Vec<_>>>()?);
        }
        let read = ReadSettings::default();
        let max_norm = settings.max_norm.is_finite().then_some(settings.max_norm);
        Ok(json!({
            "model": self.model,
            "weights": self.weights,
            "edge": self.edge,
            "mean": read.mean,
            "deviation": read.deviation,
            "batches": batches,
            "optimizer": {
                "learning_rate": settings.learning_rate,
                "beta1": beta1,
                "beta2": beta2,
                "epsilon": epsilon,
                "weight_decay": weight_decay,
                "max_norm": max_norm,
            },
            "threads": self.threads,
            "workers": 1,
            "way": way,
        }))
    }
}

/// Trains one epoch as users do.
///
/// # Errors
/// Slides or weights that cannot be read, a budget that holds no recipe, a slide that was skipped.
pub(crate) fn run(
    job: &EpochJob,
    allocator: &CountingAllocator,
) -> anyhow::Result<EpochMeasurement> {
    let epoch = &job.epoch;
    let mut model = epoch.model(job.sweep_bytes, job.offload.clone())?;
    model.load_tensors(&read_weights(&epoch.weights)?)?;
    let cache = CostModelCache::new(cache_folder().as_deref(), epoch.threads);
    let request = model.request(epoch.edge, epoch.edge);
    let costs = cache.model(model.net(), &request, &mut |notice| tell(notice))?;
    model = model.cost_model(costs);
    // A budget that holds no recipe is refused here, and not slide by slide.
    model.net().plan(model.request(epoch.edge, epoch.edge))?;
    let settings = epoch.settings();
    let read = ReadSettings {
        held_bytes: job.held_bytes,
        ..ReadSettings::default()
    };
    let scale = MicronsPerPixel::new(epoch.microns_per_pixel)?;

    let resident = Resident::watch();
    let heap = allocator.watch();
    let loader = SlideLoader::new(scale, read)?;
    let run = Run {
        settings: &settings,
        task: TASK,
        train: &epoch.samples,
        validation: &[],
        model: (&model).into(),
        loader: &loader,
        folder: None,
    };
    let mut losses = Vec::new();
    let mut skipped = Vec::new();
    let mut observer = |event: &TrainEvent<'_>| match event {
        TrainEvent::SlideTrained { loss, .. } => losses.push(*loss),
        TrainEvent::SlideSkipped(found) => {
            skipped.push(format!(
                "{} was skipped: {}",
                found.slide.display(),
                found.reason
            ));
        }
        _ => {}
    };
    let outcome = run.execute(&AtomicBool::new(false), &mut observer)?;
    ensure!(skipped.is_empty(), "{}", skipped.join("; "));
    let Outcome::Finished(summary) = outcome else {
        bail!("the epoch did not end");
    };
    Ok(EpochMeasurement {
        seconds: summary.timing.seconds,
        waiting_seconds: summary.timing.waiting_seconds,
        losses,
        resident: resident.to_peak(),
        heap_peak_bytes: Some(heap.peak_bytes() as u64),
    })
}

fn read_weights(path: &Path) -> anyhow::Result<BTreeMap<String, Tensor>> {
    use anyhow::Context;
    let tensors = candle_core::safetensors::load(path, &candle_core::Device::Cpu)
        .with_context(|| format!("reading {}", path.display()))?;
    Ok(tensors.into_iter().collect())
}
