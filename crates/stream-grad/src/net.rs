//! Networks, built layer by layer as in candle-nn.

use std::sync::Arc;

use candle_nn::VarBuilder;
use candle_nn::init::{DEFAULT_KAIMING_NORMAL, Init};
use stream_grad_kernels::{Activation, Arithmetic, Divisor, Gelu};
use stream_grad_tiling::{Axis, Corners, FrontPoint, Graph, NodeId, PerAxis, SizedGraph};

use crate::error::{Result, StreamError};
use crate::fuse::fuse;
use crate::layers::{Conv2d, Pool2d};
use crate::local::LocalLayer;
use crate::operation::{
    ChannelMap, ConvolutionOperation, Kind, Operation, Pooling, trainable_flags,
};
use crate::parameter::{Parameter, ParameterList};
use crate::plan::Plan;
use crate::planning;
use crate::request::{InputGradient, PlanRequest, Trainable};

/// A layer of a [`NetBuilder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer(usize);

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
    layers: Vec<Operation>,
    parameters: ParameterList,
}

impl NetBuilder {
    /// A network that reads images of `input_channels` channels.
    pub fn new(input_channels: usize) -> Self {
        Self {
            layers: vec![Operation {
                name: "image".into(),
                inputs: Vec::new(),
                channels: input_channels,
                kind: Kind::Image,
            }],
            parameters: ParameterList::default(),
        }
    }

