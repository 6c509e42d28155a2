//! From a memory budget to the cheapest recipe.

use crate::buffers::{Buffers, Residual};
use crate::bytes::ByteCount;
use crate::candidates::{segment_counts, tile_edges};
use crate::cost::Cost;
use crate::error::TilingError;
use crate::fraction::Fraction;
use crate::graph::{NodeId, SizedGraph};
use crate::keeping::KeepOrder;
use crate::lifetimes::residuals;
use crate::memory::{MemoryRequest, PeakBytes, file_bytes, peak_bytes};
use crate::recipe::{Geometry, Recipe};
use crate::saved::Storage;
use crate::span::{Axis, PerAxis};

/// Which activations the planner may keep from the forward to the backward sweep.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Keep {
    /// Whichever pay under the budget.
    #[default]
    Any,
    /// Whichever pay, of these.
    Among(Vec<NodeId>),
    /// These and no others.
    Exactly(Vec<NodeId>),
}

/// What is asked of the planner; what is `None` it chooses.
#[derive(Debug, Clone)]
pub struct PlannerRequest {
    /// The most bytes that streaming may hold.
    pub budget: Option<ByteCount>,
    /// What the peak depends on besides the recipe.
    pub memory: MemoryRequest,
    /// Edge of a tile in image pixels.
    pub tile: Option<PerAxis<u64>>,
    /// Edge of a block in output positions; otherwise one block.
    pub block: Option<PerAxis<u64>>,
    /// Number of segments.
    pub segments: Option<u64>,
    /// Which activations may be kept.
    pub keep: Keep,
    /// The most bytes of a file in which what is saved may be. Without a budget it goes there, with one where that is faster
    /// than what fits in memory; with no file, never.
    pub file: Option<ByteCount>,
}

impl PlannerRequest {
    /// A request without a budget and without choices: the conventional computation.
    pub fn new(memory: MemoryRequest) -> Self {
        Self {
            budget: None,
            memory,
            tile: None,
            block: None,
            segments: None,
            keep: Keep::Any,
            file: None,
        }
    }
}

/// A recipe's geometry, its buffers, its peak and its cost.
pub type Planned = (Geometry, Buffers, PeakBytes, Cost);

/// The most bytes that one address space can hold.
const ADDRESSABLE: u128 = i64::MAX as u128;

/// FLOPs that are worth as much time as visiting one node of one tile once.
const FLOPS_PER_VISIT: u128 = 200_000;

/// FLOPs that are worth as much time as writing a byte to a file and reading it again: a gigabyte a second each way, beside
/// 50 billion FLOPs a second.
const FLOPS_PER_FILE_BYTE: u128 = 100;

/// A prediction of time in units of one FLOP: the recipe's FLOPs, 200,000 for each visit of a node of a tile
/// (starting a kernel, and copying its halos), two visits in the forward and backward sweep and one more where
/// segments are swept again, and 100 for each byte that goes to a file and back.
pub fn default_time(cost: &Cost, geometry: &Geometry) -> u128 {
    let nodes = geometry.sized().graph().nodes().len() as u128;
    let sweeps = if geometry.segments() > 1 { 3 } else { 2 };
    let visits = cost.tiles.saturating_mul(nodes).saturating_mul(sweeps);
    cost.total()
        .saturating_add(visits.saturating_mul(FLOPS_PER_VISIT))
        .saturating_add(cost.file_bytes.saturating_mul(FLOPS_PER_FILE_BYTE))
}

