//! `cargo xtask reproduce memory`: what a step holds, planned for images of up to 65536 pixels edge and measured as far as that
//! takes minutes, beside conventional training.
//!
//! Conventional is this engine with one tile and everything stored: less than other software takes for the same step, so
//! that what is saved is not overstated. Each step runs in a process of its own.

mod case;
mod notes;
mod result;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use candle_core::DType;
use indicatif::HumanDuration;
use serde::{Deserialize, Serialize};
use stream_grad::{ByteCount, CostModel, Maps, Net, PlanRequest};
use stream_grad_train::calibration::{CostModelCache, cache_folder};
use stream_grad_train::report;
use xtask::arguments::MemoryArguments;

use case::{Case, Planned};
use result::MemoryResult;

use crate::compare::measured::StepMeasurement;
use crate::compare::step::{Arithmetic, Bound, Input, Job, Precision, StepJob};
use crate::compare::stopped;
use crate::compare::store::{Origin, Store, Timed};
use crate::compare::time_left::TimeLeft;
use crate::compare::worker::{Refusal, Worker};
use stream_grad_cli::{model, resident_memory, tell};

/// What a process takes beside its step: to start, to plan, to make weights.
const SECONDS_OF_A_PROCESS: f64 = 1.0;
/// Bytes that a process holds beside its step, weights included, at most.
const BYTES_OF_A_PROCESS: u64 = 512 << 20;

/// What a folder holds: plans and measurements, by case.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Rows {
    plans: BTreeMap<String, Planned>,
    steps: BTreeMap<String, Timed<StepMeasurement>>,
}

/// Plans and measures what is not there yet, until `stop` is set, and prints and writes everything.
pub(crate) fn run(arguments: &MemoryArguments, stop: &AtomicBool) -> anyhow::Result<()> {
    let threads = model::threads(arguments.threads);
    stream_grad::check_threads(threads)?;
    let output = arguments.output();
    let folder = std::path::absolute(&output)?;
    let store = Store::open(&folder, Origin::here()?)?;
    let worker = Worker::new(folder.join("work"), stop)?;
    let cases = if arguments.quick {
        case::rehearsal(arguments.memory)
    } else {
        case::cases(arguments.memory)
    };
    let mut experiment = Experiment {
        store,
        worker,
        threads,
        refused: BTreeMap::new(),
    };
    experiment.plan(&cases, stop)?;
    let measured = experiment.measure(&cases);
    let refused = |key: &str| experiment.refused.get(key).cloned();
    let with = (threads, arguments.memory);
    let result = MemoryResult::new(&experiment.store, &cases, with, &refused);
    // What is finished is told, whatever comes next.
    result.write(&folder)?;
    notes::write(&result, &folder)?;
    report::write(&folder)?;
    measured?;
    println!("{result}");
    println!("The report is {}", output.join("report.html").display());
    Ok(())
}

struct Experiment<'a> {
    store: Store<Rows>,
    worker: Worker<'a>,
    threads: usize,
    /// Why cases were not measured, by key.
    refused: BTreeMap<String, String>,
}

