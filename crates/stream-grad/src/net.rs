//! Networks, built layer by layer as in candle-nn.

use std::sync::Arc;

use candle_nn::VarBuilder;
use stream_grad_engine::{Layer, Model, Network, NetworkBuilder, ParameterValues, Provided};
use stream_grad_kernels::{CountIncludePad, Gelu, Pointwise};
use stream_grad_tiling::{AlignCorners, FrontPoint, SizedGraph};

use crate::branch::Branch;
use crate::local::{LocalLayer, LocalOperator};
use crate::parameter::{Parameter, Parameters, Registry};
use crate::plan::Plan;
use crate::{Conv2d, ConvTranspose2d, PlanRequest, Pool2d, Result};

/// Builds a network layer by layer; parameters come from a candle `VarBuilder`.
///
/// A parameter is trainable if it is a candle `Var`. Running statistics of norms are constants.
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::{VarBuilder, VarMap};
/// use stream_grad::{Conv2d, NetBuilder, Pool2d};
///
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let mut net = NetBuilder::new(3);
/// let x = net.conv2d(net.input(), Conv2d::new(3, 16, 3).padding(1), vb.pp("conv"))?;
/// let x = net.relu(x)?;
/// let x = net.max_pool2d(x, Pool2d::new(2))?;
/// let net = net.build(x)?;
/// assert_eq!(net.parameters().len(), 2);
/// # Ok::<(), stream_grad::StreamError>(())
/// ```
#[derive(Debug)]
pub struct NetBuilder {
    pub(crate) network: NetworkBuilder,
    /// Factors of branches included.
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) branches: Vec<Branch>,
}

impl NetBuilder {
    /// A network that reads images of `input_channels` channels.
    pub fn new(input_channels: usize) -> Self {
        Self {
            network: NetworkBuilder::new(input_channels),
            parameters: Vec::new(),
            branches: Vec::new(),
        }
    }

    /// The image.
    pub const fn input(&self) -> Layer {
        self.network.input()
    }

    /// Channels of a layer's output.
    ///
    /// # Errors
    /// [`StreamError::UnknownLayer`](crate::StreamError::UnknownLayer) for a layer of another builder.
    pub fn channels(&self, layer: Layer) -> Result<usize> {
        self.network.channels(layer)
    }

    /// A convolution: `weight` `[out, in / groups, kernel rows, kernel columns]` and, if asked for, `bias` `[out]`.
    ///
    /// # Errors
    /// Channels that do not fit, settings of zero, or a parameter that is missing or misshapen.
    pub fn conv2d(&mut self, x: Layer, config: Conv2d, vb: VarBuilder<'_>) -> Result<Layer> {
        let mut registry = Registry::new(&vb, &mut self.parameters);
        self.network.conv2d(x, config, &vb.prefix(), &mut registry)
    }

    /// A linear layer over the channels of each pixel, a 1x1 convolution with the parameters of PyTorch's `Linear`: `weight` `[out, in]`
    /// and `bias` `[out]`.
    ///
    /// # Errors
    /// No output channels, or a parameter that is missing or misshapen.
    pub fn linear(&mut self, x: Layer, out_channels: usize, vb: VarBuilder<'_>) -> Result<Layer> {
        let mut registry = Registry::new(&vb, &mut self.parameters);
        self.network
            .linear(x, out_channels, &vb.prefix(), &mut registry)
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
        vb: VarBuilder<'_>,
    ) -> Result<Layer> {
        let mut registry = Registry::new(&vb, &mut self.parameters);
        self.network
            .conv_transpose2d(x, config, &vb.prefix(), &mut registry)
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
        vb: VarBuilder<'_>,
    ) -> Result<Layer> {
        let mut registry = Registry::new(&vb, &mut self.parameters);
        self.network
            .frozen_batch_norm(x, epsilon, &vb.prefix(), &mut registry)
    }

    /// Layer norm over the channels of each pixel: `weight` and `bias` `[C]`. It is local, so it streams.
    ///
    /// # Errors
    /// A parameter that is missing or misshapen.
    pub fn layer_norm(&mut self, x: Layer, epsilon: f64, vb: VarBuilder<'_>) -> Result<Layer> {
        let mut registry = Registry::new(&vb, &mut self.parameters);
        self.network
            .layer_norm(x, epsilon, &vb.prefix(), &mut registry)
    }

