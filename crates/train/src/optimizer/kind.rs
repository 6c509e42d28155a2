//! Which rule makes steps of gradients, and its settings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};

/// Which rule makes a step of gradients.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum OptimizerKind {
    /// Muon (Jordan and others 2024) for the weights of the network, as `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, and
    /// AdamW at the same learning rate for all else: norms, biases, the head, and convolutions that read one channel each.
    Muon {
        /// Decay of the mean of the gradients of the network's weights; 0 or more and less than 1. By default 0.95, as in PyTorch.
        #[serde(default = "default_muon_momentum")]
        momentum: f64,
        /// Of AdamW, the decay of the mean of the gradients; 0 or more and less than 1. By default 0.9, as in PyTorch.
        #[serde(default = "default_beta1")]
        beta1: f64,
        /// Of AdamW, the decay of the mean of their squares; 0 or more and less than 1. By default 0.999, as in PyTorch.
        #[serde(default = "default_beta2")]
        beta2: f64,
        /// Of AdamW, added to the root of the mean of the squares; 0 or more. By default 1e-8, as in PyTorch.
        #[serde(default = "default_epsilon")]
        epsilon: f64,
        /// Share of the learning rate by which a weight shrinks in each step; 0 or more. By default 0.1, as of Muon in PyTorch.
        #[serde(default = "default_muon_weight_decay")]
        weight_decay: f64,
    },
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019), as `torch.optim.AdamW`.
    #[serde(rename = "adamw")]
    AdamW {
        /// Decay of the mean of the gradients; 0 or more and less than 1. By default 0.9, as in PyTorch.
        #[serde(default = "default_beta1")]
        beta1: f64,
        /// Decay of the mean of their squares; 0 or more and less than 1. By default 0.999, as in PyTorch.
        #[serde(default = "default_beta2")]
        beta2: f64,
        /// Added to the root of the mean of the squares; 0 or more. By default 1e-8, as in PyTorch.
        #[serde(default = "default_epsilon")]
        epsilon: f64,
        /// Share of the learning rate by which a weight shrinks in each step; 0 or more. By default 1e-2, as in PyTorch.
        #[serde(default = "default_weight_decay")]
        weight_decay: f64,
    },
    /// Gradient descent with momentum, as `torch.optim.SGD`.
    Sgd {
        /// Decay of the velocity; 0 or more and less than 1, 0 for none. By default 0.9, which nearly all who use
        /// it take; PyTorch has none.
        #[serde(default = "default_momentum")]
        momentum: f64,
        /// Multiple of the weight that is added to its gradient; 0 or more. By default 0, as in PyTorch.
        #[serde(default)]
        weight_decay: f64,
    },
}

impl Default for OptimizerKind {
    fn default() -> Self {
        Self::MUON
    }
}

const fn default_muon_momentum() -> f64 {
    0.95
}

const fn default_muon_weight_decay() -> f64 {
    0.1
}

const fn default_beta1() -> f64 {
    0.9
}

const fn default_beta2() -> f64 {
    0.999
}

const fn default_epsilon() -> f64 {
    1e-8
}

const fn default_weight_decay() -> f64 {
    1e-2
}

const fn default_momentum() -> f64 {
    0.9
}

impl OptimizerKind {
    /// Muon with PyTorch's settings, whose weight decay AdamW's part has, too.
    pub const MUON: Self = Self::Muon {
        momentum: default_muon_momentum(),
        beta1: default_beta1(),
        beta2: default_beta2(),
        epsilon: default_epsilon(),
        weight_decay: default_muon_weight_decay(),
    };

    /// AdamW with PyTorch's settings.
    pub const ADAMW: Self = Self::AdamW {
        beta1: default_beta1(),
        beta2: default_beta2(),
        epsilon: default_epsilon(),
        weight_decay: default_weight_decay(),
    };

    /// Checks the settings; legal is what PyTorch takes, where it is finite.
    ///
    /// # Errors
    /// [`TrainError::Setting`].
    pub fn check(&self) -> Result<()> {
        let decay = |value: f64| (0.0..1.0).contains(&value);
        let amount = |value: f64| value.is_finite() && value >= 0.0;
        let (decays, amounts) = match *self {
            Self::Muon {
                momentum,
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => (
                vec![("momentum", momentum), ("beta1", beta1), ("beta2", beta2)],
                vec![("epsilon", epsilon), ("weight_decay", weight_decay)],
            ),
            Self::AdamW {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => (
                vec![("beta1", beta1), ("beta2", beta2)],
                vec![("epsilon", epsilon), ("weight_decay", weight_decay)],
            ),
            Self::Sgd {
                momentum,
                weight_decay,
            } => (
                Vec::new(),
                vec![("momentum", momentum), ("weight_decay", weight_decay)],
            ),
        };
        let illegal = |name: &str, expected, value| {
            TrainError::setting(format!("train.optimizer.{name}"), expected, value)
        };
        for (name, value) in decays {
            if !decay(value) {
                return Err(illegal(name, "0 or more and less than 1", value));
            }
        }
        for (name, value) in amounts {
            if !amount(value) {
                return Err(illegal(name, "a finite number of 0 or more", value));
            }
        }
        Ok(())
    }
}
