//! Layers of the user's own.

use std::fmt;
use std::sync::Arc;

use candle_core::{Tensor, Var};
use stream_grad_tiling::{AxisRule, PerAxis};

use crate::{ExternalError, LocalRegion};

mod check;
mod operator;
pub(crate) mod results;

pub use check::check_gradients;
pub(crate) use operator::LocalOperator;

/// A local layer of the user's own: one input, one output, any rule that [`AxisRule`] can state.
///
/// Both methods must give the same values whatever region they are asked for. Inputs are of the dtype that the plan computes in.
/// Results are held to the shapes and numbers that are said here, and to the dtype of the input or f64; what they hold is believed. [`check_gradients`] finds out whether it is
/// right.
pub trait LocalLayer: fmt::Debug + Send + Sync {
    /// Name for messages.
    fn name(&self) -> String;

    /// Which inputs each output reads, per axis.
    fn rule(&self) -> PerAxis<AxisRule>;

    /// Channels of the output.
    fn output_channels(&self, input_channels: usize) -> usize;

    /// Parameters with the names that their gradients get.
    fn parameters(&self) -> Vec<(String, Tensor)>;

    /// Whether it computes the same wherever it is asked: both methods' results depend on the values that they are given alone, and
    /// neither on where `region` lies nor on how large the plane is. A plan [reuses](crate::PlanRequest::reuse) tiles only where all
    /// layers say so.
    fn is_same_everywhere(&self) -> bool {
        false
    }

    /// Whether plans in bf16 take it. It sees F32 tensors there, too: what it reads is widened, and what it returns is rounded once. A
    /// plan in bf16 refuses a layer that does not say so.
    fn takes_bf16(&self) -> bool {
        false
    }

    /// FLOPs of one output position, for the planner.
    fn flops_per_output(&self) -> u64;

    /// An upper bound on the heap bytes that one call of either method holds at any moment, its results included, for so many
    /// values of the input (with padding) and of the output. It must not fall when either number rises: a plan asks for the
    /// largest tile, and counts it in its peak.
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

