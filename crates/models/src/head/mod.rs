//! Heads: global pooling, standardisation and a linear layer on features that are held whole.

mod reduce;
mod statistics;

use candle_core::{DType, Module, Tensor};
use candle_nn::{Linear, VarBuilder};

use crate::error::{ModelError, Result, check_range};
use crate::initialise::uniform_of;
pub(crate) use reduce::maximum_rows;
use reduce::mean_rows;
use statistics::RunningStatistics;

/// What becomes of one channel's values over all positions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GlobalPooling {
    /// Their mean.
    Average,
    /// Their maximum; the first one in scan order takes the gradient, as in PyTorch's adaptive pooling.
    Maximum,
    /// Generalised mean, `(mean(x^exponent) + epsilon)^(1/exponent)`, for features of at least 0 (Radenović, Tolias,
    /// Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI 2019, equation 3).
    GeneralisedMean {
        /// A finite number of at least 1.
        exponent: f64,
        /// Keeps the derivative finite where all features are 0; more than 0.
        epsilon: f64,
    },
}

impl GlobalPooling {
    /// The generalised mean with exponent 4 and epsilon 1e-6.
    pub const GEM_4: Self = Self::GeneralisedMean {
        exponent: 4.0,
        epsilon: 1e-6,
    };

    fn check(self) -> Result<()> {
        let Self::GeneralisedMean { exponent, epsilon } = self else {
            return Ok(());
        };
        let setting = |setting, expected, found: f64| {
            Err(ModelError::Setting {
                setting,
                expected,
                found: found.to_string(),
            })
        };
        if !(exponent.is_finite() && exponent >= 1.0) {
            return setting(
                "generalised mean's exponent",
                "a finite number of at least 1",
                exponent,
            );
        }
        if !(epsilon.is_finite() && epsilon > 0.0) {
            return setting(
                "generalised mean's epsilon",
                "a finite number above 0",
                epsilon,
            );
        }
        Ok(())
    }

    /// `[rows, positions]` to `[rows]`.
    fn apply(self, rows: &Tensor) -> Result<Tensor> {
        match self {
            Self::Average => mean_rows(rows),
            Self::Maximum => maximum_rows(rows),
            Self::GeneralisedMean { exponent, epsilon } => {
                let mean = mean_rows(&rows.powf(exponent)?)?;
                Ok((mean + epsilon)?.powf(1.0 / exponent)?)
            }
        }
    }
}

/// Whether pooled features are standardised before the linear layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Standardisation {
    /// They are not.
    None,
    /// By running statistics that are constants to the gradient: `(x - mean) / sqrt(variance + epsilon)`.
    ///
    /// Update k (from 0) moves mean and variance by `max(momentum, 1 / (k + 1))` of the way to the new group's.
    Running {
        /// The least weight of a new group, in (0, 1].
        momentum: f64,
        /// Added to the variance; more than 0.
        epsilon: f64,
    },
}

impl Standardisation {
    /// Running statistics with a least weight of 0.05 and epsilon 1e-5.
    pub const RUNNING: Self = Self::Running {
        momentum: 0.05,
        epsilon: 1e-5,
    };
}

/// Settings of a [`Head`].
#[derive(Debug, Clone, PartialEq)]
pub struct HeadConfig {
    /// Poolings, whose results are put one after another.
    pub pooling: Vec<GlobalPooling>,
    /// What is done to them before the linear layer.
    pub standardisation: Standardisation,
}

impl HeadConfig {
    /// Poolings without standardisation.
    pub const fn new(pooling: Vec<GlobalPooling>) -> Self {
        Self {
            pooling,
            standardisation: Standardisation::None,
        }
    }

    /// Adds a standardisation.
    #[must_use]
    pub const fn standardised(mut self, standardisation: Standardisation) -> Self {
        self.standardisation = standardisation;
        self
    }
}

/// Whether [`Head::forward`] learns running statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Statistics are updated with the batch, then used.
    Train,
    /// Statistics are used as they are.
    Eval,
}

