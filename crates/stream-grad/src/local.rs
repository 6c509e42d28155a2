//! Layers of the user's own.

use std::fmt;
use std::sync::Arc;

use candle_core::{Tensor, Var};
use stream_grad_tiling::{AxisRule, PerAxis, Span};

use crate::error::ExternalError;

/// The part of a layer's plane that is being computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalRegion {
    /// Outputs to compute, in the output plane's pixels.
    pub outputs: PerAxis<Span>,
    /// Inputs that they read, in the input plane's pixels; outside the plane is padding.
    pub inputs: PerAxis<Span>,
    /// Size of the whole input plane.
    pub input_size: PerAxis<i64>,
}

/// A local layer of the user's own: one input, one output, any rule that [`AxisRule`] can state.
///
/// Both methods must give the same values whatever region they are asked for.
pub trait LocalLayer: fmt::Debug + Send + Sync {
    /// Name for messages.
    fn name(&self) -> String;

    /// Which inputs each output reads, per axis.
    fn rule(&self) -> PerAxis<AxisRule>;

    /// Channels of the output.
    fn output_channels(&self, input_channels: usize) -> usize;

    /// Parameters with the names that their gradients get.
    fn parameters(&self) -> Vec<(String, Tensor)>;

    /// FLOPs of one output position, for the planner.
    fn flops_per_output(&self) -> u64;

    /// An upper bound on the heap bytes that one call allocates for `input` and `output` values.
    fn scratch_bytes(&self, input_values: u64, output_values: u64) -> u64;

    /// Computes `region.outputs` from `input` `[1, C, H, W]`, which covers `region.inputs` with zeros as
    /// padding. The result is `[1, C_out, H_out, W_out]`.
    ///
    /// # Errors
    /// Whatever keeps the layer from computing.
    fn forward(
        &self,
        region: &LocalRegion,
        parameters: &[Tensor],
        input: &Tensor,
    ) -> Result<Tensor, ExternalError>;

    /// The cotangents of `input` (same shape) and of each parameter, for the cotangent of the output.
    ///
    /// # Errors
    /// Whatever keeps the layer from computing.
    fn vjp(
        &self,
        region: &LocalRegion,
        parameters: &[Tensor],
        input: &Tensor,
        cotangent: &Tensor,
    ) -> Result<(Tensor, Vec<Tensor>), ExternalError>;
}

/// The function that a [`CandleLayer`] wraps: `(padded input, parameters) -> output`.
pub type CandleFunction = dyn Fn(&Tensor, &[Tensor]) -> candle_core::Result<Tensor> + Send + Sync;

/// A local layer from any differentiable candle function and its window; the VJP is candle's autograd on the tile.
///
/// ```
/// use std::sync::Arc;
/// use stream_grad::CandleLayer;
/// use stream_grad::tiling::{AxisRule, PerAxis};
/// let square = CandleLayer::new("square", PerAxis::both(AxisRule::Pointwise), |x, _| x.sqr());
/// # let _: Arc<dyn stream_grad::LocalLayer> = Arc::new(square);
/// ```
#[derive(Clone)]
pub struct CandleLayer {
    name: String,
    rule: PerAxis<AxisRule>,
    function: Arc<CandleFunction>,
    output_channels: Option<usize>,
    parameters: Vec<(String, Tensor)>,
}

impl CandleLayer {
    /// Wraps `function`, which is given exactly the inputs of the rule, padding included, and must not pad.
    pub fn new(
        name: impl Into<String>,
        rule: PerAxis<AxisRule>,
        function: impl Fn(&Tensor, &[Tensor]) -> candle_core::Result<Tensor> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            rule,
            function: Arc::new(function),
            output_channels: None,
            parameters: Vec::new(),
        }
    }

    /// Says how many channels the output has, where it is not as many as the input.
    #[must_use]
    pub fn output_channels(mut self, channels: usize) -> Self {
        self.output_channels = Some(channels);
        self
    }

    /// Adds a parameter under the name that its gradient gets.
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>, tensor: Tensor) -> Self {
        self.parameters.push((name.into(), tensor));
        self
    }
}

impl fmt::Debug for CandleLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CandleLayer")
            .field("name", &self.name)
            .field("rule", &self.rule)
            .finish_non_exhaustive()
    }
}

impl LocalLayer for CandleLayer {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn rule(&self) -> PerAxis<AxisRule> {
        self.rule.clone()
    }

    fn output_channels(&self, input_channels: usize) -> usize {
        self.output_channels.unwrap_or(input_channels)
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        self.parameters.clone()
    }

    fn flops_per_output(&self) -> u64 {
        0
    }

    fn scratch_bytes(&self, input_values: u64, output_values: u64) -> u64 {
        // Input, output, both cotangents and candle's intermediates, in the wider dtype.
        8 * 8 * (input_values + output_values)
    }

    fn forward(
        &self,
        _region: &LocalRegion,
        parameters: &[Tensor],
        input: &Tensor,
    ) -> Result<Tensor, ExternalError> {
        Ok((self.function)(input, parameters)?)
    }

    fn vjp(
        &self,
        _region: &LocalRegion,
        parameters: &[Tensor],
        input: &Tensor,
        cotangent: &Tensor,
    ) -> Result<(Tensor, Vec<Tensor>), ExternalError> {
        let input = Var::from_tensor(input)?;
        let variables = parameters
            .iter()
            .map(Var::from_tensor)
            .collect::<candle_core::Result<Vec<Var>>>()?;
        let tensors: Vec<Tensor> = variables
            .iter()
            .map(|var| var.as_tensor().clone())
            .collect();
        let output = (self.function)(input.as_tensor(), &tensors)?;
        let gradients = (output * cotangent)?.sum_all()?.backward()?;
        let gradient = |var: &Var| match gradients.get(var.as_tensor()) {
            Some(gradient) => Ok(gradient.clone()),
            None => var.as_tensor().zeros_like(),
        };
        let parameters = variables
            .iter()
            .map(&gradient)
            .collect::<candle_core::Result<_>>()?;
        Ok((gradient(&input)?, parameters))
    }
}
