//! Graphs of local layers, and the sizes that an image gives their nodes.

use std::num::NonZeroU32;
use std::sync::Arc;

use crate::error::TilingError;
use crate::rect::Rect;
use crate::rule::AxisRule;
use crate::span::{Axis, PerAxis, Span};
use crate::window::MAX_EXTENT;

/// Index of a node in its [`Graph`]; node 0 is the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NodeId(pub usize);

impl NodeId {
    /// The image.
    pub const IMAGE: Self = Self(0);
}

/// An input of a node: where it comes from and how outputs depend on it along each axis.
#[derive(Debug, Clone)]
pub struct Edge {
    /// The node that is read.
    pub source: NodeId,
    /// The rule along each axis.
    pub rule: PerAxis<AxisRule>,
}

impl Edge {
    /// An edge that reads, for each output position, the same position of `source`.
    pub const fn pointwise(source: NodeId) -> Self {
        Self {
            source,
            rule: PerAxis::new(AxisRule::Pointwise, AxisRule::Pointwise),
        }
    }
}

/// What a node's VJP reads besides the cotangent of its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VjpReads {
    /// The node's own output (a ReLU's mask, or what a caller [wants to see](Graph::show)).
    pub output: bool,
    /// The node's inputs (weight gradients, max-pool's winners).
    pub inputs: bool,
}

/// By which shifts of its outputs, with what they read shifted along, a node's forward computation gives the same, bit for bit, away
/// from the ends of planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shifts {
    /// All that its edges allow: the arithmetic does not know where it is.
    #[default]
    All,
    /// Of those, multiples of so many positions: the arithmetic has a grid that is fixed in the plane.
    Multiples(NonZeroU32),
    /// None: the arithmetic sees positions.
    Nothing,
}

/// A layer, as far as geometry and cost are concerned.
///
/// With several inputs a node is a merge: it can compute what *all* of them allow. A fused
/// convolution with a residual has a window edge and a pointwise one.
#[derive(Debug, Clone)]
pub struct Node {
    /// Name for messages.
    pub name: String,
    /// Channels of the output.
    pub channels: u64,
    /// Inputs; empty for the image alone.
    pub inputs: Vec<Edge>,
    /// FLOPs of the forward computation, per output position.
    pub forward_flops: u64,
    /// FLOPs of the VJP, per output position.
    pub vjp_flops: u64,
    /// What the VJP reads.
    pub vjp_reads: VjpReads,
    /// Whether the backward sweep needs a cotangent of this node: something trainable, a wanted input gradient, or a node
    /// whose cotangent a caller wants to see, lies at or before it.
    pub has_cotangent: bool,
}

/// A directed acyclic graph of local layers in topological order.
#[derive(Debug, Clone)]
pub struct Graph {
    nodes: Vec<Node>,
    consumers: Vec<Vec<(NodeId, usize)>>,
    outputs: Vec<NodeId>,
    /// Of each node, the one whose size bounds its own.
    crops: Vec<Option<NodeId>>,
    shifts: Vec<Shifts>,
}

impl Graph {
    /// A graph that holds only an image of `channels` channels; `has_cotangent` asks for its gradient.
    pub fn new(channels: u64, has_cotangent: bool) -> Self {
        let image = Node {
            name: "image".into(),
            channels,
            inputs: Vec::new(),
            forward_flops: 0,
            vjp_flops: 0,
            vjp_reads: VjpReads::default(),
            has_cotangent,
        };
        Self {
            nodes: vec![image],
            consumers: vec![Vec::new()],
            outputs: Vec::new(),
            crops: vec![None],
            shifts: vec![Shifts::All],
        }
    }

    /// Appends a node.
    ///
    /// # Errors
    /// [`TilingError::Missing`] for a node without inputs, [`TilingError::UnknownNode`] if an input does not
    /// come before it.
    pub fn push(&mut self, node: Node) -> Result<NodeId, TilingError> {
        let id = NodeId(self.nodes.len());
        if node.inputs.is_empty() {
            return Err(TilingError::Missing {
                layer: node.name,
                what: "inputs",
            });
        }
        for (index, edge) in node.inputs.iter().enumerate() {
            match self.consumers.get_mut(edge.source.0) {
                Some(consumers) => consumers.push((id, index)),
                None => {
                    return Err(TilingError::UnknownNode {
                        layer: node.name,
                        source_node: edge.source.0,
                        nodes: id.0,
                    });
                }
            }
        }
        self.nodes.push(node);
        self.consumers.push(Vec::new());
        self.crops.push(None);
        self.shifts.push(Shifts::All);
        Ok(id)
    }