    /// The cotangents of `input` (same shape) and of each parameter, in the order and shapes of the parameters, for the cotangent
    /// of the output.
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

/// A local layer from a candle function and its window; the VJP is candle's autograd on the tile, and as right as that is.
///
/// ```
/// use std::sync::Arc;
/// use stream_grad::tiling::{AxisRule, PerAxis};
/// use stream_grad::{CandleLayer, check_gradients};
/// let square = CandleLayer::new("square", PerAxis::both(AxisRule::Pointwise), |x, _| x.sqr());
/// check_gradients(&square, 3, -1.0..1.0)?; // once, where the layer is written
/// # let _: Arc<dyn stream_grad::LocalLayer> = Arc::new(square);
/// # Ok::<(), stream_grad::StreamError>(())
/// ```
///
/// # What candle differentiates wrongly
/// Candle 0.11.1 gives other gradients than those of the values, and says nothing, for these (a test holds this table to it):
///
/// | function | its gradient | right |
/// |---|---|---|
/// | `max_pool2d` | a quarter, for windows of 2 x 2; where values tie, more than there is | [`NetBuilder::max_pool2d`](crate::NetBuilder::max_pool2d) |
/// | `avg_pool2d` of an input that is not whole windows | spread over the wrong pixels | [`NetBuilder::avg_pool2d`](crate::NetBuilder::avg_pool2d) |
/// | `upsample_nearest2d`, `interpolate2d` of a tensor that is read elsewhere, too | what came from elsewhere may be lost | [`NetBuilder::upsample_nearest`](crate::NetBuilder::upsample_nearest) |
/// | `max`, `min` along an axis | where values tie, each gets all of it | `maximum` and `minimum` of two tensors halve it |
/// | `scatter` | goes to values that were overwritten | a mask: `where_cond` |
/// | `scatter_add` | does not go to values that were added to | `index_add` |
/// | `gelu`, `gelu_erf` | off by a part in a million | [`NetBuilder::gelu`](crate::NetBuilder::gelu) |
/// | `candle_nn`'s `ops::layer_norm`, `ops::rms_norm`, `ops::softmax_last_dim`, and its modules that use them | none: refused here | [`NetBuilder::layer_norm`](crate::NetBuilder::layer_norm); `ops::layer_norm_slow`, `ops::rms_norm_slow`, `ops::softmax` |
///
/// At 0, where `relu` and `abs` have no derivative, candle takes 1 where PyTorch takes 0: both are right. Pooling with a stride
/// that is not the window, `upsample_bilinear2d`, `conv_transpose1d`, and `conv2d` with a stride that leaves other remainders of
/// the height than of the width, have no gradient, and candle says so.
#[derive(Clone)]
pub struct CandleLayer {
    name: String,
    rule: PerAxis<AxisRule>,
    function: Arc<CandleFunction>,
    output_channels: Option<usize>,
    parameters: Vec<(String, Tensor)>,
    bytes_per_value: Option<u64>,
    same_everywhere: bool,
    takes_bf16: bool,
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
            bytes_per_value: None,
            same_everywhere: false,
            takes_bf16: false,
        }
    }

    /// Says that the function gives the same values bit for bit, whichever part of a plane it is given and however large that part
    /// is: where candle's function for a whole tile sums in another order than for one pixel, this is not so.
    #[must_use]
    pub fn same_everywhere(mut self) -> Self {
        self.same_everywhere = true;
        self
    }

    /// Says that plans in bf16 may have it: it computes in f32 what was rounded to bf16, and its results are rounded again.
    #[must_use]
    pub fn takes_bf16(mut self) -> Self {
        self.takes_bf16 = true;
        self
    }

    /// Says how many channels the output has, where it is not as many as the input.
    #[must_use]
    pub fn output_channels(mut self, channels: usize) -> Self {
        self.output_channels = Some(channels);
        self
    }

    /// Says how many heap bytes candle holds at any moment of the function and its backward pass, for each value of input and
    /// output together; plans count it in their peak.
    ///
    /// Without this it is 64, eight f64 values, and 8 more for each position under the window, for candle's convolution
    /// copies all windows (im2col): enough for a few steps, whose results and gradients exist together.
    #[must_use]
    pub fn scratch_bytes_per_value(mut self, bytes: u64) -> Self {
        self.bytes_per_value = Some(bytes);
        self
    }

    /// Adds a parameter under the name that its gradient gets; the function gets them in the order in which they were added.
    /// A variable that the function reads in any other way is refused by the VJP.
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

    fn is_same_everywhere(&self) -> bool {
        self.same_everywhere
    }

    fn takes_bf16(&self) -> bool {
        self.takes_bf16
    }

    fn flops_per_output(&self) -> u64 {
        0
    }

    fn scratch_bytes(&self, input_values: u64, output_values: u64) -> u64 {
        let taps = taps(&self.rule.rows).saturating_mul(taps(&self.rule.columns));
        let per_value = self
            .bytes_per_value
            .unwrap_or_else(|| taps.saturating_add(8).saturating_mul(8));
        // Copies and gradients of the parameters, and what candle makes of them on the way, in the wider dtype.
        let parameters = self.parameters.iter();
        let parameters: u64 = parameters
            .map(|(_, tensor)| tensor.elem_count() as u64)
            .sum();
        input_values
            .saturating_add(output_values)
            .saturating_mul(per_value)
            .saturating_add(parameters.saturating_mul(64))
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
        if !output.track_op() {
            return Err(
                "no gradient goes through this function: candle has none for a part of it, or it is detached".into(),
            );
        }
        let own = |found: &Tensor| {
            let mut own = tensors.iter().chain([input.as_tensor()]);
            own.any(|one| one.id() == found.id())
        };
        let variables_read = output.sorted_nodes().into_iter();
        if let Some(strange) = variables_read
            .filter(|node| node.is_variable())
            .find(|node| !own(node))
        {
            return Err(format!(
                "the function reads a variable of shape {:?} that is none of its parameters, so its gradient would be lost: \
                 add it by `parameter`, or detach it",
                strange.dims()
            )
            .into());
        }
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

/// Positions under a window along one axis.
fn taps(rule: &AxisRule) -> u64 {
    match rule {
        AxisRule::Window(window) => window.kernel().unsigned_abs(),
        _ => 1,
    }
}