    /// One trainable factor, `weight` `[1]`, times the input: the gain of a residual branch.
    ///
    /// # Errors
    /// A parameter that is missing or misshapen.
    pub fn scale(&mut self, x: Layer, initial: f64, vb: VarBuilder<'_>) -> Result<Layer> {
        let mut registry = Registry::new(&vb, &mut self.parameters);
        self.network.scale(x, initial, &vb.prefix(), &mut registry)
    }

    /// One trainable factor for each channel, the parameter `layer_scale` `[C, 1, 1]` of `vb` itself, times the input: that of
    /// ConvNeXt, with torchvision's name.
    ///
    /// # Errors
    /// A parameter that is missing or misshapen.
    pub fn layer_scale(&mut self, x: Layer, initial: f64, vb: VarBuilder<'_>) -> Result<Layer> {
        let mut registry = Registry::new(&vb, &mut self.parameters);
        self.network
            .layer_scale(x, initial, &vb.prefix(), &mut registry)
    }

    /// `max(x, 0)`, with derivative 0 at 0.
    ///
    /// # Errors
    /// [`StreamError::UnknownLayer`](crate::StreamError::UnknownLayer) for a layer of another builder.
    pub fn relu(&mut self, x: Layer) -> Result<Layer> {
        self.network.pointwise(x, Pointwise::Relu)
    }

    /// `min(max(x, 0), 6)`, with derivative 0 at 0 and 6.
    ///
    /// # Errors
    /// As for [`Self::relu`].
    pub fn relu6(&mut self, x: Layer) -> Result<Layer> {
        self.network.pointwise(x, Pointwise::Relu6)
    }

    /// `1 / (1 + exp(-x))`.
    ///
    /// # Errors
    /// As for [`Self::relu`].
    pub fn sigmoid(&mut self, x: Layer) -> Result<Layer> {
        self.network.pointwise(x, Pointwise::Sigmoid)
    }

    /// `x / (1 + exp(-x))`, which is Swish.
    ///
    /// # Errors
    /// As for [`Self::relu`].
    pub fn silu(&mut self, x: Layer) -> Result<Layer> {
        self.network.pointwise(x, Pointwise::Silu)
    }

    /// GELU, exact or by PyTorch's `tanh` approximation.
    ///
    /// # Errors
    /// As for [`Self::relu`].
    pub fn gelu(&mut self, x: Layer, form: Gelu) -> Result<Layer> {
        self.network.pointwise(x, Pointwise::Gelu(form))
    }

    /// The sum of two layers of the same size.
    ///
    /// # Errors
    /// Channels that differ. Sizes are checked when an image size is known, in [`Net::plan`].
    pub fn add(&mut self, a: Layer, b: Layer) -> Result<Layer> {
        self.network.add(a, b)
    }

    /// The product of two layers of the same size, value by value: a gate.
    ///
    /// # Errors
    /// As for [`Self::add`].
    pub fn multiply(&mut self, a: Layer, b: Layer) -> Result<Layer> {
        self.network.multiply(a, b)
    }

    /// Layers of the same size, one after another along the channels.
    ///
    /// # Errors
    /// No layers, or a layer of another builder.
    pub fn concat(&mut self, layers: &[Layer]) -> Result<Layer> {
        self.network.concat(layers)
    }

    /// Maximum pooling; padding counts as minus infinity, the first maximum in scan order takes the gradient.
    ///
    /// # Errors
    /// Settings of zero, or padding of a kernel's size and more, in which windows would hold no pixel.
    pub fn max_pool2d(&mut self, x: Layer, pool: Pool2d) -> Result<Layer> {
        self.network.max_pool2d(x, pool)
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
        self.network.avg_pool2d(x, pool, count_include_pad)
    }

    /// Nearest-neighbour upsampling by a whole factor.
    ///
    /// # Errors
    /// A factor of zero or above 65536.
    pub fn upsample_nearest(&mut self, x: Layer, factor: usize) -> Result<Layer> {
        self.network.upsample_nearest(x, factor)
    }

