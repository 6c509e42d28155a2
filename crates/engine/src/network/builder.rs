//! Building networks layer by layer.

mod parameters;

use std::sync::Arc;

use stream_grad_kernels::{
    Activation, AveragePool, CountIncludePad, Interpolation, KernelError, Pointwise,
};
use stream_grad_tiling::AlignCorners;

use super::fuse::fuse;
use super::{Network, Node};
use crate::backend::Pooling;
use crate::channel_map::{ChannelMap, ChannelMapKind};
use crate::error::{Result, StreamError};
use crate::layers::{Conv2d, ConvTranspose2d, Pool2d};
use crate::operators::{
    Add, Affine, AnyOperator, Concat, Convolution, Custom, CustomOperator, Image, LayerNorm,
    Multiply, PointwiseOperator, Pool, TransposedConvolution, Upsample,
};
use crate::parameter::{ParameterId, ParameterShape};
use parameters::LayerParameters;

pub use parameters::{Initial, ParameterProvider, ParameterRequest, Provided};

/// A layer of a [`NetworkBuilder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer(usize);

/// Builds a [`Network`] layer by layer.
#[derive(Debug, Clone)]
pub struct NetworkBuilder {
    layers: Vec<Node>,
    parameters: Vec<ParameterShape>,
}

impl NetworkBuilder {
    /// A network that reads images of `input_channels` channels.
    #[must_use]
    pub fn new(input_channels: usize) -> Self {
        Self {
            layers: vec![Node {
                name: "image".into(),
                inputs: Vec::new(),
                channels: input_channels,
                operator: Image.into(),
                crop: None,
            }],
            parameters: Vec::new(),
        }
    }

    /// The image.
    #[must_use]
    pub const fn input(&self) -> Layer {
        Layer(0)
    }

    /// Channels of a layer's output.
    ///
    /// # Errors
    /// [`StreamError::UnknownLayer`] for a layer of another builder.
    pub fn channels(&self, layer: Layer) -> Result<usize> {
        self.layers
            .get(layer.0)
            .map(|node| node.channels)
            .ok_or(StreamError::UnknownLayer {
                found: layer.0,
                layers: self.layers.len(),
            })
    }

    /// A convolution: `weight` `[out, in / groups, kernel rows, kernel columns]` and, if asked for, `bias` `[out]`. The layer is
    /// named `name`, or after its kind and place if that is empty; likewise for all layers with parameters.
    ///
    /// # Errors
    /// Channels that do not fit, settings of zero, or a parameter that is missing or misshapen.
    pub fn conv2d(
        &mut self,
        x: Layer,
        config: Conv2d,
        name: &str,
        provider: &mut dyn ParameterProvider,
    ) -> Result<Layer> {
        let name = self.layer_name("conv", name);
        self.expect_channels(&name, x, config.in_channels)?;
        let shape = config.shape();
        shape.weight_count().map_err(refused(&name))?;
        let dimensions = [
            config.out_channels,
            config.in_channels / config.groups,
            config.kernel[0],
            config.kernel[1],
        ];
        let mut own = self.parameters_of(&name, provider);
        let weight = own.trainable("weight", &dimensions, Initial::KaimingNormal)?;
        let bias = config.bias.then(|| own.bias(config.out_channels));
        let bias = bias.transpose()?;
        let operator = Convolution {
            shape,
            weight,
            bias,
            folded: None,
            activation: Activation::Identity,
        };
        self.push(name, &[x], config.out_channels, operator)
    }

    /// A linear layer over the channels of each pixel, a 1x1 convolution with the parameters of PyTorch's `Linear`: `weight` `[out, in]`
    /// and `bias` `[out]`.
    ///
    /// # Errors
    /// No output channels, or a parameter that is missing or misshapen.
    pub fn linear(
        &mut self,
        x: Layer,
        out_channels: usize,
        name: &str,
        provider: &mut dyn ParameterProvider,
    ) -> Result<Layer> {
        let in_channels = self.channels(x)?;
        let name = self.layer_name("linear", name);
        let shape = Conv2d::new(in_channels, out_channels, 1).shape();
        shape.weight_count().map_err(refused(&name))?;
        let mut own = self.parameters_of(&name, provider);
        let dimensions = [out_channels, in_channels];
        let operator = Convolution {
            shape,
            weight: own.trainable("weight", &dimensions, Initial::KaimingNormal)?,
            bias: Some(own.bias(out_channels)?),
            folded: None,
            activation: Activation::Identity,
        };
        self.push(name, &[x], out_channels, operator)
    }