    /// The image.
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
            .map(|operation| operation.channels)
            .ok_or(StreamError::UnknownLayer {
                found: layer.0,
                layers: self.layers.len(),
            })
    }

    /// A convolution: `weight` `[out, in / groups, kernel rows, kernel columns]` and, if asked for, `bias` `[out]`.
    ///
    /// # Errors
    /// Channels that do not fit, settings of zero, or a parameter that is missing or misshapen.
    pub fn conv2d(&mut self, x: Layer, config: Conv2d, vb: VarBuilder<'_>) -> Result<Layer> {
        let name = layer_name("conv", &vb, self.layers.len());
        self.expect_channels(&name, x, config.in_channels)?;
        let shape = config.shape();
        shape.weight_count().map_err(|source| StreamError::Kernel {
            layer: name.clone(),
            source,
        })?;
        let dimensions = [
            config.out_channels,
            config.in_channels / config.groups,
            config.kernel[0],
            config.kernel[1],
        ];
        let weight =
            self.parameters
                .trainable(&vb, "weight", &dimensions, DEFAULT_KAIMING_NORMAL)?;
        let bias = if config.bias {
            Some(self.parameters.trainable(
                &vb,
                "bias",
                &[config.out_channels],
                candle_nn::init::ZERO,
            )?)
        } else {
            None
        };
        let kind = Kind::Convolution(ConvolutionOperation {
            shape,
            padding: config.padding,
            weight,
            bias,
            folded: None,
            activation: Activation::Identity,
        });
        self.push(name, &[x], config.out_channels, kind)
    }

    /// Batch norm with frozen running statistics: `weight` and `bias` are trainable, `running_mean` and `running_var`
    /// are constants; all `[C]`.
    ///
    /// # Errors
    /// A parameter that is missing or misshapen.
    pub fn batch_norm(&mut self, x: Layer, epsilon: f64, vb: VarBuilder<'_>) -> Result<Layer> {
        let channels = self.channels(x)?;
        let name = layer_name("batch_norm", &vb, self.layers.len());
        self.expect_epsilon(&name, epsilon)?;
        let parameters = &mut self.parameters;
        let map = ChannelMap::FrozenNorm {
            weight: parameters.trainable(&vb, "weight", &[channels], candle_nn::init::ONE)?,
            bias: parameters.trainable(&vb, "bias", &[channels], candle_nn::init::ZERO)?,
            mean: parameters.constant(&vb, "running_mean", &[channels], candle_nn::init::ZERO)?,
            variance: parameters.constant(&vb, "running_var", &[channels], candle_nn::init::ONE)?,
            epsilon,
        };
        self.push(
            name,
            &[x],
            channels,
            Kind::Affine(map, Activation::Identity),
        )
    }

    /// Layer norm over the channels of each pixel: `weight` and `bias` `[C]`. It is local, so it streams.
    ///
    /// # Errors
    /// A parameter that is missing or misshapen.
    pub fn layer_norm(&mut self, x: Layer, epsilon: f64, vb: VarBuilder<'_>) -> Result<Layer> {
        let channels = self.channels(x)?;
        let name = layer_name("layer_norm", &vb, self.layers.len());
        self.expect_epsilon(&name, epsilon)?;
        let weight = self
            .parameters
            .trainable(&vb, "weight", &[channels], candle_nn::init::ONE)?;
        let bias = self
            .parameters
            .trainable(&vb, "bias", &[channels], candle_nn::init::ZERO)?;
        self.push(
            name,
            &[x],
            channels,
            Kind::LayerNorm {
                weight,
                bias,
                epsilon,
                activation: Activation::Identity,
            },
        )
    }

    /// One trainable factor, `weight` `[1]`, times the input: the gain of a residual branch.
    ///
    /// # Errors
    /// A parameter that is missing or misshapen.
    pub fn scale(&mut self, x: Layer, initial: f64, vb: VarBuilder<'_>) -> Result<Layer> {
        let channels = self.channels(x)?;
        let name = layer_name("scale", &vb, self.layers.len());
        let factor = self
            .parameters
            .trainable(&vb, "weight", &[1], Init::Const(initial))?;
        self.push(
            name,
            &[x],
            channels,
            Kind::Affine(ChannelMap::Scale { factor }, Activation::Identity),
        )
    }

    /// `max(x, 0)`, with derivative 0 at 0.
    ///
    /// # Errors
    /// [`StreamError::UnknownLayer`] for a layer of another builder.
    pub fn relu(&mut self, x: Layer) -> Result<Layer> {
        self.pointwise("relu", x, Kind::Relu)
    }

    /// GELU, exact or by PyTorch's `tanh` approximation.
    ///
    /// # Errors
    /// [`StreamError::UnknownLayer`] for a layer of another builder.
    pub fn gelu(&mut self, x: Layer, form: Gelu) -> Result<Layer> {
        self.pointwise("gelu", x, Kind::Gelu(form))
    }

    /// The sum of two layers of the same size.
    ///
    /// # Errors
    /// Channels that differ. Sizes are checked when an image size is known, in [`Net::plan`].
    pub fn add(&mut self, a: Layer, b: Layer) -> Result<Layer> {
        let channels = self.channels(a)?;
        let name = format!("add{}", self.layers.len());
        self.expect_channels(&name, b, channels)?;
        self.push(name, &[a, b], channels, Kind::Add(Activation::Identity))
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
        self.push(name, layers, channels, Kind::Concat)
    }

    /// Maximum pooling; padding counts as minus infinity, the first maximum in scan order takes the gradient.
    ///
    /// # Errors
    /// Settings of zero, or padding of a kernel's size and more, in which windows would hold no pixel.
    pub fn max_pool2d(&mut self, x: Layer, pool: Pool2d) -> Result<Layer> {
        self.pool("max_pool", x, pool, Pooling::Maximum)
    }

    /// Average pooling; `divisor` says whether padding counts.
    ///
    /// # Errors
    /// As for [`Self::max_pool2d`].
    pub fn avg_pool2d(&mut self, x: Layer, pool: Pool2d, divisor: Divisor) -> Result<Layer> {
        self.pool("avg_pool", x, pool, Pooling::Average(divisor))
    }

    /// Nearest-neighbour upsampling by a whole factor.
    ///
    /// # Errors
    /// A factor of zero or above 65536.
    pub fn upsample_nearest(&mut self, x: Layer, factor: usize) -> Result<Layer> {
        self.pointwise("upsample_nearest", x, Kind::UpsampleNearest(factor))
    }

    /// Bilinear upsampling by a whole factor.
    ///
    /// # Errors
    /// A factor of zero or above 65536.
    pub fn upsample_bilinear(
        &mut self,
        x: Layer,
        factor: usize,
        corners: Corners,
    ) -> Result<Layer> {
        self.pointwise(
            "upsample_bilinear",
            x,
            Kind::UpsampleBilinear(factor, corners),
        )
    }

    /// A layer of the user's own.
    ///
    /// # Errors
    /// [`StreamError::UnknownLayer`] for a layer of another builder.
    pub fn local(&mut self, x: Layer, layer: Arc<dyn LocalLayer>) -> Result<Layer> {
        let channels = layer.output_channels(self.channels(x)?);
        let parameters = layer
            .parameters()
            .into_iter()
            .map(|(name, tensor)| self.parameters.add(name, tensor.is_variable(), tensor))
            .collect();
        self.push(
            layer.name(),
            &[x],
            channels,
            Kind::Local { layer, parameters },
        )
    }

    /// The network whose features are those of `output`.
    ///
    /// # Errors
    /// [`StreamError::UnknownLayer`] for a layer of another builder.
    pub fn build(self, output: Layer) -> Result<Net> {
        self.build_named(vec![("features".into(), output)])
    }

    /// A network with several outputs (a feature pyramid, say), in the order given.
    ///
    /// # Errors
    /// No outputs, a layer of another builder, or one that is named twice.
    pub fn build_named(self, outputs: Vec<(String, Layer)>) -> Result<Net> {
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
        let (operations, place) = fuse(self.layers, &positions);
        let outputs = outputs
            .into_iter()
            .map(|(name, layer)| (name, place[layer.0]))
            .collect();
        Net::new(operations, self.parameters.parameters, outputs)
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
        let kind = Kind::Pool {
            window: pool.window(),
            padding: pool.padding,
            pooling,
        };
        let channels = self.channels(x)?;
        self.push(name, &[x], channels, kind)
    }

    fn pointwise(&mut self, name: &str, x: Layer, kind: Kind) -> Result<Layer> {
        let channels = self.channels(x)?;
        self.push(format!("{name}{}", self.layers.len()), &[x], channels, kind)
    }

    fn push(
        &mut self,
        name: String,
        inputs: &[Layer],
        channels: usize,
        kind: Kind,
    ) -> Result<Layer> {
        let operation = Operation {
            name,
            inputs: inputs.iter().map(|layer| layer.0).collect(),
            channels,
            kind,
        };
        self.layers.push(operation);
        Ok(Layer(self.layers.len() - 1))
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

    fn expect_epsilon(&self, layer: &str, epsilon: f64) -> Result<()> {
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
}

fn layer_name(kind: &str, vb: &VarBuilder<'_>, index: usize) -> String {
    let prefix = vb.prefix();
    if prefix.is_empty() {
        format!("{kind}{index}")
    } else {
        prefix
    }
}

/// A network that can be streamed: operations, parameters and outputs.
#[derive(Debug, Clone)]
pub struct Net {
    pub(crate) operations: Arc<[Operation]>,
    pub(crate) parameters: Arc<[Parameter]>,
    pub(crate) outputs: Arc<[(String, usize)]>,
}

impl Net {
    fn new(
        operations: Vec<Operation>,
        parameters: Vec<Parameter>,
        outputs: Vec<(String, usize)>,
    ) -> Result<Self> {
        let net = Self {
            operations: operations.into(),
            parameters: parameters.into(),
            outputs: outputs.into(),
        };
        // A graph that cannot be made for any image is refused here, not at the first plan.
        net.graph(&Trainable::Variables, InputGradient::Skipped, &[])?;
        Ok(net)
    }

    /// Plans the streaming of images of one size.
    ///
    /// # Errors
    /// Every refusal happens here: an image that is too small, a budget below the minimum, cuts that cannot be.
    pub fn plan(&self, request: PlanRequest) -> Result<Plan> {
        Plan::new(self, request)
    }

    /// The recipes for images of one size that no other beats in both peak and compute ratio, by rising peak: what more memory
    /// would bring. The budget of the request, if any, limits them from above; tile, block, segments and kept nodes are as
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
        planning::front(self, request)
    }

    /// The same network with its convolutions computed by `arithmetic`.
    pub(crate) fn computed_by(&self, arithmetic: Arithmetic) -> Self {
        let mut operations = self.operations.to_vec();
        for operation in &mut operations {
            if let Kind::Convolution(convolution) = &mut operation.kind {
                convolution.shape.arithmetic = arithmetic;
            }
        }
        Self {
            operations: operations.into(),
            ..self.clone()
        }
    }

    /// All parameters in the order of the layers that read them, constants included.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Channels of the image.
    pub fn input_channels(&self) -> usize {
        self.operations[0].channels
    }

    /// Channels of the first output.
    pub fn output_channels(&self) -> usize {
        self.outputs
            .first()
            .map_or(0, |&(_, node)| self.operations[node].channels)
    }

    /// Names of the outputs.
    pub fn output_names(&self) -> impl Iterator<Item = &str> {
        self.outputs.iter().map(|(name, _)| name.as_str())
    }

    /// Names of the operations after fusing, in order; index 0 is the image. `Recipe::kept` refers to these.
    pub fn operation_names(&self) -> impl Iterator<Item = &str> {
        self.operations
            .iter()
            .map(|operation| operation.name.as_str())
    }

    /// The graph of the network for images of `height` x `width` pixels, as the planner sees it.
    ///
    /// # Errors
    /// An image that is too small or too large, or inputs of a merge that differ in size.
    pub fn sized_graph(&self, height: u64, width: u64) -> Result<SizedGraph> {
        let graph = self.graph(&Trainable::Variables, InputGradient::Skipped, &[])?;
        Ok(SizedGraph::new(graph, PerAxis::new(height, width))?)
    }

    /// Height and width of the first output for images of `height` x `width` pixels.
    ///
    /// # Errors
    /// As for [`Self::sized_graph`].
    pub fn output_extent(&self, height: u64, width: u64) -> Result<(u64, u64)> {
        let sized = self.sized_graph(height, width)?;
        let size = sized.size(self.outputs[0].1).map(i64::unsigned_abs);
        Ok((size[Axis::Rows], size[Axis::Columns]))
    }

    pub(crate) fn graph(
        &self,
        trainable: &Trainable,
        input_gradient: InputGradient,
        taps: &[usize],
    ) -> Result<Graph> {
        let flags = trainable_flags(&self.parameters, trainable);
        let wants_input = input_gradient.is_computed() || taps.contains(&0);
        let mut graph = Graph::new(self.operations[0].channels as u64, wants_input);
        let mut has_cotangent = vec![wants_input];
        for (node, operation) in self.operations.iter().enumerate().skip(1) {
            let needs = operation.is_trainable(&flags)
                || operation.inputs.iter().any(|&input| has_cotangent[input])
                || taps.contains(&node);
            graph.push(operation.node(&flags, needs, &has_cotangent)?)?;
            has_cotangent.push(needs);
        }
        for &tap in taps {
            graph.show(NodeId(tap))?;
        }
        graph.set_outputs(self.outputs.iter().map(|&(_, node)| NodeId(node)).collect())?;
        Ok(graph)
    }
}
