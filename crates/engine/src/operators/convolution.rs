//! Convolutions, with the map of channels, the addition and the ReLU that follow them.
//!
//! With `W' = f W` and `b' = f b + offset` the map's factors `f` go into the weights. From `W` to the packed panels, and which copy
//! lives when, is all said here: [`Operator::copies`] for the planner, [`Operator::prepare`] and [`Operator::transpose`] for the
//! sweeps.

use std::borrow::Cow;
use std::num::NonZeroU32;

use rayon::prelude::*;
use stream_grad_kernels::{Activation, Element, KernelError, Window, parallel_for, zeros};
use stream_grad_tiling::{AxisRule, PerAxis, Shifts, TilingError, VjpReads};

use crate::backend::{Backend, ConvolutionOperands};
use crate::channel_map::ChannelMap;
use crate::error::{Result, StreamError};
use crate::operator::plain::{GradientWriter, Plain};
use crate::operator::step::{ForwardStep, VjpStep};
use crate::operator::{
    Absorbed, Copies, Fusible, Needs, NodeShape, Operator, OperatorKey, VjpWeights, activated,
    computed, stored,
};
use crate::parameter::{ParameterId, ParameterShape};

#[derive(Debug, Clone)]
pub(crate) struct Convolution {
    pub(crate) shape: stream_grad_kernels::Convolution,
    pub(crate) weight: ParameterId,
    pub(crate) bias: Option<ParameterId>,
    pub(crate) folded: Option<ChannelMap>,
    pub(crate) activation: Activation,
}

/// Packed weights, with the factors of the map, and the bias.
pub(crate) struct Prepared<B: Backend> {
    weights: B::Weights,
    bias: Option<B::Vector>,
}

/// What the data gradient reads besides the cotangent.
pub(crate) struct Transposed<B: Backend> {
    weights: B::TransposedWeights,
    /// What each channel of the cotangent is multiplied by first, if the weights are packed without the map's factors.
    factors: Option<B::Vector>,
}

/// Weights of one output channel from which on a pass over the cotangent is cheaper than a second copy of the weights: such
/// convolutions do thousands of operations for each value that the pass touches, and lie where planes are small.
const MANY_WEIGHTS: usize = 2048;

/// Winograd's tiles have two rows and two columns, and lie on a grid that is fixed in the plane: which of the four places an output
/// has decides how it is rounded.
const WINOGRAD_GRID: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);

/// How weights are packed for the data gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    /// They are not: there is no data gradient.
    Nothing,
    /// Times the factors of the map.
    Folded,
    /// As they are: the cotangent is multiplied by the factors. The map's own gradient, which needs the weights without its
    /// factors, since these may be 0, reads them from there.
    Unfolded,
}

impl Convolution {
    /// Whether the gradient of the map needs the weights.
    fn map_trains(&self, needs: &Needs<'_>) -> bool {
        self.folded.is_some_and(|map| {
            let mut parameters = map.parameters().into_iter();
            parameters.any(|id| needs.trainable[id.0])
        })
    }

    fn packing(&self, needs: &Needs<'_>) -> Packing {
        let many = self.shape.in_channels / self.shape.groups * self.shape.window.taps();
        if !needs.input {
            Packing::Nothing
        } else if self.map_trains(needs) && many >= MANY_WEIGHTS {
            Packing::Unfolded
        } else {
            Packing::Folded
        }
    }

    fn has_bias(&self) -> bool {
        self.bias.is_some() || self.folded.is_some()
    }

    fn folded_weights<'p, B: Backend>(&self, plain: &'p Plain<'_, B>) -> Cow<'p, [B::Compute]> {
        let weights = plain.values(self.weight);
        let Some(map) = &self.folded else {
            return Cow::Borrowed(weights);
        };
        let outputs = self.shape.out_channels;
        let factors = map.factors(plain, outputs);
        let per_output = (weights.len() / outputs).max(1);
        let mut folded = zeros(weights.len());
        let filters = folded
            .par_chunks_mut(per_output)
            .zip(weights.par_chunks(per_output));
        parallel_for(filters.zip(&factors), |((folded, filter), channel)| {
            for (folded, weight) in folded.iter_mut().zip(filter) {
                *folded = B::Compute::from_f64(weight.to_f64() * channel.factor);
            }
        });
        Cow::Owned(folded)
    }