    /// A transposed convolution: `weight` `[in, out / groups, kernel rows, kernel columns]` and, if asked for, `bias` `[out]`.
    ///
    /// # Errors
    /// Channels that do not fit, settings of zero, padding of the output of a stride's and a dilation's size and more, or a
    /// parameter that is missing or misshapen.
    pub fn conv_transpose2d(
        &mut self,
        x: Layer,
        config: ConvTranspose2d,
        name: &str,
        provider: &mut dyn ParameterProvider,
    ) -> Result<Layer> {
        let name = self.layer_name("conv_transpose", name);
        self.expect_channels(&name, x, config.in_channels)?;
        let shape = config.shape();
        shape.weight_count().map_err(refused(&name))?;
        for axis in 0..2 {
            let (more, stride) = (config.output_padding[axis], config.stride[axis]);
            if more >= stride.max(config.dilation[axis]) {
                return Err(StreamError::Setting {
                    layer: name,
                    setting: "output padding",
                    found: format!("{more} for a stride of {stride}"),
                    expected: "less than the stride or the dilation",
                });
            }
        }
        let dimensions = [
            config.in_channels,
            config.out_channels / config.groups,
            config.kernel[0],
            config.kernel[1],
        ];
        let mut own = self.parameters_of(&name, provider);
        let weight = own.trainable("weight", &dimensions, Initial::KaimingNormal)?;
        let bias = config.bias.then(|| own.bias(config.out_channels));
        let bias = bias.transpose()?;
        let operator = TransposedConvolution {
            shape,
            output_padding: config.output_padding,
            weight,
            bias,
        };
        self.push(name, &[x], config.out_channels, operator)
    }

    /// Batch norm with frozen running statistics: `weight` and `bias` are trainable, `running_mean` and `running_var`
    /// are constants; all `[C]`.
    ///
    /// # Errors
    /// A parameter that is missing or misshapen.
    pub fn frozen_batch_norm(
        &mut self,
        x: Layer,
        epsilon: f64,
        name: &str,
        provider: &mut dyn ParameterProvider,
    ) -> Result<Layer> {
        let channels = self.channels(x)?;
        let name = self.layer_name("frozen_batch_norm", name);
        expect_epsilon(&name, epsilon)?;
        let mut own = self.parameters_of(&name, provider);
        let (zero, one) = (Initial::Constant(0.0), Initial::Constant(1.0));
        let map = ChannelMap::of(ChannelMapKind::FrozenNorm {
            weight: own.trainable("weight", &[channels], one)?,
            bias: own.bias(channels)?,
            mean: own.constant("running_mean", &[channels], zero)?,
            variance: own.constant("running_var", &[channels], one)?,
            epsilon,
        });
        let activation = Activation::Identity;
        self.push(name, &[x], channels, Affine { map, activation })
    }

    /// Layer norm over the channels of each pixel: `weight` and `bias` `[C]`. It is local, so it streams.
    ///
    /// # Errors
    /// A parameter that is missing or misshapen.
    pub fn layer_norm(
        &mut self,
        x: Layer,
        epsilon: f64,
        name: &str,
        provider: &mut dyn ParameterProvider,
    ) -> Result<Layer> {
        let channels = self.channels(x)?;
        let name = self.layer_name("layer_norm", name);
        expect_epsilon(&name, epsilon)?;
        let mut own = self.parameters_of(&name, provider);
        let operator = LayerNorm {
            weight: own.trainable("weight", &[channels], Initial::Constant(1.0))?,
            bias: own.bias(channels)?,
            epsilon,
            activation: Activation::Identity,
        };
        self.push(name, &[x], channels, operator)
    }

