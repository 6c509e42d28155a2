//! Checkpoints: everything that a run needs to go on as if it had never stopped, in one file.

mod folder;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use stream_grad::tiling::Recipe;

pub use folder::{CheckpointFolder, UnusableCheckpoint};

use crate::data::Sampling;
use crate::error::{Result, TrainError};
use crate::files::write_whole;
use crate::metrics::Confusion;
use crate::optimizer::count_by_variable;
use crate::sealed::{self, Damage, Sealed};

/// Keys in the file's metadata.
const PROGRESS: &str = "progress";
const VERSION: &str = "version";
/// What this code writes. Version 1 names none in the file, and lacks the optimiser's numbers of steps by parameter. Version 2
/// has no checksum, and a fingerprint of settings that had other names.
const CURRENT: u64 = 3;
const MODEL: &str = "model.";
const OPTIMIZER: &str = "optimizer.";
const AVERAGE: &str = "ema.";

/// How far a run is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Settings and slides of the run, as a number: a checkpoint of another run is refused. `None` in versions before 3, whose
    /// settings had other names.
    pub fingerprint: Option<u64>,
    /// Seed of weights, orders and augmentations.
    #[serde(default)]
    pub seed: u64,
    /// How the slides of an epoch are drawn.
    #[serde(default)]
    pub sampling: Sampling,
    /// Epoch that is under way, from 0. Orders and augmentations are functions of it, of the seed and of the sampling, so that no
    /// generator's state has to be kept.
    pub epoch: u64,
    /// Groups of that epoch that are done.
    pub groups: u64,
    /// Steps that the optimiser has made.
    pub optimizer_steps: u64,
    /// Steps that are in the averaged weights, if there are such.
    #[serde(default)]
    pub averaged_steps: u64,
    /// Sum of the losses of that epoch's slides so far.
    pub loss_sum: f64,
    /// Slides in that sum.
    pub loss_count: u64,
    /// Those of them whose label was the predicted one. `None` where they were not counted from the epoch's beginning on, as in
    /// checkpoints of releases that did not count them.
    #[serde(default)]
    pub correct: Option<u64>,
    /// How often each class was taken for each in the pixels of that epoch's slides so far; `None` for other tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confusion: Option<Confusion>,
    /// What finished epochs gave.
    pub history: Vec<EpochRecord>,
    /// The best of the epochs after which the validation split was evaluated.
    #[serde(default)]
    pub best: Option<BestEpoch>,
    /// Evaluations of the validation split since then.
    #[serde(default)]
    pub evaluations_since_best: u64,
    /// Whether the run ended before its last epoch, since the validation split had got no better.
    #[serde(default)]
    pub stopped_early: bool,
    /// Slides that gave a loss or a gradient that is no number and are left out from then on, by index.
    pub excluded: Vec<usize>,
    /// Slides that could not be read, by index, and how often.
    pub broken: BTreeMap<usize, u64>,
    /// How images of each size are cut: sums are rounded in an order that depends on it.
    pub recipes: Vec<Recipe>,
}

/// The best epoch so far, by what [`TrainSettings::monitor`](crate::trainer::TrainSettings::monitor) says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BestEpoch {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Its value.
    pub value: f64,
}

/// What an epoch gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Mean loss of the training slides, each as it was when it came.
    pub train_loss: f64,
    /// Share of the training slides whose label was the predicted one, each as it was when it came; `None` for a task without an
    /// accuracy.
    #[serde(default)]
    pub train_accuracy: Option<f64>,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Mean loss of the validation split, if it was evaluated.
    pub validation_loss: Option<f64>,
    /// The task's metric on the validation split, if it was evaluated.
    pub validation_metric: Option<f64>,
    /// Mean Dice over the classes of the training slides' pixels, each slide as it was when it came; `None` for other tasks.
    #[serde(default)]
    pub train_dice: Option<f64>,
    /// Mean intersection over union of the same.
    #[serde(default)]
    pub train_iou: Option<f64>,
    /// Mean intersection over union of the validation split, if it was evaluated, beside the Dice that is the task's metric.
    #[serde(default)]
    pub validation_iou: Option<f64>,
}

