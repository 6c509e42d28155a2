//! Parameters: what is known of them while planning, and where their values come from and their gradients go.

mod owned;

use crate::element::ValuesMut;
use crate::error::ExternalError;

pub use owned::{OwnedGradients, OwnedModel, OwnedParameters};

/// Index of a parameter in its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParameterId(pub usize);

/// A parameter without its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterShape {
    /// Full name, such as `layer1.0.conv1.weight`.
    pub name: String,
    /// Extents, as PyTorch orders them.
    pub shape: Vec<usize>,
    /// Whether the backward sweep may compute its gradient.
    pub trainable: bool,
    /// Bytes of one value of its gradient where that is held.
    pub gradient_bytes: usize,
}

impl ParameterShape {
    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where the values of parameters come from.
pub trait ParameterValues: Sync {
    /// Writes all values of a parameter, in PyTorch's order, rounded to the type of `values`, which has room for exactly these.
    ///
    /// # Errors
    /// Whatever keeps them from being read.
    fn read(&self, parameter: ParameterId, values: ValuesMut<'_>) -> Result<(), ExternalError>;
}

/// Receives the gradients of parameters at the end of a backward sweep.
pub trait GradientSink: Send {
    /// Adds a gradient to that of its parameter, of which several operators may read: values in the parameter's order.
    ///
    /// # Errors
    /// Whatever keeps it from being taken.
    fn add(&mut self, parameter: ParameterId, gradient: Vec<f64>) -> Result<(), ExternalError>;
}
