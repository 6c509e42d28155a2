//! Affine maps of channels, which may be folded into the convolution before them.

use stream_grad_kernels::{Element, KernelError};

use crate::backend::Backend;
use crate::error::Result;
use crate::operator::plain::{GradientWriter, Plain};
use crate::parameter::ParameterId;

/// An affine map of each channel, and what all of it is multiplied by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ChannelMap {
    pub(crate) kind: ChannelMapKind,
    /// The factor of a branch that a step may drop: 0, or what makes up for the steps in which it is. A constant for gradients.
    pub(crate) branch: Option<ParameterId>,
}

/// What is done to each channel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ChannelMapKind {
    /// Nothing.
    Identity,
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

    /// The map times a number.
    fn times(self, factor: f64) -> Self {
        Self {
            factor: self.factor * factor,
            offset: self.offset * factor,
            ..self
        }
    }
}

impl ChannelMapKind {
    fn parameters(&self) -> Vec<ParameterId> {
        match *self {
            Self::Identity => Vec::new(),
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
    fn factors<B: Backend>(&self, plain: &Plain<'_, B>, channels: usize) -> Vec<ChannelFactors> {
        match *self {
            Self::Identity => vec![ChannelFactors::of(1.0); channels],
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

    fn gradients<B: Backend>(
        &self,
        factor_gradients: Vec<f64>,
        offset_gradients: Vec<f64>,
        plain: &Plain<'_, B>,
        gradients: &mut GradientWriter<'_>,
    ) -> Result<()> {
        match *self {
            Self::Identity => Ok(()),
            Self::FrozenNorm { weight, bias, .. } => {
                let factors = self.factors(plain, factor_gradients.len());
                let scale = factors
                    .iter()
                    .zip(factor_gradients.iter().zip(&offset_gradients))
                    .map(|(channel, (factor, offset))| {
                        (factor - channel.mean * offset) * channel.inverse_deviation
                    });
                gradients.add(weight, scale.collect())?;
                gradients.add(bias, offset_gradients)
            }
            Self::Scale { factor } => gradients.add(factor, vec![factor_gradients.iter().sum()]),
            Self::LayerScale { factors } => gradients.add(factors, factor_gradients),
        }
    }
}

impl ChannelMap {
    /// A map that is always there.
    pub(crate) const fn of(kind: ChannelMapKind) -> Self {
        Self { kind, branch: None }
    }

    /// The map and then another, where one can say both.
    pub(crate) fn then(self, next: Self) -> Option<Self> {
        let joined = self.branch.is_none() && next.kind == ChannelMapKind::Identity;
        joined.then_some(Self {
            kind: self.kind,
            branch: next.branch,
        })
    }

    /// The parameters that the map reads.
    pub(crate) fn parameters(&self) -> Vec<ParameterId> {
        let mut parameters = self.kind.parameters();
        parameters.extend(self.branch);
        parameters
    }

    /// Factor and offset of each channel.
    pub(crate) fn factors<B: Backend>(
        &self,
        plain: &Plain<'_, B>,
        channels: usize,
    ) -> Vec<ChannelFactors> {
        let factors = self.kind.factors(plain, channels);
        match self.branch_factor(plain) {
            None => factors,
            Some(branch) => {
                let factors = factors.into_iter();
                factors.map(|channel| channel.times(branch)).collect()
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
        let branch = self.branch_factor(plain).unwrap_or(1.0);
        let [factors, offsets] = [factor_gradients, offset_gradients]
            .map(|values| values.iter().map(|value| value * branch).collect());
        self.kind.gradients(factors, offsets, plain, gradients)
    }

    fn branch_factor<B: Backend>(&self, plain: &Plain<'_, B>) -> Option<f64> {
        self.branch.map(|id| plain.values(id)[0].to_f64())
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