    /// Nearest-neighbour upsampling by a whole factor, of which no more rows and columns are computed than `like` has. Where `x` has a
    /// `factor`th of these, rounded up, it is PyTorch's `interpolate` to the size of `like`: so sides need not be multiples.
    ///
    /// # Errors
    /// A factor of zero or above 65536; [`StreamError::UnknownLayer`](crate::StreamError::UnknownLayer) for a layer of another builder.
    pub fn upsample_nearest_like(&mut self, x: Layer, factor: usize, like: Layer) -> Result<Layer> {
        self.network.upsample_nearest_like(x, factor, like)
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
        self.network.upsample_bilinear(x, factor, align_corners)
    }

    /// A layer of the user's own.
    ///
    /// # Errors
    /// [`StreamError::UnknownLayer`](crate::StreamError::UnknownLayer) for a layer of another builder.
    pub fn local(&mut self, x: Layer, layer: Arc<dyn LocalLayer>) -> Result<Layer> {
        let channels = layer.output_channels(self.channels(x)?);
        let parameters: Vec<Provided> = layer
            .parameters()
            .into_iter()
            .map(|(name, tensor)| Parameter::new(name, tensor).register(&mut self.parameters))
            .collect();
        let operator = Arc::new(LocalOperator(layer));
        self.network.custom(x, operator, channels, parameters)
    }

    /// The network whose features are those of `output`.
    ///
    /// # Errors
    /// [`StreamError::UnknownLayer`](crate::StreamError::UnknownLayer) for a layer of another builder.
    pub fn build(self, output: Layer) -> Result<Net> {
        self.build_named(vec![("features".into(), output)])
    }

    /// A network with several outputs (a feature pyramid, say), in the order given.
    ///
    /// # Errors
    /// No outputs, a layer of another builder, or one that is named twice.
    pub fn build_named(self, outputs: Vec<(String, Layer)>) -> Result<Net> {
        let is_factor = |one: &Parameter| {
            let mut branches = self.branches.iter();
            branches.any(|branch| branch.is(&one.tensor))
        };
        let named = self.parameters.iter().filter(|one| !is_factor(one));
        Ok(Net {
            named: named.cloned().collect(),
            branches: self.branches.into(),
            network: self.network.build(outputs)?,
            parameters: Parameters(self.parameters.into()),
        })
    }
}

/// A network that can be streamed, with its parameters.
#[derive(Debug, Clone)]
pub struct Net {
    network: Network,
    /// All that the network reads.
    parameters: Parameters,
    /// Those that are no factors of branches.
    named: Arc<[Parameter]>,
    pub(crate) branches: Arc<[Branch]>,
}

impl Net {
    /// Plans the streaming of images of one size.
    ///
    /// # Errors
    /// Every refusal happens here: an image that is too small, a budget below the minimum, cuts that cannot be.
    pub fn plan(&self, request: PlanRequest) -> Result<Plan> {
        Plan::new(self, request)
    }

