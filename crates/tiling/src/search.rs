//! The recipes that the planner tries, and the fastest of those that fit.

use crate::bytes::ByteCount;
use crate::candidates::{segment_counts, stored_counts, tile_edges};
use crate::error::TilingError;
use crate::fraction::Fraction;
use crate::geometry::Geometry;
use crate::graph::SizedGraph;
use crate::memory::{PeakBytes, file_bytes};
use crate::packed::PackedWeights;
use crate::planner::{Planned, PlannerRequest, Store, storable, too_small};
use crate::recipe::{Recipe, Weights};
use crate::saved::Storage;
use crate::span::Axis;
use crate::storing::{Spared, StoreOrder};
use crate::time::{Picoseconds, TimeModel, Traffic};
use crate::work::Work;

/// The recipes that the planner tries.
pub(crate) struct Search<'a> {
    request: &'a PlannerRequest,
    time: &'a TimeModel,
    budget: u128,
    /// Within this, memory stays from step to step.
    holding: ByteCount,
    /// One tile a block.
    whole: Geometry,
    /// What may be stored.
    storable: Vec<Spared>,
}

/// Tiles, segments and when weights are packed, with the order in which nodes would be stored.
pub(crate) struct Tiling {
    geometry: Geometry,
    work: Work,
    pub(crate) order: StoreOrder,
}

impl<'a> Search<'a> {
    pub(crate) fn new(
        sized: &SizedGraph,
        request: &'a PlannerRequest,
        time: &'a TimeModel,
        budget: u128,
    ) -> Result<Self, TilingError> {
        let mut recipe = Recipe::whole(sized);
        recipe.output_block = request.output_block.unwrap_or(recipe.output_block);
        recipe.reuse = request.reuse;
        if let Store::Exactly(nodes) = &request.store {
            recipe.stored.clone_from(nodes);
        }
        let whole = Geometry::new(sized.clone(), recipe)?;
        let storable = storable(&whole, &request.store)
            .into_iter()
            .map(|node| Spared::by(node, &whole))
            .collect::<Result<_, TilingError>>()?;
        Ok(Self {
            request,
            time,
            budget,
            holding: ByteCount::saturating(budget),
            whole,
            storable,
        })
    }

    /// The same recipes, of which no memory stays that would raise their peak.
    pub(crate) fn holding_within_the_peak(self) -> Self {
        Self {
            holding: ByteCount::bytes(0),
            ..self
        }
    }

    /// Every tile, number of segments and way of packing weights.
    pub(crate) fn visit(
        &self,
        visitor: &mut dyn FnMut(&Tiling) -> Result<(), TilingError>,
    ) -> Result<(), TilingError> {
        let tiles = match self.request.tile {
            Some(tile) => vec![tile],
            None => tile_edges(&self.whole),
        };
        for tile in tiles {
            let mut recipe = self.whole.recipe().clone();
            recipe.tile = tile;
            let tiled = Geometry::new(self.whole.sized().clone(), recipe)?;
            let counts = match self.request.segments {
                // Too many segments for this tile are no error while the planner may take another.
                Some(segments)
                    if self.request.tile.is_none() && segments > tiled.fewest_bands() =>
                {
                    continue;
                }
                Some(segments) => vec![segments],
                None => segment_counts(tiled.fewest_bands()),
            };
            let work = Work::of(&tiled);
            let costs = (self.time, &self.request.memory);
            let orders = self.weights().into_iter().map(|weights| {
                let geometry = tiled.with_weights(weights);
                let order = StoreOrder::new(&geometry, &work, costs, &self.storable);
                (weights, order)
            });
            let orders: Vec<_> = orders.collect();
            for segments in counts {
                let tiled = tiled.with(segments, tiled.recipe().stored.clone())?;
                let work = Work::of(&tiled);
                for (weights, order) in &orders {
                    visitor(&Tiling {
                        work: work.clone(),
                        geometry: tiled.with_weights(*weights),
                        order: order.clone(),
                    })?;
                }
            }
        }
        Ok(())
    }

    /// When weights may be packed: where none are, that makes no difference.
    fn weights(&self) -> Vec<Weights> {
        let nothing = PackedWeights::default();
        let packed = &self.request.memory.packed_weights;
        match self.request.weights {
            Some(weights) => vec![weights],
            None if packed.iter().all(|packed| *packed == nothing) => vec![Weights::Held],
            None => Weights::ALL.to_vec(),
        }
    }

