//! Tiles that lie alike: where the image is of one colour, one of them is computed for all.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::geometry::{Geometry, Tile};
use crate::graph::{Shifts, SizedGraph};
use crate::rect::Rect;
use crate::schedule::AxisSchedule;
use crate::span::{Axis, PerAxis, Span};

/// What a tile has in common with those that lie alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileClass {
    /// Tiles with one key lie alike.
    pub key: PerAxis<usize>,
    /// The part of the image that has to be of one colour, the same for both, so that two of them are computed alike. It may be empty:
    /// what depends on nothing but padding.
    pub field: Rect,
}

/// The classes of all tiles of a recipe, for the forward or for the backward sweep.
///
/// # Theorem
/// Let everything be one axis, as in the [crate's definitions](crate#definitions); in two axes what is said holds for each of them. Tile `i` owns
/// `[P_v, Q_v)` of node `v` and holds that and its halo, `[K_v, Q_v)`; `[L_v, Q_v)` is the halo that it hands on. Two tiles, of one block or
/// of two, have one *key* if for every node `v` they agree in
///
/// 1. the lengths of what they own, of their halos and of the halos that they hand on;
/// 2. for each edge from `u` with a stride of `s / d`: `s P_v - d P_u`, and `P_v` modulo `d`: the phase of their windows;
/// 3. `P_v` modulo `m`, where the arithmetic of `v` has a grid of `m` positions ([`Shifts::Multiples`]).
///
/// The *field* of a tile is what its held positions depend on in the image. A tile *touches* an end if a window on the way there leaves
/// a plane. Irregular rules and [`Shifts::Nothing`] count as touching. Then:
///
/// - **Forward.** Of two tiles with one key that touch no end, and whose fields are of one colour, the same in both, all held values
///   agree: those of the one are those of the other, moved, bit for bit. So does what they hand on.
///
/// *Proof.* Let `t_v` be by how much `P_v` differs. By (1) what they hold of `v` differs by `t_v` alone. By (2) `t_v` is a multiple of `d` and
/// `t_u = s t_v / d`, so since the rule is regular, what moved outputs of `v` read of `u` is what the outputs read, moved by `t_u`;
/// nothing of it is cut off, since no window leaves its plane. So what the one depends on, of any node, is what the other depends on,
/// moved by `t`. By induction along the graph all values there agree: at the image, since they are of one colour; at `v`, since it computes
/// the same of the same values, (3) included. ∎
///
/// Backward, let the *cone* of a tile be what depends on the positions that it owns of nodes that have a cotangent, and let its field be
/// what held positions and the cone depend on. It touches an end, too, if the cone is cut off: an output beyond the end of its plane,
/// or one of another block, would read what lies in it. Then:
///
/// - **Backward.** Of two tiles with one key that touch no end, whose fields are of one colour, the same in both, and over whose cones
///   the cotangents of the outputs agree, moved, the complete cotangents of all owned positions agree, moved, and what their VJPs add
///   to halos and to gradients of parameters agrees.
///
/// *Proof.* As before, values agree over held positions and cone. The cotangent of `x` in the cone of `u` is the sum over what reads `x`:
/// over outputs of later nodes `v`, all of them in the cone, since it is not cut off. What an output contributes depends on its
/// cotangent, on values that it reads, and on where `x` lies in its window. So by induction from the outputs of the graph on,
/// cotangents in the cones agree. Those of owned positions are complete, and the tile's VJPs read nothing else. ∎
///
/// "Agree" is meant of real numbers here: a sum over several tiles rounds in the order in which these were cut. Cotangents are not of
/// one colour, but repeat themselves with the strides: the first maximum of equal ones takes all of a gradient.
///
/// Where a tile touches an end along one axis, its key there is its own. So tiles along the upper end of an image are alike, too.
///
/// # Example
/// ```
/// use stream_grad_tiling::{
///     AxisRule, Edge, Geometry, Graph, Node, NodeId, PerAxis, Recipe, SizedGraph, Span, Tile, TileClasses, VjpReads, Window,
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
/// let recipe = Recipe { tile: PerAxis::both(8), ..Recipe::whole(&sized) };
/// let classes = TileClasses::forward(&Geometry::new(sized, recipe)?);
///
/// let of = |band, column| classes.of(0, Tile { band, column });
/// assert_eq!(of(1, 1).key, of(5, 6).key);
/// // The first column and the last meet padding, but along a column tiles are alike.
/// assert_ne!(of(1, 0).key, of(1, 1).key);
/// assert_eq!(of(1, 0).key, of(2, 0).key);
/// assert_eq!(classes.tiles(of(1, 1).key), 6 * 6);
/// // It owns 8 rows, and holds two more.
/// assert_eq!(of(1, 1).field.rows, Span::new(6, 16));
/// # Ok::<(), stream_grad_tiling::TilingError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TileClasses {
    axes: PerAxis<AxisClasses>,
    /// Number of columns of blocks.
    columns: usize,
}

