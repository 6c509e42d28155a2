//! Settings of a model.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stream_grad::DType;
use stream_grad_models::{GlobalPooling, HeadConfig, ModelName, Standardisation};

use crate::data::Task;
use crate::error::{Result, TrainError, check_threads};

/// By name: an array in the attribute is understood only where another crate asks for all of `syn`.
const FROZEN_EXAMPLE: [&str; 1] = ["stem"];

/// Which network and head to train, and in how much memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSettings {
    /// Name of the network, such as `plain-16x4`, `small-16x1` or `resnet18`. The head takes all outputs of one that has several, such
    /// as `resnet18_fpn`.
    pub name: String,
    /// File of the network's first weights, such as torchvision's `resnet18-f37072fd.pth`; absent to draw them. What the file has
    /// besides (a final linear layer) is passed over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"resnet18-f37072fd.pth")]
    pub weights: Option<PathBuf>,
    /// Parts of the network that keep their first weights, by the beginnings of their parameters' names, such as `["stem",
    /// "layer1"]` of a ResNet (`stem` is its `conv1` and `bn1`). The head is always trained.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = FROZEN_EXAMPLE)]
    pub frozen: Vec<String>,
    /// Poolings of the head, put one after another; of several outputs, each by each.
    pub pooling: Vec<Pooling>,
    /// Least weight of a new batch in the running statistics that standardise pooled features, as `BatchNorm2d` has it; above 0 and up
    /// to 1, and 0 for no standardisation.
    pub momentum: f64,
    /// What activations and their gradients are stored as: `f32`, or `bf16` in half of the memory. Arithmetic and weights are in f32 in
    /// either.
    pub dtype: Precision,
    /// Bytes that the sweeps of one image may take.
    pub memory_bytes: u64,
    /// Threads; 0 for one for each core, and at most four for each.
    pub threads: usize,
    /// A folder for a file of what does not fit in `memory_bytes`; absent for none.
    #[schemars(example = &"scratch")]
    pub offload: Option<PathBuf>,
}

/// A global pooling by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Mean.
    Average,
    /// Maximum.
    Maximum,
    /// Generalised mean with exponent 4.
    Gem4,
}

/// What activations and their gradients are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As they are computed, in four bytes.
    #[default]
    F32,
    /// Rounded to two bytes.
    Bf16,
}

impl Precision {
    /// Its name in settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::F32 => DType::F32.as_str(),
            Self::Bf16 => DType::BF16.as_str(),
        }
    }
}

impl From<Precision> for DType {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::BF16,
        }
    }
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            name: "plain-16x4".to_owned(),
            weights: None,
            frozen: Vec::new(),
            pooling: vec![Pooling::Average],
            momentum: 0.05,
            dtype: Precision::F32,
            memory_bytes: 1 << 30,
            threads: 0,
            offload: None,
        }
    }
}

impl ModelSettings {
    /// A small residual network whose head looks for the strongest features beside the mean of all: for something small in a large
    /// image, such as a metastasis.
    #[must_use]
    pub fn small() -> Self {
        Self {
            name: "small-16x1".to_owned(),
            pooling: vec![Pooling::Average, Pooling::Gem4],
            ..Self::default()
        }
    }

    /// Checks what does not depend on the network.
    ///
    /// # Errors
    /// [`TrainError::Setting`](crate::TrainError::Setting) for more than four threads for each core of this machine.
    pub fn check(&self) -> Result<()> {
        check_threads("model.threads", self.threads)
    }

    /// Refuses a network that is none of the task, as far as its name says it: before anything is written.
    ///
    /// # Errors
    /// [`TrainError::Setting`], with both numbers where it gives logits of pixels.
    pub fn check_task(&self, task: Task) -> Result<()> {
        // An unknown name is told when the model is built.
        let Ok(name) = self.name.parse::<ModelName>() else {
            return Ok(());
        };
        let found = match (task, name) {
            (
                Task::Segmentation { classes },
                ModelName::UNet {
                    classes: logits, ..
                },
            ) => {
                if logits == classes {
                    return Ok(());
                }
                format!("`{name}`, which gives {logits}")
            }
            (Task::Segmentation { .. }, _) => {
                format!("`{name}`, which gives features for a label of each slide")
            }
            (_, ModelName::UNet { encoder, .. }) => {
                return Err(TrainError::setting(
                    "model.name",
                    format!(
                        "a network of features for a label of each slide, such as {}",
                        ModelName::ResNet(encoder)
                    ),
                    format!(
                        "`{name}`, whose outputs are logits of pixels, for the task `segmentation`"
                    ),
                ));
            }
            _ => return Ok(()),
        };
        let classes = task.outputs();
        Err(TrainError::setting(
            "model.name",
            format!(
                "a network that gives {classes} logits for each pixel, one for each class, such as unet_resnet18-{classes}"
            ),
            found,
        ))
    }

    pub(super) fn head(&self) -> HeadConfig {
        let pooling = self.pooling.iter().map(|pooling| match pooling {
            Pooling::Average => GlobalPooling::Average,
            Pooling::Maximum => GlobalPooling::Maximum,
            Pooling::Gem4 => GlobalPooling::GEM_4,
        });
        let config = HeadConfig::new(pooling.collect());
        if self.momentum > 0.0 {
            config.standardised(Standardisation::Running {
                momentum: self.momentum,
                epsilon: 1e-5,
            })
        } else {
            config
        }
    }
}
