//! What runs in a process of its own: one step or one epoch of this project, or products of matrices.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use stream_grad::tiling::Recipe;
use stream_grad::{ByteCount, DType, Maps, Net, Ones, Plan, PlanRequest};
use stream_grad_models::{load_net, save_tensors};
use xtask::arguments::CompareStepArguments;

use super::measured::{PlanMeasurement, RateMeasurement, Resident, StepMeasurement};
use super::pixels::{Noise, Sum};
use super::train::epoch::{self, EpochJob};
use stream_grad_cli::counting_allocator::{CountingAllocator, PeakWatch};
use stream_grad_cli::model;

/// Edge of the matrices whose product is timed, and for how long.
const PRODUCT_EDGE: usize = 2048;
const PRODUCT_TIME: Duration = Duration::from_secs(4);

/// What a process is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Job {
    Step(StepJob),
    Epoch(EpochJob),
    /// Products of matrices in f32 by candle, one on each thread at once.
    Products {
        threads: usize,
    },
}

/// One step of this project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StepJob {
    pub(crate) model: String,
    pub(crate) precision: Precision,
    pub(crate) arithmetic: Arithmetic,
    pub(crate) height: u64,
    pub(crate) width: u64,
    pub(crate) threads: usize,
    pub(crate) bound: Bound,
    pub(crate) input: Input,
    /// File to write the gradients to.
    pub(crate) gradients: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Precision {
    F32,
    F64,
    BF16,
}

impl Precision {
    pub(crate) const fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F64 => DType::F64,
            Self::BF16 => DType::BF16,
        }
    }

    /// What the parameters are held in.
    const fn of_parameters(self) -> candle_core::DType {
        match self {
            Self::F32 | Self::BF16 => candle_core::DType::F32,
            Self::F64 => candle_core::DType::F64,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        self.dtype().as_str()
    }
}

/// How convolutions are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Arithmetic {
    Auto,
    Direct,
}

/// What bounds the recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Bound {
    Nothing,
    Bytes(u64),
    /// Edge of a tile; nothing is stored.
    Tile(u64),
    /// A plan that was made before.
    Planned(PlannedStep),
}

/// A recipe, and what it is carried out in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlannedStep {
    pub(crate) recipe: Recipe,
    /// The budget that it was chosen for. It includes what stays in memory from one step to the next.
    pub(crate) memory: Option<u64>,
    /// Folder for a file of what the backward sweep needs.
    pub(crate) offload: Option<PathBuf>,
}

/// Where weights, image and cotangent come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Input {
    /// Safetensors, the latter with `input` and `y_bar`.
    Files { weights: PathBuf, input: PathBuf },
    /// Seeded weights, a computed image, the mean of the features.
    Computed,
}

/// Does what the job file says, and writes what was measured.
pub(crate) fn run(
    arguments: &CompareStepArguments,
    allocator: &CountingAllocator,
) -> anyhow::Result<()> {
    let text = std::fs::read(&arguments.job)
        .with_context(|| format!("reading {}", arguments.job.display()))?;
    let job: Job = serde_json::from_slice(&text)
        .with_context(|| format!("reading {}", arguments.job.display()))?;
    let result = match job {
        Job::Step(job) => serde_json::to_vec(&step(&job, allocator)?)?,
        Job::Epoch(job) => serde_json::to_vec(&epoch::run(&job, allocator)?)?,
        Job::Products { threads } => serde_json::to_vec(&products(threads)?)?,
    };
    std::fs::write(&arguments.result, result)
        .with_context(|| format!("writing {}", arguments.result.display()))
}

/// The request that a step's plan is made from.
pub(crate) fn request(job: &StepJob) -> PlanRequest {
    let request = PlanRequest::new(job.height, job.width)
        .threads(job.threads)
        .dtype(job.precision.dtype())
        .arithmetic(match job.arithmetic {
            Arithmetic::Auto => stream_grad::Arithmetic::Auto,
            Arithmetic::Direct => stream_grad::Arithmetic::Direct,
        })
        .features(match job.input {
            Input::Files { .. } => Maps::Whole,
            Input::Computed => Maps::Streamed,
        });
    match &job.bound {
        Bound::Nothing => request,
        Bound::Bytes(bytes) => request.memory(ByteCount::bytes(*bytes)),
        Bound::Tile(edge) => request.tile(*edge).stored(Vec::<String>::new()),
        Bound::Planned(step) => step.request(request),
    }
}

impl PlannedStep {
    /// The request for this plan.
    pub(crate) fn request(&self, request: PlanRequest) -> PlanRequest {
        let request = request.recipe(self.recipe.clone());
        let request = match self.memory {
            Some(bytes) => request.memory(ByteCount::bytes(bytes)),
            None => request,
        };
        match &self.offload {
            Some(folder) => request.offload(folder),
            None => request,
        }
    }
}

fn step(job: &StepJob, allocator: &CountingAllocator) -> anyhow::Result<StepMeasurement> {
    let (_, net) = model::build(&job.model, job.precision.of_parameters())?;
    let request = match job.bound {
        // Only here has the planner a choice.
        Bound::Bytes(_) => model::calibrated(&net, request(job), job.threads)?,
        Bound::Nothing | Bound::Tile(_) | Bound::Planned(_) => request(job),
    };
    let plan = net.plan(request)?;
    let (measured, gradients) = match &job.input {
        Input::Files { weights, input } => {
            load_net(weights, &net)?;
            whole(&plan, input, allocator)?
        }
        Input::Computed => streamed(&plan, job, allocator)?,
    };
    if let Some(path) = &job.gradients {
        write_gradients(&net, &gradients, path)?;
    }
    Ok(measured)
}