/// Chooses the recipe with the least predicted time whose peak is within the budget.
///
/// Without a budget, what is not chosen is left whole: without any choice the plan is one tile with every activation
/// kept, and with a choice nothing is kept unless [`Keep::Exactly`] says so. With a budget the planner tries square
/// tiles and bands of the full width from the whole image down to one total stride, segments in powers of
/// two, and for each keeps the activations that save most FLOPs per byte.
///
/// `time` predicts the time of a recipe in any integer unit; it must not rise when FLOPs fall on the same tiles.
///
/// # Errors
/// [`TilingError::BudgetTooSmall`] with the smallest peak that was found and the class of bytes that binds, and
/// whatever [`Geometry::new`] refuses of the choices that were made.
///
/// ```
/// use stream_grad_tiling::{
///     AxisRule, ByteCount, Edge, FixedBytes, Graph, MemoryRequest, Node, NodeId, PerAxis, PlannerRequest,
///     SizedGraph, VjpReads, Window, default_time, plan,
/// };
/// let mut graph = Graph::new(3, false);
/// let convolution = graph.push(Node {
///     name: "conv".into(),
///     channels: 16,
///     inputs: vec![Edge {
///         source: NodeId::IMAGE,
///         rule: PerAxis::both(AxisRule::Window(Window::new(3, 2, 1, 1, 1)?)),
///     }],
///     forward_flops: 2 * 27 * 16,
///     vjp_flops: 2 * 27 * 16,
///     vjp_reads: VjpReads { output: true, inputs: true },
///     has_cotangent: true,
/// })?;
/// graph.set_outputs(vec![convolution])?;
/// let sized = SizedGraph::new(graph, PerAxis::both(1024))?;
///
/// let mut request = PlannerRequest::new(MemoryRequest::new(4, 1, FixedBytes::default()));
/// let (_, _, whole, cost) = plan(&sized, &request, &default_time)?;
/// assert_eq!(cost.compute_ratio().to_string(), "1.000");
///
/// request.budget = Some(ByteCount::mib(48));
/// let (geometry, _, peak, _) = plan(&sized, &request, &default_time)?;
/// assert!(peak.peak() <= 48 << 20 && whole.peak() > 48 << 20);
/// assert!(geometry.recipe().tile.rows < 1024);
/// # Ok::<(), stream_grad_tiling::TilingError>(())
/// ```
pub fn plan(
    sized: &SizedGraph,
    request: &PlannerRequest,
    time: &dyn Fn(&Cost, &Geometry) -> u128,
) -> Result<Planned, TilingError> {
    match request.budget {
        None => unbudgeted(sized, request),
        Some(budget) => Search::new(sized, request, u128::from(budget.get()))?.best(time),
    }
}

/// A recipe on the front of memory against arithmetic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontPoint {
    /// The recipe.
    pub recipe: Recipe,
    /// Where it saves.
    pub storage: Storage,
    /// Its bytes.
    pub peak: PeakBytes,
    /// Its FLOPs.
    pub cost: Cost,
}

/// The recipes that no other tried recipe beats in both memory and compute ratio, by rising peak.
///
/// The budget of the request, if any, limits the front from above.
///
/// # Errors
/// As [`plan`].
pub fn pareto(
    sized: &SizedGraph,
    request: &PlannerRequest,
) -> Result<Vec<FrontPoint>, TilingError> {
    let budget = request
        .budget
        .map_or(ADDRESSABLE, |budget| u128::from(budget.get()));
    let search = Search::new(sized, request, budget)?;
    let mut points = Vec::new();
    search.visit(&mut |segmented, order| {
        // Nine lengths of the order draw the curve between nothing and everything kept.
        for eighth in 0..=8 {
            let geometry = order.keeping(segmented, order.len() * eighth / 8)?;
            for storage in search.storages() {
                let (geometry, buffers, peak, cost) =
                    measured(geometry.clone(), storage, &request.memory);
                if peak.peak() <= budget && search.fits_in_file(&geometry, &buffers) {
                    points.push(FrontPoint {
                        recipe: geometry.recipe().clone(),
                        storage,
                        peak,
                        cost,
                    });
                }
            }
        }
        Ok(())
    })?;
    points.sort_by_key(|point| (point.peak.peak(), point.cost.total()));
    let mut least: Option<Fraction> = None;
    points.retain(|point| {
        let ratio = point.cost.compute_ratio();
        let better = least.is_none_or(|least| ratio < least);
        if better {
            least = Some(ratio);
        }
        better
    });
    Ok(points)
}