    /// Computes of a node no more rows and columns than an earlier node has, from the first on: of what is upsampled, for instance,
    /// those of what it is then added to. `like` is not read.
    ///
    /// ```
    /// use stream_grad_tiling::{AxisRule, Edge, Graph, Node, NodeId, PerAxis, SizedGraph, VjpReads, Window};
    /// let node = |name: &str, source, rule: AxisRule| Node {
    ///     name: name.into(),
    ///     channels: 3,
    ///     inputs: vec![Edge { source, rule: PerAxis::both(rule) }],
    ///     forward_flops: 0,
    ///     vjp_flops: 0,
    ///     vjp_reads: VjpReads::default(),
    ///     has_cotangent: true,
    /// };
    /// let mut graph = Graph::new(3, true);
    /// let halved = AxisRule::Window(Window::new(3, 2, 1, 1, 1)?);
    /// let halved = graph.push(node("half", NodeId::IMAGE, halved))?;
    /// let up = graph.push(node("up", halved, AxisRule::UpsampleNearest(2)))?;
    /// graph.crop(up, NodeId::IMAGE)?;
    /// graph.set_outputs(vec![up])?;
    /// let sized = SizedGraph::new(graph, PerAxis::both(7))?;
    /// assert_eq!((sized.size(halved.0).rows, sized.size(up.0).rows), (4, 7));
    /// # Ok::<(), stream_grad_tiling::TilingError>(())
    /// ```
    ///
    /// # Errors
    /// [`TilingError::UnknownNode`] if there is no such node, or `like` does not come before it.
    pub fn crop(&mut self, node: NodeId, like: NodeId) -> Result<(), TilingError> {
        let nodes = self.nodes.len();
        let unknown = |source_node: usize| TilingError::UnknownNode {
            layer: "what is cropped".into(),
            source_node,
            nodes,
        };
        if like >= node {
            return Err(unknown(like.0));
        }
        let crop = self.crops.get_mut(node.0).ok_or_else(|| unknown(node.0))?;
        *crop = Some(like);
        Ok(())
    }

    /// Declares which nodes leave the graph.
    ///
    /// # Errors
    /// [`TilingError::Missing`] for none, [`TilingError::UnknownNode`] for one that does not exist.
    pub fn set_outputs(&mut self, outputs: Vec<NodeId>) -> Result<(), TilingError> {
        if outputs.is_empty() {
            return Err(TilingError::Missing {
                layer: "graph".into(),
                what: "outputs",
            });
        }
        for output in &outputs {
            if output.0 >= self.nodes.len() {
                return Err(TilingError::UnknownNode {
                    layer: "output".into(),
                    source_node: output.0,
                    nodes: self.nodes.len(),
                });
            }
        }
        self.outputs = outputs;
        Ok(())
    }

    /// Has the backward sweep hold the activation of a node, which has a cotangent, until that is complete, so that a caller can
    /// be shown both.
    ///
    /// # Errors
    /// [`TilingError::UnknownNode`] if there is no such node.
    pub fn show(&mut self, node: NodeId) -> Result<(), TilingError> {
        let nodes = self.nodes.len();
        let shown = self
            .nodes
            .get_mut(node.0)
            .ok_or_else(|| TilingError::UnknownNode {
                layer: "what is shown".into(),
                source_node: node.0,
                nodes,
            })?;
        shown.vjp_reads.output = true;
        Ok(())
    }

    /// Says by which shifts a node computes the same; without this, by all that its edges allow.
    ///
    /// # Errors
    /// [`TilingError::UnknownNode`] if there is no such node.
    pub fn set_shifts(&mut self, node: NodeId, shifts: Shifts) -> Result<(), TilingError> {
        let nodes = self.nodes.len();
        let of_node = self
            .shifts
            .get_mut(node.0)
            .ok_or_else(|| TilingError::UnknownNode {
                layer: "what is shifted".into(),
                source_node: node.0,
                nodes,
            })?;
        *of_node = shifts;
        Ok(())
    }

    /// By which shifts a node computes the same.
    pub fn shifts(&self, node: usize) -> Shifts {
        self.shifts[node]
    }

    /// All nodes in topological order; node 0 is the image.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The nodes whose values leave the graph.
    pub fn outputs(&self) -> &[NodeId] {
        &self.outputs
    }

    /// The nodes that read `node`, each with the index of the edge.
    pub fn consumers(&self, node: usize) -> &[(NodeId, usize)] {
        &self.consumers[node]
    }
}

/// A graph together with the size of an image, and so of every node.
#[derive(Debug, Clone)]
pub struct SizedGraph {
    graph: Arc<Graph>,
    image: PerAxis<u64>,
    sizes: Vec<PerAxis<i64>>,
}