/// Global pooling, standardisation and a linear layer.
///
/// Parameters: `fc.weight` `[out, P]` and `fc.bias` `[out]`, where `P` is the number of poolings times the channels;
/// with running statistics also `running_mean` `[P]`, `running_var` `[P]` and `updates` `[1]`. They come from the
/// `VarBuilder`, so a saved `VarMap` holds them all; the statistics never receive a gradient.
///
/// # Batches by accumulation
/// Large images go through one at a time, so the statistics of a batch are not known when its first image is
/// backpropagated. The rule is then: **a group is standardised by the statistics from before it, which are updated with
/// the group afterwards**. The first group of a run has none, so it is swept once without a backward:
///
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # use candle_nn::VarMap;
/// # use stream_grad_models::{GlobalPooling, Head, HeadConfig, Standardisation, seeded};
/// # let variables = VarMap::new();
/// # let vb = seeded(&variables, 1, DType::F32, &Device::Cpu);
/// # let features = |_: usize| Tensor::rand(0_f32, 1.0, (1, 3, 4, 4), &Device::Cpu);
/// # let (images, config) = (0..4, HeadConfig::new(vec![GlobalPooling::Average]).standardised(Standardisation::RUNNING));
/// let head = Head::new(&config, 3, 1, vb)?;
/// if head.needs_statistics()? {
///     let pooled = images.clone().map(|image| head.pooled(&features(image)?)).collect::<Result<Vec<_>, _>>()?;
///     head.update_statistics(&pooled)?;
/// }
/// let mut group = Vec::new();
/// for image in images {
///     let pooled = head.pooled(&features(image)?)?;
///     let logits = head.logits(&pooled)?; // loss and backward follow
///     group.push(pooled.detach());
/// }
/// head.update_statistics(&group)?;
/// # Ok::<(), stream_grad_models::ModelError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Head {
    pooling: Vec<GlobalPooling>,
    channels: usize,
    statistics: Option<RunningStatistics>,
    linear: Linear,
}

impl Head {
    /// Builds a head for features of `in_channels` channels: of all outputs together where a network has several, the sum of
    /// [`Net::output_channels`](stream_grad::Net::output_channels).
    ///
    /// # Errors
    /// No pooling, sizes of zero, settings out of range, or a parameter that is missing or misshapen.
    pub fn new(
        config: &HeadConfig,
        in_channels: usize,
        out_features: usize,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        let sizes = 1..=1 << 24;
        check_range(
            "head's poolings",
            config.pooling.len(),
            1..=1024,
            "1 to 1024",
        )?;
        check_range(
            "head's input channels",
            in_channels,
            sizes.clone(),
            "1 to 2^24",
        )?;
        check_range("head's outputs", out_features, sizes, "1 to 2^24")?;
        for pooling in &config.pooling {
            pooling.check()?;
        }
        let inputs = config.pooling.len() * in_channels;
        let statistics = match config.standardisation {
            Standardisation::None => None,
            Standardisation::Running { momentum, epsilon } => {
                Some(RunningStatistics::new(inputs, momentum, epsilon, &vb)?)
            }
        };
        Ok(Self {
            pooling: config.pooling.clone(),
            channels: in_channels,
            statistics,
            linear: uniform_linear(inputs, out_features, &vb.pp("fc"))?,
        })
    }

    /// Inputs of the linear layer: poolings times channels.
    pub fn inputs(&self) -> usize {
        self.pooling.len() * self.channels
    }

    /// Logits `[N, out]` of features `[N, C, H, W]`. In [`Mode::Train`] the statistics are updated with this batch
    /// first; by accumulation use [`Self::pooled`], [`Self::logits`] and [`Self::update_statistics`].
    ///
    /// # Errors
    /// Features of another shape or dtype; statistics that are not variables, in [`Mode::Train`].
    pub fn forward(&self, features: &Tensor, mode: Mode) -> Result<Tensor> {
        let pooled = self.pooled(features)?;
        if mode == Mode::Train {
            self.update_statistics(std::slice::from_ref(&pooled))?;
        }
        self.logits(&pooled)
    }

    /// Pooled features `[N, P]` of features `[N, C, H, W]`: all channels of the first pooling, then of the next.
    ///
    /// # Errors
    /// Features of another shape, without pixels, or of a dtype other than `F32` and `F64`.
    pub fn pooled(&self, features: &Tensor) -> Result<Tensor> {
        self.pooled_all(std::slice::from_ref(features))
    }

