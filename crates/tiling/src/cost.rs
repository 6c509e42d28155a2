//! The arithmetic of a recipe, in FLOPs, against the conventional computation.

use std::fmt;

use crate::buffers::Buffers;
use crate::fraction::Fraction;
use crate::geometry::Geometry;
use crate::graph::{Node, SizedGraph};
use crate::work::{Work, duties};

/// FLOPs of one image, by purpose, and what they are to be compared with.
///
/// Sums saturate at `u128::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// The first forward sweep, over every block.
    pub forward: u128,
    /// Sweeping segments again before their backward sweep: all but the last of each block.
    pub resweep: u128,
    /// Recomputing, in the backward sweep, what was not stored.
    pub recompute: u128,
    /// Vector-Jacobian products of the backward sweep.
    pub vjp: u128,
    /// Forward and VJP of the whole image without anything computed twice.
    pub conventional: u128,
    /// Number of tiles of all blocks.
    pub tiles: u128,
    /// Bytes that are written to a file and read again.
    pub file_bytes: u128,
}

impl Cost {
    /// Works out the cost of a recipe for one image, with what is saved in memory.
    ///
    /// ```
    /// use stream_grad_tiling::{Cost, Geometry, Graph, NodeId, PerAxis, Recipe, SizedGraph};
    /// let mut graph = Graph::new(3, false);
    /// graph.set_outputs(vec![NodeId::IMAGE])?;
    /// let sized = SizedGraph::new(graph, PerAxis::both(64))?;
    /// let recipe = Recipe { tile: PerAxis::both(16), ..Recipe::whole(&sized) };
    /// assert_eq!(Cost::of(&Geometry::new(sized, recipe)?).tiles, 16);
    /// # Ok::<(), stream_grad_tiling::TilingError>(())
    /// ```
    pub fn of(geometry: &Geometry) -> Self {
        Self::of_work(geometry, &Work::of(geometry))
    }

    /// As [`Cost::of`], where what tiles and segments come to is known.
    pub(crate) fn of_work(geometry: &Geometry, work: &Work) -> Self {
        let sized = geometry.sized();
        let mut cost = Self {
            conventional: conventional_flops(sized),
            tiles: work.tiles,
            ..Self::default()
        };
        let add = |sum: &mut u128, positions: u128, flops: u64| {
            *sum = sum.saturating_add(positions.saturating_mul(flops.into()));
        };
        let nodes = sized.graph().nodes().iter().zip(duties(geometry));
        for ((node, duties), (sweep, again)) in nodes.zip(work.sweep.iter().zip(&work.again)) {
            add(&mut cost.forward, sweep.positions, node.forward_flops);
            add(&mut cost.resweep, again.positions, node.forward_flops);
            if duties.recompute {
                add(&mut cost.recompute, sweep.positions, node.forward_flops);
            }
            if duties.vjp {
                add(&mut cost.vjp, sweep.positions, node.vjp_flops);
            }
        }
        cost
    }

    /// As [`Cost::of`], with what is saved where `buffers` have it, in elements of `element_bytes` bytes.
    pub fn stored(geometry: &Geometry, buffers: &Buffers, element_bytes: u64) -> Self {
        Self {
            file_bytes: file_traffic(geometry, buffers, element_bytes),
            ..Self::of(geometry)
        }
    }

    /// All FLOPs of the recipe.
    pub fn total(&self) -> u128 {
        [self.forward, self.resweep, self.recompute, self.vjp]
            .into_iter()
            .fold(0, u128::saturating_add)
    }

    /// The FLOPs of the recipe over those of the conventional computation; 1 if neither has any.
    pub fn compute_ratio(&self) -> Fraction {
        if self.conventional == 0 {
            return Fraction::new(1, 1);
        }
        Fraction::new(self.total(), self.conventional)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} tile(s), {} times the conventional FLOPs",
            self.tiles,
            self.compute_ratio()
        )
    }
}

/// Bytes that are written to a file and read again for one image.
pub(crate) fn file_traffic(geometry: &Geometry, buffers: &Buffers, element_bytes: u64) -> u128 {
    let elements = (0..geometry.blocks()).fold(0_u128, |sum, block| {
        sum.saturating_add(buffers.file_traffic(block).into())
    });
    elements.saturating_mul(element_bytes.into())
}

fn runs_vjp(index: usize, node: &Node) -> bool {
    index > 0 && node.has_cotangent
}

/// FLOPs of the forward and the VJP of a whole image, each output position computed once.
pub fn conventional_flops(sized: &SizedGraph) -> u128 {
    let nodes = sized.graph().nodes().iter().enumerate();
    nodes.fold(0, |sum, (index, node)| {
        let vjp = if runs_vjp(index, node) {
            node.vjp_flops
        } else {
            0
        };
        let flops = u128::from(node.forward_flops) + u128::from(vjp);
        sum.saturating_add(sized.plane(index).area().saturating_mul(flops))
    })
}

/// Bytes of the activations that conventional training holds for one image: every node that some VJP reads.
pub fn conventional_activation_bytes(sized: &SizedGraph, element_bytes: u64) -> u128 {
    let graph = sized.graph();
    let nodes = graph.nodes();
    (0..nodes.len())
        .filter(|&index| {
            let own = nodes[index].has_cotangent && nodes[index].vjp_reads.output;
            let read = graph.consumers(index).iter().any(|&(consumer, _)| {
                runs_vjp(consumer.0, &nodes[consumer.0]) && nodes[consumer.0].vjp_reads.inputs
            });
            own || read || graph.outputs().iter().any(|output| output.0 == index)
        })
        .fold(0, |sum: u128, index| {
            let bytes = u128::from(nodes[index].channels) * u128::from(element_bytes);
            sum.saturating_add(sized.plane(index).area().saturating_mul(bytes))
        })
}
