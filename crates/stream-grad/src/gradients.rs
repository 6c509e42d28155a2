//! Gradients of parameters: summed over tiles in double precision, unfolded at the end.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use stream_grad_kernels::{DataGradientWeights, weight_gradient_to_oihw};

use crate::error::Result;
use crate::operation::{ChannelMap, ConvolutionOperation, Kind, Operation};
use crate::parameter::{Parameter, ParameterId};
use crate::prepared::{DataGradient, Prepared, element_f64, kernel_error, scalar};
use crate::scalar::Scalar;

/// Running sums of one operation's parameter gradients.
#[derive(Debug, Default)]
pub(crate) struct OperationGradients {
    /// A convolution's weights as the kernels lay them out, a norm's scale, or a local layer's parameters.
    pub(crate) weights: Vec<Vec<f64>>,
    /// A convolution's bias, or a norm's shift.
    pub(crate) bias: Vec<f64>,
}

/// Running sums of all parameter gradients.
pub(crate) struct ParameterGradients {
    pub(crate) operations: Vec<OperationGradients>,
}

impl ParameterGradients {
    /// Zeros for every operation that has something trainable.
    pub(crate) fn new(
        operations: &[Operation],
        parameters: &[Parameter],
        trainable: &[bool],
    ) -> Self {
        let operations = operations
            .iter()
            .map(|operation| {
                if operation.is_trainable(trainable) {
                    zeros(operation, parameters)
                } else {
                    OperationGradients::default()
                }
            })
            .collect();
        Self { operations }
    }

    /// Number of `f64` sums that [`Self::new`] allocates.
    pub(crate) fn length(
        operations: &[Operation],
        parameters: &[Parameter],
        trainable: &[bool],
    ) -> usize {
        operations
            .iter()
            .filter(|operation| operation.is_trainable(trainable))
            .map(|operation| {
                let weights: usize = weight_lengths(operation, parameters).iter().sum();
                weights + bias_length(operation)
            })
            .sum()
    }

    /// Unfolds the sums and hands each trainable parameter's gradient to candle, in the parameter's dtype.
    pub(crate) fn into_store<T: Scalar>(
        self,
        operations: &[Operation],
        parameters: &[Parameter],
        trainable: &[bool],
        prepared: &Prepared<T>,
        data_gradients: Vec<Option<DataGradient<T>>>,
    ) -> Result<GradStore> {
        let mut store = Store {
            gradients: GradStore::default(),
            parameters,
            trainable,
        };
        let sums = self.operations.into_iter().zip(data_gradients);
        for (operation, (sums, data_gradient)) in operations.iter().zip(sums) {
            if !operation.is_trainable(trainable) {
                continue;
            }
            match &operation.kind {
                Kind::Convolution(convolution) => {
                    store.convolution(operation, convolution, sums, prepared, data_gradient)?;
                }
                Kind::Affine(map, _) => {
                    let scale = sums.weights.into_iter().next().unwrap_or_default();
                    store.channel_map(map, &scale, &sums.bias, prepared)?;
                }
                Kind::LayerNorm { weight, bias, .. } => {
                    let scale = sums.weights.into_iter().next().unwrap_or_default();
                    store.add(*weight, scale)?;
                    store.add(*bias, sums.bias)?;
                }
                Kind::Local {
                    parameters: ids, ..
                } => {
                    for (id, sum) in ids.iter().zip(sums.weights) {
                        store.add(*id, sum)?;
                    }
                }
                _ => {}
            }
        }
        Ok(store.gradients)
    }
}

fn zeros(operation: &Operation, parameters: &[Parameter]) -> OperationGradients {
    OperationGradients {
        weights: weight_lengths(operation, parameters)
            .into_iter()
            .map(stream_grad_kernels::zeros)
            .collect(),
        bias: vec![0.0; bias_length(operation)],
    }
}

fn weight_lengths(operation: &Operation, parameters: &[Parameter]) -> Vec<usize> {
    let length = |id: &ParameterId| parameters[id.0].tensor.elem_count();
    match &operation.kind {
        Kind::Convolution(convolution) => vec![length(&convolution.weight)],
        Kind::Affine(..) | Kind::LayerNorm { .. } => vec![operation.channels],
        Kind::Local { parameters, .. } => parameters.iter().map(length).collect(),
        _ => Vec::new(),
    }
}

fn bias_length(operation: &Operation) -> usize {
    match &operation.kind {
        Kind::Convolution(convolution)
            if convolution.bias.is_none() && convolution.folded.is_none() =>
        {
            0
        }
        Kind::Convolution(_) | Kind::Affine(..) | Kind::LayerNorm { .. } => operation.channels,
        _ => 0,
    }
}

/// A convolution's weights without the factors of a folded map, from wherever they are held.
struct Filters<'a, T> {
    /// As they are, or empty.
    plain: &'a [T],
    /// Packed without factors.
    packed: Option<DataGradientWeights<T>>,
    name: &'a str,
}