/// The bands of one axis.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct AxisClasses {
    /// By row (or column) of blocks.
    bands: Vec<Vec<BandClass>>,
    /// Number of bands with each key.
    counts: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct BandClass {
    key: usize,
    field: Span,
    /// Of each output of the graph, what the outputs of the band (backward: its cone) are.
    outputs: Vec<Span>,
}

/// A key of one axis: how many bands have it, and the first of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrequentKey {
    pub(crate) count: u64,
    /// The row (or column) of blocks.
    pub(crate) line: usize,
    pub(crate) band: usize,
}

/// Which sweep classes are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

impl TileClasses {
    /// Which tiles have the same values forward: all that they hold, and so all that they hand on.
    pub fn forward(geometry: &Geometry) -> Self {
        Self::new(geometry, Direction::Forward)
    }

    /// Which tiles have the same cotangents, too, where those of the [outputs](Self::outputs) agree.
    pub fn backward(geometry: &Geometry) -> Self {
        Self::new(geometry, Direction::Backward)
    }

    fn new(geometry: &Geometry, direction: Direction) -> Self {
        let axis = |axis| AxisClasses::new(geometry, axis, direction);
        Self {
            axes: PerAxis::new(axis(Axis::Rows), axis(Axis::Columns)),
            columns: geometry.schedules(Axis::Columns).len(),
        }
    }

    /// The class of a tile of block `block`.
    pub fn of(&self, block: usize, tile: Tile) -> TileClass {
        let bands = self.bands(block, tile);
        TileClass {
            key: bands.map(|band| band.key),
            field: bands.map(|band| band.field),
        }
    }

    /// The number of tiles with a key, over all blocks.
    pub fn tiles(&self, key: PerAxis<usize>) -> u64 {
        let count = |axis: Axis| self.axes[axis].counts.get(key[axis]).copied().unwrap_or(0);
        count(Axis::Rows).saturating_mul(count(Axis::Columns))
    }

    /// The positions of output `output` of the graph (an index into its outputs) that a tile owns forward, and that are in its cone
    /// backward.
    pub fn outputs(&self, block: usize, tile: Tile, output: usize) -> Rect {
        self.bands(block, tile).map(|band| band.outputs[output])
    }

    /// Of each axis, the most frequent keys, with the first of equally frequent ones first.
    pub(crate) fn most_frequent(&self, most: usize) -> [Vec<FrequentKey>; 2] {
        Axis::BOTH.map(|axis| self.axes[axis].most_frequent(most))
    }

    /// The block in a row and a column of blocks.
    pub(crate) fn block_at(&self, row: usize, column: usize) -> usize {
        row * self.columns + column
    }

    fn bands(&self, block: usize, tile: Tile) -> PerAxis<&BandClass> {
        let (rows, columns) = (&self.axes.rows.bands, &self.axes.columns.bands);
        PerAxis::new(
            &rows[block / self.columns][tile.band],
            &columns[block % self.columns][tile.column],
        )
    }
}

impl AxisClasses {
    fn new(geometry: &Geometry, axis: Axis, direction: Direction) -> Self {
        let sized = geometry.sized();
        let regular = is_regular(sized, axis);
        let mut keys: HashMap<Vec<i128>, usize> = HashMap::new();
        let mut classes = Self::default();
        for schedule in geometry.schedules(axis) {
            let line = Line {
                sized,
                axis,
                schedule,
            };
            let bands = (0..schedule.bands()).map(|band| {
                let reach = line.reach(band, direction);
                let next = classes.counts.len();
                let key = if regular && !reach.touches {
                    *keys.entry(line.key(band)).or_insert(next)
                } else {
                    next
                };
                if key == next {
                    classes.counts.push(0);
                }
                classes.counts[key] += 1;
                BandClass {
                    key,
                    field: reach.field,
                    outputs: reach.outputs,
                }
            });
            let bands = bands.collect();
            classes.bands.push(bands);
        }
        classes
    }