fn unbudgeted(sized: &SizedGraph, request: &PlannerRequest) -> Result<Planned, TilingError> {
    let whole = Recipe::whole(sized);
    let segments = request.segments.unwrap_or(1);
    let conventional =
        request.tile.is_none() && request.block.is_none() && request.segments.is_none();
    let tile = request.tile.unwrap_or_else(|| {
        // Each segment needs a band of its own.
        let rows = whole.tile.rows.checked_div(segments).unwrap_or(1).max(1);
        PerAxis::new(rows, whole.tile.columns)
    });
    let recipe = Recipe {
        block: request.block.unwrap_or(whole.block),
        segments,
        tile,
        ..whole
    };
    let geometry = Geometry::new(sized.clone(), recipe)?;
    let kept = match &request.keep {
        Keep::Exactly(nodes) => nodes.clone(),
        Keep::Among(_) | Keep::Any if !conventional => Vec::new(),
        keep => keepable(&geometry, keep),
    };
    let storage = match request.file {
        None => Storage::Memory,
        Some(_) => Storage::File,
    };
    let planned = measured(geometry.with(segments, kept)?, storage, &request.memory);
    if let Some(limit) = request.file {
        let limit = u128::from(limit.get());
        let needed = file_bytes(&planned.0, &planned.1, &request.memory);
        if needed > limit {
            return Err(TilingError::FileTooSmall { limit, needed });
        }
    }
    if planned.2.peak() > ADDRESSABLE {
        return Err(too_small(ADDRESSABLE, &planned.2));
    }
    Ok(planned)
}

/// Every node that the backward sweep would compute again and that the request allows to keep.
fn keepable(geometry: &Geometry, keep: &Keep) -> Vec<NodeId> {
    residuals(geometry)
        .iter()
        .enumerate()
        .filter(|&(node, &residual)| node > 0 && residual == Residual::Recomputed)
        .map(|(node, _)| NodeId(node))
        .filter(|node| match keep {
            Keep::Any => true,
            Keep::Among(nodes) => nodes.contains(node),
            Keep::Exactly(_) => false,
        })
        .collect()
}

fn measured(geometry: Geometry, storage: Storage, memory: &MemoryRequest) -> Planned {
    let buffers = Buffers::stored(&geometry, storage);
    let peak = peak_bytes(&geometry, &buffers, memory);
    let cost = Cost::stored(&geometry, &buffers, memory.element_bytes);
    (geometry, buffers, peak, cost)
}

fn too_small(budget: u128, smallest: &PeakBytes) -> TilingError {
    let (binding, binding_bytes) = smallest.binding();
    TilingError::BudgetTooSmall {
        budget,
        minimum: smallest.peak(),
        binding,
        binding_bytes,
    }
}

/// The recipes that the planner tries.
struct Search<'a> {
    request: &'a PlannerRequest,
    budget: u128,
    /// One tile a block.
    whole: Geometry,
    /// What keeping each node alone saves, in FLOPs.
    saved_flops: Vec<(NodeId, u128)>,
}

impl<'a> Search<'a> {
    fn new(
        sized: &SizedGraph,
        request: &'a PlannerRequest,
        budget: u128,
    ) -> Result<Self, TilingError> {
        let mut recipe = Recipe::whole(sized);
        recipe.block = request.block.unwrap_or(recipe.block);
        if let Keep::Exactly(nodes) = &request.keep {
            recipe.kept.clone_from(nodes);
        }
        let whole = Geometry::new(sized.clone(), recipe)?;
        let recompute = Cost::of(&whole).recompute;
        let saved_flops = keepable(&whole, &request.keep)
            .into_iter()
            .map(|node| {
                let alone = Cost::of(&whole.with(1, vec![node])?).recompute;
                Ok((node, recompute.saturating_sub(alone)))
            })
            .collect::<Result<_, TilingError>>()?;
        Ok(Self {
            request,
            budget,
            whole,
            saved_flops,
        })
    }

    /// Every tile and number of segments, with the order in which nodes would be kept.
    fn visit(
        &self,
        visitor: &mut dyn FnMut(&Geometry, &KeepOrder) -> Result<(), TilingError>,
    ) -> Result<(), TilingError> {
        let tiles = match self.request.tile {
            Some(tile) => vec![tile],
            None => tile_edges(&self.whole),
        };
        for tile in tiles {
            let mut recipe = self.whole.recipe().clone();
            recipe.tile = tile;
            let tiled = Geometry::new(self.whole.sized().clone(), recipe)?;
            let order = KeepOrder::new(&tiled, &self.saved_flops);
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
            for segments in counts {
                visitor(&tiled.with(segments, tiled.recipe().kept.clone())?, &order)?;
            }
        }
        Ok(())
    }

