//! Operations: what a node of the streamed graph computes.

use std::sync::Arc;

use stream_grad_kernels::{Activation, Convolution, Divisor, Gelu, Window};
use stream_grad_tiling::{AxisRule, Corners, Edge, Node, NodeId, PerAxis, VjpReads};

use crate::error::{Result, StreamError};
use crate::layers::Padding;
use crate::local::LocalLayer;
use crate::parameter::{Parameter, ParameterId};

/// A node: its inputs are indices of earlier operations; operation 0 is the image.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) name: String,
    pub(crate) inputs: Vec<usize>,
    pub(crate) channels: usize,
    pub(crate) kind: Kind,
}

/// What an operation computes.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Image,
    Convolution(ConvolutionOperation),
    Pool {
        window: Window,
        padding: Padding,
        pooling: Pooling,
    },
    Affine(ChannelMap, Activation),
    LayerNorm {
        weight: ParameterId,
        bias: ParameterId,
        epsilon: f64,
        activation: Activation,
    },
    Relu,
    Gelu(Gelu),
    Add(Activation),
    Concat,
    UpsampleNearest(usize),
    UpsampleBilinear(usize, Corners),
    Local {
        layer: Arc<dyn LocalLayer>,
        parameters: Vec<ParameterId>,
    },
}

/// Maximum or average.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooling {
    Maximum,
    Average(Divisor),
}

/// A convolution with what was fused into it: a folded channel map, a residual (its second input)
/// and an activation.
#[derive(Debug, Clone)]
pub(crate) struct ConvolutionOperation {
    pub(crate) shape: Convolution,
    pub(crate) padding: Padding,
    pub(crate) weight: ParameterId,
    pub(crate) bias: Option<ParameterId>,
    pub(crate) folded: Option<ChannelMap>,
    pub(crate) activation: Activation,
}

/// An affine map of each channel: it can stand alone or be folded into a convolution's weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ChannelMap {
    /// Batch norm with running statistics that are constants.
    FrozenNorm {
        weight: ParameterId,
        bias: ParameterId,
        mean: ParameterId,
        variance: ParameterId,
        epsilon: f64,
    },
    /// One trainable factor for all channels.
    Scale { factor: ParameterId },
}

impl ChannelMap {
    /// The parameters that the map reads.
    pub(crate) fn parameters(&self) -> Vec<ParameterId> {
        match *self {
            Self::FrozenNorm {
                weight,
                bias,
                mean,
                variance,
                ..
            } => vec![weight, bias, mean, variance],
            Self::Scale { factor } => vec![factor],
        }
    }
}

impl Operation {
    /// The parameters that the operation reads.
    pub(crate) fn parameters(&self) -> Vec<ParameterId> {
        match &self.kind {
            Kind::Convolution(convolution) => {
                let mut parameters = vec![convolution.weight];
                parameters.extend(convolution.bias);
                parameters.extend(convolution.folded.iter().flat_map(ChannelMap::parameters));
                parameters
            }
            Kind::Affine(map, _) => map.parameters(),
            Kind::LayerNorm { weight, bias, .. } => vec![*weight, *bias],
            Kind::Local { parameters, .. } => parameters.clone(),
            _ => Vec::new(),
        }
    }

    /// Whether the backward sweep computes a gradient of any of its parameters.
    pub(crate) fn is_trainable(&self, trainable: &[bool]) -> bool {
        self.parameters().iter().any(|id| trainable[id.0])
    }

    /// What planning needs to know of the operation.
    pub(crate) fn node(
        &self,
        trainable: &[bool],
        has_cotangent: bool,
        input_has_cotangent: &[bool],
    ) -> Result<Node> {
        let trains = self.is_trainable(trainable);
        let data_gradient = self
            .inputs
            .first()
            .is_some_and(|&input| input_has_cotangent[input]);
        let forward_flops = self.forward_flops();
        let vjp_flops = match &self.kind {
            Kind::Convolution(_) => forward_flops * (u64::from(trains) + u64::from(data_gradient)),
            _ => 2 * forward_flops,
        };
        Ok(Node {
            name: self.name.clone(),
            channels: self.channels as u64,
            inputs: self.edges()?,
            forward_flops,
            vjp_flops,
            vjp_reads: self.vjp_reads(trains),
            has_cotangent,
        })
    }