    fn most_frequent(&self, most: usize) -> Vec<FrequentKey> {
        let mut keys = Vec::new();
        for (line, bands) in self.bands.iter().enumerate() {
            for (band, class) in bands.iter().enumerate() {
                // Keys are counted in the order in which they come.
                if class.key == keys.len() {
                    keys.push(FrequentKey {
                        count: self.counts[class.key],
                        line,
                        band,
                    });
                }
            }
        }
        keys.sort_by_key(|key| Reverse(key.count));
        keys.truncate(most);
        keys
    }
}

/// Whether any shift leaves all computations the same.
fn is_regular(sized: &SizedGraph, axis: Axis) -> bool {
    let graph = sized.graph();
    let mut nodes = graph.nodes().iter().enumerate();
    nodes.all(|(index, node)| {
        let mut edges = node.inputs.iter();
        graph.shifts(index) != Shifts::Nothing && edges.all(|edge| edge.rule[axis].is_regular())
    })
}

/// One axis of the blocks of one row or column.
#[derive(Clone, Copy)]
struct Line<'a> {
    sized: &'a SizedGraph,
    axis: Axis,
    schedule: &'a AxisSchedule,
}

/// What a band depends on, and what depends on it.
struct Reach {
    field: Span,
    outputs: Vec<Span>,
    touches: bool,
}