impl SizedGraph {
    /// Computes every node's size for an image of `image.rows` by `image.columns` pixels.
    ///
    /// # Errors
    /// An image or a node that is too small or too large, inputs of a merge that differ in size, a graph without
    /// outputs.
    pub fn new(graph: Graph, image: PerAxis<u64>) -> Result<Self, TilingError> {
        if graph.outputs.is_empty() {
            return Err(TilingError::Missing {
                layer: "graph".into(),
                what: "outputs",
            });
        }
        let mut sizes: Vec<PerAxis<i64>> = Vec::with_capacity(graph.nodes.len());
        for (index, node) in graph.nodes.iter().enumerate() {
            let mut size = PerAxis::both(0_i64);
            for axis in Axis::BOTH {
                size[axis] = if index == 0 {
                    image_size(image[axis], axis)?
                } else {
                    let size = node_size(&graph, node, &sizes, axis)?;
                    let most = graph.crops[index].map(|like| sizes[like.0][axis]);
                    most.map_or(size, |most| size.min(most))
                };
            }
            sizes.push(size);
        }
        Ok(Self {
            graph: Arc::new(graph),
            image,
            sizes,
        })
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The image's size in pixels.
    pub fn image(&self) -> PerAxis<u64> {
        self.image
    }

    /// Size of a node along both axes.
    pub fn size(&self, node: usize) -> PerAxis<i64> {
        self.sizes[node]
    }

    /// The whole plane of a node.
    pub fn plane(&self, node: usize) -> Rect {
        self.sizes[node].map(|size| Span::new(0, size))
    }

    /// The span of input `edge_index` that the span of outputs of `node` reads, clamped to the image.
    pub fn needed(&self, node: usize, edge_index: usize, axis: Axis, outputs: Span) -> Span {
        let edge = &self.graph.nodes[node].inputs[edge_index];
        edge.rule[axis].needed_in_image(outputs, self.sizes[edge.source.0][axis])
    }

    /// Prefix of every node after the first `available` image indices along `axis`.
    pub fn prefixes(&self, axis: Axis, available: i64) -> Vec<i64> {
        let mut prefixes: Vec<i64> = Vec::with_capacity(self.sizes.len());
        for (node, size) in self.graph.nodes.iter().zip(&self.sizes) {
            let prefix = node
                .inputs
                .iter()
                .map(|edge| {
                    let source = edge.source.0;
                    edge.rule[axis].prefix(prefixes[source], self.sizes[source][axis])
                })
                .min()
                .unwrap_or(available);
            // What is cropped could go on.
            prefixes.push(prefix.min(size[axis]));
        }
        prefixes
    }

    /// For every node, the span along `axis` that the given span of the (only) output depends on.
    pub fn dependencies(&self, axis: Axis, output: NodeId, outputs: Span) -> Vec<Span> {
        let mut spans = vec![Span::default(); self.sizes.len()];
        spans[output.0] = outputs;
        for node in (1..self.sizes.len()).rev() {
            for (index, edge) in self.graph.nodes[node].inputs.iter().enumerate() {
                let needed = self.needed(node, index, axis, spans[node]);
                // Outputs of nothing but padding need nothing, and their empty span may lie anywhere.
                if !needed.is_empty() {
                    spans[edge.source.0] = spans[edge.source.0].hull(needed);
                }
            }
        }
        spans
    }
}

fn image_size(found: u64, axis: Axis) -> Result<i64, TilingError> {
    if found == 0 {
        return Err(TilingError::InputTooSmall {
            layer: "image".into(),
            axis,
            found,
            needed: 1,
            padded: found,
        });
    }
    i64::try_from(found)
        .ok()
        .filter(|_| found <= MAX_EXTENT)
        .ok_or_else(|| TilingError::ExtentTooLarge {
            layer: "image".into(),
            axis,
            found: u128::from(found),
            maximum: MAX_EXTENT,
        })
}

fn node_size(
    graph: &Graph,
    node: &Node,
    sizes: &[PerAxis<i64>],
    axis: Axis,
) -> Result<i64, TilingError> {
    let mut first: Option<(i64, usize)> = None;
    for edge in &node.inputs {
        let input = sizes[edge.source.0][axis];
        let size = edge.rule[axis]
            .output_size(input)
            .filter(|&size| size > 0)
            .ok_or_else(|| too_small(node, &edge.rule[axis], axis, input))?;
        if size.unsigned_abs() > MAX_EXTENT {
            return Err(TilingError::ExtentTooLarge {
                layer: node.name.clone(),
                axis,
                found: u128::from(size.unsigned_abs()),
                maximum: MAX_EXTENT,
            });
        }
        match first {
            None => first = Some((size, edge.source.0)),
            Some((expected, other)) if expected != size => {
                return Err(TilingError::MergeMismatch {
                    layer: node.name.clone(),
                    axis,
                    first: graph.nodes[other].name.clone(),
                    first_size: expected.unsigned_abs(),
                    other: graph.nodes[edge.source.0].name.clone(),
                    other_size: size.unsigned_abs(),
                });
            }
            Some(_) => {}
        }
    }
    Ok(first.map_or(0, |(size, _)| size))
}

fn too_small(node: &Node, rule: &AxisRule, axis: Axis, input: i64) -> TilingError {
    let (needed, padded) = match rule {
        AxisRule::Window(window) => (window.extent(), window.padded_size(input)),
        _ => (input + 1, input),
    };
    TilingError::InputTooSmall {
        layer: node.name.clone(),
        axis,
        found: input.unsigned_abs(),
        needed: needed.unsigned_abs(),
        padded: padded.unsigned_abs(),
    }
}
