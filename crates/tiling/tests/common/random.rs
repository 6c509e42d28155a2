//! Random graphs, sizes and recipes.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use proptest::prelude::*;
use stream_grad_tiling::{
    AlignCorners, Axis, AxisRule, Edge, Geometry, Graph, LocalRule, Node, NodeId, PerAxis, Recipe,
    Shifts, SizedGraph, Span, TransposedWindow, VjpReads, Window, strides,
};

/// One step of a random network, from the last node so far.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Window(PerAxis<Window>),
    Custom(PerAxis<Window>),
    Pointwise,
    Nearest(i64),
    Bilinear(i64, AlignCorners),
    Transposed(PerAxis<TransposedWindow>),
    /// A branch of two windows of stride 1 that is added to its input.
    Residual(u64, u64),
    /// A branch that lags by a large dilated window, joined with its input.
    Concat(u64),
    /// Down by two, a window, up again, joined with the input.
    UNet(Option<AlignCorners>),
}

/// What makes a [`Node`] besides its place: whether it trains, and what its VJP reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traits {
    trains: bool,
    reads: VjpReads,
    channels: u64,
}

/// Everything that decides a case.
#[derive(Clone)]
pub(crate) struct Case {
    steps: Vec<Step>,
    traits: Vec<Traits>,
    image: PerAxis<u64>,
    tile: PerAxis<u64>,
    block: PerAxis<u64>,
    segments: u64,
    stored: Vec<bool>,
    shifts: Vec<Shifts>,
}

impl fmt::Debug for Case {
    /// Without the traits of nodes, which are long and seldom matter.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("steps", &self.steps)
            .field("image", &self.image)
            .field("tile", &self.tile)
            .field("block", &self.block)
            .field("segments", &self.segments)
            .finish_non_exhaustive()
    }
}

/// A window rule stated by a user, who says that it repeats itself.
#[derive(Debug)]
struct Wrapped(Window);

impl LocalRule for Wrapped {
    fn output_size(&self, size: i64) -> Option<i64> {
        self.0.output_size(size)
    }

    fn prefix(&self, available: i64, size: i64) -> i64 {
        self.0.prefix(available, size)
    }

    fn needed(&self, outputs: Span, _size: i64) -> Span {
        self.0.needed(outputs)
    }

    fn stride(&self) -> (i64, i64) {
        (self.0.stride(), 1)
    }

    fn is_regular(&self) -> bool {
        true
    }
}

pub(crate) fn windows() -> impl Strategy<Value = Window> {
    (
        1_u64..=5,
        1_u64..=4,
        1_u64..=2,
        0_u64..=4,
        0_u64..=4,
        any::<bool>(),
    )
        .prop_map(|(kernel, stride, dilation, before, after, ceil_mode)| {
            let window = Window::new(kernel, stride, dilation, before, after).unwrap();
            if ceil_mode {
                window.ceil_mode()
            } else {
                window
            }
        })
}

fn transposed_windows() -> impl Strategy<Value = TransposedWindow> {
    (
        1_u64..=4,
        1_u64..=3,
        1_u64..=2,
        0_u64..=2,
        0_u64..=2,
        0_u64..=2,
    )
        .prop_map(|(kernel, stride, dilation, before, after, more)| {
            let window = Window::new(kernel, stride, dilation, before, after).unwrap();
            TransposedWindow::new(window, more).unwrap()
        })
}

fn window_pairs() -> impl Strategy<Value = PerAxis<Window>> {
    (windows(), windows()).prop_map(|(rows, columns)| PerAxis::new(rows, columns))
}

pub(crate) fn corners() -> impl Strategy<Value = AlignCorners> {
    prop_oneof![Just(AlignCorners::No), Just(AlignCorners::Yes)]
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => window_pairs().prop_map(Step::Window),
        1 => window_pairs().prop_map(Step::Custom),
        1 => Just(Step::Pointwise),
        1 => (1_i64..=3).prop_map(Step::Nearest),
        1 => (transposed_windows(), transposed_windows())
            .prop_map(|(rows, columns)| Step::Transposed(PerAxis::new(rows, columns))),
        1 => (1_i64..=3, corners()).prop_map(|(factor, corners)| Step::Bilinear(factor, corners)),
        2 => (0_u64..=2, 0_u64..=2).prop_map(|(a, b)| Step::Residual(2 * a + 1, 2 * b + 1)),
        2 => (1_u64..=3).prop_map(Step::Concat),
        1 => prop::option::of(corners()).prop_map(Step::UNet),
    ]
}