/// A run at the end of a group.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// How far the run is.
    pub progress: Progress,
    /// Weights and running statistics.
    pub model: BTreeMap<String, Tensor>,
    /// State of the optimiser.
    pub optimizer: HashMap<String, Tensor>,
    /// Averaged weights; empty where none are kept.
    pub average: BTreeMap<String, Tensor>,
}

impl Checkpoint {
    /// Writes the checkpoint, with a checksum over all of its bytes. The file appears whole or not at all; one that was there
    /// stays until then.
    ///
    /// # Errors
    /// [`TrainError::CheckpointNotWritten`] for a folder that cannot be written to, or a disk that is full.
    pub fn save(&self, path: &Path) -> Result<()> {
        let progress = serde_json::to_string(&self.progress).map_err(TrainError::json(path))?;
        let text = HashMap::from([
            (VERSION.to_owned(), CURRENT.to_string()),
            (PROGRESS.to_owned(), progress),
        ]);
        let parts = [(MODEL, &self.model), (AVERAGE, &self.average)];
        let named = |(prefix, tensors): (&'static str, &'_ BTreeMap<String, Tensor>)| {
            let named = tensors
                .iter()
                .map(move |(name, tensor)| (format!("{prefix}{name}"), tensor.clone()));
            named.collect::<Vec<_>>()
        };
        let optimizer = self
            .optimizer
            .iter()
            .map(|(name, tensor)| (format!("{OPTIMIZER}{name}"), tensor.clone()));
        let tensors: BTreeMap<String, Tensor> =
            parts.into_iter().flat_map(named).chain(optimizer).collect();
        write_sealed(path, text, &tensors)
    }

    /// Reads a checkpoint of this or an older version. In one of version 1 AdamW counted its steps for all parameters
    /// together: each that had a gradient takes that number as its own, by which it was stepped so far, and each that had none
    /// begins anew.
    ///
    /// # Errors
    /// [`TrainError::File`]; [`TrainError::Checkpoint`] for a file that is none or is damaged;
    /// [`TrainError::NewerCheckpoint`] for one of a newer version.
    pub fn load(path: &Path) -> Result<Self> {
        let Sealed {
            text,
            tensors,
            is_checked,
        } = read_sealed(path)?;
        let version = version(path, text.get(VERSION))?;
        if version >= 3 && !is_checked {
            return Err(damaged(path, "a checksum", &"none"));
        }
        let progress = text
            .get(PROGRESS)
            .ok_or_else(|| damaged(path, "the progress of a run", &"none"))?;
        let progress: Progress = serde_json::from_str(progress)
            .map_err(|error| damaged(path, "the progress of a run", &error))?;
        let mut checkpoint = Self {
            progress,
            model: BTreeMap::new(),
            optimizer: HashMap::new(),
            average: BTreeMap::new(),
        };
        for (name, tensor) in tensors {
            if let Some(name) = name.strip_prefix(MODEL) {
                checkpoint.model.insert(name.to_owned(), tensor);
            } else if let Some(name) = name.strip_prefix(OPTIMIZER) {
                checkpoint.optimizer.insert(name.to_owned(), tensor);
            } else if let Some(name) = name.strip_prefix(AVERAGE) {
                checkpoint.average.insert(name.to_owned(), tensor);
            } else {
                return Err(damaged(path, "tensors of a model or an optimiser", &name));
            }
        }
        if version < 3 {
            checkpoint.progress.fingerprint = None;
        }
        if version == 1 {
            let steps = checkpoint.progress.optimizer_steps;
            count_by_variable(&mut checkpoint.optimizer, steps)?;
        }
        Ok(checkpoint)
    }
}

