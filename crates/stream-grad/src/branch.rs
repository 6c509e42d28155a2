//! Residual branches that a training step may do without.

use candle_core::{Tensor, Var};

/// A residual branch that some steps do without.
#[derive(Debug, Clone)]
pub(crate) struct Branch {
    /// What it is multiplied by, `[1]`.
    pub(crate) factor: Var,
    /// How probable it is that a step does without it.
    pub(crate) probability: f64,
}

impl Branch {
    /// Whether this is its factor.
    pub(crate) fn is(&self, tensor: &Tensor) -> bool {
        self.factor.as_tensor().id() == tensor.id()
    }
}