fn traits() -> impl Strategy<Value = Traits> {
    (any::<bool>(), any::<bool>(), any::<bool>(), 1_u64..=20).prop_map(
        |(trains, output, inputs, channels)| Traits {
            trains,
            reads: VjpReads { output, inputs },
            channels,
        },
    )
}

/// Any case; its image and cuts are ragged.
pub(crate) fn cases() -> impl Strategy<Value = Case> {
    (
        prop::collection::vec(steps(), 1..7),
        prop::collection::vec(traits(), 32),
        (6_u64..=44, 6_u64..=44),
        (1_u64..=30, 1_u64..=30),
        (1_u64..=40, 1_u64..=40),
        1_u64..=5,
        prop::collection::vec(any::<bool>(), 32),
    )
        .prop_map(
            |(steps, traits, image, tile, block, segments, stored)| Case {
                steps,
                traits,
                image: PerAxis::new(image.0, image.1),
                tile: PerAxis::new(tile.0, tile.1),
                block: PerAxis::new(block.0, block.1),
                segments,
                stored,
                shifts: vec![Shifts::All; 32],
            },
        )
}

fn shifts() -> impl Strategy<Value = Shifts> {
    let grid = |positions: u32| Shifts::Multiples(NonZeroU32::new(positions).unwrap());
    prop_oneof![
        16 => Just(Shifts::All),
        4 => Just(grid(2)),
        1 => Just(grid(3)),
        1 => Just(Shifts::Nothing),
    ]
}

/// Cases of few steps on larger images, some of whose nodes do not compute the same everywhere.
pub(crate) fn shifted_cases() -> impl Strategy<Value = Case> {
    (
        cases(),
        (30_u64..=96, 30_u64..=96),
        prop::collection::vec(shifts(), 32),
    )
        .prop_map(|(case, image, shifts)| Case {
            steps: case.steps.into_iter().take(4).collect(),
            image: PerAxis::new(image.0, image.1),
            shifts,
            ..case
        })
}

/// The largest extent that upsampling may reach.
const MOST: i64 = 150;

impl Case {
    /// The graph; steps that the image is too small for are left out.
    pub(crate) fn sized(&self) -> SizedGraph {
        self.sized_for(self.image)
    }

    /// The same for another image.
    pub(crate) fn sized_for(&self, image: PerAxis<u64>) -> SizedGraph {
        let mut graph = Graph::new(self.traits[31].channels, self.traits[31].trains);
        graph.set_outputs(vec![NodeId::IMAGE]).unwrap();
        let mut sized = SizedGraph::new(graph.clone(), image).unwrap();
        let most = MOST.max(i64::try_from(2 * image.rows.max(image.columns)).unwrap());
        for step in &self.steps {
            let mut candidate = graph.clone();
            self.apply(&mut candidate, step);
            let last = NodeId(candidate.nodes().len() - 1);
            candidate.set_outputs(vec![last]).unwrap();
            if let Ok(larger) = SizedGraph::new(candidate.clone(), image) {
                let size = larger.size(last.0);
                if size.rows.max(size.columns) <= most && last.0 < 31 {
                    graph = candidate;
                    sized = larger;
                }
            }
        }
        sized
    }