impl Line<'_> {
    fn nodes(self) -> usize {
        self.sized.graph().nodes().len()
    }

    /// What bands that lie alike have in common.
    fn key(self, band: usize) -> Vec<i128> {
        let graph = self.sized.graph();
        let first = |node: usize| i128::from(self.schedule.owned(band, node).lo);
        let mut key = Vec::new();
        for (index, node) in graph.nodes().iter().enumerate() {
            let lengths = [
                self.schedule.owned(band, index),
                self.schedule.halo(band, index),
                // What it hands on.
                self.schedule.halo(band + 1, index),
            ];
            key.extend(lengths.map(|span| i128::from(span.len())));
            if let Shifts::Multiples(grid) = graph.shifts(index) {
                key.push(first(index).rem_euclid(i128::from(grid.get())));
            }
            for edge in &node.inputs {
                let (inputs, outputs) = edge.rule[self.axis].stride();
                let (inputs, outputs) = (i128::from(inputs), i128::from(outputs.max(1)));
                key.push(first(index) * inputs - first(edge.source.0) * outputs);
                key.push(first(index).rem_euclid(outputs));
            }
        }
        key
    }

    fn reach(self, band: usize, direction: Direction) -> Reach {
        let mut touches = false;
        let cone = match direction {
            Direction::Forward => self.owned(band, |_| true),
            Direction::Backward => self.cone(band, &mut touches),
        };
        let spans = cone.iter().enumerate();
        let spans = spans.map(|(node, span)| self.schedule.held(band, node).hull(*span));
        let field = self.field(spans.collect(), &mut touches);
        let outputs = self.sized.graph().outputs().iter();
        Reach {
            field,
            outputs: outputs.map(|output| cone[output.0]).collect(),
            touches,
        }
    }

    /// What the band owns of the nodes that are wanted.
    fn owned(self, band: usize, wanted: impl Fn(usize) -> bool) -> Vec<Span> {
        let owned = |node| match wanted(node) {
            true => self.schedule.owned(band, node),
            false => Span::default(),
        };
        (0..self.nodes()).map(owned).collect()
    }

    /// What depends on the positions that the band owns and that have a cotangent, node by node.
    fn cone(self, band: usize, touches: &mut bool) -> Vec<Span> {
        let nodes = self.sized.graph().nodes();
        let mut cone = self.owned(band, |node| nodes[node].has_cotangent);
        for (index, node) in nodes.iter().enumerate() {
            for edge in &node.inputs {
                let source = edge.source.0;
                let read = cone[source];
                if read.is_empty() {
                    continue;
                }
                let size = self.sized.size(source)[self.axis];
                let rule = &edge.rule[self.axis];
                let needs = |output| rule.unbounded(Span::new(output, output + 1), size);
                // Those before are owned by bands before, and read nothing of this one.
                let first = self.schedule.owned(band, index).lo;
                let outputs = Span::new(first, self.schedule.needed(index).hi);
                // An irregular rule is not asked for what lies beyond.
                *touches |= !rule.is_regular()
                    || needs(outputs.lo - 1).hi > read.lo
                    || needs(outputs.hi).lo < read.hi;
                let readers = Span::new(
                    outputs.first_where(|output| needs(output).hi > read.lo),
                    outputs.first_where(|output| needs(output).lo >= read.hi),
                );
                cone[index] = cone[index].hull(readers);
            }
        }
        cone
    }

    /// The part of the image that these spans of all nodes depend on.
    fn field(self, mut spans: Vec<Span>, touches: &mut bool) -> Span {
        for (index, node) in self.sized.graph().nodes().iter().enumerate().rev() {
            if spans[index].is_empty() {
                continue;
            }
            for edge in &node.inputs {
                let source = edge.source.0;
                let plane = self.sized.plane(source)[self.axis];
                let size = self.sized.size(source)[self.axis];
                let read = edge.rule[self.axis].unbounded(spans[index], size);
                *touches |= !plane.covers(read);
                spans[source] = spans[source].hull(read.intersect(plane));
            }
        }
        spans[0]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

    use std::num::NonZeroU32;

    use super::*;
    use crate::graph::{Edge, Graph, Node, NodeId, VjpReads};
    use crate::recipe::Recipe;
    use crate::rule::{AlignCorners, AxisRule};
    use crate::window::Window;

    fn window(kernel: u64, stride: u64, before: u64, after: u64) -> AxisRule {
        AxisRule::Window(Window::new(kernel, stride, 1, before, after).unwrap())
    }

    /// Nodes that read the one of that number, in turn; the last one and those that nobody reads are outputs.
    fn geometry(rules: &[(usize, AxisRule)], shifts: Shifts, sizes: [u64; 3]) -> Geometry {
        let mut graph = Graph::new(1, true);
        for (source, rule) in rules {
            let inputs = vec![Edge {
                source: NodeId(*source),
                rule: PerAxis::both(rule.clone()),
            }];
            let node = Node {
                name: "node".into(),
                channels: 1,
                inputs,
                forward_flops: 1,
                vjp_flops: 2,
                vjp_reads: VjpReads::default(),
                has_cotangent: true,
            };
            let node = graph.push(node).unwrap();
            graph.set_shifts(node, shifts).unwrap();
        }
        let ends = (1..=rules.len()).filter(|&node| graph.consumers(node).is_empty());
        graph.set_outputs(ends.map(NodeId).collect()).unwrap();
        let [image, tile, block] = sizes;
        let sized = SizedGraph::new(graph, PerAxis::both(image)).unwrap();
        let recipe = Recipe {
            tile: PerAxis::both(tile),
            output_block: PerAxis::both(block),
            ..Recipe::whole(&sized)
        };
        Geometry::new(sized, recipe).unwrap()
    }

    /// The keys of the bands of rows.
    fn keys(classes: &TileClasses) -> Vec<usize> {
        let bands = classes.axes.rows.bands.iter().flatten();
        bands.map(|band| band.key).collect()
    }

    /// Two bands that agree in what they own and in their halos, at every node.
    fn as_long(geometry: &Geometry, bands: [usize; 2]) -> bool {
        let rows = &geometry.schedules(Axis::Rows)[0];
        rows.alike(bands[0]) == rows.alike(bands[1])
    }

    #[test]
    fn arithmetic_on_a_grid_is_the_same_on_the_grid() {
        let rules = [(0, window(3, 1, 1, 1))];
        let grid = Shifts::Multiples(NonZeroU32::new(2).unwrap());
        let of = |tile| {
            keys(&TileClasses::forward(&geometry(
                &rules,
                grid,
                [60, tile, 60],
            )))
        };
        let odd = of(7);
        assert!(odd[1] != odd[2] && odd[1] == odd[3] && odd[2] == odd[4]);
        let even = of(6);
        assert!(even[1] == even[2] && even[1] == even[3]);
    }

    #[test]
    fn windows_have_a_phase() {
        // Owning is by what fits: bands of 5 own 2 or 3 outputs; of those that own as many, some begin elsewhere in their windows.
        let rules = [(0, window(1, 3, 0, 0)), (0, window(7, 1, 3, 3))];
        let geometry = geometry(&rules, Shifts::All, [90, 5, 90]);
        let keys = keys(&TileClasses::forward(&geometry));
        let inner: Vec<usize> = (2..15).collect();
        let pairs = inner
            .iter()
            .flat_map(|&a| inner.iter().map(move |&b| [a, b]));
        let (mut equal, mut phases) = (0, 0);
        for bands in pairs.filter(|pair| pair[0] < pair[1]) {
            let alike = (5 * (bands[1] - bands[0])).is_multiple_of(3);
            assert_eq!(keys[bands[0]] == keys[bands[1]], alike, "{bands:?}");
            equal += usize::from(alike);
            phases += usize::from(!alike && as_long(&geometry, bands));
        }
        assert!(equal > 0 && phases > 0, "{equal} {phases}");
    }

    #[test]
    fn halos_that_are_handed_on_count() {
        let rules = [(0, window(5, 4, 3, 0)), (0, window(1, 1, 0, 0))];
        let geometry = geometry(&rules, Shifts::All, [41, 8, 41]);
        let rows = &geometry.schedules(Axis::Rows)[0];
        let found = (1..rows.bands()).flat_map(|a| (1..a).map(move |b| [a, b]));
        let differ = |[a, b]: [usize; 2]| {
            (0..3).any(|node| rows.halo(a + 1, node).len() != rows.halo(b + 1, node).len())
        };
        let bands = found
            .into_iter()
            .find(|&bands| as_long(&geometry, bands) && differ(bands));
        let [a, b] = bands.unwrap();
        let keys = keys(&TileClasses::forward(&geometry));
        assert_ne!(keys[a], keys[b]);
    }

    #[test]
    fn cones_end_with_the_plane() {
        // The last band but one depends on no padding, but what depends on it would.
        let rules = [(0, window(9, 1, 4, 4)), (1, window(9, 1, 4, 4))];
        let geometry = geometry(&rules, Shifts::All, [60, 10, 60]);
        let forward = keys(&TileClasses::forward(&geometry));
        let backward = keys(&TileClasses::backward(&geometry));
        assert!(forward[2] == forward[3] && forward[2] == forward[4]);
        assert!(backward[2] == backward[3] && backward[2] != backward[4]);
        // Rows 30 to 40 of the image are read for rows 22 to 48 of the output, which depend on eight more on either side.
        let classes = TileClasses::backward(&geometry);
        let tile = Tile { band: 3, column: 3 };
        assert_eq!(classes.outputs(0, tile, 0).rows, Span::new(22, 48));
        assert_eq!(classes.of(0, tile).field.rows, Span::new(14, 56));
    }

    #[test]
    fn inner_borders_of_blocks_cut_cones_off() {
        let rules = [(0, window(3, 1, 1, 1))];
        let geometry = geometry(&rules, Shifts::All, [64, 8, 32]);
        let classes = TileClasses::backward(&geometry);
        let rows = &classes.axes.rows.bands;
        // Along the inner border, each for itself; inside, one as in the other block.
        let ends = [rows[0].last(), rows[1].first()].map(Option::unwrap);
        assert!(
            rows.iter()
                .flatten()
                .filter(|band| band.key == ends[0].key)
                .count()
                == 1
        );
        assert!(
            rows.iter()
                .flatten()
                .filter(|band| band.key == ends[1].key)
                .count()
                == 1
        );
        assert_eq!(rows[0][1].key, rows[1][2].key);
    }

    #[test]
    fn what_sees_positions_is_alike_nowhere() {
        let rules = [(0, window(1, 1, 0, 0))];
        let aligned = [(0, AxisRule::UpsampleBilinear(2, AlignCorners::Yes))];
        for (rules, shifts) in [(&rules, Shifts::Nothing), (&aligned, Shifts::All)] {
            let geometry = geometry(rules, shifts, [40, 8, 80]);
            for classes in [
                TileClasses::forward(&geometry),
                TileClasses::backward(&geometry),
            ] {
                assert_eq!(keys(&classes), [0, 1, 2, 3, 4]);
            }
        }
    }
}