/// Image and features are tensors, as they are for the peers. The step is the second of its kind, as theirs is.
fn whole(
    plan: &Plan,
    input: &Path,
    allocator: &CountingAllocator,
) -> anyhow::Result<(StepMeasurement, GradStore)> {
    let mut tensors = candle_core::safetensors::load(input, &Device::Cpu)?;
    let mut take = |name: &str| {
        tensors
            .remove(name)
            .with_context(|| format!("{} lacks `{name}`", input.display()))
    };
    let (image, cotangents) = (take("input")?, [take("y_bar")?]);
    let memory = Memory::watch(allocator);
    let (features, residuals) = plan.forward(&image)?;
    drop((features, plan.vjp(residuals, &cotangents)?));
    let clock = Instant::now();
    let (features, residuals) = plan.forward(&image)?;
    let forward = clock.elapsed();
    let gradients = plan.vjp(residuals, &cotangents)?;
    let measured = memory.measured([forward, clock.elapsed()], plan);
    drop(features);
    Ok((measured, gradients))
}

/// Neither image nor features exist as a whole. One step is all that is done: of a large image it takes minutes.
fn streamed(
    plan: &Plan,
    job: &StepJob,
    allocator: &CountingAllocator,
) -> anyhow::Result<(StepMeasurement, GradStore)> {
    let noise = Noise {
        height: job.height,
        width: job.width,
    };
    let mut sum = Sum::default();
    let memory = Memory::watch(allocator);
    let clock = Instant::now();
    let residuals = plan.forward_to(&noise, &mut sum)?;
    let forward = clock.elapsed();
    let gradients = plan.vjp_from(residuals, &mut Ones, None)?;
    let measured = memory.measured([forward, clock.elapsed()], plan);
    Ok((measured, gradients))
}

/// Memory since the first step began.
struct Memory<'a> {
    resident: Resident,
    heap: PeakWatch<'a>,
}

impl<'a> Memory<'a> {
    fn watch(allocator: &'a CountingAllocator) -> Self {
        Self {
            resident: Resident::watch(),
            heap: allocator.watch(),
        }
    }

    /// What was measured, with the times of the forward sweep and of both.
    fn measured(self, [forward, both]: [Duration; 2], plan: &Plan) -> StepMeasurement {
        let classes = plan.peak_classes();
        StepMeasurement {
            seconds_forward: forward.as_secs_f64(),
            seconds_backward: (both - forward).as_secs_f64(),
            resident: self.resident.to_peak(),
            plan: Some(PlanMeasurement {
                recipe: plan.recipe().to_string(),
                tiles: plan.tiles(),
                stored_nodes: plan.stored_names().map(str::to_owned).collect(),
                compute_ratio: model::compute_ratio(plan),
                flops: plan.cost().total() as f64,
                budget: None,
                planned_peak_bytes: plan.peak_bytes().get(),
                planned_weight_bytes: saturating(
                    [classes.weights, classes.accumulators, classes.gradients]
                        .iter()
                        .map(|class| class.backward)
                        .sum(),
                ),
                heap_peak_bytes: self.heap.peak_bytes(),
            }),
            error: None,
        }
    }
}

fn saturating(bytes: u128) -> u64 {
    ByteCount::saturating(bytes).get()
}

fn write_gradients(net: &Net, gradients: &GradStore, path: &Path) -> anyhow::Result<()> {
    let tensors = model::trainable(net).map(|parameter| {
        let gradient = model::gradient(gradients, parameter)?;
        Ok((parameter.name.clone(), gradient.clone()))
    });
    let tensors = tensors.collect::<anyhow::Result<BTreeMap<String, Tensor>>>()?;
    Ok(save_tensors(path, &tensors)?)
}

/// The best rate of products on all threads at once. Candle's own threads gain nothing here, so each thread has a product
/// of its own; the caller limits candle to one thread.
fn products(threads: usize) -> anyhow::Result<RateMeasurement> {
    let best = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(products_of_one)).collect();
        let mut sum = 0.0;
        for worker in workers {
            let rate = worker.join();
            sum += rate.map_err(|_| anyhow::anyhow!("a thread of products failed"))??;
        }
        Ok::<f64, anyhow::Error>(sum)
    })?;
    Ok(RateMeasurement {
        flops_per_second: best,
    })
}

/// The middle rate of one thread's products while the others run theirs.
fn products_of_one() -> anyhow::Result<f64> {
    let shape = (PRODUCT_EDGE, PRODUCT_EDGE);
    let a = Tensor::rand(-1.0_f32, 1.0, shape, &Device::Cpu)?;
    let b = Tensor::rand(-1.0_f32, 1.0, shape, &Device::Cpu)?;
    let flops = 2.0 * (PRODUCT_EDGE as f64).powi(3);
    let mut rates = Vec::new();
    let end = Instant::now() + PRODUCT_TIME;
    while rates.is_empty() || Instant::now() < end {
        let start = Instant::now();
        std::hint::black_box(a.matmul(&b)?);
        rates.push(flops / start.elapsed().as_secs_f64());
    }
    Ok(super::measured::median(rates).unwrap_or(0.0))
}