impl<T: Scalar> Filters<'_, T> {
    /// The weights of one output channel. They are held nowhere if no parameter of the map trains; then nothing comes of them.
    fn read(&self, output: usize, weights: &mut [f64]) -> Result<()> {
        let mut filters = self.plain.chunks_exact(weights.len());
        match (filters.nth(output), &self.packed) {
            (Some(filter), _) => {
                for (weight, &value) in weights.iter_mut().zip(filter) {
                    *weight = element_f64(value);
                }
                Ok(())
            }
            (None, Some(packed)) => packed
                .unpack_filter(output, weights)
                .map_err(kernel_error(self.name)),
            (None, None) => Ok(()),
        }
    }
}

struct Store<'a> {
    gradients: GradStore,
    parameters: &'a [Parameter],
    trainable: &'a [bool],
}

impl Store<'_> {
    /// Adds a gradient to its parameter's; a parameter may be shared by several operations.
    fn add(&mut self, id: ParameterId, gradient: Vec<f64>) -> Result<()> {
        if !self.trainable[id.0] {
            return Ok(());
        }
        let parameter = &self.parameters[id.0].tensor;
        let gradient = if parameter.dtype() == DType::F32 {
            let rounded: Vec<f32> = gradient.into_par_iter().map(scalar).collect();
            Tensor::from_vec(rounded, parameter.shape(), &Device::Cpu)?
        } else {
            Tensor::from_vec(gradient, parameter.shape(), &Device::Cpu)?
                .to_dtype(parameter.dtype())?
        };
        let gradient = match self.gradients.remove(parameter) {
            Some(other) => (other + gradient)?,
            None => gradient,
        };
        self.gradients.insert(parameter, gradient);
        Ok(())
    }

    fn convolution<T: Scalar>(
        &mut self,
        operation: &Operation,
        convolution: &ConvolutionOperation,
        sums: OperationGradients,
        prepared: &Prepared<T>,
        data_gradient: Option<DataGradient<T>>,
    ) -> Result<()> {
        let kernel_layout = sums.weights.into_iter().next().unwrap_or_default();
        let mut weights = vec![0.0_f64; kernel_layout.len()];
        weight_gradient_to_oihw(&convolution.shape, &kernel_layout, &mut weights)
            .map_err(kernel_error(&operation.name))?;
        drop(kernel_layout);
        let mut bias = sums.bias;
        if let Some(map) = &convolution.folded {
            let filters = Filters {
                plain: prepared.values(convolution.weight),
                packed: data_gradient
                    .filter(|data_gradient| data_gradient.factors.is_some())
                    .map(|data_gradient| data_gradient.weights),
                name: &operation.name,
            };
            self.unfold(
                convolution,
                map,
                &mut weights,
                &mut bias,
                prepared,
                &filters,
            )?;
        }
        if let Some(id) = convolution.bias {
            self.add(id, bias)?;
        }
        self.add(convolution.weight, weights)
    }

    /// With `W' = f W` and `b' = f b + offset` and the gradients of `W'` and `b'`: the map's own gradients, then
    /// those of `W` and `b` in place. For a frozen norm `f = gamma / sigma`, so that
    /// `dgamma = (<W, dW'> + (b - mu) db') / sigma` and `dbeta = db'`.
    fn unfold<T: Scalar>(
        &mut self,
        convolution: &ConvolutionOperation,
        map: &ChannelMap,
        weights: &mut [f64],
        bias: &mut [f64],
        prepared: &Prepared<T>,
        filters: &Filters<'_, T>,
    ) -> Result<()> {
        let outputs = convolution.shape.out_channels;
        let factors = prepared.channel_map(map, outputs);
        let per_output = (weights.len() / outputs).max(1);
        let offsets = convolution.bias.map(|id| prepared.values(id));
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
                    let offset = offsets.map_or(0.0, |values| element_f64(values[channel]));
                    Ok(inner + offset * bias[channel])
                },
            )
            .collect::<Result<Vec<f64>>>()?;
        self.channel_map(map, &factor_gradients, bias, prepared)?;
        for (gradient, channel) in bias.iter_mut().zip(&factors) {
            *gradient *= channel.factor;
        }
        Ok(())
    }

    /// Gradients of a map's parameters from those of each channel's factor (at a fixed offset) and offset.
    fn channel_map<T: Scalar>(
        &mut self,
        map: &ChannelMap,
        factor_gradients: &[f64],
        offset_gradients: &[f64],
        prepared: &Prepared<T>,
    ) -> Result<()> {
        match *map {
            ChannelMap::FrozenNorm { weight, bias, .. } => {
                let factors = prepared.channel_map(map, factor_gradients.len());
                let scale = factors
                    .iter()
                    .zip(factor_gradients.iter().zip(offset_gradients))
                    .map(|(channel, (factor, offset))| {
                        (factor - channel.mean * offset) * channel.inverse_deviation
                    });
                self.add(weight, scale.collect())?;
                self.add(bias, offset_gradients.to_vec())
            }
            ChannelMap::Scale { factor } => self.add(factor, vec![factor_gradients.iter().sum()]),
        }
    }
}