    /// One trainable factor, `weight` `[1]`, times the input: the gain of a residual branch.
    ///
    /// # Errors
    /// A parameter that is missing or misshapen.
    pub fn scale(
        &mut self,
        x: Layer,
        initial: f64,
        name: &str,
        provider: &mut dyn ParameterProvider,
    ) -> Result<Layer> {
        let channels = self.channels(x)?;
        let name = self.layer_name("scale", name);
        let mut own = self.parameters_of(&name, provider);
        let map = ChannelMap::of(ChannelMapKind::Scale {
            factor: own.trainable("weight", &[1], Initial::Constant(initial))?,
        });
        let activation = Activation::Identity;
        self.push(name, &[x], channels, Affine { map, activation })
    }

    /// One trainable factor for each channel, the parameter `layer_scale` `[C, 1, 1]`, times the input: that of ConvNeXt, with
    /// torchvision's name.
    ///
    /// # Errors
    /// A parameter that is missing or misshapen.
    pub fn layer_scale(
        &mut self,
        x: Layer,
        initial: f64,
        name: &str,
        provider: &mut dyn ParameterProvider,
    ) -> Result<Layer> {
        let channels = self.channels(x)?;
        let name = self.layer_name("layer_scale", name);
        let mut own = self.parameters_of(&name, provider);
        let initial = Initial::Constant(initial);
        let map = ChannelMap::of(ChannelMapKind::LayerScale {
            factors: own.trainable("layer_scale", &[channels, 1, 1], initial)?,
        });
        let activation = Activation::Identity;
        self.push(name, &[x], channels, Affine { map, activation })
    }

    /// A residual branch that some steps of a training do without: times the constant `factor` `[1]`, which is read anew in each forward
    /// sweep. It is 1 to begin with; a training sets it to 0, or to what makes up for the steps in which it is 0.
    ///
    /// # Errors
    /// As for [`Self::scale`].
    pub fn stochastic_depth(
        &mut self,
        x: Layer,
        name: &str,
        provider: &mut dyn ParameterProvider,
    ) -> Result<Layer> {
        let channels = self.channels(x)?;
        let name = self.layer_name("stochastic_depth", name);
        let mut own = self.parameters_of(&name, provider);
        let map = ChannelMap {
            kind: ChannelMapKind::Identity,
            branch: Some(own.constant("factor", &[1], Initial::Constant(1.0))?),
        };
        let activation = Activation::Identity;
        self.push(name, &[x], channels, Affine { map, activation })
    }

    /// A function of each value.
    ///
    /// # Errors
    /// [`StreamError::UnknownLayer`] for a layer of another builder.
    pub fn pointwise(&mut self, x: Layer, function: Pointwise) -> Result<Layer> {
        let operator = PointwiseOperator(function);
        self.unary(operator.name(), x, operator)
    }

    /// The sum of two layers of the same size.
    ///
    /// # Errors
    /// Channels that differ. Sizes are checked when an image size is known, in planning.
    pub fn add(&mut self, a: Layer, b: Layer) -> Result<Layer> {
        let channels = self.channels(a)?;
        let name = format!("add{}", self.layers.len());
        self.expect_channels(&name, b, channels)?;
        let activation = Activation::Identity;
        self.push(name, &[a, b], channels, Add { activation })
    }

    /// The product of two layers of the same size, value by value: a gate.
    ///
    /// # Errors
    /// Channels that differ. Sizes are checked when an image size is known, in planning.
    pub fn multiply(&mut self, a: Layer, b: Layer) -> Result<Layer> {
        let channels = self.channels(a)?;
        let name = format!("multiply{}", self.layers.len());
        self.expect_channels(&name, b, channels)?;
        self.push(name, &[a, b], channels, Multiply)
    }

