//! What operators see of parameters, and where they put gradients.

use stream_grad_kernels::{KernelError, zeros};

use crate::backend::Backend;
use crate::element::Compute;
use crate::error::{Result, StreamError};
use crate::parameter::{GradientSink, ParameterId, ParameterShape, ParameterValues};

/// What an operator sees of the parameters.
pub(crate) struct Plain<'a, B: Backend> {
    pub(crate) backend: &'a B,
    /// For messages.
    pub(crate) layer: &'a str,
    /// By parameter.
    pub(crate) values: &'a [Vec<B::Compute>],
    pub(crate) parameters: &'a [ParameterShape],
    /// None once the forward sweep has begun.
    pub(crate) source: Option<&'a dyn ParameterValues>,
}

impl<B: Backend> Plain<'_, B> {
    /// The values of a parameter as they were when the forward computation began; none once they are freed.
    pub(crate) fn values(&self, id: ParameterId) -> &[B::Compute] {
        &self.values[id.0]
    }

    /// A copy of a parameter's values that is nobody else's.
    pub(crate) fn read(&self, id: ParameterId) -> Result<Vec<B::Compute>> {
        match self.source {
            Some(source) => values(source, self.parameters, id),
            None => Err(StreamError::Internal {
                layer: self.layer.to_owned(),
                what: "a parameter is read after the forward sweep has begun",
            }),
        }
    }

    /// Turns a kernel's refusal into this crate's error.
    pub(crate) fn kernel_error(&self, source: KernelError) -> StreamError {
        StreamError::Kernel {
            layer: self.layer.to_owned(),
            source,
        }
    }
}

/// The values of a parameter.
pub(crate) fn values<T: Compute>(
    source: &dyn ParameterValues,
    parameters: &[ParameterShape],
    id: ParameterId,
) -> Result<Vec<T>> {
    let parameter = &parameters[id.0];
    let mut values: Vec<T> = zeros(parameter.len());
    source
        .read(id, T::values_mut(&mut values))
        .map_err(|source| StreamError::Parameter {
            layer: parameter.name.clone(),
            source,
        })?;
    Ok(values)
}

/// Hands gradients of parameters to whom they are for.
pub(crate) struct GradientWriter<'a> {
    pub(crate) sink: &'a mut dyn GradientSink,
    pub(crate) trainable: &'a [bool],
    pub(crate) parameters: &'a [ParameterShape],
}

impl GradientWriter<'_> {
    /// Adds a gradient to its parameter's, if that trains.
    pub(crate) fn add(&mut self, id: ParameterId, gradient: Vec<f64>) -> Result<()> {
        if !self.trainable[id.0] {
            return Ok(());
        }
        self.sink
            .add(id, gradient)
            .map_err(|source| StreamError::Parameter {
                layer: self.parameters[id.0].name.clone(),
                source,
            })
    }
}
