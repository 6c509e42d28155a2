//! Runs contenders one after another, each in a process of its own, and stores what they measure.

use std::collections::{BTreeMap, btree_map};
use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::DType;
use serde_json::json;
use stream_grad::tiling::conventional_activation_bytes;
use stream_grad::{ByteCount, Maps, Net};
use stream_grad_models::ModelName;

use super::entry::{Contender, Entry, Own, Peer};
use super::measured::{Budget, RateMeasurement, StepMeasurement};
use super::python::Python;
use super::scope::Run;
use super::step::{Arithmetic, Bound, Input, Job, Precision, StepJob, request};
use super::store::Store;
use super::time_left::TimeLeft;
use super::worker::{Refusal, Worker};
use super::{gradient_error, inputs};
use stream_grad_cli::{model, resident_memory, tell};

/// Seconds of steps after which an entry is not run again.
const PATIENCE: f64 = 600.0;
/// Resident bytes of a PyTorch step against those of the activations that a conventional step holds: 2.3 were measured.
const PYTORCH_OVERHEAD: u128 = 3;
/// Bytes that the f64 reference may use at most.
const REFERENCE_BYTES: u64 = 4 << 30;

/// Runs entries and keeps their failures.
pub(crate) struct Runner<'a> {
    pub(crate) store: Store,
    /// The peers' Python, or why there is none.
    pub(crate) python: Result<Python, String>,
    /// Its folder holds images and weights, too.
    worker: Worker<'a>,
    /// Why entries have no result, by key.
    pub(crate) failures: BTreeMap<String, String>,
    nets: BTreeMap<String, (ModelName, Net)>,
    references: BTreeMap<String, Result<PathBuf, String>>,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(store: Store, python: Result<Python, String>, worker: Worker<'a>) -> Self {
        Self {
            store,
            python,
            worker,
            failures: BTreeMap::new(),
            nets: BTreeMap::new(),
            references: BTreeMap::new(),
        }
    }

    /// Runs everything that has no result yet, round by round, so that all contenders share the machine's moods.
    pub(crate) fn run_all(&mut self, runs: &[Run]) -> anyhow::Result<()> {
        for run in runs {
            // Unknown models and images that are too small are refused before anything runs.
            self.work(&run.entry)?;
        }
        let missing = |run: &Run, store: &Store| {
            run.repeats
                .saturating_sub(store.steps(&run.entry.key()).len())
        };
        let mut work = 0.0;
        let mut count = 0;
        for run in runs {
            let missing = missing(run, &self.store);
            work += self.work(&run.entry)? * missing as f64;
            count += missing;
        }
        let mut time = TimeLeft::new(count, work);
        let rounds = runs.iter().map(|run| run.repeats).max().unwrap_or(0);
        for round in 0..rounds {
            for run in runs {
                let key = run.entry.key();
                let done = self.store.steps(&key);
                if round >= run.repeats || done.len() > round {
                    continue;
                }
                let spent: f64 = done.iter().map(|step| step.value.seconds()).sum();
                let work = self.work(&run.entry)?;
                if spent > PATIENCE || self.failures.contains_key(&key) {
                    time.skip(1, work);
                    continue;
                }
                match self.run_entry(run, round, &mut time, work) {
                    Ok(step) => {
                        time.say(&format!("{key}: {:.2} s", step.seconds()));
                        self.store.add_step(&key, step)?;
                    }
                    Err(Refusal::Failed(reason)) => {
                        time.say(&format!("{key}: {reason}"));
                        self.failures.insert(key, reason);
                    }
                    Err(Refusal::Stopped) => return Err(super::stopped()),
                }
            }
        }
        Ok(())
    }

    /// Measures the rate of matrix products with one thread and with all.
    pub(crate) fn run_products(&mut self, threads: usize) -> anyhow::Result<()> {
        for threads in [1, threads] {
            for library in ["PyTorch", "candle"] {
                let key = products_key(library, threads);
                if self.store.rate(&key).is_some() {
                    continue;
                }
                let command = match library {
                    "PyTorch" => self.peer_command("gemm.py", threads),
                    _ => Worker::own_command(1),
                };
                let job = match library {
                    "PyTorch" => json!({ "threads": threads }),
                    _ => serde_json::to_value(Job::Products { threads })?,
                };
                let rate = command
                    .and_then(|command| self.worker.measure::<RateMeasurement>(command, &job));
                match rate {
                    Ok(rate) => {
                        let speed = rate.flops_per_second / 1e9;
                        tell(format_args!("{key}: {speed:.0} GFLOP/s"));
                        self.store.add_rate(&key, rate)?;
                    }
                    Err(Refusal::Failed(reason)) => {
                        tell(format_args!("{key}: {reason}"));
                        self.failures.insert(key, reason);
                    }
                    Err(Refusal::Stopped) => return Err(super::stopped()),
                }
            }
        }
        Ok(())
    }

    fn run_entry(
        &mut self,
        run: &Run,
        round: usize,
        time: &mut TimeLeft,
        work: f64,
    ) -> Result<StepMeasurement, Refusal> {
        let entry = &run.entry;
        self.check_memory(entry)?;
        // What says how far the gradients are from f64 is the same in every round.
        let reference = if run.error && round == 0 {
            self.reference(entry, time)?
        } else {
            None
        };
        let gradients = reference
            .is_some()
            .then(|| self.worker.folder().join("gradients.safetensors"));
        let budget = self.budget(entry)?;
        let (command, job) = match entry.contender {
            Contender::Peer(peer) => self.peer_job(entry, peer, gradients.as_deref())?,
            Contender::Own(own) => self.own_job(entry, own, budget.as_ref(), gradients.clone())?,
        };
        let name = format!("{}, run {} of {}", entry.key(), round + 1, run.repeats);
        let mut step = time.during(&name, work, || {
            self.worker.measure::<StepMeasurement>(command, &job)
        })?;
        if let Some(plan) = &mut step.plan {
            plan.budget = budget;
        }
        if let (Some(reference), Some(gradients)) = (reference, gradients) {
            let error = gradient_error::compare(&reference, &gradients).map_err(Refusal::failed)?;
            step.error = Some(error);
            let _ = std::fs::remove_file(gradients);
        }
        Ok(step)
    }

    fn peer_job(
        &mut self,
        entry: &Entry,
        peer: Peer,
        gradients: Option<&Path>,
    ) -> Result<(Command, serde_json::Value), Refusal> {
        let (script, way, tile) = match peer {
            Peer::PlainPyTorch => ("pytorch_step.py", "plain", None),
            Peer::ChannelsLast => ("pytorch_step.py", "channels_last", None),
            Peer::Checkpointing => ("pytorch_step.py", "checkpoint", None),
            Peer::Lightstream { tile } => ("lightstream_step.py", "tiles", Some(tile)),
        };
        let command = self.peer_command(script, entry.threads)?;
        let (name, _) = self.net(&entry.model).map_err(Refusal::failed)?;
        check_peer_has(peer, *name)?;
        let (weights, input) = self.files(entry)?;
        let job = json!({
            "model": entry.model,
            "weights": weights,
            "input": input,
            "threads": entry.threads,
            "way": way,
            "dtype": entry.precision.as_str(),
            "tile": tile,
            "gradients": gradients,
        });
        Ok((command, job))
    }

    fn own_job(
        &mut self,
        entry: &Entry,
        own: Own,
        budget: Option<&Budget>,
        gradients: Option<PathBuf>,
    ) -> Result<(Command, serde_json::Value), Refusal> {
        let input = match own {
            Own::Streamed(_) => Input::Computed,
            _ => {
                let (weights, input) = self.files(entry)?;
                Input::Files { weights, input }
            }
        };
        let bound = match own {
            Own::Tiles(tile) | Own::Streamed(tile) => Bound::Tile(tile),
            _ => budget.map_or(Bound::Nothing, |budget| Bound::Bytes(budget.bytes)),
        };
        let job = StepJob {
            input,
            bound,
            gradients,
            arithmetic: match own {
                Own::WholeDirect => Arithmetic::Direct,
                _ => Arithmetic::Auto,
            },
            ..step_job(entry)
        };
        let command = Worker::own_command(entry.threads)?;
        let job = serde_json::to_value(Job::Step(job)).map_err(Refusal::failed)?;
        Ok((command, job))
    }

    /// What one of this project's runs may use, where that depends on what others measured.
    fn budget(&mut self, entry: &Entry) -> Result<Option<Budget>, Refusal> {
        let (bytes, from) = match entry.contender {
            Contender::Own(Own::PartOfPyTorch(part)) => {
                let layouts = [Peer::PlainPyTorch, Peer::ChannelsLast];
                let added = layouts.iter().filter_map(|&peer| self.added(entry, peer));
                match added.min() {
                    Some(bytes) => (bytes / part, "PyTorch's step"),
                    None => (
                        self.planned_whole(entry).map_err(Refusal::failed)? / part,
                        "the plan of this project's whole step, for want of PyTorch's",
                    ),
                }
            }
            Contender::Own(Own::WithinLightstream { tile }) => {
                let added = self.added(entry, Peer::Lightstream { tile });
                let bytes = added.ok_or_else(|| {
                    Refusal::Failed("what lightstream's step adds was not measured".to_owned())
                })?;
                (bytes, "lightstream's step")
            }
            _ => return Ok(None),
        };
        Ok(Some(Budget {
            bytes,
            from: from.to_owned(),
        }))
    }

    /// What a peer's step added in its first run.
    fn added(&self, entry: &Entry, peer: Peer) -> Option<u64> {
        let peer = Entry {
            contender: Contender::Peer(peer),
            ..entry.clone()
        };
        self.store
            .steps(&peer.key())
            .first()?
            .value
            .resident
            .added_bytes()
    }

    fn planned_whole(&mut self, entry: &Entry) -> anyhow::Result<u64> {
        let request = request(&step_job(entry)).features(Maps::Whole);
        let (_, net) = self.net(&entry.model)?;
        Ok(net.plan(request)?.peak_bytes().get())
    }

    /// The file of gradients in f64, made when it is first asked for; `None` if it cannot be made.
    fn reference(
        &mut self,
        entry: &Entry,
        time: &mut TimeLeft,
    ) -> Result<Option<PathBuf>, Refusal> {
        let name = format!("reference-{}-{}", entry.model, entry.image);
        if let Some(reference) = self.references.get(&name) {
            return Ok(reference.clone().ok());
        }
        let path = self.worker.folder().join(format!("{name}.safetensors"));
        let made = if path.exists() {
            Ok(())
        } else {
            self.make_reference(entry, &path, time)
        };
        let reference = match made {
            Ok(()) => Ok(path),
            Err(Refusal::Stopped) => return Err(Refusal::Stopped),
            Err(Refusal::Failed(reason)) => {
                time.say(&format!(
                    "{name}, in f64: {reason}; errors are not measured"
                ));
                Err(reason)
            }
        };
        self.references.insert(name, reference.clone());
        Ok(reference.ok())
    }

    fn make_reference(
        &mut self,
        entry: &Entry,
        path: &Path,
        time: &mut TimeLeft,
    ) -> Result<(), Refusal> {
        let free = resident_memory::available_bytes().map_or(REFERENCE_BYTES, |bytes| bytes / 2);
        let (weights, input) = self.files(entry)?;
        let job = Job::Step(StepJob {
            precision: Precision::F64,
            arithmetic: Arithmetic::Direct,
            bound: Bound::Bytes(free.min(REFERENCE_BYTES)),
            input: Input::Files { weights, input },
            gradients: Some(path.to_owned()),
            ..step_job(entry)
        });
        let command = Worker::own_command(entry.threads)?;
        let job = serde_json::to_value(job).map_err(Refusal::failed)?;
        let name = format!("{} {} in f64, for the errors", entry.model, entry.image);
        time.aside(&name, || {
            self.worker.measure::<StepMeasurement>(command, &job)
        })?;
        Ok(())
    }

    fn files(&mut self, entry: &Entry) -> Result<(PathBuf, PathBuf), Refusal> {
        let folder = self.worker.folder().to_owned();
        let (name, net) = self.net(&entry.model).map_err(Refusal::failed)?;
        let weights = inputs::weights(&folder, *name).map_err(Refusal::failed)?;
        let input = inputs::image(&folder, net, entry.image).map_err(Refusal::failed)?;
        Ok((absolute(&weights)?, absolute(&input)?))
    }

    fn net(&mut self, name: &str) -> anyhow::Result<&(ModelName, Net)> {
        Ok(match self.nets.entry(name.to_owned()) {
            btree_map::Entry::Occupied(net) => net.into_mut(),
            btree_map::Entry::Vacant(place) => place.insert(model::build(name, DType::F32)?),
        })
    }

    /// The step's arithmetic per thread.
    fn work(&mut self, entry: &Entry) -> anyhow::Result<f64> {
        let (_, net) = self.net(&entry.model)?;
        let sized = net.sized_graph(entry.image.height, entry.image.width)?;
        let flops = stream_grad::tiling::conventional_flops(&sized) as f64;
        Ok(flops * entry.compute_ratio() / entry.threads as f64)
    }

    /// Refuses what would drive the machine out of memory.
    fn check_memory(&mut self, entry: &Entry) -> Result<(), Refusal> {
        let Some(available) = resident_memory::available_bytes() else {
            return Ok(());
        };
        let edge = match entry.contender {
            Contender::Peer(Peer::Lightstream { tile }) => tile,
            Contender::Peer(Peer::PlainPyTorch | Peer::ChannelsLast)
            | Contender::Own(Own::Whole | Own::WholeDirect) => u64::MAX,
            // Little is known of the others beforehand, and they hold much less.
            _ => return Ok(()),
        };
        let (height, width) = (entry.image.height.min(edge), entry.image.width.min(edge));
        let (_, net) = self.net(&entry.model).map_err(Refusal::failed)?;
        let sized = net.sized_graph(height, width).map_err(Refusal::failed)?;
        let value = entry.precision.dtype().size_in_bytes();
        let needed = PYTORCH_OVERHEAD * conventional_activation_bytes(&sized, value);
        if needed > u128::from(available) {
            return Err(Refusal::Failed(format!(
                "needs about {}, of which {} is free",
                ByteCount::saturating(needed),
                ByteCount::bytes(available)
            )));
        }
        Ok(())
    }

    fn peer_command(&self, script: &str, threads: usize) -> Result<Command, Refusal> {
        match &self.python {
            Ok(python) => Ok(python.script(script, threads)),
            Err(reason) => Err(Refusal::Failed(format!("no Python: {reason}"))),
        }
    }
}