    fn best(&self, time: &dyn Fn(&Cost, &Geometry) -> u128) -> Result<Planned, TilingError> {
        let mut best: Option<(u128, Geometry, Storage, KeepOrder)> = None;
        let mut smallest: Option<PeakBytes> = None;
        self.visit(&mut |segmented, order| {
            let everything = order.keeping(segmented, order.len())?;
            let bound = time(&Cost::of(&everything), &everything);
            if best.as_ref().is_some_and(|best| best.0 <= bound) {
                return Ok(());
            }
            for storage in self.storages() {
                let buffers = Buffers::stored(segmented, storage);
                if !self.fits_in_file(segmented, &buffers) {
                    continue;
                }
                let least = peak_bytes(segmented, &buffers, &self.request.memory);
                if smallest.is_none_or(|smallest| least.peak() < smallest.peak()) {
                    smallest = Some(least);
                }
                if least.peak() > self.budget {
                    continue;
                }
                let order = self.worth_keeping(order, storage);
                let geometry = self.most_kept(segmented, storage, &order)?;
                let buffers = Buffers::stored(&geometry, storage);
                let element = self.request.memory.element_bytes;
                let predicted = time(&Cost::stored(&geometry, &buffers, element), &geometry);
                if best.as_ref().is_none_or(|best| predicted < best.0) {
                    best = Some((predicted, geometry, storage, order));
                }
            }
            Ok(())
        })?;
        match (best, smallest) {
            (Some((_, geometry, storage, order)), _) => {
                let filled = self.fill(geometry, storage, &order)?;
                Ok(measured(filled, storage, &self.request.memory))
            }
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

    /// Where a recipe may save.
    fn storages(&self) -> impl Iterator<Item = Storage> + use<> {
        let file = self.request.file.map(|_| Storage::File);
        [Storage::Memory].into_iter().chain(file)
    }

    fn fits(&self, geometry: &Geometry, storage: Storage) -> bool {
        let buffers = Buffers::stored(geometry, storage);
        self.fits_in_file(geometry, &buffers)
            && peak_bytes(geometry, &buffers, &self.request.memory).peak() <= self.budget
    }

    fn fits_in_file(&self, geometry: &Geometry, buffers: &Buffers) -> bool {
        let limit = self.request.file.map_or(0, ByteCount::get);
        file_bytes(geometry, buffers, &self.request.memory) <= u128::from(limit)
    }

    /// The nodes whose recompute is dearer than having them stored there.
    fn worth_keeping(&self, order: &KeepOrder, storage: Storage) -> KeepOrder {
        let element = u128::from(self.request.memory.element_bytes);
        match storage {
            Storage::Memory => order.clone(),
            Storage::File => order.above(Fraction::new(FLOPS_PER_FILE_BYTE * element, 1)),
        }
    }

    /// The longest part of the order that fits, by bisection; keeping nothing is known to fit.
    fn most_kept(
        &self,
        segmented: &Geometry,
        storage: Storage,
        order: &KeepOrder,
    ) -> Result<Geometry, TilingError> {
        let (mut low, mut high) = (0, order.len() + 1);
        let mut fitting = segmented.clone();
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            let geometry = order.keeping(segmented, middle)?;
            if self.fits(&geometry, storage) {
                low = middle;
                fitting = geometry;
            } else {
                high = middle;
            }
        }
        Ok(fitting)
    }

    /// Keeps what else fits: nodes further down the order may be smaller.
    fn fill(
        &self,
        geometry: Geometry,
        storage: Storage,
        order: &KeepOrder,
    ) -> Result<Geometry, TilingError> {
        let mut filled = geometry;
        for node in order.worthwhile() {
            let mut kept = filled.recipe().kept.clone();
            if let Err(position) = kept.binary_search(&node) {
                kept.insert(position, node);
                let more = filled.with(filled.recipe().segments, kept)?;
                if self.fits(&more, storage) {
                    filled = more;
                }
            }
        }
        Ok(filled)
    }
}