    /// The fastest recipe that fits.
    pub(crate) fn best(&self) -> Result<Planned, TilingError> {
        let mut best: Option<Planned> = None;
        let mut smallest: Option<PeakBytes> = None;
        self.visit(&mut |tiling| {
            for storage in self.storages() {
                let (order, counts) = self.stored(tiling, storage);
                let mut too_many = order.len() + 1;
                for count in counts {
                    // Storing less takes longer yet.
                    let least = self.least_time(tiling, &order, count)?;
                    if best.as_ref().is_some_and(|best| best.time <= least) {
                        break;
                    }
                    let planned = self.planned(tiling, &order, count, storage)?;
                    if !self.fits_in_file(&planned) {
                        too_many = count;
                        continue;
                    }
                    if smallest.is_none_or(|smallest| planned.peak.peak() < smallest.peak()) {
                        smallest = Some(planned.peak);
                    }
                    if planned.peak.peak() > self.budget {
                        too_many = count;
                        continue;
                    }
                    let planned = self.more_stored(tiling, &order, planned, count..too_many)?;
                    let planned = self.fill(planned, tiling, &order)?;
                    too_many = count;
                    if best.as_ref().is_none_or(|best| planned.time < best.time) {
                        best = Some(planned);
                    }
                }
            }
            Ok(())
        })?;
        match (best, smallest) {
            (Some(planned), _) => Ok(planned),
            (None, Some(smallest)) => Err(too_small(self.budget, &smallest)),
            // Only a fixed number of segments can leave nothing to try.
            (None, None) => Err(TilingError::Cut {
                what: "the number of segments",
                axis: Axis::Rows,
                found: self.request.segments.unwrap_or(0),
                maximum: self.whole.sized().image().rows,
            }),
        }
    }

    /// The recipe that stores the first `count` nodes of the order.
    pub(crate) fn planned(
        &self,
        tiling: &Tiling,
        order: &StoreOrder,
        count: usize,
        storage: Storage,
    ) -> Result<Planned, TilingError> {
        let geometry = order.storing(&tiling.geometry, count)?;
        Ok(self.planned_of(geometry, tiling, storage))
    }

    /// What follows from a recipe with the tiles and segments of `tiling`.
    fn planned_of(&self, geometry: Geometry, tiling: &Tiling, storage: Storage) -> Planned {
        let (memory, held) = (&self.request.memory, Some(self.holding));
        Planned::of_work(geometry, &tiling.work, storage, memory, held, self.time)
    }

    /// Where a recipe may save.
    pub(crate) fn storages(&self) -> impl Iterator<Item = Storage> + use<> {
        let file = self.request.file.map(|_| Storage::File);
        [Storage::Memory].into_iter().chain(file)
    }

    pub(crate) fn fits_in_file(&self, planned: &Planned) -> bool {
        let limit = self.request.file.map_or(0, ByteCount::get);
        let memory = &self.request.memory;
        file_bytes(&planned.geometry, &planned.buffers, memory) <= u128::from(limit)
    }

    fn fits(&self, planned: &Planned) -> bool {
        planned.peak.peak() <= self.budget && self.fits_in_file(planned)
    }

    /// The time of the computations alone: memory and a file add to it.
    fn least_time(
        &self,
        tiling: &Tiling,
        order: &StoreOrder,
        count: usize,
    ) -> Result<Picoseconds, TilingError> {
        let geometry = order.storing(&tiling.geometry, count)?;
        let (memory, nothing) = (&self.request.memory, Traffic::default());
        Ok(self.time.of_work(&geometry, &tiling.work, nothing, memory))
    }

    /// The order in which nodes are stored there, and how many of them to try, from all to none.
    pub(crate) fn stored(&self, tiling: &Tiling, storage: Storage) -> (StoreOrder, Vec<usize>) {
        let element = u128::from(self.request.memory.element_bytes);
        let price = |byte: u64, times: u64| {
            Fraction::new(element.saturating_mul(byte.into()), times.max(1).into())
        };
        let order = match storage {
            Storage::Memory => tiling.order.clone(),
            // What takes longer to store than to compute again is not stored.
            Storage::File => tiling.order.above(price(self.time.file_byte, 1)),
        };
        // Segments take turns in one memory.
        let segments = tiling.geometry.recipe().segments;
        let pay = order.above(price(self.time.fresh_byte, segments)).len();
        let counts = stored_counts(order.len(), pay);
        (order, counts)
    }