    /// Layers of the same size, one after another along the channels.
    ///
    /// # Errors
    /// No layers, or a layer of another builder.
    pub fn concat(&mut self, layers: &[Layer]) -> Result<Layer> {
        let name = format!("concat{}", self.layers.len());
        if layers.is_empty() {
            return Err(StreamError::Setting {
                layer: name,
                setting: "number of inputs",
                found: "0".into(),
                expected: "at least 1",
            });
        }
        let mut channels = 0;
        for &layer in layers {
            channels += self.channels(layer)?;
        }
        self.push(name, layers, channels, Concat)
    }

    /// Maximum pooling; padding counts as minus infinity, the first maximum in scan order takes the gradient.
    ///
    /// # Errors
    /// Settings of zero, or padding of a kernel's size and more, in which windows would hold no pixel.
    pub fn max_pool2d(&mut self, x: Layer, pool: Pool2d) -> Result<Layer> {
        self.pool("max_pool", x, pool, Pooling::Maximum(pool.window()))
    }

    /// Average pooling; `count_include_pad` says whether padding counts in what sums are divided by.
    ///
    /// # Errors
    /// As for [`Self::max_pool2d`].
    pub fn avg_pool2d(
        &mut self,
        x: Layer,
        pool: Pool2d,
        count_include_pad: CountIncludePad,
    ) -> Result<Layer> {
        let average = AveragePool::new(pool.window(), count_include_pad);
        self.pool("avg_pool", x, pool, Pooling::Average(average))
    }

    /// Nearest-neighbour upsampling by a whole factor.
    ///
    /// # Errors
    /// A factor of zero or above 65536.
    pub fn upsample_nearest(&mut self, x: Layer, factor: usize) -> Result<Layer> {
        self.upsample("upsample_nearest", x, factor, Interpolation::Nearest)
    }

    /// Nearest-neighbour upsampling by a whole factor, of which no more rows and columns are computed than `like` has. Where `x` has a
    /// `factor`th of these, rounded up, it is PyTorch's `interpolate` to the size of `like`.
    ///
    /// # Errors
    /// As for [`Self::upsample_nearest`]; [`StreamError::UnknownLayer`] for a layer of another builder.
    pub fn upsample_nearest_like(&mut self, x: Layer, factor: usize, like: Layer) -> Result<Layer> {
        self.channels(like)?;
        let layer = self.upsample_nearest(x, factor)?;
        if let Some(upsampled) = self.layers.get_mut(layer.0) {
            upsampled.crop = Some(like.0);
        }
        Ok(layer)
    }

    /// Bilinear upsampling by a whole factor.
    ///
    /// # Errors
    /// A factor of zero or above 65536.
    pub fn upsample_bilinear(
        &mut self,
        x: Layer,
        factor: usize,
        align_corners: AlignCorners,
    ) -> Result<Layer> {
        let interpolation = Interpolation::Bilinear(align_corners);
        self.upsample("upsample_bilinear", x, factor, interpolation)
    }

    /// An operator of the caller's own with `channels` output channels, and the parameters that it reads.
    ///
    /// # Errors
    /// [`StreamError::UnknownLayer`] for a layer of another builder.
    pub fn custom(
        &mut self,
        x: Layer,
        operator: Arc<dyn CustomOperator>,
        channels: usize,
        parameters: Vec<Provided>,
    ) -> Result<Layer> {
        self.channels(x)?;
        let parameters = parameters.into_iter();
        let parameters = parameters.map(|one| self.register(one)).collect();
        let name = operator.name();
        let operator = Custom {
            operator,
            parameters,
        };
        self.push(name, &[x], channels, operator)
    }

    /// A network with these outputs, in the order given.
    ///
    /// # Errors
    /// No outputs, a layer of another builder, or one that is named twice.
    pub fn build(self, outputs: Vec<(String, Layer)>) -> Result<Network> {
        let mut positions = Vec::with_capacity(outputs.len());
        for (name, layer) in &outputs {
            self.channels(*layer)?;
            if positions.contains(&layer.0) {
                // The cotangents of both would have to be added.
                return Err(StreamError::Setting {
                    layer: name.clone(),
                    setting: "output",
                    found: format!("{}, which is an output already", self.layers[layer.0].name),
                    expected: "a layer of its own",
                });
            }
            positions.push(layer.0);
        }
        let (nodes, place) = fuse(self.layers, &positions);
        let outputs = outputs
            .into_iter()
            .map(|(name, layer)| (name, place[layer.0]))
            .collect();
        Network::new(nodes, self.parameters, outputs)
    }

