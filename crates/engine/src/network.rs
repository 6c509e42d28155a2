//! Networks: nodes in the order in which they are computed, and what planning asks of them.

mod builder;
mod fuse;
mod parts;

use std::any::TypeId;
use std::sync::Arc;

use stream_grad_kernels::Arithmetic;
use stream_grad_tiling::{Axis, Edge, Graph, NodeId, PerAxis, SizedGraph};

use crate::backend::Backend;
use crate::element::Stored;
use crate::error::{Result, StreamError};
use crate::operator::{Needs, NodeShape};
use crate::operators::AnyOperator;
use crate::parameter::{ParameterShape, ParameterValues};
use crate::wanted::{InputGradient, Trainable};

pub use builder::{Initial, Layer, NetworkBuilder, ParameterProvider, ParameterRequest, Provided};
pub(crate) use parts::unknown_layer;

/// A node: its inputs are indices of earlier nodes; node 0 is the image.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) inputs: Vec<usize>,
    pub(crate) channels: usize,
    pub(crate) operator: AnyOperator,
    /// The node than which it has no more rows and columns.
    pub(crate) crop: Option<usize>,
}

/// A network that can be streamed: what it computes, without the values of its parameters.
#[derive(Debug, Clone)]
pub struct Network {
    pub(crate) nodes: Arc<[Node]>,
    pub(crate) parameters: Arc<[ParameterShape]>,
    pub(crate) outputs: Arc<[(String, usize)]>,
}

/// A network and the values of its parameters.
pub trait Model: Sync {
    /// What is computed.
    fn network(&self) -> &Network;
    /// With which parameters.
    fn values(&self) -> &dyn ParameterValues;
}

impl Node {
    pub(crate) fn shape(&self) -> NodeShape {
        NodeShape {
            channels: self.channels,
            inputs: self.inputs.len(),
        }
    }

    /// Whether the backward sweep computes a gradient of any of its parameters.
    pub(crate) fn trains(&self, trainable: &[bool]) -> bool {
        self.operator.parameters().iter().any(|id| trainable[id.0])
    }

    /// Lengths of the sums that its VJP adds to.
    pub(crate) fn sums(&self, parameters: &[ParameterShape], trainable: &[bool]) -> Vec<usize> {
        if self.trains(trainable) {
            self.operator.sums(self.channels, parameters)
        } else {
            Vec::new()
        }
    }

    /// What is wanted of its VJP.
    pub(crate) fn needs<'a>(&self, trainable: &'a [bool], graph: &Graph) -> Needs<'a> {
        let mut inputs = self.inputs.iter();
        Needs {
            trainable,
            trains: self.trains(trainable),
            input: inputs
                .next()
                .is_some_and(|&input| graph.nodes()[input].has_cotangent),
        }
    }

    /// What planning needs to know of it.
    fn planned(&self, needs: &Needs<'_>, has_cotangent: bool) -> Result<stream_grad_tiling::Node> {
        Ok(stream_grad_tiling::Node {
            name: self.name.clone(),
            channels: self.channels as u64,
            inputs: self.edges()?,
            forward_flops: self.operator.forward_flops(self.channels),
            vjp_flops: self.operator.vjp_flops(self.channels, needs),
            vjp_reads: self.operator.vjp_reads(needs.trains),
            has_cotangent,
        })
    }

    /// The rule of each input.
    fn edges(&self) -> Result<Vec<Edge>> {
        let first = self.operator.rule()?;
        let edges = self.inputs.iter().enumerate().map(|(index, &source)| {
            if index == 0 {
                Edge {
                    source: NodeId(source),
                    rule: first.clone(),
                }
            } else {
                Edge::pointwise(NodeId(source))
            }
        });
        Ok(edges.collect())
    }
}

impl Network {
    fn new(
        nodes: Vec<Node>,
        parameters: Vec<ParameterShape>,
        outputs: Vec<(String, usize)>,
    ) -> Result<Self> {
        let network = Self {
            nodes: nodes.into(),
            parameters: parameters.into(),
            outputs: outputs.into(),
        };
        // A graph that cannot be made for any image is refused here, not at the first plan.
        network.graph(&Trainable::Variables, InputGradient::Skipped, &[])?;
        Ok(network)
    }

