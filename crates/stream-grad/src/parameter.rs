//! Parameters of a network and their registration.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use candle_nn::init::Init;

use crate::error::{Result, StreamError};

/// Index of a parameter in its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ParameterId(pub(crate) usize);

/// A tensor that a layer reads: trainable if it is a candle `Var` and its layer may change it.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Full name, such as `layer1.0.conv1.weight`.
    pub name: String,
    /// The tensor; its identity is the `Var`'s.
    pub tensor: Tensor,
    /// Whether the backward sweep computes its gradient.
    pub trainable: bool,
}

/// The parameters of a network under construction.
#[derive(Debug, Default)]
pub(crate) struct ParameterList {
    pub(crate) parameters: Vec<Parameter>,
}

impl ParameterList {
    /// Gets a trainable tensor from the builder, making it where the builder makes tensors.
    pub(crate) fn trainable(
        &mut self,
        vb: &VarBuilder<'_>,
        name: &'static str,
        shape: &[usize],
        init: Init,
    ) -> Result<ParameterId> {
        self.get(vb, name, shape, init, Tensor::is_variable)
    }

    /// Gets a tensor that is a constant to the gradient.
    pub(crate) fn constant(
        &mut self,
        vb: &VarBuilder<'_>,
        name: &'static str,
        shape: &[usize],
        init: Init,
    ) -> Result<ParameterId> {
        self.get(vb, name, shape, init, |_| false)
    }

    fn get(
        &mut self,
        vb: &VarBuilder<'_>,
        name: &'static str,
        shape: &[usize],
        init: Init,
        trainable: impl Fn(&Tensor) -> bool,
    ) -> Result<ParameterId> {
        let tensor =
            vb.get_with_hints(shape, name, init)
                .map_err(|source| StreamError::Parameter {
                    layer: vb.prefix(),
                    source,
                })?;
        let prefix = vb.prefix();
        let name = if prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{prefix}.{name}")
        };
        Ok(self.add(name, trainable(&tensor), tensor))
    }

    /// Registers a tensor; one that is already there (shared weights) keeps its place.
    pub(crate) fn add(&mut self, name: String, trainable: bool, tensor: Tensor) -> ParameterId {
        let known = self
            .parameters
            .iter()
            .position(|parameter| parameter.tensor.id() == tensor.id());
        ParameterId(known.unwrap_or_else(|| {
            self.parameters.push(Parameter {
                name,
                tensor,
                trainable,
            });
            self.parameters.len() - 1
        }))
    }
}