    fn folded_bias<B: Backend>(&self, plain: &Plain<'_, B>) -> Option<Vec<B::Compute>> {
        let bias = self.bias.map(|id| plain.values(id));
        let Some(map) = &self.folded else {
            return bias.map(<[B::Compute]>::to_vec);
        };
        let factors = map.factors(plain, self.shape.out_channels);
        let folded = factors.iter().enumerate().map(|(index, channel)| {
            let bias = bias.map_or(0.0, |bias| bias[index].to_f64());
            B::Compute::from_f64(bias * channel.factor + channel.offset)
        });
        Some(folded.collect())
    }

    /// Turns the cotangent into that before the activation, in place, and adds the gradient of the bias, if there is one.
    fn mask_and_bias_gradient<B: Backend>(&self, step: &mut VjpStep<'_, B>) -> Result<()> {
        if !step.trains || !self.has_bias() {
            return step.mask(self.activation);
        }
        let (cotangent, outputs) = (step.operands().cotangent(), step.operands().outputs());
        let masked = (self.activation != Activation::Identity)
            .then(|| (self.activation, step.operands().output()));
        step.run_summing(|backend, slabs, sums| {
            let [_, bias] = sums else {
                return Err(KernelError::Buffers);
            };
            backend.bias_gradient(slabs, masked, cotangent, outputs, bias)
        })
    }

    fn weight_gradient<B: Backend>(&self, step: &mut VjpStep<'_, B>) -> Result<()> {
        let (input, cotangent, outputs) = (
            step.operands().input(0),
            step.operands().cotangent(),
            step.operands().outputs(),
        );
        let shape = &self.shape;
        step.run_summing(|backend, slabs, sums| {
            let [weights, ..] = sums else {
                return Err(KernelError::Buffers);
            };
            backend.convolution_weight_gradient(slabs, shape, input, cotangent, outputs, weights)
        })
    }

    fn data_gradient<B: Backend>(
        &self,
        transposed: Option<&Transposed<B>>,
        step: &mut VjpStep<'_, B>,
    ) -> Result<()> {
        let Transposed { weights, factors } = step.needed(transposed)?;
        let map = step.operands().transposed(0);
        let (shape, factors) = (&self.shape, factors.as_ref());
        step.run(|backend, slabs| {
            backend.convolution_data_gradient(slabs, shape, weights, factors, map)
        })
    }

    /// The gradients of the map, and in place those of `W` and `b`. For a frozen norm `f = gamma / sigma`, so that
    /// `dgamma = (<W, dW'> + (b - mu) db') / sigma` and `dbeta = db'`.
    fn unfold<B: Backend>(
        &self,
        map: &ChannelMap,
        [weights, bias]: [&mut [f64]; 2],
        filters: &Filters<'_, B>,
        gradients: &mut GradientWriter<'_>,
    ) -> Result<()> {
        let (outputs, plain) = (self.shape.out_channels, filters.plain);
        let factors = map.factors(plain, outputs);
        let per_output = (weights.len() / outputs).max(1);
        let offsets = self.bias.map(|id| plain.values(id));
        // Gradient of each channel's factor, of which the map's parameters are functions.
        let factor_gradients = weights
            .par_chunks_mut(per_output)
            .enumerate()
            .map_init(
                || vec![0.0; per_output],
                |values, (channel, gradient)| {
                    filters.read(channel, values)?;
                    let factor = factors[channel].factor;
                    let mut inner = 0.0;
                    for (gradient, value) in gradient.iter_mut().zip(values) {
                        inner += *value * *gradient;
                        *gradient *= factor;
                    }
                    let offset = offsets.map_or(0.0, |values| values[channel].to_f64());
                    Ok(inner + offset * bias[channel])
                },
            )
            .collect::<Result<Vec<f64>>>()?;
        map.gradients(&factor_gradients, bias, plain, gradients)?;
        for (gradient, channel) in bias.iter_mut().zip(&factors) {
            *gradient *= channel.factor;
        }
        Ok(())
    }
}

impl Operator for Convolution {
    type Prepared<B: Backend> = Prepared<B>;
    type Transposed<B: Backend> = Transposed<B>;

    fn key(&self, node: NodeShape) -> OperatorKey {
        let shape = &self.shape;
        let kind = if shape.is_winograd() {
            "winograd convolution"
        } else if shape.groups > 1 {
            "grouped convolution"
        } else if shape.window.kernel == [1, 1] {
            "pointwise convolution"
        } else {
            "direct convolution"
        };
        let residual = if node.inputs > 1 { ", residual" } else { "" };
        OperatorKey {
            kind,
            detail: format!(
                "{} to {}, groups {}, {}{residual}{}",
                shape.in_channels,
                shape.out_channels,
                shape.groups,
                describe(&shape.window),
                activated(self.activation),
            ),
        }
    }