    /// The same network with its convolutions computed by `arithmetic`.
    pub(crate) fn computed_by(&self, arithmetic: Arithmetic) -> Self {
        let mut nodes = self.nodes.to_vec();
        for node in &mut nodes {
            if let AnyOperator::Convolution(convolution) = &mut node.operator {
                convolution.shape.arithmetic = arithmetic;
            }
        }
        Self {
            nodes: nodes.into(),
            ..self.clone()
        }
    }

    /// Whether any convolution is computed by Winograd's F(2 x 2, 3 x 3).
    pub(crate) fn is_winograd(&self) -> bool {
        self.nodes.iter().any(|node| match &node.operator {
            AnyOperator::Convolution(convolution) => convolution.shape.is_winograd(),
            _ => false,
        })
    }

    /// Refuses operators that the backend has no kernels for, and those of a caller's own that do not take what it stores.
    pub(crate) fn check_backend<B: Backend>(&self, backend: &B) -> Result<()> {
        let is_rounded = TypeId::of::<B::Stored>() != TypeId::of::<B::Compute>();
        for node in &*self.nodes {
            if is_rounded && !node.operator.takes_rounded() {
                return Err(StreamError::Setting {
                    layer: node.name.clone(),
                    setting: "dtype",
                    found: B::Stored::DTYPE.as_str().to_owned(),
                    expected: "f32 or f64, since it does not say that it takes bf16 (`takes_bf16`)",
                });
            }
            let kind = node.operator.key(node.shape()).kind;
            if !backend.supports(kind) {
                return Err(StreamError::Unsupported {
                    layer: node.name.clone(),
                    kind,
                    backend: backend.name(),
                });
            }
        }
        Ok(())
    }

    /// All parameters in the order of the layers that read them, constants included.
    #[must_use]
    pub fn parameters(&self) -> &[ParameterShape] {
        &self.parameters
    }

    /// Channels of the image.
    #[must_use]
    pub fn input_channels(&self) -> usize {
        self.nodes[0].channels
    }

    /// Channels of each output, in the order of [`Self::output_names`].
    pub fn output_channels(&self) -> impl Iterator<Item = usize> {
        let nodes = self.outputs.iter().map(|&(_, node)| &self.nodes[node]);
        nodes.map(|node| node.channels)
    }

    /// Names of the outputs.
    pub fn output_names(&self) -> impl Iterator<Item = &str> {
        self.outputs.iter().map(|(name, _)| name.as_str())
    }

    /// Names of the nodes after fusing, in order; index 0 is the image. `Recipe::stored` refers to these.
    pub fn operation_names(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(|node| node.name.as_str())
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
        let flags = self.trainable(trainable);
        let wants_input = input_gradient.is_computed() || taps.contains(&0);
        let mut graph = Graph::new(self.nodes[0].channels as u64, wants_input);
        for (index, node) in self.nodes.iter().enumerate().skip(1) {
            let needs = node.needs(&flags, &graph);
            let mut inputs = node.inputs.iter();
            let has_cotangent = needs.trains
                || inputs.any(|&input| graph.nodes()[input].has_cotangent)
                || taps.contains(&index);
            let id = graph.push(node.planned(&needs, has_cotangent)?)?;
            graph.set_shifts(id, node.operator.shifts())?;
            if let Some(like) = node.crop {
                graph.crop(id, NodeId(like))?;
            }
        }
        for &tap in taps {
            graph.show(NodeId(tap))?;
        }
        graph.set_outputs(self.outputs.iter().map(|&(_, node)| NodeId(node)).collect())?;
        Ok(graph)
    }

    /// Of which parameters the backward sweep computes gradients.
    pub(crate) fn trainable(&self, choice: &Trainable) -> Vec<bool> {
        let parameters = self.parameters.iter();
        parameters
            .map(|parameter| parameter.trainable && choice.includes(&parameter.name))
            .collect()
    }
}