    /// Stores more of the order than `counts.start` nodes, which fit, and fewer than `counts.end`, if that fits and is faster; by
    /// bisection.
    fn more_stored(
        &self,
        tiling: &Tiling,
        order: &StoreOrder,
        fitting: Planned,
        counts: std::ops::Range<usize>,
    ) -> Result<Planned, TilingError> {
        let storage = fitting.buffers.storage();
        let (mut low, mut high) = (counts.start, counts.end);
        let mut fastest = fitting;
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            let planned = self.planned(tiling, order, middle, storage)?;
            if self.fits(&planned) {
                low = middle;
                if planned.time < fastest.time {
                    fastest = planned;
                }
            } else {
                high = middle;
            }
        }
        Ok(fastest)
    }

    /// Stores what else fits and saves time: nodes further down the order may be smaller, or free more than they take.
    fn fill(
        &self,
        planned: Planned,
        tiling: &Tiling,
        order: &StoreOrder,
    ) -> Result<Planned, TilingError> {
        let mut filled = planned;
        for node in order.worthwhile() {
            let mut stored = filled.geometry.recipe().stored.clone();
            if let Err(position) = stored.binary_search(&node) {
                stored.insert(position, node);
                let geometry = filled
                    .geometry
                    .with(filled.geometry.recipe().segments, stored)?;
                let more = self.planned_of(geometry, tiling, filled.buffers.storage());
                if more.time < filled.time && self.fits(&more) {
                    filled = more;
                }
            }
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::graph::{Edge, Graph, Node, NodeId, VjpReads};
    use crate::memory::{FixedBytes, MemoryRequest};
    use crate::planner::plan;
    use crate::rule::AxisRule;
    use crate::span::PerAxis;
    use crate::time::{NodeTime, TileTime};
    use crate::window::Window;

    /// A small network on a small image, a model of its time, and how much of the memory that its recipes take is allowed.
    #[derive(Debug)]
    struct Case {
        sized: SizedGraph,
        memory: MemoryRequest,
        time: TimeModel,
        share: u128,
    }

    /// Kernel, stride, channels, whether the input is added, whether the VJP reads the output.
    type Layer = (u64, u64, u64, bool, bool);

    fn graph(layers: &[Layer]) -> Graph {
        let mut graph = Graph::new(3, false);
        for &(kernel, stride, channels, residual, output) in layers {
            let source = NodeId(graph.nodes().len() - 1);
            let edge = |kernel: u64, stride| Edge {
                source,
                rule: PerAxis::both(AxisRule::Window(
                    Window::new(kernel, stride, 1, kernel / 2, kernel / 2).unwrap(),
                )),
            };
            let mut inputs = vec![edge(kernel, stride)];
            inputs.extend(residual.then(|| edge(1, stride)));
            let flops = 2 * kernel * kernel * channels * graph.nodes()[source.0].channels;
            graph
                .push(Node {
                    name: format!("node{}", source.0 + 1),
                    channels,
                    inputs,
                    forward_flops: flops,
                    vjp_flops: 2 * flops,
                    vjp_reads: VjpReads {
                        output,
                        inputs: true,
                    },
                    has_cotangent: true,
                })
                .unwrap();
        }
        let last = NodeId(graph.nodes().len() - 1);
        graph.set_outputs(vec![last]).unwrap();
        graph
    }

    fn cases() -> impl Strategy<Value = Case> {
        let odd = prop_oneof![Just(1_u64), Just(3), Just(5)];
        let layer = (odd, 1_u64..=2, 1_u64..=16, any::<bool>(), any::<bool>());
        let line =
            (0_u64..20_000, 0_u64..2_000).prop_map(|(visit, each)| TileTime::line(visit, each));
        let weights = || prop_oneof![Just(0_u128), 0_u128..30_000];
        let node = (line.clone(), line, weights(), weights());
        let few = || prop_oneof![Just(0_u64), 0_u64..300];
        (
            prop::collection::vec((layer, node), 2..=5),
            (8_u64..=24, 8_u64..=24),
            (0_u64..300, few(), few()),
            0_u128..100,
        )
            .prop_map(
                |(nodes, (rows, columns), (copied_byte, fresh_byte, packed_byte), share)| {
                    let layers: Vec<Layer> = nodes.iter().map(|node| node.0).collect();
                    let sized =
                        SizedGraph::new(graph(&layers), PerAxis::new(rows, columns)).unwrap();
                    let mut memory = MemoryRequest::new(4, 1, FixedBytes::default());
                    let mut times = vec![NodeTime::default()];
                    memory.packed_weights.push(PackedWeights::default());
                    for (_, (forward_time, vjp_time, forward, vjp)) in nodes {
                        times.push(NodeTime {
                            forward: forward_time,
                            vjp: vjp_time,
                        });
                        memory.packed_weights.push(PackedWeights {
                            forward,
                            vjp,
                            gradients: 0,
                        });
                        // As they are, and those that the backward sweep reads where others are held.
                        memory.fixed.forward_weights += forward / 2;
                        memory.fixed.backward_weights += forward / 8;
                    }
                    let time = TimeModel {
                        nodes: times,
                        copied_byte,
                        fresh_byte,
                        file_byte: 0,
                        packed_byte,
                        fixed: 0,
                        texture: Fraction::new(1, 1),
                    };
                    Case {
                        sized,
                        memory,
                        time,
                        share,
                    }
                },
            )
    }

    /// Every tile, number of segments and way of packing weights with every set of stored nodes.
    fn all(case: &Case) -> Vec<Planned> {
        let request = PlannerRequest::new(case.memory.clone());
        let search = Search::new(&case.sized, &request, &case.time, u128::MAX).unwrap();
        let mut all = Vec::new();
        let nodes = case.sized.graph().nodes().len();
        search
            .visit(&mut |tiling| {
                for set in 0..1_u32 << (nodes - 1) {
                    let stored = (1..nodes).filter(|node| set >> (node - 1) & 1 == 1);
                    let segments = tiling.geometry.recipe().segments;
                    let geometry = tiling
                        .geometry
                        .with(segments, stored.map(NodeId).collect())?;
                    let (memory, time) = (&case.memory, &case.time);
                    all.push(Planned::of(geometry, Storage::Memory, memory, None, time));
                }
                Ok(())
            })
            .unwrap();
        all
    }

    /// Which nodes are stored is found by rules of thumb. Against all sets of them, with every tile, number of segments and way of
    /// packing weights that the planner tries, it mostly takes the fastest recipe, and refuses few budgets that some set would meet.
    #[test]
    fn of_all_recipes_that_fit_few_are_faster() {
        const CASES: usize = 300;
        let mut runner = TestRunner::deterministic();
        let (mut fastest, mut nearly, mut refused, mut on_use) = (0, 0, 0, 0);
        for _ in 0..CASES {
            let case = cases().new_tree(&mut runner).unwrap().current();
            let all = all(&case);
            let peaks = || all.iter().map(|planned| planned.peak.peak());
            let (least, most) = (peaks().min().unwrap(), peaks().max().unwrap());
            let budget = least + (most - least) * case.share / 99;
            let mut request = PlannerRequest::new(case.memory.clone());
            request.budget = Some(ByteCount::saturating(budget));
            let fitting = all.iter().filter(|planned| planned.peak.peak() <= budget);
            let times = fitting.map(|planned| {
                let geometry = planned.geometry.clone();
                let (memory, time) = (&case.memory, &case.time);
                Planned::of(geometry, Storage::Memory, memory, request.budget, time).time
            });
            let best = times.min().unwrap();
            match plan(&case.sized, &request, &case.time) {
                Ok(chosen) => {
                    assert!(chosen.peak.peak() <= budget, "{case:?}");
                    assert!(chosen.time >= best, "{case:?}");
                    fastest += usize::from(chosen.time == best);
                    nearly += usize::from(chosen.time.0 <= best.0 / 10 * 11);
                    let weights = chosen.geometry.recipe().weights;
                    on_use += usize::from(weights == Weights::PackedOnUse);
                }
                Err(TilingError::BudgetTooSmall { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
        let answered = CASES - refused;
        assert!(100 * fastest >= 90 * answered, "{fastest} of {answered}");
        assert!(100 * nearly >= 98 * answered, "{nearly} of {answered}");
        assert!(100 * refused <= 5 * CASES, "{refused} of {CASES}");
        // Neither way of packing weights is without use.
        assert!(
            10 * on_use >= answered && 10 * on_use <= 9 * answered,
            "{on_use} of {answered}"
        );
    }
}
