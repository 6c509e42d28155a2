//! One file for a trained model: its weights, and all that is needed to predict with them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkpoint::{read_sealed, write_sealed};
use crate::data::{ClassNames, Task};
use crate::error::{Result, TrainError};
use crate::model::{Model, ModelSettings, Precision, SegmentationModel, StreamedModel};
use crate::source::ReadSettings;

/// What this code writes.
const CURRENT: u64 = 1;
const VERSION: &str = "version";

/// What the machine of the training allowed, or had in its folders; it says nothing of another, and is by default there.
const OF_THE_MACHINE: [(&str, &str); 6] = [
    ("model", "memory_bytes"),
    ("model", "threads"),
    ("model", "offload"),
    ("model", "weights"),
    ("read", "held_bytes"),
    ("read", "decoding_threads"),
];

/// What is needed to predict, beside the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelDescription {
    /// Network and head, by name. What memory and threads they may take, the file does not say.
    pub model: ModelSettings,
    /// What is predicted.
    pub task: Task,
    /// Names of classes, labels or levels, in the order of their numbers.
    pub classes: ClassNames,
    /// Resolution at which slides are read, in microns per pixel.
    pub microns_per_pixel: f64,
    /// How slides are read: normalisation, stain, tissue. How much is held and decoded ahead, the file does not say.
    pub read: ReadSettings,
    /// What trained it.
    pub trained_by: TrainedBy,
}

/// Where weights come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainedBy {
    /// Release of this crate.
    pub release: String,
    /// Seed of the run.
    pub seed: u64,
    /// Epoch after which the weights were as they are, from 0.
    pub epoch: u64,
    /// Whether they are averages over steps.
    pub is_averaged: bool,
    /// Slides that were trained on.
    pub slides: usize,
}

impl TrainedBy {
    /// Of this release.
    #[must_use]
    pub fn new(seed: u64, epoch: u64) -> Self {
        Self {
            release: env!("CARGO_PKG_VERSION").to_owned(),
            seed,
            epoch,
            is_averaged: false,
            slides: 0,
        }
    }
}

/// What a trained model may take, and what it stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that the sweeps of one image may take.
    pub memory_bytes: u64,
    /// Threads; 0 for one for each core.
    pub threads: usize,
    /// What activations are stored as, where it is to be another than in the training.
    pub precision: Option<Precision>,
}

impl Limits {
    /// So many bytes and threads, 0 for one for each core. What is stored is as in the training.
    #[must_use]
    pub const fn new(memory_bytes: u64, threads: usize) -> Self {
        Self {
            memory_bytes,
            threads,
            precision: None,
        }
    }
}

/// A trained model as it lies in a file.
#[derive(Debug, Clone)]
pub struct ModelFile {
    /// What is said of it.
    pub description: ModelDescription,
    /// Weights, running statistics, and the scale of regression targets.
    pub tensors: BTreeMap<String, Tensor>,
}

impl ModelFile {
    /// The model within `limits`, of which memory and threads change no bit of what it predicts.
    ///
    /// # Errors
    /// [`TrainError::Model`] for a network that this release does not know, [`TrainError::State`] for weights that do not fit it,
    /// [`TrainError::Setting`] for a task of pixels.
    pub fn build(&self, limits: Limits) -> Result<StreamedModel> {
        let settings = self.settings(limits);
        let ModelDescription {
            task,
            trained_by,
            read,
            ..
        } = &self.description;
        let model = StreamedModel::new(&settings, task.outputs(), trained_by.seed)?;
        let model = model.reuse(read.background.reuse());
        model.load_tensors(&self.tensors)?;
        Ok(model)
    }

    /// The same of a model of pixels.
    ///
    /// # Errors
    /// As [`build`](Self::build); [`TrainError::Setting`] for another task than a segmentation.
    pub fn build_segmentation(&self, limits: Limits) -> Result<SegmentationModel> {
        let settings = self.settings(limits);
        let ModelDescription {
            task,
            trained_by,
            read,
            ..
        } = &self.description;
        let Task::Segmentation { classes } = *task else {
            return Err(TrainError::setting(
                "task",
                "segmentation",
                format!("{task:?}"),
            ));
        };
        let model = SegmentationModel::new(&settings, classes, trained_by.seed)?;
        let model = model.reuse(read.background.reuse());
        model.load_tensors(&self.tensors)?;
        Ok(model)
    }

    fn settings(&self, limits: Limits) -> ModelSettings {
        let trained = &self.description.model;
        ModelSettings {
            memory_bytes: limits.memory_bytes,
            threads: limits.threads,
            dtype: limits.precision.unwrap_or(trained.dtype),
            // The file's own come in their place.
            weights: None,
            ..trained.clone()
        }
    }
}

