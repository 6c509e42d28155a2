//! Parameters as the sweeps read them: copied, folded and packed, so that an optimiser step between
//! forward and backward cannot mix two sets of weights.

use std::borrow::Cow;

use candle_core::Tensor;
use rayon::prelude::*;
use stream_grad_kernels::{DataGradientWeights, ForwardWeights, KernelError};

use crate::error::{Result, StreamError};
use crate::operation::{ChannelMap, ConvolutionOperation, Kind, Operation};
use crate::parameter::{Parameter, ParameterId};
use crate::scalar::Scalar;
use crate::weights::{BackwardWeights, Packing};

/// What one operation's forward computation reads besides its inputs.
pub(crate) enum PreparedOperation<T> {
    Convolution {
        weights: ForwardWeights<T>,
        bias: Option<Vec<T>>,
    },
    Affine {
        scale: Vec<T>,
        shift: Vec<T>,
    },
    LayerNorm {
        weight: Vec<T>,
        bias: Vec<T>,
    },
    Local {
        parameters: Vec<Tensor>,
    },
    Nothing,
}

/// What one convolution's data gradient reads besides the cotangent.
pub(crate) struct DataGradient<T> {
    pub(crate) weights: DataGradientWeights<T>,
    /// What each channel of the cotangent is multiplied by first, if the weights are packed as they are.
    pub(crate) factors: Option<Vec<T>>,
}

/// The parameters of one forward computation.
pub(crate) struct Prepared<T> {
    pub(crate) operations: Vec<PreparedOperation<T>>,
    /// By parameter; empty where nothing reads them any more.
    values: Vec<Vec<T>>,
}

impl<T: Scalar> Prepared<T> {
    /// Copies all parameters and packs what the forward computation reads.
    pub(crate) fn new(operations: &[Operation], parameters: &[Parameter]) -> Result<Self> {
        let mut prepared = Self {
            operations: Vec::with_capacity(operations.len()),
            values: vec![Vec::new(); parameters.len()],
        };
        for id in copied(operations) {
            if prepared.values[id.0].is_empty() {
                prepared.values[id.0] = values(&parameters[id.0])?;
            }
        }
        for operation in operations {
            let next = prepared.operation(operation, parameters)?;
            prepared.operations.push(next);
        }
        Ok(prepared)
    }

    /// The values of a parameter as they were when the forward computation began; of weights, none once they are freed.
    pub(crate) fn values(&self, id: ParameterId) -> &[T] {
        &self.values[id.0]
    }

    /// Frees the packed weights of every convolution that is not computed again.
    pub(crate) fn keep_packed(&mut self, computes_again: impl Fn(usize) -> bool) {
        for (node, operation) in self.operations.iter_mut().enumerate() {
            if matches!(operation, PreparedOperation::Convolution { .. }) && !computes_again(node) {
                *operation = PreparedOperation::Nothing;
            }
        }
    }

    /// Packs what the data gradients read, and frees the copies of weights that nothing reads after that.
    pub(crate) fn pack_data_gradients(
        &mut self,
        operations: &[Operation],
        needs: &[Option<BackwardWeights>],
    ) -> Result<Vec<Option<DataGradient<T>>>> {
        let weights = |node: usize| match &operations[node].kind {
            Kind::Convolution(convolution) => needs[node].map(|needs| (convolution, needs)),
            _ => None,
        };
        // What is plain is held throughout, the rest of what is packed until it is.
        let mut readers = vec![0_usize; self.values.len()];
        let mut convolutions = Vec::with_capacity(self.values.len());
        for (convolution, needs) in (0..operations.len()).filter_map(weights) {
            convolutions.push(convolution.weight);
            readers[convolution.weight.0] +=
                usize::from(needs.plain) + usize::from(needs.packing.is_some());
        }
        let free = |values: &mut Vec<Vec<T>>, id: ParameterId, readers: usize| {
            if readers == 0 {
                values[id.0] = Vec::new();
            }
        };
        for id in convolutions {
            free(&mut self.values, id, readers[id.0]);
        }
        (0..operations.len())
            .map(|node| {
                let Some((convolution, needs)) = weights(node) else {
                    return Ok(None);
                };
                let Some(packing) = needs.packing else {
                    return Ok(None);
                };
                let packed =
                    self.pack_data_gradient(&operations[node].name, convolution, packing)?;
                let readers = &mut readers[convolution.weight.0];
                *readers -= 1;
                free(&mut self.values, convolution.weight, *readers);
                Ok(Some(packed))
            })
            .collect()
    }

    fn pack_data_gradient(
        &self,
        name: &str,
        convolution: &ConvolutionOperation,
        packing: Packing,
    ) -> Result<DataGradient<T>> {
        let shape = &convolution.shape;
        let packed = match (packing, &convolution.folded) {
            (Packing::Unfolded, Some(map)) => {
                let factors = self.channel_map(map, shape.out_channels);
                let factors = factors.iter().map(|channel| scalar(channel.factor));
                DataGradientWeights::pack(shape, self.values(convolution.weight)).map(|weights| {
                    DataGradient {
                        weights,
                        factors: Some(factors.collect()),
                    }
                })
            }
            (Packing::Unfolded, None) | (Packing::Folded, _) => {
                DataGradientWeights::pack(shape, &self.folded_weights(convolution)).map(|weights| {
                    DataGradient {
                        weights,
                        factors: None,
                    }
                })
            }
        };
        packed.map_err(kernel_error(name))
    }

