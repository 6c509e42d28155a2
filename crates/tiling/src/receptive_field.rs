//! Receptive fields, total strides, and the borders that padding spoils.

use crate::fraction::Fraction;
use crate::graph::{NodeId, SizedGraph};
use crate::rule::{AlignCorners, AxisRule};
use crate::span::{Axis, Span};

/// The receptive field of a node in the image along one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceptiveField {
    /// Image indices from the first to the last that one output may depend on, padding included; the largest over
    /// all phases of upsampling.
    pub extent: u64,
    /// Image indices from one output to the next.
    pub stride: Fraction,
}

/// Phases of upsampling beyond which receptive fields are compared for the first ones only.
const MOST_PHASES: i64 = 4096;

impl ReceptiveField {
    /// Works out the receptive field of a node.
    ///
    /// Exact for windows, pointwise layers, merges, nearest and half-pixel bilinear upsampling. Bilinear upsampling with
    /// aligned corners has as many phases as outputs, of which 4096 are compared; a layer of the user's is
    /// asked at the middle of its plane.
    ///
    /// ```
    /// use stream_grad_tiling::{
    ///     Axis, AxisRule, Edge, Fraction, Graph, Node, NodeId, PerAxis, ReceptiveField, SizedGraph, VjpReads, Window,
    /// };
    /// let mut graph = Graph::new(1, false);
    /// for _ in 0..2 {
    ///     let source = NodeId(graph.nodes().len() - 1);
    ///     graph.push(Node {
    ///         name: "conv".into(),
    ///         channels: 1,
    ///         inputs: vec![Edge {
    ///             source,
    ///             rule: PerAxis::both(AxisRule::Window(Window::new(3, 2, 1, 1, 1)?)),
    ///         }],
    ///         forward_flops: 18,
    ///         vjp_flops: 36,
    ///         vjp_reads: VjpReads::default(),
    ///         has_cotangent: true,
    ///     })?;
    /// }
    /// graph.set_outputs(vec![NodeId(2)])?;
    /// let sized = SizedGraph::new(graph, PerAxis::both(64))?;
    /// let field = ReceptiveField::of(&sized, Axis::Rows, NodeId(2));
    /// assert_eq!((field.extent, field.stride), (7, Fraction::new(4, 1)));
    /// # Ok::<(), stream_grad_tiling::TilingError>(())
    /// ```
    pub fn of(sized: &SizedGraph, axis: Axis, node: NodeId) -> Self {
        let size = sized.size(node.0)[axis];
        let phases = phases(sized, axis, size);
        let first = (size - phases) / 2;
        let extent = (first..first + phases)
            .map(|output| dependence(sized, axis, node, Span::new(output, output + 1)).len())
            .max()
            .unwrap_or(0);
        Self {
            extent,
            stride: strides(sized, axis)[node.0],
        }
    }
}

/// Image indices from one output to the next, for every node: the product along its first inputs.
pub fn strides(sized: &SizedGraph, axis: Axis) -> Vec<Fraction> {
    let mut strides: Vec<Fraction> = Vec::with_capacity(sized.graph().nodes().len());
    for node in sized.graph().nodes() {
        let stride = node.inputs.first().map_or(Fraction::new(1, 1), |edge| {
            let (numerator, denominator) = edge.rule[axis].stride();
            let step = Fraction::new(
                u128::from(numerator.unsigned_abs()),
                u128::from(denominator.unsigned_abs()),
            );
            strides[edge.source.0].times(step)
        });
        strides.push(stride);
    }
    strides
}

/// The smallest tile edge worth planning, of which others are multiples: the largest stride of any node.
pub(crate) fn tile_granule(sized: &SizedGraph, axis: Axis) -> u64 {
    let largest = strides(sized, axis).into_iter().map(Fraction::ceil).max();
    let size = sized.plane(0)[axis].len();
    u64::try_from(largest.unwrap_or(1))
        .unwrap_or(size)
        .clamp(1, size)
}

/// Indices that are lost at the two ends of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LostBorder {
    /// Number of indices lost at the beginning (top or left).
    pub lo: u64,
    /// Number of indices lost at the end (bottom or right).
    pub hi: u64,
}