impl Experiment<'_> {
    fn plan(&mut self, cases: &[Case], stop: &AtomicBool) -> anyhow::Result<()> {
        let threads = self.threads;
        let missing = |store: &Store<Rows>, case: &&Case| {
            !store.results().plans.contains_key(&case.key(threads))
        };
        let left: Vec<&Case> = cases
            .iter()
            .filter(|case| missing(&self.store, case))
            .collect();
        let mut time = TimeLeft::new(left.len(), left.len() as f64);
        for of_model in left.chunk_by(|a, b| a.model == b.model) {
            let (_, net) = model::build(of_model[0].model, DType::F32)?;
            let costs = cost_model(&net, threads)?;
            for case in of_model {
                if stop.load(Ordering::Relaxed) {
                    return Err(stopped());
                }
                let key = case.key(threads);
                let folder = self.worker.folder();
                let planned = time.during(&format!("planning {key}"), 1.0, || {
                    case.plan(&net, &costs, threads, folder)
                });
                let planned = planned.with_context(|| key.clone())?;
                self.store.update(|rows| {
                    rows.plans.insert(key, planned);
                })?;
            }
        }
        Ok(())
    }

    /// Measures what is to be measured, smaller images first, so that an early end leaves whole rows.
    fn measure(&mut self, cases: &[Case]) -> anyhow::Result<()> {
        let mut left = self.left(cases);
        left.sort_by_key(|(case, _)| case.edge);
        let seconds = |planned: &Planned| planned.seconds + SECONDS_OF_A_PROCESS;
        let work = left.iter().map(|(_, planned)| seconds(planned)).sum();
        self.announce(&left, work)?;
        let mut time = TimeLeft::new(left.len(), work);
        for (case, planned) in left {
            let key = case.key(self.threads);
            if let Some(reason) = lacks_memory(&planned) {
                time.skip(1, seconds(&planned));
                self.refused.insert(key, reason);
                continue;
            }
            let measured = time.during(&key, seconds(&planned), || self.step(&case, &planned));
            match measured {
                Ok(step) => {
                    time.say(&format!("{key}: {:.2} s", step.seconds()));
                    self.store.update(|rows| {
                        rows.steps.insert(key, Timed::now(step));
                    })?;
                }
                Err(Refusal::Failed(reason)) => {
                    time.say(&format!("{key}: {reason}"));
                    self.refused.insert(key, reason);
                }
                Err(Refusal::Stopped) => return Err(stopped()),
            }
        }
        Ok(())
    }

    /// What is still to be measured, with its plan.
    fn left(&self, cases: &[Case]) -> Vec<(Case, Planned)> {
        let rows = self.store.results();
        let left = cases.iter().filter_map(|case| {
            let key = case.key(self.threads);
            let is_left = case.measured && !rows.steps.contains_key(&key);
            is_left.then(|| Some((*case, rows.plans.get(&key)?.clone())))?
        });
        left.collect()
    }

    /// Says what is coming.
    fn announce(&self, left: &[(Case, Planned)], seconds: f64) -> anyhow::Result<()> {
        if left.is_empty() {
            return Ok(());
        }
        let fitting = left
            .iter()
            .filter(|(_, planned)| lacks_memory(planned).is_none());
        let peak = fitting.clone().map(|(_, planned)| planned.peak_bytes).max();
        let file = fitting.map(|(_, planned)| planned.file_bytes).max();
        tell(format_args!(
            "{} steps to measure, one after another, predicted: {}, up to {} of memory, up to {} on disk in {} (the figures of \
             a quiet machine)",
            left.len(),
            HumanDuration(Duration::try_from_secs_f64(seconds)?),
            ByteCount::bytes(peak.unwrap_or(0)),
            ByteCount::bytes(file.unwrap_or(0)),
            self.worker.folder().display()
        ));
        Ok(())
    }

    fn step(&self, case: &Case, planned: &Planned) -> Result<StepMeasurement, Refusal> {
        let job = Job::Step(StepJob {
            model: case.model.to_owned(),
            precision: Precision::F32,
            arithmetic: Arithmetic::Auto,
            height: case.edge,
            width: case.edge,
            threads: self.threads,
            bound: Bound::Planned(planned.step.clone()),
            input: Input::Computed,
            gradients: None,
        });
        self.worker
            .measure(Worker::own_command(self.threads)?, &job)
    }
}

/// Why the machine does not hold a step, as it is at the moment.
fn lacks_memory(planned: &Planned) -> Option<String> {
    let available = resident_memory::available_bytes()?;
    let needed = planned.peak_bytes.saturating_add(BYTES_OF_A_PROCESS);
    (needed > available).then(|| {
        format!(
            "needs {}, of which {} is free",
            ByteCount::bytes(needed),
            ByteCount::bytes(available)
        )
    })
}

/// How long the network's operations take here.
fn cost_model(net: &Net, threads: usize) -> anyhow::Result<CostModel> {
    let cache = CostModelCache::new(cache_folder().as_deref(), threads);
    // The size of the image does not matter.
    let request = PlanRequest::new(1024, 1024)
        .features(Maps::Streamed)
        .threads(threads);
    Ok(cache.model(net, &request, &mut |notice| tell(notice))?)
}