    fn rule(&self) -> Result<PerAxis<AxisRule>, TilingError> {
        Ok(window_per_axis(&self.shape.window)?.map(AxisRule::Window))
    }

    fn shifts(&self) -> Shifts {
        if self.shape.is_winograd() {
            Shifts::Multiples(WINOGRAD_GRID)
        } else {
            Shifts::All
        }
    }

    fn parameters(&self) -> Vec<ParameterId> {
        let mut parameters = vec![self.weight];
        parameters.extend(self.bias);
        parameters.extend(self.folded.iter().flat_map(ChannelMap::parameters));
        parameters
    }

    fn vjp_reads(&self, trains: bool) -> VjpReads {
        VjpReads {
            output: self.activation != Activation::Identity,
            inputs: trains,
        }
    }

    fn forward_flops(&self, _channels: usize) -> u64 {
        self.shape.flops(1)
    }

    fn vjp_flops(&self, channels: usize, needs: &Needs<'_>) -> u64 {
        let gradients = u64::from(needs.trains) + u64::from(needs.input);
        gradients * self.forward_flops(channels)
    }

    fn replaces_cotangent(&self) -> bool {
        true
    }

    fn absorb(&mut self, next: &Fusible, inputs: usize) -> Absorbed {
        // What was added to it is mapped, too: weights alone cannot do that.
        let plain = self.activation == Activation::Identity && inputs == 1;
        match *next {
            Fusible::Map(map, activation) if plain => {
                let folded = self.folded.map_or(Some(map), |folded| folded.then(map));
                if folded.is_none() {
                    return Absorbed::No;
                }
                self.folded = folded;
                self.activation = activation;
                Absorbed::Whole
            }
            Fusible::Sum(activation) if plain => {
                self.activation = activation;
                Absorbed::WithInput
            }
            _ => next.activate(&mut self.activation),
        }
    }

    fn scratch<B: Backend>(&self, backend: &B) -> usize {
        backend.scratch_len(&self.shape)
    }

    fn sums(&self, _channels: usize, parameters: &[ParameterShape]) -> Vec<usize> {
        let mut sums = vec![parameters[self.weight.0].len()];
        sums.extend(self.has_bias().then_some(self.shape.out_channels));
        sums
    }

    fn copies<B: Backend>(
        &self,
        backend: &B,
        node: NodeShape,
        _parameters: &[ParameterShape],
        needs: &Needs<'_>,
    ) -> Result<Copies, KernelError> {
        let (forward, transposed) = backend.packed_len(&self.shape)?;
        let packing = self.packing(needs);
        let keeps_plain = self.map_trains(needs) && packing != Packing::Unfolded;
        let plain = self.parameters();
        Ok(Copies {
            plain_to_the_end: plain
                .iter()
                .copied()
                .filter(|&id| id != self.weight || keeps_plain)
                .collect(),
            plain,
            transposed_from: (packing != Packing::Nothing).then_some(self.weight),
            prepared: stored::<B>(forward) + computed::<B>(node.channels),
            packed: true,
            transposed: match packing {
                Packing::Nothing => 0,
                // With factors for the cotangent's channels.
                Packing::Folded | Packing::Unfolded => {
                    stored::<B>(transposed) + computed::<B>(node.channels)
                }
            },
            unpacked: packing == Packing::Unfolded,
        })
    }

    fn prepare<B: Backend>(&self, plain: &Plain<'_, B>, _node: NodeShape) -> Result<Prepared<B>> {
        let weights = plain.backend.pack(&self.shape, &self.folded_weights(plain));
        Ok(Prepared {
            weights: weights.map_err(|source| plain.kernel_error(source))?,
            bias: self
                .folded_bias(plain)
                .map(|bias| plain.backend.vector(bias)),
        })
    }

    fn transpose<B: Backend>(
        &self,
        plain: &Plain<'_, B>,
        needs: &Needs<'_>,
    ) -> Result<Option<Transposed<B>>> {
        let packing = self.packing(needs);
        let (backend, shape) = (plain.backend, &self.shape);
        let factors = match (packing, &self.folded) {
            (Packing::Nothing, _) => return Ok(None),
            (Packing::Unfolded, Some(map)) => {
                let factors = map.factors(plain, shape.out_channels);
                let factors = factors.iter().map(|one| B::Compute::from_f64(one.factor));
                Some(backend.vector(factors.collect()))
            }
            (Packing::Unfolded, None) | (Packing::Folded, _) => None,
        };
        let weights = match &factors {
            Some(_) => backend.pack_transposed(shape, plain.values(self.weight)),
            None => backend.pack_transposed(shape, &self.folded_weights(plain)),
        };
        let weights = weights.map_err(|source| plain.kernel_error(source))?;
        Ok(Some(Transposed { weights, factors }))
    }