    /// The recipes for images of one size that no other beats in both peak and compute ratio, by rising peak: what more memory
    /// would bring. The budget of the request, if any, limits them from above; tile, block, segments and stored nodes are as
    /// asked for.
    ///
    /// # Errors
    /// As for [`Net::plan`].
    ///
    /// ```
    /// use candle_core::{DType, Device};
    /// use candle_nn::{VarBuilder, VarMap};
    /// use stream_grad::{Conv2d, Maps, NetBuilder, PlanRequest};
    ///
    /// let variables = VarMap::new();
    /// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    /// let mut net = NetBuilder::new(3);
    /// let x = net.conv2d(net.input(), Conv2d::new(3, 8, 3), vb.pp("a"))?;
    /// let x = net.conv2d(x, Conv2d::new(8, 8, 3), vb.pp("b"))?;
    /// let request = PlanRequest::new(1000, 1000).features(Maps::Streamed);
    /// let front = net.build(x)?.front(&request)?;
    /// let peaks: Vec<u128> = front.iter().map(|point| point.peak.peak()).collect();
    /// assert!(peaks.is_sorted() && peaks[0] * 4 < peaks[peaks.len() - 1]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn front(&self, request: &PlanRequest) -> Result<Vec<FrontPoint>> {
        stream_grad_engine::front(&self.network, request)
    }

    /// All parameters in the order of the layers that read them, constants included.
    pub fn parameters(&self) -> &[Parameter] {
        &self.named
    }

    /// Those, and factors of branches, by the engine's numbers.
    pub(crate) fn all_parameters(&self) -> &[Parameter] {
        &self.parameters.0
    }

    /// Channels of the image.
    pub fn input_channels(&self) -> usize {
        self.network.input_channels()
    }

    /// Channels of each output, in the order of [`Net::output_names`]. Their sum is what a head on all of them takes.
    pub fn output_channels(&self) -> impl Iterator<Item = usize> {
        self.network.output_channels()
    }

    /// Names of the outputs.
    pub fn output_names(&self) -> impl Iterator<Item = &str> {
        self.network.output_names()
    }

    /// Names of the operations after fusing, in order; index 0 is the image. `Recipe::stored` refers to these.
    pub fn operation_names(&self) -> impl Iterator<Item = &str> {
        self.network.operation_names()
    }

    /// The graph of the network for images of `height` x `width` pixels, as the planner sees it.
    ///
    /// # Errors
    /// An image that is too small or too large, or inputs of a merge that differ in size.
    pub fn sized_graph(&self, height: u64, width: u64) -> Result<SizedGraph> {
        self.network.sized_graph(height, width)
    }

    /// Height and width of the first output for images of `height` x `width` pixels.
    ///
    /// # Errors
    /// As for [`Self::sized_graph`].
    pub fn output_extent(&self, height: u64, width: u64) -> Result<(u64, u64)> {
        self.network.output_extent(height, width)
    }

    /// The operation that gives the output of `layer`, as an index into [`Net::operation_names`]: the one of that name, or the last
    /// one of the module of that name; none if there is neither.
    ///
    /// A norm, a ReLU or an addition that was fused into a convolution has no output of its own: the convolution's is that after
    /// them. So `layer4` is what `torchvision`'s module of that name gives, while `layer4.1.conv2` is the same and not what stands
    /// before its norm.
    ///
    /// ```
    /// use candle_core::{DType, Device};
    /// use candle_nn::{VarBuilder, VarMap};
    /// use stream_grad::{Conv2d, NetBuilder};
    ///
    /// let variables = VarMap::new();
    /// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    /// let mut net = NetBuilder::new(3);
    /// let x = net.conv2d(net.input(), Conv2d::new(3, 8, 3), vb.pp("stem.conv"))?;
    /// let x = net.relu(x)?;
    /// let x = net.conv2d(x, Conv2d::new(8, 8, 3), vb.pp("body.0"))?;
    /// let x = net.conv2d(x, Conv2d::new(8, 8, 3), vb.pp("body.1"))?;
    /// let net = net.build(x)?;
    /// let found = ["image", "stem", "body", "body.0", "bod"].map(|layer| net.operation_of(layer));
    /// assert_eq!(found, [Some(0), Some(1), Some(3), Some(2), None]);
    /// # Ok::<(), stream_grad::StreamError>(())
    /// ```
    pub fn operation_of(&self, layer: &str) -> Option<usize> {
        self.network.operation_of(layer)
    }

    /// Whether the features are the output of `layer`, and nothing else: there is no further output.
    pub fn is_only_output(&self, layer: &str) -> bool {
        self.network.is_only_output(layer)
    }

    /// The network whose features are the output of [`layer`](Self::operation_of), with the same parameters.
    ///
    /// # Errors
    /// [`StreamError::Setting`](crate::StreamError::Setting) if there is no such layer.
    pub fn up_to(&self, layer: &str) -> Result<Self> {
        Ok(Self {
            network: self.network.up_to(layer)?,
            ..self.clone()
        })
    }
}

/// The engine's view of it.
impl Model for Net {
    fn network(&self) -> &Network {
        &self.network
    }

    fn values(&self) -> &dyn ParameterValues {
        &self.parameters
    }
}