    /// Pooled features `[N, P]` of several outputs `[N, C, H, W]`, such as the levels of a feature pyramid, whose channels are together
    /// those of the head: all channels of the first pooling, output by output, then of the next.
    ///
    /// # Errors
    /// As for [`Self::pooled`], and outputs whose channels are together others.
    pub fn pooled_all(&self, outputs: &[Tensor]) -> Result<Tensor> {
        let channels = outputs.iter().map(|one| *one.dims().get(1).unwrap_or(&0));
        let whole = channels.clone().sum::<usize>() == self.channels;
        if !whole && outputs.len() != 1 {
            return Err(ModelError::OutputChannels {
                expected: self.channels,
                found: channels.collect(),
            });
        }
        let mut rows = Vec::with_capacity(outputs.len());
        for features in outputs {
            let shape = <[usize; 4]>::try_from(features.dims()).ok();
            let fits = |shape: &[usize; 4]| whole && !shape.contains(&0);
            let Some([batch, channels, height, width]) = shape.filter(fits) else {
                return Err(ModelError::InputShape {
                    what: "features",
                    expected: format!("[N >= 1, {}, H >= 1, W >= 1]", self.channels),
                    found: features.dims().to_vec(),
                });
            };
            if !matches!(features.dtype(), DType::F32 | DType::F64) {
                return Err(ModelError::InputType {
                    found: features.dtype(),
                });
            }
            let values = features.reshape((batch * channels, height * width))?;
            rows.push(((batch, channels), values));
        }
        let mut pooled = Vec::with_capacity(self.pooling.len() * rows.len());
        for pooling in &self.pooling {
            for (shape, rows) in &rows {
                pooled.push(pooling.apply(rows)?.reshape(*shape)?);
            }
        }
        Ok(Tensor::cat(&pooled, 1)?)
    }

    /// Logits `[N, out]` of pooled features `[N, P]`, with the statistics as they are.
    ///
    /// # Errors
    /// Pooled features of another shape.
    pub fn logits(&self, pooled: &Tensor) -> Result<Tensor> {
        self.check_pooled(pooled)?;
        Ok(match &self.statistics {
            None => self.linear.forward(pooled)?,
            Some(statistics) => self.linear.forward(&statistics.standardise(pooled)?)?,
        })
    }

    /// Updates the running statistics with a group of pooled features, each `[N, P]`, all rows alike; the head's values
    /// change, no gradient is involved. A row with a value that is not finite is left out. Returns how many rows counted;
    /// if none did, or the head has no statistics, nothing changes and the result is 0.
    ///
    /// # Errors
    /// Pooled features of another shape, or statistics that are not variables.
    pub fn update_statistics(&self, group: &[Tensor]) -> Result<usize> {
        for pooled in group {
            self.check_pooled(pooled)?;
        }
        self.statistics
            .as_ref()
            .map_or(Ok(0), |statistics| statistics.update(group))
    }

    /// Whether the head standardises and its statistics have never been updated.
    ///
    /// # Errors
    /// A tensor that candle cannot read.
    pub fn needs_statistics(&self) -> Result<bool> {
        self.statistics
            .as_ref()
            .map_or(Ok(false), |statistics| Ok(statistics.updates()? == 0.0))
    }

    fn check_pooled(&self, pooled: &Tensor) -> Result<()> {
        match pooled.dims() {
            [rows, inputs] if *rows > 0 && *inputs == self.inputs() => Ok(()),
            found => Err(ModelError::InputShape {
                what: "pooled features",
                expected: format!("[N >= 1, {}]", self.inputs()),
                found: found.to_vec(),
            }),
        }
    }
}

/// A linear layer with PyTorch's initial values: weights and bias uniform within `1 / sqrt(inputs)`.
pub(crate) fn uniform_linear(inputs: usize, outputs: usize, vb: &VarBuilder<'_>) -> Result<Linear> {
    let init = uniform_of(inputs);
    let weight = vb.get_with_hints((outputs, inputs), "weight", init)?;
    let bias = vb.get_with_hints(outputs, "bias", init)?;
    Ok(Linear::new(weight, Some(bias)))
}

#[cfg(test)]
mod tests;