impl LostBorder {
    /// The outputs of `node` whose receptive field reaches padding, at `node` itself or at any layer before it.
    ///
    /// These are the outputs that differ from those of a larger image, so a method of independent tiles drops them. If no
    /// output is free of padding, all count as lost at the beginning.
    pub fn of_output(sized: &SizedGraph, axis: Axis, node: NodeId) -> Self {
        let size = sized.size(node.0)[axis];
        let clean = clean_spans(sized, axis)[node.0];
        if clean.is_empty() {
            return Self {
                lo: size.unsigned_abs(),
                hi: 0,
            };
        }
        Self {
            lo: clean.lo.unsigned_abs(),
            hi: (size - clean.hi).unsigned_abs(),
        }
    }

    /// The image positions that influence a lost output of `node`, and whose gradient is therefore wrong if lost outputs are
    /// dropped. Both counts are limited to the image.
    pub fn of_gradient(sized: &SizedGraph, axis: Axis, node: NodeId) -> Self {
        let size = sized.size(node.0)[axis];
        let image = sized.size(0)[axis];
        let lost = Self::of_output(sized, axis, node);
        let (lo, hi) = (saturating_i64(lost.lo), saturating_i64(lost.hi));
        let before = sized.dependencies(axis, node, Span::new(0, lo))[0];
        let after = sized.dependencies(axis, node, Span::new(size - hi, size))[0];
        Self {
            lo: if before.is_empty() {
                0
            } else {
                before.hi.unsigned_abs()
            },
            hi: if after.is_empty() {
                0
            } else {
                (image - after.lo).unsigned_abs()
            },
        }
    }

    /// Indices lost at both ends together.
    pub const fn total(self) -> u64 {
        self.lo.saturating_add(self.hi)
    }
}

fn saturating_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The span of each node's outputs that depend on no padding.
fn clean_spans(sized: &SizedGraph, axis: Axis) -> Vec<Span> {
    let mut clean: Vec<Span> = Vec::with_capacity(sized.graph().nodes().len());
    for (index, node) in sized.graph().nodes().iter().enumerate() {
        let mut span = sized.plane(index)[axis];
        for edge in &node.inputs {
            let source = clean[edge.source.0];
            let size = sized.size(edge.source.0)[axis];
            let read = |output| edge.rule[axis].unbounded(Span::new(output, output + 1), size);
            let lo = span.first_where(|output| read(output).lo >= source.lo);
            let hi = span.first_where(|output| read(output).hi > source.hi);
            span = Span::new(lo, if source.is_empty() { lo } else { hi });
        }
        clean.push(span);
    }
    clean
}

/// Number of outputs after which dependence repeats itself, moved.
fn phases(sized: &SizedGraph, axis: Axis, size: i64) -> i64 {
    let mut phases: i64 = 1;
    for edge in sized.graph().nodes().iter().flat_map(|node| &node.inputs) {
        let factor = match &edge.rule[axis] {
            AxisRule::UpsampleNearest(factor)
            | AxisRule::UpsampleBilinear(factor, AlignCorners::No) => *factor,
            AxisRule::TransposedWindow(window) => window.stride(),
            AxisRule::UpsampleBilinear(_, AlignCorners::Yes) => size,
            AxisRule::Pointwise | AxisRule::Window(_) | AxisRule::Custom(_) => 1,
        };
        phases = phases.saturating_mul(factor).min(MOST_PHASES);
    }
    phases
}

/// The image span that outputs of a node depend on, as if the image went on beyond its ends.
fn dependence(sized: &SizedGraph, axis: Axis, node: NodeId, outputs: Span) -> Span {
    let nodes = sized.graph().nodes();
    let mut spans = vec![Span::default(); nodes.len()];
    spans[node.0] = outputs;
    for index in (1..=node.0).rev() {
        if spans[index].is_empty() {
            continue;
        }
        for edge in &nodes[index].inputs {
            let source = edge.source.0;
            let needed = edge.rule[axis].unbounded(spans[index], sized.size(source)[axis]);
            spans[source] = spans[source].hull(needed);
        }
    }
    spans[0]
}
