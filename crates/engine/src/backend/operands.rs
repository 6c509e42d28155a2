//! What kernels are told.

use stream_grad_kernels::{Activation, AveragePool, Existing, Window};
use stream_grad_tiling::{PerAxis, Rect};

use super::{Backend, Buffer};

/// Maximum or average.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Padding is minus infinity; the first maximum in scan order takes the gradient.
    Maximum(Window),
    /// Padding is zero.
    Average(AveragePool),
}

impl Pooling {
    /// What slides.
    #[must_use]
    pub const fn window(&self) -> &Window {
        match self {
            Self::Maximum(window) => window,
            Self::Average(pool) => &pool.window,
        }
    }

    /// The same where windows may reach beyond the padding (`ceil_mode`) of a plane of this size: averages do not count what lies there.
    #[must_use]
    pub(crate) fn ending_with(self, plane: PerAxis<i64>) -> Self {
        let Self::Average(pool) = self else {
            return self;
        };
        let end = |size: i64, padding: usize| {
            size.saturating_add(i64::try_from(padding).unwrap_or(i64::MAX))
        };
        let padding = pool.window.padding;
        let end = PerAxis::new(
            end(plane.rows, padding.bottom),
            end(plane.columns, padding.right),
        );
        Self::Average(AveragePool {
            end: Some(end),
            ..pool
        })
    }
}

/// A forward kernel's input and output.
#[derive(Debug, Clone, Copy)]
pub struct Mapping {
    /// What the tile holds of the input's plane.
    pub input: Buffer,
    /// Where outputs go.
    pub output: Buffer,
    /// Those that are computed, in the output's plane.
    pub outputs: Rect,
}

/// The cotangent of an output and that of an input to which it is added.
#[derive(Debug, Clone, Copy)]
pub struct Transposed {
    /// Of the output.
    pub cotangent: Buffer,
    /// Of the input.
    pub target: Buffer,
    /// Outputs whose cotangents are complete, in the output's plane.
    pub outputs: Rect,
    /// What becomes of what the target holds.
    pub existing: Existing,
}

/// How values meet those that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// They replace them.
    Copy,
    /// They are added to them.
    Add,
}

/// What a convolution's forward kernel reads besides its input.
#[derive(Debug)]
pub struct ConvolutionOperands<'a, B: Backend> {
    /// Packed weights.
    pub weights: &'a B::Weights,
    /// One for each output channel.
    pub bias: Option<&'a B::Vector>,
    /// Is added before the activation.
    pub residual: Option<Buffer>,
    /// Comes last.
    pub activation: Activation,
}

impl<B: Backend> Clone for ConvolutionOperands<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for ConvolutionOperands<'_, B> {}

/// A layer norm over the channels of a position.
#[derive(Debug)]
pub struct NormOperands<'a, B: Backend> {
    /// Factor of each channel.
    pub weight: &'a B::Vector,
    /// Shift of each channel.
    pub bias: &'a B::Vector,
    /// Is added to the variance.
    pub epsilon: f64,
}

impl<B: Backend> Clone for NormOperands<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for NormOperands<'_, B> {}