/// Writes tensors and text with a checksum.
pub(crate) fn write_sealed(
    path: &Path,
    text: HashMap<String, String>,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<()> {
    let bytes = sealed::seal(text, tensors).map_err(refused(path))?;
    write_whole(path, &bytes).map_err(|error| match error {
        TrainError::File { source, .. } => TrainError::CheckpointNotWritten {
            path: path.to_path_buf(),
            bytes: bytes.len(),
            source,
        },
        other => other,
    })
}

/// Reads what [`write_sealed`] wrote.
pub(crate) fn read_sealed(path: &Path) -> Result<Sealed> {
    let bytes = std::fs::read(path).map_err(TrainError::file(path))?;
    sealed::open(bytes).map_err(refused(path))
}

fn version(path: &Path, entry: Option<&String>) -> Result<u64> {
    let Some(entry) = entry else {
        return Ok(1);
    };
    match entry.parse() {
        Ok(version @ 1..=CURRENT) => Ok(version),
        Ok(version) if version > CURRENT => Err(TrainError::NewerCheckpoint {
            path: path.to_path_buf(),
            newest: CURRENT,
            found: version,
        }),
        _ => Err(damaged(path, "the number of a version", entry)),
    }
}

fn refused(path: &Path) -> impl Fn(Damage) -> TrainError {
    move |Damage { expected, found }| damaged(path, &expected, &found)
}

fn damaged(path: &Path, expected: &str, found: &dyn std::fmt::Display) -> TrainError {
    TrainError::Checkpoint {
        path: path.to_path_buf(),
        expected: expected.to_owned(),
        found: found.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use safetensors::SafeTensors;

    use super::*;

    fn checkpoint() -> Checkpoint {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let progress = Progress {
            fingerprint: Some(u64::MAX),
            epoch: 3,
            loss_sum: 0.1 + 0.2,
            excluded: vec![4],
            broken: BTreeMap::from([(7, 2)]),
            history: vec![EpochRecord {
                epoch: 2,
                train_loss: 1.0 / 3.0,
                train_accuracy: Some(2.0 / 3.0),
                learning_rate: 1e-3,
                validation_loss: None,
                validation_metric: Some(0.7),
                train_dice: None,
                train_iou: None,
                validation_iou: None,
            }],
            ..Progress::default()
        };
        Checkpoint {
            progress,
            model: BTreeMap::from([(
                "a.weight".to_owned(),
                tensor(&[1.0, f32::MIN_POSITIVE / 4.0, -0.0]),
            )]),
            optimizer: HashMap::from([(
                "first.a.weight".to_owned(),
                tensor(&[0.1, 0.2, f32::NAN]),
            )]),
            average: BTreeMap::from([("a.weight".to_owned(), tensor(&[1.0, 2.0, 3.0]))]),
        }
    }

    fn bits(tensor: &Tensor) -> Vec<u32> {
        tensor
            .to_vec1::<f32>()
            .unwrap()
            .into_iter()
            .map(f32::to_bits)
            .collect()
    }

    #[test]
    fn what_is_saved_comes_back_bit_by_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/checkpoint.safetensors");
        let saved = checkpoint();
        saved.save(&path).unwrap();
        saved.save(&path).unwrap();
        let loaded = Checkpoint::load(&path).unwrap();
        assert_eq!(loaded.progress, saved.progress);
        assert_eq!(
            bits(&loaded.model["a.weight"]),
            bits(&saved.model["a.weight"])
        );
        assert_eq!(
            bits(&loaded.optimizer["first.a.weight"]),
            bits(&saved.optimizer["first.a.weight"])
        );
        assert_eq!(
            bits(&loaded.average["a.weight"]),
            bits(&saved.average["a.weight"])
        );
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_checkpoint_has_the_permissions_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let [path, plain] = ["checkpoint", "plain"].map(|name| folder.path().join(name));
        std::fs::write(&plain, "").unwrap();
        checkpoint().save(&path).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain));
    }

    #[test]
    fn versions_are_told_and_newer_ones_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.safetensors");
        checkpoint().save(&path).unwrap();
        let saved = std::fs::read(&path).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&saved).unwrap();
        let metadata = metadata.metadata().clone().unwrap();
        assert_eq!(metadata["version"], "3");
        let with_version = |version: &str| {
            let mut other = metadata.clone();
            other.remove("checksum");
            other.insert(VERSION.to_owned(), version.to_owned());
            let none: [(&str, &Tensor); 0] = [];
            std::fs::write(&path, safetensors::serialize(none, Some(other)).unwrap()).unwrap();
            Checkpoint::load(&path)
        };
        for version in ["two", "0", "-1"] {
            let error = with_version(version).unwrap_err().to_string();
            assert!(
                error.contains("the number of a version") && error.contains(version),
                "{error}"
            );
        }
        let newer = with_version("4").unwrap_err();
        assert!(
            matches!(
                newer,
                TrainError::NewerCheckpoint {
                    newest: 3,
                    found: 4,
                    ..
                }
            ),
            "{newer}"
        );
        // One of this version has a checksum, one of the version before has none, and a fingerprint of other names.
        let error = with_version("3").unwrap_err().to_string();
        assert!(error.contains("a checksum"), "{error}");
        let old = with_version("2").unwrap();
        assert_eq!(old.progress.fingerprint, None);
        assert_eq!(old.progress.history, checkpoint().progress.history);
    }

    /// Made by the code before version 2: see `tests/golden/README.md`.
    #[test]
    fn an_unversioned_checkpoint_gets_a_number_of_steps_for_each_parameter() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden/checkpoint_unversioned.safetensors");
        let mut old = Checkpoint::load(&path).unwrap();
        assert_eq!(old.progress.optimizer_steps, 3);
        let names = |prefix: &str, state: &HashMap<String, Tensor>| -> Vec<String> {
            let names = state.keys().filter_map(|name| name.strip_prefix(prefix));
            let mut names: Vec<String> = names.map(str::to_owned).collect();
            names.sort();
            names
        };
        let counted = names("step.", &old.optimizer);
        assert!(!counted.is_empty());
        assert_eq!(counted, names("first.", &old.optimizer));
        for name in &counted {
            let count = &old.optimizer[&format!("step.{name}")];
            assert_eq!(count.to_scalar::<i64>().unwrap(), 3);
        }
        // One that never had a gradient has no state, and gets no number.
        for kind in ["first.", "second.", "step."] {
            old.optimizer.remove(&format!("{kind}{}", counted[0]));
        }
        count_by_variable(&mut old.optimizer, 3).unwrap();
        assert_eq!(names("step.", &old.optimizer), counted[1..]);
    }

    #[test]
    fn damaged_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.safetensors");
        assert!(matches!(
            Checkpoint::load(&path),
            Err(TrainError::File { path: named, source })
                if named == path && source.kind() == std::io::ErrorKind::NotFound
        ));
        checkpoint().save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 7, 100, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(
                matches!(Checkpoint::load(&path), Err(TrainError::Checkpoint { path: named, expected, .. })
                    if named == path && expected == "a safetensors file"),
                "{length} bytes"
            );
        }
        let mut changed = bytes.clone();
        *changed.last_mut().unwrap() ^= 1;
        std::fs::write(&path, changed).unwrap();
        let error = Checkpoint::load(&path).unwrap_err().to_string();
        assert!(error.contains("SHA-256"), "{error}");
        let tensors: BTreeMap<String, Tensor> = checkpoint().model;
        std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
        let error = Checkpoint::load(&path).unwrap_err().to_string();
        assert!(error.contains("progress"), "{error}");
    }

    #[test]
    fn a_failed_save_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.safetensors");
        std::fs::create_dir(&path).unwrap();
        let error = checkpoint().save(&path).unwrap_err();
        assert!(
            error.to_string().starts_with(path.to_str().unwrap())
                && error.to_string().contains("a folder"),
            "{error}"
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