/// Writes a model file: safetensors, with a checksum, and each field of the description as JSON under its name in the metadata. It
/// appears whole or not at all.
///
/// # Errors
/// [`TrainError::CheckpointNotWritten`] for a folder that cannot be written to, or a disk that is full.
pub fn save(
    path: &Path,
    description: &ModelDescription,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<()> {
    let mut fields = serde_json::to_value(description).map_err(TrainError::json(path))?;
    for (table, key) in OF_THE_MACHINE {
        if let Some(Value::Object(table)) = fields.get_mut(table) {
            table.remove(key);
        }
    }
    let mut text = HashMap::from([(VERSION.to_owned(), CURRENT.to_string())]);
    if let Value::Object(fields) = fields {
        text.extend(
            fields
                .into_iter()
                .map(|(name, value)| (name, value.to_string())),
        );
    }
    write_sealed(path, text, tensors)
}

/// Reads a model file.
///
/// # Errors
/// [`TrainError::File`]; [`TrainError::ModelFile`] for a file that is damaged, is of a later release, or is no model, such as a
/// checkpoint.
pub fn load(path: &Path) -> Result<ModelFile> {
    let refuse = |expected: &str, found: String| TrainError::ModelFile {
        path: path.to_path_buf(),
        expected: expected.to_owned(),
        found,
    };
    let sealed = read_sealed(path).map_err(|error| match error {
        TrainError::Checkpoint {
            expected, found, ..
        } => refuse(&expected, found),
        other => other,
    })?;
    if !sealed.text.contains_key("trained_by") {
        let found = if sealed.text.contains_key("progress") {
            "a checkpoint: it goes on with its run, and leaves a model.safetensors at its end"
        } else {
            "weights without a word on network and preprocessing"
        };
        return Err(refuse("the model file of a run", found.to_owned()));
    }
    if !sealed.is_checked {
        return Err(refuse("a checksum", "none".to_owned()));
    }
    match sealed.text.get(VERSION).map(|text| text.parse()) {
        Some(Ok(1..=CURRENT)) => {}
        version => {
            let found = match version {
                Some(Ok(version)) => format!("version {version}"),
                _ => "no version".to_owned(),
            };
            return Err(refuse(
                &format!("version {CURRENT} or older, which this release reads"),
                found,
            ));
        }
    }
    let mut fields = serde_json::Map::new();
    for (name, text) in sealed.text {
        // Others than the description's are text of any kind.
        if let Ok(value) = serde_json::from_str(&text) {
            fields.insert(name, value);
        }
    }
    let description = serde_json::from_value(Value::Object(fields))
        .map_err(|error| refuse("all that prediction needs", error.to_string()))?;
    Ok(ModelFile {
        description,
        tensors: sealed.tensors,
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::checkpoint::{Checkpoint, Progress};

    fn description() -> ModelDescription {
        ModelDescription {
            model: ModelSettings {
                name: "small-2x1".to_owned(),
                threads: 1,
                memory_bytes: 123 << 20,
                offload: Some("folder of this machine".into()),
                ..ModelSettings::default()
            },
            task: Task::Classification { classes: 3 },
            classes: ClassNames::new(["low", "mid \"quoted\"", "high"]).unwrap(),
            microns_per_pixel: 0.1 + 0.2,
            read: ReadSettings {
                scale_override: Some(0.25),
                mean: [0.1, 0.2, 1.0 / 3.0],
                ..ReadSettings::default()
            },
            trained_by: TrainedBy::new(7, 3),
        }
    }

    fn image() -> Tensor {
        let values = (0..3 * 40 * 56).map(|place| ((place * 37 % 101) as f32) / 50.0 - 1.0);
        Tensor::from_iter(values, &Device::Cpu)
            .unwrap()
            .reshape((1, 3, 40, 56))
            .unwrap()
    }

    /// The file's model predicts what the saved one predicted, bit for bit, whatever the memory and threads.
    #[test]
    fn predictions_come_back_bit_by_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let description = description();
        let settings = ModelSettings {
            offload: None,
            ..description.model.clone()
        };
        let model = StreamedModel::new(&settings, 3, 7).unwrap();
        model
            .update_statistics(&[model.pooled(&image()).unwrap()])
            .unwrap();
        save(&path, &description, &model.tensors()).unwrap();

        let file = load(&path).unwrap();
        let expected = ModelDescription {
            model: ModelSettings {
                name: description.model.name.clone(),
                ..ModelSettings::default()
            },
            ..description
        };
        assert_eq!(file.description, expected);
        let bits = |model: &StreamedModel| -> Vec<u64> {
            let logits = model.predict(&image()).unwrap();
            logits.into_iter().map(f64::to_bits).collect()
        };
        for (memory, threads) in [(64 << 20, 1), (2 << 20, 2)] {
            assert_eq!(
                bits(&file.build(Limits::new(memory, threads)).unwrap()),
                bits(&model)
            );
        }
    }

    #[test]
    fn what_is_no_model_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let message = || load(&path).unwrap_err().to_string();
        assert!(message().contains("model.safetensors"));
        let checkpoint = Checkpoint {
            progress: Progress::default(),
            model: BTreeMap::new(),
            optimizer: HashMap::new(),
            average: BTreeMap::new(),
        };
        checkpoint.save(&path).unwrap();
        assert!(message().contains("a checkpoint"), "{}", message());

        let weight = Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
        let tensors = BTreeMap::from([("a".to_owned(), weight)]);
        let bytes = safetensors::serialize(&tensors, None).unwrap();
        std::fs::write(&path, bytes).unwrap();
        assert!(message().contains("without a word"), "{}", message());

        save(&path, &description(), &tensors).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(message().contains("SHA-256"), "{}", message());
        // Weights of another network.
        save(&path, &description(), &tensors).unwrap();
        let error = load(&path)
            .unwrap()
            .build(Limits::new(64 << 20, 0))
            .err()
            .unwrap();
        assert!(
            matches!(&error, TrainError::State { found, .. } if found == "nothing of that name"),
            "{error}"
        );
    }
}