    fn pool(&mut self, name: &str, x: Layer, pool: Pool2d, pooling: Pooling) -> Result<Layer> {
        let name = format!("{name}{}", self.layers.len());
        let sides = [
            (pool.padding.top.max(pool.padding.bottom), pool.kernel[0]),
            (pool.padding.left.max(pool.padding.right), pool.kernel[1]),
        ];
        for (padding, kernel) in sides {
            if padding >= kernel {
                return Err(StreamError::Setting {
                    layer: name,
                    setting: "padding",
                    found: format!("{padding} for a kernel of {kernel}"),
                    expected: "less than the kernel",
                });
            }
        }
        let operator = Pool {
            pooling,
            ceil_mode: pool.ceil_mode,
        };
        let channels = self.channels(x)?;
        self.push(name, &[x], channels, operator)
    }

    fn upsample(
        &mut self,
        name: &str,
        x: Layer,
        factor: usize,
        interpolation: Interpolation,
    ) -> Result<Layer> {
        if !(1..=1 << 16).contains(&factor) {
            return Err(StreamError::Setting {
                layer: format!("{name}{}", self.layers.len()),
                setting: "upsampling factor",
                found: factor.to_string(),
                expected: "a whole number from 1 to 65536",
            });
        }
        let upsample = Upsample {
            factor,
            interpolation,
        };
        self.unary(name, x, upsample)
    }

    fn unary(&mut self, name: &str, x: Layer, operator: impl Into<AnyOperator>) -> Result<Layer> {
        let channels = self.channels(x)?;
        let name = format!("{name}{}", self.layers.len());
        self.push(name, &[x], channels, operator)
    }

    fn push(
        &mut self,
        name: String,
        inputs: &[Layer],
        channels: usize,
        operator: impl Into<AnyOperator>,
    ) -> Result<Layer> {
        self.layers.push(Node {
            name,
            inputs: inputs.iter().map(|layer| layer.0).collect(),
            channels,
            operator: operator.into(),
            crop: None,
        });
        Ok(Layer(self.layers.len() - 1))
    }

    fn layer_name(&self, kind: &str, name: &str) -> String {
        if name.is_empty() {
            format!("{kind}{}", self.layers.len())
        } else {
            name.to_owned()
        }
    }

    fn expect_channels(&self, layer: &str, x: Layer, expected: usize) -> Result<()> {
        let found = self.channels(x)?;
        if found == expected {
            return Ok(());
        }
        Err(StreamError::Channels {
            layer: layer.to_owned(),
            expected,
            found,
        })
    }

    fn parameters_of<'b>(
        &'b mut self,
        layer: &'b str,
        provider: &'b mut dyn ParameterProvider,
    ) -> LayerParameters<'b> {
        LayerParameters {
            builder: self,
            layer,
            provider,
        }
    }

    fn register(&mut self, provided: Provided) -> ParameterId {
        match provided {
            Provided::Known(id) => id,
            Provided::New(parameter) => {
                self.parameters.push(parameter);
                ParameterId(self.parameters.len() - 1)
            }
        }
    }
}

/// Turns a kernel's refusal of a layer's shape into this crate's error.
fn refused(layer: &str) -> impl Fn(KernelError) -> StreamError {
    move |source| StreamError::Kernel {
        layer: layer.to_owned(),
        source,
    }
}

fn expect_epsilon(layer: &str, epsilon: f64) -> Result<()> {
    if epsilon.is_finite() && epsilon >= 0.0 {
        return Ok(());
    }
    Err(StreamError::Setting {
        layer: layer.to_owned(),
        setting: "epsilon",
        found: epsilon.to_string(),
        expected: "a finite number of at least 0",
    })
}
