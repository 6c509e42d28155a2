//! What changes while a run goes on, and how it is kept.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;

use super::average::Average;
use super::events::{TrainEvent, TrainObserver};
use super::log::RunLog;
use super::objective::StepObjective;
use super::recipes::RecipeFile;
use super::run::Run;
use super::settings::TrainSettings;
use super::skipped::Skipped;
use super::timing::Clock;
use crate::checkpoint::{Checkpoint, CheckpointFolder, Progress};
use crate::data::{Label, Sample};
use crate::error::{Result, TrainError};
use crate::model::{Precision, TaskModel};
use crate::optimizer::Optimizer;

/// Folder of the checkpoints in that of the run.
const CHECKPOINTS: &str = "checkpoints";

/// What changes while a run goes on.
pub(super) struct State<'a> {
    pub(super) objective: StepObjective<'a>,
    pub(super) progress: Progress,
    pub(super) optimizer: Optimizer,
    pub(super) average: Option<Average>,
    /// Weights of the best epoch, of a run without a folder for them.
    pub(super) best: BTreeMap<String, Tensor>,
    pub(super) last_failure: Option<Skipped>,
    pub(super) waiting: Clock,
    pub(super) recipes: RecipeFile,
    pub(super) log: Option<RunLog>,
}

impl<'a> Run<'a> {
    /// The state of a new run, or that of the newest checkpoint that is whole.
    pub(super) fn begin(&self, observer: &mut dyn TrainObserver) -> Result<State<'a>> {
        let fingerprint = self.fingerprint()?;
        let objective = StepObjective::fit(
            self.model,
            self.task,
            &self.settings.class_weights,
            self.train,
        )?;
        let variables = self.model.variables();
        let mut optimizer = Optimizer::new(self.settings.optimizer, variables.clone())
            .groups(&self.model.parameter_groups(), |group| {
                self.settings.options(group)
            });
        let decay = self.settings.ema_decay;
        let mut progress = Progress {
            fingerprint: Some(fingerprint),
            seed: self.settings.seed,
            sampling: self.settings.sampling,
            ..Progress::default()
        };
        let checkpoints = self.checkpoints();
        let mut recipes = match &checkpoints {
            Some(checkpoints) => RecipeFile::read(checkpoints.path(), fingerprint)?,
            None => RecipeFile::default(),
        };
        let mut average = None;
        let stored = match &checkpoints {
            Some(checkpoints) => checkpoints.newest(&mut |unusable| {
                observer.notice(&TrainEvent::CheckpointUnusable {
                    path: &unusable.path,
                    reason: unusable.reason.to_string(),
                });
            })?,
            None => None,
        };
        if let Some((path, checkpoint)) = stored {
            check_fingerprint(&path, fingerprint, &checkpoint)?;
            self.model.load_tensors(&checkpoint.model)?;
            recipes.join(&checkpoint.progress.recipes);
            optimizer.load_state(checkpoint.progress.optimizer_steps, checkpoint.optimizer)?;
            progress = Progress {
                fingerprint: Some(fingerprint),
                ..checkpoint.progress
            };
            // A checkpoint of a version that knew of no averages has none.
            if let Some(decay) = decay.filter(|_| !checkpoint.average.is_empty()) {
                let steps = progress.averaged_steps;
                average = Some(Average::stored(
                    decay,
                    &variables,
                    steps,
                    checkpoint.average,
                )?);
            }
        }
        if average.is_none()
            && let Some(decay) = decay
        {
            average = Some(Average::new(decay, &variables)?);
        }
        if !recipes.recipes().is_empty() {
            self.model.load_recipes(recipes.recipes().to_vec());
        }
        let log = match self.folder {
            Some(folder) => Some(RunLog::open(folder, &progress)?),
            None => None,
        };
        Ok(State {
            objective,
            progress,
            optimizer,
            average,
            best: BTreeMap::new(),
            last_failure: None,
            waiting: Clock::default(),
            recipes,
            log,
        })
    }

    /// Where the checkpoints of the run are.
    pub(super) fn checkpoints(&self) -> Option<CheckpointFolder> {
        let folder = self.folder?.join(CHECKPOINTS);
        Some(CheckpointFolder::new(
            folder,
            self.settings.keep_checkpoints,
        ))
    }

    /// A number that any change of the settings or the slides changes (FNV-1a of their JSON), but for such settings that nothing
    /// depends on here, and for the folders that slides lie in.
    fn fingerprint(&self) -> Result<u64> {
        let settings = TrainSettings {
            checkpoint_every: 0,
            keep_checkpoints: 1,
            seeds: 1,
            ..self.settings.clone()
        };
        let shapes: Vec<(String, Vec<usize>)> = self
            .model
            .variables()
            .into_iter()
            .map(|(name, variable)| (name, variable.dims().to_vec()))
            .collect();
        let named = |samples: &[Sample]| -> Vec<Sample> {
            let named = samples.iter().map(|sample| Sample {
                slide: sample.slide.file_name().unwrap_or_default().into(),
                label: match &sample.label {
                    Some(Label::Map(map)) => {
                        Some(Label::Map(map.file_name().unwrap_or_default().into()))
                    }
                    label => label.clone(),
                },
                ..sample.clone()
            });
            named.collect()
        };
        let slides = (named(self.train), named(self.validation));
        let everything = (settings, self.task, slides, shapes);
        let mut json = serde_json::to_string(&everything)
            .map_err(TrainError::json(Path::new("settings and slides")))?;
        if let TaskModel::Pixels(pixels) = self.model {
            json += &format!("{:?}", pixels.loss);
        }
        // Of f32, checkpoints are as they were before there was another.
        if self.model.precision() != Precision::F32 {
            json += self.model.precision().as_str();
        }
        Ok(json.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }

    /// Writes a checkpoint.
    pub(super) fn save(&self, state: &State<'_>, observer: &mut dyn TrainObserver) -> Result<()> {
        let Some(checkpoints) = self.checkpoints() else {
            return Ok(());
        };
        let average = state.average.as_ref();
        let progress = Progress {
            optimizer_steps: state.optimizer.steps(),
            averaged_steps: average.map_or(0, Average::steps),
            recipes: self.model.recipes(),
            ..state.progress.clone()
        };
        let path = checkpoints.write(&Checkpoint {
            progress,
            model: self.model.tensors(),
            optimizer: state.optimizer.state()?,
            average: average.map_or_else(BTreeMap::new, |average| average.weights().clone()),
        })?;
        observer.notice(&TrainEvent::CheckpointWritten(&path));
        Ok(())
    }
}

/// Refuses a checkpoint of other settings or slides. In old ones there is nothing that could be compared.
fn check_fingerprint(path: &Path, expected: u64, checkpoint: &Checkpoint) -> Result<()> {
    match checkpoint.progress.fingerprint {
        Some(found) if found != expected => Err(TrainError::Checkpoint {
            path: path.to_path_buf(),
            expected: format!("settings and slides of fingerprint {expected:016x}"),
            found: format!(
                "{found:016x}, which is of others, or of a release with other settings: give the run another folder"
            ),
        }),
        _ => Ok(()),
    }
}
