//! Affine maps of channels, which may be folded into the convolution before them.

use stream_grad_kernels::{Element, KernelError};

use crate::backend::Backend;
use crate::error::Result;
use crate::operator::plain::{GradientWriter, Plain};
use crate::parameter::ParameterId;

/// An affine map of each channel.
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
    /// One trainable factor for each channel.
    LayerScale { factors: ParameterId },
}

/// `y = factor x + offset` of one channel, with what its gradient needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChannelFactors {
    pub(crate) factor: f64,
    pub(crate) offset: f64,
    mean: f64,
    inverse_deviation: f64,
}

impl ChannelFactors {
    /// A factor alone.
    const fn of(factor: f64) -> Self {
        Self {
            factor,
            offset: 0.0,
            mean: 0.0,
            inverse_deviation: 1.0,
        }
    }
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
            Self::LayerScale { factors } => vec![factors],
        }
    }

    /// Factor and offset of each channel.
    pub(crate) fn factors<B: Backend>(
        &self,
        plain: &Plain<'_, B>,
        channels: usize,
    ) -> Vec<ChannelFactors> {
        match *self {
            Self::FrozenNorm {
                weight,
                bias,
                mean,
                variance,
                epsilon,
            } => (0..channels)
                .map(|channel| {
                    let at = |id| plain.values(id)[channel].to_f64();
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
            Self::Scale { factor } => {
                vec![ChannelFactors::of(plain.values(factor)[0].to_f64()); channels]
            }
            Self::LayerScale { factors } => {
                let factors = plain.values(factors).iter();
                factors
                    .map(|factor| ChannelFactors::of(factor.to_f64()))
                    .collect()
            }
        }
    }

    /// Gradients of the map's parameters from those of each channel's factor (at a fixed offset) and offset.
    pub(crate) fn gradients<B: Backend>(
        &self,
        factor_gradients: &[f64],
        offset_gradients: &[f64],
        plain: &Plain<'_, B>,
        gradients: &mut GradientWriter<'_>,
    ) -> Result<()> {
        match *self {
            Self::FrozenNorm { weight, bias, .. } => {
                let factors = self.factors(plain, factor_gradients.len());
                let scale = factors
                    .iter()
                    .zip(factor_gradients.iter().zip(offset_gradients))
                    .map(|(channel, (factor, offset))| {
                        (factor - channel.mean * offset) * channel.inverse_deviation
                    });
                gradients.add(weight, scale.collect())?;
                gradients.add(bias, offset_gradients.to_vec())
            }
            Self::Scale { factor } => gradients.add(factor, vec![factor_gradients.iter().sum()]),
            Self::LayerScale { factors } => gradients.add(factors, factor_gradients.to_vec()),
        }
    }
}

/// Lengths of the sums of scale and shift.
pub(crate) fn channel_sums(channels: usize) -> Vec<usize> {
    vec![channels, channels]
}

/// The sums of scale and shift.
pub(crate) fn scale_and_shift<S>(sums: &mut [S]) -> Result<[&mut S; 2], KernelError> {
    match sums {
        [scale, shift] => Ok([scale, shift]),
        _ => Err(KernelError::Buffers),
    }
}