    /// Factor and offset of each channel of a map: `y = factor x + offset`.
    pub(crate) fn channel_map(&self, map: &ChannelMap, channels: usize) -> Vec<ChannelFactors> {
        match *map {
            ChannelMap::FrozenNorm {
                weight,
                bias,
                mean,
                variance,
                epsilon,
            } => (0..channels)
                .map(|channel| {
                    let at = |id| element_f64(self.values(id)[channel]);
                    let inverse_deviation = 1.0 / (at(variance) + epsilon).sqrt();
                    let factor = at(weight) * inverse_deviation;
                    ChannelFactors {
                        factor,
                        offset: at(bias) - at(mean) * factor,
                        mean: at(mean),
                        inverse_deviation,
                    }
                })
                .collect(),
            ChannelMap::Scale { factor } => vec![
                ChannelFactors {
                    factor: element_f64(self.values(factor)[0]),
                    offset: 0.0,
                    mean: 0.0,
                    inverse_deviation: 1.0,
                };
                channels
            ],
        }
    }

    fn operation(
        &self,
        operation: &Operation,
        parameters: &[Parameter],
    ) -> Result<PreparedOperation<T>> {
        Ok(match &operation.kind {
            Kind::Convolution(convolution) => PreparedOperation::Convolution {
                weights: ForwardWeights::pack(
                    &convolution.shape,
                    &self.folded_weights(convolution),
                )
                .map_err(kernel_error(&operation.name))?,
                bias: self.folded_bias(convolution),
            },
            Kind::Affine(map, _) => {
                let factors = self.channel_map(map, operation.channels);
                PreparedOperation::Affine {
                    scale: factors.iter().map(|c| scalar::<T>(c.factor)).collect(),
                    shift: factors.iter().map(|c| scalar::<T>(c.offset)).collect(),
                }
            }
            Kind::LayerNorm { weight, bias, .. } => PreparedOperation::LayerNorm {
                weight: values(&parameters[weight.0])?,
                bias: values(&parameters[bias.0])?,
            },
            Kind::Local {
                parameters: ids, ..
            } => PreparedOperation::Local {
                parameters: ids
                    .iter()
                    .map(|id| Ok(parameters[id.0].tensor.to_dtype(T::KIND)?.copy()?.detach()))
                    .collect::<Result<_>>()?,
            },
            _ => PreparedOperation::Nothing,
        })
    }

    fn folded_weights(&self, convolution: &ConvolutionOperation) -> Cow<'_, [T]> {
        let weights = self.values(convolution.weight);
        let Some(map) = &convolution.folded else {
            return Cow::Borrowed(weights);
        };
        let mut weights = weights.to_vec();
        let outputs = convolution.shape.out_channels;
        let factors = self.channel_map(map, outputs);
        let per_output = (weights.len() / outputs).max(1);
        weights
            .par_chunks_mut(per_output)
            .zip(&factors)
            .for_each(|(filter, channel)| {
                for weight in filter {
                    *weight = scalar(element_f64(*weight) * channel.factor);
                }
            });
        Cow::Owned(weights)
    }

    fn folded_bias(&self, convolution: &ConvolutionOperation) -> Option<Vec<T>> {
        let bias = convolution.bias.map(|id| self.values(id));
        let Some(map) = &convolution.folded else {
            return bias.map(<[T]>::to_vec);
        };
        let factors = self.channel_map(map, convolution.shape.out_channels);
        let folded = factors.iter().enumerate().map(|(index, channel)| {
            let bias = bias.map_or(0.0, |bias| element_f64(bias[index]));
            scalar(bias * channel.factor + channel.offset)
        });
        Some(folded.collect())
    }
}

/// An affine map of one channel, with what its gradient needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChannelFactors {
    pub(crate) factor: f64,
    pub(crate) offset: f64,
    pub(crate) mean: f64,
    pub(crate) inverse_deviation: f64,
}

/// The parameters of which a copy is made that is not packed: those of convolutions and of maps of channels.
pub(crate) fn copied(operations: &[Operation]) -> impl Iterator<Item = ParameterId> + '_ {
    let copied = operations
        .iter()
        .filter(|operation| matches!(operation.kind, Kind::Convolution(_) | Kind::Affine(..)));
    copied.flat_map(Operation::parameters)
}

fn values<T: Scalar>(parameter: &Parameter) -> Result<Vec<T>> {
    let copy = || {
        parameter
            .tensor
            .to_dtype(T::KIND)?
            .flatten_all()?
            .to_vec1::<T>()
    };
    copy().map_err(|source| StreamError::Parameter {
        layer: parameter.name.clone(),
        source,
    })
}

/// Turns a kernel's refusal into this crate's error.
pub(crate) fn kernel_error(layer: &str) -> impl Fn(KernelError) -> StreamError + '_ {
    move |source| StreamError::Kernel {
        layer: layer.to_owned(),
        source,
    }
}

/// A value in double precision.
pub(crate) fn element_f64<T: Scalar>(value: T) -> f64 {
    stream_grad_kernels::Element::to_f64(value)
}

/// A value rounded to the plan's type.
pub(crate) fn scalar<T: Scalar>(value: f64) -> T {
    <T as stream_grad_kernels::Element>::from_f64(value)
}
