//! A prediction of the time that a recipe takes, in picoseconds.

use std::fmt;
use std::ops::{Add, Mul};

use crate::cost::Cost;
use crate::graph::Graph;
use crate::memory::MemoryRequest;
use crate::recipe::Geometry;
use crate::work::{Amount, Work, duties};

/// A time in picoseconds: a FLOP takes about ten. Sums and products saturate.
///
/// ```
/// use stream_grad_tiling::Picoseconds;
/// assert_eq!(Picoseconds(1_234_567_890_123).to_string(), "1.234 s");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Picoseconds(pub u128);

impl fmt::Display for Picoseconds {
    /// In seconds, rounded down to milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0 / 1_000_000_000;
        write!(f, "{}.{:03} s", milliseconds / 1000, milliseconds % 1000)
    }
}

impl Add for Picoseconds {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Mul<u128> for Picoseconds {
    type Output = Self;

    fn mul(self, times: u128) -> Self {
        Self(self.0.saturating_mul(times))
    }
}

/// The time of one computation at one node, in picoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct VisitTime {
    /// For each tile, however little it owns.
    pub visit: u64,
    /// For each output position.
    pub position: u64,
}

impl VisitTime {
    fn of(self, amount: &Amount) -> Picoseconds {
        Picoseconds(self.visit.into()) * amount.visits
            + Picoseconds(self.position.into()) * amount.positions
    }
}

/// The time of a node's computations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NodeTime {
    /// The forward computation, in whichever sweep.
    pub forward: VisitTime,
    /// The VJP.
    pub vjp: VisitTime,
}

/// What a recipe's time is predicted from.
///
/// Keeping more in memory is never predicted to be slower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeModel {
    /// Of each node of the graph; nodes beyond the end take no time.
    pub nodes: Vec<NodeTime>,
    /// Picoseconds for a byte of a halo or of its cotangent that is copied.
    pub copied_byte: u64,
    /// Picoseconds for a byte that is written to a file and read again.
    pub file_byte: u64,
    /// Picoseconds of a step that depend neither on the recipe nor on the number of images.
    pub fixed: u64,
}

impl TimeModel {
    /// Picoseconds of a FLOP where nothing was measured: 50 billion a second.
    pub const FLOP: u64 = 20;
    /// Picoseconds of a visit of a node of a tile where nothing was measured.
    pub const VISIT: u64 = 4_000_000;
    /// Picoseconds of a copied byte where nothing was measured: five gigabytes a second.
    pub const COPIED_BYTE: u64 = 200;
    /// Picoseconds of a byte through a file where nothing was measured: a gigabyte a second each way.
    pub const FILE_BYTE: u64 = 2_000;

    /// The fixed table for when nothing was measured: the graph's FLOPs at one rate, and the constants of this type.
    pub fn of_flops(graph: &Graph) -> Self {
        let time = |flops: u64| VisitTime {
            visit: Self::VISIT,
            position: flops.saturating_mul(Self::FLOP),
        };
        let nodes = graph.nodes().iter().map(|node| NodeTime {
            forward: time(node.forward_flops),
            vjp: time(node.vjp_flops),
        });
        Self {
            nodes: nodes.collect(),
            copied_byte: Self::COPIED_BYTE,
            file_byte: Self::FILE_BYTE,
            fixed: 0,
        }
    }

    /// The time of forward and backward of all images of `memory` under a recipe whose cost for one image is `cost`.
    ///
    /// ```
    /// use stream_grad_tiling::{
    ///     AxisRule, Cost, Edge, FixedBytes, Geometry, Graph, MemoryRequest, Node, NodeId, PerAxis, Recipe,
    ///     SizedGraph, TimeModel, VjpReads, Window,
    /// };
    /// let mut graph = Graph::new(3, false);
    /// let convolution = graph.push(Node {
    ///     name: "conv".into(),
    ///     channels: 16,
    ///     inputs: vec![Edge {
    ///         source: NodeId::IMAGE,
    ///         rule: PerAxis::both(AxisRule::Window(Window::new(3, 1, 1, 1, 1)?)),
    ///     }],
    ///     forward_flops: 2 * 27 * 16,
    ///     vjp_flops: 2 * 27 * 16,
    ///     vjp_reads: VjpReads { output: true, inputs: true },
    ///     has_cotangent: true,
    /// })?;
    /// graph.set_outputs(vec![convolution])?;
    /// let sized = SizedGraph::new(graph, PerAxis::both(64))?;
    /// let time = TimeModel::of_flops(sized.graph());
    /// let memory = MemoryRequest::new(4, 1, FixedBytes::default());
    /// let predict = |tile| {
    ///     let recipe = Recipe { tile: PerAxis::both(tile), ..Recipe::whole(&sized) };
    ///     let geometry = Geometry::new(sized.clone(), recipe)?;
    ///     Ok::<_, stream_grad_tiling::TilingError>(time.predict(&geometry, &Cost::of(&geometry), &memory))
    /// };
    /// assert!(predict(64)? < predict(8)?);
    /// # Ok::<(), stream_grad_tiling::TilingError>(())
    /// ```
    pub fn predict(&self, geometry: &Geometry, cost: &Cost, memory: &MemoryRequest) -> Picoseconds {
        self.of_work(geometry, &Work::of(geometry), cost.file_bytes, memory)
    }

    /// As [`TimeModel::predict`], where what tiles and segments come to is known.
    pub(crate) fn of_work(
        &self,
        geometry: &Geometry,
        work: &Work,
        file_bytes: u128,
        memory: &MemoryRequest,
    ) -> Picoseconds {
        let nodes = geometry.sized().graph().nodes();
        let mut image = Picoseconds(self.file_byte.into()) * file_bytes;
        let amounts = work.sweep.iter().zip(&work.again);
        for (((index, node), duties), (sweep, again)) in
            nodes.iter().enumerate().zip(duties(geometry)).zip(amounts)
        {
            let time = self.nodes.get(index).copied().unwrap_or_default();
            let byte = u128::from(node.channels)
                .saturating_mul(memory.element_bytes.into())
                .saturating_mul(self.copied_byte.into());
            // A halo is copied out of one tile and into another.
            let copies = |amount: &Amount, times| Picoseconds(byte) * amount.halo * times;
            image = image + time.forward.of(sweep) + copies(sweep, 2);
            image = image + time.forward.of(again) + copies(again, 2);
            if duties.recompute {
                image = image + time.forward.of(sweep) + copies(sweep, 1);
            }
            if duties.vjp {
                image = image + time.vjp.of(sweep) + copies(sweep, 2);
            }
        }
        image * u128::from(memory.images) + Picoseconds(self.fixed.into())
    }

    /// The time for which a node is computed again in the backward sweep of one image, if it is.
    pub(crate) fn recompute(&self, node: usize, sweep: &Amount) -> Picoseconds {
        let time = self.nodes.get(node).copied().unwrap_or_default();
        time.forward.of(sweep)
    }
}
