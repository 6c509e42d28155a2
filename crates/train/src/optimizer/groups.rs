//! Parameters that are stepped alike.

use candle_core::Var;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Part of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelPart {
    /// The network that is streamed.
    Body,
    /// What makes outputs of its features.
    Head,
}

impl ModelPart {
    /// The part of the parameter `name`: names that begin with `head.` are the head's, and of a U-Net those of its last layer, which
    /// makes the logits of its pixels.
    #[must_use]
    pub fn of(name: &str) -> Self {
        if name.starts_with("head.") || name.starts_with("net.segmentation_head.") {
            Self::Head
        } else {
            Self::Body
        }
    }
}

/// What a parameter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParameterKind {
    /// Weights of a convolution or of a linear layer.
    Weight,
    /// A norm's scale or shift, or a bias: one number for each channel.
    NormOrBias,
}

/// Parameters of one part and one kind, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterGroup {
    /// Where they are.
    pub part: ModelPart,
    /// What they are for.
    pub kind: ParameterKind,
    /// Their names.
    pub names: Vec<String>,
}

impl ParameterGroup {
    /// The groups of `variables`, those without any parameter left out: parts as by [`ModelPart::of`], and tensors of fewer than two
    /// axes are of norms or biases.
    #[must_use]
    pub fn of(variables: &[(String, Var)]) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        for (name, variable) in variables {
            let part = ModelPart::of(name);
            let kind = if variable.dims().len() < 2 {
                ParameterKind::NormOrBias
            } else {
                ParameterKind::Weight
            };
            match groups
                .iter_mut()
                .find(|group| group.part == part && group.kind == kind)
            {
                Some(group) => group.names.push(name.clone()),
                None => groups.push(Self {
                    part,
                    kind,
                    names: vec![name.clone()],
                }),
            }
        }
        groups
    }
}

/// How a parameter is stepped, beside the rule for all of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParameterOptions {
    /// Multiple of the learning rate.
    pub learning_rate_factor: f64,
    /// Multiple of the weight decay.
    pub weight_decay_factor: f64,
}

impl Default for ParameterOptions {
    /// As all.
    fn default() -> Self {
        Self {
            learning_rate_factor: 1.0,
            weight_decay_factor: 1.0,
        }
    }
}

/// Which parameters decay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeightDecayOn {
    /// Weights of convolutions and of linear layers.
    #[default]
    Weights,
    /// Norms and biases, too, as in PyTorch where no groups are given.
    All,
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn parameters_are_grouped_by_part_and_kind() {
        let variable = |name: &str, shape: &[usize]| {
            let variable = Var::zeros(shape, DType::F32, &Device::Cpu).unwrap();
            (name.to_owned(), variable)
        };
        let groups = ParameterGroup::of(&[
            variable("net.conv.weight", &[4, 3, 3, 3]),
            variable("net.conv.bias", &[4]),
            variable("net.norm.weight", &[4]),
            variable("head.weight", &[1, 8]),
            variable("head.bias", &[1]),
            variable("net.segmentation_head.0.weight", &[2, 4, 3, 3]),
            // Of the body, whatever it is called.
            variable("net.head.weight", &[1, 8]),
        ]);
        let group = |part, kind, names: &[&str]| ParameterGroup {
            part,
            kind,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        use ModelPart::{Body, Head};
        use ParameterKind::{NormOrBias, Weight};
        assert_eq!(
            groups,
            [
                group(Body, Weight, &["net.conv.weight", "net.head.weight"]),
                group(Body, NormOrBias, &["net.conv.bias", "net.norm.weight"]),
                group(
                    Head,
                    Weight,
                    &["head.weight", "net.segmentation_head.0.weight"]
                ),
                group(Head, NormOrBias, &["head.bias"]),
            ]
        );
    }
}