    fn forward<B: Backend>(
        &self,
        prepared: &Prepared<B>,
        mut step: ForwardStep<'_, B>,
    ) -> Result<()> {
        let map = step.mapping();
        let operands = ConvolutionOperands {
            weights: &prepared.weights,
            bias: prepared.bias.as_ref(),
            residual: (step.operands.inputs() > 1).then(|| step.operands.input(1)),
            activation: self.activation,
        };
        step.run(|backend, slabs| backend.convolution(slabs, &self.shape, operands, map))
    }

    fn vjp<B: Backend>(
        &self,
        weights: VjpWeights<'_, Self, B>,
        mut step: VjpStep<'_, B>,
    ) -> Result<()> {
        self.mask_and_bias_gradient(&mut step)?;
        if step.trains {
            self.weight_gradient(&mut step)?;
        }
        // Before the data gradient, which may scale the cotangent.
        if step.operands().inputs() > 1 {
            step.pass_on(1)?;
        }
        if step.operands().wants_input(0) {
            self.data_gradient(weights.transposed, &mut step)?;
        }
        Ok(())
    }

    fn gradients<B: Backend>(
        &self,
        sums: Vec<B::Sums>,
        transposed: Option<Transposed<B>>,
        plain: &Plain<'_, B>,
        gradients: &mut GradientWriter<'_>,
    ) -> Result<()> {
        let backend = plain.backend;
        let mut sums = sums.into_iter();
        let weights = sums.next().ok_or_else(|| StreamError::Internal {
            layer: plain.layer.to_owned(),
            what: "no sums of the weight gradient",
        })?;
        let mut weights = backend
            .weight_gradient(&self.shape, weights)
            .map_err(|source| plain.kernel_error(source))?;
        let mut bias = sums
            .next()
            .map_or_else(Vec::new, |sums| backend.sums_to_host(sums));
        if let Some(map) = &self.folded {
            let filters = Filters {
                weight: self.weight,
                plain,
                packed: transposed
                    .filter(|transposed| transposed.factors.is_some())
                    .map(|transposed| transposed.weights),
            };
            self.unfold(map, [&mut weights, &mut bias], &filters, gradients)?;
        }
        if let Some(id) = self.bias {
            gradients.add(id, bias)?;
        }
        gradients.add(self.weight, weights)
    }
}

/// The weights without the factors of a folded map.
struct Filters<'a, B: Backend> {
    weight: ParameterId,
    /// As they are, or freed.
    plain: &'a Plain<'a, B>,
    /// Packed without factors. Winograd's transform rounds them, so these are read wherever there are any: results do not depend on
    /// what else is held.
    packed: Option<B::TransposedWeights>,
}

impl<B: Backend> Filters<'_, B> {
    /// Reads one output channel's filter. Without a copy `weights` stays as it is: no parameter of the map trains; then nothing
    /// comes of them.
    fn read(&self, output: usize, weights: &mut [f64]) -> Result<()> {
        let plain = self.plain.values(self.weight);
        let mut filters = plain.chunks_exact(weights.len());
        match (&self.packed, filters.nth(output)) {
            (Some(packed), _) => self
                .plain
                .backend
                .unpack_filter(packed, output, weights)
                .map_err(|source| self.plain.kernel_error(source)),
            (None, Some(filter)) => {
                for (weight, &value) in weights.iter_mut().zip(filter) {
                    *weight = value.to_f64();
                }
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }
}

/// A window along each axis.
pub(super) fn window_per_axis(
    window: &Window,
) -> Result<PerAxis<stream_grad_tiling::Window>, TilingError> {
    let padding = window.padding;
    let axis = |index: usize, lo: usize, hi: usize| {
        stream_grad_tiling::Window::new(
            window.kernel[index] as u64,
            window.stride[index] as u64,
            window.dilation[index] as u64,
            lo as u64,
            hi as u64,
        )
    };
    Ok(PerAxis::new(
        axis(0, padding.top, padding.bottom)?,
        axis(1, padding.left, padding.right)?,
    ))
}

/// A window, as part of a key.
pub(super) fn describe(window: &Window) -> String {
    let pair = |[rows, columns]: [usize; 2]| format!("{rows}x{columns}");
    format!(
        "kernel {}, stride {}, dilation {}",
        pair(window.kernel),
        pair(window.stride),
        pair(window.dilation)
    )
}