    fn apply(&self, graph: &mut Graph, step: &Step) {
        let x = NodeId(graph.nodes().len() - 1);
        let window = |kernel: u64, stride: u64, dilation: u64| {
            let pad = dilation * (kernel - 1) / 2;
            let rule = Window::new(kernel, stride, dilation, pad, pad).unwrap();
            PerAxis::both(AxisRule::Window(rule))
        };
        let up = |rule: AxisRule| PerAxis::both(rule);
        match step {
            Step::Window(pair) => {
                self.push(graph, &[(x, pair.map(AxisRule::Window))]);
            }
            Step::Custom(pair) => {
                let rule = pair.map(|window| AxisRule::Custom(Arc::new(Wrapped(window))));
                self.push(graph, &[(x, rule)]);
            }
            Step::Pointwise => {
                self.push(graph, &[(x, up(AxisRule::Pointwise))]);
            }
            Step::Nearest(factor) => {
                self.push(graph, &[(x, up(AxisRule::UpsampleNearest(*factor)))]);
            }
            Step::Transposed(pair) => {
                self.push(graph, &[(x, pair.map(AxisRule::TransposedWindow))]);
            }
            Step::Bilinear(factor, corners) => {
                let rule = AxisRule::UpsampleBilinear(*factor, *corners);
                self.push(graph, &[(x, up(rule))]);
            }
            Step::Residual(first, second) => {
                let y = self.push(graph, &[(x, window(*first, 1, 1))]);
                // A fused convolution and sum: a window edge and a pointwise one.
                let sum = [(y, window(*second, 1, 1)), (x, up(AxisRule::Pointwise))];
                self.push(graph, &sum);
            }
            Step::Concat(dilation) => {
                let y = self.push(graph, &[(x, window(5, 1, *dilation))]);
                let join = [(x, up(AxisRule::Pointwise)), (y, up(AxisRule::Pointwise))];
                self.push(graph, &join);
            }
            Step::UNet(corners) => {
                let halving = Window::new(2, 2, 1, 0, 0).unwrap();
                let y = self.push(graph, &[(x, PerAxis::both(AxisRule::Window(halving)))]);
                let y = self.push(graph, &[(y, window(3, 1, 1))]);
                let rule = match corners {
                    None => AxisRule::UpsampleNearest(2),
                    Some(corners) => AxisRule::UpsampleBilinear(2, *corners),
                };
                let y = self.push(graph, &[(y, up(rule))]);
                let join = [(x, up(AxisRule::Pointwise)), (y, up(AxisRule::Pointwise))];
                self.push(graph, &join);
            }
        }
    }

    fn push(&self, graph: &mut Graph, inputs: &[(NodeId, PerAxis<AxisRule>)]) -> NodeId {
        let index = graph.nodes().len();
        let traits = self.traits[index % 32];
        let inherited = inputs
            .iter()
            .any(|(source, _)| graph.nodes()[source.0].has_cotangent);
        let node = graph
            .push(Node {
                name: format!("node{index}"),
                channels: traits.channels,
                inputs: inputs
                    .iter()
                    .map(|(source, rule)| Edge {
                        source: *source,
                        rule: rule.clone(),
                    })
                    .collect(),
                forward_flops: 3 * index as u64,
                vjp_flops: 7 * index as u64,
                vjp_reads: traits.reads,
                has_cotangent: traits.trains || inherited,
            })
            .unwrap();
        graph.set_shifts(node, self.shifts[index % 32]).unwrap();
        node
    }

    /// The nodes that are stored.
    pub(crate) fn stored_nodes(&self, sized: &SizedGraph) -> Vec<NodeId> {
        let stored = (1..sized.graph().nodes().len()).filter(|&node| self.stored[node]);
        stored.map(NodeId).collect()
    }

    /// The recipe's geometry, with at most one segment a band.
    pub(crate) fn geometry(&self) -> Geometry {
        let sized = self.sized();
        let stored = self.stored_nodes(&sized);
        let recipe = Recipe {
            tile: self.tile,
            output_block: self.block,
            ..Recipe::whole(&sized)
        };
        let tiled = Geometry::new(sized, recipe).unwrap();
        let segments = self.segments.min(tiled.fewest_bands());
        tiled.with(segments, stored).unwrap()
    }

    /// A recipe of one segment whose tiles mostly are a few total strides wide, so that many lie alike.
    pub(crate) fn alike_geometry(&self) -> Geometry {
        let sized = self.sized();
        let edge = |axis: Axis| {
            let largest = strides(&sized, axis)
                .iter()
                .map(|stride| stride.ceil())
                .max();
            let stride = u64::try_from(largest.unwrap()).unwrap();
            // One in eight is whatever it is.
            match self.tile[axis] {
                tile if tile % 8 == 0 => tile,
                tile => stride * (1 + tile % 4),
            }
        };
        let tile = PerAxis::new(edge(Axis::Rows), edge(Axis::Columns));
        let whole = Recipe::whole(&sized);
        let output_block = if self.segments > 2 {
            self.block
        } else {
            whole.output_block
        };
        Geometry::new(
            sized,
            Recipe {
                tile,
                output_block,
                ..whole
            },
        )
        .unwrap()
    }
}