    fn vjp_reads(&self, trains: bool) -> VjpReads {
        let reads = |output, inputs| VjpReads { output, inputs };
        match &self.kind {
            Kind::Convolution(convolution) => {
                reads(convolution.activation == Activation::Relu, trains)
            }
            Kind::Pool { pooling, .. } => reads(false, *pooling == Pooling::Maximum),
            Kind::Affine(_, activation) => reads(*activation == Activation::Relu, trains),
            Kind::LayerNorm { activation, .. } => reads(*activation == Activation::Relu, true),
            Kind::Add(activation) => reads(*activation == Activation::Relu, false),
            Kind::Gelu(_) | Kind::Local { .. } => reads(false, true),
            Kind::Relu => reads(true, false),
            Kind::Image | Kind::Concat | Kind::UpsampleNearest(_) | Kind::UpsampleBilinear(..) => {
                reads(false, false)
            }
        }
    }

    fn forward_flops(&self) -> u64 {
        let channels = self.channels as u64;
        match &self.kind {
            Kind::Convolution(convolution) => convolution.shape.flops(1),
            Kind::Pool { window, .. } => channels * window.taps() as u64,
            Kind::LayerNorm { .. } | Kind::UpsampleBilinear(..) => 8 * channels,
            Kind::Gelu(_) => 16 * channels,
            Kind::Affine(..) => 2 * channels,
            Kind::Relu | Kind::Add(_) => channels,
            Kind::Image | Kind::Concat | Kind::UpsampleNearest(_) => 0,
            Kind::Local { layer, .. } => layer.flops_per_output(),
        }
    }

    /// The rule of each input.
    fn edges(&self) -> Result<Vec<Edge>> {
        let first = match &self.kind {
            Kind::Convolution(convolution) => {
                self.window_rule(&convolution.shape.window, &convolution.padding)?
            }
            Kind::Pool {
                window, padding, ..
            } => self.window_rule(window, padding)?,
            Kind::UpsampleNearest(factor) => {
                PerAxis::both(AxisRule::UpsampleNearest(self.factor(*factor)?))
            }
            Kind::UpsampleBilinear(factor, corners) => {
                PerAxis::both(AxisRule::UpsampleBilinear(self.factor(*factor)?, *corners))
            }
            Kind::Local { layer, .. } => layer.rule(),
            _ => PerAxis::both(AxisRule::Pointwise),
        };
        Ok(self
            .inputs
            .iter()
            .enumerate()
            .map(|(index, &source)| {
                if index == 0 {
                    Edge {
                        source: NodeId(source),
                        rule: first.clone(),
                    }
                } else {
                    Edge::pointwise(NodeId(source))
                }
            })
            .collect())
    }

    fn window_rule(&self, window: &Window, padding: &Padding) -> Result<PerAxis<AxisRule>> {
        let axis = |index: usize, lo: usize, hi: usize| {
            stream_grad_tiling::Window::new(
                window.kernel[index] as u64,
                window.stride[index] as u64,
                window.dilation[index] as u64,
                lo as u64,
                hi as u64,
            )
            .map(AxisRule::Window)
        };
        Ok(PerAxis::new(
            axis(0, padding.top, padding.bottom)?,
            axis(1, padding.left, padding.right)?,
        ))
    }

    fn factor(&self, factor: usize) -> Result<i64> {
        i64::try_from(factor)
            .ok()
            .filter(|factor| (1..=1 << 16).contains(factor))
            .ok_or_else(|| StreamError::Setting {
                layer: self.name.clone(),
                setting: "upsampling factor",
                found: factor.to_string(),
                expected: "a whole number from 1 to 65536",
            })
    }
}

/// Which parameters the backward sweep computes gradients of.
pub(crate) fn trainable_flags(
    parameters: &[Parameter],
    choice: &crate::request::Trainable,
) -> Vec<bool> {
    parameters
        .iter()
        .map(|parameter| parameter.trainable && choice.includes(&parameter.name))
        .collect()
}