/// What the rate of products is stored under.
pub(crate) fn products_key(library: &str, threads: usize) -> String {
    format!("products of matrices, {threads} thread(s), {library}")
}

/// Refuses networks that a peer does not have, or that nobody has shown to run in it.
fn check_peer_has(peer: Peer, name: ModelName) -> Result<(), Refusal> {
    let in_torchvision = matches!(
        name,
        ModelName::ResNet(_)
            | ModelName::ConvNeXtTiny
            | ModelName::ConvNeXtSmall
            | ModelName::MobileNetV2
    );
    if !in_torchvision {
        return Err(Refusal::Failed(format!("torchvision has no `{name}`")));
    }
    if matches!(peer, Peer::Lightstream { .. }) && !matches!(name, ModelName::ResNet(_)) {
        return Err(Refusal::Failed("lightstream is run with ResNets".into()));
    }
    Ok(())
}

fn step_job(entry: &Entry) -> StepJob {
    StepJob {
        model: entry.model.clone(),
        precision: entry.precision,
        arithmetic: Arithmetic::Auto,
        height: entry.image.height,
        width: entry.image.width,
        threads: entry.threads,
        bound: Bound::Nothing,
        input: Input::Computed,
        gradients: None,
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Refusal> {
    std::path::absolute(path).map_err(Refusal::failed)
}
