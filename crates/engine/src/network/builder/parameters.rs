//! Parameters of the layers that are built.

use super::NetworkBuilder;
use crate::error::{ExternalError, Result, StreamError};
use crate::parameter::{ParameterId, ParameterShape};

/// What a parameter is filled with where it does not exist yet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Initial {
    /// Normal numbers scaled by the number of inputs, as PyTorch's `kaiming_normal_`.
    KaimingNormal,
    /// One number.
    Constant(f64),
}

/// A parameter that a layer needs.
#[derive(Debug, Clone, Copy)]
pub struct ParameterRequest<'a> {
    /// Its name within the layer: `weight`, `running_mean`.
    pub name: &'static str,
    /// Its extents, as PyTorch orders them.
    pub shape: &'a [usize],
    /// What it is filled with where it does not exist yet.
    pub initial: Initial,
    /// Whether it is a constant to the gradient.
    pub constant: bool,
}

/// A parameter that a [`ParameterProvider`] has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provided {
    /// Another layer reads it, too.
    Known(ParameterId),
    /// It is the next one.
    New(ParameterShape),
}

/// Where the parameters of layers come from while a network is built.
pub trait ParameterProvider {
    /// Provides a parameter of the layer that is being built.
    ///
    /// # Errors
    /// One that is missing or misshapen.
    fn provide(&mut self, request: ParameterRequest<'_>) -> Result<Provided, ExternalError>;
}

/// Asks for the parameters of one layer.
pub(super) struct LayerParameters<'b> {
    pub(super) builder: &'b mut NetworkBuilder,
    pub(super) layer: &'b str,
    pub(super) provider: &'b mut dyn ParameterProvider,
}

impl LayerParameters<'_> {
    pub(super) fn trainable(
        &mut self,
        name: &'static str,
        shape: &[usize],
        initial: Initial,
    ) -> Result<ParameterId> {
        self.get(ParameterRequest {
            name,
            shape,
            initial,
            constant: false,
        })
    }

    /// One number for each channel, from 0 on.
    pub(super) fn bias(&mut self, channels: usize) -> Result<ParameterId> {
        self.trainable("bias", &[channels], Initial::Constant(0.0))
    }

    pub(super) fn constant(
        &mut self,
        name: &'static str,
        shape: &[usize],
        initial: Initial,
    ) -> Result<ParameterId> {
        self.get(ParameterRequest {
            name,
            shape,
            initial,
            constant: true,
        })
    }

    fn get(&mut self, request: ParameterRequest<'_>) -> Result<ParameterId> {
        let provided = self
            .provider
            .provide(request)
            .map_err(|source| StreamError::Parameter {
                layer: self.layer.to_owned(),
                source,
            })?;
        let id = self.builder.register(provided);
        let found = self.builder.parameters.get(id.0);
        match found {
            Some(parameter) if parameter.shape == request.shape => Ok(id),
            _ => Err(StreamError::Shape {
                name: format!("{}.{}", self.layer, request.name),
                expected: request.shape.to_vec(),
                found: found
                    .map(|parameter| parameter.shape.clone())
                    .unwrap_or_default(),
            }),
        }
    }
}
